"""Questions about every process of the node, wherever it lives: in the hub or in a worker. Layer: node.

The hub's own processes are looked at here; those of workers are asked for over their links, all at once and
with one deadline. Nothing is kept between two questions. Of a worker that does not answer, the processes that
the hub knows by itself stand for it: its main one and those with registered names.
"""

from __future__ import annotations

import asyncio
import os
import re
from typing import Any

import attrs

from pyglyn.etf import Atom, Pid, Term
from pyglyn.node import process_info, sockets
from pyglyn.node.hub import Hub
from pyglyn.node.inspection import (
    OS_PID,
    PID,
    CpuUse,
    Row,
    cpu_use,
    own_share_of_memory,
    resident_memory,
    rows,
)
from pyglyn.node.measures import Measures, measure, now_ns
from pyglyn.node.process_info import Facts
from pyglyn.node.reasons import KILL, UNDEFINED
from pyglyn.node.worker_link import WorkerLink
from pyglyn.node.worker_questions import (
    CHILDREN,
    INFO_OF,
    INFOS,
    MEASURE,
    PIDS,
    READINESS,
    ROWS,
    SOCKETS,
    infos,
)
from pyglyn.node.workers import Workers

NO_ANSWER = Atom("no_answer")
HUB_NAME = "hub"
"""What the node's own OS process is called among its workers."""


@attrs.frozen
class Look:
    """What is seen of an OS process, or of several of one name.

    Attributes:
        measures: what it says of itself; None where it (or one of them) does not answer, or is a program.
        memory: bytes in memory.
        queued: bytes that the hub has queued for it.
        is_worker: it runs Python processes, and is not the hub.
        os_processes: how many they are.
    """

    name: str
    measures: Measures | None = attrs.field(default=None, kw_only=True)
    memory: int = attrs.field(kw_only=True)
    queued: int = attrs.field(default=0, kw_only=True)
    is_worker: bool = attrs.field(default=False, kw_only=True)
    os_processes: int = attrs.field(default=1, kw_only=True)

    def with_(self, other: Look) -> Look:
        """Both of the same name as one."""
        both = None if self.measures is None or other.measures is None else self.measures + other.measures
        return attrs.evolve(
            self,
            measures=both,
            memory=self.memory + other.memory,
            queued=self.queued + other.queued,
            os_processes=self.os_processes + other.os_processes,
        )


@attrs.frozen
class Census:
    """Looks at the processes of one node."""

    hub: Hub
    workers: Workers

    async def pids(self) -> list[Pid]:
        """Every process of the node."""
        found = [process.pid for process in self.hub.runtime.processes.values()]
        answers = await self.workers.ask(PIDS)
        for link in list(self.workers.links.values()):
            found += answers[link.serial] if link.serial in answers else self._known(link)
        return found

    async def is_alive(self, pid: Pid) -> bool:
        """Whether a pid of this node is that of a live process."""
        if self._is_of_the_hub(pid):
            return pid.id in self.hub.runtime.processes
        link = self._link(pid)
        return link is not None and await self._info(link, pid, []) is not None

    async def info(self, pid: Pid, items: list[Term]) -> list[Any] | None:
        """Pairs of ``process_info``; None if there is no such process. At most one question to one worker."""
        if self._is_of_the_hub(pid):
            process = self.hub.runtime.processes.get(pid.id)
            return None if process is None else infos([process], self.hub.on_info, items)[0][1]
        link = self._link(pid)
        return None if link is None else await self._info(link, pid, items)

    async def infos(self, items: list[Term]) -> list[tuple[Pid, list[Any]]]:
        """Pid and pairs of every process of the node. One question to each worker."""
        found = infos(list(self.hub.runtime.processes.values()), self.hub.on_info, items)
        answers = await self.workers.ask((INFOS, items))
        for link in list(self.workers.links.values()):
            if link.serial in answers:
                told = answers[link.serial]
            else:
                told = [(pid, process_info.items(self._facts(link, pid), items)) for pid in self._known(link)]
            found += [(pid, _with_os_process(link, pid, pairs)) for pid, pairs in told]
        return found

    async def sockets(self, serial: int | None = None) -> dict[int, list[Any]]:
        """The sockets of each OS process that is the hub or a worker, or of one; those that answer."""
        links = self.workers.links
        asked = [link for link in links.values() if serial in (None, link.serial)]
        found: dict[int, list[Any]] = {} if serial else {0: sockets.here()}
        return found | (await self.workers.ask(SOCKETS, asked) if asked else {})

    def _is_of_the_hub(self, pid: Pid) -> bool:
        return self.hub.runtime.is_here(pid)

    def _link(self, pid: Pid) -> WorkerLink | None:
        ours = pid.node == self.hub.name and pid.creation == self.hub.runtime.creation
        return self.workers.links.get(pid.serial) if ours else None

    async def _info(self, link: WorkerLink, pid: Pid, items: list[Term]) -> list[Any] | None:
        answers = await self.workers.ask((INFO_OF, pid, items), [link])
        if link.serial in answers:
            pairs: Any = answers[link.serial]
            if pairs is UNDEFINED:
                return None
        elif link.serial in self.workers.links and pid in self._known(link):
            pairs = process_info.items(self._facts(link, pid), items)
        else:
            return None
        return _with_os_process(link, pid, pairs)

    def _names(self, pid: Pid) -> list[str]:
        return [name for name, owner in self.hub.runtime.names.items() if owner == pid]

    def _known(self, link: WorkerLink) -> list[Pid]:
        named = [pid for pid in self.hub.runtime.names.values() if pid.serial == link.serial]
        return list(dict.fromkeys([link.main, *named] if link.main is not None else named))

    def _facts(self, link: WorkerLink, pid: Pid) -> Facts:
        """What the hub knows of a process in a worker that does not answer."""
        boundary = link.boundary
        monitors: list[Any] = [
            watched if isinstance(watched, Pid) else (watched, node or self.hub.name)
            for watcher, watched, node in boundary.monitors.values()
            if watcher == pid
        ]
        names = self._names(pid)
        asked_by_name = {Atom(name) for name in names}
        return Facts(
            names=names,
            label=link.title,
            links=[outside for inside, outside in boundary.links if inside == pid],
            monitors=monitors,
            watchers=[
                watcher
                for of_node in boundary.watchers.values()
                for watcher, asked in of_node.values()
                if asked == pid or asked in asked_by_name
            ],
            group_leader=self.hub.runtime.group_leader,
        )

    # --- the tree of processes --------------------------------------------------------------------

    async def tree(self) -> list[Row]:
        """Every process of the node as a map, with what their supervisors know about them.

        Children that do not run have a row too, with ``undefined`` as their pid; a worker that does not
        answer has one with status ``no_answer``. ``memory`` and ``cpu_us`` are those of the OS process.
        """
        answers = await self.workers.ask(ROWS)
        found = rows(self.hub.runtime)
        told = self._told([tables for _, tables in answers.values()])
        for processes, _ in answers.values():
            found += processes
        links = self.workers.links.values()
        found += [_silent(link) for link in links if link.serial not in answers and link.main]
        children = {row[PID]: row for row in told if row[PID] is not UNDEFINED}
        for each in found:
            told_of_it = children.get(each[PID], {})
            each.update({key: value for key, value in told_of_it.items() if each.get(key) is not NO_ANSWER})
        found += [row for row in told if row[PID] is UNDEFINED]
        os_pids = {os_pid for row in found if isinstance(os_pid := row.get(OS_PID), int)}
        memory = {os_pid: resident_memory(os_pid) for os_pid in os_pids}
        cpu = {os_pid: cpu_use(os_pid).own_us for os_pid in os_pids}
        for each in found:
            each[Atom("memory")] = memory.get(each.get(OS_PID, 0), UNDEFINED)
            each[Atom("cpu_us")] = cpu.get(each.get(OS_PID, 0), UNDEFINED)
        return found

    def _told(self, from_workers: list[Any]) -> list[Any]:
        """The rows that supervisors know, of the hub and of workers."""
        here = [row for about in self.hub.on_info for row in _list(about())]
        return here + [row for tables in from_workers for table in tables for row in table]

    def find(self, wanted: str) -> Pid | None:
        """The process with a registered name, or with a pid as ``<id.serial>`` or ``<node.id.serial>``."""
        pid = self.hub.whereis(wanted)
        if pid is not None:
            return pid
        match = re.fullmatch(rf"<(?:{re.escape(self.hub.name)}\.)?(\d+)\.(\d+)>", wanted)
        if match is None:
            return None
        runtime = self.hub.runtime
        pid = Pid(self.hub.name, int(match[1]), int(match[2]), runtime.creation)
        known = pid.id in runtime.processes if pid.serial == 0 else pid.serial in self.workers.links
        return pid if known else None

    def kill(self, wanted: str) -> bool:
        """Kill a process, a worker's main one with its OS process; False if there is none of that name."""
        pid = self.find(wanted)
        if pid is None:
            return False
        link = self.workers.links.get(pid.serial)
        if link is not None and link.main == pid:
            link.kill()
        else:
            self.hub.system.exit(pid, KILL)
        return True

    # --- measures ---------------------------------------------------------------------------------

    async def look(self) -> list[Look]:
        """Measure every OS process of the node; those of the same name are one."""
        asked_ns = now_ns()
        await asyncio.sleep(0)
        here = measure(self.hub.runtime, asked_ns)  # after one turn of the event loop
        answers = await self.workers.ask((MEASURE, now_ns()))
        rows = self._told([tables for _, tables in answers.values()])
        names = {row[OS_PID]: row for row in rows if isinstance(row.get(OS_PID), int)}
        looks = {HUB_NAME: Look(HUB_NAME, measures=here, memory=_memory(os.getpid()))}
        for link in self.workers.links.values():
            row = names.pop(link.os_pid, {})
            measures = Measures.from_term(answers[link.serial][0]) if link.serial in answers else None
            look = Look(
                str(row.get(Atom("id"), link.title)),
                measures=measures,
                memory=_memory(link.os_pid),
                queued=link.protocol.queued_bytes,
                is_worker=True,
            )
            looks[look.name] = look if look.name not in looks else looks[look.name].with_(look)
        for os_pid, row in names.items():  # programs, and workers that are only starting
            look = Look(str(row[Atom("id")]), memory=_memory(os_pid))
            looks[look.name] = look if look.name not in looks else looks[look.name].with_(look)
        return list(looks.values())

    # --- readiness --------------------------------------------------------------------------------

    async def readiness(self) -> dict[str, str]:
        """What has to be so before the node is ready, and why it is not; empty texts are fine ones.

        Of a worker that does not answer, nothing that is required there is so.
        """
        links = [link for link in self.workers.links.values() if link.required]
        found = {
            "not stopping": "stopping" if self.hub.stopping.is_set() else "",
            "registered": self.hub.peers.name_problem,
        }
        asked = self.workers.ask(READINESS, links, timeout_s=2 * self.hub.settings.check_timeout_s)
        here, answers = await asyncio.gather(self.hub.runtime.readiness.problems(), asked)
        found |= here
        for link in links:
            answer: dict[bytes, bytes] = answers.get(link.serial) or dict.fromkeys(
                (name.encode() for name in link.required), f"{link.title} does not answer".encode()
            )
            for what, why in answer.items():
                found[what.decode()] = found.get(what.decode()) or why.decode()
        return found

    # --- OS processes -----------------------------------------------------------------------------

    async def os_pids(self) -> set[int]:
        """The OS processes of the node but the hub: workers, and programs that supervisors run."""
        answers = await self.workers.ask(CHILDREN)
        told = self._told(list(answers.values()))
        os_pids = {row[OS_PID] for row in told if isinstance(row.get(OS_PID), int)}
        os_pids |= {link.os_pid for link in self.workers.links.values()}
        return os_pids - {os.getpid()}

    async def cpu(self) -> CpuUse:
        """What all OS processes of the node have used, with those that have ended."""
        uses = [cpu_use(os_pid) for os_pid in {os.getpid(), *await self.os_pids()}]
        return CpuUse(
            sum(use.own_us for use in uses),
            sum(use.collected_us for use in uses),
            sum(use.switches for use in uses),
        )

    async def memory(self) -> list[tuple[Atom, int]]:
        """The nine values of ``erlang:memory/0``: bytes in memory of all OS processes of the node.

        ``system`` is the hub, ``processes`` the workers and programs; what there is no counterpart of is 0.
        The kernel takes a millisecond or two for each OS process: others have their turn in between.
        """
        system = own_share_of_memory(os.getpid())
        processes = 0
        for os_pid in await self.os_pids():
            await asyncio.sleep(0)
            processes += own_share_of_memory(os_pid)
        values = {
            "total": system + processes,
            "processes": processes,
            "processes_used": processes,
            "system": system,
        }
        return [(Atom(name), values.get(name, 0)) for name in MEMORY_TYPES]


MEMORY_TYPES = (
    "total",
    "processes",
    "processes_used",
    "system",
    "atom",
    "atom_used",
    "binary",
    "code",
    "ets",
)
"""In OTP's order."""


def _with_os_process(link: WorkerLink, pid: Pid, pairs: list[Any]) -> list[Any]:
    """The pairs of the main process of a worker with what its OS process uses."""
    if pid != link.main or not any(key in process_info.OF_OS_PROCESS for key, _ in pairs):
        return list(pairs)
    memory = resident_memory(link.os_pid)
    values: dict[Any, Any] = {process_info.REDUCTIONS: cpu_use(link.os_pid).own_us}
    if isinstance(memory, int):
        values[process_info.MEMORY] = memory
    return [(key, values.get(key, value) if isinstance(key, Atom) else value) for key, value in pairs]


def _memory(os_pid: int) -> int:
    resident = resident_memory(os_pid)
    return resident if isinstance(resident, int) else 0


def _list(value: Any) -> list[Any]:
    return list(value)


def _silent(link: WorkerLink) -> Row:
    return {
        PID: link.main,
        Atom("name"): UNDEFINED,
        Atom("label"): link.title.encode(),
        Atom("parent"): UNDEFINED,
        OS_PID: link.os_pid,
        Atom("status"): NO_ANSWER,
    }
