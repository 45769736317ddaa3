"""Rows of ``pyglyn:tree/0`` as JSON has them: for the page, and for ``--json``. Layer: node.

The fields of a process are documented in ``docs/operations.md``, and stay.
"""

from __future__ import annotations

from typing import Any, Final

from pyglyn.etf import Atom, Pid
from pyglyn.node.inspection import owners
from pyglyn.node.reasons import UNDEFINED

_LARGEST: Final = 2**63

Json = dict[str, Any]


def processes(rows: list[Any]) -> list[Json]:
    """The processes of a node, each with what its OS process uses if it has one to itself."""
    own = set(owners(rows).values())
    return [_process(row, row[Atom("pid")] in own) for row in rows]


def _process(row: Any, own: bool) -> Json:
    def value(key: str) -> Any:
        found = row.get(Atom(key), UNDEFINED)
        return None if found is UNDEFINED else found

    return {
        "pid": pid_text(value("pid")),
        "parent": pid_text(value("parent")),
        "name": name_of(row),
        "label": (value("label") or b"").decode(errors="replace"),
        "current_function": (value("current_function") or b"").decode(errors="replace"),
        "status": str(value("status") or ""),
        "type": str(value("type") or "process"),
        "restarts": number(value("restarts")),
        "last_exit": (value("last_exit") or b"").decode(errors="replace"),
        "os_pid": number(value("os_pid")),
        "memory": number(value("memory")) if own else None,
        "cpu_us": number(value("cpu_us")) if own else None,
        "mailbox": number(value("message_queue_len")),
        "uptime_ms": number(value("uptime_ms")),
    }


def name_of(row: Any) -> str:
    """The registered name, else the child's id, else what it runs."""
    for key in ("name", "id"):
        value = row.get(Atom(key), UNDEFINED)
        if value is not UNDEFINED:
            return str(value)
    label: bytes = row.get(Atom("label"), b"")
    return label.decode(errors="replace")


def pid_text(pid: Any) -> str | None:
    """A pid within its node: ``<id.serial>``."""
    return f"<{pid.id}.{pid.serial}>" if isinstance(pid, Pid) else None


def number(value: Any) -> int | float | None:
    """A number that JSON has, and JavaScript in about that size."""
    fits = isinstance(value, (int, float)) and -_LARGEST <= value <= _LARGEST
    return value if fits else None
