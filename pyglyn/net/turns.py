"""Few at a time, and no host at the cost of the others. Layer: net."""

from __future__ import annotations

import asyncio
from collections import Counter, deque


class Turns:
    """Let so many work at once, so many of them for the same key; the others wait, and keys take turns.

    Args:
        limit: how many at once.
        per_key: how many of those for one key.
    """

    def __init__(self, limit: int, per_key: int) -> None:
        self._limit = limit
        self._per_key = per_key
        self._working: Counter[str] = Counter()
        self._total = 0
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}  # by key, the next one to look at first

    async def take(self, key: str) -> None:
        """Wait for a turn; whoever has got one gives it back."""
        if self._has_room(key) and key not in self._waiting:
            self._begin(key)
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(key, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.give_back(key)  # it came at the moment of the cancellation
            raise

    def give_back(self, key: str) -> None:
        """End a turn; the next one begins."""
        self._total -= 1
        self._working[key] -= 1
        if not self._working[key]:
            del self._working[key]
        # At most limit / per_key keys have no room, so this looks at few.
        for waiting in list(self._waiting):
            if self._total >= self._limit:
                break
            if self._has_room(waiting):
                self._next(waiting)

    def _has_room(self, key: str) -> bool:
        return self._total < self._limit and self._working[key] < self._per_key

    def _begin(self, key: str) -> None:
        self._working[key] += 1
        self._total += 1

    def _next(self, key: str) -> None:
        """Give a turn to the first of a key that still waits, and put the key behind the others."""
        queue = self._waiting.pop(key)
        while queue:
            turn = queue.popleft()
            if not turn.done():
                self._begin(key)
                turn.set_result(None)
                break
        if queue:
            self._waiting[key] = queue
