"""The hub's forwarding: what waits for a connection, what is refused, what is answered for others, who is held back."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest

from pyglyn import etf
from pyglyn.dist import RECOMMENDED, DistFlags
from pyglyn.dist.control import (
    AliasSend,
    DemonitorP,
    Exit2,
    Link,
    LinkExit,
    MonitorP,
    MonitorPExit,
    RegSend,
    Send,
    SpawnFlags,
    SpawnReply,
    SpawnRequest,
    UnlinkId,
    UnlinkIdAck,
)
from pyglyn.errors import NodeBusy
from pyglyn.etf import Atom, Limits, Pid, Reference, Term, encode_parts
from pyglyn.node import Process
from pyglyn.node.worker import Worker
from pyglyn.testing import eventually
from tests.node.joined import Joined, RawWorker, joined, mailbox
from tests.node.runtimes import REF

KILOBYTE = 1024
NOPROC, NOCONNECTION, EXIT, DOWN = Atom("noproc"), Atom("noconnection"), Atom("EXIT"), Atom("DOWN")
NOBODY = "nobody@localhost"
"""A node that cannot be reached."""


@pytest.fixture
async def here() -> AsyncIterator[Joined]:
    async with joined(send_limit=8 * KILOBYTE) as made:
        yield made


def attached(worker: Worker | Joined, name: str = "") -> Process:
    """A process in a worker, or in the hub, that the test acts as."""
    runtime = worker.node.runtime if isinstance(worker, Joined) else worker.runtime
    process = runtime.attach("test")
    process.trap_exit = True
    return process


async def messages(process: Process, count: int) -> list[Any]:
    """The first so many messages that wait for a process."""
    await eventually(lambda: len(mailbox(process)) >= count)
    return mailbox(process)


# --- to nodes that are not connected yet --------------------------------------------------------------


async def test_what_waits_for_a_connection_goes_out_first_and_in_its_order(here: Joined) -> None:
    peer = await here.peer(connected=False)
    me = attached(here)
    inside = attached(await here.worker())
    all_wait, find = asyncio.Event(), here.node.peers._find

    async def find_later(node: str) -> Any:
        await all_wait.wait()
        return await find(node)

    here.node.peers._find = find_later  # type: ignore[method-assign]
    for number in range(3):
        me.send(("sink", peer.name), number)
    inside.send(("sink", peer.name), b"of a worker")
    await eventually(lambda: len(here.node.router.pending[peer.name].signals) == 4)
    here.node.on_node_event(lambda event: me.send(("sink", peer.name), b"last"))
    all_wait.set()
    assert (await peer.has_received(5))[:3] == [0, 1, 2]
    assert peer.received()[3:] == [b"of a worker", b"last"]
    assert len(peer.ups) == 1
    assert peer.name not in here.node.router.pending


async def test_what_cannot_be_connected_ends_links_and_monitors_wherever_they_are(
    here: Joined, caplog: pytest.LogCaptureFixture
) -> None:
    far = Pid(NOBODY, 1, 0, 1)
    me, inside = attached(here), attached(await here.worker())
    for process in (me, inside):
        process.send(far, b"lost")
        process.link(far)
        ref = process.monitor(("sink", NOBODY))
        found = await messages(process, 2)
        assert (EXIT, far, NOCONNECTION) in found
        assert (DOWN, ref, Atom("process"), (Atom("sink"), Atom(NOBODY)), NOCONNECTION) in found
    await eventually(lambda: here.node.router.pending == {})
    assert f"cannot connect to {NOBODY}" in caplog.text


@pytest.mark.parametrize("in_worker", [False, True], ids=["hub", "worker"])
async def test_a_connect_that_fails_ends_no_link_that_is_made_meanwhile(
    here: Joined, in_worker: bool
) -> None:
    """It has a connect of its own, which may succeed; ended at one side only, neither would tell the other of its end."""
    peer = await here.peer(connected=False)
    port = here.ports.pop(peer.name)
    process = attached(await here.worker() if in_worker else here)
    real = here.node.router._unreachable
    second = peer.pid(2)

    def unreachable(unsent: Any) -> None:
        real(unsent)
        here.ports[peer.name] = port
        process.link(second)

    here.node.router._unreachable = unreachable  # type: ignore[method-assign]
    ref = process.monitor(peer.pid(1))
    process.link(peer.pid(1))
    await eventually(lambda: peer.messages)
    assert peer.messages == [(Link(process.pid, second), None)]
    assert [*process.signals.links] == [second]
    assert await messages(process, 2) == [
        (DOWN, ref, Atom("process"), peer.pid(1), NOCONNECTION),
        (EXIT, peer.pid(1), NOCONNECTION),
    ]


async def test_what_a_worker_says_to_a_node_that_is_lost_meanwhile_makes_no_half_of_a_link(
    here: Joined,
) -> None:
    peer = await here.peer()
    worker = await here.worker()
    inside = attached(worker)
    here.node.disconnect(peer.name)
    inside.link(peer.pid(1))
    ref = inside.monitor(peer.pid(1))
    assert await messages(inside, 2) == [
        (EXIT, peer.pid(1), NOCONNECTION),
        (DOWN, ref, Atom("process"), peer.pid(1), NOCONNECTION),
    ]
    link = here.link(worker)
    await eventually(lambda: not link.lost)
    inside.send(("sink", peer.name), b"behind them")
    inside.link(peer.pid(2))
    await eventually(lambda: len(peer.messages) == 2)
    assert peer.received() == [b"behind them"]
    assert peer.messages[1][0] == Link(inside.pid, peer.pid(2))
    assert link.boundary.links == {(inside.pid, peer.pid(2))}


async def test_a_node_that_is_told_not_to_dials_nobody(caplog: pytest.LogCaptureFixture) -> None:
    async with joined(auto_connect=False) as here:
        peer = await here.peer(connected=False)
        me = attached(here)
        me.monitor(("sink", peer.name))
        [(_, _, _, _, reason)] = await messages(me, 1)
        assert reason is NOCONNECTION
        assert peer.ups == []
        await here.node.connect(peer.name)
        me.send(("sink", peer.name), b"now")
        assert await peer.has_received(1) == [b"now"]


async def test_what_is_for_nodes_that_are_not_there_is_answered_without_a_look_at_each_process(
    here: Joined,
) -> None:
    """A peer may have answers sent to any node: looking through all processes for each took the hub's time."""
    lost: list[str] = []
    real = here.node.router.node_lost

    def node_lost(node: str) -> None:
        lost.append(node)
        real(node)

    here.node.router.node_lost = node_lost  # type: ignore[method-assign]
    me = attached(here)
    for number in range(8):
        me.send(("sink", f"nobody{number}@localhost"), b"x")
        me.send(Pid(f"nobody{number}@localhost", 1, 0, 1), b"x")
    me.monitor(("sink", "nobody7@localhost"))
    await messages(me, 1)
    await eventually(lambda: not here.node.router.pending)
    assert lost == []


async def test_the_name_of_a_node_that_a_peer_has_written_begins_no_line_of_the_log(
    here: Joined, caplog: pytest.LogCaptureFixture
) -> None:
    me = attached(here)
    me.send(Pid("x\nFAKE ERROR \x1b[2J@localhost", 1, 0, 7), b"x")
    await eventually(lambda: "cannot connect to" in caplog.text)
    [message] = caplog.messages
    assert "\n" not in message
    assert "\x1b" not in message


async def test_no_more_than_so_many_nodes_are_connected_to_at_once(
    here: Joined, caplog: pytest.LogCaptureFixture
) -> None:
    here.node.router._most_pending = 4
    me = attached(here)
    for _ in range(2):
        for number in range(30):
            me.send(("sink", f"nobody{number}@localhost"), b"x")
        assert len(here.node.router.pending) == 4
        me.monitor(("sink", "nobody20@localhost"))
        await eventually(lambda: not here.node.router.pending)
    assert [message[-1] for message in await messages(me, 2)] == [NOCONNECTION] * 2
    assert caplog.text.count("4 nodes are being connected to; what is sent to others is dropped") == 2


async def test_messages_that_wait_are_bounded_and_what_is_no_message_is_kept(here: Joined) -> None:
    peer = await here.peer(connected=False)
    me = attached(here)
    me.send(("sink", peer.name), bytes(7 * KILOBYTE))
    with pytest.raises(NodeBusy, match=f"wait for a connection to {peer.name}"):
        me.send(("sink", peer.name), bytes(2 * KILOBYTE))
    with pytest.raises(NodeBusy, match="bytes wait for connections to 2 nodes"):
        me.send(("sink", NOBODY), bytes(2 * KILOBYTE))
    me.exit(Pid(peer.name, 1, 0, 1), bytes(2 * KILOBYTE))
    await eventually(lambda: any(isinstance(control, Exit2) for control, _ in peer.messages))
    assert len(peer.received()) == 1
    await eventually(lambda: not here.node.router.pending)
    me.send(("sink", NOBODY), bytes(7 * KILOBYTE))


async def test_the_attempts_under_way_are_given_up_when_the_node_stops(here: Joined) -> None:
    ready = asyncio.Event()
    here.node.peers._find = lambda node: ready.wait()  # type: ignore[method-assign, assignment]
    attached(here).send(("sink", NOBODY), 1)
    tasks = set(here.node.router._tasks)
    assert len(tasks) == 1
    await here.node.router.stop()
    assert all(task.cancelled() for task in tasks)


# --- to nodes that do not take what they get ----------------------------------------------------------


async def flooded(here: Joined, me: Process, size: int) -> Any:
    """A peer that does not read, and has so many bytes queued for it."""
    peer = await here.peer()
    connection = here.connection(peer)
    assert connection._transport is not None
    peer.ups[0].pause_reading()
    while not connection.queued_bytes:  # until then, the buffers of the sockets take all
        connection.send(Send(me.pid, peer.pid()), [bytes(256 * KILOBYTE)])
        await asyncio.sleep(0)
    while connection.queued_bytes <= size:
        connection.send(Send(me.pid, peer.pid()), [bytes(KILOBYTE)])
    return peer


async def test_to_a_node_that_takes_nothing_messages_are_refused_and_other_signals_are_not() -> None:
    limit = 1024 * KILOBYTE
    async with joined(send_limit=limit) as here:
        me = attached(here)
        peer = await flooded(here, me, limit)
        connection = here.connection(peer)
        with pytest.raises(NodeBusy, match=r"does not take them; await me\.drain"):
            me.send(("sink", peer.name), 1)
        queued = connection.queued_bytes
        me.link(peer.pid())
        assert connection.queued_bytes > queued
        peer.ups[0].resume_reading()
        await eventually(lambda: any(isinstance(control, Link) for control, _ in peer.messages))
        me.send(("sink", peer.name), b"again")
        await eventually(lambda: peer.messages[-1][1] == b"again")


async def test_a_node_that_makes_us_answer_and_takes_no_answer_is_disconnected() -> None:
    limit = 512 * KILOBYTE
    async with joined(send_limit=limit) as here:
        me = attached(here)
        peer = await flooded(here, me, 2 * limit)
        connection = here.connection(peer)
        me.link(peer.pid())
        assert not connection.closed, "not in the middle of a process's turn"
        await eventually(lambda: connection.closed)
        assert connection.down_reason == "it does not take what it is sent"
        assert (EXIT, peer.pid(), NOCONNECTION) in await messages(me, 1)


async def test_a_worker_is_told_which_nodes_are_busy_and_its_message_too_many_is_dropped(
    caplog: pytest.LogCaptureFixture,
) -> None:
    limit = 1024 * KILOBYTE
    async with joined(send_limit=limit) as here:
        worker = await here.worker()
        inside = attached(worker)
        peer = await flooded(here, attached(here), 2 * limit)
        assert [*here.node.runtime.busy] == [peer.name]
        inside.send(("sink", peer.name), 1)
        await eventually(lambda: "dropped a message of worker" in caplog.text)
        await eventually(lambda: [*worker.runtime.busy] == [peer.name])
        assert [*(await here.worker()).runtime.busy] == [peer.name], "one that comes later is told too"
        peer.ups[0].resume_reading()
        await eventually(lambda: not [*here.node.runtime.busy] and not [*worker.runtime.busy])


@pytest.mark.parametrize("count", [1, 3])
async def test_only_a_worker_that_sends_to_a_busy_node_is_told_of_it_once(here: Joined, count: int) -> None:
    """With large messages this begins and ends with each of them: it would cost every worker something."""
    sending, idle = RawWorker(), RawWorker()
    for each in (sending, idle):
        await each.connect(here.node)
        each.protocol.request((Atom("hello"), id(each), 0, b"raw"))
        await eventually(lambda each=each: each.requests)
    peer = await flooded(here, attached(here), 2048 * KILOBYTE)
    by = Pid(here.node.name, 1, 1, here.node.local.creation)
    for _ in range(2):  # alone, and those that have the same header
        for _ in range(count):
            sending.protocol.send(RegSend(by, Atom("sink")), peer.name, [etf.encode_bare(1)])
        await eventually(lambda: len(sending.requests) == 2)
    peer.ups[0].resume_reading()
    await eventually(lambda: len(sending.requests) == 3)
    name = Atom(peer.name)
    assert sending.requests[1:] == [(Atom("busy"), name, True), (Atom("busy"), name, False)]
    idle.protocol.request((Atom("whereis"), REF, b"nobody"))
    await eventually(lambda: len(idle.requests) == 2)
    assert idle.requests[1] == (Atom("reply"), REF, Atom("undefined"))


# --- in the stead of those who cannot answer ----------------------------------------------------------


async def test_a_peer_that_knows_no_spawn_requests_is_answered_for() -> None:
    async with joined() as here:
        peer = await here.peer(flags=RECOMMENDED & ~DistFlags.SPAWN)
        me = attached(here)
        ref, replies = me.make_ref(), list[SpawnReply]()
        here.node.runtime.spawn_replies[ref] = (peer.name, replies.append)
        request = SpawnRequest(ref, me.pid, me.pid, (Atom("m"), Atom("f"), 0), [])
        here.node.runtime.send(request, [], peer.name)
        assert replies == [], "later, as an answer would come"
        await eventually(lambda: replies)
        assert replies == [SpawnReply(ref, me.pid, SpawnFlags(0), Atom("notsup"))]
        assert peer.messages == []


async def test_a_peer_that_acknowledges_no_unlink_is_answered_for() -> None:
    async with joined() as here:
        peer = await here.peer(flags=RECOMMENDED & ~DistFlags.UNLINK_ID)
        for me in (attached(here), attached(await here.worker())):
            me.link(peer.pid())
            me.unlink(peer.pid())
            await eventually(lambda me=me: not me.signals.links)
        await eventually(lambda: len(peer.messages) == 4)


async def test_signals_for_processes_that_are_nowhere_in_the_node_are_answered_by_the_hub(
    here: Joined,
) -> None:
    peer = await here.peer()
    worker = await here.worker()
    node = here.node
    connection = node.peers.get(peer.name)
    assert connection is not None
    theirs = peer.ups[0]
    creation = node.local.creation
    gone = [
        Pid(node.name, 99, 0, creation),
        Pid(node.name, 99, worker.runtime.serial, creation),
        Pid(node.name, 99, 77, creation),  # no such worker
        Pid(node.name, 1, worker.runtime.serial, creation + 1),  # of an earlier life of the node
    ]
    for number, pid in enumerate(gone):
        ref = Reference(peer.name, peer.local.creation, (number, 1, 1))
        theirs.send(Link(peer.pid(), pid))
        theirs.send(MonitorP(peer.pid(), pid, ref))
        theirs.send(UnlinkId(number + 1, peer.pid(), pid))
        await eventually(lambda number=number: len(peer.messages) == 3 * (number + 1))
        assert peer.messages[-3:] == [
            (LinkExit(pid, peer.pid()), NOPROC),
            (MonitorPExit(pid, peer.pid(), ref), NOPROC),
            (UnlinkIdAck(number + 1, pid, peer.pid()), None),
        ]


async def test_a_worker_that_asks_for_a_process_of_a_dead_one_gets_the_answers_of_the_dead(
    here: Joined,
) -> None:
    worker = await here.worker()
    me, local = attached(worker), attached(here)
    dead = Pid(here.node.name, 1, 77, here.node.local.creation)
    for process in (me, local):
        process.link(dead)
        ref = process.monitor(dead)
        process.send(dead, 1)
        assert await messages(process, 2) == [
            (EXIT, dead, NOPROC),
            (DOWN, ref, Atom("process"), dead, NOPROC),
        ]


# --- between workers, the hub and peers ---------------------------------------------------------------


async def test_all_that_one_process_sends_another_in_another_worker_keeps_its_order(here: Joined) -> None:
    me, other = attached(await here.worker()), attached(await here.worker())
    me.link(other.pid)
    for number in range(3):
        me.send(other.pid, number)
    ref = me.monitor(other.pid)
    me.exit(other.pid, b"why")
    me.send(other.pid, 3)
    assert await messages(other, 5) == [0, 1, 2, (EXIT, me.pid, b"why"), 3]
    me.end()
    other.end()
    assert ref
    await eventually(lambda: not any(link.boundary.links for link in here.node.workers.links.values()))


async def test_a_message_for_a_worker_reaches_it_undecoded(here: Joined) -> None:
    """The hub's limits are not what refuses it, and no atom of it is made in the hub."""
    peer = await here.peer()
    worker = await here.worker()
    inside = attached(worker)
    peer.ups[0].send(Send(peer.pid(), inside.pid), encode_parts((1, Atom("made_where_it_is_read"))))
    assert await messages(inside, 1) == [(1, Atom("made_where_it_is_read"))]
    assert here.node.runtime.refused == 0


async def test_a_name_leads_to_the_process_that_has_it_in_whatever_worker(here: Joined) -> None:
    peer = await here.peer()
    worker = await here.worker()
    inside, local, beside = attached(worker), attached(here), attached(await here.worker())
    await worker.runtime.register_name("shop", inside.pid)
    peer.send(here.node.name, "shop", b"from a peer")
    local.send("shop", b"from the hub")
    beside.send("shop", b"from a worker")
    assert sorted(await messages(inside, 3)) == [b"from a peer", b"from a worker", b"from the hub"]


@pytest.mark.parametrize("to", ["a worker", "the hub"])
async def test_a_monitor_by_name_is_taken_back_where_it_was_set_though_the_name_has_moved(
    here: Joined, to: str
) -> None:
    peer = await here.peer()
    worker = await here.worker()
    first, second = attached(worker), attached(await here.worker() if to == "a worker" else here)
    await worker.runtime.register_name("shop", first.pid)
    ref = Reference(peer.name, peer.local.creation, (1, 2, 3))
    theirs = peer.ups[0]
    theirs.send(MonitorP(peer.pid(), Atom("shop"), ref))
    await eventually(lambda: ref in first.signals.watchers)
    here.node.runtime.unregister("shop")
    here.node.runtime.claim_name("shop", second.pid)
    theirs.send(DemonitorP(peer.pid(), Atom("shop"), ref))
    await eventually(lambda: ref not in first.signals.watchers)
    assert here.node.runtime._named_monitors == here.node.workers.named == {}


async def test_a_monitor_by_name_that_has_fired_in_a_worker_is_forgotten(here: Joined) -> None:
    peer = await here.peer()
    worker = await here.worker()
    inside = attached(worker)
    await worker.runtime.register_name("shop", inside.pid)
    ref = Reference(peer.name, peer.local.creation, (1, 2, 3))
    peer.ups[0].send(MonitorP(peer.pid(), Atom("shop"), ref))
    await eventually(lambda: ref in inside.signals.watchers)
    inside.end()
    await eventually(lambda: peer.messages)
    assert isinstance(peer.messages[0][0], MonitorPExit)
    assert here.node.runtime._named_monitors == here.node.workers.named == {}


@pytest.mark.parametrize("again", [MonitorP, DemonitorP])
async def test_nothing_is_kept_of_a_monitor_into_a_worker_that_is_by_name_and_then_by_pid(
    here: Joined, again: Any
) -> None:
    """No BEAM does that; one that does would have the table grow for good."""
    peer = await here.peer()
    worker = await here.worker()
    inside = attached(worker)
    await worker.runtime.register_name("shop", inside.pid)
    refs = [Reference(peer.name, peer.local.creation, (number, 2, 3)) for number in range(3)]
    for ref in refs:
        peer.ups[0].send(MonitorP(peer.pid(), Atom("shop"), ref))
        peer.ups[0].send(again(peer.pid(), inside.pid, ref))
    peer.ups[0].send(Send(peer.pid(), inside.pid), encode_parts(b"behind them"))
    await messages(inside, 1)
    assert here.node.workers.named == {}
    left = [ref for of_node in here.link(worker).boundary.watchers.values() for ref in of_node]
    assert left == (refs if again is MonitorP else [])


async def test_a_monitor_by_name_into_a_worker_is_ended_by_nobody_but_its_watcher(here: Joined) -> None:
    peer = await here.peer()
    worker = await here.worker()
    inside = attached(worker)
    await worker.runtime.register_name("shop", inside.pid)
    ref = Reference(peer.name, peer.local.creation, (1, 2, 3))
    peer.ups[0].send(MonitorP(peer.pid(), Atom("shop"), ref))
    await eventually(lambda: ref in inside.signals.watchers)
    peer.ups[0].send(DemonitorP(peer.pid(99), Atom("shop"), ref))
    peer.ups[0].send(Send(peer.pid(), inside.pid), encode_parts(b"behind it"))
    await messages(inside, 1)
    assert ref in inside.signals.watchers
    assert here.link(worker).boundary.watchers[peer.name] == {ref: (peer.pid(), Atom("shop"))}
    assert list(here.node.workers.named) == [ref]


async def test_of_monitors_by_name_into_a_worker_nothing_is_left_when_the_node_of_the_watcher_is_down(
    here: Joined,
) -> None:
    peer = await here.peer()
    worker = await here.worker()
    inside = attached(worker)
    await worker.runtime.register_name("shop", inside.pid)
    refs = [Reference(peer.name, peer.local.creation, (number, 2, 3)) for number in range(3)]
    for ref in refs:
        peer.ups[0].send(MonitorP(peer.pid(), Atom("shop"), ref))
    await eventually(lambda: list(inside.signals.watchers) == refs)
    assert list(here.node.workers.named) == refs
    here.connection(peer).close("the test ends it")
    await eventually(lambda: not inside.signals.watchers)
    assert here.node.workers.named == {}
    assert not any(here.link(worker).boundary.watchers.values())


# --- answers of workers, which are passed on unread -------------------------------------------------------


def seen_of(here: Joined, worker: Worker) -> list[Any]:
    """The signals of a worker that the hub reads, from now on."""
    seen: list[Any] = []
    protocol = here.link(worker).protocol
    real = protocol.on_signal

    def on_signal(control: Any, payload: Any, node: str | None) -> None:
        seen.append(control)
        real(control, payload, node)

    protocol.on_signal = on_signal
    return seen


async def test_answers_of_a_worker_go_out_unread_and_keep_their_place_among_all_else() -> None:
    async with joined() as here:
        peer = await here.peer()
        worker = await here.worker()
        inside, seen = attached(worker), seen_of(here, worker)
        refs = [Reference(peer.name, peer.local.creation, (number, 2, 3)) for number in range(20)]
        expected: list[Any] = []

        async def come() -> None:
            await eventually(lambda: len(peer.messages) == len(expected))

        for number, ref in enumerate(refs):
            inside.send(peer.pid(), number)
            inside.send(ref, number)
            expected += [(Send(inside.pid, peer.pid()), number), (AliasSend(inside.pid, ref), number)]
            if number % 7 == 0:
                inside.send(ref, bytes(100_000))
                inside.link(peer.pid(number + 1))
                expected += [
                    (AliasSend(inside.pid, ref), bytes(100_000)),
                    (Link(inside.pid, peer.pid(number + 1)), None),
                ]
                await come()
        await come()
        assert peer.messages == expected
        read = [control.alias for control in seen if isinstance(control, AliasSend)]
        assert read == [refs[0], refs[0], refs[7], refs[14]], "the first one, and the large ones"


async def test_answers_are_read_again_while_the_connection_is_busy_or_another_one() -> None:
    async with joined() as here:
        peer = await here.peer()
        worker = await here.worker()
        inside, seen = attached(worker), seen_of(here, worker)
        ref = Reference(peer.name, peer.local.creation, (1, 2, 3))

        async def answered() -> int:
            """How many the hub has read when one more has come."""
            came = len(peer.messages)
            inside.send(ref, came)
            await eventually(lambda: len(peer.messages) > came)
            assert peer.messages[came] == (AliasSend(inside.pid, ref), came)
            return len(seen)

        assert [await answered(), await answered()] == [1, 1]
        here.connection(peer).busy = True
        assert await answered() == 2
        here.connection(peer).busy = False
        assert await answered() == 2
        here.connection(peer).close("the test ends it")
        await eventually(lambda: not here.link(worker).protocol.unread)
        assert [await answered() for _ in range(3)] == [3, 4, 4], "the first one had to wait for a connection"


# --- who is held back ---------------------------------------------------------------------------------


async def test_who_sends_to_a_worker_that_takes_nothing_is_read_again_when_it_has_caught_up() -> None:
    async with joined(worker_queue_limit=64 * KILOBYTE) as here:
        peer = await here.peer()
        slow, other = await here.worker(), await here.worker()
        inside, beside = attached(slow), attached(other)
        assert slow._protocol.transport is not None
        slow._protocol.transport.pause_reading()
        link = here.link(slow)
        sent = 0
        while not link.protocol.busy:
            peer.send(here.node.name, inside.pid, bytes(16 * KILOBYTE))
            sent += 1
            await asyncio.sleep(0)
        peer.send(here.node.name, inside.pid, b"one more")
        beside.send(inside.pid, b"from beside")
        await eventually(lambda: len(link.paused._sources) == 2)
        assert here.connection(peer) in link.paused._sources
        slow._protocol.transport.resume_reading()
        await eventually(lambda: len(mailbox(inside)) == sent + 2, timeout=20)
        assert not link.paused._sources
        peer.send(here.node.name, inside.pid, b"and again")
        beside.send(inside.pid, b"too")
        await eventually(lambda: len(mailbox(inside)) == sent + 4, timeout=20)


# --- spawn requests -----------------------------------------------------------------------------------


async def test_a_spawn_request_goes_to_who_serves_them_from_wherever_it_comes() -> None:
    async with joined(limits=Limits(depth=5)) as here:
        peer = await here.peer()
        inside, local = attached(await here.worker()), attached(here)
        asked: list[tuple[Pid, Term]] = []
        here.node.runtime.on_spawn_request = lambda request, args: asked.append((request.sender, args))

        def request(sender: Pid, ref: Reference) -> SpawnRequest:
            return SpawnRequest(ref, sender, sender, (Atom("m"), Atom("f"), 1), [])

        theirs = Reference(peer.name, peer.local.creation, (1, 2, 3))
        local.runtime.send(request(local.pid, local.make_ref()), [b"hub"], here.node.name)
        inside.runtime.send(request(inside.pid, inside.make_ref()), [b"worker"], here.node.name)
        peer.ups[0].send(request(peer.pid(), theirs), encode_parts([b"peer"]))
        await eventually(lambda: len(asked) == 3)
        assert dict(asked) == {local.pid: [b"hub"], inside.pid: [b"worker"], peer.pid(): [b"peer"]}
        peer.ups[0].send(request(peer.pid(), theirs), encode_parts([[[[[[[[[[1]]]]]]]]]]))
        await eventually(lambda: len(asked) == 4)
        assert asked[3][1][0] is Atom("undecodable"), "the process asked for ends with that"
        here.node.runtime.on_spawn_request = None
        peer.ups[0].send(request(peer.pid(), theirs), encode_parts([]))
        peer.ups[0].send(RegSend(peer.pid(), Atom("nobody")), encode_parts(1))
        peer.ups[0].send(Link(peer.pid(), Pid(here.node.name, 9, 0, here.node.local.creation)))
        await eventually(lambda: peer.messages)
        assert len(asked) == 4


async def test_the_log_says_what_a_peer_could_not_be_told(caplog: pytest.LogCaptureFixture) -> None:
    async with joined() as here:
        peer = await here.peer(flags=RECOMMENDED & ~DistFlags.ALIAS)
        with caplog.at_level(logging.DEBUG, "pyglyn.node"):
            here.node.send(Reference(peer.name, peer.local.creation, (1, 2, 3)), 1)
            assert f"dropped a signal to {peer.name}" in caplog.text
