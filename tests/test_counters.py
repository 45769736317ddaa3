"""What happened, counted by names and labels."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pyglyn import counters


@pytest.fixture(autouse=True)
def _counted_so_far() -> Iterator[None]:
    """What others have counted in this OS process stays theirs."""
    before = counters.take()
    yield
    counters.take()
    counters.add_all(before)


def test_what_is_counted_adds_up_by_name_and_labels_in_whatever_order_they_come() -> None:
    counters.add("sent")
    counters.add("sent", 2.5)
    counters.add("dropped", node="a", why="full")
    counters.add("dropped", why="full", node="a")
    counters.add("dropped", node="b", why="full")
    assert counters.counted() == [
        ("dropped", (("node", "a"), ("why", "full")), 2),
        ("dropped", (("node", "b"), ("why", "full")), 1),
        ("sent", (), 3.5),
    ]


def test_what_was_taken_is_counted_elsewhere_and_not_here() -> None:
    counters.add("sent", 3)
    taken = counters.take()
    assert (taken, counters.counted()) == ([("sent", (), 3)], [])
    counters.add("sent")
    counters.add_all(taken)
    assert counters.counted() == [("sent", (), 4)]


def test_of_more_combinations_than_can_be_told_apart_the_rest_is_counted_together() -> None:
    counters.add_all(("calls", (("node", str(number)),), 1) for number in range(counters.MOST_SERIES + 5))
    counters.add("calls", node="3")
    counted = {labels: amount for _, labels, amount in counters.counted()}
    assert len(counted) == counters.MOST_SERIES + 1
    assert (counted[("node", "3"),], counted[("node", "other"),]) == (2, 5)


def test_who_wants_to_know_is_told_of_each_change() -> None:
    told: list[int] = []
    counters.when_changed(lambda: told.append(len(counters.counted())))
    try:
        counters.add("a")
        counters.add("b")
        counters.take()
        assert told == [1, 2]
    finally:
        counters.when_changed(None)
    counters.add("c")
    assert told == [1, 2]
