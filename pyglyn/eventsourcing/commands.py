"""Commands against a store: load, decide, append; again on conflict. What the runtime's workers run.

Of one aggregate one command runs at a time per executor, first come first served, so callers of the same node
never conflict with each other. Other nodes, OS processes and languages are met by the store's expected
sequence: on :class:`~pyglyn.errors.VersionConflict` the aggregate is loaded anew and the command decided
anew.

Aggregates are remembered, so that a command that causes events needs no load: the store refuses those events
if the aggregate has moved on. Nothing refuses the other outcomes, an error or no events at all. They are only
believed of an aggregate that was just loaded; from a remembered one, they mean that it is loaded and the
command decided again. So an answer never lacks an event that was committed before the command came.

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
import logging
import random
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from typing import Any, Generic, TypeVar

import attrs

from pyglyn.errors import (
    EntityNotFound,
    EventDecodeError,
    EventEncodeError,
    StoreUnavailable,
    TransactionRolledBack,
    VersionConflict,
)
from pyglyn.eventsourcing.domain.aggregate import Aggregate, Domain
from pyglyn.eventsourcing.domain.envelope import EventEnvelope, metadata_pairs
from pyglyn.eventsourcing.domain.snapshot import Snapshot, SnapshotConfig
from pyglyn.eventsourcing.stores.store import EventStore, OutboxMessage

logger = logging.getLogger("pyglyn.eventsourcing")

S = TypeVar("S")
C = TypeVar("C")
E = TypeVar("E")

_FIRST_PAUSE_S = 0.002
_LONGEST_PAUSE_S = 0.5
_JUST_NOW_S = 1.0

UNAVAILABLE_S = 3.0
"""Less than callers wait by default (5 s), so that they are told the reason."""

OutboxFor = Callable[[str, int, list[E]], Iterable[OutboxMessage]]
"""Given the aggregate id, the sequence before and the new events, returns what to send after the commit."""


@attrs.frozen
class Executed(Generic[S, E]):
    """The outcome of a command.

    Attributes:
        aggregate: as it is afterwards.
        envelopes: what was committed; none for no events.
        written: what the executor's ``write`` made of each event; empty without one.
    """

    aggregate: Aggregate[S]
    envelopes: list[EventEnvelope[E]]
    written: Sequence[Any] = ()


@attrs.define  # not frozen: one per command
class _Decision(Generic[S, E]):
    """What a command does to an aggregate, before it is committed."""

    before: int
    after: Aggregate[S]
    events: list[E]
    written: Sequence[Any]
    outbox: Sequence[OutboxMessage]


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
        unavailable_s: float = UNAVAILABLE_S,
        cached: int = 1000,
        write: Callable[[E], Any] | None = None,
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
            write: makes of each event what is sent after the commit. It is called before the commit: an
                event that cannot be sent, about which it raises, is not committed either.
        """
        self._store = store
        self._domain = domain
        self._snapshot_config = snapshot_config
        self._outbox = outbox
        self._conflict_retries = conflict_retries
        self._unavailable_s = unavailable_s
        self._cached = cached
        self._write = write
        self._aggregates: OrderedDict[str, Aggregate[S]] = OrderedDict()
        self._turns: dict[str, _Turn] = {}
        self._unavailable: tuple[float, str] | None = None  # since when, and why

    async def execute(
        self,
        aggregate_id: str,
        command: C,
        metadata: Iterable[tuple[str, str]] = (),
        *,
        came_at: float | None = None,
    ) -> Executed[S, E]:
        """Carry out one command.

        Args:
            aggregate_id: whose command.
            command: what ``handle`` is given.
            metadata: pairs of strings, kept with the events.
            came_at: since when its caller waits, by ``time.monotonic``; now by default. How long an
                unavailable store is tried again counts from then.

        Raises:
            DomainError: ``handle`` refused it.
            InvalidHandlerResult: ``handle`` returned no list of events.
            EventEncodeError: an event cannot be stored or sent.
            VersionConflict: other writers were faster every time.
            StoreUnavailable, TransactionRolledBack: for too long; see ``outcome_unknown``.
            EventDecodeError: an event of the aggregate does not decode.
            Exception: whatever ``handle`` and ``apply`` raise.
        """
        pairs = metadata_pairs(metadata)
        came_at = time.monotonic() if came_at is None else came_at
        give_up_at = came_at + self._unavailable_s
        async with self._turn(aggregate_id):
            self._check_patience(came_at, give_up_at)
            conflicts, pause = 0, 0.0
            while True:
                try:
                    return await self._attempt(aggregate_id, command, pairs)
                except (VersionConflict, TransactionRolledBack):
                    conflicts += 1
                    if conflicts > self._conflict_retries:
                        raise
                except StoreUnavailable as error:
                    if error.outcome_unknown:
                        raise
                    self._unavailable = (time.monotonic(), error.text)
                    if time.monotonic() + pause > give_up_at:
                        raise
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))
                pause = min(max(pause * 2, _FIRST_PAUSE_S), _LONGEST_PAUSE_S)

    def _check_patience(self, came_at: float, give_up_at: float) -> None:
        """Give up at once on a store that others found unavailable while this command stood in line.

        Raises:
            StoreUnavailable: that was just now, and this command has waited for as long as it was to.
        """
        now = time.monotonic()
        if self._unavailable is not None and now > give_up_at:
            when, text = self._unavailable
            if when > came_at and now - when < _JUST_NOW_S:
                raise StoreUnavailable(text)

    async def _attempt(
        self, aggregate_id: str, command: C, metadata: list[tuple[str, str]]
    ) -> Executed[S, E]:
        # Whatever goes wrong from here on, what is cached may be stale (or changed by the application).
        cached = self._aggregates.pop(aggregate_id, None)
        decision = self._events_of(cached, command) if cached is not None else None
        if decision is not None:
            try:
                return await self._commit(decision, metadata)
            except EventEncodeError as error:
                logger.debug("%s is loaded, and its command decided again: %s", aggregate_id, error)
        return await self._commit(self._decide(await self._load(aggregate_id), command), metadata)

    def _events_of(self, cached: Aggregate[S], command: C) -> _Decision[S, E] | None:
        """Decide on a remembered aggregate; None for an outcome that the store would not check."""
        try:
            decision = self._decide(cached, command)
        except Exception as error:
            name = type(error).__name__  # its text may be a fault of its own
            logger.debug("%s is loaded, and its command decided again: %s", cached.aggregate_id, name)
            return None
        return decision if decision.events else None

    def _decide(self, aggregate: Aggregate[S], command: C) -> _Decision[S, E]:
        aggregate_id, before = aggregate.aggregate_id, aggregate.sequence
        try:
            events = self._domain.decide(aggregate.entity, command)
            entity = self._domain.fold(aggregate.entity, events)
        except (Exception, KeyboardInterrupt):
            raise
        except BaseException as error:  # nobody has asked whoever runs the command to end
            raise RuntimeError(f"handle or apply raised {type(error).__name__}") from error
        return _Decision(
            before,
            Aggregate(aggregate_id, entity, before + len(events)),
            events,
            [self._write(event) for event in events] if self._write is not None else (),
            list(self._outbox(aggregate_id, before, events)) if self._outbox and events else (),
        )

    async def _commit(self, decision: _Decision[S, E], metadata: list[tuple[str, str]]) -> Executed[S, E]:
        snapshot = self._snapshot(decision.before, decision.after)
        try:
            envelopes = await self._append(decision, metadata, snapshot)
        except EventEncodeError as error:
            if snapshot is None:
                raise
            envelopes = await self._append(decision, metadata, None)  # if it was an event, it says so again
            logger.warning("no snapshot of %s at %d: %s", snapshot.aggregate_id, snapshot.sequence, error)
        self._remember(decision.after)
        return Executed(decision.after, envelopes, decision.written)

    def _append(
        self, decision: _Decision[S, E], metadata: list[tuple[str, str]], snapshot: Snapshot[S] | None
    ) -> Awaitable[list[EventEnvelope[E]]]:
        return self._store.append(
            decision.after.aggregate_id,
            decision.events,
            expected=decision.before,
            metadata=metadata,
            snapshot=snapshot,
            outbox=decision.outbox,
            written=decision.written,
        )

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
        if loaded.snapshot is not None and not await self._is_behind(loaded.snapshot, loaded.envelopes):
            logger.warning(
                "the snapshot of %s says %d, where it has no event; all events are applied instead",
                aggregate_id,
                loaded.snapshot.sequence,
            )
            loaded = await self._store.load(aggregate_id, use_snapshot=False)
        start = self._domain.empty_state if loaded.snapshot is None else loaded.snapshot.entity
        try:
            entity = self._domain.fold(start, (envelope.payload for envelope in loaded.envelopes))
        except (Exception, KeyboardInterrupt):
            raise
        except BaseException as error:  # nobody has asked whoever runs the command to end
            raise RuntimeError(f"handle or apply raised {type(error).__name__}") from error
        return Aggregate(aggregate_id, entity, loaded.sequence)

    async def _is_behind(self, snapshot: Snapshot[S], after: list[EventEnvelope[E]]) -> bool:
        """Tell whether the last event of a snapshot is there: not after the log was restored or repaired."""
        if after:
            return after[0].sequence == snapshot.sequence + 1
        try:
            last = await self._store.load_events(snapshot.aggregate_id, snapshot.sequence - 1, limit=1)
        except EventDecodeError:
            return True
        return bool(last) and last[0].sequence == snapshot.sequence

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
