"""Snapshots: when one is taken, and what it holds. Pure.

Source: ``eventsourcing.gleam`` 9.1, ``execute_command``: there a snapshot is taken when the frequency
divides the sequence number *after* the batch, so a command with several events can step over every
multiple, for ever. Here it is taken when a multiple lies *within* the batch. A peer sees the same row, only
more reliably.
"""

from __future__ import annotations

from typing import Generic, TypeVar

import attrs

from pyglyn.errors import NonPositiveArgument

S = TypeVar("S")


@attrs.frozen
class Snapshot(Generic[S]):
    """An aggregate's state after its first ``sequence`` events.

    Attributes:
        timestamp: when it was taken, in whole seconds since 1970 (the column is a 32-bit integer in
            PostgreSQL).
    """

    aggregate_id: str
    entity: S
    sequence: int
    timestamp: int


def _positive(_instance: object, attribute: attrs.Attribute[int], value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{attribute.name} is a number of events, got {value!r}")
    if value <= 0:
        raise NonPositiveArgument(f"{attribute.name} has to be 1 or more, got {value}")


@attrs.frozen
class SnapshotConfig:
    """Take a snapshot every ``frequency`` events.

    Raises:
        NonPositiveArgument: the frequency is zero or negative.
    """

    frequency: int = attrs.field(validator=_positive)

    def due(self, before: int, after: int) -> bool:
        """Tell whether a batch that moves the sequence from ``before`` to ``after`` needs a snapshot."""
        return after // self.frequency > before // self.frequency
