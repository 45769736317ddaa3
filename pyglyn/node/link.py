"""The Unix socket between the hub and a worker: frames of control messages and terms. Layer: node.

A frame is ``length:32 | header | term``, integers big-endian. The header is a bare external term,
``{Node, Control}``: a control message of the distribution protocol, and the node that a name in it belongs to
(``nil`` for none); the term is its payload, passed on as it is. Behind ``{Node, Control, Start, Size}`` is
none: it is in the memory that both ends have (``shared``), from that byte on. ``{hub, Request}`` is for the
other end itself. In front of a worker's first frame is the token (``admission``): both ends belong to one
node and trust each other. A frame that does not parse closes the link.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import mmap
import os
import socket
import struct
import sys
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar, cast

import attrs

from pyglyn import etf, forks, loop_turn
from pyglyn.dist.control import CALL_SIGNALS, Control, RegSend, Send, from_term, to_term
from pyglyn.dist.flags import RECOMMENDED
from pyglyn.dist.framing import LARGE
from pyglyn.errors import PyglynError, RemoteProtocolError
from pyglyn.etf import Atom, Pid, Term
from pyglyn.etf.frames import LONGEST_HEAD
from pyglyn.net.transport import READ_SIZE
from pyglyn.node import shared
from pyglyn.node.exits import atom_of
from pyglyn.node.ways import Port, UnreadWay

if TYPE_CHECKING:
    from pyglyn.net.connection import Inlet

logger = logging.getLogger("pyglyn.node")

T = TypeVar("T")

HUB: Final = Atom("hub")
OFFER, ANSWER = Atom("shared"), Atom("shared_answer")
WANTED, READ = Atom("shared_wanted"), Atom("shared_read")
"""Private messages of the links themselves: there is memory for large messages; it is open, or cannot be.
Most of it is in use; what was sent before that was said has been read."""
MAX_FRAME: Final = 2**32 - 1
HIGH_WATER: Final = 16 * 1024 * 1024
"""Bytes waiting to be written above which a link is busy, where nothing else is said."""
_PAIR: Final = b"h\2"
"""What a tuple of two begins with."""
FROM_NOWHERE: Final = _PAIR + etf.encode_bare(None)
"""What is in front of a control message in which no name of another node is."""
_ELSEWHERE: Final = b"h\4"
"""What the header of a message begins with that is not in its frame."""
_MOST_READS = 1024
_REST_SIZE = 256 * 1024
_WRITE_SIZE: Final = 128 * 1024
"""Bytes handed to the socket at once, and of those that it has not taken: it copies them."""
_JOINED: Final = 4096
"""Pieces smaller than this are joined while they wait."""
_SOCKET_SIZE: Final = 512 * 1024
"""What is asked of the kernel as the place for bytes on their way; Linux's own is some 160 KiB of them.

A large message is then given to the socket in few turns of both event loops, and is hardly ever copied to
wait for it.
"""
_PROMPT: Final = 512 * 1024
"""Bytes of large messages of which the other end is told before the turn of this one ends."""
_A_TURN: Final = 4 << 20
"""Bytes of those after which who sends them waits for the next turn, so that others have theirs."""
_ZEROED: Final = 16 << 20
"""Bytes that are taken at once for a frame that has announced them."""
_LENGTH = struct.Struct(">I")
_MOST_KNOWN: Final = 512
_FLAGS: Final = int(RECOMMENDED)


@attrs.define
class Frame:
    """One signal on its way.

    Attributes:
        control: the control message, None for a private message.
        node: the node a name in it belongs to.
        payload: its undecoded term, or None.
        request: the private message.
    """

    control: Control | None
    node: str | None = None
    payload: bytes | memoryview | None = None
    request: Term = None


Payload: TypeAlias = "bytes | memoryview | None"
Run: TypeAlias = "tuple[tuple[Any, str | None], Payload | list[bytes]] | tuple[UnreadWay | None, Any]"
"""A control message and the node that a name in it belongs to; with its undecoded term, None if it has none,
or with those of several messages that have the same header. Or None with a private message. Or a way, with
what goes there unread."""


class FrameWriter:
    """Writes signals as frames.

    Most messages go from and to whom one before went: such a header is not encoded again.

    Args:
        lender: where large terms are put, if there is room.
    """

    def __init__(self, lender: shared.Lender | None = None) -> None:
        self.lender = lender
        self._known: dict[tuple[type, Pid | None, object, str | None], bytes] = {}

    def write(
        self, control: Control, node: str | None, parts: Sequence[bytes | memoryview] | None
    ) -> list[bytes | memoryview]:
        """Write a signal; large parts stay uncopied."""
        header = self.header(control, node)
        if not parts:
            return [_LENGTH.pack(len(header)) + header]
        size = sum(map(len, parts))
        if size >= shared.LEAST and self.lender is not None:
            start = self.lender.put(parts, size)
            if start is not None:
                place = etf.encode_bare(start) + etf.encode_bare(size)
                return [_LENGTH.pack(len(header) + len(place)) + _ELSEWHERE + header[len(_PAIR) :] + place]
        return [_LENGTH.pack(len(header) + size) + header, *parts]

    def header(self, control: Control, node: str | None) -> bytes:
        """Write a header."""
        kind = type(control)
        if (kind is not Send and kind is not RegSend) or control.token is not None:  # type: ignore[union-attr]
            return _encode_header(control, node)
        to = control.to if kind is Send else control.name  # type: ignore[union-attr]
        ends = (kind, control.sender, to, node)  # type: ignore[union-attr]
        header = self._known.get(ends)
        if header is None:
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            header = self._known[ends] = _encode_header(control, node)
        return header


def _encode_header(control: Control, node: str | None) -> bytes:
    return etf.encode_bare((_where(node), to_term(control, _FLAGS)))


def _where(node: str | None) -> Term:
    return None if node is None else atom_of(node)


def encode_request(request: Term) -> bytes:
    """Write a private message to the other end."""
    header = etf.encode_bare((HUB, request))
    return _LENGTH.pack(len(header)) + header


def _memory(size: int) -> bytearray | mmap.mmap:
    """Memory for a frame of this size; of a large one only what is written to is really taken."""
    return bytearray(size) if size <= _ZEROED else mmap.mmap(-1, size)


class FrameReader:
    """Splits a byte stream into frames.

    A header of the bytes of an earlier one is not decoded again: the control message is the same object, and
    messages with the same header that follow each other come as one thing (``receive_batch``). The body of a
    large frame is read straight into its place (``room``), where the caller can do that.
    """

    __slots__ = ("__dict__", "_rest", "body")  # C looks at these

    def __init__(self) -> None:
        self._rest = bytearray()  # of a frame that is not complete, and not known to be large
        self._wanted = 0  # how many bytes make it complete, or tell its length
        self.body: memoryview | None = None  # of the large one that is under way
        self._filled = 0
        self.known: dict[bytes, tuple[Send | RegSend, str | None]] = {}
        """What the bytes of a header stand for."""
        self.unread: dict[bytes, UnreadWay] = {}
        self.borrower: shared.Borrower | None = None
        """Where the terms are that are not in their frames."""

    @property
    def missing(self) -> int:
        """How many bytes complete the frame that is under way, or tell its length; 0 where none is."""
        if self.body is not None:
            return len(self.body) - self._filled
        return self._wanted - len(self._rest) if self._rest else 0

    def room(self) -> memoryview | None:
        """Where the rest of a large frame belongs: read into it, and say so with ``filled``."""
        return None if self.body is None else self.body[self._filled :]

    def filled(self, count: int) -> list[Run]:
        """So many bytes have been put into ``room``; returns the frame if it is complete.

        Raises:
            PyglynError: as ``receive_batch``.
        """
        body = self.body
        assert body is not None
        self._filled += count
        if self._filled < len(body):
            return []
        self.body = None
        return [self._read(body)]

    def receive_data(self, data: bytes) -> list[Frame]:
        """As `receive_batch`, with each frame by itself."""
        return frames_of(self.receive_batch(data))

    def receive_batch(self, data: bytes) -> list[Run]:
        """Take bytes as they come; returns the frames that are complete.

        Raises:
            PyglynError: something that no hub or worker sends.
        """
        frames: list[Any] = []
        at = 0
        if self.body is not None:
            at = min(len(data), len(self.body) - self._filled)
            self.body[self._filled : self._filled + at] = data[:at]
            frames += self.filled(at)
        elif self._rest:
            self._rest += data
            if len(self._rest) < self._wanted:
                return frames
            data, self._rest = bytes(self._rest), bytearray()
        end = len(data)
        while end - at >= 4:
            at = etf.cut_frames(
                data, at, LARGE, b"", self.known, frames, CALL_SIGNALS, sys.maxsize, self.unread
            )
            if end - at < 4:
                break
            size = int.from_bytes(data[at : at + 4])
            body = at + 4
            at = body + size
            if at > end:
                if size >= LARGE:
                    self.body, self._filled = memoryview(_memory(size)), end - body
                    self.body[: self._filled] = data[body:]
                    return frames
                at = body - 4
                break
            frames.append(self._read(data[body:at]))
        if at < end:
            self._rest += data[at:]
            self._wanted = 4 + int.from_bytes(data[at : at + 4]) if end - at >= 4 else 4
        return frames

    def _read(self, body: bytes | memoryview) -> Run:
        run, end = self._parse(body)
        what = run[0]
        if (
            type(what) is tuple
            and isinstance(what[0], (Send, RegSend))
            and end <= LONGEST_HEAD
            and end < len(body)
        ):
            if len(self.known) >= _MOST_KNOWN:
                self.known.clear()
            self.known[bytes(body[:end])] = what
        return run

    def _parse(self, body: bytes | memoryview) -> tuple[Run, int]:
        """Read a frame; returns also where its header ends."""
        header, end = etf.decode_bare(body)
        match header:
            case (Atom("hub"), request):
                return (None, request), end
            case (node, tuple() as control):
                payload = _payload(body, end)
            case (node, tuple() as control, int() as start, int() as size) if self.borrower is not None:
                payload = self.borrower.take(start, size)
            case _:
                raise RemoteProtocolError("not a frame of a hub or worker")
        return ((from_term(control), node.name if isinstance(node, Atom) else None), payload), end


def frames_of(runs: Sequence[Run]) -> list[Frame]:
    """Every frame by itself."""
    frames: list[Frame] = []
    for what, payload in runs:
        if type(what) is tuple:
            payloads: list[Any] = payload if type(payload) is list else [payload]
            frames += [Frame(*what, each) for each in payloads]
        else:
            frames.append(Frame(None, request=payload))  # type: ignore[arg-type]
    return frames


def _payload(body: bytes | memoryview, at: int) -> bytes | memoryview | None:
    if at >= len(body):
        return None
    return memoryview(body)[at:] if len(body) - at >= LARGE else bytes(body[at:])


def _one_by_one(control: Control, payloads: list[bytes], node: str | None) -> bool:
    return False


def _nobody(*told: object) -> None:
    """Whom a link tells anything when it has ended."""


class LinkProtocol(asyncio.BufferedProtocol):
    """One end of the link: frames in, frames out, and how much is waiting.

    Args:
        on_request: called with each private message.
        on_closed: called once, when the other end is gone.
        high_water: bytes waiting to be written above which ``busy`` is true.
        on_busy: called with True when ``busy`` begins, with False when a quarter of that is left.
        memory: bytes for large messages on their way (see ``shared``); 0 for none.
        waits: whether ``busy`` is also true while more than half of that is in use, until the other end has
            read what was sent, and until others had their turn after so much (`_A_TURN`); else what finds no
            room goes through the socket.

    Attributes:
        on_signal: called with each signal, and all calls are in order: the control message, its undecoded
            term, and the node that a name in it belongs to. Until it is set, signals close the link.
        on_messages: called with messages that have the same header, and a list of their terms; False for each
            of them to be given to ``on_signal``.
        unread: name of another node, in UTF-8 -> the way that messages to its aliases go without being read;
            those that it does not take are given to ``on_signal``.
        ways: those that an inlet at the hub's end has found, by headers and names of nodes.
    """

    # What `_hot` in C looks at has places of its own.
    __slots__ = (
        "__dict__",
        "__weakref__",
        "_buffer",
        "_flush_due",
        "_high_water",
        "_inlet",
        "_into_frame",
        "_out",
        "_out_size",
        "_reader",
        "_turn",
        "_writable",
        "busy",
        "transport",
    )
    _is_known = True
    """Whether the other end is known: what comes are frames."""

    def __init__(
        self,
        on_request: Callable[[Term], None],
        on_closed: Callable[[], None],
        *,
        high_water: int = HIGH_WATER,
        on_busy: Callable[[bool], None] = lambda busy: None,
        memory: int = 0,
        waits: bool = False,
    ) -> None:
        self.on_signal: Callable[[Control, Payload, str | None], None] = self._refuse
        self.on_messages: Callable[[Any, list[bytes], str | None], bool] = _one_by_one
        self._on_request = on_request
        self._on_closed = on_closed
        self._on_busy = on_busy
        self._high_water = high_water
        self._reader = FrameReader()
        self._writer = FrameWriter()
        self.unread = self._reader.unread
        self.ways: dict[bytes, UnreadWay] = {}
        self._buffer = memoryview(bytearray(READ_SIZE))
        self._into_frame = False
        self._out: deque[bytes | bytearray | memoryview] = deque()
        self._out_size = 0
        self._flush_due = False
        self._writable = True
        self._written: asyncio.Future[None] | None = None
        self.transport: asyncio.Transport | None = None
        self.busy = False
        self._turn = loop_turn.current()
        self._closed = False
        self._waits = waits
        self._is_short = self._rests = False
        self._prompted = 0  # bytes of large messages, since others had their turn
        self._inlet: Inlet | None = None
        self.lend(memory)

    def put_inlet(self, make: Callable[[bytes, dict[bytes, Any]], Inlet | None]) -> None:
        """Have what each read begins with taken by what this makes: see ``inlet``."""
        self._inlet = make(FROM_NOWHERE, self._reader.known)

    def lend(self, memory: int) -> None:
        """Have so many bytes for large messages on their way; before the first of them."""
        if memory:
            self._writer.lender = shared.Lender(memory, self._offer)

    def _offer(self, path: str, name: str) -> None:
        self.request((OFFER, path.encode(), name.encode()))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # by what it does: uvloop's is no subclass
        forks.keep_transport(self.transport)
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) < _SOCKET_SIZE:
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_SIZE)
        # Of no more than the lower limit is nobody told when it is written.
        self.transport.set_write_buffer_limits(high=min(_WRITE_SIZE, self._high_water // 4))

    def get_buffer(self, sizehint: int) -> memoryview:
        """Say where, and so how much, to read: a large frame has its place already."""
        room = None if self._reader.body is None else self._reader.room()
        self._into_frame = room is not None
        return self._buffer if room is None else room

    def buffer_updated(self, nbytes: int) -> None:
        """Take what was read."""
        if self._into_frame:
            self._receive(self._reader.filled, nbytes)
        elif self._is_known:
            if self._inlet is not None:
                self._receive_by_inlet(self._inlet, nbytes)
            else:
                self._receive_rest(0, nbytes)
        else:
            self.data_received(bytes(self._buffer[:nbytes]))

    def data_received(self, data: bytes) -> None:
        """Take bytes, and dispatch the frames that are complete."""
        self._receive(self._reader.receive_batch, data)

    def _receive(self, read: Callable[[T], list[Any]], data: T) -> None:
        began = self._turn.begin()
        try:
            for what, payload in read(data):
                if what is None:  # an error ends the link: the other end itself is not as it should be
                    if not self._is_of_memory(payload):
                        self._on_request(payload)
                    continue
                try:
                    if type(what) is not tuple:
                        if not what(payload):
                            self._read_unread(payload)
                        continue
                    control, node = what
                    if type(payload) is not list:
                        self.on_signal(control, payload, node)
                    elif not self.on_messages(control, payload, node):
                        for each in payload:
                            self._signal(control, each, node)
                except Exception as error:
                    self._say_not_handled(error)
        except PyglynError:
            self.close()
            raise
        finally:
            if began:
                self._turn.end()

    def _receive_by_inlet(self, inlet: Inlet, nbytes: int) -> None:
        """Complete a frame that is under way; have the inlet take what is behind it; take the rest."""
        began = self._turn.begin()
        try:
            at = 0
            while at < nbytes and (missing := self._reader.missing):
                end = min(at + missing, nbytes)
                self._receive_rest(at, end)
                at = end
            if at < nbytes:
                try:
                    at += inlet.take(self._buffer[at:] if at else self._buffer, nbytes - at, sys.maxsize)
                except Exception as error:
                    self._say_not_handled(error)
                    at += inlet.taken
            if at < nbytes:
                self._receive_rest(at, nbytes)
        finally:
            if began:
                self._turn.end()

    def _receive_rest(self, at: int, nbytes: int) -> None:
        """Take what was read from there on, which is not for the inlet."""
        self._receive(self._reader.receive_batch, bytes(self._buffer[at:nbytes]))

    def _say_not_handled(self, error: Exception) -> None:
        logger.error("what came over the link could not be handled", exc_info=error)

    def _read_unread(self, rest: bytes) -> None:
        """Read what was to be passed on unread, and take it as every signal."""
        control, end = etf.decode_bare(rest)
        self.on_signal(from_term(control), _payload(rest, end), None)

    def _signal(self, control: Control, payload: Payload, node: str | None) -> None:
        try:
            self.on_signal(control, payload, node)
        except Exception:
            logger.exception("a signal that came over the link could not be handled")

    def _refuse(self, control: Control, payload: Payload, node: str | None) -> None:
        self.close()

    def _is_of_memory(self, request: Term) -> bool:
        """Whether a private message is of the links themselves; then it is dealt with."""
        match request:
            case (what, bytes() as path, bytes() as name) if what is OFFER:
                try:
                    self._reader.borrower = shared.Borrower(path.decode(), name.decode())
                except OSError as error:
                    logger.debug("large messages go through the socket: %s", error)
                self.request((ANSWER, self._reader.borrower is not None))
            case (what, bool() as accepted) if what is ANSWER and self._writer.lender is not None:
                self._writer.lender.answered(accepted)
            case what if what is WANTED:
                self.request(READ)
            case what if what is READ:
                self._is_short = False
                self._judge()
            case _:
                return False
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        try:
            if not self._closed:
                self._read_the_rest()
        finally:
            forks.shut_down_transport(self.transport)
            self.transport = None
            self._reader.borrower = None
            if self._writer.lender is not None:
                self._writer.lender.close()
            self._is_written()
            on_closed = self._on_closed
            self._let_go()
            on_closed()

    def _let_go(self) -> None:
        """Refer to nobody any more: those whom it tells have this link, and it would be freed late."""
        self.on_signal, self.on_messages = _nobody, _one_by_one
        self._on_request, self._on_closed, self._on_busy = _nobody, _nobody, _nobody
        self._inlet = None
        self.unread.clear()
        self.ways.clear()
        self._writer.lender = None
        self._out.clear()
        self._out_size = 0

    def _read_the_rest(self) -> None:
        """Take what the other end said last: a write fails when it has ended, and closes the link."""
        assert self.transport is not None
        with contextlib.suppress(OSError, ValueError, PyglynError):
            fd = os.dup(self.transport.get_extra_info("socket").fileno())
            with socket.socket(fileno=fd) as rest:
                for _ in range(_MOST_READS):
                    data = rest.recv(_REST_SIZE, socket.MSG_DONTWAIT)
                    if not data:
                        return
                    self.data_received(data)

    def pause_writing(self) -> None:
        self._writable = False
        if not self.busy:
            self._judge()

    def resume_writing(self) -> None:
        self._writable = True
        self.flush()
        self._is_written()

    def send(self, control: Control, node: str | None, parts: Sequence[bytes | memoryview] | None) -> None:
        """Send a signal; to a link that is gone it does nothing.

        What is sent in one turn of the event loop goes out in one write: a system call costs more than
        the frames.
        """
        self._put(self._writer.write(control, node, parts))
        lender = self._writer.lender
        if lender is None or not lender.in_use:
            return
        if self._waits and lender.is_short and not self._is_short:
            self._is_short = True
            self.request(WANTED)
        if lender.unsaid >= _PROMPT:
            self._prompted += lender.unsaid
            lender.unsaid = 0
            self.flush()
            if self._waits and self._prompted >= _A_TURN and not self._rests:
                self._turn.loop.call_soon(self._go_on)
                self._rests = True
                self._judge()

    def _go_on(self) -> None:
        """Others had their turn."""
        self._prompted, self._rests = 0, False
        self._judge()

    def room_for(self, size: int) -> memoryview | None:
        """Where to put a large message together that will be sent: it is not copied then."""
        lender = self._writer.lender
        return None if lender is None else lender.reserve(size)

    def send_many(self, control: Send | RegSend, node: str | None, payloads: list[bytes]) -> None:
        """Send messages that have the same header."""
        if len(payloads[0]) >= shared.LEAST and self._writer.lender is not None:  # the others will be alike
            for payload in payloads:
                self.send(control, node, [payload])
            return
        self._put([etf.join_frames(self._writer.header(control, node), payloads)])

    def way(self, control: Send | RegSend | None, node: str | None) -> tuple[bytes, int, Port] | None:
        """What a way through this link needs (see ``ways``)."""
        longest = LARGE if self._writer.lender is None else shared.LEAST
        if control is None:
            return _PAIR + etf.encode_bare(_where(node)), longest, self
        return None if control.token is not None else (self._writer.header(control, node), longest, self)

    def send_frame(self, frame: bytes) -> bool:
        """Send a message that `etf.pack_frame` has made; False where it is for ``send``."""
        if self.transport is None or self._out_size > self._high_water:
            return False
        if not self._flush_due:
            self._turn.at_end(self.flush)
            self._flush_due = True
        self._add(frame)
        self._out_size += len(frame)
        return True

    def request(self, request: Term) -> None:
        """Send a private message."""
        self._put([encode_request(request)])

    @property
    def queued_bytes(self) -> int:
        """Bytes that are not written to the socket yet."""
        unwritten = self.transport.get_write_buffer_size() if self.transport is not None else 0
        return self._out_size + unwritten

    def _put(self, pieces: list[bytes | memoryview]) -> None:
        if self.transport is None:
            return
        if not self._flush_due:
            self._turn.at_end(self.flush)
            self._flush_due = True
        for piece in pieces:
            self._add(piece)
        self._out_size += len(pieces[0]) if len(pieces) == 1 else sum(map(len, pieces))
        if not self.busy and (self._is_short or self._out_size > self._high_water):
            self._judge()

    def _add(self, piece: bytes | memoryview) -> None:
        """Queue a piece; small ones that have to wait are joined: each would cost twice its bytes."""
        out = self._out
        if self._writable or len(piece) >= _JOINED:
            out.append(piece)
        elif out and type(out[-1]) is bytearray and len(out[-1]) < _WRITE_SIZE:
            out[-1] += piece
        else:
            out.append(bytearray(piece))

    def _judge(self) -> None:
        """Say whether it is busy, where that is not as it was."""
        least = self._high_water // 4 if self.busy else self._high_water
        if self.busy is not (self._is_short or self._rests or self.queued_bytes > least):
            self.busy = not self.busy
            self._on_busy(self.busy)

    def flush(self) -> None:
        """Write what has been sent, as far as the other end takes it; when it takes more, this goes on.

        Not by ``writelines``: in Python 3.12.0 to 3.12.8, 3.13.0, 3.13.1 it pauses nobody (CVE-2024-12254).
        """
        self._flush_due = False
        transport = self.transport
        if transport is None or transport.is_closing():
            self._out.clear()
            self._out_size = 0
            return
        out = self._out
        while out and self._writable:
            if self._out_size <= _WRITE_SIZE:  # as `_take`
                piece = out[0] if len(out) == 1 else b"".join(out)
                out.clear()
                self._out_size = 0
            else:
                piece = self._take(_WRITE_SIZE)
            transport.write(piece)
        if self.busy or out:  # what is written and not taken yet is less than makes it busy
            self._judge()

    def _take(self, limit: int) -> bytes | bytearray | memoryview:
        """Take about so many bytes off a longer queue: small pieces joined, of a large one a view."""
        out = self._out
        if len(out[0]) >= limit or len(out) == 1:
            piece = out.popleft()
            if len(piece) > limit:
                out.appendleft(memoryview(piece)[limit:])
                piece = memoryview(piece)[:limit]
        else:
            pieces, size = [out.popleft()], 0
            while out and size + len(out[0]) <= limit:
                size += len(out[0])
                pieces.append(out.popleft())
            piece = b"".join(pieces)
        self._out_size -= len(piece)
        return piece

    async def written(self) -> None:
        """Wait until all that was sent is in the kernel's hands, or the other end is gone."""
        self.flush()
        if self.transport is not None:
            self.transport.set_write_buffer_limits(high=0)
        if self.transport is not None and self.queued_bytes:
            self._written = asyncio.get_running_loop().create_future()
            await self._written

    def _is_written(self) -> None:
        if (
            self._written is not None
            and not self._written.done()
            and not (self.transport and self.queued_bytes)
        ):
            self._written.set_result(None)

    def abort(self) -> None:
        """Close at once; what waits is not written."""
        if self.transport is not None:
            self.transport.abort()

    def close(self) -> None:
        """Close after what is waiting has been written; nothing more is read."""
        self._closed = True
        if self.transport is not None:
            if self._out:
                self.transport.write(b"".join(self._out))
            self._out.clear()
            self._out_size = 0
            self.transport.close()
