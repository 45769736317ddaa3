"""The process groups of one ``syn`` scope. Layer: groups, pure.

Source: syn_pg.erl of syn 3.3.0 and 3.4.1. A process is in a group at most once, with metadata and the time of
its last change; a later time wins. The owner of an entry is the node of its process: that node monitors the
process and tells all others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeAlias

from pyglyn.etf import Atom, Pid, Term, exact_key
from pyglyn.groups.effects import Effect, too_large
from pyglyn.groups.syn_state import (
    ERROR_UNDEFINED,
    FUNCTION_REFUSED,
    NOOP,
    NOT_ALIVE,
    Entry,
    SynScope,
    is_function,
    node_name,
)
from pyglyn.node.reasons import ERROR, NORMAL, OK, UNDEFINED

SYNC_JOIN = Atom("sync_join")
SYNC_LEAVE = Atom("sync_leave")
ON_JOINED = Atom("on_process_joined")
ON_UPDATED = Atom("on_group_process_updated")
NOT_IN_GROUP = (ERROR, Atom("not_in_group"))

_Members: TypeAlias = "dict[Pid, tuple[Term, int]]"
_Table: TypeAlias = "dict[object, tuple[Term, _Members]]"


class SynGroups(SynScope):
    """Groups and members; see ``SynScope``. Answers that go to callers are syn's own reply terms."""

    handler = "syn_pg"

    def __init__(
        self,
        pid: Pid,
        scope: str,
        *,
        is_alive: Callable[[Pid], bool] = lambda pid: True,
        is_busy: Callable[[str], bool] = lambda node: False,
    ) -> None:
        super().__init__(pid, scope, is_alive=is_alive, is_busy=is_busy)
        self._tables: dict[str, _Table] = {self.node: {}}  # node -> key of the group -> (its name, members)

    # --- questions --------------------------------------------------------------------------------

    def members(self, group: Term, node: str | None = None) -> list[tuple[Pid, Term]]:
        """The members of a group with their metadata, of all nodes or of one."""
        key = exact_key(group)
        return [
            (pid, meta)
            for table in self._of(node)
            if key in table
            for pid, (meta, _) in table[key][1].items()
        ]

    def local_members(self, group: Term) -> list[tuple[Pid, Term]]:
        """The members on this node."""
        return self.members(group, self.node)

    def member(self, group: Term, pid: Pid) -> tuple[Pid, Term] | None:
        """One member with its metadata, or None."""
        found = self._find(exact_key(group), pid)
        return None if found is None else (pid, found[0])

    def member_count(self, group: Term, node: str | None = None) -> int:
        """How many members a group has, on all nodes or on one."""
        key = exact_key(group)
        return sum(len(table[key][1]) for table in self._of(node) if key in table)

    def group_names(self, node: str | None = None) -> list[Term]:
        """The groups that have members, anywhere or on one node."""
        names: dict[object, Term] = {}
        for table in self._of(node):
            for key, (name, _) in table.items():
                names.setdefault(key, name)
        return list(names.values())

    def local_entries(self) -> list[Entry]:
        """The entries of this node's processes."""
        return [
            (name, pid, meta, time)
            for name, members in self._tables[self.node].values()
            for pid, (meta, time) in members.items()
        ]

    def _of(self, node: str | None) -> Iterator[_Table]:
        if node is None:
            yield from self._tables.values()
        elif node in self._tables:
            yield self._tables[node]

    def _find(self, key: object, pid: Pid) -> tuple[Term, int] | None:
        group = self._tables.get(pid.node, {}).get(key)
        return None if group is None else group[1].get(pid)

    # --- changes of this node's processes ---------------------------------------------------------

    def join(
        self, group: Term, pid: Pid, meta: Term, system_ns: int, *, requester: str = ""
    ) -> tuple[Term, list[Effect]]:
        """Add a process of this node, or change its metadata.

        Returns:
            ``{ok, {Callback, PreviousMeta, Meta, Time, Table, Table}}``, ``{noop, Meta}`` where nothing
            changes, ``{error, not_alive}``; and the effects. ``requester`` is told by its own call only.

        Raises:
            ValueError: the name is too large.
        """
        if too_large(group):
            raise ValueError("the name of a group has at most 65536 bytes")
        if not self._lives_here(pid):
            return NOT_ALIVE, []
        key = exact_key(group)
        known = self._find(key, pid)
        if known is not None and exact_key(known[0]) == exact_key(meta):
            return (NOOP, known[0]), []
        before = UNDEFINED if known is None else known[0]
        effects: list[Effect] = []
        if known is None:
            effects += self._own(key, pid)
        time = self._next_time(system_ns)
        self._insert(key, group, pid, meta, time)
        kind, callback = ("joined", ON_JOINED) if known is None else ("member_updated", ON_UPDATED)
        effects.append(self._event(kind, group, pid, meta, NORMAL, None if known is None else before))
        effects += self._broadcast((SYNC_JOIN, group, pid, meta, time, NORMAL), requester)
        return (OK, (callback, before, meta, time, self.table_by_name, self.table_by_pid)), effects

    def update(
        self, group: Term, pid: Pid, change: Callable[[Term], Term], system_ns: int
    ) -> tuple[Term, list[Effect]]:
        """Change the metadata of a local member to ``change(its metadata)``; replies as ``join``."""
        known = self._find(exact_key(group), pid)
        if known is None or not self._lives_here(pid):
            return (ERROR_UNDEFINED if self._lives_here(pid) else NOT_ALIVE), []
        return self.join(group, pid, change(known[0]), system_ns)

    def leave(self, group: Term, pid: Pid, *, requester: str = "") -> tuple[Term, list[Effect]]:
        """Take a process of this node out: ``{ok, {Meta, Table}}`` or ``{error, not_in_group}``."""
        key = exact_key(group)
        known = self._find(key, pid) if pid.node == self.node else None
        if known is None:
            return NOT_IN_GROUP, []
        effects = self._disown(key, pid)
        self._delete(key, pid)
        effects.append(self._event("left", group, pid, known[0], NORMAL))
        effects += self._broadcast((SYNC_LEAVE, group, pid, known[0], NORMAL), requester)
        return (OK, (known[0], self.table_by_pid)), effects

    def restore(self, entries: list[Entry]) -> list[Effect]:
        """Take over the local entries of a predecessor that crashed; before any other input."""
        effects: list[Effect] = []
        for group, pid, meta, time in entries:
            if not self._lives_here(pid):
                effects.append(self._event("left", group, pid, meta, UNDEFINED))
                continue
            key = exact_key(group)
            effects += self._own(key, pid)
            self._insert(key, group, pid, meta, time)
            self._last_time = max(self._last_time, time)
        return effects

    # --- what a call on behalf of another node's process has changed there --------------------------

    def applied_join(self, group: Term, pid: Pid, reply: Term) -> list[Effect]:
        """Enter what another node answered to ``join_or_update_on_node``: it does not tell the requester."""
        match reply:
            case (Atom("ok"), (Atom() as callback, before, meta, int(time), _, _)):
                pass
            case _:
                return []
        known = self._find(exact_key(group), pid)
        if self.discovery.pid_of(pid.node) is None or (known is not None and known[1] >= time):
            return []
        self._insert(exact_key(group), group, pid, meta, time)
        if callback is ON_JOINED:
            return [self._event("joined", group, pid, meta, NORMAL)]
        return [self._event("member_updated", group, pid, meta, NORMAL, before)]

    def applied_leave(self, group: Term, pid: Pid, reply: Term) -> list[Effect]:
        """Enter what another node answered to ``leave_on_node``."""
        key = exact_key(group)
        match reply:
            case (Atom("ok"), (meta, _)) if self._find(key, pid) is not None:
                self._delete(key, pid)
                return [self._event("left", group, pid, meta, NORMAL)]
        return []

    # --- inputs -----------------------------------------------------------------------------------

    def _on_change(self, message: tuple[Term, ...], system_ns: int) -> list[Effect]:
        match message:
            case (_, Atom("sync_join"), group, Pid() as pid, meta, int(time), reason):
                return self._merge((group, pid, meta, time), reason, system_ns)
            case (_, Atom("sync_leave"), group, Pid() as pid, meta, reason):
                key = exact_key(group)
                if self._find(key, pid) is None:
                    return []
                self._delete(key, pid)
                return [self._event("left", group, pid, meta, reason)]
        return self.rejections.reject("?", "a change that syn does not know")

    def _merge(self, entry: Entry, reason: Term, system_ns: int) -> list[Effect]:
        group, pid, meta, time = entry
        key = exact_key(group)
        known = self._find(key, pid)
        if known is not None and time <= known[1]:
            return []
        self._insert(key, group, pid, meta, time)
        if known is None:
            return [self._event("joined", group, pid, meta, reason)]
        if exact_key(known[0]) == exact_key(meta):
            return []
        return [self._event("member_updated", group, pid, meta, reason, known[0])]

    def _on_request(self, request: Term, system_ns: int) -> tuple[Term, list[Effect]]:
        match request:
            case (Atom("3.0"), Atom("join_or_update_on_node"), requester, group, Pid() as pid, meta):
                if too_large(group):
                    return (ERROR, Atom("system_limit")), []
                if is_function(meta):
                    is_member = self._find(exact_key(group), pid) is not None
                    return (FUNCTION_REFUSED if is_member else ERROR_UNDEFINED), []
                return self.join(group, pid, meta, system_ns, requester=node_name(requester))
            case (Atom("3.0"), Atom("leave_on_node"), requester, group, Pid() as pid):
                return self.leave(group, pid, requester=node_name(requester))
        return UNDEFINED, self.rejections.reject("?", "a call that syn does not know")

    def _ended(self, pid: Pid, reason: Term) -> list[Effect]:
        effects: list[Effect] = []
        for key in self._owned.pop(pid, ()):
            group = self._tables[self.node][key][0]
            meta = self._delete(key, pid)
            effects.append(self._event("left", group, pid, meta, reason))
            effects += self._broadcast((SYNC_LEAVE, group, pid, meta, reason))
        return effects

    def _purge(self, node: str) -> list[Effect]:
        reason = self._down_reason(node)
        return [
            self._event("left", name, pid, meta, reason)
            for name, members in self._tables.pop(node, {}).values()
            for pid, (meta, _) in members.items()
        ]

    def _prune(self, node: str, entries: list[Entry]) -> list[Effect]:
        there = {(exact_key(group), pid) for group, pid, _, _ in entries}
        gone = [
            (key, name, pid)
            for key, (name, members) in self._tables.get(node, {}).items()
            for pid in members
            if (key, pid) not in there
        ]
        return [self._event("left", name, pid, self._delete(key, pid), UNDEFINED) for key, name, pid in gone]

    # --- tables -----------------------------------------------------------------------------------

    def _insert(self, key: object, group: Term, pid: Pid, meta: Term, time: int) -> None:
        table = self._tables.setdefault(pid.node, {})
        entry = table.get(key)
        if entry is None:
            entry = table[key] = (group, {})
        entry[1][pid] = (meta, time)

    def _delete(self, key: object, pid: Pid) -> Term:
        table = self._tables[pid.node]
        members = table[key][1]
        meta, _ = members.pop(pid)
        if not members:
            del table[key]
        return meta
