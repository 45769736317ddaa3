"""The SQLite store: the embedded default. Shares its file with the Gleam store ``eventsourcing_sqlite``.

Safe across the OS processes of a node and across languages. How it locks and commits is in
:mod:`pyglyn.eventsourcing.stores.sqlite_database`. Positions are given by a trigger; as SQLite has one
writer at a time, their order is the order of commits.

Waking up: commits of the same store object wake at once, those of other OS processes by way of the operating
system (:mod:`pyglyn.eventsourcing.stores.sqlite_watch`). Where that tells nothing, a waiting reader asks for
``PRAGMA data_version`` (a look into shared memory) between 100 and 10 times a second, less often the longer
nothing happens, and not at all while nobody waits.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Any, TypeVar

from pyglyn.errors import CommandRepeated, EventStoreError, StoreUnavailable, VersionConflict
from pyglyn.eventsourcing.domain.envelope import EventEnvelope
from pyglyn.eventsourcing.domain.snapshot import Snapshot
from pyglyn.eventsourcing.stores.later import Later
from pyglyn.eventsourcing.stores.packed import read_pages
from pyglyn.eventsourcing.stores.rows import RowCodec, SnapshotRow, storable_text
from pyglyn.eventsourcing.stores.selection import (
    PART_IN_SQLITE,
    Scanned,
    Selection,
    conditions,
    part_of,
)
from pyglyn.eventsourcing.stores.sql import (
    INSERT_EVENT,
    NO_LIMIT,
    SELECT_CHECKPOINT,
    SELECT_CHECKPOINTS,
    SELECT_COMMAND,
    SELECT_EVENTS,
    SELECT_PARKED_AGGREGATES,
    SELECT_POSITION,
    SELECT_SEQUENCE,
    SELECT_SNAPSHOT,
    UPSERT_SNAPSHOT,
    Row,
    SqlTransaction,
    count_parked,
    event_parameters,
    inside,
    position_exists,
    put_outbox_statement,
    read_checkpoint,
    read_checkpoints,
    read_command,
    read_keys,
    read_parked,
    remember_command,
    scan_statement,
    scanned,
    select_parked,
    selected_statement,
    snapshot_parameters,
)
from pyglyn.eventsourcing.stores.sql_managing import SqlManagerReads
from pyglyn.eventsourcing.stores.sqlite_database import (
    Operation,
    SqliteDatabase,
    execute,
    execute_many,
    fetch,
    ours,
)
from pyglyn.eventsourcing.stores.sqlite_pages import SqlitePages
from pyglyn.eventsourcing.stores.store import (
    BATCH,
    Checkpoint,
    CommandRecord,
    Cursor,
    EventStore,
    Isolation,
    Loaded,
    OutboxMessage,
    Page,
    ParkedEvent,
    RecordedEvent,
    Transaction,
)

E = TypeVar("E")
S = TypeVar("S")
T = TypeVar("T")

_FIRST_PAUSE_S = 0.01
_LONGEST_PAUSE_S = 0.1
_TRUSTED_S = 1.0
"""How long a reader who is told of writes trusts that there was none."""
_MIND_OTHERS_S = 0.001


def _q(statement: str) -> str:
    """Put SQLite's placeholders into a statement of ours."""
    return statement.replace("%s", "?")


_INSERT_EVENT = _q(INSERT_EVENT)
_SELECT_EVENTS = _q(SELECT_EVENTS)
_SELECT_SEQUENCE = _q(SELECT_SEQUENCE)
_SELECT_SNAPSHOT = _q(SELECT_SNAPSHOT)
_UPSERT_SNAPSHOT = _q(UPSERT_SNAPSHOT)
NOW = "CAST((julianday('now') - 2440587.5) * 86400000 AS integer)"
"""SQLite's clock, in milliseconds since 1970."""

_LAST_POSITION = "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'pyglyn_position'"


class SqliteStore(SqlManagerReads, EventStore[E, S]):
    """Events of one aggregate type in a SQLite file."""

    has_sql = True
    one_writer = True
    _now = NOW

    def __init__(
        self,
        path: str | os.PathLike[str],
        codec: RowCodec[E, S],
        *,
        synchronous: str = "FULL",
        busy_timeout: float = 10.0,
    ) -> None:
        """Describe the store; the file is opened at the first use.

        Args:
            path: of the file; it is created when missing, its directory is not.
            codec: writes and reads the rows.
            synchronous: ``FULL`` or ``NORMAL``; SQLite's PRAGMA of that name.
            busy_timeout: seconds to wait for the turn to write.

        Raises:
            EventStoreError: the path is ``:memory:`` or empty, or ``synchronous`` is none of the two.
        """
        self.path = os.fspath(path)
        if self.path in ("", ":memory:"):
            raise EventStoreError("SQLite's own :memory: cannot be shared by two connections; use memory:")
        if synchronous not in ("FULL", "NORMAL"):
            raise EventStoreError(f"synchronous has to be FULL or NORMAL, got {synchronous!r}")
        self.aggregate_type = codec.aggregate_type
        self._codec = self.codec = codec
        self._synchronous = synchronous
        self._busy_timeout = busy_timeout
        self._open: tuple[int, SqliteDatabase] | None = None
        self._pages = [SqlitePages(codec, by_id=by_id) for by_id in (False, True)]
        if type(self).__init__ is SqliteStore.__init__:
            options: dict[str, Any] = {"synchronous": synchronous, "busy_timeout": busy_timeout}
            self.reopen = partial(type(self), self.path, codec, **options)

    def database(self) -> SqliteDatabase:
        """Return the database of this OS process and event loop."""
        if self._open is not None:
            os_pid, database = self._open
            if os_pid == os.getpid() and database.loop is asyncio.get_running_loop():
                return database
        database = SqliteDatabase(self.path, synchronous=self._synchronous, busy_timeout=self._busy_timeout)
        self._open = (os.getpid(), database)
        return database

    def check_state(self, entity: S) -> None:
        self._codec.check_state(entity)

    async def start(self) -> None:
        await self.database().start()

    async def close(self) -> None:
        if self._open is None:
            return
        os_pid, database = self._open
        self._open = None
        if os_pid == os.getpid() and database.loop is asyncio.get_running_loop():
            await database.close()

    # --- aggregates ----------------------------------------------------------------------------------

    async def load(self, aggregate_id: str, *, use_snapshot: bool = True) -> Loaded[E, S]:
        key, codec = self._codec.key(aggregate_id), self._codec

        def select(connection: sqlite3.Connection) -> tuple[Snapshot[S] | None, list[Row]]:
            snapshot: Snapshot[S] | None = None
            if use_snapshot:
                found, _ = fetch(connection, _SELECT_SNAPSHOT, key)
                snapshot = codec.usable_snapshot(SnapshotRow(*found[0]) if found else None)
            # Events committed since then come along: the log only grows, so the sum is a later moment.
            after = snapshot.sequence if snapshot is not None else 0
            return snapshot, _events(connection, *key, after, NO_LIMIT)

        snapshot, rows = await self.database().read(select)
        return Loaded(snapshot, list(codec.event_rows(rows)))

    async def load_events(
        self, aggregate_id: str, start_from: int = 0, *, limit: int | None = None
    ) -> list[EventEnvelope[E]]:
        key, most = self._codec.key(aggregate_id), NO_LIMIT if limit is None else max(limit, 0)
        rows = await self.database().read(lambda c: _events(c, *key, start_from, most))
        return list(self._codec.event_rows(rows))

    async def last_sequence(self, aggregate_id: str) -> int:
        rows = await self._select(_SELECT_SEQUENCE, self._codec.key(aggregate_id))
        sequence: int = rows[0][0]
        return sequence

    async def latest_snapshot(self, aggregate_id: str) -> Snapshot[S] | None:
        rows = await self._select(_SELECT_SNAPSHOT, self._codec.key(aggregate_id))
        return self._codec.snapshot(SnapshotRow(*rows[0])) if rows else None

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
        envelopes = self._codec.envelopes(aggregate_id, events, expected, metadata)
        written_rows = self._codec.rows(envelopes)
        rows = [event_parameters(row) for row in written_rows]
        more: list[tuple[str, tuple[object, ...]]] = []
        if snapshot is not None:
            more.append((UPSERT_SNAPSHOT, snapshot_parameters(self._codec.snapshot_row(snapshot))))
        more += [put_outbox_statement(message, NOW) for message in outbox]
        if command_id is not None:
            more.append(remember_command(command_id, written_rows, NOW))

        def insert(connection: sqlite3.Connection) -> None:
            found = connection.execute(_SELECT_SEQUENCE, (self.aggregate_type, aggregate_id)).fetchone()[0]
            if found != expected:
                raise VersionConflict(aggregate_id, expected, found)
            if command_id is not None and connection.execute(_q(SELECT_COMMAND), (command_id,)).fetchone():
                raise CommandRepeated(command_id)
            connection.executemany(_INSERT_EVENT, rows)
            for statement, parameters in more:
                connection.execute(_q(statement), parameters)

        await self.database().commit(insert)
        return list(envelopes)

    # --- readers by position -------------------------------------------------------------------------

    async def read(
        self, after: int = 0, *, limit: int = BATCH, aggregate_id: str | None = None
    ) -> list[RecordedEvent[E]]:
        return await read_pages(lambda after, limit: self._page(after, limit, aggregate_id), after, limit)

    async def read_page(self, after: int = 0, *, limit: int = BATCH) -> Page[E]:
        return await self._page(after, limit, None)

    async def _page(self, after: int, limit: int, aggregate_id: str | None) -> Page[E]:
        pages, keys = self._pages[aggregate_id is not None], read_keys(self.aggregate_type, aggregate_id)
        return await pages.page(self.database, after, limit, keys)

    async def scan(self, selection: Selection, after: int = 0, *, limit: int = BATCH) -> Scanned:
        by_type, names = self.aggregate_type is not None, self._codec.names_of(selection.types)
        keys = read_keys(self.aggregate_type, None)
        contains = "instr(e.payload, ?) > 0"
        condition, parameters = conditions(selection, names, contains=contains, part=PART_IN_SQLITE)

        def select(connection: sqlite3.Connection) -> tuple[int, int, list[Row]]:
            [(looked, end)], _ = fetch(connection, _q(scan_statement(by_type=by_type)), (after, *keys))
            if not looked:
                return 0, after, []
            connection.create_function("pyglyn_part", 2, part_of, deterministic=True)
            statement = _q(selected_statement(condition, by_type=by_type))
            rows, _ = fetch(connection, statement, (after, end, *keys, *parameters, limit))
            return looked, end, rows

        looked, end, rows = await self.database().read(select)
        read = self._codec.recorded_rows(rows)
        kept = [one for event in read if (one := selection.kept(event, names)) is not None]
        return scanned(kept, rows, limit, end, looked)

    async def last_position(self) -> int:
        rows = await self._select(_LAST_POSITION, ())
        position: int = rows[0][0]
        return position

    async def position_of(self, aggregate_id: str, sequence: int) -> int | None:
        rows = await self._select(_q(SELECT_POSITION), (*self._codec.key(aggregate_id), sequence))
        return rows[0][0] if rows else None

    async def wait(self, after: int, *, timeout: float | None = None) -> bool:
        return await wait_for_change(self.database(), lambda: self._exists_behind(after), timeout)

    async def _exists_behind(self, after: int) -> bool:
        statement = position_exists(by_type=self.aggregate_type is not None)
        parameters = (after,) if self.aggregate_type is None else (after, self.aggregate_type)
        return bool((await self._select(_q(statement), parameters))[0][0])

    # --- side tables ---------------------------------------------------------------------------------

    async def checkpoint(self, query: str) -> int:
        return (await self.load_checkpoint(query)).position

    async def load_checkpoint(self, query: str) -> Checkpoint:
        return read_checkpoint(query, await self._select(_q(SELECT_CHECKPOINT), (query,)))

    async def find_command(self, id: str) -> CommandRecord | None:
        return read_command(await self._select(_q(SELECT_COMMAND), (storable_text(id, "command id"),)))

    async def checkpoints(self) -> list[Checkpoint]:
        return read_checkpoints(await self._select(SELECT_CHECKPOINTS, ()))

    async def parked(
        self, query: str | None = None, *, aggregate_id: str | None = None, limit: int | None = None
    ) -> list[ParkedEvent]:
        statement, parameters = select_parked(query, aggregate_id, limit)
        return read_parked(await self._select(_q(statement), parameters))

    async def count_parked(self, query: str, *, aggregate_id: str | None = None) -> int:
        statement, parameters = count_parked(query, aggregate_id)
        count: int = (await self._select(_q(statement), parameters))[0][0]
        return count

    async def parked_aggregates(self, query: str) -> set[str]:
        return {row[0] for row in await self._select(_q(SELECT_PARKED_AGGREGATES), (query,))}

    async def _rows(self, statement: str, parameters: Sequence[object] = ()) -> list[Row]:
        return await self._select(_q(statement), parameters)

    async def _select(self, statement: str, parameters: Sequence[object]) -> list[Row]:
        return await self.database().read(lambda c: fetch(c, statement, parameters)[0])

    def transaction(
        self, *, isolation: Isolation | None = None
    ) -> AbstractAsyncContextManager[Transaction[E, S]]:
        return self._transaction()

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[Transaction[E, S]]:
        async with self.database().transaction() as run:
            tx = _SqliteTransaction(self._codec, self.path, run)
            try:
                yield tx
            finally:
                tx.ended = True


async def wait_for_change(
    database: SqliteDatabase, has_grown: Callable[[], Awaitable[bool]], timeout: float | None
) -> bool:
    """Wait until something holds that only a commit can bring about; False after ``timeout`` seconds."""
    if await has_grown():
        return True
    try:
        async with asyncio.timeout(timeout):
            await _change(database, has_grown)
    except TimeoutError:
        return False
    return True


async def _change(database: SqliteDatabase, has_grown: Callable[[], Awaitable[bool]]) -> None:
    with database.watch.watching() as is_told:
        await (_be_told if is_told else _look)(database, has_grown)


async def _be_told(database: SqliteDatabase, has_grown: Callable[[], Awaitable[bool]]) -> None:
    was_told = False
    while True:
        grown = database.grown
        if await has_grown():
            return
        if was_told:  # of what is none of ours; it may be told of thousands of times a second
            await asyncio.sleep(_MIND_OTHERS_S)
        try:
            async with asyncio.timeout(_TRUSTED_S):
                await grown.wait()
            was_told = True
        except TimeoutError:
            was_told = False


async def _look(database: SqliteDatabase, has_grown: Callable[[], Awaitable[bool]]) -> None:
    seen, pause = -1, _FIRST_PAUSE_S
    while True:
        grown = database.grown
        version = await database.data_version()
        if version != seen and await has_grown():
            return
        seen = version
        try:
            async with asyncio.timeout(pause):
                await grown.wait()
            seen = -1
        except TimeoutError:
            pause = min(pause * 1.2, _LONGEST_PAUSE_S)


class _SqliteTransaction(SqlTransaction[E, S]):
    _now = NOW

    def __init__(
        self, codec: RowCodec[E, S], path: str, run: Callable[[Operation[Any]], Awaitable[Any]]
    ) -> None:
        super().__init__(codec)
        self._path = path
        self._in_thread = run
        self.ended = False
        self._fault: EventStoreError | None = None
        self._later: Later | None = None

    def check(self) -> None:
        if self._fault is not None:
            raise self._fault
        if self._later is not None and self._later.failed is not None:
            raise self._later.failed

    def put_off(self) -> None:
        self._later = Later()

    async def run_put_off(self) -> None:
        self._check_open()
        if self._later:
            await self._in_thread(self._run_later)
        self._later = None

    def _run_later(self, connection: sqlite3.Connection) -> None:
        """In the writer's thread: run what was put off."""
        later = self._later
        if not later:
            return
        try:
            with ours(self._path):
                for statement, rows in later.taken():
                    how = execute_many if len(rows) > 1 else execute
                    self._checked(connection, how, statement, rows if len(rows) > 1 else rows[0])
        except StoreUnavailable:
            raise
        except EventStoreError as error:
            raise later.fail(error) from error

    async def _run(self, statement: str, parameters: Sequence[object] = ()) -> tuple[list[Row], int]:
        return await self._carry_out(fetch, _q(statement), parameters)

    async def execute(self, statement: str, parameters: Sequence[object] = ()) -> list[tuple[object, ...]]:
        later = self._later
        if later is not None and later.take(statement, parameters):
            self._check_open()
            if later.is_due:
                await self._in_thread(self._run_later)
            return []
        return (await self._carry_out(execute, inside(statement), parameters))[0]

    async def execute_many(self, statement: str, rows: Iterable[Sequence[object]]) -> None:
        await self._carry_out(execute_many, inside(statement), [tuple(row) for row in rows])

    async def call(self, work: Callable[[Cursor], T]) -> T:
        context = contextvars.copy_context()

        def operation(connection: sqlite3.Connection) -> Callable[[], T]:
            def run(statement: str, parameters: Sequence[object]) -> list[tuple[object, ...]]:
                if self._later is not None and self._later.take(statement, parameters):
                    self._check_open()
                    if self._later.is_due:
                        self._run_later(connection)
                    return []
                with ours(self._path):
                    self._check_open()
                    self._run_later(connection)
                    return self._checked(connection, execute, inside(statement), parameters)[0]

            def run_many(statement: str, rows: Iterable[Sequence[object]]) -> None:
                with ours(self._path):
                    self._check_open()
                    self._run_later(connection)
                    self._checked(connection, execute_many, inside(statement), [tuple(row) for row in rows])

            try:
                result = context.run(work, Cursor(run, self.check, run_many))
            except BaseException as error:  # the application's: not to be taken for one of the database
                return partial(_raise, error)
            return lambda: result

        outcome: Callable[[], T] = await self._in_thread(operation)
        return outcome()

    async def _carry_out(
        self, how: Callable[..., tuple[list[Row], int]], statement: str, parameters: Sequence[object]
    ) -> tuple[list[Row], int]:
        self._check_open()

        def operation(connection: sqlite3.Connection) -> tuple[list[Row], int]:
            self._run_later(connection)
            return self._checked(connection, how, statement, parameters)

        result: tuple[list[Row], int] = await self._in_thread(operation)
        return result

    def _check_open(self) -> None:
        if self.ended:
            raise EventStoreError("the transaction has ended")
        self.check()

    def _checked(
        self,
        connection: sqlite3.Connection,
        how: Callable[..., tuple[list[Row], int]],
        statement: str,
        parameters: Sequence[object],
    ) -> tuple[list[Row], int]:
        """In the writer's thread: run a statement, and see that the transaction is still there."""
        if _ended(connection):  # the disk was full: SQLite has rolled back by itself
            raise StoreUnavailable("the transaction was rolled back by SQLite")
        result = how(connection, statement, parameters)
        if _ended(connection):
            self._fault = EventStoreError("a statement has ended the transaction that it is part of")
            raise self._fault
        return result


def _raise(error: BaseException) -> Any:
    raise error


def _ended(connection: sqlite3.Connection) -> bool:
    return not connection.in_transaction


def _events(
    connection: sqlite3.Connection, aggregate_type: str, aggregate_id: str, after: int, limit: int
) -> list[Row]:
    return fetch(connection, _SELECT_EVENTS, (aggregate_type, aggregate_id, after, limit))[0]
