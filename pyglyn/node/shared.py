"""Memory that both ends of a link have: large messages go through it, not through the socket. Layer: node.

A message of a mebibyte through a Unix socket is copied into the kernel and out of it, page by page, in ten or
more system calls of each end. Through memory that both have it is copied in once, and the other end decodes
it, or writes it to a connection, from where it is. Its frame says where, and takes the way of every frame: so
the order is the same.

What another node sends in fragments for a process of a worker is put together there at once (``reserve``).

The end that sends makes the memory when it has its first large message, and offers it; until the other end
has said that it has opened it, and wherever there is no room, the message itself is in the frame. Each
direction has its own. In front of the memory is a byte for each piece of it: who sends sets that of a
message's first piece, who receives clears it when nothing refers to the message any more, and nobody is told.
A message gets the first place that is free: few pages are used where messages are read soon.

It has no name in any file system: the other end opens the descriptor of this one, by its path in ``/proc``,
and with the last of the two it is gone. Where that cannot be (no Linux, no ``/proc``, another user), all goes
through the socket.

Source: memfd_create(2); proc(5), ``/proc/pid/fd``.
"""

from __future__ import annotations

import ctypes
import fcntl
import functools
import mmap
import os
import weakref
from collections.abc import Callable, Sequence
from typing import Any, Final

from pyglyn import forks
from pyglyn.errors import RemoteProtocolError

LEAST: Final = 24 * 1024
"""Bytes of a message from which on it is the cheaper way."""
PIECE: Final = 64 * 1024
FRONT: Final = 4096
"""Bytes in front, and so the most pieces there are."""
_FREE, _TAKEN = 0, 1


class Lender:
    """The end that sends.

    Args:
        size: bytes; 0 for none.
        offer: tells the other end about it: where it can be opened, and what it is called then.

    Attributes:
        name: what the memory is called in ``/proc``; empty while there is none.
        in_use: pieces that are reserved, or that the other end has not given back, as far as is known.
        unsaid: bytes of what was put there; for who tells the other end.
    """

    def __init__(self, size: int, offer: Callable[[str, str], None]) -> None:
        self._pieces = min(size // PIECE, FRONT)
        self._offer = offer
        self._memory: mmap.mmap | None = None
        self._fd = -1
        self._accepted = False
        self._taken = bytearray(self._pieces)
        self.name = ""
        self.in_use = self.unsaid = 0
        self._lent: dict[int, int] = {}  # first piece -> how many
        self._reserved: dict[int, tuple[int, int, weakref.ref[Any]]] = {}  # the same, by the id of the place

    def reserve(self, size: int) -> memoryview | None:
        """A place to put a message together in, for `put`; None where there is none.

        It is free again when nothing refers to it any more, unless it was sent.
        """
        found = self._find(size)
        if found is None or self._memory is None:
            return None
        first, count = found
        place = _place(count).from_buffer(self._memory, FRONT + first * PIECE)
        key, number, reserved = id(place), os.getpid(), self._reserved

        def free(_: object) -> None:
            if os.getpid() == number and reserved.pop(key, None) is not None:
                self._give_back(first, count)

        reserved[key] = first, count, weakref.ref(place, free)
        return memoryview(place).cast("B")

    def put(self, parts: Sequence[bytes | memoryview], size: int) -> int | None:
        """Send a message there; returns where it begins, None where it has to go through the socket."""
        at = self._sent_where_it_is(parts[0]) if self._reserved and len(parts) == 1 else None
        if at is not None:
            return at
        found = self._find(size)
        if found is None or self._memory is None:
            return None
        self._lend(*found)
        start = at = FRONT + found[0] * PIECE
        for part in parts:
            self._memory[at : at + len(part)] = part
            at += len(part)
        return start

    def _sent_where_it_is(self, message: bytes | memoryview) -> int | None:
        """Send what was put together in a reserved place."""
        place: Any = message.obj if type(message) is memoryview else None
        first, count, _ = self._reserved.get(id(place), (0, 0, None))
        if not count or self._memory is None:
            return None
        skip = ctypes.addressof(ctypes.c_char.from_buffer(message)) - ctypes.addressof(place)
        if skip >= PIECE:  # where it begins says which piece is the first
            return None
        del self._reserved[id(place)]
        self._lend(first, count)
        return FRONT + first * PIECE + skip

    def _find(self, size: int) -> tuple[int, int] | None:
        """A place for a message: its first piece, and how many."""
        count = -(-size // PIECE)
        if count > self._pieces // 2:  # one message must not need all of it to be free
            return None
        memory = self._memory
        if memory is None or not self._accepted:
            if memory is None:
                self._make()
            return None
        for first in [first for first in self._lent if memory[first] == _FREE]:
            self._give_back(first, self._lent.pop(first))
        first = self._taken.find(bytes(count))
        if first < 0:
            return None
        self._taken[first : first + count] = b"\1" * count
        self.in_use += count
        return first, count

    def _lend(self, first: int, count: int) -> None:
        assert self._memory is not None
        self._memory[first] = _TAKEN
        self._lent[first] = count
        self.unsaid += count * PIECE

    def _give_back(self, first: int, count: int) -> None:
        self._taken[first : first + count] = bytes(count)
        self.in_use -= count

    @property
    def is_short(self) -> bool:
        """Whether more than half of it is in use."""
        return 2 * self.in_use > self._pieces

    def answered(self, accepted: bool) -> None:
        """The other end has opened it, or cannot."""
        self._accepted = accepted
        self._close_number()
        if not accepted:
            self.close()

    def close(self) -> None:
        """Use it no more."""
        self._close_number()
        self._pieces = self.in_use = 0
        self._reserved.clear()
        self._memory = None

    def _make(self) -> None:
        self.name = f"pyglyn-{os.urandom(8).hex()}"
        size = FRONT + self._pieces * PIECE
        try:
            self._fd = forks.keep_number(os.memfd_create(self.name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING))
            os.ftruncate(self._fd, size)
            fcntl.fcntl(
                self._fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
            )
            self._memory = forks.keep_mapping(mmap.mmap(self._fd, size))
        except (OSError, AttributeError):  # no Linux
            self.close()
        else:
            self._offer(f"/proc/{os.getpid()}/fd/{self._fd}", self.name)

    def _close_number(self) -> None:
        if self._fd >= 0:
            forks.close_number(self._fd)
            self._fd = -1


class Borrower:
    """The end that receives.

    Args:
        path, name: as offered.

    Raises:
        OSError: it cannot be opened, or is something else.
    """

    def __init__(self, path: str, name: str) -> None:
        # Or else it is somebody else's, who has the same number in another container.
        if "\0" in path or os.readlink(path) != f"/memfd:{name} (deleted)":
            raise FileNotFoundError(path)
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            if not fcntl.fcntl(fd, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK:
                raise PermissionError(path)  # whoever shrinks it would end us when we look at it
            self._size = os.fstat(fd).st_size - FRONT
            if self._size <= 0:
                raise FileNotFoundError(path)
            self._memory = forks.keep_mapping(mmap.mmap(fd, FRONT + self._size))
        finally:
            os.close(fd)
        self._held = 0
        self._views: dict[int, weakref.ref[Any]] = {}

    def take(self, at: int, size: int) -> bytes | memoryview:
        """A message that begins at a byte; its place is free again when nothing refers to the view any more.

        When half of it is held by views, as by messages in mailboxes that nobody reads, further messages are
        copied: there is always room for those that are read.

        Raises:
            RemoteProtocolError: there cannot be one.
        """
        first, skip = divmod(at - FRONT, PIECE)
        if first < 0 or size <= 0 or at + size > FRONT + self._size:
            raise RemoteProtocolError("a message is said to be where there is no memory")
        count = -(-(skip + size) // PIECE)
        if 2 * (self._held + count * PIECE) > self._size:
            copied = self._memory[at : at + size]
            self._memory[first] = _FREE
            return copied
        place = _place(count).from_buffer(self._memory, at - skip)
        self._held += count * PIECE
        memory, number, views = self._memory, os.getpid(), self._views

        def free(_: object) -> None:
            if os.getpid() != number:  # the copy of a fork
                return
            views.pop(first, None)
            self._held -= count * PIECE
            memory[first] = _FREE

        views[first] = weakref.ref(place, free)
        return memoryview(place).cast("B")[skip : skip + size]


@functools.lru_cache(maxsize=FRONT)
def _place(count: int) -> Any:
    """So many pieces, as a type of ``ctypes``: such an object tells when nothing refers to it any more."""
    return ctypes.c_char * (count * PIECE)
