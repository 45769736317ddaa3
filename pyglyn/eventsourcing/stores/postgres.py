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
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import attrs

from pyglyn.errors import (
    CommandRepeated,
    EventStoreError,
    StoreUnavailable,
    TransactionRolledBack,
    VersionConflict,
)
from pyglyn.eventsourcing.domain.envelope import EventEnvelope
from pyglyn.eventsourcing.domain.snapshot import Snapshot
from pyglyn.eventsourcing.stores.groups import Entry, Groups
from pyglyn.eventsourcing.stores.json.text import dump
from pyglyn.eventsourcing.stores.packed import (
    WORTH_IT,
    Packed,
    Packing,
    Rows,
    last_position,
    packed_statement,
    parts,
    unpacked,
)
from pyglyn.eventsourcing.stores.postgres_database import (
    LISTENER_LOCK,
    REPAIR_S,
    PostgresDatabase,
    import_psycopg,
    translate,
)
from pyglyn.eventsourcing.stores.postgres_transaction import (
    EVENT_LOCK,
    NOW,
    PostgresTransaction,
    checked,
    roll_back,
    violated,
)
from pyglyn.eventsourcing.stores.rows import EventRow, RowCodec, SnapshotRow, storable_text
from pyglyn.eventsourcing.stores.selection import PART_IN_POSTGRES, Scanned, Selection, conditions
from pyglyn.eventsourcing.stores.sql import (
    EVENT_COLUMNS,
    NO_LIMIT,
    SELECT_CHECKPOINT,
    SELECT_CHECKPOINTS,
    SELECT_COMMAND,
    SELECT_EVENTS,
    SELECT_PARKED_AGGREGATES,
    SELECT_POSITION,
    SELECT_SEQUENCE,
    SELECT_SNAPSHOT,
    Row,
    count_parked,
    position_exists,
    positioned_statement,
    read_checkpoint,
    read_checkpoints,
    read_command,
    read_keys,
    read_parked,
    scan_statement,
    scanned,
    select_parked,
    selected_statement,
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

if TYPE_CHECKING:
    from pyglyn.eventsourcing.stores.postgres_database import Connection

E = TypeVar("E")
S = TypeVar("S")

_POSITIONS_AT_ONCE = 10_000

_POSITION_LOCK = "hashtext('pyglyn_position'), hashtext(current_schema())"

# One statement, so one round trip and one transaction: the events if the sequence is the expected one, and
# what goes with them if there were events.
_ONE_NEW = "(VALUES (%s::bigint, %s::text, %s::text))"
"""A single event, which most commands cause: psycopg takes 20 µs to write an array."""

_SEVERAL_NEW = "unnest(%s::bigint[], %s::text[], %s::text[])"

_APPEND = f"""
WITH inserted AS (
  INSERT INTO event ({EVENT_COLUMNS})
  SELECT %s::text, %s::text, new.sequence, %s::text, new.version, new.payload, %s::text
  FROM {{new}} AS new (sequence, version, payload)
  WHERE (SELECT pg_advisory_xact_lock_shared({EVENT_LOCK})::text IS NOT NULL)
  AND (SELECT coalesce(max(sequence), 0) FROM event WHERE aggregate_type = %s AND aggregate_id = %s) = %s
  RETURNING 1
)"""
_APPEND_ONE = _APPEND.replace("{new}", _ONE_NEW)
_APPEND_SEVERAL = _APPEND.replace("{new}", _SEVERAL_NEW)
_WITH_SNAPSHOT = """, snapped AS (
  INSERT INTO snapshot (aggregate_type, aggregate_id, sequence, entity, timestamp)
  SELECT %s::text, %s::text, %s::bigint, %s::text, %s::int WHERE EXISTS (SELECT 1 FROM inserted)
  ON CONFLICT (aggregate_type, aggregate_id)
  DO UPDATE SET sequence = excluded.sequence, entity = excluded.entity, timestamp = excluded.timestamp
  RETURNING 1
)"""
_WITH_OUTBOX = f""", outgoing AS (
  INSERT INTO pyglyn_outbox (topic, body, attempts, available_at, created_at)
  SELECT message.topic, message.body, 0, 0, {NOW}
  FROM unnest(%s::text[], %s::text[]) WITH ORDINALITY AS message (topic, body, place)
  WHERE EXISTS (SELECT 1 FROM inserted) ORDER BY message.place
)"""
_WITH_COMMAND = f""", known AS (
  INSERT INTO pyglyn_command (id, aggregate_type, aggregate_id, sequence, events, done_at)
  SELECT %s::text, %s::text, %s::text, %s::bigint, %s::bigint, {NOW} WHERE EXISTS (SELECT 1 FROM inserted)
  RETURNING 1
)"""
_UNANNOUNCED = "busy"
# How an append is announced, and who gives positions: see schema/postgres_4.sql. Two locks that are free tell
# that nobody listens, and that nobody gives positions; nobody waits for them. Where there are enough appends
# for a group, the next reader gives the positions of many at once. What is not inserted concerns nobody.
_HOW = f"""set_config('pyglyn.quiet', CASE
  WHEN count(*) = 0 OR pg_try_advisory_xact_lock({LISTENER_LOCK}) THEN 'unheard'{{numbered}}
  ELSE '{_UNANNOUNCED}' END, true), set_config('pyglyn.commit_id', %s, true)"""
_HOW_ALONE = _HOW.format(numbered=f" WHEN pg_try_advisory_xact_lock({_POSITION_LOCK}) THEN 'numbered'")
_HOW_TOGETHER = _HOW.format(numbered="")
# Appends of different aggregates in one statement, which says which of them were at their sequence. Those
# that two groups have in common are inserted in the same order, so that none waits for the other.
_APPEND_GROUP = f"""
WITH new AS MATERIALIZED (
  SELECT * FROM json_to_recordset(%s::json) AS new (
    number int, aggregate_id text, expected bigint, sequence bigint, version text, payload text, metadata text
  )
), ready AS MATERIALIZED (
  SELECT number FROM new
  WHERE (SELECT pg_advisory_xact_lock_shared({EVENT_LOCK})::text IS NOT NULL)
  AND sequence = expected + 1 AND (
    SELECT coalesce(max(e.sequence), 0) FROM event AS e
    WHERE e.aggregate_type = %s AND e.aggregate_id = new.aggregate_id
  ) = expected
), inserted AS (
  INSERT INTO event ({EVENT_COLUMNS})
  SELECT %s::text, aggregate_id, sequence, %s::text, version, payload, metadata
  FROM new WHERE number IN (SELECT number FROM ready) ORDER BY aggregate_id, sequence
  RETURNING 1
)
SELECT count(*), {_HOW_TOGETHER}, ARRAY(SELECT number FROM ready) FROM inserted
"""

_COUNT = f"""
SELECT count(*), {_HOW_ALONE} FROM inserted"""
# What goes with the events may have to wait for another transaction, so it comes before the locks are tried:
# PostgreSQL leaves to the end what nobody asks for.
_AFTER_SNAPSHOT = ", (SELECT count(*) FROM snapped) AS s"
_AFTER_COMMAND = ", (SELECT count(*) FROM known) AS k"

# Committed events are in one of the two tables, and move from one to the other in one transaction.
_IS_OURS = """
WITH ours AS (SELECT %s::text AS type, %s::text AS id, %s::bigint AS sequence, %s::uuid AS commit_id)
SELECT EXISTS (
  SELECT 1 FROM pyglyn_pending AS p, ours
  WHERE (p.aggregate_type, p.aggregate_id, p.sequence, p.commit_id)
    = (ours.type, ours.id, ours.sequence, ours.commit_id)
) OR EXISTS (
  SELECT 1 FROM pyglyn_position AS p, ours
  WHERE (p.aggregate_type, p.aggregate_id, p.sequence, p.commit_id)
    = (ours.type, ours.id, ours.sequence, ours.commit_id)
)
"""
_FIRST_PAUSE_S = 0.01
_LONGEST_PAUSE_S = 0.5

# Gives positions, and reads up to so many events; see schema/postgres_4.sql.
_PAGE = "SELECT * FROM pyglyn_page(%s, %s, %s)"
_PAGE_MOST = 500

_ASSIGN = """
SELECT CASE WHEN pyglyn_is_pending() THEN pyglyn_assign_positions(%s) ELSE 0 END
"""
# What is sent together is one transaction. To plan the read takes five times as long as to read one event,
# but PostgreSQL would plan it each time, as it expects more rows behind most positions than at the end.
_ASSIGN_THEN_READ = f"{_ASSIGN.rstrip()}, set_config('plan_cache_mode', 'force_generic_plan', true)"


@attrs.define  # not frozen: one for each append
class _New:
    """What an append writes."""

    rows: list[EventRow]
    expected: int
    snapshot: Snapshot[Any] | None = None
    outbox: Sequence[OutboxMessage] = ()
    command_id: str | None = None


@attrs.frozen
class _Behind:
    """What reads the rows behind a position: two statements with the same parameters."""

    aggregate_type: str | None
    parameters: tuple[Any, ...]
    limit: int
    by_id: bool = False
    until: bool = False

    @property
    def is_worth_it(self) -> bool:
        """Whether there may be enough rows to pack them."""
        return self.limit >= WORTH_IT

    @property
    def statement(self) -> str:
        by_type = self.aggregate_type is not None
        return positioned_statement(by_type=by_type, by_id=self.by_id, until=self.until, limit=self.limit)

    @property
    def packed(self) -> str:
        return packed_statement(self.statement, by_type=self.aggregate_type is not None)


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
        self._open: tuple[int, PostgresDatabase] | None = None
        self._grouping: tuple[PostgresDatabase, Groups[_New]] | None = None
        self._end: int | None = None  # the last position, as it was last seen
        self._apart = 1  # positions among which there is one of ours
        self._packing = Packing()
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
        if self._open is not None:
            os_pid, database = self._open
            if os_pid == os.getpid() and database.loop is asyncio.get_running_loop():
                return database
            _inherited.append(database)  # sockets of another OS process or loop: neither used nor closed
        database = PostgresDatabase(
            self.conninfo,
            pool_size=self._pool_size,
            timeout=self._timeout,
            prepare_threshold=self._prepare_threshold,
            repair_s=self._repair_s,
        )
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
        messages = list(outbox)
        if snapshot is None and not messages and command_id is None:
            await self._groups().commit(aggregate_id, _New(rows, expected))
        else:
            await self._append_alone(_New(rows, expected, snapshot, messages, command_id))
        return list(envelopes)

    def _groups(self) -> Groups[_New]:
        database = self.database()
        if self._grouping is None or self._grouping[0] is not database:
            self._grouping = database, Groups(self._append_alone, self._append_together)
        return self._grouping[1]

    async def _append_alone(self, new: _New) -> None:
        commit_id = uuid.uuid4().hex
        first = new.rows[0]
        statement, parameters = self._append_statement(new, commit_id)
        try:
            await self._append(first.aggregate_id, new.expected, statement, parameters)
        except CommandRepeated:
            assert new.command_id is not None
            raise CommandRepeated(new.command_id) from None
        except StoreUnavailable as error:
            if not error.outcome_unknown:
                raise
            await self._append_again(error, new, commit_id)

    async def _append_together(self, group: list[Entry[_New]]) -> None:
        """Commit appends in one statement; where that does not work, one by one."""
        if len(group) == 1:
            await _settled(group[0], self._append_alone(group[0].item))
            return
        commit_id = uuid.uuid4().hex
        try:
            async with self.database().connection() as connection:
                ready = await self._insert_group(connection, group, commit_id)
        except StoreUnavailable as error:
            if not error.outcome_unknown:
                _fail(group, error)
                return
            for entry in group:
                await _settled(entry, self._append_again(error, entry.item, commit_id))
            return
        except EventStoreError:  # one of them was too late, or cannot be stored: the others can
            for entry in group:
                await _settled(entry, self._append_alone(entry.item))
            return
        for number, entry in enumerate(group):
            if number in ready:
                _succeed(entry)
            else:
                await _settled(entry, self._append_alone(entry.item))  # which says where the aggregate is

    async def _insert_group(
        self, connection: Connection, group: list[Entry[_New]], commit_id: str
    ) -> frozenset[int]:
        rows: list[Any] = [
            {
                "number": number,
                "aggregate_id": row.aggregate_id,
                "expected": entry.item.expected,
                "sequence": row.sequence,
                "version": row.event_version,
                "payload": row.payload,
                "metadata": row.metadata,
            }
            for number, entry in enumerate(group)
            for row in entry.item.rows
        ]
        first = group[0].item.rows[0]
        parameters = (
            dump(rows),
            first.aggregate_type,
            first.aggregate_type,
            first.event_type,
            commit_id,
        )
        try:
            cursor = await connection.execute(_APPEND_GROUP.encode(), parameters)
            row = await cursor.fetchone()
        except Exception as error:
            raise translate(error, writing=True) from error
        assert row is not None
        self.database().committed(unannounced=row[1] == _UNANNOUNCED)
        return frozenset(row[3])

    async def _append(
        self, aggregate_id: str, expected: int, statement: str, parameters: list[object]
    ) -> None:
        database = self.database()
        how: str | None = (
            _UNANNOUNCED  # if nothing is known: its answer is lost, or nobody waits for it any more
        )
        try:
            async with database.connection() as connection:
                try:
                    how = await self._insert(connection, statement, parameters)
                except CommandRepeated:
                    how = None
                    raise
                if how is None:
                    raise await self._conflict(connection, aggregate_id, expected)
        finally:
            if how is not None:
                database.committed(unannounced=how == _UNANNOUNCED)

    async def _append_again(self, error: EventStoreError, new: _New, commit_id: str) -> None:
        """Find out what became of an append whose answer was lost, by sending it once more.

        If the first one was (or still is going to be) committed, this one meets it at the same sequence and
        finds its commit id there; if not, this one is it. Either way the events are written once.

        Raises:
            VersionConflict: the first one was not committed, and somebody else's events are there.
            StoreUnavailable: no answer for three times as long as the store waits; the outcome stays unknown.
        """
        aggregate_id, expected = new.rows[0].aggregate_id, new.expected
        statement, parameters = self._append_statement(new, commit_id)
        pause, give_up_at = _FIRST_PAUSE_S, time.monotonic() + 3 * self._timeout
        while True:
            try:
                return await self._append(aggregate_id, expected, statement, parameters)
            except (VersionConflict, CommandRepeated):
                with contextlib.suppress(StoreUnavailable):
                    key = (self.aggregate_type, aggregate_id, expected + 1, commit_id)
                    if (await self.database().query(_IS_OURS, key))[0][0]:
                        return self.database().committed()
                    raise
            except (StoreUnavailable, TransactionRolledBack) as again:
                error = again
            if time.monotonic() + pause > give_up_at:
                raise StoreUnavailable(error.text, outcome_unknown=True) from error
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE_S)

    def _append_statement(self, append: _New, commit_id: str) -> tuple[str, list[object]]:
        rows, snapshot, messages, command_id = append.rows, append.snapshot, append.outbox, append.command_id
        first, count = rows[0], _COUNT
        new: list[object]
        if len(rows) == 1:
            statement, new = _APPEND_ONE, [first.sequence, first.event_version, first.payload]
        else:
            statement = _APPEND_SEVERAL
            new = [
                [row.sequence for row in rows],
                [row.event_version for row in rows],
                [row.payload for row in rows],
            ]
        parameters: list[object] = [
            first.aggregate_type,
            first.aggregate_id,
            first.event_type,
            first.metadata,
            *new,
            first.aggregate_type,
            first.aggregate_id,
            append.expected,
        ]
        if snapshot is not None:
            row = self._codec.snapshot_row(snapshot)
            statement += _WITH_SNAPSHOT
            count += _AFTER_SNAPSHOT
            parameters += [row.aggregate_type, row.aggregate_id, row.sequence, row.entity, row.timestamp]
        if messages:
            statement += _WITH_OUTBOX
            topics = [storable_text(message.topic, "topic") for message in messages]
            parameters += [
                topics,
                [storable_text(message.body, "message body") for message in messages],
            ]
        if command_id is not None:
            statement += _WITH_COMMAND
            count += _AFTER_COMMAND
            last = rows[-1]
            key = (last.aggregate_type, last.aggregate_id, last.sequence, len(rows))
            parameters += [storable_text(command_id, "command id"), *key]
        return statement + count, [*parameters, commit_id]

    async def _insert(self, connection: Connection, statement: str, parameters: list[object]) -> str | None:
        """Run an append, and return how it is announced; None when another writer was first."""
        import psycopg

        try:
            cursor = await connection.execute(statement.encode(), parameters)
            row = await cursor.fetchone()
        except psycopg.Error as error:
            if violated(error) == "event":
                return None
            if violated(error) == "pyglyn_command":
                raise CommandRepeated("") from error
            raise translate(error, writing=True) from error
        return row[1] if row is not None and row[0] > 0 else None

    async def _conflict(self, connection: Connection, aggregate_id: str, expected: int) -> VersionConflict:
        try:
            cursor = await connection.execute(SELECT_SEQUENCE, (self.aggregate_type, aggregate_id))
            row = await cursor.fetchone()
        except Exception as error:
            raise translate(error) from error
        return VersionConflict(aggregate_id, expected, row[0] if row is not None else None)

    # --- readers by position -------------------------------------------------------------------------

    async def read(
        self, after: int = 0, *, limit: int = BATCH, aggregate_id: str | None = None
    ) -> list[RecordedEvent[E]]:
        if limit <= 0:
            return []
        while True:
            page = await self._page(after, limit, aggregate_id)
            found = page.decode()
            if found or page.rows < limit:
                return found
            after = page.last

    async def read_page(self, after: int = 0, *, limit: int = BATCH) -> Page[E]:
        return await self._page(after, limit, None)

    async def _page(self, after: int, limit: int, aggregate_id: str | None) -> Page[E]:
        keys, by_id = read_keys(self.aggregate_type, aggregate_id), aggregate_id is not None
        rows = await self._rows_behind(after, keys, limit, by_id=by_id)
        decode = self._codec.recorded_rows
        return Page(
            len(rows),
            last_position(rows, after),
            partial(decode, rows),
            is_small=isinstance(rows, Packed) and not rows.is_large,
            parts=lambda size: parts(rows, size, decode),
        )

    async def _rows_behind(self, after: int, keys: Sequence[str], limit: int, *, by_id: bool) -> Rows:
        """Return rows behind a position: all that were committed when this was called, or ``limit``.

        What is behind the last position may have none yet. Near to where the end was last seen they are given
        first. Further away a statement is told until where to look: without that, statistics that are old, or
        missing, make PostgreSQL sort all that follows, for each page.
        """
        if self._end is None:
            await self.last_position()
        while True:
            until = after + limit * self._apart
            if by_id or self._end is None or until > self._end:
                break
            rows = await self._read(_Behind(self.aggregate_type, (after, until, *keys), limit, until=True))
            if len(rows) >= limit:
                self._note_distance(after, rows)
                return rows
            self._apart *= 4
        behind = _Behind(self.aggregate_type, (after, *keys), limit, by_id=by_id)
        if by_id and self._end is not None and after < self._end:
            rows = await self._read(behind)
            if len(rows) >= limit:
                return rows
        while True:
            given, rows = await self._numbered(behind)
            if len(rows) >= limit:
                self._end = None  # which may be far away now
                if not by_id:
                    self._note_distance(after, rows)
                return rows
            if given < _POSITIONS_AT_ONCE:
                self._end = last_position(rows, max(after, 0))
                return rows

    def _note_distance(self, after: int, rows: Rows) -> None:
        """Note how far our events are apart; where there are others in between, look twice as far."""
        span = last_position(rows, after) - after
        self._apart = 1 if span == len(rows) else -(-2 * span // len(rows))

    async def _read(self, behind: _Behind) -> Rows:
        database = self.database()
        if self._packing.is_worth_it and behind.is_worth_it:
            packed = self._unpacked(await database.query(behind.packed, behind.parameters))
            if packed is not None:
                return packed
        rows = await database.query(behind.statement, behind.parameters)
        self._packing.seen(rows)
        return rows

    async def _numbered(self, behind: _Behind) -> tuple[int, Rows]:
        """Give positions, to how many, then read."""
        number: int
        if self._packing.is_worth_it and WORTH_IT <= behind.limit <= _PAGE_MOST and not behind.by_id:
            parameters = (behind.parameters[0], self.aggregate_type, behind.limit)
            [(number, *found)] = await self.database().query(_PAGE, parameters)
            packed = self._unpacked([tuple(found)])
            return number, packed if packed is not None else await self._read(behind)
        given, rows = await self.database().queries(
            (_ASSIGN_THEN_READ, (_POSITIONS_AT_ONCE,)), (behind.statement, behind.parameters)
        )
        number = given[0][0]
        self._packing.seen(rows)
        return number, rows

    def _unpacked(self, rows: list[Row]) -> Packed | None:
        packed = unpacked(rows[0], self.aggregate_type)
        self._packing.seen(packed)
        return packed

    async def scan(self, selection: Selection, after: int = 0, *, limit: int = BATCH) -> Scanned:
        by_type, names = self.aggregate_type is not None, self._codec.names_of(selection.types)
        keys, database = read_keys(self.aggregate_type, None), self.database()
        while await self._assign_positions():
            pass
        [(looked, end)] = await database.query(scan_statement(by_type=by_type), (after, *keys))
        if not looked:
            return Scanned([], after, False)
        contains = "position(%s in e.payload) > 0"
        condition, parameters = conditions(selection, names, contains=contains, part=PART_IN_POSTGRES)
        statement = selected_statement(condition, by_type=by_type)
        rows = await database.query(statement, (after, end, *keys, *parameters, limit))
        kept = [
            one
            for event in self._codec.recorded_rows(rows)
            if (one := selection.kept(event, names)) is not None
        ]
        return scanned(kept, rows, limit, end, looked)

    async def _assign_positions(self) -> int:
        """Give positions to events committed since; return to how many."""
        rows = await self.database().query(_ASSIGN, (_POSITIONS_AT_ONCE,))
        assigned: int = rows[0][0]
        return assigned

    async def last_position(self) -> int:
        while await self._assign_positions():
            pass
        rows = await self.database().query("SELECT last_position FROM pyglyn_numbering()")
        position: int = rows[0][0]
        self._end = position
        return position

    async def position_of(self, aggregate_id: str, sequence: int) -> int | None:
        key, none_pending = (*self._codec.key(aggregate_id), sequence), False
        while True:
            rows = await self.database().query(SELECT_POSITION, key)
            if rows or none_pending:
                return rows[0][0] if rows else None
            none_pending = await self._assign_positions() == 0

    async def wait(self, after: int, *, timeout: float | None = None) -> bool:
        database = self.database()
        grown, news = database.grown, database.news
        try:
            if await self._exists_behind(after):
                return True
            database.listen()  # and if that begins only now, we are woken when it has
            async with asyncio.timeout(timeout):
                while not await self._told(grown, news):
                    grown, news = database.grown, database.news
                    if await self._exists_behind(after):
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

    async def _exists_behind(self, after: int) -> bool:
        by_type = self.aggregate_type is not None
        statement = f"{position_exists(by_type=by_type)}, pyglyn_is_pending()"
        parameters = (after, self.aggregate_type) if by_type else (after,)
        while True:
            [(exists, is_pending)] = await self.database().query(statement, parameters)
            if exists or not is_pending:
                return bool(exists)
            await self._assign_positions()

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


async def _settled(entry: Entry[_New], work: Awaitable[None]) -> None:
    """Tell the one who waits what became of its part."""
    try:
        await work
    except Exception as error:
        _fail([entry], error)
    else:
        _succeed(entry)


def _succeed(entry: Entry[_New]) -> None:
    if not entry.done.done():
        entry.done.set_result(None)


def _fail(group: list[Entry[_New]], error: Exception) -> None:
    for entry in group:
        if not entry.done.done():
            entry.done.set_exception(error)


_inherited: list[PostgresDatabase] = []
