"""What the hub may ask a worker about what is in it, and the answers. Layer: node.

A question is a private message ``{info, Ref, Question}``, the answer ``{info, Ref, Answer}`` with the term of
the answer encoded: it may have the messages of a mailbox in it, which no limit of the link is made for.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, Final

from pyglyn import etf
from pyglyn.etf import Atom, Limits, Pid, Term
from pyglyn.node import process_info, sockets
from pyglyn.node.inspection import OS_PID, PID, rows
from pyglyn.node.measures import measure
from pyglyn.node.process import Host, Process
from pyglyn.node.reasons import UNDEFINED

INFO: Final = Atom("info")
ROWS: Final = Atom("rows")
"""All of the tree's rows: ``{Processes, what each on_info said}``."""
CHILDREN: Final = Atom("children")
"""What each ``on_info`` said."""
PIDS: Final = Atom("pids")
"""The pids of all processes."""
INFO_OF: Final = Atom("process_info")
"""``{process_info, Pid, Items}``: pairs, or ``undefined`` if there is no such process."""
MEASURE: Final = Atom("measure")
"""``{measure, AskedNs}``: what ``measures`` says of it, and what each on_info said."""
READINESS: Final = Atom("readiness")
"""What is required here, and why it is not so; see ``readiness``."""
INFOS: Final = Atom("process_infos")
"""``{process_infos, Items}``: ``{Pid, Pairs}`` for every process."""
SOCKETS: Final = Atom("sockets")
"""Its sockets (see ``sockets``)."""
_ANY: Final = Limits(depth=1_000_000, elements=2**40, size=2**40)

OnInfo = Sequence[Callable[[], Term]]


def answer(runtime: Host, on_info: OnInfo, question: Term) -> bytes:
    """Answer a question in the worker, encoded; one that takes a while is for `answer_later`."""
    return etf.encode(_answer(runtime, on_info, question))


def takes_a_while(question: Term) -> bool:
    """Whether a question has to be answered by `answer_later`."""
    return question is READINESS


async def answer_later(runtime: Host) -> bytes:
    """Answer whether all is in order here, encoded."""
    problems = await runtime.readiness.problems()
    return etf.encode({what.encode(): why.encode() for what, why in problems.items()})


def _answer(runtime: Host, on_info: OnInfo, question: Term) -> Term:
    match question:
        case Atom("rows"):
            return (rows(runtime), [about() for about in on_info])
        case Atom("children"):
            return [about() for about in on_info]
        case Atom("pids"):
            return [process.pid for process in runtime.processes.values()]
        case (Atom("measure"), int() as asked_ns):
            return (measure(runtime, asked_ns).term(), [about() for about in on_info])
        case (Atom("process_info"), Pid() as pid, list() as items):
            process = runtime.processes.get(pid.id) if runtime.is_here(pid) else None
            if process is None:
                return UNDEFINED
            return infos([process], on_info, items)[0][1]
        case (Atom("process_infos"), list() as items):
            return [*infos(list(runtime.processes.values()), on_info, items)]
        case Atom("sockets"):
            return sockets.here()
        case _:
            return UNDEFINED


def infos(processes: list[Process], on_info: OnInfo, items: list[Term]) -> list[tuple[Pid, list[Any]]]:
    """``{Pid, Pairs}`` for some processes of this OS process."""
    programs: dict[Pid, int] = {}
    if any(item in process_info.OF_OS_PROCESS for item in items):
        programs = programs_of([row for about in on_info for row in about()])  # type: ignore[union-attr]
    return [
        (process.pid, process_info.items(process_info.facts(process, programs.get(process.pid)), items))
        for process in processes
    ]


def programs_of(told: list[Any]) -> dict[Pid, int]:
    """The OS processes of what supervisors tell of their children, by pid."""
    return {
        row[PID]: row[OS_PID]
        for row in told
        if isinstance(row.get(PID), Pid) and isinstance(row.get(OS_PID), int) and row[OS_PID] != os.getpid()
    }


def read(encoded: bytes) -> Any:
    """Decode an answer in the hub."""
    return etf.decode(encoded, limits=_ANY)
