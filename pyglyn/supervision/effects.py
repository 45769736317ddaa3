"""What a supervisor's policy asks for, and what it keeps about each child. Layer: supervision, pure.

An effect is something the supervisor around the policy does; two of them it has to answer: `StartChild`
with one of the policy's ``child_started``, ``child_ignored`` and ``child_failed``, and `StopChild`, once
the child is gone, with ``child_exited``.
"""

from __future__ import annotations

import enum
from typing import Literal, TypeAlias

import attrs

from pyglyn.etf import Atom, Pid, Term
from pyglyn.node.reasons import UNDEFINED
from pyglyn.supervision.spec import ChildSpec


@attrs.frozen
class Restarting:
    """In place of a pid: the child ended, and the next attempt to start it is due.

    Attributes:
        pid: the one it had, None when it was a sibling that could not be started again.
    """

    pid: Pid | None


@attrs.define(eq=False)
class Child:
    """What a supervisor knows about one child.

    Attributes:
        spec: its specification; for a dynamic child the template.
        pid: None when it does not run.
        args: what ``start_child`` gave a dynamic child.
        args_kept: False when OTP would have forgotten the arguments of the specification.
        restarts: how often it was started again, in all.
        row: restarts in a row, for its backoff.
        started_at: when it was started last, in whole seconds of the clock given to the policy; None before.
        last_exit: why it ended when it did so last; told to tools, and decides nothing.
    """

    spec: ChildSpec
    pid: Pid | Restarting | None = None
    args: tuple[Term, ...] = ()
    args_kept: bool = True
    restarts: int = 0
    row: int = 0
    started_at: int | None = None
    last_exit: Term = UNDEFINED

    @property
    def pid_term(self) -> Term:
        """The pid as OTP's reports show it: a pid, ``undefined``, or ``{restarting, Pid}``."""
        if isinstance(self.pid, Restarting):
            return (Atom("restarting"), UNDEFINED if self.pid.pid is None else self.pid.pid)
        return UNDEFINED if self.pid is None else self.pid


class ReportContext(enum.StrEnum):
    """Which of OTP's supervisor reports it is."""

    PROGRESS = "progress"
    START_ERROR = "start_error"
    CHILD_TERMINATED = "child_terminated"
    SHUTDOWN_ERROR = "shutdown_error"
    SHUTDOWN = "shutdown"


@attrs.frozen
class StartChild:
    """Start a child and link to it; answer when it has initialised itself, or has not.

    Attributes:
        child: the child; its ``spec`` and, for a dynamic one, the ``args`` to append.
        again: it had been started before.
    """

    child: Child
    again: bool = False


@attrs.frozen
class StopChild:
    """Send a child the exit signal ``shutdown``, or ``kill``; answer with ``child_exited`` when it is gone.

    There can be two for one child: the second, with ``kill``, when its shutdown time is over.
    """

    pid: Pid
    spec: ChildSpec
    reason: Literal["shutdown", "kill"]


@attrs.frozen
class SetTimer:
    """Call ``timer_expired(timer)`` in so many seconds."""

    timer: int
    seconds: float


@attrs.frozen
class CancelTimer:
    """The timer is not needed any more."""

    timer: int


@attrs.frozen
class AnswerRequest:
    """Answer a request.

    Attributes:
        caller: what came with the request.
        term: the answer.
    """

    caller: object
    term: Term


@attrs.frozen
class Report:
    """Write a line to the log.

    Attributes:
        context: which report.
        reason: why, as a term; for ``progress`` it is ``undefined``.
        spec: of the child it is about.
        pid: the child's pid as OTP would show it; a list of pids for several dynamic children.
    """

    context: ReportContext
    reason: Term
    spec: ChildSpec
    pid: Term


@attrs.frozen
class Started:
    """All children of the declaration are started: the supervisor itself counts as started now."""


@attrs.frozen
class EndSupervisor:
    """The supervisor ends with this reason; no child is left, and nothing more comes from the policy."""

    reason: Term


Effect: TypeAlias = (
    StartChild | StopChild | SetTimer | CancelTimer | AnswerRequest | Report | Started | EndSupervisor
)


# --- how starts end ---------------------------------------------------------------------------------


@attrs.frozen
class ChildStarted:
    """Outcome of a start: it runs. ``info`` is the third element of ``{ok, Pid, Info}``, if there was one."""

    pid: Pid
    info: Term = None
    has_info: bool = False


@attrs.frozen
class ChildIgnored:
    """Outcome of a start: the child chose not to run (``ignore``)."""


@attrs.frozen
class ChildFailed:
    """Outcome of a start: it failed."""

    reason: Term


Outcome: TypeAlias = ChildStarted | ChildIgnored | ChildFailed
