"""What the kernel knows and does about OS processes: who is whose child, memory, parent death.

Layer: supervision/os.

Linux has all of it. Elsewhere (macOS) what is missing does nothing, and readings are None: no OS process
learns by signal that its parent died, orphans are not adopted, and memory is not read.

Source: proc(5), prctl(2), PR_SET_PDEATHSIG(2const), PR_SET_CHILD_SUBREAPER(2const), cgroups(7).
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import mmap
import os
import signal
import sys
from collections.abc import Callable
from typing import Final

import attrs
from setproctitle import setproctitle

LINUX: Final = sys.platform == "linux"
PAGE: Final = os.sysconf("SC_PAGE_SIZE")

PARENT_DIED: Final = signal.SIGRTMIN + 7 if LINUX else signal.SIGUSR2
"""What an OS process that has children of its own gets when its parent dies; others are killed at once."""

_PR_SET_PDEATHSIG = 1
_PR_GET_PDEATHSIG = 2
_PR_SET_NAME = 15
_PR_SET_CHILD_SUBREAPER = 36


@functools.cache
def _libc_prctl() -> Callable[..., int] | None:
    return ctypes.CDLL(None, use_errno=True).prctl if LINUX else None


def _prctl(option: int, argument: object) -> None:
    prctl = _libc_prctl()
    if prctl is not None and prctl(option, argument, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl({option}): {os.strerror(number)}")


def set_parent_death_signal(number: int) -> None:
    """Ask for a signal when the thread that made this OS process ends; 0 for none. It survives ``exec``."""
    _prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(number))


def parent_death_signal() -> int:
    """The signal asked for, 0 for none."""
    value = ctypes.c_int(0)
    _prctl(_PR_GET_PDEATHSIG, ctypes.byref(value))
    return value.value


def set_subreaper(on: bool) -> None:
    """Be the new parent of every descendant whose own parent dies, or no longer.

    It survives ``exec``, not ``fork``.
    """
    _prctl(_PR_SET_CHILD_SUBREAPER, ctypes.c_ulong(on))


def set_title(title: str) -> None:
    """Set what ``ps`` shows, and of it the first 15 bytes as the name that ``top`` shows."""
    setproctitle(title)
    with contextlib.suppress(OSError):
        _prctl(_PR_SET_NAME, ctypes.create_string_buffer(title.encode()[:15]))


# --- who is there --------------------------------------------------------------------------------------


@attrs.frozen
class OsStat:
    """A line of ``/proc/<os_pid>/stat``.

    Attributes:
        name: the program's short name.
        state: ``R``, ``S``, …; ``Z`` for one that ended and is not collected yet.
        parent, group, session: OS process ids.
    """

    name: str
    state: str
    parent: int
    group: int
    session: int


def has_proc() -> bool:
    """Whether what can be known of OS processes here is to be had: False only on Linux without ``/proc``."""
    return not LINUX or os.path.exists("/proc/self/stat")


def os_stat(os_pid: int) -> OsStat | None:
    """Look at an OS process; None when there is none."""
    try:
        with open(f"/proc/{os_pid}/stat", "rb") as file:
            text = file.read().decode(errors="replace")
    except OSError:
        return None
    head, _, tail = text.rpartition(")")
    state, parent, group, session = tail.split()[:4]
    return OsStat(head.partition("(")[2], state, int(parent), int(group), int(session))


def os_children() -> list[int]:
    """The OS processes whose parent is this one, the ended ones included; empty where that cannot be told."""
    try:
        found: list[int] = []
        for thread in os.listdir("/proc/self/task"):
            with open(f"/proc/self/task/{thread}/children", "rb") as file:
                found += map(int, file.read().split())
        return found
    except FileNotFoundError:
        return _os_children_by_scan()
    except OSError:
        return []


def _os_children_by_scan() -> list[int]:
    """The same for kernels without CONFIG_PROC_CHILDREN."""
    if not LINUX:
        return []
    own = os.getpid()
    try:
        numbers = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        return []
    return [number for number in numbers if (stat := os_stat(number)) is not None and stat.parent == own]


def environment_of(os_pid: int) -> dict[str, str]:
    """The environment an OS process was started with; empty when that cannot be told.

    After a fork without ``exec`` it is still that of the program the ancestor was started as.
    """
    try:
        with open(f"/proc/{os_pid}/environ", "rb") as file:
            entries = file.read().decode(errors="replace").split("\0")
    except OSError:
        return {}
    return {name: value for name, equals, value in (entry.partition("=") for entry in entries) if equals}


def is_resource_tracker(os_pid: int) -> bool:
    """Whether an OS process is the one `multiprocessing` starts to clean up after another."""
    try:
        with open(f"/proc/{os_pid}/cmdline", "rb") as file:
            return b"multiprocessing.resource_tracker" in file.read(4096)
    except OSError:
        return False


_MARK = "pyglyn-mark-"
_mark_address: int | None = None


@functools.cache
def _mapping() -> ctypes.CDLL:
    """What maps pages; a fork has it from who forked it, and so in memory that they share."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    return libc


def mark(text: str) -> None:
    """Mark this OS process so that forks of it can be recognised, as `mark_of` does; undoes an earlier mark.

    The mark is the name of a page of memory, which a fork inherits and ``exec`` drops.
    """
    global _mark_address
    if not LINUX:
        return
    libc = _mapping()
    if _mark_address is not None:
        libc.munmap(_mark_address, PAGE)
        _mark_address = None
    file = os.memfd_create(_MARK + text)
    try:
        address = libc.mmap(None, PAGE, mmap.PROT_READ, mmap.MAP_PRIVATE, file, 0)
    finally:
        os.close(file)
    if address != ctypes.c_void_p(-1).value:
        _mark_address = address


def mark_of(os_pid: int) -> str | None:
    """The mark of the OS process that this one is, or is a fork of; None for none."""
    try:
        with open(f"/proc/{os_pid}/maps", errors="replace") as file:
            for line in file:
                if _MARK in line:
                    return line.partition(_MARK)[2].split()[0]
    except OSError:
        pass
    return None


def thread_count() -> int:
    """How many threads this OS process has, those of C libraries included where that can be told."""
    try:
        return len(os.listdir("/proc/self/task"))
    except OSError:
        import threading

        return threading.active_count()


# --- memory --------------------------------------------------------------------------------------------


def resident_memory(os_pid: int) -> int | None:
    """Bytes of an OS process in memory, shared ones included; None when it is gone or cannot be read."""
    try:
        with open(f"/proc/{os_pid}/statm", "rb") as file:
            return int(file.read().split()[1]) * PAGE
    except (OSError, IndexError, ValueError):
        return None


def own_memory(os_pid: int) -> int | None:
    """Bytes of an OS process in memory that no other has, so without what it still shares with who forked it.

    Slower to read than `resident_memory`, the more so the more it has; never more than that.
    """
    own = None
    try:
        with open(f"/proc/{os_pid}/smaps_rollup", "rb") as file:
            for line in file:
                if line.startswith(b"Private_"):
                    own = (own or 0) + int(line.split()[1]) * 1024
    except (OSError, IndexError, ValueError):
        pass
    return own
