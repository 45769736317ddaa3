"""One start of one child as its supervisor sees it, and where its OS process is made. Layer: supervision."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Final

import attrs

from pyglyn.etf import Pid, Reference, Term
from pyglyn.patience import Patience
from pyglyn.supervision.effects import Child
from pyglyn.supervision.os.deaths import ExitStatus
from pyglyn.supervision.os.process import OsProcess
from pyglyn.supervision.spec import ChildSpec, Start

MEMORY_CHECK_S: Final = 0.1
"""How often the memory of children with a limit is looked at; the kernel has no signal for it."""
LINGER_S: Final = 3.0
"""How long an OS process may take to end once its main process has ended, before it is killed."""
REASON_CHARACTERS: Final = 400

logger = logging.getLogger("pyglyn.supervision")


@attrs.define(eq=False)
class Running:
    """A start of a child, from the attempt to the end.

    Attributes:
        child: what the policy knows about it.
        spec: its specification, with what an exported one adds.
        start: what runs.
        ref: names this start in messages.
        pid: once it is known.
        os_process: its OS process, if it has one.
        is_program: it is an external program, and ``pid`` stands for it in the supervisor's runtime.
        started: it is ready.
        ignored: it chose not to run.
        stopped: its supervisor has told it to stop.
        reason: the exit reason its link gave.
        override: the reason that counts instead, when the supervisor killed it.
        os_ended: its OS process is collected and the hub has told everyone.
    """

    child: Child
    spec: ChildSpec
    start: Start
    ref: Reference
    pid: Pid | None = None
    os_process: OsProcess | None = None
    is_program: bool = False
    started: bool = False
    ignored: bool = False
    stopped: bool = False
    reason: Term = None
    has_reason: bool = False
    override: Term = None
    os_ended: bool = False
    task: asyncio.Task[None] | None = None
    closers: list[Callable[[], None]] = attrs.field(factory=list)

    @property
    def is_gone(self) -> bool:
        """Nothing of it is left."""
        if self.os_process is None:
            return self.has_reason and self.task is None
        return self.os_ended and (self.has_reason or not self.is_program)

    @property
    def final_reason(self) -> Term:
        """Why it ended."""
        if self.override is not None:
            return self.override
        if self.has_reason or self.os_process is None or self.os_process.status is None:
            return self.reason
        return self.os_process.status.reason()

    def kill(self, reason: Term) -> None:
        """Kill its OS process; ``reason`` is what everyone is told."""
        if self.override is None and self.os_process is not None and self.os_process.status is None:
            self.override = reason
            self.os_process.kill()

    def later(self, seconds: float, action: Callable[[], None]) -> None:
        """Do something in a while, unless it is gone by then."""
        self._later(asyncio.get_running_loop().call_later, seconds, action)

    def allow(self, seconds: float, action: Callable[[], None]) -> None:
        """Do something when the child has had so much time, unless it is gone by then."""
        self._later(Patience, seconds, action)

    def _later(self, timer: Callable[..., Any], seconds: float, action: Callable[[], None]) -> None:
        def act() -> None:
            self.closers.remove(cancel.pop())  # what it cancels refers to this function
            action()

        cancel: list[Callable[[], None]] = [timer(seconds, act).cancel]
        self.closers += cancel

    def close(self) -> None:
        """Stop all timers and readers."""
        closers, self.closers = self.closers, []
        for close in closers:
            close()


# --- events in the mailbox of a supervisor, from callbacks of its own OS process ------------------------


@attrs.frozen
class OsEnded:
    """The OS process of a child is collected."""

    running: Running
    status: ExitStatus


@attrs.frozen
class AllTold:
    """The hub has told everyone about the end of a child's OS process."""

    running: Running


@attrs.frozen
class StartFailed:
    """There is nothing to wait for: the attempt to start failed."""

    running: Running
    reason: Term


@attrs.frozen
class StartTimeout:
    """A child is not ready in its start timeout."""

    running: Running


@attrs.frozen
class ProgramReady:
    """An external program runs and is ready."""

    running: Running
    os_process: OsProcess


@attrs.frozen
class TimerExpired:
    """A timer of the policy."""

    timer: int
