"""What caused what: correlation and causation ids in the metadata pairs.

Every event carries three pairs by default, besides those its command was given:

``correlation_id``
    the same for everything that one outside request led to;
``causation_id``
    what directly caused it: the event id (``aggregate_type/aggregate_id/sequence``) of the event a query was
    processing when it sent the command, or the correlation id itself at the root;
``node``
    where the command was carried out.

While a query function runs, the event it processes is the cause of the commands it sends. A Gleam service
passes the pairs on only if its programmer does.

Layer: eventsourcing; knows of no node but its name.
"""

from __future__ import annotations

import contextlib
import contextvars
import uuid
from collections.abc import Iterable, Iterator
from typing import Any

from pyglyn import tracing
from pyglyn.eventsourcing.domain.envelope import EventEnvelope, Metadata, SerializedEventEnvelop

CORRELATION, CAUSATION, NODE = "correlation_id", "causation_id", "node"

_cause: contextvars.ContextVar[tuple[str, str] | None] = contextvars.ContextVar(
    "pyglyn.eventsourcing.cause", default=None
)


def event_id(envelope: EventEnvelope[Any]) -> str:
    """Name an event: ``aggregate_type/aggregate_id/sequence``; the type is empty for memory envelopes."""
    aggregate_type = envelope.aggregate_type if isinstance(envelope, SerializedEventEnvelop) else ""
    return f"{aggregate_type}/{envelope.aggregate_id}/{envelope.sequence}"


def value_of(metadata: Iterable[tuple[str, str]], key: str) -> str | None:
    """Return the first value of a key."""
    return next((value for name, value in metadata if name == key), None)


@contextlib.contextmanager
def caused_by(envelope: EventEnvelope[Any]) -> Iterator[None]:
    """Make an event the cause of the commands sent within the block."""
    correlation = value_of(envelope.metadata, CORRELATION) or event_id(envelope)
    token = _cause.set((correlation, event_id(envelope)))
    try:
        if tracing.tracer is None:
            yield
        else:
            with tracing.span("query", "consumer", cause=envelope.metadata):
                yield
    finally:
        _cause.reset(token)


def with_causation(metadata: Iterable[tuple[str, str]]) -> Metadata:
    """Add correlation and causation to a command's metadata, where they are not given."""
    pairs = list(metadata)
    cause = _cause.get()
    correlation = value_of(pairs, CORRELATION)
    if correlation is None:
        correlation = cause[0] if cause is not None else uuid.uuid4().hex
        pairs.append((CORRELATION, correlation))
    if value_of(pairs, CAUSATION) is None:
        pairs.append((CAUSATION, cause[1] if cause is not None else correlation))
    return pairs


def with_cause(metadata: Iterable[tuple[str, str]]) -> Metadata:
    """Add the ids of the event being processed, if a query is processing one; the service adds the rest.

    And the span that the command comes from, where there is one.
    """
    if tracing.tracer is not None:
        metadata = tracing.carried(metadata)
    return with_causation(metadata) if _cause.get() is not None else list(metadata)


def with_node(metadata: Metadata, node: str) -> Metadata:
    """Add where the command is carried out."""
    return metadata if value_of(metadata, NODE) is not None else [*metadata, (NODE, node)]
