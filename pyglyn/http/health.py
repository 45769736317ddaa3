"""``/livez`` and ``/readyz``, as Kubernetes' own components have them. Layer: http.

Both answer 200 or 503 in plain text. ``/livez`` says that the node's event loop turns. ``/readyz`` has a line
for each condition, ``[+]registered`` or ``[-]orders: the database does not answer``.
"""

from __future__ import annotations

from collections.abc import Iterable

from aiohttp import web

from pyglyn.escaping import escaped
from pyglyn.node import Node
from pyglyn.node.census import Census

MAX_REASON = 1000
"""So many characters of a reason are shown."""


def routes(node: Node) -> Iterable[web.RouteDef]:
    """Whether the node lives, and whether it is ready for work."""

    async def livez(request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(request: web.Request) -> web.Response:
        conditions = await Census(node.hub, node.workers).readiness()
        ready = not any(conditions.values())
        text = "".join(_line(what, why) for what, why in conditions.items())
        return web.Response(text=text, status=200 if ready else 503)

    return [web.get("/livez", livez), web.get("/readyz", readyz)]


def _line(what: str, why: str) -> str:
    """One line, whatever an exception has for a text."""
    return f"[-]{escaped(what)}: {escaped(why, MAX_REASON)}\n" if why else f"[+]{escaped(what)}\n"
