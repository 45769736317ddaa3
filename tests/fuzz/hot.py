"""What peers, workers and processes do to the methods in C of ``pyglyn.node._hot``, held against those in Python.

There are two worlds, one with the methods in Python and one with those in C: a runtime behind a connection and
behind a link, with processes that send, call, kill, close and pause as the messages say that they get. Both are
done the same, at random; after each step all that can be seen has to be the same, in the same order.
"""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Callable
from typing import Any, Final

from pyglyn.dist import RECOMMENDED, Channel
from pyglyn.dist.control import AliasSend, Control, DemonitorP, Exit2, Link, MonitorP, RegSend, Send, UnlinkId
from pyglyn.errors import RemoteProtocolError
from pyglyn.etf import Atom, ImproperList, Pid, Reference, encode_bare, encode_parts
from pyglyn.net.connection import A_TURN
from pyglyn.node import Process, hot
from pyglyn.node.inlet import inlet
from pyglyn.node.link import FrameWriter, LinkProtocol
from pyglyn.node.mailbox import as_it_came
from pyglyn.node.ways import way_for_signals, way_out, way_unread
from tests.node.runtimes import CREATION, NODE, PEER
from tests.node.test_inlet import FOREIGN, OTHER, REFS, SYSTEM, THEM, Side

ACTORS: Final = 5
NAMES: Final = ("plain", "server", "told", "deaf", "inside", "inside", "a0", "a1", "a2", "a3", "a9")
LONGEST: Final = 60_000


class Wire:
    """A transport that says what it is told, and may fail, pause or close."""

    def __init__(self, world: World, name: str) -> None:
        self.world, self.name = world, name
        self.does = ""
        self.owner: Any = None
        self.written: list[bytes] = []
        self.closing = False

    def write(self, data: bytes) -> None:
        """Take it, and do what this is to do once."""
        does, self.does = self.does, ""
        self.world.log.append((self.name, bytes(data)))
        self.written = []
        match does:
            case "fail":
                raise OSError("not now")
            case "pause":
                self.owner.pause_writing()
            case "send":
                self.owner.send_frame(b"\0\0\0\1y")
            case "close":
                self.owner.close("closed while it wrote") if self.name == "connection" else self.owner.close()
            case "lose":
                self.owner.connection_lost(None)
            case "flush":
                (self.owner._flush if self.name == "connection" else self.owner.flush)()
            case "kill":
                self.world.kill(0)

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.closing = True
        self.world.log.append((self.name, "closes"))

    abort = close

    def get_extra_info(self, name: str) -> Any:
        return None

    def nothing(self, *_: object) -> None:
        pass

    set_protocol = set_write_buffer_limits = pause_reading = resume_reading = nothing

    def get_write_buffer_size(self) -> int:
        return 0


class World(logging.Handler):
    """One of the two, with an event loop of its own."""

    def __init__(self, *, in_c: bool, options: dict[str, Any]) -> None:
        super().__init__(logging.WARNING)
        self.in_c = in_c
        self.log: list[Any] = []
        self.options = options
        self.waits: list[Any] = []
        self.loop = asyncio.new_event_loop()
        self.loop.set_exception_handler(lambda _, context: self.note(context.get("exception")))
        self.side: Side
        self.do(self._begin)

    def note(self, error: object) -> None:
        """An error that nobody else has taken."""
        text = f"{type(error).__name__}: {error}"
        self.log.append(text.partition(" at 0x")[0])

    def emit(self, record: logging.LogRecord) -> None:
        self.log.append((record.levelname, record.getMessage()))
        if record.exc_info is not None:
            self.note(record.exc_info[1])

    def do(self, function: Callable[[], object]) -> None:
        """Have the event loop call a function, and do what that brings: one turn of it."""
        logger, built = logging.getLogger("pyglyn"), hot.c
        level, propagates = logger.level, logger.propagate
        built.use(self.in_c)
        hot.c = built if self.in_c else None
        logger.addHandler(self)
        logger.propagate = False
        try:
            self.loop.call_soon(function)
            self.loop.call_soon(self.loop.stop)
            self.loop.run_forever()
        finally:
            hot.c = built
            built.use(True)
            logger.removeHandler(self)
            logger.level, logger.propagate = level, propagates

    def _begin(self) -> None:
        side = self.side = Side(with_inlet=True, **self.options)
        self.runtime = side.noted.runtime
        connection: Any = side.connection
        wires = [Wire(self, name) for name in ("connection", "worker", "hub")]
        self.wires = wires
        connection._transport, side.link.transport = wires[0], wires[1]
        connection._on_busy = lambda _, busy: self.log.append(("busy", busy))
        side.link._on_busy = lambda busy: self.log.append(("link busy", busy))
        self.hub = LinkProtocol(lambda asked: self.log.append(asked), lambda: self.log.append("gone"))
        self.hub.transport = wires[2]  # type: ignore[assignment]
        self.hub.on_signal = self.runtime.receive_encoded
        self.hub.on_messages = self.runtime.receive_many_encoded
        self.hub.put_inlet(lambda begins, known: inlet(begins, known, self.runtime, None, {}, {}))
        for wire, owner in zip(wires, (connection, side.link, self.hub), strict=True):
            wire.owner = owner
        self.actors = [
            self.runtime.spawn(self._act, (number,), name=f"a{number}", label=f"a{number}")
            for number in range(ACTORS)
        ]
        for each in self.actors:
            each.signals.trap_exit = each is self.actors[1]
        me = self.actors[0].pid
        head = connection.head_of(Send(me, THEM))
        self.ways: list[Any] = [
            way_out(head, LONGEST, connection),
            way_for_signals(b"\x83D\0", LONGEST, connection),
            way_unread(b"\x83D\0", LONGEST, connection),
            way_out(b"h\2w\3nil", LONGEST, side.link),
            way_for_signals(b"h\2w\3nil", LONGEST, self.hub),
        ]

    @property
    def everyone(self) -> list[Process]:
        return [*self.side.processes, *self.actors]

    # --- what processes do ------------------------------------------------------------------------

    async def _act(self, me: Process, number: int) -> None:
        try:
            while True:
                message = await self._take(me, number)
                self.log.append((number, message))
                what = message
                while isinstance(what, (tuple, list)) and what:
                    what = what[-1]
                if type(what) is int and what >= 0:
                    await self.react(me, what % 32, what // 32)
        finally:
            self.log.append((number, "over"))

    async def _take(self, me: Process, number: int) -> Any:
        if number == 2:
            return await me.receive(lambda message: type(message) is not bytes)
        if number == 3:
            came: Any = await me.receive(as_it_came)
            return bytes(came) if isinstance(came, memoryview) else getattr(came, "message", came)
        if number == 4:
            try:
                return await me.receive(timeout=0)
            except TimeoutError:
                return await me.receive()
        return await me.receive()

    async def react(self, me: Process, what: int, rest: int) -> None:
        """Do what a message says."""
        other = self.actors[rest % ACTORS]
        match what:
            case 0 | 1:
                self.log.append(self.ways[0]((rest,)))
            case 2:
                self.log.append(self.ways[1]((33, me.pid, REFS[0]), rest))
            case 3:
                self.log.append(self.ways[3](bytes(rest)))
            case 4 | 5:
                me.send(other.pid, rest // 4)
            case 6:
                self.kill(rest)
            case 7:
                raise ValueError("so be it")
            case 8 if rest % 32 == 0:
                self.side.connection.close("over")
            case 9:
                self.side.connection.pause_reading()
            case 10 | 28 | 29:
                self.side.connection.resume_reading()
            case 11:
                self.side.link.pause_writing()
            case 12 | 30:
                self.side.link.resume_writing()
            case 13:
                me.alias()
            case 14:
                for alias in list(me.aliases)[:1]:
                    me.unalias(alias)
            case 15:
                await asyncio.sleep(0)
            case 16 if other._task is not None:
                other._task.cancel()
            case 17:
                await self._call(me)
            case 18:
                other._mailbox.hold(rest % 3 == 0)
            case 19:
                other.answers_system_messages = not other.answers_system_messages
            case 20:
                other.told_source = not other.told_source
            case 21:
                other.deaf = rest % 3 == 0
            case 22 if "a9" not in self.runtime.names:
                self.runtime.register("a9", other.pid)
            case 23 if "a9" in self.runtime.names:
                self.runtime.unregister("a9")
            case 24:
                self.side.worker.paused.pause(
                    self.side.connection
                ) if rest % 2 else self.side.worker.paused.resume()
            case 25:
                me.monitor(THEM)
            case 26:
                me._mailbox.take(lambda message: message == rest)
            case 27:
                with_all = me._mailbox.waiting()
                self.log.append(("waits", len(with_all)))

    async def _call(self, me: Process) -> None:
        """Wait for what comes to an alias."""
        ref = self.runtime.make_ref()
        future = me.pending.expect(ref)
        me._add_alias(ref)
        try:
            self.log.append(("answer", await future))
        finally:
            me.pending.forget(ref)
            me._drop_alias(ref)

    def kill(self, which: int) -> None:
        self.actors[which % ACTORS].die(Atom("shot"))

    # --- what is done to it -----------------------------------------------------------------------

    def read(self, data: bytes, protocol: Any) -> None:
        """Have a connection or link read so much."""
        while data:
            if protocol is self.side.connection and protocol.closed:
                return
            room = protocol.get_buffer(-1)
            some, data = data[: len(room)], data[len(room) :]
            room[: len(some)] = some
            protocol.buffer_updated(len(some))

    def state(self) -> Any:
        """All that there is to see."""
        runtime, side = self.runtime, self.side
        return (
            side.state(),
            [(each.alive, each.message_queue_len, each.signals.watchers_at) for each in self.actors],
            [(each._mailbox._sleeps, each._mailbox._waits, each._mailbox._streak) for each in self.actors],
            sorted(runtime.names.items()),
            list(runtime.aliases),
            [(port.busy, port.queued_bytes) for port in (side.link, self.hub)],
            (side.connection.busy, side.connection.queued_bytes),
            self.log,
        )

    def end(self) -> None:
        """Let go of everything."""

        def over() -> None:
            self.side.connection.close("over")
            for each in self.everyone:
                each.die(Atom("shutdown"), at_once=True)

        self.do(over)
        for _ in range(3):
            self.do(lambda: None)
        self.loop.close()


# --- what comes ----------------------------------------------------------------------------------------


class Stream:
    """Frames as a peer or hub may send them, at random."""

    def __init__(self, inputs: Any, world: World) -> None:
        self.inputs, self.world, self.rng = inputs, world, inputs.rng
        self.writer = FrameWriter()
        self.recent: list[Control] = []

    def control(self) -> tuple[Control, Any]:
        """A control message with its term: one as before, or another."""
        rng = self.rng
        refs = [*list(self.world.runtime.aliases)[-8:], *REFS]
        if self.recent and rng.random() < 0.5:
            return rng.choice(self.recent), self.body(refs)
        control, body = self.other()
        if isinstance(control, (Send, RegSend)):
            self.recent[:] = [*self.recent[-5:], control]
        return control, body

    def other(self) -> tuple[Control, Any]:
        """Any control message with its term."""
        rng, world = self.rng, self.world
        pids = [each.pid for each in world.everyone]
        inside = Pid(NODE, 5, 1, CREATION)
        odd = [
            Pid(NODE, 4_000, 0, CREATION), Pid(NODE, 1, 2, CREATION), Pid(NODE, 5, 1, CREATION - 1),
            Pid(NODE, pids[0].id, 0, CREATION - 1), Pid(NODE, pids[0].id, 1 << 31, CREATION), OTHER, FOREIGN,
        ]  # fmt: skip
        known = list(world.runtime.aliases)[-8:]
        refs = [
            *known,
            *known,
            Reference(NODE, CREATION, (9, 9, 0)),
            Reference(NODE, CREATION, (1, 1, 2)),
            *REFS,
        ]
        to = rng.choice(odd) if rng.random() < 0.03 else rng.choice((*pids, inside, inside))
        who = rng.choice((THEM, THEM, THEM, OTHER, FOREIGN if rng.random() < 0.005 else THEM))
        name = rng.choice((True, None, Atom("é" * 255), Atom("nobody"), Atom("undefined")))
        if rng.random() < 0.97:
            name = Atom(rng.choice(NAMES))
        ref = rng.choice(REFS)
        watched = rng.choice((to, name))
        match rng.randrange(12):
            case 0 | 1 | 2:
                return Send(who, to), self.body(refs)
            case 3 | 4:
                return RegSend(who, name), self.body(refs)
            case 5 | 6:
                return MonitorP(who, watched, ref), None
            case 7 | 8:
                return DemonitorP(who, watched, ref), None
            case 9 | 10:
                alias = rng.choice(refs)
                tag = rng.choice((alias, ImproperList((Atom("alias"),), alias), rng.choice(refs)))
                return AliasSend(who, alias), rng.choice(((tag, rng.randrange(4096)), self.body(refs)))
            case _:
                return rng.choice(
                    (Link(who, to), UnlinkId(rng.randrange(1, 3), who, to), Exit2(who, to, Atom("x")))
                ), None

    def body(self, refs: list[Reference]) -> Any:
        rng = self.rng
        match rng.randrange(10):
            case 0:
                return SYSTEM
            case 1:
                return rng.choice(((Atom("system"), 1), (Atom("system"), 1, 2), (Atom("other_"), 1, 2)))
            case 2:
                return self.inputs.terms.term(2)
            case 3:
                return bytes(
                    rng.choice(
                        (
                            0,
                            1,
                            100,
                            100,
                            5_000,
                            25_000,
                            65_500 if rng.random() < 0.3 else 9,
                            70_000 if rng.random() < 0.2 else 5,
                        )
                    )
                )
            case 4:
                return (rng.choice(refs), rng.randrange(4096))
            case _:
                return rng.randrange(1 << 12)

    def odd(self) -> bytes:
        """A control message that none of ours writes so: names of any bytes, other tags."""
        rng = self.rng
        name = rng.choice((b"erl@\xff", b"\xc3", b"", b"true", b"nil", b"erl@h", b"py@h", b"a" * 255))

        def atom(name: bytes) -> bytes:
            return (
                rng.choice(
                    (b"w" + bytes((len(name),)), b"v\0" + bytes((len(name),)), b"s" + bytes((len(name),)))
                )
                + name
            )

        def pid() -> bytes:
            size = rng.choice(
                (bytes(12), b"\xff" * 12, bytes((0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 7)), bytes(11))
            )
            return rng.choice((b"X", b"X", b"g")) + atom(name) + size

        def reference() -> bytes:
            words = rng.choice((0, 1, 3, 5, 255))
            return b"Z" + words.to_bytes(2) + atom(name) + bytes(4) + bytes(4 * min(words, 6))

        head = rng.choice((b"h\3a\x16", b"h\4a\6", b"h\4a\x13", b"h\4a\x14", b"h\3a\x21", b"i\0\0\0\3a\x16"))
        fields = [
            rng.choice((pid, reference, lambda: atom(name)))() for _ in range(rng.choice((1, 2, 2, 3, 3)))
        ]
        return head + b"".join(fields) + rng.choice((b"", b"a\1", rng.randbytes(5)))

    def frame(self, over: str) -> list[bytes]:
        """A frame, or several with one control message."""
        rng = self.rng
        if over == "connection" and rng.random() < 0.01:
            data = b"\x83D\0" + self.odd()
            return [len(data).to_bytes(4) + data]
        control, body = self.control()
        count = rng.choice((1, 1, 1, 2, 5, 20)) if isinstance(control, (Send, RegSend)) else 1
        frames = []
        made = Channel(RECOMMENDED, 0.0)
        for _ in range(count):
            parts = (
                None
                if body is None and not isinstance(control, (Send, RegSend, AliasSend))
                else encode_parts(body)
            )
            if over == "connection":
                made.send(control, parts)
                frames.append(b"".join(made.data_to_send(1 << 40)))
            else:
                node = rng.choice((None, None, NODE, PEER)) if isinstance(control, RegSend) else None
                frames.append(b"".join(self.writer.write(control, node, parts)))
            body = rng.choice((body, rng.randrange(1 << 12)))
        return frames

    def some(self, over: str) -> bytes:
        """What is read at once, or in pieces.

        A frame that breaks a link comes alone: in Python those that were read with it are lost then.
        """
        rng = self.rng
        frames: list[bytes] = []
        if over == "hub" and rng.random() < 0.05:
            (frame, *_), begins = self.frame("hub"), b"h\2w\3nil"
            odd = rng.choice((self.inputs.damaged(frame[4:]), begins + self.odd()))
            return len(odd).to_bytes(4) + odd
        while len(frames) < rng.choice((1, 3, 10, 30)):
            frames += self.frame(over)
        del frames[A_TURN - 8 :]  # of more, others have their turn in between: it is not said where
        if over == "hub":
            return b"".join(frames)
        if rng.random() < 0.05:
            frames.insert(rng.randrange(len(frames)), b"\0\0\0\0")
        if rng.random() < 0.03:
            at = rng.randrange(len(frames))
            kept = frames[at][:4]
            frames[at] = self.inputs.damaged(frames[at])
            if rng.random() < 0.8 and len(frames[at]) > 4:  # its length is right, or as it was
                whole = (len(frames[at]) - 4).to_bytes(4) if rng.random() < 0.7 else kept
                frames[at] = whole + frames[at][4:]
        return b"".join(frames)


# --- both ----------------------------------------------------------------------------------------------


def difference(one: Any, other: Any, path: str = "") -> str:
    """Where two states are not the same."""
    if type(one) is type(other) and isinstance(one, (tuple, list)) and len(one) == len(other):
        for index, pair in enumerate(zip(one, other, strict=True)):
            if pair[0] != pair[1]:
                return difference(*pair, f"{path}[{index}]")
    if isinstance(one, list) and isinstance(other, list):
        at = next(
            (n for n, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1]),
            min(len(one), len(other)),
        )
        return f"{path}[{at}:]: {str(one[at : at + 3])[:600]} in Python, {str(other[at : at + 3])[:600]} in C"
    return f"{path}: {str(one)[:600]} in Python, {str(other)[:600]} in C"


def node(inputs: Any) -> Callable[[], tuple[int, int]]:
    """Reads of a connection and of a link, processes, transports: with methods in Python and in C."""
    rng = inputs.rng
    options = {"with_worker": rng.random() < 0.8}
    worlds = [World(in_c=in_c, options=options) for in_c in (False, True)]
    stream = Stream(inputs, worlds[0])

    def choose() -> tuple[int, Callable[[World], object]]:
        kind = rng.randrange(20)
        if kind < 9:
            over = rng.choice(("connection", "connection", "hub"))
            data = stream.some(over)
            pieces = list(inputs.pieces(data)) if rng.random() < 0.15 else [data]

            def read(world: World) -> None:
                for piece in pieces[:200]:
                    world.read(piece, world.side.connection if over == "connection" else world.hub)

            return len(data), read
        which, rest = rng.randrange(3), rng.randrange(1 << 12)
        match kind:
            case 9 | 10:
                does = rng.choice(
                    ("fail", "pause", "send", "close", "lose", "flush", "kill", "send", "pause")
                )
                if does in ("close", "lose") and rng.random() < 0.9:
                    does = ""
                return 0, lambda world: setattr(world.wires[which], "does", does)
            case 11:
                return 0, lambda world: world.wires[which].owner.resume_writing()
            case 12:
                return 0, lambda world: world.side.connection.resume_reading()
            case 13:
                body = rng.choice((rest, bytes(rng.choice((10, 3_000, 17_000, 59_990, 60_000))), object()))
                return 64, lambda world: world.log.append(
                    [way((33, THEM, REFS[0]), body) if n in (1, 4) else way(body) if n != 2 else way(encode_bare(rest))
                     for n, way in enumerate(world.ways) if n % 3 == rest % 3]
                )  # fmt: skip
            case 14:
                return 0, lambda world: world.wires[which].owner.send_frame(b"\0\0\0\1" + bytes(rest % 3))
            case 15:
                return 0, lambda world: world.wires[which].owner.send_frame(bytearray(b"\0\0\0\1x"))
            case 16:
                return 0, lambda world: world.actors[rest % ACTORS].put(rest // 8)
            case 17:
                return 0, lambda world: world.loop.create_task(
                    world.react(world.actors[rest % ACTORS], rest // 8 % 32, rest)
                )
            case 18:
                return 0, lambda world: world.actors[rest % ACTORS]._mailbox._wake()
            case _:
                return 0, lambda world: None

    def feed() -> tuple[int, int]:
        size, act = choose()
        in_a_turn = rng.random() < 0.6
        for world in worlds:
            world.log.clear()
            if in_a_turn:
                world.do(lambda world=world: act(world))  # type: ignore[misc]
            else:  # as a task does, outside a batch

                async def in_task(world: World = world) -> None:
                    act(world)

                world.do(lambda world=world, run=in_task: world.waits.append(world.loop.create_task(run())))  # type: ignore[misc]
            world.do(lambda: None)
            for task in world.waits:
                if task.done() and task.exception() is not None:
                    world.note(task.exception())
            world.waits.clear()
        plain, quick = (world.state() for world in worlds)
        assert plain == quick, difference(plain, quick)
        assert not any("SystemError" in str(each) for each in quick[-1]), quick[-1]
        if worlds[0].side.connection.closed and rng.random() < 0.3:
            raise RemoteProtocolError("the connection was closed")
        return size, 0

    def end() -> None:
        for world in worlds:
            world.end()

    feed.end = end  # type: ignore[attr-defined]
    return feed


def collected(inputs: Any) -> Callable[[], tuple[int, int]]:
    """Reads of a connection and a link in C, while the garbage collector runs at each chance, and others with it.

    They take away whatever is looked at: nothing is to be compared, it is for the sanitizers.
    """
    rng = inputs.rng
    world = World(in_c=True, options={"high_water": rng.choice((1 << 20, 1_000))})
    stream = Stream(inputs, world)
    side, runtime = world.side, world.runtime

    def meddle(phase: str, _: Any) -> None:
        if phase != "start" or rng.random() < 0.9:
            return
        process = rng.choice(world.everyone)
        match rng.randrange(12):
            case 0:
                side.named.clear()
            case 1:
                runtime._named_monitors.clear()
            case 2:
                side.worker.boundary.watchers.clear()
            case 3:
                process.signals.watchers_at.clear()
            case 4:
                process.pending.futures.clear()
                side.futures.clear()
            case 5:
                process._mailbox.fresh.clear()
            case 6 if rng.random() < 0.2:
                process.die(Atom("shot"), at_once=True)
            case 7:
                process._mailbox = type(process._mailbox)(runtime.read_message)
            case 8:
                runtime.names["a9"] = process.pid
            case 9:
                runtime.names.pop("a9", None)
            case 10:
                process.pending = type(process.pending)()
            case _:
                side.link._out.clear()
                side.link._out_size = 0

    def feed() -> tuple[int, int]:
        over = rng.choice(("connection", "hub"))
        data = stream.some(over)
        threshold = gc.get_threshold()
        world.log.clear()

        def read() -> None:
            gc.callbacks.append(meddle)
            gc.set_threshold(rng.choice((1, 2, 7)))
            try:
                world.read(data, side.connection if over == "connection" else world.hub)
            finally:
                gc.set_threshold(*threshold)
                gc.callbacks.remove(meddle)

        world.do(read)
        world.do(lambda: None)
        assert not any("SystemError" in str(each) for each in world.log), world.log
        if side.connection.closed:
            raise RemoteProtocolError("the connection was closed")
        return len(data), 0

    feed.end = world.end  # type: ignore[attr-defined]
    return feed
