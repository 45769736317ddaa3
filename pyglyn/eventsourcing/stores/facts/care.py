"""The care of facts: copies, checks, figures. See `pyglyn.eventsourcing.stores.care`, which calls it.

Layer: eventsourcing, stores.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from pyglyn.errors import EventStoreError
from pyglyn.eventsourcing.stores.care_database import Database
from pyglyn.eventsourcing.stores.facts.log import read_tags
from pyglyn.eventsourcing.stores.facts.rows import COLUMNS, LAST, script, selection

TABLE = "factos_events"

_REVISIONS = f"""
SELECT stream, min(revision), max(revision), count(*) FROM {TABLE} GROUP BY stream
HAVING max(revision) - min(revision) + 1 <> count(*) OR min(revision) <> 0 ORDER BY 1
"""
_DISORDER = f"""
SELECT position, stream, revision FROM (
  SELECT position, stream, revision, lag(position) OVER (PARTITION BY stream ORDER BY revision) AS earlier
  FROM {TABLE}
) AS ordered WHERE earlier >= position ORDER BY position
"""
_TAGS = f"SELECT position, tags FROM {TABLE} WHERE position > %s ORDER BY position LIMIT %s"
_CHECKED = 1000
"""Facts whose tags are looked up at once."""


def there_are(database: Database) -> bool:
    """Tell whether a database has a table of facts."""
    return database.has_table(TABLE)


class Copy:
    """The facts on their way from one database into another, with their positions.

    Attributes:
        done: how many were written.
        there_before: how many were in the target already.

    Raises:
        EventStoreError: the target has facts that the source has not.
    """

    def __init__(
        self, source: Database, target: Database, page: int, progress: Callable[[int, int], None]
    ) -> None:
        with target.transaction():
            target.create(script(target.kind))
        self._source, self._target, self._page, self._progress = source, target, page, progress
        self.done, self.there_before = 0, target.count(TABLE)
        [(self._after,)] = target.run(LAST)
        self._total = source.count(TABLE)
        newest = selection(None, self._after - 1, 1)
        common = target.run(*newest) == source.run(*newest)
        if self._after and not (common and self.there_before <= self._total):
            raise EventStoreError("the target has facts that are not from there: copy into an empty store")

    def go_on(self) -> None:
        """Copy those that are behind what is copied, until there are no more."""
        while rows := self._source.run(*selection(None, self._after, self._page)):
            with self._target.transaction():
                self._target.insert(TABLE, COLUMNS.split(", "), rows)
                self._target.number_facts()
            self._after, self.done = rows[-1][0], self.done + len(rows)
            there = self.there_before + self.done
            self._progress(there, max(self._total, there))


def verify(database: Database) -> Iterator[str]:
    """Check revisions, their order, and that queries by tag find what they should. Yields what is wrong."""
    for stream, first, last, count in database.run(_REVISIONS):
        yield f"stream {stream} has {count} facts from revision {first} to {last}"
    for position, stream, revision in database.run(_DISORDER):
        yield f"revision {revision} of stream {stream} is at {position}, before its predecessor"
    after = there = 0
    while rows := database.run(_TAGS, (after, _CHECKED)):
        tagged = {(position, tag) for position, tags in rows for tag in read_tags(tags) if tag}
        missing = tagged - _found(database, tagged, after, rows[-1][0])
        for position, tag in sorted(missing):
            yield f"the fact at {position} is not found by its tag {tag}"
        there += len(tagged) - len(missing)
        after = rows[-1][0]
    more = database.count("pyglyn_fact_tag") - there
    if more:
        yield f"pyglyn_fact_tag has {more} rows for tags that no fact has"


def _found(database: Database, tagged: set[tuple[int, str]], after: int, last: int) -> set[tuple[int, str]]:
    tags = sorted({tag for _, tag in tagged})
    found: set[tuple[int, str]] = set()
    for start in range(0, len(tags), _CHECKED):
        some = tags[start : start + _CHECKED]
        marks = ", ".join(["%s"] * len(some))
        where = f"tag IN ({marks}) AND position > %s AND position <= %s"
        statement = f"SELECT position, tag FROM pyglyn_fact_tag WHERE {where}"
        found.update((position, tag) for position, tag in database.run(statement, (*some, after, last)))
    return found


def stats(database: Database) -> dict[str, Any]:
    """Count facts: all, those of each type, and the last position."""
    types = database.run(f"SELECT type, count(*) FROM {TABLE} GROUP BY 1 ORDER BY 1")
    [(last,)] = database.run(LAST)
    return {"count": sum(n for _, n in types), "last_position": last, "types": dict(types)}
