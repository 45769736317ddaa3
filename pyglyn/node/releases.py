"""Which OTP release connected nodes run, for the little that is not the same in all. Layer: node.

OTP 25 to 27 have the same capabilities, so a node is asked, by ``erlang:system_info(otp_release)``, when it
first matters.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from pyglyn.errors import PyglynError
from pyglyn.etf import Atom
from pyglyn.node.exits import Exit
from pyglyn.node.hub import Hub
from pyglyn.node.rpc import rpc

ANSWER_TIMEOUT_S = 2.0

Then = Callable[[int | None], None]


class Releases:
    """Asks each connected node once."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._asked: dict[str, tuple[int, asyncio.Task[int | None]]] = {}

    def tell(self, node: str, then: Then) -> None:
        """Call ``then`` with the release of a node, at once or later; None if it is no BEAM, or away."""
        connection = self._hub.peers.get(node)
        if connection is None:
            then(None)
            return
        creation, task = self._asked.get(node, (None, None))
        if task is None or creation != connection.creation:
            self._asked = {name: asked for name, asked in self._asked.items() if self._hub.peers.get(name)}
            task = asyncio.get_running_loop().create_task(self._ask(node))
            self._asked[node] = (connection.creation, task)
        if task.done():
            then(None if task.cancelled() else task.result())
        else:
            task.add_done_callback(lambda task: then(None if task.cancelled() else task.result()))

    async def _ask(self, node: str) -> int | None:
        try:
            answer: Any = await rpc(
                self._hub.system, node, "erlang", "system_info", [Atom("otp_release")], ANSWER_TIMEOUT_S
            )
            return int(bytes(answer)) if isinstance(answer, list) else None
        except (PyglynError, Exit, TypeError, ValueError):
            return None
