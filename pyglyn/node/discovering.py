"""Connect to the nodes that a `Discovery` finds, again and again. Layer: node."""

from __future__ import annotations

import asyncio
import logging
import random

from pyglyn.errors import DiscoveryError, DistributionError
from pyglyn.net import Peers
from pyglyn.net.discovery import Discovery

logger = logging.getLogger("pyglyn.node")

MAX_FOUND = 10_000
"""So many nodes an answer may have, and further ones are left out: a name server has not shown the cookie."""


class Discoverer:
    """Polls a discovery and connects to whom it finds.

    Nobody is disconnected who is no longer found: a pod that is not ready leaves DNS, and lives. Whoever has
    ended is noticed by the connection.

    Args:
        peers: the node's connections.
        discovery: where to look.
        every_s: seconds between two looks, each shortened at random by up to a fifth.
    """

    def __init__(self, peers: Peers, discovery: Discovery, every_s: float = 5.0) -> None:
        self._peers = peers
        self._discovery = discovery
        self._every_s = every_s
        self._attempts: dict[str, asyncio.Task[None]] = {}
        self._said: dict[str, str] = {}

    async def run(self) -> None:
        """Go on until cancelled; the attempts to connect end with it."""
        try:
            while True:
                await self._look()
                await asyncio.sleep(self._every_s * (1 - 0.2 * random.random()))
        finally:
            for attempt in self._attempts.values():
                attempt.cancel()

    async def _look(self) -> None:
        """Ask once, and begin to connect to each node that no attempt is under way for."""
        try:
            found = dict.fromkeys(await self._discovery.nodes())
        except DiscoveryError as error:
            self._say("", f"no nodes are found, trying again: {error}")
            return
        except Exception as error:
            self._say("", f"no nodes are found, trying again: {error!r}")
            logger.debug("%r failed", self._discovery, exc_info=True)
            return
        self._said = {name: said for name, said in self._said.items() if name in found}
        for name in list(found)[:MAX_FOUND]:
            if name == self._peers.local.name or name in self._attempts or self._peers.get(name) is not None:
                continue
            self._attempts[name] = asyncio.create_task(self._connect(name), name=f"pyglyn discovered {name}")

    async def _connect(self, name: str) -> None:
        try:
            await self._peers.connect(name)
            self._said.pop(name, None)
        except DistributionError as error:
            self._say(name, f"{name} is found, but not reached, trying again: {error.with_notes}")
        finally:
            del self._attempts[name]

    def _say(self, about: str, text: str) -> None:
        """Log what is wrong, and not again what was said last."""
        if self._said.get(about) != text:
            self._said[about] = text
            logger.warning("%s", text)
