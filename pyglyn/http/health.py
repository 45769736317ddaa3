"""``/livez`` and ``/readyz``, as Kubernetes' own components have them. Layer: http.

Both answer 200 or 503 in plain text. ``/livez`` says that the node's event loop turns. ``/readyz`` has a line
for each condition, ``[+]registered`` or ``[-]orders: the database does not answer``.
"""

from __future__ import annotations

from collections.abc import Iterable

from aiohttp import web

from pyglyn.node import Node
from pyglyn.node.census import Census


def routes(node: Node) -> Iterable[web.RouteDef]:
    """Whether the node lives, and whether it is ready for work."""

    async def livez(request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(request: web.Request) -> web.Response:
        conditions = await Census(node.hub, node.workers).readiness()
        lines = [f"[-]{what}: {why}\n" if why else f"[+]{what}\n" for what, why in conditions.items()]
        ready = not any(conditions.values())
        return web.Response(text="".join(lines), status=200 if ready else 503)

    return [web.get("/livez", livez), web.get("/readyz", readyz)]
