"""What other nodes have run here at the moment: how much, and in which order it has its turn. Layer: node.

A call of another node is a process of its own, so that a slow one holds nobody up. But the calls of one node
shall not hold up those of others either, however many it makes and whether or not it reads the answers. So
each node has a number of calls that it may have at once, none of which begins before the node takes what it
gets; and what a node exports of itself (lists of all processes, of all groups) is worked on one call after
the other for each node, others having their turn in between.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from typing import Final

from pyglyn.node.backpressure import BusyNodes

A_TURN: Final = 8
"""Calls of a peer that begin here in one turn of the event loop: one read brings some hundred.

A call takes some 50 µs from its request to its end, so others wait less than a millisecond. With fewer, the
turns themselves would count: 4 take a quarter more time for each call.
"""


class Callers:
    """The other nodes' calls.

    Args:
        busy: the nodes that do not take what they get.
        limit: how many calls a node may have at once.
    """

    def __init__(self, busy: BusyNodes, limit: int) -> None:
        self._busy = busy
        self._limit = limit
        self._running: Counter[str] = Counter()
        self._turns: dict[str, asyncio.Lock] = {}

    def begin(self, node: str) -> bool:
        """One more call of a node, until `end`; False if it has too many."""
        if self._running[node] >= self._limit:
            return False
        self._running[node] += 1
        return True

    def end(self, node: str) -> None:
        """One call fewer."""
        self._running[node] -= 1
        if not self._running[node]:
            del self._running[node]
            self._turns.pop(node, None)

    def __len__(self) -> int:
        return self._running.total()

    async def readable(self, node: str) -> None:
        """Wait until a node takes what it gets: its answers would only pile up."""
        while (over := self._busy.over(node)) is not None:
            await over.wait()

    @contextlib.asynccontextmanager
    async def turn(self, node: str) -> AsyncIterator[None]:
        """Be the one call of a node that is worked on now."""
        lock = self._turns.get(node)
        if lock is None:
            lock = self._turns[node] = asyncio.Lock()
        async with lock:
            yield
