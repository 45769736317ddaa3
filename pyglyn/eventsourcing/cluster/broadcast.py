"""A store that broadcasts what it commits over Glyn, and publishing to its subscribers.

``{process_events, Id, [Envelope]}`` goes to group ``pubsub_group`` of scope ``pubsub_scope``, after the
commit, in order per aggregate.

Source: ``eventsourcing_glyn.gleam`` 1.0.0, glyn 2.0.3. Layer: eventsourcing, cluster.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import attrs

from pyglyn.errors import NoProcess, PyglynError
from pyglyn.etf import Pid, Term
from pyglyn.eventsourcing.cluster import sources
from pyglyn.eventsourcing.cluster.scope import ensure_scope
from pyglyn.eventsourcing.domain import wire
from pyglyn.eventsourcing.domain.envelope import EventEnvelope, ProcessEvents
from pyglyn.eventsourcing.stores.store import EventStore, Transaction
from pyglyn.eventsourcing.stores.wrapped import WrappedStore, WrappedTransaction
from pyglyn.groups import syn
from pyglyn.node import At, Node
from pyglyn.node.process import current

logger = logging.getLogger("pyglyn.eventsourcing")

E = TypeVar("E")
S = TypeVar("S")


@attrs.frozen(kw_only=True)
class GlynConfig:
    """Where events are broadcast.

    Attributes:
        pubsub_scope: the scope.
        pubsub_group: the group that the queries subscribe, and that commits are published to.
        tagged: publish as glyn 2.0.3 does (``{Group, Message}``); False for later ones (bare messages).
    """

    pubsub_scope: str
    pubsub_group: str
    tagged: bool = True


class GlynStore(WrappedStore[E, S]):
    """A store that broadcasts what it commits; made by `supervised`."""

    def __init__(self, config: GlynConfig, underlying: EventStore[E, S], events: object = None) -> None:
        super().__init__(underlying)
        self.config = config
        self._events = events
        self._at: At | None = None
        self._write: Callable[[Any], Term] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_at": None, "_write": None}

    async def bind(self, at: At) -> None:
        """Say which process publishes and answers readers of other nodes: a service, for its store."""
        self._at = at
        if isinstance(at, Node):
            syn.start(at, self.config.pubsub_scope)
        else:
            await ensure_scope(at, self.config.pubsub_scope)
            await sources.serve(at, self.config.pubsub_scope, self.config.pubsub_group)

    def at(self, given: At | None = None) -> At:
        """Who publishes: the one given, the running process, or the one the store was bound to."""
        return given or current.get(None) or self._at or _somebody(None)

    async def broadcast(
        self, aggregate_id: str, envelopes: list[EventEnvelope[Any]], written: Sequence[Term]
    ) -> None:
        """Publish what was committed. It is committed: what goes wrong here is logged, not raised."""
        if not envelopes:
            return
        try:
            body = wire.committed_term(ProcessEvents(aggregate_id, envelopes), written)
            await _publish(self.config, self.at(), self.config.pubsub_group, body)
        except PyglynError as error:
            logger.warning(
                "events %d to %d of %s are committed, but could not be broadcast: %s",
                envelopes[0].sequence,
                envelopes[-1].sequence,
                aggregate_id,
                error,
            )

    def term(self, message: ProcessEvents[Any]) -> Term:
        """Write a message; events that are not of the store's type are written by their own classes."""
        try:
            return wire.process_events_term(message, self._encode)
        except PyglynError:
            return wire.process_events_term(message)

    def write(self, events: Iterable[E]) -> list[Term]:
        """Write events as they are broadcast, before they are committed.

        Raises:
            EventEncodeError: one is no Gleam value.
        """
        return [self._payload(event) for event in events]

    def _payload(self, event: E) -> Term:
        try:
            return wire.payload(event, self._encode)
        except PyglynError:
            return wire.payload(event)

    def _encode(self, event: Any) -> Term:
        if self._write is None:
            self._write = wire.encoding(self._events)
        return self._write(event)

    async def append(self, aggregate_id: str, events: Sequence[E], **options: Any) -> list[EventEnvelope[E]]:
        written = options["written"] = options.get("written") or self.write(events)
        envelopes = await self.underlying.append(aggregate_id, events, **options)
        await self.broadcast(aggregate_id, envelopes, written[: len(envelopes)])
        return envelopes

    def wrap(self, transaction: Transaction[E, S]) -> GlynTransaction[E, S]:
        return GlynTransaction(transaction, self)

    async def after_commit(self, transaction: WrappedTransaction[E, S]) -> None:
        assert isinstance(transaction, GlynTransaction)
        for aggregate_id, envelopes, written in transaction.appended:
            await self.broadcast(aggregate_id, envelopes, written)


class GlynTransaction(WrappedTransaction[E, S]):
    """Remembers what is to be broadcast once it is committed."""

    def __init__(self, underlying: Transaction[E, S], store: GlynStore[E, S]) -> None:
        super().__init__(underlying)
        self._store = store
        self.appended: list[tuple[str, list[EventEnvelope[E]], Sequence[Term]]] = []

    async def append(self, aggregate_id: str, events: Sequence[E], **options: Any) -> list[EventEnvelope[E]]:
        written = options["written"] = options.get("written") or self._store.write(events)
        envelopes = await self.underlying.append(aggregate_id, events, **options)
        self.appended.append((aggregate_id, envelopes, written[: len(envelopes)]))
        return envelopes


def glyn_store(
    config: GlynConfig, underlying_store: EventStore[E, S], event_decoder: object = None
) -> GlynStore[E, S]:
    """Make a store that broadcasts, without queries of its own."""
    return GlynStore(config, underlying_store, event_decoder)


async def publish(
    store: GlynStore[Any, Any] | GlynConfig, group: str, message: ProcessEvents[Any], *, at: At | None = None
) -> int:
    """Send events to every subscriber of a group in the store's scope.

    Args:
        store: says in which scope, and how; its configuration does as well.
        group: the group, any.
        message: whose events.
        at: the node or process that sends; by default the running process.

    Returns:
        How many subscribers there are.

    Raises:
        NoProcess: there is no node to send from, or its scope was not started.
        GleamError: an event is no Gleam value.
    """
    config, term, sender = _means(store, at)
    return await _publish(config, sender, group, term(message))


async def _publish(config: GlynConfig, sender: At, group: str, body: Term) -> int:
    name = group.encode()
    return await syn.publish(sender, config.pubsub_scope, name, (name, body) if config.tagged else body)


async def subscribers(
    store: GlynStore[Any, Any] | GlynConfig, group: str | None = None, *, at: At | None = None
) -> list[Pid]:
    """List the subscribers of a group, by default the one the store publishes to."""
    config, _, sender = _means(store, at)
    name = (group or config.pubsub_group).encode()
    return [pid for pid, _ in await syn.members(sender, config.pubsub_scope, name)]


def _means(
    store: GlynStore[Any, Any] | GlynConfig, at: At | None
) -> tuple[GlynConfig, Callable[[ProcessEvents[Any]], Term], At]:
    if isinstance(store, GlynConfig):
        return store, wire.process_events_term, _somebody(at or current.get(None))
    return store.config, store.term, store.at(at)


def _somebody(at: At | None) -> At:
    if at is None:
        raise NoProcess("publishing needs a node: call from a process, or give at=node")
    return at
