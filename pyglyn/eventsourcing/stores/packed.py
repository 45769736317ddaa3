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

from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import attrs

Row = tuple[Any, ...]

_SEPARATOR = "\x1f"

LARGE = 1024
"""Characters of an event from which on packing gains nothing, and costs memory."""

WORTH_IT = 8
"""Rows from which on it is worth while."""

_PAYLOADS = 6
"""Which of the other columns they are."""


def packed_statement(rows: str, *, by_type: bool) -> str:
    """Return the statement that packs what a statement of a reader by position finds; same parameters."""
    columns = ("position", "coalesce(recorded_at::text, '')", *_rest(by_type), "metadata")
    counts = ", ".join(f"count({column})" for column in columns)
    packed = ", ".join(f"string_agg({column}::text, '{_SEPARATOR}')" for column in columns)
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

    @property
    def is_large(self) -> bool:
        """Whether it were better read row by row."""
        return sum(map(len, self.others[_PAYLOADS])) > LARGE * len(self)


Rows: TypeAlias = "list[Row] | Packed"


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
    columns = [text.split(_SEPARATOR) for text in texts]
    if any(len(column) != count for column in columns):
        return None
    positions, times, *types, ids, sequences, event_types, versions, payloads, metadata = columns
    try:
        numbers = list(map(int, positions))
        moments = (
            list(map(int, times)) if "" not in times else [int(each) if each else None for each in times]
        )
        places = list(map(int, sequences))
    except ValueError:
        return None
    if numbers != sorted(numbers):
        return None
    of = types[0] if aggregate_type is None else [aggregate_type] * count
    return Packed(numbers, (moments, of, ids, places, event_types, versions, payloads, metadata))


class Packing:
    """Whether the pages of a store are worth packing: not where one was not, or where events are large."""

    def __init__(self) -> None:
        self.is_worth_it = True

    def seen(self, rows: Rows | None) -> None:
        """Learn from the page before; None for one that could not be unpacked."""
        if rows is None or isinstance(rows, Packed):
            self.is_worth_it = rows is not None and not rows.is_large
        else:
            sizes = sum(len(row[7]) for row in rows if isinstance(row[7], str | bytes))
            self.is_worth_it = sizes <= LARGE * len(rows)
