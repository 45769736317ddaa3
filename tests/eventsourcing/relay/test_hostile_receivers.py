"""Receivers that hang, answer without end, or say nonsense, and publishers that do not keep to what is asked of them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest
import pytest_asyncio

from pyglyn import eventsourcing as es
from pyglyn.eventsourcing.relay import KafkaPublisher, NatsPublisher, Relay, WebhookPublisher
from pyglyn.eventsourcing.relay.delivery import Delivery, Message
from pyglyn.eventsourcing.relay.webhook import LONGEST_ANSWER
from pyglyn.node import Node
from pyglyn.testing import eventually
from pyglyn.testing.waiting import patiently
from tests.eventsourcing.queries.totals import parked, status

Says = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Any]


class Receiver:
    """A TCP server that says what it is told to say to whoever connects."""

    def __init__(self) -> None:
        self.says: Says = says(b"")
        self.port = 0
        self.serving: set[asyncio.Task[Any] | None] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.serving.add(asyncio.current_task())
        try:
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await self.says(reader, writer)
        finally:
            writer.transport.abort()


@pytest_asyncio.fixture
async def receiver() -> AsyncIterator[Receiver]:
    made = Receiver()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    yield made
    server.close()
    for task in made.serving:
        assert task is not None
        task.cancel()
    await asyncio.gather(*filter(None, made.serving), return_exceptions=True)
    await server.wait_closed()


def says(*parts: bytes, then: float = 0.0) -> Says:
    """Say this, then keep the connection open for so long."""

    async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for part in parts:
            writer.write(part)
            await writer.drain()
        await asyncio.sleep(then)

    return say


def endlessly(first: bytes, again: bytes, pause: float) -> Says:
    """Say the first, then the other one again and again."""

    async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(first)
        while True:
            writer.write(again)
            await writer.drain()
            await asyncio.sleep(pause)

    return say


CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
HOSTILE = {
    "closes at once": says(b""),
    "says nothing": says(then=60.0),
    "is no server of that kind": says(b"\x00\xff" * 5000 + b"\r\n\r\n"),
    "has endless headers": endlessly(b"HTTP/1.1 200 OK\r\n", b"x: " + b"y" * 1000 + b"\r\n", 0.0),
    "drips its headers": endlessly(b"HTTP/1.1 200 OK\r\nx: ", b"y", 0.05),
    "drips its answer": endlessly(CHUNKED, b"1\r\ny\r\n", 0.05),
    "refuses with much": says(
        b"HTTP/1.1 500 X\r\ncontent-length: 100000000\r\n\r\n\0\xff" + b"z" * 100_000, then=60.0
    ),
    "lies about how it packs": says(
        b"HTTP/1.1 500 X\r\ncontent-encoding: gzip\r\ncontent-length: 4\r\n\r\nnone"
    ),
    "greets as NATS and then hangs": says(b'INFO {"max_payload":1}\r\n', then=60.0),
    "says too much of what it is": endlessly(b"INFO ", b"{" * 10_000, 0.0),
}


# aiokafka leaves connections that hang before they are up to the garbage collector, which the tests take for a leak.
TRIED = [(way, kind) for way in HOSTILE for kind in ("webhook", "nats")] + [
    (way, "kafka") for way in ("closes at once", "is no server of that kind")
]


@pytest.mark.parametrize(("way", "kind"), TRIED)
async def test_whatever_a_receiver_does_its_message_has_failed_and_the_relay_goes_on(
    node: Node, receiver: Receiver, way: str, kind: str
) -> None:
    receiver.says = HOSTILE[way]
    to: Any = {
        "webhook": lambda: WebhookPublisher(f"http://me:secret@127.0.0.1:{receiver.port}/a?token=secret"),
        "nats": lambda: NatsPublisher(f"nats://127.0.0.1:{receiver.port}", timeout=0.2),
        "kafka": lambda: KafkaPublisher(f"127.0.0.1:{receiver.port}", request_timeout_ms=200),
    }[kind]()
    policy = es.FailurePolicy(retries=0)
    async with es.open_store("memory:", aggregate_type="t") as store:
        await store.put_outbox([es.OutboxMessage("orders", "1")])
        await Relay("out", store=store, topics=["orders"], to=to, policy=policy, patience_s=1.0).start(node)
        [event] = await parked(node, 1, "out")
        assert (await status(node, "out")).lag == 0
        assert "secret" not in repr(event)
        assert "secret" not in repr(to)
        pid = node.whereis("pyglyn_query_out")
        if pid is not None:
            node.system.exit(pid, "shutdown")
        await eventually(lambda: node.whereis("pyglyn_query_out") is None)


async def test_an_endless_answer_is_not_read_to_its_end(receiver: Receiver) -> None:
    sent = 0

    async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(CHUNKED)
        while True:
            writer.write(b"10000\r\n" + b"y" * 0x10000 + b"\r\n")
            await writer.drain()
            sent += 0x10000

    receiver.says = say
    to = WebhookPublisher(f"http://127.0.0.1:{receiver.port}/")
    await to.start()
    message = Message(id="out/1", topic="t", body="1", created_at=0.0, attempts=0)
    assert [each async for each in to.publish([message])] == [message]
    assert sent < LONGEST_ANSWER + (1 << 24)  # and what lay in buffers
    await to.close()


# --- publishers of one's own -----------------------------------------------------------------------------------


class Odd:
    """Does what it is told instead of its work, until it is told nothing any more."""

    def __init__(self, way: str) -> None:
        self.way = way
        self.got: list[str] = []

    async def _do(self, where: str) -> None:
        if not self.way.startswith(where):
            return
        match self.way.partition(" ")[2]:
            case "hangs":
                await asyncio.Event().wait()
            case "is cancelled":
                raise asyncio.CancelledError
            case "exits":
                raise SystemExit(3)
            case _:
                raise _Unspeakable

    async def start(self) -> None:
        await self._do("start")

    async def close(self) -> None:
        await self._do("close")

    async def publish(self, messages: Sequence[Message]) -> Any:
        await self._do("publish")
        if self.way.startswith("close"):
            raise ValueError("so that it is closed")
        match self.way:
            case "confirms twice":
                yield messages[0]
                yield messages[0]
            case "confirms the last":
                yield messages[-1]
            case "confirms too much":
                for message in (*messages, messages[-1]):
                    self.got.append(message.body)
                    yield message
            case "confirms nothing":
                return
            case _:
                for message in messages:
                    self.got.append(message.body)
                    yield message


class _Unspeakable(Exception):
    def __str__(self) -> str:
        raise ValueError("no text")


WAYS = [
    f"{where} {what}"
    for where in ("start", "publish", "close")
    for what in ("hangs", "is cancelled", "exits", "fails")
]
CONFIRMS = ["confirms twice", "confirms the last", "confirms too much", "confirms nothing"]


@pytest.mark.parametrize("way", WAYS + CONFIRMS)
async def test_a_publisher_that_does_not_keep_to_it_has_failed_and_is_tried_again(way: str) -> None:
    async with es.open_store("memory:", aggregate_type="t") as store:
        to = Odd(way)
        policy = es.FailurePolicy(retries=5, first=1.0)
        delivery = Delivery("out", store, ["a"], to, policy, batch=3, patience_s=patiently(0.2))
        await store.put_outbox([es.OutboxMessage("a", each) for each in "123"])
        await delivery.deliver(0.0)
        assert len(delivery.errors.get("a", "")) in range(
            *((0, 1) if way == "confirms too much" else (1, 2001))
        )
        left = {"confirms twice": 2, "confirms too much": 0}.get(way, 3)
        assert await store.outbox_size() == left
        to.way = ""
        delivery.try_again()
        await delivery.deliver(1.0)
        assert (to.got[-1:], await store.outbox_size(), delivery.delivered) == (["3"], 0, 3)
        assert delivery.errors == {}
        await delivery.close()


async def test_a_delivery_that_is_called_off_is_no_failure() -> None:
    async with es.open_store("memory:", aggregate_type="t") as store:
        delivery = Delivery("out", store, ["a"], Odd("publish hangs"), es.FailurePolicy(), batch=3)
        await store.put_outbox([es.OutboxMessage("a", "1")])
        delivering = asyncio.create_task(delivery.deliver(0.0))
        await asyncio.sleep(0)
        delivering.cancel()
        await asyncio.wait((delivering,))
        assert delivering.cancelled()
        [entry] = await store.take_outbox("a")
        assert entry.attempts == 0
