"""Commands against a store: load, decide, append; again on conflict. What the runtime's workers run.

Of one aggregate one command runs at a time per executor, first come first served, so callers of the same node
never conflict with each other. Other nodes, OS processes and languages are met by the store's expected
sequence: on :class:`~pyglyn.errors.VersionConflict` the aggregate is loaded anew and the command decided
anew.

Aggregates are remembered, so that a command that causes events needs no load: the store refuses those events
if the aggregate has moved on. Nothing refuses the other outcomes, an error or no events at all. They are only
believed of an aggregate that is up to date; from a remembered one, they mean that the events since are read
and the command decided again. So an answer never lacks an event that was committed before the command came.

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
import logging
import random
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Generic, TypeVar

import attrs

from pyglyn import counters, tracing
from pyglyn.errors import (
    CommandRepeated,
    DomainError,
    EntityNotFound,
    EventDecodeError,
    EventEncodeError,
    EventStoreError,
    StoreUnavailable,
    TransactionRolledBack,
    VersionConflict,
)
from pyglyn.eventsourcing.domain.aggregate import Aggregate, Domain
from pyglyn.eventsourcing.domain.causation import value_of
from pyglyn.eventsourcing.domain.envelope import COMMAND_ID, EventEnvelope, metadata_pairs
from pyglyn.eventsourcing.domain.snapshot import Snapshot, SnapshotConfig
from pyglyn.eventsourcing.stores.store import CommandRecord, EventStore, OutboxMessage

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


@attrs.define  # not frozen: one per command
class _Request(Generic[C]):
    """A command on its way."""

    aggregate_id: str
    command: C
    metadata: list[tuple[str, str]]
    expected: int | None
    command_id: str | None
    final: bool


class _Unexpected(VersionConflict):
    """The caller of a command expected another sequence: trying again does not help."""


@attrs.frozen
class _Remembered(Generic[S, E]):
    """An aggregate as the store had it.

    Attributes:
        last: its last event; None when only its snapshot was read.
        outages: how often the store had been away by then. After one it may be another (a standby server that
            lacks the last events, a backup), so what is remembered is held against it first.
    """

    aggregate: Aggregate[S]
    last: EventEnvelope[E] | None
    outages: int


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
        name: str = "",
    ) -> None:
        """Bring store and domain together.

        Args:
            store: where the events are.
            domain: the aggregate type's functions.
            snapshot_config: take and use snapshots; None for none.
            outbox: what to send for a command, written in its transaction.
            conflict_retries: how often a command is decided anew before its VersionConflict is raised.
            unavailable_s: for how long an unavailable store is tried again, in seconds.
            cached: how many aggregates are kept in memory, so that their next command needs no load.
            write: makes of each event what is sent after the commit. It is called before the commit: an
                event that cannot be sent, about which it raises, is not committed either.
            name: of the service, for the counts of what happened.
        """
        self._store = store
        self._domain = domain
        self._snapshot_config = snapshot_config
        self._outbox = outbox
        self._conflict_retries = conflict_retries
        self._unavailable_s = unavailable_s
        self._cached = cached
        self._write = write
        self._name = name
        self._labels = (("service", name),)
        self._remembered: OrderedDict[str, _Remembered[S, E]] = OrderedDict()
        self._turns: dict[str, _Turn] = {}
        self._unavailable: tuple[float, str] | None = None  # since when, and why
        self._outages = 0  # how often the store was unavailable

    async def execute(
        self,
        aggregate_id: str,
        command: C,
        metadata: Iterable[tuple[str, str]] = (),
        *,
        came_at: float | None = None,
        expected: int | None = None,
        command_id: str | None = None,
        final: bool = False,
    ) -> Executed[S, E]:
        """Carry out one command.

        Args:
            aggregate_id: whose command.
            command: what ``handle`` is given.
            metadata: pairs of strings, kept with the events.
            came_at: since when its caller waits, by ``time.monotonic``; now by default. How long an
                unavailable store is tried again counts from then.
            expected: the sequence that the aggregate has to be at; None for any.
            command_id: a command whose events were committed under this id before is not carried out again,
                and has the same outcome. None takes what the metadata have under ``command_id``, so that
                clients can give it from anywhere.
            final: a refusal is remembered under the id, too: the command is refused from then on.

        Raises:
            DomainError: ``handle`` refused it.
            InvalidHandlerResult: ``handle`` returned no list of events.
            EventEncodeError: an event cannot be stored or sent.
            VersionConflict: other writers were faster every time, or the aggregate is not at ``expected``.
            StoreUnavailable, TransactionRolledBack: for too long; see ``outcome_unknown``.
            EventDecodeError: an event of the aggregate does not decode.
            Exception: whatever ``handle`` and ``apply`` raise.
        """
        pairs = metadata_pairs(metadata)
        came_at = time.monotonic() if came_at is None else came_at
        if command_id is None:
            command_id = value_of(pairs, COMMAND_ID)
        if tracing.tracer is not None:
            with tracing.span(
                f"command {self._name}", "server", cause=pairs, expected=(DomainError,), service=self._name
            ):
                request = _Request(aggregate_id, command, tracing.carried(pairs), expected, command_id, final)
                return await self._counted(request, came_at)
        request = _Request(aggregate_id, command, pairs, expected, command_id, final)
        return await self._counted(request, came_at)

    async def _counted(self, request: _Request[C], came_at: float) -> Executed[S, E]:
        outcome = "failed"
        try:
            executed = await self._execute(request, came_at)
            outcome = "done"
            return executed
        except DomainError:
            outcome = "refused"
            raise
        finally:
            took = time.monotonic() - came_at
            counters.add_all(
                (
                    ("pyglyn_commands_total", (("outcome", outcome), *self._labels), 1),
                    ("pyglyn_command_seconds_total", self._labels, took),
                )
            )

    async def _execute(self, request: _Request[C], came_at: float) -> Executed[S, E]:
        """Carry out a command in its aggregate's turn. asyncio's lock is fair."""
        aggregate_id = request.aggregate_id
        turn = self._turns.get(aggregate_id)
        if turn is None:
            turn = self._turns[aggregate_id] = _Turn()
        turn.wanted += 1
        try:
            async with turn.lock:
                return await self._in_turn(request, came_at)
        finally:
            turn.wanted -= 1
            if not turn.wanted:
                del self._turns[aggregate_id]

    async def _in_turn(self, request: _Request[C], came_at: float) -> Executed[S, E]:
        """Carry out a command as often as it takes."""
        aggregate_id = request.aggregate_id
        give_up_at = came_at + self._unavailable_s
        self._check_patience(came_at, give_up_at)
        conflicts, pause = 0, 0.0
        while True:
            try:
                return await self._attempt(request, anew=conflicts > 0)
            except _Unexpected as error:
                raise VersionConflict(aggregate_id, error.expected, error.actual) from None
            except CommandRepeated:
                pass  # at the same moment, by somebody else: now it is known
            except (VersionConflict, TransactionRolledBack):
                conflicts += 1
                counters.add("pyglyn_command_conflicts_total", service=self._name)
                if conflicts > self._conflict_retries:
                    raise
            except StoreUnavailable as error:
                self._outages += 1
                counters.add("pyglyn_store_unavailable_total", service=self._name)
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

    async def _attempt(self, request: _Request[C], *, anew: bool) -> Executed[S, E]:
        aggregate_id = request.aggregate_id
        if request.command_id is not None and (done := await self._store.find_command(request.command_id)):
            return await self._repeated(request, done)
        # Whatever goes wrong from here on, what is remembered may be stale.
        known = self._remembered.pop(aggregate_id, None)
        anew = anew or (known is not None and known.outages != self._outages)
        if known is not None and not anew and request.expected in (None, known.aggregate.sequence):
            decision = self._events_of(known.aggregate, request.command)
            if decision is not None:
                try:
                    return await self._commit(decision, request)
                except EventEncodeError as error:
                    logger.debug("the command of %s is decided again: %s", aggregate_id, error)
                except VersionConflict:
                    self._remember(known)
                    raise
        current = await self._current(aggregate_id, known)
        self._remember(current)
        if request.expected not in (None, current.aggregate.sequence):
            raise _Unexpected(aggregate_id, request.expected or 0, current.aggregate.sequence)
        try:
            decision = self._decide(current.aggregate, request.command)
        except DomainError:
            await self._remember_refusal(request, current.aggregate.sequence)
            raise
        return await self._commit(decision, request)

    async def _remember_refusal(self, request: _Request[C], sequence: int) -> None:
        if request.final and request.command_id is not None and self._store.has_side_tables:
            async with self._store.transaction(isolation="read committed") as tx:
                await tx.remember_refusal(request.command_id, request.aggregate_id, sequence)

    async def _repeated(self, request: _Request[C], done: CommandRecord) -> Executed[S, E]:
        """Return the outcome of a command that was carried out before."""
        if done.aggregate_id != request.aggregate_id:
            raise EventStoreError(f"the command id {done.id!r} was used for {done.aggregate_id!r} before")
        if not done.events:
            raise await self._refused_before(request, done)
        before = done.sequence - done.events
        envelopes = await self._store.load_events(done.aggregate_id, before, limit=done.events)
        written = [self._write(each.payload) for each in envelopes] if self._write is not None else ()
        return Executed((await self._load(done.aggregate_id)).aggregate, envelopes, written)

    async def _refused_before(self, request: _Request[C], done: CommandRecord) -> DomainError:
        """Say what a command was refused with: it is decided again on the aggregate as it was then."""
        events = (
            await self._store.load_events(done.aggregate_id, limit=done.sequence) if done.sequence else []
        )
        try:
            self._decide(
                Aggregate(done.aggregate_id, self._fold(self._domain.empty_state, events), done.sequence),
                request.command,
            )
        except DomainError as error:
            return error
        except Exception as error:
            logger.debug(
                "a refusal of %s cannot be decided again: %s", done.aggregate_id, type(error).__name__
            )
        return DomainError("it was refused before")  # by other rules, or the events are archived

    async def _current(self, aggregate_id: str, known: _Remembered[S, E] | None) -> _Remembered[S, E]:
        """Bring a remembered aggregate up to date; load it where there is none, or the log has lost it."""
        if known is None or known.last is None:
            return await self._load(aggregate_id)
        aggregate, outages = known.aggregate, self._outages
        found = await self._store.load_events(aggregate_id, aggregate.sequence - 1)
        if not found or found[0] != known.last:
            logger.warning("%s was at %d, and no longer is: it is loaded", aggregate_id, aggregate.sequence)
            return await self._load(aggregate_id)
        entity = self._fold(aggregate.entity, found[1:])
        return _Remembered(Aggregate(aggregate_id, entity, found[-1].sequence), found[-1], outages)

    def _fold(self, entity: S, envelopes: list[EventEnvelope[E]]) -> S:
        with _NO_EXIT:
            return self._domain.fold(entity, (envelope.payload for envelope in envelopes))

    def _events_of(self, known: Aggregate[S], command: C) -> _Decision[S, E] | None:
        """Decide on a remembered aggregate; None for an outcome that the store would not check."""
        try:
            decision = self._decide(known, command)
        except Exception as error:
            name = type(error).__name__  # its text may be a fault of its own
            logger.debug("the command of %s is decided again: %s", known.aggregate_id, name)
            return None
        return decision if decision.events else None

    def _decide(self, aggregate: Aggregate[S], command: C) -> _Decision[S, E]:
        aggregate_id, before = aggregate.aggregate_id, aggregate.sequence
        with _NO_EXIT:
            events = self._domain.decide(aggregate.entity, command)
            entity = self._domain.fold(aggregate.entity, events) if events else aggregate.entity
        return _Decision(
            before,
            Aggregate(aggregate_id, entity, before + len(events)),
            events,
            [self._write(event) for event in events] if self._write is not None else (),
            list(self._outbox(aggregate_id, before, events)) if self._outbox and events else (),
        )

    async def _commit(self, decision: _Decision[S, E], request: _Request[C]) -> Executed[S, E]:
        if tracing.tracer is not None:
            with tracing.span(f"append {self._name}", service=self._name, events=len(decision.events)):
                return await self._committed(decision, request)
        return await self._committed(decision, request)

    async def _committed(self, decision: _Decision[S, E], request: _Request[C]) -> Executed[S, E]:
        snapshot, outages = self._snapshot(decision.before, decision.after), self._outages
        try:
            envelopes = await self._append(decision, request, snapshot)
        except EventEncodeError as error:
            if snapshot is None:
                raise
            envelopes = await self._append(decision, request, None)  # if it was an event, it says so again
            logger.warning("no snapshot of %s at %d: %s", snapshot.aggregate_id, snapshot.sequence, error)
        if envelopes:
            counters.add_all((("pyglyn_events_total", self._labels, len(envelopes)),))
            self._remember(_Remembered(decision.after, envelopes[-1], outages))
        return Executed(decision.after, envelopes, decision.written)

    def _append(
        self, decision: _Decision[S, E], request: _Request[C], snapshot: Snapshot[S] | None
    ) -> Awaitable[list[EventEnvelope[E]]]:
        return self._store.append(
            decision.after.aggregate_id,
            decision.events,
            expected=decision.before,
            metadata=request.metadata,
            snapshot=snapshot,
            outbox=decision.outbox,
            written=decision.written,
            **({} if request.command_id is None else {"command_id": request.command_id}),
        )

    def _snapshot(self, before: int, aggregate: Aggregate[S]) -> Snapshot[S] | None:
        if self._snapshot_config is None or not self._snapshot_config.due(before, aggregate.sequence):
            return None
        return Snapshot(aggregate.aggregate_id, aggregate.entity, aggregate.sequence, int(time.time()))

    async def load_aggregate(self, aggregate_id: str, *, at: int | None = None) -> Aggregate[S]:
        """Return an aggregate as the store has it.

        Args:
            aggregate_id: which.
            at: as it was after so many events; None for now.

        Raises:
            EntityNotFound: it has no events, or not so many.
        """
        if at is not None:
            events = await self._store.load_events(aggregate_id, limit=at) if at > 0 else []
            if not events or events[-1].sequence != at:
                raise EntityNotFound(aggregate_id)
            entity = self._domain.fold(self._domain.empty_state, (each.payload for each in events))
            return Aggregate(aggregate_id, entity, at)
        aggregate = (await self._load(aggregate_id)).aggregate
        if aggregate.sequence == 0:
            raise EntityNotFound(aggregate_id)
        return aggregate

    async def _load(self, aggregate_id: str) -> _Remembered[S, E]:
        outages = self._outages
        loaded = await self._store.load(aggregate_id, use_snapshot=self._snapshot_config is not None)
        if loaded.snapshot is not None and not await self._is_behind(loaded.snapshot, loaded.envelopes):
            logger.warning(
                "the snapshot of %s says %d, where it has no event; all events are applied instead",
                aggregate_id,
                loaded.snapshot.sequence,
            )
            loaded = await self._store.load(aggregate_id, use_snapshot=False)
        first = loaded.snapshot.sequence if loaded.snapshot is not None else 0
        if loaded.envelopes and loaded.envelopes[0].sequence > first + 1 and not loaded.forgotten:
            gone = f"events {first + 1} to {loaded.envelopes[0].sequence - 1} of {aggregate_id}"
            raise EventStoreError(f"{gone} are not in the store: they were archived, and it has no snapshot")
        start = self._domain.empty_state if loaded.snapshot is None else loaded.snapshot.entity
        entity = self._fold(start, loaded.envelopes)
        last = loaded.envelopes[-1] if loaded.envelopes else None
        return _Remembered(Aggregate(aggregate_id, entity, loaded.sequence), last, outages)

    async def _is_behind(self, snapshot: Snapshot[S], after: list[EventEnvelope[E]]) -> bool:
        """Tell whether the last event of a snapshot is there: not after the log was restored or repaired."""
        if after:
            return after[0].sequence == snapshot.sequence + 1
        try:
            last = await self._store.load_events(snapshot.aggregate_id, snapshot.sequence - 1, limit=1)
        except EventDecodeError:
            return True
        return bool(last) and last[0].sequence == snapshot.sequence

    def _remember(self, known: _Remembered[S, E]) -> None:
        if self._cached > 0 and known.last is not None:
            self._remembered[known.aggregate.aggregate_id] = known
            if len(self._remembered) > self._cached:
                self._remembered.popitem(last=False)


class _NoExit:
    """Lets nothing of the application end whoever runs its functions: nobody has asked for that."""

    __slots__ = ()

    def __enter__(self) -> None:
        pass

    def __exit__(self, _type: object, error: BaseException | None, _trace: object) -> None:
        if error is not None and not isinstance(error, Exception | KeyboardInterrupt):
            raise RuntimeError(f"handle or apply raised {type(error).__name__}") from error


_NO_EXIT = _NoExit()


class _Turn:
    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.wanted = 0
