"""What an event caused: the tree of a correlation id, from the events of one or more stores. Pure.

Events name their cause by ``causation_id`` (see
:mod:`pyglyn.eventsourcing.domain.causation`); an event whose cause is not among the events given is a root.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import attrs

from pyglyn.eventsourcing.domain.envelope import EventEnvelope, SerializedEventEnvelop


@attrs.define
class Traced:
    """An event in the tree.

    Attributes:
        id: ``aggregate_type/aggregate_id/sequence``.
        name: what happened.
        node: where its command was carried out; empty when unknown.
        at: when it was written, seconds since 1970; None when unknown.
        caused: the events it led to, oldest first.
    """

    id: str
    name: str
    node: str
    at: float | None
    caused: list[Traced] = attrs.field(factory=list)


@attrs.frozen
class Step:
    """An event as `tree` takes it: that of a `Traced`, and the id of what caused it, empty when unknown."""

    id: str
    name: str
    node: str
    at: float | None
    cause: str


def step(envelope: EventEnvelope[Any], at: float | None) -> Step:
    """What the tree needs of an event that was written at some time."""
    metadata = dict(reversed(envelope.metadata))  # the first of several values counts
    aggregate_type = envelope.aggregate_type if isinstance(envelope, SerializedEventEnvelop) else ""
    id, name = f"{aggregate_type}/{envelope.aggregate_id}/{envelope.sequence}", event_name(envelope.payload)
    return Step(id, name, metadata.get("node", ""), at, metadata.get("causation_id", ""))


def trace(events: Iterable[tuple[EventEnvelope[Any], float | None]]) -> list[Traced]:
    """Put the events of one correlation into their tree.

    Args:
        events: envelopes with the time they were written at.

    Returns:
        The roots, oldest first. Events of one command stand side by side.
    """
    return tree(step(envelope, at) for envelope, at in events)


def tree(steps: Iterable[Step]) -> list[Traced]:
    """Put events into their tree; the roots, oldest first."""
    found = {each.id: (Traced(each.id, each.name, each.node, each.at), each.cause) for each in steps}
    roots: list[Traced] = []
    sound: set[str] = set()  # events whose causes lead to a root
    for id, (traced, cause) in found.items():
        siblings = found[cause][0].caused if cause in found and _is_sound(found, id, sound) else roots
        siblings.append(traced)
    for traced, _ in found.values():
        traced.caused.sort(key=_age)
    return sorted(roots, key=_age)


def _is_sound(found: dict[str, tuple[Traced, str]], id: str, sound: set[str]) -> bool:
    """Whether the causes of an event lead to a root: made-up metadata may go in a circle."""
    seen: set[str] = set()
    while id in found and id not in sound:
        if id in seen:
            return False
        seen.add(id)
        id = found[id][1]
    sound |= seen
    return True


def _age(traced: Traced) -> tuple[float, str]:
    return (traced.at if traced.at is not None else 0.0, traced.id)


def event_name(payload: object) -> str:
    """Name an event: its class, or the tag in its JSON."""
    if isinstance(payload, dict):
        for key in ("event-type", "type", "event_type", "tag"):
            if isinstance(payload.get(key), str):
                return str(payload[key])
        return "event"
    if isinstance(payload, str):
        return payload
    return type(payload).__name__
