"""What the inlet takes off a read in C does what the way of every signal does, whatever comes and however it is cut."""

from __future__ import annotations

import asyncio
import enum
import random
from types import SimpleNamespace
from typing import Any

import pytest

from pyglyn.dist import RECOMMENDED, Channel, HandshakeComplete
from pyglyn.dist.control import AliasSend, Control, DemonitorP, Link, MonitorP, RegSend, Send
from pyglyn.etf import Atom, ImproperList, Pid, Reference, encode_bare, encode_parts
from pyglyn.loop_turn import Waiter
from pyglyn.net.connection import Connection
from pyglyn.net.settings import NetSettings
from pyglyn.node import Process, hot
from pyglyn.node.backpressure import Pauses
from pyglyn.node.inlet import inlet
from pyglyn.node.link import FrameWriter, LinkProtocol
from pyglyn.node.router import Router
from pyglyn.node.runtime import Identity, Runtime
from pyglyn.node.worker_link import WorkerLink
from tests.node.runtimes import CREATION, NODE, PEER, Noted, noted

pytest.importorskip("pyglyn.node._hot")

THEM, OTHER, FOREIGN = Pid(PEER, 90, 0, 3), Pid(PEER, 91, 0, 3), Pid("third@h", 90, 0, 3)
REFS = [Reference(PEER, 3, (number, 0, 0)) for number in range(4)]
SYSTEM = (Atom("system"), (THEM, REFS[0]), Atom("get_state"))


class Transport:
    """What a connection needs of one."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.write = self.written.append

    def get_extra_info(self, name: str) -> None:
        return None

    def nothing(self, *_: object) -> None:
        pass

    def is_closing(self) -> bool:
        return False

    set_protocol = set_write_buffer_limits = pause_reading = resume_reading = close = abort = nothing

    def get_write_buffer_size(self) -> int:
        return 0


class Side:
    """A runtime behind a connection, with an inlet or without."""

    def __init__(self, *, with_inlet: bool, with_worker: bool = True, high_water: int = 1 << 20) -> None:
        self.noted: Noted = noted()
        self.named: dict[Any, Any] = {}
        runtime = self.noted.runtime
        self.link = LinkProtocol(lambda _: None, lambda: None, high_water=high_water)
        self.wire: Any = Transport()
        self.link.transport = self.wire
        self.worker = WorkerLink(1, 0, 0, "worker", self.link)
        workers: Any = SimpleNamespace(links={1: self.worker} if with_worker else {}, named=self.named)
        hub: Any = SimpleNamespace(
            name=NODE, peers=SimpleNamespace(), runtime=runtime, settings=runtime.settings, pauses=Pauses()
        )
        router = Router(hub, workers)
        self.down = ""
        self.connection = Connection(
            HandshakeComplete(PEER, 3, RECOMMENDED),
            1,
            NODE,
            NetSettings(),
            router.from_peer,
            lambda _, reason: setattr(self, "down", reason),
            lambda *_: None,
            router.messages_from_peer,
        )
        self.transport: Any = Transport()
        self.connection.start(self.transport)
        if with_inlet:
            router.connected(self.connection)
            assert hot.c is None or self.connection._inlet is not None
        self.plain, self.server = self.noted.process("plain"), self.noted.process("server")
        self.server.answers_system_messages = True
        self.waits, self.told, self.deaf = (self.noted.process(name) for name in ("waits", "told", "deaf"))
        self.told.told_source = self.deaf.deaf = True
        runtime.names["inside"] = Pid(NODE, 5, 1, CREATION)
        self.processes = [self.plain, self.server, self.waits, self.told, self.deaf]
        self.refs: list[Reference] = []
        self.futures: list[Waiter[Any]] = []
        for _ in range(2):
            ref = runtime.make_ref()
            self.refs.append(ref)
            self.futures.append(self.waits.pending.expect(ref))
            self.waits._add_alias(ref)
        self.refs.append(self.plain.alias())

    def feed(self, data: bytes) -> None:
        """Have so much read."""
        self.connection.get_buffer(-1)[: len(data)] = data
        self.connection.buffer_updated(len(data))

    def state(self) -> Any:
        """All that what came has changed."""
        runtime, connection = self.noted.runtime, self.connection
        return (
            [(each.alive, list(each.waiting_messages), each.signals.watchers_at) for each in self.processes],
            [each.signals.links for each in self.processes],
            [future.result() if future.done() else None for future in self.futures],
            runtime._named_monitors,
            {ref: watcher for ref, (watcher, _) in self.named.items()},
            self.worker.boundary.watchers,
            b"".join(map(bytes, self.wire.written)),
            runtime.refused,
            runtime.source,
            dict(runtime.ties._tied),
            self.noted.out,
            None
            if connection.closed
            else connection.traffic,  # behind what breaks the protocol nobody counts
            connection.closed,
            self.down,
        )


def peer() -> Channel:
    return Channel(RECOMMENDED, 0.0)


def controls(side: Side) -> list[tuple[Control, Any]]:
    """What a peer may send: usual things and others."""
    pids = [process.pid for process in side.processes]
    dead, elsewhere = Pid(NODE, 4_000, 0, CREATION), Pid(NODE, 1, 2, CREATION)
    before = Pid(NODE, pids[0].id, 0, CREATION - 1)
    inside, old = Pid(NODE, 5, 1, CREATION), Pid(NODE, 5, 1, CREATION - 1)
    names = [Atom(name) for name in ("plain", "inside", "server", "told", "deaf", "nobody", "undefined")]
    tag = ImproperList((Atom("alias"),), side.refs[0])
    sent: list[tuple[Control, Any]] = [
        (Send(who, to), what)
        for who in (THEM, OTHER)
        for to in (*pids, dead, elsewhere, before, inside, old)
        for what in (1, b"bytes", SYSTEM, bytes(30_000))
    ]
    sent += [(RegSend(THEM, name), what) for name in names for what in (2, SYSTEM, (Atom("system"), 1))]
    sent += [(RegSend(THEM, name), 3) for name in (True, None)]
    for kind in (MonitorP, DemonitorP):
        for ref in REFS:
            for who in (THEM, OTHER):
                watched = (*names, *pids[:2], dead, elsewhere, before, inside, old)
                sent += [(kind(who, what, ref), None) for what in watched]
    for to in (*side.refs, Reference(NODE, CREATION, (9, 9, 0)), Reference(NODE, CREATION, (1, 1, 2))):
        sent += [(AliasSend(THEM, to), (to, 4)), (AliasSend(THEM, to), (tag, 5)), (AliasSend(THEM, to), 6)]
    sent += [(Link(THEM, pids[0]), None), (Send(THEM, pids[0]), b"x" * 70_000)]
    return sent


def frames_of(messages: list[tuple[Control, Any]]) -> list[bytes]:
    """Each as a peer writes it."""
    made = peer()
    frames = []
    for control, body in messages:
        needs = not isinstance(control, MonitorP | DemonitorP | Link)
        made.send(control, encode_parts(body) if needs else None)
        frames.append(b"".join(made.data_to_send(1 << 40)))
    return frames


def both(**options: Any) -> tuple[Side, Side]:
    sides = Side(with_inlet=False, **options), Side(with_inlet=True, **options)
    assert sides[0].refs == sides[1].refs
    assert [each.pid for each in sides[0].processes] == [each.pid for each in sides[1].processes]
    return sides


async def settle(*sides: Side) -> None:
    """Until nothing is left for a further turn."""
    for side in sides:
        while side.connection._resuming:  # noqa: ASYNC110 - a turn or two
            await asyncio.sleep(0)
    await asyncio.sleep(0)


def damaged(data: bytes, chance: random.Random) -> bytes:
    changed = bytearray(data)
    at = chance.randrange(4, len(changed))
    changed[at] = chance.choice((0, 1, 3, 88, 90, 97, 104, 119, 255, chance.randrange(256)))
    return bytes(changed)


@pytest.mark.parametrize("seed", range(24))
async def test_it_does_what_the_way_of_every_signal_does(seed: int) -> None:
    chance = random.Random(seed)
    plain, quick = both(with_worker=seed % 4 > 0, high_water=1_000 if seed % 4 == 1 else 1 << 20)
    choice = controls(plain)
    messages = [each for _ in range(150) for each in [chance.choice(choice)] * chance.choice((1, 1, 1, 3))]
    frames = frames_of(messages)
    frames.insert(chance.randrange(len(frames)), b"\0\0\0\0")
    if seed % 3 == 0:
        frames = [
            damaged(frame, chance) if len(frame) > 4 and chance.random() < 0.05 else frame for frame in frames
        ]
    data, at = b"".join(frames), 0
    while at < len(data):
        step, writable = chance.choice((1, 3, 40, 400, 4_000, 16_000)), seed % 4 != 1 or chance.random() < 0.5
        for side in (plain, quick):
            (side.link.resume_writing if writable else side.link.pause_writing)()
            side.worker.paused.resume()
        for side in (plain, quick):
            room = len(side.connection.get_buffer(-1))
            side.feed(data[at : at + min(step, room)])
            await settle(side)
        at += min(step, room)
        assert quick.state() == plain.state()
    plain.connection.close("over")
    quick.connection.close("over")


async def test_foreign_watchers_end_the_connection() -> None:
    for control in (
        MonitorP(FOREIGN, Atom("plain"), REFS[0]),
        MonitorP(THEM, Atom("plain"), Reference("third@h", 3, (1, 0, 0))),
        MonitorP(THEM, Pid("third@h", 1, 0, CREATION), REFS[0]),
        DemonitorP(FOREIGN, Atom("plain"), REFS[0]),
    ):
        plain, quick = both()
        for side in (plain, quick):
            side.feed(b"".join(frames_of([(Send(THEM, side.plain.pid), 1), (control, None)])))
        assert plain.connection.closed
        assert quick.state() == plain.state()


async def test_all_that_a_call_brings_is_taken() -> None:
    side, ref = Side(with_inlet=True), REFS[0]
    call = (Atom("$gen_call"), (THEM, ImproperList((Atom("alias"),), ref)), Atom("get"))
    frames = frames_of(
        [
            (MonitorP(THEM, Atom("plain"), ref), None),
            (RegSend(THEM, Atom("plain")), call),
            (DemonitorP(THEM, Atom("plain"), ref), None),
        ]
    )
    first: Any = side.connection._inlet
    side.feed(frames[1])  # a control message is known once it has come
    assert (first.taken, first.frames) == (0, 0)
    data = b"".join(frames)
    side.feed(data)
    assert (first.taken, first.frames, first.runs) == (len(data), 3, 3)
    assert side.plain.waiting_messages == [call, call]
    assert side.plain.signals.watchers_at == {PEER: {}}
    side.connection.close("over")


async def test_all_that_a_call_into_a_worker_brings_is_passed_on() -> None:
    side, ref, name = Side(with_inlet=True), REFS[0], Atom("inside")
    call = (Atom("$gen_call"), (THEM, ImproperList((Atom("alias"),), ref)), Atom("get"))
    signals: list[tuple[Control, Any]] = [
        (MonitorP(THEM, name, ref), None), (RegSend(THEM, name), call), (DemonitorP(THEM, name, ref), None)
    ]  # fmt: skip
    first: Any = side.connection._inlet
    side.feed(frames_of(signals)[1])
    await settle(side)
    side.wire.written.clear()
    data = b"".join(frames_of(signals))
    side.feed(data)
    assert (first.taken, first.frames) == (len(data), 3)
    await settle(side)
    writer = FrameWriter()
    expected = [
        writer.write(control, None, None if body is None else encode_parts(body)) for control, body in signals
    ]
    assert side.wire.written == [b"".join(part for parts in expected for part in parts)]
    side.connection.close("over")


async def test_of_one_read_no_more_is_taken_than_others_can_wait_for() -> None:
    side = Side(with_inlet=True)
    monitors = [
        (MonitorP(THEM, Atom("plain"), Reference(PEER, 3, (number, 0, 0))), None) for number in range(300)
    ]
    data = b"".join(frames_of(monitors))
    turns = 0
    side.feed(data[:16_000])
    noted_first = len(side.plain.signals.watchers)
    assert 0 < noted_first <= 64
    while side.connection._rest is not None:
        await asyncio.sleep(0)
        turns += 1
    assert turns >= 2
    assert len(side.plain.signals.watchers) > 3 * 64
    side.connection.close("over")


async def test_one_who_waits_is_woken_once_and_in_order() -> None:
    side, got = Side(with_inlet=True), []  # type: ignore[var-annotated]

    async def wait(process: Process) -> None:
        got.append((process.name, await process.receive()))
        got.append((process.name, await process.receive()))

    tasks = [asyncio.ensure_future(wait(each)) for each in (side.plain, side.server)]
    await asyncio.sleep(0)
    first = frames_of([(RegSend(THEM, Atom("plain")), 0), (RegSend(THEM, Atom("server")), 0)])
    side.feed(b"".join(first))
    await settle(side)
    frames = frames_of([(RegSend(THEM, Atom("server")), 1), (RegSend(THEM, Atom("plain")), 2)])
    loop, turns = asyncio.get_running_loop(), []

    def read() -> None:
        side.feed(b"".join(frames))
        turns.append(len(got))

    loop.call_soon(read)
    await asyncio.gather(*tasks)
    assert turns == [4]
    assert got[2:] == [("server", 1), ("plain", 2)]
    side.connection.close("over")


@pytest.mark.parametrize("name", [b"erl@\xff", b"\xc3", b"", b"true", "größe".encode(), b"a" * 255])
async def test_a_sender_with_any_name_is_read_or_refused(name: bytes) -> None:
    sender = b"Xw" + bytes((len(name),)) + name + bytes(12)
    for index in (0, 2):
        plain, quick = both()
        ref = plain.refs[index]
        frame = b"\x83D\0h\3a\x21" + sender + encode_bare(ref) + encode_bare((ref, 1))
        for side in (plain, quick):
            side.feed(len(frame).to_bytes(4) + frame)
        assert quick.state() == plain.state()
        plain.connection.close("over")
        quick.connection.close("over")


class Named(enum.StrEnum):
    """Nodes may be named so."""

    HERE = NODE


async def test_a_runtime_may_be_named_by_an_enumeration() -> None:
    runtime = Runtime(Identity(Named.HERE, CREATION), lambda *_: None)
    process, known = runtime.attach("test"), {}  # type: ignore[var-annotated]
    made: Any = inlet(b"\x83D\0", known, runtime, PEER, {}, {})
    (data,) = frames_of([(MonitorP(THEM, Pid(NODE, process.pid.id, 0, CREATION), REFS[0]), None)])
    assert made.take(data, len(data), 64) == len(data)
    assert REFS[0] in process.signals.watchers


async def test_a_runtime_that_is_none_is_refused() -> None:
    none: Any = SimpleNamespace(names={}, processes=[], aliases={})
    with pytest.raises(TypeError, match="processes of a runtime is no dict"):
        inlet(b"", {}, none, PEER, {}, {})


async def test_what_is_no_frame_is_left() -> None:
    side = Side(with_inlet=True)
    first: Any = side.connection._inlet
    head = b"\x83D\0" + encode_bare((22, THEM, side.plain.pid))
    for data in (
        b"",
        b"\0\0\0",
        b"\0\0\0\0",
        b"\0\0\0\1x",
        b"\xff\xff\xff\xff",
        b"\0\0\0\4\x83D\0h",
        (len(head)).to_bytes(4) + head,
    ):
        assert first.take(data, len(data), 64) == 0
    assert first.take(b"", 100, 64) == 0
    with pytest.raises(TypeError):
        first.take(b"")
    with pytest.raises(TypeError):
        first.take("text", 4, 64)
    side.connection.close("over")


@pytest.mark.parametrize("seed", range(16))
async def test_a_worker_takes_from_the_hub_what_it_would_take_one_by_one(seed: int) -> None:
    chance, sides = random.Random(seed), both(with_worker=False)
    choice = controls(sides[0])
    messages = [each for _ in range(150) for each in [chance.choice(choice)] * chance.choice((1, 1, 1, 3))]
    writer = FrameWriter()
    data, at = b"", 0
    for control, body in messages:
        with_term = not isinstance(control, MonitorP | DemonitorP | Link)
        node = chance.choice((None, None, None, NODE, PEER)) if isinstance(control, RegSend) else None
        data += b"".join(writer.write(control, node, encode_parts(body) if with_term else None))
    links = []
    for side, with_inlet in zip(sides, (False, True), strict=True):
        runtime = side.noted.runtime
        link = LinkProtocol(lambda _: None, lambda: None)
        link.transport = Transport()  # type: ignore[assignment]
        link.on_signal, link.on_messages = runtime.receive_encoded, runtime.receive_many_encoded
        if with_inlet:
            link.put_inlet(lambda begins, known, of=runtime: inlet(begins, known, of, None, {}, {}))  # type: ignore[misc]
        links.append(link)
    while at < len(data):
        step = chance.choice((1, 3, 40, 400, 4_000, 16_000))
        for link in links:
            room = link.get_buffer(-1)
            some = data[at : at + min(step, len(room))]
            room[: len(some)] = some
            link.buffer_updated(len(some))
        at += len(some)
        await asyncio.sleep(0)
        assert sides[1].state() == sides[0].state()
