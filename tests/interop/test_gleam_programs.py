"""The Gleam programs do among themselves what the tests of our Glyn take for granted."""

from __future__ import annotations

from pyglyn.etf import Atom, Term
from pyglyn.testing import Beam, eventually
from tests.peers import GleamBeams

ORDER = (
    Atom("order_created"),
    b"o1",
    [(Atom("item"), (Atom("product"), b"laptop", b"Gaming Laptop", 20), 1)],
    20,
)


async def connected(beams: GleamBeams, first: str, second: str) -> tuple[Beam, Beam]:
    one, other = await beams.start(first), await beams.start(second)
    assert await one.eval("net_adm:ping(N)", N=Atom(other.name)) == Atom("pong")
    return one, other


async def test_a_subscriber_gets_what_is_published_on_another_node(gleam_beams: GleamBeams) -> None:
    one, other = await connected(gleam_beams, "one", "other")
    subscriber = await one.eval('pyglyn_interop@subscriber:start(<<"example">>, <<"orders">>)')
    count = 'pyglyn_interop@publisher:count(<<"example">>, <<"orders">>)'
    await eventually(lambda: other.eval(f"{count} =:= 1"))
    publish = 'pyglyn_interop@publisher:publish(<<"example">>, <<"orders">>, Event)'
    confirmed: Term = (Atom("order_confirmed"), b"o1")
    for event in (ORDER, confirmed, Atom("nonsense")):
        assert await other.eval(publish, Event=event) == (Atom("ok"), 1)
    seen = [ORDER, confirmed, Atom("undecodable")]
    await eventually(
        lambda: one.eval("pyglyn_interop@subscriber:events(S) =:= Seen", S=subscriber, Seen=seen)
    )
    await one.eval("pyglyn_interop@subscriber:unsubscribe(S)", S=subscriber)
    await eventually(lambda: other.eval(f"{count} =:= 0"))


async def test_a_server_is_called_through_the_registry_from_another_node(gleam_beams: GleamBeams) -> None:
    one, other = await connected(gleam_beams, "one", "other")
    start = 'pyglyn_interop@pricing:start(<<"services">>, <<"pricing">>, <<"v1">>)'
    started = await one.eval(start)
    assert started[0] == Atom("ok")
    ask = 'pyglyn_interop@pricing:ask(<<"services">>, <<"pricing">>, <<"laptop">>, 1000)'
    await eventually(lambda: other.eval(f"{ask} =:= {{ok, {{some, 20}}}}"))
    tell = 'pyglyn_interop@pricing:tell(<<"services">>, <<"pricing">>, <<"laptop">>, 25)'
    assert await other.eval(tell) == (Atom("ok"), None)
    assert await other.eval(ask) == (Atom("ok"), (Atom("some"), 25))
    assert await other.eval('pyglyn_interop@pricing:whereis(<<"services">>, <<"pricing">>)') == (
        Atom("ok"),
        (started[1][1], b"v1"),
    )
    assert (await other.eval(start))[0] == Atom("error")
    await other.eval('pyglyn_interop@pricing:stop(<<"services">>, <<"pricing">>)')
    gone = (Atom("error"), (Atom("process_not_found"), b"pricing"))
    await eventually(lambda: other.eval(f"{ask} =:= Gone", Gone=gone))


async def test_an_aggregate_is_called_through_the_registry_from_another_node(gleam_beams: GleamBeams) -> None:
    bank, teller = await connected(gleam_beams, "bank", "teller")
    await bank.eval('pyglyn_interop@bank_service:start(<<"example">>, <<"bank">>)')
    found = 'element(1, pyglyn_interop@bank_client:whereis(<<"example">>, <<"bank">>)) =:= ok'
    await eventually(lambda: teller.eval(found))
    execute = 'pyglyn_interop@bank_client:execute(<<"example">>, <<"bank">>, <<"a">>, Command, [], 5000)'
    for command in ((Atom("open_account"), b"a"), (Atom("deposit_money"), 10.0)):
        assert await teller.eval(execute, Command=command) == (Atom("ok"), (Atom("ok"), None))
    refused = (Atom("error"), (Atom("domain_error"), b"the withdrawal is refused"))
    withdrawn = await teller.eval(execute, Command=(Atom("with_draw_money"), 99.0))
    assert withdrawn == (Atom("ok"), refused)
    add_half = 'pyglyn_interop@bank_client:add_half(<<"example">>, <<"bank">>, <<"a">>, 5000)'
    assert await teller.eval(add_half) == (Atom("ok"), 15.0)
    load = 'pyglyn_interop@bank_client:load(<<"example">>, <<"bank">>, <<"a">>, 5000)'
    account = (Atom("bank_account"), True, 15.0)
    assert await teller.eval(load) == (Atom("ok"), (Atom("ok"), (Atom("aggregate"), b"a", account, 3)))


async def test_an_order_reaches_the_inventory_service_on_another_node(gleam_beams: GleamBeams) -> None:
    inventory, order = await connected(gleam_beams, "inventory", "order")
    stock = await inventory.eval('pyglyn_interop@inventory_service:start(<<"example">>)')
    orders = await order.eval('pyglyn_interop@order_service:start(<<"example">>)')
    await eventually(lambda: order.eval('syn:member_count(example, <<"inventory">>) =:= 1'))

    open_stock = (Atom("initialize_inventory"), [(Atom("item"), b"laptop", b"Gaming Laptop", 5, 0)])
    execute = 'pyglyn_interop@inventory_service:execute(S, <<"inventory_001">>, Command, [])'
    assert await inventory.eval(execute, S=stock, Command=open_stock) == (Atom("ok"), None)
    create = (Atom("create_order"), b"o1", ORDER[2])
    execute = 'pyglyn_interop@order_service:execute(S, <<"order_001">>, Command)'
    assert await order.eval(execute, S=orders, Command=create) == (Atom("ok"), None)

    reached = "pyglyn_interop@order_service:reached(S) =:= [{ok, 1}]"
    await eventually(lambda: order.eval(reached, S=orders))
    own = (
        Atom("memory_store_event_envelop"),
        b"inventory_001",
        1,
        (Atom("inventory_initialized"), open_stock[1]),
        [],
    )
    # The receiver has a type of its own for the items of an order.
    items = [(Atom("order_item"), *item[1:]) for item in ORDER[2]]
    foreign = (Atom("memory_store_event_envelop"), b"order_001", 1, (*ORDER[:2], items, ORDER[3]), [])
    seen = [(b"inventory_001", [own]), (b"order_001", [foreign])]
    query = "pyglyn_interop@inventory_service:seen(S) =:= Seen"
    await eventually(lambda: inventory.eval(query, S=stock, Seen=seen))
