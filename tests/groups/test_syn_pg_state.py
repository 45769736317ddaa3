"""The rules of syn's groups."""

from __future__ import annotations

from typing import Any

import pytest

from pyglyn.etf import Atom, Export, Reference
from pyglyn.groups import effects as fx
from pyglyn.groups.syn_pg_state import SynGroups
from tests.groups.machines import (
    CALL,
    NORMAL,
    OWN,
    PEER,
    SELF,
    THEM,
    UNDEFINED,
    V3,
    A,
    B,
    X,
    Y,
    ack,
    events,
    groups,
    sent,
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


# --- our own processes ----------------------------------------------------------------------------------

TABLES = (Atom("syn_pg_by_name_s"), Atom("syn_pg_by_pid_s"))
JOINED, UPDATED = Atom("on_process_joined"), Atom("on_group_process_updated")


def test_a_process_joins_once_and_later_joins_change_its_metadata() -> None:
    state = groups()
    state.handle_message(ack(), 0.0, 0)
    reply, effects = state.join(b"g", A, 1, 5)
    assert reply == (Atom("ok"), (JOINED, UNDEFINED, 1, 5, *TABLES))
    assert effects[0] == fx.Monitor(A)
    assert events(effects) == [("joined", b"g", A, NORMAL)]
    assert sent(effects) == [(V3, Atom("sync_join"), b"g", A, 1, 5, NORMAL)]
    assert state.join(b"g", A, 1, 6) == ((Atom("noop"), 1), [])
    reply, effects = state.join(b"g", A, 2, 7)
    assert reply == (Atom("ok"), (UPDATED, 1, 2, 7, *TABLES))
    assert events(effects) == [("member_updated", b"g", A, NORMAL)]
    assert [effect.previous_meta for effect in effects if isinstance(effect, fx.Event)] == [1]
    assert not any(isinstance(effect, fx.Monitor) for effect in effects)
    reply, _ = state.join(b"g", A, 2.0, 8)
    assert reply[1][1:3] == (2, 2.0), "2 and 2.0 are two terms"


def test_metadata_are_changed_by_a_function_of_members_only() -> None:
    state = groups()
    assert state.update(b"g", A, lambda meta: meta, 1) == ((Atom("error"), UNDEFINED), [])
    assert state.update(b"g", X, lambda meta: meta, 1) == ((Atom("error"), Atom("not_alive")), [])
    state.join(b"g", A, 1, 1)
    reply, _ = state.update(b"g", A, lambda meta: meta + 1, 2)
    assert reply[1][:3] == (UPDATED, 1, 2)
    assert state.member(b"g", A) == (A, 2)


def test_who_is_dead_or_elsewhere_cannot_join_and_a_name_is_bounded() -> None:
    state = SynGroups(SELF, "s", is_alive=lambda pid: pid != B)
    for pid in (B, X):
        assert state.join(b"g", pid, 1, 1) == ((Atom("error"), Atom("not_alive")), [])
    with pytest.raises(ValueError, match="65536 bytes"):
        state.join(bytes(70_000), A, 1, 1)
    assert state.group_names() == []


def test_a_process_leaves_the_groups_it_is_in_and_is_watched_until_the_last() -> None:
    state = groups()
    state.handle_message(ack(), 0.0, 0)
    state.join(b"g", A, 1, 1)
    state.join(b"h", A, 2, 2)
    for group, pid in ((b"other", A), (b"g", B), (b"g", X)):
        assert state.leave(group, pid) == ((Atom("error"), Atom("not_in_group")), [])
    reply, effects = state.leave(b"g", A)
    assert reply == (Atom("ok"), (1, TABLES[1]))
    assert sent(effects) == [(V3, Atom("sync_leave"), b"g", A, 1, NORMAL)]
    assert events(effects) == [("left", b"g", A, NORMAL)]
    assert fx.Demonitor(A) not in effects
    assert fx.Demonitor(A) in state.leave(b"h", A)[1]
    assert state.group_names() == []


def test_the_end_of_a_process_takes_it_out_of_all_its_groups_and_is_told() -> None:
    state = groups()
    state.handle_message(ack(), 0.0, 0)
    for group in (b"g", b"h"):
        state.join(group, A, group, 1)
    state.join(b"g", B, 0, 1)
    effects = state.handle_down(A, Atom("boom"), 0.0)
    assert events(effects) == [("left", group, A, Atom("boom")) for group in (b"g", b"h")]
    assert sent(effects) == [
        (V3, Atom("sync_leave"), group, A, group, Atom("boom")) for group in (b"g", b"h")
    ]
    assert state.members(b"g") == [(B, 0)]
    assert state.group_names() == [b"g"]


def test_who_is_in_a_group_can_be_asked_for_all_nodes_or_one() -> None:
    state = groups()
    state.handle_message(ack((b"g", X, 1, 1), (b"far", X, 1, 1)), 0.0, 0)
    state.join(b"g", A, 2, 1)
    assert state.members(b"g") == [(A, 2), (X, 1)]
    assert (state.members(b"g", PEER), state.local_members(b"g")) == ([(X, 1)], [(A, 2)])
    assert [state.member_count(b"g", node) for node in (None, PEER, OWN, "no@h")] == [2, 1, 1, 0]
    assert (state.member(b"g", X), state.member(b"g", Y), state.member(b"g", B)) == ((X, 1), None, None)
    assert [state.group_names(node) for node in (None, OWN, PEER, "no@h")] == [
        [b"g", b"far"],
        [b"g"],
        [b"g", b"far"],
        [],
    ]


def test_a_successor_takes_over_who_lives_and_its_times_go_on_from_there() -> None:
    old = groups()
    old.join(b"g", A, 1, 100)
    old.join(b"g", B, 2, 200)
    state = SynGroups(SELF, "s", is_alive=lambda pid: pid != B)
    effects = state.restore(old.local_entries())
    assert effects[0] == fx.Monitor(A)
    assert events(effects) == [("left", b"g", B, UNDEFINED)]
    assert state.local_entries() == [(b"g", A, 1, 100)]
    assert state.join(b"h", A, 1, 5)[0][1][3] == 101


# --- those of other nodes -------------------------------------------------------------------------------


def test_members_of_a_node_that_goes_are_gone() -> None:
    state = groups()
    state.handle_message(ack((b"g", X, 1, 1), (b"g", Y, 2, 1)), 0.0, 0)
    down = (Atom("syn_remote_scope_node_down"), Atom("s"), Atom(PEER))
    assert events(state.handle_node_down(PEER)) == [("left", b"g", pid, down) for pid in (X, Y)]
    assert state.group_names() == []


def test_a_leave_of_somebody_who_is_not_there_says_nothing() -> None:
    state = groups()
    state.handle_message(ack((b"g", X, 1, 1)), 0.0, 0)
    leave = (V3, Atom("sync_leave"), b"g", X, 1, Atom("why"))
    assert events(state.handle_message(leave, 0.0, 0)) == [("left", b"g", X, Atom("why"))]
    assert state.handle_message(leave, 0.0, 0) == []


def test_a_later_change_with_the_same_metadata_is_no_event() -> None:
    state = groups()
    state.handle_message(ack((b"g", X, 1, 1)), 0.0, 0)
    join = (V3, Atom("sync_join"), b"g", X, 1, 5, NORMAL)
    assert state.handle_message(join, 0.0, 0) == []
    older = (V3, Atom("sync_join"), b"g", X, 2, 4, NORMAL)
    assert state.handle_message(older, 0.0, 0) == []
    assert state.members(b"g") == [(X, 1)], "its time has moved on all the same"


# --- calls on behalf of others --------------------------------------------------------------------------


def called(state: SynGroups, *request: Any) -> tuple[Any, list[Any]]:
    """The answer to a call of the peer, and what is broadcast."""
    caller = (X, Reference(PEER, 1, (1,)))
    effects = state.handle_message((CALL, caller, (V3, *request)), 0.0, 7)
    [answer] = [effect.reply for effect in effects if isinstance(effect, fx.AnswerCall)]
    return answer, sent(effects)


def test_a_peer_may_have_our_processes_join_and_leave_and_learns_of_it_by_the_answer_alone() -> None:
    state = groups()
    state.handle_message(ack(), 0.0, 0)
    asked = (Atom("join_or_update_on_node"), Atom(PEER), b"g", A, 1)
    assert called(state, *asked) == ((Atom("ok"), (JOINED, UNDEFINED, 1, 7, *TABLES)), [])
    assert called(state, Atom("join_or_update_on_node"), Atom(PEER), bytes(70_000), A, 1) == (
        (Atom("error"), Atom("system_limit")),
        [],
    )
    left = called(state, Atom("leave_on_node"), Atom(PEER), b"g", A)
    assert left == ((Atom("ok"), (1, TABLES[1])), [])
    assert called(state, Atom("leave_on_node"), Atom(PEER), b"g", A)[0] == (
        Atom("error"),
        Atom("not_in_group"),
    )
    assert called(state, Atom("strange"), 1)[0] is UNDEFINED
    assert state.rejections.count == 1


def test_what_a_peer_answered_to_our_call_is_entered_here() -> None:
    state = groups()
    state.handle_message(ack(), 0.0, 0)

    def joined(callback: Atom, before: Any, meta: Any, time: int) -> Any:
        return (Atom("ok"), (callback, before, meta, time, None, None))

    assert events(state.applied_join(b"g", X, joined(JOINED, UNDEFINED, 1, 5))) == [
        ("joined", b"g", X, NORMAL)
    ]
    assert state.applied_join(b"g", X, joined(UPDATED, 1, 3, 5)) == [], "its own broadcast was faster"
    [updated] = state.applied_join(b"g", X, joined(UPDATED, 1, 2, 6))
    assert isinstance(updated, fx.Event)
    assert (updated.kind, updated.meta, updated.previous_meta) == ("member_updated", 2, 1)
    for refused in ((Atom("error"), Atom("not_alive")), (Atom("noop"), 1)):
        assert state.applied_join(b"g", X, refused) == []
        assert state.applied_leave(b"g", X, refused) == []
    assert state.members(b"g") == [(X, 2)]
    assert events(state.applied_leave(b"g", X, (Atom("ok"), (2, None)))) == [("left", b"g", X, NORMAL)]
    assert state.applied_leave(b"g", X, (Atom("ok"), (2, None))) == []
