"""The two services of ``examples/distributed_nodes``, run as their first lines say, in any mix with Gleam."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from pathlib import Path

from pyglyn.etf import Atom, text
from pyglyn.testing import eventually
from tests.cli.test_cli import Program, pyglyn, run
from tests.node.conftest import unique_name

ROOT = Path(__file__).parents[2]
BUY = ("shop", "buy", '<<"order_001">>', '<<"laptop">>', "2")


def service(app: str, name: str, cookie: str, *connect: str) -> AbstractAsyncContextManager[Program]:
    connected = [word for node in connect for word in ("--connect", node)]
    where = f"examples.distributed_nodes.{app}:app"
    return pyglyn("node", "--sname", name, "--cookie", cookie, "--app", where, *connected, cwd=ROOT)


async def test_two_python_services(epmd):
    inventory, order = unique_name("inventory"), unique_name("order")
    async with service("inventory", inventory, "example") as stock:
        await stock.says("inventory_001 #1: InventoryInitialized")
        async with service("order", order, "example", inventory) as orders:
            await stock.says(f"{order} is up")
            await orders.says("tree_1 started")
            assert await run("call", order, *BUY, "--cookie", "example") == (0, "3000\n")
            await orders.says("order order_001 reached 1 service")
            await stock.says("order order_001: 2 Gaming Laptop, 3000 in total")
            restock = ("shop", "restock", '<<"laptop">>', "2")
            assert await run("call", inventory, *restock, "--cookie", "example") == (0, "52\n")
            await stock.says("inventory_001 #2: ItemRestocked")


async def test_the_python_inventory_hears_a_gleam_order_service(gleam_beams):
    gleam = await gleam_beams.start("order")
    async with service("inventory", unique_name("inventory"), gleam.cookie, gleam.name) as stock:
        await stock.says("tree_1 started")
        orders = await gleam.eval('pyglyn_interop@order_service:start(<<"example">>)')
        await eventually(lambda: gleam.eval('syn:member_count(example, <<"inventory">>) =:= 1'))
        create = text.parse(
            '{create_order, <<"order_001">>, [{item, {product, <<"laptop">>, <<"Gaming Laptop">>, 20}, 2}]}'
        )
        execute = 'pyglyn_interop@order_service:execute(S, <<"order_001">>, Command)'
        assert await gleam.eval(execute, S=orders, Command=create) == (Atom("ok"), None)
        await stock.says("order order_001: 2 Gaming Laptop, 40 in total")


async def test_the_python_order_service_is_heard_by_a_gleam_inventory(gleam_beams):
    gleam = await gleam_beams.start("inventory")
    stock = await gleam.eval('pyglyn_interop@inventory_service:start(<<"example">>)')
    name = unique_name("order")
    async with service("order", name, gleam.cookie, gleam.name) as orders:
        await orders.says("tree_1 started")
        await eventually(lambda: gleam.eval("[N] = nodes(hidden), N =:= Name", Name=Atom(name)))
        await orders.says(f"{gleam.name} is up")
        assert await run("call", name, *BUY, "--cookie", gleam.cookie) == (0, "3000\n")
        await orders.says("order order_001 reached 1 service")
        seen = (
            '[{<<"order_001">>, [E]}] = pyglyn_interop@inventory_service:seen(S), element(1, element(4, E))'
        )
        await eventually(lambda: gleam.eval(f"{seen} =:= order_created", S=stock))
