"""What live and durable queries have in common as processes: their name, their status, the orders they take.

Every query process is registered as ``pyglyn_query_<name>`` besides its own name, so that tools find all
queries of a node among its registered names. It answers ``gen_server`` calls::

    status                   #{name, kind, state, position, lag, processed, parked, error, commands, timers}
    parked                   [#{id, aggregate_id, sequence, attempts, error, parked_at, format, raw}]
    {drive, all | Id}        {ok, Count}
    pause | resume           ok
    reset                    ok
    {replay, all | Aggregate}  {ok, Count} or ok

Layer: eventsourcing, queries.
"""

from __future__ import annotations

import json
import logging
from typing import Any

import attrs

from pyglyn import etf
from pyglyn.errors import EventSourcingError, EventStoreError, GleamError
from pyglyn.etf import Atom, Term
from pyglyn.eventsourcing.domain import wire
from pyglyn.eventsourcing.stores.store import ParkedEvent
from pyglyn.node import Caller, GenServer

logger = logging.getLogger("pyglyn.eventsourcing")

PREFIX = "pyglyn_query_"
ALL = Atom("all")


@attrs.frozen(kw_only=True)
class QueryStatus:
    """Where a query stands.

    Attributes:
        kind: ``live``, ``durable`` or ``manager``.
        state: ``loading``, ``catching up`` (until it has once done all there was), ``live``, ``idle``,
            ``stuck`` (it tries again), ``stopped`` (it stands still until it is resumed or reset), ``paused``
            or ``standby`` (another instance has the effects).
        position: up to where it has processed the store; None for live queries.
        lag: how many positions of the store are behind that (live: messages that wait); 0 when all that was
            committed is done.
        processed: events (live: messages) since the process started.
        parked: how many events are parked.
        error: the last failure; empty when the last attempt succeeded.
        commands: of a manager: how many it has issued that are not carried out.
        timers: of a manager: how many deadlines and scheduled commands there are.
    """

    name: str
    kind: str
    state: str
    position: int | None = None
    lag: int = 0
    processed: int = 0
    parked: int = 0
    error: str = ""
    commands: int = 0
    timers: int = 0

    def term(self) -> Term:
        """Write it as a map."""
        fields: dict[Any, Term] = {}
        for name, value in attrs.asdict(self).items():
            if isinstance(value, str):
                value = value.encode(errors="backslashreplace")
            fields[Atom(name)] = wire.NONE if value is None else value
        return fields

    @classmethod
    def from_term(cls, term: Term) -> QueryStatus:
        """Read it.

        Raises:
            DecodeErrors: it is something else.
        """
        if not isinstance(term, dict):
            raise wire.misfit("the status of a query", term)
        values: dict[str, Any] = {}
        for field in attrs.fields(cls):
            value = term.get(Atom(field.name))
            if isinstance(value, bytes):
                values[field.name] = wire.text(value)
            elif value is wire.NONE:
                values[field.name] = None
            elif isinstance(value, int):
                values[field.name] = value
            elif value is None and field.default is not attrs.NOTHING:
                continue  # a node of an older version
            else:
                raise wire.misfit("the status of a query", term)
        return cls(**values)


class QueryServer(GenServer):
    """The base of query processes."""

    async def register(self, name: str) -> None:
        """Make the process known to tools."""
        await self.me.register(PREFIX + name)

    @property
    def in_hub(self) -> bool:
        """Whether the process shares the node's own OS process."""
        return self.me.runtime.serial == 0

    async def handle_call(self, request: Term, caller: Caller) -> Any:
        """Answer tools."""
        try:
            return await self._answer(request)
        except (EventSourcingError, GleamError) as error:
            return (wire.ERROR, wire.error_term(error))
        except Exception as error:
            logger.exception("a query could not answer")
            return (wire.ERROR, wire.error_term(error))

    async def handle_cast(self, request: Term) -> None:
        """Take no notice: nobody has casts for a query, and who sends one is not to end it."""

    async def _answer(self, request: Term) -> Term:
        match request:
            case Atom("status"):
                return (await self.status()).term()
            case Atom("parked"):
                return [parked_term(event) for event in await self.parked()]
            case (Atom("drive"), int() as id) if not isinstance(id, bool):
                return (wire.OK, await self.drive(id))
            case (Atom("drive"), Atom("all")):
                return (wire.OK, await self.drive(None))
            case Atom("pause") | Atom("resume"):
                await self.pause(request is Atom("pause"))
                return wire.OK
            case Atom("reset"):
                await self.reset()
                return wire.OK
            case (Atom("replay"), Atom("all")):
                await self.reset()
                return wire.OK
            case (Atom("replay"), bytes() as id):
                return (wire.OK, await self.replay(wire.text(id)))
        raise EventStoreError("a query knows no such request")

    async def status(self) -> QueryStatus:
        """Tell where it stands."""
        raise NotImplementedError

    async def parked(self) -> list[ParkedEvent]:
        """List what is parked."""
        raise NotImplementedError

    async def drive(self, id: int | None) -> int:
        """Process parked events again."""
        raise NotImplementedError

    async def pause(self, paused: bool) -> None:
        """Stand still, or go on."""
        raise NotImplementedError

    async def reset(self) -> None:
        """Begin again at the first event."""
        raise EventStoreError("a live query has no position: it cannot be reset or replayed")

    async def replay(self, aggregate_id: str) -> int:
        """Process the events of one aggregate again."""
        raise EventStoreError("a live query has no position: it cannot be reset or replayed")


def parked_term(event: ParkedEvent) -> Term:
    """Write a parked event as a map."""
    return {
        Atom("id"): event.id if event.id is not None else 0,
        Atom("aggregate_id"): event.aggregate_id.encode(errors="backslashreplace"),
        Atom("sequence"): event.sequence,
        Atom("attempts"): event.attempts,
        Atom("error"): event.error.encode(errors="backslashreplace"),
        Atom("parked_at"): event.parked_at,
        Atom("format"): Atom(event.format),
        Atom("raw"): event.raw,
    }


def parked_from_term(event: ParkedEvent) -> Term:
    """Return the term of an event that was parked as one.

    Raises:
        EtfError: it does not decode.
    """
    return etf.decode(event.raw)


def readable(event: dict[Any, Any]) -> str:
    """Show the raw form of a parked event, given as its map, to people."""
    raw = event[Atom("raw")]
    if event[Atom("format")] is Atom("etf"):
        return etf.text.format(etf.decode(raw))
    try:
        return json.dumps(json.loads(raw), ensure_ascii=False)
    except ValueError:
        return str(raw.decode(errors="replace"))
