"""Events that overtook others wait for them, and not for ever."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from pyglyn.eventsourcing.domain.envelope import (
    MemoryStoreEventEnvelop,
    ProcessEvents,
    SerializedEventEnvelop,
)
from pyglyn.eventsourcing.queries.ordering import Ordering

HOLD_S = 0.5


def message(
    first: int, last: int | None = None, *, of: str = "a", kind: str | None = None
) -> ProcessEvents[str]:
    """Make a message with the events of these numbers."""
    events: list[Any] = []
    for number in range(first, (last or first) + 1):
        if kind is None:
            events.append(MemoryStoreEventEnvelop(of, number, f"{of}{number}"))
        else:
            events.append(SerializedEventEnvelop(of, number, f"{of}{number}", [], "e", "1.0", kind))
    return ProcessEvents(of, events)


def numbers(messages: list[ProcessEvents[str]]) -> list[int]:
    return [event.sequence for each in messages for event in each.events]


def ordering(**options: Any) -> Ordering[ProcessEvents[str]]:
    return Ordering(HOLD_S, **options)


def test_what_comes_in_order_is_passed_on_at_once() -> None:
    order = ordering()
    assert [numbers(order.take(message(n), 0.0)) for n in (1, 2, 3)] == [[1], [2], [3]]
    assert order.next_deadline() is None


def test_the_first_of_an_aggregate_may_have_any_number() -> None:
    assert numbers(ordering().take(message(17), 0.0)) == [17]


def test_late_ones_are_put_back_in_their_place() -> None:
    order = ordering()
    taken = [numbers(order.take(message(n), 0.0)) for n in (1, 4, 3, 2, 5)]
    assert taken == [[1], [], [], [2, 3, 4], [5]]
    assert order.next_deadline() is None


@given(st.permutations(range(2, 9)))
def test_whatever_the_order_of_coming_it_is_the_right_one_of_going(numbers_as_they_come: list[int]) -> None:
    order = ordering()
    order.take(message(1), 0.0)
    went = [number for n in numbers_as_they_come for number in numbers(order.take(message(n), 0.0))]
    assert went == list(range(2, 9))


def test_a_message_of_several_events_counts_to_its_last() -> None:
    order = ordering()
    assert numbers(order.take(message(1, 3), 0.0)) == [1, 2, 3]
    assert numbers(order.take(message(7, 8), 0.0)) == []
    assert numbers(order.take(message(4, 6), 0.0)) == [4, 5, 6, 7, 8]


def test_only_those_without_a_gap_before_them_go_on() -> None:
    order = ordering()
    order.take(message(1), 0.0)
    assert numbers(order.take(message(5), 0.0) + order.take(message(3), 0.0)) == []
    assert numbers(order.take(message(2), 0.0)) == [2, 3]
    assert order.next_deadline() == HOLD_S
    assert numbers(order.take(message(4), 0.0)) == [4, 5]
    assert order.next_deadline() is None


def test_they_wait_from_when_the_first_of_them_came() -> None:
    order = ordering()
    order.take(message(1), 0.0)
    order.take(message(4), 10.0)
    order.take(message(3), 10.25)
    assert order.next_deadline() == 10.0 + HOLD_S
    assert numbers(order.overdue(10.0 + HOLD_S - 0.01)) == []
    assert numbers(order.overdue(10.0 + HOLD_S)) == [3, 4]
    assert order.next_deadline() is None
    assert numbers(order.overdue(20.0)) == []
    assert numbers(order.take(message(5), 20.0)) == [5], "counted on from what went without the missing one"


def test_the_next_deadline_is_that_of_whoever_waits_longest() -> None:
    order = ordering()
    for number, (of, now) in enumerate((("b", 3.0), ("a", 1.0), ("c", 2.0))):
        order.take(message(1, of=of), now)
        order.take(message(3, of=of), now)
        assert order.next_deadline() == (3.0 if not number else 1.0) + HOLD_S
    assert [each.aggregate_id for each in order.overdue(2.0 + HOLD_S)] == ["a", "c"]
    assert order.next_deadline() == 3.0 + HOLD_S


def test_aggregates_wait_for_themselves_alone() -> None:
    order = ordering()
    order.take(message(1, of="a"), 0.0)
    assert numbers(order.take(message(3, of="a"), 0.0)) == []
    assert numbers(order.take(message(9, of="b"), 0.0)) == [9]
    assert numbers(order.take(message(9, of="a", kind="account"), 0.0)) == [9]
    assert numbers(order.take(message(11, of="a", kind="order"), 0.0)) == [11]
    assert numbers(order.take(message(13, of="a", kind="account"), 0.0)) == []
    assert numbers(order.take(message(2, of="a"), 0.0)) == [2, 3]


def test_known_and_lower_numbers_are_passed_on_and_counted_from() -> None:
    """A store that began anew counts from 1 again; a repetition is for whoever applies it to find."""
    order = ordering()
    assert [numbers(order.take(message(n), 0.0)) for n in (5, 5, 1, 2)] == [[5], [5], [1], [2]]
    assert numbers(order.take(message(4), 0.0)) == []


def test_a_held_message_that_came_twice_goes_on_twice() -> None:
    order = ordering()
    for number in (1, 3, 3):
        order.take(message(number), 0.0)
    assert numbers(order.take(message(2), 0.0)) == [2, 3, 3]


def test_a_message_without_events_is_passed_on() -> None:
    order = ordering()
    order.take(message(1), 0.0)
    empty: ProcessEvents[str] = ProcessEvents("a", [])
    assert order.take(empty, 0.0) == [empty]


def test_those_not_heard_of_for_longest_are_forgotten() -> None:
    order = ordering(remembered=2)
    for of in ("a", "b", "a", "c"):  # b is forgotten
        order.take(message(1 if of != "a" else 2, of=of), 0.0)
    assert numbers(order.take(message(9, of="a"), 0.0)) == [], "a gap is noticed"
    assert numbers(order.take(message(9, of="c"), 0.0)) == []
    assert numbers(order.take(message(9, of="b"), 0.0)) == [9], "as the first of its aggregate"
