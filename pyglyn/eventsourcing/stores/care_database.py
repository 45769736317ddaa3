"""One connection to a store's database, for its care: rows in and out, blocking.

Layer: eventsourcing, stores.
"""

from __future__ import annotations

import abc
import contextlib
import os
import sqlite3
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from pyglyn.errors import EventStoreError
from pyglyn.eventsourcing.stores import layout, sqlite_wal
from pyglyn.eventsourcing.stores.opening import open_store
from pyglyn.eventsourcing.stores.sql import EVENT_COLUMNS, Row, positioned_statement
from pyglyn.eventsourcing.stores.sqlite import SqliteStore
from pyglyn.eventsourcing.stores.sqlite_database import fetch, run_script, schema_version
from pyglyn.eventsourcing.stores.sqlite_database import translate as translate_sqlite

if TYPE_CHECKING:
    import psycopg

PAGE = 5000
"""How many events are read, and rows written, at once."""

_PAGE = positioned_statement(by_type=False, by_id=False)


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

    @abc.abstractmethod
    def has_table(self, name: str) -> bool:
        """Tell whether there is a table of that name."""

    @abc.abstractmethod
    def number_facts(self) -> None:
        """See to it that facts written from now on get positions behind those there are."""

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

    def has_table(self, name: str) -> bool:
        return bool(self.run("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = %s", (name,)))

    def number_facts(self) -> None:
        """Do nothing: SQLite does."""

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
            if self.has_table("event"):
                self.run("LOCK TABLE event IN SHARE ROW EXCLUSIVE MODE")
            yield

    def version(self) -> int | None:
        if not self.has_table("pyglyn_schema"):
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

    def has_table(self, name: str) -> bool:
        there: bool = self.run("SELECT to_regclass(%s) IS NOT NULL", (name,))[0][0]
        return there

    def number_facts(self) -> None:
        self.run(
            "SELECT setval(pg_get_serial_sequence('factos_events', 'position'), max(position)) "
            "FROM factos_events HAVING max(position) IS NOT NULL"
        )

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
