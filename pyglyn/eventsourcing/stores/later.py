"""Statements that can wait: run together, in order, where each by itself would wait for the database.

A durable query with one UPDATE an event hands each one over to a thread, or sends it to a server and waits.
But an INSERT, UPDATE or DELETE returns no rows, so nobody can tell when it is run, as long as it is before
the next statement that returns some, and before the end of the transaction. Only an error can tell: it comes
late, and at another event. So whoever has statements put off takes a `PutOffFailed` as the order to undo the
transaction and to do the same once more without: what went wrong then happens where it belongs.

Not put off: statements that may return rows, several in one text, values that can be changed afterwards, and
all that follows a SAVEPOINT (or anything else that is neither a query nor a change), whose meaning is where
it stands.

Pure. Layer: eventsourcing, stores.
"""

from __future__ import annotations

import datetime
import decimal
import itertools
import re
import uuid
from collections.abc import Iterator, Sequence
from functools import lru_cache
from operator import itemgetter
from types import NoneType

from pyglyn.errors import EventStoreError

MANY = 200
"""So many are run at the latest: they are in memory, and others wait for what they lock."""

_CHANGES = re.compile(r"\s*(INSERT|UPDATE|DELETE|REPLACE)\b", re.IGNORECASE)
_QUERIES = re.compile(r"\s*(SELECT|VALUES|WITH)\b", re.IGNORECASE)
_MAY_RETURN = re.compile(r"\bRETURNING\b|;\s*\S", re.IGNORECASE)
_UNCHANGEABLE = {NoneType, bool, int, float, str, bytes, decimal.Decimal, uuid.UUID}
_UNCHANGEABLE |= {datetime.date, datetime.datetime, datetime.time, datetime.timedelta}

_CAN_WAIT, _IN_BETWEEN, _ENDS_IT = range(3)


class PutOffFailed(EventStoreError):
    """A statement that was put off has failed; nobody knows by whom it was."""


class Later:
    """The statements of one transaction that are put off."""

    def __init__(self) -> None:
        self.failed: PutOffFailed | None = None
        self._waiting: list[tuple[str, tuple[object, ...]]] = []
        self._ended = False

    @property
    def is_due(self) -> bool:
        """Whether there are so many that they are to be run."""
        return len(self._waiting) >= MANY

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def take(self, statement: str, parameters: Sequence[object]) -> bool:
        """Take a statement, if it can wait. If not, the others are to be run before it."""
        kind = _kind(statement)
        if kind != _CAN_WAIT:
            self._ended = self._ended or kind == _ENDS_IT
            return False
        values = tuple(parameters)
        if self._ended or not _UNCHANGEABLE.issuperset(map(type, values)):
            return False
        self._waiting.append((statement, values))
        return True

    def taken(self) -> Iterator[tuple[str, list[tuple[object, ...]]]]:
        """Give the statements away, in order: each with the parameters of all in a row that are the same."""
        waiting, self._waiting = self._waiting, []
        for statement, entries in itertools.groupby(waiting, itemgetter(0)):
            yield statement, [parameters for _, parameters in entries]

    def fail(self, error: EventStoreError) -> PutOffFailed:
        """Note that one has failed; the application may catch what it is told."""
        self.failed = PutOffFailed(error.text)
        return self.failed


@lru_cache(1024)
def _kind(statement: str) -> int:
    if _CHANGES.match(statement):
        return _IN_BETWEEN if _MAY_RETURN.search(statement) else _CAN_WAIT
    return _IN_BETWEEN if _QUERIES.match(statement) else _ENDS_IT
