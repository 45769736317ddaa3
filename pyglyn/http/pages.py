"""The page and its JSON API. Layer: http.

``/`` and its two files are the same for everybody and need no token. Everything under ``/api/`` does, in the
header ``Authorization: Bearer …``: so no other site's page can ask, and the token is in no address that a
browser sends. It is in the fragment of the address that is printed at the start.

| path | what |
|---|---|
| ``GET /api/nodes`` | what is so now |
| ``GET /api/stream`` | server-sent events: ``nodes`` (all that is so), ``deaths`` (those since) |
| ``POST /api/queries`` | ``{node, query, order, id}``: pause, resume, replay, drive; where allowed |
"""

from __future__ import annotations

import contextlib
import hmac
import importlib.resources
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

from aiohttp import web

from pyglyn.errors import PyglynError
from pyglyn.etf import Atom, Term
from pyglyn.http.observer import Observer
from pyglyn.net.transport import share_of_descriptors
from pyglyn.node import Node

_FILES: Final = {
    "/": ("index.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
}
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
MAX_STREAMS: Final = 32
"""Who may look at once, or a 64th of the files the process may open: others ask whether the node is ready."""
_ALL: Final = Atom("all")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def routes(observer: Observer, token: str) -> Callable[[Node], Iterable[web.RouteDef]]:
    """The page of an observer, for those who know the token."""

    def guarded(handler: Handler) -> Handler:
        async def checked(request: web.Request) -> web.StreamResponse:
            given = request.headers.get("Authorization", "").removeprefix("Bearer ")
            if not hmac.compare_digest(_bytes(given), _bytes(token)):
                return web.json_response({"error": "wrong token"}, status=401)
            return await handler(request)

        return checked

    async def nodes(request: web.Request) -> web.StreamResponse:
        return web.json_response(await observer.look())

    open_streams = 0
    most = share_of_descriptors(64, MAX_STREAMS)

    async def stream(request: web.Request) -> web.StreamResponse:
        nonlocal open_streams
        if open_streams >= most:
            return web.json_response({"error": f"{most} look already"}, status=503)
        open_streams += 1
        try:
            return await told(request)
        finally:
            open_streams -= 1

    async def told(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        async with contextlib.aclosing(observer.events()) as events:
            with contextlib.suppress(ConnectionResetError):  # nobody reads any more
                async for event, data in events:
                    await response.write(f"event: {event}\ndata: {data}\n\n".encode())
        return response

    async def queries(request: web.Request) -> web.StreamResponse:
        return await _order(observer, request)

    def of(node: Node) -> Iterable[web.RouteDef]:
        node.before_stop.append(observer.stop)
        return [
            *(web.get(path, _file(*named)) for path, named in _FILES.items()),
            web.get("/api/nodes", guarded(nodes)),
            web.get("/api/stream", guarded(stream)),
            web.post("/api/queries", guarded(queries)),
        ]

    return of


def _bytes(text: str) -> bytes:
    """As it came: a header, and a variable, may be no UTF-8."""
    return text.encode("utf-8", "surrogateescape")


def _file(name: str, content_type: str) -> Handler:
    """A file of the bundle, read once: the hub has no thread for it later."""
    text = importlib.resources.files("pyglyn.http").joinpath("page", name).read_text("utf-8")

    async def answer(request: web.Request) -> web.Response:
        headers = {"Content-Security-Policy": _POLICY, "Referrer-Policy": "no-referrer"}
        return web.Response(text=text, content_type=content_type, headers=headers)

    return answer


async def _order(observer: Observer, request: web.Request) -> web.Response:
    if not observer.may_change:
        return web.json_response({"error": "this page only reads"}, status=403)
    try:
        asked = await request.json()
        node, query = observer.nodes[asked["node"]], str(asked["query"])
        order = _request(asked["order"], asked.get("id"))
    except (ValueError, LookupError, TypeError, ArithmeticError, RecursionError):
        return web.json_response({"error": "node, query and order are needed"}, status=400)
    try:
        await node.tell_query(query, order)
    except (PyglynError, ValueError) as error:  # the latter: no process can have that name
        return web.json_response({"error": str(error)}, status=409)
    finally:
        observer.soon()
    return web.json_response({})


def _request(order: str, id: int | None) -> Term:
    match order:
        case "pause" | "resume":
            return Atom(order)
        case "replay":
            return (Atom("replay"), _ALL)
        case "drive":
            return (Atom("drive"), _ALL if id is None else int(id))
    raise ValueError(order)
