"""What ``test_instructions.py`` runs under callgrind: ``python -m tests.node.paths PATH COUNT``, a path of so many messages.

Without arguments it is every path in turn, for a few messages and for many, with a call of `mark` in front of the
work and behind it.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import sys
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

from pyglyn import etf
from pyglyn.dist import RECOMMENDED, Channel, HandshakeComplete
from pyglyn.dist.control import AliasSend, Control, DemonitorP, MonitorP, RegSend, Send
from pyglyn.etf import Atom, ImproperList, Pid, Reference, Term, encode_bare, encode_parts
from pyglyn.net.connection import Connection
from pyglyn.net.settings import NetSettings
from pyglyn.node.backpressure import Pauses
from pyglyn.node.gen_server import GenServer, start_server
from pyglyn.node.inlet import inlet
from pyglyn.node.link import FrameReader, FrameWriter, LinkProtocol
from pyglyn.node.router import Router
from pyglyn.node.runtime import Identity, Parts, Runtime
from pyglyn.node.ways import Port
from pyglyn.node.worker_link import WorkerLink

HERE, THERE = "here@localhost", "there@localhost"
FAR = Pid(THERE, 90, 0, 7)
READ = 16 * 1024
EVENT: Term = (
    b"inventory", (Atom("process_events"), b"order_001", [(Atom("order_created"), b"order_001", 20)])
)  # fmt: skip


class Echo(GenServer):
    """Replies with the request."""

    async def handle_call(self, request: Term, caller: object) -> Term:
        return request


def channel() -> Channel:
    """A connection without a socket."""
    return Channel(RECOMMENDED, 0.0, local_node=HERE, peer_node=THERE)


def written(to: Pid, message: Term, count: int) -> bytes:
    """What a peer writes for so many messages."""
    peer = Channel(RECOMMENDED, 0.0)
    for _ in range(count):
        peer.send(Send(FAR, to), encode_parts(message))
    return b"".join(peer.data_to_send(1 << 40))


def reads(data: bytes) -> list[bytes]:
    """As a socket gives it."""
    return [data[at : at + READ] for at in range(0, len(data), READ)]


def taking(
    here: Channel, runtime: Runtime, of_workers: Any = None, router: Any = None, connection: Any = None
) -> Callable[[bytes], None]:
    """Take what was read as a connection does: what it begins with by an inlet, if there is one, then the rest."""
    assert here.known is not None
    named, links = ({}, {}) if of_workers is None else (of_workers.named, of_workers.links)
    first = inlet(*here.known, runtime, THERE, named, links)

    def take(data: bytes) -> None:
        at = 0 if first is None else first.take(data, len(data), 64)
        for event in here.receive_batch(data, at) if at < len(data) else ():
            assert isinstance(event, tuple)
            control, payload = event
            if router is not None and isinstance(payload, list):
                assert router.messages_from_peer(connection, control, payload)
            elif router is not None:
                router.from_peer(connection, control, payload)
            elif isinstance(payload, list):
                assert runtime.receive_many_encoded(control, payload)  # type: ignore[arg-type]
            else:
                runtime.receive_encoded(control, payload)

    return take


def read(link: LinkProtocol, data: bytes) -> None:
    """Have a link read so much."""
    link.get_buffer(-1)[: len(data)] = data
    link.buffer_updated(len(data))


async def into_a_process(count: int) -> None:
    """From a peer's bytes to the term that a process has taken."""
    runtime = Runtime(Identity(HERE, 1), lambda control, parts, node: None)
    me, here = runtime.attach("receiver"), channel()
    taken, came, take = 0, reads(written(me.pid, EVENT, count)), taking(here, runtime)
    mark()
    for data in came:
        take(data)
        while me.message_queue_len:
            await me.receive()
            taken += 1
    assert taken == count


async def out_of_a_process(count: int) -> None:
    """From ``send`` to the bytes for a peer."""
    here, sent = channel(), 0

    def to_peer(control: Control, parts: Parts | None, node: str) -> None:
        here.send(control, parts)

    def way(control: Send | RegSend, node: str) -> tuple[bytes, int, Port] | None:
        head = here.head_of(control)
        return None if head is None else (head, READ, here)

    runtime = Runtime(Identity(HERE, 1), to_peer)
    runtime.on_way = way
    me = runtime.attach("sender")
    mark()
    for _ in range(count):
        me.send(FAR, EVENT)
    for _ in range(count):
        sent += sum(map(len, here.data_to_send(READ)))
    assert sent > count


async def to_a_worker(count: int) -> None:
    """From a peer's bytes to the frames that the hub writes, and from those to what the worker's runtime gets."""
    to = Pid(HERE, 5, 1, 1)
    here, writer, reader = channel(), FrameWriter(), FrameReader()
    came, data_of_peer = 0, reads(written(to, EVENT, count))
    mark()
    for data in data_of_peer:
        pieces: list[bytes | memoryview] = []
        for event in here.receive_batch(data):
            assert type(event) is tuple
            control, payload = event
            if type(payload) is list:
                pieces.append(etf.join_frames(writer.header(control, None), payload))
            else:
                assert payload is not None
                pieces += writer.write(control, None, (payload,))
        for _, each in reader.receive_batch(b"".join(pieces)):
            came += len(each) if type(each) is list else 1
    assert came == count


async def within(count: int) -> None:
    """From ``send`` to the message that another process of the runtime has taken."""
    runtime = Runtime(Identity(HERE, 1), lambda control, parts, node: None)
    me, to = runtime.attach("sender"), runtime.attach("receiver")
    runtime.register("receiver", to.pid)
    mark()
    for _ in range(count):
        me.send("receiver", EVENT)
        await me.drain()
    for _ in range(count):
        await to.receive()


async def served(count: int) -> None:
    """A ``gen_server`` call from its bytes to those of the reply."""
    here, replies = channel(), 0

    def to_peer(control: Control, parts: Parts | None, node: str) -> None:
        nonlocal replies
        replies += 1
        here.send(control, parts)

    runtime = Runtime(Identity(HERE, 1), to_peer)
    server = await start_server(runtime, Echo)
    message = encode_bare((Atom("$gen_call"), (FAR, 17), Atom("get")))
    control = Send(FAR, server)
    mark()
    for number in range(1, count + 1):
        runtime.receive_encoded(control, message)
        while replies < number:  # noqa: ASYNC110 - it is there within a turn or two
            await asyncio.sleep(0)
    here.data_to_send(1 << 40)
    runtime.kill_all(None)


def _join(runtime: Runtime, here: Channel) -> None:
    """Let what leaves a runtime go out through a channel, by the short ways where there are any."""

    def way(control: Send | RegSend | None, node: str) -> tuple[bytes, int, Port] | None:
        head = here.head_of(control)
        return None if head is None else (head, READ, here)

    runtime.outlet = lambda control, parts, node: here.send(control, parts)
    runtime.on_way = way


async def called(count: int) -> None:
    """A call as a BEAM makes it, from the bytes of its monitor, its message and its end to those of the reply."""
    here, peer, ref = channel(), Channel(RECOMMENDED, 0.0), None
    runtime = Runtime(Identity(HERE, 1), lambda control, parts, node: None)
    _join(runtime, here)
    await start_server(runtime, Echo, name="echo")
    name, pieces = Atom("echo"), []
    for number in range(count):
        if ref is not None:
            peer.send(DemonitorP(FAR, name, ref))
        ref = Reference(THERE, 7, (number, 1, 2))
        peer.send(MonitorP(FAR, name, ref))
        tag = ImproperList((Atom("alias"),), ref)
        peer.send(RegSend(FAR, name), encode_parts((Atom("$gen_call"), (FAR, tag), Atom("get"))))
        pieces.append(b"".join(peer.data_to_send(1 << 40)))
    take = taking(here, runtime)
    mark()
    for piece in pieces:
        take(piece)
        while not here.queued_bytes:  # noqa: ASYNC110 - it is there within a turn or two
            await asyncio.sleep(0)
        here.data_to_send(1 << 40)
    runtime.kill_all(None)


async def asked(count: int) -> None:
    """A call of another node's server, from ``call`` to the reply that comes for it."""
    here, peer = channel(), Channel(RECOMMENDED, 0.0)
    runtime = Runtime(Identity(HERE, 1), lambda control, parts, node: None)
    _join(runtime, here)
    me, take = runtime.attach("caller"), taking(here, runtime)
    mark()
    for _ in range(count):
        answer = asyncio.ensure_future(me.call(FAR, Atom("get")))
        await asyncio.sleep(0)
        here.data_to_send(1 << 40)
        [ref] = me.pending.futures
        peer.send(AliasSend(FAR, ref), encode_parts((ImproperList((Atom("alias"),), ref), Atom("ok"))))
        take(b"".join(peer.data_to_send(1 << 40)))
        assert await answer is Atom("ok")
    runtime.kill_all(None)


class Wire:
    """The transport of one end of a link, and what was written to it."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.write = self.written.append

    def is_closing(self) -> bool:
        return False

    def get_extra_info(self, name: str) -> None:
        return None

    def nothing(self, *_: object) -> None:
        """It is no real one."""

    set_protocol = set_write_buffer_limits = close = abort = nothing

    def get_write_buffer_size(self) -> int:
        return 0


def peer_of(node: str) -> tuple[Connection, Wire]:
    """A connection without a socket."""
    wire: Any = Wire()
    connection = Connection(
        HandshakeComplete(THERE, 7, RECOMMENDED), 1, node, NetSettings(), *[lambda *_: None] * 3
    )
    connection.start(wire)
    return connection, wire


class Through:
    """A hub and a worker, the link between them, and a connection to a peer."""

    def __init__(self) -> None:
        self.connection, self.sent = peer_of(HERE)
        self.inside, self.outside = LinkProtocol(print, lambda: None), LinkProtocol(print, lambda: None)
        self.to_worker, self.to_hub = Wire(), Wire()
        self.outside.transport, self.inside.transport = self.to_worker, self.to_hub  # type: ignore[assignment]
        self.worker = Runtime(
            Identity(HERE, 1, 1), lambda control, parts, node: self.inside.send(control, node, parts)
        )
        self.worker.on_way = self.inside.way
        self.inside.on_signal, self.inside.on_messages = (
            self.worker.receive_encoded, self.worker.receive_many_encoded,
        )  # fmt: skip
        self.hub = Runtime(Identity(HERE, 1), lambda control, parts, node: None)
        link = WorkerLink(1, 0, 0, "worker", self.outside)
        self.workers: Any = SimpleNamespace(links={1: link}, named={})
        hub: Any = SimpleNamespace(
            name=HERE, peers=SimpleNamespace(get=lambda name: self.connection), runtime=self.hub,
            settings=self.hub.settings, pauses=Pauses(),
        )  # fmt: skip
        self.router: Any = Router(hub, self.workers)
        self.outside.on_signal = functools.partial(self.router.from_worker, link)
        self.outside.on_messages = functools.partial(self.router.messages_from_worker, link)
        self.router.welcome(link)
        self.inside.put_inlet(lambda begins, known: inlet(begins, known, self.worker, None, {}, {}))

    async def pass_on(self, link: LinkProtocol, wire: Wire, other: LinkProtocol) -> None:
        """Have the other end of the link read what this one writes."""
        link.flush()
        while not wire.written:
            await asyncio.sleep(0)
            link.flush()
        read(other, b"".join(wire.written))
        wire.written.clear()

    async def out(self) -> None:
        """From the worker to the bytes for the peer."""
        await self.pass_on(self.inside, self.to_hub, self.outside)
        self.connection._flush()
        assert self.sent.written
        self.sent.written.clear()


async def through_a_worker(count: int) -> None:
    """As `called`, of a process of a worker: through the hub to the worker's runtime, and the reply back."""
    here, peer, ref, through = channel(), Channel(RECOMMENDED, 0.0), None, Through()
    server = await start_server(through.worker, Echo, name="echo")
    assert server is not None
    through.hub.names["echo"] = server
    name, pieces = Atom("echo"), []
    for number in range(count):
        if ref is not None:
            peer.send(DemonitorP(FAR, name, ref))
        ref = Reference(THERE, 7, (number, 1, 2))
        peer.send(MonitorP(FAR, name, ref))
        tag = ImproperList((Atom("alias"),), ref)
        peer.send(RegSend(FAR, name), encode_parts((Atom("$gen_call"), (FAR, tag), Atom("get"))))
        pieces.append(b"".join(peer.data_to_send(1 << 40)))
    take = taking(here, through.hub, through.workers, through.router, through.connection)
    mark()
    for piece in pieces:
        take(piece)
        await through.pass_on(through.outside, through.to_worker, through.inside)
        await through.out()
    through.connection.close("over")
    through.worker.kill_all(None)


async def out_of_a_worker(count: int) -> None:
    """From ``send`` in a worker to the bytes that the hub writes to a peer."""
    through = Through()
    me = through.worker.attach("sender")
    me.send(FAR, EVENT)
    await through.out()
    mark()
    for _ in range(count):
        me.send(FAR, EVENT)
        await through.out()
    through.connection.close("over")
    through.worker.kill_all(None)


PATHS: dict[str, Callable[[int], Awaitable[None]]] = {
    each.__name__: each
    for each in (
        into_a_process,
        out_of_a_process,
        to_a_worker,
        within,
        served,
        called,
        through_a_worker,
        out_of_a_worker,
        asked,
    )
}


FEW, MANY = 100, 500


def mark() -> None:
    """Call what no path calls: the counts are written then, and begin anew."""
    etf.decode_prefix(b"\x83\x61\x01")


def main(*arguments: str) -> None:
    """Take one path or all, without the garbage collector, which counts by what else there is."""
    gc.disable()

    async def run(path: str, *counts: int) -> None:
        for count in counts:
            await PATHS[path](count)
            mark()

    if arguments:
        asyncio.run(run(arguments[0], int(arguments[1])))
        return
    for path in PATHS:
        asyncio.run(run(path, FEW, MANY))


if __name__ == "__main__":
    main(*sys.argv[1:])
