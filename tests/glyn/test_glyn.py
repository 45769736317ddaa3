"""Glyn between Python nodes: subscriptions, registrations, messages that do not decode."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from pyglyn import gleam, glyn
from pyglyn.errors import (
    CallFailed,
    CallTimeout,
    DecodeErrors,
    GroupError,
    NoProcess,
    RegistrationFailed,
    ValueEncodeError,
)
from pyglyn.etf import Atom, Reference, Term
from pyglyn.groups import syn
from pyglyn.node import Process
from pyglyn.testing import eventually
from tests.glyn.conftest import StartNode, idle


@attrs.frozen
class Created:
    id: str
    total: int


@attrs.frozen
class Confirmed:
    id: str


Event = Created | Confirmed


@attrs.frozen
class GetPrice:
    product: str
    reply_to: gleam.Subject[int | None]


@attrs.frozen
class SetPrice:
    product: str
    price: int


Request = GetPrice | SetPrice


async def has_subscribers(pubsub: glyn.PubSub[Any], count: int) -> bool:
    return await pubsub.subscriber_count("orders") == count


async def test_events_reach_every_subscriber_on_every_node_in_order(start_node: StartNode) -> None:
    one, two = await start_node(), await start_node()
    await one.connect(two.name)
    here: glyn.PubSub[Any] = glyn.PubSub(one, "example", Event)
    there: glyn.PubSub[Any] = glyn.PubSub(two, "example", Event)
    async with one.process() as first, two.process() as second:
        mine = await here.subscribe(first, "orders")
        yours = await there.subscribe(second, "orders")
        other = await there.subscribe(second, "other")
        for pubsub in (here, there):
            await eventually(lambda pubsub=pubsub: has_subscribers(pubsub, 2))
        assert set(await here.subscribers("orders")) == {mine.pid, yours.pid}
        second.put(Atom("something else"))
        events = [Created(f"o{n}", n) for n in range(20)]
        for event in events:
            assert await here.publish("orders", event) == 2
        assert await there.publish("other", Confirmed("x")) == 1
        assert [await mine.receive(5) for _ in events] == events
        assert await other.receive(5) == Confirmed("x")
        received = []
        async for event in yours:
            received.append(event)
            if len(received) == len(events):
                break
        assert received == events
        assert await second.receive(timeout=60) is Atom("something else")


async def test_a_subscription_ends_with_its_process_or_when_it_is_given_up(start_node: StartNode) -> None:
    node = await start_node()
    pubsub: glyn.PubSub[Any] = glyn.PubSub(node, "example", Event)
    async with node.process() as me:
        subscription = await pubsub.subscribe(me, "orders")
        async with node.process() as other:
            await pubsub.subscribe(other, "orders")
            assert await pubsub.subscriber_count("orders") == 2
        await eventually(lambda: has_subscribers(pubsub, 1))
        assert await pubsub.publish("orders", Confirmed("1")) == 1
        assert await subscription.receive(5) == Confirmed("1")
        await subscription.unsubscribe()
        await subscription.unsubscribe()
        assert await pubsub.publish("orders", Confirmed("2")) == 0
        with pytest.raises(TimeoutError):
            await subscription.receive(0)


async def test_a_subscription_goes_on_though_the_end_of_its_process_is_made_up(start_node: StartNode) -> None:
    node = await start_node()
    pubsub: glyn.PubSub[Any] = glyn.PubSub(node, "example", Event)
    async with node.process() as me:
        subscription = await pubsub.subscribe(me, "orders")
        monitors = node.runtime.processes[subscription.pid.id].signals.monitors
        await eventually(lambda: monitors)
        (ref,) = monitors
        node.send(subscription.pid, (Atom("DOWN"), ref, Atom("process"), me.pid, Atom("lie")))
        assert await pubsub.publish("orders", Confirmed("1")) == 1
        assert await subscription.receive(60) == Confirmed("1")


async def test_a_call_waits_for_its_answer_though_the_end_of_the_process_is_made_up(
    start_node: StartNode,
) -> None:
    node = await start_node()
    registry: glyn.Registry[Any] = glyn.Registry(node, "services", Request)

    async def serve(me: Process) -> None:
        registration = await registry.register(me, "pricing")
        while True:
            asked = await registration.receive()
            for ref, (watcher, _) in me.signals.watchers.items():
                me.send(watcher, (Atom("DOWN"), ref, Atom("process"), me.pid, Atom("lie")))
            node.send(asked.reply_to.owner, (asked.reply_to.tag, 7))

    node.spawn(serve)

    async def is_there() -> bool:
        return await syn.lookup(node, "services", b"pricing") is not None

    await eventually(is_there)
    ask = registry.call("pricing", lambda reply_to: GetPrice("laptop", reply_to), 60.0, reply=int)
    assert await ask == 7


async def test_what_does_not_decode_goes_to_the_handler_and_is_never_made_up(
    start_node: StartNode, caplog: pytest.LogCaptureFixture
) -> None:
    node = await start_node()
    seen: list[tuple[Term, DecodeErrors]] = []
    handled: glyn.PubSub[Any] = glyn.PubSub(
        node, "example", Event, on_undecodable=lambda *each: seen.append(each)
    )
    logged: glyn.PubSub[Any] = glyn.PubSub(node, "example", Event)
    async with node.process() as me:
        strict, quiet = await handled.subscribe(me, "orders"), await logged.subscribe(me, "orders")
        for _ in range(3):
            await handled.publish_term("orders", (Atom("created"), b"o1", b"twenty"))
        await handled.publish("orders", Confirmed("o1"))
        for subscription in (strict, quiet):
            assert await subscription.receive(5) == Confirmed("o1")
            assert subscription.undecodable == 3
        assert [term for term, _ in seen] == [(Atom("created"), b"o1", b"twenty")] * 3
        assert all(isinstance(error, DecodeErrors) for _, error in seen)
        warnings = [record for record in caplog.records if record.name == "pyglyn.glyn"]
        assert len(warnings) == 1
        assert "created" in warnings[0].getMessage()


async def test_both_forms_are_received_and_each_node_is_sent_its_own(start_node: StartNode) -> None:
    """Glyn after 2.0.3 publishes bare events, and its nodes have groups named {Reference, Group}."""
    one, two = await start_node(), await start_node()
    await one.connect(two.name)
    pubsub: glyn.PubSub[Any] = glyn.PubSub(one, "example", Event)
    syn.start(two, "example")
    async with one.process() as me, two.process() as actor:
        subscription = await pubsub.subscribe(me, "orders")
        await syn.join(two, "example", b"orders", actor.pid)
        await eventually(lambda: has_subscribers(pubsub, 2))
        await pubsub.publish("orders", Confirmed("1"))
        assert await actor.receive(timeout=60) == (b"orders", (Atom("confirmed"), b"1"))
        private = (Reference("x@y", 1, (1, 2, 3)), b"orders")
        await syn.join(two, "example", private, actor.pid)

        async def is_known() -> bool:
            return await syn.nodes_with_private_groups(one, "example") == [two.name]

        await eventually(is_known)
        await pubsub.publish("orders", Confirmed("2"))
        assert await actor.receive(timeout=60) == (Atom("confirmed"), b"2")
        for form, expected in {
            "bare": (Atom("confirmed"), b"3"),
            "tagged": (b"orders", (Atom("confirmed"), b"3")),
        }.items():
            fixed: glyn.PubSub[Any] = glyn.PubSub(one, "example", Event, form=form)  # type: ignore[arg-type]
            await fixed.publish("orders", Confirmed("3"))
            assert await actor.receive(timeout=60) == expected
        assert [await subscription.receive(5) for _ in range(4)] == [
            Confirmed(i) for i in ("1", "2", "3", "3")
        ]
        await two.stop()
        await eventually(lambda: has_subscribers(pubsub, 1))
        assert await syn.nodes_with_private_groups(one, "example") == []


async def test_what_is_published_is_checked_against_the_declared_type(start_node: StartNode) -> None:
    node = await start_node()
    pubsub: glyn.PubSub[Any] = glyn.PubSub(node, "example", Event)
    with pytest.raises(ValueEncodeError):
        await pubsub.publish("orders", SetPrice("laptop", 1))


async def serve(me: Process, registry: glyn.Registry[Any], name: str) -> None:
    registration = await registry.register(me, name, "v1")
    prices = {"laptop": 20}
    async for request in registration:
        match request:
            case GetPrice("slow", _):
                pass
            case GetPrice("bad", reply_to):
                glyn.send(me, reply_to, "no price")
            case GetPrice("fatal", _):
                return
            case GetPrice(product, reply_to):
                me.send(reply_to.owner, (reply_to.tag, gleam.encode(prices.get(product), int | None)))
            case SetPrice(product, price):
                prices[product] = price


async def test_a_process_is_found_told_and_asked_by_its_name(start_node: StartNode) -> None:
    one, two = await start_node(), await start_node()
    await one.connect(two.name)
    there: glyn.Registry[Any] = glyn.Registry(two, "services", Request, metadata=str)
    here: glyn.Registry[Any] = glyn.Registry(one, "services", Request, metadata=str)
    with pytest.raises(NoProcess):
        await here.whereis("pricing")
    server = two.spawn(serve, there, "pricing")

    async def found() -> bool:
        try:
            return await here.whereis("pricing") == (server, "v1")
        except NoProcess:
            return False

    await eventually(found)

    async def ask(product: str, timeout: float = 5.0) -> Any:
        return await here.call(
            "pricing", lambda reply_to: GetPrice(product, reply_to), timeout, reply=int | None
        )

    assert await ask("laptop") == 20
    assert await ask("mouse") is None
    await here.send("pricing", SetPrice("mouse", 7))
    assert await ask("mouse") == 7
    with pytest.raises(CallTimeout):
        await ask("slow", 0.05)
    with pytest.raises(DecodeErrors):
        await ask("bad")
    async with one.process() as me:
        with pytest.raises(RegistrationFailed) as taken:
            await here.register(me, "pricing")
        assert taken.value.cause == "taken"
        two.send(server, (Atom("unrelated"), 1))
    with pytest.raises(CallFailed):
        await ask("fatal")

    async def gone() -> bool:
        return await syn.lookup(one, "services", b"pricing") is None

    await eventually(gone)
    with pytest.raises(NoProcess):
        await ask("laptop")
    with pytest.raises(NoProcess):
        await here.send("pricing", SetPrice("x", 1))
    with pytest.raises(RegistrationFailed):
        await here.unregister("pricing")


async def test_a_message_to_a_registered_process_that_does_not_decode_goes_to_the_handler(
    start_node: StartNode,
) -> None:
    node = await start_node()
    seen: list[Term] = []
    registry: glyn.Registry[Any] = glyn.Registry(
        node, "services", Request, on_undecodable=lambda term, error: seen.append(term)
    )
    async with node.process() as me:
        registration = await registry.register(me, "pricing")
        assert await registry.whereis("pricing") == (me.pid, None)
        assert await registry.subject("pricing") == registration.subject
        node.send(me.pid, (registration.subject.tag, Atom("nonsense")))
        node.send(me.pid, Atom("for itself"))
        await registry.send("pricing", SetPrice("x", 1))
        assert await registration.receive(5) == SetPrice("x", 1)
        assert seen == [Atom("nonsense")]
        assert registry.undecodable == 1
        assert await me.receive(timeout=60) is Atom("for itself")
        await registry.unregister("pricing")
        with pytest.raises(NoProcess):
            await registry.whereis("pricing")
        with pytest.raises(NoProcess):
            await registry.subject("pricing")


async def test_a_name_that_no_glyn_registry_gave_is_an_error_of_its_own(start_node: StartNode) -> None:
    node = await start_node()
    registry: glyn.Registry[Any] = glyn.Registry(node, "services", Request)
    await syn.register(node, "services", b"odd", node.spawn(idle), 1)
    with pytest.raises(GroupError):
        await registry.send("odd", SetPrice("x", 1))
