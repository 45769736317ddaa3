"""Pages of events of SQLite, by position.

The way from a position to its event is by three columns of text. As both tables grow by one row at a time,
the rowid of an event usually is its position plus a number that many rows have in common, and the way by the
rowid costs a third. It is only taken where the three columns say that it is the right event; where one is
not, all are looked for by the columns. (Deletions, VACUUM and imports change rowids.)

A page comes as one row, each column in one JSON array, which SQLite puts together without the interpreter's
lock; and objects are made where they are used, by `Page.decode`: made in one thread and used in another they
go from one processor's cache to the other's, which costs more than to make them. What most events have in
common is not read at all. JSON has no bytes, which SQLite says; there, where an event is missing, and where
events are large, so that another copy of them counts, rows are read one by one, and decoded as they come.

Layer: eventsourcing, stores.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import attrs

from pyglyn.eventsourcing.stores.json.columns import integers, texts
from pyglyn.eventsourcing.stores.packed import LARGE, ROOM, Packed, Row, Rows, parts, share
from pyglyn.eventsourcing.stores.rows import NOTHING_USUAL, RowCodec, Usual
from pyglyn.eventsourcing.stores.sql import positioned_statement
from pyglyn.eventsourcing.stores.sqlite_database import SqliteDatabase, fetch, is_no_text
from pyglyn.eventsourcing.stores.store import BATCH, Page, RecordedEvent

_WORTH_A_LOOK = 8
"""Rows from which on it is worth while to find out where events are, and to have them in one row."""

_ALONE = 16
"""Pages that a reader has to have read without anybody else before it reads several at once.

Others would have to wait for these, and then until they are decoded, as their thread has to get the lock.
"""

_COMMON = ("aggregate_type", "event_type", "event_version", "metadata")
_OWN = ("recorded_at", "sequence", "aggregate_id", "payload")
_INTEGER_COLUMNS, _PAYLOADS = 3, 3
"""Of the position and these, how many are integers; which of these are the payloads."""
_PAYLOAD = 7
"""Which column of a row it is."""
_INTEGERS = re.compile(r"\[[-0-9,nul]*\]")
"""Neither texts nor floats, of which infinity is none in JSON."""


@attrs.frozen
class _Found:
    """What was read of a page in the database's thread.

    Attributes:
        rows, last: as of `Page`.
        events: as they are when rows were read one by one.
        packed: or the positions and the texts of the other columns.
        usual: what these leave out.
        is_uniform: whether there was nothing else.
        is_cut: as of `Page`.
    """

    rows: int
    last: int
    events: list[RecordedEvent[Any]]
    packed: tuple[list[int], Sequence[str]] | None = None
    usual: Usual = NOTHING_USUAL
    is_uniform: bool = False
    is_cut: bool = False

    @property
    def is_small(self) -> bool:
        """Whether there may be another one in memory."""
        return self.packed is not None and not _is_large(*self.packed)

    @property
    def is_divisible(self) -> bool:
        """Whether each row is an event."""
        return self.packed is not None or len(self.events) == self.rows


@attrs.define
class _Begun:
    """A page that the database's thread reads by itself, because the one before it was asked for.

    Attributes:
        limit: how many events it is to have.
        after: behind which position; None if there is nothing to read.
        connection, found: where it was found, and what; None as long as it was not.
        calls: how often the database was asked for something until then.
        alone: how many pages were read before it without anybody else asking for something.
    """

    limit: int
    after: int | None = None
    connection: sqlite3.Connection | None = None
    found: _Found | None = None
    calls: int = 0
    alone: int = 0

    def take(self, connection: sqlite3.Connection, limit: int) -> _Found | None:
        """Return what was found, if that is what is asked for."""
        return self.found if self.connection is connection and self.limit == limit else None


class _Fitting:
    """Rows, one at least, as long as there is room for their payloads.

    Attributes:
        size: how many characters these have that were asked for.
        is_cut: whether there are more rows.
    """

    def __init__(self, rows: Iterable[Row]) -> None:
        self._rows = rows
        self.size = 0
        self.is_cut = False

    def __iter__(self) -> Iterator[Row]:
        for row in self._rows:
            if self.size >= ROOM:
                self.is_cut = True
                return
            yield row
            self.size += _size(row)


def _size(row: Row) -> int:
    payload = row[_PAYLOAD]
    return len(payload) if isinstance(payload, str | bytes) else 0


class SqlitePages:
    """Reads the pages of one store, all its events or those of one aggregate."""

    def __init__(self, codec: RowCodec[Any, Any], *, by_id: bool) -> None:
        self._codec = codec
        self._usual = NOTHING_USUAL
        self._is_uniform = False  # the last page had nothing but what is usual
        self._is_at: int | None = None  # rowids less positions, as of the last page
        self._is_packed = True  # and could be had in one row, and was small enough for that
        self._most = ROOM  # and there is room for so many events as large as those of the last one
        by_type = codec.aggregate_type is not None
        conditions = " AND aggregate_type = ?" if by_type else ""
        conditions += " AND aggregate_id = ?" if by_id else ""
        self._by_columns = positioned_statement(by_type=by_type, by_id=by_id).replace("%s", "?")
        self._distance = f"""
        SELECT e.rowid - p.position
        FROM (SELECT * FROM pyglyn_position WHERE position > ?{conditions} ORDER BY position LIMIT 1) AS p
        JOIN event AS e USING (aggregate_type, aggregate_id, sequence)
        """
        conditions = conditions.replace("aggregate", "p.aggregate")
        self._by_rowid = self._rows("e.payload", conditions)
        small = "CASE WHEN length(e.payload) <= ? THEN e.payload END AS payload"
        self._packed = {of: self._packing(of, self._rows(small, conditions)) for of in (False, True)}

    def _rows(self, payload: str, conditions: str) -> str:
        return f"""
        SELECT p.position, p.recorded_at, nullif(e.aggregate_type, ?) AS aggregate_type, e.aggregate_id,
          e.sequence, nullif(e.event_type, ?) AS event_type, nullif(e.event_version, ?) AS event_version,
          {payload}, nullif(coalesce(e.metadata, '[]'), ?) AS metadata
        FROM pyglyn_position AS p LEFT JOIN event AS e
        ON e.rowid = p.position + ? AND e.sequence = p.sequence AND e.aggregate_id = p.aggregate_id
        AND e.aggregate_type = p.aggregate_type
        WHERE p.position > ?{conditions} ORDER BY p.position LIMIT ?
        """

    def _packing(self, is_uniform: bool, rows: str) -> str:
        others = () if is_uniform else _COMMON
        arrays = ", ".join(f"json_group_array({column})" for column in ("position", *_OWN, *others))
        whole = " AND ".join(f"count(*) = count({column})" for column in ("aggregate_id", "payload"))
        # Numbers are less than texts.
        least = " AND ".join(
            f"typeof(min({column})) IN ('text', 'null')" for column in ("aggregate_id", "payload", *others)
        )
        return f"""
        SELECT {whole} AND {least}, count(coalesce({", ".join(_COMMON)})), {arrays}
        FROM ({rows})
        """

    def read(self, connection: sqlite3.Connection, after: int, limit: int, keys: Sequence[str]) -> _Found:
        """Read what is behind a position, in the database's thread.

        Events that are packed are so small that there is room for many more than anybody asks for. Of others
        are read as many as there is room for, or where all have to be read before their size is known, would
        be if they were as large as the last ones.

        Args:
            connection: to read from.
            after, limit: as of `EventStore.read`.
            keys: the aggregate type and id that it is limited to, if it is.
        """
        if limit >= _WORTH_A_LOOK:
            if self._is_packed and self._is_at is not None:
                found = self._read_packed(connection, (self._is_at, after, *keys, limit))
                if found is not None:
                    return found
                self._is_packed = True  # as far as is known: they may be elsewhere
            rows, _ = fetch(connection, self._distance, (after, *keys))
            self._is_at = rows[0][0] if rows else None
            if rows:
                parameters = (self._is_at, after, *keys, limit)
                found = self._read_packed(connection, parameters) if self._is_packed else None
                if found is None:
                    found = self._read_by_rowid(connection, parameters)
                if found is not None:
                    return found
        most = min(limit, BATCH, self._most)
        rows, _ = fetch(connection, self._by_columns, (after, *keys, most))
        events, size = self._codec.recorded_rows(rows), sum(map(_size, rows))
        self._most = max(1, ROOM * len(rows) // size) if size else ROOM
        return _Found(len(rows), rows[-1][0] if rows else after, events, is_cut=len(rows) >= most < limit)

    def _read_packed(self, connection: sqlite3.Connection, parameters: Sequence[Any]) -> _Found | None:
        usual, is_uniform, self._is_packed = self._usual, self._is_uniform, False
        try:
            of, kind, version, metadata = _values(usual)
            values = of, kind, version, share(parameters[-1]), metadata
            row = connection.execute(self._packed[is_uniform], (*values, *parameters)).fetchone()
        except sqlite3.Error:  # rows have it as well, or can show what is there
            return None
        is_right, unusual, *columns = row
        if not is_right or not all(map(_INTEGERS.fullmatch, columns[:_INTEGER_COLUMNS])):
            return None
        if is_uniform and unusual:
            self._is_uniform = False
            return self._read_packed(connection, parameters)
        positions = integers(columns[0])
        if not positions:  # wherever events are
            self._is_packed = True
            return _Found(0, parameters[1], [])
        if positions != sorted(positions):
            return None
        self._is_uniform = not unusual
        packed = positions, columns[1:]
        self._is_packed = not _is_large(*packed)
        return _Found(len(positions), positions[-1], [], packed, usual, is_uniform)

    def _read_by_rowid(self, connection: sqlite3.Connection, parameters: Sequence[Any]) -> _Found | None:
        usual, gaps = self._usual, list[int]()
        fitting = _Fitting(connection.execute(self._by_rowid, (*_values(usual), *parameters)))
        try:
            events = self._codec.recorded_rows(fitting, usual, gaps)
        except sqlite3.OperationalError as error:
            if not is_no_text(error):
                raise
            return None
        if gaps or not events:
            return None
        self._is_packed = fitting.size <= LARGE * len(events)
        return _Found(len(events), events[-1].position, events, is_cut=fitting.is_cut)

    async def page(
        self,
        database: Callable[[], SqliteDatabase],
        after: int,
        limit: int,
        keys: Sequence[str],
        begun: _Begun | None = None,
    ) -> Page[Any]:
        """Read a page; called in the event loop's thread.

        Args:
            database: returns what it is read from, now.
            after, limit, keys: as of `read`.
            begun: the same page, which the thread may have read already. Then the thread reads on by itself.
        """
        ahead = _Begun(limit)

        def read(connection: sqlite3.Connection) -> _Found:
            found = begun.take(connection, limit) if begun is not None else None
            if found is None:
                found = self.read(connection, after, limit, keys)
            if found.rows >= limit and found.is_small:
                ahead.after = found.last
            return found

        def read_on(connection: sqlite3.Connection) -> None:
            if ahead.after is not None:
                ahead.found = self.read(connection, ahead.after, limit, keys)
                ahead.connection = connection

        used = database()
        found = await used.read(read, read_on if begun is not None else None)
        ahead.calls, last = used.calls, found.last
        if begun is not None and begun.calls + 1 == ahead.calls:
            ahead.alone = begun.alone + 1
        return Page(
            found.rows,
            last,
            partial(self._decoded, found),
            is_small=found.is_small and ahead.alone >= _ALONE,
            parts=partial(self._parts, found) if found.is_divisible else None,
            is_cut=found.is_cut,
            behind=lambda size: self.page(database, last, size, keys, ahead),
        )

    def _decoded(self, found: _Found) -> list[RecordedEvent[Any]]:
        if found.packed is not None:
            return self._part(found, _unpacked(*found.packed, found.usual))
        self._learn(found, found.events)
        return found.events

    def _parts(self, found: _Found, size: int) -> list[Page[Any]]:
        if found.packed is not None:
            rows = _unpacked(*found.packed, found.usual)
            return parts(rows, size, partial(self._part, found))
        several = [found.events[start : start + size] for start in range(0, found.rows, size)]
        return [Page(len(part), part[-1].position, partial(list, part)) for part in several]

    def _part(self, found: _Found, rows: Rows) -> list[RecordedEvent[Any]]:
        events = self._codec.recorded_rows(rows)
        self._learn(found, events)
        return events

    def _learn(self, found: _Found, events: list[RecordedEvent[Any]]) -> None:
        """Expect of the next events what these have."""
        if events and not found.is_uniform:
            self._usual = self._codec.usual(events[-1])


def _is_large(positions: list[int], columns: Sequence[str]) -> bool:
    return len(columns[_PAYLOADS]) > LARGE * len(positions)


def _values(usual: Usual) -> tuple[str | None, ...]:
    return usual.aggregate_type, usual.event_type, usual.event_version, usual.metadata


def _unpacked(positions: list[int], columns: Sequence[str], usual: Usual) -> Packed:
    times, sequences, ids, payloads, *common = columns
    if common:
        of, event_type, version, metadata = (
            [value if each is None else each for each in texts(column)]
            for column, value in zip(common, _values(usual), strict=True)
        )
    else:
        of, event_type, version, metadata = ([value] * len(positions) for value in _values(usual))
    others = (
        integers(times),
        of,
        texts(ids),
        integers(sequences),
        event_type,
        version,
        texts(payloads),
        metadata,
    )
    return Packed(positions, others)
