"""What is queued on a connection, and in which order it goes out. Layer: dist, pure.

Signals between two processes keep their order; nothing else has to. So a large message is cut into fragments,
its sender's later messages wait behind it, and those of other senders overtake it. Senders of large messages
take turns, fragment by fragment.

Each sender with a large message under way has a *stream*. A stream begins when everything that was ready
before it has been written, for the same sender's earlier messages may be among that.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Final

import attrs

from pyglyn.dist.control import Control, DemonitorP, GroupLeader, MonitorP, MonitorPExit, SpawnReply
from pyglyn.dist.framing import Buffer, FragmentedMessage
from pyglyn.etf import Pid

UNKNOWN: Final = object()
"""The sender of a signal that does not say who sent it: it keeps its order with those of every sender."""


def sender_of(control: Control) -> object:
    """Find which process a signal comes from."""
    match control:
        case MonitorP() | DemonitorP():
            return control.watcher
        case MonitorPExit():
            return control.watched if isinstance(control.watched, Pid) else UNKNOWN
        case SpawnReply():
            return control.result
        case GroupLeader():
            return UNKNOWN
        case _:
            return control.sender


@attrs.define(eq=False)
class _Stream:
    """The messages of one sender, in order; the first one is large."""

    sender: object
    messages: deque[bytes | FragmentedMessage | _Barrier] = attrs.Factory(deque)


@attrs.define(eq=False)
class _Barrier:
    """A message of unknown sender: it waits until every stream has come to it."""

    message: bytes
    waits_for: int


class OutgoingQueue:
    """See the module. Messages go in as packets or as fragmented messages, and come out as pieces.

    Args:
        share: how many bytes of small messages go between two fragments.

    Attributes:
        size: bytes in the queue, without the heads of fragments.
    """

    __slots__ = ("_active", "_ready", "_share", "_streams", "_whole_packets", "size")

    def __init__(self, share: int) -> None:
        self.size = 0
        self._share = share
        self._ready: deque[Buffer | _Stream] = deque()
        self._streams: dict[object, _Stream] = {}  # by sender; each has one large message or more
        self._active: deque[_Stream] = deque()  # those that have begun, in round robin order
        self._whole_packets = True

    def add(self, message: bytes, control: Control | None, sender: Pid | None) -> None:
        """Queue one packet.

        Args:
            message: the packet.
            control: the message in it; None for a tick.
            sender: who sent it, where the control message does not say so.
        """
        self.size += len(message)
        if not self._streams or control is None:
            self._ready.append(message)
            return
        key = sender or sender_of(control)
        stream = self._streams.get(key)
        if stream is not None:
            stream.messages.append(message)
        elif key is UNKNOWN:
            barrier = _Barrier(message, len(self._streams))
            for stream in self._streams.values():
                stream.messages.append(barrier)
        else:
            self._ready.append(message)

    def add_ready(self, message: bytes) -> bool:
        """Queue one packet, whoever sent it; False while one of its sender's could be under way."""
        if self._streams:
            return False
        self.size += len(message)
        self._ready.append(message)
        return True

    def add_fragmented(self, message: FragmentedMessage, control: Control, sender: Pid | None) -> None:
        """Queue a large message, to be cut when its turns come."""
        self.size += message.remaining
        key = sender or sender_of(control)
        stream = self._streams.get(key)
        if stream is None:
            stream = self._streams[key] = _Stream(key)
            self._ready.append(stream)
        stream.messages.append(message)

    def add_in_parts(self, parts: list[Buffer]) -> None:
        """Queue one large packet for a peer that takes no fragments; it is written a share at a time.

        Must not be mixed with ``add_fragmented``, whose fragments could come between.
        """
        self._whole_packets = False
        self._ready += parts
        self.size += sum(map(len, parts))

    def take(self, limit: int) -> list[Buffer]:
        """Take about ``limit`` bytes off the queue, to be written in this order.

        What is ready goes first, but after a share of it a fragment has its turn.
        """
        if self.size <= limit and not self._streams:
            pieces: list[Any] = list(self._ready)
            self._ready.clear()
            self.size = 0
            return pieces
        pieces = []
        taken = 0
        while taken < limit and (self._ready or self._active):
            taken += self._ready_turn(pieces, self._share if self._streams else limit - taken)
            if self._active:
                alone = len(self._active) == 1 and not self._ready
                taken += self._stream_turn(pieces, limit - taken if alone else 0)
        return pieces

    def clear(self) -> None:
        """Drop everything."""
        self._ready.clear()
        self._streams.clear()
        self._active.clear()
        self.size = 0

    def _ready_turn(self, pieces: list[Buffer], share: int) -> int:
        """Write what is ready, about ``share`` bytes of it; return how many bytes that was."""
        ready, taken = self._ready, 0
        while ready and taken < share:
            piece = ready.popleft()
            if isinstance(piece, _Stream):
                self._active.append(piece)
                continue
            if len(piece) > share and not self._whole_packets:
                view = memoryview(piece)
                piece = view[:share]
                ready.appendleft(view[share:])
            pieces.append(piece)
            taken += len(piece)
        self.size -= taken
        return taken

    def _stream_turn(self, pieces: list[Buffer], room: int) -> int:
        """Let the next sender of a large message write; return how many bytes it wrote.

        Args:
            room: where nobody else has anything to write, so many bytes; one fragment at least.
        """
        stream = self._active.popleft()
        message: Any = stream.messages[0]
        least = max(room, 1)
        if room > 0 and message.remaining <= room + self._share // 4:  # a small rest is not left for another write
            least = message.remaining
        self.size -= message.remaining
        written: int = message.cut(pieces, least)
        self.size += message.remaining
        if not message.remaining:
            stream.messages.popleft()
            written += self._release(stream, pieces)
        if stream.messages:
            self._active.append(stream)
        else:
            del self._streams[stream.sender]
        return written

    def _release(self, stream: _Stream, pieces: list[Buffer]) -> int:
        """Write the small messages that waited behind a large one, up to the next large one."""
        written = 0
        while stream.messages:
            message = stream.messages[0]
            if isinstance(message, FragmentedMessage):
                break
            stream.messages.popleft()
            if isinstance(message, bytes):
                pieces.append(message)
                written += len(message)
                continue
            message.waits_for -= 1
            if not message.waits_for:
                self._ready.append(message.message)
        self.size -= written
        return written
