"""Reading ahead: while one batch of events is worked on, the next one is read and decoded.

Events never change and positions are never used again, so what was read is right still; only who forgets
what he knew of the store (after a conflict, a reset, a store that was away) forgets what was read ahead too.

Layer: eventsourcing, queries.
"""

from __future__ import annotations

import asyncio
from typing import Any

from pyglyn.eventsourcing.cluster.sources import Source
from pyglyn.eventsourcing.stores.store import BATCH, RecordedEvent

PROBE = 1
"""Who asks for no more events than that looks at something, and does not read on."""


class ReadAhead:
    """A source that reads the next batch once it has returned a full one."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._next: tuple[int, int, asyncio.Task[list[RecordedEvent[Any]]]] | None = None

    async def read(
        self, after: int = 0, *, limit: int = BATCH, aggregate_id: str | None = None
    ) -> list[RecordedEvent[Any]]:
        """As `EventStore.read`."""
        if aggregate_id is not None or limit <= PROBE:
            return await self._source.read(after, limit=limit, aggregate_id=aggregate_id)
        ahead, self._next = self._next, None
        if ahead is not None and ahead[:2] == (after, limit):
            events = await _result(ahead[2])
        else:
            await _call_off(ahead)
            events = await self._source.read(after, limit=limit)
        if len(events) >= limit:
            reading = self._source.read(events[-1].position, limit=limit)
            task = asyncio.ensure_future(reading)
            task.add_done_callback(lambda done: done.cancelled() or done.exception())  # seen, if not raised
            self._next = events[-1].position, limit, task
        return events

    async def last_position(self) -> int:
        """As `EventStore.last_position`."""
        return await self._source.last_position()

    async def wait(self, after: int, *, timeout: float | None = None) -> bool:
        """As `EventStore.wait`."""
        return await self._source.wait(after, timeout=timeout)

    async def forget(self) -> None:
        """Forget what was read ahead."""
        ahead, self._next = self._next, None
        await _call_off(ahead)


async def _result(task: asyncio.Task[list[RecordedEvent[Any]]]) -> list[RecordedEvent[Any]]:
    try:
        return await task
    except BaseException:
        task.cancel()
        raise


async def _call_off(ahead: tuple[int, int, asyncio.Task[Any]] | None) -> None:
    if ahead is not None:
        # Python 3.11's wait_for can lose a cancellation that meets its result: ask again.
        while not ahead[2].done():
            ahead[2].cancel()
            await asyncio.wait((ahead[2],), timeout=0.1)
