"""What is declared of a durable query. Layer: eventsourcing, queries."""

from __future__ import annotations

import datetime
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Literal, TypeAlias

from pyglyn.errors import EventStoreError, NonPositiveArgument
from pyglyn.eventsourcing.cluster.broadcast import GlynConfig, GlynStore
from pyglyn.eventsourcing.cluster.sources import Source
from pyglyn.eventsourcing.queries.durable_calls import Project
from pyglyn.eventsourcing.queries.durable_state import BatchLimits
from pyglyn.eventsourcing.queries.failure import FailurePolicy
from pyglyn.eventsourcing.queries.selected import Passing, SelectedEvents, SelectedFacts, tag_key_of
from pyglyn.eventsourcing.stores.facts.log import Query
from pyglyn.eventsourcing.stores.facts.store import FactStore
from pyglyn.eventsourcing.stores.opening import open_store
from pyglyn.eventsourcing.stores.read_only_sql import ReadOnlySql, database_of
from pyglyn.eventsourcing.stores.selection import Selection
from pyglyn.eventsourcing.stores.store import EventStore, Transaction

Start: TypeAlias = 'int | datetime.datetime | Literal["now"]'
Prepare: TypeAlias = Callable[[Transaction[Any, Any]], Awaitable[None]]
OnReset: TypeAlias = Callable[[Transaction[Any, Any], "str | None"], Awaitable[None]]


class DurableSpec:
    """A durable query as declared: function, places, rules.

    Attributes:
        name: the query's; its checkpoint and its process have it too.
        function: what is called for each event.
        store: where the events are: a store, facts, or a `GlynConfig` whose services are asked.
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
        batches: ``function(tx, envelopes)`` is called once for all events of a transaction. When it raises,
            halves are tried until it is known which event makes it raise.
        select: which events it gets, looked for where the events are: classes of events (tags, for events
            that are read as plain JSON), or of facts an `es.Query`; None for all.
        partitions: how many instances share the events, each with the checkpoint ``name_1_of_N`` and so on:
            those of one aggregate (of facts: of one stream) always come to the same one, in order.
        events: the type of the events, where ``store`` is a `GlynConfig`.
        sql: that `es.select` and ``pyglyn sql`` may ask the database ``into``, all of it, and what a
            statement may take: True, or a `ReadOnlySql`. Nobody may unless given.

    Raises:
        EventStoreError: ``into`` has no SQL, or nothing is there to keep the checkpoint; batches without
            ``into``; a selection that the store has no means for.
        NonPositiveArgument: less than one partition.
    """

    def __init__(
        self,
        name: str,
        function: Project,
        *,
        store: EventStore[Any, Any] | GlynConfig | FactStore[Any],
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
        batches: bool = False,
        select: Query | Sequence[type | str] | None = None,
        partitions: int = 1,
        sql: ReadOnlySql | bool = False,
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
        self.batches = batches
        self.select = select
        self.partitions = partitions
        self.sql = ReadOnlySql() if sql is True else sql or None
        self._check()

    def _check(self) -> None:
        if self.batches and self.into is None:
            raise EventStoreError(f"query {self.name!r}: batches need a transaction, so give into=")
        if self.sql is not None:
            if self.into is None:
                raise EventStoreError(f"query {self.name!r}: without into= it has no tables for sql=")
            database_of(self.into)
        if self.partitions < 1:
            raise NonPositiveArgument(f"query {self.name!r}: one partition or more, got {self.partitions}")
        of_facts = isinstance(self.store, FactStore)
        if self.select is not None and isinstance(self.select, Query) != of_facts:
            wanted = "an es.Query" if of_facts else "classes"
            raise EventStoreError(f"query {self.name!r} selects by {wanted}, got {self.select!r}")
        if of_facts and isinstance(self.begin, datetime.datetime):
            raise EventStoreError(f"query {self.name!r}: facts have no time, so it cannot begin at one")

    def names(self) -> list[str]:
        """Return the names of its instances: its own, or one for each partition."""
        if self.partitions == 1:
            return [self.name]
        return [f"{self.name}_{number}_of_{self.partitions}" for number in range(1, self.partitions + 1)]

    def source(self, source: Source | FactStore[Any], partition: int) -> tuple[Source, Passing | None]:
        """Return all events, and those that a partition gets if that is not all of them."""
        part = None if self.partitions == 1 else (partition, self.partitions)
        if isinstance(source, FactStore):
            assert self.select is None or isinstance(self.select, Query)
            return SelectedFacts(source, None), SelectedFacts(source, self.select, part)
        if self.select is None and part is None:
            return source, None
        assert not isinstance(self.select, Query)
        types = None if self.select is None else tuple(self.select)
        return source, SelectedEvents(source, Selection(types, part, tag_key_of(source)))

    def _checkpoints(self, given: EventStore[Any, Any] | str | None) -> EventStore[Any, Any]:
        if self.into is not None:
            self._check_into(self.into)
            if given is not None:
                raise EventStoreError(f"query {self.name!r}: its checkpoint is in the database into")
            return self.into
        store: object = open_store(given) if isinstance(given, str) else given or self.store
        if isinstance(store, EventStore) and store.has_side_tables:
            return store
        raise EventStoreError(
            f"query {self.name!r}: its checkpoint cannot be kept where the events are; give into= (the "
            "database of its effects) or checkpoints= (any other store, such as 'sqlite:checkpoints.db')"
        )

    def _check_into(self, into: EventStore[Any, Any]) -> None:
        if not into.has_sql:
            raise EventStoreError(f"query {self.name!r}: its effects need a database with SQL")
