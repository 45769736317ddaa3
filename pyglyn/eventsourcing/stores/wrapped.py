"""A store around another one: passes every call on. What stands on it overrides what it does differently.

Nothing falls back on a default of the interface: each store has its own, cheaper way (SQLite's readers take
no write lock, for example). Layer: eventsourcing, stores.
"""

from __future__ import annotations

import abc
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypeVar

import attrs

from pyglyn.eventsourcing.domain.envelope import EventEnvelope
from pyglyn.eventsourcing.domain.snapshot import Snapshot
from pyglyn.eventsourcing.stores.managing import PAGE, IssuedCommand, ManagerReads, Outlook, Status, Timer
from pyglyn.eventsourcing.stores.selection import Scanned, Selection
from pyglyn.eventsourcing.stores.store import (
    BATCH,
    Checkpoint,
    CommandRecord,
    Cursor,
    EventStore,
    Isolation,
    Loaded,
    OutboxEntry,
    OutboxMessage,
    Page,
    ParkedEvent,
    RecordedEvent,
    SideTables,
    Transaction,
)

E = TypeVar("E")
S = TypeVar("S")
T = TypeVar("T")


def unwrapped(store: Any) -> Any:
    """Return the store that one stands on which only tells others what is committed; itself if it is none."""
    while isinstance(store, WrappedStore) and store.only_tells:
        store = store.underlying
    return store


class WrappedSideTables(SideTables):
    """Checkpoints, parked events and the outbox of what is inside."""

    @property
    @abc.abstractmethod
    def inside(self) -> SideTables:
        """What calls are passed on to."""

    async def checkpoint(self, query: str) -> int:
        return await self.inside.checkpoint(query)

    async def checkpoints(self) -> list[Checkpoint]:
        return await self.inside.checkpoints()

    async def load_checkpoint(self, query: str) -> Checkpoint:
        return await self.inside.load_checkpoint(query)

    async def update_checkpoint(self, checkpoint: Checkpoint) -> None:
        await self.inside.update_checkpoint(checkpoint)

    async def save_checkpoint(self, query: str, position: int, *, expected: int | None = None) -> None:
        await self.inside.save_checkpoint(query, position, expected=expected)

    async def set_paused(self, query: str, paused: bool) -> None:
        await self.inside.set_paused(query, paused)

    async def park(self, event: ParkedEvent) -> None:
        await self.inside.park(event)

    async def parked(
        self, query: str | None = None, *, aggregate_id: str | None = None, limit: int | None = None
    ) -> list[ParkedEvent]:
        return await self.inside.parked(query, aggregate_id=aggregate_id, limit=limit)

    async def count_parked(self, query: str, *, aggregate_id: str | None = None) -> int:
        return await self.inside.count_parked(query, aggregate_id=aggregate_id)

    async def parked_aggregates(self, query: str) -> set[str]:
        return await self.inside.parked_aggregates(query)

    async def unpark(self, id: int) -> bool:
        return await self.inside.unpark(id)

    async def find_command(self, id: str) -> CommandRecord | None:
        return await self.inside.find_command(id)

    async def take_lease(self, name: str, owner: str, seconds: float) -> bool:
        return await self.inside.take_lease(name, owner, seconds)

    async def end_lease(self, name: str, owner: str) -> None:
        await self.inside.end_lease(name, owner)

    async def lease_owner(self, name: str) -> str | None:
        return await self.inside.lease_owner(name)

    async def put_outbox(self, messages: Iterable[OutboxMessage]) -> None:
        await self.inside.put_outbox(messages)

    async def take_outbox(self, topic: str, *, limit: int = 100, lease_s: float = 30.0) -> list[OutboxEntry]:
        return await self.inside.take_outbox(topic, limit=limit, lease_s=lease_s)

    async def finish_outbox(self, ids: Sequence[int]) -> None:
        await self.inside.finish_outbox(ids)

    async def fail_outbox(self, ids: Sequence[int], error: str, *, retry_after_s: float = 0.0) -> None:
        await self.inside.fail_outbox(ids, error, retry_after_s=retry_after_s)

    async def outbox_size(self, topic: str | None = None) -> int:
        return await self.inside.outbox_size(topic)


class _WrappedManagerReads(ManagerReads):
    """What managers read of what is inside."""

    underlying: ManagerReads

    async def clock(self) -> float:
        return await self.underlying.clock()

    async def manager_state(self, manager: str, instance: str) -> str | None:
        return await self.underlying.manager_state(manager, instance)

    async def manager_states(self, manager: str, instances: Collection[str]) -> dict[str, str]:
        return await self.underlying.manager_states(manager, instances)

    async def issued_commands(
        self, manager: str, *, after: int = 0, limit: int = PAGE, status: Status | None = None
    ) -> list[IssuedCommand]:
        return await self.underlying.issued_commands(manager, after=after, limit=limit, status=status)

    async def refusals(self, manager: str, *, limit: int = PAGE) -> list[IssuedCommand]:
        return await self.underlying.refusals(manager, limit=limit)

    async def due_timers(self, manager: str, *, limit: int = PAGE) -> list[Timer]:
        return await self.underlying.due_timers(manager, limit=limit)

    async def timers(self, manager: str, *, instance: str | None = None, limit: int = PAGE) -> list[Timer]:
        return await self.underlying.timers(manager, instance=instance, limit=limit)

    async def outlook(self, manager: str) -> Outlook:
        return await self.underlying.outlook(manager)


class WrappedTransaction(_WrappedManagerReads, WrappedSideTables, Transaction[E, S]):
    """A transaction around one of the store inside."""

    underlying: Transaction[E, S]

    def __init__(self, underlying: Transaction[E, S]) -> None:
        self.underlying = underlying

    @property
    def inside(self) -> SideTables:
        return self.underlying

    async def load(self, aggregate_id: str, *, use_snapshot: bool = True) -> Loaded[E, S]:
        return await self.underlying.load(aggregate_id, use_snapshot=use_snapshot)

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
        return await self.underlying.append(
            aggregate_id,
            events,
            expected=expected,
            metadata=metadata,
            snapshot=snapshot,
            outbox=outbox,
            written=written,
            command_id=command_id,
        )

    async def remember_refusal(self, command_id: str, aggregate_id: str, sequence: int) -> None:
        await self.underlying.remember_refusal(command_id, aggregate_id, sequence)

    async def call(self, work: Callable[[Cursor], T]) -> T:
        return await self.underlying.call(work)

    async def require(self, aggregate_id: str, sequence: int) -> None:
        await self.underlying.require(aggregate_id, sequence)

    async def drop_snapshot(self, aggregate_id: str) -> None:
        await self.underlying.drop_snapshot(aggregate_id)

    def check(self) -> None:
        self.underlying.check()

    def put_off(self) -> None:
        self.underlying.put_off()

    async def run_put_off(self) -> None:
        await self.underlying.run_put_off()

    async def execute(self, statement: str, parameters: Sequence[object] = ()) -> list[tuple[object, ...]]:
        return await self.underlying.execute(statement, parameters)

    async def execute_many(self, statement: str, rows: Iterable[Sequence[object]]) -> None:
        await self.underlying.execute_many(statement, rows)

    async def save_manager_state(self, manager: str, instance: str, state: str | None) -> None:
        await self.underlying.save_manager_state(manager, instance, state)

    async def forget_instances(self, instance: str, mark: str) -> None:
        await self.underlying.forget_instances(instance, mark)

    async def save_manager_states(self, manager: str, states: Mapping[str, str]) -> None:
        await self.underlying.save_manager_states(manager, states)

    async def issue_command(self, command: IssuedCommand) -> None:
        await self.underlying.issue_command(command)

    async def issue_commands(self, commands: Sequence[IssuedCommand]) -> None:
        await self.underlying.issue_commands(commands)

    async def mark_command(self, id: int, status: Status, *, attempts: int, error: str) -> bool:
        return await self.underlying.mark_command(id, status, attempts=attempts, error=error)

    async def finish_command(self, id: int) -> bool:
        return await self.underlying.finish_command(id)

    async def set_timer(self, timer: Timer) -> None:
        await self.underlying.set_timer(timer)

    async def cancel_timer(self, manager: str, instance: str, name: str) -> bool:
        return await self.underlying.cancel_timer(manager, instance, name)

    async def mark_timer(self, id: int, *, attempts: int, error: str) -> bool:
        return await self.underlying.mark_timer(id, attempts=attempts, error=error)

    async def finish_timer(self, id: int) -> bool:
        return await self.underlying.finish_timer(id)


class WrappedStore(_WrappedManagerReads, WrappedSideTables, EventStore[E, S]):
    """A store around another one.

    Attributes:
        only_tells: it writes and reads what the other one does, and tells somebody: who does not write events
            may use the other one.
    """

    only_tells = True

    underlying: EventStore[E, S]

    def __init__(self, underlying: EventStore[E, S]) -> None:
        self.underlying = underlying
        self.aggregate_type = underlying.aggregate_type
        self.has_sql = underlying.has_sql
        self.has_side_tables = underlying.has_side_tables
        self.one_writer = underlying.one_writer
        self.in_memory = underlying.in_memory

    @property
    def inside(self) -> SideTables:
        return self.underlying

    def check_state(self, entity: S) -> None:
        self.underlying.check_state(entity)

    async def start(self) -> None:
        await self.underlying.start()

    async def close(self) -> None:
        await self.underlying.close()

    async def load(self, aggregate_id: str, *, use_snapshot: bool = True) -> Loaded[E, S]:
        return await self.underlying.load(aggregate_id, use_snapshot=use_snapshot)

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
        return await self.underlying.append(
            aggregate_id,
            events,
            expected=expected,
            metadata=metadata,
            snapshot=snapshot,
            outbox=outbox,
            written=written,
            command_id=command_id,
        )

    async def load_events(
        self, aggregate_id: str, start_from: int = 0, *, limit: int | None = None
    ) -> list[EventEnvelope[E]]:
        return await self.underlying.load_events(aggregate_id, start_from, limit=limit)

    async def last_sequence(self, aggregate_id: str) -> int:
        return await self.underlying.last_sequence(aggregate_id)

    async def latest_snapshot(self, aggregate_id: str) -> Snapshot[S] | None:
        return await self.underlying.latest_snapshot(aggregate_id)

    async def read(
        self, after: int = 0, *, limit: int = BATCH, aggregate_id: str | None = None
    ) -> list[RecordedEvent[E]]:
        return await self.underlying.read(after, limit=limit, aggregate_id=aggregate_id)

    async def read_page(self, after: int = 0, *, limit: int = BATCH) -> Page[E]:
        page = await self.underlying.read_page(after, limit=limit)
        return attrs.evolve(page, behind=None)  # which would go past a wrapper's own `read_page`

    async def scan(self, selection: Selection, after: int = 0, *, limit: int = BATCH) -> Scanned:
        return await self.underlying.scan(selection, after, limit=limit)

    async def last_position(self) -> int:
        return await self.underlying.last_position()

    async def position_of(self, aggregate_id: str, sequence: int) -> int | None:
        return await self.underlying.position_of(aggregate_id, sequence)

    async def wait(self, after: int, *, timeout: float | None = None) -> bool:
        return await self.underlying.wait(after, timeout=timeout)

    def follow(self, after: int = 0, *, batch: int = BATCH) -> AsyncIterator[list[RecordedEvent[E]]]:
        return self.underlying.follow(after, batch=batch)

    def wrap(self, transaction: Transaction[E, S]) -> WrappedTransaction[E, S]:
        """Make the transaction that the application gets."""
        return WrappedTransaction(transaction)

    async def after_commit(self, transaction: WrappedTransaction[E, S]) -> None:
        """Do what is to be done once a transaction is committed."""

    def transaction(
        self, *, isolation: Isolation | None = None
    ) -> AbstractAsyncContextManager[Transaction[E, S]]:
        return self._transaction(isolation)

    @asynccontextmanager
    async def _transaction(self, isolation: Isolation | None) -> AsyncIterator[Transaction[E, S]]:
        async with self.underlying.transaction(isolation=isolation) as inside:
            transaction = self.wrap(inside)
            yield transaction
        await self.after_commit(transaction)
