"""A page of events of PostgreSQL as one row: each column in one text, which is split here. Pure.

A row of a query costs its reader more than the database, as its nine values are made one by one. A page in
one row is put together by the server, on a processor of its own. (For SQLite, see
:mod:`pyglyn.eventsourcing.stores.sqlite_pages`.)

Texts are separated by a character that JSON never has unescaped; whoever has it in an id, or stores anything
but text, has his page read row by row. So has a page in which an event is missing. Nothing is guessed: the
database counts what is as it should be, and each text has to have as many parts as there are rows.

Layer: eventsourcing, stores.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from typing import Any, TypeAlias, TypeVar

import attrs

from pyglyn.eventsourcing.stores.json.columns import integers
from pyglyn.eventsourcing.stores.store import Page, RecordedEvent

E = TypeVar("E")
T = TypeVar("T")

Row = tuple[Any, ...]

_SEPARATOR = "\x1f"

LARGE = 1024
"""Characters of an event from which on packing gains nothing, and costs memory."""

ROOM = 16 * 2**20
"""Characters of payloads that are in memory at once, for each page; larger is one with a single event."""

WORTH_IT = 8
"""Rows from which on it is worth while."""

_PAYLOADS = 6
"""Which of the other columns they are."""


def share(limit: int) -> int:
    """Return how large an event may be where so many of them are packed.

    A larger one would not be packed for long, but for a while it would be there twice or three times.
    """
    return max(ROOM // limit, 16 * LARGE)


def packed_statement(rows: str, limit: int, *, by_type: bool) -> str:
    """Return the statement that packs what a statement of a reader by position finds; same parameters.

    Args:
        rows: that statement.
        limit: how many rows it finds at most.
        by_type: whether it finds those of one aggregate type.
    """
    columns = ("position", "coalesce(recorded_at::text, '')", *_rest(by_type), "metadata")
    small = f"CASE WHEN octet_length(payload::text) <= {share(limit)} THEN payload END"
    columns = tuple(small if column == "payload" else column for column in columns)
    counts = ", ".join(f"count({column})" for column in columns)
    packed = ", ".join(f"string_agg(({column})::text, '{_SEPARATOR}')" for column in columns)
    return f"SELECT count(*), least({counts}), {packed} FROM ({rows}) AS page"


def _rest(by_type: bool) -> tuple[str, ...]:
    columns = ("aggregate_id", "sequence", "event_type", "event_version", "payload")
    return columns if by_type else ("aggregate_type", *columns)


@attrs.frozen
class Packed:
    """The rows of a page, in order, kept by columns; rows are made as they are asked for."""

    positions: list[int]
    others: tuple[Sequence[Any], ...]

    def __len__(self) -> int:
        return len(self.positions)

    def __iter__(self) -> Iterator[Row]:
        return zip(self.positions, *self.others, strict=True)

    def __getitem__(self, part: slice) -> Packed:
        return Packed(self.positions[part], tuple(column[part] for column in self.others))

    @property
    def size(self) -> int:
        """Characters of all payloads."""
        return sum(map(len, self.others[_PAYLOADS]))

    @property
    def is_large(self) -> bool:
        """Whether it were better read row by row."""
        return self.size > LARGE * len(self)


Rows: TypeAlias = "list[Row] | Packed"


def parts(rows: Rows, size: int, decode: Callable[[Rows], list[RecordedEvent[E]]]) -> list[Page[E]]:
    """Return rows, of which there are some, as pages of so many."""
    several = [rows[start : start + size] for start in range(0, len(rows), size)]
    return [Page(len(part), last_position(part, 0), partial(decode, part)) for part in several]


async def read_pages(
    page_behind: Callable[[int, int], Awaitable[Page[E]]], after: int, limit: int
) -> list[RecordedEvent[E]]:
    """Read as `EventStore.read` does what comes in pages, by a function from a position and how many."""
    found = list[RecordedEvent[E]]()
    while limit > 0:
        page = await page_behind(after, limit)
        found += page.decode()
        if not page.is_cut and (found or page.rows < limit):
            break
        after = page.last
        if page.is_cut:
            limit -= page.rows
    return found


def last_position(rows: Rows, after: int) -> int:
    """Return the position of the last row; that after which was read if there is none."""
    if not rows:
        return after
    last: int = rows.positions[-1] if isinstance(rows, Packed) else rows[-1][0]
    return last


def unpacked(found: Row, aggregate_type: str | None) -> Packed | None:
    """Return the rows of a page; None if they have to be read one by one.

    Args:
        found: the one row of a statement from here.
        aggregate_type: the one that was asked for.
    """
    count, right, *texts = found
    if not count:
        return Packed([], ((),) * 8)
    if right != count or not all(type(text) is str for text in texts):
        return None
    positions, times, *types, ids, sequences, event_types, versions, payloads, metadata = texts
    try:
        places = [_integers(text, count) for text in (positions, _filled(times), sequences)]
        columns = [_parts(text, count) for text in (*types, ids, event_types, versions, payloads, metadata)]
    except ValueError:
        return None
    numbers, moments, sequence = places
    if numbers != sorted(numbers):
        return None
    if aggregate_type is not None:
        columns[: len(types)] = [[aggregate_type] * count]
    return Packed(numbers, (moments, *columns[:2], sequence, *columns[2:]))


def _filled(times: str) -> str:
    """Return a column of times with something in place of those that are not known."""
    if times and times[0] != _SEPARATOR and times[-1] != _SEPARATOR and _SEPARATOR * 2 not in times:
        return times
    return _SEPARATOR.join(part or "null" for part in times.split(_SEPARATOR))


def _integers(text: str, count: int) -> list[Any]:
    return _of_size(integers(f"[{text.replace(_SEPARATOR, ',')}]"), count)


def _parts(text: str, count: int) -> list[str]:
    first = text.partition(_SEPARATOR)[0]
    alike = [first] * count
    return alike if text == _SEPARATOR.join(alike) else _of_size(text.split(_SEPARATOR), count)


def _of_size(parts: list[T], count: int) -> list[T]:
    if len(parts) != count:
        raise ValueError
    return parts


class Packing:
    """Whether the pages of a store are worth packing: not where one was not, or where events are large.

    Attributes:
        is_worth_it: that.
        most: how many events as large as those of the page before there is `ROOM` for.
    """

    def __init__(self) -> None:
        self.is_worth_it = True
        self.most = ROOM

    def seen(self, rows: Rows | None) -> None:
        """Learn from the page before; None for one that could not be unpacked."""
        if rows is None:
            self.is_worth_it = False
            return
        if isinstance(rows, Packed):
            size = rows.size
        else:
            size = sum(len(row[7]) for row in rows if isinstance(row[7], str | bytes))
        self.is_worth_it = size <= LARGE * len(rows)
        self.most = max(1, ROOM * len(rows) // size) if size else ROOM
