"""All connections of a node: made, accepted, deduplicated. Layer: net.

Source: net_kernel.erl, dist_util.erl (OTP 25.2); "Distribution Handshake" in erl_dist_protocol.

One connection per peer name. What can collide:

- two callers connect to one node: they wait for the same attempt;
- both nodes dial each other: the one with the greater name wins (``nok`` and ``ok_simultaneous``);
- a peer dials while we hold a connection with that name: it is asked (``alive``), and if it knows nothing of
  the old connection, the new one replaces it, but not before the cookie is proved, and not before
  ``on_down`` has been called for the old one.

All decisions are made in the event loop's callbacks, without awaiting anything in between.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import attrs

from pyglyn.complaints import Complaints
from pyglyn.dist import (
    Acceptor,
    AliveReceived,
    DistFlags,
    HandshakeComplete,
    Initiator,
    LocalSide,
    NameReceived,
    NokReceived,
    has_long_host,
    is_node_name,
    is_own_name,
)
from pyglyn.dist.handshake import MAX_NAME
from pyglyn.errors import DistributionError, HandshakeError, LocalProtocolError
from pyglyn.net import epmd_client, transport
from pyglyn.net.connection import Connection, HandshakeDriver, OnMessage, OnMessages
from pyglyn.net.epmd_server import EpmdServer
from pyglyn.net.listener import Listener
from pyglyn.net.registrar import Registrar, random_creation
from pyglyn.net.settings import LocalNode, NetSettings
from pyglyn.net.tls import Contexts
from pyglyn.net.turns import Turns
from pyglyn.patience import Patience

if TYPE_CHECKING:
    from pyglyn.dist.handshake import Event as HandshakeEvent

logger = logging.getLogger("pyglyn.net")

MAX_RESTARTS: Final = 3
"""How often an attempt to reach a node begins anew after a call in its name that did not prove the cookie."""


@attrs.define(eq=False)
class _Dial:
    """An attempt to reach a node, and everyone who waits for it.

    Attributes:
        future: what they wait for; none once it is settled, as the error knows of the attempt.
    """

    node: str
    future: asyncio.Future[Connection] | None
    task: asyncio.Task[None] | None = None
    driver: HandshakeDriver | None = None  # our own connection, once there is one
    adopted: HandshakeDriver | None = None  # one in the peer's name, which may take the place of ours
    timer: Patience | None = None
    has_turn: bool = False
    restarts: int = 0

    @property
    def name_sent(self) -> bool:
        """Whether the peer may know of this attempt already."""
        return self.driver is not None and self.driver.transport is not None

    def settle(self, connection: Connection | None, error: DistributionError | None = None) -> None:
        """Tell everyone who waits; of no connection, why there is none."""
        future, self.future = self.future, None
        if future is None or future.done():
            return
        if connection is not None:
            future.set_result(connection)
        else:
            assert error is not None
            future.set_exception(error)

    def abandon(self) -> None:
        """Stop our own attempt, whoever waits."""
        if self.task is not None:
            self.task.cancel()
            self.task = None
        if self.driver is not None:
            self.driver.close()
            self.driver = None
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


class Peers:
    """The table of connections of a node.

    The callbacks are called synchronously: ``on_up(connection)`` before the first message of a connection,
    ``on_message(connection, control, payload)`` in the order of arrival with the undecoded bare payload
    (None for messages that have none), or ``on_messages`` for many at once, ``on_busy(connection, busy)``,
    and ``on_down(connection, reason)`` once, after which nothing more comes from that connection. What they
    raise is logged; raised by ``on_up`` it costs the connection its life.

    Args:
        local: who we are; ``start`` fills in the creation.
        settings: limits, times and choices.

    Attributes:
        on_message, on_messages: those of connections to come; they may be set before the first.
    """

    def __init__(
        self,
        local: LocalNode,
        on_up: Callable[[Connection], None],
        on_down: Callable[[Connection, str], None],
        on_busy: Callable[[Connection, bool], None],
        settings: NetSettings | None = None,
        *,
        on_message: OnMessage | None = None,
        on_messages: OnMessages | None = None,
    ) -> None:
        _check_local(local)
        self.local = local
        self.settings = settings or NetSettings()
        self._on_up = on_up
        self.on_message = on_message
        self.on_messages = on_messages
        self._on_down = on_down
        self._on_busy = on_busy
        self._side: LocalSide | None = None
        self._on_named: Callable[[], None] | None = None
        self._connections: dict[str, Connection] = {}
        self._closing: weakref.WeakSet[Connection] = weakref.WeakSet()  # their sockets keep them
        self._dials: dict[str, _Dial] = {}
        self._accepting: dict[HandshakeDriver, None] = {}  # the oldest first
        self._most_accepting = transport.share_of_descriptors(8, self.settings.max_handshakes)
        self._crowded = False
        self._complaints = Complaints()
        self._contexts = None if self.settings.tls is None else Contexts(self.settings.tls)
        self._length_size = 2 if self._contexts is None else 4
        self._turns = Turns(self.settings.max_dials, self.settings.max_dials_to_host)
        self._orders = itertools.count(1)
        self._listener = Listener(local, self.settings, self._accept)
        self._registrar = Registrar(local, self.settings)

    # --- for the node --------------------------------------------------------------------------

    @property
    def port(self) -> int:
        """Where other nodes reach this one."""
        return self._listener.port

    @property
    def epmd(self) -> EpmdServer | None:
        """Our own EPMD, where this node serves it."""
        return self._registrar.server

    @property
    def name_problem(self) -> str:
        """Why other nodes do not find this one by its name now; empty where they do."""
        return self._registrar.problem

    @property
    def connections(self) -> list[Connection]:
        """The connections that are up."""
        return list(self._connections.values())

    @property
    def dialling(self) -> list[str]:
        """The nodes that an attempt to reach is under way for."""
        return [node for node in self._dials if node not in self._connections]

    def get(self, node: str) -> Connection | None:
        """The connection with a node, if it is up."""
        return self._connections.get(node)

    async def start(self) -> None:
        """`listen`, then `announce`; nothing is left of either if one fails."""
        await self.listen()
        try:
            await self.announce()
        except BaseException:
            self._side = None
            self._listener.close()
            raise

    async def listen(self) -> None:
        """Listen for who knows the port, and be able to connect; the creation is known after that.

        The creation is our own, not one from EPMD: processes have pids before the node has a name there.

        Raises:
            HandshakeError: the port cannot be listened on.
        """
        if self._side is not None:
            raise LocalProtocolError("already started")
        await self._listener.start()
        self.local.creation = random_creation()
        self._side = self._own_side()

    async def be_named_by(self, node: str, on_named: Callable[[], None]) -> None:
        """Connect to a node that gives this one its name and creation; such a node does not listen.

        Args:
            on_named: called once both are known, before ``on_up``.

        Raises:
            HandshakeError: it gives none, or could not be connected, as `connect` says.
            EpmdError: as `connect` says.
        """
        if self._side is not None or not self.local.unnamed:
            raise LocalProtocolError("already started, or named")
        self._side = self._own_side()
        self._on_named = on_named
        await self.connect(node)

    def _own_side(self) -> LocalSide:
        return LocalSide(
            name=self.local.name,
            creation=self.local.creation,
            flags=self.settings.flags | (DistFlags(0) if self.local.hidden else DistFlags.PUBLISHED),
            cookie=self.local.cookie.encode("latin-1"),
            required=self.settings.required_flags,
        )

    async def announce(self) -> None:
        """Register with EPMD: from now on the other nodes find this one by its name.

        Raises:
            EpmdError: the name is taken, or there is no EPMD and we cannot be it.
        """
        await self._registrar.start(self.port)

    async def check_name(self) -> None:
        """Find out before `announce` whether it would fail as things are now.

        Raises:
            EpmdError: the name is taken, or there is no EPMD and we may not be it.
        """
        await self._registrar.check()

    async def stop(self) -> None:
        """Unregister, close everything, and wait until the sockets are closed."""
        self._side = None
        self._listener.close()
        await self._registrar.stop()
        for dial in list(self._dials.values()):
            self._fail_dial(dial, HandshakeError(f"{self.local.name} is stopping"))
        for driver in list(self._accepting):
            driver.close()
        self._accepting.clear()
        for connection in list(self._connections.values()):
            connection.close("this node is stopping")
        while self._closing:
            connection = next(iter(self._closing))
            await connection.wait_closed()
            self._closing.discard(connection)

    async def connect(self, node: str) -> Connection:
        """Connect to a node, or return the connection there is.

        Cancelling one of several waiting callers does not stop the attempt.

        Raises:
            HandshakeError: it did not work; the text says why in one sentence, a note which command finds out
                more. Also ``WrongCookie``, ``MissingFlags``, ``NameRefused``, ``TlsError``.
            EpmdError: EPMD is unreachable or does not know the node.
            LocalProtocolError: not started, or the name is our own.
        """
        connection = self._connections.get(node)
        if connection is not None:
            return connection
        dial = self._dials.get(node)
        if dial is None:
            dial = self._start_dial(node)
        assert dial.future is not None  # nothing settled is in that table
        try:
            return await asyncio.shield(dial.future)
        except DistributionError as error:
            note = f"`pyglyn doctor {node}` finds out why"
            if self._side is not None and note not in getattr(error, "__notes__", ()):
                error.add_note(note)
            raise

    def disconnect(self, node: str) -> bool:
        """Close the connection with a node and call off an attempt; False where there is neither."""
        dial = self._dials.get(node)
        if dial is not None:
            self._fail_dial(dial, HandshakeError(f"the attempt to connect to {node} was called off"))
        connection = self._connections.get(node)
        if connection is not None:
            connection.close("disconnected by this node")
        return connection is not None or dial is not None

    # --- dialling ------------------------------------------------------------------------------

    def _start_dial(self, node: str) -> _Dial:
        if self._side is None:
            raise LocalProtocolError("this node is not started")
        if node == self.local.name:
            raise LocalProtocolError("a node does not connect to itself")
        problem = self._name_problem(node)
        if problem:
            raise HandshakeError(problem)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Connection] = loop.create_future()
        future.add_done_callback(_mark_retrieved)
        dial = self._dials[node] = _Dial(node, future)
        dial.task = loop.create_task(self._reach(dial, self._side), name=f"pyglyn dial {node}")
        return dial

    async def _reach(self, dial: _Dial, side: LocalSide) -> None:
        """Find the node and connect when it is its turn; the handshake goes on in callbacks."""
        if not dial.has_turn:
            host = dial.node.partition("@")[2]
            await self._turns.take(host)
            dial.has_turn = True
            assert dial.future is not None  # else this task would have been cancelled
            dial.future.add_done_callback(lambda _: self._turns.give_back(host))
        try:
            await self._open(dial, side)
            dial.task = None
        except DistributionError as error:
            dial.task = None
            self._own_attempt_failed(dial, error)
        except Exception as error:
            logger.exception("the attempt to connect to %s failed", dial.node)
            dial.task = None
            self._fail_dial(dial, HandshakeError(f"the attempt to connect to {dial.node} failed: {error!r}"))

    async def _open(self, dial: _Dial, side: LocalSide) -> None:
        address, port = await self._find(dial.node)
        contexts = self._contexts
        driver = dial.driver = HandshakeDriver(
            Initiator(side, dial.node, int.from_bytes(os.urandom(4), "big"), self._length_size),
            self.settings,
            next(self._orders),
            lambda driver, event: self._initiator_event(dial, driver, event),
            lambda _, error: self._own_attempt_failed(dial, error),
            None if contexts is None else (contexts.client, dial.node.partition("@")[2]),
        )
        try:
            await transport.dial(address, port, lambda: driver, self.settings.setup_timeout_s)
        except OSError as error:
            problem = f"{dial.node} cannot be reached at {address}:{port}: {transport.explain(error)}"
            raise HandshakeError(problem) from error

    async def _find(self, node: str) -> tuple[str, int]:
        """Find out where a node listens."""
        timeout_s = self.settings.setup_timeout_s
        known = self.settings.address_of(node) if self.settings.address_of is not None else None
        alive_name, _, host = node.partition("@")
        if known is not None:
            return await transport.resolve(known[0], timeout_s, ipv6=self.settings.ipv6), known[1]
        if not self.settings.epmd_port and not self.settings.dist_port:
            raise HandshakeError(f"there is no EPMD to ask where {node} is")
        address = await transport.resolve(host, timeout_s, ipv6=self.settings.ipv6)
        if self.settings.dist_port:
            return address, self.settings.dist_port
        entry = await epmd_client.lookup(alive_name, address, self.settings.epmd_port, timeout_s=timeout_s)
        return address, entry.port

    def _initiator_event(self, dial: _Dial, driver: HandshakeDriver, event: HandshakeEvent) -> None:
        machine = driver.machine
        assert isinstance(machine, Initiator)
        if isinstance(event, AliveReceived):
            take_over = dial.node not in self._connections
            driver.answer(lambda: machine.send_alive(take_over))
        elif isinstance(event, NokReceived):
            dial.abandon()
            timeout_s = self.settings.setup_timeout_s
            problem = f"{dial.node} wanted to connect itself, but did not within {timeout_s:g} s"
            dial.timer = Patience(timeout_s, self._fail_dial, dial, HandshakeError(problem))
        elif isinstance(event, HandshakeComplete):
            self._up(driver, event)

    def _own_attempt_failed(self, dial: _Dial, error: DistributionError) -> None:
        """Give up, unless the peer is on its way to us."""
        if dial.adopted in self._accepting:
            dial.abandon()
        else:
            self._fail_dial(dial, error)

    def _adopted_failed(self, dial: _Dial, error: DistributionError) -> None:
        """What came in the peer's name was not the peer, or met with an accident: go on alone, some times."""
        dial.adopted = None
        if dial.task is not None or dial.driver is not None:
            return
        if self._side is None or dial.restarts >= MAX_RESTARTS:
            self._fail_dial(dial, error)
            return
        dial.restarts += 1
        dial.abandon()
        dial.task = asyncio.get_running_loop().create_task(self._reach(dial, self._side))

    def _fail_dial(self, dial: _Dial, error: DistributionError) -> None:
        dial.abandon()
        if self._dials.get(dial.node) is dial:
            del self._dials[dial.node]
        dial.settle(None, error)

    # --- accepting -----------------------------------------------------------------------------

    def _accept(self) -> HandshakeDriver:
        """Make the protocol of an accepted connection."""
        side = self._side or LocalSide(name="nonode@nohost", creation=0, flags=DistFlags(0), cookie=b"")
        driver = HandshakeDriver(
            Acceptor(side, int.from_bytes(os.urandom(4), "big"), self._length_size),
            self.settings,
            next(self._orders),
            self._acceptor_event,
            self._acceptor_failed,
            None if self._contexts is None else (self._contexts.server, None),
        )
        if self._side is None:
            driver.close()
            return driver
        if len(self._accepting) >= self._most_accepting:
            self._make_room()
        elif len(self._accepting) * 2 <= self._most_accepting:
            self._crowded = False
        self._accepting[driver] = None
        return driver

    def _make_room(self) -> None:
        """Close the connection that has been without the cookie for longest: an honest one needs a moment."""
        oldest = next(iter(self._accepting))
        del self._accepting[oldest]
        oldest.close()
        if not self._crowded:
            self._crowded = True
            logger.warning(
                "%d connections have not proved the cookie yet: the oldest are closed, the last one from %s",
                self._most_accepting,
                oldest.peer_address,
            )

    def _acceptor_event(self, driver: HandshakeDriver, event: HandshakeEvent) -> None:
        if isinstance(event, NameReceived):
            self._answer_name(driver, event)
        elif isinstance(event, HandshakeComplete):
            self._accepting.pop(driver, None)
            self._up(driver, event)

    def _answer_name(self, driver: HandshakeDriver, event: NameReceived) -> None:
        """Decide what status a calling node gets."""
        machine = driver.machine
        assert isinstance(machine, Acceptor)
        name = event.name
        if event.dynamic:
            name = f"{os.urandom(6).hex()}@{event.name.rpartition('@')[2]}"
        problem = self._name_problem(name) or self._not_allowed(name)
        if problem:
            driver.answer(lambda: machine.send_status("not_allowed"))
            self._accepting.pop(driver, None)
            driver.close()
            self._say_refused(driver, problem)
            return
        if event.dynamic:
            driver.answer(lambda: machine.send_named(name, random_creation()))
            return
        dial = self._dials.get(name)
        if dial is None:
            status = "alive" if name in self._connections else "ok"
        elif dial.name_sent and self.local.name > name:
            status = "nok"
        else:
            # Anybody may give that name. If it is the peer, it refuses our attempt where it knows of it.
            status = "ok_simultaneous"
            if not dial.name_sent:
                dial.abandon()
            dial.adopted = driver
        driver.answer(lambda: machine.send_status(status))
        if status == "nok":
            self._accepting.pop(driver, None)
            driver.close()

    def _say_refused(self, driver: HandshakeDriver, why: object) -> None:
        """Log it; of a burst for one reason the first, whatever ports they come from."""
        self._complaints.log(logger, str(why), start=f"refused a connection from {driver.peer_address}: ")

    def _acceptor_failed(self, driver: HandshakeDriver, error: HandshakeError) -> None:
        self._accepting.pop(driver, None)
        if self._is_no_matter(driver):
            logger.debug("refused a connection from %s: %s", driver.peer_address, error)
        else:
            self._say_refused(driver, error)
        for dial in list(self._dials.values()):
            if dial.adopted is driver:
                self._adopted_failed(dial, error)

    def _is_no_matter(self, driver: HandshakeDriver) -> bool:
        """Whether a connection was only looked at, or lost a race with another one to the same peer."""
        peer = driver.machine.peer_name
        return driver.closed_by_peer and (
            not driver.heard or peer in self._connections or peer in self._dials
        )

    def _name_problem(self, node: str) -> str | None:
        """Say why we cannot talk to a node of this name at all."""
        if not is_node_name(node) or len(node) > MAX_NAME or not _is_latin1(node):
            return f"{node[:80]!r} is no node name: expected name@host"
        if has_long_host(node) != self.local.long_names:
            kinds = ("a long", "short ones") if has_long_host(node) else ("a short", "long ones")
            return f"{node} has {kinds[0]} host name, but this node, {self.local.name}, uses {kinds[1]}"
        return None

    def _not_allowed(self, name: str) -> str | None:
        if name == self.local.name:
            return f"it has our own name, {name}"
        if self.settings.allowed is not None and not self.settings.allowed(name):
            return f"{name} is not among the allowed nodes"
        return None

    # --- up and down ---------------------------------------------------------------------------

    def _up(self, driver: HandshakeDriver, complete: HandshakeComplete) -> None:
        """Put a connection that has proved the cookie into the table."""
        sock = driver.transport
        assert sock is not None
        name = complete.name
        old = self._connections.get(name)
        if self.local.unnamed and not self._is_named(driver):
            return
        if old is not None:
            if old.order > driver.order:
                sock.abort()  # it was overtaken by a connection that began later
                return
            old.close("replaced by a newer connection from the same node")
        assert self.on_message is not None
        connection = Connection(
            complete,
            driver.order,
            self.local.name,
            self.settings,
            self.on_message,
            self._down,
            self._on_busy,
            self.on_messages,
        )
        self._connections[name] = connection
        dial = self._dials.pop(name, None)
        if dial is not None:
            if dial.driver is driver:
                # The task may be about to return from connecting: to cancel it now would close the socket.
                dial.driver = dial.task = None
            dial.abandon()
        self._registrar.met(name)
        logger.debug("connected with %s", name)
        try:
            self._on_up(connection)
        except Exception:
            logger.exception("the connection with %s could not be taken into use", name)
            connection.close("it could not be taken into use")
        connection.start(sock)
        if dial is not None and connection.closed:
            problem = f"{name} was up and at once down again: {connection.down_reason}"
            dial.settle(None, HandshakeError(problem))
        elif dial is not None:
            dial.settle(connection)

    def _is_named(self, driver: HandshakeDriver) -> bool:
        """Be who the first node that let us in says we are; False if the node could not be made."""
        side = self._side = driver.machine.local
        self.local.name, self.local.creation = side.name, side.creation
        assert self._on_named is not None
        assert driver.transport is not None
        try:
            self._on_named()
        except Exception as error:
            logger.exception("%s could not be taken as the name of this node", side.name)
            driver.transport.abort()
            for dial in list(self._dials.values()):
                self._fail_dial(dial, HandshakeError(f"the node could not be started: {error!r}"))
            return False
        return True

    def _down(self, connection: Connection, reason: str) -> None:
        if self._connections.get(connection.name) is connection:
            del self._connections[connection.name]
        if not connection.gone:
            self._closing.add(connection)
        logger.debug("no longer connected with %s: %s", connection.name, reason)
        try:
            self._on_down(connection, reason)
        except Exception:
            logger.exception("the end of the connection with %s could not be handled", connection.name)


def _check_local(local: LocalNode) -> None:
    name = local.name
    if not isinstance(name, str):
        raise LocalProtocolError(f"a node's name is text such as 'inventory@localhost', and not {name!r}")
    if not is_node_name(name) or not _is_latin1(name):
        raise LocalProtocolError(f"{name[:80]!r} is no node name: expected name@host")
    if len(name) > MAX_NAME:
        problem = f"it has {len(name)} characters, OTP takes up to {MAX_NAME}"
        raise LocalProtocolError(f"{name[:20]!r}… is no node name: {problem}")
    if not is_own_name(name):
        raise LocalProtocolError(
            f"{name!r} is no node name: before the @ only a-z, A-Z, 0-9, _ and - are allowed, as in OTP"
        )
    if not _is_latin1(local.cookie) or not local.cookie:
        raise LocalProtocolError("a cookie must be Latin-1 text, and not empty")


def _is_latin1(text: str) -> bool:
    return all(ord(character) < 256 for character in text)


def _mark_retrieved(future: asyncio.Future[Connection]) -> None:
    """Keep asyncio from complaining when nobody waits for a failed attempt any more."""
    if not future.cancelled():
        future.exception()
