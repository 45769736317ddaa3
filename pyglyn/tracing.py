"""Spans for OpenTelemetry: of calls, commands, appends and queries. Layer: tracing; below all.

Off until `enable` is called, in each OS process that is to be traced: a forked child has it from its
supervisor, a fresh interpreter calls it anew. Off, it is one look at `tracer` for each of those, and
nothing of OpenTelemetry is imported. Only ``opentelemetry-api`` is used (extra ``otel``): which SDK and
exporter there are is the application's choice, as everywhere with OpenTelemetry.

A trace goes on from a command to its events and to the queries that process them, on whatever node, by
``traceparent`` (W3C Trace Context) in the metadata pairs, which Gleam services pass on like any others.
Spans have names, kinds and types of errors, and no ids of aggregates, no messages and no texts of errors.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any, Final, Literal, TypeAlias

TRACEPARENT: Final = "traceparent"
TRACESTATE: Final = "tracestate"
Pairs: TypeAlias = list[tuple[str, str]]
Kind: TypeAlias = Literal["internal", "client", "server", "producer", "consumer"]

tracer: Any = None
"""What makes spans; None while this is off, which callers look at before they call anything here."""
_carrier: Any = None


def enable(tracer_provider: Any = None) -> None:
    """Make spans from now on, in this OS process and those it forks.

    Args:
        tracer_provider: where they go; None for the global one.

    Raises:
        ImportError: ``opentelemetry-api`` is not installed: ``pip install 'pyglyn[otel]'``.
    """
    global tracer, _carrier
    from opentelemetry import trace
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    _carrier = TraceContextTextMapPropagator()
    tracer = trace.get_tracer("pyglyn", tracer_provider=tracer_provider)


def disable() -> None:
    """Make no more."""
    global tracer
    tracer = None


@contextlib.contextmanager
def span(
    name: str,
    kind: Kind = "internal",
    *,
    cause: Iterable[tuple[str, str]] | None = None,
    expected: tuple[type[Exception], ...] = (),
    **attributes: str | int,
) -> Iterator[None]:
    """A span around the block; only while this is on.

    Args:
        name: of few: what is done, not to whom.
        cause: metadata pairs; what they say goes on here, where they say something.
        expected: exceptions that are no failure.
        attributes: with ``_`` for the dots of their names.
    """
    from opentelemetry import trace

    context = None
    if cause is not None:
        context = _carrier.extract({key: value for key, value in cause if key in _KEYS})
    told = {f"pyglyn.{key.replace('_', '.')}": value for key, value in attributes.items()}
    with tracer.start_as_current_span(
        name,
        context=context,
        kind=trace.SpanKind[kind.upper()],
        attributes=told,
        record_exception=False,  # its text may have a message in it
        set_status_on_exception=False,
    ) as made:
        try:
            yield
        except Exception as error:
            made.set_attribute("error.type", type(error).__name__)
            if not isinstance(error, expected):
                made.set_status(trace.Status(trace.StatusCode.ERROR))
            raise


_KEYS: Final = (TRACEPARENT, TRACESTATE)


def carried(pairs: Iterable[tuple[str, str]]) -> Pairs:
    """Metadata pairs that say which span they come from, instead of what they said; only while this is on."""
    carrier: dict[str, str] = {}
    _carrier.inject(carrier)
    kept = list(pairs)
    return [pair for pair in kept if pair[0] not in _KEYS] + list(carrier.items()) if carrier else kept
