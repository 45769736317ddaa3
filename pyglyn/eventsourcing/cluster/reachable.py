"""Stores that a node cannot do without: it is ready for work only while they answer.

Layer: eventsourcing, cluster.
"""

from __future__ import annotations

from typing import Any

from pyglyn.eventsourcing.stores.store import EventStore
from pyglyn.node import Process


def must_be_reachable(me: Process, store: EventStore[Any, Any], name: str) -> None:
    """Have the node count as ready (``/readyz``) only while a store answers, until this process ends.

    Args:
        me: the process that needs the store, in the OS process that has it open.
        store: asked for its last position whenever somebody wants to know.
        name: what it is called there.
    """
    withdraw = me.runtime.readiness.require(name, store.last_position)
    me.on_end.append(lambda reason: withdraw())
