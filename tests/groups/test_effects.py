"""What the group machines share: one monitor a target, reports of bad input, the size of names."""

from __future__ import annotations

import pytest

from pyglyn.etf import Atom, BitString, ImproperList, Pid, Term
from pyglyn.groups.effects import (
    MAX_NAME_BYTES,
    Demonitor,
    Monitor,
    Monitors,
    Rejected,
    Rejections,
    too_large,
)

PID = Pid("a@h", 1, 0, 1)
NAMED = (Atom("scope"), "a@h")


@pytest.mark.parametrize("target", [PID, NAMED], ids=["pid", "name"])
def test_the_first_use_asks_for_the_monitor_and_the_last_one_removes_it(target) -> None:
    monitors = Monitors()
    assert target not in monitors
    assert monitors.acquire(target) == [Monitor(target)]
    assert target in monitors
    assert monitors.acquire(target) == []
    assert monitors.release(target) == []
    assert target in monitors
    assert monitors.release(target) == [Demonitor(target)]
    assert target not in monitors
    assert monitors.acquire(target) == [Monitor(target)]


def test_targets_are_counted_apart() -> None:
    monitors = Monitors()
    assert monitors.acquire(PID) == [Monitor(PID)]
    assert monitors.acquire(NAMED) == [Monitor(NAMED)]
    assert monitors.release(PID) == [Demonitor(PID)]
    assert NAMED in monitors


def test_one_that_fired_is_asked_for_anew_however_often_it_was_used() -> None:
    monitors = Monitors()
    monitors.acquire(PID)
    monitors.acquire(PID)
    monitors.fired(PID)
    assert PID not in monitors
    assert monitors.release(PID) == []
    assert monitors.acquire(PID) == [Monitor(PID)]


def test_an_unknown_target_is_not_released() -> None:
    monitors = Monitors()
    assert monitors.release(PID) == []
    monitors.fired(PID)
    assert monitors.acquire(PID) == [Monitor(PID)]


def test_bad_input_is_counted_and_reported_once_for_each_kind_and_source() -> None:
    rejections = Rejections()
    assert rejections.reject("a@h", "odd") == [Rejected("a@h", "odd")]
    assert rejections.reject("a@h", "odd") == []
    assert rejections.reject("b@h", "odd") == [Rejected("b@h", "odd")]
    assert rejections.reject("a@h", "odder") == [Rejected("a@h", "odder")]
    assert rejections.count == 4


def test_a_peer_cannot_make_the_memory_of_rejections_grow_for_ever() -> None:
    rejections = Rejections()
    reported = sum(len(rejections.reject("a@h", str(n))) for n in range(2 * Rejections.LIMIT))
    assert (reported, rejections.count) == (Rejections.LIMIT, 2 * Rejections.LIMIT)


LONG = b"x" * (MAX_NAME_BYTES + 1)


@pytest.mark.parametrize(
    "name",
    [
        LONG,
        (Atom("group"), LONG),
        [LONG],
        {Atom("key"): LONG},
        {LONG: 1},
        ImproperList((1,), LONG),
        ImproperList((LONG,), 1),
        BitString(LONG, 7),
        1 << (8 * MAX_NAME_BYTES + 1),
        [1] * MAX_NAME_BYTES,
        [(b"x" * 100,)] * 1000,
    ],
    ids=[
        "binary",
        "in a tuple",
        "in a list",
        "value",
        "key",
        "tail",
        "element",
        "bits",
        "integer",
        "many",
        "sum",
    ],
)
def test_a_name_is_too_large_wherever_its_size_comes_from(name: Term) -> None:
    assert too_large(name)


@pytest.mark.parametrize(
    "name", [b"", b"x" * MAX_NAME_BYTES, Atom("a"), (Atom("a"), 1), [1] * 1000, {b"k": b"v"}, PID, 1.5, None]
)
def test_ordinary_names_are_not(name: Term) -> None:
    assert not too_large(name)


def test_a_deep_name_is_measured_without_recursion() -> None:
    deep: Term = b"x"
    for _ in range(100_000):
        deep = [deep]
    assert too_large(deep)
    assert not too_large(deep, 10_000_000)


ROUGHLY = [
    (Atom("x" * 95), 100),
    (BitString(b"x" * 95, 7), 100),
    ((b"x" * 90,), 101),  # 5 for each term, 1 for each element
    ([b""] * 10, 65),
    ({b"x" * 40: b"x" * 40}, 95),
    (1 << (8 * 95), 100),
    (ImproperList((b"x" * 10,), b"x" * 10), 35),
    (1.5, 5),
]


@pytest.mark.parametrize(("name", "size"), ROUGHLY, ids=lambda value: type(value).__name__)
def test_a_name_may_be_as_large_as_its_limit_and_not_larger(name: Term, size: int) -> None:
    assert not too_large(name, size)
    assert too_large(name, size - 1)
