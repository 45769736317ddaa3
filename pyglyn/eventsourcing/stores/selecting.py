"""One statement that reads, for somebody who is not trusted with more: SQLite and PostgreSQL.

Each has a connection of its own, which ends with it, so nothing that it sets outlives it.

- SQLite: the file is opened ``mode=ro`` with ``query_only``; an authorizer lets it select and call functions
  and do nothing else (no ATTACH, PRAGMA or transaction of its own); a progress handler looks at the clock.
- PostgreSQL: see :mod:`pyglyn.eventsourcing.stores.selecting_postgres`.

Not supported: stores of one's own.

Layer: eventsourcing, stores.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import sqlite3
import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from pyglyn.errors import EventStoreError, StoreUnavailable
from pyglyn.eventsourcing.stores.opening import open_store
from pyglyn.eventsourcing.stores.read_only_sql import Kept, ReadOnlySql, Selected, database_of, too_long
from pyglyn.eventsourcing.stores.sqlite import SqliteStore
from pyglyn.eventsourcing.stores.sqlite_database import translate
from pyglyn.eventsourcing.stores.store import EventStore

STEPS = 1000
"""After how many instructions SQLite looks at the clock."""

_READS = re.compile(
    r"(?:\s|\(|--[^\n]*(?:\n|$)|/\*.*?\*/)*(select|with|values|table|explain)\b", re.IGNORECASE | re.DOTALL
)

_ALLOWED = frozenset(
    (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE)
)


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
    from pyglyn.eventsourcing.stores import selecting_postgres

    conninfo: str = inside.conninfo  # type: ignore[attr-defined]
    return await selecting_postgres.select(conninfo, statement, parameters, limits)


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
                raise too_long(self._limits) from error
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
        kept = Kept(self._limits)
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
