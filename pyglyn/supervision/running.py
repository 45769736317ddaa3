"""One start of one child as its supervisor sees it, and where its OS process is made. Layer: supervision."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
from collections.abc import Callable
from typing import Any, Final

import attrs

from pyglyn import etf
from pyglyn.errors import ChildStartError, ForkUnsafe
from pyglyn.etf import Atom, Pid, Reference, Term
from pyglyn.node.exits import exception_term
from pyglyn.node.worker import HubAddress
from pyglyn.supervision.effects import Child
from pyglyn.supervision.os_child import close_own, keep_from_forks
from pyglyn.supervision.os_process import ExitStatus, OsProcess, OsProcesses
from pyglyn.supervision.spec import ChildSpec, Start, StartMethod

MEMORY_CHECK_S: Final = 0.1
"""How often the memory of children with a limit is looked at; the kernel has no signal for it."""
LINGER_S: Final = 3.0
"""How long an OS process may take to end once its main process has ended, before it is killed."""
REASON_CHARACTERS: Final = 400

logger = logging.getLogger("pyglyn.supervision")


@attrs.frozen
class Place:
    """The OS process a supervisor lives in.

    Attributes:
        os_processes: what makes OS processes below this one.
        address: of the hub, for them.
        report_exit: tells the hub how one ended; resolved when everyone has been told.
        default_method: how OS processes are made where nothing else is said.
    """

    os_processes: OsProcesses
    address: HubAddress
    report_exit: Callable[[int, Term], asyncio.Future[Any]]
    default_method: StartMethod | None = None

    def start(self, main: Any, *, title: str, fds: dict[str, int], method: StartMethod | None) -> OsProcess:
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

        def act() -> None:
            self.closers.remove(cancel)
            action()

        handle = asyncio.get_running_loop().call_later(seconds, act)
        cancel = handle.cancel
        self.closers.append(cancel)

    def close(self) -> None:
        """Stop all timers and readers."""
        closers, self.closers = self.closers, []
        for close in closers:
            close()

    # --- ceilings -------------------------------------------------------------------------------------

    def watch_heartbeat(self, fd: int) -> None:
        """Kill it with reason ``stuck`` when it has not written to this pipe for too long.

        Counted from the first beat: how long a start may take is the start timeout's business.
        """
        limit = self.spec.heartbeat
        assert limit is not None
        loop = asyncio.get_running_loop()
        os.set_blocking(keep_from_forks(fd), False)
        last: float | None = None
        timer: asyncio.TimerHandle | None = None

        def read() -> None:
            nonlocal last
            beats = b""
            with contextlib.suppress(OSError):
                beats = os.read(fd, 4096)
            if not beats:
                loop.remove_reader(fd)
                return
            if last is None:
                last = loop.time()
                check()
            last = loop.time()

        def check() -> None:
            nonlocal timer
            assert last is not None
            silent = loop.time() - last
            if silent >= limit:
                self.kill(Atom("stuck"))
            else:
                timer = loop.call_later(limit - silent, check)

        def close() -> None:
            loop.remove_reader(fd)
            close_own(fd)
            if timer is not None:
                timer.cancel()

        loop.add_reader(fd, read)
        self.closers.append(close)

    def watch_memory(self) -> None:
        """Kill it with reason ``{memory_limit, Bytes}`` when it has more than its limit in memory."""
        limit = self.spec.memory_limit
        assert limit is not None

        def check() -> None:
            used = self.os_process.resident_memory() if self.os_process is not None else None
            if used is not None and used > limit:
                self.kill((Atom("memory_limit"), limit))
            elif self.os_process is None or self.os_process.status is None:
                self.later(MEMORY_CHECK_S, check)

        check()


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


# --- reasons -------------------------------------------------------------------------------------------


def start_failure(error: Exception) -> Term:
    """The reason of a start that failed with an exception in the supervisor."""
    if isinstance(error, ChildStartError):
        return error.reason  # type: ignore[return-value]
    if isinstance(error, OSError) and error.errno is not None:
        return (Atom(errno.errorcode.get(error.errno, "oserror").lower()), str(error).encode())
    if isinstance(error, ForkUnsafe):
        return (Atom("fork_unsafe"), str(error).encode())
    return exception_term(error)


def reason_text(reason: Term) -> str:
    """A reason on one line: an exception as Python says it, with where it was raised."""
    match reason:
        case ((Atom("exception"), kind, bytes() as message), list() as stack):
            where = _where(stack)
            return f"{kind!s}: {message.decode(errors='replace')}{where}".replace("\n", " ")
        case _:
            return etf.text.format(reason, limit=REASON_CHARACTERS).replace("\n", " ")


def _where(stack: list[Any]) -> str:
    for entry in stack[:1]:
        match entry:
            case (_, function, _, [(_, list() as file), (_, int() as line)]):
                return f" ({bytes(file).decode(errors='replace')}:{line} in {etf.text.format(function)})"
    return ""
