"""The tables of process managers in SQL, shared by the SQL stores. Statements are written with ``%s``.

Layer: eventsourcing, stores.
"""

from __future__ import annotations

import abc
import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from pyglyn.errors import EventDecodeError
from pyglyn.eventsourcing.domain.envelope import Metadata
from pyglyn.eventsourcing.stores.json.text import dump_metadata, load_metadata
from pyglyn.eventsourcing.stores.managing import (
    PAGE,
    IssuedCommand,
    ManagerReads,
    ManagerTables,
    Outlook,
    Status,
    Timer,
)
from pyglyn.eventsourcing.stores.rows import shown_text, storable_text

T = TypeVar("T")

Rows = list[tuple[Any, ...]]

_COMMAND = """
manager, instance, command_id, service, aggregate_id, command, metadata, status, attempts, error, id
FROM pyglyn_dispatch"""
_TIMER = """
manager, instance, name, due_at, service, aggregate_id, command, metadata, attempts, error, id
FROM pyglyn_deadline"""
_NOT_BLOCKED = """NOT EXISTS (
  SELECT 1 FROM pyglyn_parked AS p WHERE p.query = manager AND p.aggregate_id = instance
)"""

_SELECT_STATE = "SELECT state FROM pyglyn_manager WHERE manager = %s AND instance = %s"
_SELECT_STATES = "SELECT instance, state FROM pyglyn_manager WHERE manager = %s AND instance IN"
_SELECT_COMMANDS = f"SELECT {_COMMAND} WHERE manager = %s AND id > %s ORDER BY id LIMIT %s"
_SELECT_BY_STATUS = f"SELECT {_COMMAND} WHERE manager = %s AND id > %s AND status = %s ORDER BY id LIMIT %s"
_SELECT_REFUSALS = (
    f"SELECT {_COMMAND} WHERE manager = %s AND status = 'refused' AND {_NOT_BLOCKED} ORDER BY id LIMIT %s"
)
_SELECT_DUE = f"""
SELECT {_TIMER} WHERE manager = %s AND error = '' AND due_at <= {{now}} AND {_NOT_BLOCKED}
ORDER BY due_at, id LIMIT %s
"""
_SELECT_TIMERS = f"SELECT {_TIMER} WHERE manager = %s ORDER BY due_at, id LIMIT %s"
_SELECT_TIMERS_OF = f"SELECT {_TIMER} WHERE manager = %s AND instance = %s ORDER BY due_at, id LIMIT %s"
_OUTLOOK = f"""
SELECT
  (SELECT count(*) FROM pyglyn_dispatch WHERE manager = m.name AND status = 'waiting'),
  (SELECT count(*) FROM pyglyn_dispatch WHERE manager = m.name AND status = 'refused'),
  (SELECT count(*) FROM pyglyn_deadline WHERE manager = m.name AND error = ''),
  (SELECT count(*) FROM pyglyn_dispatch WHERE manager = m.name AND status = 'parked')
    + (SELECT count(*) FROM pyglyn_deadline WHERE manager = m.name AND error <> ''),
  (SELECT due_at FROM pyglyn_deadline WHERE manager = m.name AND error = '' AND {_NOT_BLOCKED}
    ORDER BY due_at LIMIT 1) - {{now}}
FROM (SELECT CAST(%s AS text) AS name) AS m
"""
_SAVE_STATES = """
INSERT INTO pyglyn_manager (manager, instance, state, updated_at) VALUES {rows}
ON CONFLICT (manager, instance) DO UPDATE SET state = excluded.state, updated_at = excluded.updated_at
"""
_ROWS_AT_ONCE = 90
"""Rows of one statement: SQLite used to take 999 parameters at most."""

_FORGET_STATE = "DELETE FROM pyglyn_manager WHERE manager = %s AND instance = %s"
_FORGET_COMMANDS = "DELETE FROM pyglyn_dispatch WHERE manager = %s AND instance = %s"
_SEALED = (("pyglyn_manager", "state"), ("pyglyn_dispatch", "command"), ("pyglyn_deadline", "command"))
_FORGET_TIMERS = "DELETE FROM pyglyn_deadline WHERE manager = %s AND instance = %s"
_ISSUE = """
INSERT INTO pyglyn_dispatch
(manager, instance, command_id, service, aggregate_id, command, metadata, status, attempts, error)
VALUES {rows}
ON CONFLICT (command_id) DO NOTHING
"""
_MARK_COMMAND = "UPDATE pyglyn_dispatch SET status = %s, attempts = %s, error = %s WHERE id = %s"
_SET_TIMER = """
INSERT INTO pyglyn_deadline
(manager, instance, name, due_at, service, aggregate_id, command, metadata, attempts, error)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, 0, '')
"""


class SqlManagerReads(ManagerReads):
    """Reads by one function that runs a statement."""

    _now: str
    """The database's clock in SQL, in milliseconds."""

    @abc.abstractmethod
    async def _rows(self, statement: str, parameters: Sequence[object] = ()) -> Rows:
        """Run one of our statements and return its rows."""

    async def clock(self) -> float:
        rows = await self._rows(f"SELECT {self._now}")
        return float(rows[0][0]) / 1000

    async def manager_state(self, manager: str, instance: str) -> str | None:
        rows = await self._rows(_SELECT_STATE, (manager, instance))
        return str(rows[0][0]) if rows else None

    async def manager_states(self, manager: str, instances: Collection[str]) -> dict[str, str]:
        found: dict[str, str] = {}
        for part in _parts(list(instances)):
            names = ", ".join(["%s"] * len(part))
            statement = (
                f"SELECT instance, state FROM pyglyn_manager WHERE manager = %s AND instance IN ({names})"
            )
            found.update(await self._rows(statement, (manager, *part)))
        return found

    async def issued_commands(
        self, manager: str, *, after: int = 0, limit: int = PAGE, status: Status | None = None
    ) -> list[IssuedCommand]:
        if status is None:
            return _commands(await self._rows(_SELECT_COMMANDS, (manager, after, limit)))
        return _commands(await self._rows(_SELECT_BY_STATUS, (manager, after, status, limit)))

    async def refusals(self, manager: str, *, limit: int = PAGE) -> list[IssuedCommand]:
        return _commands(await self._rows(_SELECT_REFUSALS, (manager, limit)))

    async def due_timers(self, manager: str, *, limit: int = PAGE) -> list[Timer]:
        return _timers(await self._rows(_SELECT_DUE.replace("{now}", self._now), (manager, limit)))

    async def timers(self, manager: str, *, instance: str | None = None, limit: int = PAGE) -> list[Timer]:
        if instance is None:
            return _timers(await self._rows(_SELECT_TIMERS, (manager, limit)))
        return _timers(await self._rows(_SELECT_TIMERS_OF, (manager, instance, limit)))

    async def outlook(self, manager: str) -> Outlook:
        [row] = await self._rows(_OUTLOOK.replace("{now}", self._now), (manager,))
        due_in = None if row[4] is None else row[4] / 1000
        return Outlook(waiting=row[0], refused=row[1], timers=row[2], parked=row[3], due_in=due_in)


class SqlManagerTables(SqlManagerReads, ManagerTables):
    """Writes by one function that runs a statement and tells how many rows it changed."""

    @abc.abstractmethod
    async def _run(self, statement: str, parameters: Sequence[object] = ()) -> tuple[Rows, int]:
        """Run one of our statements; return its rows and how many it changed."""

    async def _rows(self, statement: str, parameters: Sequence[object] = ()) -> Rows:
        return (await self._run(statement, parameters))[0]

    async def _changed(self, statement: str, parameters: Sequence[object]) -> bool:
        return (await self._run(statement, parameters))[1] > 0

    async def save_manager_state(self, manager: str, instance: str, state: str | None) -> None:
        key = _key(manager, instance)
        if state is None:
            await self._run(_FORGET_STATE, key)
            await self._run(_FORGET_TIMERS, key)
        else:
            await self.save_manager_states(manager, {instance: state})

    async def save_manager_states(self, manager: str, states: Mapping[str, str]) -> None:
        for part in _parts(list(states.items())):
            rows = ", ".join([f"(%s, %s, %s, {self._now})"] * len(part))
            values = [(*_key(manager, instance), storable_text(state, "state")) for instance, state in part]
            await self._run(_SAVE_STATES.replace("{rows}", rows), list(itertools.chain(*values)))

    async def forget_instances(self, instance: str, mark: str) -> None:
        managers: set[str] = set()
        for table, column in _SEALED:
            begin = mark if column == "state" else mark.encode()
            statement = f"SELECT manager FROM {table} WHERE instance = %s AND substr({column}, 1, %s) = %s"
            rows = await self._rows(statement, (instance, len(begin), begin))
            managers.update(row[0] for row in rows)
        for manager in sorted(managers):
            await self.save_manager_state(manager, instance, None)
            await self._run(_FORGET_COMMANDS, (manager, instance))

    async def issue_command(self, command: IssuedCommand) -> None:
        await self.issue_commands((command,))

    async def issue_commands(self, commands: Sequence[IssuedCommand]) -> None:
        for part in _parts(commands):
            rows = ", ".join(["(" + ", ".join(["%s"] * 10) + ")"] * len(part))
            values = itertools.chain(*map(_values, part))
            await self._run(_ISSUE.replace("{rows}", rows), list(values))

    async def mark_command(self, id: int, status: Status, *, attempts: int, error: str) -> bool:
        return await self._changed(_MARK_COMMAND, (status, attempts, shown_text(error), id))

    async def finish_command(self, id: int) -> bool:
        return await self._changed("DELETE FROM pyglyn_dispatch WHERE id = %s", (id,))

    async def set_timer(self, timer: Timer) -> None:
        await self.cancel_timer(timer.manager, timer.instance, timer.name)
        parameters = (
            *_key(timer.manager, timer.instance),
            storable_text(timer.name, "name of a deadline"),
            round(timer.due_at * 1000),
            storable_text(timer.service, "service") or None,
            storable_text(timer.aggregate_id, "aggregate id") if timer.service else None,
            timer.command if timer.service else None,
            dump_metadata(timer.metadata),
        )
        await self._run(_SET_TIMER, parameters)

    async def cancel_timer(self, manager: str, instance: str, name: str) -> bool:
        return await self._changed(f"{_FORGET_TIMERS} AND name = %s", (manager, instance, name))

    async def mark_timer(self, id: int, *, attempts: int, error: str) -> bool:
        statement = "UPDATE pyglyn_deadline SET attempts = %s, error = %s WHERE id = %s"
        return await self._changed(statement, (attempts, shown_text(error), id))

    async def finish_timer(self, id: int) -> bool:
        return await self._changed("DELETE FROM pyglyn_deadline WHERE id = %s", (id,))


def _parts(rows: Sequence[T]) -> Iterator[Sequence[T]]:
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        yield rows[start : start + _ROWS_AT_ONCE]


def _values(command: IssuedCommand) -> tuple[object, ...]:
    return (
        *_key(command.manager, command.instance),
        storable_text(command.command_id, "command id"),
        storable_text(command.service, "service"),
        storable_text(command.aggregate_id, "aggregate id"),
        command.command,
        dump_metadata(command.metadata),
        command.status,
        command.attempts,
        shown_text(command.error),
    )


def _key(manager: str, instance: str) -> tuple[str, str]:
    return storable_text(manager, "manager"), storable_text(instance, "instance")


def _metadata(text: str) -> Metadata:
    try:
        return load_metadata(text)
    except EventDecodeError:  # changed by hand: what caused a command is no reason not to send it
        return []


def _commands(rows: Rows) -> list[IssuedCommand]:
    return [
        IssuedCommand(
            manager=row[0],
            instance=row[1],
            command_id=row[2],
            service=row[3],
            aggregate_id=row[4],
            command=bytes(row[5]),
            metadata=_metadata(row[6]),
            status=row[7],
            attempts=row[8],
            error=row[9],
            id=row[10],
        )
        for row in rows
    ]


def _timers(rows: Rows) -> list[Timer]:
    return [
        Timer(
            manager=row[0],
            instance=row[1],
            name=row[2],
            due_at=row[3] / 1000,
            service=row[4] or "",
            aggregate_id=row[5] or "",
            command=bytes(row[6] or b""),
            metadata=_metadata(row[7]),
            attempts=row[8],
            error=row[9],
            id=row[10],
        )
        for row in rows
    ]
