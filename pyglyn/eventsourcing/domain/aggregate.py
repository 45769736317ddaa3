"""Aggregates: an entity, the commands it accepts, and the events that made it. Pure.

An application gives two pure functions. ``handle(entity, command)`` returns the list of events the command
causes, or raises :class:`~pyglyn.errors.DomainError` to refuse it; ``apply(entity, event)`` returns the
entity after the event. Both are ordinary functions: a coroutine function is refused with a clear error,
because a command that waits would hold up its aggregate. An empty list of events is a success that has
nothing to commit.

Source: ``eventsourcing.gleam`` 9.1. Differences: there, a handler without events crashes every store.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

import attrs

from pyglyn.errors import InvalidHandlerResult
from pyglyn.eventsourcing.domain.copying import owned
from pyglyn.eventsourcing.domain.evolution import Several

S = TypeVar("S")
C = TypeVar("C")
E = TypeVar("E")


@attrs.frozen
class Aggregate(Generic[S]):
    """An entity and the number of events behind it."""

    aggregate_id: str
    entity: S
    sequence: int


@attrs.frozen
class SystemStats:
    """What ``system_stats`` answers."""

    query_actors_count: int
    total_commands_processed: int


@attrs.frozen
class AggregateStats:
    """What ``aggregate_stats`` answers."""

    aggregate_id: str
    event_count: int
    current_sequence: int
    has_snapshot: bool


@attrs.frozen
class Domain(Generic[S, C, E]):
    """The pure part of an aggregate type: what its commands do and what its events mean.

    Raises:
        TypeError: ``empty_state`` is a class, and no entity of it.
    """

    handle: Callable[[S, C], Iterable[E]]
    apply: Callable[[S, E], S]
    empty_state: S

    def __attrs_post_init__(self) -> None:
        if isinstance(self.empty_state, type):
            name = self.empty_state.__name__
            raise TypeError(f"empty_state is the entity before any event, {name}() and not the class {name}")

    def decide(self, entity: S, command: C) -> list[E]:
        """Return the events that a command causes.

        Raises:
            DomainError: ``handle`` refused the command.
            InvalidHandlerResult: ``handle`` returned something that is no list (or tuple) of events.
            Exception: whatever else ``handle`` raises, unchanged.
        """
        events: object = self.handle(owned(entity), command)
        if not isinstance(events, list | tuple):
            if hasattr(events, "close"):
                events.close()  # a coroutine or generator: say it here, not in a warning later
            raise InvalidHandlerResult(_describe_result(command, events))
        if any(event is None for event in events):
            raise InvalidHandlerResult(f"handle({type(command).__name__}) returned None among its events")
        return list(events)

    def fold(self, entity: S, events: Iterable[E]) -> S:
        """Apply events in order. An ``apply`` that changes the entity in place changes a copy."""
        entity, apply = owned(entity), self.apply
        for event in events:
            if isinstance(event, Several):
                for each in event.events:
                    entity = apply(entity, each)
            else:
                entity = apply(entity, event)
        return entity


def _describe_result(command: object, result: object) -> str:
    name = f"handle({type(command).__name__})"
    if result is None:
        return f"{name} returned None; return a list of events, [] when the command changes nothing"
    return f"{name} returned a {type(result).__name__} instead of a list of events"
