"""Process groups and registry of ``syn``, shared with the BEAM nodes. Layer: groups.

The functions are those of the Erlang module ``syn`` 3.x, with the place where they act first: the ``Node``,
or the calling ``Process`` (``me``) anywhere on the node, also in a worker. A scope has to be started on the
node once (``start``; syn's ``add_node_to_scopes``); with a ``Node`` that happens at the first use. Names of
groups and processes are any term, a string is a binary; metadata are any term, ``undefined`` by default::

    await syn.join(node, "users", "room 1", pid)
    count = await syn.publish(node, "users", "room 1", "hello")

Processes of other nodes can be joined and registered as well; their node's scope process is asked then.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any, cast

import attrs

from pyglyn.errors import NodeBusy, NotInGroup, RegistrationFailed
from pyglyn.etf import Atom, Pid, Reference, Term
from pyglyn.groups import operations
from pyglyn.groups.effects import Event
from pyglyn.groups.syn_registry_state import Resolve
from pyglyn.groups.syn_scope import SynGroupsScope, SynRegistryScope
from pyglyn.node import At, Node
from pyglyn.node.reasons import UNDEFINED
from pyglyn.node.signals import DownSignal

_PYGLYN, _PUBLISH = Atom("pyglyn"), Atom("publish")
MULTI_CALL = Atom("syn_multi_call")
MULTI_CALL_REPLY = Atom("syn_multi_call_reply")


@attrs.frozen
class Syn:
    """A running scope: its process groups and its registry, to be used without ``await`` where they can.

    Attributes:
        groups: the process groups.
        registry: the names.
    """

    groups: SynGroupsScope
    registry: SynRegistryScope

    def on_event(self, listener: Callable[[Event], None]) -> Callable[[], None]:
        """Call ``listener`` with each ``Event`` of the scope from now on; returns its removal."""
        for each in (self.groups, self.registry):
            each.listeners.append(listener)

        def remove() -> None:
            for each in (self.groups, self.registry):
                each.listeners.remove(listener)

        return remove


def start(node: Node, scope: str, *, resolve: Resolve | None = None) -> Syn:
    """Start a scope on a node, or return the one that runs.

    Args:
        resolve: decides registry conflicts instead of the times, ``(scope, name, (pid, meta, time), (pid,
            meta, time)) -> the pid to keep``; the same on every node. Only the first ``start`` counts.

    Raises:
        NameTaken: another process of the node is registered under the scope's name.
    """
    node.builtins.add("pyglyn", _publish_on(node), "publish")
    return Syn(
        operations.started(node, f"syn_pg_{scope}", lambda: SynGroupsScope(node, scope)),
        operations.started(node, f"syn_registry_{scope}", lambda: SynRegistryScope(node, scope, resolve)),
    )


def _publish_on(node: Node) -> Callable[[Term, Term, Term], Awaitable[Term]]:
    """The function ``pyglyn:publish`` of a node, for ``pyglyn publish``: as ``syn:publish``."""

    async def publish_here(scope: Term, group: Term, message: Term) -> Term:
        return Atom("ok"), await publish(node, str(scope), group, message)

    return publish_here


def stop(node: Node, scope: str) -> bool:
    """Stop a scope of a node; False if it does not run."""
    return any(
        [operations.stopped(node, f"syn_pg_{scope}"), operations.stopped(node, f"syn_registry_{scope}")]
    )


async def _groups(at: At, scope: str, operation: str, *args: Any) -> Any:
    if isinstance(at, Node):
        start(at, scope)
    return await operations.do(at, f"syn_pg_{scope}", operation, *args)


async def _registry(at: At, scope: str, operation: str, *args: Any) -> Any:
    if isinstance(at, Node):
        start(at, scope)
    return await operations.do(at, f"syn_registry_{scope}", operation, *args)


# --- process groups --------------------------------------------------------------------------------


async def join(at: At, scope: str, group: Term, pid: Pid, meta: Term = UNDEFINED) -> None:
    """Add a process to a group, or change its metadata.

    Raises:
        NoProcess: it is not alive, or the scope was not started on this node.
        CallFailed, CallTimeout: the scope process of its node did not answer.
    """
    await _groups(at, scope, "join", group, pid, meta)


async def leave(at: At, scope: str, group: Term, pid: Pid) -> None:
    """Take a process out of a group.

    Raises:
        NotInGroup: it is no member.
        CallFailed, CallTimeout: the scope process of its node did not answer.
    """
    await _groups(at, scope, "leave", group, pid)


async def members(at: At, scope: str, group: Term) -> list[tuple[Pid, Term]]:
    """The members of a group on all nodes, with their metadata."""
    return cast("list[tuple[Pid, Term]]", await _groups(at, scope, "members", group))


async def local_members(at: At, scope: str, group: Term) -> list[tuple[Pid, Term]]:
    """The members of a group on this node, with their metadata."""
    return cast("list[tuple[Pid, Term]]", await _groups(at, scope, "local_members", group))


async def member(at: At, scope: str, group: Term, pid: Pid) -> tuple[Pid, Term] | None:
    """One member with its metadata, or None."""
    return cast("tuple[Pid, Term] | None", await _groups(at, scope, "member", group, pid))


async def is_member(at: At, scope: str, group: Term, pid: Pid) -> bool:
    """Whether a process is a member of a group."""
    return await member(at, scope, group, pid) is not None


async def member_count(at: At, scope: str, group: Term, *, node: str | None = None) -> int:
    """How many members a group has, on all nodes or on one."""
    return int(await _groups(at, scope, "member_count", group, node))


async def group_names(at: At, scope: str, *, node: str | None = None) -> list[Term]:
    """The groups that have members, anywhere or on one node."""
    return cast("list[Term]", await _groups(at, scope, "group_names", node))


async def group_count(at: At, scope: str, *, node: str | None = None) -> int:
    """How many groups have members, anywhere or on one node."""
    return len(await group_names(at, scope, node=node))


async def settled(at: At, scope: str) -> None:
    """Wait until each node that is connected now has told its members, or is known not to have the scope.

    Just after a connect, ``members`` knows nothing of the other node yet.
    """
    if isinstance(at, Node):
        start(at, scope)
    await operations.do(at, f"syn_pg_{scope}", "settled", timeout=None)


async def nodes_with_private_groups(at: At, scope: str) -> list[str]:
    """The nodes with members of groups named ``{Reference, _}``, as Glyn makes them after 2.0.3."""
    return [node.name for node in await _groups(at, scope, "nodes_with_private_groups")]


async def update_member(
    at: At, scope: str, group: Term, pid: Pid, change: Callable[[Term], Term]
) -> tuple[Pid, Term]:
    """Change a member's metadata to ``change(its metadata)``; returns the member with the new ones.

    One step where both the caller and the member are in the node's own operating-system process; else
    another change may come in between.

    Raises:
        NotInGroup: it is no member.
    """
    if isinstance(at, Node):
        start(at, scope)
    here = cast("SynGroupsScope | None", operations.running(at, f"syn_pg_{scope}"))
    if here is not None:
        return await here.update_member(group, pid, change)
    known = await member(at, scope, group, pid)
    if known is None:
        raise NotInGroup(f"{pid} is no member of the group")
    meta = change(known[1])
    await join(at, scope, group, pid, meta)
    return pid, meta


async def publish(at: At, scope: str, group: Term, message: Term) -> int:
    """Send a message to every member of a group, on all nodes; returns to how many.

    Raises:
        NodeBusy: far too much is queued for a node; all others got the message.
    """
    return _send_all(at, await members(at, scope, group), message)


async def local_publish(at: At, scope: str, group: Term, message: Term) -> int:
    """Send a message to every member of a group on this node; returns to how many."""
    return _send_all(at, await local_members(at, scope, group), message)


def _send_all(at: At, to: list[tuple[Pid, Term]], message: Term) -> int:
    busy: NodeBusy | None = None
    for pid, _ in to:
        try:
            at.send(pid, message)
        except NodeBusy as error:
            busy = error
    if busy is not None:
        raise busy
    return len(to)


Member = tuple[Pid, Term]


async def multi_call(
    at: At, scope: str, group: Term, message: Term, timeout: float = 5.0
) -> tuple[list[tuple[Member, Term]], list[Member]]:
    """Ask every member of a group at once; a member answers with ``multi_call_reply``.

    Returns:
        The replies, each with its member, and the members that ended or did not reply within ``timeout``
        seconds.
    """
    asked = await members(at, scope, group)
    helper = at.runtime.attach("syn multi_call")
    helper.marks_signals = True
    waiting: dict[Reference, Member] = {}
    replies: list[tuple[Member, Term]] = []
    bad: list[Member] = []
    try:
        for pid, meta in asked:
            ref = helper.monitor(pid)
            waiting[ref] = (pid, meta)
            with contextlib.suppress(NodeBusy):
                helper.send(pid, (MULTI_CALL, message, (helper.pid, ref), meta))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while waiting:
                    _take_reply(await helper.receive(), waiting, replies, bad)
    finally:
        helper.end()
    return replies, [*bad, *waiting.values()]


def _take_reply(
    message: Term,
    waiting: dict[Reference, Member],
    replies: list[tuple[Member, Term]],
    bad: list[Member],
) -> None:
    match message:
        case (Atom("syn_multi_call_reply"), Reference() as ref, reply) if ref in waiting:
            replies.append((waiting.pop(ref), reply))
        case DownSignal((_, Reference() as ref, *_)) if ref in waiting:
            bad.append(waiting.pop(ref))


def multi_call_reply(me: At, caller: Term, reply: Term) -> None:
    """Answer a ``multi_call``: the member got ``(Atom("syn_multi_call"), message, caller, its metadata)``.

    Raises:
        ValueError: ``caller`` is no caller of a multi call.
    """
    match caller:
        case (Pid() as pid, ref):
            me.send(pid, (MULTI_CALL_REPLY, ref, reply))
        case _:
            raise ValueError(f"the caller of a multi call is a pair of pid and reference, got {caller!r}")


# --- registry --------------------------------------------------------------------------------------


async def register(at: At, scope: str, name: Term, pid: Pid, meta: Term = UNDEFINED) -> None:
    """Give a process a name, or change the metadata of the name it has.

    Raises:
        RegistrationFailed: another process has the name.
        NoProcess: it is not alive, or the scope was not started on this node.
        CallFailed, CallTimeout: the scope process of its node did not answer.
    """
    await _registry(at, scope, "register", name, pid, meta)


async def unregister(at: At, scope: str, name: Term) -> None:
    """Free a name, whichever node its process is on.

    Raises:
        RegistrationFailed: nobody has it.
        CallFailed, CallTimeout: the scope process of that node did not answer.
    """
    await _registry(at, scope, "unregister", name)


async def lookup(at: At, scope: str, name: Term) -> tuple[Pid, Term] | None:
    """The process of a name and its metadata, or None."""
    return cast("tuple[Pid, Term] | None", await _registry(at, scope, "lookup", name))


async def update(at: At, scope: str, name: Term, change: Callable[[Pid, Term], Term]) -> tuple[Pid, Term]:
    """Change a name's metadata to ``change(pid, its metadata)``; returns the process and the new metadata.

    One step where both the caller and the process are in the node's own operating-system process; else
    another change may come in between.

    Raises:
        RegistrationFailed: nobody has the name.
    """
    if isinstance(at, Node):
        start(at, scope)
    here = cast("SynRegistryScope | None", operations.running(at, f"syn_registry_{scope}"))
    if here is not None:
        return await here.update(name, change)
    known = await lookup(at, scope, name)
    if known is None:
        raise RegistrationFailed("nobody has the name", cause="undefined")
    pid, meta = known[0], change(*known)
    await register(at, scope, name, pid, meta)
    return pid, meta


async def count(at: At, scope: str, *, node: str | None = None) -> int:
    """How many names there are, of all nodes or of one."""
    return int(await _registry(at, scope, "count", node))
