"""Reading ahead: while one batch of events is worked on, the next one is read and decoded.

Events never change and positions are never used again, so what was read is right still; only who forgets
what he knew of the store (after a conflict, a reset, a store that was away) forgets what was read ahead too.
That there was no more is another thing: it held when it was read, and is asked anew when somebody wants
to know.

Layer: eventsourcing, queries.
"""

from __future__ import annotations

import asyncio
from typing import Any

from pyglyn.eventsourcing.cluster.sources import Source
from pyglyn.eventsourcing.stores.store import BATCH, EventStore, Page, RecordedEvent

PROBE = 1
"""Who asks for no more events than that looks at something, and does not read on."""


class ReadAhead:
    """A source that reads the next batch once it has read a full one, before it decodes that."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._next: tuple[int, int, asyncio.Task[Page[Any]]] | None = None

    async def read(
        self, after: int = 0, *, limit: int = BATCH, aggregate_id: str | None = None
    ) -> list[RecordedEvent[Any]]:
        """As `EventStore.read`."""
        if aggregate_id is not None or limit <= PROBE:
            return await self._source.read(after, limit=limit, aggregate_id=aggregate_id)
        while True:
            page = await self._take(after, limit)
            if page.rows >= limit:
                task = asyncio.ensure_future(self._page(page.last, limit))
                task.add_done_callback(
                    lambda done: done.cancelled() or done.exception()
                )  # seen, if not raised
                self._next = page.last, limit, task
                await asyncio.sleep(0)  # so that the database is asked before we decode
            events = page.decode()
            if events or page.rows < limit:
                return events
            after = page.last

    async def _take(self, after: int, limit: int) -> Page[Any]:
        ahead, self._next = self._next, None
        if ahead is not None and ahead[:2] == (after, limit):
            page = await _result(ahead[2])
            if page.rows >= limit:
                return page
        else:
            await _call_off(ahead)
        return await self._page(after, limit)

    async def _page(self, after: int, limit: int) -> Page[Any]:
        if isinstance(self._source, EventStore):
            return await self._source.read_page(after, limit=limit)
        events = await self._source.read(after, limit=limit)
        return Page(len(events), events[-1].position if events else after, lambda: events)

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


async def _result(task: asyncio.Task[Page[Any]]) -> Page[Any]:
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
