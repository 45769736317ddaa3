"""What bounds the messages that a query keeps."""

from __future__ import annotations

from pyglyn.eventsourcing.queries.bounds import Allowance


def test_an_allowance_bounds_number_size_and_rate() -> None:
    allowance = Allowance(count=30, size=1000, rate=1.0)
    assert [allowance.take(1, 0.0) for _ in range(4)] == [True] * 3 + [False]
    assert [allowance.take(1, 1.0) for _ in range(2)] == [True, False]
    assert not allowance.take(2000, 10.0), "larger than all that may be kept"
    assert allowance.take(900, 10.0)
    assert not allowance.take(100, 11.0), "larger than what is left"
    allowance.give_back(900)
    assert allowance.take(100, 11.0)
    taken = sum(allowance.take(1, at * 10.0) for at in range(2, 100))
    assert taken == 30 - 5
    assert not allowance.take(1, 10_000.0), "as many as may be kept"


def test_without_a_rate_as_many_as_may_be_kept_may_come_at_once() -> None:
    allowance = Allowance(count=30, size=1000, rate=None)
    assert sum(allowance.take(10, 0.0) for _ in range(40)) == 30
    allowance.give_back(10)
    assert allowance.take(700, 0.0)
    assert not allowance.take(1, 0.0)
