"""The hub's forwarding: between peers, the hub's own processes, and workers. Layer: node.

Terms are passed on as they are, undecoded, unless the receiver is a process of the hub itself.

**Order across the hops.** Erlang promises that the signals of one process to another arrive in the order in
which they were sent: messages, links, exits and downs alike. A signal from a worker here to a process on
another node passes two sockets, the hub between them, and a connection that may not be up yet. It keeps its
place because

- each hop is one queue, and there is one way from a runtime to another: a worker's signals for anybody go
  through its one socket to the hub, the hub's for a node through its one connection. There is no short cut
  between two workers: it would be a second way, faster or slower than the first;
- what arrives is passed on *in the same call*, by ``from_peer`` and ``from_worker``. Nothing is awaited in
  between, and there is no task for a signal: tasks run in the event loop's order;
- what waits for a connection waits in one list for that node, and ``connected`` empties it before anybody is
  told that the connection is up;
- where a receiver takes less than it is sent, its *sources* wait (``backpressure``): the hub stops reading
  from them, so what they sent later stays behind, in its order. Nothing is set aside and put back;
- where the hub answers for somebody who cannot (a dead process, a peer without the capability), the answer
  goes the way on which that one's own would have come.

What overtakes: a large message is cut, and *other* senders' small ones go between its pieces
(``dist.outgoing``).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import Final

import attrs

from pyglyn import loop_turn
from pyglyn.dist.control import (
    AliasSend,
    Control,
    DemonitorP,
    Link,
    LinkExit,
    MonitorP,
    MonitorPExit,
    Op,
    RegSend,
    Send,
    SpawnFlags,
    SpawnReply,
    SpawnRequest,
    Unlink,
    UnlinkId,
    UnlinkIdAck,
    undecodable,
)
from pyglyn.dist.flags import DistFlags
from pyglyn.errors import DecodeError, DistributionError, LocalProtocolError, NodeBusy
from pyglyn.escaping import escaped
from pyglyn.etf import Atom, Pid, Reference, Term, decode_bare, encode_bare
from pyglyn.net import Connection
from pyglyn.node import callers
from pyglyn.node.backpressure import FewATurn
from pyglyn.node.destinations import name_of
from pyglyn.node.hub import Hub
from pyglyn.node.inlet import Onward, inlet
from pyglyn.node.link import Payload
from pyglyn.node.runtime import MESSAGES, Parts, destination
from pyglyn.node.signals import answer_for_the_unreachable, target_node
from pyglyn.node.ways import Port, UnreadWay, way_unread
from pyglyn.node.worker_link import WorkerLink
from pyglyn.node.workers import Workers

logger = logging.getLogger("pyglyn.node")

_AWAITED: Final = frozenset((MonitorPExit, SpawnReply))
MOST_PENDING: Final = 10_000
"""Nodes that may be connected to at once because something was sent there: a peer can have us answer any."""
_OF_A_CONNECTION: Final = (
    Link, Unlink, UnlinkId, UnlinkIdAck, LinkExit, MonitorP, DemonitorP, MonitorPExit,
)  # fmt: skip
"""Signals that mean something only as long as the connection is up that was when they were sent."""
_ALIAS_SEND: Final = Op.ALIAS_SEND.value
_ENTRY: Final = 400
"""Bytes that a signal takes while it waits for a connection, besides its payload."""


@attrs.define
class _Pending:
    """What waits for a connection to come up."""

    signals: list[tuple[Control, Parts | None]] = attrs.field(factory=list)
    size: int = 0


class Router:
    """Passes signals on: what comes from peers and workers comes to it.

    Args:
        most_pending: nodes that may be connected to at once because something was sent there.

    Attributes:
        pending: nodes being connected to because something was sent there.
    """

    def __init__(self, hub: Hub, workers: Workers, *, most_pending: int = MOST_PENDING) -> None:
        self.hub = hub
        self._most_pending = most_pending
        self.workers = workers
        self.pending: dict[str, _Pending] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._waiting_bytes = 0
        self._to_tell: set[tuple[WorkerLink, str]] = set()
        self._said_that_many_wait = False
        self._begun = FewATurn(callers.A_TURN, hub.pauses)
        hub.peers.on_message, hub.peers.on_messages = self.from_peer, self.messages_from_peer
        workers.on_signal, workers.on_messages = self.from_worker, self.messages_from_worker
        workers.on_welcome = self.welcome

    # --- from the hub's own processes -------------------------------------------------------------

    def to_node(self, control: Control, parts: Parts | None, node: str) -> None:
        """Send a signal out of the hub's runtime; connects to the node first where needed.

        Raises:
            NodeBusy: a message, and too much is queued for that node already.
        """
        if node == self.hub.name:
            self._to_worker(control, parts)
            return
        connection = self.hub.peers.get(node)
        if connection is None:
            self._pend(control, parts, node)
            return
        queued, limit = connection.queued_bytes, self.hub.settings.send_limit
        if queued > limit and isinstance(control, MESSAGES):
            raise NodeBusy(
                f"{queued} bytes are queued for {node}, which does not take them; "
                "await me.drain() between messages, or raise send_limit"
            )
        if queued > 2 * limit:  # answers to what it asks all the time: nothing else ends that
            asyncio.get_running_loop().call_soon(connection.close, "it does not take what it is sent")
            return
        try:
            connection.send(control, parts)
        except LocalProtocolError as error:
            logger.debug("dropped a signal to %s: %s", node, error)
            self._not_sent(control)
        if type(control) is UnlinkId and DistFlags.UNLINK_ID not in connection.flags:
            self._in_its_stead(UnlinkIdAck(control.id, control.to, control.sender))

    def way(self, control: Send | RegSend | None, node: str) -> tuple[bytes, int, Port] | None:
        """What a way out of the hub needs (see ``ways``); None where each message is for ``to_node``."""
        if node == self.hub.name:
            link = None if control is None else self._worker_behind(control)
            return None if link is None else link.protocol.way(control, None)
        connection, settings = self.hub.peers.get(node), self.hub.settings
        if connection is None or connection.closed or settings.send_limit < 2 * settings.net.busy_limit:
            return None
        head = connection.head_of(control)
        return None if head is None else (head, connection.longest_frame, connection)

    def _not_sent(self, control: Control) -> None:
        """What a peer has not got the capability for is dropped, as in OTP, where nobody waits for an answer.

        A monitor then watches the connection only.
        """
        if type(control) is SpawnRequest:
            self._in_its_stead(SpawnReply(control.request_id, control.sender, SpawnFlags(0), Atom("notsup")))

    def _in_its_stead(self, answer: Control) -> None:
        """Answer for a peer that cannot, later, as an answer would come."""
        asyncio.get_running_loop().call_soon(self._into_node, answer, None)

    def _to_worker(self, control: Control, parts: Parts | None) -> None:
        """A signal for a process of this node that is not in the hub."""
        if type(control) is SpawnRequest:
            self._spawn_request(control, b"".join(parts or ()))
            return
        link = self._link_to(control)
        if link is not None:
            link.send(control, parts)
        else:
            self.hub.runtime.answer_for_the_dead(control)

    def _link_to(self, control: Control) -> WorkerLink | None:
        """The worker that a signal for this node goes to; None where that is the hub, or nobody."""
        if type(control) is MonitorP or type(control) is DemonitorP:
            return self._link_of_watched(control)
        dest = destination(control)
        if type(dest) is Pid or type(dest) is Reference:
            return self._link_of(dest)
        return self._link_by_name(dest)

    def _link_by_name(self, name: Term) -> WorkerLink | None:
        known = name.name if type(name) is Atom else name_of(name)
        pid = None if known is None else self.hub.runtime.names.get(known)
        return None if pid is None else self.workers.links.get(pid.serial)  # what has a name is of this node

    def _link_of_watched(self, control: MonitorP | DemonitorP) -> WorkerLink | None:
        """As `_link_to`. A name is looked up once a monitor: the reference remembers the worker."""
        watched, watcher, named = control.watched, control.watcher, self.workers.named
        if type(watched) is Pid:
            known = named.get(control.ref) if named else None
            if known is not None and known[0] == watcher:  # a peer that names a monitor by name and by pid
                del named[control.ref]
            return self._link_of(watched)
        if type(control) is MonitorP:
            link = self._link_by_name(watched)
            if link is not None:
                named[control.ref] = watcher, link
            return link
        known = named.get(control.ref)
        if known is None or known[0] != watcher:
            return None
        del named[control.ref]
        return known[1]

    def _link_of(self, dest: Pid | Reference) -> WorkerLink | None:
        serial = dest.serial if type(dest) is Pid else dest.words[-1]  # type: ignore[union-attr]
        runtime = self.hub.runtime
        if not serial or dest.creation != runtime.creation or dest.node != runtime.node:
            return None
        return self.workers.links.get(serial)

    def _pend(self, control: Control, parts: Parts | None, node: str) -> None:
        pending = self.pending.get(node)
        if pending is None:
            if not self.hub.settings.auto_connect or len(self.pending) >= self._most_pending:
                self._say_that_many_wait()
                self._unreachable([control])
                return
            pending = self.pending[node] = _Pending()
            self._start(self._connect(node))
        size = _ENTRY + sum(len(part) for part in parts or ())
        if isinstance(control, MESSAGES):
            limit = self.hub.settings.send_limit
            if pending.size + size > limit:
                raise NodeBusy(f"{pending.size} bytes wait for a connection to {escaped(node, 80)}")
            if self._waiting_bytes + size > limit:
                raise NodeBusy(
                    f"{self._waiting_bytes} bytes wait for connections to {len(self.pending)} nodes"
                )
        pending.size += size
        self._waiting_bytes += size
        pending.signals.append((control, parts))

    def _start(self, coroutine: object) -> None:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(coroutine)  # type: ignore[arg-type]
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self, node: str) -> None:
        try:
            await self.hub.peers.connect(node)
        except DistributionError as error:
            level = logging.DEBUG if self.hub.stopping.is_set() else logging.WARNING
            logger.log(level, "cannot connect to %s: %s", escaped(node, 80), error)
            pending = self._no_longer_pending(node)
            self._said_that_many_wait = (
                self._said_that_many_wait and 2 * len(self.pending) > self._most_pending
            )
            self._unreachable([control for control, _ in pending.signals] if pending else ())

    def _unreachable(self, unsent: Iterable[Control]) -> None:
        """Nothing that waited can be sent: links and monitors it would have made end with ``noconnection``.

        No others do: what is asked for from now on has a connect of its own.
        """
        answers = [answer for answer in map(answer_for_the_unreachable, unsent) if answer is not None]
        if answers:
            asyncio.get_running_loop().call_soon(self._answer_unsent, answers)

    def _answer_unsent(self, answers: list[Control]) -> None:
        for answer in answers:
            self._into_node(answer, None)

    def _no_longer_pending(self, node: str) -> _Pending | None:
        pending = self.pending.pop(node, None)
        if pending is not None:
            self._waiting_bytes -= pending.size
        return pending

    def _say_that_many_wait(self) -> None:
        if len(self.pending) >= self._most_pending and not self._said_that_many_wait:
            self._said_that_many_wait = True
            logger.warning(
                "%d nodes are being connected to; what is sent to others is dropped", len(self.pending)
            )

    def connected(self, connection: Connection) -> None:
        """A connection is up: send what waited for it."""
        connection.put_large_messages(self.room_for)
        runtime, workers = self.hub.runtime, self.workers
        connection.put_inlet(
            lambda begins, known: inlet(begins, known, runtime, connection.name, workers.named, workers.links)
        )
        pending = self._no_longer_pending(connection.name)
        for control, parts in pending.signals if pending else ():
            self.to_node(control, parts, connection.name)

    def node_lost(self, node: str) -> None:
        """End every link and monitor across the connection to a node, in the hub and in the workers."""
        self.hub.runtime.node_down(node)
        self.workers.node_down(node)

    def busy(self, node: str, busy: bool) -> None:
        """Much, or no longer much, is queued for a node: tell who sends, in the hub and in the workers.

        A worker is told when it sends there, and it was not written in the same turn (``_tell_busy``): with
        large messages this begins and ends with each of them.
        """
        if busy:
            self.hub.runtime.busy.begin(node)
        elif self.hub.runtime.busy.end(node):
            self.workers.no_longer_busy(node)

    async def stop(self) -> None:
        """Give up the connects under way."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # --- from peers -------------------------------------------------------------------------------

    def from_peer(self, connection: Connection, control: Control, payload: bytes | memoryview | None) -> None:
        """Pass on what a peer sent. The channel has seen to it that nothing is in another node's name."""
        runtime = self.hub.runtime
        if type(control) in _AWAITED and not self._is_awaited(control, connection.name):  # type: ignore[arg-type]
            return
        runtime.source = connection.name
        try:
            if not self.workers.links and type(control) is not SpawnRequest:
                runtime.receive_encoded(control, payload)
                return
            if type(control) is MonitorP or type(control) is DemonitorP:
                link = self._link_of_watched(control)
                if link is not None:
                    link.watch(control)
                else:
                    runtime.receive_encoded(control, payload)
            else:
                link = self._into_node(control, payload)
            if link is not None:
                if link.protocol.busy:
                    link.hold_back(connection)
            elif type(control) is SpawnRequest:
                self._begun.count(connection)
        finally:
            runtime.source = None

    def room_for(self, control: Control, size: int) -> memoryview | None:
        """Where a large message of about so many bytes is put together, if it is for a worker."""
        link = self._link_to(control) if self.workers.links else None
        return None if link is None else link.protocol.room_for(size)

    def _is_awaited(self, control: MonitorPExit | SpawnReply, node: str) -> bool:
        """Whether the node that says that a process ended, or was started, is the one it would be on.

        References are counted, so that any other node might name the right one.
        """
        of_spawn = type(control) is SpawnReply
        ref, to = (control.request_id, control.to) if of_spawn else (control.ref, control.watcher)  # type: ignore[union-attr]
        if of_spawn and type(control.result) is Pid and control.result.node != node:  # type: ignore[union-attr]
            return False
        link = self._link_of(to)
        if link is not None:
            return link.boundary.is_watched_at(ref, node)
        if of_spawn:
            return self.hub.runtime.spawn_replies.get(ref, (None,))[0] == node
        process = self.hub.runtime.processes.get(to.id)
        target = None if process is None else process.signals.monitors.get(ref)
        return target is not None and target_node(target) == node

    def messages_from_peer(
        self, connection: Connection, control: Send | RegSend, payloads: list[bytes]
    ) -> bool:
        """Pass messages on that have the same control message; False where each is for ``from_peer``."""
        link = None
        if self.workers.links:
            link = self._link_of(control.to) if type(control) is Send else self._link_by_name(control.name)  # type: ignore[union-attr]
        if link is not None:
            link.protocol.send_many(control, None, payloads)
            if link.protocol.busy:
                link.hold_back(connection)
            return True
        runtime = self.hub.runtime
        runtime.source = connection.name
        try:
            return runtime.receive_many_encoded(control, payloads)
        finally:
            runtime.source = None

    def _worker_behind(self, control: Send | RegSend) -> WorkerLink | None:
        """The worker that a message is for."""
        return self._link_of(control.to) if type(control) is Send else self._link_by_name(control.name)  # type: ignore[union-attr]

    def _into_node(self, control: Control, payload: bytes | memoryview | None) -> WorkerLink | None:
        """Pass a signal for this node on; returns the worker it went to, if it did."""
        if type(control) is SpawnRequest:
            self._spawn_request(control, payload)
            return None
        link = self._link_to(control) if self.workers.links else None
        if link is not None:
            link.send(control, None if payload is None else (payload,))
            return link
        self.hub.runtime.receive_encoded(control, payload)
        return None

    # --- from workers -----------------------------------------------------------------------------

    def welcome(self, link: WorkerLink) -> None:
        """Have what each read of a worker's link begins with taken by an inlet, if there is one."""
        runtime, workers, protocol = self.hub.runtime, self.workers, link.protocol
        onward = Onward(protocol.unread, protocol.ways, self._way_on, link.boundary, link.lost)
        protocol.put_inlet(
            lambda _, known: inlet(b"", known, runtime, None, workers.named, workers.links, onward)
        )

    def _way_on(self, control: Send | RegSend | None, node: str) -> UnreadWay | None:
        """The way of what a worker sends to another node; None where each is for ``from_worker``."""
        found = None if control is not None and control.token is not None else self.way(control, node)
        return None if found is None else way_unread(*found)

    def from_worker(self, link: WorkerLink, control: Control, payload: Payload, of: str | None) -> None:
        """Pass on what a worker sent.

        Args:
            of: the node that a name in the control message belongs to.
        """
        dest = None if type(control) is SpawnRequest else destination(control)
        node = dest.node if isinstance(dest, (Pid, Reference)) else of
        if node in link.lost and isinstance(control, _OF_A_CONNECTION):
            return
        link.boundary.outgoing(control, of)
        if type(control) is MonitorPExit and type(control.watched) is not Pid:
            self.workers.named.pop(control.ref, None)
        if node is None or node == self.hub.runtime.node:
            other = self._into_node(control, payload)
            if other is not None and other.protocol.busy:
                other.hold_back(link.protocol.transport)
            return
        if type(control) is not AliasSend or not self._answer_out(link, control, payload, node):
            parts = None if payload is None else (payload,)
            try:
                self.to_node(control, parts, node)
            except NodeBusy as error:
                logger.error("dropped a message of %s: %s", link.title, error)
        if node in self.hub.runtime.busy.nodes:
            self._tell_busy(link, node)

    def _answer_out(self, link: WorkerLink, control: AliasSend, payload: Payload, node: str) -> bool:
        """Pass a worker's answer to a call on by the short way; False where it is for ``to_node``.

        Further ones to that node are passed on unread, until that way is closed, or its node down.
        """
        found = None if control.token is not None or payload is None else self.way(None, node)
        if found is None or payload is None:
            link.protocol.unread.pop(node.encode(), None)
            return False
        way = link.protocol.unread[node.encode()] = way_unread(*found)
        return way(b"".join((encode_bare((_ALIAS_SEND, control.sender, control.alias)), payload)))

    def messages_from_worker(
        self, link: WorkerLink, control: Send | RegSend, payloads: list[bytes], of: str | None
    ) -> bool:
        """Pass messages on that have the same header; False where each is for ``from_worker``."""
        node = control.to.node if isinstance(control, Send) else of
        if node is None or node == self.hub.runtime.node:
            other = self._worker_behind(control)
            if other is None:
                return self.hub.runtime.receive_many_encoded(control, payloads)
            other.protocol.send_many(control, None, payloads)
            if other.protocol.busy:
                other.hold_back(link.protocol.transport)
            return True
        connection = self.hub.peers.get(node)
        if connection is None or connection.closed or connection.queued_bytes > self.hub.settings.send_limit:
            return False
        sent = connection.send_many(control, payloads)
        if node in self.hub.runtime.busy.nodes:
            self._tell_busy(link, node)
        return sent

    def _tell_busy(self, link: WorkerLink, node: str) -> None:
        """Tell a worker that much is queued for a node, if it still is when what can be has been written."""
        if not self._to_tell:
            loop_turn.current().at_end(self._tell_who_sends)
        self._to_tell.add((link, node))

    def _tell_who_sends(self) -> None:
        told, self._to_tell = self._to_tell, set()
        for link, node in told:
            if node in self.hub.runtime.busy.nodes:
                link.tell_busy(node)

    def _spawn_request(self, request: SpawnRequest, payload: bytes | memoryview | None) -> None:
        handler = self.hub.runtime.on_spawn_request
        if handler is None or payload is None:
            return
        try:
            args, _ = decode_bare(payload, limits=self.hub.settings.limits)
        except DecodeError as error:
            self.hub.runtime.complain(
                logger, f"refused a spawn request: its arguments do not decode: {error}"
            )
            args = undecodable(error)  # the process asked for ends with that, as rpc expects it
        handler(request, args)
