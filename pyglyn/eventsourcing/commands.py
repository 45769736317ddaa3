"""Commands against a store: load, decide, append; again on conflict. What the runtime's workers run.

Of one aggregate one command runs at a time per executor, first come first served, so callers of the same node
never conflict with each other. Other nodes, OS processes and languages are met by the store's expected
sequence: on :class:`~pyglyn.errors.VersionConflict` the aggregate is loaded anew and the command decided
anew.

What is tried again, and what is not:

====================================================  ===========================================
conflict, or a transaction the database rolled back   at once, then with growing random pauses
store unavailable, and certainly nothing was written  the same, for ``unavailable_s`` seconds
store unavailable, ``outcome_unknown``                never: the command may have been carried out
refused by ``handle``, or anything else               never
====================================================  ===========================================
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Generic, TypeVar

import attrs

from pyglyn.errors import EntityNotFound, StoreUnavailable, TransactionRolledBack, VersionConflict
from pyglyn.eventsourcing.aggregate import Aggregate, Domain
from pyglyn.eventsourcing.envelope import EventEnvelope
from pyglyn.eventsourcing.snapshot import Snapshot, SnapshotConfig
from pyglyn.eventsourcing.store import EventStore, OutboxMessage

S = TypeVar("S")
C = TypeVar("C")
E = TypeVar("E")

_FIRST_PAUSE_S = 0.002
_LONGEST_PAUSE_S = 0.5

OutboxFor = Callable[[str, int, list[E]], Iterable[OutboxMessage]]
"""Given the aggregate id, the sequence before and the new events, returns what to send after the commit."""


@attrs.frozen
class Executed(Generic[S, E]):
    """The outcome of a command: the aggregate after it and the committed envelopes (none for no events)."""

    aggregate: Aggregate[S]
    envelopes: list[EventEnvelope[E]]


class CommandExecutor(Generic[S, C, E]):
    """Executes the commands of one aggregate type."""

    def __init__(
        self,
        store: EventStore[E, S],
        domain: Domain[S, C, E],
        *,
        snapshot_config: SnapshotConfig | None = None,
        outbox: OutboxFor[E] | None = None,
        conflict_retries: int = 50,
        unavailable_s: float = 10.0,
        cached: int = 1000,
    ) -> None:
        """Bring store and domain together.

        Args:
            store: where the events are.
            domain: the aggregate type's functions.
            snapshot_config: take and use snapshots; None for none.
            outbox: what to send for a command, written in its transaction.
            conflict_retries: how often a command is decided anew before its VersionConflict is raised.
            unavailable_s: for how long an unavailable store is tried again, in seconds.
            cached: how many aggregates are kept in memory, so that their next command needs no load. 0 for
                domains whose ``apply`` changes the entity in place.
        """
        self._store = store
        self._domain = domain
        self._snapshot_config = snapshot_config
        self._outbox = outbox
        self._conflict_retries = conflict_retries
        self._unavailable_s = unavailable_s
        self._cached = cached
        self._aggregates: OrderedDict[str, Aggregate[S]] = OrderedDict()
        self._turns: dict[str, _Turn] = {}

    async def execute(
        self, aggregate_id: str, command: C, metadata: Iterable[tuple[str, str]] = ()
    ) -> Executed[S, E]:
        """Carry out one command.

        Raises:
            DomainError: ``handle`` refused it.
            InvalidHandlerResult: ``handle`` returned no list of events.
            VersionConflict: other writers were faster every time.
            StoreUnavailable, TransactionRolledBack: for too long; see ``outcome_unknown``.
            EventDecodeError: an event of the aggregate does not decode.
            Exception: whatever ``handle`` and ``apply`` raise.
        """
        pairs = list(metadata)
        async with self._turn(aggregate_id):
            conflicts, pause, give_up_at = 0, 0.0, time.monotonic() + self._unavailable_s
            while True:
                try:
                    return await self._attempt(aggregate_id, command, pairs)
                except (VersionConflict, TransactionRolledBack):
                    conflicts += 1
                    if conflicts > self._conflict_retries:
                        raise
                except StoreUnavailable as error:
                    if error.outcome_unknown or time.monotonic() + pause > give_up_at:
                        raise
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))
                pause = min(max(pause * 2, _FIRST_PAUSE_S), _LONGEST_PAUSE_S)

    async def _attempt(
        self, aggregate_id: str, command: C, metadata: list[tuple[str, str]]
    ) -> Executed[S, E]:
        # Whatever goes wrong from here on, what is cached may be stale (or changed by the application).
        aggregate = self._aggregates.pop(aggregate_id, None) or await self._load(aggregate_id)
        events = self._domain.decide(aggregate.entity, command)
        after = Aggregate(
            aggregate_id, self._domain.fold(aggregate.entity, events), aggregate.sequence + len(events)
        )
        envelopes = await self._store.append(
            aggregate_id,
            events,
            expected=aggregate.sequence,
            metadata=metadata,
            snapshot=self._snapshot(aggregate.sequence, after),
            outbox=self._outbox(aggregate_id, aggregate.sequence, events) if self._outbox and events else (),
        )
        self._remember(after)
        return Executed(after, envelopes)

    def _snapshot(self, before: int, aggregate: Aggregate[S]) -> Snapshot[S] | None:
        if self._snapshot_config is None or not self._snapshot_config.due(before, aggregate.sequence):
            return None
        return Snapshot(aggregate.aggregate_id, aggregate.entity, aggregate.sequence, int(time.time()))

    async def load_aggregate(self, aggregate_id: str) -> Aggregate[S]:
        """Return an aggregate as the store has it.

        Raises:
            EntityNotFound: it has no events.
        """
        aggregate = await self._load(aggregate_id)
        if aggregate.sequence == 0:
            raise EntityNotFound(aggregate_id)
        return aggregate

    async def _load(self, aggregate_id: str) -> Aggregate[S]:
        loaded = await self._store.load(aggregate_id, use_snapshot=self._snapshot_config is not None)
        start = self._domain.empty_state if loaded.snapshot is None else loaded.snapshot.entity
        entity = self._domain.fold(start, (envelope.payload for envelope in loaded.envelopes))
        return Aggregate(aggregate_id, entity, loaded.sequence)

    def _remember(self, aggregate: Aggregate[S]) -> None:
        if self._cached > 0:
            self._aggregates[aggregate.aggregate_id] = aggregate
            if len(self._aggregates) > self._cached:
                self._aggregates.popitem(last=False)

    @contextlib.asynccontextmanager
    async def _turn(self, aggregate_id: str) -> AsyncIterator[None]:
        """Wait for the aggregate's turn. asyncio's lock is fair; it is kept as long as somebody wants it."""
        turn = self._turns.setdefault(aggregate_id, _Turn())
        turn.wanted += 1
        try:
            async with turn.lock:
                yield
        finally:
            turn.wanted -= 1
            if not turn.wanted:
                del self._turns[aggregate_id]


class _Turn:
    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.wanted = 0
