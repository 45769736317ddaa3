"""How OS processes end, and which exit reason that is. Layer: supervision/os.

A supervisor that ends a child itself says why in its own words: `STUCK`, `memory_limit_reason`.
"""

from __future__ import annotations

import contextlib
import os
import signal
from typing import Final

import attrs

from pyglyn.etf import Atom, Term
from pyglyn.supervision.os import kernel

STUCK: Final = Atom("stuck")
"""Its event loop did not go round for as long as its heartbeat allows."""
_NORMAL: Final = Atom("normal")
_UNKNOWN: Final = Atom("unknown")
_EXIT_STATUS: Final = Atom("exit_status")
_SIGNAL: Final = Atom("signal")
_MEMORY_LIMIT: Final = Atom("memory_limit")
_OUT_OF_MEMORY: Final = Atom("out_of_memory")


@attrs.frozen(kw_only=True)
class ExitStatus:
    """How an OS process ended.

    Attributes:
        os_pid: which one.
        code: its exit status; None when a signal ended it.
        signal: that signal; None when it ended by itself.
        out_of_memory: the kernel killed it because memory ran out, as far as can be told.
        max_resident: the most bytes it ever had in memory.
    """

    os_pid: int
    code: int | None = None
    signal: int | None = None
    out_of_memory: bool = False
    max_resident: int = 0

    def reason(self) -> Term:
        """The exit reason: ``normal``, ``{exit_status, N}``, ``{signal, N}`` or ``{signal, 9,
        out_of_memory}``.

        One whose status somebody else collected is ``{exit_status, unknown}``.
        """
        if self.signal is not None:
            if self.out_of_memory:
                return (_SIGNAL, self.signal, _OUT_OF_MEMORY)
            return (_SIGNAL, self.signal)
        if self.code == 0:
            return _NORMAL
        return (_EXIT_STATUS, _UNKNOWN if self.code is None else self.code)


def over_memory(limit: int) -> Term:
    """The reason of a child that had more than this in memory."""
    return (_MEMORY_LIMIT, limit)


def exit_status(reason: Term, *, clean: bool) -> int:
    """The exit status of an OS process that ends itself with a reason; the reverse of `ExitStatus.reason`."""
    match reason:
        case (Atom("exit_status"), int() as status):
            return status & 0xFF
        case _:
            return 0 if clean else 1


class OomKills:
    """Tells kills by the out-of-memory killer from others, as far as a counter can.

    The counter is the control group's own (``memory.events`` in cgroup v2, ``memory.oom_control`` in v1),
    else the machine's (``/proc/vmstat``). With the latter, a kill of an unrelated OS process in the same
    moment is mistaken for ours.

    Attributes:
        counter: the file that it is read from.
    """

    def __init__(self) -> None:
        self.counter, self._prefix = self._find_counter()
        self._seen = self._read()

    @staticmethod
    def _find_counter() -> tuple[str, bytes]:
        with contextlib.suppress(OSError), open("/proc/self/cgroup") as file:
            for line in file:
                number, controllers, path = line.rstrip("\n").split(":", 2)
                if number == "0":
                    events = f"/sys/fs/cgroup{path}/memory.events"
                elif "memory" in controllers.split(","):
                    events = f"/sys/fs/cgroup/memory{path}/memory.oom_control"
                else:
                    continue
                if os.path.exists(events):
                    return events, b"oom_kill "
        return "/proc/vmstat", b"oom_kill "

    def _read(self) -> int:
        with contextlib.suppress(OSError, ValueError), open(self.counter, "rb") as file:
            for line in file:
                if line.startswith(self._prefix):
                    return int(line.split()[1])
        return 0

    def claim(self) -> bool:
        """Whether there was a kill that nobody claimed; claims it."""
        now = self._read()
        if now > self._seen:
            self._seen += 1
            return True
        return False

    def forget(self) -> None:
        """Leave the kills so far unclaimed."""
        self._seen = self._read()


def exit_status_of(os_pid: int, wait_status: int, max_rss: int, oom: OomKills) -> ExitStatus:
    """How an OS process ended, from what wait4(2) says."""
    code = os.waitstatus_to_exitcode(wait_status)
    killed = code == -signal.SIGKILL
    factor = 1024 if kernel.LINUX else 1
    return ExitStatus(
        os_pid=os_pid,
        code=code if code >= 0 else None,
        signal=-code if code < 0 else None,
        out_of_memory=killed and oom.claim(),
        max_resident=max_rss * factor,
    )
