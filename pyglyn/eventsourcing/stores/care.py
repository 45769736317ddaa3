"""The care of a store: migrate, copy, verify, archive, count. For the command line; blocking, no event loop.

Everything works on rows, so it needs no types of the application. Databases are found by the URLs of
`open_store`; only SQLite and PostgreSQL have something to care for.

Copies keep positions, times, metadata, snapshots, checkpoints, parked events, the outbox, and what process
managers have. A copy that was broken off goes on where it was. The source may be in use: the last events and
all the rest are read as they were at one moment. The target must not be.

Layer: eventsourcing, stores.
"""

from __future__ import annotations

import abc
import contextlib
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import attrs

from pyglyn.errors import EventStoreError
from pyglyn.eventsourcing.stores import layout, sqlite_wal
from pyglyn.eventsourcing.stores.opening import open_store
from pyglyn.eventsourcing.stores.rows import EventRow, PositionedRow, RowCodec
from pyglyn.eventsourcing.stores.sql import EVENT_COLUMNS, Row, positioned_statement
from pyglyn.eventsourcing.stores.sqlite import SqliteStore
from pyglyn.eventsourcing.stores.sqlite_database import fetch, run_script, schema_version
from pyglyn.eventsourcing.stores.sqlite_database import translate as translate_sqlite
from pyglyn.eventsourcing.stores.store import RecordedEvent

if TYPE_CHECKING:
    import psycopg

PAGE = 5000
"""How many events are read, and rows written, at once."""

Progress = Callable[[int, int], None]
"""Told after each page: events done, and how many there are."""

_SNAPSHOT = ("aggregate_type", "aggregate_id", "sequence", "entity", "timestamp")
_COPIED = (
    "pyglyn_checkpoint",
    "pyglyn_parked",
    "pyglyn_outbox",
    "pyglyn_command",
    "pyglyn_manager",
    "pyglyn_dispatch",
    "pyglyn_deadline",
)
_PAGE = positioned_statement(by_type=False, by_id=False)
_CODEC: RowCodec[Any, Any] = RowCodec(aggregate_type=None)


class Database(abc.ABC):
    """One database, in one connection; `opened` makes it."""

    kind: layout.Kind

    @abc.abstractmethod
    def run(self, statement: str, parameters: Sequence[object] = ()) -> list[Row]:
        """Run one statement (written with ``%s``) and return its rows."""

    @abc.abstractmethod
    def transaction(self) -> contextlib.AbstractContextManager[None]:
        """Commit what is inside together, with no other writer at the same time."""

    @abc.abstractmethod
    def version(self) -> int | None:
        """Return the version of the side tables, None when there are none."""

    @abc.abstractmethod
    def create(self, statements: str) -> None:
        """Run the statements of a file of ``schema/`` in the open transaction."""

    @abc.abstractmethod
    def number_events(self) -> None:
        """See to it that what is committed has positions."""

    @abc.abstractmethod
    def snapshot(self) -> contextlib.AbstractContextManager[None]:
        """Read inside what was committed at one moment, all of it with positions; others may write."""

    @abc.abstractmethod
    def write(self, rows: list[Row]) -> None:
        """Write events with their positions and times, as `page` returns them, in the open transaction."""

    @abc.abstractmethod
    def insert(self, table: str, columns: Sequence[str], rows: list[Row]) -> None:
        """Write rows into a table, in the open transaction."""

    def page(self, after: int, limit: int = PAGE) -> list[Row]:
        """Return rows behind a position: position, time in ms, the columns of ``event`` (None: deleted)."""
        return self.run(_PAGE, (after, limit))

    def count(self, table: str = "event") -> int:
        """Count the rows of a table."""
        number: int = self.run(f"SELECT count(*) FROM {table}")[0][0]
        return number

    def last_position(self) -> int:
        """Return the last position that has an event."""
        number: int = self.run("SELECT coalesce(max(position), 0) FROM pyglyn_position")[0][0]
        return number


class _Sqlite(Database):
    kind: layout.Kind = "sqlite"

    def __init__(self, path: str) -> None:
        sqlite_wal.refuse_stale(path)
        self._path = path
        self._connection = sqlite3.connect(path, timeout=10.0, isolation_level=None)
        self._connection.execute("PRAGMA journal_mode=WAL")

    def close(self) -> None:
        self._connection.close()
        sqlite_wal.forget(self._path)

    def run(self, statement: str, parameters: Sequence[object] = ()) -> list[Row]:
        try:
            return fetch(self._connection, statement.replace("%s", "?"), parameters)[0]
        except sqlite3.Error as error:
            raise translate_sqlite(error, self._path) from error

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        self.run("BEGIN IMMEDIATE")
        try:
            yield
            self.run("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise

    def version(self) -> int | None:
        return schema_version(self._connection)

    def create(self, statements: str) -> None:
        try:
            run_script(self._connection, statements)
        except sqlite3.Error as error:
            raise translate_sqlite(error, self._path) from error

    def number_events(self) -> None:
        """Do nothing: a trigger has."""

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[None]:
        self.run("BEGIN")
        try:
            self.run("SELECT count(*) FROM pyglyn_schema")  # with the first statement that reads it begins
            yield
        finally:
            self._connection.execute("ROLLBACK")

    def write(self, rows: list[Row]) -> None:
        (trigger,) = self.run("SELECT sql FROM sqlite_master WHERE name = 'pyglyn_event_inserted'")
        self.run("DROP TRIGGER pyglyn_event_inserted")
        self.insert("event", EVENT_COLUMNS.split(", "), [row[2:] for row in rows])
        positions = [(row[0], row[2], row[3], row[4], row[1]) for row in rows]
        self.insert("pyglyn_position", layout.TABLES["sqlite"]["pyglyn_position"], positions)
        self.run(trigger[0])

    def insert(self, table: str, columns: Sequence[str], rows: list[Row]) -> None:
        marks = ", ".join("?" * len(columns))
        try:
            self._connection.executemany(f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})", rows)
        except sqlite3.Error as error:
            raise translate_sqlite(error, self._path) from error


class _Postgres(Database):
    kind: layout.Kind = "postgres"

    def __init__(self, conninfo: str) -> None:
        import psycopg

        from pyglyn.eventsourcing.stores.postgres_database import translate

        self._translate = translate
        try:
            self._connection: psycopg.Connection[Row] = psycopg.connect(
                conninfo, autocommit=True, client_encoding="utf8", prepare_threshold=None
            )
            self._connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
            self._connection.read_only = False
        except psycopg.Error as error:
            raise translate(error) from error

    def close(self) -> None:
        self._connection.close()

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        import psycopg

        try:
            yield
        except psycopg.Error as error:
            raise self._translate(error) from error

    def run(self, statement: str, parameters: Sequence[object] = ()) -> list[Row]:
        with self._translated():
            cursor = self._connection.execute(statement.encode(), parameters or None)
            return cursor.fetchall() if cursor.description is not None else []

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        with self._translated(), self._connection.transaction():
            if self.run("SELECT to_regclass('event') IS NOT NULL")[0][0]:
                self.run("LOCK TABLE event IN SHARE ROW EXCLUSIVE MODE")
            yield

    def version(self) -> int | None:
        if not self.run("SELECT to_regclass('pyglyn_schema') IS NOT NULL")[0][0]:
            return None
        return layout.check_version([row[0] for row in self.run("SELECT version FROM pyglyn_schema")])

    def create(self, statements: str) -> None:
        schema = self.run("SELECT quote_ident(current_schema())")[0][0]
        if schema is None:
            raise EventStoreError("PostgreSQL: the search_path names no schema that exists")
        self.run(statements.replace("{schema}", schema))

    def number_events(self) -> None:
        while self.run("SELECT pyglyn_assign_positions(10000)")[0][0]:
            pass

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[None]:
        with self._translated():
            while True:
                self.number_events()
                self.run("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
                if not self.run("SELECT pyglyn_is_pending()")[0][0]:
                    break
                self.run("ROLLBACK")  # somebody has committed in between
            try:
                yield
            finally:
                self._connection.rollback()

    def write(self, rows: list[Row]) -> None:
        self.run("SELECT set_config('pyglyn.placeholder', 'on', true)")  # the trigger lets us number them
        self.insert("event", EVENT_COLUMNS.split(", "), [row[2:] for row in rows])
        columns = layout.TABLES["sqlite"]["pyglyn_position"]
        self.insert("pyglyn_position", columns, [(row[0], row[2], row[3], row[4], row[1]) for row in rows])
        last = max(row[0] for row in rows)
        self.run(
            "UPDATE pyglyn_assigned SET last_position = greatest(last_position, %s), xid = NULL", (last,)
        )

    def insert(self, table: str, columns: Sequence[str], rows: list[Row]) -> None:
        with (
            self._translated(),
            self._connection.cursor() as cursor,
            cursor.copy(f"COPY {table} ({', '.join(columns)}) FROM STDIN".encode()) as copy,
        ):
            for row in rows:
                copy.write_row(row)


@contextlib.contextmanager
def opened(url: str, *, migrated: bool = True, create: bool = False) -> Iterator[Database]:
    """Open the database of a store.

    Args:
        url: as for `open_store`.
        migrated: whether its side tables have to be of the present version.
        create: make what is missing.

    Raises:
        EventStoreError: it is no database, or its tables are of an unknown layout.
    """
    store: Any = open_store(url)
    if not store.has_sql:
        raise EventStoreError("a memory store lives in its service: nothing of it can be cared for from here")
    if isinstance(store, SqliteStore) and not create and not os.path.exists(store.path):
        raise EventStoreError(f"there is no file {store.path}")
    database: _Sqlite | _Postgres
    database = _Sqlite(store.path) if isinstance(store, SqliteStore) else _Postgres(store.conninfo)
    with contextlib.closing(database):
        version = database.version()
        if version is None and not create:
            raise EventStoreError(
                "the database has no tables of ours: no service of this package has used it"
            )
        if version is None:
            with database.transaction():
                for statements in layout.scripts(database.kind):
                    database.create(statements)
        elif migrated:
            layout.check_current(version)
        yield database


# --- what can be done ------------------------------------------------------------------------------------


def migrate(url: str) -> tuple[int, int]:
    """Take the side tables to the present version, all in one transaction; returns from where to where.

    Raises:
        EventStoreError: they are of no version that this package knows.
    """
    with opened(url, migrated=False) as database:
        before = after = database.version() or 0
        with database.transaction():
            for after in range(before + 1, layout.VERSION + 1):
                database.create(layout.step(database.kind, after))
        return before, max(before, after)


@attrs.frozen
class Copied:
    """What a copy did: events written now, and those that were there from before."""

    events: int
    there_before: int
    snapshots: int


def copy(
    source_url: str, target_url: str, *, progress: Progress = lambda done, all: None, page: int = PAGE
) -> Copied:
    """Copy a store into an empty one, or go on with a copy.

    Args:
        source_url, target_url: see `opened`.
        progress: told after each page.
        page: how many events are copied at once, each time in a transaction.

    Raises:
        EventStoreError: the target has other events.
    """
    return _copy(source_url, target_url, progress, page, archive=False)


def _copy(source_url: str, target_url: str, progress: Progress, page: int, *, archive: bool) -> Copied:
    with opened(source_url) as source, opened(target_url, create=True) as target:
        source.number_events()
        target.number_events()
        before = target.count()
        copied = _Events(source, target, page, progress, before, source.count())
        after = copied.behind(_common(source, target, archive=archive))
        with source.snapshot():
            copied.behind(after)
            snapshots = _copy_table(source, target, "snapshot", _SNAPSHOT)
            for table in _COPIED:
                columns = [column for column in layout.TABLES[source.kind][table] if column != "id"]
                order = "1" if table in ("pyglyn_checkpoint", "pyglyn_command", "pyglyn_manager") else "id"
                key = ["id"] if table == "pyglyn_command" else []
                _copy_table(source, target, table, [*key, *columns], order)
        return Copied(copied.done - before, before, snapshots)


@attrs.define
class _Events:
    """The events on their way from one database into another."""

    source: Database
    target: Database
    page: int
    progress: Progress
    done: int
    total: int

    def behind(self, after: int) -> int:
        """Copy those behind a position, until there are no more; return the last position."""
        self.progress(self.done, max(self.total, self.done))
        while rows := self.source.page(after, self.page):
            after = rows[-1][0]
            events = [row for row in rows if row[2] is not None]
            if events:
                with self.target.transaction():
                    self.target.write(events)
            self.done += len(events)
            self.progress(self.done, max(self.total, self.done))
        return after


def _common(source: Database, target: Database, *, archive: bool) -> int:
    """Return the position up to which a target is a copy; an archive may have what its source has no more.

    Raises:
        EventStoreError: it has events that the source has not.
    """
    last = target.last_position()
    if last == 0:
        return 0
    [kept] = target.page(last - 1, 1)
    found = [row for row in source.page(last - 1, 1) if row[0] == last]
    if (found != [kept] and not (archive and not found)) or (not archive and target.count() > source.count()):
        raise EventStoreError("the target has events that are not from there: copy into an empty store")
    return last


def _copy_table(
    source: Database, target: Database, table: str, columns: Sequence[str], order: str = "1"
) -> int:
    rows = source.run(f"SELECT {', '.join(columns)} FROM {table} ORDER BY {order}")
    with target.transaction():
        target.run(f"DELETE FROM {table}")
        for start in range(0, len(rows), PAGE):
            target.insert(table, columns, rows[start : start + PAGE])
    return len(rows)


_WITHOUT_POSITION = """
SELECT e.aggregate_type, e.aggregate_id, e.sequence FROM event AS e
LEFT JOIN pyglyn_position AS p USING (aggregate_type, aggregate_id, sequence)
WHERE p.position IS NULL ORDER BY 1, 2, 3
"""
_WITHOUT_EVENT = """
SELECT p.position, p.aggregate_id, p.sequence FROM pyglyn_position AS p
LEFT JOIN event AS e USING (aggregate_type, aggregate_id, sequence)
WHERE e.event_type IS NULL ORDER BY 1
"""
_GAPS = """
SELECT aggregate_type, aggregate_id, min(sequence), max(sequence), count(*) FROM event
GROUP BY aggregate_type, aggregate_id
HAVING max(sequence) - min(sequence) + 1 <> count(*) OR min(sequence) <> 1
ORDER BY 1, 2
"""
_DISORDER = """
SELECT aggregate_type, aggregate_id, sequence, position FROM (
  SELECT aggregate_type, aggregate_id, sequence, position,
    lag(position) OVER (PARTITION BY aggregate_type, aggregate_id ORDER BY sequence) AS earlier
  FROM pyglyn_position
) AS ordered WHERE earlier >= position ORDER BY position
"""
_SNAPSHOT_AHEAD = """
SELECT s.aggregate_type, s.aggregate_id, s.sequence FROM snapshot AS s WHERE NOT EXISTS (
  SELECT 1 FROM event AS e WHERE e.aggregate_type = s.aggregate_type AND e.aggregate_id = s.aggregate_id
  AND e.sequence = s.sequence
) ORDER BY 1, 2
"""


def verify(url: str, *, progress: Progress = lambda done, all: None) -> Iterator[str]:
    """Check a store: positions, sequences, snapshots, and that each event is JSON. Yields what is wrong."""
    with opened(url) as database, database.snapshot():
        for type_, id, sequence in database.run(_WITHOUT_POSITION):
            yield f"{type_} {id} #{sequence} has no position: readers by position never get it"
        for position, id, sequence in database.run(_WITHOUT_EVENT):
            yield f"position {position} is for {id} #{sequence}, which is not there"
        for type_, id, first, last, count in database.run(_GAPS):
            archived = _is_archived(database, type_, id, first)
            if not archived or last - first + 1 != count:
                yield f"{type_} {id} has {count} events from #{first} to #{last}"
        for type_, id, sequence, position in database.run(_DISORDER):
            yield f"{type_} {id} #{sequence} is at {position}, before its predecessor"
        for type_, id, sequence in database.run(_SNAPSHOT_AHEAD):
            yield f"the snapshot of {type_} {id} is of #{sequence}, which is not there"
        total, done, after = database.count(), 0, 0
        while rows := database.page(after):
            after, done = rows[-1][0], done + len(rows)
            yield from _undecodable(rows)
            progress(done, max(total, done))


def _is_archived(database: Database, type_: str, id: str, first: int) -> bool:
    """Tell whether an aggregate begins later than at 1 because the rest was archived."""
    statement = "SELECT 1 FROM snapshot WHERE aggregate_type = %s AND aggregate_id = %s AND sequence >= %s"
    return bool(database.run(statement, (type_, id, first)))


def _undecodable(rows: list[Row]) -> Iterator[str]:
    for row in rows:
        if row[2] is not None:
            event: RecordedEvent[Any] = _CODEC.recorded(PositionedRow(row[0], row[1], EventRow(*row[2:])))
            if event.error is not None:
                yield f"position {event.position}: {event.error}"


def archive(url: str, target_url: str, *, until: int, progress: Progress = lambda done, all: None) -> int:
    """Move what snapshots make needless, up to a position, out of a store; returns how many events went.

    The target becomes a whole copy first, so nothing is only there or only here. Then those events are
    deleted whose aggregate has a snapshot behind them. An aggregate can be loaded by its snapshot alone from
    then on, and queries that are reset get no archived events; they are read from the archive.

    Raises:
        EventStoreError: a query whose checkpoint is here has not got so far, or has parked one of them.
    """
    _copy(url, target_url, progress, PAGE, archive=True)
    condition = """
    WHERE EXISTS (
      SELECT 1 FROM pyglyn_position AS p WHERE p.aggregate_type = event.aggregate_type
      AND p.aggregate_id = event.aggregate_id AND p.sequence = event.sequence AND p.position <= %s
    ) AND EXISTS (
      SELECT 1 FROM snapshot AS s WHERE s.aggregate_type = event.aggregate_type
      AND s.aggregate_id = event.aggregate_id AND s.sequence > event.sequence
    )"""
    with opened(url) as database:
        until = min(until, _archived_up_to(target_url))
        with database.transaction():
            _refuse_to_take_from_queries(database, condition, until)
            gone: int = database.run(f"SELECT count(*) FROM event {condition}", (until,))[0][0]
            database.run(f"DELETE FROM event {condition}", (until,))
        return gone


def _refuse_to_take_from_queries(database: Database, condition: str, until: int) -> None:
    """Refuse to delete events that a query is still to process. A row at 0 may be a relay's."""
    going = f"""
    SELECT g.position FROM pyglyn_position AS g JOIN event ON event.aggregate_type = g.aggregate_type
    AND event.aggregate_id = g.aggregate_id AND event.sequence = g.sequence {condition}"""
    [(last,)] = database.run(f"SELECT coalesce(max(position), 0) FROM ({going}) AS p", (until,))
    checkpoints = "SELECT query, position FROM pyglyn_checkpoint WHERE position > 0 AND position < %s"
    for query, position in database.run(f"{checkpoints} ORDER BY position LIMIT 1", (last,)):
        raise EventStoreError(
            f"query {query!r} is at {position}: it would miss events; archive until {position}, or delete "
            "its row in pyglyn_checkpoint if there is no such query any more"
        )
    parked = f"SELECT query, position FROM pyglyn_parked WHERE position IN ({going})"
    for query, position in database.run(f"{parked} ORDER BY position LIMIT 1", (until,)):
        raise EventStoreError(f"the event at {position} is parked by query {query!r}: drive it first")


def _archived_up_to(url: str) -> int:
    with opened(url) as target:
        return target.last_position()


def stats(url: str) -> dict[str, Any]:
    """Count what is in a store."""
    with opened(url) as database:
        database.number_events()
        events = """
        SELECT aggregate_type, count(*), count(DISTINCT aggregate_id) FROM event GROUP BY 1 ORDER BY 1
        """
        times = "SELECT min(recorded_at), max(recorded_at) FROM pyglyn_position"
        queries = "SELECT query, position, paused FROM pyglyn_checkpoint ORDER BY query"
        last = database.last_position()
        return {
            "version": database.version(),
            "events": database.count(),
            "last_position": last,
            "types": {type_: {"events": n, "aggregates": ids} for type_, n, ids in database.run(events)},
            "snapshots": database.count("snapshot"),
            "recorded": [None if ms is None else ms / 1000 for ms in database.run(times)[0]],
            "queries": {
                name: {"position": position, "behind": max(last - position, 0), "paused": bool(paused)}
                for name, position, paused in database.run(queries)
            },
            "parked": database.count("pyglyn_parked"),
            "outbox": database.count("pyglyn_outbox"),
            "commands": database.count("pyglyn_dispatch"),
            "deadlines": database.count("pyglyn_deadline"),
        }
