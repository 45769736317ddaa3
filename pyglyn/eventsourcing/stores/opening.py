"""Stores by URL: ``memory:``, ``sqlite:path``, ``postgresql://…``."""

from __future__ import annotations

from functools import partial
from typing import Any
from urllib.parse import parse_qsl, unquote

from pyglyn.errors import EventStoreError
from pyglyn.eventsourcing.stores.json.codec import JsonStyle
from pyglyn.eventsourcing.stores.memory import MemoryStore
from pyglyn.eventsourcing.stores.rows import RowCodec
from pyglyn.eventsourcing.stores.store import EventStore


def open_store(
    url: str,
    *,
    events: object = None,
    aggregate_type: str | None = None,
    state: object = None,
    event_type: str | None = None,
    event_version: str = "1.0",
    style: JsonStyle | None = None,
) -> EventStore[Any, Any]:
    """Describe a store by its URL; it connects at the first use, or at ``async with`` and ``start()``.

    Args:
        url: ``memory:``; ``sqlite:inventory.db`` (relative), ``sqlite:/var/lib/inventory.db``, with
            ``?synchronous=NORMAL&busy_timeout=10`` if wanted; ``postgresql://user@host/database`` (or
            ``postgres://``) with libpq's own parameters.
        events: the union of event classes, or one; None for plain JSON values.
        aggregate_type: the constant in the Gleam store's column; None opens for reading only, all types.
        state: the class of the entity, needed for snapshots; None for plain JSON values.
        event_type: the constant in the Gleam store's column, ``<aggregate_type>Event`` unless given.
        event_version: the constant in the Gleam store's column.
        style: how the JSON is spelled; see `JsonStyle`.

    Raises:
        EventStoreError: an unknown kind of URL, or the driver is not installed.
        TypeError, ValueError: the event or state type has no JSON.
    """
    types: dict[str, Any] = {"events": events, "aggregate_type": aggregate_type, "state": state}
    names: dict[str, Any] = {"event_type": event_type, "event_version": event_version, "style": style}
    store = _opened(url, **types, **names)
    store.reopen = partial(open_store, url, **types, **names)
    return store


def _opened(url: str, *, aggregate_type: str | None, **options: Any) -> EventStore[Any, Any]:
    scheme, colon, rest = url.partition(":")
    if not colon:
        raise EventStoreError(f"no store URL: {url!r}; expected memory:, sqlite:path or postgresql://…")
    if scheme == "memory":
        return MemoryStore(aggregate_type)
    codec: RowCodec[Any, Any] = RowCodec(aggregate_type=aggregate_type, **options)
    if scheme == "sqlite":
        from pyglyn.eventsourcing.stores.sqlite import SqliteStore

        path, _, query = rest.partition("?")
        return SqliteStore(unquote(path), codec, **_sqlite_options(query))
    if scheme in ("postgresql", "postgres"):
        from pyglyn.eventsourcing.stores.postgres import PostgresStore

        return PostgresStore(url, codec)
    raise EventStoreError(f"unknown kind of store: {scheme}; expected memory, sqlite or postgresql")


def _sqlite_options(query: str) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name == "synchronous":
            options[name] = value.upper()
        elif name == "busy_timeout":
            try:
                options[name] = float(value)
            except ValueError:
                raise EventStoreError(f"busy_timeout is a number of seconds, got {value!r}") from None
        else:
            raise EventStoreError(f"unknown option of a SQLite store: {name}")
    return options
