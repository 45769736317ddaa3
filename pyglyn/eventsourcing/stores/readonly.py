"""The events of a store for people to look at: nothing is created, numbered or changed.

A store object would create its tables, switch a SQLite file to WAL and give positions. Here databases are
only read, also those that no service of this package has used: their events have no positions and come by
type, id and sequence. Events of PostgreSQL that nobody has read yet have none either, and come last.

Not supported: memory stores, which live in their service.

Layer: eventsourcing, stores.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Generator, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import quote

from pyglyn.errors import EventStoreError
from pyglyn.eventsourcing.stores import sqlite_wal
from pyglyn.eventsourcing.stores.facts.log import Query, RawFact
from pyglyn.eventsourcing.stores.facts.rows import fact_of, selection
from pyglyn.eventsourcing.stores.memory import MemoryStore
from pyglyn.eventsourcing.stores.opening import open_store
from pyglyn.eventsourcing.stores.rows import EventRow, PositionedRow, RowCodec
from pyglyn.eventsourcing.stores.sql import EVENT_COLUMNS, NO_LIMIT, positioned_statement
from pyglyn.eventsourcing.stores.sqlite import SqliteStore
from pyglyn.eventsourcing.stores.sqlite_database import translate as translate_sqlite
from pyglyn.eventsourcing.stores.store import RecordedEvent

if TYPE_CHECKING:
    import psycopg

    from pyglyn.eventsourcing.stores.postgres import PostgresStore

PAGE = 500
NO_POSITION = 0
_BUSY_TIMEOUT_S = 10.0
_NOT_WRITABLE = (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY)

_CODEC: RowCodec[Any, Any] = RowCodec(aggregate_type=None)


def look(
    url: str, *, after: int = 0, aggregate_id: str | None = None
) -> Generator[RecordedEvent[Any], None, None]:
    """Read the events behind a position, in order; those without one have ``NO_POSITION``.

    Raises:
        EventStoreError: there is no such database, or nothing of ours or of the Gleam stores in it.
    """
    for row in _rows(
        url,
        partial(_sqlite_rows, after=after, aggregate_id=aggregate_id),
        partial(_postgres_rows, after=after, aggregate_id=aggregate_id),
    ):
        if row[2] is not None:  # else its event was deleted by hand
            yield _CODEC.recorded(PositionedRow(row[0], row[1], EventRow(*row[2:])))


def look_at_facts(url: str, *, after: int = 0, query: Query | None = None) -> Generator[RawFact, None, None]:
    """Read the facts behind a position that a query selects, in order.

    Raises:
        EventStoreError: there is no such database, or no facts in it.
    """
    for row in _rows(
        url,
        partial(_sqlite_facts, after=after, query=query),
        partial(_postgres_facts, after=after, query=query),
    ):
        yield fact_of(row)


def has_facts(url: str) -> bool:
    """Tell whether there are facts in a database."""
    try:
        with contextlib.closing(look_at_facts(url)) as found:
            return next(found, None) is not None
    except EventStoreError:
        return False


def _rows(
    url: str,
    of_sqlite: Callable[[sqlite3.Connection, str], Iterator[tuple[Any, ...]]],
    of_postgres: Callable[[psycopg.Connection[Any]], Iterator[tuple[Any, ...]]],
) -> Iterator[tuple[Any, ...]]:
    store = open_store(url)  # says what is wrong with a URL, and takes out what is not the driver's
    if isinstance(store, MemoryStore):
        raise EventStoreError("a memory store lives in its service: nothing of it can be seen from here")
    if isinstance(store, SqliteStore):
        yield from _sqlite(store.path, of_sqlite)
    else:
        yield from _postgres(cast("PostgresStore[Any, Any]", store).conninfo, of_postgres)


def _unpositioned_statement(*, by_id: bool) -> str:
    """Return the statement for databases without positions; parameters: the last key seen[, id], limit."""
    only = "AND aggregate_id = %s" if by_id else ""
    return f"""
    SELECT {NO_POSITION}, NULL, {EVENT_COLUMNS} FROM event
    WHERE (aggregate_type, aggregate_id, sequence) > (CAST(%s AS text), CAST(%s AS text), %s) {only}
    ORDER BY aggregate_type, aggregate_id, sequence LIMIT %s
    """


def _check(place: str, has_events: bool, has_positions: bool, after: int) -> None:
    if not has_events:
        raise EventStoreError(f"{place} has no events: no service has used it yet")
    if not has_positions and after > 0:
        raise EventStoreError(f"{place} has no positions: no service of this package has used it yet")


def _check_facts(place: str, has_facts: bool) -> None:
    if not has_facts:
        raise EventStoreError(f"{place} has no facts: no service has used it for any yet")


# --- SQLite ------------------------------------------------------------------------------------------------


def _sqlite(
    path: str, read: Callable[[sqlite3.Connection, str], Iterator[tuple[Any, ...]]]
) -> Iterator[tuple[Any, ...]]:
    if not os.path.exists(path):
        raise EventStoreError(f"there is no file {path}")
    sqlite_wal.refuse_stale(path)
    try:
        with contextlib.ExitStack() as stack:
            connection = _connected(path, stack)
            yield from read(connection, path)
    except sqlite3.Error as error:
        raise translate_sqlite(error, path) from error


def _connected(path: str, stack: contextlib.ExitStack) -> sqlite3.Connection:
    # Not mode=ro at first: that one leaves the -wal and -shm files behind, which readers of a file in WAL
    # mode make. In a folder that we cannot write to it is all there is, if a writer has made them; if not,
    # nobody writes, and we look at the file as it is, or at a copy of it with its WAL.
    ways: list[Callable[[], str]] = [lambda: f"{path}?mode=rw", lambda: f"{path}?mode=ro"]
    has_wal = os.path.exists(f"{path}-wal") and os.path.getsize(f"{path}-wal") > 0
    ways.append((lambda: _copy(path, stack)) if has_wal else (lambda: f"{path}?mode=ro&immutable=1"))
    for way in ways:
        name, _, options = way().rpartition("?")
        connection = stack.enter_context(contextlib.closing(_connect(name, options)))
        try:
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        except sqlite3.OperationalError as error:
            if way is ways[-1] or error.sqlite_errorcode & 0xFF not in _NOT_WRITABLE:
                raise
        else:
            break
    connection.execute("PRAGMA query_only=ON")
    connection.text_factory = _text_or_bytes
    return connection


def _connect(path: str, options: str) -> sqlite3.Connection:
    uri = f"file:{quote(os.fsencode(path))}?{options}"
    return sqlite3.connect(uri, uri=True, timeout=_BUSY_TIMEOUT_S, isolation_level=None)


def _copy(path: str, stack: contextlib.ExitStack) -> str:
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="pyglyn-events-"))
    copy = os.path.join(folder, "events.db")
    for suffix in ("", "-wal"):
        shutil.copyfile(path + suffix, copy + suffix)
    return f"{copy}?mode=rw"


def _text_or_bytes(value: bytes) -> str | bytes:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value


def _sqlite_rows(
    connection: sqlite3.Connection, path: str, *, after: int, aggregate_id: str | None
) -> Iterator[tuple[Any, ...]]:
    """Read in pages, so that nobody who looks for long holds up writers."""
    tables = _sqlite_tables(connection)
    has_positions = "pyglyn_position" in tables
    _check(path, "event" in tables, has_positions, after)
    ids = () if aggregate_id is None else (aggregate_id,)
    make = _positioned if has_positions else _unpositioned_statement
    statement = make(by_id=aggregate_id is not None).replace("%s", "?")
    last: tuple[Any, ...] = (after,) if has_positions else ("", "", -1)
    while rows := connection.execute(statement, (*last, *ids, PAGE)).fetchall():
        yield from rows
        last = (rows[-1][0],) if has_positions else rows[-1][2:5]


def _sqlite_facts(
    connection: sqlite3.Connection, path: str, *, after: int, query: Query | None
) -> Iterator[tuple[Any, ...]]:
    _check_facts(path, "factos_events" in _sqlite_tables(connection))
    while True:
        statement, parameters = selection(query, after, PAGE)
        rows = connection.execute(statement.replace("%s", "?"), parameters).fetchall()
        yield from rows
        if len(rows) < PAGE:
            return
        after = rows[-1][0]


def _sqlite_tables(connection: sqlite3.Connection) -> set[str]:
    return {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def _positioned(*, by_id: bool) -> str:
    return positioned_statement(by_type=False, by_id=by_id)


# --- PostgreSQL --------------------------------------------------------------------------------------------


def _postgres(
    conninfo: str, read: Callable[[psycopg.Connection[Any]], Iterator[tuple[Any, ...]]]
) -> Iterator[tuple[Any, ...]]:
    """Read in one transaction, which there holds up nobody."""
    import psycopg

    from pyglyn.eventsourcing.stores.postgres_database import translate

    try:
        with contextlib.closing(psycopg.connect(conninfo)) as connection:
            connection.read_only = True
            connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            yield from read(connection)
    except psycopg.Error as error:
        raise translate(error) from error


def _postgres_has(connection: psycopg.Connection[Any], table: str) -> bool:
    found = connection.execute("SELECT to_regclass(%s) IS NOT NULL", (table,)).fetchone()
    return found is not None and bool(found[0])


def _by_cursor(
    connection: psycopg.Connection[Any], statement: str, parameters: Sequence[object]
) -> Iterator[tuple[Any, ...]]:
    with connection.cursor(name="events") as cursor:
        cursor.itersize = PAGE
        yield from cursor.execute(statement.encode(), parameters)


def _postgres_rows(
    connection: psycopg.Connection[Any], *, after: int, aggregate_id: str | None
) -> Iterator[tuple[Any, ...]]:
    has_positions = _postgres_has(connection, "pyglyn_position")
    _check("the database", _postgres_has(connection, "event"), has_positions, after)
    by_id, ids = aggregate_id is not None, () if aggregate_id is None else (aggregate_id,)
    if not has_positions:
        yield from _by_cursor(connection, _unpositioned_statement(by_id=by_id), ("", "", -1, *ids, NO_LIMIT))
        return
    yield from _by_cursor(connection, _positioned(by_id=by_id), (after, *ids, NO_LIMIT))
    yield from _by_cursor(connection, _pending_statement(by_id=by_id), ids)


def _postgres_facts(
    connection: psycopg.Connection[Any], *, after: int, query: Query | None
) -> Iterator[tuple[Any, ...]]:
    _check_facts("the database", _postgres_has(connection, "factos_events"))
    yield from _by_cursor(connection, *selection(query, after, None))


def _pending_statement(*, by_id: bool) -> str:
    columns = ", ".join(f"e.{column}" for column in EVENT_COLUMNS.split(", "))
    return f"""
    SELECT {NO_POSITION}, p.recorded_at, {columns} FROM pyglyn_pending AS p
    JOIN event AS e USING (aggregate_type, aggregate_id, sequence)
    {"WHERE p.aggregate_id = %s" if by_id else ""} ORDER BY p.id
    """
