"""Typed facts, and decisions over a query of them. Layer: eventsourcing, stores.

::

    facts = es.open_facts("sqlite:seats.db", events=SeatEvent, tags=lambda event: [f"seat:{event.seat}"])
    seat = es.Domain(reserve, apply, Seat())
    await facts.decide(es.Query(tags=["seat:12A"]), seat, Reserve("12A", "ada"))

A decision reads what the query matches, folds it, decides, and appends if nothing that matches has come
meanwhile; else it is made anew. So two decisions that concern each other never both rest on the same past.
"""

from __future__ import annotations

import asyncio
import copy
import random
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from types import TracebackType
from typing import Generic, Self, TypeVar

import attrs

from pyglyn.errors import AppendConditionFailed, EventDecodeError, TransactionRolledBack
from pyglyn.eventsourcing.domain.aggregate import Domain
from pyglyn.eventsourcing.domain.envelope import Metadata, SerializedEventEnvelop
from pyglyn.eventsourcing.domain.evolution import each, evolution_of
from pyglyn.eventsourcing.stores.facts.log import (
    STREAM,
    Criterion,
    FactLog,
    NewFact,
    Query,
    RawFact,
)
from pyglyn.eventsourcing.stores.json.codec import JsonCodec, JsonStyle, tag_of
from pyglyn.eventsourcing.stores.rows import shown
from pyglyn.eventsourcing.stores.store import BATCH, RecordedEvent

E = TypeVar("E")
S = TypeVar("S")
C = TypeVar("C")

_FIRST_PAUSE_S = 0.002
_LONGEST_PAUSE_S = 0.5


@attrs.frozen(kw_only=True)
class Fact(Generic[E]):
    """An event of a log of facts."""

    position: int
    payload: E
    tags: tuple[str, ...]
    metadata: Metadata
    id: str
    type: str


@attrs.frozen
class Decided(Generic[S, E]):
    """The outcome of a decision: the state after it, what was written, and where the log is after that."""

    state: S
    facts: list[Fact[E]]
    position: int


@attrs.frozen
class _Page(Generic[E]):
    """What was read: facts, of how many in the log, and up to which position."""

    facts: list[Fact[E]]
    count: int
    end: int


class FactStore(Generic[E]):
    """Facts of one union of event classes."""

    def __init__(
        self,
        log: FactLog,
        *,
        events: object = None,
        tags: Callable[[E], Iterable[str]] = lambda event: (),
        style: JsonStyle | None = None,
    ) -> None:
        """Put types on a log.

        Args:
            log: where the facts are.
            events: the union of event classes, or one; None for JSON values of type ``json``.
            tags: which tags an event carries.
            style: how the JSON is spelled; a fact's type is the tag of its class.

        Raises:
            TypeError, ValueError: the type has no JSON.
        """
        self.log = log
        self._codec: JsonCodec[E] = JsonCodec(events, style, tagged=True)
        self._tags = tags

    @property
    def in_memory(self) -> bool:
        """Whether no other OS process sees the facts."""
        return self.log.in_memory

    def reopened(self) -> FactStore[E]:
        """Return the same facts with connections of its own, where they are in a database."""
        log = self.log.reopened()
        if log is self.log:
            return self
        made: FactStore[E] = copy.copy(self)
        made.log = log
        return made

    async def __aenter__(self) -> Self:
        await self.log.start()
        return self

    async def __aexit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        await self.log.close()

    def type_of(self, event: object) -> str:
        """Return the type of a fact: the tag of a class, or of an event's class."""
        cls = event if isinstance(event, type) else type(event)
        return tag_of(self._codec.style, cls)

    def _named(self, query: Query | None) -> Query | None:
        if query is None:
            return None
        return Query.of(
            Criterion([name for of in one.types for name in self._names(of)], one.tags)
            for one in query.criteria
        )

    def _names(self, of: object) -> Iterable[str]:
        """Return the type of a class, and those that it had before."""
        if isinstance(of, str):
            return (of,)
        cls = of if isinstance(of, type) else type(of)
        return (self.type_of(cls), *evolution_of(cls).aliases)

    async def read(
        self, query: Query | None = None, *, after: int = 0, limit: int | None = None
    ) -> list[Fact[E]]:
        """Return facts that match, in order; one of an earlier version may have become none, or several.

        Args:
            query: what to return; None for everything.
            after: the position behind which to begin.
            limit: so many facts as they are in the log, at most.

        Raises:
            EventDecodeError: one does not decode.
        """
        return (await self._page(query, after, limit)).facts

    async def _page(self, query: Query | None, after: int, limit: int | None) -> _Page[E]:
        found = await self.log.read(self._named(query), after=after, limit=limit)
        facts = [fact for raw in found for fact in self._facts(raw)]
        return _Page(facts, len(found), found[-1].position if found else after)

    def _facts(self, raw: RawFact) -> list[Fact[E]]:
        return [self._with(raw, event) for event in each(self._payload(raw))]

    def _payload(self, raw: RawFact) -> E:
        try:
            return self._codec.decode(raw.data.decode(), raw.version)
        except (EventDecodeError, UnicodeDecodeError) as error:
            errors = error.errors if isinstance(error, EventDecodeError) else [str(error)]
            raise EventDecodeError(
                errors, payload=shown(raw.data), aggregate_id=raw.stream, sequence=raw.revision, what="fact"
            ) from error

    def _with(self, raw: RawFact, payload: E) -> Fact[E]:
        return Fact(
            position=raw.position,
            payload=payload,
            tags=raw.tags,
            metadata=raw.metadata,
            id=raw.id,
            type=raw.type,
        )

    async def recorded(
        self, query: Query | None = None, *, after: int = 0, limit: int | None = None
    ) -> list[RecordedEvent[E]]:
        """Return facts that match as readers of events get them: the stream is the aggregate.

        One that does not decode has its error, and text, in its place.
        """
        found = await self.log.read(self._named(query), after=after, limit=limit)
        return [self._recorded(raw) for raw in found]

    def _recorded(self, raw: RawFact) -> RecordedEvent[E]:
        envelope: SerializedEventEnvelop[E] | None = None
        fault: EventDecodeError | None = None
        try:
            payload = self._payload(raw)
            envelope = SerializedEventEnvelop(
                raw.stream, raw.revision, payload, list(raw.metadata), raw.type, str(raw.version), ""
            )
        except EventDecodeError as error:
            fault = error
        return RecordedEvent(raw.position, raw.stream, raw.revision, envelope, fault, None, raw.data)

    async def append(
        self,
        events: Sequence[E],
        *,
        condition: Query | None = None,
        after: int = 0,
        metadata: Iterable[tuple[str, str]] = (),
        stream: str = STREAM,
    ) -> list[Fact[E]]:
        """Write events if nothing that matches the condition lies behind a position; see `FactLog.append`.

        Raises:
            AppendConditionFailed: something does; nothing was written.
            EventEncodeError: an event is not of the type.
        """
        if not events:
            return []
        pairs = list(metadata)
        new = [
            NewFact(
                type=self.type_of(event),
                data=self._codec.encode(event).encode(),
                version=evolution_of(type(event)).version,
                tags=self._tags(event),
                metadata=pairs,
            )
            for event in events
        ]
        written = await self.log.append(new, condition=self._named(condition), after=after, stream=stream)
        return [self._with(raw, event) for raw, event in zip(written, events, strict=True)]

    async def decide(
        self,
        query: Query,
        domain: Domain[S, C, E],
        command: C,
        *,
        metadata: Iterable[tuple[str, str]] = (),
        stream: str = STREAM,
        retries: int = 50,
    ) -> Decided[S, E]:
        """Decide a command on what a query matches, and write what it causes, on condition that this holds.

        Args:
            query: what the decision rests on.
            domain: folds the facts into a state and decides.
            command: what ``handle`` is given.
            metadata: kept with the facts.
            stream: as for `FactLog.append`.
            retries: how often it is decided anew before its `AppendConditionFailed` is raised.

        Raises:
            DomainError: ``handle`` refused it.
            AppendConditionFailed: something new came every time.
        """
        pairs, pause = list(metadata), 0.0
        state, position = domain.empty_state, 0
        for attempt in range(retries + 1):
            new = await self._page(query, position, None)
            state = domain.fold(state, (fact.payload for fact in new.facts))
            position = new.end
            events = domain.decide(state, command)
            try:
                facts = await self.append(
                    events, condition=query, after=position, metadata=pairs, stream=stream
                )
            except (AppendConditionFailed, TransactionRolledBack):
                if attempt == retries:
                    raise
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))
                pause = min(max(pause * 2, _FIRST_PAUSE_S), _LONGEST_PAUSE_S)
                continue
            return Decided(domain.fold(state, events), facts, facts[-1].position if facts else position)
        raise AssertionError

    async def follow(
        self, query: Query | None = None, *, after: int = 0, batch: int = BATCH
    ) -> AsyncIterator[list[Fact[E]]]:
        """Yield the facts behind a position that match, in batches: what is there, then what comes."""
        while True:
            last = await self.log.last_position()
            page = await self._page(query, after, batch)
            if page.facts:
                yield page.facts
            after = page.end if page.count == batch else max(last, page.end)
            if page.count < batch:
                await self.log.wait(after)
