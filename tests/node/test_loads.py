"""Loads of one peer, or of nobody in particular, beside which another peer is served.

How long a ping takes is counted in messages: so many of the flood are handled between its question and its answer.
The loads are small here; ``PYGLYN_LOADS=100`` makes them as large as they may get.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable
from typing import Any

import psutil
import pytest
import pytest_asyncio

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
from pyglyn.node import Node, Process, Settings
from pyglyn.testing import eventually
from tests.net.conftest import Recorder
from tests.node.conftest import unique_name

TIMES = int(os.environ.get("PYGLYN_LOADS", "1"))
MANY = 3_000 * TIMES
MOST_BETWEEN = 3_000
"""Messages of a flood that may be handled before a ping is answered: some reads of a socket, not the flood."""


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


def floods(me: Pid, name: str) -> dict[str, tuple[Callable[[int, Pid], Control], Any]]:
    def ref(number: int) -> Reference:
        return Reference(name, me.creation, (number & 0x3FFFF, number >> 18, 0))

    def pid(number: int) -> Pid:
        return Pid(name, number + 1, 0, me.creation)

    mfa = (Atom("erlang"), Atom("node"), 0)
    return {
        "monitors": (lambda n, to: MonitorP(pid(n), to, ref(n)), None),
        "monitors of nobody": (lambda n, to: MonitorP(pid(n), Atom("nobody"), ref(n)), None),
        "links": (lambda n, to: Link(pid(n), to), None),
        "unlinks of nothing": (lambda n, to: UnlinkId(n + 1, pid(n), to), None),
        "spawn requests": (lambda n, to: SpawnRequest(ref(n), pid(n), pid(n), mfa, []), []),
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
    handled = 0
    real = node.router.from_peer

    def counted(*args: Any) -> None:
        nonlocal handled
        handled += 1
        real(*args)

    node.router.from_peer = counted  # type: ignore[method-assign]
    async with raw_peer(node) as peer:
        make, body = floods(peer.pid(), peer.name)[kind]
        over = False

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
            before = handled
            assert await other.ping(node.name, 60.0)
            worst = max(worst, handled - before)
        await flooding
        await eventually(lambda: handled >= MANY, timeout=60 * TIMES)
        assert worst < MOST_BETWEEN
        assert await other.ping(node.name, 60.0)
    # With the connection, all of it is gone.
    await eventually(lambda: node.nodes() == [other.name])
    process = node.runtime.processes[target.id]
    assert not process.signals.watchers
    assert not process.signals.links
    await eventually(lambda: len(node.runtime.processes) < 20, timeout=30)
    assert not len(node.services.callers)


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


async def test_half_open_handshakes_leave_honest_nodes_their_way_in(epmd: object) -> None:
    settings = Settings(net=NetSettings(max_handshakes=50))
    count = min(1000, 120 * TIMES)
    async with Node(unique_name(), cookie="c", settings=settings) as node:
        strangers = [await asyncio.open_connection("127.0.0.1", node.peers.port) for _ in range(count)]
        async with Node(unique_name("other"), cookie="c") as other:
            for _ in range(5):
                assert await other.ping(node.name)
                other.disconnect(node.name)
                await eventually(lambda: not other.nodes())
        await eventually(lambda: len(node.peers._accepting) <= 50)
        for _, writer in strangers:
            writer.transport.abort()
        await eventually(lambda: not node.peers._accepting)


async def test_connects_and_disconnects_leave_nothing(nodes: tuple[Node, Node]) -> None:
    node, other = nodes
    name = unique_name("often")

    async def come_and_go(times: int) -> None:
        peer = Recorder(name, "c", True, None)
        await peer.peers.start()
        for _ in range(times):
            await peer.peers.connect(node.name)
            peer.peers.disconnect(node.name)
            await eventually(lambda: node.nodes() == [other.name])
            assert await other.ping(node.name)
        await peer.peers.stop()

    await come_and_go(5)
    before = psutil.Process().num_fds(), len(asyncio.all_tasks()), len(node.runtime.processes)
    await come_and_go(40 * TIMES)
    after = psutil.Process().num_fds(), len(asyncio.all_tasks()), len(node.runtime.processes)
    assert all(now <= was + 3 for now, was in zip(after, before, strict=True))


async def test_a_peer_that_reads_very_little_holds_up_nobody(nodes: tuple[Node, Node]) -> None:
    node, other = nodes
    async with raw_peer(node) as slow:
        theirs = slow.ups[0]
        theirs.pause_reading()
        sent = 0

        async def feed(me: Process) -> None:
            nonlocal sent
            while True:
                me.send((Atom("sink"), slow.name), bytes(100_000))
                sent += 1
                await me.drain()

        node.spawn(feed)
        ours = node.hub.peers.get(slow.name)
        assert ours is not None
        await eventually(lambda: ours.busy, timeout=30)
        transport = theirs._transport
        assert transport is not None
        for _ in range(5):
            theirs.resume_reading()
            await asyncio.sleep(0)
            theirs.pause_reading()
            assert await other.ping(node.name)
        assert ours.queued_bytes < 3_000_000
