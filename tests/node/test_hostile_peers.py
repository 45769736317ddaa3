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
from pyglyn.dist.control import Control, MonitorPExit, SpawnFlags, SpawnReply, SpawnRequest
from pyglyn.etf import Pid, Reference, decode_bare, encode_bare
from pyglyn.net import NetSettings
from pyglyn.node import GenServer, rpc
from pyglyn.node.gen_server import start_server
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

    async def closed(self) -> None:
        """The node closes the connection, whatever it sends before."""
        async with asyncio.timeout(180):
            while await self.reader.read(65536):
                pass

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
async def hostile_to(node: Node, name: str = US) -> AsyncIterator[Hostile]:
    """Connect to a node with the right cookie."""
    reader, writer = await asyncio.open_connection("127.0.0.1", node.peers.port)
    machine = Initiator(
        LocalSide(name=name, creation=7, flags=RECOMMENDED, cookie=COOKIE.encode()), node.name, 1
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
        await eventually(lambda: name not in node.nodes())


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


# --- in the name of others -------------------------------------------------------------------------

HONEST = "honest@localhost"


async def test_a_monitor_with_the_reference_of_another_node_costs_the_connection(victim):
    watched = victim.runtime.spawn(wait)
    theirs = Reference(HONEST, 7, (1, 0, 0))
    for op in (19, 20):
        async with hostile_to(victim, HONEST) as honest, hostile_to(victim) as peer:
            honest.send((19, Pid(HONEST, 1, 0, 7), watched.pid, theirs))
            await eventually(lambda: theirs in watched.signals.watchers)
            peer.send((op, pid(), watched.pid, theirs))
            await peer.closed()
            assert watched.signals.watchers[theirs][0].node == HONEST
    async with hostile_to(victim, HONEST) as honest, hostile_to(victim) as peer:
        honest.send((19, Pid(HONEST, 1, 0, 7), watched.pid, theirs))
        mfa = (Atom("erlang"), Atom("node"), 0)
        peer.send((29, theirs, pid(), pid(), mfa, [Atom("monitor")]), encode_bare([]))
        await peer.closed()
        watched.die(Atom("over"))
        down, _ = await honest.received()
        assert isinstance(down, MonitorPExit)
        assert down.ref == theirs


async def test_only_the_node_of_a_process_says_that_it_has_ended(victim):
    async with hostile_to(victim, HONEST) as honest, hostile_to(victim) as peer, victim.process() as me:
        watched = Pid(HONEST, 5, 0, 7)
        refs = [me.monitor(watched), me.monitor(("stock", HONEST))]
        for ref in refs:
            peer.send((21, pid(), me.pid, ref, Atom("lie")))
            peer.send((21, Atom("stock"), me.pid, ref, Atom("lie")))
            peer.send((28, watched, me.pid, ref), encode_bare(Atom("lie")))
        peer.send((22, pid(), me.pid), encode_bare(b"last"))
        assert await me.receive(timeout=180) == b"last"
        honest.send((21, watched, me.pid, refs[0], Atom("truth")))
        honest.send((21, Atom("stock"), me.pid, refs[1], Atom("truth")))
        downs = [await me.receive(timeout=180) for _ in refs]
        assert [(down[1], down[4]) for down in downs] == [(ref, Atom("truth")) for ref in refs]


async def test_only_the_node_asked_answers_a_spawn_request(victim):
    async with hostile_to(victim, HONEST) as honest, hostile_to(victim) as peer, victim.process() as me:
        call = asyncio.create_task(rpc.erpc(me, HONEST, "m", "f", [], 180.0))
        request = None
        while not isinstance(request, SpawnRequest):
            request, payload = await honest.received()
        ref = request.request_id
        peer.send((31, ref, me.pid, 0, Atom("lie")))
        peer.send((31, ref, me.pid, 2, pid()))
        peer.send((28, pid(), me.pid, ref), encode_bare(Atom("lie")))
        peer.send((22, pid(), me.pid), encode_bare(b"last"))
        assert await me.receive(timeout=180) == b"last"
        spawned = Pid(HONEST, 9, 0, 7)
        honest.send((31, ref, me.pid, 2, spawned))
        [result_ref, *_], _ = decode_bare(payload)
        honest.send((28, spawned, me.pid, ref), encode_bare((result_ref, Atom("return"), b"truth")))
        assert await call == b"truth"


async def test_a_burst_of_what_nobody_handles_or_can_read_is_few_lines(victim, caplog):
    server = await start_server(victim.runtime, GenServer, name="bare")
    async with hostile_to(victim) as peer, victim.process() as me:
        for number in range(1000):
            peer.send((6, pid(), EMPTY, Atom("bare")), encode_bare((Atom("order"), number)))
            peer.send((6, pid(), EMPTY, Atom("bare")), b"\xff")
            peer.send((6, pid(), EMPTY, Atom("bare")), encode_bare(Atom(f"x{number}")))
            peer.send((26, pid(), Pid(victim.name, 9999, 0, 1)), b"\xff")
        peer.send((22, pid(), me.pid), encode_bare(b"last"))
        assert await me.receive(timeout=180) == b"last"
        await eventually(lambda: not victim.runtime.processes[server.id].message_queue_len)
    assert 2 <= len(caplog.records) <= 110


async def test_what_a_process_gets_of_a_signal_is_a_term(victim):
    """It can be sent on, and goes with the link."""
    async with victim.process() as me, victim.process() as other:
        me.trap_exit = True
        async with hostile_to(victim) as peer:
            peer.send((8, pid(), me.pid, Atom("why")))
            message = await me.receive(timeout=180)
            me.send(other.pid, message)
            assert await other.receive(timeout=180) == (Atom("EXIT"), pid(), Atom("why"))
            me.link(pid(2))
            peer.send((3, pid(2), me.pid, Atom("over")))
            await eventually(lambda: me.message_queue_len)
            me.unlink(pid(2))
            assert me.message_queue_len == 0
