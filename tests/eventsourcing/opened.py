"""Stores that are closed behind a test, for those that begin queries and services on them."""

from __future__ import annotations

from typing import Any

from pyglyn import eventsourcing as es

_opened: list[es.EventStore[Any, Any]] = []


def open_store(url: str, **options: Any) -> es.EventStore[Any, Any]:
    """Do as `es.open_store`, and leave the store to `close_opened`."""
    store: es.EventStore[Any, Any] = es.open_store(url, **options)
    _opened.append(store)
    return store


async def close_opened() -> None:
    """Close the stores that a test has opened."""
    while _opened:
        await _opened.pop().close()
