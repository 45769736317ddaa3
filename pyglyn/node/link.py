"""The Unix socket between the hub and a worker: frames of control messages and terms. Layer: node.

A frame is ``length:32 | header | term``, integers big-endian. The header is a bare external term,
``{Node, Control}``: a control message of the distribution protocol, and the node that a name in it belongs to
(``nil`` for none); the term is its payload, passed on as it is. ``{hub, Request}`` is for the other end
itself. In front of a worker's first frame is the token (``admission``): both ends belong to one node and
trust each other. A frame that does not parse closes the link.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import struct
from collections.abc import Callable, Sequence
from typing import Final, cast

import attrs

from pyglyn import etf, forks, loop_turn
from pyglyn.dist.control import Control, Send, from_term, to_term
from pyglyn.dist.flags import RECOMMENDED
from pyglyn.dist.framing import LARGE
from pyglyn.errors import PyglynError, RemoteProtocolError
from pyglyn.etf import Atom, Pid, Term
from pyglyn.net.transport import read_in_small_pieces
from pyglyn.node.exits import atom_of

logger = logging.getLogger("pyglyn.node")

HUB: Final = Atom("hub")
MAX_FRAME: Final = 2**32 - 1
_MOST_READS = 1024
_REST_SIZE = 256 * 1024
_LENGTH = struct.Struct(">I")
_MOST_KNOWN: Final = 512
_MOST_ENDS: Final = 4


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


class FrameWriter:
    """Writes signals as frames.

    Most messages go from and to whom one before went: such a header is not encoded again.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[Pid | None, Pid, str | None], bytes] = {}

    def write(
        self, control: Control, node: str | None, parts: Sequence[bytes | memoryview] | None
    ) -> list[bytes | memoryview]:
        """Write a signal; large parts stay uncopied."""
        header = self._header(control, node)
        if not parts:
            return [_LENGTH.pack(len(header)) + header]
        size = len(header) + sum(map(len, parts))
        return [_LENGTH.pack(size) + header, *parts]

    def _header(self, control: Control, node: str | None) -> bytes:
        if type(control) is not Send or control.token is not None:
            return _encode_header(control, node)
        ends = (control.sender, control.to, node)
        header = self._known.get(ends)
        if header is None:
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            header = self._known[ends] = _encode_header(control, node)
        return header


def _encode_header(control: Control, node: str | None) -> bytes:
    where = None if node is None else atom_of(node)
    return etf.encode_bare((where, to_term(control, RECOMMENDED)))


def encode_request(request: Term) -> bytes:
    """Write a private message to the other end."""
    header = etf.encode_bare((HUB, request))
    return _LENGTH.pack(len(header)) + header


class FrameReader:
    """Splits a byte stream into frames.

    A header of the bytes of an earlier one is not decoded again: the control message is the same object.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._known: dict[bytes, tuple[Control, str | None]] = {}
        self._ends: set[int] = set()  # how long these are

    def receive_data(self, data: bytes) -> list[Frame]:
        """Take bytes as they come; returns the frames that are complete.

        Raises:
            PyglynError: something that no hub or worker sends.
        """
        buffer = self._buffer
        buffer += data
        frames: list[Frame] = []
        offset = 0
        while len(buffer) - offset >= 4:
            (size,) = _LENGTH.unpack_from(buffer, offset)
            if len(buffer) - offset - 4 < size:
                break
            frames.append(self._read(bytes(memoryview(buffer)[offset + 4 : offset + 4 + size])))
            offset += 4 + size
        if offset:
            del buffer[:offset]
        return frames

    def _read(self, body: bytes) -> Frame:
        for end in self._ends:
            known = self._known.get(body[:end])
            if known is not None:
                return Frame(known[0], known[1], _payload(body, end))
        frame, end = _parse(body)
        if type(frame.control) is Send:
            if len(self._known) >= _MOST_KNOWN or len(self._ends) >= _MOST_ENDS:
                self._known.clear()
                self._ends.clear()
            self._known[body[:end]] = (frame.control, frame.node)
            self._ends.add(end)
        return frame


def _payload(body: bytes, at: int) -> bytes | memoryview | None:
    if at >= len(body):
        return None
    return memoryview(body)[at:] if len(body) - at >= LARGE else body[at:]


def _parse(body: bytes) -> tuple[Frame, int]:
    """Read a frame; returns also where its header ends."""
    header, end = etf.decode_bare(body)
    match header:
        case (Atom("hub"), request):
            return Frame(None, request=request), end
        case (node, tuple() as control):
            name = node.name if isinstance(node, Atom) else None
            return Frame(from_term(control), name, _payload(body, end)), end
        case _:
            raise RemoteProtocolError("not a frame of a hub or worker")


class LinkProtocol(asyncio.Protocol):
    """One end of the link: frames in, frames out, and how much is waiting.

    Args:
        on_frame: called with each frame, in order.
        on_closed: called once, when the other end is gone.
        high_water: bytes waiting to be written above which ``busy`` is true.
        on_busy: called with True when ``busy`` begins, with False when a quarter of that is left.
    """

    def __init__(
        self,
        on_frame: Callable[[Frame], None],
        on_closed: Callable[[], None],
        *,
        high_water: int = 16 * 1024 * 1024,
        on_busy: Callable[[bool], None] = lambda busy: None,
    ) -> None:
        self._on_frame = on_frame
        self._on_closed = on_closed
        self._on_busy = on_busy
        self._high_water = high_water
        self._reader = FrameReader()
        self._writer = FrameWriter()
        self._out: list[bytes | memoryview] = []
        self._out_size = 0
        self.transport: asyncio.Transport | None = None
        self.busy = False
        self._turn = loop_turn.current()
        self._closed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # by what it does: uvloop's is no subclass
        forks.keep_transport(self.transport)
        self.transport.set_write_buffer_limits(high=self._high_water, low=self._high_water // 4)
        read_in_small_pieces(transport)

    def data_received(self, data: bytes) -> None:
        began = self._turn.begin()
        try:
            self._receive(data)
        finally:
            if began:
                self._turn.end()

    def _receive(self, data: bytes) -> None:
        try:
            frames = self._reader.receive_data(data)
        except PyglynError:
            self.close()
            raise
        for frame in frames:
            try:
                self._on_frame(frame)
            except Exception:
                if frame.control is None:  # the other end itself is not as it should be
                    raise
                logger.exception("a signal that came over the link could not be handled")

    def connection_lost(self, exc: Exception | None) -> None:
        try:
            if not self._closed:
                self._read_the_rest()
        finally:
            forks.shut_down_transport(self.transport)
            self.transport = None
            self._on_closed()

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
        self.busy = True
        self._on_busy(True)

    def resume_writing(self) -> None:
        self.busy = False
        self._on_busy(False)

    def send(self, control: Control, node: str | None, parts: Sequence[bytes | memoryview] | None) -> None:
        """Send a signal; to a link that is gone it does nothing.

        What is sent in one turn of the event loop goes out in one write: a system call costs more than
        the frames.
        """
        self._put(self._writer.write(control, node, parts))

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
        if not self._out:
            self._turn.at_end(self.flush)
        self._out += pieces
        self._out_size += sum(map(len, pieces))

    def flush(self) -> None:
        """Write what has been sent."""
        out, self._out, self._out_size = self._out, [], 0
        if self.transport is not None and out:
            self.transport.writelines(out)

    def abort(self) -> None:
        """Close at once; what waits is not written."""
        if self.transport is not None:
            self.transport.abort()

    def close(self) -> None:
        """Close after what is waiting has been written; nothing more is read."""
        self._closed = True
        self.flush()
        if self.transport is not None:
            self.transport.close()
