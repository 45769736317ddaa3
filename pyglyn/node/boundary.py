"""What crosses the boundary of one worker: links and monitors, so that its death can be told. Layer: node.

Pure: signals in, table, and at the end the signals that a dead worker can no longer send. The hub keeps one
for each worker and shows it every signal that passes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any

from pyglyn.dist.control import (
    Control,
    DemonitorP,
    Link,
    LinkExit,
    MonitorP,
    MonitorPExit,
    SpawnReply,
    SpawnRequest,
    Unlink,
    UnlinkId,
)
from pyglyn.etf import Atom, Pid, Reference, Term
from pyglyn.node.signals import Emit, Ties

MONITOR = Atom("monitor")


class Boundary:
    """Links and monitors between processes of one worker (inside) and all others (outside).

    Attributes:
        links: (inside, outside) for each link.
        watchers: monitors of inside processes: node of the watcher -> reference -> (watcher, the pid or name
            it asked with). A node that had some keeps its place until it is down: each call has one.
        monitors: monitors by inside processes: reference -> (watcher, what it watches, the node of a name).
        requests: spawn requests of inside processes that ask for a monitor: reference -> the node asked.
    """

    def __init__(self) -> None:
        self.links: set[tuple[Pid, Pid]] = set()
        self.watchers: dict[str, dict[Reference, tuple[Pid, Pid | Atom]]] = {}
        self.monitors: dict[Reference, tuple[Pid, Pid | Atom, str | None]] = {}
        self.requests: dict[Reference, str] = {}
        self._ties: Ties[tuple[Pid, Pid] | Reference] = Ties()

    def outgoing(self, control: Control, node: str | None) -> None:
        """A signal left the worker."""
        handler = _OUT.get(type(control))
        if handler is not None:
            handler(self, control, node)

    def incoming(self, control: Control) -> None:
        """A signal went into the worker."""
        handler = _IN.get(type(control))
        if handler is not None:
            handler(self, control)

    def node_down(self, node: str) -> list[Reference]:
        """The connection to a node is gone; the worker is told and ends its side by itself.

        Returns:
            The monitors by name that processes there had of inside ones.
        """
        for tied in self._ties.take(node):
            if isinstance(tied, Reference):
                self.monitors.pop(tied, None)
                self.requests.pop(tied, None)
            else:
                self.links.discard(tied)
        watchers = self.watchers.pop(node, {})
        return [ref for ref, (_, asked) in watchers.items() if not isinstance(asked, Pid)]

    def is_watched_at(self, ref: Reference, node: str) -> bool:
        """Whether an inside process waits for the end of one on a node, by this reference."""
        monitor = self.monitors.get(ref)
        if monitor is None:
            return self.requests.get(ref) == node
        return (monitor[1].node if isinstance(monitor[1], Pid) else monitor[2]) == node

    def linked(self, inside: Pid, outside: Pid) -> None:
        """There is a link."""
        self.links.add((inside, outside))
        self._ties.add(outside.node, (inside, outside))

    def unlinked(self, inside: Pid, outside: Pid) -> None:
        """There is none any more."""
        self.links.discard((inside, outside))
        self._ties.discard(outside.node, (inside, outside))

    def watched(self, control: MonitorP) -> None:
        """An outside process monitors an inside one."""
        watcher = control.watcher
        of_node = self.watchers.get(watcher.node)
        if of_node is None:
            of_node = self.watchers[watcher.node] = {}
        of_node[control.ref] = (watcher, control.watched)  # type: ignore[assignment]

    def unwatched(self, control: DemonitorP | MonitorPExit) -> None:
        """It does not any more, or the monitor has fired."""
        of_node = self.watchers.get(control.watcher.node)
        if of_node is not None:
            of_node.pop(control.ref, None)

    def watches(self, control: MonitorP, node: str | None) -> None:
        """An inside process monitors an outside one."""
        self.monitors[control.ref] = (control.watcher, control.watched, node)  # type: ignore[assignment]
        where = control.watched.node if isinstance(control.watched, Pid) else node
        if where is not None:
            self._ties.add(where, control.ref)

    def watches_no_more(self, ref: Reference) -> None:
        """It does not any more, or the monitor has fired."""
        monitor = self.monitors.pop(ref, None)
        where = None if monitor is None else monitor[1].node if isinstance(monitor[1], Pid) else monitor[2]
        asked = self.requests.pop(ref, None)
        for node in (where, asked):
            if node is not None:
                self._ties.discard(node, ref)

    def asks_for(self, request: SpawnRequest, node: str | None) -> None:
        """An inside process asks for one on another node, and monitors it."""
        if node is not None and MONITOR in request.options:
            self.requests[request.request_id] = node
            self._ties.add(node, request.request_id)

    def answered(self, reply: SpawnReply) -> None:
        """A request was answered; a monitor stays where there is a process."""
        if not isinstance(reply.result, Pid):
            self.watches_no_more(reply.request_id)

    def death(self, reason: Term) -> Iterator[Emit]:
        """The worker is dead: what its processes would have said, had they been able to.

        That may be much, so each signal is made when it is asked for.
        """
        links, watchers, monitors = self.links, self.watchers, self.monitors
        self.links, self.watchers, self.monitors, self.requests = set(), {}, {}, {}
        self._ties = Ties()
        return chain(
            (Emit(LinkExit(inside, outside), reason) for inside, outside in links),
            (
                Emit(MonitorPExit(asked, watcher, ref), reason)
                for of_node in watchers.values()
                for ref, (watcher, asked) in of_node.items()
            ),
            (
                Emit(DemonitorP(watcher, watched, ref), node=node)
                for ref, (watcher, watched, node) in monitors.items()
            ),
        )


_OUT: dict[type, Callable[[Boundary, Any, str | None], None]] = {
    Link: lambda b, c, node: b.linked(c.sender, c.to),
    Unlink: lambda b, c, node: b.unlinked(c.sender, c.to),
    UnlinkId: lambda b, c, node: b.unlinked(c.sender, c.to),
    LinkExit: lambda b, c, node: b.unlinked(c.sender, c.to),
    MonitorP: Boundary.watches,
    DemonitorP: lambda b, c, node: b.watches_no_more(c.ref),
    MonitorPExit: lambda b, c, node: b.unwatched(c),
    SpawnRequest: Boundary.asks_for,
}
_IN: dict[type, Callable[[Boundary, Any], None]] = {
    Link: lambda b, c: b.linked(c.to, c.sender),
    Unlink: lambda b, c: b.unlinked(c.to, c.sender),
    UnlinkId: lambda b, c: b.unlinked(c.to, c.sender),
    LinkExit: lambda b, c: b.unlinked(c.to, c.sender),
    MonitorP: Boundary.watched,
    DemonitorP: Boundary.unwatched,
    MonitorPExit: lambda b, c: b.watches_no_more(c.ref),
    SpawnReply: Boundary.answered,
}
