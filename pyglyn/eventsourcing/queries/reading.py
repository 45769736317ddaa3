"""Reading a store from outside of a node, and waiting for a query to have come as far as one has written.

Layer: eventsourcing, queries.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from typing import Any, TypeVar

from pyglyn.complaints import Complaints
from pyglyn.errors import ActorTimeout, CallTimeout, StoreUnavailable, TransactionRolledBack
from pyglyn.etf import Atom
from pyglyn.eventsourcing.cluster.sources import Source
from pyglyn.eventsourcing.domain import wire
from pyglyn.eventsourcing.queries.ahead import ReadAhead
from pyglyn.eventsourcing.queries.durable_spec import DurableSpec
from pyglyn.eventsourcing.queries.failure import FailurePolicy
from pyglyn.eventsourcing.queries.selected import SelectedEvents, tag_key_of
from pyglyn.eventsourcing.stores.selection import Selection
from pyglyn.eventsourcing.stores.store import BATCH, EventStore, RecordedEvent
from pyglyn.node import At
from pyglyn.node.destinations import ServerRef

logger = logging.getLogger("pyglyn.eventsourcing")

E = TypeVar("E")

WAIT_FOR = Atom("wait_for")

_AGAIN = FailurePolicy(retries=None, first=0.05, longest=5.0)


async def subscribe(
    store: EventStore[E, Any],
    *,
    after: int = 0,
    aggregate_id: str | None = None,
    select: Sequence[type | str] | None = None,
    batch: int = BATCH,
) -> AsyncIterator[RecordedEvent[E]]:
    """Yield the events behind a position: first what is there, then what is committed, for ever.

    While the store is away it waits for it, and goes on behind the last event that it has yielded. To go on
    after the end of the program, keep that event's position.

    Args:
        store: whose events.
        after: the position behind which to begin; ``await store.last_position()`` for what comes from now on.
        aggregate_id: only those of one aggregate.
        select: only those of these classes (tags, where events are read as plain JSON), looked for where they
            are stored.
        batch: how many are read at a time.

    Raises:
        EventStoreError: the store will never work as it is.
    """
    source: Source = store
    if select is not None:
        source = SelectedEvents(store, Selection(tuple(select), None, tag_key_of(store)))
    ahead = ReadAhead(source)
    try:
        async for event in _events(store, ahead, after, aggregate_id, batch):
            yield event
    finally:
        await ahead.forget()


async def _events(
    store: EventStore[E, Any], ahead: ReadAhead, after: int, aggregate_id: str | None, batch: int
) -> AsyncIterator[RecordedEvent[E]]:
    complaints, attempts, before = Complaints(), 0, 0
    while True:
        try:
            end = await store.last_position()
            if end < before:  # and its store has told somebody else
                await ahead.forget()
            before = end
            events = await ahead.read(after, limit=batch, aggregate_id=aggregate_id)
            if not events:
                after = max(after, end)  # whatever there is up to here is another aggregate's
                await ahead.wait(after)
        except (StoreUnavailable, TransactionRolledBack) as error:
            attempts += 1
            complaints.log(logger, str(error), start="a subscription waits for its store: ")
            await ahead.forget()  # it may be another one, or was restored
            await asyncio.sleep(_AGAIN.pause(attempts) or 0.0)
            continue
        attempts = 0
        for event in events:
            after = event.position
            yield event


async def wait_for(
    at: At, query: ServerRef | DurableSpec, position: int, *, timeout: float | None = 5.0
) -> None:
    """Wait until a durable query has done everything up to a position: to read what one has written.

    Args:
        at: the node, or the calling process.
        query: its name on this node, ``(name, node)``, or its pid; or itself, for all its partitions on this
            node.
        position: such as ``await store.last_position()`` after a command.
        timeout: seconds.

    Raises:
        ActorTimeout: it was not so far in time.
        StoreUnavailable: too many wait for it.
        CallFailed: there is no such query, or it ended.
    """
    if isinstance(query, DurableSpec):
        await asyncio.gather(*(wait_for(at, name, position, timeout=timeout) for name in query.names()))
        return
    try:
        answer = await at.call(query, (WAIT_FOR, position), timeout)
    except CallTimeout as error:
        raise ActorTimeout("wait_for", round((timeout or 0) * 1000)) from error
    if isinstance(answer, tuple) and answer[:1] == (wire.ERROR,):
        raise wire.read_error(answer[1])
