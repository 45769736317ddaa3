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
import os
import socket
import struct
from collections.abc import Callable, Sequence
from typing import Final, cast

import attrs

from pyglyn import etf, forks, loop_turn
from pyglyn.dist.control import Control, from_term, to_term
from pyglyn.dist.flags import RECOMMENDED
from pyglyn.errors import PyglynError, RemoteProtocolError
from pyglyn.etf import Atom, Term
from pyglyn.net.transport import read_in_small_pieces
from pyglyn.node.exits import atom_of

HUB: Final = Atom("hub")
MAX_FRAME: Final = 2**32 - 1
_MOST_READS = 1024
_REST_SIZE = 256 * 1024
_LENGTH = struct.Struct(">I")


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
    payload: memoryview | None = None
    request: Term = None


def encode_frame(
    control: Control, node: str | None, parts: Sequence[bytes | memoryview] | None
) -> list[bytes | memoryview]:
    """Write a signal; large parts stay uncopied."""
    where = None if node is None else atom_of(node)
    header = etf.encode_bare((where, to_term(control, RECOMMENDED)))
    payload = parts or ()
    size = len(header) + sum(len(part) for part in payload)
    return [_LENGTH.pack(size) + header, *payload]


def encode_request(request: Term) -> bytes:
    """Write a private message to the other end."""
    header = etf.encode_bare((HUB, request))
    return _LENGTH.pack(len(header)) + header


class FrameReader:
    """Splits a byte stream into frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()

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
            frames.append(_parse(bytes(memoryview(buffer)[offset + 4 : offset + 4 + size])))
            offset += 4 + size
        if offset:
            del buffer[:offset]
        return frames


def _parse(body: bytes) -> Frame:
    header, end = etf.decode_bare(body)
    match header:
        case (Atom("hub"), request):
            return Frame(None, request=request)
        case (node, tuple() as control):
            name = node.name if isinstance(node, Atom) else None
            payload = memoryview(body)[end:] if end < len(body) else None
            return Frame(from_term(control), name, payload)
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
            self._on_frame(frame)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._closed:
            self._read_the_rest()
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
        self._put(encode_frame(control, node, parts))

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
