"""The rules of syn's groups."""

from __future__ import annotations

from pyglyn.etf import Atom, Export, Reference
from pyglyn.groups import effects as fx
from tests.groups.machines import (
    CALL,
    NORMAL,
    PEER,
    THEM,
    UNDEFINED,
    V3,
    A,
    X,
    ack,
    events,
    groups,
)


def test_a_later_time_wins_in_a_group_and_an_equal_or_older_one_does_not() -> None:
    state = groups()
    state.handle_message(ack((b"g", X, 1, 100)), 0.0, 0)
    for time, meta, expected in ((99, b"old", 1), (100, b"same", 1), (101, b"new", b"new")):
        state.handle_message((V3, Atom("sync_join"), b"g", X, meta, time, NORMAL), 0.0, 0)
        assert state.members(b"g") == [(X, expected)]


def test_the_first_ack_takes_nothing_away_that_came_while_it_was_under_way() -> None:
    """It may have been written before the join that the peer answered us meanwhile; a later one was not."""
    state = groups()
    state.handle_message((V3, Atom("discover"), THEM), 0.0, 0)
    state.applied_join(b"g", X, (Atom("ok"), (Atom("on_process_joined"), UNDEFINED, 1, 5, None, None)))
    assert state.members(b"g") == [(X, 1)]
    assert events(state.handle_message(ack(), 0.0, 0)) == []
    assert state.members(b"g") == [(X, 1)]
    assert events(state.handle_message(ack(), 0.0, 0)) == [("left", b"g", X, UNDEFINED)]


def test_functions_of_other_nodes_are_refused_not_run() -> None:
    caller = (X, Reference(PEER, 1, (1,)))
    fun = Export("m", "f", 1)
    state = groups()
    request = (V3, Atom("join_or_update_on_node"), Atom(PEER), b"g", A, fun)
    undefined = fx.AnswerCall(caller, (Atom("error"), UNDEFINED))
    assert state.handle_message((CALL, caller, request), 0.0, 0) == [undefined]
    state.join(b"g", A, 1, 0)
    refused = fx.AnswerCall(caller, (Atom("error"), Atom("notsup")))
    assert state.handle_message((CALL, caller, request), 0.0, 0) == [refused]
    assert state.members(b"g") == [(A, 1)]


def test_the_answer_to_a_join_for_another_node_is_not_taken_once_that_node_is_gone() -> None:
    state = groups()
    state.handle_message(ack(), 0.0, 0)
    reply = (Atom("ok"), (Atom("on_process_joined"), UNDEFINED, 1, 100, Atom("t"), Atom("t")))
    state.handle_node_down(PEER)
    assert state.applied_join(b"g", X, reply) == []
    assert state.members(b"g") == []
