"""Durable queries: they catch up from the store by position, then live, and miss nothing.

::

    @es.durable_query("stock_levels", store=events, into="sqlite:stock.db")
    async def project(tx: es.Transaction, envelope: es.EventEnvelope) -> None:
        await tx.execute("UPDATE stock SET level = ? WHERE product = ?", (envelope.payload.new_stock, ...))

    tree.add(project.worker())

With ``into``, the function gets a transaction of that database and one envelope; what it writes and the
checkpoint are committed together, so each event has its effect once, whatever dies when. A plain function
gets a `Cursor` with a blocking ``execute`` instead; with ``batches=True`` either gets all envelopes of the
transaction at once, ``(tx, envelopes)``. Without ``into`` it is called as a live query is,
``(aggregate_id, [envelope])``, and the checkpoint follows its return: a crash in between repeats a batch.
The checkpoint then is beside the events, or in the store ``checkpoints``.

What happens next is decided by :class:`pyglyn.eventsourcing.queries.durable_state.Projection` and carried out
by :class:`pyglyn.eventsourcing.queries.durable_server.DurableServer`.

Layer: eventsourcing, queries.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import Any, cast

from pyglyn.etf import Pid
from pyglyn.eventsourcing.queries.durable_calls import Project
from pyglyn.eventsourcing.queries.durable_server import DurableServer
from pyglyn.eventsourcing.queries.durable_spec import DurableSpec
from pyglyn.eventsourcing.stores.memory import refuse_memory_elsewhere
from pyglyn.node import Node
from pyglyn.supervision import ChildSpec, Supervisor, supervisor, worker


class DurableQuery(DurableSpec):
    """A durable query: what `durable_query` makes of a function; see `DurableSpec` for its parts."""

    def __init__(self, name: str, function: Project, **options: Any) -> None:
        super().__init__(name, function, **options)
        self._global_name: str | None = None
        functools.update_wrapper(cast(Any, self), function, updated=())

    def __call__(self, *args: Any) -> Awaitable[None] | None:
        """Call the function, as in a test of it."""
        return self.function(*args)

    def __reduce_ex__(self, protocol: Any) -> str | tuple[Any, ...]:
        return self._global_name or super().__reduce_ex__(protocol)

    def worker(self, **options: Any) -> ChildSpec:
        """Specify it for a supervision tree: an OS process of its own, or one for each partition.

        Raises:
            EventStoreError: the events are in memory, which another OS process does not see.
        """
        refuse_memory_elsewhere(f"query {self.name!r}", self.store, options)
        if self.partitions == 1:
            return worker(DurableServer, self, name=self.name, **options)
        tree = Supervisor("one_for_one")
        for partition, name in enumerate(self.names()):
            tree.add(worker(DurableServer, self, partition, name=name, **options))
        return supervisor(tree, id=self.name, isolation="task")

    async def start(self, node: Node) -> Pid:
        """Start it in the node's own OS process, without supervision; returns its (first) process."""
        pids = [
            await node.start(DurableServer, self, partition, name=name)
            for partition, name in enumerate(self.names())
        ]
        assert pids[0] is not None
        return pids[0]


def durable_query(name: str, **options: Any) -> Callable[[Project], DurableQuery]:
    """Make a durable query of the decorated function; the options are those of `DurableQuery`."""

    def decorate(function: Project) -> DurableQuery:
        query = DurableQuery(name, function, **options)
        query._global_name = getattr(function, "__qualname__", None)
        return query

    return decorate
