"""Finding the scope processes of the other nodes, and noticing that they are gone. Layer: groups, pure.

pg and syn announce themselves to visible nodes only, at the start of a scope and at nodeup. This node is
hidden: a BEAM scope never speaks to it first, not even one that starts long after the connection. So for each
connection and scope this side

1. monitors the scope's name on the peer and sends its greeting (``discover``) to that name. A monitor by name
   tells at once with ``noproc`` that nobody has the name; no answer has to be waited for, and nothing is
   repeated while the monitor lives: what was sent to a live process of a live connection has arrived.
2. When there is nobody, or the scope process ends, the name is *watched* (see ``watch``): a small process on
   the peer looks at its own node's table of names and ends when the name appears. That costs no message
   while nothing happens; then step 1 again.
3. A node that refuses to be watched (another Python node: it announces its scopes by itself) gets a greeting
   after 1, 2, 4, 8, 16 seconds and then every 20.
4. A scope process that keeps dying is looked for with growing pauses (up to 20 s). Should we be what kills
   it, that keeps us from doing it in a loop.
5. Half a second after a peer has answered, it must be monitoring our scope process. One that is not (it
   noticed the end of the previous connection only after our greeting, and forgot us) gets our data again.

Inputs and outputs are those of the owning machine; see ``effects``.
"""

from __future__ import annotations

from collections.abc import Callable

import attrs

from pyglyn.etf import Atom, Pid, Term
from pyglyn.groups.effects import CheckWatched, Effect, Monitors, Send, Target, Watch
from pyglyn.node.reasons import NOCONNECTION

CHECK_AFTER_S = 0.5
MAX_CHECKS = 5
STABLE_S = 10.0
PROMPT_ATTEMPTS = 5
FIRST_PAUSE_S = 0.25
LONGEST_PAUSE_S = 20.0


@attrs.define
class _Peer:
    """One connected node.

    Attributes:
        pid: its scope process, once known.
        target: what is monitored there: the scope's name, or its pid.
        failures: how often in a row the scope process was not there or did not stay.
        greetings: how many unanswered greetings a node got that cannot be watched.
        checks: how often it was looked whether it monitors us.
        due: when ``action`` is to be done.
    """

    pid: Pid | None = None
    target: Target | None = None
    failures: int = 0
    greetings: int = 0
    checks: int = 0
    known_since: float | None = None
    due: float | None = None
    action: str = ""


class Discovery:
    """The peers of one scope: connected nodes, and the scope process on each of them.

    Args:
        name: what the scope process is registered as, on every node.
        monitors: shared with the owner.
        greeting: makes the message that asks a scope process for its data.
    """

    def __init__(self, name: Atom, monitors: Monitors, greeting: Callable[[], Term]) -> None:
        self.name = name
        self._monitors = monitors
        self._greeting = greeting
        self._peers: dict[str, _Peer] = {}

    # --- questions --------------------------------------------------------------------------------

    def is_connected(self, node: str) -> bool:
        """True between ``up`` and ``gone``."""
        return node in self._peers

    def pid_of(self, node: str) -> Pid | None:
        """The scope process of a node, if it has answered."""
        peer = self._peers.get(node)
        return None if peer is None else peer.pid

    def known(self) -> dict[str, Pid]:
        """Node -> scope process, of all that have answered."""
        return {node: peer.pid for node, peer in self._peers.items() if peer.pid is not None}

    def connected(self) -> list[str]:
        """Every connected node, with or without this scope."""
        return list(self._peers)

    def has_settled(self, node: str) -> bool:
        """Whether a connected node has answered the last greeting, or is known to have nobody to greet."""
        peer = self._peers.get(node)
        return peer is not None and (peer.pid is not None or peer.target is None)

    # --- inputs -----------------------------------------------------------------------------------

    def up(self, node: str) -> list[Effect]:
        """A connection is there. One that was there before is over: the owner has purged its data."""
        effects = self.gone(node)
        peer = self._peers[node] = _Peer()
        return effects + self._greet(node, peer)

    def gone(self, node: str) -> list[Effect]:
        """The connection is gone; nothing is watched or repeated for it any more."""
        peer = self._peers.pop(node, None)
        return [] if peer is None or peer.target is None else self._monitors.release(peer.target)

    def answered(self, pid: Pid, now: float) -> list[Effect]:
        """A scope process of a connected node has shown itself."""
        peer = self._peers[pid.node]
        if peer.pid == pid:
            return []
        effects: list[Effect] = []
        if isinstance(peer.target, Pid):
            effects += self._monitors.release(peer.target)
            peer.target = None
        peer.pid, peer.known_since, peer.greetings, peer.checks = pid, now, 0, 0
        peer.due, peer.action = now + CHECK_AFTER_S, "check"
        if peer.target is None:
            # Otherwise the monitor by name stands. Had it resolved to a predecessor of this process, its DOWN
            # makes us greet once more, which is harmless.
            peer.target = pid
            effects += self._monitors.acquire(pid)
        return effects

    def down(self, target: Target, reason: Term, now: float) -> tuple[str | None, list[Effect]]:
        """A monitor fired. Returns the node whose scope is gone (None: none of ours), and what to do."""
        node = target.node if isinstance(target, Pid) else target[1]
        peer = self._peers.get(node)
        if peer is None or peer.target != target:
            return None, []
        peer.pid = peer.target = peer.due = None
        if reason is NOCONNECTION:
            del self._peers[node]
            return node, []
        return node, self._look_again(node, peer, now)

    def watch_ended(self, node: str, found: bool, now: float) -> list[Effect]:
        """The watch of a node ended: the name is there, or the node cannot be watched."""
        peer = self._peers.get(node)
        if peer is None or peer.target is not None:
            return []
        if found:
            return self._greet(node, peer)
        peer.due, peer.action = now + 1.0, "greet"
        return []

    def check_again(self, pid: Pid, now: float) -> bool:
        """The peer does not monitor us; False once that was so too often to go on."""
        peer = self._peers.get(pid.node)
        if peer is None or peer.pid != pid or peer.checks >= MAX_CHECKS:
            return False
        peer.checks += 1
        peer.due, peer.action = now + CHECK_AFTER_S, "check"
        return True

    def next_deadline(self) -> float | None:
        """When ``handle_timeout`` has something to do; None for never."""
        return min((peer.due for peer in self._peers.values() if peer.due is not None), default=None)

    def handle_timeout(self, now: float) -> list[Effect]:
        """Do what is due."""
        effects: list[Effect] = []
        for node, peer in self._peers.items():
            if peer.due is None or peer.due > now:
                continue
            peer.due = None
            if peer.action == "check" and peer.pid is not None:
                effects.append(CheckWatched(peer.pid))
            elif peer.action == "watch":
                effects.append(Watch(self.name, node))
            elif peer.action == "greet":
                peer.greetings += 1
                peer.due = now + min(2.0**peer.greetings, LONGEST_PAUSE_S)
                effects.append(Send((self.name, node), self._greeting()))
        return effects

    # --- inside -----------------------------------------------------------------------------------

    def _greet(self, node: str, peer: _Peer) -> list[Effect]:
        target = (self.name, node)
        peer.target = target
        return [*self._monitors.acquire(target), Send(target, self._greeting())]

    def _look_again(self, node: str, peer: _Peer, now: float) -> list[Effect]:
        if peer.known_since is not None and now - peer.known_since >= STABLE_S:
            peer.failures = 0
        peer.known_since = None
        peer.failures += 1
        if peer.failures <= PROMPT_ATTEMPTS:
            return [Watch(self.name, node)]
        pause = FIRST_PAUSE_S * 2.0 ** (peer.failures - PROMPT_ATTEMPTS - 1)
        peer.due, peer.action = now + min(pause, LONGEST_PAUSE_S), "watch"
        return []
