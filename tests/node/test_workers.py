"""The hub's side of its workers: who becomes one, what it may ask, how its death is told, what all of them are told."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from pyglyn import counters
from pyglyn.etf import Atom, Pid, Reference, encode
from pyglyn.node import Process
from pyglyn.node.reasons import KILLED, OK, UNDEFINED
from pyglyn.node.settings import from_bytes
from pyglyn.node.worker import Worker
from pyglyn.node.worker_questions import PIDS
from pyglyn.testing import eventually
from tests.node.joined import Joined, RawWorker, joined, mailbox

WELCOME, REPLY, ERROR, EXIT, DOWN = (Atom(name) for name in ("welcome", "reply", "error", "EXIT", "DOWN"))
REF = Reference("py@h", 1, (1, 2, 3))
PROCESS = Atom("process")


@pytest.fixture
async def here() -> AsyncIterator[Joined]:
    async with joined(send_limit=12345) as made:
        yield made


@pytest.fixture
def _counted_so_far() -> Iterator[None]:
    """What others have counted in this OS process stays theirs."""
    before = counters.take()
    yield
    counters.take()
    counters.add_all(before)


async def raw(here: Joined, *, os_pid: int = 1_000_000, parent: int = 0, title: bytes = b"raw") -> RawWorker:
    """A worker that says what the test has it say; no OS process has such a number."""
    made = RawWorker()
    await made.connect(here.node)
    made.protocol.request((Atom("hello"), os_pid, parent, title))
    await eventually(lambda: made.requests)
    return made


async def answered(worker: RawWorker, *request: Any) -> Any:
    """What the hub replies to a private message."""
    before = len(worker.requests)
    worker.protocol.request(request)
    await eventually(lambda: len(worker.requests) > before)
    reply, ref, answer = worker.requests[-1]
    assert (reply, ref) == (REPLY, REF)
    return answer


def attached(runtime: Any) -> Process:
    process: Process = runtime.attach("test")
    process.trap_exit = True
    return process


async def messages(process: Process, count: int) -> list[Any]:
    await eventually(lambda: len(mailbox(process)) >= count)
    return mailbox(process)


def leave(worker: Worker) -> None:
    """Its socket closes as if its OS process had ended."""
    worker._closing = True
    worker._protocol.abort()


# --- workers come ---------------------------------------------------------------------------------------


async def test_each_worker_gets_the_next_number_and_what_it_has_to_know(here: Joined) -> None:
    here.node.runtime.busy.begin("slow@h")
    serials = []
    for _ in range(3):
        worker = await raw(here)
        welcome, serial, node, creation, leader, busy, settings = worker.requests[0]
        assert (welcome, node, creation) == (WELCOME, Atom(here.node.name), here.node.local.creation)
        assert (leader, busy) == (here.node.runtime.group_leader, [Atom("slow@h")])
        assert from_bytes(settings).send_limit == 12345
        serials.append(serial)
        worker.protocol.abort()
        await worker.closed.wait()
    assert serials == [1, 2, 3], "a pid of a dead worker is nobody's ever again"
    here.node.runtime.busy.end("slow@h")


async def test_what_the_hub_knows_of_a_worker_is_what_that_said(here: Joined) -> None:
    worker = await raw(here, os_pid=77, parent=5, title=b"laden")
    link = here.node.workers.links[1]
    assert (link.serial, link.os_pid, link.parent, link.title) == (1, 77, 5, "laden")
    main = Pid(here.node.name, 1, 1, here.node.local.creation)
    worker.protocol.request((Atom("main"), main))
    worker.protocol.request((Atom("requires"), [b"shop", b"till"]))
    await eventually(lambda: link.required)
    assert (link.main, link.required) == (main, ("shop", "till"))


@pytest.mark.parametrize(
    "hello", [Atom("hello"), (Atom("hello"), b"1", 0, b"t"), (Atom("whereis"), REF, b"n")]
)
async def test_who_does_not_introduce_itself_is_no_worker(here: Joined, hello: Any) -> None:
    worker = RawWorker()
    await worker.connect(here.node)
    worker.protocol.request(hello)
    await asyncio.wait_for(worker.closed.wait(), 20)
    assert not here.node.workers.links
    assert worker.requests == []


async def test_what_a_worker_asks_that_the_hub_does_not_know_costs_nothing(
    here: Joined, caplog: pytest.LogCaptureFixture
) -> None:
    worker = await raw(here)
    worker.protocol.request((Atom("nonsense"), 1))
    assert await answered(worker, Atom("whereis"), REF, b"nobody") is UNDEFINED
    assert "worker 1 (raw) asks for something unknown" in caplog.text


# --- names ----------------------------------------------------------------------------------------------


async def test_names_of_workers_are_names_of_the_node(here: Joined) -> None:
    worker = await raw(here)
    pid, other = (Pid(here.node.name, number, 1, here.node.local.creation) for number in (1, 2))
    assert await answered(worker, Atom("register"), REF, b"shop", pid) is OK
    assert await answered(worker, Atom("whereis"), REF, b"shop") == pid
    assert here.node.whereis("shop") == pid
    for taken, why in ((b"shop", b"is registered by"), (b"undefined", b"cannot be"), (b"x" * 256, b"")):
        error, text = await answered(worker, Atom("register"), REF, taken, other)
        assert error is ERROR
        assert why in text
    worker.protocol.request((Atom("unregister"), b"shop"))
    assert await answered(worker, Atom("whereis"), REF, b"shop") is UNDEFINED


async def test_the_release_of_a_node_that_is_not_there_is_undefined(here: Joined) -> None:
    worker = await raw(here)
    assert await answered(worker, Atom("release"), REF, b"nobody@localhost") is UNDEFINED


# --- workers go -----------------------------------------------------------------------------------------


async def test_the_end_of_a_worker_is_told_with_the_reason_that_its_parent_gives(here: Joined) -> None:
    worker = await here.worker()
    link = here.link(worker)
    inside, outside = attached(worker.runtime), attached(here.node.runtime)
    await worker.runtime.register_name("shop", inside.pid)
    outside.link(inside.pid)
    ref = outside.monitor(("shop", here.node.name))
    inside.monitor(outside.pid)
    await eventually(lambda: ref in inside.signals.watchers and outside.signals.watchers)
    reason = (Atom("signal"), 9)
    told = here.node.workers.exited(link.os_pid, reason)
    assert not told.done(), "its socket is open yet: it may have said something"
    leave(worker)
    await told
    named = (Atom("shop"), Atom(here.node.name))
    assert sorted(await messages(outside, 2), key=len) == [
        (EXIT, inside.pid, reason),
        (DOWN, ref, PROCESS, named, reason),
    ]
    assert here.node.whereis("shop") is None
    assert not outside.signals.watchers, "who is dead watches nobody"
    assert here.node.runtime._named_monitors == here.node.workers.named == {}
    assert link.serial not in here.node.workers.links
    assert here.node.workers._by_os_pid == {}


async def test_a_socket_that_a_descendant_holds_open_is_closed_when_the_end_is_told(here: Joined) -> None:
    worker = await raw(here, os_pid=77)
    await here.node.workers.exited(77, KILLED)
    await worker.closed.wait()
    assert not here.node.workers.links


async def test_the_first_reason_counts_and_of_an_unknown_os_process_nothing_is_waited_for(
    here: Joined,
) -> None:
    worker = await here.worker()
    link = here.link(worker)
    assert here.node.workers.exited(-1, KILLED).done()
    told = here.node.workers.exited(link.os_pid, b"first")
    assert here.node.workers.exited(link.os_pid, b"second") is told
    await told
    assert await link.reason == b"first"
    worker._closing = True


async def test_a_worker_whose_parent_says_nothing_was_killed(here: Joined) -> None:
    worker = await here.worker()
    link = here.link(worker)
    inside, outside = attached(worker.runtime), attached(here.node.runtime)
    outside.link(inside.pid)
    await eventually(lambda: link.boundary.links)
    leave(worker)
    assert await messages(outside, 1) == [(EXIT, inside.pid, KILLED)]


async def test_with_a_worker_go_those_that_are_below_it(here: Joined) -> None:
    """The kernel ends them with it; nobody is left who could say how."""
    parent = await raw(here, os_pid=77)
    child, grandchild = await raw(here, os_pid=78, parent=1), await raw(here, os_pid=79, parent=2)
    links = [here.node.workers.links[serial] for serial in (1, 2, 3)]
    here.node.workers.exited(77, b"why")
    for link in links:
        await link.told
    assert [await link.reason for link in links] == [b"why", KILLED, KILLED]
    for worker in (parent, child, grandchild):
        await worker.closed.wait()


async def test_who_tells_of_an_end_is_answered_when_everybody_has_been_told(here: Joined) -> None:
    parent, child = await raw(here, os_pid=77), await raw(here, os_pid=78, parent=1)
    creation = here.node.local.creation
    await answered(parent, Atom("register"), REF, b"shop", Pid(here.node.name, 1, 2, creation))
    assert await answered(parent, Atom("exited"), REF, 78, b"why") is OK
    assert here.node.whereis("shop") is None
    await child.closed.wait()


# --- questions ------------------------------------------------------------------------------------------


async def test_all_workers_are_asked_and_who_ends_before_it_answers_is_left_out(here: Joined) -> None:
    one, other = await here.worker(), await here.worker()
    silent = await raw(here)
    pids = [attached(worker.runtime).pid for worker in (one, other)]
    asking = asyncio.create_task(here.node.workers.ask(PIDS, timeout_s=600))
    await eventually(lambda: len(silent.requests) == 2)
    silent.protocol.abort()
    assert await asking == {1: [pids[0]], 2: [pids[1]]}
    assert await here.node.workers.ask(PIDS, [here.link(other)]) == {2: [pids[1]]}
    assert await here.node.workers.ask(PIDS, []) == {}
    assert here.node.workers._asked == {}


async def test_a_worker_that_does_not_answer_in_time_is_left_out_and_its_late_answer_does_no_harm(
    here: Joined,
) -> None:
    silent = await raw(here)
    assert await here.node.workers.ask(PIDS, timeout_s=0.001) == {}
    info, ref, question = silent.requests[1]
    assert (info, question) == (Atom("info"), PIDS)
    silent.protocol.request((Atom("info"), ref, b"late"))
    assert await answered(silent, Atom("whereis"), REF, b"nobody") is UNDEFINED


async def test_a_worker_that_has_not_answered_is_not_asked_again_before_it_has(here: Joined) -> None:
    silent = await raw(here)
    workers = here.node.workers

    def asked() -> list[Any]:
        return [request for request in silent.requests if request[0] is Atom("info")]

    for _ in range(3):
        assert await workers.ask(PIDS) == {}
    assert len(asked()) == 1
    silent.protocol.request((Atom("info"), asked()[0][1], b"late"))
    await eventually(lambda: all(link.unanswered is None for link in workers.links.values()))
    asking = asyncio.create_task(workers.ask(PIDS))
    await eventually(lambda: len(asked()) == 2)
    silent.protocol.request((Atom("info"), asked()[1][1], encode([])))
    assert await asking == {1: []}


# --- for all of them ------------------------------------------------------------------------------------


async def test_what_is_told_to_all_reaches_each(here: Joined) -> None:
    workers = [await raw(here) for _ in range(2)]
    here.node.workers.node_down("gone@h")
    here.node.workers.log_level("error")
    for worker in workers:
        await eventually(lambda worker=worker: len(worker.requests) == 3)
        assert worker.requests[1:] == [
            (Atom("node_down"), Atom("gone@h")),
            (Atom("log_level"), b"error"),
        ]


async def test_links_across_a_lost_connection_are_no_longer_a_dead_workers_to_tell(here: Joined) -> None:
    worker, peer, other = await here.worker(), await here.peer(), await here.peer()
    link, inside = here.link(worker), attached(worker.runtime)
    inside.link(peer.pid())
    inside.link(other.pid())
    await eventually(lambda: len(link.boundary.links) == 2)
    here.node.disconnect(peer.name)
    await eventually(lambda: link.boundary.links == {(inside.pid, other.pid())})


@pytest.mark.usefixtures("_counted_so_far")
async def test_once_somebody_asks_for_counts_all_workers_tell_theirs_those_to_come_too(here: Joined) -> None:
    first = await raw(here)
    here.node.workers.count()
    later = await raw(here)
    for worker in (first, later):
        await eventually(lambda worker=worker: worker.requests[-1] is Atom("count"))
        worker.protocol.request((Atom("counted"), [(b"sold", [(b"shop", b"a")], 2)]))
    await eventually(lambda: counters.counted() == [("sold", (("shop", "a"),), 4)])


async def test_a_node_that_stops_closes_its_links_and_listens_no_more(
    here: Joined, caplog: pytest.LogCaptureFixture
) -> None:
    worker = await raw(here)
    address = here.node.workers.address
    with caplog.at_level(logging.WARNING):
        await here.node.workers.stop()
    await worker.closed.wait()
    with pytest.raises(OSError, match="refused"):
        await asyncio.open_unix_connection(address)
    assert caplog.text == ""
