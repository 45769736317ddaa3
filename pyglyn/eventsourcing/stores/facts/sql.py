"""Logs of facts in SQLite and PostgreSQL, in factos' tables. Layer: eventsourcing, stores.

Who appends has the log for itself: SQLite has one writer at a time, in PostgreSQL the table is locked in
EXCLUSIVE MODE, as factos locks it. So identity columns are given in the order of commits.

Our own table of tags, filled by a trigger for writers of both languages, makes a query cost what it finds.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Sequence
from typing import Any

from pyglyn.errors import AppendConditionFailed, StoreUnavailable
from pyglyn.eventsourcing.stores.facts.log import (
    STREAM,
    FactLog,
    NewFact,
    Query,
    RawFact,
    checked,
    metadata_text,
    tags_text,
)
from pyglyn.eventsourcing.stores.facts.rows import LAST, fact_of, script, selection
from pyglyn.eventsourcing.stores.postgres_database import PostgresDatabase, translate
from pyglyn.eventsourcing.stores.rows import storable_text
from pyglyn.eventsourcing.stores.sql import Row
from pyglyn.eventsourcing.stores.sqlite import SqliteStore, wait_for_change
from pyglyn.eventsourcing.stores.sqlite_database import SqliteDatabase, run_script

_INSERT = """
INSERT INTO factos_events (id, stream, revision, type, version, tags, metadata, data)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s) RETURNING position
"""
_REVISION = "SELECT coalesce(max(revision), -1) FROM factos_events WHERE stream = %s"
_ONE_AT_A_TIME = b"SELECT pg_advisory_xact_lock(hashtext('pyglyn_facts'), hashtext(current_schema()))"


def _facts(rows: list[Row]) -> list[RawFact]:
    return [fact_of(row) for row in rows]


def _values(fact: NewFact, stream: str, revision: int) -> tuple[object, ...]:
    tags, metadata = tags_text(fact.tags), metadata_text(fact.metadata)
    return (fact.id, stream, revision, fact.type, fact.version, tags, metadata, fact.data)


def _written(fact: NewFact, stream: str, revision: int, position: int) -> RawFact:
    return RawFact(
        position=position,
        id=fact.id,
        stream=stream,
        revision=revision,
        type=fact.type,
        version=fact.version,
        tags=tuple(dict.fromkeys(fact.tags)),
        metadata=list(fact.metadata),
        data=fact.data,
    )


def _q(statement: str) -> str:
    return statement.replace("%s", "?")


class SqliteFactLog(FactLog):
    """Facts in a SQLite file."""

    def __init__(self, store: SqliteStore[Any, Any]) -> None:
        self._store = store
        self._made: SqliteDatabase | None = None

    def reopened(self) -> SqliteFactLog:
        store: Any = self._store.reopen() if self._store.reopen is not None else self._store
        return SqliteFactLog(store)

    def __reduce__(self) -> tuple[type[SqliteFactLog], tuple[Any]]:
        return SqliteFactLog, (self._store,)

    async def start(self) -> None:
        await self._database()

    async def close(self) -> None:
        self._made = None
        await self._store.close()

    async def _database(self) -> SqliteDatabase:
        database = self._store.database()
        if self._made is not database:
            await database.commit(lambda connection: run_script(connection, script("sqlite")))
            self._made = database
        return database

    async def read(
        self, query: Query | None = None, *, after: int = 0, limit: int | None = None
    ) -> list[RawFact]:
        statement, parameters = selection(query, after, limit)
        database = await self._database()
        return _facts(await database.read(lambda c: c.execute(_q(statement), parameters).fetchall()))

    async def append(
        self,
        facts: Sequence[NewFact],
        *,
        condition: Query | None = None,
        after: int = 0,
        stream: str = STREAM,
    ) -> list[RawFact]:
        checked(facts)
        storable_text(stream, "stream")

        def insert(connection: sqlite3.Connection) -> list[RawFact]:
            if condition is not None:
                statement, parameters = selection(condition, after, 1)
                if connection.execute(_q(statement), parameters).fetchone():
                    raise AppendConditionFailed(condition, after)
            first = connection.execute(_q(_REVISION), (stream,)).fetchone()[0] + 1
            return [
                _written(fact, stream, revision, connection.execute(_q(_INSERT), values).fetchone()[0])
                for revision, fact in enumerate(facts, first)
                if (values := _values(fact, stream, revision))
            ]

        return await (await self._database()).commit(insert)

    async def last_position(self) -> int:
        database = await self._database()
        position: int = await database.read(lambda c: c.execute(LAST).fetchone()[0])
        return position

    async def wait(self, after: int, *, timeout: float | None = None) -> bool:
        async def has_grown() -> bool:
            return await self.last_position() > after

        return await wait_for_change(await self._database(), has_grown, timeout)


class PostgresFactLog(FactLog):
    """Facts in a PostgreSQL database."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self._made: PostgresDatabase | None = None

    def reopened(self) -> PostgresFactLog:
        return PostgresFactLog(self._store.reopen() if self._store.reopen is not None else self._store)

    def __reduce__(self) -> tuple[type[PostgresFactLog], tuple[Any]]:
        return PostgresFactLog, (self._store,)

    async def start(self) -> None:
        await self._database()

    async def close(self) -> None:
        self._made = None
        await self._store.close()

    async def _database(self) -> PostgresDatabase:
        database: PostgresDatabase = self._store.database()
        if self._made is not database:
            async with database.connection() as connection:
                try:
                    async with connection.transaction():
                        await connection.execute(_ONE_AT_A_TIME)
                        await connection.execute(script("postgres").encode())
                except Exception as error:
                    raise translate(error) from error
            self._made = database
        return database

    async def read(
        self, query: Query | None = None, *, after: int = 0, limit: int | None = None
    ) -> list[RawFact]:
        return _facts(await (await self._database()).query(*selection(query, after, limit)))

    async def append(
        self,
        facts: Sequence[NewFact],
        *,
        condition: Query | None = None,
        after: int = 0,
        stream: str = STREAM,
    ) -> list[RawFact]:
        checked(facts)
        storable_text(stream, "stream")
        database = await self._database()
        made: list[RawFact] = []
        async with self._store.transaction(isolation="read committed") as tx:
            await tx.execute("LOCK TABLE factos_events IN EXCLUSIVE MODE")
            if condition is not None and await tx.execute(*selection(condition, after, 1)):
                raise AppendConditionFailed(condition, after)
            [(last,)] = await tx.execute(_REVISION, (stream,))
            for revision, fact in enumerate(facts, last + 1):
                [(position,)] = await tx.execute(_INSERT, _values(fact, stream, revision))
                made.append(_written(fact, stream, revision, position))
        database.committed(unannounced=False)
        return made

    async def last_position(self) -> int:
        position: int = (await (await self._database()).query(LAST))[0][0]
        return position

    async def wait(self, after: int, *, timeout: float | None = None) -> bool:
        try:
            if await self.last_position() > after:
                return True
            async with asyncio.timeout(timeout):
                await self._grown_behind(after)
        except TimeoutError:
            return False
        except StoreUnavailable:
            return True  # a cut connection is a reason to look: reading tells whether it lasts
        return True

    async def _grown_behind(self, after: int) -> None:
        database = await self._database()
        database.listen()
        while True:
            grown = database.grown
            if await self.last_position() > after:
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(database.look_s):
                    await grown.wait()
