"""OTP's process groups (``pg``), shared with the BEAM nodes. Layer: groups.

The functions are those of the Erlang module, with the place where they act first: the ``Node``, or the
calling ``Process`` (``me``) anywhere on the node, also in a worker. A scope has to be started on the node
once (``start``); with a ``Node`` that happens at the first use. Group names are any term, a string is a
binary::

    await pg.join(node, "workers", pid)
    for pid in await pg.get_members(node, "workers"):
        node.send(pid, work)

Programs in the node's own operating-system process can keep the scope and use it without ``await``:
``scope = pg.start(node)``, ``scope.get_members("workers")``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from pyglyn import etf
from pyglyn.errors import NotInGroup
from pyglyn.etf import Atom, Pid, Reference, Term
from pyglyn.groups import operations
from pyglyn.groups.effects import Effect
from pyglyn.groups.pg_state import PgState
from pyglyn.groups.scope import Scope
from pyglyn.node import At, Node, Process
from pyglyn.node.reasons import UNDEFINED

DEFAULT_SCOPE = "pg"


class PgScope(Scope[PgState]):
    """One ``pg`` scope on one node, for programs in the node's own operating-system process.

    Args:
        node: the node.
        scope: the scope's name.
    """

    operations = frozenset(
        (
            "join", "leave", "get_members", "get_local_members", "which_groups", "which_local_groups",
            "nodes", "monitor", "monitor_scope", "demonitor",
        )
    )  # fmt: skip

    def __init__(self, node: Node, scope: str) -> None:
        super().__init__(node, scope)
        self.scope = scope

    def make_machine(self, process: Process) -> PgState:
        """A new machine for a new scope process."""
        return PgState(process.pid, self.scope, process.make_ref, self.is_busy)

    def take_over(self, old: PgState) -> list[Effect]:
        """Give the new machine the local members of the old one."""
        effects: list[Effect] = []
        for group in old.which_local_groups():
            effects += self.machine.join(group, old.get_local_members(group))
        return effects

    def take(self, message: Term, now: float) -> list[Effect]:
        """Hand the machine a message."""
        return self.machine.handle_message(message, now)

    def join(self, group: Term, pids: Pid | Sequence[Pid]) -> None:
        """Add local processes to a group; a list may name one several times.

        Raises:
            ValueError: a pid of another node, or the name is too large.
            EncodeError: the group's name is no term.
        """
        self.perform(self.machine.join(etf.normalise(group), pids))

    def leave(self, group: Term, pids: Pid | Sequence[Pid]) -> None:
        """Take local processes out, one membership for each time a pid is named.

        Raises:
            NotInGroup: none of them is a member.
            ValueError: a pid of another node, or the name is too large.
        """
        left, effects = self.machine.leave(etf.normalise(group), pids)
        self.perform(effects)
        if not left:
            raise NotInGroup(f"none of the processes is a member of the group in scope {self.scope}")

    def get_members(self, group: Term) -> list[Pid]:
        """All members of a group, on all nodes; a pid as often as it joined."""
        return self.machine.get_members(etf.normalise(group))

    def get_local_members(self, group: Term) -> list[Pid]:
        """The members of a group on this node."""
        return self.machine.get_local_members(etf.normalise(group))

    def which_groups(self) -> list[Term]:
        """The groups that have members."""
        return self.machine.which_groups()

    def which_local_groups(self) -> list[Term]:
        """The groups that have members on this node."""
        return self.machine.which_local_groups()

    def nodes(self) -> list[str]:
        """The other nodes that run this scope."""
        return self.machine.nodes()

    def overview(self) -> Term:
        """``{pg, Scope, [{Group, [{Pid, Meta}]}]}``."""
        groups: Term = [
            (group, [(pid, UNDEFINED) for pid in self.get_members(group)]) for group in self.which_groups()
        ]
        return Atom("pg"), self.scope.encode(), groups

    def monitor(self, subscriber: Pid, group: Term) -> tuple[Reference, list[Pid]]:
        """Subscribe a process to a group; see ``monitor`` of this module."""
        ref, members, effects = self.machine.monitor(subscriber, etf.normalise(group))
        self.perform(effects)
        return ref, members

    def monitor_scope(self, subscriber: Pid) -> tuple[Reference, list[tuple[Term, list[Pid]]]]:
        """Subscribe a process to all groups; see ``monitor_scope`` of this module."""
        ref, groups, effects = self.machine.monitor_scope(subscriber)
        self.perform(effects)
        return ref, groups

    def demonitor(self, ref: Reference) -> bool:
        """End a subscription; False if there is none."""
        known, effects = self.machine.demonitor(ref)
        self.perform(effects)
        return known


def start(node: Node, scope: str = DEFAULT_SCOPE) -> PgScope:
    """Start a scope on a node, or return the one that runs.

    Raises:
        NameTaken: another process of the node is registered under the scope's name.
    """
    return operations.started(node, scope, lambda: PgScope(node, scope))


def stop(node: Node, scope: str = DEFAULT_SCOPE) -> bool:
    """Stop a scope of a node; False if it does not run."""
    return operations.stopped(node, scope)


async def _do(at: At, scope: str, operation: str, *args: Any) -> Any:
    if isinstance(at, Node):
        start(at, scope)
    return await operations.do(at, scope, operation, *args)


async def join(at: At, group: Term, pids: Pid | Sequence[Pid], *, scope: str = DEFAULT_SCOPE) -> None:
    """Add processes of this node to a group; a pid that is named several times joins several times.

    A member that ends leaves by itself.

    Raises:
        ValueError: a pid of another node, or the name is too large.
        NoProcess: called with a process, and the scope was not started on this node.
    """
    await _do(at, scope, "join", group, _term(pids))


async def leave(at: At, group: Term, pids: Pid | Sequence[Pid], *, scope: str = DEFAULT_SCOPE) -> None:
    """Take processes of this node out, one membership for each time a pid is named.

    Raises:
        NotInGroup: none of them is a member.
        ValueError: a pid of another node, or the name is too large.
    """
    await _do(at, scope, "leave", group, _term(pids))


async def get_members(at: At, group: Term, *, scope: str = DEFAULT_SCOPE) -> list[Pid]:
    """All members of a group, on all nodes; a pid as often as it joined."""
    return cast("list[Pid]", await _do(at, scope, "get_members", group))


async def get_local_members(at: At, group: Term, *, scope: str = DEFAULT_SCOPE) -> list[Pid]:
    """The members of a group on this node."""
    return cast("list[Pid]", await _do(at, scope, "get_local_members", group))


async def which_groups(at: At, *, scope: str = DEFAULT_SCOPE) -> list[Term]:
    """The groups that have members."""
    return cast("list[Term]", await _do(at, scope, "which_groups"))


async def which_local_groups(at: At, *, scope: str = DEFAULT_SCOPE) -> list[Term]:
    """The groups that have members on this node."""
    return cast("list[Term]", await _do(at, scope, "which_local_groups"))


async def monitor(me: Process, group: Term, *, scope: str = DEFAULT_SCOPE) -> tuple[Reference, list[Pid]]:
    """Subscribe a process to a group: the reference, and the members now.

    From now on it gets messages ``(ref, what, group, [pid, …])``; ``what`` is the atom ``join`` or ``leave``.
    """
    ref, members = await _do(me, scope, "monitor", me.pid, group)
    return ref, members


async def monitor_scope(
    me: Process, *, scope: str = DEFAULT_SCOPE
) -> tuple[Reference, list[tuple[Term, list[Pid]]]]:
    """Subscribe a process to all groups, as ``monitor``: the reference, and all groups with their members."""
    ref, groups = await _do(me, scope, "monitor_scope", me.pid)
    return ref, groups


async def demonitor(me: Process, ref: Reference, *, scope: str = DEFAULT_SCOPE) -> bool:
    """End a subscription, and take its messages that wait out of the mailbox; False if there is none."""
    known = bool(await _do(me, scope, "demonitor", ref))
    while known:
        try:
            await me.receive(lambda m: isinstance(m, tuple) and len(m) == 4 and m[0] == ref, timeout=0)
        except TimeoutError:
            break
    return known


def _term(pids: Pid | Sequence[Pid]) -> Pid | list[Pid]:
    return pids if isinstance(pids, Pid) else list(pids)
