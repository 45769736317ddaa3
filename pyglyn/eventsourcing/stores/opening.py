"""Stores by URL: ``memory:``, ``sqlite:path``, ``postgresql://…``."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any
from urllib.parse import parse_qsl, unquote

from pyglyn.errors import EventStoreError
from pyglyn.eventsourcing.stores.encrypted import EncryptedStore
from pyglyn.eventsourcing.stores.encryption import EncryptingCodec, KeyRing
from pyglyn.eventsourcing.stores.json.codec import JsonStyle
from pyglyn.eventsourcing.stores.keys import Keys, SqliteKeys, check_installed, open_keys
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
    keys: Keys | str | None = None,
) -> EventStore[Any, Any]:
    """Describe a store by its URL; it connects at the first use, or at ``async with`` and ``start()``.

    Args:
        url: ``memory:``; ``sqlite:inventory.db`` (relative), ``sqlite:/var/lib/inventory.db``, with
            ``?synchronous=NORMAL&busy_timeout=10`` if wanted; ``postgresql://user@host/database`` (or
            ``postgres://``) with libpq's own parameters, and with ``pool_size``, ``timeout``,
            ``prepare_threshold`` (a number or ``none``), ``isolation`` and ``repair_s``, which are
            those of `PostgresStore`.
        events: the union of event classes, or one; None for plain JSON values.
        aggregate_type: the constant in the Gleam store's column; None opens for reading only, all types.
        state: the class of the entity, needed for snapshots; None for plain JSON values.
        event_type: the constant in the Gleam store's column, ``<aggregate_type>Event`` unless given.
        event_version: the constant in the Gleam store's column.
        style: how the JSON is spelled; see `JsonStyle`.
        keys: encrypt the events of each aggregate by a key of its own, kept there (see `open_keys`), so that
            it can be forgotten; the store is an `EncryptedStore` then.

    Raises:
        EventStoreError: an unknown kind of URL, or the driver is not installed.
        TypeError, ValueError: the event or state type has no JSON.
    """
    options: dict[str, Any] = {
        "events": events,
        "state": state,
        "event_type": event_type,
        "event_version": event_version,
        "style": style,
    }
    scheme, colon, rest = url.partition(":")
    if not colon:
        raise EventStoreError(f"no store URL: {url!r}; expected memory:, sqlite:path or postgresql://…")
    if keys is not None:
        return _encrypted(url, aggregate_type, open_keys(keys) if isinstance(keys, str) else keys, options)
    codec: RowCodec[Any, Any] = RowCodec(aggregate_type=aggregate_type, **options)
    return _opened(url, scheme, rest, codec, checks=events is not None or state is not None)


def _opened(
    url: str, scheme: str, rest: str, codec: RowCodec[Any, Any], *, checks: bool
) -> EventStore[Any, Any]:
    if scheme == "memory":
        return MemoryStore(codec.aggregate_type, codec if checks else None)
    if scheme == "sqlite":
        from pyglyn.eventsourcing.stores.sqlite import SqliteStore

        path, query = _split(rest, _SQLITE)
        return SqliteStore(unquote(path), codec, **query)
    if scheme in ("postgresql", "postgres"):
        from pyglyn.eventsourcing.stores.postgres import PostgresStore

        conninfo, query = _split(url, _POSTGRES, others=True)
        return PostgresStore(conninfo, codec, **query)
    raise EventStoreError(f"unknown kind of store: {scheme}; expected memory, sqlite or postgresql")


def _encrypted(
    url: str, aggregate_type: str | None, keys: Keys, options: dict[str, Any]
) -> EncryptedStore[Any, Any]:
    check_installed()
    if aggregate_type is None:
        raise EventStoreError("a store with keys is one of an aggregate_type")
    scheme, _, rest = url.partition(":")
    path = unquote(rest.partition("?")[0])
    if scheme == "sqlite" and isinstance(keys, SqliteKeys) and _same_file(keys.path, path):
        raise EventStoreError("keys are in a file of their own: who has a copy of the events has them too")
    ring = KeyRing(keys, aggregate_type)
    codec: RowCodec[Any, Any]
    if scheme == "memory":
        codec = RowCodec(aggregate_type=aggregate_type, **options)
    else:
        codec = EncryptingCodec(ring, aggregate_type=aggregate_type, **options)
    checks = options["events"] is not None or options["state"] is not None
    store = _opened(url, scheme, rest, codec, checks=checks)
    return EncryptedStore(store, ring, partial(_encrypted, url, aggregate_type, keys, options))


def _same_file(one: str, other: str) -> bool:
    return os.path.realpath(one) == os.path.realpath(other)


def _split(
    url: str, known: dict[str, Callable[[str], Any]], *, others: bool = False
) -> tuple[str, dict[str, Any]]:
    """Take our options out of a URL; unless ``others`` may be there, for the driver, none is left.

    Raises:
        EventStoreError: an option is unknown, or its value is of another kind.
    """
    before, _, query = url.partition("?")
    options: dict[str, Any] = {}
    left: list[str] = []
    for part in query.split("&") if query else []:
        name, value = next(iter(parse_qsl(part, keep_blank_values=True)), (part, ""))
        if name in known:
            try:
                options[name] = known[name](value)
            except ValueError as error:
                raise EventStoreError(f"{name} is {error}, got {value!r}") from None
        elif not others:
            raise EventStoreError(f"unknown option of the store: {name}; known are {', '.join(known)}")
        else:
            left.append(part)
    return before + ("?" + "&".join(left) if left else ""), options


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise ValueError("a number of seconds")
    return value


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ValueError("a number of 1 or more")
    return int(text)


def _threshold(text: str) -> int | None:
    if text.lower() == "none":
        return None
    if not text.isdecimal():
        raise ValueError("a number, or none")
    return int(text)


_SQLITE: dict[str, Callable[[str], Any]] = {"synchronous": str.upper, "busy_timeout": _seconds}
_POSTGRES: dict[str, Callable[[str], Any]] = {
    "pool_size": _count,
    "timeout": _seconds,
    "prepare_threshold": _threshold,
    "isolation": lambda text: text.replace("-", " ").lower(),
    "repair_s": _seconds,
}
