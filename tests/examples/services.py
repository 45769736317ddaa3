"""What the example services are told and how they answer, whichever language they are in.

`services.eterm` is what the two services of Gleam's ``eventsourcing_glyn`` 1.0.0 answered, a command a line:
``{Service, Id, Command, Answer, Aggregate, NewEvents}``. Messages are those of Gleam's ``eventsourcing`` 9.1.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pyglyn.etf import Atom, Reference, Term, text
from pyglyn.node import Node
from pyglyn.node.calls import exchange

RECORDED = Path(__file__).with_name("services.eterm")

LAPTOP = '{item,<<"laptop">>,<<"Gaming Laptop">>,10,0}'
PEN = '{item,<<"pen">>,<<"Pen">>,3,0}'
ORDERED = '[{item,{product,<<"laptop">>,<<"Gaming Laptop">>,20},1},{item,{product,<<"pen">>,<<"Pen">>,7},3}]'
COMMANDS = [
    *(
        ("inventory_service", "other", command)
        for command in (
            '{reserve_stock,<<"laptop">>,1,<<"o1">>}',
            '{restock_item,<<"laptop">>,1}',
            f"{{initialize_inventory,[{LAPTOP},{PEN}]}}",
            f"{{initialize_inventory,[{PEN}]}}",
            '{reserve_stock,<<"laptop">>,4,<<"o1">>}',
            '{reserve_stock,<<"laptop">>,6,<<"o2">>}',
            '{reserve_stock,<<"laptop">>,1,<<"o3">>}',
            '{reserve_stock,<<"chair">>,1,<<"o4">>}',
            '{confirm_reservation,<<"laptop">>,4,<<"o1">>}',
            '{release_reservation,<<"laptop">>,6,<<"o2">>}',
            '{confirm_reservation,<<"chair">>,1,<<"o4">>}',
            '{release_reservation,<<"chair">>,1,<<"o4">>}',
            '{restock_item,<<"pen">>,5}',
            '{restock_item,<<"chair">>,5}',
            '{reserve_stock,<<"pen">>,8,<<"o5">>}',
        )
    ),
    *(
        ("order_service", id, command.replace("ID", f'<<"{id}">>'))
        for id, commands in {
            "a": ("{confirm_order,ID}", f"{{create_order,ID,{ORDERED}}}", f"{{create_order,ID,{ORDERED}}}",
                  "{confirm_order,ID}", '{cancel_order,ID,<<"late">>}'),
            "b": ('{cancel_order,ID,<<"early">>}', "{create_order,ID,[]}", '{cancel_order,ID,<<"broke">>}',
                  "{confirm_order,ID}"),
        }.items()
        for command in commands
    ),
]  # fmt: skip


async def ask(node: Node, service: tuple[str, str], request: tuple[Term, ...]) -> Term:
    """Ask a service as a Gleam program does that knows its name; ``service`` is the name and the node."""
    name = Atom(service[0])

    def message(ref: Reference) -> Term:
        return (name, (*request, (Atom("subject"), node.system.pid, ref)))

    return await exchange(node.system, (name, service[1]), message, 20.0)


async def transcript(node: Node, names: dict[str, str], where: str) -> list[str]:
    """Give a node's services all the commands; the lines of what they answered.

    Args:
        names: what each service is registered as.
    """
    lines: list[str] = []
    seen: dict[str, int] = {}
    for service, id, command in COMMANDS:
        if service not in names:
            continue
        at, key = (names[service], where), id.encode()
        execute: tuple[Term, ...] = (Atom("execute_command_with_response"), key, text.parse(command), [])
        answer = await ask(node, at, execute)
        aggregate = await ask(node, at, (Atom("load_aggregate"), key))
        loaded = await ask(node, at, (Atom("load_all_events"), key))
        assert isinstance(loaded, tuple)
        envelopes: Any = loaded[1]
        new: Term = [
            envelope[3] for envelope in envelopes[seen.get(id, 0) :]
        ]  # metadata are the service's own
        seen[id] = len(envelopes)
        line: Term = (Atom(service), key, text.parse(command), answer, aggregate, new)
        lines.append(text.format(line) + ".")
    return lines
