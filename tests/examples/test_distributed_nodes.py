"""The two services of ``examples/distributed_nodes``: as Gleam's ``eventsourcing_glyn`` has them, in any mix.

What those printed and answered is recorded here; where ``gleam`` and their sources are at hand, they run, as
they are.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from pyglyn.etf import Atom, text
from pyglyn.node import Node
from pyglyn.testing import eventually
from tests.cli.test_cli import Program, pyglyn, run
from tests.examples.services import RECORDED, transcript
from tests.node.conftest import unique_name
from tests.peers import ServiceBeams

ROOT = Path(__file__).parents[2]
COOKIE = "example"

INVENTORY_PRINTS = """\
🏪 Starting Inventory Service...
📦 Demo inventory initialized with laptops, mice, and keyboards
📥 Query actor received 1 events for aggregate: inventory_001
📦 Inventory initialized with items:
   - Gaming Laptop (qty: 10)
   - Gaming Mouse (qty: 50)
   - Gaming Keyboard (qty: 30)
📥 Query actor received 1 events for aggregate: order_001
🛒 New order created: order_001
   - Gaming Laptop (qty: 1) | Total: 40
   - Gaming Mouse (qty: 2) | Total: 40
"""
ORDER_PRINTS = """\
🚀 Starting Order Service...
🔗 Connected to inventory service
🛒 Order created: order_001, requesting inventory reservation
📦 Demo order created: order_001 with laptop and mouse
"""
ALONE_PRINTS = ORDER_PRINTS.replace(
    "🔗 Connected to inventory service", "⚠️  Could not connect to inventory service"
)


def service(
    app: str, name: str, cookie: str = COOKIE, inventory: str = "nobody@localhost"
) -> AbstractAsyncContextManager[Program]:
    where = f"examples.distributed_nodes.{app}:app"
    args = ("node", "--sname", name, "--cookie", cookie, "--app", where, "--log-level", "error")
    return pyglyn(*args, cwd=ROOT, env={"INVENTORY_NODE": inventory})


def printed(output: str, app: str) -> str:
    """What a service printed, with the line of its demo second to where it is when nothing else is slow.

    That line comes from another process than those of the query.
    """
    lines = [line for line in output.splitlines(keepends=True) if re.match(r"[^\x00-\x7f]|   - ", line)]
    demo = [line for line in lines if line.startswith("📦 Demo")]
    rest = [line for line in lines if line not in demo]
    place = 1 if app == "inventory" else len(rest)
    return "".join(rest[:place] + demo + rest[place:])


async def prints(output: Callable[[], str], app: str, expected: str) -> None:
    """Wait until a service has printed exactly that."""

    def as_expected() -> bool:
        assert printed(output(), app) == expected, output()
        return True

    await eventually(as_expected, 20)


async def test_two_python_services_print_what_the_gleam_ones_do(epmd):
    inventory, order = unique_name("inventory"), unique_name("order")
    async with service("inventory", inventory) as stock:
        await stock.says("Gaming Keyboard")
        async with service("order", order, inventory=inventory) as orders:
            await prints(lambda: stock.output, "inventory", INVENTORY_PRINTS)
            await prints(lambda: orders.output, "order", ORDER_PRINTS)
            buy = ("shop", "buy", '<<"order_002">>', '<<"laptop">>', "2")
            assert await run("call", order, *buy, "--cookie", COOKIE) == (0, "40\n")
            await orders.says("🛒 Order created: order_002, requesting inventory reservation")
            await stock.says("🛒 New order created: order_002")
            restock = ("shop", "restock", '<<"laptop">>', "2")
            assert await run("call", inventory, *restock, "--cookie", COOKIE) == (0, "12\n")
            await stock.says("events for aggregate: inventory_001(?s:.*)events for aggregate: inventory_001")


async def test_an_order_service_without_an_inventory_says_so(epmd):
    async with service("order", unique_name("order")) as orders:
        await prints(lambda: orders.output, "order", ALONE_PRINTS)


async def test_an_order_service_finds_an_inventory_that_comes_later(epmd):
    inventory, order = unique_name("inventory"), unique_name("order")
    async with service("order", order, inventory=inventory) as orders:
        await prints(lambda: orders.output, "order", ALONE_PRINTS)
        async with service("inventory", inventory) as stock, Node(unique_name(), cookie=COOKIE) as node:
            await stock.says("Gaming Keyboard")
            await node.connect(order)
            names = []

            async def heard() -> bool:
                names.append(name := secrets.token_hex(4))
                bought = await node.rpc(order, "shop", "buy", [name.encode(), b"laptop", 2])
                assert bought == 40
                return any(f"New order created: {name}" in stock.output for name in names)

            await eventually(heard, 20)


async def test_python_services_answer_every_command_as_the_gleam_ones_did(epmd):
    recorded = RECORDED.read_text().splitlines()
    inventory, order = unique_name("inventory"), unique_name("order")
    async with (
        service("inventory", inventory) as stock,
        service("order", order) as orders,
        Node(unique_name(), cookie=COOKIE) as node,
    ):
        await stock.says("Demo")
        await orders.says("Demo")
        answered = [
            *await transcript(node, {"inventory_service": "inventory_service"}, inventory),
            *await transcript(node, {"order_service": "order_service"}, order),
        ]
    assert answered == recorded


# --- with the services of eventsourcing_glyn themselves --------------------------------------------------


@asynccontextmanager
async def gleam_service(beams: ServiceBeams, app: str) -> AsyncIterator[Callable[[], str]]:
    beam = await beams.start(f"{app}_service", f"{app}@localhost")
    try:
        yield beam.log
    finally:
        beam.kill()


@asynccontextmanager
async def python_service(app: str, cookie: str) -> AsyncIterator[Callable[[], str]]:
    async with service(app, f"{app}@localhost", cookie, "inventory@localhost") as program:
        yield lambda: program.output


@pytest.mark.parametrize("order", ["python", "gleam"])
@pytest.mark.parametrize("inventory", ["python", "gleam"])
async def test_services_of_either_language_take_each_others_place(service_beams, inventory, order):
    async with AsyncExitStack() as stack:

        async def start(app: str, language: str) -> Callable[[], str]:
            if language == "gleam":
                return await stack.enter_async_context(gleam_service(service_beams, app))
            return await stack.enter_async_context(python_service(app, service_beams.cookie))

        stock = await start("inventory", inventory)
        await eventually(lambda: "Gaming Keyboard" in stock(), 20)
        orders = await start("order", order)
        await prints(orders, "order", ORDER_PRINTS)
        await prints(stock, "inventory", INVENTORY_PRINTS)


async def test_the_gleam_services_answer_as_recorded(service_beams):
    """The inventory stays: the query of an order that nobody hears ends, and the whole service at the third."""
    answered = []
    async with Node(unique_name(), cookie=service_beams.cookie) as node:
        for app in ("inventory", "order"):
            beam = await service_beams.start(f"{app}_service", f"{app}@localhost")
            await eventually(lambda beam=beam: "Demo" in beam.log(), 20)
            names: Any = await beam.eval("registered()")
            [name] = [str(name) for name in names if str(name).startswith(f"{app}_service$")]
            answered += await transcript(node, {f"{app}_service": name}, beam.name)
    assert answered == RECORDED.read_text().splitlines()


# --- with the programs of pyglyn/interop/gleam ------------------------------------------------------------------


async def test_the_python_inventory_hears_another_gleam_order_service(gleam_beams):
    gleam, stock_name = await gleam_beams.start("order"), unique_name("inventory")
    async with service("inventory", stock_name, gleam.cookie) as stock:
        await stock.says("Gaming Keyboard")
        orders = await gleam.eval('pyglyn_interop@order_service:start(<<"example">>)')
        assert await gleam.eval("net_kernel:connect_node(N)", N=Atom(stock_name)) is True
        await eventually(lambda: gleam.eval('syn:member_count(example, <<"inventory">>) =:= 1'))
        create = text.parse(
            '{create_order, <<"order_001">>, [{item, {product, <<"laptop">>, <<"Gaming Laptop">>, 20}, 2}]}'
        )
        execute = 'pyglyn_interop@order_service:execute(S, <<"order_001">>, Command)'
        assert await gleam.eval(execute, S=orders, Command=create) == (Atom("ok"), None)
        await stock.says(re.escape("   - Gaming Laptop (qty: 2) | Total: 40"))


async def test_the_python_order_service_is_heard_by_another_gleam_inventory(gleam_beams):
    gleam = await gleam_beams.start("inventory")
    stock = await gleam.eval('pyglyn_interop@inventory_service:start(<<"example">>)')
    async with service("order", unique_name("order"), gleam.cookie, gleam.name) as orders:
        await orders.says("Connected")
        heard = """case pyglyn_interop@inventory_service:seen(S) of
            [{<<"order_001">>, [E]}] -> element(1, element(4, E)) =:= order_created;
            [] -> false
        end"""
        await eventually(lambda: gleam.eval(heard, S=stock), 20)
