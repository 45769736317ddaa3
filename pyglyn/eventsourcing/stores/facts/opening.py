"""Logs of facts by URL. Layer: eventsourcing, stores."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from pyglyn.errors import EventStoreError
from pyglyn.eventsourcing.stores.facts.log import FactLog, MemoryFactLog
from pyglyn.eventsourcing.stores.facts.store import FactStore
from pyglyn.eventsourcing.stores.json.codec import JsonStyle
from pyglyn.eventsourcing.stores.opening import open_store


def open_log(url: str) -> FactLog:
    """Open a log of facts by URL: ``memory:``, ``sqlite:path`` or ``postgresql://…``, as for `open_store`.

    Raises:
        EventStoreError: an unknown kind of URL, or an option that is not known.
    """
    store: Any = open_store(url)
    if not store.has_sql:
        return MemoryFactLog()
    from pyglyn.eventsourcing.stores.facts.sql import PostgresFactLog, SqliteFactLog
    from pyglyn.eventsourcing.stores.sqlite import SqliteStore

    if isinstance(store, SqliteStore):
        return SqliteFactLog(store)
    if hasattr(store, "conninfo"):
        return PostgresFactLog(store)
    raise EventStoreError(f"no log of facts: {url!r}")


def open_facts(
    url: str,
    *,
    events: object = None,
    tags: Callable[[Any], Iterable[str]] = lambda event: (),
    style: JsonStyle | None = None,
) -> FactStore[Any]:
    """Open facts by URL, as `open_store` opens aggregates; the arguments are those of `FactStore`."""
    return FactStore(open_log(url), events=events, tags=tags, style=style)
