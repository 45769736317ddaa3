"""Statements that read the tables of a durable query: who asks, and who answers.

The request is a call ``{select, Statement, Parameters}`` to the process of the query, and the answer
``{ok, {selected, Columns, Rows, Complete}}``. NULL is the atom ``null``, text a binary, a BLOB
``{blob, Binary}``; what has no term of its own (times, decimals, JSON) is text.

Layer: eventsourcing, queries.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from pyglyn.errors import ActorTimeout, CallTimeout, EventStoreError, StoreUnavailable
from pyglyn.etf import Atom, Term
from pyglyn.eventsourcing.domain import wire
from pyglyn.eventsourcing.queries.durable_spec import DurableSpec
from pyglyn.eventsourcing.stores import selecting
from pyglyn.eventsourcing.stores.read_only_sql import ReadOnlySql, Selected
from pyglyn.eventsourcing.stores.store import EventStore
from pyglyn.node import At
from pyglyn.node.destinations import ServerRef

SELECT = Atom("select")
SELECTED = Atom("selected")
NULL = Atom("null")
BLOB = Atom("blob")

AT_ONCE = 4
"""Statements that a query has under way at once."""

WAITING = 64
"""Statements that wait for their turn; more are refused."""


def value_term(value: object) -> Term:
    """Write a value.

    Raises:
        EventStoreError: it is none that travels.
    """
    match value:
        case None:
            return NULL
        case str():
            return value.encode(errors="backslashreplace")
        case bytes():
            return (BLOB, value)
        case bool() | int():
            return value
        case float() if value - value == 0.0:
            return value
    raise EventStoreError(f"a value is None, bool, int, float, str or bytes, got {value!r:.100}")


def read_value(term: Term) -> Any:
    """Read a value.

    Raises:
        DecodeErrors: it is something else.
    """
    match term:
        case Atom("null"):
            return None
        case bool() | int() | float():
            return term
        case bytes():
            return wire.text(term)
        case (Atom("blob"), bytes() as value):
            return value
    raise wire.misfit("a value of SQL", term)


async def select(
    at: At,
    query: ServerRef | DurableSpec,
    statement: str,
    parameters: Sequence[object] = (),
    *,
    timeout: float | None = 10.0,
) -> Selected:
    """Ask the tables of a durable query, which says ``sql=True``, by one statement that reads.

    Args:
        at: the node, or the calling process.
        query: its name on this node, ``(name, node)``, or its pid; or itself, on this node.
        statement: with ``?`` where its database is SQLite, ``%s`` where it is PostgreSQL.
        parameters: None, bool, int, float, str and bytes.
        timeout: seconds to wait; how long the statement may run is the query's to say.

    Raises:
        EventStoreError: the query answers no statements, or this one fails, is none that reads, or takes too
            long.
        StoreUnavailable: the database is away, or too many ask.
        ActorTimeout: no answer in time.
        CallFailed: there is no such query, or it ended.
    """
    if isinstance(query, DurableSpec):
        query = query.names()[0]
    request = (SELECT, statement.encode(), [value_term(each) for each in parameters])
    try:
        answer = await at.call(query, request, timeout)
    except CallTimeout as error:
        raise ActorTimeout("select", round((timeout or 0) * 1000)) from error
    return selected_from(answer)


def selected_from(answer: Term) -> Selected:
    """Read the answer.

    Raises:
        EventSourcingError: the query refused.
        DecodeErrors: it is no answer to this.
    """
    match answer:
        case (Atom("error"), error):
            raise wire.read_error(error)
        case (Atom("ok"), (Atom("selected"), list() as columns, list() as rows, bool() as complete)):
            found = [tuple(map(read_value, row)) for row in rows if isinstance(row, tuple)]
            if len(found) == len(rows):
                return Selected(tuple(wire.text(each) for each in columns), found, complete)
    raise wire.misfit("what was selected", answer)


class Answers:
    """Carries out the statements that come to the process of a query, a few at once.

    Args:
        name: the query's.
        database: whose tables.
        limits: what a statement may take; None to refuse all.
    """

    def __init__(self, name: str, database: EventStore[Any, Any], limits: ReadOnlySql | None) -> None:
        self._name = name
        self._database = database
        self._limits = limits
        self._turn = asyncio.Semaphore(AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()

    def take(self, statement: bytes, parameters: list[Term], reply: Callable[[Term], None]) -> None:
        """Begin to answer.

        Raises:
            EventStoreError, DecodeErrors: it is refused.
        """
        limits = self._limits
        if limits is None:
            raise EventStoreError(f"query {self._name!r} answers no statements: it does not say sql=")
        if len(self._tasks) >= AT_ONCE + WAITING:
            raise StoreUnavailable(f"query {self._name!r} has {len(self._tasks)} statements before it")
        values = [read_value(each) for each in parameters]
        asked = self._answer(wire.text(statement), values, limits, reply)
        task = asyncio.get_running_loop().create_task(asked)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(
        self, statement: str, values: Sequence[object], limits: ReadOnlySql, reply: Callable[[Term], None]
    ) -> None:
        try:
            async with self._turn:
                found = await selecting.select(self._database, statement, values, limits)
            rows: list[Term] = [tuple(map(value_term, row)) for row in found.rows]
            columns: list[Term] = [each.encode(errors="backslashreplace") for each in found.columns]
            answer: Term = (wire.OK, (SELECTED, columns, rows, found.complete))
        except Exception as error:
            answer = (wire.ERROR, wire.error_term(error))
        reply(answer)

    async def stop(self) -> None:
        """Break off what is under way."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
