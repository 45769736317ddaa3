"""Any recorder of the Python ``eventsourcing`` package as a store: its databases become ours. An extra.

::

    factory = InfrastructureFactory.construct(Environment("bank", {
        "PERSISTENCE_MODULE": "eventsourcing.sqlite", "SQLITE_DBNAME": "bank.db", "ORIGINATOR_ID_TYPE":
        "text"}))
    codec = es.RowCodec(aggregate_type="BankAccount", events=BankAccountEvent, state=BankAccount)
    store = RecorderStore(factory.application_recorder(), codec, factory.aggregate_recorder("snapshots"))

How things are mapped: the originator id is ``<aggregate_type>:<aggregate_id>`` (so the recorder has to take
text ids), its version the sequence, the topic ``<event_type>:<event_version>``, the state the metadata as
JSON, a line feed, and the payload as JSON. A colon in the aggregate type or the event version is written
``%3A``, a percent sign ``%25``. The position is the notification id. Recorders block, so they run in one
thread.

Not supported here: side tables and transactions (recorders have none that fit), and a snapshot in the same
transaction as its events: it is written just after them, and if that fails it is only a lost short cut. The
table is not the Gleam stores' one.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from pyglyn.errors import EventStoreError, StoreUnavailable, VersionConflict
from pyglyn.eventsourcing.domain.envelope import EventEnvelope
from pyglyn.eventsourcing.domain.snapshot import Snapshot
from pyglyn.eventsourcing.stores.rows import EventRow, PositionedRow, RowCodec, SnapshotRow, logger
from pyglyn.eventsourcing.stores.sql import read_keys
from pyglyn.eventsourcing.stores.store import (
    BATCH,
    EventStore,
    Isolation,
    Loaded,
    OutboxMessage,
    RecordedEvent,
    Transaction,
)

if TYPE_CHECKING:
    from eventsourcing.persistence import AggregateRecorder, ApplicationRecorder, StoredEvent

E = TypeVar("E")
S = TypeVar("S")
T = TypeVar("T")

_FIRST_PAUSE_S = 0.01
_LONGEST_PAUSE_S = 0.5


class RecorderStore(EventStore[E, S]):
    """Events of one aggregate type behind an application recorder."""

    has_side_tables = False

    def __init__(
        self,
        recorder: ApplicationRecorder,
        codec: RowCodec[E, S],
        snapshots: AggregateRecorder | None = None,
    ) -> None:
        """Wrap a recorder.

        Args:
            recorder: for the events; the caller creates its tables and closes it.
            codec: writes and reads payloads.
            snapshots: for snapshots; without it they are not kept.
        """
        self.aggregate_type = codec.aggregate_type
        self.in_memory = any(each.__module__ == "eventsourcing.popo" for each in type(recorder).__mro__)
        self._recorder = recorder
        self._snapshots = snapshots
        self._codec = codec
        self._thread: tuple[int, ThreadPoolExecutor] | None = None
        self._grown = asyncio.Event()

    def check_state(self, entity: S) -> None:
        self._codec.check_state(entity)

    async def start(self) -> None:
        """Do nothing: the recorder belongs to the caller."""

    async def close(self) -> None:
        """Stop the thread; the recorder stays open."""
        if self._thread is not None and self._thread[0] == os.getpid():
            self._thread[1].shutdown(wait=False)
        self._thread = None

    async def _run(self, operation: Callable[[], T], *, writing: bool = False) -> T:
        if self._thread is None or self._thread[0] != os.getpid():
            self._thread = (os.getpid(), ThreadPoolExecutor(1, thread_name_prefix="pyglyn-recorder"))
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread[1], operation)
        except EventStoreError:
            raise
        except Exception as error:
            raise _translate(error, writing=writing) from error

    def _originator(self, aggregate_id: str) -> str:
        return _originator(*self._codec.key(aggregate_id))

    # --- aggregates ----------------------------------------------------------------------------------

    async def load(self, aggregate_id: str, *, use_snapshot: bool = True) -> Loaded[E, S]:
        snapshot = (
            self._codec.usable_snapshot(await self._snapshot_row(aggregate_id)) if use_snapshot else None
        )
        after = snapshot.sequence if snapshot is not None else 0
        return Loaded(snapshot, await self.load_events(aggregate_id, after))

    async def load_events(
        self, aggregate_id: str, start_from: int = 0, *, limit: int | None = None
    ) -> list[EventEnvelope[E]]:
        originator = self._originator(aggregate_id)
        if limit is not None and limit <= 0:
            return []
        stored = await self._run(
            lambda: self._recorder.select_events(originator, gt=max(start_from, 0), limit=limit)
        )
        return [self._codec.envelope(_event_row(event)) for event in stored]

    async def latest_snapshot(self, aggregate_id: str) -> Snapshot[S] | None:
        row = await self._snapshot_row(aggregate_id)
        return None if row is None else self._codec.snapshot(row)

    async def _snapshot_row(self, aggregate_id: str) -> SnapshotRow | None:
        originator, recorder = self._originator(aggregate_id), self._snapshots
        if recorder is None:
            return None
        stored = await self._run(lambda: recorder.select_events(originator, desc=True, limit=1))
        if not stored:
            return None
        timestamp, _, entity = stored[0].state.decode(errors="replace").partition("\n")
        return SnapshotRow(
            self._codec.writable_type(),
            aggregate_id,
            stored[0].originator_version,
            entity,
            int(timestamp) if timestamp.isdecimal() else 0,
        )

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
        if not events:
            return []
        if list(outbox):
            raise EventStoreError("a recorder has no outbox")
        if command_id is not None:
            raise EventStoreError("a recorder does not remember commands")
        envelopes = self._codec.envelopes(aggregate_id, events, expected, metadata)
        stored = self._stored(self._codec.rows(envelopes))
        originator = self._originator(aggregate_id)
        image = None if snapshot is None else self._codec.snapshot_row(snapshot)

        def insert() -> None:
            from eventsourcing.persistence import IntegrityError

            found = self._recorder.select_events(originator, desc=True, limit=1)
            actual = found[0].originator_version if found else 0
            if actual != expected:
                raise VersionConflict(aggregate_id, expected, actual)
            try:
                self._recorder.insert_events(stored)
            except IntegrityError as error:
                raise VersionConflict(aggregate_id, expected, None) from error

        await self._run(insert, writing=True)
        if image is not None:
            await self._save_snapshot(image)
        self._grown.set()
        self._grown = asyncio.Event()
        return list(envelopes)

    def _stored(self, rows: list[EventRow]) -> list[StoredEvent]:
        from eventsourcing.persistence import StoredEvent

        return [
            StoredEvent(
                originator_id=_originator(row.aggregate_type, row.aggregate_id),
                originator_version=row.sequence,
                topic=f"{row.event_type}:{_escaped(row.event_version)}",
                state=f"{row.metadata}\n{row.payload}".encode(),
            )
            for row in rows
        ]

    async def _save_snapshot(self, row: SnapshotRow) -> None:
        from eventsourcing.persistence import StoredEvent

        recorder = self._snapshots
        if recorder is None:
            return
        stored = StoredEvent(
            originator_id=_originator(row.aggregate_type, row.aggregate_id),
            originator_version=row.sequence,
            topic="snapshot",
            state=f"{row.timestamp}\n{row.entity}".encode(),
        )
        try:
            await self._run(lambda: recorder.insert_events([stored]))
        except EventStoreError as error:
            logger.warning(
                "snapshot %d of aggregate %r not written: %s", row.sequence, row.aggregate_id, error
            )

    # --- readers by position -------------------------------------------------------------------------

    async def read(
        self, after: int = 0, *, limit: int = BATCH, aggregate_id: str | None = None
    ) -> list[RecordedEvent[E]]:
        read_keys(self.aggregate_type, aggregate_id)
        if limit <= 0:
            return []
        while True:
            found, scanned_to, more = await self._run(partial(self._scan, after, limit, aggregate_id))
            if found or not more:
                return [self._codec.recorded(row) for row in found]
            after = scanned_to

    def _scan(
        self, after: int, limit: int, aggregate_id: str | None
    ) -> tuple[list[PositionedRow], int, bool]:
        """In the thread: one batch of notifications, those of other types or aggregates left out."""
        notifications = self._recorder.select_notifications(after, limit, inclusive_of_start=False)
        rows: list[PositionedRow] = []
        for notification in notifications:
            row = PositionedRow(notification.id, None, _event_row(notification))
            if self.aggregate_type in (None, row.event.aggregate_type) and aggregate_id in (
                None,
                row.event.aggregate_id,
            ):
                rows.append(row)
        return rows, notifications[-1].id if notifications else after, len(notifications) == limit

    async def last_position(self) -> int:
        return await self._run(lambda: self._recorder.max_notification_id() or 0)

    async def wait(self, after: int, *, timeout: float | None = None) -> bool:
        """Wait for events. Commits of this object wake at once, those of others within half a second."""
        if await self.read(after, limit=1):
            return True
        try:
            async with asyncio.timeout(timeout):
                pause = _FIRST_PAUSE_S
                while True:
                    grown = self._grown
                    if await self.read(after, limit=1):
                        return True
                    try:
                        async with asyncio.timeout(pause):
                            await grown.wait()
                    except TimeoutError:
                        pause = min(pause * 1.5, _LONGEST_PAUSE_S)
        except TimeoutError:
            return False

    def transaction(
        self, *, isolation: Isolation | None = None
    ) -> AbstractAsyncContextManager[Transaction[E, S]]:
        """Not supported.

        Raises:
            EventStoreError: always.
        """
        raise EventStoreError("a recorder has no transactions that could hold a checkpoint or an outbox")


def _originator(aggregate_type: str, aggregate_id: str) -> str:
    return f"{_escaped(aggregate_type)}:{aggregate_id}"


def _escaped(text: str) -> str:
    return text.replace("%", "%25").replace(":", "%3A")


def _unescaped(text: str) -> str:
    return text.replace("%3A", ":").replace("%25", "%")


def _event_row(stored: StoredEvent) -> EventRow:
    """Read what a recorder returns; what others wrote under our type shows up as an event in error."""
    aggregate_type, _, aggregate_id = str(stored.originator_id).partition(":")
    event_type, _, event_version = stored.topic.rpartition(":")
    metadata, _, payload = stored.state.decode(errors="replace").partition("\n")
    return EventRow(
        _unescaped(aggregate_type),
        aggregate_id,
        stored.originator_version,
        event_type,
        _unescaped(event_version),
        payload,
        metadata,
    )


def _translate(error: Exception, *, writing: bool) -> EventStoreError:
    from eventsourcing.persistence import InterfaceError, OperationalError

    if isinstance(error, OperationalError | InterfaceError):
        return StoreUnavailable(f"recorder: {error}", outcome_unknown=writing)
    return EventStoreError(f"recorder: {type(error).__name__}: {error}")
