"""The rules that the groups and the registry of syn have in common."""

from __future__ import annotations

from typing import Any

import pytest

from pyglyn.etf import Atom, Pid
from pyglyn.groups import effects as fx
from pyglyn.groups.syn_pg_state import SynGroups
from pyglyn.groups.syn_registry_state import SynRegistry
from pyglyn.groups.syn_state import MAX_QUESTIONS
from tests.groups.machines import (
    CAST,
    NORMAL,
    SELF,
    THEM,
    UNDEFINED,
    V3,
    A,
    X,
    Y,
    ack,
    events,
    groups,
    registry,
    sent,
)


def test_the_first_ack_of_a_peer_is_answered_with_our_data() -> None:
    state = groups()
    state.join(b"g", A, 1, 100)
    assert sent(state.handle_message(ack(), 0.0, 0)) == [(V3, Atom("ack_sync"), SELF, [(b"g", A, 1, 100)])]
    assert sent(state.handle_message(ack(), 0.0, 0)) == []
    assert sent(state.handle_message((V3, Atom("discover"), THEM), 0.0, 0)) == [
        (V3, Atom("ack_sync"), SELF, [(b"g", A, 1, 100)])
    ]


def test_our_times_grow_even_if_the_clock_does_not() -> None:
    state = groups()
    state.handle_message(ack(), 0.0, 0)
    times = []
    for meta in range(3):
        effects = state.join(b"g", A, meta, 100 - meta)[1]
        times += [message[5] for message in sent(effects)]
    assert times == [100, 101, 102]


def test_a_change_before_the_first_ack_is_not_taken_but_makes_us_ask_again() -> None:
    """In 3.3 a change can overtake the ack; or it was meant for a scope process that is no more."""
    state = groups()
    leave = (V3, Atom("sync_leave"), b"g", X, 1, NORMAL)
    assert state.handle_message(leave, 0.0, 0) == []
    effects = state.handle_message(ack((b"g", X, 1, 1), (b"g", Y, 1, 1)), 0.0, 0)
    assert (V3, Atom("discover"), SELF) in sent(effects)
    assert len(state.members(b"g")) == 2
    assert events(state.handle_message(ack((b"g", Y, 1, 1)), 0.0, 0)) == [("left", b"g", X, UNDEFINED)]
    assert state.members(b"g") == [(Y, 1)]


def test_a_peer_that_changes_all_the_time_is_not_asked_for_ever() -> None:
    state = groups()
    asked = 0
    for n in range(50):
        state.handle_message((V3, Atom("sync_join"), b"g", X, n, n, NORMAL), 0.0, 0)
        asked += (V3, Atom("discover"), SELF) in sent(state.handle_message(ack((b"g", X, n, n)), 0.0, 0))
        if asked == MAX_QUESTIONS:
            break
    state.handle_message((V3, Atom("sync_join"), b"g", X, 99, 99, NORMAL), 0.0, 0)
    assert sent(state.handle_message(ack((b"g", X, 99, 99)), 0.0, 0)) == []
    assert state.members(b"g") == [(X, 99)]


BAD_FOR_SYN = [
    1,
    (V3,),
    (V3, Atom("discover"), Atom("pid")),
    (V3, Atom("discover"), Pid("other@h", 1, 0, 1)),
    (V3, Atom("ack_sync"), THEM, Atom("none")),
    (V3, Atom("ack_sync"), THEM, [(b"g", X, 1)]),
    (V3, Atom("ack_sync"), THEM, [(b"g", X, 1, 1.5)]),
    (V3, Atom("ack_sync"), THEM, [(b"g", A, 1, 1)]),
    (V3, Atom("sync_join"), b"g", X, 1, Atom("now"), NORMAL),
    (V3, Atom("sync_join"), b"g", X, 1),
    (V3, Atom("sync_join"), b"g", Pid("other@h", 1, 0, 1), 1, 1, NORMAL),
    (V3, Atom("sync_join"), b"g", A, 1, 10**20, NORMAL),
    (V3, Atom("sync_leave"), b"g", A, 1, NORMAL),
    (V3, Atom("sync_join"), bytes(70_000), X, 1, 1, NORMAL),
    (V3, Atom("sync_what"), b"g", X, 1),
    (CAST, 1),
]


@pytest.mark.parametrize("message", BAD_FOR_SYN, ids=range(len(BAD_FOR_SYN)))
def test_bad_input_of_syn_is_reported_once_and_changes_nothing(message: Any) -> None:
    states: list[SynGroups | SynRegistry] = [groups(), registry()]
    for state in states:
        state.handle_message(ack((b"g", X, 1, 1)), 0.0, 0)
        before = state.members(b"g") if isinstance(state, SynGroups) else state.lookup(b"g")
        assert [type(effect) for effect in state.handle_message(message, 0.0, 0)] == [fx.Rejected]
        assert state.handle_message(message, 0.0, 0) == []
        after = state.members(b"g") if isinstance(state, SynGroups) else state.lookup(b"g")
        assert before == after
