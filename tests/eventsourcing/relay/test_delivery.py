"""The outbox delivered in order and at least once, and what becomes of what cannot be."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from pyglyn import eventsourcing as es
from pyglyn.eventsourcing.relay.delivery import Delivery, Message, Stopped


class Scripted:
    """Takes what is not refused, and remembers it; it may confirm less than it was given."""

    def __init__(self) -> None:
        self.got: list[Message] = []
        self.refused: set[str] = set()
        self.confirms = 100
        self.opened = 0
        self.fails_to_start = False

    async def start(self) -> None:
        if self.fails_to_start:
            raise ConnectionError("nobody is there")
        self.opened += 1

    async def close(self) -> None:
        self.opened -= 1

    async def publish(self, messages: Sequence[Message]) -> AsyncIterator[Message]:
        for message in messages[: self.confirms]:
            if message.body in self.refused:
                raise ValueError(f"not {message.body}")
            self.got.append(message)
            yield message

    @property
    def bodies(self) -> list[str]:
        return [message.body for message in self.got]


def delivery(store: Any, to: Scripted, *, topics: Sequence[str] = ("a",), **policy: Any) -> Delivery:
    policy = {"retries": 2, "first": 1.0, "factor": 2.0, **policy}
    return Delivery("out", store, topics, to, es.FailurePolicy(**policy), batch=3)


async def put(store: Any, *bodies: str, topic: str = "a") -> None:
    await store.put_outbox([es.OutboxMessage(topic, body) for body in bodies])


async def test_messages_leave_the_outbox_in_order_once_they_are_confirmed(store):
    to = Scripted()
    made = delivery(store, to, topics=("a", "b"))
    await put(store, *"12345")
    await put(store, "x", topic="b")
    await put(store, "nobody's", topic="c")
    assert await made.deliver(0.0)
    assert to.bodies == ["1", "2", "3", "x"]
    assert await store.outbox_size("a") == 2
    assert await made.deliver(0.0)
    assert not await made.deliver(0.0)
    assert (to.bodies, made.delivered) == (["1", "2", "3", "x", "4", "5"], 6)
    assert (await store.outbox_size(), to.opened) == (1, 1)
    assert len({message.id for message in to.got}) == 6
    assert all(message.id.startswith("out/") for message in to.got)


async def test_what_fails_holds_up_its_topic_and_no_other_and_keeps_its_id(store):
    to = Scripted()
    made = delivery(store, to, topics=("a", "b"))
    await put(store, "1", "2", "3")
    await put(store, "x", "y", topic="b")
    to.refused = {"2"}
    await made.deliver(0.0)
    assert to.bodies == ["1", "x", "y"]
    assert (made.errors, made.pause(0.25)) == ({"a": "ValueError: not 2"}, 0.75)
    await put(store, "z", topic="b")
    await made.deliver(0.5)
    assert to.bodies == ["1", "x", "y", "z"]
    [entry] = await store.take_outbox("a", limit=1, lease_s=0.0)
    assert (entry.body, entry.attempts) == ("2", 1)
    to.refused = set()
    await made.deliver(1.0)
    assert to.bodies == ["1", "x", "y", "z", "2", "3"]
    assert (made.errors, made.pause(0.0)) == ({}, None)
    assert to.got[4].id == f"out/{entry.id}"


async def test_after_the_last_attempt_it_is_parked_and_driven_to_the_end_of_its_topic(store):
    to = Scripted()
    made = delivery(store, to)
    await put(store, "1", "2")
    to.refused = {"1"}
    for now in (0.0, 1.0, 3.0):
        await made.deliver(now)
    [parked] = await store.parked("out")
    assert (parked.aggregate_id, parked.raw, parked.attempts) == ("a", b"1", 3)
    assert "not 1" in parked.error
    await made.deliver(3.0)
    assert to.bodies == ["2"]
    to.refused = set()
    assert await made.drive(parked)
    assert not await made.drive(parked)
    await made.deliver(3.0)
    assert (to.bodies, await store.parked("out"), await store.outbox_size()) == (["2", "1"], [], 0)


async def test_with_the_policy_stop_it_says_that_it_is_over_and_loses_nothing(store):
    to = Scripted()
    made = delivery(store, to, retries=0, then="stop")
    await put(store, "1", "2")
    to.refused = {"1"}
    with pytest.raises(Stopped, match="not 1"):
        await made.deliver(0.0)
    assert (await store.outbox_size(), await store.parked("out")) == (2, [])


async def test_a_publisher_that_cannot_connect_or_confirms_too_little_has_failed(store):
    to = Scripted()
    made = delivery(store, to)
    await put(store, "1", "2")
    to.fails_to_start = True
    await made.deliver(0.0)
    assert (made.errors["a"], to.opened) == ("ConnectionError: nobody is there", 0)
    to.fails_to_start, to.confirms = False, 1
    made.try_again()
    await made.deliver(0.0)
    assert (to.bodies, await store.outbox_size()) == (["1"], 1)
    assert "less" in made.errors["a"]
    assert to.opened == 0  # it is opened anew after a failure
    made.try_again()
    await made.deliver(0.0)
    await made.close()
    await made.close()
    assert (to.bodies, to.opened) == (["1", "2"], 0)


async def test_it_ends_although_the_publisher_takes_no_notice_of_a_cancellation(store):
    """What was confirmed is gone from the outbox; what is behind it is delivered by whoever is next."""
    begun = asyncio.Event()

    class Deaf(Scripted):
        async def publish(self, messages: Sequence[Message]) -> AsyncIterator[Message]:
            begun.set()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            async for message in super().publish(messages):
                yield message

    to = Deaf()
    made = delivery(store, to)
    await put(store, "1", "2", "3", "4")
    delivering = asyncio.create_task(made.deliver(0.0))
    await begun.wait()
    delivering.cancel()
    with pytest.raises(asyncio.CancelledError):
        await delivering
    assert (to.bodies, await store.outbox_size()) == (["1", "2", "3"], 1)
