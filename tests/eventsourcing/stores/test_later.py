"""Statements that can wait."""

from __future__ import annotations

import pytest

from pyglyn.errors import EventStoreError
from pyglyn.eventsourcing.stores.later import MANY, Later, PutOffFailed


@pytest.mark.parametrize(
    ("statement", "waits"),
    [
        ("UPDATE t SET a = ?", True),
        ("\n  insert INTO t VALUES (?)", True),
        ("REPLACE INTO t VALUES (?)", True),
        ("DELETE FROM t WHERE a = ?;", True),
        ("INSERT INTO t VALUES (?) RETURNING id", False),
        ("UPDATE t SET a = ?; SELECT 1", False),
        ("UPDATED", False),
        ("SELECT ?", False),
        ("WITH x AS (SELECT 1) INSERT INTO t VALUES (?)", False),
        ("-- a comment\nUPDATE t SET a = ?", False),
    ],
)
def test_only_a_change_that_returns_nothing_waits(statement: str, waits: bool) -> None:
    later = Later()
    assert later.take(statement, (1,)) is waits
    assert bool(later) is waits


def test_values_that_can_be_changed_afterwards_do_not_wait() -> None:
    later, values = Later(), [1, "a", None, 2.5, b"b"]
    assert later.take("UPDATE t", values)
    values.append("more")
    assert not later.take("UPDATE t", ([1],))
    assert list(later.taken()) == [("UPDATE t", [(1, "a", None, 2.5, b"b")])]


def test_they_keep_their_order_and_those_in_a_row_go_together() -> None:
    later = Later()
    for statement, value in [("UPDATE a", 1), ("UPDATE a", 2), ("UPDATE b", 3), ("UPDATE a", 4)]:
        assert later.take(statement, (value,))
    assert list(later.taken()) == [("UPDATE a", [(1,), (2,)]), ("UPDATE b", [(3,)]), ("UPDATE a", [(4,)])]
    assert not later
    assert list(later.taken()) == []


def test_what_follows_a_savepoint_does_not_wait() -> None:
    later = Later()
    assert later.take("UPDATE t", ())
    assert not later.take("SELECT 1", ())
    assert later.take("UPDATE t", ())
    assert not later.take("SAVEPOINT a", ())
    assert not later.take("UPDATE t", ())


def test_many_are_due() -> None:
    later = Later()
    for _ in range(MANY - 1):
        later.take("UPDATE t", ())
    assert not later.is_due
    later.take("UPDATE t", ())
    assert later.is_due


def test_a_failure_is_remembered() -> None:
    later = Later()
    error = later.fail(EventStoreError("no such table"))
    assert isinstance(error, PutOffFailed)
    assert later.failed is error
    assert error.text == "no such table"
