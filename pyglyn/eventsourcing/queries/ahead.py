"""Reading ahead: while one batch of events is worked on, the next one is read.

Events never change and positions are never used again, so what was read is right still; only who forgets
what he knew of the store (after a conflict, a reset, a store that was away) forgets what was read ahead too.
That there was no more is another thing: it held when it was read, and is asked anew when somebody wants
to know.

Between its answer and the next question a database has nothing to do, for as long as it takes to decode
many events. So where events are small several batches are read at once; each is decoded when it is asked for.
Whoever reads them finds out whether they are small, and else has one, or as much of it as there is room for.

Layer: eventsourcing, queries.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

import attrs

from pyglyn.errors import EventStoreError, StoreUnavailable
from pyglyn.eventsourcing.cluster.sources import Source
from pyglyn.eventsourcing.queries.selected import Passing
from pyglyn.eventsourcing.stores.store import BATCH, EventStore, Page, RecordedEvent
from pyglyn.patience import call_off

PROBE = 1
"""Who asks for no more events than that looks at something, and does not read on."""

SEVERAL = 4
"""Batches that are read at once."""

MOST = 500
"""Events that several batches have at most."""

SINGLE = 16
"""Batches that are read one by one where several could not be had, because of large events or the end."""


@attrs.frozen
class _Asked:
    """What is read ahead.

    Attributes:
        after, limit: where the next batch begins, and how large batches are.
        size: how many events are read: one batch, or several.
        page: comes to have them.
    """

    after: int
    limit: int
    size: int
    page: asyncio.Task[Page[Any]]


class ReadAhead:
    """A source that reads what comes next once it has what it asked for, and before it decodes that."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._next: _Asked | None = None
        self._rest: deque[Page[Any]] = deque()  # whole batches that are there
        self._place = 0, 0  # where they begin, and how large they are
        self._single = 0  # so many batches are still read one by one

    async def read(
        self, after: int = 0, *, limit: int = BATCH, aggregate_id: str | None = None
    ) -> list[RecordedEvent[Any]]:
        """As `EventStore.read`."""
        if aggregate_id is not None or limit <= PROBE:
            return await self._source.read(after, limit=limit, aggregate_id=aggregate_id)
        while True:
            page = await self._take(after, limit)
            events = page.decode()
            if events or (page.rows < limit and not page.is_cut):
                return events
            after = page.last

    async def _take(self, after: int, limit: int) -> Page[Any]:
        if self._rest and self._place == (after, limit):
            await asyncio.sleep(0)  # others have their turn between any two batches
        else:
            self._rest.clear()
            size, page = await self._several(after, limit)
            if page.rows < limit and not page.is_cut:
                return page
            if page.rows >= size or page.is_cut:
                self._ask(page, limit)
                await asyncio.sleep(0)  # so that the database is asked before we decode
            parts = page.parts(limit) if page.parts is not None and page.rows > limit else [page]
            self._rest.extend(part for part in parts if part.rows >= limit or page.is_cut)
        page = self._rest.popleft()
        self._place = page.last, limit
        return page

    async def _several(self, after: int, limit: int) -> tuple[int, Page[Any]]:
        """Return what was read ahead, or what is read now; and how many events were asked for."""
        ahead, self._next = self._next, None
        if ahead is not None and (ahead.after, ahead.limit) == (after, limit):
            page = await _result(ahead)
            if page is None or page.rows < ahead.size > limit:
                self._single = SINGLE
            if page is not None and _is_whole(page, limit):
                return ahead.size, page
        else:
            await _call_off(ahead)
        return limit, await self._page(after, limit)

    def _ask(self, page: Page[Any], limit: int) -> None:
        size = limit
        if self._single:
            self._single -= 1
        elif page.is_small:
            size *= max(1, min(SEVERAL, MOST // limit))
        task = asyncio.ensure_future(self._behind(page, size))
        task.add_done_callback(lambda done: done.cancelled() or done.exception())  # seen, if not raised
        self._next = _Asked(page.last, limit, size, task)

    async def _behind(self, page: Page[Any], size: int) -> Page[Any]:
        return await (page.behind(size) if page.behind is not None else self._page(page.last, size))

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
        """Forget what is known of the source: what was read ahead, and what was passed by."""
        self._rest.clear()
        ahead, self._next = self._next, None
        await _call_off(ahead)
        if isinstance(self._source, Passing):
            self._source.forget()


def _is_whole(page: Page[Any], limit: int) -> bool:
    """Whether these are batches that were read, and not the end, which may be none by now."""
    if page.rows > limit and page.parts is None:
        return False
    return page.rows >= limit or page.is_cut


async def _result(ahead: _Asked) -> Page[Any] | None:
    """Return what was read ahead; None if that was too much for the store."""
    try:
        return await ahead.page
    except StoreUnavailable:
        raise
    except EventStoreError:  # a text of all their payloads can be larger than a database can make it
        if ahead.size == ahead.limit:
            raise
        return None
    except BaseException:
        ahead.page.cancel()
        raise


async def _call_off(ahead: _Asked | None) -> None:
    if ahead is not None:
        await call_off(ahead.page)
