"""The OS process a supervisor lives in: where those of its children are made. Layer: supervision."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Protocol

import attrs

from pyglyn.errors import ForkUnsafe
from pyglyn.etf import Pid, Term
from pyglyn.node.inspection import Row
from pyglyn.node.worker import HubAddress
from pyglyn.supervision.boot import ChildBoot
from pyglyn.supervision.exported import EXPORTED, ExportedChildren
from pyglyn.supervision.os.child import ChildSide, Main
from pyglyn.supervision.os.process import OsProcess
from pyglyn.supervision.os.processes import OsProcesses
from pyglyn.supervision.words import StartMethod

logger = logging.getLogger("pyglyn.supervision")


class RunningSupervisor(Protocol):
    """What a `Place` knows of the supervisors that live there."""

    def children(self) -> list[Row]:
        """A row for each child."""
        ...

    def abandon(self) -> None:
        """Leave none of its OS processes."""
        ...


@attrs.frozen
class Place:
    """The OS process a supervisor lives in.

    Attributes:
        os_processes: what makes OS processes below this one.
        address: of the hub, for them.
        report_exit: tells the hub how one ended; resolved when everyone has been told.
        run_child: what runs in the OS process of a child.
        default_method: how OS processes are made where nothing else is said.
        exported: what Erlang may have started here.
        supervisors: those that live here, by the pid of each.
    """

    os_processes: OsProcesses
    address: HubAddress
    report_exit: Callable[[int, Term], asyncio.Future[Any]]
    run_child: Callable[[ChildBoot, ChildSide], int]
    default_method: StartMethod | None = None
    exported: ExportedChildren = EXPORTED
    supervisors: dict[Pid, RunningSupervisor] = attrs.field(factory=dict)

    def rows(self) -> list[Row]:
        """What the supervisors here know about their children, for `pyglyn.node.inspection`."""
        return [row for supervisor in list(self.supervisors.values()) for row in supervisor.children()]

    def abandon(self, pid: Pid) -> None:
        """Leave nothing of a supervisor whose process has ended."""
        supervisor = self.supervisors.pop(pid, None)
        if supervisor is not None:
            supervisor.abandon()

    def start(self, main: Main, *, title: str, fds: dict[str, int], method: StartMethod | None) -> OsProcess:
        """Make an OS process; where nothing is said about how, by fork if that is safe, else by spawn.

        Raises:
            ForkUnsafe, OSError: as for `OsProcesses.start`.
            Exception: the child cannot be pickled for a fresh interpreter.
        """
        wanted = method or self.default_method
        try:
            return self.os_processes.start(main, title=title, fds=fds, method=wanted or StartMethod.FORK)
        except ForkUnsafe:
            if wanted is not None:
                raise
            logger.debug("%s: this OS process has threads, so the child is spawned", title)
            return self.os_processes.start(main, title=title, fds=fds, method=StartMethod.SPAWN)
