"""Which OTP release connected nodes run, for the little that is not the same in all. Layer: node.

OTP 25 to 27 have the same capabilities, so a node is asked, by ``erlang:system_info(otp_release)``, when it
first matters; and again when it matters the next time, if it has not answered.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from pyglyn.errors import BadRpc, PyglynError
from pyglyn.etf import Atom
from pyglyn.node.exits import Exit
from pyglyn.node.hub import Hub
from pyglyn.node.reasons import NODEDOWN
from pyglyn.node.rpc import rpc

ANSWER_TIMEOUT_S = 2.0

Then = Callable[[int | None], None]


class Releases:
    """Asks each connected node once.

    Args:
        timeout: seconds that a node may take for its answer.
    """

    def __init__(self, hub: Hub, timeout: float = ANSWER_TIMEOUT_S) -> None:
        self._hub = hub
        self._timeout = timeout
        self._known: dict[tuple[str, int], int | None] = {}  # by name and creation
        self._asked: dict[tuple[str, int], asyncio.Task[int | None]] = {}

    def tell(self, node: str, then: Then) -> None:
        """Call ``then`` with the release of a node, at once or later; None if it is no BEAM, or away."""
        connection = self._hub.peers.get(node)
        if connection is None:
            then(None)
            return
        key = (node, connection.creation)
        if key in self._known:
            then(self._known[key])
            return
        task = self._asked.get(key)
        if task is None:
            self._known = {known: release for known, release in self._known.items() if self._is_up(*known)}
            task = self._asked[key] = asyncio.get_running_loop().create_task(self._ask(key))
            task.add_done_callback(lambda _: self._asked.pop(key))
        task.add_done_callback(lambda task: then(None if task.cancelled() else task.result()))

    def _is_up(self, node: str, creation: int) -> bool:
        connection = self._hub.peers.get(node)
        return connection is not None and connection.creation == creation

    async def _ask(self, key: tuple[str, int]) -> int | None:
        release: int | None = None
        try:
            answer: Any = await rpc(
                self._hub.system, key[0], "erlang", "system_info", [Atom("otp_release")], self._timeout
            )
            release = int(bytes(answer)) if isinstance(answer, list) else None
        except BadRpc as error:
            if error.reason in (NODEDOWN, Atom("timeout")):
                return None
        except (PyglynError, Exit):
            return None
        except (TypeError, ValueError):
            pass  # an answer, if not one of a BEAM
        self._known[key] = release
        return release
