"""What is declared of a durable query. Layer: eventsourcing, queries."""

from __future__ import annotations

import datetime
from collections.abc import Awaitable, Callable
from typing import Any, Literal, TypeAlias

from pyglyn.errors import EventStoreError
from pyglyn.eventsourcing.cluster.broadcast import GlynConfig, GlynStore
from pyglyn.eventsourcing.queries.durable_calls import Project
from pyglyn.eventsourcing.queries.durable_state import BatchLimits
from pyglyn.eventsourcing.queries.failure import FailurePolicy
from pyglyn.eventsourcing.stores.opening import open_store
from pyglyn.eventsourcing.stores.store import EventStore, Transaction

Start: TypeAlias = 'int | datetime.datetime | Literal["now"]'
Prepare: TypeAlias = Callable[[Transaction[Any, Any]], Awaitable[None]]
OnReset: TypeAlias = Callable[[Transaction[Any, Any], "str | None"], Awaitable[None]]


class DurableSpec:
    """A durable query as declared: function, places, rules.

    Attributes:
        name: the query's; its checkpoint and its process have it too.
        function: what is called for each event.
        store: where the events are: a store, or a `GlynConfig` whose services are asked.
        into: the database of the effects; None when they are elsewhere.
        checkpoints: where the checkpoint and the parked events are: ``into``, or the store or URL given here,
            or else the store of the events. One in memory has every event repeated after a restart.
        policy, limits: see there.
        begin: where a query begins that has no checkpoint yet (the argument ``start``): behind a position, 0
            for the first event; ``"now"`` for what comes from now on; a time for what was recorded since.
        prepare: called with a transaction of ``checkpoints`` each time the query starts, before anything
            else, to make its tables. While the database is away, or it raises, the query is ``stuck`` and
            tries again.
        on_reset: called with a transaction of ``checkpoints``, and an aggregate id or None for all, to undo
            the effects before they are made again.
        idempotent: the effects may be made again without being undone.
        group: the Glyn group whose broadcasts wake it up.
        events: the type of the events, where ``store`` is a `GlynConfig`.

    Raises:
        EventStoreError: ``into`` has no SQL, or nothing is there to keep the checkpoint.
    """

    def __init__(
        self,
        name: str,
        function: Project,
        *,
        store: EventStore[Any, Any] | GlynConfig,
        into: EventStore[Any, Any] | str | None = None,
        checkpoints: EventStore[Any, Any] | str | None = None,
        policy: FailurePolicy | None = None,
        limits: BatchLimits | None = None,
        start: Start = 0,
        prepare: Prepare | None = None,
        on_reset: OnReset | None = None,
        idempotent: bool = False,
        group: GlynConfig | None = None,
        events: object = None,
    ) -> None:
        self.name = name
        self.function = function
        self.group = group
        if isinstance(store, GlynConfig):
            self.group = group or store
        elif isinstance(store, GlynStore):
            self.group, store = group or store.config, store.underlying
        self.store = store
        self.into = open_store(into) if isinstance(into, str) else into
        self.checkpoints = self._checkpoints(checkpoints)
        self.policy = policy or FailurePolicy()
        self.limits = limits or BatchLimits()
        self.begin = start
        self.prepare = prepare
        self.on_reset = on_reset
        self.idempotent = idempotent
        self.events = events

    def _checkpoints(self, given: EventStore[Any, Any] | str | None) -> EventStore[Any, Any]:
        if self.into is not None:
            if not self.into.has_sql:
                raise EventStoreError(f"query {self.name!r}: its effects need a database with SQL")
            if given is not None:
                raise EventStoreError(f"query {self.name!r}: its checkpoint is in the database into")
            return self.into
        store = open_store(given) if isinstance(given, str) else given or self.store
        if isinstance(store, EventStore) and store.has_side_tables:
            return store
        raise EventStoreError(
            f"query {self.name!r}: its checkpoint cannot be kept where the events are; give into= (the "
            "database of its effects) or checkpoints= (any other store, such as 'sqlite:checkpoints.db')"
        )
