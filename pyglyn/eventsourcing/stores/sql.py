"""What the SQL stores share: statements over the Gleam tables and over our side tables.

Statements are written with ``%s``; SQLite's store puts ``?`` there. Everything here runs inside a
transaction that the concrete store has begun.

Side tables (``schema/*.sql``): ``pyglyn_position`` gives every row of ``event`` its position, filled by
triggers; ``pyglyn_checkpoint``, ``pyglyn_parked`` and ``pyglyn_outbox`` belong to queries and publishers.
Those of process managers are in :mod:`pyglyn.eventsourcing.stores.sql_managing`.
"""

from __future__ import annotations

import abc
import re
import time
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from pyglyn.errors import CheckpointConflict, CommandRepeated, EventStoreError, VersionConflict
from pyglyn.eventsourcing.domain.envelope import EventEnvelope
from pyglyn.eventsourcing.domain.snapshot import Snapshot
from pyglyn.eventsourcing.stores.rows import (
    EventRow,
    RowCodec,
    SnapshotRow,
    shown_text,
    storable_text,
)
from pyglyn.eventsourcing.stores.selection import Scanned
from pyglyn.eventsourcing.stores.sql_managing import SqlManagerTables
from pyglyn.eventsourcing.stores.store import (
    Checkpoint,
    CommandRecord,
    Loaded,
    OutboxEntry,
    OutboxMessage,
    ParkedEvent,
    RecordedEvent,
    Replay,
    Transaction,
)

E = TypeVar("E")
S = TypeVar("S")

Row = tuple[Any, ...]

EVENT_COLUMNS = "aggregate_type, aggregate_id, sequence, event_type, event_version, payload, metadata"

INSERT_EVENT = f"INSERT INTO event ({EVENT_COLUMNS}) VALUES (%s, %s, %s, %s, %s, %s, %s)"

SELECT_EVENTS = f"""
SELECT {EVENT_COLUMNS} FROM event
WHERE aggregate_type = %s AND aggregate_id = %s AND sequence > %s
ORDER BY sequence LIMIT %s
"""

SELECT_SEQUENCE = (
    "SELECT coalesce(max(sequence), 0) FROM event WHERE aggregate_type = %s AND aggregate_id = %s"
)

SELECT_POSITION = """
SELECT position FROM pyglyn_position WHERE aggregate_type = %s AND aggregate_id = %s AND sequence = %s
"""

SELECT_SNAPSHOT = """
SELECT aggregate_type, aggregate_id, sequence, entity, timestamp FROM snapshot
WHERE aggregate_type = %s AND aggregate_id = %s
"""

# The Gleam stores leave the first timestamp in place; here it is the one of the entity beside it.
UPSERT_SNAPSHOT = """
INSERT INTO snapshot (aggregate_type, aggregate_id, sequence, entity, timestamp)
VALUES (%s, %s, %s, %s, %s)
ON CONFLICT (aggregate_type, aggregate_id)
DO UPDATE SET sequence = excluded.sequence, entity = excluded.entity, timestamp = excluded.timestamp
"""

_CHECKPOINT_COLUMNS = (
    "query, position, paused, updated_at, version, mark, replay_aggregate_id, replay_position, replay_until"
)

SELECT_CHECKPOINT = f"SELECT {_CHECKPOINT_COLUMNS} FROM pyglyn_checkpoint WHERE query = %s"

SELECT_CHECKPOINTS = f"SELECT {_CHECKPOINT_COLUMNS} FROM pyglyn_checkpoint ORDER BY query"

_INSERT_CHECKPOINT = f"""
INSERT INTO pyglyn_checkpoint ({_CHECKPOINT_COLUMNS}) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)
ON CONFLICT (query) DO """
_NEW_CHECKPOINT = f"{_INSERT_CHECKPOINT} NOTHING"
_SET_CHECKPOINT = f"""{_INSERT_CHECKPOINT} UPDATE
SET position = excluded.position, updated_at = excluded.updated_at, version = pyglyn_checkpoint.version + 1,
mark = '', replay_aggregate_id = NULL, replay_position = NULL, replay_until = NULL
"""
_SET_PAUSED = f"""{_INSERT_CHECKPOINT} UPDATE
SET paused = excluded.paused, updated_at = excluded.updated_at, version = pyglyn_checkpoint.version + 1
"""
_UPDATE_CHECKPOINT = """
UPDATE pyglyn_checkpoint SET position = %s, paused = %s, updated_at = %s, version = %s, mark = %s,
replay_aggregate_id = %s, replay_position = %s, replay_until = %s
WHERE query = %s AND version = %s
"""
_MOVE_CHECKPOINT = """
UPDATE pyglyn_checkpoint SET position = %s, updated_at = %s, version = version + 1, mark = '',
replay_aggregate_id = NULL, replay_position = NULL, replay_until = NULL
WHERE query = %s AND position = %s
"""

_PARK = """
INSERT INTO pyglyn_parked
(query, aggregate_type, aggregate_id, sequence, position, format, raw, error, attempts, parked_at)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
ON CONFLICT (query, aggregate_type, aggregate_id, sequence)
DO UPDATE SET error = excluded.error, attempts = excluded.attempts
"""
_SELECT_PARKED = """
SELECT id, query, aggregate_type, aggregate_id, sequence, position, format, raw, error, attempts, parked_at
FROM pyglyn_parked"""

COUNT_PARKED = "SELECT count(*) FROM pyglyn_parked WHERE query = %s"

COUNT_PARKED_OF_AGGREGATE = f"{COUNT_PARKED} AND aggregate_id = %s"

SELECT_PARKED_AGGREGATES = "SELECT DISTINCT aggregate_id FROM pyglyn_parked WHERE query = %s"

_PUT_OUTBOX = """
INSERT INTO pyglyn_outbox (topic, body, attempts, available_at, created_at) VALUES (%s, %s, 0, 0, {now})
"""


SELECT_COMMAND = "SELECT id, aggregate_id, sequence, events FROM pyglyn_command WHERE id = %s"

_REMEMBER_COMMAND = """
INSERT INTO pyglyn_command (id, aggregate_type, aggregate_id, sequence, events, done_at)
VALUES (%s, %s, %s, %s, %s, {now})
"""


def read_command(rows: list[Row]) -> CommandRecord | None:
    """Read the row of ``SELECT_COMMAND``, if there is one."""
    return CommandRecord(*rows[0]) if rows else None


def remember_command(id: str, rows: list[EventRow], now: str) -> tuple[str, tuple[object, ...]]:
    """Return the statement that remembers a command with its events, and its parameters."""
    last = rows[-1]
    key = (last.aggregate_type, last.aggregate_id, last.sequence, len(rows))
    return _REMEMBER_COMMAND.replace("{now}", now), (storable_text(id, "command id"), *key)


def positioned_statement(*, by_type: bool, by_id: bool, until: bool = False, limit: int | None = None) -> str:
    """Return the statement of a reader by position; parameters: after[, until][, type][, id][, limit].

    The limit applies to the side table first, so that the plan walks its key and looks up single events.
    """
    conditions = "position > %s AND position <= %s" if until else "position > %s"
    if by_type:
        conditions += " AND aggregate_type = %s"
    if by_id:
        conditions += " AND aggregate_id = %s"
    columns = ", ".join(f"e.{column}" for column in EVENT_COLUMNS.split(", "))
    most = "%s" if limit is None else f"{limit:d}"
    return f"""
    SELECT p.position, p.recorded_at, {columns}
    FROM (SELECT * FROM pyglyn_position WHERE {conditions} ORDER BY position LIMIT {most}) AS p
    LEFT JOIN event AS e
    ON e.aggregate_type = p.aggregate_type AND e.aggregate_id = p.aggregate_id AND e.sequence = p.sequence
    ORDER BY p.position
    """


SCAN = 10_000
"""Positions that one statement looks through for those that are selected."""


def scan_statement(*, by_type: bool) -> str:
    """Return the statement that tells how far to look: how many, the last; parameters: after[, type]."""
    condition = " AND aggregate_type = %s" if by_type else ""
    return f"""
    SELECT count(*), max(position) FROM (
      SELECT position FROM pyglyn_position WHERE position > %s{condition} ORDER BY position LIMIT {SCAN}
    ) AS p
    """


def selected_statement(conditions: str, *, by_type: bool) -> str:
    """Return the statement of a reader that selects; parameters: after, until[, type], conditions', limit."""
    condition = " AND p.aggregate_type = %s" if by_type else ""
    columns = ", ".join(f"e.{column}" for column in EVENT_COLUMNS.split(", "))
    return f"""
    SELECT p.position, p.recorded_at, {columns} FROM pyglyn_position AS p JOIN event AS e
    ON e.aggregate_type = p.aggregate_type AND e.aggregate_id = p.aggregate_id AND e.sequence = p.sequence
    WHERE p.position > %s AND p.position <= %s{condition}{conditions} ORDER BY p.position LIMIT %s
    """


def scanned(found: list[RecordedEvent[Any]], rows: list[Row], limit: int, end: int, looked: int) -> Scanned:
    """Say how far was looked: to the last of ``limit`` rows, or to the end of the positions counted."""
    if len(rows) >= limit:
        return Scanned(found, rows[-1][0], True)
    return Scanned(found, end, looked >= SCAN)


def read_keys(aggregate_type: str | None, aggregate_id: str | None) -> list[str]:
    """Return the parameters of that statement between ``after`` and the limit."""
    ids = [] if aggregate_id is None else [storable_text(aggregate_id, "aggregate id")]
    return ids if aggregate_type is None else [aggregate_type, *ids]


def position_exists(*, by_type: bool) -> str:
    """Return the statement that asks for anything behind a position; parameters: after[, type].

    To a bare EXISTS PostgreSQL looks through the whole table, once its plan is one for all parameters: it
    expects to come across such a row at once, and there usually is none.
    """
    condition = " AND aggregate_type = %s" if by_type else ""
    first = f"SELECT position FROM pyglyn_position WHERE position > %s{condition} ORDER BY position LIMIT 1"
    return f"SELECT ({first}) IS NOT NULL"


_ENDS = re.compile(
    r"\s*(BEGIN|START\s+TRANSACTION|COMMIT|END|ABORT|ROLLBACK(?!\s+((WORK|TRANSACTION)\s+)?TO\b)|PREPARE\s+TRANSACTION)\b",
    re.IGNORECASE,
)


def inside(statement: str) -> str:
    """Return a statement of the application; one that begins or ends a transaction is refused.

    Raises:
        EventStoreError: it does. What the transaction holds is committed together or not at all.
    """
    if _ENDS.match(statement):
        raise EventStoreError(
            f"a transaction does not begin or end inside another one: {statement.strip()[:80]}"
        )
    return statement


def now_ms() -> int:
    """Return the time as the side tables keep it."""
    return int(time.time() * 1000)


class SqlTransaction(SqlManagerTables, Transaction[E, S]):
    """Everything a transaction can do, over one function that runs a statement."""

    _lock_rows = ""  # PostgreSQL: concurrent takers of the outbox skip each other's rows
    _now = ""  # the database's clock, in milliseconds: leases are the same for all who take them

    def __init__(self, codec: RowCodec[E, S]) -> None:
        self._codec = codec

    @abc.abstractmethod
    async def _run(self, statement: str, parameters: Sequence[object] = ()) -> tuple[list[Row], int]:
        """Run one of our statements; return its rows and how many it changed."""

    async def load(self, aggregate_id: str, *, use_snapshot: bool = True) -> Loaded[E, S]:
        key = self._codec.key(aggregate_id)
        snapshot: Snapshot[S] | None = None
        if use_snapshot:
            rows, _ = await self._run(SELECT_SNAPSHOT, key)
            snapshot = self._codec.usable_snapshot(SnapshotRow(*rows[0]) if rows else None)
        after = snapshot.sequence if snapshot is not None else 0
        rows, _ = await self._run(SELECT_EVENTS, (*key, after, NO_LIMIT))
        return Loaded(snapshot, list(self._codec.event_rows(rows)))

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
        await self.require(aggregate_id, expected)
        for row in rows:
            await self._run(INSERT_EVENT, event_parameters(row))
        if snapshot is not None:
            await self._run(UPSERT_SNAPSHOT, snapshot_parameters(self._codec.snapshot_row(snapshot)))
        await self.put_outbox(outbox)
        if command_id is not None:
            if await self.find_command(command_id) is not None:
                raise CommandRepeated(command_id)
            await self._run(*remember_command(command_id, rows, self._now))
        return list(envelopes)

    async def remember_refusal(self, command_id: str, aggregate_id: str, sequence: int) -> None:
        statement = _REMEMBER_COMMAND.replace("{now}", self._now) + "ON CONFLICT (id) DO NOTHING"
        key = (*self._codec.key(aggregate_id), sequence, 0)
        _, changed = await self._run(statement, (storable_text(command_id, "command id"), *key))
        if not changed:
            raise CommandRepeated(command_id)

    async def find_command(self, id: str) -> CommandRecord | None:
        rows, _ = await self._run(SELECT_COMMAND, (storable_text(id, "command id"),))
        return read_command(rows)

    async def drop_snapshot(self, aggregate_id: str) -> None:
        statement = "DELETE FROM snapshot WHERE aggregate_type = %s AND aggregate_id = %s"
        await self._run(statement, self._codec.key(aggregate_id))

    async def require(self, aggregate_id: str, sequence: int) -> None:
        found, _ = await self._run(SELECT_SEQUENCE, self._codec.key(aggregate_id))
        if found[0][0] != sequence:
            raise VersionConflict(aggregate_id, sequence, found[0][0])

    # --- checkpoints ---------------------------------------------------------------------------------

    async def checkpoint(self, query: str) -> int:
        return (await self.load_checkpoint(query)).position

    async def checkpoints(self) -> list[Checkpoint]:
        rows, _ = await self._run(SELECT_CHECKPOINTS)
        return read_checkpoints(rows)

    async def load_checkpoint(self, query: str) -> Checkpoint:
        rows, _ = await self._run(SELECT_CHECKPOINT, (query,))
        return read_checkpoint(query, rows)

    async def update_checkpoint(self, checkpoint: Checkpoint) -> None:
        values, seen = _checkpoint_row(checkpoint), checkpoint.version - 1
        changed = 0
        if seen == 0:
            _, changed = await self._run(_NEW_CHECKPOINT, values)
        if not changed:
            _, changed = await self._run(_UPDATE_CHECKPOINT, (*values[1:], checkpoint.query, seen))
        if not changed:
            stored = await self.load_checkpoint(checkpoint.query)
            raise CheckpointConflict(checkpoint.query, seen, stored.version, what="version")

    async def save_checkpoint(self, query: str, position: int, *, expected: int | None = None) -> None:
        new = _checkpoint_row(Checkpoint(query, position, version=1))
        if expected is None:
            await self._run(_SET_CHECKPOINT, new)
            return
        _, changed = await self._run(_MOVE_CHECKPOINT, (position, now_ms(), query, expected))
        if not changed and expected == 0:
            _, changed = await self._run(_NEW_CHECKPOINT, new)
        if not changed:
            raise CheckpointConflict(query, expected, await self.checkpoint(query))

    async def set_paused(self, query: str, paused: bool) -> None:
        await self._run(_SET_PAUSED, _checkpoint_row(Checkpoint(query, paused=paused, version=1)))

    # --- parked events -------------------------------------------------------------------------------

    async def park(self, event: ParkedEvent) -> None:
        await self._run(
            _PARK,
            (
                storable_text(event.query, "query name"),
                shown_text(event.aggregate_type),
                shown_text(event.aggregate_id),
                event.sequence,
                event.position,
                event.format,
                event.raw,
                shown_text(event.error),
                event.attempts,
                int(event.parked_at * 1000),
            ),
        )

    async def parked(
        self, query: str | None = None, *, aggregate_id: str | None = None, limit: int | None = None
    ) -> list[ParkedEvent]:
        rows, _ = await self._run(*select_parked(query, aggregate_id, limit))
        return read_parked(rows)

    async def count_parked(self, query: str, *, aggregate_id: str | None = None) -> int:
        rows, _ = await self._run(*count_parked(query, aggregate_id))
        count: int = rows[0][0]
        return count

    async def parked_aggregates(self, query: str) -> set[str]:
        rows, _ = await self._run(SELECT_PARKED_AGGREGATES, (query,))
        return {row[0] for row in rows}

    async def unpark(self, id: int) -> bool:
        _, changed = await self._run("DELETE FROM pyglyn_parked WHERE id = %s", (id,))
        return changed > 0

    # --- outbox --------------------------------------------------------------------------------------

    async def put_outbox(self, messages: Iterable[OutboxMessage]) -> None:
        for message in messages:
            await self._run(*put_outbox_statement(message, self._now))

    async def take_lease(self, name: str, owner: str, seconds: float) -> bool:
        statement = f"""
        INSERT INTO pyglyn_lease (name, owner, until) VALUES (%s, %s, {self._now} + %s)
        ON CONFLICT (name) DO UPDATE SET owner = excluded.owner, until = excluded.until
        WHERE pyglyn_lease.owner = excluded.owner OR pyglyn_lease.until <= {self._now}
        RETURNING 1
        """
        rows, _ = await self._run(statement, (name, owner, int(seconds * 1000)))
        return bool(rows)

    async def end_lease(self, name: str, owner: str) -> None:
        await self._run("DELETE FROM pyglyn_lease WHERE name = %s AND owner = %s", (name, owner))

    async def lease_owner(self, name: str) -> str | None:
        rows, _ = await self._run("SELECT owner FROM pyglyn_lease WHERE name = %s", (name,))
        return str(rows[0][0]) if rows else None

    async def take_outbox(self, topic: str, *, limit: int = 100, lease_s: float = 30.0) -> list[OutboxEntry]:
        statement = f"""
        SELECT id, topic, body, attempts, created_at FROM pyglyn_outbox
        WHERE topic = %s AND available_at <= {self._now} ORDER BY id LIMIT %s{self._lock_rows}
        """
        rows, _ = await self._run(statement, (topic, limit))
        entries = [
            OutboxEntry(id=row[0], topic=row[1], body=row[2], attempts=row[3], created_at=row[4] / 1000)
            for row in rows
        ]
        await self._for_ids(
            f"UPDATE pyglyn_outbox SET available_at = {self._now} + %s WHERE id IN ",
            (int(lease_s * 1000),),
            [entry.id for entry in entries],
        )
        return entries

    async def finish_outbox(self, ids: Sequence[int]) -> None:
        await self._for_ids("DELETE FROM pyglyn_outbox WHERE id IN ", (), ids)

    async def fail_outbox(self, ids: Sequence[int], error: str, *, retry_after_s: float = 0.0) -> None:
        statement = f"""
        UPDATE pyglyn_outbox SET attempts = attempts + 1, available_at = {self._now} + %s, last_error = %s
        WHERE id IN """
        await self._for_ids(statement, (int(retry_after_s * 1000), shown_text(error)), ids)

    async def outbox_size(self, topic: str | None = None) -> int:
        if topic is None:
            rows, _ = await self._run("SELECT count(*) FROM pyglyn_outbox")
        else:
            rows, _ = await self._run("SELECT count(*) FROM pyglyn_outbox WHERE topic = %s", (topic,))
        count: int = rows[0][0]
        return count

    async def _for_ids(self, statement: str, parameters: tuple[object, ...], ids: Sequence[int]) -> None:
        for start in range(0, len(ids), _IDS_PER_STATEMENT):
            part = ids[start : start + _IDS_PER_STATEMENT]
            await self._run(statement + "(" + ", ".join(["%s"] * len(part)) + ")", (*parameters, *part))


_IDS_PER_STATEMENT = 500  # below SQLite's old limit of 999 parameters

NO_LIMIT = 2**62
"""More rows than there are; both databases accept it as a LIMIT."""


def event_parameters(row: EventRow) -> tuple[object, ...]:
    """Return a row as parameters of ``INSERT_EVENT``."""
    return (
        row.aggregate_type,
        row.aggregate_id,
        row.sequence,
        row.event_type,
        row.event_version,
        row.payload,
        row.metadata,
    )


def snapshot_parameters(row: SnapshotRow) -> tuple[object, ...]:
    """Return a row as parameters of ``UPSERT_SNAPSHOT``."""
    return (row.aggregate_type, row.aggregate_id, row.sequence, row.entity, row.timestamp)


def put_outbox_statement(message: OutboxMessage, now: str) -> tuple[str, tuple[object, ...]]:
    """Return the statement that writes an outbox message, and its parameters."""
    topic, body = storable_text(message.topic, "topic"), storable_text(message.body, "message body")
    return _PUT_OUTBOX.replace("{now}", now), (topic, body)


def select_parked(
    query: str | None, aggregate_id: str | None, limit: int | None
) -> tuple[str, tuple[object, ...]]:
    """Return the statement that lists parked events, and its parameters."""
    conditions: list[str] = []
    parameters: list[object] = []
    if query is not None:
        conditions.append("query = %s")
        parameters.append(query)
    if aggregate_id is not None:
        conditions.append("aggregate_id = %s")
        parameters.append(aggregate_id)
    where = " WHERE " + " AND ".join(conditions) if conditions else ""
    return f"{_SELECT_PARKED}{where} ORDER BY id LIMIT %s", (
        *parameters,
        NO_LIMIT if limit is None else limit,
    )


def count_parked(query: str, aggregate_id: str | None) -> tuple[str, tuple[object, ...]]:
    """Return the statement that counts parked events, and its parameters."""
    if aggregate_id is None:
        return COUNT_PARKED, (query,)
    return COUNT_PARKED_OF_AGGREGATE, (query, aggregate_id)


def read_parked(rows: Iterable[Row]) -> list[ParkedEvent]:
    """Read the rows of ``select_parked``."""
    return [
        ParkedEvent(
            id=row[0],
            query=row[1],
            aggregate_type=row[2],
            aggregate_id=row[3],
            sequence=row[4],
            position=row[5],
            format=row[6],
            raw=bytes(row[7]),
            error=row[8],
            attempts=row[9],
            parked_at=row[10] / 1000,
        )
        for row in rows
    ]


def _checkpoint_row(checkpoint: Checkpoint) -> tuple[object, ...]:
    replay = checkpoint.replay
    return (
        storable_text(checkpoint.query, "query name"),
        checkpoint.position,
        int(checkpoint.paused),
        now_ms(),
        checkpoint.version,
        checkpoint.mark,
        None if replay is None else storable_text(replay.aggregate_id, "aggregate id"),
        None if replay is None else replay.position,
        None if replay is None else replay.until,
    )


def read_checkpoints(rows: Iterable[Row]) -> list[Checkpoint]:
    """Read the rows of ``SELECT_CHECKPOINTS``."""
    return [
        Checkpoint(
            query=row[0],
            position=row[1],
            paused=bool(row[2]),
            updated_at=row[3] / 1000,
            version=row[4],
            mark=row[5],
            replay=None if row[6] is None else Replay(row[6], row[7], row[8]),
        )
        for row in rows
    ]


def read_checkpoint(query: str, rows: list[Row]) -> Checkpoint:
    """Read the row of ``SELECT_CHECKPOINT``, if there is one."""
    return read_checkpoints(rows)[0] if rows else Checkpoint(query)
