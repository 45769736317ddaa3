"""Connect to the nodes that a `Discovery` finds, again and again. Layer: node."""

from __future__ import annotations

import asyncio
import logging
import random

from pyglyn.errors import DiscoveryError, DistributionError
from pyglyn.escaping import escaped
from pyglyn.net import Peers
from pyglyn.net.discovery import Discovery
from pyglyn.patience import cancellable

logger = logging.getLogger("pyglyn.node")

OTHERS = " "
"""Stands for what is found and is no name, where it is said what is wrong."""
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
        self._said: dict[str, str] = {}  # by node, what is wrong with it

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
            with cancellable():  # dnspython waits with `asyncio.wait_for`
                found = dict.fromkeys(await self._discovery.nodes())
        except DiscoveryError as error:
            self._say("", f"no nodes are found, trying again: {error}")
            return
        except Exception as error:
            self._say("", f"no nodes are found, trying again: {error!r}")
            logger.debug("%r failed", self._discovery, exc_info=True)
            return
        names = [name for name in found if isinstance(name, str)][:MAX_FOUND]
        others = sorted({type(name).__name__ for name in found if not isinstance(name, str)})
        self._said = {
            name: said for name, said in self._said.items() if name in found or (name == OTHERS and others)
        }
        if others:
            self._say(OTHERS, f"what is found has to be names of nodes, and not {', '.join(others)}")
        for name in names:
            if name == self._peers.local.name or name in self._attempts or self._peers.get(name) is not None:
                continue
            self._attempts[name] = asyncio.create_task(self._connect(name), name=f"pyglyn discovered {name}")

    async def _connect(self, name: str) -> None:
        try:
            await self._peers.connect(name)
            self._said.pop(name, None)
        except DistributionError as error:
            shown = escaped(name, 80)
            self._say(name, f"{shown} is found, but not reached, trying again: {error.with_notes}")
        finally:
            del self._attempts[name]

    def _say(self, about: str, text: str) -> None:
        """Log what is wrong, and not again what was said last."""
        if self._said.get(about) != text:
            self._said[about] = text
            logger.warning("%s", text)
