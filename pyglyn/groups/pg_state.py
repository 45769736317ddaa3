"""One OTP ``pg`` scope: messages, calls and DOWNs in, effects out. Layer: groups, pure.

Source: pg.erl of OTP 25 and 28 (their exchange differs only in ``discover/3``, which is accepted and never
sent: it crashes OTP 25); checked against running nodes of both. Scope processes exchange

======================================================  ==============================================
``{discover, Peer}``                                     asks for a sync
``{'$gen_cast', {sync, Peer, [{Group, [Pid]}]}}``        all local members of the sender
``{join, Peer, Group, Pid | [Pid]}``                     to every known peer
``{leave, Peer, Pid | [Pid], [Group]}``                  to every known peer; a group once per membership
======================================================  ==============================================

A pid is in a group as often as it joined. Two things crash the peer's scope process: any other message, and
a leave that names a group which the peer does not have for us. Hence the rule that carries this module:
**a peer gets joins and leaves only after it got our sync** on this incarnation (``_Peer.synced``), and
everything goes to it in one stream. Until then joins and leaves are part of the sync to come.

A peer that does not take what it gets is not told of joins and leaves for that time, and is not answered: it
gets one sync when it reads again. So no more than a sync and a little waits for it, whatever it asks for.

Not supported: ``pg:start`` of another version's state. Differs from pg.erl on purpose: pids that do not live
on the sending scope's node, names beyond ``MAX_NAME_BYTES`` and messages of nodes without a connection are
dropped; a leave of pids that were no members is not broadcast.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import attrs

from pyglyn.escaping import shown
from pyglyn.etf import Atom, Pid, Reference, Term, TermMap, exact_key
from pyglyn.groups.discovery import Discovery
from pyglyn.groups.effects import (
    AnswerCall,
    Effect,
    Monitors,
    Rejections,
    Send,
    Target,
    too_large,
)
from pyglyn.groups.membership import Leaving, Membership
from pyglyn.node.reasons import BADARG, ERROR, OK

DISCOVER = Atom("discover")
GEN_CAST = Atom("$gen_cast")
GEN_CALL = Atom("$gen_call")
SYNC = Atom("sync")
JOIN = Atom("join")
LEAVE = Atom("leave")
MONITOR = Atom("monitor")
DEMONITOR = Atom("demonitor")
JOIN_LOCAL = Atom("join_local")
LEAVE_LOCAL = Atom("leave_local")
NOT_JOINED = Atom("not_joined")
REFUSED = (ERROR, BADARG)

BUSY_WAIT_S = 1.0
"""How often it is looked whether a peer that does not take what it gets does so again."""
MAX_OF_A_NODE = 10
"""Subscriptions that processes of another node may have here: each costs a message for each change."""
ANSWER_WAIT_S = 0.1
"""A peer that did not know us asks for our sync right after it sent its own; one that did gets it unasked."""


@attrs.define
class _Peer:
    """A scope process of another node: its members, and whether it got our sync."""

    members: Membership = attrs.field(factory=Membership)
    synced: bool = False
    answer_due: float | None = None


@attrs.frozen
class _Subscriber:
    """Who is told; ``key`` is that of one group, in a tuple, or None for all."""

    pid: Pid
    key: tuple[object] | None


class PgState:
    """The state of one scope on this node.

    Args:
        pid: this scope's process; a new process needs a new state.
        scope: the scope's name, under which the process is registered.
        make_reference: makes the references that subscriptions are known by.
        is_busy: whether a node has much queued for it that it does not take.
    """

    def __init__(
        self,
        pid: Pid,
        scope: str,
        make_reference: Callable[[], Reference],
        is_busy: Callable[[str], bool] = lambda node: False,
    ) -> None:
        self.pid = pid
        self.scope = scope
        self.rejections = Rejections()
        self._make_reference = make_reference
        self._is_busy = is_busy
        self._monitors = Monitors()
        self.discovery = Discovery(Atom(scope), self._monitors, lambda: (DISCOVER, self.pid))
        self._local = Membership()
        self._local_groups: dict[Pid, dict[object, int]] = {}
        self._peers: dict[Pid, _Peer] = {}
        self._subscribers: dict[Reference, _Subscriber] = {}
        self._by_key: dict[object, dict[Reference, Pid]] = {}  # of one group; None: of all
        self._by_pid: dict[Pid, dict[Reference, None]] = {}
        self._of_others: Counter[str] = Counter()

    # --- questions --------------------------------------------------------------------------------

    def get_members(self, group: Term) -> list[Pid]:
        """All members of a group, on all nodes; a pid as often as it joined."""
        key = exact_key(group)
        members = self._local.pids(key)
        for peer in self._peers.values():
            members += peer.members.pids(key)
        return members

    def get_local_members(self, group: Term) -> list[Pid]:
        """The members on this node."""
        return self._local.pids(exact_key(group))

    def which_groups(self) -> list[Term]:
        """The groups that have members."""
        names = {key: name for key, (name, _) in self._local.groups.items()}
        for peer in self._peers.values():
            for key, (name, _) in peer.members.groups.items():
                names.setdefault(key, name)
        return list(names.values())

    def which_local_groups(self) -> list[Term]:
        """The groups that have members on this node."""
        return [name for name, _ in self._local.groups.values()]

    def nodes(self) -> list[str]:
        """The other nodes that run this scope."""
        return [pid.node for pid in self._peers]

    # --- calls of this node's processes -----------------------------------------------------------

    def join(self, group: Term, pids: Pid | Sequence[Pid]) -> list[Effect]:
        """Add local processes to a group; a list may name one several times.

        Raises:
            ValueError: a pid of another node, or the name is too large.
        """
        joining = self._check_local(group, pids)
        if not joining:
            return []
        key = exact_key(group)
        effects: list[Effect] = []
        for pid in joining:
            self._local.add(key, group, pid)
            groups = self._local_groups.get(pid)
            if groups is None:
                groups = self._local_groups[pid] = {}
                effects += self._monitors.acquire(pid)
            groups[key] = groups.get(key, 0) + 1
        effects += self._broadcast((JOIN, self.pid, group, pids if isinstance(pids, Pid) else joining))
        return effects + self._notify(JOIN, key, group, joining)

    def leave(self, group: Term, pids: Pid | Sequence[Pid]) -> tuple[bool, list[Effect]]:
        """Take local processes out, one membership each time a pid is named.

        Returns:
            Whether any of them was a member (``pg:leave`` answers ``not_joined`` otherwise), and the effects.

        Raises:
            ValueError: a pid of another node, or the name is too large.
        """
        key = exact_key(group)
        left = [pid for pid in self._check_local(group, pids) if self._local.remove(key, pid)]
        if not left:
            return False, []
        effects: list[Effect] = []
        for pid in left:
            groups = self._local_groups[pid]
            groups[key] -= 1
            if not groups[key]:
                del groups[key]
            if not groups:
                del self._local_groups[pid]
                effects += self._monitors.release(pid)
        effects += self._broadcast((LEAVE, self.pid, left[0] if isinstance(pids, Pid) else left, [group]))
        return True, effects + self._notify(LEAVE, key, group, left)

    def monitor(self, subscriber: Pid, group: Term) -> tuple[Reference, list[Pid], list[Effect]]:
        """Subscribe a process to one group: ``{Ref, join | leave, Group, [Pid]}`` messages from now on."""
        ref, effects = self._subscribe(subscriber, (exact_key(group),))
        return ref, self.get_members(group), effects

    def monitor_scope(self, subscriber: Pid) -> tuple[Reference, list[tuple[Term, list[Pid]]], list[Effect]]:
        """Subscribe a process to every group; also returns all groups with their members."""
        ref, effects = self._subscribe(subscriber, None)
        return ref, [(name, self.get_members(name)) for name in self.which_groups()], effects

    def demonitor(self, ref: Reference) -> tuple[bool, list[Effect]]:
        """End a subscription; False if there is none."""
        subscriber = self._unsubscribe(ref)
        return (False, []) if subscriber is None else (True, self._monitors.release(subscriber.pid))

    # --- inputs -----------------------------------------------------------------------------------

    def handle_node_up(self, node: str) -> list[Effect]:
        """A connection to a node is there, hidden or not."""
        return self._forget(node) + self.discovery.up(node)

    def handle_node_down(self, node: str) -> list[Effect]:
        """The connection is gone; its DOWN messages may come before or after this."""
        return self._forget(node) + self.discovery.gone(node)

    def handle_down(self, target: Target, reason: Term, now: float) -> list[Effect]:
        """A monitored process ended: a member, a subscriber, or the scope process of a peer."""
        self._monitors.fired(target)
        node, effects = self.discovery.down(target, reason, now)
        if node is not None:
            return self._forget(node) + effects
        if not isinstance(target, Pid):
            return effects
        for ref in [*self._by_pid.get(target, ())]:
            self._unsubscribe(ref)
        return effects + self._member_ended(target)

    def handle_watch(self, node: str, found: bool, now: float) -> list[Effect]:
        """A ``Watch`` ended."""
        return self.discovery.watch_ended(node, found, now)

    def handle_unwatched(self, pid: Pid, now: float) -> list[Effect]:
        """A peer that answered does not monitor us: it has forgotten us. A greeting makes us known again.

        Until it has our sync again, a leave could crash it.
        """
        peer = self._peers.get(pid)
        if peer is None or not self.discovery.check_again(pid, now):
            return []
        peer.synced, peer.answer_due = False, now + ANSWER_WAIT_S
        return [Send(pid, (DISCOVER, self.pid))]

    def handle_message(self, message: Term, now: float) -> list[Effect]:
        """A message to the scope process. What is none of pg's is dropped, see ``Rejected``."""
        match message:
            case (Atom("discover"), Pid() as peer) | (Atom("discover"), Pid() as peer, _):
                return self._on_discover(peer, now)
            case (Atom("$gen_cast"), (Atom("sync"), Pid() as peer, list(groups))):
                return self._on_sync(peer, groups, now)
            case (Atom("join"), Pid() as peer, group, pids):
                return self._on_join(peer, group, pids)
            case (Atom("leave"), Pid() as peer, pids, list(groups)):
                return self._on_leave(peer, pids, groups)
            case (Atom("$gen_call"), (Pid(), _) as caller, request):
                return self._on_call(caller, request)
        return self.rejections.reject("?", "a message that pg does not know")

    def next_deadline(self) -> float | None:
        """When ``handle_timeout`` has something to do; None for never."""
        due = [peer.answer_due for peer in self._peers.values() if peer.answer_due is not None]
        looking = self.discovery.next_deadline()
        return min(due if looking is None else [*due, looking], default=None)

    def handle_timeout(self, now: float) -> list[Effect]:
        """Do what is due."""
        effects = self.discovery.handle_timeout(now)
        for pid, peer in self._peers.items():
            if peer.answer_due is not None and peer.answer_due <= now:
                effects += self._send_sync(pid, peer, now)
        return effects

    # --- peers ------------------------------------------------------------------------------------

    def _on_discover(self, pid: Pid, now: float) -> list[Effect]:
        if not self.discovery.is_connected(pid.node):
            return self.rejections.reject(pid.node, "discover of a node without a connection")
        peer = self._peers.get(pid)
        if peer is not None:
            return self._send_sync(pid, peer, now)
        effects = self._learn(pid, now)
        effects += self._send_sync(pid, self._peers[pid], now)
        return [*effects, Send(pid, (DISCOVER, self.pid))]

    def _on_sync(self, pid: Pid, groups: list[Term], now: float) -> list[Effect]:
        if not self.discovery.is_connected(pid.node):
            return self.rejections.reject(pid.node, "sync of a node without a connection")
        entries = _entries(groups, pid.node)
        if entries is None:
            return self.rejections.reject(pid.node, "sync data of the wrong shape")
        effects = [] if pid in self._peers else self._learn(pid, now)
        peer = self._peers[pid]
        if not peer.synced and peer.answer_due is None:
            peer.answer_due = now + ANSWER_WAIT_S
        members = Membership()
        for name, pids in entries:
            if too_large(name):
                effects += self.rejections.reject(pid.node, "a group name that is too large")
                continue
            key = exact_key(name)
            for member in pids:
                members.add(key, name, member)
        before, peer.members = peer.members, members
        return effects + self._notify_difference(before, members)

    def _on_join(self, pid: Pid, group: Term, pids: Term) -> list[Effect]:
        joining = _pids(pids, pid.node)
        if joining is None:
            return self.rejections.reject(pid.node, "join of the wrong shape")
        if too_large(group):
            return self.rejections.reject(pid.node, "a group name that is too large")
        peer = self._peers.get(pid)
        if peer is None:
            return self._unknown(pid, "join")
        key = exact_key(group)
        for member in joining:
            peer.members.add(key, group, member)
        return self._notify(JOIN, key, group, joining)

    def _on_leave(self, pid: Pid, pids: Term, groups: list[Term]) -> list[Effect]:
        leaving = _pids(pids, pid.node)
        if leaving is None:
            return self.rejections.reject(pid.node, "leave of the wrong shape")
        peer = self._peers.get(pid)
        if peer is None:
            return self._unknown(pid, "leave")
        effects: list[Effect] = []
        still: dict[object, Leaving] = {}  # who left the group when it was named last: only those can again
        all_of_them = Leaving(leaving)
        for group in groups:
            if too_large(group):
                effects += self.rejections.reject(pid.node, "a group name that is too large")
                continue
            key = exact_key(group)
            left = peer.members.remove_each(key, still.get(key, all_of_them))
            still[key] = Leaving(left)
            effects += self._notify(LEAVE, key, group, left)
        return effects

    def _unknown(self, pid: Pid, what: str) -> list[Effect]:
        """Joins and leaves of a peer just before its sync are part of that sync; others are a fault."""
        if self.discovery.is_connected(pid.node):
            return []
        return self.rejections.reject(pid.node, f"{what} of a node without a connection")

    def _learn(self, pid: Pid, now: float) -> list[Effect]:
        effects: list[Effect] = []
        if self.discovery.pid_of(pid.node) is not None:
            effects += self._forget(pid.node)  # a successor shows itself before the predecessor's DOWN
        self._peers[pid] = _Peer()
        return effects + self.discovery.answered(pid, now)

    def _forget(self, node: str) -> list[Effect]:
        effects: list[Effect] = []
        for pid in [pid for pid in self._peers if pid.node == node]:
            members = self._peers.pop(pid).members
            effects += self._notify_difference(members, Membership())
        return effects

    def _send_sync(self, pid: Pid, peer: _Peer, now: float) -> list[Effect]:
        if self._is_busy(pid.node):
            peer.synced, peer.answer_due = False, now + BUSY_WAIT_S
            return []
        peer.synced, peer.answer_due = True, None
        data: list[Term] = [(name, pids) for _, name, pids in self._local.items()]
        return [Send(pid, (GEN_CAST, (SYNC, self.pid, data)))]

    def _broadcast(self, message: Term) -> list[Effect]:
        effects: list[Effect] = []
        for pid, peer in self._peers.items():
            if peer.synced and self._is_busy(pid.node):
                peer.synced, peer.answer_due = False, 0.0  # it is part of the sync to come
            elif peer.synced:
                effects.append(Send(pid, message))
        return effects

    # --- members and subscribers ------------------------------------------------------------------

    def _member_ended(self, pid: Pid) -> list[Effect]:
        counts = self._local_groups.pop(pid, None)
        if counts is None:
            return []
        keys = [key for key, count in counts.items() for _ in range(count)]
        names: list[Term] = []
        for key in keys:
            names.append(self._local.groups[key][0])
            self._local.remove(key, pid)
        effects = self._broadcast((LEAVE, self.pid, pid, names))
        for key, name in zip(keys, names, strict=True):
            effects += self._notify(LEAVE, key, name, [pid])
        return effects

    def _check_local(self, group: Term, pids: Pid | Sequence[Pid]) -> list[Pid]:
        if too_large(group):
            raise ValueError("the name of a group has at most 65536 bytes")
        wanted = [pids] if isinstance(pids, Pid) else list(pids)
        for pid in wanted:
            if not isinstance(pid, Pid) or (pid.node, pid.creation) != (self.pid.node, self.pid.creation):
                raise ValueError(f"only processes of this node can join or leave, got {shown(pid)}")
        return wanted

    def _subscribe(self, pid: Pid, key: tuple[object] | None) -> tuple[Reference, list[Effect]]:
        if pid.node != self.pid.node:
            if self._of_others[pid.node] >= MAX_OF_A_NODE:
                raise ValueError(f"{pid.node} has {MAX_OF_A_NODE} subscriptions already")
            self._of_others[pid.node] += 1
        ref = self._make_reference()
        self._subscribers[ref] = _Subscriber(pid, key)
        self._by_key.setdefault(key, {})[ref] = pid
        self._by_pid.setdefault(pid, {})[ref] = None
        return ref, self._monitors.acquire(pid)

    def _unsubscribe(self, ref: Reference) -> _Subscriber | None:
        subscriber = self._subscribers.pop(ref, None)
        if subscriber is None:
            return None
        for table, key in ((self._by_key, subscriber.key), (self._by_pid, subscriber.pid)):
            refs = table[key]  # type: ignore[index]
            del refs[ref]
            if not refs:
                del table[key]  # type: ignore[arg-type]
        node = subscriber.pid.node
        if self._of_others[node] > 1:
            self._of_others[node] -= 1
        else:
            del self._of_others[node]
        return subscriber

    def _notify(self, what: Atom, key: object, group: Term, pids: Iterable[Pid]) -> list[Effect]:
        changed = list(pids)
        if not changed or not self._subscribers:
            return []
        return [
            Send(pid, (ref, what, group, changed))
            for each in (None, (key,))
            for ref, pid in self._by_key.get(each, {}).items()
        ]

    def _notify_difference(self, before: Membership, after: Membership) -> list[Effect]:
        if not self._subscribers:
            return []
        effects: list[Effect] = []
        for key, name, _ in before.items():
            lost = before.beyond(after, key)
            effects += self._notify(LEAVE, key, name, lost)
        for key, name, _ in after.items():
            won = after.beyond(before, key)
            effects += self._notify(JOIN, key, name, won)
        return effects

    # --- calls of other nodes' processes ----------------------------------------------------------

    def _on_call(self, caller: tuple[Pid, Term], request: Term) -> list[Effect]:
        """Serve what pg's own functions ask of a scope process; BEAM code may do so from another node."""
        try:
            match request:
                case (Atom("join_local"), group, pids):
                    return [*self.join(group, _requested(pids)), AnswerCall(caller, OK)]
                case (Atom("leave_local"), group, pids):
                    left, effects = self.leave(group, _requested(pids))
                    return [*effects, AnswerCall(caller, OK if left else NOT_JOINED)]
                case Atom("monitor"):
                    ref, groups, effects = self.monitor_scope(caller[0])
                    return [*effects, AnswerCall(caller, (ref, _as_map(groups)))]
                case (Atom("monitor"), group):
                    ref, members, effects = self.monitor(caller[0], group)
                    return [*effects, AnswerCall(caller, (ref, members))]
                case (Atom("demonitor"), Reference() as ref):
                    known, effects = self.demonitor(ref)
                    return [*effects, AnswerCall(caller, OK if known else False)]
        except ValueError:
            return [AnswerCall(caller, REFUSED)]
        effects = self.rejections.reject(caller[0].node, "a call that pg does not know")
        return [*effects, AnswerCall(caller, REFUSED)]


def _pids(term: Any, node: str) -> list[Pid] | None:
    """One pid or a list of pids, all of one node; None for anything else."""
    pids = term if isinstance(term, list) else [term]
    return pids if all(isinstance(pid, Pid) and pid.node == node for pid in pids) else None


def _entries(groups: list[Any], node: str) -> list[tuple[Term, list[Pid]]] | None:
    """The groups of a sync if all are well-formed; else None."""
    for entry in groups:
        if not isinstance(entry, tuple) or len(entry) != 2 or not isinstance(entry[1], list):
            return None
        if _pids(entry[1], node) is None:
            return None
    return groups


def _requested(pids: Term) -> Pid | list[Pid]:
    if isinstance(pids, (Pid, list)):
        return pids
    raise ValueError("neither a pid nor a list")


def _as_map(groups: list[tuple[Term, list[Pid]]]) -> Term:
    return TermMap(groups)
