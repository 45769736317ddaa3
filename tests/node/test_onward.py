"""What the hub takes of a worker in C goes where, and as, the way of every signal has it, whatever comes and however it is cut."""

from __future__ import annotations

import asyncio
import functools
import random
from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest

from pyglyn.dist import RECOMMENDED, HandshakeComplete
from pyglyn.dist.control import AliasSend, Control, DemonitorP, Link, MonitorP, MonitorPExit, RegSend, Send
from pyglyn.errors import PyglynError
from pyglyn.etf import Atom, Pid, Reference, encode_bare, encode_parts
from pyglyn.net.connection import Connection
from pyglyn.net.settings import NetSettings
from pyglyn.node import hot
from pyglyn.node.backpressure import PausedSources, Pauses
from pyglyn.node.link import FrameWriter, LinkProtocol, encode_request
from pyglyn.node.router import Router
from pyglyn.node.worker_link import WorkerLink
from tests.node.runtimes import CREATION, NODE, PEER, Noted, noted
from tests.node.test_inlet import Transport, damaged

pytest.importorskip("pyglyn.node._hot")

INSIDE, BESIDE = Pid(NODE, 5, 1, CREATION), Pid(NODE, 6, 1, CREATION)
THEM, OTHER, AWAY = Pid(PEER, 90, 0, 3), Pid(PEER, 91, 0, 3), Pid("third@h", 1, 0, 1)
ELSEWHERE = Pid(NODE, 7, 2, CREATION)
OURS = [Reference(NODE, CREATION, (number, 0, 1)) for number in range(4)]
THEIRS = [Reference(PEER, 3, (number, 0, 0)) for number in range(4)]


class Held(Transport):
    """One that notes whether it is read."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = True

    def pause_reading(self) -> None:
        self.reads = False

    def resume_reading(self) -> None:
        self.reads = True


class Hub:
    """A hub with a worker that sends, one that is sent to, and a peer; with an inlet or without."""

    def __init__(self, *, with_inlet: bool, busy_limit: int = 1 << 20, high_water: int = 1 << 20) -> None:
        self.noted: Noted = noted(auto_connect=False)
        runtime = self.noted.runtime
        self.requests: list[Any] = []
        self.broken: list[str] = []
        pauses = Pauses()
        self.links: list[WorkerLink] = []
        self.wires: list[Held] = []
        for serial in (1, 2):
            protocol = LinkProtocol(self.requests.append, lambda: None, high_water=high_water)
            wire: Any = Held()
            protocol.transport = wire
            link = WorkerLink(serial, 0, 0, "worker", protocol)
            link.paused = PausedSources(pauses)
            self.links.append(link)
            self.wires.append(wire)
        workers: Any = SimpleNamespace(
            links={link.serial: link for link in self.links}, named={}, no_longer_busy=lambda node: None
        )
        self.connection: Connection
        peers: Any = SimpleNamespace(
            get=lambda name: self.connection if name == PEER and not self.connection.closed else None
        )
        settings = runtime.settings
        hub: Any = SimpleNamespace(
            name=NODE, peers=peers, runtime=runtime, settings=settings, pauses=pauses,
            stopping=SimpleNamespace(is_set=lambda: False),
        )  # fmt: skip
        self.router = Router(hub, workers)
        self.busy_limit = busy_limit
        self.peer_wires: list[Held] = []
        self.connect()
        for link in self.links:
            link.protocol.on_signal = functools.partial(self.router.from_worker, link)
            link.protocol.on_messages = functools.partial(self.router.messages_from_worker, link)
            link.paused = PausedSources(pauses)
        self.router.welcome(self.links[0])
        if not with_inlet:
            self.links[0].protocol._inlet = None
        else:
            assert hot.c is None or self.links[0].protocol._inlet is not None
        self.plain, self.server = self.noted.process("plain"), self.noted.process("server")
        self.server.answers_system_messages = True
        self.alias = self.plain.alias()
        runtime.names["elsewhere"] = ELSEWHERE

    def connect(self) -> None:
        """The peer is up, perhaps again."""
        self.connection = Connection(
            HandshakeComplete(PEER, 3, RECOMMENDED),
            1,
            NODE,
            NetSettings(busy_limit=self.busy_limit),
            lambda *_: None,
            lambda *_: None,
            lambda connection, busy: self.router.busy(connection.name, busy),
        )
        wire: Any = Held()
        self.peer_wires.append(wire)
        self.connection.start(wire)

    def lose(self) -> None:
        """The peer is gone."""
        self.connection.close("the test ends it")
        for link in self.links:
            link.protocol.unread.pop(PEER.encode(), None)
            link.protocol.ways.clear()
            link.boundary.node_down(PEER)
            link.lost[PEER] += 1
        self.noted.runtime.busy.end(PEER)

    def feed(self, data: bytes) -> int:
        """Have as much of this read as the worker's link takes; what breaks that is noted."""
        protocol = self.links[0].protocol
        room = protocol.get_buffer(-1)
        some = data[: len(room)]
        room[: len(some)] = some
        try:
            protocol.buffer_updated(len(some))
        except PyglynError as error:
            self.broken.append(f"{type(error).__name__}: {error}")
        return len(some)

    def written(self) -> list[bytes]:
        """What was written to the workers, and to the peer on each of its connections."""
        return [b"".join(map(bytes, wire.written)) for wire in (*self.wires, *self.peer_wires)]

    def state(self) -> Any:
        """All that what came has changed."""
        first = self.links[0]
        runtime = self.noted.runtime
        return (
            self.written(),
            [wire.reads for wire in self.wires],
            [each.waiting_messages for each in (self.plain, self.server)],
            [each.signals.watchers_at for each in (self.plain, self.server)],
            first.boundary.monitors,
            first.boundary.links,
            first.boundary.watchers,
            first.boundary._ties._tied,
            first.busy,
            sorted(first.protocol.unread),
            self.connection.busy,
            self.connection.queued_bytes,
            self.connection.traffic,
            list(runtime.busy),
            self.requests,
            self.noted.out,
            runtime.refused,
            self.broken,
        )

    def close(self) -> None:
        """Stop the timers."""
        self.connection.close("over")


def both(**options: Any) -> tuple[Hub, Hub]:
    return Hub(with_inlet=False, **options), Hub(with_inlet=True, **options)


def usual() -> list[bytes]:
    """What a worker sends other nodes, as it writes it."""
    writer = FrameWriter()
    sent: list[tuple[Control, Any]] = [
        (Send(INSIDE, to), number) for to in (THEM, OTHER) for number in range(3)
    ]
    sent += [(RegSend(INSIDE, Atom("shop")), b"an order"), (AliasSend(INSIDE, THEIRS[0]), (THEIRS[0], 1))]
    sent += [
        (kind(INSIDE, watched, ref), None)
        for kind in (MonitorP, DemonitorP)
        for ref in OURS[:2]
        for watched in (THEM, Atom("shop"))
    ]
    return [
        b"".join(map(bytes, writer.write(control, PEER, None if body is None else encode_parts(body))))
        for control, body in sent
    ]


def written(hub: Hub) -> list[bytes]:
    """What a worker may send, as it writes it: usual things and others."""
    writer, frames = FrameWriter(), []

    def add(control: Control, node: str | None, *body: Any) -> None:
        frames.append(
            b"".join(map(bytes, writer.write(control, node, encode_parts(body[0]) if body else None)))
        )

    old = Pid(NODE, hub.plain.pid.id, 0, CREATION - 1)
    for sender in (INSIDE, BESIDE):
        for to in (THEM, OTHER, AWAY, hub.plain.pid, hub.server.pid, ELSEWHERE, old):
            for body in (1, b"some bytes", (Atom("system"), (sender, OURS[0]), Atom("get_state"))):
                add(Send(sender, to), to.node, body)
            add(Send(sender, to), None, 2)
            add(Send(sender, to), PEER, 3)
        add(Send(sender, ELSEWHERE), NODE, bytes(30_000))
        for name in ("plain", "elsewhere", "nobody", "undefined"):
            for node in (NODE, PEER, "third@h", None):
                add(RegSend(sender, Atom(name)), node, (4, name.encode()))
    for ref in (*THEIRS, hub.alias, OURS[0], Reference("third@h", 1, (1, 2, 3))):
        for node in dict.fromkeys((ref.node, PEER, "third@h")):
            add(AliasSend(INSIDE, ref), node, (ref, 5))
    for kind in (MonitorP, DemonitorP):
        for ref in OURS:
            for watched, node in (
                (THEM, PEER), (OTHER, PEER), (AWAY, "third@h"), (THEM, "third@h"), (hub.plain.pid, NODE),
                (Atom("shop"), PEER), (Atom("plain"), NODE), (Atom("elsewhere"), NODE), (True, PEER), (ELSEWHERE, NODE),
            ):  # fmt: skip
                add(kind(INSIDE, watched, ref), node)
    add(AliasSend(INSIDE, THEIRS[0]), PEER, bytes(70_000))
    for ref in THEIRS:
        add(MonitorPExit(INSIDE, THEM, ref), PEER, Atom("normal"))
    add(Link(INSIDE, THEM), PEER)
    frames.append(encode_request((Atom("whereis"), OURS[0], b"shop")))
    frames.append(encode_request(Atom("anything")))
    return frames


async def settle(*hubs: Hub) -> None:
    """Until what is due at the end of this turn and the next is done."""
    for _ in range(3):
        await asyncio.sleep(0)


@pytest.mark.parametrize("seed", range(24))
async def test_it_does_what_the_way_of_every_signal_does(seed: int) -> None:
    chance = random.Random(seed)
    options: dict[str, int] = {}
    if seed % 4 == 1:
        options["busy_limit"] = 1_500
    if seed % 4 == 2:
        options["high_water"] = 1_000
    plain, quick = both(**options)
    choices = written(plain), usual(), usual(), usual(), usual()
    assert choices[0] == written(quick)
    frames = [
        each
        for _ in range(200)
        for each in [chance.choice(chance.choice(choices))] * chance.choice((1, 1, 1, 4, 40))
    ]
    if seed % 4 == 3:
        frames = [damaged(frame, chance) if chance.random() < 0.02 else frame for frame in frames]
    data, at, taken = b"".join(frames), 0, 0
    while at < len(data):
        step, luck = chance.choice((1, 3, 40, 400, 4_000, 16_000)), chance.random()
        for hub in (plain, quick):
            if seed % 2 and luck < 0.3:
                hub.connection.pause_writing()
            elif luck < 0.6:
                hub.connection.resume_writing()
            if seed % 4 == 2 and luck < 0.3:
                hub.links[1].protocol.pause_writing()
            elif luck < 0.6:
                hub.links[1].protocol.resume_writing()
                hub.links[1].paused.resume()
            if 0.6 < luck < 0.63:
                hub.lose()
            elif 0.63 < luck < 0.7:
                for link in hub.links:
                    link.lost -= Counter((PEER,))
                if hub.connection.closed:
                    hub.connect()
        took = plain.feed(data[at : at + step])
        assert quick.feed(data[at : at + step]) == took
        await settle(plain, quick)
        at += took
        taken += getattr(quick.links[0].protocol._inlet, "frames", 0)
        if plain.broken:  # what came with it, before it, goes nowhere or where it was to go
            assert quick.broken == plain.broken
            for one, other in zip(quick.written(), plain.written(), strict=True):
                assert one.startswith(other)
            break
        assert quick.state() == plain.state()
    assert taken > 20 or quick.broken
    plain.close()
    quick.close()


async def test_all_that_answers_a_call_and_asks_one_is_passed_on() -> None:
    hub = Hub(with_inlet=True)
    writer, inlet = FrameWriter(), hub.links[0].protocol._inlet
    assert inlet is not None

    def frame(control: Control, node: str, *body: Any) -> bytes:
        return b"".join(map(bytes, writer.write(control, node, encode_parts(body[0]) if body else None)))

    message, answer = (
        frame(Send(INSIDE, THEM), PEER, 1),
        frame(AliasSend(INSIDE, THEIRS[0]), PEER, (THEIRS[0], 2)),
    )
    hub.feed(
        message + answer
    )  # what a message begins with, and that answers go there, is known once one has come
    assert inlet.frames == 0
    frames = [
        message, answer, message, message, frame(MonitorP(INSIDE, THEM, OURS[0]), PEER),
        frame(MonitorP(INSIDE, Atom("shop"), OURS[1]), PEER), frame(DemonitorP(INSIDE, THEM, OURS[0]), PEER),
    ]  # fmt: skip
    data = b"".join(frames)
    hub.feed(data)
    assert (inlet.taken, inlet.frames) == (len(data), len(frames))
    assert hub.links[0].boundary.monitors == {OURS[1]: (INSIDE, Atom("shop"), PEER)}
    hub.close()


async def test_what_makes_a_connection_busy_is_told_the_worker_and_what_comes_then_as_well() -> None:
    for with_inlet in (False, True):
        hub = Hub(with_inlet=with_inlet, busy_limit=400)
        hub.connection.pause_writing()
        frame = b"".join(map(bytes, FrameWriter().write(Send(INSIDE, THEM), PEER, encode_parts(bytes(100)))))
        told = []
        for _ in range(6):
            hub.feed(frame)
            await settle(hub)
            told.append((hub.connection.busy, PEER in hub.links[0].busy, len(hub.wires[0].written)))
        assert told == [(False, False, 0)] * 2 + [(True, True, 1)] * 4, with_inlet
        hub.close()


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"h",
        b"h\2w",
        b"h\2w\5erl@h",
        b"h\2w\xfferl@h",
        b"h\2w\5erl@hh\3a\x21",
        b"h\2w\5erl@hh\3a\x21" + encode_bare(INSIDE),
        b"h\2w\5erl@hh\3a\x21" + encode_bare(INSIDE) + encode_bare(THEIRS[0]),
        b"h\2w\5erl@hh\3a\x21" + encode_bare(INSIDE) + b"Z\0\xffw\5erl@h" + bytes(4 + 4 * 255) + b"a\1",
        b"h\2w\5erl@hh\3a\x21" + encode_bare(INSIDE) + b"Z\xff\xffw\5erl@h" + bytes(20) + b"a\1",
        b"h\2w\5erl@hh\4a\x13" + encode_bare(INSIDE) + encode_bare(THEM),
        b"h\2w\5erl@hh\4a\x13" + encode_bare(INSIDE) + encode_bare(THEM) + encode_bare(OURS[0]) + b"a\1",
        b"h\2w\5e\xff\xff@hh\4a\x13" + encode_bare(INSIDE) + encode_bare(THEM) + encode_bare(OURS[0]),
        b"h\2w\3nilh\4a\x13" + encode_bare(INSIDE) + encode_bare(THEM) + encode_bare(OURS[0]),
        b"h\2w\4trueh\4a\x13" + encode_bare(INSIDE) + encode_bare(Atom("shop")) + encode_bare(OURS[0]),
        b"h\2w\3hubh\3a\x21" + encode_bare(INSIDE) + encode_bare(THEIRS[0]) + b"a\1",
    ],
)
async def test_what_is_broken_is_refused_or_taken_as_ever(frame: bytes) -> None:
    plain, quick = both()
    known = b"".join(map(bytes, FrameWriter().write(AliasSend(INSIDE, THEIRS[0]), PEER, encode_parts(1))))
    for hub in (plain, quick):
        hub.feed(known)
        hub.feed(known)
        hub.feed(len(frame).to_bytes(4) + frame + known)
        await settle(hub)
    assert quick.state() == plain.state()
    plain.close()
    quick.close()
