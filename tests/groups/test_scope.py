"""The process that runs a group machine: what it hands to it, how it carries out what that asks for, how it starts anew."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import attrs
import pytest

from pyglyn.errors import NameTaken
from pyglyn.etf import Atom, Pid, Term
from pyglyn.groups import effects as fx
from pyglyn.groups.discovery import Discovery
from pyglyn.groups.scope import AT_ONCE, RESTART_PAUSE_S, RESTARTS_AT_ONCE, Scope
from pyglyn.node import Process
from pyglyn.testing import eventually
from tests.net.conftest import Recorder
from tests.node.joined import Joined, joined, mailbox

NOPROC, NOCONNECTION = Atom("noproc"), Atom("noconnection")


class Script:
    """A machine that notes its inputs and answers with what the test has put there."""

    def __init__(self, entries: list[Any]) -> None:
        self.entries = entries
        self.inputs: list[tuple[Any, ...]] = []
        self.answers: dict[str, list[fx.Effect]] = {}
        self.deadline: float | None = None
        self.settled: set[str] = set()

    @property
    def discovery(self) -> Discovery:
        return self  # type: ignore[return-value]

    def has_settled(self, node: str) -> bool:
        return node in self.settled

    def next_deadline(self) -> float | None:
        return self.deadline

    def _noted(self, kind: str, *what: Any) -> list[fx.Effect]:
        self.inputs.append((kind, *what))
        return self.answers.pop(kind, [])

    def handle_node_up(self, node: str) -> list[fx.Effect]:
        return self._noted("up", node)

    def handle_node_down(self, node: str) -> list[fx.Effect]:
        return self._noted("down", node)

    def handle_down(self, target: fx.Target, reason: Term, now: float) -> list[fx.Effect]:
        return self._noted("ended", target, reason)

    def handle_watch(self, node: str, found: bool, now: float) -> list[fx.Effect]:
        return self._noted("watch", node, found)

    def handle_unwatched(self, pid: Pid, now: float) -> list[fx.Effect]:
        return self._noted("unwatched", pid)

    def handle_version(self, node: str, version: Any) -> list[fx.Effect]:
        return self._noted("version", node, version)

    def handle_timeout(self, now: float) -> list[fx.Effect]:
        self.deadline = None
        return self._noted("timeout")

    def handle_message(self, message: Term) -> list[fx.Effect]:
        return self._noted("message", message)


class Scripted(Scope[Script]):
    """A scope around that machine."""

    operations = frozenset(("add", "slow", "wrong"))

    def make_machine(self, process: Process) -> Script:
        return Script([])

    def take_over(self, old: Script) -> list[fx.Effect]:
        self.machine.entries += old.entries
        return [fx.Event(kind="taken", scope="s", name=b"n", pid=self.process.pid, meta=None)]

    def take(self, message: Term, now: float) -> list[fx.Effect]:
        return self.machine.handle_message(message)

    def overview(self) -> Term:
        return b"overview"

    def add(self, entry: Term) -> int:
        self.machine.entries.append(entry)
        return len(self.machine.entries)

    async def slow(self, entry: Term) -> Term:
        await asyncio.sleep(0)
        return entry

    def wrong(self) -> None:
        raise ValueError("wrong")

    def hidden(self) -> None:
        raise AssertionError("no operation")


@attrs.frozen
class Running:
    """A node with a scope that runs."""

    here: Joined
    scope: Scripted

    @property
    def machine(self) -> Script:
        return self.scope.machine

    async def took(self, *expected: Any) -> None:
        """Wait until the machine has taken an input."""
        await eventually(lambda: expected in self.machine.inputs)

    async def process(self) -> Process:
        return self.here.node.runtime.attach("test")


@pytest.fixture
async def run() -> AsyncIterator[Running]:
    async with joined(send_limit=4_000_000) as here:
        scope = Scripted(here.node, "scope")
        scope.start()
        yield Running(here, scope)
        scope.stop()


def event(number: int) -> fx.Event:
    return fx.Event(kind="n", scope="s", name=number, pid=Pid("a@h", 1, 0, 1), meta=None)


def heard(scope: Scripted) -> list[Any]:
    """What listeners are told from now on: the names of events."""
    names: list[Any] = []
    scope.listeners.append(lambda event: names.append(event.name))
    return names


# --- inputs ---------------------------------------------------------------------------------------------


async def test_nodes_that_are_up_that_come_and_that_go_are_told_in_order() -> None:
    async with joined() as here:
        first = await here.peer()
        scope = Scripted(here.node, "scope")
        scope.start()
        second = await here.peer()
        here.node.disconnect(first.name)
        expected = [("up", first.name), ("up", second.name), ("down", first.name)]
        await eventually(lambda: scope.machine.inputs == expected)
        scope.stop()


async def test_messages_go_to_the_machine_and_nothing_from_outside_looks_like_an_input(run: Running) -> None:
    down = (Atom("DOWN"), run.here.node.make_ref(), Atom("process"), run.scope.process.pid, NOPROC)
    sent = [b"a", down, (Atom("$gen_call"), 1), (Atom("DOWN"), 1)]
    for message in sent:
        run.here.node.send("scope", message)
    await run.took("message", (Atom("DOWN"), 1))
    assert run.machine.inputs == [("message", message) for message in sent], (
        "a DOWN that somebody sends is none"
    )


async def test_the_end_of_what_is_monitored_is_told_by_what_was_asked_for(run: Running) -> None:
    target = await run.process()
    named = (Atom("shop"), run.here.node.name)
    run.here.node.runtime.register("shop", target.pid)
    other = await run.process()
    run.scope.perform([fx.Monitor(target.pid), fx.Monitor(named), fx.Monitor(other.pid)])
    run.scope.perform([fx.Demonitor(other.pid), fx.Demonitor((Atom("nobody"), "x@h"))])
    other.die(b"unseen")
    target.die(b"why")
    await run.took("ended", target.pid, b"why")
    await run.took("ended", named, b"why")
    assert len(run.machine.inputs) == 2
    assert run.scope._refs == run.scope._targets == {}


async def test_a_deadline_that_has_passed_is_told_also_one_that_came_meanwhile(run: Running) -> None:
    run.machine.deadline = time.monotonic() - 1
    run.scope.perform([])
    await run.took("timeout")
    run.machine.deadline = time.monotonic() + 3600
    run.scope.perform([])
    run.here.node.send("scope", b"meanwhile")
    await run.took("message", b"meanwhile")
    assert [kind for kind, *_ in run.machine.inputs] == ["timeout", "message"]
    run.machine.deadline = time.monotonic()
    run.scope.perform([])  # sooner than what the process waits for
    await eventually(lambda: [kind for kind, *_ in run.machine.inputs] == ["timeout", "message", "timeout"])


# --- operations -----------------------------------------------------------------------------------------


async def test_a_process_of_the_node_may_ask_for_what_is_an_operation(run: Running) -> None:
    inside = (await run.here.worker()).runtime.attach("test")
    do = (Atom("pyglyn_do"), inside.runtime.secret)
    assert await inside.call("scope", (*do, Atom("add"), b"entry")) == (Atom("ok"), 1)
    assert await inside.call("scope", (*do, Atom("slow"), b"entry")) == (Atom("ok"), b"entry")
    error, kind, text, _ = await inside.call("scope", (*do, Atom("wrong")))  # type: ignore[misc]
    assert (error, kind, text) == (Atom("error"), Atom("ValueError"), b"wrong")
    _, kind, *_ = await inside.call("scope", (*do, Atom("add")))  # type: ignore[misc]
    assert kind is Atom("GroupError"), "the wrong number of arguments"


async def test_another_node_may_not_and_what_is_no_operation_is_none(run: Running) -> None:
    peer = await run.here.peer()
    ref = run.here.node.make_ref()
    inside = (await run.here.worker()).runtime.attach("test")
    secret = inside.runtime.secret
    for sender, what, told in (
        (inside.pid, "hidden", secret),
        (inside.pid, "stop", secret),
        (peer.pid(), "add", secret),
        (inside.pid, "add", b"guessed"),
    ):
        call = (Atom("$gen_call"), (sender, ref), (Atom("pyglyn_do"), told, Atom(what), 1))
        run.here.node.send("scope", call)
    call = (Atom("$gen_call"), (inside.pid, ref), (Atom("pyglyn_do"), Atom("add"), 1))
    run.here.node.send("scope", call)
    run.here.node.send("scope", b"last")
    await run.took("message", b"last")
    assert run.machine.entries == []
    assert peer.messages == []
    assert mailbox(inside) == []
    assert run.scope.running


# --- effects --------------------------------------------------------------------------------------------


async def test_effects_are_carried_out_in_their_order_and_others_have_their_turn_between_many(
    run: Running,
) -> None:
    names = heard(run.scope)
    run.scope.perform([event(number) for number in range(2 * AT_ONCE + 10)])
    run.scope.perform([event(-1)])
    assert names == [], "more than one turn's worth"
    seen: list[int] = []
    for _ in range(3):
        await asyncio.sleep(0)
        seen.append(len(names))
    assert seen == [AT_ONCE, 2 * AT_ONCE, 2 * AT_ONCE + 11]
    assert names == [*range(2 * AT_ONCE + 10), -1]
    run.scope.perform([event(number) for number in range(AT_ONCE)])
    assert len(names) == 3 * AT_ONCE + 11, "few are carried out at once"


async def test_no_message_is_taken_before_what_earlier_ones_caused_is_done(run: Running) -> None:
    names = heard(run.scope)
    run.machine.answers["message"] = [event(number) for number in range(3 * AT_ONCE)]
    taken: list[int] = []
    handle = run.machine.handle_message
    run.machine.handle_message = lambda message: (taken.append(len(names)), handle(message))[1]  # type: ignore
    for number in range(2):
        run.here.node.send("scope", number)
    await eventually(lambda: len(taken) == 2)
    assert taken == [0, 3 * AT_ONCE]


async def test_what_a_callback_raises_costs_nobody_else_anything(
    run: Running, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(event: fx.Event) -> None:
        raise KeyError("shop")

    run.scope.listeners.append(fails)
    names = heard(run.scope)
    run.scope.perform([event(1)])
    assert names == [1]
    assert "a callback failed" in caplog.text


async def test_nothing_is_sent_to_a_node_that_is_not_connected_and_nobody_is_dialled(run: Running) -> None:
    """The connection may be gone, and the mailbox tells it later only."""
    peer = await run.here.peer(connected=False)
    far = Pid(peer.name, 1, 0, 1)
    caller = (far, run.here.node.make_ref())
    run.scope.perform([fx.Send(far, 1), fx.Send((Atom("s"), peer.name), 1), fx.AnswerCall(caller, 1)])
    run.scope.perform([fx.Monitor(far), fx.Monitor((Atom("s"), peer.name))])
    run.scope.perform([fx.AnswerCall(b"no caller", 1)])
    assert run.here.node.router.pending == {}
    assert run.scope._refs == {}
    await run.here.node.connect(peer.name)
    await eventually(lambda: peer.ups)
    run.scope.perform([fx.Send(peer.pid(), b"now"), fx.AnswerCall((peer.pid(), b"tag"), b"reply")])
    assert await peer.has_received(2) == [b"now", (b"tag", b"reply")]


async def test_an_exit_signal_is_sent_as_the_scope_process(run: Running) -> None:
    target = await run.process()
    target.trap_exit = True
    run.scope.perform([fx.SendExit(target.pid, b"why")])
    assert mailbox(target) == [(Atom("EXIT"), run.scope.process.pid, b"why")]


async def fill(run: Running, peer: Recorder) -> None:
    """Let a peer not read, until more is queued for it than may be."""
    peer.ups[0].pause_reading()
    connection = run.here.connection(peer)
    limit = run.here.node.settings.send_limit
    while connection.queued_bytes <= limit:
        run.scope.perform([fx.Send(peer.pid(), bytes(250_000))])
        await asyncio.sleep(0)


async def test_a_node_that_does_not_take_the_stream_is_disconnected_as_a_gap_in_it_is_for_ever(
    run: Running, caplog: pytest.LogCaptureFixture
) -> None:
    peer = await run.here.peer()
    assert not run.scope.is_busy(peer.name)
    assert not run.scope.is_busy("nobody@h")
    await fill(run, peer)
    assert run.scope.is_busy(peer.name)
    assert run.here.node.nodes() == [peer.name]
    run.scope.perform([fx.Send(peer.pid(), 1)])
    assert run.here.node.nodes() == []
    assert "closing the connection" in caplog.text
    await run.took("down", peer.name)


async def test_who_watches_the_scope_process_is_looked_at_and_told_only_if_it_does_not(run: Running) -> None:
    watcher, other = await run.process(), await run.process()
    watcher.monitor(run.scope.process.pid)
    run.scope.perform([fx.CheckWatched(watcher.pid)])
    assert run.machine.inputs == []
    run.scope.perform([fx.CheckWatched(other.pid)])
    assert run.machine.inputs == [("unwatched", other.pid)]


async def test_a_node_that_runs_no_code_of_ours_is_told_as_one_that_cannot_be_watched(run: Running) -> None:
    async with joined() as other:
        run.here.ports[other.node.name] = other.node.peers.port
        await run.here.node.connect(other.node.name)
        run.scope.perform([fx.AskVersion(other.node.name), fx.Watch(Atom("scope"), other.node.name)])
        await run.took("watch", other.node.name, False)
        assert [kind for kind, *_ in run.machine.inputs if kind == "version"] == []


async def test_dropped_input_is_logged_with_its_source(
    run: Running, caplog: pytest.LogCaptureFixture
) -> None:
    run.scope.perform([fx.Rejected("bad@h", "odd")])
    assert "scope scope dropped, from bad@h: odd" in caplog.text


# --- life -----------------------------------------------------------------------------------------------


async def anew(run: Running, end: Callable[[Process], None]) -> None:
    """End the scope process; wait for the next one."""
    before = run.scope.process
    end(before)
    await eventually(lambda: run.scope.process is not before and run.scope.process.alive)


async def test_however_its_process_ends_a_new_one_takes_over(
    run: Running, caplog: pytest.LogCaptureFixture
) -> None:
    await run.scope.operate("add", b"member")
    names = heard(run.scope)
    target = await run.process()
    run.scope.perform([fx.Monitor(target.pid)])
    await anew(run, lambda process: run.here.node.system.exit(process.pid, "kill"))
    assert run.machine.entries == [b"member"]
    assert names == [b"n"], "what the new machine has to say was carried out"
    assert run.scope._refs == {}, "monitors of a dead process are none"
    assert run.here.node.whereis("scope") == run.scope.process.pid
    assert "scope scope ended, starting it anew" in caplog.text

    def fault(message: Term) -> Any:
        raise KeyError("of ours")

    run.machine.handle_message = fault  # type: ignore[assignment, method-assign]
    await anew(run, lambda process: run.here.node.send("scope", 1))
    assert run.machine.entries == [b"member"]
    run.here.node.send("scope", b"again")
    await run.took("message", b"again")


async def test_between_two_processes_events_are_told_and_nothing_is_sent(run: Running) -> None:
    """The next one tells all nodes anew what the machine knows."""
    peer = await run.here.peer()
    names = heard(run.scope)

    def between(reason: Term) -> None:
        run.scope.perform([fx.Send(peer.pid(), b"lost"), event(1)])
        run.scope.perform([*[event(2)] * AT_ONCE, fx.Send(peer.pid(), b"lost")])

    run.scope.process.on_end.append(between)
    await anew(run, lambda process: process.die(b"why"))
    assert names == [1, *[2] * AT_ONCE, b"n"]
    run.scope.perform([fx.Send(peer.pid(), b"kept")])
    assert await peer.has_received(1) == [b"kept"]


async def test_one_that_ends_all_the_time_is_not_started_all_the_time(run: Running) -> None:
    for _ in range(RESTARTS_AT_ONCE):
        await anew(run, lambda process: process.die(b"why"))
    began = asyncio.get_running_loop().time()
    run.scope.process.die(b"why")
    await eventually(lambda: len(run.scope._ends) == RESTARTS_AT_ONCE + 1)
    assert run.scope._pause is not None
    assert run.scope._pause.when() >= began + RESTART_PAUSE_S
    assert run.scope.running


async def test_a_name_that_somebody_else_has_meanwhile_is_tried_again(
    run: Running, caplog: pytest.LogCaptureFixture
) -> None:
    other = await run.process()
    before = run.scope.process
    before.on_end.append(lambda reason: run.here.node.runtime.register("scope", other.pid))
    before.die(b"why")
    await eventually(lambda: "does not start anew yet" in caplog.text)
    other.end()
    await eventually(lambda: run.scope.process is not before)
    assert run.here.node.whereis("scope") == run.scope.process.pid


async def test_a_scope_does_not_start_under_a_name_that_is_taken(run: Running) -> None:
    second = Scripted(run.here.node, "scope")
    with pytest.raises(NameTaken):
        second.start()
    assert not second.running
    assert run.here.node.whereis("scope") == run.scope.process.pid


async def test_a_scope_that_is_stopped_stays_so(run: Running, caplog: pytest.LogCaptureFixture) -> None:
    peer = await run.here.peer()
    await run.took("up", peer.name)
    process = run.scope.process
    with caplog.at_level(logging.ERROR):
        run.scope.stop()
        run.scope.stop()
    assert not process.alive
    assert not run.scope.running
    run.here.node.disconnect(peer.name)
    await eventually(lambda: not run.here.node.nodes())
    assert run.scope.process is process
    assert ("down", peer.name) not in run.machine.inputs
    assert caplog.text == ""


async def test_who_waits_until_all_is_told_waits_for_each_node_that_stays_connected(run: Running) -> None:
    stays, goes = await run.here.peer(), await run.here.peer()
    await run.took("up", goes.name)
    waiting = asyncio.create_task(run.scope.settled())
    later = await run.here.peer()
    await run.took("up", later.name)
    run.here.node.disconnect(goes.name)
    await run.took("down", goes.name)
    assert not waiting.done()
    run.machine.settled.add(stays.name)
    run.here.node.send("scope", b"anything")
    await asyncio.wait_for(waiting, 20)
    await eventually(lambda: run.scope._settling == [])
