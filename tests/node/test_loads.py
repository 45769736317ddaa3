"""Loads of one peer, or of nobody in particular, beside which another peer is served.

How long a ping takes is counted: so many messages of the flood are handled between its question and its answer, or
so many turns of the event loop against those that it takes of a quiet node. The loads are small here;
``PYGLYN_LOADS=100`` makes them as large as they may get, and ``334`` a million of each message.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import pytest_asyncio

from pyglyn.dist import RECOMMENDED, Channel, ChannelSettings, HandshakeComplete, Initiator, LocalSide
from pyglyn.dist.control import (
    AliasSend,
    Control,
    DemonitorP,
    GroupLeader,
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
from pyglyn.etf import Atom, Pid, Reference, encode_bare, encode_parts
from pyglyn.net import NetSettings
from pyglyn.net.connection import A_TURN
from pyglyn.node import Node, Process, Settings, callers
from pyglyn.testing import Beams, eventually
from pyglyn.testing.waiting import patiently
from tests.net.conftest import Recorder
from tests.node.conftest import unique_name

TIMES = int(os.environ.get("PYGLYN_LOADS", "1"))
MANY = 3_000 * TIMES
MOST_BETWEEN = 5 * A_TURN
"""Messages of a flood that may be handled before a ping is answered: those of a few turns, not the flood."""
CALLS_BETWEEN = 5 * callers.A_TURN
"""The same of what begins a process here."""
TIMES_QUIET = 10
"""So many times what it is of a quiet node may a ping be beside a load."""


async def idle(me: Process) -> None:
    me.trap_exit = True
    while True:
        match await me.receive():
            case (Atom("EXIT"), _, Atom("shutdown")):
                return


@pytest_asyncio.fixture
async def nodes(epmd: object) -> AsyncIterator[tuple[Node, Node]]:
    """A node, and another one that is connected to it."""
    async with Node(unique_name(), cookie="c") as node, Node(unique_name("other"), cookie="c") as other:
        await other.connect(node.name)
        yield node, other


@contextlib.asynccontextmanager
async def raw_peer(node: Node) -> AsyncIterator[Recorder]:
    peer = Recorder(unique_name("raw"), "c", True, None)
    await peer.peers.start()
    await node.connect(peer.name)
    await eventually(lambda: peer.ups)
    try:
        yield peer
    finally:
        await peer.peers.stop()


UNREAD = "calls that nobody reads"
TAKEN_AT_ONCE = ("monitors", "demonitors of nothing")
"""What an inlet takes, so that no callback is called for it."""


def floods(me: Pid, name: str) -> dict[str, tuple[Callable[[int, Pid], Control], Any]]:
    def ref(number: int) -> Reference:
        return Reference(name, me.creation, (number & 0x3FFFF, number >> 18, 0))

    def pid(number: int) -> Pid:
        return Pid(name, number + 1, 0, me.creation)

    mfa, call = (Atom("erlang"), Atom("node"), 0), (Atom("erpc"), Atom("execute_call"), 4)
    asked = [Reference(name, me.creation, (1, 1, 1)), *mfa[:2], []]
    return {
        "monitors": (lambda n, to: MonitorP(pid(n), to, ref(n)), None),
        "monitors of nobody": (lambda n, to: MonitorP(pid(n), Atom("nobody"), ref(n)), None),
        "links": (lambda n, to: Link(pid(n), to), None),
        "unlinks of nothing": (lambda n, to: UnlinkId(n + 1, pid(n), to), None),
        "spawn requests": (lambda n, to: SpawnRequest(ref(n), pid(n), pid(n), mfa, []), []),
        "calls": (lambda n, to: SpawnRequest(ref(n), pid(n), pid(n), call, [Atom("monitor")]), asked),
        UNREAD: (lambda n, to: SpawnRequest(ref(n), pid(n), pid(n), call, [Atom("monitor")]), asked),
        "unknown aliases": (
            lambda n, to: AliasSend(pid(n), Reference(to.node, to.creation, (n & 0x3FFFF, 1, 0))),
            b"x",
        ),
        "demonitors of nothing": (lambda n, to: DemonitorP(pid(n), to, ref(n)), None),
        "downs of no monitor": (lambda n, to: MonitorPExit(pid(n), to, ref(n)), b"x"),
        "exits of no link": (lambda n, to: LinkExit(pid(n), to), b"x"),
        "acknowledgements": (lambda n, to: UnlinkIdAck(n + 1, pid(n), to), None),
        "group leaders": (lambda n, to: GroupLeader(pid(n), to), None),
        "spawn replies": (lambda n, to: SpawnReply(ref(n), to, SpawnFlags(0), pid(n)), None),
        "messages to names of nobody": (lambda n, to: RegSend(pid(n), Atom(f"nobody {n}")), b"x"),
        "messages to the dead": (
            lambda n, to: Send(pid(n), Pid(to.node, n + 1_000_000, 0, to.creation)),
            b"x",
        ),
    }


@pytest.mark.parametrize("kind", [*floods(Pid("a@b", 1, 0, 1), "a@b")])
async def test_a_flood_of_one_peer_leaves_pings_of_others_answered(
    nodes: tuple[Node, Node], kind: str
) -> None:
    node, other = nodes
    target = node.spawn(idle)
    most = CALLS_BETWEEN if "calls" in kind or "spawn requests" in kind else MOST_BETWEEN
    handled = 0
    real: Any = node.peers.on_message

    def counted(*args: Any) -> None:
        nonlocal handled
        handled += 1
        real(*args)

    def so_far() -> int:
        return ours.traffic.received if kind in TAKEN_AT_ONCE else handled

    node.peers.on_message = counted
    async with raw_peer(node) as peer:
        ours: Any = node.hub.peers.get(peer.name)
        make, body = floods(peer.pid(), peer.name)[kind]
        over = False
        if kind == UNREAD:
            peer.ups[0].pause_reading()

        async def flood() -> None:
            nonlocal over
            for number in range(MANY):
                control = make(number, target)
                peer.ups[0].send(control, None if body is None else encode_parts(body))
                if number % 200 == 0:
                    await asyncio.sleep(0)
            over = True

        flooding = asyncio.ensure_future(flood())
        worst = 0
        while not over:
            before = so_far()
            assert await other.ping(node.name, 60.0)
            worst = max(worst, so_far() - before)
        await flooding
        await eventually(lambda: so_far() >= MANY, timeout=60 * TIMES)
        assert worst <= most
        assert await other.ping(node.name, 60.0)
    # With the connection, all of it is gone.
    await eventually(lambda: node.nodes() == [other.name])
    process = node.runtime.processes[target.id]
    assert not process.signals.watchers
    assert not process.signals.links
    await eventually(lambda: len(node.runtime.processes) < 20, timeout=30)
    assert not len(node.services.callers)


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("kind", ["monitors", "links", "messages", "ticks"])
async def test_of_what_a_peer_sends_at_once_a_turn_of_the_event_loop_takes_a_part(
    nodes: tuple[Node, Node], kind: str, large: bool
) -> None:
    """Also behind something large, of which more is read at a time; in order, and all of it."""
    node, _ = nodes
    target = node.spawn(idle)
    loop: Any = asyncio.get_running_loop()
    handled: list[list[Control]] = [[]]
    real: Any = node.peers.on_message
    select = loop._selector.select

    def counted(connection: Any, control: Any, payload: Any) -> None:
        if connection.name == peer.name:
            handled[-1].append(control)
        real(connection, control, payload)

    def next_turn(timeout: float | None) -> Any:
        handled.append([])
        packets.append(ours.traffic.received)
        return select(timeout)

    node.peers.on_message = counted
    async with raw_peer(node) as peer:
        made: Channel = peer.ups[0]._channel
        me, to = peer.pid(), Atom("net_kernel")
        if large:
            for _ in range(4):
                made.send(Send(peer.pid(5_000), target), encode_parts(bytes(400_000)))
        refs = [Reference(peer.name, me.creation, (number, 0, 0)) for number in range(2_000)]
        for number, ref in enumerate(refs):
            if kind == "messages":  # they have the same head, but this process is told where each comes from
                made.send(RegSend(me, to), encode_parts(number))
            elif kind == "links":
                made.send(Link(Pid(peer.name, number + 1, 0, me.creation), target))
            elif kind == "monitors":
                made.send(MonitorP(me, target, ref))
        if kind == "ticks":
            made.queue.add(bytes(4 * len(refs)), None, None)
            made.send(DemonitorP(me, target, refs[0]))
        ours = node.hub.peers.get(peer.name)
        assert ours is not None
        packets = [ours.traffic.received]
        loop._selector.select = next_turn
        try:
            peer.ups[0]._flush()
            fragments = 4 * 7 if large else 0
            await eventually(lambda: ours.traffic.received >= packets[0] + fragments + len(refs))
        finally:
            loop._selector.select = select
        came = [control for turn in handled for control in turn if not isinstance(control, Send)]
        assert max(map(len, handled)) <= (2 if kind == "messages" else 1) * A_TURN
        if kind != "messages":
            # Fragments that only add to a message are copied as they come, and bounded by what is read.
            turns = [after - before for before, after in itertools.pairwise(packets)]
            assert max(turns) <= A_TURN + fragments
        if kind == "monitors":
            assert list(node.runtime.processes[target.id].signals.watchers) == refs
        elif kind == "links":
            assert [control.sender.id for control in came if type(control) is Link] == [*range(1, 2_001)]
        elif kind == "messages":
            assert len(came) == len(refs)


@pytest.mark.parametrize("packet", [(99, 1, 2), (-1,), (), b"x", (6, 1), (2**80, Atom("x")), [1]], ids=str)
async def test_unknown_control_messages_cost_their_sender_its_connection_and_nobody_else(
    nodes: tuple[Node, Node], packet: Any
) -> None:
    node, other = nodes
    for _ in range(10 * TIMES):
        async with raw_peer(node) as peer:
            transport = peer.ups[0]._transport
            assert transport is not None
            data = b"\x83D\0" + encode_bare(packet) + encode_bare(b"x")
            transport.write((len(data).to_bytes(4) + data) * 100)
            await eventually(lambda: node.nodes() == [other.name])
        assert await other.ping(node.name)
    assert other.nodes() == [node.name]


@contextlib.contextmanager
def turns() -> Iterator[Callable[[], int]]:
    """Gives how often the event loop has turned."""
    loop: Any = asyncio.get_running_loop()
    original, count = loop._selector.select, 0

    def select(timeout: float | None) -> Any:
        nonlocal count
        count += 1
        return original(timeout)

    loop._selector.select = select
    try:
        yield lambda: count
    finally:
        loop._selector.select = original


async def worst_ping(node: Node, other: Node, count: int = 20) -> int:
    """The most turns of the event loop that one of some pings takes."""
    worst = 0
    with turns() as turned:
        for _ in range(count):
            before = turned()
            assert await other.ping(node.name, 60.0)
            worst = max(worst, turned() - before)
    return worst


async def test_half_open_handshakes_leave_pings_answered_and_honest_nodes_their_way_in(epmd: object) -> None:
    settings = Settings(net=NetSettings(max_handshakes=50))
    count = min(1000, 120 * TIMES)
    async with (
        Node(unique_name(), cookie="c", settings=settings) as node,
        Node(unique_name("by"), cookie="c") as by,
    ):
        await by.connect(node.name)
        quiet = await worst_ping(node, by)
        strangers: list[asyncio.StreamWriter] = []

        async def come() -> None:
            for _ in range(count):
                _, writer = await asyncio.open_connection("127.0.0.1", node.peers.port)
                strangers.append(writer)

        coming, worst = asyncio.ensure_future(come()), 0
        while not coming.done():
            worst = max(worst, await worst_ping(node, by, 1))
            assert len(node.peers._accepting) <= 50
        await coming
        assert worst <= TIMES_QUIET * quiet
        async with Node(unique_name("other"), cookie="c") as other:
            for _ in range(5):
                assert await other.ping(node.name)
                other.disconnect(node.name)
                await eventually(lambda: not other.nodes())
        await eventually(lambda: len(node.peers._accepting) <= 50)
        for writer in strangers:
            writer.transport.abort()
        await eventually(lambda: not node.peers._accepting)


async def test_connects_and_disconnects_leave_pings_answered_and_nothing_behind(
    nodes: tuple[Node, Node],
) -> None:
    node, other = nodes
    name = unique_name("often")
    quiet = await worst_ping(node, other)
    worst = 0

    async def come_and_go(times: int) -> None:
        peer = Recorder(name, "c", True, None)
        await peer.peers.start()
        for _ in range(times):
            await peer.peers.connect(node.name)
            peer.peers.disconnect(node.name)
            await eventually(lambda: node.nodes() == [other.name])
        await peer.peers.stop()

    async def beside(times: int) -> None:
        nonlocal worst
        coming = asyncio.ensure_future(come_and_go(times))
        while not coming.done():
            worst = max(worst, await worst_ping(node, other, 1))
        await coming

    await beside(5)
    before = psutil.Process().num_fds(), len(asyncio.all_tasks()), len(node.runtime.processes)
    await beside(40 * TIMES)
    after = psutil.Process().num_fds(), len(asyncio.all_tasks()), len(node.runtime.processes)
    assert all(now <= was + 3 for now, was in zip(after, before, strict=True))
    assert worst <= TIMES_QUIET * quiet


@contextlib.asynccontextmanager
async def slow_peer(node: Node) -> AsyncIterator[socket.socket]:
    """A connection with the right cookie that takes nothing by itself."""
    loop, name = asyncio.get_running_loop(), unique_name("slow")
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.setblocking(False)
        await loop.sock_connect(sock, ("127.0.0.1", node.peers.port))
        machine = Initiator(LocalSide(name=name, creation=7, flags=RECOMMENDED, cookie=b"c"), node.name, 1)
        done = False
        while not done:
            await loop.sock_sendall(sock, machine.data_to_send())
            data = await loop.sock_recv(sock, 4096)
            done = any(isinstance(event, HandshakeComplete) for event in machine.receive_data(data))
        await loop.sock_sendall(sock, machine.data_to_send())
        await eventually(lambda: name in node.nodes())
        yield sock


@pytest.mark.parametrize("bytes_a_time", [0, 1])
async def test_a_peer_that_reads_nothing_or_a_byte_at_a_time_leaves_pings_answered(
    nodes: tuple[Node, Node], bytes_a_time: int
) -> None:
    """It is sent what fills its queue, and asks for more all the time."""
    node, other = nodes
    quiet = await worst_ping(node, other)
    loop = asyncio.get_running_loop()
    async with slow_peer(node) as slow:
        [name] = [each for each in node.nodes() if each != other.name]
        me = Pid(name, 1, 0, 7)

        async def feed(sender: Process) -> None:
            while True:
                sender.send((Atom("sink"), name), bytes(100_000))
                await sender.drain()

        node.spawn(feed)
        ours = node.hub.peers.get(name)
        assert ours is not None
        await eventually(lambda: ours.busy, timeout=30)
        ref = Reference(name, 7, (1, 2, 3))
        ask = encode_bare((6, me, Atom(""), Atom("net_kernel")))
        ask += encode_bare((Atom("$gen_call"), (me, ref), (Atom("is_auth"), Atom(name))))
        call = encode_bare((29, ref, me, me, (Atom("erpc"), Atom("execute_call"), 4), [Atom("monitor")]))
        call += encode_bare([ref, Atom("erlang"), Atom("node"), []])
        asked = b"".join((len(each) + 3).to_bytes(4) + b"\x83D\0" + each for each in (ask, call))
        worst, last = 0, 100 * TIMES
        for number in range(last):
            if number < 2_000:  # some kilobytes of answers each: it would be disconnected in the end
                await loop.sock_sendall(slow, 10 * asked)
            if bytes_a_time:
                assert await loop.sock_recv(slow, bytes_a_time)
            worst = max(worst, await worst_ping(node, other, 1))
        assert worst <= TIMES_QUIET * quiet
        assert name in node.nodes()
        assert ours.queued_bytes < 3_000_000 + 20_000 * TIMES
        assert len(node.services.callers) <= node.settings.calls_of_a_node


async def test_a_hub_process_that_computes_for_long_is_what_the_documentation_says(
    beams: Beams, tmp_path: Path
) -> None:
    """No ticks go out, and the peer takes the node for dead; afterwards all is as with any lost connection."""
    beam = await beams.start(args=("-kernel", "net_ticktime", "1"))
    short = Settings(net=NetSettings(channel=ChannelSettings(net_ticktime_s=1.0)))
    async with Node(unique_name(), cookie=beam.cookie, settings=short) as node, node.process() as me:
        me.trap_exit = True
        heard = tmp_path / "down"
        watching = (
            "Me = self(), spawn(fun() -> monitor_node(N, true), Me ! ready, receive {nodedown, N} -> ok end,"
            ' file:write_file(File, "down") end), receive ready -> ok end,'
            " spawn(fun() -> receive stop -> ok end end)"
        )
        assert await beam.eval("net_adm:ping(N)", N=Atom(node.name)) is Atom("pong")
        theirs = await beam.eval(watching, N=Atom(node.name), File=str(heard).encode())
        assert isinstance(theirs, Pid)
        me.link(theirs)

        async def compute(it: Process) -> None:
            over = time.monotonic() + patiently(60)
            while not heard.exists() and time.monotonic() < over:
                pass

        node.spawn(compute)
        assert await me.receive() == (Atom("EXIT"), theirs, Atom("noconnection"))
        assert heard.exists()
        assert await beam.eval("net_adm:ping(N)", N=Atom(node.name), timeout=30) is Atom("pong")
