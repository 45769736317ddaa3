"""What the hub says for a worker that is dead, and what it has forgotten by then."""

from __future__ import annotations

from typing import Any

import pytest

from pyglyn.dist.control import (
    Control,
    DemonitorP,
    Exit2,
    Link,
    LinkExit,
    MonitorP,
    MonitorPExit,
    Send,
    Unlink,
    UnlinkId,
    UnlinkIdAck,
)
from pyglyn.etf import Atom, Pid, Reference
from pyglyn.node.boundary import Boundary
from pyglyn.node.signals import Emit

INSIDE = Pid("py@localhost", 1, 4, 7)
OUTSIDE, ELSEWHERE = Pid("erl@localhost", 90, 0, 3), Pid("far@localhost", 5, 0, 1)
REF = Reference("erl@localhost", 3, (1, 2, 3))
BOOM = Atom("boom")


def boundary(*signals: Any) -> Boundary:
    """After these: ``("out", control, node)`` or ``("in", control)``."""
    made = Boundary()
    for way, control, *node in signals:
        if way == "out":
            made.outgoing(control, node[0] if node else None)
        else:
            made.incoming(control)
    return made


LINKED = ("out", Link(INSIDE, OUTSIDE))
LINKED_FROM_OUTSIDE = ("in", Link(OUTSIDE, INSIDE))
WATCHED = ("in", MonitorP(OUTSIDE, INSIDE, REF))
WATCHED_BY_NAME = ("in", MonitorP(OUTSIDE, Atom("stock"), REF))
WATCHING = ("out", MonitorP(INSIDE, OUTSIDE, REF), None)
WATCHING_BY_NAME = ("out", MonitorP(INSIDE, Atom("stock"), REF), "erl@localhost")


@pytest.mark.parametrize("link", [LINKED, LINKED_FROM_OUTSIDE], ids=["out", "in"])
def test_a_link_gets_an_exit_in_the_name_of_the_inner_process(link) -> None:
    assert [*boundary(link).death(BOOM)] == [Emit(LinkExit(INSIDE, OUTSIDE), BOOM)]


@pytest.mark.parametrize(
    "end",
    [
        ("out", Unlink(INSIDE, OUTSIDE)),
        ("out", UnlinkId(1, INSIDE, OUTSIDE)),
        ("out", LinkExit(INSIDE, OUTSIDE)),
        ("in", Unlink(OUTSIDE, INSIDE)),
        ("in", UnlinkId(1, OUTSIDE, INSIDE)),
        ("in", LinkExit(OUTSIDE, INSIDE)),
    ],
    ids=lambda end: f"{type(end[1]).__name__} {end[0]}",
)
def test_a_link_that_was_removed_or_is_being_removed_gets_none(end) -> None:
    assert [*boundary(LINKED, end).death(BOOM)] == []


@pytest.mark.parametrize(
    "other",
    [
        ("out", UnlinkId(1, INSIDE, ELSEWHERE)),
        ("in", LinkExit(ELSEWHERE, INSIDE)),
        ("in", UnlinkIdAck(1, OUTSIDE, INSIDE)),
        ("in", Exit2(OUTSIDE, INSIDE, BOOM)),
        ("out", Send(INSIDE, OUTSIDE)),
    ],
    ids=lambda end: f"{type(end[1]).__name__} {end[0]}",
)
def test_signals_about_something_else_leave_a_link_alone(other) -> None:
    assert [*boundary(LINKED, other).death(BOOM)] == [Emit(LinkExit(INSIDE, OUTSIDE), BOOM)]


@pytest.mark.parametrize("watch", [WATCHED, WATCHED_BY_NAME], ids=["pid", "name"])
def test_a_watcher_gets_a_down_with_what_it_asked_with(watch) -> None:
    assert [*boundary(watch).death(BOOM)] == [Emit(MonitorPExit(watch[1].watched, OUTSIDE, REF), BOOM)]


@pytest.mark.parametrize(
    ("watch", "give_up"),
    [
        (WATCHING, Emit(DemonitorP(INSIDE, OUTSIDE, REF))),
        (WATCHING_BY_NAME, Emit(DemonitorP(INSIDE, Atom("stock"), REF), node="erl@localhost")),
    ],
    ids=["pid", "name"],
)
def test_a_monitor_of_an_inner_process_is_given_up(watch, give_up: Emit) -> None:
    assert [*boundary(watch).death(BOOM)] == [give_up]


@pytest.mark.parametrize(
    ("begin", "end"),
    [
        (WATCHED, ("in", DemonitorP(OUTSIDE, INSIDE, REF))),
        (WATCHED, ("out", MonitorPExit(INSIDE, OUTSIDE, REF))),
        (WATCHING, ("out", DemonitorP(INSIDE, OUTSIDE, REF))),
        (WATCHING, ("in", MonitorPExit(OUTSIDE, INSIDE, REF))),
    ],
    ids=["watcher gives up", "inner process ended", "inner process gives up", "outer process ended"],
)
def test_a_monitor_that_is_over_is_forgotten(begin, end) -> None:
    assert [*boundary(begin, end).death(BOOM)] == []


@pytest.mark.parametrize(
    "signal",
    [LINKED, WATCHED, WATCHED_BY_NAME, WATCHING, WATCHING_BY_NAME],
    ids=["link", "watcher", "watcher by name", "monitor", "monitor by name"],
)
def test_with_its_node_everything_across_is_forgotten_and_with_another_node_nothing(signal) -> None:
    """The watchers too: a DOWN to a node that is gone, and perhaps is back as another one, is for nobody."""
    kept = boundary(signal)
    kept.node_down("far@localhost")
    assert len([*kept.death(BOOM)]) == 1
    gone = boundary(signal)
    gone.node_down("erl@localhost")
    assert [*gone.death(BOOM)] == []


def test_a_death_is_told_once() -> None:
    made = boundary(LINKED, WATCHED)
    assert len([*made.death(BOOM)]) == 2
    assert [*made.death(BOOM)] == []


def test_others_are_not_touched_by_one_end() -> None:
    other: Control = MonitorP(ELSEWHERE, INSIDE, Reference("far@localhost", 1, (9, 9, 9)))
    made = boundary(WATCHED, ("in", other), ("in", DemonitorP(OUTSIDE, INSIDE, REF)))
    assert [emit.control.watcher for emit in made.death(BOOM)] == [ELSEWHERE]  # type: ignore[union-attr]
