"""A store whose aggregates have keys, and can be forgotten: ``open_store(url, keys=…)`` makes it.

Events, snapshots, what is parked here and messages that go with events are encrypted by the key of their
aggregate; `EncryptedStore.forget` deletes it. What a memory store has is kept as objects, and erased.

Layer: eventsourcing, stores.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from typing import Any, Generic, TypeVar

import attrs

from pyglyn.errors import Forgotten
from pyglyn.eventsourcing.domain.envelope import EventEnvelope, RecordedEvent
from pyglyn.eventsourcing.domain.snapshot import Snapshot
from pyglyn.eventsourcing.stores.encryption import TEXT_MARK, KeyRing, KeysMissing
from pyglyn.eventsourcing.stores.memory import MemoryStore
from pyglyn.eventsourcing.stores.selection import Scanned, Selection
from pyglyn.eventsourcing.stores.store import (
    BATCH,
    EventStore,
    Loaded,
    OutboxEntry,
    OutboxMessage,
    Page,
    ParkedEvent,
    Transaction,
)
from pyglyn.eventsourcing.stores.wrapped import WrappedSideTables, WrappedStore, WrappedTransaction

logger = logging.getLogger("pyglyn.eventsourcing")

E = TypeVar("E")
S = TypeVar("S")
T = TypeVar("T")


class _Sealing(WrappedSideTables):
    """Side tables whose texts are encrypted where it is known whose they are."""

    ring: KeyRing

    async def _with_keys(self, operation: Callable[[], Awaitable[T]]) -> T:
        """Do something that needs keys; those that it has not got are fetched, then it is done again."""
        while True:
            try:
                return await operation()
            except KeysMissing as missing:
                await self.ring.fetch(missing.ids)

    async def _sealed(self, messages: Iterable[OutboxMessage], aggregate_id: str) -> list[OutboxMessage]:
        await self.ring.make(aggregate_id)
        return [
            attrs.evolve(
                message, body=self.ring.seal_text(aggregate_id, f"outbox {message.topic}", message.body)
            )
            for message in messages
        ]

    async def take_outbox(self, topic: str, *, limit: int = 100, lease_s: float = 30.0) -> list[OutboxEntry]:
        while True:
            entries = await self.inside.take_outbox(topic, limit=limit, lease_s=lease_s)
            found: list[OutboxEntry] = []
            gone: list[int] = []
            for entry in entries:
                body = await self.ring.text_of(f"outbox {topic}", entry.body)
                if body is None:
                    gone.append(entry.id)
                else:
                    found.append(attrs.evolve(entry, body=body))
            if gone:
                logger.info("%d messages of aggregates that were forgotten are not sent", len(gone))
                await self.inside.finish_outbox(gone)
            if found or not gone:
                return found

    async def park(self, event: ParkedEvent) -> None:
        if event.format != "json":
            try:
                event = await self._sealed_parked(event)
            except Forgotten:
                logger.info("what was to be parked of an aggregate that was forgotten is not kept")
                return
        await self.inside.park(event)

    async def _sealed_parked(self, event: ParkedEvent) -> ParkedEvent:
        if not await self.ring.has(event.aggregate_id):
            return event
        raw = self.ring.seal_text(event.aggregate_id, "parked", event.raw.hex()).encode()
        return attrs.evolve(event, raw=raw)

    async def parked(
        self, query: str | None = None, *, aggregate_id: str | None = None, limit: int | None = None
    ) -> list[ParkedEvent]:
        found = await self.inside.parked(query, aggregate_id=aggregate_id, limit=limit)
        return [await self._opened_parked(event) for event in found]

    async def _opened_parked(self, event: ParkedEvent) -> ParkedEvent:
        if not event.raw.startswith(TEXT_MARK.encode()):
            return event
        opened = await self.ring.text_of("parked", event.raw.decode())
        if opened is None:
            return attrs.evolve(event, raw=b"", error=f"forgotten; {event.error}")
        return attrs.evolve(event, raw=bytes.fromhex(opened))


class _Sealed(_Sealing, Generic[E, S]):
    """Aggregates whose events are read and written by their keys, in a transaction or outside of one."""

    underlying: Any

    async def load(self, aggregate_id: str, *, use_snapshot: bool = True) -> Loaded[E, S]:
        loaded: Loaded[E, S] = await self._with_keys(
            lambda: self.underlying.load(aggregate_id, use_snapshot=use_snapshot)
        )
        return attrs.evolve(loaded, forgotten=self.ring.is_forgotten(aggregate_id))

    async def append(
        self,
        aggregate_id: str,
        events: Sequence[E],
        *,
        outbox: Iterable[OutboxMessage] = (),
        **options: Any,
    ) -> list[EventEnvelope[E]]:
        if events:
            await self.ring.make(aggregate_id)
        sealed = await self._sealed(outbox, aggregate_id) if events else ()
        return await self._with_keys(
            lambda: self.underlying.append(aggregate_id, events, outbox=sealed, **options)
        )


class EncryptedTransaction(_Sealed[E, S], WrappedTransaction[E, S]):
    """A transaction of such a store."""

    def __init__(self, underlying: Transaction[E, S], ring: KeyRing) -> None:
        super().__init__(underlying)
        self.ring = ring


class EncryptedStore(_Sealed[E, S], WrappedStore[E, S]):
    """A store whose aggregates can be forgotten."""

    only_tells = False

    def __init__(
        self, underlying: EventStore[E, S], ring: KeyRing, reopen: Callable[[], EventStore[E, S]]
    ) -> None:
        """Wrap a store; `open_store` does that.

        Args:
            underlying: one whose codec encrypts by the same ring, or a memory store.
            ring: the keys.
            reopen: makes the same store again.
        """
        super().__init__(underlying)
        self.ring = ring
        self.codec = getattr(underlying, "codec", None)
        self.reopen = reopen

    def wrap(self, transaction: Transaction[E, S]) -> EncryptedTransaction[E, S]:
        return EncryptedTransaction(transaction, self.ring)

    async def forget(self, aggregate_id: str) -> None:
        """Make unreadable for good what an aggregate's events hold, and its copies here; it takes no more.

        Its events keep their places and have no effect any more. Snapshot and parked events are deleted, and
        what process managers keep of it, commands that are not sent yet included; messages that are not
        sent yet are dropped. Repeating it does no harm: do so if it was broken off.

        Raises:
            EventStoreError: the keys or the store cannot be written; it is not done.
        """
        await self.ring.forget(aggregate_id)
        if isinstance(self.underlying, MemoryStore):
            await self.underlying.erase(aggregate_id)
        parked = [event.id for event in await self._parked_of(aggregate_id) if event.id is not None]
        async with self.underlying.transaction(isolation="read committed") as tx:
            for id in parked:
                await tx.unpark(id)
            await tx.forget_instances(aggregate_id, self.ring.mark(aggregate_id))
            await tx.drop_snapshot(aggregate_id)

    async def _parked_of(self, aggregate_id: str) -> list[ParkedEvent]:
        """List what is parked of an aggregate, and of nothing else that has its id."""

        async def is_its(event: ParkedEvent) -> bool:
            if event.position is None:
                return True  # it came over the wire
            found = await self.read(event.position - 1, limit=1, aggregate_id=aggregate_id)
            return [each.position for each in found] == [event.position]

        found = await self.underlying.parked(None, aggregate_id=aggregate_id)
        return [event for event in found if await is_its(event)]

    async def load_events(
        self, aggregate_id: str, start_from: int = 0, *, limit: int | None = None
    ) -> list[EventEnvelope[E]]:
        return await self._with_keys(
            lambda: self.underlying.load_events(aggregate_id, start_from, limit=limit)
        )

    async def latest_snapshot(self, aggregate_id: str) -> Snapshot[S] | None:
        return await self._with_keys(lambda: self.underlying.latest_snapshot(aggregate_id))

    async def read(
        self, after: int = 0, *, limit: int = BATCH, aggregate_id: str | None = None
    ) -> list[RecordedEvent[E]]:
        return await self._with_keys(
            lambda: self.underlying.read(after, limit=limit, aggregate_id=aggregate_id)
        )

    async def read_page(self, after: int = 0, *, limit: int = BATCH) -> Page[E]:
        return await EventStore.read_page(self, after, limit=limit)  # decoding may have to wait for keys

    async def scan(self, selection: Selection, after: int = 0, *, limit: int = BATCH) -> Scanned:
        return await self._with_keys(lambda: self.underlying.scan(selection, after, limit=limit))

    def follow(self, after: int = 0, *, batch: int = BATCH) -> AsyncIterator[list[RecordedEvent[E]]]:
        return EventStore.follow(self, after, batch=batch)
