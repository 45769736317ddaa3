"""Our Glyn beside the real one, in Gleam programs on BEAM nodes."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from pyglyn import gleam, glyn
from pyglyn.errors import NoProcess, RegistrationFailed
from pyglyn.etf import Atom
from pyglyn.node import Process
from pyglyn.testing import eventually
from tests.glyn.conftest import StartNode
from tests.peers import GleamBeams

OK = Atom("ok")


@attrs.frozen
class Product:
    id: str
    name: str
    price: int


@attrs.frozen
class Item:
    product: Product
    quantity: int


@attrs.frozen
class OrderCreated:
    id: str
    items: list[Item]
    total: int


@attrs.frozen
class OrderConfirmed:
    id: str


OrderEvent = OrderCreated | OrderConfirmed


@attrs.frozen
class GetPrice:
    product: str
    reply_to: gleam.Subject[int | None]


@attrs.frozen
class SetPrice:
    product: str
    price: int


@attrs.frozen
class Stop:
    pass


Request = GetPrice | SetPrice | Stop
ORDER = OrderCreated("o1", [Item(Product("laptop", "Gaming Laptop", 20), 1)], 20)


async def test_gleam_and_python_publish_to_each_other(gleam_beams: GleamBeams, start_node: StartNode) -> None:
    beam, node = await gleam_beams.start(), await start_node()
    await node.connect(beam.name)
    orders: glyn.PubSub[Any] = glyn.PubSub(node, "example", OrderEvent)
    subscriber = await beam.eval('pyglyn_interop@subscriber:start(<<"example">>, <<"orders">>)')
    async with node.process() as me:
        subscription = await orders.subscribe(me, "orders")
        count = 'pyglyn_interop@publisher:count(<<"example">>, <<"orders">>) =:= 2'
        await eventually(lambda: beam.eval(count))

        async def both() -> bool:
            return await orders.subscriber_count("orders") == 2

        await eventually(both)
        publish = 'pyglyn_interop@publisher:publish(<<"example">>, <<"orders">>, E)'
        assert await beam.eval(publish, E=gleam.encode(ORDER)) == (OK, 2)
        assert await subscription.receive(5) == ORDER
        assert await orders.publish("orders", OrderConfirmed("o1")) == 2
        assert await subscription.receive(5) == OrderConfirmed("o1")
        seen = [gleam.encode(ORDER), gleam.encode(OrderConfirmed("o1"))]
        same = "pyglyn_interop@subscriber:events(S) =:= Seen"
        await eventually(lambda: beam.eval(same, S=subscriber, Seen=seen))
        assert await beam.eval(publish, E=Atom("nonsense")) == (OK, 2)
        await eventually(lambda: orders.undecodable == 1)
        seen.append(Atom("undecodable"))
        await eventually(lambda: beam.eval(same, S=subscriber, Seen=seen))
        await beam.eval("pyglyn_interop@subscriber:unsubscribe(S)", S=subscriber)
        await subscription.unsubscribe()
        none = 'pyglyn_interop@publisher:count(<<"example">>, <<"orders">>) =:= 0'
        await eventually(lambda: beam.eval(none))


async def test_python_asks_a_gleam_server_by_its_name(gleam_beams: GleamBeams, start_node: StartNode) -> None:
    beam, node = await gleam_beams.start(), await start_node()
    await node.connect(beam.name)
    services: glyn.Registry[Any] = glyn.Registry(node, "services", Request, metadata=str)
    _, (_, pid) = await beam.eval('pyglyn_interop@pricing:start(<<"services">>, <<"pricing">>, <<"v1">>)')

    async def found() -> bool:
        try:
            return await services.whereis("pricing") == (pid, "v1")
        except NoProcess:
            return False

    await eventually(found)

    async def price(product: str) -> Any:
        return await services.call("pricing", lambda reply: GetPrice(product, reply), reply=int | None)

    assert await price("laptop") == 20
    await services.send("pricing", SetPrice("laptop", 25))
    assert await price("laptop") == 25
    assert await price("nothing") is None
    async with node.process() as me:
        with pytest.raises(RegistrationFailed):
            await services.register(me, "pricing", "mine")
    await services.send("pricing", Stop())
    await eventually(lambda: _is_gone(services))


async def _is_gone(services: glyn.Registry[Any]) -> bool:
    try:
        await services.whereis("pricing")
    except NoProcess:
        return True
    return False


async def test_gleam_asks_a_python_server_by_its_name(gleam_beams: GleamBeams, start_node: StartNode) -> None:
    beam, node = await gleam_beams.start(), await start_node()
    await node.connect(beam.name)
    services: glyn.Registry[Any] = glyn.Registry(node, "services", Request)
    reply_type = gleam.encoder(int | None)

    async def serve(me: Process) -> None:
        prices = {"laptop": 20}
        async for request in await services.register(me, "pricing", "python"):
            match request:
                case GetPrice(product, reply_to):
                    me.send(reply_to.owner, (reply_to.tag, reply_type.encode(prices.get(product))))
                case SetPrice(product, amount):
                    prices[product] = amount
                case Stop():
                    return

    server = node.spawn(serve)
    await beam.eval("syn:add_node_to_scopes([services])")
    ask = 'pyglyn_interop@pricing:ask(<<"services">>, <<"pricing">>, P, 2000)'
    await eventually(lambda: beam.eval(f"{ask} =:= {{ok, {{some, 20}}}}", P=b"laptop"))
    tell = 'pyglyn_interop@pricing:tell(<<"services">>, <<"pricing">>, <<"laptop">>, 25)'
    assert await beam.eval(tell) == (OK, None)
    assert await beam.eval(ask, P=b"laptop") == (OK, (Atom("some"), 25))
    assert await beam.eval(ask, P=b"mouse") == (OK, Atom("none"))
    where = await beam.eval('pyglyn_interop@pricing:whereis(<<"services">>, <<"pricing">>)')
    assert where == (OK, (server, b"python"))
    await beam.eval('pyglyn_interop@pricing:stop(<<"services">>, <<"pricing">>)')
    gone = (Atom("error"), (Atom("process_not_found"), b"pricing"))
    await eventually(lambda: beam.eval(f"{ask} =:= Gone", P=b"laptop", Gone=gone))
