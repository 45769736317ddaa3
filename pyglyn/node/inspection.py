"""What is in a node: the rows that ``pyglyn tree`` shows. Layer: node.

Rows of the hub and of its workers look alike. What only a supervisor knows about its children (restarts, OS
processes that have no pid yet) comes from the workers' and the node's ``on_info``.
"""

from __future__ import annotations

import os
import re
import time
from typing import Any, TypeAlias

from pyglyn.etf import Atom, Pid
from pyglyn.node.exits import atom_of
from pyglyn.node.hub import Hub
from pyglyn.node.process import Host, Process
from pyglyn.node.reasons import KILL, UNDEFINED
from pyglyn.node.worker_link import WorkerLink
from pyglyn.node.workers import Workers

PID, OS_PID = Atom("pid"), Atom("os_pid")
Row: TypeAlias = dict[Any, Any]
"""A map with atoms as keys."""
ANSWER_TIMEOUT_S = 1.0
"""How long a worker may take to say what is in it before it shows as ``no answer``."""
_PAGE = os.sysconf("SC_PAGE_SIZE")


def row(process: Process) -> Row:
    """One process as a map."""
    return {
        PID: process.pid,
        Atom("name"): atom_of(process.names[0]) if process.names else UNDEFINED,
        Atom("label"): process.label.encode(),
        Atom("parent"): process.parent or UNDEFINED,
        OS_PID: os.getpid(),
        Atom("status"): Atom("running"),
        Atom("message_queue_len"): process.message_queue_len,
        Atom("uptime_ms"): int((time.monotonic() - process.started_at) * 1000),
    }


def rows(runtime: Host) -> list[Row]:
    """The processes of a runtime."""
    return [row(process) for process in runtime.processes.values()]


def resident_memory(os_pid: int) -> int | Atom:
    """Bytes an OS process has in memory; ``undefined`` where that cannot be told."""
    try:
        with open(f"/proc/{os_pid}/statm", "rb") as file:
            return int(file.read().split()[1]) * _PAGE
    except (OSError, IndexError, ValueError):
        return UNDEFINED


async def tree(hub: Hub, workers: Workers) -> list[Row]:
    """Every process of the node as a map, with what their supervisors know about them.

    Children that do not run have a row too, with ``undefined`` as their pid; a worker that does not answer
    has one with status ``no_answer``.
    """
    answers: dict[int, Any] = await workers.info(ANSWER_TIMEOUT_S)
    found = rows(hub.runtime)
    told: list[Any] = [row for about in hub.on_info for row in _list(about())]
    for processes, tables in answers.values():
        found += processes
        told += [row for table in tables for row in table]
    found += [_silent(link) for link in workers.links.values() if link.serial not in answers and link.main]
    children = {row[PID]: row for row in told if row[PID] is not UNDEFINED}
    for each in found:
        each.update(children.get(each[PID], {}))
    found += [row for row in told if row[PID] is UNDEFINED]
    memory = {os_pid: resident_memory(os_pid) for row in found if isinstance(os_pid := row.get(OS_PID), int)}
    for each in found:
        each[Atom("memory")] = memory.get(each.get(OS_PID, 0), UNDEFINED)
    return found


def _list(value: Any) -> list[Any]:
    return list(value)


def _silent(link: WorkerLink) -> Row:
    return {
        PID: link.main,
        Atom("name"): UNDEFINED,
        Atom("label"): link.title.encode(),
        Atom("parent"): UNDEFINED,
        OS_PID: link.os_pid,
        Atom("status"): Atom("no_answer"),
    }


def find(hub: Hub, workers: Workers, wanted: str) -> Pid | None:
    """The process with a registered name, or with a pid as ``<id.serial>`` or ``<node.id.serial>``."""
    pid = hub.whereis(wanted)
    if pid is not None:
        return pid
    match = re.fullmatch(rf"<(?:{re.escape(hub.name)}\.)?(\d+)\.(\d+)>", wanted)
    if match is None:
        return None
    pid = Pid(hub.name, int(match[1]), int(match[2]), hub.runtime.creation)
    here = pid.serial == 0
    return pid if (pid.id in hub.runtime.processes if here else pid.serial in workers.links) else None


def kill(hub: Hub, workers: Workers, wanted: str) -> bool:
    """Kill a process, a worker's main one with its OS process; False if there is none of that name."""
    pid = find(hub, workers, wanted)
    if pid is None:
        return False
    link = workers.links.get(pid.serial)
    if link is not None and link.main == pid:
        link.kill()
    else:
        hub.system.exit(pid, KILL)
    return True
