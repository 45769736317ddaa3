"""What crosses the boundary of one worker: links and monitors, so that its death can be told. Layer: node.

Pure: signals in, table, and at the end the signals that a dead worker can no longer send. The hub keeps one
for each worker and shows it every signal that passes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pyglyn.dist.control import (
    Control,
    DemonitorP,
    Link,
    LinkExit,
    MonitorP,
    MonitorPExit,
    Unlink,
    UnlinkId,
)
from pyglyn.etf import Atom, Pid, Reference, Term
from pyglyn.node.signals import Emit


class Boundary:
    """Links and monitors between processes of one worker (inside) and all others (outside).

    Attributes:
        links: (inside, outside) for each link.
        watchers: monitors of inside processes: reference -> (watcher, the pid or name it asked with, the
            pid behind it).
        monitors: monitors by inside processes: reference -> (watcher, what it watches, the node of a name).
    """

    def __init__(self) -> None:
        self.links: set[tuple[Pid, Pid]] = set()
        self.watchers: dict[Reference, tuple[Pid, Pid | Atom]] = {}
        self.monitors: dict[Reference, tuple[Pid, Pid | Atom, str | None]] = {}

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

    def node_down(self, node: str) -> None:
        """The connection to a node is gone; the worker is told and ends its side by itself."""
        self.links = {pair for pair in self.links if pair[1].node != node}
        self.watchers = {ref: w for ref, w in self.watchers.items() if w[0].node != node}
        self.monitors = {
            ref: m
            for ref, m in self.monitors.items()
            if (m[1].node if isinstance(m[1], Pid) else m[2]) != node
        }

    def death(self, reason: Term) -> list[Emit]:
        """The worker is dead: what its processes would have said, had they been able to."""
        signals = [Emit(LinkExit(inside, outside), reason) for inside, outside in self.links]
        signals += [
            Emit(MonitorPExit(asked, watcher, ref), reason) for ref, (watcher, asked) in self.watchers.items()
        ]
        signals += [
            Emit(DemonitorP(watcher, watched, ref), node=node)
            for ref, (watcher, watched, node) in self.monitors.items()
        ]
        self.links, self.watchers, self.monitors = set(), {}, {}
        return signals


def _monitor_out(b: Boundary, c: Any, node: str | None) -> None:
    b.monitors[c.ref] = (c.watcher, c.watched, node)


def _unlink_in(b: Boundary, c: Any) -> None:
    b.links.discard((c.to, c.sender))


def _monitor_in(b: Boundary, c: Any) -> None:
    b.watchers[c.ref] = (c.watcher, c.watched)


_OUT: dict[type, Callable[[Boundary, Any, str | None], None]] = {
    Link: lambda b, c, node: b.links.add((c.sender, c.to)),
    Unlink: lambda b, c, node: b.links.discard((c.sender, c.to)),
    UnlinkId: lambda b, c, node: b.links.discard((c.sender, c.to)),
    LinkExit: lambda b, c, node: b.links.discard((c.sender, c.to)),
    MonitorP: _monitor_out,
    DemonitorP: lambda b, c, node: b.monitors.pop(c.ref, None) and None,
    MonitorPExit: lambda b, c, node: b.watchers.pop(c.ref, None) and None,
}
_IN: dict[type, Callable[[Boundary, Any], None]] = {
    Link: lambda b, c: b.links.add((c.to, c.sender)),
    Unlink: _unlink_in,
    UnlinkId: _unlink_in,
    LinkExit: _unlink_in,
    MonitorP: _monitor_in,
    DemonitorP: lambda b, c: b.watchers.pop(c.ref, None) and None,
    MonitorPExit: lambda b, c: b.monitors.pop(c.ref, None) and None,
}
