"""The protocol between the scope processes of ``syn`` 3.x, without what they hold. Layer: groups, pure.

Source: syn_gen_scope.erl of syn 3.3.0 and 3.4.1 (read and run). A syn scope is two processes on each node,
``syn_pg_<scope>`` for process groups and ``syn_registry_<scope>`` for names; both speak the protocol of this
module and differ in their data (``syn_pg_state``, ``syn_registry_state``). Messages go to those names:

============================================== ===========================================================
``{'3.0', discover, Pid}``                     the receiver sends its data and from then on its changes
``{'3.0', ack_sync, Pid, Data}``               all entries of the sender's own processes
``{'3.0', sync_…, …}``                         one change, sent to every known node
``{'$gen_call', From, {'3.0', …_on_node, …}}`` a change of a process of ours, asked for by another node
============================================== ===========================================================

Rules that keep the other side alive and right:

- Never cast to a scope process (3.3.0 and 3.4.0 crash), and show it a new scope pid only after the old one's
  exit was signalled (two pids for one node crash it).
- An ``ack_sync`` of a node we do not know yet is answered with ours; it is the only way for our data to get
  to a peer that we discovered.
- A change of a node that has not acknowledged yet is ignored, as in syn: it may have been sent before the
  connection (or our scope process) was replaced. But it may also have overtaken the ack, which two processes
  send in 3.3.0; syn loses it then. And the ack itself may be for a predecessor of ours, and old. So an ack is
  taken for exact (what it lacks is removed) only if it is not the first and no change came since the one
  before; where one came, the data are asked for once more.
- Only processes of the sending node are taken from its data, and nobody changes entries of our processes.

Time stamps are nanoseconds since the epoch (``erlang:system_time()`` on Unix), strictly growing here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, TypeAlias

import attrs

from pyglyn.etf import Atom, Export, Fun, Pid, Term
from pyglyn.groups.discovery import Discovery
from pyglyn.groups.effects import (
    AnswerCall,
    AskVersion,
    Effect,
    Event,
    Monitors,
    Rejections,
    Send,
    Target,
    too_large,
)
from pyglyn.node.reasons import ERROR, UNDEFINED

V3 = Atom("3.0")
DISCOVER = Atom("discover")
ACK_SYNC = Atom("ack_sync")
NOOP = Atom("noop")
NOT_ALIVE = (ERROR, Atom("not_alive"))
ERROR_UNDEFINED = (ERROR, UNDEFINED)
FUNCTION_REFUSED = (ERROR, Atom("notsup"))
NODE_UP = Atom("syn_remote_scope_node_up")
NODE_DOWN = Atom("syn_remote_scope_node_down")

BUSY_WAIT_S = 1.0
"""How often it is looked whether a peer that does not take what it gets does so again."""
MAX_QUESTIONS = 5
"""How often the data of a node are asked for while changes keep coming in between."""

Entry: TypeAlias = "tuple[Term, Pid, Term, int]"
"""``{Name, Pid, Meta, Time}``, as on the wire."""
Version: TypeAlias = "tuple[int, ...]"


@attrs.define
class _Doubt:
    """What has come from a node, to tell whether its data may be off.

    Attributes:
        acks: how many acks.
        changes: how many changes since the last of them.
        questions: how often in a row the data were asked for again.
    """

    acks: int = 0
    changes: int = 0
    questions: int = 0


class SynScope(ABC):
    """What process groups and registry share: peers, acks, broadcasts.

    Args:
        pid: this scope's process; a new process needs a new state.
        scope: the scope's name.
        is_alive: whether a process of this node is known to be alive.
        is_busy: whether a node has much queued for it that it does not take.
    """

    handler: ClassVar[str]

    def __init__(
        self,
        pid: Pid,
        scope: str,
        *,
        is_alive: Callable[[Pid], bool],
        is_busy: Callable[[str], bool],
    ) -> None:
        self.pid = pid
        self.node = pid.node
        self.scope = scope
        self.process_name = Atom(f"{self.handler}_{scope}")
        self.table_by_name = Atom(f"{self.handler}_by_name_{scope}")
        self.table_by_pid = Atom(f"{self.handler}_by_pid_{scope}")
        self.versions: dict[str, Version] = {}
        self.rejections = Rejections()
        self._is_alive = is_alive
        self._is_busy = is_busy
        self._owed: dict[str, float] = {}  # nodes that get our data once they take what they get: next look
        self._monitors = Monitors()
        self.discovery = Discovery(self.process_name, self._monitors, lambda: (V3, DISCOVER, self.pid))
        self._doubts: dict[str, _Doubt] = {}
        self._owned: dict[Pid, dict[object, None]] = {}  # a local process's keys, as an ordered set
        self._last_time = 0

    def _own(self, key: object, pid: Pid) -> list[Effect]:
        """A local process has an entry under the key: monitor it from its first one on."""
        keys = self._owned.get(pid)
        if keys is not None:
            keys[key] = None
            return []
        self._owned[pid] = {key: None}
        return self._monitors.acquire(pid)

    def _disown(self, key: object, pid: Pid) -> list[Effect]:
        """A local process has no entry under the key any more; without any it is not monitored."""
        keys = self._owned[pid]
        del keys[key]
        if keys:
            return []
        del self._owned[pid]
        return self._monitors.release(pid)

    # --- what the data classes provide ------------------------------------------------------------

    @abstractmethod
    def local_entries(self) -> list[Entry]:
        """The entries of this node's processes."""

    @abstractmethod
    def restore(self, entries: list[Entry]) -> list[Effect]:
        """Take over the local entries of a predecessor that crashed; before any other input."""

    @abstractmethod
    def _merge(self, entry: Entry, reason: Term, system_ns: int) -> list[Effect]:
        """An entry of another node, from its ack or as a change."""

    @abstractmethod
    def _on_change(self, message: tuple[Term, ...], system_ns: int) -> list[Effect]:
        """A ``sync_…`` message of a known node."""

    @abstractmethod
    def _on_request(self, request: Term, system_ns: int) -> tuple[Term, list[Effect]]:
        """A gen call: its reply, and what else to do."""

    @abstractmethod
    def _purge(self, node: str) -> list[Effect]:
        """Forget the entries of a node whose scope is gone."""

    @abstractmethod
    def _prune(self, node: str, entries: list[Entry]) -> list[Effect]:
        """Forget the entries of a node that are not among these."""

    @abstractmethod
    def _ended(self, pid: Pid, reason: Term) -> list[Effect]:
        """A process of this node ended."""

    # --- questions --------------------------------------------------------------------------------

    def subcluster_nodes(self) -> list[str]:
        """The other nodes that run this scope, as far as they have answered."""
        return list(self.discovery.known())

    # --- inputs -----------------------------------------------------------------------------------

    def handle_node_up(self, node: str) -> list[Effect]:
        """A connection to a node is there, hidden or not."""
        return self._forget(node) + self.discovery.up(node)

    def handle_node_down(self, node: str) -> list[Effect]:
        """The connection is gone; its DOWN messages may come before or after this."""
        return self._forget(node) + self.discovery.gone(node)

    def handle_down(self, target: Target, reason: Term, now: float) -> list[Effect]:
        """A monitored process ended: one of ours, or the scope process of a peer."""
        self._monitors.fired(target)
        node, effects = self.discovery.down(target, reason, now)
        if node is not None:
            return self._forget(node) + effects
        return effects + self._ended(target, reason) if isinstance(target, Pid) else effects

    def handle_watch(self, node: str, found: bool, now: float) -> list[Effect]:
        """A ``Watch`` ended."""
        return self.discovery.watch_ended(node, found, now)

    def handle_unwatched(self, pid: Pid, now: float) -> list[Effect]:
        """A peer that answered does not monitor us: it has forgotten us. An ack makes it known again."""
        if not self.discovery.check_again(pid, now):
            return []
        return self._ack(pid.node, now)

    def handle_version(self, node: str, version: Version) -> list[Effect]:
        """A node told which version of syn it runs."""
        if self.discovery.is_connected(node):
            self.versions[node] = version
        return []

    def handle_message(self, message: Term, now: float, system_ns: int) -> list[Effect]:
        """A message to the scope process. What is none of syn's is dropped, see ``Rejected``."""
        match message:
            case (Atom("3.0"), Atom("discover"), Pid() as peer):
                return self._on_discover(peer, now)
            case (Atom("3.0"), Atom("ack_sync"), Pid() as peer, list(data)):
                return self._on_ack_sync(peer, data, now, system_ns)
            case (Atom("3.0"), Atom(), name, Pid() as pid, *_):
                return self._on_sync(tuple(message), name, pid, system_ns)
            case (Atom("$gen_call"), (Pid(), _) as caller, (Atom("3.0"), Atom("subcluster_nodes"))):
                return [AnswerCall(caller, [Atom(node) for node in self.subcluster_nodes()])]
            case (Atom("$gen_call"), (Pid(), _) as caller, request):
                reply, effects = self._on_request(request, system_ns)
                return [*effects, AnswerCall(caller, reply)]
        return self.rejections.reject("?", "a message that syn does not know")

    def next_deadline(self) -> float | None:
        """When ``handle_timeout`` has something to do; None for never."""
        looking = self.discovery.next_deadline()
        due = self._owed.values()
        return min(due if looking is None else [*due, looking], default=None)

    def handle_timeout(self, now: float) -> list[Effect]:
        """Do what is due."""
        effects = self.discovery.handle_timeout(now)
        for node in [node for node, due in self._owed.items() if due <= now]:
            effects += self._ack(node, now)
        return effects

    # --- peers ------------------------------------------------------------------------------------

    def _on_discover(self, peer: Pid, now: float) -> list[Effect]:
        if not self.discovery.is_connected(peer.node):
            return self.rejections.reject(peer.node, "discover of a node without a connection")
        return [*self._learn(peer, now)[1], *self._ack(peer.node, now)]

    def _on_ack_sync(self, peer: Pid, data: list[Term], now: float, system_ns: int) -> list[Effect]:
        node = peer.node
        if not self.discovery.is_connected(node):
            return self.rejections.reject(node, "ack_sync of a node without a connection")
        entries = _entries(data, node)
        if entries is None:
            return self.rejections.reject(node, "ack_sync data of the wrong shape")
        is_new, effects = self._learn(peer, now)
        reason = (NODE_UP, Atom(self.scope), Atom(node))
        for entry in entries:
            if too_large(entry[0]):
                effects += self.rejections.reject(node, "a name that is too large")
            else:
                effects += self._merge(entry, reason, system_ns)
        effects += self._settle(node, entries)
        return [*effects, *self._ack(node, now)] if is_new else effects

    def _settle(self, node: str, entries: list[Entry]) -> list[Effect]:
        doubt = self._doubts.setdefault(node, _Doubt())
        changes, doubt.changes = doubt.changes, 0
        doubt.acks += 1
        if changes and doubt.questions < MAX_QUESTIONS:
            doubt.questions += 1
            return self._ask_again(node)
        doubt.questions = 0
        return self._prune(node, entries) if doubt.acks > 1 and not changes else []

    def _on_sync(self, message: tuple[Term, ...], name: Term, pid: Pid, system_ns: int) -> list[Effect]:
        node = pid.node
        if not self.discovery.is_connected(node):
            return self.rejections.reject(node, "a change by a node without a connection")
        if too_large(name):
            return self.rejections.reject(node, "a name that is too large")
        self._doubts.setdefault(node, _Doubt()).changes += 1
        if self.discovery.pid_of(node) is None:
            return []
        return self._on_change(message, system_ns)

    def _learn(self, peer: Pid, now: float) -> tuple[bool, list[Effect]]:
        known = self.discovery.pid_of(peer.node)
        if known == peer:
            return False, []
        effects: list[Effect] = []
        if known is not None:
            effects += self._forget(peer.node)  # a successor shows itself before the predecessor's DOWN
        effects += self.discovery.answered(peer, now)
        return True, [*effects, AskVersion(peer.node)]

    def _forget(self, node: str) -> list[Effect]:
        self._doubts.pop(node, None)
        self._owed.pop(node, None)
        self.versions.pop(node, None)
        return self._purge(node)

    def _ack(self, node: str, now: float) -> list[Effect]:
        """Send our data; once and later to a node that does not take what it gets, however often it asks."""
        if self._is_busy(node):
            self._owed[node] = now + BUSY_WAIT_S
            return []
        self._owed.pop(node, None)
        data: list[Term] = list(self.local_entries())
        return [Send((self.process_name, node), (V3, ACK_SYNC, self.pid, data))]

    def _ask_again(self, node: str) -> list[Effect]:
        """Have a known node send all its entries once more."""
        if self.discovery.pid_of(node) is None:
            return []
        return [Send((self.process_name, node), (V3, DISCOVER, self.pid))]

    def _broadcast(self, message: tuple[Term, ...], *excluded: str) -> list[Effect]:
        return [
            Send((self.process_name, node), (V3, *message))
            for node in self.discovery.known()
            if node not in excluded
        ]

    # --- for the data classes ---------------------------------------------------------------------

    def _next_time(self, system_ns: int, *later_than: int) -> int:
        self._last_time = max(system_ns, self._last_time + 1, *(time + 1 for time in later_than))
        return self._last_time

    def _down_reason(self, node: str) -> Term:
        return NODE_DOWN, Atom(self.scope), Atom(node)

    def _event(self, kind: str, name: Term, pid: Pid, meta: Term, reason: Term, before: Term = None) -> Event:
        return Event(
            kind=kind,
            scope=self.scope,
            name=name,
            pid=pid,
            meta=meta,
            previous_meta=before,
            reason=reason,
        )

    def _lives_here(self, pid: Pid) -> bool:
        return (pid.node, pid.creation) == (self.node, self.pid.creation) and self._is_alive(pid)


def is_function(term: Term) -> bool:
    """True of what Erlang's ``is_function`` is true of, as it arrives from other nodes."""
    return isinstance(term, (Fun, Export))


def node_name(term: Term) -> str:
    """The name of a node that came as an atom; an odd term excludes no node."""
    return term.name if isinstance(term, Atom) else ""


def _entries(data: list[Any], node: str) -> list[Entry] | None:
    """The entries of an ack_sync if all are well-formed and of processes of the node; else None."""
    for entry in data:
        if not isinstance(entry, tuple) or len(entry) != 4 or type(entry[3]) is not int:
            return None
        if not isinstance(entry[1], Pid) or entry[1].node != node:
            return None
    return data
