"""The processes of an application as a tree, for Observer and LiveDashboard. Layer: node.

It is the supervision tree. What has an OS process to itself has its number in its label. Children that do
not run are not in it, since both tools draw processes only.
"""

from __future__ import annotations

from typing import Any

import attrs

from pyglyn.etf import Atom, Pid
from pyglyn.node.census import Census
from pyglyn.node.hub import Application, Hub
from pyglyn.node.inspection import OS_PID, PID, Row
from pyglyn.node.reasons import UNDEFINED

_PARENT, _NAME, _ID, _LABEL, _TYPE = (Atom(name) for name in ("parent", "name", "id", "label", "type"))


@attrs.frozen
class Branch:
    """A process and what is below it.

    Attributes:
        pid: the process.
        name: its registered name, or None.
        label: for people, of no other process in the tree.
        is_supervisor: whether it supervises what is below.
        below: its children, in order.
    """

    pid: Pid
    name: str | None
    label: str
    is_supervisor: bool
    below: list[Branch]


async def tree(hub: Hub, census: Census, application: Application) -> Branch | None:
    """The tree of an application; None if it has no processes."""
    if application.top is None:
        return None
    rows = {row[PID]: row for row in await census.tree() if isinstance(row[PID], Pid)}
    below: dict[Any, list[Row]] = {}
    for pid, row in rows.items():
        if row.get(_PARENT, UNDEFINED) not in rows:
            row[_PARENT] = _above(hub, census, pid)
        below.setdefault(row[_PARENT], []).append(row)
    tops = {each.top for each in hub.applications.values()} - {application.top}
    return _branch(application.top, rows, below, tops, set())


def _above(hub: Hub, census: Census, pid: Pid) -> Pid:
    """What a process that nobody supervises belongs to: the main one of its worker, or the node."""
    link = census.workers.links.get(pid.serial)
    return hub.system.pid if link is None or link.main is None else link.main


def _branch(
    pid: Pid, rows: dict[Pid, Row], below: dict[Any, list[Row]], others: set[Any], labels: set[str]
) -> Branch | None:
    row = rows.get(pid)
    if row is None:
        return None
    label = _label(row, rows)
    if label in labels:
        label = f"{label} <{pid.id}.{pid.serial}>"
    labels.add(label)
    children = [each[PID] for each in below.get(pid, []) if each[PID] != pid and each[PID] not in others]
    found = [_branch(child, rows, below, others, labels) for child in children]
    name = row.get(_NAME, UNDEFINED)
    return Branch(
        pid,
        None if name is UNDEFINED else str(name),
        label,
        bool(children) or row.get(_TYPE) is Atom("supervisor"),
        [each for each in found if each is not None],
    )


def _label(row: Row, rows: dict[Pid, Row]) -> str:
    text = next((str(row[key]) for key in (_NAME, _ID) if row.get(key, UNDEFINED) is not UNDEFINED), "")
    text = text or row.get(_LABEL, b"").decode(errors="replace") or "process"
    os_pid = row.get(OS_PID)
    parent = rows.get(row[_PARENT], {})
    own = row is parent or os_pid != parent.get(OS_PID)
    return f"{text} (OS process {os_pid})" if isinstance(os_pid, int) and own else text
