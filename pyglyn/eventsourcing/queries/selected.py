"""Reading only what a query wants: of events some types, or one part; of facts what a `Query` finds.

Whatever is not selected is passed by, and remembered as such: who waits for events is not woken by others,
and nothing is looked through twice (but for the way from the checkpoint on, after a restart).

Layer: eventsourcing, queries.
"""

from __future__ import annotations

import abc
from typing import Any

from pyglyn.eventsourcing.cluster.sources import Source
from pyglyn.eventsourcing.stores.facts.log import Query
from pyglyn.eventsourcing.stores.facts.store import FactStore
from pyglyn.eventsourcing.stores.json.codec import JsonStyle
from pyglyn.eventsourcing.stores.rows import RowCodec
from pyglyn.eventsourcing.stores.selection import Scanned, Selection, part_of
from pyglyn.eventsourcing.stores.store import BATCH, EventStore, RecordedEvent
from pyglyn.eventsourcing.stores.wrapped import unwrapped


def tag_key_of(source: object) -> str:
    """Return the key of the tag in events that a store reads as plain JSON."""
    codec = getattr(unwrapped(source), "codec", None)
    return codec.tag_key if isinstance(codec, RowCodec) else JsonStyle().tag_key


class Passing(abc.ABC):
    """A source of which some is passed by."""

    def __init__(self) -> None:
        self._passed = (0, 0)  # nothing is selected behind the first position up to the second

    @abc.abstractmethod
    async def scan(self, after: int, limit: int, aggregate_id: str | None) -> Scanned:
        """Look for what is selected behind a position."""

    @abc.abstractmethod
    async def last_position(self) -> int:
        """As `EventStore.last_position`."""

    @abc.abstractmethod
    async def wait_behind(self, after: int, timeout: float | None) -> bool:
        """As `EventStore.wait`."""

    def kept(self, event: RecordedEvent[Any]) -> RecordedEvent[Any] | None:
        """Return what of an event is selected; None for nothing."""
        return event

    async def read(
        self, after: int = 0, *, limit: int = BATCH, aggregate_id: str | None = None
    ) -> list[RecordedEvent[Any]]:
        """As `EventStore.read`: fewer than ``limit`` if there are no more now."""
        found: list[RecordedEvent[Any]] = []
        before = self._passed  # others may read meanwhile
        begin = at = self._behind_passed(after)
        while len(found) < limit:
            scanned = await self.scan(at, limit - len(found), aggregate_id)
            found += scanned.events
            at = scanned.end
            if not scanned.more:
                break
        if aggregate_id is None:
            last = found[-1].position if found else after
            if at > last:
                first = before[0] if begin != after and not found else last
                self._passed = (first, at)
        return found

    def forget(self) -> None:
        """Forget what was passed by."""
        self._passed = (0, 0)

    async def look(self) -> None:
        """Forget what was passed by if the store has less than that: it is another one, or was restored."""
        if self._passed[1] > await self.last_position():
            self.forget()

    def _behind_passed(self, after: int) -> int:
        first, last = self._passed
        return last if first <= after < last else after

    async def wait(self, after: int, *, timeout: float | None = None) -> bool:
        """As `EventStore.wait`; what was passed by is no reason to wake."""
        return await self.wait_behind(self._behind_passed(after), timeout)


class SelectedEvents(Passing):
    """Some of the events of a store, or of the services of a group on other nodes."""

    def __init__(self, source: Source, selection: Selection) -> None:
        super().__init__()
        self._source = source
        self._selection = selection

    async def scan(self, after: int, limit: int, aggregate_id: str | None) -> Scanned:
        source = self._source
        if aggregate_id is None and isinstance(source, EventStore):
            return await source.scan(self._selection, after, limit=limit)
        events = await source.read(after, limit=limit, aggregate_id=aggregate_id)
        kept = [one for one in map(self._selection.kept, events) if one is not None]
        more = len(events) >= limit or bool(events and not kept)  # who reads elsewhere may get less
        return Scanned(kept, events[-1].position if events else after, more)

    def kept(self, event: RecordedEvent[Any]) -> RecordedEvent[Any] | None:
        return self._selection.kept(event)

    async def last_position(self) -> int:
        return await self._source.last_position()

    async def wait_behind(self, after: int, timeout: float | None) -> bool:
        return await self._source.wait(after, timeout=timeout)


class SelectedFacts(Passing):
    """Facts as a durable query reads them: their stream is the aggregate, in whose order they are kept."""

    def __init__(
        self, facts: FactStore[Any], query: Query | None, part: tuple[int, int] | None = None
    ) -> None:
        super().__init__()
        self._facts = facts
        self._query = query
        self._part = part

    async def scan(self, after: int, limit: int, aggregate_id: str | None) -> Scanned:
        end = await self._facts.log.last_position()
        found = await self._facts.recorded(self._query, after=after, limit=limit)
        last = found[-1].position if found else after
        part = self._part
        kept = [
            one
            for one in found
            if aggregate_id in (None, one.aggregate_id)
            and (part is None or part_of(one.aggregate_id, part[1]) == part[0])
        ]
        full = len(found) >= limit
        return Scanned(kept, last if full else max(last, end), full)

    async def last_position(self) -> int:
        return await self._facts.log.last_position()

    async def wait_behind(self, after: int, timeout: float | None) -> bool:
        return await self._facts.log.wait(after, timeout=timeout)
