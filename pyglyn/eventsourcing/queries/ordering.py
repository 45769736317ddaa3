"""The order of events per aggregate where they come from several nodes. Pure.

One node's events of one aggregate arrive in the order of their commits. When an aggregate changes its node,
the first event of the new one may overtake the last of the old one: an event that leaves a gap waits a moment
for the missing ones. If they do not come (somebody publishes only some of an aggregate's events, or a message
was lost) it is delivered without them. Events with known or lower numbers are delivered as they come: a
store that began anew counts from 1 again.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, Generic, TypeVar

import attrs

from pyglyn.eventsourcing.domain.envelope import EventEnvelope, ProcessEvents, SerializedEventEnvelop

Key = tuple[str, str]
M = TypeVar("M", bound=ProcessEvents[Any])


@attrs.define
class _Held(Generic[M]):
    messages: list[M]
    until: float


class Ordering(Generic[M]):
    """Holds messages back that came too early.

    Args:
        hold_s: for how long.
        remembered: of how many aggregates the last number is kept.
    """

    def __init__(self, hold_s: float = 0.1, remembered: int = 10_000) -> None:
        self._hold_s = hold_s
        self._remembered = remembered
        self._last: OrderedDict[Key, int] = OrderedDict()
        self._held: dict[Key, _Held[M]] = {}

    def take(self, message: M, now: float) -> list[M]:
        """Take a message; returns what is to be delivered now, in order."""
        if not message.events:
            return [message]
        key = _key(message.aggregate_id, message.events[0])
        last = self._last.get(key)
        if last is not None and message.events[0].sequence > last + 1:
            held = self._held.setdefault(key, _Held([], now + self._hold_s))
            held.messages.append(message)
            held.messages.sort(key=lambda each: each.events[0].sequence)
            return []
        delivered = [self._deliver(key, message)]
        delivered += self._continued(key)
        return delivered

    def _deliver(self, key: Key, message: M) -> M:
        self._last[key] = message.events[-1].sequence
        self._last.move_to_end(key)
        if len(self._last) > self._remembered:
            self._last.popitem(last=False)
        return message

    def _continued(self, key: Key) -> list[M]:
        held = self._held.get(key)
        delivered: list[M] = []
        while held is not None and held.messages:
            if held.messages[0].events[0].sequence > self._last[key] + 1:
                return delivered
            delivered.append(self._deliver(key, held.messages.pop(0)))
        self._held.pop(key, None)
        return delivered

    def next_deadline(self) -> float | None:
        """Return when to call ``overdue`` next; None when nothing is held."""
        return min((held.until for held in self._held.values()), default=None)

    def overdue(self, now: float) -> list[M]:
        """Return what has been held long enough, in order per aggregate."""
        delivered: list[M] = []
        for key in [key for key, held in self._held.items() if held.until <= now]:
            delivered += [self._deliver(key, message) for message in self._held.pop(key).messages]
        return delivered


def _key(aggregate_id: str, envelope: EventEnvelope[Any]) -> Key:
    aggregate_type = envelope.aggregate_type if isinstance(envelope, SerializedEventEnvelop) else ""
    return aggregate_type, aggregate_id
