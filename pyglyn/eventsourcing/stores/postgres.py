"""The PostgreSQL store. Shares its database with the Gleam store ``eventsourcing_postgres``. Needs psycopg 3.

How it excludes other writers: a Gleam service takes ``LOCK TABLE event IN ACCESS EXCLUSIVE MODE`` before it
reads, so it waits for our transaction and sees its events. An append of ours is one statement whose condition
is the expected sequence; if a Gleam service (or anybody) commits first, the condition or the primary key
refuses it, which is a ``VersionConflict``. Appends to different aggregates do not wait for each other. An
append whose answer was lost is sent again until it is known to be written, once.

A transaction is READ COMMITTED for PostgreSQL, whatever the database's default is. Appends share an advisory
lock that a serializable one has for itself, so nothing ever has to be rolled back and tried again for it. (At
PostgreSQL's SERIALIZABLE single appends and Gleam services would not take part, and small tables conflict
all the time.) Whoever takes that lock has a lock on the table before, so a Gleam service that waits for the
table stands between the two for nobody.

How a position is given is written in ``schema/postgres.sql``: after the commit, by the next reader; or with
the commit of a single append, where somebody waits and nothing else is without one. So
there are no gaps for transactions that are still open, and an unrelated long transaction holds up nobody.

Waking up: NOTIFY, whoever inserted; see :mod:`pyglyn.eventsourcing.stores.postgres_database`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any, TypeVar

import attrs

from pyglyn.errors import StoreUnavailable
from pyglyn.eventsourcing.domain.envelope import EventEnvelope
from pyglyn.eventsourcing.domain.snapshot import Snapshot
from pyglyn.eventsourcing.stores.packed import read_pages
from pyglyn.eventsourcing.stores.postgres_appends import New, PostgresAppends
from pyglyn.eventsourcing.stores.postgres_database import REPAIR_S, PostgresDatabase, import_psycopg
from pyglyn.eventsourcing.stores.postgres_pages import PostgresPages
from pyglyn.eventsourcing.stores.postgres_transaction import NOW, PostgresTransaction, checked, roll_back
from pyglyn.eventsourcing.stores.rows import RowCodec, SnapshotRow, storable_text
from pyglyn.eventsourcing.stores.selection import Scanned, Selection
from pyglyn.eventsourcing.stores.sql import (
    NO_LIMIT,
    SELECT_CHECKPOINT,
    SELECT_CHECKPOINTS,
    SELECT_COMMAND,
    SELECT_EVENTS,
    SELECT_PARKED_AGGREGATES,
    SELECT_SEQUENCE,
    SELECT_SNAPSHOT,
    Row,
    count_parked,
    read_checkpoint,
    read_checkpoints,
    read_command,
    read_parked,
    select_parked,
)
from pyglyn.eventsourcing.stores.sql_managing import SqlManagerReads
from pyglyn.eventsourcing.stores.store import (
    BATCH,
    Checkpoint,
    CommandRecord,
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


@attrs.frozen
class _Open:
    """What belongs to one OS process and event loop."""

    os_pid: int
    database: PostgresDatabase
    appends: PostgresAppends
    pages: PostgresPages

    @property
    def is_ours(self) -> bool:
        return self.os_pid == os.getpid() and self.database.loop is asyncio.get_running_loop()


class PostgresStore(SqlManagerReads, EventStore[E, S]):
    """Events of one aggregate type in a PostgreSQL database (in the first schema of the ``search_path``)."""

    has_sql = True
    _now = NOW

    def __init__(
        self,
        conninfo: str,
        codec: RowCodec[E, S],
        *,
        pool_size: int = 10,
        timeout: float = 3.0,
        prepare_threshold: int | None = 5,
        isolation: Isolation = "serializable",
        repair_s: float = REPAIR_S,
    ) -> None:
        """Describe the store; it connects at the first use.

        Args:
            conninfo: a ``postgresql://`` URL or libpq's key=value form. Never shown: it may have a password.
            codec: writes and reads the rows.
            pool_size: connections at most, the listening one not counted.
            timeout: seconds to wait for a free connection, or for the server to come back; three times as
                long to find out what became of an append whose answer was lost.
            prepare_threshold: psycopg's; None for a server that keeps no prepared statements. A pooler is
                recognised, and needs no setting.
            isolation: of transactions that do not say.
            repair_s: after how many seconds a waiting reader looks for events that nobody announced, because
                their writer died too early.

        Raises:
            EventStoreError: psycopg is not installed, or there is no such isolation.
        """
        import_psycopg()
        self._isolation = checked(isolation)
        self.aggregate_type = codec.aggregate_type
        self.conninfo = conninfo
        self._codec = self.codec = codec
        self._pool_size = pool_size
        self._timeout = timeout
        self._prepare_threshold = prepare_threshold
        self._repair_s = repair_s
        self._open: _Open | None = None
        if type(self).__init__ is PostgresStore.__init__:
            options: dict[str, Any] = {
                "pool_size": pool_size,
                "timeout": timeout,
                "prepare_threshold": prepare_threshold,
                "isolation": isolation,
                "repair_s": repair_s,
            }
            self.reopen = partial(type(self), conninfo, codec, **options)

    def database(self) -> PostgresDatabase:
        """Return the database of this OS process and event loop."""
        return self._opened().database

    def _opened(self) -> _Open:
        if self._open is not None:
            if self._open.is_ours:
                return self._open
            _inherited.append(self._open.database)  # sockets of another one: neither used nor closed
        database = PostgresDatabase(
            self.conninfo,
            pool_size=self._pool_size,
            timeout=self._timeout,
            prepare_threshold=self._prepare_threshold,
            repair_s=self._repair_s,
        )
        appends = PostgresAppends(database, self._codec, self._timeout)
        self._open = _Open(os.getpid(), database, appends, PostgresPages(database, self._codec))
        return self._open

    def check_state(self, entity: S) -> None:
        self._codec.check_state(entity)

    async def start(self) -> None:
        await self.database().start()

    async def close(self) -> None:
        was, self._open = self._open, None
        if was is not None and was.is_ours:
            await was.database.close()

    # --- aggregates ----------------------------------------------------------------------------------

    async def load(self, aggregate_id: str, *, use_snapshot: bool = True) -> Loaded[E, S]:
        key = self._codec.key(aggregate_id)
        database = self.database()
        snapshot: Snapshot[S] | None = None
        if use_snapshot:
            rows = await database.query(SELECT_SNAPSHOT, key)
            snapshot = self._codec.usable_snapshot(SnapshotRow(*rows[0]) if rows else None)
        # Events committed since that statement come along: the log only grows, so the sum is a later moment.
        after = snapshot.sequence if snapshot is not None else 0
        rows = await database.query(SELECT_EVENTS, (*key, after, NO_LIMIT))
        return Loaded(snapshot, list(self._codec.event_rows(rows)))

    async def load_events(
        self, aggregate_id: str, start_from: int = 0, *, limit: int | None = None
    ) -> list[EventEnvelope[E]]:
        most = NO_LIMIT if limit is None else max(limit, 0)
        parameters = (*self._codec.key(aggregate_id), start_from, most)
        rows = await self.database().query(SELECT_EVENTS, parameters)
        return list(self._codec.event_rows(rows))

    async def last_sequence(self, aggregate_id: str) -> int:
        rows = await self.database().query(SELECT_SEQUENCE, self._codec.key(aggregate_id))
        sequence: int = rows[0][0]
        return sequence

    async def latest_snapshot(self, aggregate_id: str) -> Snapshot[S] | None:
        rows = await self.database().query(SELECT_SNAPSHOT, self._codec.key(aggregate_id))
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
        rows = self._codec.rows(envelopes)
        await self._opened().appends.commit(New(rows, expected, snapshot, list(outbox), command_id))
        return list(envelopes)

    # --- readers by position -------------------------------------------------------------------------

    async def read(
        self, after: int = 0, *, limit: int = BATCH, aggregate_id: str | None = None
    ) -> list[RecordedEvent[E]]:
        def behind(after: int, limit: int) -> Awaitable[Page[E]]:
            return self._opened().pages.page(after, limit, aggregate_id)

        return await read_pages(behind, after, limit)

    async def read_page(self, after: int = 0, *, limit: int = BATCH) -> Page[E]:
        return await self._opened().pages.page(after, limit)

    async def scan(self, selection: Selection, after: int = 0, *, limit: int = BATCH) -> Scanned:
        return await self._opened().pages.scan(selection, after, limit)

    async def last_position(self) -> int:
        return await self._opened().pages.last_position()

    async def position_of(self, aggregate_id: str, sequence: int) -> int | None:
        return await self._opened().pages.position_of(aggregate_id, sequence)

    async def wait(self, after: int, *, timeout: float | None = None) -> bool:
        database = self.database()
        grown, news = database.grown, database.news
        try:
            if await self._opened().pages.exists_behind(after):
                return True
            database.listen()  # and if that begins only now, we are woken when it has
            async with asyncio.timeout(timeout):
                while not await self._told(grown, news):
                    grown, news = database.grown, database.news
                    if await self._opened().pages.exists_behind(after):
                        break
        except TimeoutError:
            return False
        except StoreUnavailable:
            return True  # a cut connection is a reason to look: reading tells whether it lasts
        return True

    async def _told(self, grown: asyncio.Event, news: int) -> bool:
        """Wait until it is time to look; True if others have told of events: to read is as quick as that."""
        database = self.database()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(database.look_s):
                await grown.wait()
        return database.news != news

    # --- side tables ---------------------------------------------------------------------------------

    async def checkpoint(self, query: str) -> int:
        return (await self.load_checkpoint(query)).position

    async def load_checkpoint(self, query: str) -> Checkpoint:
        return read_checkpoint(query, await self.database().query(SELECT_CHECKPOINT, (query,)))

    async def find_command(self, id: str) -> CommandRecord | None:
        parameters = (storable_text(id, "command id"),)
        return read_command(await self.database().query(SELECT_COMMAND, parameters))

    async def checkpoints(self) -> list[Checkpoint]:
        return read_checkpoints(await self.database().query(SELECT_CHECKPOINTS))

    async def parked(
        self, query: str | None = None, *, aggregate_id: str | None = None, limit: int | None = None
    ) -> list[ParkedEvent]:
        return read_parked(await self.database().query(*select_parked(query, aggregate_id, limit)))

    async def count_parked(self, query: str, *, aggregate_id: str | None = None) -> int:
        count: int = (await self.database().query(*count_parked(query, aggregate_id)))[0][0]
        return count

    async def parked_aggregates(self, query: str) -> set[str]:
        return {row[0] for row in await self.database().query(SELECT_PARKED_AGGREGATES, (query,))}

    async def _rows(self, statement: str, parameters: Sequence[object] = ()) -> list[Row]:
        return await self.database().query(statement, parameters)

    def transaction(
        self, *, isolation: Isolation | None = None
    ) -> AbstractAsyncContextManager[Transaction[E, S]]:
        return self._transaction(checked(isolation or self._isolation))

    @contextlib.asynccontextmanager
    async def _transaction(self, isolation: Isolation) -> AsyncIterator[Transaction[E, S]]:
        database = self.database()
        async with database.connection() as connection:
            tx = PostgresTransaction(self._codec, connection, alone=isolation == "serializable")
            try:
                await tx.begin()
                yield tx
                await tx.commit()
            except BaseException:
                await asyncio.shield(roll_back(connection))
                raise
            finally:
                tx.ended = True
                if tx.has_inserted:
                    database.committed()


_inherited: list[PostgresDatabase] = []
