"""The care of a store: migrate, copy, verify, archive, count. For the command line; blocking, no event loop.

Everything works on rows, so it needs no types of the application. Databases are found by the URLs of
`open_store`; only SQLite and PostgreSQL have something to care for.

Copies keep positions, times, metadata, snapshots, checkpoints, parked events, the outbox, facts, and what
process managers have. A copy that was broken off goes on where it was. The source may be in use: the last
events and all the rest are read as they were at one moment. The target must not be.

Layer: eventsourcing, stores.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import attrs

from pyglyn.errors import EventStoreError
from pyglyn.eventsourcing.stores import layout
from pyglyn.eventsourcing.stores.care_database import PAGE, Database, opened
from pyglyn.eventsourcing.stores.facts import care as facts_care
from pyglyn.eventsourcing.stores.rows import EventRow, PositionedRow, RowCodec
from pyglyn.eventsourcing.stores.sql import Row
from pyglyn.eventsourcing.stores.store import RecordedEvent

Progress = Callable[[int, int], None]
"""Told after each page: events done, and how many there are."""

_SNAPSHOT = ("aggregate_type", "aggregate_id", "sequence", "entity", "timestamp")
_COPIED = (
    "pyglyn_checkpoint",
    "pyglyn_parked",
    "pyglyn_outbox",
    "pyglyn_command",
    "pyglyn_manager",
    "pyglyn_dispatch",
    "pyglyn_deadline",
)
_CODEC: RowCodec[Any, Any] = RowCodec(aggregate_type=None)


# --- what can be done ------------------------------------------------------------------------------------


def migrate(url: str) -> tuple[int, int]:
    """Take the side tables to the present version, all in one transaction; returns from where to where.

    Raises:
        EventStoreError: they are of no version that this package knows.
    """
    with opened(url, migrated=False) as database:
        before = after = database.version() or 0
        with database.transaction():
            for after in range(before + 1, layout.VERSION + 1):
                database.create(layout.step(database.kind, after))
        return before, max(before, after)


@attrs.frozen
class Copied:
    """What a copy did: events and facts written now, and those that were there from before."""

    events: int
    there_before: int
    snapshots: int
    facts: int = 0
    facts_there_before: int = 0


def copy(
    source_url: str, target_url: str, *, progress: Progress = lambda done, all: None, page: int = PAGE
) -> Copied:
    """Copy a store into an empty one, or go on with a copy.

    Args:
        source_url, target_url: see `opened`.
        progress: told after each page.
        page: how many events are copied at once, each time in a transaction.

    Raises:
        EventStoreError: the target has other events.
    """
    return _copy(source_url, target_url, progress, page, archive=False)


def _copy(source_url: str, target_url: str, progress: Progress, page: int, *, archive: bool) -> Copied:
    with opened(source_url) as source, opened(target_url, create=True) as target:
        source.number_events()
        target.number_events()
        before = target.count()
        copied = _Events(source, target, page, progress, before, source.count())
        after = copied.behind(_common(source, target, archive=archive))
        facts = facts_care.Copy(source, target, page, progress) if facts_care.there_are(source) else None
        if facts is not None:
            facts.go_on()
        with source.snapshot():
            copied.behind(after)
            if facts is not None:
                facts.go_on()
            snapshots = _copy_table(source, target, "snapshot", _SNAPSHOT)
            for table in _COPIED:
                columns = [column for column in layout.TABLES[source.kind][table] if column != "id"]
                order = "1" if table in ("pyglyn_checkpoint", "pyglyn_command", "pyglyn_manager") else "id"
                key = ["id"] if table == "pyglyn_command" else []
                _copy_table(source, target, table, [*key, *columns], order)
        told = (0, 0) if facts is None else (facts.done, facts.there_before)
        return Copied(copied.done - before, before, snapshots, *told)


@attrs.define
class _Events:
    """The events on their way from one database into another."""

    source: Database
    target: Database
    page: int
    progress: Progress
    done: int
    total: int

    def behind(self, after: int) -> int:
        """Copy those behind a position, until there are no more; return the last position."""
        self.progress(self.done, max(self.total, self.done))
        while rows := self.source.page(after, self.page):
            after = rows[-1][0]
            events = [row for row in rows if row[2] is not None]
            if events:
                with self.target.transaction():
                    self.target.write(events)
            self.done += len(events)
            self.progress(self.done, max(self.total, self.done))
        return after


def _common(source: Database, target: Database, *, archive: bool) -> int:
    """Return the position up to which a target is a copy; an archive may have what its source has no more.

    Raises:
        EventStoreError: it has events that the source has not.
    """
    last = target.last_position()
    if last == 0:
        return 0
    [kept] = target.page(last - 1, 1)
    found = [row for row in source.page(last - 1, 1) if row[0] == last]
    if (found != [kept] and not (archive and not found)) or (not archive and target.count() > source.count()):
        raise EventStoreError("the target has events that are not from there: copy into an empty store")
    return last


def _copy_table(
    source: Database, target: Database, table: str, columns: Sequence[str], order: str = "1"
) -> int:
    rows = source.run(f"SELECT {', '.join(columns)} FROM {table} ORDER BY {order}")
    with target.transaction():
        target.run(f"DELETE FROM {table}")
        for start in range(0, len(rows), PAGE):
            target.insert(table, columns, rows[start : start + PAGE])
    return len(rows)


_WITHOUT_POSITION = """
SELECT e.aggregate_type, e.aggregate_id, e.sequence FROM event AS e
LEFT JOIN pyglyn_position AS p USING (aggregate_type, aggregate_id, sequence)
WHERE p.position IS NULL ORDER BY 1, 2, 3
"""
_WITHOUT_EVENT = """
SELECT p.position, p.aggregate_id, p.sequence FROM pyglyn_position AS p
LEFT JOIN event AS e USING (aggregate_type, aggregate_id, sequence)
WHERE e.event_type IS NULL ORDER BY 1
"""
_GAPS = """
SELECT aggregate_type, aggregate_id, min(sequence), max(sequence), count(*) FROM event
GROUP BY aggregate_type, aggregate_id
HAVING max(sequence) - min(sequence) + 1 <> count(*) OR min(sequence) <> 1
ORDER BY 1, 2
"""
_DISORDER = """
SELECT aggregate_type, aggregate_id, sequence, position FROM (
  SELECT aggregate_type, aggregate_id, sequence, position,
    lag(position) OVER (PARTITION BY aggregate_type, aggregate_id ORDER BY sequence) AS earlier
  FROM pyglyn_position
) AS ordered WHERE earlier >= position ORDER BY position
"""
_SNAPSHOT_AHEAD = """
SELECT s.aggregate_type, s.aggregate_id, s.sequence FROM snapshot AS s WHERE NOT EXISTS (
  SELECT 1 FROM event AS e WHERE e.aggregate_type = s.aggregate_type AND e.aggregate_id = s.aggregate_id
  AND e.sequence = s.sequence
) ORDER BY 1, 2
"""


def verify(url: str, *, progress: Progress = lambda done, all: None) -> Iterator[str]:
    """Check a store: positions, sequences, snapshots, that each event is JSON, and facts' revisions and tags.

    Yields what is wrong, a sentence each.
    """
    with opened(url) as database, database.snapshot():
        for type_, id, sequence in database.run(_WITHOUT_POSITION):
            yield f"{type_} {id} #{sequence} has no position: readers by position never get it"
        for position, id, sequence in database.run(_WITHOUT_EVENT):
            yield f"position {position} is for {id} #{sequence}, which is not there"
        for type_, id, first, last, count in database.run(_GAPS):
            archived = _is_archived(database, type_, id, first)
            if not archived or last - first + 1 != count:
                yield f"{type_} {id} has {count} events from #{first} to #{last}"
        for type_, id, sequence, position in database.run(_DISORDER):
            yield f"{type_} {id} #{sequence} is at {position}, before its predecessor"
        for type_, id, sequence in database.run(_SNAPSHOT_AHEAD):
            yield f"the snapshot of {type_} {id} is of #{sequence}, which is not there"
        total, done, after = database.count(), 0, 0
        while rows := database.page(after):
            after, done = rows[-1][0], done + len(rows)
            yield from _undecodable(rows)
            progress(done, max(total, done))
        if facts_care.there_are(database):
            yield from facts_care.verify(database)


def _is_archived(database: Database, type_: str, id: str, first: int) -> bool:
    """Tell whether an aggregate begins later than at 1 because the rest was archived."""
    statement = "SELECT 1 FROM snapshot WHERE aggregate_type = %s AND aggregate_id = %s AND sequence >= %s"
    return bool(database.run(statement, (type_, id, first)))


def _undecodable(rows: list[Row]) -> Iterator[str]:
    for row in rows:
        if row[2] is not None:
            event: RecordedEvent[Any] = _CODEC.recorded(PositionedRow(row[0], row[1], EventRow(*row[2:])))
            if event.error is not None:
                yield f"position {event.position}: {event.error}"


def archive(url: str, target_url: str, *, until: int, progress: Progress = lambda done, all: None) -> int:
    """Move what snapshots make needless, up to a position, out of a store; returns how many events went.

    The target becomes a whole copy first, so nothing is only there or only here. Then those events are
    deleted whose aggregate has a snapshot behind them. An aggregate can be loaded by its snapshot alone from
    then on, and queries that are reset get no archived events; they are read from the archive.

    Raises:
        EventStoreError: a query whose checkpoint is here has not got so far, or has parked one of them.
    """
    _copy(url, target_url, progress, PAGE, archive=True)
    condition = """
    WHERE EXISTS (
      SELECT 1 FROM pyglyn_position AS p WHERE p.aggregate_type = event.aggregate_type
      AND p.aggregate_id = event.aggregate_id AND p.sequence = event.sequence AND p.position <= %s
    ) AND EXISTS (
      SELECT 1 FROM snapshot AS s WHERE s.aggregate_type = event.aggregate_type
      AND s.aggregate_id = event.aggregate_id AND s.sequence > event.sequence
    )"""
    with opened(url) as database:
        until = min(until, _archived_up_to(target_url))
        with database.transaction():
            _refuse_to_take_from_queries(database, condition, until)
            gone: int = database.run(f"SELECT count(*) FROM event {condition}", (until,))[0][0]
            database.run(f"DELETE FROM event {condition}", (until,))
        return gone


def _refuse_to_take_from_queries(database: Database, condition: str, until: int) -> None:
    """Refuse to delete events that a query is still to process. A row at 0 may be a relay's."""
    going = f"""
    SELECT g.position FROM pyglyn_position AS g JOIN event ON event.aggregate_type = g.aggregate_type
    AND event.aggregate_id = g.aggregate_id AND event.sequence = g.sequence {condition}"""
    [(last,)] = database.run(f"SELECT coalesce(max(position), 0) FROM ({going}) AS p", (until,))
    checkpoints = "SELECT query, position FROM pyglyn_checkpoint WHERE position > 0 AND position < %s"
    for query, position in database.run(f"{checkpoints} ORDER BY position LIMIT 1", (last,)):
        raise EventStoreError(
            f"query {query!r} is at {position}: it would miss events; archive until {position}, or delete "
            "its row in pyglyn_checkpoint if there is no such query any more"
        )
    parked = f"SELECT query, position FROM pyglyn_parked WHERE position IN ({going})"
    for query, position in database.run(f"{parked} ORDER BY position LIMIT 1", (until,)):
        raise EventStoreError(f"the event at {position} is parked by query {query!r}: drive it first")


def _archived_up_to(url: str) -> int:
    with opened(url) as target:
        return target.last_position()


def stats(url: str) -> dict[str, Any]:
    """Count what is in a store; ``facts`` is None where there was never one."""
    with opened(url) as database:
        database.number_events()
        events = """
        SELECT aggregate_type, count(*), count(DISTINCT aggregate_id) FROM event GROUP BY 1 ORDER BY 1
        """
        times = "SELECT min(recorded_at), max(recorded_at) FROM pyglyn_position"
        queries = "SELECT query, position, paused FROM pyglyn_checkpoint ORDER BY query"
        last = database.last_position()
        facts = facts_care.stats(database) if facts_care.there_are(database) else None
        read = last if last or facts is None else facts["last_position"]  # by the queries
        return {
            "version": database.version(),
            "events": database.count(),
            "last_position": last,
            "types": {type_: {"events": n, "aggregates": ids} for type_, n, ids in database.run(events)},
            "snapshots": database.count("snapshot"),
            "recorded": [None if ms is None else ms / 1000 for ms in database.run(times)[0]],
            "queries": {
                name: {"position": position, "behind": max(read - position, 0), "paused": bool(paused)}
                for name, position, paused in database.run(queries)
            },
            "parked": database.count("pyglyn_parked"),
            "outbox": database.count("pyglyn_outbox"),
            "commands": database.count("pyglyn_dispatch"),
            "deadlines": database.count("pyglyn_deadline"),
            "facts": facts,
        }
