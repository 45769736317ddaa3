"""The memory store: events as objects in lists. For development, tests, and state that may be lost.

Its envelopes are ``MemoryStoreEventEnvelop``, as those of the Gleam library's memory store. It belongs to
the OS process and the event loop that use it. Nothing is copied or kept encoded: events are expected to be
immutable. What no database could store is refused all the same, and with a codec also what is not of its
types, so that what works here works there.

A transaction holds the store's lock; readers outside of it see what was committed before.

Differences from the Gleam store: the expected sequence is checked, and there are positions and side tables.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Any, TypeVar

import attrs

from pyglyn.errors import CheckpointConflict, CommandRepeated, EventStoreError, VersionConflict
from pyglyn.eventsourcing.domain.envelope import EventEnvelope, MemoryStoreEventEnvelop, metadata_pairs
from pyglyn.eventsourcing.domain.evolution import Several
from pyglyn.eventsourcing.domain.snapshot import Snapshot
from pyglyn.eventsourcing.stores.memory_managing import ManagerRows, MemoryManagerTables
from pyglyn.eventsourcing.stores.rows import RowCodec, shown_text, storable_number, storable_text
from pyglyn.eventsourcing.stores.store import (
    BATCH,
    Checkpoint,
    CommandRecord,
    EventStore,
    Isolation,
    Loaded,
    OutboxEntry,
    OutboxMessage,
    ParkedEvent,
    RecordedEvent,
    Transaction,
)

E = TypeVar("E")
S = TypeVar("S")


def refuse_memory_elsewhere(whose: str, store: object, options: Mapping[str, Any]) -> None:
    """Refuse a memory store for a child that is to be an OS process of its own.

    Args:
        whose: begins the text of the error.
        store: what it is to have: a store, facts, or something that is in no OS process at all.
        options: of the child's specification.

    Raises:
        EventStoreError: another OS process would not see what is in memory.
    """
    if getattr(store, "in_memory", False) and options.get("isolation", "process") == "process":
        raise EventStoreError(f"{whose}: a memory store belongs to one OS process")


class MemoryStore(EventStore[E, S]):
    """Events of one aggregate type in memory."""

    in_memory = True

    def __init__(self, aggregate_type: str | None = None, codec: RowCodec[E, S] | None = None) -> None:
        """Make an empty store.

        Args:
            aggregate_type: whose events; it is in no envelope.
            codec: checks events and snapshots; None takes any objects.
        """
        self.aggregate_type = aggregate_type
        self.codec = codec
        if type(self).__init__ is MemoryStore.__init__:
            self.reopen = partial(type(self), aggregate_type, codec)
        self._streams: dict[str, list[MemoryStoreEventEnvelop[E]]] = {}
        self._positions: dict[str, list[int]] = {}  # of the events of each stream
        self._log: list[RecordedEvent[E]] = []  # position n is at index n - 1
        self._snapshots: dict[str, Snapshot[S]] = {}
        self._checkpoints: dict[str, Checkpoint] = {}
        self._parked: dict[int, ParkedEvent] = {}
        self._leases: dict[str, tuple[str, float]] = {}  # whose, until when
        self._outbox: dict[int, tuple[OutboxEntry, float]] = {}  # entry, and when it may be taken
        self._commands: dict[str, CommandRecord] = {}
        self._managing = ManagerRows()
        self._last_id = 0
        self._lock = asyncio.Lock()
        self._open: _MemoryTransaction[E, S] | None = None  # the one that holds the lock
        self._owner: asyncio.Task[object] | None = None  # whose it is
        self._grown = asyncio.Event()

    def check_state(self, entity: S) -> None:
        if self.codec is not None:
            self.codec.check_state(entity)

    async def start(self) -> None:
        """Do nothing: there is nothing to connect to."""

    async def close(self) -> None:
        """Do nothing: the events stay, as they would in a database."""

    async def load(self, aggregate_id: str, *, use_snapshot: bool = True) -> Loaded[E, S]:
        snapshot = self._snapshot(_key(aggregate_id)) if use_snapshot else None
        after = snapshot.sequence if snapshot is not None else 0
        return Loaded(snapshot, list(self._stream(aggregate_id)[after:]))

    def _stream(self, aggregate_id: str) -> list[MemoryStoreEventEnvelop[E]]:
        """The committed events of an aggregate."""
        stream = self._streams.get(aggregate_id, [])
        new = self._open.appended.get(aggregate_id, 0) if self._open is not None else 0
        return stream[: len(stream) - new] if new else stream

    def _snapshot(self, aggregate_id: str) -> Snapshot[S] | None:
        """The committed snapshot of an aggregate."""
        if self._open is not None and aggregate_id in self._open.replaced:
            return self._open.replaced[aggregate_id]
        return self._snapshots.get(aggregate_id)

    def _end(self) -> int:
        """How many events are committed."""
        return len(self._log) - (sum(self._open.appended.values()) if self._open is not None else 0)

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
        await asyncio.sleep(0)  # like every other store: a loop of commands does not shut others out
        self._refuse_owner()
        async with self._lock:
            tx = _MemoryTransaction(self)
            try:
                return await tx.append(
                    aggregate_id,
                    events,
                    expected=expected,
                    metadata=metadata,
                    snapshot=snapshot,
                    outbox=outbox,
                    command_id=command_id,
                )
            except BaseException:
                tx.roll_back()
                raise
            finally:
                self._wake()

    async def load_events(
        self, aggregate_id: str, start_from: int = 0, *, limit: int | None = None
    ) -> list[EventEnvelope[E]]:
        stream = self._stream(_key(aggregate_id))
        start = max(storable_number(start_from, "sequence"), 0)
        return list(stream[start : None if limit is None else start + max(limit, 0)])

    async def last_sequence(self, aggregate_id: str) -> int:
        return len(self._stream(_key(aggregate_id)))

    async def latest_snapshot(self, aggregate_id: str) -> Snapshot[S] | None:
        return self._snapshot(_key(aggregate_id))

    async def read(
        self, after: int = 0, *, limit: int = BATCH, aggregate_id: str | None = None
    ) -> list[RecordedEvent[E]]:
        start, end, limit = max(storable_number(after, "position"), 0), self._end(), max(limit, 0)
        if aggregate_id is None:
            return self._log[start : min(start + limit, end)]
        _key(aggregate_id)
        found: list[RecordedEvent[E]] = []
        for event in self._log[start:end]:
            if len(found) >= limit:
                break
            if event.aggregate_id == aggregate_id:
                found.append(event)
        return found

    async def last_position(self) -> int:
        return self._end()

    async def position_of(self, aggregate_id: str, sequence: int) -> int | None:
        if not 0 < storable_number(sequence, "sequence") <= len(self._stream(_key(aggregate_id))):
            return None
        return self._positions[aggregate_id][sequence - 1]

    async def wait(self, after: int, *, timeout: float | None = None) -> bool:
        if self._end() > storable_number(after, "position"):
            return True
        try:
            async with asyncio.timeout(timeout):
                while self._end() <= after:
                    await self._grown.wait()
        except TimeoutError:
            return False
        return True

    def transaction(
        self, *, isolation: Isolation | None = None
    ) -> AbstractAsyncContextManager[Transaction[E, S]]:
        return self._transaction()

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[Transaction[E, S]]:
        self._refuse_owner()
        async with self._lock:
            self._open = tx = _MemoryTransaction(self)
            self._owner = asyncio.current_task()
            try:
                yield tx
            except BaseException:
                tx.roll_back()
                raise
            finally:
                tx.ended = True
                self._open = self._owner = None
                self._wake()

    async def erase(self, aggregate_id: str) -> None:
        """Put nothing in place of what an aggregate's events hold."""
        self._refuse_owner()
        async with self._lock:
            stream = self._streams.get(_key(aggregate_id), [])
            for index, position in enumerate(self._positions.get(aggregate_id, [])):
                empty: Any = Several(())
                envelope = stream[index] = attrs.evolve(stream[index], payload=empty)
                self._log[position - 1] = attrs.evolve(self._log[position - 1], envelope=envelope, raw="")

    def _refuse_owner(self) -> None:
        """Refuse the task that has a transaction open: it would wait for itself."""
        if self._owner is not None and self._owner is asyncio.current_task():
            raise EventStoreError(
                "a transaction of this store is open in this task: use its methods instead of the store's"
            )

    def _wake(self) -> None:
        self._grown.set()
        self._grown = asyncio.Event()

    def _next_id(self) -> int:
        self._last_id += 1
        return self._last_id


class _MemoryTransaction(MemoryManagerTables, Transaction[E, S]):
    """Changes the store at once and keeps a list of how to undo it.

    Attributes:
        appended: how many events of which aggregate.
        replaced: the snapshots that were there before.
    """

    def __init__(self, store: MemoryStore[E, S]) -> None:
        self._memory = store
        self._undo: list[Callable[[], object]] = []
        self.appended: dict[str, int] = {}
        self.replaced: dict[str, Snapshot[S] | None] = {}
        self.ended = False

    @property
    def _store(self) -> MemoryStore[E, S]:
        if self.ended:
            raise EventStoreError("the transaction has ended")
        return self._memory

    def roll_back(self) -> None:
        while self._undo:
            self._undo.pop()()

    async def load(self, aggregate_id: str, *, use_snapshot: bool = True) -> Loaded[E, S]:
        snapshot = self._store._snapshots.get(_key(aggregate_id)) if use_snapshot else None
        after = snapshot.sequence if snapshot is not None else 0
        return Loaded(snapshot, list(self._store._streams.get(aggregate_id, ())[after:]))

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
        store = self._store
        if not events:
            return []
        stream = store._streams.get(_key(aggregate_id), [])
        pairs = metadata_pairs(metadata)
        for key, value in pairs:
            storable_text(key + value, "metadata", nul=True)
        if store.codec is not None:
            store.codec.check(events, snapshot)
        if len(stream) != storable_number(expected, "sequence"):
            raise VersionConflict(aggregate_id, expected, len(stream))
        if command_id is not None and await self.find_command(command_id) is not None:
            raise CommandRepeated(command_id)
        now = time.time()
        appended: list[EventEnvelope[E]] = []
        for sequence, event in enumerate(events, expected + 1):
            envelope = MemoryStoreEventEnvelop(aggregate_id, sequence, event, list(pairs))
            stream.append(envelope)
            appended.append(envelope)
            store._log.append(
                RecordedEvent(
                    position=len(store._log) + 1,
                    aggregate_id=aggregate_id,
                    sequence=sequence,
                    envelope=envelope,
                    recorded_at=now,
                )
            )
        store._streams[aggregate_id] = stream
        last = len(store._log)
        store._positions.setdefault(aggregate_id, []).extend(range(last - len(appended) + 1, last + 1))
        self._undo.append(lambda: self._forget_events(aggregate_id, len(appended)))
        self.appended[aggregate_id] = self.appended.get(aggregate_id, 0) + len(appended)
        if snapshot is not None:
            self.replaced.setdefault(aggregate_id, store._snapshots.get(aggregate_id))
            self._set(store._snapshots, aggregate_id, snapshot)
        await self.put_outbox(outbox)
        if command_id is not None:
            record = CommandRecord(command_id, aggregate_id, expected + len(appended), len(appended))
            self._set(store._commands, command_id, record)
        return appended

    async def remember_refusal(self, command_id: str, aggregate_id: str, sequence: int) -> None:
        if await self.find_command(command_id) is not None:
            raise CommandRepeated(command_id)
        record = CommandRecord(command_id, _key(aggregate_id), storable_number(sequence, "sequence"), 0)
        self._set(self._store._commands, command_id, record)

    async def drop_snapshot(self, aggregate_id: str) -> None:
        self.replaced.setdefault(aggregate_id, self._store._snapshots.get(_key(aggregate_id)))
        self._delete(self._store._snapshots, aggregate_id)

    async def require(self, aggregate_id: str, sequence: int) -> None:
        found = len(self._store._streams.get(_key(aggregate_id), ()))
        if found != sequence:
            raise VersionConflict(aggregate_id, sequence, found)

    def _forget_events(self, aggregate_id: str, count: int) -> None:
        del self._store._streams[aggregate_id][-count:]
        del self._store._positions[aggregate_id][-count:]
        del self._store._log[-count:]
        self.appended[aggregate_id] -= count

    def _set(self, table: dict[_K, _V], key: _K, value: _V) -> None:
        if key in table:
            before = table[key]
            self._undo.append(lambda: table.__setitem__(key, before))
        else:
            self._undo.append(lambda: table.pop(key, None))
        table[key] = value

    def _delete(self, table: dict[_K, _V], key: _K) -> bool:
        if key not in table:
            return False
        value = table.pop(key)
        self._undo.append(lambda: table.__setitem__(key, value))
        return True

    @property
    def _managing(self) -> ManagerRows:
        return self._store._managing

    def _new_id(self) -> int:
        return self._store._next_id()

    def _is_blocked(self, manager: str, instance: str) -> bool:
        key = (manager, instance)
        return any((each.query, each.aggregate_id) == key for each in self._store._parked.values())

    async def execute(self, statement: str, parameters: Sequence[object] = ()) -> list[tuple[object, ...]]:
        raise EventStoreError("the memory store has no SQL")

    async def checkpoint(self, query: str) -> int:
        return (await self.load_checkpoint(query)).position

    async def checkpoints(self) -> list[Checkpoint]:
        return [self._store._checkpoints[query] for query in sorted(self._store._checkpoints)]

    async def load_checkpoint(self, query: str) -> Checkpoint:
        return self._store._checkpoints.get(storable_text(query, "query name"), Checkpoint(query))

    async def update_checkpoint(self, checkpoint: Checkpoint) -> None:
        query, stored = checkpoint.query, await self.load_checkpoint(checkpoint.query)
        storable_number(checkpoint.position, "position")
        if stored.version != checkpoint.version - 1:
            raise CheckpointConflict(query, checkpoint.version - 1, stored.version, what="version")
        self._set(self._store._checkpoints, query, attrs.evolve(checkpoint, updated_at=time.time()))

    async def save_checkpoint(self, query: str, position: int, *, expected: int | None = None) -> None:
        found = await self.load_checkpoint(query)
        if expected is not None and found.position != expected:
            raise CheckpointConflict(query, expected, found.position)
        await self.update_checkpoint(found.next(position=position, mark="", replay=None))

    async def set_paused(self, query: str, paused: bool) -> None:
        await self.update_checkpoint((await self.load_checkpoint(query)).next(paused=paused))

    async def park(self, event: ParkedEvent) -> None:
        storable_text(event.query, "query name")
        storable_number(event.sequence, "sequence")
        event = attrs.evolve(
            event,
            aggregate_type=shown_text(event.aggregate_type),
            aggregate_id=shown_text(event.aggregate_id),
            error=shown_text(event.error),
        )
        for parked in self._store._parked.values():
            if _same_event(parked, event):
                assert parked.id is not None
                changed = attrs.evolve(parked, error=event.error, attempts=event.attempts)
                self._set(self._store._parked, parked.id, changed)
                return
        id = self._store._next_id()
        self._set(self._store._parked, id, attrs.evolve(event, id=id))

    async def parked(
        self, query: str | None = None, *, aggregate_id: str | None = None, limit: int | None = None
    ) -> list[ParkedEvent]:
        found = [
            event
            for _, event in sorted(self._store._parked.items())
            if query in (None, event.query) and aggregate_id in (None, event.aggregate_id)
        ]
        return found[:limit]

    async def unpark(self, id: int) -> bool:
        return self._delete(self._store._parked, id)

    async def find_command(self, id: str) -> CommandRecord | None:
        return self._store._commands.get(storable_text(id, "command id"))

    async def take_lease(self, name: str, owner: str, seconds: float) -> bool:
        holder, until = self._store._leases.get(name, (owner, 0.0))
        now = time.monotonic()
        if holder != owner and now < until:
            return False
        self._set(self._store._leases, name, (owner, now + seconds))
        return True

    async def end_lease(self, name: str, owner: str) -> None:
        if self._store._leases.get(name, ("", 0.0))[0] == owner:
            self._delete(self._store._leases, name)

    async def lease_owner(self, name: str) -> str | None:
        owner, _ = self._store._leases.get(name, (None, 0.0))
        return owner

    async def put_outbox(self, messages: Iterable[OutboxMessage]) -> None:
        for message in messages:
            storable_text(message.topic, "topic")
            storable_text(message.body, "message body")
            id = self._store._next_id()
            entry = OutboxEntry(
                id=id, topic=message.topic, body=message.body, attempts=0, created_at=time.time()
            )
            self._set(self._store._outbox, id, (entry, 0.0))

    async def take_outbox(self, topic: str, *, limit: int = 100, lease_s: float = 30.0) -> list[OutboxEntry]:
        now = time.time()
        taken: list[OutboxEntry] = []
        for id, (entry, available_at) in list(self._store._outbox.items()):
            if len(taken) >= limit:
                break
            if entry.topic == topic and available_at <= now:
                self._set(self._store._outbox, id, (entry, now + lease_s))
                taken.append(entry)
        return taken

    async def finish_outbox(self, ids: Sequence[int]) -> None:
        for id in ids:
            self._delete(self._store._outbox, id)

    async def fail_outbox(self, ids: Sequence[int], error: str, *, retry_after_s: float = 0.0) -> None:
        for id in ids:
            if id in self._store._outbox:
                entry, _ = self._store._outbox[id]
                again = attrs.evolve(entry, attempts=entry.attempts + 1)
                self._set(self._store._outbox, id, (again, time.time() + retry_after_s))

    async def outbox_size(self, topic: str | None = None) -> int:
        return sum(topic in (None, entry.topic) for entry, _ in self._store._outbox.values())


_K = TypeVar("_K")
_V = TypeVar("_V")


def _key(aggregate_id: str) -> str:
    return storable_text(aggregate_id, "aggregate id")


def _same_event(one: ParkedEvent, other: ParkedEvent) -> bool:
    return (one.query, one.aggregate_type, one.aggregate_id, one.sequence) == (
        other.query,
        other.aggregate_type,
        other.aggregate_id,
        other.sequence,
    )
