"""Where durable queries read: a store at hand, or the services of a Glyn group on other nodes.

A service whose store broadcasts to a group answers for the store's events too: ``{read_events, After, Limit,
Id | none}`` gives ``{ok, Events, LastPosition}``. It is a member of group ``{pyglyn_events, Group}`` of the
scope, so a query on a node without the database finds one that has it, and another when that one goes.

All services of one group have to use one database: positions are the database's.

Layer: eventsourcing, on a node.
"""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

from pyglyn.errors import CallFailed, CallTimeout, DecodeErrors, EventDecodeError, StoreUnavailable
from pyglyn.etf import Atom, Term
from pyglyn.eventsourcing import wire
from pyglyn.eventsourcing.store import BATCH, EventStore, RecordedEvent
from pyglyn.groups import syn
from pyglyn.node import Process

READ_EVENTS, UNDECODABLE, EVENTS = Atom("read_events"), Atom("undecodable"), Atom("pyglyn_events")
REPAIR_S = 2.0
"""How long a remote reader trusts that no broadcast means no event."""
MOST = 5000


class Source(Protocol):
    """What a durable query needs of a store."""

    async def read(
        self, after: int = 0, *, limit: int = BATCH, aggregate_id: str | None = None
    ) -> list[RecordedEvent[Any]]: ...

    async def last_position(self) -> int: ...

    async def wait(self, after: int, *, timeout: float | None = None) -> bool: ...


async def serve(at: Process, scope: str, group: str) -> None:
    """Make a service found by readers of other nodes."""
    await syn.join(at, scope, (EVENTS, group.encode()), at.pid)


async def answer_read(store: EventStore[Any, Any], request: Term, write: Any) -> Term:
    """Answer ``{read_events, After, Limit, Id | none}``.

    Raises:
        DecodeErrors: it is something else.
        EventStoreError: the store cannot be read.
    """
    match request:
        case (Atom("read_events"), int() as after, int() as limit, (bytes() | Atom("none")) as id):
            only = wire.text(id) if isinstance(id, bytes) else None
            last = await store.last_position()
            events = await store.read(after, limit=max(0, min(limit, MOST)), aggregate_id=only)
            return (wire.OK, [_event_term(event, write) for event in events], last)
    raise wire.misfit("{read_events, After, Limit, Id}", request)


def _event_term(event: RecordedEvent[Any], write: Any) -> Term:
    if event.envelope is not None:
        body = wire.envelope_term(event.envelope, write)
    else:
        assert event.error is not None
        body = (UNDECODABLE, event.error.payload.encode(), [each.encode() for each in event.error.errors])
    at = wire.NONE if event.recorded_at is None else event.recorded_at
    return (event.position, event.aggregate_id.encode(), event.sequence, body, at)


class RemoteEvents:
    """Reads the events of a Glyn group from whichever node has them.

    Args:
        me: who asks.
        scope, group: as in the services' `GlynConfig`.
        events: the events' type or decoder.
        timeout: seconds to wait for an answer.
    """

    def __init__(
        self, me: Process, scope: str, group: str, events: object = None, *, timeout: float = 10.0
    ) -> None:
        self._me = me
        self._scope = scope
        self._group = group
        self._decode = wire.decoding(events)
        self._timeout = timeout
        self._last = 0

    async def read(
        self, after: int = 0, *, limit: int = BATCH, aggregate_id: str | None = None
    ) -> list[RecordedEvent[Any]]:
        """As `EventStore.read`.

        Raises:
            StoreUnavailable: no node answers.
        """
        only = wire.NONE if aggregate_id is None else aggregate_id.encode()
        events = await self._ask((READ_EVENTS, after, limit, only))
        return [self._event(event) for event in events]

    async def last_position(self) -> int:
        """As `EventStore.last_position`."""
        await self._ask((READ_EVENTS, 0, 0, wire.NONE))
        return self._last

    async def wait(self, after: int, *, timeout: float | None = None) -> bool:
        """Wait until it is time to look, in case a broadcast was missed."""
        await asyncio.sleep(REPAIR_S if timeout is None else min(REPAIR_S, timeout))
        return True

    async def _ask(self, request: Term) -> list[Any]:
        members = await syn.members(self._me, self._scope, (EVENTS, self._group.encode()))
        failure = "no node serves them"
        for pid, _ in sorted(members, key=lambda member: member[0].node != self._me.node):
            try:
                match await self._me.call(pid, request, self._timeout):
                    case (Atom("ok"), list() as events, int() as last):
                        self._last = last
                        return events
                    case (Atom("error"), error):
                        failure = str(wire.read_error(error))
            except (CallFailed, CallTimeout) as error:
                failure = str(error)
        raise StoreUnavailable(f"the events of group {self._group} cannot be read: {failure}")

    def _event(self, term: Term) -> RecordedEvent[Any]:
        match term:
            case (int() as position, bytes() as id, int() as sequence, body, at):
                aggregate_id = wire.text(id)
                envelope, error = self._envelope(aggregate_id, sequence, body)
                return RecordedEvent(
                    position=position,
                    aggregate_id=aggregate_id,
                    sequence=sequence,
                    envelope=envelope,
                    error=error,
                    recorded_at=at if isinstance(at, float) else None,
                )
        raise StoreUnavailable("a node answered with something that is no event")

    def _envelope(self, id: str, sequence: int, body: Term) -> tuple[Any, EventDecodeError | None]:
        match body:
            case (Atom("undecodable"), bytes() as payload, list() as errors):
                texts = [wire.text(each) for each in errors]
                payload_text = payload.decode(errors="replace")
                return None, EventDecodeError(texts, payload=payload_text, aggregate_id=id, sequence=sequence)
        try:
            return wire.read_envelope(body, self._decode), None
        except DecodeErrors as error:
            return None, EventDecodeError(
                [str(error)], payload=repr(body), aggregate_id=id, sequence=sequence
            )
