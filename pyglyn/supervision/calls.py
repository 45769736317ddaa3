"""Asking a supervisor of any node, in Python or on the BEAM, to start, show and end children.

Layer: supervision. After supervisor(3) and Gleam's ``factory_supervisor``. The first argument is the node, or
the process (``me``) that asks; the second one whom: a registered name, ``(name, node)`` or a pid::

    pid = await start_child(node, "sessions", b"ada")
    await terminate_child(node, "sessions", pid)

Like OTP's, the functions wait as long as it takes, unless there is a ``timeout`` (seconds).
"""

from __future__ import annotations

from typing import Any

import attrs

from pyglyn import etf
from pyglyn.errors import ChildStartError, NoProcess, SupervisionError
from pyglyn.etf import Atom, Pid, Term
from pyglyn.node import Node, Process
from pyglyn.node.destinations import ServerRef, describe
from pyglyn.node.reasons import UNDEFINED
from pyglyn.supervision.words import ChildType


@attrs.frozen
class ChildInfo:
    """One child of a supervisor.

    Attributes:
        id: its id; None for those of a factory, which have none.
        pid: its process; None while it is restarted, or stopped.
        restarting: whether it is to come back by itself.
        type: worker or supervisor.
    """

    id: Term
    pid: Pid | None
    restarting: bool
    type: ChildType


@attrs.frozen
class ChildCounts:
    """How many children a supervisor has.

    Attributes:
        specs: the specifications; one for a factory.
        active: the children that run.
        supervisors, workers: the children of each type, running or not.
    """

    specs: int
    active: int
    supervisors: int
    workers: int


async def start_child(
    at: Node | Process, factory: ServerRef, *args: Term, timeout: float | None = None
) -> Pid | None:
    """Have a factory start one more child, and wait until it is ready.

    Args:
        args: terms that follow the arguments given to ``factory``.

    Returns:
        The child; None if it chose not to run (``ignore``).

    Raises:
        ChildStartError: it did not start, or the supervisor is no factory; ``reason`` is OTP's.
        CallFailed, CallTimeout: the supervisor is not there, or did not answer in time.
    """
    word, result, *_ = await _ask(at, factory, (Atom("start_child"), list(args)), timeout)
    if word is Atom("ok"):
        return result if isinstance(result, Pid) else None
    text = f"a child of {describe(factory)} did not start: {etf.text.format(result, limit=500)}"
    raise ChildStartError(text, child_id=UNDEFINED, reason=result)


async def terminate_child(
    at: Node | Process, supervisor: ServerRef, child: Term, *, timeout: float | None = None
) -> None:
    """Have a supervisor end a child, and wait until it is gone. One that has ended already is no error.

    Args:
        child: the pid of a factory's child; the id of another supervisor's, which keeps its specification.

    Raises:
        NoProcess: it has no such child.
        CallFailed, CallTimeout: as for `start_child`.
    """
    match await _ask(at, supervisor, (Atom("terminate_child"), child), timeout):
        case (Atom("error"), Atom("simple_one_for_one")):
            raise SupervisionError(
                f"{describe(supervisor)} is a factory: it knows its children by their pids"
            )
        case (Atom("error"), _):
            raise NoProcess(f"{describe(supervisor)} has no child {etf.text.format(child, limit=200)}")


async def which_children(
    at: Node | Process, supervisor: ServerRef, *, timeout: float | None = None
) -> list[ChildInfo]:
    """List the children of a supervisor.

    Raises:
        CallFailed, CallTimeout: as for `start_child`.
    """
    return [
        ChildInfo(
            None if id is UNDEFINED else id,
            pid if isinstance(pid, Pid) else None,
            pid is Atom("restarting"),
            ChildType(str(kind)),
        )
        for id, pid, kind, _ in await _ask(at, supervisor, Atom("which_children"), timeout)
    ]


async def count_children(
    at: Node | Process, supervisor: ServerRef, *, timeout: float | None = None
) -> ChildCounts:
    """Count the children of a supervisor.

    Raises:
        CallFailed, CallTimeout: as for `start_child`.
    """
    counts = await _ask(at, supervisor, Atom("count_children"), timeout)
    return ChildCounts(**{str(key): count for key, count in counts})


async def _ask(at: Node | Process, supervisor: ServerRef, request: Term, timeout: float | None) -> Any:
    answer = await at.call(supervisor, request, timeout)
    match answer:
        case list() | Atom("ok") | (Atom("ok" | "error"), _) | (Atom("ok"), _, _):
            return answer
    raise SupervisionError(f"{describe(supervisor)} does not answer as a supervisor does")
