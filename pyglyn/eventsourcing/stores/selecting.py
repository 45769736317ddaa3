"""One statement that reads, for somebody who is not trusted with more: SQLite and PostgreSQL.

Each has a connection of its own, which ends with it, so nothing that it sets outlives it.

- SQLite: the file is opened ``mode=ro`` with ``query_only``; an authorizer lets it select and call functions
  and do nothing else (no ATTACH, PRAGMA or transaction of its own); a progress handler looks at the clock.
- PostgreSQL: a transaction that is READ ONLY, with ``statement_timeout``; the statement goes by the extended
  protocol, which takes one only, so it cannot end that transaction and go on. What functions do is the
  role's to do: give a URL with a role that may do little.

Only as many rows are kept as were asked for, and only so many bytes. Not supported: stores of one's own.

Layer: eventsourcing, stores.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import decimal
import json
import os
import re
import sqlite3
import time
import uuid
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import attrs

from pyglyn.errors import EventStoreError, NonPositiveArgument, StoreUnavailable
from pyglyn.eventsourcing.stores.opening import open_store
from pyglyn.eventsourcing.stores.sqlite import SqliteStore
from pyglyn.eventsourcing.stores.sqlite_database import translate
from pyglyn.eventsourcing.stores.store import EventStore
from pyglyn.eventsourcing.stores.wrapped import WrappedStore

if TYPE_CHECKING:
    import psycopg

STEPS = 1000
"""After how many instructions SQLite looks at the clock."""

_READS = re.compile(
    r"(?:\s|\(|--[^\n]*(?:\n|$)|/\*.*?\*/)*(select|with|values|table|explain)\b", re.IGNORECASE | re.DOTALL
)

_ALLOWED = frozenset(
    (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE)
)


@attrs.frozen(kw_only=True)
class ReadOnlySql:
    """That a query's database may be asked, and what a statement may take.

    Attributes:
        rows: so many are returned at most.
        size: so many bytes of values are, and of one value in SQLite.
        seconds: for so long it may run.
        url: of the same database, to ask as a role that may do less; of ``into`` unless given.

    Raises:
        NonPositiveArgument: a limit is not more than 0.
        EventStoreError: the URL is none of SQLite or PostgreSQL.
    """

    rows: int = 1000
    size: int = 1 << 20
    seconds: float = 5.0
    url: str | None = attrs.field(default=None, repr=False)

    def __attrs_post_init__(self) -> None:
        if min(self.rows, self.size, self.seconds) <= 0:
            raise NonPositiveArgument(f"limits are more than 0, got {self}")
        if self.url is not None:
            database_of(open_store(self.url))


@attrs.frozen
class Selected:
    """What a statement has found.

    Attributes:
        columns: their names.
        rows: as tuples of None, bool, int, float, str and bytes.
        complete: False where the limits have left something out.
    """

    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]
    complete: bool = True


def database_of(store: EventStore[Any, Any]) -> EventStore[Any, Any]:
    """Return the store that speaks SQL inside of others.

    Raises:
        EventStoreError: it is neither SQLite nor PostgreSQL.
    """
    while isinstance(store, WrappedStore):
        store = store.underlying
    if not isinstance(store, SqliteStore) and not hasattr(store, "conninfo"):
        raise EventStoreError(f"only SQLite and PostgreSQL answer statements, not a {type(store).__name__}")
    return store


async def select(
    store: EventStore[Any, Any], statement: str, parameters: Sequence[object], limits: ReadOnlySql
) -> Selected:
    """Run one statement that reads.

    Args:
        store: its database is asked.
        statement: with ``?`` for SQLite and ``%s`` for PostgreSQL, as `Transaction.execute` takes it.
        parameters: None, bool, int, float, str and bytes.
        limits: what it may take.

    Raises:
        EventStoreError: the statement is none that reads, is refused or fails, or takes too long.
        StoreUnavailable: the database is away.
    """
    if _READS.match(statement) is None:
        raise EventStoreError("a statement that reads begins with SELECT, WITH, VALUES, TABLE or EXPLAIN")
    inside = database_of(store if limits.url is None else open_store(limits.url))
    if isinstance(inside, SqliteStore):
        return await _Sqlite(inside.path, limits).select(statement, parameters)
    return await _postgres(inside.conninfo, statement, parameters, limits)  # type: ignore[attr-defined]


class _Kept:
    """The rows that are kept, as long as there is room."""

    def __init__(self, limits: ReadOnlySql) -> None:
        self._limits = limits
        self._size = 0
        self.rows: list[tuple[Any, ...]] = []

    def take(self, row: Iterable[Any]) -> bool:
        """Keep a row; False if there is no room for it."""
        plain = tuple(map(_plain, row))
        self._size += sum(len(value) if isinstance(value, str | bytes) else 8 for value in plain)
        if len(self.rows) >= self._limits.rows or self._size > self._limits.size:
            return False
        self.rows.append(plain)
        return True


def _plain(value: Any) -> Any:
    """Make a value one of those that travel."""
    match value:
        case None | bool() | int() | str() | bytes():
            return value
        case float():
            return value if value - value == 0.0 else str(value)
        case bytearray() | memoryview():
            return bytes(value)
        case datetime.datetime() | datetime.date() | datetime.time():
            return value.isoformat()
        case decimal.Decimal() | uuid.UUID() | datetime.timedelta():
            return str(value)
        case dict() | list():
            return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)


def _too_long(limits: ReadOnlySql) -> EventStoreError:
    return EventStoreError(f"the statement takes longer than the {limits.seconds:g} s that it may")


class _Sqlite:
    """One statement to a file, in a thread of its own."""

    def __init__(self, path: str, limits: ReadOnlySql) -> None:
        self._path = path
        self._limits = limits
        self._over = time.monotonic() + limits.seconds
        self._called_off = False

    async def select(self, statement: str, parameters: Sequence[object]) -> Selected:
        try:
            return await asyncio.to_thread(self._select, statement, parameters)
        finally:
            self._called_off = True  # the thread sees it at its next instructions

    def _select(self, statement: str, parameters: Sequence[object]) -> Selected:
        if not os.path.exists(self._path):
            raise StoreUnavailable(f"there is no file {self._path}")
        uri = f"file:{quote(os.fsencode(os.path.abspath(self._path)))}?mode=ro"
        try:
            with contextlib.closing(
                sqlite3.connect(uri, uri=True, timeout=self._limits.seconds, isolation_level=None)
            ) as connection:
                return self._on(connection, statement, parameters)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode == sqlite3.SQLITE_INTERRUPT:
                raise _too_long(self._limits) from error
            raise translate(error, self._path) from error
        except sqlite3.Error as error:
            if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_AUTH:
                raise EventStoreError(f"the statement does more than reading: {error}") from error
            raise translate(error, self._path) from error
        except (OverflowError, ValueError) as error:
            raise EventStoreError(f"the statement cannot be run: {error}") from error

    def _on(self, connection: sqlite3.Connection, statement: str, parameters: Sequence[object]) -> Selected:
        connection.text_factory = _text_or_bytes
        connection.execute("PRAGMA query_only=ON")
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, self._limits.size)
        connection.setlimit(sqlite3.SQLITE_LIMIT_SQL_LENGTH, min(self._limits.size, 1_000_000))
        connection.set_authorizer(_authorized)
        connection.set_progress_handler(self._is_over, STEPS)
        kept = _Kept(self._limits)
        cursor = connection.execute(statement, tuple(parameters))
        columns = tuple(each[0] for each in cursor.description or ())
        complete = all(map(kept.take, cursor))
        cursor.close()
        return Selected(columns, kept.rows, complete)

    def _is_over(self) -> int:
        return int(self._called_off or time.monotonic() >= self._over)


def _authorized(action: int, first: str | None, second: str | None, *_: str | None) -> int:
    if action == sqlite3.SQLITE_FUNCTION and second == "load_extension":
        return sqlite3.SQLITE_DENY
    return sqlite3.SQLITE_OK if action in _ALLOWED else sqlite3.SQLITE_DENY


def _text_or_bytes(value: bytes) -> str | bytes:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value


# --- PostgreSQL --------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def _read_only(conninfo: str, seconds: float) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
    import psycopg

    milliseconds = max(1, round(seconds * 1000))
    options: dict[str, Any] = {"autocommit": True, "client_encoding": "utf8", "prepare_threshold": None}
    connection = await psycopg.AsyncConnection.connect(conninfo, **options)
    try:
        await connection.execute(b"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        for name in ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"):
            await connection.execute(f"SET LOCAL {name} TO {milliseconds}".encode())
        yield connection
    finally:
        await connection.close()  # which undoes what was set


async def _postgres(
    conninfo: str, statement: str, parameters: Sequence[object], limits: ReadOnlySql
) -> Selected:
    import psycopg

    from pyglyn.eventsourcing.stores.postgres_database import translate as ours

    if len(statement) > min(limits.size, 1_000_000):
        raise EventStoreError("the statement is too long")
    try:
        async with asyncio.timeout(limits.seconds + 1.0), _read_only(conninfo, limits.seconds) as connection:
            return await _rows(connection.cursor(), statement, parameters, _Kept(limits))
    except TimeoutError as error:
        raise _too_long(limits) from error
    except psycopg.errors.QueryCanceled as error:
        raise _too_long(limits) from error
    except psycopg.errors.ReadOnlySqlTransaction as error:
        raise EventStoreError(f"the statement does more than reading: {ours(error)}") from error
    except (psycopg.Error, UnicodeError, ValueError) as error:
        raise ours(error) from error


async def _rows(
    cursor: psycopg.AsyncCursor[Any], statement: str, parameters: Sequence[object], kept: _Kept
) -> Selected:
    """Read row by row. `stream` always takes the extended protocol: one statement, whatever is in it."""
    columns: list[str] = []
    rows: Any = cursor.stream(statement.encode(), tuple(parameters) or None)
    async with contextlib.aclosing(rows):
        async for row in rows:
            columns = columns or [each.name for each in cursor.description or ()]
            if not kept.take(row):
                return Selected(tuple(columns), kept.rows, complete=False)
    return Selected(tuple(columns or await _columns(cursor)), kept.rows)


async def _columns(cursor: psycopg.AsyncCursor[Any]) -> list[str]:
    """Ask for the columns of a statement that has found nothing: `stream` does not tell them."""
    from psycopg import generators

    connection, query = cursor.connection, cursor._query
    assert query is not None
    connection.pgconn.send_prepare(b"", query.query, query.types)
    await connection.wait(generators.execute(connection.pgconn))
    connection.pgconn.send_describe_prepared(b"")
    [described] = await connection.wait(generators.execute(connection.pgconn))
    return [(described.fname(number) or b"").decode() for number in range(described.nfields)]
