"""The names of one ``syn`` scope. Layer: groups, pure.

Source: syn_registry.erl, syn_event_handler.erl of syn 3.3.0 and 3.4.1. A name has one process, metadata and
the time of its last change. Two nodes that registered the same name apart find out when they hear of each
other's entry, and each of the two owners resolves the conflict by itself, with the same rule:

- the later time wins; equal times: before 3.4.1 each keeps its own, then broadcasts a new time; from 3.4.1 on
  the greater pid wins. The rule of the peer's version is applied (a peer of unknown version: 3.4.1);
- the owner of the loser puts the winner in its place, ends the losing process with
  ``{syn_resolve_kill, Name, Meta}`` and tells everyone with ``sync_unregister`` (3.4; harmless before);
- the owner of the winner gives it a new time and tells everyone.

A function can be given instead of the times (``resolve_registry_conflict`` in syn); then the loser lives on.
It has to be the same function on every node.

A node that owns neither process keeps the later entry only. In syn the other one is forgotten for good, also
where its owner never loses the conflict because the two owners have no connection. Here its owner's name is
kept (``_hidden``), and when the later entry goes that node is asked for its data again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import attrs

from pyglyn.etf import Atom, Pid, Term, exact_key
from pyglyn.groups.effects import Effect, Rejected, SendExit, too_large
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

SYNC_REGISTER = Atom("sync_register")
SYNC_UNREGISTER = Atom("sync_unregister")
ON_REGISTERED = Atom("on_process_registered")
ON_UPDATED = Atom("on_registry_process_updated")
CONFLICT = Atom("syn_conflict_resolution")
RESOLVE_KILL = Atom("syn_resolve_kill")
TAKEN = (ERROR, Atom("taken"))
RACE_CONDITION = (ERROR, Atom("race_condition"))
GREATER_PID_WINS_SINCE = (3, 4, 1)

Claim: TypeAlias = "tuple[Pid, Term, int]"
"""``{Pid, Meta, Time}``: one side of a conflict."""
Resolve: TypeAlias = Callable[[str, Term, Claim, Claim], Pid]
"""``(scope, name, claim, claim) -> the pid to keep``."""


@attrs.define
class _Name:
    name: Term
    pid: Pid
    meta: Term
    time: int


class SynRegistry(SynScope):
    """Names and their processes; see ``SynScope``. Answers that go to callers are syn's own reply terms.

    Args:
        resolve: decides conflicts instead of the times; whatever it raises or returns beyond one of the two
            pids frees the name.
    """

    handler = "syn_registry"

    def __init__(
        self,
        pid: Pid,
        scope: str,
        *,
        is_alive: Callable[[Pid], bool] = lambda pid: True,
        is_busy: Callable[[str], bool] = lambda node: False,
        resolve: Resolve | None = None,
    ) -> None:
        super().__init__(pid, scope, is_alive=is_alive, is_busy=is_busy)
        self._resolve = resolve
        self._names: dict[object, _Name] = {}
        self._keys: dict[str, dict[object, None]] = {}  # node -> its names
        self._hidden: dict[object, set[str]] = {}  # name -> other nodes that claim it as well

    # --- questions --------------------------------------------------------------------------------

    def lookup(self, name: Term) -> tuple[Pid, Term] | None:
        """The process of a name and its metadata; never a process of this node that is known to be dead."""
        entry = self._names.get(exact_key(name))
        if entry is None or (entry.pid.node == self.node and not self._is_alive(entry.pid)):
            return None
        return entry.pid, entry.meta

    def count(self, node: str | None = None) -> int:
        """How many names there are, of all nodes or of one."""
        return len(self._names) if node is None else len(self._keys.get(node, ()))

    def names(self, node: str | None = None) -> list[Term]:
        """The names, of all nodes or of one."""
        if node is None:
            return [entry.name for entry in self._names.values()]
        return [self._names[key].name for key in self._keys.get(node, ())]

    def local_entries(self) -> list[Entry]:
        """The entries of this node's processes."""
        own = (self._names[key] for key in self._keys.get(self.node, ()))
        return [(entry.name, entry.pid, entry.meta, entry.time) for entry in own]

    # --- changes of this node's processes ---------------------------------------------------------

    def register(
        self, name: Term, pid: Pid, meta: Term, system_ns: int, *, requester: str = ""
    ) -> tuple[Term, list[Effect]]:
        """Give a process of this node a name, or change its metadata.

        Returns:
            ``{ok, {Callback, PreviousMeta, Meta, Time, Table, Table}}``, ``{noop, Meta}`` where nothing
            changes, ``{error, taken | not_alive}``; and the effects. ``requester`` is told by its own call.

        Raises:
            ValueError: the name is too large.
        """
        if too_large(name):
            raise ValueError("a name has at most 65536 bytes")
        if not self._lives_here(pid):
            return NOT_ALIVE, []
        key = exact_key(name)
        known = self._names.get(key)
        if known is not None and known.pid != pid:
            return TAKEN, []
        if known is not None and exact_key(known.meta) == exact_key(meta):
            return (NOOP, known.meta), []
        effects: list[Effect] = []
        if known is None:
            effects += self._own(key, pid)
        time = self._next_time(system_ns)
        self._put(key, _Name(name, pid, meta, time))
        kind, callback, before = "registered", ON_REGISTERED, None
        if known is not None:
            kind, callback, before = "name_updated", ON_UPDATED, known.meta
        effects.append(self._event(kind, name, pid, meta, NORMAL, before))
        effects += self._broadcast((SYNC_REGISTER, name, pid, meta, time, NORMAL), requester)
        previous = UNDEFINED if known is None else before
        return (OK, (callback, previous, meta, time, self.table_by_name, self.table_by_pid)), effects

    def update(
        self, name: Term, change: Callable[[Pid, Term], Term], system_ns: int
    ) -> tuple[Term, list[Effect]]:
        """Change the metadata of a local process's name to ``change(pid, metadata)``; as ``register``."""
        known = self._names.get(exact_key(name))
        if known is None or known.pid.node != self.node:
            return ERROR_UNDEFINED, []
        return self.register(name, known.pid, change(known.pid, known.meta), system_ns)

    def unregister(self, name: Term, pid: Pid, *, requester: str = "") -> tuple[Term, list[Effect]]:
        """Free a name of this node's process: ``{ok, Table}``, ``{error, undefined | race_condition}``."""
        key = exact_key(name)
        known = self._names.get(key)
        if known is None:
            return ERROR_UNDEFINED, []
        if known.pid != pid or pid.node != self.node:
            return RACE_CONDITION, []
        effects = self._disown(key, pid)
        self._remove(key)
        effects.append(self._event("unregistered", name, pid, known.meta, NORMAL))
        effects += self._broadcast((SYNC_UNREGISTER, name, pid, known.meta, NORMAL), requester)
        return (OK, self.table_by_pid), effects

    def restore(self, entries: list[Entry]) -> list[Effect]:
        """Take over the local entries of a predecessor that crashed; before any other input."""
        effects: list[Effect] = []
        for name, pid, meta, time in entries:
            if not self._lives_here(pid):
                effects.append(self._event("unregistered", name, pid, meta, UNDEFINED))
                continue
            key = exact_key(name)
            effects += self._own(key, pid)
            self._put(key, _Name(name, pid, meta, time))
            self._last_time = max(self._last_time, time)
        return effects

    # --- what a call on behalf of another node's process has changed there --------------------------

    def applied_register(self, name: Term, pid: Pid, reply: Term) -> list[Effect]:
        """Enter what another node answered to ``register_or_update_on_node``: it does not tell us again."""
        match reply:
            case (Atom("ok"), (Atom() as callback, before, meta, int(time), _, _)):
                pass
            case _:
                return []
        key = exact_key(name)
        known = self._names.get(key)
        if self.discovery.pid_of(pid.node) is None or (known is not None and known.pid != pid):
            return []
        self._put(key, _Name(name, pid, meta, time))
        if callback is ON_REGISTERED:
            return [self._event("registered", name, pid, meta, NORMAL)]
        return [self._event("name_updated", name, pid, meta, NORMAL, before)]

    def applied_unregister(self, name: Term, pid: Pid, reply: Term) -> list[Effect]:
        """Enter what another node answered to ``unregister_on_node``."""
        key = exact_key(name)
        known = self._names.get(key)
        match reply:
            case (Atom("ok"), _) if known is not None and known.pid == pid:
                self._remove(key)
                event = self._event("unregistered", name, pid, known.meta, NORMAL)
                return [event, *self._uncover(key)]
        return []

    # --- inputs -----------------------------------------------------------------------------------

    def _on_change(self, message: tuple[Term, ...], system_ns: int) -> list[Effect]:
        match message:
            case (_, Atom("sync_register"), name, Pid() as pid, meta, int(time), reason):
                return self._merge((name, pid, meta, time), reason, system_ns)
            case (_, Atom("sync_unregister"), name, Pid() as pid, meta, reason):
                key = exact_key(name)
                known = self._names.get(key)
                if known is None or known.pid != pid:
                    self._reveal(key, pid.node)
                    return []
                self._remove(key)
                return [self._event("unregistered", name, pid, meta, reason), *self._uncover(key)]
        return self.rejections.reject("?", "a change that syn does not know")

    def _merge(self, entry: Entry, reason: Term, system_ns: int) -> list[Effect]:
        name, pid, meta, time = entry
        key = exact_key(name)
        known = self._names.get(key)
        if known is None:
            self._put(key, _Name(name, pid, meta, time))
            return [self._event("registered", name, pid, meta, reason)]
        if known.pid == pid:
            before, known.meta, known.time = known.meta, meta, time
            if exact_key(before) == exact_key(meta):
                return []
            return [self._event("name_updated", name, pid, meta, reason, before)]
        if known.pid.node == self.node:
            return self._on_conflict(key, known, (pid, meta, time), system_ns)
        # Equal times: syn keeps what came first, which may differ from node to node; owners keep the greater.
        is_older = (known.time, known.pid.sort_key()) >= (time, pid.sort_key())
        if known.pid.node != pid.node:
            self._hidden.setdefault(key, set()).add(pid.node if is_older else known.pid.node)
        if is_older:
            return []
        return self._replace(key, known, (pid, meta, time), reason)

    def _on_request(self, request: Term, system_ns: int) -> tuple[Term, list[Effect]]:
        match request:
            case (Atom("3.0"), Atom("register_or_update_on_node"), requester, name, Pid() as pid, meta):
                if too_large(name):
                    return (ERROR, Atom("system_limit")), []
                if is_function(meta):
                    is_known = exact_key(name) in self._names
                    return (FUNCTION_REFUSED if is_known else ERROR_UNDEFINED), []
                return self.register(name, pid, meta, system_ns, requester=node_name(requester))
            case (Atom("3.0"), Atom("unregister_on_node"), requester, name, Pid() as pid):
                return self.unregister(name, pid, requester=node_name(requester))
        return UNDEFINED, self.rejections.reject("?", "a call that syn does not know")

    def _ended(self, pid: Pid, reason: Term) -> list[Effect]:
        effects: list[Effect] = []
        for key in self._owned.pop(pid, ()):
            entry = self._remove(key)
            effects.append(self._event("unregistered", entry.name, pid, entry.meta, reason))
            effects += self._broadcast((SYNC_UNREGISTER, entry.name, pid, entry.meta, reason))
        return effects

    def _purge(self, node: str) -> list[Effect]:
        for key in [key for key, nodes in self._hidden.items() if node in nodes]:
            self._reveal(key, node)
        reason = self._down_reason(node)
        keys = self._keys.pop(node, {})
        gone = [self._names.pop(key) for key in keys]
        effects: list[Effect] = [
            self._event("unregistered", each.name, each.pid, each.meta, reason) for each in gone
        ]
        return effects + self._uncover(*keys)

    def _prune(self, node: str, entries: list[Entry]) -> list[Effect]:
        there = {exact_key(name) for name, _, _, _ in entries}
        keys = [key for key in self._keys.get(node, ()) if key not in there]
        gone = [self._remove(key) for key in keys]
        effects: list[Effect] = [
            self._event("unregistered", each.name, each.pid, each.meta, UNDEFINED) for each in gone
        ]
        return effects + self._uncover(*keys)

    def _uncover(self, *keys: object) -> list[Effect]:
        """These names are free as far as we know: ask the nodes that also claimed one of them."""
        nodes: set[str] = set()
        for key in keys:
            nodes |= self._hidden.pop(key, set())
        return [effect for node in sorted(nodes) for effect in self._ask_again(node)]

    def _reveal(self, key: object, node: str) -> None:
        nodes = self._hidden.get(key, set())
        nodes.discard(node)
        if not nodes:
            self._hidden.pop(key, None)

    # --- conflicts --------------------------------------------------------------------------------

    def _on_conflict(self, key: object, known: _Name, remote: Claim, system_ns: int) -> list[Effect]:
        local: Claim = (known.pid, known.meta, known.time)
        keep, kill, effects = self._choose(known.name, remote, local)
        if keep == known.pid:
            known.time = self._next_time(system_ns, known.time)
            return effects + self._broadcast(
                (SYNC_REGISTER, known.name, known.pid, known.meta, known.time, CONFLICT)
            )
        effects += self._disown(key, known.pid)
        excluded = ""
        if keep == remote[0]:
            changes = self._replace(key, known, remote, CONFLICT)
        else:
            self._remove(key)
            excluded = remote[0].node  # it comes to the same result by itself
            changes = [self._event("unregistered", known.name, known.pid, known.meta, CONFLICT)]
        if kill:
            effects.append(SendExit(known.pid, (RESOLVE_KILL, known.name, known.meta)))
        effects += changes
        return effects + self._broadcast(
            (SYNC_UNREGISTER, known.name, known.pid, known.meta, CONFLICT), excluded
        )

    def _choose(self, name: Term, remote: Claim, local: Claim) -> tuple[Pid | None, bool, list[Effect]]:
        """Which pid to keep, whether the other one is killed, and what to log."""
        if self._resolve is not None:
            try:
                keep = self._resolve(self.scope, name, remote, local)
            except Exception as error:
                return (
                    None,
                    False,
                    [Rejected("resolve", f"conflict resolution raised {type(error).__name__}")],
                )
            return (keep if keep in (remote[0], local[0]) else None), False, []
        if remote[2] != local[2]:
            return (remote[0] if remote[2] > local[2] else local[0]), True, []
        if self.versions.get(remote[0].node, GREATER_PID_WINS_SINCE) < GREATER_PID_WINS_SINCE:
            return local[0], True, []
        return max(remote[0], local[0], key=Pid.sort_key), True, []

    # --- tables -----------------------------------------------------------------------------------

    def _replace(self, key: object, known: _Name, claim: Claim, reason: Term) -> list[Effect]:
        pid, meta, time = claim
        self._remove(key)
        self._put(key, _Name(known.name, pid, meta, time))
        return [
            self._event("unregistered", known.name, known.pid, known.meta, reason),
            self._event("registered", known.name, pid, meta, reason),
        ]

    def _put(self, key: object, entry: _Name) -> None:
        self._names[key] = entry
        self._keys.setdefault(entry.pid.node, {})[key] = None

    def _remove(self, key: object) -> _Name:
        entry = self._names.pop(key)
        keys = self._keys[entry.pid.node]
        del keys[key]
        if not keys:
            del self._keys[entry.pid.node]
        return entry
