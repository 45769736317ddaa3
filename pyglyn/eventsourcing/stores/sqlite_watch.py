"""Being told when somebody writes to a SQLite file: by Linux' inotify.

SQLite has no signal for commits of other OS processes. But the operating system tells who watches a file
when it is written to, and when its times are set. So

- who commits here sets the time of the file afterwards (`tell`): by then the commit can be seen;
- a commit of any other program is a write to the WAL. It is told of before it can be seen, with the disk in
  between, so readers are told a few times in the next tenth of a second, unless they are by a commit of ours.

Where there is no inotify (other systems, no descriptors left, a file of which only another machine's kernel
knows), nothing is told, and readers look by themselves. Layer: eventsourcing, stores.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import functools
import os
import struct
from collections.abc import Callable, Iterator
from typing import Any

_IN_MODIFY, _IN_ATTRIB = 0x002, 0x004
_NONBLOCK, _CLOEXEC = os.O_NONBLOCK, getattr(os, "O_CLOEXEC", 0)
_MUCH = 65_536
_EVENT = struct.Struct("=iIII")
"""``struct inotify_event`` of a watched file, which comes without a name."""

_FIRST_S, _LAST_S = 0.002, 0.05
"""When to look after a write of somebody else: after so long, then twice as long, up to the last."""


def tell(path: str) -> None:
    """Tell other OS processes that something was committed to a file."""
    with contextlib.suppress(OSError):
        os.utime(path)


class FileWatch:
    """Calls a function when a database file or its WAL was written to, while somebody waits.

    Args:
        loop: where it is called.
        path: of the database.
        changed: what is called; also for what has nothing to do with events.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, path: str, changed: Callable[[], None]) -> None:
        self._loop = loop
        self._path = path
        self._changed = changed
        self._again: asyncio.TimerHandle | None = None
        self._fd: int | None = None
        self._waiting = 0

    @contextlib.contextmanager
    def watching(self) -> Iterator[bool]:
        """Watch the files as they are now; yields whether that is possible."""
        if not self._begin():
            yield False
            return
        assert self._fd is not None
        self._waiting += 1
        if self._waiting == 1:
            self._loop.add_reader(self._fd, self._take)
        try:
            yield True
        finally:
            self._waiting -= 1
            if not self._waiting:
                self._rest()

    def _rest(self) -> None:
        if self._fd is not None:
            self._loop.remove_reader(self._fd)
        self._call_off()

    def close(self) -> None:
        """Give the descriptor back, at the end."""
        self._rest()
        self.abandon()

    def abandon(self) -> None:
        """Give it back in a child after a fork, whose loop is another one."""
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)

    def _begin(self) -> bool:
        """Watch both files; what is watched already stays so."""
        try:
            if self._fd is None:
                self._fd = _checked(_libc().inotify_init1(_NONBLOCK | _CLOEXEC))
            for path in (self._path, f"{self._path}-wal"):
                place = os.fsencode(path)
                _checked(_libc().inotify_add_watch(self._fd, place, _IN_MODIFY | _IN_ATTRIB))
        except (OSError, AttributeError):
            return False
        return True

    def _take(self) -> None:
        """Take what there is to be told."""
        masks = 0
        with contextlib.suppress(BlockingIOError):
            while self._fd is not None:
                for _, mask, _, _ in _EVENT.iter_unpack(os.read(self._fd, _MUCH)):
                    masks |= mask
        if masks & ~_IN_MODIFY:
            self._call_off()
            self._changed()
        elif self._again is None:
            self._look_soon(_FIRST_S)

    def _look_soon(self, pause_s: float) -> None:
        self._again = self._loop.call_later(pause_s, self._look, pause_s)

    def _look(self, pause_s: float) -> None:
        self._again = None
        if pause_s < _LAST_S:
            self._look_soon(pause_s * 2)
        self._changed()

    def _call_off(self) -> None:
        if self._again is not None:
            self._again.cancel()
            self._again = None


@functools.cache
def _libc() -> Any:
    """The C library; each object that stands for it is garbage of 30 others that know each other."""
    return ctypes.CDLL(None, use_errno=True)


def _checked(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), "inotify")
    return result
