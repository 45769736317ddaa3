"""The last events of a service, for tools: what happened, and what caused it. Layer: eventsourcing, cluster.

A service is registered as ``pyglyn_service_<name>`` besides its own name, so that tools find all services of
a node among its registered names. It answers ``{recent_events, After, Limit}``, with the position that was
seen last (0 at first), by ``{ok, Events, LastPosition}``: the last so many events of its type behind that
one, each ``{Id, Name, Node, At | none, Cause}``. Nothing of what is in an event is told but its name.
"""

from __future__ import annotations

from typing import Any, Final

from pyglyn.errors import EventStoreError
from pyglyn.etf import Atom, Term
from pyglyn.eventsourcing.domain import wire
from pyglyn.eventsourcing.domain.envelope import expanded
from pyglyn.eventsourcing.domain.trace import Step, step
from pyglyn.eventsourcing.stores.store import EventStore
from pyglyn.node import Process

PREFIX: Final = "pyglyn_service_"
RECENT: Final = Atom("recent_events")
MOST: Final = 1000
"""Events in one answer at most."""
_MAX_NAME: Final = 255
"""Characters of an atom."""
_WIDENED: Final = (1, 8, 64)
"""How much further back is looked where other types of events, or gaps, are among the last positions."""


async def announce(me: Process, name: str) -> None:
    """Make a service known to tools, unless its name is too long for that."""
    if len(PREFIX + name) <= _MAX_NAME:
        await me.register(PREFIX + name)


def is_request(request: Term) -> bool:
    """Whether it asks for the last events."""
    return isinstance(request, tuple) and len(request) == 3 and request[0] is RECENT


async def answer(store: EventStore[Any, Any], request: Any) -> Term:
    """Answer a request.

    Raises:
        EventStoreError: the store cannot be read, or a number is out of range.
    """
    _, after, limit = request
    if not isinstance(after, int) or not isinstance(limit, int) or after < 0 or not 0 < limit <= MOST:
        raise EventStoreError("a position is not negative, and a limit is from 1 to 1000")
    last = await store.last_position()
    found: list[Step] = []
    for factor in _WIDENED:
        start = max(after, last - limit * factor)
        events = await store.read(start, limit=limit * factor) if start < last else []
        found = [
            step(envelope, event.recorded_at)
            for event in events
            if event.envelope is not None
            for envelope in expanded([event.envelope])
        ][-limit:]
        if start <= after or len(found) == limit:
            break
    return (wire.OK, [_term(each) for each in found], last)


def _term(of: Step) -> Term:
    texts = [each.encode(errors="backslashreplace") for each in (of.id, of.name, of.node, of.cause)]
    return (*texts[:3], wire.NONE if of.at is None else of.at, texts[3])


def read_answer(answer: Any) -> tuple[list[Step], int]:
    """The events, and the last position.

    Raises:
        ValueError: it is something else.
    """
    match answer:
        case (Atom("ok"), list() as events, int() as last):
            return [_read(*event) for event in events], last
    raise ValueError("a service has answered with something else than its events")


def _read(id: bytes, name: bytes, node: bytes, at: Any, cause: bytes) -> Step:
    when = float(at) if isinstance(at, (int, float)) else None
    return Step(wire.text(id), wire.text(name), wire.text(node), when, wire.text(cause))
