"""What bounds a query's lines in the log and the messages that it keeps."""

from __future__ import annotations

from pyglyn.eventsourcing.queries.bounds import Allowance, Complaints


def test_of_equal_complaints_the_first_is_said_and_one_a_minute() -> None:
    complaints = Complaints(every=60.0)
    assert complaints.take("no connection", 0.0) == "no connection"
    assert [complaints.take("no connection", at) for at in (1.0, 30.0, 59.9)] == [None] * 3
    assert complaints.take("disk full", 30.0) == "disk full"
    assert complaints.take("no connection", 60.0) == "no connection (3 times more since then)"
    assert complaints.take("no connection", 61.0) is None
    assert complaints.over()
    assert not complaints.over()
    assert complaints.take("no connection", 62.0) == "no connection"


def test_complaints_that_all_differ_take_no_memory() -> None:
    complaints = Complaints()
    for number in range(1000):
        assert complaints.take(str(number), 0.0)
    assert len(complaints._last) <= 100


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
