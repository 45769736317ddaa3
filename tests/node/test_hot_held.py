"""What the methods in C look at stays there while they do, whatever is called or collected meanwhile."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pyglyn.dist.control import AliasSend, DemonitorP, MonitorP, Send
from pyglyn.etf import Atom, Pid
from pyglyn.loop_turn import Waiter
from pyglyn.node.link import LinkProtocol
from tests.node.runtimes import CREATION, NODE
from tests.node.test_inlet import REFS, THEM, Side, Transport, frames_of

pytest.importorskip("pyglyn.node._hot")


@pytest.fixture
def collected() -> Iterator[Callable[[Callable[[], None]], None]]:
    """Has a function called whenever anything is collected, which is at once."""
    before, threshold = list(gc.callbacks), gc.get_threshold()

    def use(function: Callable[[], None]) -> None:
        gc.callbacks.append(lambda phase, info: function() if phase == "start" else None)
        gc.set_threshold(1)

    yield use
    gc.set_threshold(*threshold)
    gc.callbacks[:] = before


async def test_an_inlet_takes_nothing_while_it_takes() -> None:
    side = Side(with_inlet=True)
    first: Any = side.connection._inlet
    data = b"".join(frames_of([(Send(THEM, side.plain.pid), number) for number in range(3)]))
    side.feed(data)
    inner: list[int] = []

    class Waking(Waiter[None]):
        def wake(self) -> None:
            inner.append(first.take(data, len(data), 64))

    mailbox = side.plain._mailbox
    mailbox._waiter, mailbox._sleeps = Waking(), True
    assert first.take(data, len(data), 64) == len(data)
    assert (inner, first.frames) == ([0], 3)
    assert side.plain.waiting_messages == [0, 1, 2] * 2
    side.connection.close("over")


async def test_an_answer_whose_call_is_given_up_meanwhile_is_left(collected: Any) -> None:
    side = Side(with_inlet=True)
    ref = side.refs[0]
    (data,) = frames_of([(AliasSend(THEM, ref), (ref, [(n,) for n in range(20)]))])
    gone: list[Any] = []

    def give_up() -> None:
        side.waits.pending.futures.clear()
        gone.append(None)

    side.futures.clear()
    collected(give_up)
    side.feed(data)
    gc.set_threshold(0)
    assert not side.waits.pending.futures
    side.connection.close("over")


async def test_what_is_known_of_watchers_may_go_while_it_is_looked_at(collected: Any) -> None:
    side, inside = Side(with_inlet=True), Pid(NODE, 5, 1, CREATION)
    runtime, boundary = side.noted.runtime, side.worker.boundary

    def forget() -> None:
        for table in (side.named, runtime._named_monitors, boundary.watchers, side.plain.signals.watchers_at):
            table.clear()

    for watched in (Atom("plain"), side.plain.pid, Atom("inside"), inside):
        monitor, demonitor = MonitorP(THEM, watched, REFS[0]), DemonitorP(THEM, watched, REFS[0])
        data = b"".join(frames_of([(monitor, None), (demonitor, None)] * 4))
        collected(forget)
        side.feed(data)
        gc.set_threshold(0)
    forget()
    side.connection.close("over")


async def test_a_transport_may_be_gone_once_it_was_asked() -> None:
    link = LinkProtocol(lambda _: None, lambda: None)

    class Leaving(Transport):
        def is_closing(self) -> bool:
            link.transport = None
            return False

    link.transport = Leaving()  # type: ignore[assignment]
    link.send_frame(b"\0\0\0\1x")
    link.flush()
    assert (link.transport, link.queued_bytes) == (None, 0)


async def test_what_was_deleted_is_missed_in_words() -> None:
    side, link = Side(with_inlet=True), LinkProtocol(lambda _: None, lambda: None)
    link.transport = Transport()  # type: ignore[assignment]
    for port in (side.connection, link):
        del port._turn
        with pytest.raises(AttributeError, match="_turn"):
            port.send_frame(b"\0\0\0\1x")
