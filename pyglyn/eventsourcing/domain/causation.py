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

import contextvars
import os
from collections.abc import Iterable
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any

from pyglyn import tracing
from pyglyn.eventsourcing.domain.envelope import EventEnvelope, Metadata, SerializedEventEnvelop

CORRELATION, CAUSATION, NODE = "correlation_id", "causation_id", "node"

_cause: contextvars.ContextVar[EventEnvelope[Any] | None] = contextvars.ContextVar(
    "pyglyn.eventsourcing.cause", default=None
)


def event_id(envelope: EventEnvelope[Any]) -> str:
    """Name an event: ``aggregate_type/aggregate_id/sequence``; the type is empty for memory envelopes."""
    aggregate_type = envelope.aggregate_type if isinstance(envelope, SerializedEventEnvelop) else ""
    return f"{aggregate_type}/{envelope.aggregate_id}/{envelope.sequence}"


def value_of(metadata: Iterable[tuple[str, str]], key: str) -> str | None:
    """Return the first value of a key."""
    for name, value in metadata:
        if name == key:
            return value
    return None


class caused_by:
    """Make an event the cause of the commands sent within the block.

    No generator, which takes three times as long: it is entered for each event.
    """

    __slots__ = ("_envelope", "_span", "_token")

    def __init__(self, envelope: EventEnvelope[Any]) -> None:
        self._envelope = envelope

    def __enter__(self) -> None:
        self._span: AbstractContextManager[None] | None = None
        self._token = _cause.set(self._envelope)
        if tracing.tracer is not None:
            self._span = tracing.span("query", "consumer", cause=self._envelope.metadata)
            try:
                self._span.__enter__()
            except BaseException:
                _cause.reset(self._token)
                raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._span is not None:
                self._span.__exit__(kind, error, trace)
        finally:
            _cause.reset(self._token)


def with_causation(metadata: Iterable[tuple[str, str]]) -> Metadata:
    """Add correlation and causation to a command's metadata, where they are not given."""
    pairs = list(metadata)
    cause = _cause.get()
    correlation = value_of(pairs, CORRELATION)
    if correlation is None:
        if cause is not None:
            correlation = value_of(cause.metadata, CORRELATION) or event_id(cause)
        else:
            correlation = os.urandom(16).hex()
        pairs.append((CORRELATION, correlation))
    if value_of(pairs, CAUSATION) is None:
        pairs.append((CAUSATION, event_id(cause) if cause is not None else correlation))
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
