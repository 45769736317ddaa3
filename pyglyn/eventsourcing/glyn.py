"""Events for everybody: any store with a broadcast over Glyn, after Gleam's ``eventsourcing_glyn``.

What is committed through the returned store goes to every query subscribed to the group, on every node, in
Python and Gleam: ``{process_events, Id, [Envelope]}`` in group ``pubsub_group`` of scope ``pubsub_scope``,
after the commit, in order per aggregate. A broadcast can be missed (a cut link, a restart, a crash between
commit and broadcast); a durable query repairs that from the store.

Source: ``eventsourcing_glyn.gleam`` 1.0.0, glyn 2.0.3. Differences: there events are published before they
are committed, and ``subscribers`` asks for the wrong group. Not supported: publishing to subscribers of glyn
after 2.0.3 (untagged messages) and of 2.0.3 in one group; ``GlynConfig.tagged`` says which. Both are
received.

Layer: eventsourcing, on top.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from pyglyn.eventsourcing.cluster.broadcast import GlynConfig, GlynStore, glyn_store, publish, subscribers
from pyglyn.eventsourcing.cluster.scope import ScopeServer
from pyglyn.eventsourcing.queries.live import Query, QuerySpec, query_worker
from pyglyn.eventsourcing.queries.parking import parking_of
from pyglyn.eventsourcing.stores.store import EventStore
from pyglyn.groups import syn
from pyglyn.node import Node
from pyglyn.supervision import ChildSpec, Supervisor, supervisor, worker

__all__ = [
    "GlynConfig",
    "GlynStore",
    "glyn_store",
    "publish",
    "query_specs",
    "start",
    "subscribers",
    "supervised",
]

E = TypeVar("E")
S = TypeVar("S")


def supervised(
    config: GlynConfig,
    underlying_store: EventStore[E, S],
    queries: Sequence[tuple[str, Query] | QuerySpec] = (),
    event_decoder: object = None,
) -> tuple[GlynStore[E, S], ChildSpec]:
    """Make a store that broadcasts, and the child specification of the queries that listen.

    The child is a one-for-one supervisor; put it before the services that use the store.

    Args:
        config: scope and group.
        underlying_store: where the events go.
        queries: ``(name, function)`` pairs or `QuerySpec`; each function runs in its own OS process and is
            called as ``function(aggregate_id, envelopes)``.
        event_decoder: the type of the events, or a decoder; None gives them to the queries as terms.

    Raises:
        UnsupportedType: the events are no Gleam values.
    """
    store = GlynStore(config, underlying_store, event_decoder)
    tree = Supervisor("one_for_one").add(
        worker(ScopeServer, config.pubsub_scope, id=f"scope_{config.pubsub_scope}", isolation="task")
    )
    for spec in query_specs(config, queries, event_decoder, underlying_store):
        tree.add(query_worker(spec))
    return store, supervisor(tree, id=f"glyn_{config.pubsub_group}", isolation="task")


def query_specs(
    config: GlynConfig,
    queries: Sequence[tuple[str, Query] | QuerySpec],
    event_decoder: object = None,
    parking: EventStore[Any, Any] | None = None,
) -> list[QuerySpec]:
    """Describe queries that listen to a group; what a `QuerySpec` says itself stays."""
    where: dict[str, Any] = {"scope": config.pubsub_scope, "group": config.pubsub_group}
    parking = parking_of(parking)
    return [QuerySpec.of(each, events=event_decoder, parking=parking, **where) for each in queries]


async def start(
    node: Node,
    config: GlynConfig,
    underlying_store: EventStore[E, S],
    queries: Sequence[tuple[str, Query] | QuerySpec] = (),
    event_decoder: object = None,
) -> GlynStore[E, S]:
    """As `supervised`, in the node's own OS process and without supervision."""
    syn.start(node, config.pubsub_scope)
    for spec in query_specs(config, queries, event_decoder, underlying_store):
        await node.start(spec.server, spec, name=spec.name)
    store = GlynStore(config, underlying_store, event_decoder)
    await store.bind(node)
    return store
