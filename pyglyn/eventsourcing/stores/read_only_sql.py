"""What a statement that reads may take, and what is let out of what it finds.

Only as many rows are kept as were asked for, and only so many bytes.

Layer: eventsourcing, stores.
"""

from __future__ import annotations

import datetime
import decimal
import json
import uuid
from collections.abc import Iterable
from typing import Any

import attrs

from pyglyn.errors import EventStoreError, NonPositiveArgument
from pyglyn.eventsourcing.stores.opening import open_store
from pyglyn.eventsourcing.stores.sqlite import SqliteStore
from pyglyn.eventsourcing.stores.store import EventStore
from pyglyn.eventsourcing.stores.wrapped import WrappedStore


@attrs.frozen(kw_only=True)
class ReadOnlySql:
    """That a query's database may be asked, and what a statement may take.

    Attributes:
        rows: so many are returned at most.
        size: so many bytes of values are, and one value has at most; a larger one is refused.
        seconds: for so long it may run.
        url: of the same database, to ask as a role that may do less; of ``into`` unless given.

    Raises:
        NonPositiveArgument: a limit is not more than 0.
        EventStoreError: the URL is none of SQLite or PostgreSQL.
    """

    rows: int = 1000
    size: int = 1 << 20
    seconds: float = 5.0
    url: str | None = attrs.field(default=None, repr=False)

    def __attrs_post_init__(self) -> None:
        if min(self.rows, self.size, self.seconds) <= 0:
            raise NonPositiveArgument(f"limits are more than 0, got {self}")
        if self.url is not None:
            database_of(open_store(self.url))


@attrs.frozen
class Selected:
    """What a statement has found.

    Attributes:
        columns: their names.
        rows: as tuples of None, bool, int, float, str and bytes.
        complete: False where the limits have left something out.
    """

    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]
    complete: bool = True


def database_of(store: EventStore[Any, Any]) -> EventStore[Any, Any]:
    """Return the store that speaks SQL inside of others.

    Raises:
        EventStoreError: it is neither SQLite nor PostgreSQL.
    """
    while isinstance(store, WrappedStore):
        store = store.underlying
    if not isinstance(store, SqliteStore) and not hasattr(store, "conninfo"):
        raise EventStoreError(f"only SQLite and PostgreSQL answer statements, not a {type(store).__name__}")
    return store


class Kept:
    """The rows that are kept, as long as there is room."""

    def __init__(self, limits: ReadOnlySql) -> None:
        self._limits = limits
        self._size = 0
        self.rows: list[tuple[Any, ...]] = []

    def take(self, row: Iterable[Any]) -> bool:
        """Keep a row; False if there is no room for it."""
        values = tuple(map(plain, row))
        self._size += sum(len(value) if isinstance(value, str | bytes) else 8 for value in values)
        if len(self.rows) >= self._limits.rows or self._size > self._limits.size:
            return False
        self.rows.append(values)
        return True


def plain(value: Any) -> Any:
    """Make a value one of those that travel."""
    match value:
        case None | bool() | int() | str() | bytes():
            return value
        case float():
            return value if value - value == 0.0 else str(value)
        case bytearray() | memoryview():
            return bytes(value)
        case datetime.datetime() | datetime.date() | datetime.time():
            return value.isoformat()
        case decimal.Decimal() | uuid.UUID() | datetime.timedelta():
            return str(value)
        case dict() | list():
            return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)


def too_long(limits: ReadOnlySql) -> EventStoreError:
    return EventStoreError(f"the statement takes longer than the {limits.seconds:g} s that it may")
