"""One worker as the hub sees it. Layer: node."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections import Counter
from typing import Final

import attrs

from pyglyn.dist.control import IN_PAYLOAD, Control, DemonitorP, Exit2, MonitorP, Op
from pyglyn.dist.framing import LARGE
from pyglyn.etf import Atom, Pid, Reference, Term, decode_bare, pack_frame
from pyglyn.node.backpressure import PausedSources, Pauses, Source
from pyglyn.node.boundary import Boundary
from pyglyn.node.link import FROM_NOWHERE, LinkProtocol
from pyglyn.node.reasons import KILL, KILLED
from pyglyn.node.runtime import Parts

_MONITOR_P, _DEMONITOR_P = Op.MONITOR_P.value, Op.DEMONITOR_P.value
BUSY: Final = Atom("busy")
_LONGEST_ATOM = 16
"""Bytes of the atom ``kill``, in whatever form, and some more."""


@attrs.define(eq=False)
class WorkerLink:
    """One worker as the hub sees it.

    Attributes:
        serial: its number in the node.
        os_pid: the operating system's number.
        parent: serial of its parent (0: the hub itself).
        title: what it is, for people.
        boundary: its links and monitors to others.
        reason: why it ended, once its parent has said.
        paused: sources that wait until the worker has taken what is queued for it.
        busy: the nodes that it knows as busy.
        lost: nodes that it has been told are gone, until it has confirmed that: links and monitors it sends
            there until then have ended already.
        main: the process it was started for, if it said so.
        required: what it has to find in order, by its own word, for the node to be ready (see ``readiness``).
        unanswered: the question that it has not answered in time, and when that was.
        told: resolved when everyone who asked has been told of its end.
    """

    serial: int
    os_pid: int
    parent: int
    title: str
    protocol: LinkProtocol
    boundary: Boundary = attrs.field(factory=Boundary)
    reason: asyncio.Future[Term] = attrs.field(factory=lambda: asyncio.get_running_loop().create_future())
    paused: PausedSources = attrs.field(factory=lambda: PausedSources(Pauses()))
    busy: set[str] = attrs.field(factory=set)
    lost: Counter[str] = attrs.field(factory=Counter)
    main: Pid | None = None
    required: tuple[str, ...] = ()
    unanswered: tuple[Reference, float] | None = None
    told: asyncio.Future[None] = attrs.field(factory=lambda: asyncio.get_running_loop().create_future())

    def send(self, control: Control, parts: Parts | None) -> None:
        """Pass a signal on to the worker."""
        if type(control) is MonitorP or type(control) is DemonitorP:
            self.watch(control)
            return
        self.boundary.incoming(control)
        self.protocol.send(control, None, parts)
        if type(control) is Exit2 and control.to == self.main and _is_kill(control, parts):
            self.kill()

    def watch(self, control: MonitorP | DemonitorP) -> None:
        """Pass a monitor on, or the end of one: each call has both."""
        if type(control) is MonitorP:
            op = _MONITOR_P
            self.boundary.watched(control)
        else:
            op = _DEMONITOR_P
            self.boundary.unwatched(control)  # type: ignore[arg-type]
        signal = (op, control.watcher, control.watched, control.ref)
        frame = pack_frame(FROM_NOWHERE, signal, LARGE)
        if frame is None or not self.protocol.send_frame(frame):
            self.protocol.send(control, None, None)

    def kill(self) -> None:
        """Kill the OS process; what was in it ends with reason ``killed``.

        Its main process is killed in no other way, since a stuck one would not notice.
        """
        if self.protocol.transport is not None and not self.reason.done():
            self.reason.set_result(KILLED)
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.os_pid, signal.SIGKILL)

    def tell_busy(self, node: str) -> None:
        """Tell it, unless it knows, that much is queued for a node that it sends to."""
        if node not in self.busy:
            self.busy.add(node)
            self.protocol.request((BUSY, Atom(node), True))

    def hold_back(self, source: Source | None) -> None:
        """Too much is queued for this worker: no longer read from who sent it something."""
        if source is not None:
            self.paused.pause(source)


def _is_kill(control: Exit2, parts: Parts | None) -> bool:
    if control.reason is not IN_PAYLOAD:
        return control.reason is KILL
    encoded = b"".join(parts or ())
    return len(encoded) < _LONGEST_ATOM and decode_bare(encoded)[0] is KILL
