"""The tables of process managers in memory.

Layer: eventsourcing, stores.
"""

from __future__ import annotations

import abc
import time
from collections.abc import Iterator
from typing import Any

import attrs

from pyglyn.eventsourcing.stores.managing import (
    PAGE,
    PARKED,
    REFUSED,
    WAITING,
    IssuedCommand,
    ManagerTables,
    Outlook,
    Status,
    Timer,
)
from pyglyn.eventsourcing.stores.rows import shown_text, storable_text


@attrs.define
class ManagerRows:
    """The rows of all managers in a memory store."""

    states: dict[tuple[str, str], str] = attrs.field(factory=dict)
    commands: dict[int, IssuedCommand] = attrs.field(factory=dict)
    command_ids: dict[str, int] = attrs.field(factory=dict)
    timers: dict[int, Timer] = attrs.field(factory=dict)


class MemoryManagerTables(ManagerTables):
    """Reads, and writes that can be undone."""

    @property
    @abc.abstractmethod
    def _managing(self) -> ManagerRows:
        """The rows."""

    @abc.abstractmethod
    def _is_blocked(self, manager: str, instance: str) -> bool:
        """Whether an instance has parked events."""

    async def clock(self) -> float:
        return time.time()

    async def manager_state(self, manager: str, instance: str) -> str | None:
        return self._managing.states.get((manager, instance))

    async def issued_commands(
        self, manager: str, *, after: int = 0, limit: int = PAGE, status: Status | None = None
    ) -> list[IssuedCommand]:
        found = (
            each
            for id, each in sorted(self._managing.commands.items())
            if id > after and each.manager == manager and status in (None, each.status)
        )
        return list(found)[:limit]

    async def refusals(self, manager: str, *, limit: int = PAGE) -> list[IssuedCommand]:
        found = await self.issued_commands(manager, limit=len(self._managing.commands), status=REFUSED)
        return [each for each in found if not self._is_blocked(manager, each.instance)][:limit]

    async def due_timers(self, manager: str, *, limit: int = PAGE) -> list[Timer]:
        now = time.time()
        return [each for each in self._ready(manager) if each.due_at <= now][:limit]

    def _ready(self, manager: str) -> Iterator[Timer]:
        for each in self._of(manager):
            if not each.error and not self._is_blocked(manager, each.instance):
                yield each

    def _of(self, manager: str) -> list[Timer]:
        found = (each for each in self._managing.timers.values() if each.manager == manager)
        return sorted(found, key=lambda each: (each.due_at, each.id))

    async def timers(self, manager: str, *, instance: str | None = None, limit: int = PAGE) -> list[Timer]:
        return [each for each in self._of(manager) if instance in (None, each.instance)][:limit]

    async def outlook(self, manager: str) -> Outlook:
        statuses = [each.status for each in self._managing.commands.values() if each.manager == manager]
        timers = self._of(manager)
        parked = sum(bool(each.error) for each in timers)
        following = next(self._ready(manager), None)
        return Outlook(
            waiting=statuses.count(WAITING),
            refused=statuses.count(REFUSED),
            timers=len(timers) - parked,
            parked=statuses.count(PARKED) + parked,
            due_in=None if following is None else following.due_at - time.time(),
        )

    @abc.abstractmethod
    def _set(self, table: dict[Any, Any], key: Any, value: Any) -> None:
        """Set a row."""

    @abc.abstractmethod
    def _delete(self, table: dict[Any, Any], key: Any) -> bool:
        """Delete a row; False if it is not there."""

    @abc.abstractmethod
    def _new_id(self) -> int:
        """Give an id."""

    async def save_manager_state(self, manager: str, instance: str, state: str | None) -> None:
        rows = self._managing
        key = storable_text(manager, "manager"), storable_text(instance, "instance")
        if state is not None:
            self._set(rows.states, key, state)
            return
        self._delete(rows.states, key)
        for timer in await self.timers(manager, instance=instance, limit=len(rows.timers)):
            self._delete(rows.timers, timer.id)

    async def forget_instances(self, instance: str, mark: str) -> None:
        rows, begin = self._managing, mark.encode()
        managers = {
            of for (of, name), state in rows.states.items() if name == instance and state.startswith(mark)
        }
        items: list[IssuedCommand | Timer] = [*rows.commands.values(), *rows.timers.values()]
        its = [each for each in items if each.instance == instance]
        managers.update(each.manager for each in its if each.command.startswith(begin))
        for manager in managers:
            await self.save_manager_state(manager, instance, None)
        for each in its:
            if isinstance(each, IssuedCommand) and each.manager in managers:
                await self.finish_command(each.id)

    async def issue_command(self, command: IssuedCommand) -> None:
        commands = self._managing.commands
        storable_text(command.instance + command.service, "instance")
        storable_text(command.aggregate_id, "aggregate id")
        ids = self._managing.command_ids
        if storable_text(command.command_id, "command id") not in ids:
            id = self._new_id()
            self._set(ids, command.command_id, id)
            self._set(commands, id, attrs.evolve(command, id=id))

    async def mark_command(self, id: int, status: Status, *, attempts: int, error: str) -> bool:
        commands = self._managing.commands
        if id not in commands:
            return False
        changed = attrs.evolve(commands[id], status=status, attempts=attempts, error=shown_text(error))
        self._set(commands, id, changed)
        return True

    async def finish_command(self, id: int) -> bool:
        found = self._managing.commands.get(id)
        return found is not None and (
            self._delete(self._managing.command_ids, found.command_id)
            and self._delete(self._managing.commands, id)
        )

    async def set_timer(self, timer: Timer) -> None:
        storable_text(timer.instance + timer.name, "name of a deadline")
        storable_text(timer.service + timer.aggregate_id, "aggregate id")
        await self.cancel_timer(timer.manager, timer.instance, timer.name)
        id = self._new_id()
        due_at = round(timer.due_at * 1000) / 1000
        self._set(self._managing.timers, id, attrs.evolve(timer, id=id, due_at=due_at))

    async def cancel_timer(self, manager: str, instance: str, name: str) -> bool:
        timers = self._managing.timers
        for id, each in list(timers.items()):
            if (each.manager, each.instance, each.name) == (manager, instance, name):
                return self._delete(timers, id)
        return False

    async def mark_timer(self, id: int, *, attempts: int, error: str) -> bool:
        timers = self._managing.timers
        if id not in timers:
            return False
        self._set(timers, id, attrs.evolve(timers[id], attempts=attempts, error=shown_text(error)))
        return True

    async def finish_timer(self, id: int) -> bool:
        return self._delete(self._managing.timers, id)
