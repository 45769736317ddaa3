"""What a store keeps for process managers: the state of instances, issued commands, deadlines.

A process manager decides elsewhere; here are its rows, and what every store does with them.

Layer: eventsourcing, stores.
"""

from __future__ import annotations

import abc
from collections.abc import Collection, Mapping, Sequence
from typing import Literal, TypeAlias

import attrs

from pyglyn.errors import EventStoreError
from pyglyn.eventsourcing.domain.envelope import Metadata

Status: TypeAlias = Literal["waiting", "refused", "parked"]

WAITING: Status = "waiting"
REFUSED: Status = "refused"
PARKED: Status = "parked"

PAGE = 500
"""Rows per read when the caller does not say."""


@attrs.frozen(kw_only=True)
class IssuedCommand:
    """A command that a manager has issued and that was not carried out yet, as far as the manager knows.

    Attributes:
        command_id: makes it carried out once, however often it is sent.
        command: the term, as it is sent, in the external term format.
        status: ``waiting`` to be sent; ``refused`` by its aggregate, which the manager is yet to be told;
            ``parked``: it has failed, and later commands of the instance wait for it.
        id: given by the store; along an instance commands are sent in the order of their ids.
    """

    manager: str
    instance: str
    command_id: str
    service: str
    aggregate_id: str
    command: bytes
    metadata: Metadata = attrs.field(factory=list)
    status: Status = WAITING
    attempts: int = 0
    error: str = ""
    id: int = 0


@attrs.frozen(kw_only=True)
class Timer:
    """A deadline, or a command that is to be sent at a time.

    Attributes:
        name: one instance has one of a name.
        due_at: seconds since 1970 by the clock of the database, kept in milliseconds.
        service: whose command is sent; empty for a deadline.
        error: why it is parked; empty if it is not.
        id: given by the store, anew whenever one of this name is set after the last has gone.
    """

    manager: str
    instance: str
    name: str
    due_at: float
    service: str = ""
    aggregate_id: str = ""
    command: bytes = b""
    metadata: Metadata = attrs.field(factory=list)
    attempts: int = 0
    error: str = ""
    id: int = 0


@attrs.frozen(kw_only=True)
class Outlook:
    """What a manager has before it.

    Attributes:
        waiting: commands that are to be sent.
        refused: commands whose refusal the manager is yet to be told.
        timers: deadlines and scheduled commands that are not parked.
        parked: commands and timers that are.
        due_in: seconds until the next timer is due, by the clock of the database, negative for one that is
            due; None without one.
    """

    waiting: int = 0
    refused: int = 0
    timers: int = 0
    parked: int = 0
    due_in: float | None = None


def _none() -> EventStoreError:
    return EventStoreError("this store keeps no process managers")


class ManagerReads(abc.ABC):  # noqa: B024 - a store may do without
    """Reading, on a store and inside a transaction."""

    async def clock(self) -> float:
        """Return the time of the database, in seconds since 1970."""
        raise _none()

    async def manager_state(self, manager: str, instance: str) -> str | None:
        """Return the state of an instance in JSON, None where there is no such instance."""
        raise _none()

    async def manager_states(self, manager: str, instances: Collection[str]) -> dict[str, str]:
        """Return the states of those instances that are there."""
        found = {each: await self.manager_state(manager, each) for each in instances}
        return {instance: state for instance, state in found.items() if state is not None}

    async def issued_commands(
        self, manager: str, *, after: int = 0, limit: int = PAGE, status: Status | None = None
    ) -> list[IssuedCommand]:
        """List commands with ids greater than ``after``, in the order of their ids."""
        raise _none()

    async def refusals(self, manager: str, *, limit: int = PAGE) -> list[IssuedCommand]:
        """List refused commands, in order, of instances that have no parked events."""
        raise _none()

    async def due_timers(self, manager: str, *, limit: int = PAGE) -> list[Timer]:
        """List what is due, the earliest first, of instances that have no parked events."""
        raise _none()

    async def timers(self, manager: str, *, instance: str | None = None, limit: int = PAGE) -> list[Timer]:
        """List timers, the earliest first, parked ones and all others."""
        raise _none()

    async def outlook(self, manager: str) -> Outlook:
        """Count what a manager has before it; ``due_in`` leaves out instances that have parked events."""
        raise _none()


class ManagerTables(ManagerReads):
    """Writing, inside a transaction."""

    async def save_manager_state(self, manager: str, instance: str, state: str | None) -> None:
        """Write the state of an instance; None forgets the instance and its timers."""
        raise _none()

    async def forget_instances(self, instance: str, mark: str) -> None:
        """Forget an instance, with its timers and commands, of those managers that keep it encrypted.

        Args:
            instance: its name.
            mark: what its state, or one of its commands, begins with then.
        """
        raise _none()

    async def save_manager_states(self, manager: str, states: Mapping[str, str]) -> None:
        """Write the states of several instances."""
        for instance, state in states.items():
            await self.save_manager_state(manager, instance, state)

    async def issue_commands(self, commands: Sequence[IssuedCommand]) -> None:
        """Put several commands behind the others, in this order; see `issue_command`."""
        for command in commands:
            await self.issue_command(command)

    async def issue_command(self, command: IssuedCommand) -> None:
        """Put a command behind the others; one whose id is there already stays as it is."""
        raise _none()

    async def mark_command(self, id: int, status: Status, *, attempts: int, error: str) -> bool:
        """Change the status of a command; False if there is none of that id."""
        raise _none()

    async def finish_command(self, id: int) -> bool:
        """Forget a command; False if there is none of that id."""
        raise _none()

    async def set_timer(self, timer: Timer) -> None:
        """Set a timer, in place of the instance's one of that name."""
        raise _none()

    async def cancel_timer(self, manager: str, instance: str, name: str) -> bool:
        """Forget a timer; False if there is none of that name."""
        raise _none()

    async def mark_timer(self, id: int, *, attempts: int, error: str) -> bool:
        """Park a timer, or with an empty ``error`` have it go on; False if there is none of that id."""
        raise _none()

    async def finish_timer(self, id: int) -> bool:
        """Forget a timer; False if there is none of that id."""
        raise _none()
