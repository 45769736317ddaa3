"""How PostgreSQL takes appends: each is one statement, whose condition is the expected sequence.

What a command writes besides its events goes in the same statement. Where several wait, those with events
only go together, in one. One whose answer was lost is sent again until it is known to be written, once.

Layer: eventsourcing, stores.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import Awaitable, Sequence
from typing import TYPE_CHECKING, Any

import attrs

from pyglyn.errors import (
    CommandRepeated,
    EventStoreError,
    StoreUnavailable,
    TransactionRolledBack,
    VersionConflict,
)
from pyglyn.eventsourcing.domain.snapshot import Snapshot
from pyglyn.eventsourcing.stores.groups import Entry, Groups
from pyglyn.eventsourcing.stores.json.text import dump
from pyglyn.eventsourcing.stores.postgres_database import LISTENER_LOCK, PostgresDatabase, translate
from pyglyn.eventsourcing.stores.postgres_transaction import EVENT_LOCK, NOW, violated
from pyglyn.eventsourcing.stores.rows import EventRow, RowCodec, storable_text
from pyglyn.eventsourcing.stores.sql import EVENT_COLUMNS, SELECT_SEQUENCE
from pyglyn.eventsourcing.stores.store import OutboxMessage

if TYPE_CHECKING:
    from pyglyn.eventsourcing.stores.postgres_database import Connection

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


@attrs.define  # not frozen: one for each append
class New:
    """What an append writes."""

    rows: list[EventRow]
    expected: int
    snapshot: Snapshot[Any] | None = None
    outbox: Sequence[OutboxMessage] = ()
    command_id: str | None = None

    @property
    def is_plain(self) -> bool:
        """Whether there is nothing but events: then it can go with others."""
        return self.snapshot is None and not self.outbox and self.command_id is None


class PostgresAppends:
    """Writes the events of one store into its database.

    Args:
        database: into which.
        codec: writes snapshots.
        timeout: seconds; three times as long it is tried to find out what became of an append.
    """

    def __init__(self, database: PostgresDatabase, codec: RowCodec[Any, Any], timeout: float) -> None:
        self._database = database
        self._codec = codec
        self._timeout = timeout
        self._groups: Groups[New] = Groups(self._append_alone, self._append_together)

    async def commit(self, new: New) -> None:
        """Write events, and what goes with them, or nothing.

        Raises:
            VersionConflict: the aggregate is not at the expected sequence.
            CommandRepeated: the command's id is known already.
            StoreUnavailable: see `EventStore.append`.
        """
        if new.is_plain:
            await self._groups.commit(new.rows[0].aggregate_id, new)
        else:
            await self._append_alone(new)

    async def _append_alone(self, new: New) -> None:
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

    async def _append_together(self, group: list[Entry[New]]) -> None:
        """Commit appends in one statement; where that does not work, one by one."""
        if len(group) == 1:
            await _settled(group[0], self._append_alone(group[0].item))
            return
        commit_id = uuid.uuid4().hex
        try:
            async with self._database.connection() as connection:
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
        self, connection: Connection, group: list[Entry[New]], commit_id: str
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
        self._database.committed(unannounced=row[1] == _UNANNOUNCED)
        return frozenset(row[3])

    async def _append(
        self, aggregate_id: str, expected: int, statement: str, parameters: list[object]
    ) -> None:
        database = self._database
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

    async def _append_again(self, error: EventStoreError, new: New, commit_id: str) -> None:
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
                    key = (self._codec.aggregate_type, aggregate_id, expected + 1, commit_id)
                    if (await self._database.query(_IS_OURS, key))[0][0]:
                        return self._database.committed()
                    raise
            except (StoreUnavailable, TransactionRolledBack) as again:
                error = again
            if time.monotonic() + pause > give_up_at:
                raise StoreUnavailable(error.text, outcome_unknown=True) from error
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE_S)

    def _append_statement(self, append: New, commit_id: str) -> tuple[str, list[object]]:
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
            cursor = await connection.execute(SELECT_SEQUENCE, (self._codec.aggregate_type, aggregate_id))
            row = await cursor.fetchone()
        except Exception as error:
            raise translate(error) from error
        return VersionConflict(aggregate_id, expected, row[0] if row is not None else None)


async def _settled(entry: Entry[New], work: Awaitable[None]) -> None:
    """Tell the one who waits what became of its part."""
    try:
        await work
    except Exception as error:
        _fail([entry], error)
    else:
        _succeed(entry)


def _succeed(entry: Entry[New]) -> None:
    if not entry.done.done():
        entry.done.set_result(None)


def _fail(group: list[Entry[New]], error: Exception) -> None:
    for entry in group:
        if not entry.done.done():
            entry.done.set_exception(error)
