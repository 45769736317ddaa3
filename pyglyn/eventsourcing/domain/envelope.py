"""Events as they are stored and sent: with their aggregate, their sequence number and their metadata. Pure.

The two envelope classes and :class:`ProcessEvents` are the Gleam library's own constructors (its spelling
included), so they are also what travels: ``{serialized_event_envelop, Id, Seq, Payload, [{K, V}], EventType,
EventVersion, AggregateType}`` and ``{memory_store_event_envelop, Id, Seq, Payload, [{K, V}]}``. Field order
is the wire order.

Source: ``eventsourcing.gleam`` 9.1, types ``EventEnvelop`` and ``QueryMessage``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Generic, TypeAlias, TypeVar

import attrs

from pyglyn.errors import EventDecodeError
from pyglyn.eventsourcing.domain.evolution import Several, each

E = TypeVar("E")

Metadata: TypeAlias = list[tuple[str, str]]
"""Pairs of strings, in order; a key may occur twice."""


COMMAND_ID = "command_id"
"""The key under which metadata may have the id of a command."""


def metadata_pairs(pairs: Iterable[tuple[str, str]]) -> Metadata:
    """Check and copy metadata pairs.

    Raises:
        TypeError: an entry is no pair of two strings.
    """
    checked: Metadata = []
    for pair in pairs:
        if type(pair) is tuple and len(pair) == 2 and type(pair[0]) is type(pair[1]) is str:
            checked.append(pair)
            continue
        if not (isinstance(pair, tuple | list) and len(pair) == 2 and all(isinstance(x, str) for x in pair)):
            raise TypeError(f"metadata is pairs of two strings, such as [('by', 'teller')]; got {pair!r}")
        checked.append((pair[0], pair[1]))
    return checked


@attrs.frozen
class MemoryStoreEventEnvelop(Generic[E]):
    """An event of the memory store: no type names beside it."""

    aggregate_id: str
    sequence: int
    payload: E
    metadata: Metadata = attrs.field(factory=list)


@attrs.define  # not frozen: one per event read, and a frozen one takes four times as long to make
class SerializedEventEnvelop(Generic[E]):
    """An event of a store that keeps text: with the three constants of its store."""

    aggregate_id: str
    sequence: int
    payload: E
    metadata: Metadata
    event_type: str
    event_version: str
    aggregate_type: str


EventEnvelope: TypeAlias = MemoryStoreEventEnvelop[E] | SerializedEventEnvelop[E]


def expanded(envelopes: Iterable[EventEnvelope[Any]]) -> list[EventEnvelope[Any]]:
    """Put an envelope of the same sequence in place of each event that an old one has become."""
    return [
        envelope if type(envelope.payload) is not Several else attrs.evolve(envelope, payload=event)
        for envelope in envelopes
        for event in each(envelope.payload)
    ]


@attrs.define  # not frozen: one per event read, and a frozen one takes four times as long to make
class RecordedEvent(Generic[E]):
    """An event as a reader by position gets it.

    Attributes:
        envelope: the event; None when it does not decode.
        error: why it does not, with the stored text in ``error.payload``.
        recorded_at: when it was written, in seconds since 1970; None for events older than our side tables.
        raw: the payload as it is stored, bytes where it is no text; empty for stores that keep objects.
    """

    position: int
    aggregate_id: str
    sequence: int
    envelope: EventEnvelope[E] | None
    error: EventDecodeError | None = None
    recorded_at: float | None = None
    raw: str | bytes = ""


@attrs.frozen
class ProcessEvents(Generic[E]):
    """What a query process receives: committed events of one aggregate, in order."""

    aggregate_id: str
    events: list[EventEnvelope[E]]
