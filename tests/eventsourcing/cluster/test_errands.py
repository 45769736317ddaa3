"""Requests handed on: answered, not answered, and not even received."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from pyglyn.etf import Atom, Pid, Term
from pyglyn.eventsourcing.cluster.errands import Errands, handed_on
from pyglyn.eventsourcing.domain import wire
from pyglyn.node import Node, Process
from pyglyn.node.calls import GEN_CALL, GEN_CAST
from pyglyn.testing import eventually

KIND = Atom("kind")


async def front(me: Process, use: Callable[[Errands], None]) -> None:
    """Hand something on, then only note what comes back."""
    me.marks_signals = True
    errands = Errands(me)
    use(errands)
    while True:
        message = await me.receive()
        assert errands.take(message) or type(message) is tuple


async def carrier(me: Process, seen: list[Term]) -> None:
    """Carry out one request, say so, then end with the next one unanswered."""
    original, done = handed_on(me, await me.receive())
    seen.append(original)
    assert done is not None
    done()
    seen.append(handed_on(me, await me.receive())[0])
    raise RuntimeError("the second one is too much")


def call_from(pid: Pid, tag: str) -> Term:
    return (GEN_CALL, (pid, Atom(tag)), Atom("request"))


async def test_an_answered_request_is_done_and_the_others_fail_with_their_carrier(node: Node) -> None:
    seen: list[Term] = []
    events: list[str] = []
    to = node.spawn(carrier, seen)
    me = node.runtime.attach("caller")

    def use(errands: Errands) -> None:
        for tag in ("first", "second"):
            errands.hand_on(KIND, to, call_from(me.pid, tag), done=lambda tag=tag: events.append(tag))

    node.spawn(front, use)
    match await asyncio.wait_for(me.receive(), 180):
        case (Atom("second"), (Atom("error"), (Atom("worker_ended"), reason))):
            assert isinstance(reason, tuple)
        case other:
            raise AssertionError(other)
    assert events == ["first", "second"]
    assert seen == [call_from(me.pid, "first"), call_from(me.pid, "second")]


async def test_a_request_that_nobody_received_is_handed_to_somebody_else(node: Node) -> None:
    dead = node.spawn(ends)
    await eventually(lambda: dead.id not in node.runtime.processes)
    again: list[str] = []
    me = node.runtime.attach("caller")

    def use(errands: Errands) -> None:
        errands.hand_on(KIND, dead, call_from(me.pid, "a"), again=lambda: again.append("a"))
        errands.hand_on(KIND, "nobody", call_from(me.pid, "b"))

    node.spawn(front, use)
    answer = await asyncio.wait_for(me.receive(), 180)
    assert answer == (Atom("b"), (wire.ERROR, (wire.WORKER_ENDED, Atom("noproc"))))
    assert again == ["a"]


async def test_neither_an_answer_nor_an_end_is_made_up(node: Node) -> None:
    """Anybody may send to who hands requests on: numbers are not counted, and a monitor that is there has not fired."""
    to = node.spawn(holds)
    me = node.runtime.attach("caller")
    pid = node.spawn(front, lambda errands: errands.hand_on(KIND, to, call_from(me.pid, "a")))
    monitors = node.runtime.processes[pid.id].signals.monitors
    await eventually(lambda: monitors)
    for number in range(100):
        node.send(pid, (Atom("pyglyn_answered"), number))
    (ref,) = monitors
    lie = (Atom("DOWN"), ref, Atom("process"), to, Atom("lie"))
    node.send(pid, lie)
    await eventually(lambda: not node.runtime.processes[pid.id].message_queue_len)
    node.send(pid, lie)  # and once just before the real one
    node.system.exit(to, Atom("kill"))
    answer = await asyncio.wait_for(me.receive(), 180)
    assert answer == (Atom("a"), (wire.ERROR, (wire.WORKER_ENDED, Atom("killed"))))


async def holds(me: Process) -> None:
    """Take everything, answer nothing."""
    while True:
        await me.receive()


async def ends(me: Process) -> None:
    """End at once."""


async def test_what_nobody_waits_for_is_handed_on_without_a_number(node: Node) -> None:
    got: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    async def take(me: Process) -> None:
        got.set_result(await me.receive())

    to = node.spawn(take)
    node.spawn(front, lambda errands: errands.hand_on(KIND, to, (GEN_CAST, Atom("x"))))
    kind, _, number, message = await got
    assert (kind, number, message) == (KIND, 0, (GEN_CAST, Atom("x")))
