"""The HTTP server of a node: aiohttp in the hub's event loop. Layer: http.

No thread stays for it: the hub could fork no children any more. So hosts are resolved and sockets bound
here, and routes serve no files from disk (aiohttp reads those in a thread).
"""

from __future__ import annotations

import asyncio
import importlib.util
import ipaddress
import logging
import re
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from pyglyn import forks
from pyglyn.complaints import Complaints
from pyglyn.errors import DistributionError, LocalProtocolError
from pyglyn.http import health, metrics
from pyglyn.http.connections import ACCEPTED_A_TURN, Connections
from pyglyn.net.transport import BACKLOG, bound, explain, read_in_small_pieces, resolve
from pyglyn.node import Node

if TYPE_CHECKING:
    from aiohttp import web

Routes: TypeAlias = "Callable[[Node], Iterable[web.RouteDef]]"
"""What answers to some paths of a node, as ``[web.get("/tree", handler), …]``."""

ROUTES: Sequence[Routes] = (health.routes, metrics.routes)
"""What every server has."""

SHUTDOWN_S = 1.0
"""How long requests under way may take once the node stops."""
RESOLVE_S = 5.0


def address_of(text: str) -> tuple[str, int]:
    """Read ``HOST:PORT``; an IPv6 address stands in brackets.

    Raises:
        ValueError: it is something else; or the extra is not installed, which is said in one sentence.
    """
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port.isdecimal() or int(port) > 65535:
        raise ValueError(f"{text!r} is no HOST:PORT, as 127.0.0.1:9568 or [::1]:9568")
    if importlib.util.find_spec("aiohttp") is None:
        raise ValueError("serving HTTP needs aiohttp: pip install 'pyglyn[http]'")
    return host, int(port)


class _AbortedLater:
    """A transport that aiohttp has not begun with yet: aborted now, it would complain of its end."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport

    def abort(self) -> None:
        asyncio.get_running_loop().call_soon(self._transport.abort)


class _Few(logging.Filter):
    """Malformed requests, which anybody can send, are a line now and then and no trace of the parser."""

    def __init__(self) -> None:
        super().__init__()
        self._complaints = Complaints()

    def filter(self, record: logging.LogRecord) -> bool:
        from aiohttp.http_exceptions import HttpProcessingError

        error = record.exc_info[1] if record.exc_info else None
        if not isinstance(error, HttpProcessingError):
            return True
        # What was called holds the error, and the error what was called: with it all that was read.
        traceback.clear_frames(error.__traceback__)
        line = self._complaints.take(f"refused a malformed request: {type(error).__name__}", time.monotonic())
        if line is None:
            return False
        record.msg, record.args, record.exc_info = "%s", (line,), None
        record.levelno, record.levelname = logging.INFO, "INFO"
        return True


logger = logging.getLogger("pyglyn.http.requests")
logger.addFilter(_Few())


class HttpServer:
    """Serves one node until it is stopped.

    Args:
        routes: what answers beside ``/livez``, ``/readyz`` and ``/metrics``.

    Attributes:
        connections: those that are open.
    """

    def __init__(self, node: Node, routes: Iterable[Routes] = ()) -> None:
        self.node = node
        self.connections: Connections[Any] = Connections()
        self.routes = (*ROUTES, *routes)
        self._runner: web.AppRunner | None = None
        self._port = 0

    @property
    def port(self) -> int:
        """Where it listens; 0 while it does not."""
        return self._port

    async def start(self, host: str, port: int) -> None:
        """Listen; with port 0 at any free one.

        Raises:
            DistributionError: the address cannot be listened on.
        """
        from aiohttp import web

        if self._runner is not None:
            raise LocalProtocolError("this HTTP server has been started already")
        address = await resolve(host, RESOLVE_S)
        middlewares = [_known_to_forks, _counted(self.connections)]
        if ipaddress.ip_address(address).is_loopback:
            middlewares.append(_for_this_machine)
        app = web.Application(middlewares=middlewares)
        app.on_response_prepare.append(_say_little)
        for routes in self.routes:
            app.router.add_routes(routes(self.node))
        try:
            sock = bound(address, port)
        except OSError as error:
            raise DistributionError(f"cannot serve HTTP at {host}:{port}: {explain(error)}") from error
        self._runner = web.AppRunner(
            app, access_log=None, logger=logger, handle_signals=False, shutdown_timeout=SHUTDOWN_S
        )
        await self._runner.setup()
        self._count_connections(self._runner.server)
        await web.SockSite(self._runner, forks.keep(sock), backlog=ACCEPTED_A_TURN).start()
        sock.listen(BACKLOG)  # to asyncio the backlog is also what it accepts in one turn
        self._port = sock.getsockname()[1]

    def _count_connections(self, server: web.Server | None) -> None:
        """Be told by aiohttp of each connection, from before it says anything."""
        assert server is not None
        made, lost = server.connection_made, server.connection_lost

        def connection_made(handler: Any, transport: asyncio.Transport) -> None:
            read_in_small_pieces(transport)
            made(handler, transport)
            self.connections.made(handler, _AbortedLater(transport))

        def connection_lost(handler: Any, error: BaseException | None = None) -> None:
            self.connections.lost(handler)
            lost(handler, error)

        server.connection_made, server.connection_lost = connection_made, connection_lost  # type: ignore[method-assign, assignment]

    async def stop(self) -> None:
        """Answer no more."""
        runner, self._runner, self._port = self._runner, None, 0
        if runner is not None:
            await runner.cleanup()


async def serve(node: Node, host: str, port: int, routes: Iterable[Routes] = ()) -> HttpServer:
    """Serve a node that runs, until it has stopped its trees: while they stop, ``/readyz`` says so.

    Call it before trees are started.

    Raises:
        DistributionError: the address cannot be listened on.
    """
    server = HttpServer(node, routes)
    await server.start(host, port)
    node.before_stop.insert(0, server.stop)
    return server


LIVE: Final = "/livez"
"""What is answered however many ask: who gets no answer to it ends the node, and it costs nothing."""


def _counted(connections: Connections[Any]) -> Any:
    async def count(request: web.Request, handler: Callable[[web.Request], Any]) -> Any:
        if connections.busy and request.path != LIVE:
            from aiohttp import web

            refusal = web.Response(text="too many ask at once\n", status=503)
            refusal.force_close()
            return refusal
        with connections.asking(request.protocol):
            return await handler(request)

    count.__middleware_version__ = 1  # type: ignore[attr-defined]
    return count


async def _known_to_forks(request: web.Request, handler: Callable[[web.Request], Any]) -> Any:
    if request.transport is not None:
        forks.keep_transport(request.transport)
    return await handler(request)


_known_to_forks.__middleware_version__ = 1  # type: ignore[attr-defined]  # as aiohttp's own decorator says it


OPEN: Final = frozenset(("/readyz", "/metrics"))
"""What tells something and needs no token."""


async def _for_this_machine(request: web.Request, handler: Callable[[web.Request], Any]) -> Any:
    """Keep other sites' pages out where only this machine may look.

    A browser here could be told that such a site's name is 127.0.0.1 (DNS rebinding), and then asks as that
    site; no name can stand for an address that is written out. What needs a token is safe without that.
    """
    if request.path in OPEN and not _is_this_machine(request.headers.get("Host", "")):
        from aiohttp import web

        return web.Response(text="ask by an address, or localhost\n", status=421)
    return await handler(request)


_for_this_machine.__middleware_version__ = 1  # type: ignore[attr-defined]


def _is_this_machine(host: str) -> bool:
    name = re.sub(r":\d+$", "", host).removeprefix("[").removesuffix("]")
    if name == "localhost":
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


async def _say_little(request: web.BaseRequest, response: web.StreamResponse) -> None:
    """Leave out what runs here, and in which version."""
    response.headers["Server"] = "pyglyn"
    response.headers.setdefault("Cache-Control", "no-store")
