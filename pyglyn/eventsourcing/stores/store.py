"""The interface of event stores, and what every store promises.

Promises, checked for each store by ``pyglyn.testing.eventsourcing.EventStoreContract``:

1. Sequence numbers of an aggregate start at 1 and have no gaps. ``append`` names the sequence it expects;
   if the store is elsewhere, nothing is written and :class:`~pyglyn.errors.VersionConflict` says where it
   is. Of two writers that saw the same sequence exactly one succeeds, also across OS processes and
   languages.
2. The events of one ``append``, its snapshot and its outbox messages are committed together or not at all.
3. Every event has a position, the same for every reader and for ever. Positions grow along each aggregate's
   sequence, may have gaps, and are never used again. A reader that asks for what lies behind a position never
   misses an event, however late its transaction commits.
4. A stored event that does not decode is reported with its aggregate, sequence and text: ``load`` raises,
   ``read`` delivers the error in the event's place. Nothing is skipped. An undecodable *snapshot* is only a
   lost short cut: ``load`` logs it and starts at event 1.
5. Transactions are serializable: they run one after the other, and no append of anybody's store commits
   between what one reads and its end. ``read committed``, for one transaction or as a setting of the store,
   lets PostgreSQL run them at once; then only what is appended to, or named by `Transaction.require`, is sure
   to be at its end as it was read. SQLite and memory are always serializable. What others write by plain SQL
   (the Gleam stores included, which lock the whole table) meets the same checks at its sequence.
6. What the database driver raises never comes through: it is :class:`~pyglyn.errors.StoreUnavailable` where
   trying again may help, otherwise another :class:`~pyglyn.errors.EventStoreError`.

A store opens its connections at the first use, anew in each OS process and for each event loop, so it may be
built before a fork and handed to children.

Layer: stores know nothing of nodes; they work without a cluster.
"""

from __future__ import annotations

import abc
import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Generic, Literal, Self, SupportsIndex, TypeAlias, TypeVar

import attrs

from pyglyn.errors import EventStoreError
from pyglyn.eventsourcing.domain.envelope import EventEnvelope
from pyglyn.eventsourcing.domain.envelope import RecordedEvent as RecordedEvent
from pyglyn.eventsourcing.domain.snapshot import Snapshot
from pyglyn.eventsourcing.stores.managing import (
    PAGE,
    IssuedCommand,
    ManagerReads,
    ManagerTables,
    Outlook,
    Status,
    Timer,
)
from pyglyn.eventsourcing.stores.selection import Scanned, Selection

T = TypeVar("T")
E = TypeVar("E")
S = TypeVar("S")

Isolation: TypeAlias = Literal["serializable", "read committed"]

BATCH = 125
"""Events per read when the caller does not say.

Each is four objects that Python's garbage collector looks at. With so few of them it has nothing to do while
pages come and go: it begins at 700.
"""


@attrs.frozen
class Loaded(Generic[E, S]):
    """What an aggregate is folded from: the snapshot, if any, and the events after it.

    Attributes:
        forgotten: whether the aggregate was forgotten: events that are missing have no effect either.
    """

    snapshot: Snapshot[S] | None
    envelopes: list[EventEnvelope[E]]
    forgotten: bool = False

    @property
    def sequence(self) -> int:
        """The number of the aggregate's last event, 0 when it has none."""
        if self.envelopes:
            return self.envelopes[-1].sequence
        return self.snapshot.sequence if self.snapshot is not None else 0


@attrs.frozen
class Replay:
    """Events of one aggregate that are to have their effect again: behind ``position``, up to ``until``."""

    aggregate_id: str
    position: int
    until: int


@attrs.frozen
class Checkpoint:
    """How far a query has come: every event up to ``position`` had its effect (or was parked).

    Attributes:
        version: how often it was changed; who changes it has to have seen the last version.
        mark: which event is at ``position``, as a short hash; empty when that is not known.
        replay: what is left of the replay of one aggregate, whose effects were undone.
    """

    query: str
    position: int = 0
    paused: bool = False
    updated_at: float = attrs.field(default=0.0, eq=False)
    version: int = 0
    mark: str = ""
    replay: Replay | None = None

    def next(self, **changes: Any) -> Checkpoint:
        """Return the next version, with some fields changed."""
        return attrs.evolve(self, version=self.version + 1, **changes)


@attrs.frozen(kw_only=True)
class ParkedEvent:
    """An event a query could not process, kept until it is driven again.

    Attributes:
        raw: what came: JSON text in UTF-8 (``format`` is ``json``) or the term (``etf``).
        position: where in the store; None when it only came over the wire.
        attempts: how often processing failed so far.
        id: given by the store.
    """

    query: str
    aggregate_id: str
    sequence: int
    raw: bytes
    error: str
    aggregate_type: str = ""
    format: str = "json"
    position: int | None = None
    attempts: int = 1
    parked_at: float = attrs.field(factory=time.time)
    id: int | None = None


@attrs.frozen
class CommandRecord:
    """A command that was carried out: its events are the last ``events`` up to ``sequence``.

    Of one that was refused for good ``events`` is 0, and ``sequence`` where its aggregate was then.
    """

    id: str
    aggregate_id: str
    sequence: int
    events: int


@attrs.frozen
class OutboxMessage:
    """Something to be sent once the transaction that wrote it is committed."""

    topic: str
    body: str


@attrs.frozen(kw_only=True)
class OutboxEntry:
    """An outbox message that was taken to be sent."""

    id: int
    topic: str
    body: str
    attempts: int
    created_at: float


@attrs.define  # not frozen: it is handed over once, from who reads to who decodes
class Page(Generic[E]):
    """Events that were read and are not decoded yet.

    Attributes:
        rows: how many; as many as were asked for if there may be more, unless it is cut.
        last: the position of the last one; that after which was read if there is none.
        decode: returns the events, without those that are gone.
        is_small: whether several of such pages can be read at once without taking much memory, as one that
            has `parts`.
        parts: divides it into pages of so many events; the last one may have fewer.
        behind: reads the page behind this one, of so many events. Who calls it reads on, so the store may
            begin with the page behind that one before it is asked for it. None: `read_page` does it.
        is_cut: whether it has fewer than were asked for because of their size, so that there may be more.
    """

    rows: int
    last: int
    decode: Callable[[], list[RecordedEvent[E]]]
    is_small: bool = False
    parts: Callable[[int], list[Page[E]]] | None = None
    behind: Callable[[int], Awaitable[Page[E]]] | None = None
    is_cut: bool = False


class SideTables(abc.ABC):
    """Checkpoints, parked events, leases, the outbox: the same calls on a store and inside a transaction."""

    @abc.abstractmethod
    async def checkpoint(self, query: str) -> int:
        """Return the position up to which a query has come, 0 when it has none."""

    @abc.abstractmethod
    async def checkpoints(self) -> list[Checkpoint]:
        """Return all checkpoints, by name."""

    @abc.abstractmethod
    async def load_checkpoint(self, query: str) -> Checkpoint:
        """Return a checkpoint with all that belongs to it; one that was never written is at 0, version 0."""

    @abc.abstractmethod
    async def update_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint whose version is the one after the stored one: what `Checkpoint.next` returned.

        Whatever else has changed it meanwhile (another instance of the query, a pause, a reset) has taken
        that version, and this call is refused.

        Raises:
            CheckpointConflict: the stored one has another version.
        """

    @abc.abstractmethod
    async def save_checkpoint(self, query: str, position: int, *, expected: int | None = None) -> None:
        """Move a checkpoint by its position alone; a replay that was under way is forgotten.

        Args:
            query: the query's name.
            position: the new position; a smaller one makes the query repeat events.
            expected: the position it must have now, which fences off a second instance; None moves it anyway.

        Raises:
            CheckpointConflict: it is not at ``expected``.
        """

    @abc.abstractmethod
    async def set_paused(self, query: str, paused: bool) -> None:
        """Remember that a query is to stand still, or no longer."""

    @abc.abstractmethod
    async def park(self, event: ParkedEvent) -> None:
        """Keep an event that could not be processed.

        The same event of the same query again replaces the entry: its error, its attempts.
        """

    @abc.abstractmethod
    async def parked(
        self, query: str | None = None, *, aggregate_id: str | None = None, limit: int | None = None
    ) -> list[ParkedEvent]:
        """List parked events in the order in which they came."""

    async def count_parked(self, query: str, *, aggregate_id: str | None = None) -> int:
        """Count parked events."""
        return len(await self.parked(query, aggregate_id=aggregate_id))

    async def parked_aggregates(self, query: str) -> set[str]:
        """Return which aggregates have parked events."""
        return {event.aggregate_id for event in await self.parked(query)}

    @abc.abstractmethod
    async def unpark(self, id: int) -> bool:
        """Forget a parked event; False when there is none of that id."""

    @abc.abstractmethod
    async def find_command(self, id: str) -> CommandRecord | None:
        """Return what a command with an id did; None if none caused events, or was refused for good."""

    @abc.abstractmethod
    async def take_lease(self, name: str, owner: str, seconds: float) -> bool:
        """Become or stay the owner of something for some time, by the clock of the database.

        Args:
            name: of what there may be one owner only.
            owner: who asks, unlike anybody else.
            seconds: for how long from now.

        Returns:
            Whether it is the owner's now; False while it is another one's.
        """

    @abc.abstractmethod
    async def end_lease(self, name: str, owner: str) -> None:
        """Give a lease up, if it is the owner's."""

    @abc.abstractmethod
    async def lease_owner(self, name: str) -> str | None:
        """Return whose a lease is, or was when it ran out; None where nobody has one."""

    @abc.abstractmethod
    async def put_outbox(self, messages: Iterable[OutboxMessage]) -> None:
        """Write messages to be sent later."""

    @abc.abstractmethod
    async def take_outbox(self, topic: str, *, limit: int = 100, lease_s: float = 30.0) -> list[OutboxEntry]:
        """Take the oldest messages of a topic that nobody else has taken.

        Each is ours for ``lease_s`` seconds; after that it can be taken again. Call ``finish_outbox`` for
        what was sent and ``fail_outbox`` for what was not.
        """

    @abc.abstractmethod
    async def finish_outbox(self, ids: Sequence[int]) -> None:
        """Remove messages that were sent."""

    @abc.abstractmethod
    async def fail_outbox(self, ids: Sequence[int], error: str, *, retry_after_s: float = 0.0) -> None:
        """Give messages back, to be taken again after some time."""

    @abc.abstractmethod
    async def outbox_size(self, topic: str | None = None) -> int:
        """Count the messages that are not sent yet."""


class Transaction(SideTables, ManagerTables, Generic[E, S]):
    """Several operations that are committed together: ``async with store.transaction() as tx``.

    An exception that leaves the block rolls everything back. Other writers of the same store have to wait for
    its end (at ``read committed`` only those of the same aggregates), so it has to be short.
    """

    @abc.abstractmethod
    async def load(self, aggregate_id: str, *, use_snapshot: bool = True) -> Loaded[E, S]:
        """As :meth:`EventStore.load`."""

    @abc.abstractmethod
    async def append(
        self,
        aggregate_id: str,
        events: Sequence[E],
        *,
        expected: int,
        metadata: Iterable[tuple[str, str]] = (),
        snapshot: Snapshot[S] | None = None,
        outbox: Iterable[OutboxMessage] = (),
        written: Sequence[Any] = (),
        command_id: str | None = None,
    ) -> list[EventEnvelope[E]]:
        """As :meth:`EventStore.append`."""

    async def remember_refusal(self, command_id: str, aggregate_id: str, sequence: int) -> None:
        """Remember that a command was refused, so that none with its id is carried out.

        Args:
            command_id: of the command.
            aggregate_id: which refused it.
            sequence: where that was then.

        Raises:
            CommandRepeated: one with this id was carried out, or refused, before.
        """
        raise EventStoreError("this store remembers no refusals")

    @abc.abstractmethod
    async def require(self, aggregate_id: str, sequence: int) -> None:
        """See to it that an aggregate has this sequence when the transaction commits, without appending.

        Args:
            aggregate_id: the aggregate that a decision rests on.
            sequence: of its last event, 0 for none.

        Raises:
            VersionConflict: it is at another one.
        """

    @abc.abstractmethod
    async def drop_snapshot(self, aggregate_id: str) -> None:
        """Delete an aggregate's snapshot, if it has one."""

    def check(self) -> None:
        """Check that what was written so far can be committed, where the database tells without being asked.

        Raises:
            EventStoreError: a statement has failed (whoever ran it may have caught that), or has ended the
                transaction.
        """

    def put_off(self) -> None:
        """Have statements of the application that return nothing run later, together, if the store can.

        Whoever asks for that calls `run_put_off` in the end; see :mod:`pyglyn.eventsourcing.stores.later`.
        """

    async def run_put_off(self) -> None:
        """Run what was put off, and put nothing off any more.

        Raises:
            PutOffFailed: a statement failed, now or before: the transaction is to be undone.
        """

    @abc.abstractmethod
    async def execute(self, statement: str, parameters: Sequence[object] = ()) -> list[tuple[object, ...]]:
        """Run a statement of the application's own in this transaction and return its rows.

        Placeholders are the driver's: ``?`` for SQLite, ``%s`` for PostgreSQL.

        Raises:
            EventStoreError: the statement failed, or the store has no SQL.
        """

    async def execute_many(self, statement: str, rows: Iterable[Sequence[object]]) -> None:
        """Run a statement of the application's own once for each row of parameters, in order.

        That is one hand-over to SQLite's thread, and one pipeline to PostgreSQL, instead of one for each.

        Raises:
            EventStoreError: it failed at one of them, or the store has no SQL.
        """
        for parameters in rows:
            await self.execute(statement, parameters)

    async def call(self, work: Callable[[Cursor], T]) -> T:
        """Call a plain function in a thread, with this transaction as it sees it; return what it returns.

        Where the database has a thread of its own (SQLite), it is that one, so that no statement has to be
        handed over. The function may block; who cancels this call has to wait for its end, or for the next
        statement, which raises.
        """
        loop = asyncio.get_running_loop()

        def execute(statement: str, parameters: Sequence[object]) -> list[tuple[object, ...]]:
            return asyncio.run_coroutine_threadsafe(_execute(self, statement, parameters), loop).result()

        def execute_many(statement: str, rows: Iterable[Sequence[object]]) -> None:
            every = self.execute_many(statement, list(rows))
            asyncio.run_coroutine_threadsafe(_awaited(every), loop).result()

        return await asyncio.to_thread(work, Cursor(execute, self.check, execute_many))


async def _execute(
    tx: Transaction[Any, Any], statement: str, parameters: Sequence[object]
) -> list[tuple[object, ...]]:
    return await tx.execute(statement, parameters)


async def _awaited(work: Awaitable[None]) -> None:
    await work


class Cursor:
    """A transaction for plain functions: ``execute`` waits for the database and returns the rows."""

    def __init__(
        self,
        execute: Callable[[str, Sequence[object]], list[tuple[object, ...]]],
        check: Callable[[], None],
        execute_many: Callable[[str, Iterable[Sequence[object]]], None],
    ) -> None:
        self._execute = execute
        self._check = check
        self._execute_many = execute_many

    def execute(self, statement: str, parameters: Sequence[object] = ()) -> list[tuple[object, ...]]:
        """Run a statement; see `Transaction.execute`."""
        return self._execute(statement, parameters)

    def execute_many(self, statement: str, rows: Iterable[Sequence[object]]) -> None:
        """Run a statement for each row of parameters; see `Transaction.execute_many`."""
        self._execute_many(statement, rows)

    def check(self) -> None:
        """Check that the transaction can be committed; see `Transaction.check`."""
        self._check()


class EventStore(SideTables, ManagerReads, Generic[E, S]):
    """A store for the events of one aggregate type.

    Attributes:
        aggregate_type: whose events are written and read; None reads those of every type.
        has_sql: whether a transaction can run statements of the application.
        has_side_tables: whether there are checkpoints, parked events, leases and an outbox.
        one_writer: whether a transaction keeps all others from writing, however little they have in common.
        in_memory: whether what it has is in this OS process, and no other one sees it.
    """

    aggregate_type: str | None
    has_sql = False
    has_side_tables = True
    one_writer = False
    in_memory = False
    reopen: Callable[[], EventStore[Any, Any]] | None = None
    """Makes the same store again: how it travels to a fresh OS process. A class of one's own sets it."""

    def __reduce_ex__(self, protocol: SupportsIndex) -> str | tuple[Any, ...]:
        return (self.reopen, ()) if self.reopen is not None else super().__reduce_ex__(protocol)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        await self.close()

    def check_state(self, entity: S) -> None:
        """Check that an entity can be kept as a snapshot.

        Raises:
            EventStoreError: it cannot; says why.
        """

    @abc.abstractmethod
    async def start(self) -> None:
        """Connect and create what is missing in the database. Other calls do this themselves when needed."""

    @abc.abstractmethod
    async def close(self) -> None:
        """Close the connections. The store may be used again afterwards; it then opens new ones."""

    @abc.abstractmethod
    async def load(self, aggregate_id: str, *, use_snapshot: bool = True) -> Loaded[E, S]:
        """Return an aggregate's latest snapshot and the events after it, as of one moment.

        Raises:
            EventDecodeError: an event does not decode.
        """

    @abc.abstractmethod
    async def append(
        self,
        aggregate_id: str,
        events: Sequence[E],
        *,
        expected: int,
        metadata: Iterable[tuple[str, str]] = (),
        snapshot: Snapshot[S] | None = None,
        outbox: Iterable[OutboxMessage] = (),
        written: Sequence[Any] = (),
        command_id: str | None = None,
    ) -> list[EventEnvelope[E]]:
        """Write events in one transaction, with the snapshot and the messages that go with them.

        Args:
            aggregate_id: whose events.
            events: in order; none at all writes nothing and returns an empty list.
            expected: the aggregate's sequence before them, 0 for a new one.
            metadata: pairs of strings, kept with each of the events.
            snapshot: the aggregate's state after the events.
            outbox: messages to be sent after the commit.
            written: the events as they are sent, if the caller has made that already; for stores that send.
            command_id: of the command that causes the events; it is remembered with them.

        Returns:
            The envelopes, as they are stored.

        Raises:
            VersionConflict: the aggregate is at another sequence.
            CommandRepeated: events of a command with this id were committed before.
            EventEncodeError: an event is not of the store's type; nothing was written.
            StoreUnavailable: see its ``outcome_unknown``.
        """

    @abc.abstractmethod
    async def load_events(
        self, aggregate_id: str, start_from: int = 0, *, limit: int | None = None
    ) -> list[EventEnvelope[E]]:
        """Return an aggregate's events with sequence numbers greater than ``start_from``, in order."""

    async def last_sequence(self, aggregate_id: str) -> int:
        """Return the number of an aggregate's last event, 0 when it has none."""
        return (await self.load(aggregate_id)).sequence

    @abc.abstractmethod
    async def latest_snapshot(self, aggregate_id: str) -> Snapshot[S] | None:
        """Return an aggregate's snapshot.

        Raises:
            EventDecodeError: it does not decode.
        """

    @abc.abstractmethod
    async def read(
        self, after: int = 0, *, limit: int = BATCH, aggregate_id: str | None = None
    ) -> list[RecordedEvent[E]]:
        """Return up to ``limit`` events with positions greater than ``after``, in order of position.

        An empty list means that there are none now (or that the limit is 0). Fewer than ``limit``
        do not say so for sure.
        """

    async def read_page(self, after: int = 0, *, limit: int = BATCH) -> Page[E]:
        """As `read`, but not decoded yet: another page can be read meanwhile.

        Of large events it may have fewer, one at least, and then says so: where they take much memory.
        """
        events = await self.read(after, limit=limit)
        return Page(len(events), events[-1].position if events else after, lambda: events)

    async def scan(self, selection: Selection, after: int = 0, *, limit: int = BATCH) -> Scanned:
        """Look for events behind a position of which a selection is made.

        Returns:
            Up to ``limit`` of them, and how far was looked: a part of the log at a time.
        """
        events = await self.read(after, limit=limit)
        kept = [event for event in map(selection.kept, events) if event is not None]
        return Scanned(kept, events[-1].position if events else after, len(events) >= limit)

    @abc.abstractmethod
    async def last_position(self) -> int:
        """Return the highest position given so far, of any aggregate type; 0 in an empty store."""

    async def position_of(self, aggregate_id: str, sequence: int) -> int | None:
        """Return the position of an event, None if there is no such event (or not any more)."""
        after = 0
        while events := await self.read(after, aggregate_id=aggregate_id):
            for event in events:
                if event.sequence == sequence:
                    return event.position
            after = events[-1].position
        return None

    @abc.abstractmethod
    async def wait(self, after: int, *, timeout: float | None = None) -> bool:
        """Wait until there may be events behind a position.

        Returns:
            True when it is worth reading, False after ``timeout`` seconds. A True without new events is
            possible, a missed event is not.
        """

    @abc.abstractmethod
    def transaction(
        self, *, isolation: Isolation | None = None
    ) -> AbstractAsyncContextManager[Transaction[E, S]]:
        """Open a transaction; see :class:`Transaction`.

        Args:
            isolation: ``serializable`` or ``read committed``; by default as the store was made, which is
                ``serializable`` unless it says otherwise.
        """

    async def follow(self, after: int = 0, *, batch: int = BATCH) -> AsyncIterator[list[RecordedEvent[E]]]:
        """Yield the events behind a position in batches: first what is there, then what comes, for ever."""
        while True:
            events = await self.read(after, limit=batch)
            if events:
                after = events[-1].position
                yield events
            else:
                await self.wait(after)

    # --- side tables, each call in a transaction of its own, which holds up no command ----------------

    async def checkpoint(self, query: str) -> int:
        async with self.transaction(isolation="read committed") as tx:
            return await tx.checkpoint(query)

    async def checkpoints(self) -> list[Checkpoint]:
        async with self.transaction(isolation="read committed") as tx:
            return await tx.checkpoints()

    async def load_checkpoint(self, query: str) -> Checkpoint:
        async with self.transaction(isolation="read committed") as tx:
            return await tx.load_checkpoint(query)

    async def update_checkpoint(self, checkpoint: Checkpoint) -> None:
        async with self.transaction(isolation="read committed") as tx:
            await tx.update_checkpoint(checkpoint)

    async def save_checkpoint(self, query: str, position: int, *, expected: int | None = None) -> None:
        async with self.transaction(isolation="read committed") as tx:
            await tx.save_checkpoint(query, position, expected=expected)

    async def set_paused(self, query: str, paused: bool) -> None:
        async with self.transaction(isolation="read committed") as tx:
            await tx.set_paused(query, paused)

    async def park(self, event: ParkedEvent) -> None:
        async with self.transaction(isolation="read committed") as tx:
            await tx.park(event)

    async def parked(
        self, query: str | None = None, *, aggregate_id: str | None = None, limit: int | None = None
    ) -> list[ParkedEvent]:
        async with self.transaction(isolation="read committed") as tx:
            return await tx.parked(query, aggregate_id=aggregate_id, limit=limit)

    async def unpark(self, id: int) -> bool:
        async with self.transaction(isolation="read committed") as tx:
            return await tx.unpark(id)

    async def find_command(self, id: str) -> CommandRecord | None:
        async with self.transaction(isolation="read committed") as tx:
            return await tx.find_command(id)

    async def take_lease(self, name: str, owner: str, seconds: float) -> bool:
        async with self.transaction(isolation="read committed") as tx:
            return await tx.take_lease(name, owner, seconds)

    async def end_lease(self, name: str, owner: str) -> None:
        async with self.transaction(isolation="read committed") as tx:
            await tx.end_lease(name, owner)

    async def lease_owner(self, name: str) -> str | None:
        async with self.transaction(isolation="read committed") as tx:
            return await tx.lease_owner(name)

    async def put_outbox(self, messages: Iterable[OutboxMessage]) -> None:
        async with self.transaction(isolation="read committed") as tx:
            await tx.put_outbox(messages)

    async def take_outbox(self, topic: str, *, limit: int = 100, lease_s: float = 30.0) -> list[OutboxEntry]:
        async with self.transaction(isolation="read committed") as tx:
            return await tx.take_outbox(topic, limit=limit, lease_s=lease_s)

    async def finish_outbox(self, ids: Sequence[int]) -> None:
        async with self.transaction(isolation="read committed") as tx:
            await tx.finish_outbox(ids)

    async def fail_outbox(self, ids: Sequence[int], error: str, *, retry_after_s: float = 0.0) -> None:
        async with self.transaction(isolation="read committed") as tx:
            await tx.fail_outbox(ids, error, retry_after_s=retry_after_s)

    async def outbox_size(self, topic: str | None = None) -> int:
        async with self.transaction(isolation="read committed") as tx:
            return await tx.outbox_size(topic)

    # --- process managers -----------------------------------------------------------------------------

    async def clock(self) -> float:
        async with self.transaction(isolation="read committed") as tx:
            return await tx.clock()

    async def manager_state(self, manager: str, instance: str) -> str | None:
        async with self.transaction(isolation="read committed") as tx:
            return await tx.manager_state(manager, instance)

    async def issued_commands(
        self, manager: str, *, after: int = 0, limit: int = PAGE, status: Status | None = None
    ) -> list[IssuedCommand]:
        async with self.transaction(isolation="read committed") as tx:
            return await tx.issued_commands(manager, after=after, limit=limit, status=status)

    async def refusals(self, manager: str, *, limit: int = PAGE) -> list[IssuedCommand]:
        async with self.transaction(isolation="read committed") as tx:
            return await tx.refusals(manager, limit=limit)

    async def due_timers(self, manager: str, *, limit: int = PAGE) -> list[Timer]:
        async with self.transaction(isolation="read committed") as tx:
            return await tx.due_timers(manager, limit=limit)

    async def timers(self, manager: str, *, instance: str | None = None, limit: int = PAGE) -> list[Timer]:
        async with self.transaction(isolation="read committed") as tx:
            return await tx.timers(manager, instance=instance, limit=limit)

    async def outlook(self, manager: str) -> Outlook:
        async with self.transaction(isolation="read committed") as tx:
            return await tx.outlook(manager)
