"""The hub's forwarding: between peers, the hub's own processes, and workers. Layer: node.

One path a pair of processes: what arrives is passed on in the same call, in the order it came. Terms are
passed on as they are, undecoded, unless the receiver is a process of the hub itself.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import attrs

from pyglyn.dist.control import (
    AliasSend,
    AltactSend,
    Control,
    DemonitorP,
    Exit2,
    Link,
    LinkExit,
    MonitorP,
    MonitorPExit,
    RegSend,
    Send,
    SpawnFlags,
    SpawnReply,
    SpawnRequest,
    Unlink,
    UnlinkId,
    UnlinkIdAck,
)
from pyglyn.errors import DecodeError, DistributionError, LocalProtocolError, NodeBusy
from pyglyn.etf import Atom, Pid, Reference, decode_bare
from pyglyn.net import Connection
from pyglyn.node.link import Frame
from pyglyn.node.runtime import Parts, destination
from pyglyn.node.signals import Emit
from pyglyn.node.workers import WorkerLink

if TYPE_CHECKING:
    from pyglyn.node.node import Node

logger = logging.getLogger("pyglyn.node")

_MESSAGES = (Send, RegSend, AliasSend, AltactSend)


def claimed_sender(control: Control) -> Pid | None:
    """The pid that must belong to the sending node, else OTP disconnects; None where any may stand."""
    if isinstance(control, (Link, Unlink, UnlinkId, UnlinkIdAck, LinkExit, Exit2)):
        return control.sender
    if isinstance(control, (MonitorP, DemonitorP)):
        return control.watcher
    return None


@attrs.define
class _Pending:
    """What waits for a connection to come up."""

    signals: list[tuple[Control, Parts | None]] = attrs.field(factory=list)
    size: int = 0


class Router:
    """Passes signals on.

    Attributes:
        pending: nodes being connected to because something was sent there.
    """

    def __init__(self, node: Node) -> None:
        self.node = node
        self.pending: dict[str, _Pending] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    # --- from the hub's own processes -------------------------------------------------------------

    def forward(self, control: Control, parts: Parts | None, node: str) -> None:
        """Send a signal out of the hub's runtime; connects to the node first where needed.

        Raises:
            NodeBusy: a message, and too much is queued for that node already.
        """
        if node == self.node.name:
            self._forward_here(control, parts)
            return
        connection = self.node.peers.get(node)
        if connection is None:
            self._pend(control, parts, node)
            return
        if connection.queued_bytes > self.node.settings.send_limit and isinstance(control, _MESSAGES):
            raise NodeBusy(
                f"{connection.queued_bytes} bytes are queued for {node}, which does not take them; "
                "await me.drain() between messages, or raise send_limit"
            )
        try:
            connection.send(control, parts)
        except LocalProtocolError as error:
            # A capability the peer has not got, such as aliases: OTP too drops what it cannot tell.
            logger.debug("dropped a signal to %s: %s", node, error)

    def _forward_here(self, control: Control, parts: Parts | None) -> None:
        """A signal for a process of this node that is not in the hub."""
        if type(control) is SpawnRequest:
            self._spawn_request(control, b"".join(parts or ()))
            return
        dest = destination(control)
        if not isinstance(dest, (Pid, Reference)):
            pid = self.node.runtime.resolve(control, dest)
            if pid is None:
                self.node.runtime.answer_for_the_dead(control)
                return
            dest = pid
        link = self._link_of(dest)
        if link is not None:
            link.send(control, parts)
        else:
            self.node.runtime.answer_for_the_dead(control)

    def _link_of(self, dest: Pid | Reference) -> WorkerLink | None:
        serial = dest.serial if isinstance(dest, Pid) else dest.words[-1]
        if dest.creation != self.node.local.creation or dest.node != self.node.name:
            return None
        return self.node.workers.links.get(serial)

    def _pend(self, control: Control, parts: Parts | None, node: str) -> None:
        pending = self.pending.get(node)
        if pending is None:
            if not self.node.settings.auto_connect:
                self._unreachable(node)
                return
            pending = self.pending[node] = _Pending()
            self._start(self._connect(node))
        size = sum(len(part) for part in parts or ())
        if pending.size + size > self.node.settings.send_limit and isinstance(control, _MESSAGES):
            raise NodeBusy(f"{pending.size} bytes wait for a connection to {node}")
        pending.size += size
        pending.signals.append((control, parts))

    def _start(self, coroutine: object) -> None:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(coroutine)  # type: ignore[arg-type]
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self, node: str) -> None:
        try:
            await self.node.peers.connect(node)
        except DistributionError as error:
            logger.warning("cannot connect to %s: %s", node, error)
            self._unreachable(node)

    def _unreachable(self, node: str) -> None:
        """Nothing that waited can be sent: links and monitors to the node end with ``noconnection``."""
        self.pending.pop(node, None)
        asyncio.get_running_loop().call_soon(self.node.node_lost, node)

    def connected(self, connection: Connection) -> None:
        """A connection is up: send what waited for it."""
        pending = self.pending.pop(connection.name, None)
        for control, parts in pending.signals if pending else ():
            self.forward(control, parts, connection.name)

    async def stop(self) -> None:
        """Give up the connects under way."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # --- from peers -------------------------------------------------------------------------------

    def from_peer(self, connection: Connection, control: Control, payload: bytes | memoryview | None) -> None:
        """Pass on what a peer sent; a signal in another node's name closes the connection, as in OTP."""
        sender = claimed_sender(control)
        if sender is not None and sender.node != connection.name:
            connection.close(f"{type(control).__name__} from a process of {sender.node}")
            return
        link = self._arrive(control, payload)
        if link is not None and link.protocol.busy:
            link.pause(connection)

    def _arrive(self, control: Control, payload: bytes | memoryview | None) -> WorkerLink | None:
        """Pass a signal for this node on; returns the worker it went to, if it did."""
        if type(control) is SpawnRequest:
            self._spawn_request(control, payload)
            return None
        links = self.node.workers.links
        if links:
            dest = destination(control)
            if not isinstance(dest, (Pid, Reference)):
                named = self.node.runtime.names.get(dest.name) if isinstance(dest, Atom) else None
                if named is not None and named.serial:
                    dest = self.node.runtime.resolve(control, dest) or named
            if isinstance(dest, (Pid, Reference)):
                link = self._link_of(dest)
                if link is not None:
                    link.send(control, None if payload is None else (payload,))
                    return link
        self.node.runtime.receive(control, payload)
        return None

    # --- from workers -----------------------------------------------------------------------------

    def from_worker(self, link: WorkerLink, frame: Frame) -> None:
        """Pass on what a worker sent."""
        control = frame.control
        assert control is not None
        link.boundary.outgoing(control, frame.node)
        if type(control) is MonitorPExit:
            self.node.runtime.forget_named_monitor(control.ref)
        dest = None if type(control) is SpawnRequest else destination(control)
        node = dest.node if isinstance(dest, (Pid, Reference)) else frame.node
        if node is None or node == self.node.name:
            other = self._arrive(control, frame.payload)
            if other is not None and other.protocol.busy and link.protocol.transport is not None:
                other.pause(link.protocol.transport)
            return
        parts = None if frame.payload is None else (frame.payload,)
        try:
            self.forward(control, parts, node)
        except NodeBusy as error:
            logger.error("dropped a message of %s: %s", link.title, error)

    def emit(self, signal: Emit) -> None:
        """Send a signal in the name of a process that can no longer do it itself."""
        self.node.runtime.send(signal.control, signal.reason, signal.node)

    def _spawn_request(self, request: SpawnRequest, payload: bytes | memoryview | None) -> None:
        handler = self.node.runtime.on_spawn_request
        if handler is None or payload is None:
            return
        try:
            args, _ = decode_bare(payload, limits=self.node.settings.limits)
        except DecodeError as error:
            logger.warning("refused a spawn request: its arguments do not decode: %s", error)
            reply = SpawnReply(request.request_id, request.sender, SpawnFlags(0), Atom("badarg"))
            self.node.runtime.send(reply)
            return
        handler(request, args)
