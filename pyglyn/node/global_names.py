"""``global_name_server`` of a visible node: enough of ``global`` that nobody waits for it. Layer: node.

Source: global.erl (OTP 25, 28). To each visible node that comes up a BEAM node sends ``init_connect``,
and counts it as not in sync until it has answered: ``global:sync/0`` waits as long as that takes. A
whole answer would be an exchange of all names, under a lock in both partitions, and from then on every
change. The answer here is ``in_sync`` at once: with that the BEAM node ends its part, and never counts
this node as one of the *known* ones, whom it tells of names and asks before a change. So names
registered with ``global`` are not kept here; ask a BEAM node for them, by ``rpc``. Locks that somebody
sets on this node (``global:set_lock/1`` does on all visible ones) are kept.

Not supported: keeping the mesh. Nodes that this one is not connected to are not told of it.
"""

from __future__ import annotations

from typing import Final

import attrs

from pyglyn.etf import Atom, Pid, Reference, Term, exact_key
from pyglyn.node.calls import GEN_CAST, Caller, reply
from pyglyn.node.process import Process
from pyglyn.node.signals import DownSignal

GLOBAL_NAME_SERVER: Final = "global_name_server"
MAX_LOCKS: Final = 10_000
"""Locks that may be held, one by several processes counted for each; peers set them."""


@attrs.frozen
class _Lock:
    """Who has a resource: one requester, by any number of processes, each watched."""

    requester: Term
    pids: dict[Pid, Reference] = attrs.field(factory=dict)


class GlobalNames:
    """The body of the process.

    Args:
        most: how many locks may be held.
    """

    def __init__(self, most: int = MAX_LOCKS) -> None:
        self._most = most
        self._locks: dict[object, _Lock] = {}
        self._held: dict[Reference, tuple[object, Pid]] = {}

    async def __call__(self, me: Process) -> None:
        """Answer for ever."""
        self._locks.clear()
        self._held.clear()
        me.marks_signals = True
        while True:
            match await me.receive():
                case (Atom("$gen_cast"), (Atom("init_connect"), _, Atom() as node, _)):
                    in_sync = (Atom("in_sync"), Atom(me.node), True)
                    me.send((GLOBAL_NAME_SERVER, node.name), (GEN_CAST, in_sync))
                case (Atom("$gen_call"), from_, (Atom("set_lock"), (resource, requester))):
                    if (caller := Caller.from_term(from_)) is not None:
                        reply(me, caller, self._set(me, resource, requester, caller.pid))
                case (Atom("$gen_call"), from_, (Atom("del_lock"), (resource, requester))):
                    if (caller := Caller.from_term(from_)) is not None:
                        self._delete(me, resource, requester, caller.pid)
                        reply(me, caller, True)
                case DownSignal((_, Reference() as ref, *_)):
                    self._ended(ref)

    def _set(self, me: Process, resource: Term, requester: Term, pid: Pid) -> bool:
        key = exact_key(resource)
        lock = self._locks.get(key)
        if lock is not None:
            if exact_key(lock.requester) != exact_key(requester):
                return False
            if pid in lock.pids:
                return True
        if len(self._held) >= self._most:
            return False
        if lock is None:
            lock = self._locks[key] = _Lock(requester)
        ref = lock.pids[pid] = me.monitor(pid)
        self._held[ref] = (key, pid)
        return True

    def _delete(self, me: Process, resource: Term, requester: Term, pid: Pid) -> None:
        lock = self._locks.get(exact_key(resource))
        if lock is not None and exact_key(lock.requester) == exact_key(requester) and pid in lock.pids:
            ref = lock.pids[pid]
            me.demonitor(ref)
            self._ended(ref)

    def _ended(self, ref: Reference) -> None:
        """Whoever is watched by this holds its lock no more."""
        held = self._held.pop(ref, None)
        if held is not None:
            key, pid = held
            lock = self._locks[key]
            del lock.pids[pid]
            if not lock.pids:
                del self._locks[key]
