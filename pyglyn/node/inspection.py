"""What is in an OS process of a node: its rows of what ``pyglyn tree`` shows. Layer: node.

Rows of the hub and of its workers look alike. What only a supervisor knows about its children (restarts, OS
processes that have no pid yet) comes from the workers' and the node's ``on_info``.
"""

from __future__ import annotations

import os
import time
from typing import Any, TypeAlias

import attrs

from pyglyn.etf import Atom
from pyglyn.node import frames
from pyglyn.node.exits import atom_of
from pyglyn.node.process import Host, Process
from pyglyn.node.reasons import UNDEFINED

PID, OS_PID = Atom("pid"), Atom("os_pid")
Row: TypeAlias = dict[Any, Any]
"""A map with atoms as keys."""
_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICK_US = 1_000_000 // os.sysconf("SC_CLK_TCK")


def row(process: Process) -> Row:
    """One process as a map."""
    return {
        PID: process.pid,
        Atom("name"): UNDEFINED if process.name is None else atom_of(process.name),
        Atom("label"): process.label.encode(),
        Atom("parent"): process.parent or UNDEFINED,
        OS_PID: os.getpid(),
        Atom("status"): Atom("running"),
        Atom("message_queue_len"): process.message_queue_len,
        Atom("current_function"): frames.name(frames.of_task(process.task)).encode(),
        Atom("uptime_ms"): int((time.monotonic() - process.started_at) * 1000),
    }


def rows(runtime: Host) -> list[Row]:
    """The processes of a runtime."""
    return [row(process) for process in runtime.processes.values()]


def owners(found: list[Row]) -> dict[int, Any]:
    """By OS process, the pid that it is there for: the child of a supervisor, in the hub the system process.

    The others of it are beside that one. Memory and CPU time are told of each, and are the OS process's.
    """
    by_pid = {row[PID]: row for row in found}
    chosen: dict[int, Row] = {}
    for each in found:
        os_pid = each.get(OS_PID)
        parent = by_pid.get(each.get(Atom("parent")), {})
        if isinstance(os_pid, int) and os_pid != parent.get(OS_PID) and each[PID] is not UNDEFINED:
            known = chosen.get(os_pid)
            if known is None or _claim(each) > _claim(known):
                chosen[os_pid] = each
    return {os_pid: each[PID] for os_pid, each in chosen.items()}


def _claim(of: Row) -> tuple[bool, bool]:
    return Atom("restarts") in of, of.get(Atom("label")) == b"system"


def resident_memory(os_pid: int) -> int | Atom:
    """Bytes an OS process has in memory; ``undefined`` where that cannot be told."""
    try:
        with open(f"/proc/{os_pid}/statm", "rb") as file:
            return int(file.read().split()[1]) * _PAGE
    except (OSError, IndexError, ValueError):
        return UNDEFINED


@attrs.frozen
class CpuUse:
    """What an OS process has used so far; of one that cannot be looked at, nothing.

    Attributes:
        own_us: CPU time in microseconds.
        collected_us: that of the children it had which have ended.
        switches: how often it was switched to.
    """

    own_us: int = 0
    collected_us: int = 0
    switches: int = 0


def cpu_use(os_pid: int) -> CpuUse:
    """The CPU time of an OS process; source: proc(5), ``/proc/pid/stat`` and ``status``."""
    try:
        with open(f"/proc/{os_pid}/stat", "rb") as file:
            user, system, child_user, child_system = map(int, file.read().rpartition(b")")[2].split()[11:15])
        with open(f"/proc/{os_pid}/status", "rb") as file:
            switches = sum(int(line.split()[1]) for line in file if b"ctxt_switches" in line)
    except (OSError, IndexError, ValueError):
        return CpuUse()
    return CpuUse((user + system) * _TICK_US, (child_user + child_system) * _TICK_US, switches)


def own_share_of_memory(os_pid: int) -> int:
    """Bytes of an OS process in memory, shared pages divided among those that share them.

    Where that cannot be told, shared pages count in full; 0 if nothing can be told.
    """
    try:
        with open(f"/proc/{os_pid}/smaps_rollup", "rb") as file:
            for line in file:
                if line.startswith(b"Pss:"):
                    return int(line.split()[1]) * 1024
    except (OSError, IndexError, ValueError):
        pass
    resident = resident_memory(os_pid)
    return resident if isinstance(resident, int) else 0
