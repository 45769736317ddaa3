"""The rules of one scope of OTP's pg."""

from __future__ import annotations

from typing import Any

import pytest

from pyglyn.etf import Atom, Pid, Reference
from pyglyn.groups import effects as fx
from pyglyn.groups.pg_state import PgState
from tests.groups.machines import (
    CALL,
    CAST,
    DISCOVER,
    JOIN,
    LEAVE,
    NORMAL,
    OWN,
    PEER,
    SELF,
    SYNC,
    THEM,
    A,
    B,
    X,
    Y,
    pg,
    sent,
)


def test_who_answered_has_to_watch_us_or_gets_our_data_again_but_not_for_ever() -> None:
    state = PgState(SELF, "scope", lambda: Reference(OWN, 1, (1,)))
    state.handle_node_up(PEER)
    state.handle_message((CAST, (SYNC, THEM, [])), 0.0)
    state.handle_message((DISCOVER, THEM), 0.0)
    for _ in range(5):
        due = state.next_deadline()
        assert due is not None
        assert state.handle_timeout(due) == [fx.CheckWatched(THEM)]
        assert sent(state.handle_unwatched(THEM, due)) == [(DISCOVER, SELF)]
        assert sent(state.join(b"g", A)) == []
        assert sent(state.handle_message((DISCOVER, THEM), 0.0))[0][0] is CAST
    due = state.next_deadline()
    assert due is not None
    state.handle_timeout(due)
    assert state.handle_unwatched(THEM, due) == []
    assert state.next_deadline() is None


def test_nothing_but_a_sync_goes_to_a_peer_that_has_none_from_us() -> None:
    """A leave of a group that the peer does not have for us would crash its scope process."""
    state = pg()
    state.join(b"g", A)
    state.handle_node_up(PEER)
    state.handle_message((CAST, (SYNC, THEM, [(b"g", [X])])), 0.0)
    assert sent(state.leave(b"g", A)[1]) == []
    assert sent(state.join(b"h", [A, A])) == []
    assert sent(state.handle_message((DISCOVER, THEM), 0.0)) == [(CAST, (SYNC, SELF, [(b"h", [A, A])]))]
    assert sent(state.leave(b"h", A)[1]) == [(LEAVE, SELF, A, [b"h"])]
    assert sent(state.join(b"h", [B])) == [(JOIN, SELF, b"h", [B])]
    assert sent(state.handle_down(A, NORMAL, 0.0)) == [(LEAVE, SELF, A, [b"h"])]


def test_a_peer_that_knows_us_already_gets_our_sync_without_asking() -> None:
    state = pg()
    state.join(b"g", A)
    state.handle_node_up(PEER)
    state.handle_message((CAST, (SYNC, THEM, [])), 0.0)
    due = state.next_deadline()
    assert due is not None
    assert sent(state.handle_timeout(due)) == [(CAST, (SYNC, SELF, [(b"g", [A])]))]


def test_a_member_that_ends_leaves_each_group_as_often_as_it_joined() -> None:
    state = pg()
    state.handle_node_up(PEER)
    state.handle_message((DISCOVER, THEM), 0.0)
    state.join(b"g", [A, A])
    state.join(1, A)
    state.join(1.0, A)
    assert sent(state.handle_down(A, NORMAL, 0.0)) == [(LEAVE, SELF, A, [b"g", b"g", 1, 1.0])]
    assert state.which_groups() == []


def test_groups_that_only_python_takes_for_equal_are_different() -> None:
    state = pg()
    for group in (1, 1.0, True, b"1", Atom("1"), [1], (1,), {1: [1.0]}):
        state.join(group, A)
    assert len(state.which_groups()) == 8
    assert state.get_members(1.0) == [A] == state.get_members("1")


def test_a_sync_replaces_all_that_was_known_of_a_peer() -> None:
    state = pg()
    state.handle_node_up(PEER)
    state.handle_message((CAST, (SYNC, THEM, [(b"g", [X, X]), (b"h", [Y])])), 0.0)
    ref, groups, _ = state.monitor_scope(A)
    assert groups == [(b"g", [X, X]), (b"h", [Y])]
    effects = state.handle_message((CAST, (SYNC, THEM, [(b"g", [X, Y])])), 0.0)
    assert sent(effects) == [(ref, LEAVE, b"g", [X]), (ref, LEAVE, b"h", [Y]), (ref, JOIN, b"g", [Y])]
    assert state.get_members(b"g") == [X, Y]
    assert sent(state.handle_node_down(PEER)) == [(ref, LEAVE, b"g", [X, Y])]
    assert state.which_groups() == []


def test_a_new_scope_process_of_a_node_replaces_the_old_one() -> None:
    state = pg()
    state.handle_node_up(PEER)
    state.handle_message((CAST, (SYNC, THEM, [(b"g", [X])])), 0.0)
    new = Pid(PEER, 2, 0, 1)
    state.handle_message((DISCOVER, new), 0.0)
    assert state.which_groups() == []
    state.handle_message((JOIN, THEM, b"g", X), 0.0)
    assert state.which_groups() == []
    state.handle_message((JOIN, new, b"g", X), 0.0)
    assert state.get_members(b"g") == [X]


BAD_FOR_PG = [
    1,
    (),
    (CAST, Atom("what")),
    (CAST, (SYNC, THEM, [(b"g", X)])),
    (CAST, (SYNC, THEM, [(b"g", [X], 1)])),
    (CAST, (SYNC, THEM, [b"g"])),
    (CAST, (SYNC, THEM, [(b"g", [A])])),
    (CAST, (SYNC, THEM, {b"g": [X]})),
    (JOIN, THEM, b"g", b"x"),
    (JOIN, THEM, b"g", [X, A]),
    (JOIN, THEM, bytes(70_000), X),
    (JOIN, THEM, [b"x" * 1000] * 100, X),
    (JOIN, Pid("other@h", 1, 0, 1), b"g", Pid("other@h", 2, 0, 1)),
    (LEAVE, THEM, X, b"g"),
    (LEAVE, THEM, b"x", [b"g"]),
    (LEAVE, Pid("other@h", 1, 0, 1), Pid("other@h", 2, 0, 1), [b"g"]),
    (DISCOVER, Atom("pid")),
    (DISCOVER, Pid("other@h", 1, 0, 1)),
    (Atom("nodeup"), Atom(PEER)),
]


@pytest.mark.parametrize("message", BAD_FOR_PG, ids=range(len(BAD_FOR_PG)))
def test_bad_input_of_pg_is_reported_once_and_changes_nothing(message: Any) -> None:
    state = pg()
    state.handle_node_up(PEER)
    state.handle_message((CAST, (SYNC, THEM, [(b"g", [X])])), 0.0)
    assert [type(effect) for effect in state.handle_message(message, 0.0)] == [fx.Rejected]
    assert state.handle_message(message, 0.0) == []
    assert state.rejections.count == 2
    assert state.which_groups() == [b"g"]
    assert state.get_members(b"g") == [X]


def test_one_group_with_too_large_a_name_does_not_spoil_a_sync() -> None:
    state = pg()
    state.handle_node_up(PEER)
    state.handle_message((CAST, (SYNC, THEM, [(bytes(70_000), [X]), (b"g", [X])])), 0.0)
    assert state.which_groups() == [b"g"]
    assert state.handle_message((LEAVE, THEM, X, [bytes(70_000), b"g"]), 0.0) == []
    assert state.which_groups() == []
    with pytest.raises(ValueError, match="65536"):
        state.join(bytes(70_000), A)
    with pytest.raises(ValueError, match="this node"):
        state.join(b"g", X)


@pytest.mark.parametrize(
    "request_", [Atom("nonsense"), (Atom("join_local"), b"g", X), (Atom("leave_local"), b"g", Atom("x"))]
)
def test_a_bad_call_is_answered_with_badarg(request_: Any) -> None:
    caller = (X, Reference(PEER, 1, (1,)))
    effects = pg().handle_message((CALL, caller, request_), 0.0)
    assert fx.AnswerCall(caller, (Atom("error"), Atom("badarg"))) in effects
