"""What a live query could not process: kept in the store, and which aggregates have to wait for it.

A store keeps one parked event per query, aggregate type, aggregate id and sequence. What comes over the wire
may have none of these, or the same as something else: a message that cannot be identified is kept under the
digest of its term, and a second message with the key of a first one under its type and its own digest. So
only the same message replaces an entry.

The raw term tells what was parked; the key only keeps entries apart. Layer: eventsourcing.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeAlias, TypeVar

import attrs

from pyglyn import etf
from pyglyn.errors import EtfError, EventSourcingError, StoreUnavailable, TransactionRolledBack
from pyglyn.etf import Atom, Term
from pyglyn.eventsourcing.stores.memory import MemoryStore
from pyglyn.eventsourcing.stores.store import EventStore, ParkedEvent
from pyglyn.eventsourcing.stores.wrapped import unwrapped

logger = logging.getLogger("pyglyn.eventsourcing")

T = TypeVar("T")

Aggregate: TypeAlias = tuple[str, str]
"""Type and id; the type is empty for memory envelopes."""

_LARGEST_SEQUENCE = 2**63 - 1


def parking_of(store: EventStore[Any, Any] | None) -> EventStore[Any, Any] | None:
    """Return the store to keep parked events in, beside the events; None where it would not last."""
    store = unwrapped(store)
    return store if store is not None and store.has_sql else None


def identity(body: Term) -> tuple[Aggregate, int] | None:
    """Read from a message whose events it has and the number of the first one, also if they do not decode.

    None when it does not say, or not in a way that a database can store.
    """
    match body:
        case (
            Atom("process_events"),
            bytes() as id,
            [
                (Atom("serialized_event_envelop"), bytes(), int() as sequence, _, _, _, _, bytes() as type_),
                *_,
            ],
        ):
            found = (_storable(type_), _storable(id))
        case (Atom("process_events"), bytes() as id, [(_, bytes(), int() as sequence, *_), *_]):
            found = ("", _storable(id))
        case _:
            return None
    if found[0] is None or found[1] is None or not 0 <= sequence <= _LARGEST_SEQUENCE:
        return None
    return (found[0], found[1]), sequence


def _storable(text: bytes) -> str | None:
    try:
        return None if b"\0" in text else text.decode()
    except UnicodeDecodeError:
        return None


class Parking:
    """The parked messages of one live query.

    Args:
        query: its name.
        store: where they are kept; None for memory.
    """

    def __init__(self, query: str, store: EventStore[Any, Any] | None) -> None:
        self._query = query
        given = unwrapped(store)
        # Connections of our own where the store has a URL, which end with us.
        own = given.reopen() if given is not None and given.has_sql and given.reopen is not None else None
        self._own = own
        self._store: EventStore[Any, Any] = own or given or MemoryStore()
        self._kept: dict[tuple[Aggregate, int], str] | None = None  # the digest of what has which key
        self._blocked: set[Aggregate] = set()

    async def close(self) -> None:
        """Close the connections that are ours."""
        if self._own is not None:
            await self._own.close()

    async def all(self) -> list[ParkedEvent]:
        """List what is parked, in the order in which it came.

        Raises:
            EventStoreError: the store cannot be read.
        """
        return await self._store.parked(self._query)

    async def count(self) -> int:
        """Count what is parked.

        Raises:
            EventStoreError: the store cannot be read.
        """
        return await self._store.count_parked(self._query)

    async def load(self) -> dict[tuple[Aggregate, int], str]:
        """Take note of what was parked before, once; returns which term has which key.

        Raises:
            StoreUnavailable, TransactionRolledBack: that cannot be told now.
        """
        if self._kept is None:
            found = await self._in_store(lambda store: store.parked(self._query))
            self._kept = {_key(event): hashlib.sha256(event.raw).hexdigest() for event in found}
            self.release(found)
        return self._kept

    async def blocks(self, body: Term) -> bool:
        """Tell whether an earlier event of the message's aggregate is parked.

        Raises:
            StoreUnavailable, TransactionRolledBack: it cannot be told now.
        """
        await self.load()
        found = identity(body) if self._blocked else None
        if found is None or found[0] not in self._blocked:
            return False
        (_, id), _ = found
        if await self._in_store(lambda store: store.parked(self._query, aggregate_id=id, limit=1)):
            return True
        self._blocked.discard(found[0])  # somebody else has driven or deleted them
        return False

    async def keep(self, body: Term, error: str, attempts: int) -> None:
        """Park a message.

        Raises:
            StoreUnavailable, TransactionRolledBack: it cannot be kept now.
        """
        kept = await self.load()
        raw = etf.encode(body)
        digest = hashlib.sha256(raw).hexdigest()
        found = identity(body)
        aggregate, sequence = found if found is not None else (("", f"sha256:{digest}"), 0)
        key = (aggregate, sequence)
        if kept.get(key, digest) != digest:
            key = ((f"{aggregate[0]}#{digest}", aggregate[1]), sequence)
        event = ParkedEvent(
            query=self._query,
            aggregate_type=key[0][0],
            aggregate_id=key[0][1],
            sequence=sequence,
            raw=raw,
            error=error,
            format="etf",
            attempts=attempts,
        )
        await self._in_store(lambda store: store.park(event))
        kept[key] = digest
        if found is not None:
            self._blocked.add(aggregate)

    async def failed_again(self, event: ParkedEvent, error: str) -> None:
        """Note another attempt."""
        await self._store.park(attrs.evolve(event, error=error, attempts=event.attempts + 1))

    async def forget(self, event: ParkedEvent) -> None:
        """Remove an entry: it was processed."""
        assert event.id is not None
        await self._store.unpark(event.id)
        if self._kept is not None:
            self._kept.pop(_key(event), None)

    def release(self, remaining: Iterable[ParkedEvent]) -> None:
        """Take note of what is still parked."""
        found = (aggregate_of(event) for event in remaining)
        self._blocked = {aggregate for aggregate in found if aggregate is not None}

    async def _in_store(self, operation: Callable[[EventStore[Any, Any]], Awaitable[T]]) -> T:
        """Use the store; one that is of no use at all is replaced by memory."""
        try:
            return await operation(self._store)
        except (StoreUnavailable, TransactionRolledBack):
            raise
        except EventSourcingError:
            logger.exception(
                "query %s cannot park events in its store: from now on they are kept in memory", self._query
            )
            self._store = MemoryStore()
            return await operation(self._store)


def aggregate_of(event: ParkedEvent) -> Aggregate | None:
    """Return whose event was parked; None when nobody knows."""
    try:
        found = identity(etf.decode(event.raw))
    except EtfError:
        return None
    return None if found is None else found[0]


def _key(event: ParkedEvent) -> tuple[Aggregate, int]:
    return (event.aggregate_type, event.aggregate_id), event.sequence
