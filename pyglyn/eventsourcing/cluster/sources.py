"""Where durable queries read: a store at hand, or the services of a Glyn group on other nodes.

A service whose store broadcasts to a group answers for the store's events too: ``{read_events, After, Limit,
Id | none}`` gives ``{ok, Events, LastPosition}``. It is a member of group ``{pyglyn_events, Group}`` of the
scope, so a query on a node without the database finds one that has it, and another when that one goes.

All services of one group have to use one database: positions are the database's.

Layer: eventsourcing, cluster.
"""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

import attrs

from pyglyn.errors import (
    CallFailed,
    CallTimeout,
    DecodeErrors,
    EventDecodeError,
    EventStoreError,
    GroupError,
    ProcessError,
    StoreUnavailable,
)
from pyglyn.etf import Atom, Pid, Term
from pyglyn.eventsourcing.domain import wire
from pyglyn.eventsourcing.domain.envelope import MemoryStoreEventEnvelop, expanded
from pyglyn.eventsourcing.domain.evolution import Several
from pyglyn.eventsourcing.stores.store import BATCH, EventStore, RecordedEvent
from pyglyn.groups import syn
from pyglyn.node import Process

READ_EVENTS, UNDECODABLE, EVENTS = Atom("read_events"), Atom("undecodable"), Atom("pyglyn_events")
REPAIR_S = 2.0
"""How long a remote reader trusts that no broadcast means no event."""
MOST = 5000
"""Events in one answer at most."""
FIRST_S = 1.5
_LARGEST = 2**63 - 1


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
        EventStoreError: the store cannot be read, or a number is out of range.
    """
    match request:
        case (Atom("read_events"), int() as after, int() as limit, (bytes() | Atom("none")) as id):
            if not 0 <= after <= _LARGEST or limit < 0:
                raise EventStoreError(f"a position or limit is out of range: {after:#x}, {limit:#x}"[:200])
            only = wire.text(id) if isinstance(id, bytes) else None
            last = await store.last_position()
            events = await store.read(after, limit=min(limit, MOST), aggregate_id=only)
            return (wire.OK, [_event_term(event, write) for event in events], last)
    raise wire.misfit("{read_events, After, Limit, Id}", request)


def _event_term(event: RecordedEvent[Any], write: Any) -> Term:
    """Write an event; one that is no Gleam value goes as one that does not decode, in its place."""
    at = wire.NONE if event.recorded_at is None else event.recorded_at
    return (event.position, _bytes(event.aggregate_id), event.sequence, _body(event, write), at)


def _body(event: RecordedEvent[Any], write: Any) -> Term:
    if event.envelope is None:
        assert event.error is not None
        errors = event.error.errors
    else:
        try:
            if type(event.envelope.payload) is Several:
                return [wire.envelope_term(each, write) for each in expanded([event.envelope])]
            return wire.envelope_term(event.envelope, write)
        except Exception as error:
            errors = [f"no Gleam value: {error}"]
    raw = event.raw or (event.error.payload if event.error is not None else repr(event.envelope))
    return (UNDECODABLE, raw if isinstance(raw, bytes) else _bytes(raw), [_bytes(each) for each in errors])


def _bytes(text: str) -> bytes:
    return text.encode(errors="backslashreplace")


class RemoteEvents:
    """Reads the events of a Glyn group from whichever node has them.

    Args:
        me: who asks.
        scope, group: as in the services' `GlynConfig`.
        events: the events' type or decoder.
        timeout: seconds to wait for an answer.
        first_s: how long to wait for a service before another one is asked, if there is one.
    """

    def __init__(
        self,
        me: Process,
        scope: str,
        group: str,
        events: object = None,
        *,
        timeout: float = 10.0,
        first_s: float = FIRST_S,
    ) -> None:
        self._me = me
        self._scope = scope
        self._group = group
        self._decode = wire.event_decoding(events)
        self._timeout = timeout
        self._first_s = min(first_s, timeout)
        self._last = 0
        self._slow: set[Pid] = set()  # services that have kept us waiting: asked last

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
        failure = "no node serves them"
        for pid, timeout in await self._services():
            try:
                match await self._me.call(pid, request, timeout):
                    case (Atom("ok"), list() as events, int() as last):
                        self._last = last
                        self._slow.discard(pid)
                        return events
                    case (Atom("error"), error):
                        failure = str(wire.read_error(error))
            except CallTimeout as error:
                self._slow.add(pid)
                failure = str(error)
            except (CallFailed, DecodeErrors) as error:
                failure = str(error)
        raise StoreUnavailable(f"the events of group {self._group} cannot be read: {failure}")

    async def _services(self) -> list[tuple[Pid, float]]:
        """List whom to ask, for how long: slow ones last, those of this node before others."""
        try:
            members = await syn.members(self._me, self._scope, (EVENTS, self._group.encode()))
        except (GroupError, ProcessError) as error:
            raise StoreUnavailable(f"the services of group {self._group} are not known: {error}") from error
        pids = [pid for pid, _ in members]
        self._slow.intersection_update(pids)
        pids.sort(key=lambda pid: (pid in self._slow, pid.node != self._me.node))
        first = [(pid, self._first_s) for pid in pids if pid not in self._slow]
        return [*(first if len(pids) > 1 else []), *((pid, self._timeout) for pid in pids)]

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
                    raw=_raw(body),
                )
        raise StoreUnavailable("a node answered with something that is no event")

    def _envelope(self, id: str, sequence: int, body: Term) -> tuple[Any, EventDecodeError | None]:
        match body:
            case (Atom("undecodable"), bytes() as payload, list() as errors):
                texts = [wire.text(each) for each in errors]
                payload_text = payload.decode(errors="replace")
                return None, EventDecodeError(texts, payload=payload_text, aggregate_id=id, sequence=sequence)
        try:
            if isinstance(body, list):  # an old event that has become none or several
                read = [wire.read_envelope(each, self._decode) for each in body]
                several = Several(tuple(each.payload for each in read))
                if not read:
                    return MemoryStoreEventEnvelop(id, sequence, several), None
                return attrs.evolve(read[0], payload=several), None
            return wire.read_envelope(body, self._decode), None
        except DecodeErrors as error:
            return None, EventDecodeError(
                [str(error)], payload=repr(body), aggregate_id=id, sequence=sequence
            )


def _raw(body: Term) -> bytes:
    """Return the stored text of an event that the service could not send as one."""
    match body:
        case (Atom("undecodable"), bytes() as payload, _):
            return payload
    return b""
