"""Where there is no memory, at whatever step, nothing is lost silently, comes twice or is stuck.

Each of the methods in C is called again and again, with the first allocation that it makes failing, then with the
second, until there is no further one.
"""

from __future__ import annotations

import asyncio
import gc
import io
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from pyglyn.dist.control import AliasSend, DemonitorP, MonitorP, RegSend, Send
from pyglyn.etf import Atom, Pid
from pyglyn.loop_turn import Turn, Waiter
from pyglyn.node.link import LinkProtocol
from pyglyn.node.ways import way_out
from tests.node.runtimes import CREATION, NODE
from tests.node.test_inlet import REFS, THEM, Side, frames_of

_testcapi = pytest.importorskip("_testcapi")
pytest.importorskip("pyglyn.node._hot")

MOST = 400


@pytest.fixture(autouse=True)
def collected_often() -> Iterator[None]:
    """As in a run that is long and had Hypothesis in it, which is called at each collection."""
    before, threshold = list(gc.callbacks), gc.get_threshold()
    gc.callbacks.append(lambda phase, info: None)
    gc.set_threshold(30)
    yield
    gc.set_threshold(*threshold)
    gc.callbacks[:] = before


class Wire(io.BytesIO):
    """A transport that has its memory already, and no function in Python."""

    def __init__(self) -> None:
        super().__init__(bytes(1 << 16))
        self.abort = self.close

    def taken(self) -> bytes:
        return self.getvalue()[: self.tell()]


def without_memory(step: int, function: Callable[[], object]) -> BaseException | None:
    """Call it, with one allocation failing; what it raised.

    Nothing is collected meanwhile: were the allocation one for `gc.callbacks`, Python would have nobody to raise that to.
    """
    raised = None
    fail, over = _testcapi.set_nomemory, _testcapi.remove_mem_hooks
    gc.disable()
    try:
        fail(step, step + 1)
        function()
    except BaseException as error:
        over()
        raised = error
    finally:
        over()
        gc.enable()
    if raised is not None and not isinstance(raised, MemoryError):
        raise AssertionError(f"step {step}") from raised
    return raised


async def steps(run: Callable[[int], Awaitable[BaseException | None]]) -> int:
    """Do it with each allocation failing; how many failures there were."""
    failures, last = 0, 0
    for step in range(MOST):
        if await run(step) is not None:
            failures, last = failures + 1, step
        elif step > last + 60:
            break
    return failures


def end(turn: Turn) -> None:
    """Do what is done at the end of a batch; here a task runs, in which none begins."""
    turn._open = True
    turn.end()


class Closing(asyncio.AbstractEventLoop):
    """What a turn needs of an event loop."""

    def __init__(self) -> None:
        self.due: list[Any] = []
        self.said: list[Any] = []
        self.call_soon = self.due.append  # type: ignore[assignment, method-assign]
        self.call_exception_handler = self.said.append  # type: ignore[assignment, method-assign]

    def turns(self) -> None:
        """What was to be called soon."""
        for _ in range(3):
            due, self.due[:] = list(self.due), []
            for function in due:
                function()


async def test_who_waits_goes_on_once_whatever_fails() -> None:
    async def run(step: int) -> BaseException | None:
        loop, went = Closing(), []  # type: ignore[var-annotated]
        turn = Turn(loop)
        waiters = [Waiter[int](turn) for _ in range(3)]
        for waiter in waiters:
            waiter.add_done_callback(went.append, context=None)
        functions: list[Any] = [1]
        turn.at_end(lambda: functions.append(2))

        def settle() -> None:
            for waiter in waiters:
                waiter.set_result(1)
            end(turn)

        failed = without_memory(step, settle)
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(1)
        turn._due = bool(loop.due)
        for _ in range(3):
            if turn._settled or turn._last:
                turn._soon()
            loop.turns()
        assert sorted(map(id, went)) == sorted(map(id, waiters)) or loop.said, step
        assert functions == [1, 2] or loop.said, step
        assert not turn._open
        return failed

    assert await steps(run) > 0


@pytest.mark.parametrize("settled", [0, 32])  # of so many, the next one takes memory
async def test_one_who_sleeps_is_woken_by_the_next_message_at_the_latest(settled: int) -> None:
    async def run(step: int) -> BaseException | None:
        side, went = Side(with_inlet=True), []  # type: ignore[var-annotated]
        mailbox = side.plain._mailbox
        coming: Any = mailbox.next_to_come()
        waiter = next(coming)
        waiter.add_done_callback(went.append)
        waiter.turn._settled.extend(Waiter(waiter.turn) for _ in range(settled))
        failed = without_memory(step, lambda: mailbox.put_encoded(b"a\1"))
        mailbox.put_encoded(b"a\2")
        for _ in range(3):
            await asyncio.sleep(0)
        assert went == [waiter], step
        assert list(mailbox.fresh) in ([b"a\1", b"a\2"], [b"a\2"] if failed else []), step
        coming.close()
        side.connection.close("over")
        return failed

    assert await steps(run) > 0


class Link(io.RawIOBase):
    """The transport of a link: it can be asked whether it closes."""

    def __init__(self, wire: Any) -> None:
        self.write = wire.write
        self.is_closing = False.__bool__  # type: ignore[method-assign, assignment]
        self.get_write_buffer_size = (0).__int__


def writing(kind: str) -> tuple[Side, Any, Any]:
    """A connection or a link that writes, and what gets that."""
    side, wire = Side(with_inlet=True), Wire()
    port: Any = side.connection
    if kind == "link":
        port = LinkProtocol(lambda _: None, lambda: None)
        port.transport = Link(wire)
    else:
        port._transport = wire
    return side, wire, port


@pytest.mark.parametrize("kind", ["connection", "link"])
async def test_what_is_sent_is_written_once_or_refused(kind: str) -> None:
    async def run(step: int) -> BaseException | None:
        side, wire, port = writing(kind)
        frames = [b"\0\0\0\1" + bytes((number,)) for number in range(6)]
        way = way_out(b"h", 60, port)
        done: list[Any] = []

        def send() -> None:
            for frame in frames[:3]:
                port.send_frame(frame)
                done.append(frame)
            way(7)
            done.append(way)

        failed = without_memory(step, send)
        for frame in frames[3:]:
            port.send_frame(frame)
        end(port._turn)
        written = wire.taken()
        sent = frames[: min(len(done), 3)]
        more = frames[len(sent) : len(sent) + 1] if failed and len(done) < 3 else []
        last = [b"\0\0\0\3ha\7"]
        allowed = [
            b"".join([*sent, *some, *term, *frames[3:]])
            for some in ([], more)
            for term in ([], last)
            if len(done) < 4 or term
        ]
        assert written in allowed, (step, written)
        side.connection.close("over")
        return failed

    assert await steps(run) > 0


@pytest.mark.parametrize("kind", ["connection", "link"])
async def test_what_is_flushed_is_written_or_stays(kind: str) -> None:
    async def run(step: int) -> BaseException | None:
        side, wire, port = writing(kind)
        frames = [b"\0\0\0\1" + bytes((number,)) for number in range(4)]
        for frame in frames[:3]:
            port.send_frame(frame)
        flush = port.flush if kind == "link" else port._flush
        failed = without_memory(step, flush)
        port.send_frame(frames[3])
        end(port._turn)
        assert wire.taken() == b"".join(frames), (step, failed)
        side.connection.close("over")
        return failed

    assert await steps(run) > 0


def friendly(side: Side) -> Iterator[tuple[Any, Any]]:
    """What an inlet takes, of each kind."""
    inside = Pid(NODE, 5, 1, CREATION)
    yield Send(THEM, side.plain.pid), 1
    yield Send(THEM, side.plain.pid), 2
    yield MonitorP(THEM, side.plain.pid, REFS[0]), None
    yield RegSend(THEM, Atom("server")), 3
    yield MonitorP(THEM, Atom("server"), REFS[1]), None
    yield MonitorP(THEM, inside, REFS[2]), None
    yield RegSend(THEM, Atom("inside")), 4
    yield MonitorP(THEM, Atom("inside"), REFS[3]), None
    yield AliasSend(THEM, side.refs[0]), (side.refs[0], 5)
    yield Send(THEM, inside), 6
    yield DemonitorP(THEM, side.plain.pid, REFS[0]), None
    yield DemonitorP(THEM, Atom("server"), REFS[1]), None
    yield AliasSend(THEM, side.refs[2]), 7
    yield Send(THEM, side.plain.pid), 8


async def test_a_read_is_taken_once_but_for_the_frame_that_it_failed_at() -> None:
    async def run(step: int) -> BaseException | None:
        side = Side(with_inlet=True)
        first: Any = side.connection._inlet
        messages = list(friendly(side))
        frames = frames_of(messages)
        for frame, (control, _) in zip(frames, messages, strict=True):
            if isinstance(control, (Send, RegSend)):
                side.feed(frame)  # a control message is known once it has come
        for each in side.processes:
            each._mailbox.fresh.clear()
        end(side.link._turn)
        side.wire.written.clear()
        data = b"".join(frames)
        failed = without_memory(step, lambda: first.take(data, len(data), 64))
        at, count = first.taken, first.frames
        if failed is not None and count == 0 and at == 0:
            again = data  # nothing was begun
        else:
            assert at == len(b"".join(frames[:count])), step
            again = data[at:]
        side.feed(again)
        missed = [] if failed is None or count == 0 else [messages[count - 1][1]]
        here = [message for each in (side.plain, side.server) for message in each.waiting_messages]
        for expected in (1, 2, 8, 7, 3):
            assert here.count(expected) == 1 or (expected in missed and expected not in here), (
                step,
                expected,
            )
        assert [each for each in here if each in (1, 2, 8)] == sorted(
            each for each in here if each in (1, 2, 8)
        )
        side.link.flush()
        written = b"".join(map(bytes, side.wire.written))
        for number, expected in ((4, b"insidea\4"), (6, b"\7a\6")):
            assert written.count(expected) == 1 or number in missed, (step, written)
        assert side.futures[0].done() or missed == [(side.refs[0], 5)], step
        side.connection.close("over")
        return failed

    assert await steps(run) > 0
