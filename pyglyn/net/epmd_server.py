"""An EPMD of our own, for machines where none runs. Layer: net.

Source: epmd_srv.c (OTP 25.2). What real nodes and the ``epmd`` program rely on: the answer to ALIVE2 in one
write; the connection closed right after every other answer; the port in NAMES being the one the asker uses;
creations never 0. Names are registered, and the daemon is stopped or listed in full, from this machine only.

Not supported: the "relaxed command check" for STOP is off unless asked for; no systemd socket activation.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import Callable, Sequence
from typing import cast

from pyglyn import forks
from pyglyn.complaints import Complaints
from pyglyn.dist import epmd
from pyglyn.dist.epmd import NodeEntry, Request
from pyglyn.errors import RemoteProtocolError
from pyglyn.net.transport import ListeningSockets, listen, no_delay, share_of_descriptors

logger = logging.getLogger("pyglyn.net.epmd")

LOOPBACK = ("127.0.0.1", "::1")
IDLE_S = 60.0
MAX_CONNECTIONS = 1024
"""Those over which a node is registered, and as many others; an eighth of the files the process may open, if
that is fewer."""

MAX_REMEMBERED = 1000
"""Names no longer registered whose last creation is kept, as in the real daemon's list of unused names."""


class EpmdServer:
    """Serve EPMD on loopback, and on further addresses if wanted.

    Attributes:
        port: where it listens, once started.
        idle_s: after so many seconds a connection over which nothing is registered is closed.
    """

    def __init__(
        self,
        port: int = epmd.DEFAULT_PORT,
        addresses: Sequence[str] = LOOPBACK,
        *,
        relaxed_command_check: bool = False,
        clock: Callable[[], float] = time.time,
        idle_s: float = IDLE_S,
    ) -> None:
        self.port = port
        self.addresses = tuple(addresses)
        self._relaxed = relaxed_command_check
        self._clock = clock
        self.idle_s = idle_s
        self._complaints = Complaints()
        self._sockets: ListeningSockets | None = None
        self._most = share_of_descriptors(8, MAX_CONNECTIONS)
        self._connections: set[_Client] = set()
        self._asking: dict[
            _Client, None
        ] = {}  # connections that nothing is registered over, the oldest first
        self._registered: dict[str, tuple[NodeEntry, _Client]] = {}
        self._unused: dict[str, tuple[NodeEntry, int, int]] = {}  # last entry, creation, connection number
        self._numbers = itertools.count(1)
        self._killed = asyncio.Event()

    async def start(self) -> None:
        """Begin to serve.

        Raises:
            OSError: the port is in use: there is an EPMD already.
        """
        self._sockets = await listen(self.addresses, self.port, lambda: _Client(self))
        self.port = self._sockets.port
        logger.info("serving EPMD on port %d of %s", self.port, ", ".join(self._sockets.addresses))

    def stop(self) -> None:
        """Stop serving and drop every registration; the nodes will look for the next EPMD."""
        if self._sockets is not None:
            self._sockets.close()
            self._sockets = None
        for client in list(self._connections):
            client.drop()

    async def killed(self) -> None:
        """Wait until someone asks the daemon to end; it has stopped by then."""
        await self._killed.wait()

    @property
    def nodes(self) -> list[NodeEntry]:
        """The registered nodes, in the order they came."""
        return [entry for entry, _ in self._registered.values()]

    @property
    def this_machine_only(self) -> bool:
        """Whether nobody outside this machine reaches it."""
        return set(self.addresses) <= set(LOOPBACK)

    # --- what the connections ask --------------------------------------------------------------

    def connected(self, client: _Client) -> int | None:
        """Take a connection in and number it; None while nothing is served. Too many cost the oldest one."""
        if self._sockets is None:
            return None
        if len(self._asking) >= self._most:
            next(iter(self._asking)).drop()
        self._connections.add(client)
        self._asking[client] = None
        return next(self._numbers)

    def disconnected(self, client: _Client) -> None:
        """Forget a connection, and what was registered over it."""
        self._connections.discard(client)
        self._asking.pop(client, None)
        name = client.registered
        if name is not None:
            client.registered = None
            entry, _ = self._registered.pop(name)
            self._unused[name] = (entry, client.creation, client.number)
            while len(self._unused) > MAX_REMEMBERED:
                del self._unused[next(iter(self._unused))]
            self.say(f"node {name} is gone from EPMD")

    def say(self, text: str, level: int = logging.INFO) -> None:
        """Log what anybody on the machine can bring about, of a burst some lines."""
        self._complaints.log(logger, text, level=level)

    def answer(self, client: _Client, body: bytes) -> bytes | None:
        """Carry a request out; None to close the connection without a word.

        Raises:
            RemoteProtocolError: the request is malformed.
        """
        request = body[0]
        if request == Request.PORT_PLEASE2:
            found = self._registered.get(epmd.decode_name(body))
            return epmd.encode_port2_answer(found[0] if found else None)
        if request == Request.NAMES:
            return epmd.encode_names_answer(self.port, self.nodes)
        if not client.is_local:
            return None
        if request == Request.ALIVE2:
            return self._register(client, epmd.decode_alive2(body))
        if request == Request.DUMP:
            active = [(entry, holder.number) for entry, holder in self._registered.values()]
            old = [(entry, number) for entry, _, number in self._unused.values()]
            return epmd.encode_dump_answer(self.port, active, old)
        if request == Request.KILL:
            return self._kill()
        if request == Request.STOP and self._relaxed:
            return self._stop_node(epmd.decode_name(body))
        return None

    def _register(self, client: _Client, entry: NodeEntry) -> bytes:
        if entry.name in self._registered:
            self.say(f"the name {entry.name} is taken, a second node of that name was refused")
            return epmd.encode_alive2_answer(entry, 1, 99)
        if len(self._registered) >= self._most:
            self.say(f"{self._most} nodes are registered, a further name was refused", logging.WARNING)
            return epmd.encode_alive2_answer(entry, 1, 99)
        self._asking.pop(client, None)
        unused = self._unused.pop(entry.name, None)
        creation = unused[1] + 1 if unused else int(self._clock())
        if not epmd.FIRST_CREATION <= creation <= epmd.LAST_CREATION:
            creation = epmd.FIRST_CREATION
        client.creation = creation
        client.registered = entry.name
        self._registered[entry.name] = (entry, client)
        self.say(f"node {entry.name} registered with EPMD, port {entry.port}")
        return epmd.encode_alive2_answer(entry, 0, creation)

    def _kill(self) -> bytes:
        if self._registered and not self._relaxed:
            return b"NO"
        asyncio.get_running_loop().call_soon(self._end)
        return b"OK"

    def _end(self) -> None:
        self.stop()
        self._killed.set()

    def _stop_node(self, name: str) -> bytes:
        found = self._registered.get(name)
        if found is None:
            return b"NOEXISTSTOPPED"  # both words, as the real daemon writes them
        found[1].drop()
        return b"STOPPED"


class _Client(asyncio.Protocol):
    """One connection to the daemon."""

    def __init__(self, server: EpmdServer) -> None:
        self._server = server
        self._buffer = b""
        self._transport: asyncio.Transport | None = None
        self._idle: asyncio.TimerHandle | None = None
        self.number = 0
        self.is_local = False
        self.registered: str | None = None
        self.creation = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        stream = cast(asyncio.Transport, transport)  # by what it does: uvloop's is no subclass
        number = self._server.connected(self)
        if number is None:
            stream.abort()
            return
        self._transport, self.number = stream, number
        forks.keep_transport(stream)
        self.is_local = _is_loopback(transport.get_extra_info("peername"))
        self._idle = asyncio.get_running_loop().call_later(self._server.idle_s, self.drop)
        no_delay(transport)

    def data_received(self, data: bytes) -> None:
        if self._transport is None:
            return
        if self.registered is not None:
            self.drop()  # a registered node has nothing more to say
            return
        self._buffer += data
        if len(self._buffer) < 2:
            return
        size = int.from_bytes(self._buffer[:2])
        if not 1 <= size <= epmd.MAX_REQUEST:
            self.drop()
        elif len(self._buffer) >= 2 + size:
            self._request(self._buffer[2 : 2 + size])

    def _request(self, body: bytes) -> None:
        assert self._transport is not None
        try:
            answer = self._server.answer(self, body)
        except RemoteProtocolError as error:
            self._server.say(f"dropped a malformed request: {error}")
            answer = None
        self._buffer = b""
        if answer is not None:
            self._transport.write(answer)
        if body[0] != Request.ALIVE2 or answer is None:
            self._transport.close()
        elif self.registered is not None and self._idle is not None:
            self._idle.cancel()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._idle is not None:
            self._idle.cancel()
        self._server.disconnected(self)
        forks.shut_down_transport(self._transport)
        self._transport = None

    def drop(self) -> None:
        """Close at once, which unregisters."""
        if self._transport is not None:
            self._transport.abort()
        self._server.disconnected(self)


def _is_loopback(peer: object) -> bool:
    if not isinstance(peer, tuple) or not peer:
        return False
    import ipaddress

    try:
        return ipaddress.ip_address(str(peer[0]).partition("%")[0]).is_loopback
    except ValueError:
        return False
