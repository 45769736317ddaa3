"""How often a failing event is tried again, and after which pauses."""

from __future__ import annotations

import pytest

from pyglyn.errors import NonPositiveArgument
from pyglyn.eventsourcing.queries.failure import PARK, STOP, FailurePolicy


def test_by_default_five_more_attempts_and_then_it_is_parked() -> None:
    policy = FailurePolicy()
    assert [policy.pause(n) for n in range(1, 7)] == [0.05, 0.1, 0.2, 0.4, 0.8, None]
    assert policy.then == PARK


def test_pauses_grow_by_the_factor_up_to_the_longest() -> None:
    policy = FailurePolicy(retries=4, first=1.0, factor=3.0, longest=10.0)
    assert [policy.pause(n) for n in range(1, 6)] == [1.0, 3.0, 9.0, 10.0, None]


def test_no_retries_is_one_attempt() -> None:
    assert FailurePolicy(retries=0).pause(1) is None


def test_without_a_limit_it_is_tried_for_ever_and_no_number_grows_too_large() -> None:
    policy = FailurePolicy(retries=None, first=2.0, factor=10.0, longest=7.0)
    assert [policy.pause(n) for n in (1, 2, 1_000_000)] == [2.0, 7.0, 7.0]
    slow = FailurePolicy(retries=None, first=1.0, factor=1.5, longest=1e300)
    assert slow.pause(61) == slow.pause(62) == 1.5**60


@pytest.mark.parametrize("field", ["first", "factor", "longest"])
@pytest.mark.parametrize("value", [0, -0.5])
def test_times_are_more_than_nothing(field: str, value: float) -> None:
    with pytest.raises(NonPositiveArgument, match=r"^first, factor and longest have to be more than 0$"):
        FailurePolicy(**{field: value})
    FailurePolicy(**{field: 0.001})


def test_a_negative_number_of_retries_is_refused() -> None:
    with pytest.raises(NonPositiveArgument, match=r"^retries is 0 or more, got -1$"):
        FailurePolicy(retries=-1)


def test_what_then_is_one_of_two() -> None:
    assert FailurePolicy(then=STOP).then == "stop"
    with pytest.raises(ValueError, match=r"^then is park or stop, got 'drop'$"):
        FailurePolicy(then="drop")
