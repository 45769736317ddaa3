"""Events over Glyn: the two services of ``examples/distributed_nodes`` beside peers that play either role.

The Erlang peer speaks what the wire shows of syn and of glyn 2.0.3 (`interop/erlang/glyn_peer.erl`); the Gleam
peers are the programs of `pyglyn/interop/gleam` on the published packages and a real syn.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import attrs
import pytest
import pytest_asyncio

from examples.distributed_nodes import order, orders, stock
from pyglyn import etf
from pyglyn import eventsourcing as es
from pyglyn.errors import VersionConflict
from pyglyn.etf import Atom, Term, text
from pyglyn.eventsourcing import glyn
from pyglyn.eventsourcing.domain import wire
from pyglyn.gleam import NamedSubject
from pyglyn.node import Node
from pyglyn.testing import eventually
from tests.node.conftest import unique_name

INTEROP = Path(__file__).parents[2] / "interop" / "erlang"
LAPTOP = orders.Product("laptop", "Gaming Laptop", 20)
CREATE = orders.CreateOrder("o1", [orders.Item(LAPTOP, 2)])
CREATED = '{order_created, <<"o1">>, [{item, {product, <<"laptop">>, <<"Gaming Laptop">>, 20}, 2}], 40}'
OPEN = stock.InitializeInventory([stock.Item("laptop", "Gaming Laptop", 5, 0)])
OPENED = '{inventory_initialized, [{item, <<"laptop">>, <<"Gaming Laptop">>, 5, 0}]}'

Seen = list[tuple[str, list[Any]]]


def inventory_at(
    node: Node, name: Any = "inventory_service"
) -> es.Service[stock.State, stock.Command, stock.Event]:
    return es.Service(node, name, events=stock.Event, state=stock.State)


def orders_at(node: Node) -> es.Service[orders.State, orders.Command, orders.Event]:
    return es.Service(node, "order_service", events=orders.Event, state=orders.State)


async def inventory_service(node: Node, seen: Seen, *, url: str = "memory:", scope: str = "example") -> None:
    """Start the Python inventory service, with a query that remembers."""
    config = glyn.GlynConfig(pubsub_scope=scope, pubsub_group="inventory")
    events = es.open_store(url, events=stock.Event, state=stock.State, aggregate_type="inventory")

    async def order_coordination(aggregate_id: str, envelopes: list[Any]) -> None:
        seen.append((aggregate_id, envelopes))

    store = await glyn.start(node, config, events, [("order_coordination", order_coordination)], stock.Event)
    made = es.service(
        "inventory_service",
        store,
        handle=stock.handle,
        apply=stock.apply,
        empty_state=stock.InventoryNotFound(),
    )
    await es.start(node, attrs.evolve(made, causation=False))


async def test_what_cannot_be_broadcast_is_not_committed(epmd):
    """Neither by an append nor in a transaction; the store below would take it."""
    events: es.EventStore[Any, Any] = es.MemoryStore("order")
    async with Node(unique_name(), cookie="eventsourcing") as node:
        config = glyn.GlynConfig(pubsub_scope="example", pubsub_group="order")
        store = await glyn.start(node, config, events, event_decoder=orders.Event)
        bad: Any
        for bad in (orders.OrderConfirmed(1), orders.OrderConfirmed("\ud800"), object()):  # type: ignore[arg-type]
            with pytest.raises(es.EventEncodeError):
                await store.append("a", [orders.OrderConfirmed("o1"), bad], expected=0)
            with pytest.raises(es.EventEncodeError):
                async with store.transaction() as tx:
                    await tx.append("a", [bad], expected=0)
        assert await events.last_position() == 0


async def order_service(node: Node, reached: list[int], *, url: str = "memory:") -> glyn.GlynStore[Any, Any]:
    """Start the Python order service, whose query publishes each new order to group ``inventory``."""
    events = es.open_store(url, events=orders.Event, state=orders.State, aggregate_type="order")
    store = await glyn.start(node, order.CONFIG, events, event_decoder=orders.Event)

    async def coordination(aggregate_id: str, envelopes: list[Any]) -> None:
        for envelope in envelopes:
            if isinstance(envelope.payload, orders.OrderCreated):
                message = es.ProcessEvents(aggregate_id, [envelope])
                reached.append(await glyn.publish(store, "inventory", message))

    made = es.service(
        "order_service",
        store,
        handle=orders.handle,
        apply=orders.apply,
        empty_state=orders.NotFound(),
        queries=[("inventory_coordination", coordination)],
    )
    await es.start(node, attrs.evolve(made, causation=False))
    return store


@pytest_asyncio.fixture
async def node(beam) -> AsyncIterator[Node]:
    async with Node(unique_name(), cookie=beam.cookie) as running:
        await beam.load(INTEROP / "glyn_peer.erl")
        await beam.eval("glyn_peer:start(example)")
        await running.connect(beam.name)
        yield running


@pytest.mark.parametrize("url", ["memory:", "sqlite:{}/orders.db"], ids=["memory", "serialized"])
async def test_an_erlang_inventory_gets_exactly_the_term_of_gleam(beam, node, tmp_path, url):
    reached: list[int] = []
    store = await order_service(node, reached, url=url.format(tmp_path))
    inventory = await beam.eval('glyn_peer:subscribe(example, <<"inventory">>)')
    await eventually(lambda: _reached(store, "inventory", 1))
    await orders_at(node).execute("order_001", CREATE, metadata=[("k", "v")])
    await eventually(lambda: reached == [1])

    kind, names = ("memory_store_event_envelop", "")
    if url != "memory:":
        kind, names = "serialized_event_envelop", ', <<"orderEvent">>, <<"1.0">>, <<"order">>'
    metadata = '[{<<"k">>, <<"v">>}]'
    expected = (
        f'{{<<"inventory">>, {{process_events, <<"order_001">>, [{{{kind}, <<"order_001">>, 1, {CREATED}, '
        f"{metadata}{names}}}]}}}}"
    )
    await eventually(lambda: beam.eval(f"glyn_peer:received(P) =:= [{expected}]", P=inventory))
    # Byte for byte: what we put on the wire, and term_to_binary of the expected term.
    [envelope] = await orders_at(node).load_events("order_001")
    published = (b"inventory", store.term(es.ProcessEvents("order_001", [envelope])))
    # The minor version that OTP 26 made the default, and that every OTP uses between nodes: atoms in UTF-8.
    peers_bytes = await beam.eval(f"term_to_binary({expected}, [{{minor_version, 2}}])")
    assert etf.encode(published) == peers_bytes


async def _reached(store: glyn.GlynStore[Any, Any], group: str, count: int) -> bool:
    return len(await glyn.subscribers(store, group)) == count


async def test_an_erlang_order_service_reaches_the_python_inventory(beam, node):
    seen: Seen = []
    await inventory_service(node, seen)
    await eventually(lambda: beam.eval('length(glyn_peer:members(example, <<"inventory">>)) =:= 1'))
    memory = f'{{memory_store_event_envelop, <<"order_001">>, 1, {CREATED}, [{{<<"k">>, <<"v">>}}]}}'
    serialized = (
        f'{{serialized_event_envelop, <<"order_002">>, 1, {CREATED}, [{{<<"k">>, <<"v">>}}], <<"OrderEvent">>, '
        '<<"1.0">>, <<"order">>}'
    )
    publish = 'glyn_peer:publish(example, <<"inventory">>, {process_events, Id, [Envelope]})'
    assert await beam.eval(publish, Id=b"order_001", Envelope=text.parse(memory)) == 1
    assert await beam.eval(publish, Id=b"order_002", Envelope=text.parse(serialized)) == 1
    # Glyn after 2.0.3 sends the message without the group.
    untagged = '[P ! {process_events, Id, [Envelope]} || P <- glyn_peer:members(example, <<"inventory">>)]'
    await beam.eval(untagged, Id=b"order_003", Envelope=text.parse(memory.replace("order_001", "order_003")))
    await eventually(lambda: len(seen) == 3)
    product = orders.Product("laptop", "Gaming Laptop", 20)
    payload = stock.OrderCreated("o1", [orders.Item(product, 2)], 40)
    metadata = [("k", "v")]
    assert seen == [
        ("order_001", [es.MemoryStoreEventEnvelop("order_001", 1, payload, metadata)]),
        (
            "order_002",
            [es.SerializedEventEnvelop("order_002", 1, payload, metadata, "OrderEvent", "1.0", "order")],
        ),
        ("order_003", [es.MemoryStoreEventEnvelop("order_003", 1, payload, metadata)]),
    ]


async def test_commits_reach_the_queries_of_all_nodes_in_order_and_only_after_the_commit(beam, node):
    config = glyn.GlynConfig(pubsub_scope="example", pubsub_group="inventory")
    here: Seen = []
    there: Seen = []
    await inventory_service(node, here)
    async with Node(unique_name(), cookie=beam.cookie) as second:

        async def query(aggregate_id: str, envelopes: list[Any]) -> None:
            there.append((aggregate_id, envelopes))

        memory: es.MemoryStore[Any, Any] = es.MemoryStore("inventory")
        store = await glyn.start(second, config, memory, [("audit", query)], stock.Event)
        peer = await beam.eval('glyn_peer:subscribe(example, <<"inventory">>)')
        await second.connect(node.name)
        await second.connect(beam.name)
        await eventually(lambda: _reached(store, "inventory", 3))
        members = 'length(glyn_peer:members(example, <<"inventory">>)) =:= 3'
        await eventually(lambda: beam.eval(members))
        assert len(await glyn.subscribers(config, at=node)) == 3

        await inventory_at(node).execute("inventory_001", OPEN)
        for _ in range(30):
            await inventory_at(node).execute("inventory_001", stock.RestockItem("laptop", 1))
        with pytest.raises(VersionConflict):
            await store.append("x", [stock.StockReserved("p", 1, "o", 1)], expected=7)
        with pytest.raises(ZeroDivisionError):
            await _append_and_fail(store)
        async with store.transaction() as tx:
            await tx.append("y", [stock.StockReserved("p", 1, "o", 1)], expected=0)
        await eventually(lambda: len(here) == len(there) == 32)
        for seen in (here, there):
            sequences = [e.sequence for id, envelopes in seen if id == "inventory_001" for e in envelopes]
            assert sequences == list(range(1, 32))
            assert [id for id, _ in seen if id != "inventory_001"] == ["y"]
        received = await eventually(lambda: _length(beam, peer, 32))
        assert received[0] == (
            b"inventory",
            text.parse(
                f'{{process_events, <<"inventory_001">>, [{{memory_store_event_envelop, <<"inventory_001">>, 1, '
                f"{OPENED}, []}}]}}"
            ),
        )


async def _append_and_fail(store: glyn.GlynStore[Any, Any]) -> None:
    async with store.transaction() as tx:
        await tx.append("x", [stock.StockReserved("p", 1, "o", 1)], expected=0)
        raise ZeroDivisionError


async def _length(beam: Any, subscriber: Term, length: int) -> list[Any]:
    received = await beam.eval("glyn_peer:received(P)", P=subscriber)
    assert len(received) == length
    return received


# --- real Gleam ------------------------------------------------------------------------------------------


async def test_a_gleam_order_service_reaches_the_python_inventory(gleam_beams):
    gleam = await gleam_beams.start("order")
    seen: Seen = []
    async with Node(unique_name("inventory"), cookie=gleam.cookie) as node:
        await inventory_service(node, seen)
        service = await gleam.eval('pyglyn_interop@order_service:start(<<"example">>)')
        await node.connect(gleam.name)
        await eventually(lambda: gleam.eval('syn:member_count(example, <<"inventory">>) =:= 1'))
        execute = 'pyglyn_interop@order_service:execute(S, <<"order_001">>, Command)'
        create = text.parse(
            '{create_order, <<"o1">>, [{item, {product, <<"laptop">>, <<"Gaming Laptop">>, 20}, 2}]}'
        )
        assert await gleam.eval(execute, S=service, Command=create) == (Atom("ok"), None)
        await eventually(lambda: len(seen) == 1)
        assert await gleam.eval("pyglyn_interop@order_service:reached(S) =:= [{ok, 1}]", S=service)
        [(id, [envelope])] = seen
        assert id == "order_001"
        items = [orders.Item(orders.Product("laptop", "Gaming Laptop", 20), 2)]
        assert envelope == es.MemoryStoreEventEnvelop("order_001", 1, stock.OrderCreated("o1", items, 40), [])


@pytest.mark.parametrize("url", ["memory:", "sqlite:{}/orders.db"], ids=["memory", "serialized"])
async def test_a_python_order_service_reaches_the_gleam_inventory(gleam_beams, tmp_path, url):
    gleam = await gleam_beams.start("inventory")
    service = await gleam.eval('pyglyn_interop@inventory_service:start(<<"example">>)')
    reached: list[int] = []
    async with Node(unique_name("order"), cookie=gleam.cookie) as node:
        store = await order_service(node, reached, url=url.format(tmp_path))
        await node.connect(gleam.name)
        await eventually(lambda: _reached(store, "inventory", 1))
        await orders_at(node).execute("order_001", CREATE)
        await eventually(lambda: reached == [1])
        seen = await eventually(lambda: _gleam_seen(gleam, service, 1))
        # The Gleam library reads every envelope as the memory form, without metadata.
        [(id, [(kind, _, _, event, _)])] = seen
        assert id == b"order_001"
        assert kind is Atom("memory_store_event_envelop")
        assert event == text.parse(CREATED.replace("{item, ", "{order_item, "))

        # And a command to the Gleam actor itself, by its name on its node.
        actor: es.Service[Term, Any, Term] = es.Service(node, (NamedSubject(service[1]), gleam.name))
        assert await actor.execute("inventory_001", OPEN, metadata=[("k", "v")]) == []
        assert (await actor.load_aggregate("inventory_001")).sequence == 1
        with pytest.raises(es.DomainError, match="the inventory is open already"):
            await actor.execute("inventory_001", OPEN)
        await eventually(lambda: _gleam_seen(gleam, service, 2))


async def _gleam_seen(gleam: Any, service: Term, length: int) -> list[Any]:
    seen = await gleam.eval("pyglyn_interop@inventory_service:seen(S)", S=service)
    assert len(seen) == length
    return seen


async def test_a_gleam_process_asks_the_python_service_by_its_subject(gleam_beams):
    """With the library's own functions, which know nothing of Python."""
    gleam = await gleam_beams.start("client")
    async with Node(unique_name("inventory"), cookie=gleam.cookie) as node:
        await inventory_service(node, [])
        await node.connect(gleam.name)
        pid = node.whereis("inventory_service")
        subject = (Atom("subject"), pid, Atom("inventory_service"))
        receive = "{_, Tag} = {x, element(3, R)}, receive {Tag, Reply} -> Reply after 60000 -> none end"
        execute = (
            'R = eventsourcing:execute_with_response(S, <<"inventory_001">>, Command, [{<<"k">>, <<"v">>}]), '
            + receive
        )
        command = wire.encoding(None)(OPEN)
        assert await gleam.eval(execute, S=subject, Command=command) == (Atom("ok"), None)
        refused = await gleam.eval(execute, S=subject, Command=command)
        assert refused == text.parse('{error, {domain_error, <<"Invalid command for current state">>}}')
        load = 'R = eventsourcing:load_events(S, <<"inventory_001">>), ' + receive
        loaded = await gleam.eval(load, S=subject)
        assert loaded == text.parse(
            f'{{ok, [{{memory_store_event_envelop, <<"inventory_001">>, 1, {OPENED}, [{{<<"k">>, <<"v">>}}]}}]}}'
        )
        stats = "R = eventsourcing:system_stats(S), " + receive
        assert await gleam.eval(stats, S=subject) == (Atom("system_stats"), 0, 2)
