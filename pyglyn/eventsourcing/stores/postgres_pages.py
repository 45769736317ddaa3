"""Pages of events of PostgreSQL, by position.

Positions are given by who reads: see ``schema/postgres.sql``. Where many small events are read they come as
one row, each column packed (see ``packed``).

Layer: eventsourcing, stores.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import attrs

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
from pyglyn.eventsourcing.stores.postgres_database import PostgresDatabase
from pyglyn.eventsourcing.stores.rows import RowCodec
from pyglyn.eventsourcing.stores.selection import PART_IN_POSTGRES, Scanned, Selection, conditions
from pyglyn.eventsourcing.stores.sql import (
    SELECT_POSITION,
    Row,
    position_exists,
    positioned_statement,
    read_keys,
    scan_statement,
    scanned,
    selected_statement,
)
from pyglyn.eventsourcing.stores.store import BATCH, Page

_POSITIONS_AT_ONCE = 10_000

# Gives positions, and reads up to so many events; see schema/postgres_4.sql.
_PAGE = "SELECT * FROM pyglyn_page(%s, %s, %s)"
_PAGE_MOST = 500

_ASSIGN = """
SELECT CASE WHEN pyglyn_is_pending() THEN pyglyn_assign_positions(%s) ELSE 0 END
"""
# What is sent together is one transaction. To plan the read takes five times as long as to read one event,
# but PostgreSQL would plan it each time, as it expects more rows behind most positions than at the end.
_ASSIGN_THEN_READ = f"{_ASSIGN.rstrip()}, set_config('plan_cache_mode', 'force_generic_plan', true)"


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
        return packed_statement(self.statement, self.limit, by_type=self.aggregate_type is not None)


class PostgresPages:
    """Reads the pages of one store from its database, and has positions given first."""

    def __init__(self, database: PostgresDatabase, codec: RowCodec[Any, Any]) -> None:
        self._database = database
        self._codec = codec
        self._aggregate_type = codec.aggregate_type
        self._end: int | None = None  # the last position, as it was last seen
        self._apart = 1  # positions among which there is one of ours
        self._packing = Packing()

    async def page(self, after: int, limit: int, aggregate_id: str | None = None) -> Page[Any]:
        """As `EventStore.read_page`, of all events or those of one aggregate."""
        keys, by_id, most = read_keys(self._aggregate_type, aggregate_id), aggregate_id is not None, limit
        rows = await self._many_behind(after, keys, limit) if limit > BATCH and not by_id else None
        if rows is None:
            most = limit if by_id else min(limit, BATCH, self._packing.most)
            rows = await self._rows_behind(after, keys, most, by_id=by_id)
        decode = self._codec.recorded_rows
        return Page(
            len(rows),
            last_position(rows, after),
            partial(decode, rows),
            is_small=isinstance(rows, Packed) and not rows.is_large,
            parts=lambda size: parts(rows, size, decode),
            is_cut=len(rows) >= most < limit,
        )

    async def _many_behind(self, after: int, keys: Sequence[str], limit: int) -> Rows | None:
        """Return as many rows as are asked for; None where they may not all be small, or there."""
        if self._end is None:
            await self.last_position()
        until = after + limit * self._apart
        if self._end is None or until > self._end or not self._packing.is_worth_it:
            return None
        behind = _Behind(self._aggregate_type, (after, until, *keys), limit, until=True)
        rows = self._unpacked(await self._database.query(behind.packed, behind.parameters))
        if rows is None or len(rows) < limit:
            return None
        self._note_distance(after, rows)
        return rows

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
            rows = await self._read(_Behind(self._aggregate_type, (after, until, *keys), limit, until=True))
            if len(rows) >= limit:
                self._note_distance(after, rows)
                return rows
            self._apart *= 4
        behind = _Behind(self._aggregate_type, (after, *keys), limit, by_id=by_id)
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
        if self._packing.is_worth_it and behind.is_worth_it:
            packed = self._unpacked(await self._database.query(behind.packed, behind.parameters))
            if packed is not None:
                return packed
        rows = await self._database.query(behind.statement, behind.parameters)
        self._packing.seen(rows)
        return rows

    async def _numbered(self, behind: _Behind) -> tuple[int, Rows]:
        """Give positions, to how many, then read."""
        number: int
        if self._packing.is_worth_it and WORTH_IT <= behind.limit <= _PAGE_MOST and not behind.by_id:
            parameters = (behind.parameters[0], self._aggregate_type, behind.limit)
            [(number, *found)] = await self._database.query(_PAGE, parameters)
            packed = self._unpacked([tuple(found)])
            return number, packed if packed is not None else await self._read(behind)
        given, rows = await self._database.queries(
            (_ASSIGN_THEN_READ, (_POSITIONS_AT_ONCE,)), (behind.statement, behind.parameters)
        )
        number = given[0][0]
        self._packing.seen(rows)
        return number, rows

    def _unpacked(self, rows: list[Row]) -> Packed | None:
        packed = unpacked(rows[0], self._aggregate_type)
        self._packing.seen(packed)
        return packed

    async def scan(self, selection: Selection, after: int, limit: int) -> Scanned:
        """As `EventStore.scan`."""
        by_type, names = self._aggregate_type is not None, self._codec.names_of(selection.types)
        keys = read_keys(self._aggregate_type, None)
        while await self._assign_positions():
            pass
        [(looked, end)] = await self._database.query(scan_statement(by_type=by_type), (after, *keys))
        if not looked:
            return Scanned([], after, False)
        contains = "position(%s in e.payload) > 0"
        condition, parameters = conditions(selection, names, contains=contains, part=PART_IN_POSTGRES)
        statement = selected_statement(condition, by_type=by_type)
        rows = await self._database.query(statement, (after, end, *keys, *parameters, limit))
        kept = [
            one
            for event in self._codec.recorded_rows(rows)
            if (one := selection.kept(event, names)) is not None
        ]
        return scanned(kept, rows, limit, end, looked)

    async def _assign_positions(self) -> int:
        """Give positions to events committed since; return to how many."""
        rows = await self._database.query(_ASSIGN, (_POSITIONS_AT_ONCE,))
        assigned: int = rows[0][0]
        return assigned

    async def last_position(self) -> int:
        """As `EventStore.last_position`."""
        while await self._assign_positions():
            pass
        rows = await self._database.query("SELECT last_position FROM pyglyn_numbering()")
        position: int = rows[0][0]
        self._end = position
        return position

    async def position_of(self, aggregate_id: str, sequence: int) -> int | None:
        """As `EventStore.position_of`."""
        key, none_pending = (*self._codec.key(aggregate_id), sequence), False
        while True:
            rows = await self._database.query(SELECT_POSITION, key)
            if rows or none_pending:
                return rows[0][0] if rows else None
            none_pending = await self._assign_positions() == 0

    async def exists_behind(self, after: int) -> bool:
        """Whether there is an event; it has its position then."""
        by_type = self._aggregate_type is not None
        statement = f"{position_exists(by_type=by_type)}, pyglyn_is_pending()"
        parameters = (after, self._aggregate_type) if by_type else (after,)
        while True:
            [(exists, is_pending)] = await self._database.query(statement, parameters)
            if exists or not is_pending:
                return bool(exists)
            await self._assign_positions()
