"""Which descriptors a new OS process keeps. Layer: supervision/os."""

from __future__ import annotations

import os
import resource
import stat
from typing import Final

from pyglyn import _standard
from pyglyn.supervision.os import kernel

_MOST_DESCRIPTORS: Final = 1 << 20
"""Linux's default for fs.nr_open, the highest limit a process can have."""
_DESCRIPTORS: Final = "/proc/self/fd" if kernel.LINUX else "/dev/fd"


def close_descriptors(kept: set[int]) -> None:
    """Close all descriptors but these, and read nothing from standard input."""
    _, limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    begin = 0
    for fd in sorted(kept):
        if fd > begin:  # closerange(0, 0) would close all there are
            os.closerange(begin, fd)
        begin = fd + 1
    os.closerange(begin, limit if 0 < limit <= _MOST_DESCRIPTORS else _MOST_DESCRIPTORS)
    null = os.open(os.devnull, os.O_RDWR)
    _lead_nowhere(null)
    os.close(null)


def detach_descriptors(kept: set[int]) -> None:
    """Let go of the parent's pipes, sockets and the like, but these; read nothing from standard input.

    Their numbers lead to ``/dev/null`` from now on. They must not become free: objects that the parent left
    still know them, and would write into, or close, what has got the number since. (A log handler that writes
    to a pipe would write into a database file.) Files and terminals stay as they are.
    """
    freed = _make_room(kept)
    numbers = _open_numbers()
    null = os.open(os.devnull, os.O_RDWR)
    for fd in numbers:
        if fd not in kept and fd != null and _is_channel(fd):
            os.dup2(null, fd, inheritable=False)
    _lead_nowhere(null)
    if null != freed:
        os.close(null)


def _lead_nowhere(null: int) -> None:
    """Standard input, and of the other two what is none: somebody's socket or file that got the number."""
    for number in range(3):
        if number == 0 or not _standard.is_stream(number):
            os.dup2(null, number)


def _open_numbers() -> list[int]:
    try:
        return [int(name) for name in os.listdir(_DESCRIPTORS)]
    except OSError:  # no /proc
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        return list(range(soft if 0 < soft <= _MOST_DESCRIPTORS else _MOST_DESCRIPTORS))


def _make_room(kept: set[int]) -> int | None:
    """Close a descriptor where the parent had all it may have; returns which."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        for fd in range(soft):
            if fd not in kept and _is_channel(fd):
                os.close(fd)
                return fd
    return None


def _is_channel(fd: int) -> bool:
    """Whether a descriptor leads to somebody or something else than a file, a folder or a device."""
    try:
        mode = os.fstat(fd).st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISCHR(mode) or stat.S_ISBLK(mode))
