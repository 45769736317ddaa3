"""The two scope processes of a syn scope on a node. Layer: groups."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Any, TypeVar

from pyglyn import etf
from pyglyn.errors import GroupError, NoProcess, NotInGroup, RegistrationFailed
from pyglyn.etf import Atom, Pid, Reference, Term
from pyglyn.groups.effects import Effect, Event
from pyglyn.groups.scope import Scope
from pyglyn.groups.syn_pg_state import SynGroups
from pyglyn.groups.syn_registry_state import Resolve, SynRegistry
from pyglyn.groups.syn_state import V3, SynScope
from pyglyn.node import Node, Process
from pyglyn.node.reasons import UNDEFINED

NOT_ALIVE = Atom("not_alive")

M = TypeVar("M", bound=SynScope)


class SynScopeProcess(Scope[M]):
    """What the two have in common.

    Args:
        node: the node.
        scope: the name of the syn scope.
    """

    def __init__(self, node: Node, scope: str, handler: str) -> None:
        super().__init__(node, f"{handler}_{scope}")
        self.scope = scope

    def take_over(self, old: M) -> list[Effect]:
        """Give the new machine the old one's local members; callbacks learn that the others are gone."""
        gone = [effect for node in old.subcluster_nodes() for effect in old.handle_node_down(node)]
        events: list[Effect] = [effect for effect in gone if isinstance(effect, Event)]
        return events + self.machine.restore(old.local_entries())

    def take(self, message: Term, now: float) -> list[Effect]:
        """Hand the machine a message."""
        return self.machine.handle_message(message, now, time.time_ns())

    def subcluster_nodes(self) -> list[str]:
        """The other nodes that run this scope."""
        return self.machine.subcluster_nodes()

    def _is_alive(self, pid: Pid) -> bool:
        """Whether a process of this node lives; of one in a worker the monitor will tell."""
        runtime = self.node.runtime
        return not runtime.is_here(pid) or pid.id in runtime.processes

    def _is_ours(self, pid: Pid) -> bool:
        return pid.node == self.node.name

    async def _ask(self, pid: Pid, request: tuple[Any, ...]) -> Any:
        """Call the scope process of the node on which a process lives, as syn does for its callers.

        Raises:
            CallFailed: the scope does not run there, or there is no connection.
            CallTimeout: no answer within 5 seconds.
        """
        return await self.node.call((self.name, pid.node), (V3, *request))


class SynGroupsScope(SynScopeProcess[SynGroups]):
    """The process groups of one syn scope on one node, for programs in the node's own process."""

    operations = frozenset(
        (
            "join",
            "leave",
            "members",
            "local_members",
            "settled",
            "member",
            "member_count",
            "group_names",
            "nodes_with_private_groups",
        )
    )

    def __init__(self, node: Node, scope: str) -> None:
        super().__init__(node, scope, SynGroups.handler)
        self._private_members: Counter[str] = Counter()
        self.listeners.append(self._count_private)

    def make_machine(self, process: Process) -> SynGroups:
        """A new machine for a new scope process."""
        return SynGroups(process.pid, self.scope, is_alive=self._is_alive, is_busy=self.is_busy)

    async def join(self, group: Term, pid: Pid, meta: Term = UNDEFINED) -> None:
        """Add a process, of any node that runs the scope, to a group, or change its metadata.

        Raises:
            NoProcess: it is not alive.
            CallFailed, CallTimeout: the scope process of its node did not answer.
        """
        group, meta = etf.normalise(group), etf.normalise(meta)
        if self._is_ours(pid):
            reply, effects = self.machine.join(group, pid, meta, time.time_ns())
        else:
            own = Atom(self.node.name)
            reply = await self._ask(pid, (Atom("join_or_update_on_node"), own, group, pid, meta))
            effects = self.machine.applied_join(group, pid, reply)
        self.perform(effects)
        _check(reply, f"{pid} cannot join the group")

    async def update_member(self, group: Term, pid: Pid, change: Callable[[Term], Term]) -> tuple[Pid, Term]:
        """Change a member's metadata to ``change(its metadata)``; atomic for processes of this node.

        Raises:
            NotInGroup: it is no member.
        """
        group = etf.normalise(group)
        known = self.machine.member(group, pid)
        if known is None:
            raise NotInGroup(f"{pid} is no member of the group")
        meta = change(known[1])
        await self.join(group, pid, meta)
        return pid, meta

    async def leave(self, group: Term, pid: Pid) -> None:
        """Take a process, of any node that runs the scope, out of a group.

        Raises:
            NotInGroup: it is no member.
            CallFailed, CallTimeout: the scope process of its node did not answer.
        """
        group = etf.normalise(group)
        if self._is_ours(pid):
            reply, effects = self.machine.leave(group, pid)
        else:
            reply = await self._ask(pid, (Atom("leave_on_node"), Atom(self.node.name), group, pid))
            effects = self.machine.applied_leave(group, pid, reply)
        self.perform(effects)
        _check(reply, f"{pid} cannot leave the group")

    def members(self, group: Term, node: str | None = None) -> list[tuple[Pid, Term]]:
        """The members of a group with their metadata, of all nodes or of one."""
        return self.machine.members(etf.normalise(group), node)

    def local_members(self, group: Term) -> list[tuple[Pid, Term]]:
        """The members on this node."""
        return self.machine.local_members(etf.normalise(group))

    def member(self, group: Term, pid: Pid) -> tuple[Pid, Term] | None:
        """One member with its metadata, or None."""
        return self.machine.member(etf.normalise(group), pid)

    def member_count(self, group: Term, node: Term = None) -> int:
        """How many members a group has, on all nodes or on one."""
        return self.machine.member_count(etf.normalise(group), _node_name(node))

    def overview(self) -> Term:
        """``{syn_groups, Scope, [{Group, [{Pid, Meta}]}]}``."""
        groups: Term = [(group, self.members(group)) for group in self.group_names()]
        return Atom("syn_groups"), self.scope.encode(), groups

    def group_names(self, node: Term = None) -> list[Term]:
        """The groups that have members, anywhere or on one node."""
        return self.machine.group_names(_node_name(node))

    def nodes_with_private_groups(self) -> list[Term]:
        """The nodes with members of groups named ``{Reference, _}``, as Glyn makes them after 2.0.3."""
        return [Atom(node) for node, count in self._private_members.items() if count > 0]

    def _count_private(self, event: Event) -> None:
        if isinstance(event.name, tuple) and len(event.name) == 2 and isinstance(event.name[0], Reference):
            self._private_members[event.pid.node] += {"joined": 1, "left": -1}.get(event.kind, 0)


class SynRegistryScope(SynScopeProcess[SynRegistry]):
    """The registry of one syn scope on one node, for programs in the node's own process.

    Args:
        resolve: decides conflicts instead of the time of registration; see ``SynRegistry``.
    """

    operations = frozenset(("register", "unregister", "lookup", "count", "names"))

    def __init__(self, node: Node, scope: str, resolve: Resolve | None = None) -> None:
        super().__init__(node, scope, SynRegistry.handler)
        self.resolve = resolve

    def make_machine(self, process: Process) -> SynRegistry:
        """A new machine for a new scope process."""
        return SynRegistry(
            process.pid, self.scope, is_alive=self._is_alive, is_busy=self.is_busy, resolve=self.resolve
        )

    async def register(self, name: Term, pid: Pid, meta: Term = UNDEFINED) -> None:
        """Give a process, of any node that runs the scope, a name, or change the metadata of its name.

        Raises:
            RegistrationFailed: the name is taken.
            NoProcess: the process is not alive.
            CallFailed, CallTimeout: the scope process of its node did not answer.
        """
        name, meta = etf.normalise(name), etf.normalise(meta)
        if self._is_ours(pid):
            reply, effects = self.machine.register(name, pid, meta, time.time_ns())
        else:
            own = Atom(self.node.name)
            reply = await self._ask(pid, (Atom("register_or_update_on_node"), own, name, pid, meta))
            effects = self.machine.applied_register(name, pid, reply)
        self.perform(effects)
        _check(reply, "the name cannot be registered")

    async def update(self, name: Term, change: Callable[[Pid, Term], Term]) -> tuple[Pid, Term]:
        """Change a name's metadata to ``change(pid, its metadata)``; atomic for processes of this node.

        Raises:
            RegistrationFailed: nobody has the name.
        """
        name = etf.normalise(name)
        known = self.machine.lookup(name)
        if known is None:
            raise RegistrationFailed("nobody has the name", cause="undefined")
        meta = change(*known)
        await self.register(name, known[0], meta)
        return known[0], meta

    async def unregister(self, name: Term) -> None:
        """Free a name, whichever node its process is on.

        Raises:
            RegistrationFailed: nobody has it.
            CallFailed, CallTimeout: the scope process of that node did not answer.
        """
        name = etf.normalise(name)
        known = self.machine.lookup(name)
        if known is None:
            raise RegistrationFailed("nobody has the name", cause="undefined")
        pid = known[0]
        if self._is_ours(pid):
            reply, effects = self.machine.unregister(name, pid)
        else:
            reply = await self._ask(pid, (Atom("unregister_on_node"), Atom(self.node.name), name, pid))
            effects = self.machine.applied_unregister(name, pid, reply)
        self.perform(effects)
        _check(reply, "the name cannot be freed")

    def overview(self) -> Term:
        """``{syn_registry, Scope, [{Name, [{Pid, Meta}]}]}``."""
        names: Term = [(name, [self.lookup(name)]) for name in self.names()]
        return Atom("syn_registry"), self.scope.encode(), names

    def lookup(self, name: Term) -> tuple[Pid, Term] | None:
        """The process of a name and its metadata, or None."""
        return self.machine.lookup(etf.normalise(name))

    def count(self, node: Term = None) -> int:
        """How many names there are, of all nodes or of one."""
        return self.machine.count(_node_name(node))

    def names(self, node: Term = None) -> list[Term]:
        """The names, of all nodes or of one."""
        return self.machine.names(_node_name(node))


def _node_name(node: Term) -> str | None:
    """A node's name as it comes from a program, or as a term from a worker."""
    if node is None or isinstance(node, str):
        return node
    return node.decode() if isinstance(node, bytes) else str(node)


def _check(reply: Term, failure: str) -> None:
    """Raise what an error reply of a scope process means."""
    match reply:
        case (Atom("ok"), _) | (Atom("noop"), _):
            return
        case (Atom("error"), Atom("not_alive")):
            raise NoProcess(f"{failure}: it is not alive")
        case (Atom("error"), Atom("not_in_group")):
            raise NotInGroup(f"{failure}: it is no member")
        case (Atom("error"), Atom() as cause):
            raise RegistrationFailed(f"{failure}: {cause}", cause=cause.name)
    raise GroupError(f"{failure}: {etf.text.format(reply)[:200]}")
