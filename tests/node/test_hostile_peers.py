"""A peer that has the cookie and sends what no node sends: the node lives, answers, and forgets."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import struct
from collections.abc import AsyncIterator

import pytest_asyncio

from pyglyn import Atom, Node, Process, Settings
from pyglyn.dist import (
    RECOMMENDED,
    Channel,
    HandshakeComplete,
    Initiator,
    LocalSide,
    MessageReceived,
)
from pyglyn.dist.control import Control, MonitorPExit, SpawnFlags, SpawnReply
from pyglyn.etf import Pid, Reference, decode_bare, encode_bare
from pyglyn.net import NetSettings
from pyglyn.testing import eventually

COOKIE = "pyglyn_testing"
US = "hostile@localhost"
REF = Reference(US, 7, (1, 0, 0))
EMPTY = Atom("")


def pid(number: int = 1) -> Pid:
    return Pid(US, number, 0, 7)


class Hostile:
    """A connection to the node, at the level of packets."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self._channel = Channel(RECOMMENDED, 0.0)

    def send(self, control: object, payload: bytes = b"") -> None:
        packet = b"\x83D\0" + encode_bare(control) + payload
        self.writer.write(struct.pack(">I", len(packet)) + packet)

    async def received(self) -> tuple[Control, bytes | memoryview | None]:
        """The next message of the node."""
        async with asyncio.timeout(180):
            while True:
                data = await self.reader.read(65536)
                assert data, "the node closed the connection"
                for event in self._channel.receive_data(data):
                    if isinstance(event, MessageReceived):
                        return event.control, event.payload


@contextlib.asynccontextmanager
async def hostile_to(node: Node) -> AsyncIterator[Hostile]:
    """Connect to a node with the right cookie."""
    reader, writer = await asyncio.open_connection("127.0.0.1", node.peers.port)
    machine = Initiator(
        LocalSide(name=US, creation=7, flags=RECOMMENDED, cookie=COOKIE.encode()), node.name, 1
    )
    try:
        done = False
        while not done:
            writer.write(machine.data_to_send())
            data = await reader.read(4096)
            done = any(isinstance(event, HandshakeComplete) for event in machine.receive_data(data))
        writer.write(machine.data_to_send())
        yield Hostile(reader, writer)
    finally:
        writer.transport.abort()
        await eventually(lambda: not node.nodes())


@pytest_asyncio.fixture
async def victim() -> AsyncIterator[Node]:
    """A node without EPMD."""
    async with Node(
        "victim@localhost", cookie=COOKIE, settings=Settings(net=NetSettings(epmd_port=0))
    ) as node:
        yield node


async def wait(me: Process) -> None:
    while True:
        await me.receive()


async def test_monitors_by_name_are_forgotten_with_their_node(victim):
    watched = victim.runtime.spawn(wait, name="watched")
    async with hostile_to(victim) as peer:
        for number in range(1, 101):
            peer.send((19, pid(number), Atom("watched"), Reference(US, 7, (number, 0, 0))))
        await eventually(lambda: len(watched.signals.watchers) == 100)
    assert watched.signals.watchers == {}
    assert victim.runtime._named_monitors == {}


async def test_a_demonitor_by_name_of_somebody_else_is_ignored(victim):
    victim.spawn(wait, name="watched")
    async with hostile_to(victim) as peer:
        peer.send((19, pid(1), Atom("watched"), REF))
        peer.send((20, pid(2), Atom("watched"), REF))
        peer.send((20, pid(1), Atom("watched"), REF))
        peer.send((19, pid(1), Atom("nobody"), Reference(US, 7, (2, 0, 0))))
        await peer.received()  # noproc for the last one: all before it has been handled
        assert victim.runtime._named_monitors == {}


async def test_a_spawn_request_with_damaged_arguments_is_answered(victim):
    async with hostile_to(victim) as peer:
        mfa = (Atom("erlang"), Atom("nodes"), 0)
        peer.send((29, REF, pid(), pid(), mfa, [Atom("monitor")]), b"\xff")
        control, _ = await peer.received()
        assert isinstance(control, SpawnReply)
        assert (control.request_id, control.flags) == (REF, SpawnFlags.MONITOR)
        assert isinstance(control.result, Pid)
        down, reason = await peer.received()
        assert isinstance(down, MonitorPExit)
        assert decode_bare(reason)[0][0] is Atom("undecodable")


async def test_a_huge_exit_reason_is_cut_in_the_log(victim, caplog):
    caplog.set_level(logging.INFO, "pyglyn.process")
    victim.spawn(wait, name="target")
    async with hostile_to(victim) as peer:
        for reason in (b"x" * 5_000_000, list(range(256)) * 20_000):
            target = victim.spawn(wait)
            peer.send((26, pid(), target), encode_bare((Atom("because"), reason)))
            await eventually(lambda target=target: target.id not in victim.runtime.processes)
    ends = [record.getMessage() for record in caplog.records if "because" in record.getMessage()]
    assert len(ends) == 2
    assert all(len(end) < 1000 for end in ends)


async def test_nested_output_requests_do_not_end_the_group_leader(victim):
    user = victim.whereis("user")
    depth = 3000
    requests = b"h\2" + encode_bare(Atom("requests")) + b"l\0\0\0\1"
    nested = requests * depth + b"j" + b"j" * depth
    head = b"h\4" + encode_bare(Atom("io_request")) + encode_bare(pid()) + encode_bare(1)
    async with hostile_to(victim) as peer:
        peer.send((6, pid(), EMPTY, Atom("user")), head + nested)
        _, payload = await peer.received()
        assert payload == encode_bare((Atom("io_reply"), 1, (Atom("error"), Atom("request"))))
    assert victim.whereis("user") == user


async def test_output_without_newlines_is_logged_in_pieces(victim, caplog):
    caplog.set_level(logging.INFO, "pyglyn.io")
    request = (Atom("io_request"), pid(), 1, (Atom("put_chars"), Atom("unicode"), b"." * 1000))
    async with hostile_to(victim) as peer:
        for _ in range(10):
            peer.send((6, pid(), EMPTY, Atom("user")), encode_bare(request))
        await eventually(lambda: any("..." in record.getMessage() for record in caplog.records))
