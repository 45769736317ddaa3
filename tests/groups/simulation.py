"""Simulated nodes with signals between them: links that can be cut, processes that can die, one clock.

Only what the group protocols rely on is here, and that as on the BEAM: signals between two nodes stay in order,
a cut loses what is under way and fires every monitor across it, a monitor by name resolves when it arrives.
Everything happens in an order that a seeded generator picks.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from typing import Any

from pyglyn.etf import Atom, Pid, Reference

NOPROC = Atom("noproc")
NOCONNECTION = Atom("noconnection")
KILLED = Atom("killed")


class Actor:
    """A process of a simulated node. Subclasses handle one input at a time."""

    name: str | None = None

    def __init__(self, node: Node) -> None:
        self.node = node
        self.pid = node.make_pid()
        self.inbox: deque[tuple[str, Any]] = deque()

    def start(self) -> None:
        """Called once it is registered."""

    def handle(self, kind: str, value: Any) -> None:
        """``kind``: message, down, nodeup, nodedown, watch."""


class Member(Actor):
    """A process that only lives; exit signals end it."""

    def __init__(self, node: Node) -> None:
        super().__init__(node)
        self.received: list[Any] = []

    def handle(self, kind: str, value: Any) -> None:
        if kind == "exit":
            self.node.kill(self.pid, value)
        elif kind == "message":
            self.received.append(value)


class Node:
    """A simulated node: processes, names, monitors.

    Args:
        hidden: not announced to the others' ``nodeup``, as pyglyn nodes and ``erl -hidden``.
        watchable: runs code for others, so that a name can be watched there.
    """

    def __init__(self, net: Net, name: str, *, hidden: bool, watchable: bool) -> None:
        self.net = net
        self.name = name
        self.hidden = hidden
        self.watchable = watchable
        self.is_ours = not watchable
        self.creation = 1
        self._ids = 0
        self.reset()

    def reset(self) -> None:
        """The node starts anew: nothing of it is left."""
        self.actors: dict[Pid, Actor] = {}
        self.names: dict[str, Pid] = {}
        self.watchers: dict[Pid, dict[Reference, tuple[Pid, Any]]] = {}
        self.monitors: dict[Reference, tuple[Pid, str, Any]] = {}
        self.watches: list[tuple[str, Pid]] = []
        self.late: list[Reference] = []

    def make_pid(self) -> Pid:
        self._ids += 1
        return Pid(self.name, self._ids, 0, self.creation)

    def make_ref(self) -> Reference:
        self._ids += 1
        return Reference(self.name, self.creation, (self._ids, 0, 0))

    def spawn(self, actor: Actor) -> Any:
        self.actors[actor.pid] = actor
        if actor.name is not None:
            self.names[actor.name] = actor.pid
            for name, asker in [each for each in self.watches if each[0] == actor.name]:
                self.watches.remove((name, asker))
                self.net.post(self.name, asker.node, "watch", asker, (self.name, True))
        actor.start()
        return actor

    def kill(self, pid: Pid, reason: Any = KILLED) -> None:
        actor = self.actors.pop(pid, None)
        if actor is None:
            return
        if actor.name is not None and self.names.get(actor.name) == pid:
            del self.names[actor.name]
        for ref, (watcher, _) in self.watchers.pop(pid, {}).items():
            self.net.post(self.name, watcher.node, "down", watcher, (ref, reason))
        for ref in [ref for ref, (watcher, _, _) in self.monitors.items() if watcher == pid]:
            self.demonitor(ref)

    # --- for actors -------------------------------------------------------------------------------

    def send(self, to: Any, message: Any) -> None:
        node = to.node if isinstance(to, Pid) else to[1]
        self.net.post(self.name, node, "message", to, message)

    def exit(self, pid: Pid, reason: Any) -> None:
        self.net.post(self.name, pid.node, "exit", pid, reason)

    def monitor(self, watcher: Pid, target: Any) -> Reference:
        ref = self.make_ref()
        node = target.node if isinstance(target, Pid) else target[1]
        self.monitors[ref] = (watcher, node, target)
        if not self.net.post(self.name, node, "monitor", target, (ref, watcher)):
            self.fire(ref, NOCONNECTION)
        return ref

    def demonitor(self, ref: Reference) -> None:
        known = self.monitors.pop(ref, None)
        if known is not None:
            self.net.post(self.name, known[1], "demonitor", None, ref)

    def watch(self, name: str, node: str, asker: Pid) -> None:
        self.net.post(self.name, node, "ask_watch", None, (name, asker))

    def is_watched_by(self, watched: Pid, watcher: Pid) -> bool:
        return any(each == watcher for each, _ in self.watchers.get(watched, {}).values())

    def fire(self, ref: Reference, reason: Any) -> None:
        known = self.monitors.pop(ref, None)
        if known is not None and known[0] in self.actors:
            self.actors[known[0]].inbox.append(("down", (ref, known[2], reason)))

    # --- signals that arrive ----------------------------------------------------------------------

    def arrive(self, kind: str, to: Any, value: Any) -> None:
        if kind == "ask_watch":
            self._on_ask_watch(*value)
            return
        if kind == "demonitor":
            for watchers in self.watchers.values():
                watchers.pop(value, None)
            return
        pid = to if isinstance(to, Pid) else self.names.get(str(to[0]))
        if kind == "monitor":
            ref, watcher = value
            if pid in self.actors:
                self.watchers.setdefault(pid, {})[ref] = (watcher, to)
            else:
                self.net.post(self.name, watcher.node, "down", watcher, (ref, NOPROC))
        elif kind == "down":
            self.fire(*value)
        elif pid in self.actors:
            self.actors[pid].inbox.append((kind, value))

    def _on_ask_watch(self, name: str, asker: Pid) -> None:
        if not self.watchable:
            self.net.post(self.name, asker.node, "watch", asker, (self.name, False))
        elif name in self.names:
            self.net.post(self.name, asker.node, "watch", asker, (self.name, True))
        else:
            self.watches.append((name, asker))

    def lost(self, node: str) -> None:
        """The connection to a node has ended."""
        for ref in [ref for ref, (_, other, _) in self.monitors.items() if other == node]:
            if self.watchable and self.net.nodes[node].is_ours and self.net.random.random() < 0.3:
                self.late.append(ref)  # a BEAM under load: even a new connection can be faster
            else:
                self.fire(ref, NOCONNECTION)
        for watchers in self.watchers.values():
            for ref in [ref for ref, (watcher, _) in watchers.items() if watcher.node == node]:
                del watchers[ref]
        self.watches = [each for each in self.watches if each[1].node != node]
        for actor in self.actors.values():
            actor.inbox.append(("nodedown", node))

    def connected(self, node: str) -> None:
        for actor in self.actors.values():
            actor.inbox.append(("nodeup", node))


class Net:
    """All nodes, the links between them, and the clock."""

    def __init__(self, seed: object) -> None:
        self.random = random.Random(seed)
        self.now = 1000.0
        self.nodes: dict[str, Node] = {}
        self.links: dict[tuple[str, str], deque[tuple[str, Any, Any]]] = {}
        self.sent: list[tuple[str, str, str, Any, Any]] = []
        self.skew: dict[str, int] = {}

    def add(self, name: str, *, hidden: bool, watchable: bool) -> Node:
        node = self.nodes[name] = Node(self, name, hidden=hidden, watchable=watchable)
        self.links[name, name] = deque()
        return node

    def system_ns(self, node: str) -> int:
        # Two BEAM nodes whose clocks give the same nanosecond do not agree; so here each has its own ones.
        return round(self.now * 1e4) * 100_000 + self.skew.get(node, 0)

    def is_up(self, a: str, b: str) -> bool:
        return (a, b) in self.links

    def is_visible(self, a: str, b: str) -> bool:
        return not (self.nodes[a].hidden or self.nodes[b].hidden)

    def post(self, source: str, target: str, kind: str, to: Any, value: Any) -> bool:
        link = self.links.get((source, target))
        if link is None:
            return False
        if source != target:
            self.sent.append((source, target, kind, to, value))
        link.append((kind, to, value))
        return True

    def connect(self, a: str, b: str) -> None:
        if not self.is_up(a, b):
            self.links[a, b], self.links[b, a] = deque(), deque()
            self.nodes[a].connected(b)
            self.nodes[b].connected(a)

    def cut(self, a: str, b: str) -> None:
        """End the connection; what is under way is lost."""
        if self.is_up(a, b) and a != b:
            del self.links[a, b], self.links[b, a]
            self.nodes[a].lost(b)
            self.nodes[b].lost(a)

    def crash(self, name: str) -> None:
        """A node goes away, to come back later under its name with a new creation."""
        for other in list(self.nodes):
            self.cut(name, other)
        node = self.nodes[name]
        node.reset()
        self.links[name, name].clear()
        node.creation += 1

    # --- running ----------------------------------------------------------------------------------

    def step(self) -> bool:
        """Let one thing happen, picked at random; False if there is nothing to do."""
        links = [key for key, queue in self.links.items() if queue]
        actors = [actor for node in self.nodes.values() for actor in node.actors.values() if actor.inbox]
        late = [(node, ref) for node in self.nodes.values() for ref in node.late]
        if (links or actors) and self.random.random() < 0.9:
            late = []
        choices = len(links) + len(actors) + len(late)
        if not choices:
            return False
        index = self.random.randrange(choices)
        if index < len(links):
            source, target = links[index]
            self.nodes[target].arrive(*self.links[source, target].popleft())
        elif index >= len(links) + len(actors):
            node, ref = late[index - len(links) - len(actors)]
            node.late.remove(ref)
            node.fire(ref, NOCONNECTION)
        else:
            actor = actors[index - len(links)]
            actor.handle(*actor.inbox.popleft())
        return True

    def run(self, limit: int = 200_000) -> None:
        """Until nothing is under way; the clock stands still."""
        for _ in range(limit):
            if not self.step():
                return
        raise AssertionError(f"still busy after {limit} steps")

    def tick(self, seconds: float) -> None:
        """Let time pass while things are under way; the timers that are due by then fire."""
        self.now += seconds
        for node in self.nodes.values():
            for actor in list(node.actors.values()):
                deadline = getattr(actor, "next_deadline", lambda: None)()
                if deadline is not None and deadline <= self.now:
                    actor.handle_timeout()  # type: ignore[attr-defined]

    def advance(self, seconds: float) -> None:
        """Let time pass; timers fire in between."""
        end = self.now + seconds
        self.run()
        while True:
            due = [
                deadline
                for node in self.nodes.values()
                for actor in node.actors.values()
                if (deadline := getattr(actor, "next_deadline", lambda: None)()) is not None
            ]
            if not due or min(due) > end:
                break
            self.now = max(self.now, min(due))
            for node in self.nodes.values():
                for actor in list(node.actors.values()):
                    timeout: Callable[[], None] | None = getattr(actor, "handle_timeout", None)
                    if timeout is not None:
                        timeout()
            self.run()
        self.now = end
        self.run()
