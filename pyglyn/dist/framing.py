"""Packets, distribution headers and fragments. Layer: dist, pure.

Source: erl_dist_protocol, "Protocol between Connected Nodes" and erl_ext_dist, "Distribution Header",
"Distribution Header for fragmented messages"; dist.c, external.c (OTP 25.2).

During the handshake a packet has a length of 2 bytes in front, afterwards one of 4 bytes, where a length of
0 is a tick. Headers with atom cache references are read (``headers.py``), never written.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Sequence
from typing import Any, Final, TypeAlias

import attrs

from pyglyn.errors import RemoteProtocolError
from pyglyn.etf import cut_frames
from pyglyn.etf.frames import Signals

Buffer: TypeAlias = "bytes | bytearray | memoryview"

Packet: TypeAlias = "bytes | memoryview | list[memoryview]"
"""A received packet; a list where it is large and came in several pieces."""
Run: TypeAlias = "tuple[Any, list[bytes] | bytes | None]"
"""Small packets that begin in the same known way: what that means, and the rest of each. Or one of `signals`."""

FRAGMENT_SIZE = 65_536
"""Where real nodes cut: so many bytes of control message and payload together in one packet."""

LARGE = 65_536
"""From this size on a payload is not copied if that can be avoided; below, a copy is the cheaper thing."""

LAST_LENGTH = (1 << 31) - 1
"""The longest packet that real nodes write (dist.c)."""

TICK: Final = b"\0\0\0\0"
VERSION_MAGIC = 131
PASS_THROUGH = 112
DIST_HEADER = 68
DIST_FRAG_HEADER = 69
DIST_FRAG_CONT = 70

_LENGTH = struct.Struct(">I")
_FRAGMENT = struct.Struct(">BBQQ")
FRAGMENT_HEADER_SIZE = _FRAGMENT.size
_NEXT_HEAD = struct.Struct(">IBBQQ")
_NORMAL_HEAD = struct.Struct(">I3s")
_PASS_THROUGH_HEAD = struct.Struct(">I2s")


class PacketReader:
    """Cut the stream of an established connection into packets (length:4, then so many bytes).

    What is received may be ``bytes``, or a view of a buffer that the next read goes into: nothing that is kept
    beyond a call points into it. Small packets are ``bytes`` of their own. Large ones are views of what was
    received, **for as long as that is there**; one that came in several pieces is a list of views. A tick is
    ``b""``. Of large fragments that only add to a message the assembler gets what is there, as it comes.

    Args:
        max_size: a packet longer than this is refused as soon as its length is known.
        begins: what every known packet begins with; behind that is a term, and more.
        known: what the bytes up to the end of that term mean: small packets that begin so come as runs.
        signals: what is read at once (see `etf.cut_frames`), with a run of its own for each.
        assembler: puts fragments together, if there are any.

    Attributes:
        fragments: how many went to it.
    """

    def __init__(
        self,
        max_size: int,
        begins: bytes = b"",
        known: dict[bytes, Any] | None = None,
        signals: Signals | None = None,
        assembler: Assembler | None = None,
    ) -> None:
        self._max_size = max_size
        self._least = min(LARGE, max_size + 1)
        self._begins = begins
        self._known = known if known is not None else {}
        self._signals = signals
        self._assembler = assembler
        self.fragments = 0
        self._head = b""  # the first bytes of a length
        self._begun = bytearray()  # of the packet that is not complete yet, what earlier calls brought
        self._missing = 0  # bytes of that packet that are still to come
        self._message: Assembly | None = None  # what they belong to, where it is a fragment

    @property
    def in_a_packet(self) -> bool:
        """Whether a part of a packet, or of its length, has come."""
        return bool(self._missing or self._head)

    def clear(self) -> None:
        """Drop what came of a packet that is not complete. The reader cannot be used any more."""
        self._begun = bytearray()

    def receive_into(
        self, packets: list[Packet | Run], data: bytes | memoryview, at: int = 0, most: int = sys.maxsize
    ) -> int:
        """Take what was received, up to a large packet, or before it if there are others: it may be a fragment.

        Those that it depends on have to be dealt with first.

        Args:
            packets: gets those that are complete, in order.
            data: what was received.
            at: where to begin in it.
            most: packets and runs that the list may have at the end.

        Returns:
            Where to go on in ``data``, before anything else that is received; its length where all was taken.

        Raises:
            RemoteProtocolError: a packet is longer than allowed, or a message in fragments is. Those before
                are in the list; the reader cannot be used any more.
        """
        end, own = len(data), type(data) is bytes
        if self._missing:
            at = self._continue(packets, data)
            if packets and type(packets[0]) is not bytes:
                return at
        elif self._head:
            wanted = 4 - len(self._head)
            self._head += data[:wanted]
            if len(self._head) < 4:
                return end
            head, self._head = self._head, b""
            at = self._take(packets, data, wanted, int.from_bytes(head))
        least, known, signals = self._least, self._known, self._signals
        while end - at >= 4:
            if known or signals:
                at = cut_frames(data, at, least, self._begins, known, packets, signals, most)
                if end - at < 4:
                    break
            if len(packets) >= most:
                return at
            body = at + 4
            length = int.from_bytes(data[at:body])
            stop = body + length
            if stop <= end and length < least:
                packets.append(data[body:stop] if own else bytes(data[body:stop]))
                at = stop
                continue
            if packets and length >= LARGE:
                return at  # what is before a fragment may be of the same message
            behind = self._take_fragments(data, at) if length >= LARGE else at
            if behind == at:
                return self._take(packets, data, body, length)
            at = behind
        if at < end:
            self._head = bytes(data[at:])
        return end

    def _take_fragments(self, data: bytes | memoryview, at: int) -> int:
        """Take fragments, and the part of one that is there; return where the next packet starts."""
        if self._assembler is None:
            return at
        at, count, message = self._assembler.take(data, at, self._max_size)
        self.fragments += count
        if at <= len(data):
            return at
        self._missing, self._message = at - len(data), message
        return len(data)

    def _take(self, packets: list[Packet | Run], data: bytes | memoryview, body: int, length: int) -> int:
        """Take a packet of known length whose body starts at ``body``; return where the next one starts."""
        if length > self._max_size:
            raise RemoteProtocolError(
                f"a packet of {length} bytes is announced, the limit is {self._max_size}"
            )
        stop = body + length
        if stop <= len(data):
            packets.append(bytes(data[body:stop]) if length < LARGE else memoryview(data)[body:stop])
            return stop
        self._begun = bytearray(memoryview(data)[body:])
        self._missing = stop - len(data)
        return len(data)

    def _continue(self, packets: list[Packet | Run], data: bytes | memoryview) -> int:
        """Add to the incomplete packet; return where the next one starts in ``data``."""
        if self._message is not None and self._assembler is not None:
            part = memoryview(data)[: self._missing]
            self._assembler.grow(self._message, part)
            self._missing -= len(part)
            if not self._missing:
                self._message = None
            return len(part)
        if len(data) < self._missing:
            self._begun += data
            self._missing -= len(data)
            return len(data)
        at, self._missing = self._missing, 0
        begun, self._begun = self._begun, bytearray()
        last = memoryview(data)[:at]
        if len(begun) + at < LARGE:
            begun += last
            packets.append(bytes(begun))
        else:
            packets.append([memoryview(begun), last] if begun else last)
        return at


# --- writing ---------------------------------------------------------------------------------------


def handshake_packet(body: bytes, length_size: int = 2) -> bytes:
    """Frame a handshake message: length:2, or length:4 inside TLS, and the body."""
    return len(body).to_bytes(length_size) + body


def packet_head(size: int, with_header: bool) -> bytes:
    """Write what stands before the control message of an unfragmented message.

    With a header: length:4 131 68 0 (no atoms). Without (neither FRAGMENTS nor DIST_HDR_ATOM_CACHE
    negotiated): length:4 112 131; the payload then has another 131 in front, which ``size`` counts.

    Args:
        size: bytes of control message and payload.
    """
    if with_header:
        return _NORMAL_HEAD.pack(size + 3, b"\x83D\x00")
    return _PASS_THROUGH_HEAD.pack(size + 2, b"p\x83")


class FragmentedMessage:
    """One large message on its way out, cut when its turn comes, without copying the payload.

    First fragment: 131 69 sequence:8 count:8 0 control part. Next ones: 131 70 sequence:8 number:8 part,
    the number counting down to 1. The control message is in the first one entirely.

    Args:
        control: the encoded control message.
        payload: parts of the encoded payload, which must not change before all is written.
        sequence: tells the fragments of this message from others' (unique per connection).
        size: bytes of control message and payload per fragment.
    """

    def __init__(self, control: bytes, payload: Sequence[Buffer], sequence: int, size: int) -> None:
        self._control = control
        self._parts = [memoryview(part).cast("B") for part in payload if len(part)]
        self._part = 0  # the part the next fragment starts in
        self._at = 0  # and where in it
        self._sequence = sequence
        self._size = size
        total = sum(map(len, self._parts))
        self._room = max(0, size - len(control))
        self._number = 1 + max(0, -(-(total - self._room) // size))
        self.remaining = len(control) + total

    def cut(self, pieces: list[Buffer], least: int = 1) -> int:
        """Cut packets of so many bytes together, or all that is left: of each a head, then views of the payload.

        Empty ``remaining`` ends it.

        Args:
            pieces: gets them.

        Returns:
            How many bytes that were, heads included.
        """
        size, sequence, pack = self._size, self._sequence, _NEXT_HEAD.pack
        number, begun, before = self._number, len(pieces), self.remaining
        if self._control:
            pieces += self._first_fragment()
            number -= 1
            least -= before - self.remaining
        while number and least > 0:
            part, at = self._parts[self._part], self._at
            stop = at + size
            if stop < len(part):  # nearly all are: in one piece, and not the end of it
                pieces.append(pack(FRAGMENT_HEADER_SIZE + size, VERSION_MAGIC, DIST_FRAG_CONT, sequence, number))
                pieces.append(part[at:stop])
                self._at, taken = stop, size
            else:
                views, taken = self._cut(size)
                pieces.append(pack(FRAGMENT_HEADER_SIZE + taken, VERSION_MAGIC, DIST_FRAG_CONT, sequence, number))
                pieces += views
            number -= 1
            self.remaining -= taken
            least -= taken
        self._number = number
        return sum(map(len, pieces[begun:]))

    def _first_fragment(self) -> list[Buffer]:
        views, taken = self._cut(self._room)
        length = FRAGMENT_HEADER_SIZE + 1 + len(self._control) + taken
        head = _NEXT_HEAD.pack(length, VERSION_MAGIC, DIST_FRAG_HEADER, self._sequence, self._number)
        self.remaining -= len(self._control) + taken
        control, self._control = self._control, b""
        return [b"".join((head, b"\0", control)), *views]

    def _cut(self, size: int) -> tuple[list[memoryview], int]:
        """Take up to ``size`` bytes of the payload."""
        views: list[memoryview] = []
        taken = 0
        while taken < size and self._part < len(self._parts):
            part = self._parts[self._part]
            view = part[self._at : self._at + size - taken]
            views.append(view)
            taken += len(view)
            self._at += len(view)
            if self._at == len(part):
                self._part, self._at = self._part + 1, 0
        return views, taken


# --- reassembling ----------------------------------------------------------------------------------


@attrs.define
class Assembly:
    """A fragmented message whose fragments have not all come.

    Attributes:
        first: whatever the reader of the first fragment wants to find again at the end.
        remaining: fragments still to come.
        room: where to put them, as long as they fit in.
        size: how many bytes have come so far.
        grown: they, where they have no room.
    """

    first: object
    remaining: int
    room: memoryview | None = None
    size: int = 0
    grown: bytearray = attrs.Factory(bytearray)

    @property
    def content(self) -> memoryview:
        """What has come so far, joined: it is copied out of what was received, once."""
        return memoryview(self.grown) if self.room is None else self.room[: self.size]


class Assembler:
    """Put fragmented messages together; several may be under way, told apart by their sequence.

    Args:
        max_messages: how many at once.
        max_message_size: payload bytes of one.
        max_total_size: bytes held for all that are incomplete.
    """

    def __init__(self, max_messages: int, max_message_size: int, max_total_size: int) -> None:
        self._max_messages = max_messages
        self._max_message_size = max_message_size
        self._max_total_size = max_total_size
        self._assemblies: dict[int, Assembly] = {}
        self._total = 0

    def start(
        self,
        sequence: int,
        count: int,
        first: object,
        parts: Sequence[Buffer],
        room: memoryview | None = None,
    ) -> None:
        """Take the first of ``count`` (at least 2) fragments.

        Args:
            room: where to put them together, if it is known; they may be more.

        Raises:
            RemoteProtocolError: the sequence is under way already, or a limit is reached.
        """
        if sequence in self._assemblies:
            raise RemoteProtocolError("a fragmented message starts again before it is complete")
        if len(self._assemblies) >= self._max_messages:
            raise RemoteProtocolError(f"more than {self._max_messages} fragmented messages at once")
        assembly = self._assemblies[sequence] = Assembly(first, count - 1, room)
        for part in parts:
            self.grow(assembly, part)

    def proceed(self, sequence: int, number: int, parts: Sequence[Buffer]) -> Assembly | None:
        """Take a further fragment; return the assembly when this was the last.

        Raises:
            RemoteProtocolError: no such message, not the fragment that is next, or a limit is reached.
        """
        assembly = self._assemblies.get(sequence)
        if assembly is None:
            raise RemoteProtocolError("a fragment of a message that has not started")
        if number != assembly.remaining:
            raise RemoteProtocolError(f"expected fragment {assembly.remaining}, got {number}")
        for part in parts:
            self.grow(assembly, part)
        assembly.remaining -= 1
        if assembly.remaining:
            return None
        del self._assemblies[sequence]
        self._total -= assembly.size
        return assembly

    def take(
        self, data: bytes | memoryview, at: int, longest: int
    ) -> tuple[int, int, Assembly | None]:
        """Take large fragments out of a stream, where each is what is next of its message, but not the last.

        Args:
            data: has them from ``at`` on, with their lengths in front; of the last one maybe only a part.
            at: where that is.
            longest: bytes that a packet may have.

        Returns:
            Where the next packet begins, behind ``data`` if the last fragment is not there entirely; how many
            there were; the message of the last one, which is to ``grow`` by the rest of it.

        Raises:
            RemoteProtocolError: a limit is reached.
        """
        view, last, count, message = memoryview(data), len(data) - _NEXT_HEAD.size, 0, None
        while at <= last:
            length, magic, kind, sequence, number = _NEXT_HEAD.unpack_from(data, at)
            if magic != VERSION_MAGIC or kind != DIST_FRAG_CONT or not LARGE <= length <= longest:
                break
            assembly = self._assemblies.get(sequence)
            if assembly is None or number != assembly.remaining or number == 1:
                break
            body, at = at + _NEXT_HEAD.size, at + _LENGTH.size + length
            self.grow(assembly, view[body:at])
            assembly.remaining -= 1
            count, message = count + 1, assembly
        return at, count, message

    def clear(self) -> None:
        """Drop what is incomplete."""
        self._assemblies.clear()
        self._total = 0

    def grow(self, assembly: Assembly, part: Buffer) -> None:
        """Add to a message that is under way.

        Raises:
            RemoteProtocolError: a limit is reached.
        """
        more = len(part)
        begin, end = assembly.size, assembly.size + more
        self._total += more
        if end > self._max_message_size:
            raise RemoteProtocolError(f"a fragmented message exceeds {self._max_message_size} bytes")
        if self._total > self._max_total_size:
            raise RemoteProtocolError(
                f"incomplete fragmented messages exceed {self._max_total_size} bytes together"
            )
        assembly.size = end
        room = assembly.room
        if room is not None and end <= len(room):
            room[begin:end] = part
            return
        if room is not None:
            assembly.grown += room[:begin]
            assembly.room = None
        assembly.grown += part


def parse_fragment_head(head: bytes) -> tuple[int, int]:
    """Read sequence and number of a fragment from its first 18 bytes.

    Raises:
        RemoteProtocolError: fewer bytes, or a number of 0.
    """
    if len(head) < _FRAGMENT.size:
        raise RemoteProtocolError(f"a fragment of {len(head)} bytes, its head alone has {_FRAGMENT.size}")
    _, _, sequence, number = _FRAGMENT.unpack_from(head)
    if not number:
        raise RemoteProtocolError("a fragment with number 0")
    return sequence, number
