"""The rules of the machines that keep peers alive and views right, one by one."""

from __future__ import annotations

from typing import Any

import pytest

from pyglyn.etf import Atom, Export, Pid, Reference
from pyglyn.groups import effects as fx
from pyglyn.groups.discovery import LONGEST_PAUSE_S, PROMPT_ATTEMPTS, Discovery
from pyglyn.groups.pg_state import PgState
from pyglyn.groups.syn_pg_state import SynGroups
from pyglyn.groups.syn_registry_state import SynRegistry
from pyglyn.groups.syn_state import MAX_QUESTIONS

OWN, PEER = "own@h", "peer@h"
SELF = Pid(OWN, 1, 0, 1)
THEM = Pid(PEER, 1, 0, 1)
A, B = Pid(OWN, 10, 0, 1), Pid(OWN, 11, 0, 1)
X, Y = Pid(PEER, 10, 0, 1), Pid(PEER, 11, 0, 1)
SYNC, DISCOVER, JOIN, LEAVE = Atom("sync"), Atom("discover"), Atom("join"), Atom("leave")
CAST, CALL = Atom("$gen_cast"), Atom("$gen_call")
V3, NORMAL, UNDEFINED = Atom("3.0"), Atom("normal"), Atom("undefined")
NOPROC, NOCONNECTION = Atom("noproc"), Atom("noconnection")


def sent(effects: list[fx.Effect]) -> list[Any]:
    return [effect.message for effect in effects if isinstance(effect, fx.Send)]


def events(effects: list[fx.Effect]) -> list[tuple[str, Any, Any, Any]]:
    return [(e.kind, e.name, e.pid, e.reason) for e in effects if isinstance(e, fx.Event)]


# --- discovery -------------------------------------------------------------------------------------


def discovery() -> Discovery:
    return Discovery(Atom("scope"), fx.Monitors(), lambda: Atom("hello"))


NAMED = (Atom("scope"), PEER)


def test_a_new_connection_is_greeted_behind_a_monitor() -> None:
    assert discovery().up(PEER) == [fx.Monitor(NAMED), fx.Send(NAMED, Atom("hello"))]


def test_a_name_that_is_not_there_is_watched_and_then_greeted_again() -> None:
    monitors = fx.Monitors()
    peers = Discovery(Atom("scope"), monitors, lambda: Atom("hello"))
    peers.up(PEER)
    monitors.fired(NAMED)
    assert peers.down(NAMED, NOPROC, 0.0) == (PEER, [fx.Watch(Atom("scope"), PEER)])
    assert peers.next_deadline() is None
    assert peers.watch_ended(PEER, True, 60.0) == [fx.Monitor(NAMED), fx.Send(NAMED, Atom("hello"))]
    assert peers.watch_ended(PEER, True, 61.0) == []


def test_a_node_that_cannot_be_watched_is_greeted_more_and_more_rarely() -> None:
    peers = discovery()
    peers.up(PEER)
    peers.down(NAMED, NOPROC, 0.0)
    assert peers.watch_ended(PEER, False, 0.0) == []
    times = []
    while len(times) < 9:
        now = peers.next_deadline()
        assert now is not None
        assert peers.handle_timeout(now) == [fx.Send(NAMED, Atom("hello"))]
        times.append(now)
    assert times == [1, 3, 7, 15, 31, 51, 71, 91, 111]
    assert peers.answered(THEM, 112.0) == [fx.Monitor(THEM)]


def test_a_scope_process_that_keeps_dying_is_looked_for_with_growing_pauses() -> None:
    peers = discovery()
    peers.up(PEER)
    now, pauses = 0.0, []
    for _ in range(PROMPT_ATTEMPTS + 9):
        _, effects = peers.down(NAMED, Atom("killed"), now)
        due = peers.next_deadline()
        pauses.append(0.0 if due is None else due - now)
        if due is not None:
            assert effects == []
            now = due
            effects = peers.handle_timeout(now)
        assert effects == [fx.Watch(Atom("scope"), PEER)]
        peers.watch_ended(PEER, True, now)
        peers.answered(THEM, now)
    assert pauses == [0.0] * PROMPT_ATTEMPTS + [0.25, 0.5, 1, 2, 4, 8, 16, LONGEST_PAUSE_S, LONGEST_PAUSE_S]
    assert peers.down(NAMED, NOPROC, now + 60.0)[1] == [fx.Watch(Atom("scope"), PEER)]


def test_a_lost_connection_ends_all_that_was_under_way() -> None:
    peers = discovery()
    peers.up(PEER)
    peers.down(NAMED, NOPROC, 0.0)
    peers.watch_ended(PEER, False, 0.0)
    peers.gone(PEER)
    assert peers.next_deadline() is None
    assert peers.watch_ended(PEER, True, 1.0) == []
    assert peers.down(NAMED, NOCONNECTION, 1.0) == (None, [])


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


# --- pg --------------------------------------------------------------------------------------------


def pg() -> PgState:
    counter = iter(range(1, 1000))
    return PgState(SELF, "scope", lambda: Reference(OWN, 1, (next(counter), 0, 0)))


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


# --- syn -------------------------------------------------------------------------------------------


def groups() -> SynGroups:
    state = SynGroups(SELF, "s")
    state.handle_node_up(PEER)
    return state


def ack(*entries: Any, pid: Pid = THEM) -> Any:
    return (V3, Atom("ack_sync"), pid, list(entries))


def test_the_first_ack_of_a_peer_is_answered_with_our_data() -> None:
    state = groups()
    state.join(b"g", A, 1, 100)
    assert sent(state.handle_message(ack(), 0.0, 0)) == [(V3, Atom("ack_sync"), SELF, [(b"g", A, 1, 100)])]
    assert sent(state.handle_message(ack(), 0.0, 0)) == []
    assert sent(state.handle_message((V3, Atom("discover"), THEM), 0.0, 0)) == [
        (V3, Atom("ack_sync"), SELF, [(b"g", A, 1, 100)])
    ]


def test_a_later_time_wins_in_a_group_and_an_equal_or_older_one_does_not() -> None:
    state = groups()
    state.handle_message(ack((b"g", X, 1, 100)), 0.0, 0)
    for time, meta, expected in ((99, b"old", 1), (100, b"same", 1), (101, b"new", b"new")):
        state.handle_message((V3, Atom("sync_join"), b"g", X, meta, time, NORMAL), 0.0, 0)
        assert state.members(b"g") == [(X, expected)]


def test_an_update_of_a_name_by_its_process_counts_whatever_its_time() -> None:
    state = registry()
    state.handle_message(ack((b"n", X, 1, 100)), 0.0, 0)
    state.handle_message((V3, Atom("sync_register"), b"n", X, 2, 50, NORMAL), 0.0, 0)
    assert state.lookup(b"n") == (X, 2)


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


def test_the_first_ack_takes_nothing_away_that_came_while_it_was_under_way() -> None:
    """It may have been written before the join that the peer answered us meanwhile; a later one was not."""
    state = groups()
    state.handle_message((V3, Atom("discover"), THEM), 0.0, 0)
    state.applied_join(b"g", X, (Atom("ok"), (Atom("on_process_joined"), UNDEFINED, 1, 5, None, None)))
    assert state.members(b"g") == [(X, 1)]
    assert events(state.handle_message(ack(), 0.0, 0)) == []
    assert state.members(b"g") == [(X, 1)]
    assert events(state.handle_message(ack(), 0.0, 0)) == [("left", b"g", X, UNDEFINED)]


def test_the_first_ack_frees_no_name_that_was_registered_while_it_was_under_way() -> None:
    state = registry()
    state.handle_message((V3, Atom("discover"), THEM), 0.0, 0)
    state.applied_register(
        b"n", X, (Atom("ok"), (Atom("on_process_registered"), UNDEFINED, 1, 5, None, None))
    )
    assert state.lookup(b"n") == (X, 1)
    assert events(state.handle_message(ack(), 0.0, 0)) == []
    assert state.lookup(b"n") == (X, 1)
    assert events(state.handle_message(ack(), 0.0, 0)) == [("unregistered", b"n", X, UNDEFINED)]


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


def registry(**arguments: Any) -> SynRegistry:
    state = SynRegistry(SELF, "s", **arguments)
    state.handle_node_up(PEER)
    return state


GREATER, LESSER = Pid(PEER, 99, 0, 1), Pid(PEER, 2, 0, 1)


@pytest.mark.parametrize(
    ("version", "theirs", "keeps_ours"),
    [
        ((3, 3, 0), GREATER, True),
        ((3, 4, 0), GREATER, True),
        ((3, 4, 1), GREATER, False),
        ((3, 4, 1), LESSER, True),
        (None, GREATER, False),
        (None, LESSER, True),
    ],
)
def test_equal_times_are_decided_by_the_rule_of_the_peers_version(
    version: Any, theirs: Pid, keeps_ours: bool
) -> None:
    state = registry()
    state.register(b"n", A, 1, 100)
    state.handle_message(ack(), 0.0, 0)
    if version is not None:
        state.handle_version(PEER, version)
    effects = state.handle_message((V3, Atom("sync_register"), b"n", theirs, 2, 100, NORMAL), 0.0, 200)
    conflict = Atom("syn_conflict_resolution")
    if keeps_ours:
        assert sent(effects) == [(V3, Atom("sync_register"), b"n", A, 1, 200, conflict)]
        assert state.lookup(b"n") == (A, 1)
    else:
        assert fx.SendExit(A, (Atom("syn_resolve_kill"), b"n", 1)) in effects
        assert sent(effects) == [(V3, Atom("sync_unregister"), b"n", A, 1, conflict)]
        assert events(effects) == [
            ("unregistered", b"n", A, conflict),
            ("registered", b"n", theirs, conflict),
        ]
        assert state.lookup(b"n") == (theirs, 2)


def test_a_function_decides_conflicts_and_kills_nobody() -> None:
    chosen: list[Any] = []

    def resolve(scope: str, name: Any, remote: Any, local: Any) -> Pid:
        chosen.append((scope, name, remote, local))
        return remote[0]

    state = registry(resolve=resolve)
    state.register(b"n", A, 1, 100)
    state.handle_message(ack(), 0.0, 0)
    effects = state.handle_message((V3, Atom("sync_register"), b"n", X, 2, 50, NORMAL), 0.0, 200)
    assert chosen == [("s", b"n", (X, 2, 50), (A, 1, 100))]
    assert not any(isinstance(effect, fx.SendExit) for effect in effects)
    assert state.lookup(b"n") == (X, 2)


@pytest.mark.parametrize("answer", [None, THEM, ZeroDivisionError])
def test_a_function_that_chooses_neither_frees_the_name(answer: Any) -> None:
    def resolve(*_: Any) -> Any:
        if answer is ZeroDivisionError:
            raise ZeroDivisionError
        return answer

    state = registry(resolve=resolve)
    state.register(b"n", A, 1, 100)
    state.handle_message(ack(), 0.0, 0)
    effects = state.handle_message((V3, Atom("sync_register"), b"n", X, 2, 50, NORMAL), 0.0, 200)
    assert sent(effects) == []  # the other owner comes to the same result by itself
    assert not any(isinstance(effect, fx.SendExit) for effect in effects)
    assert state.lookup(b"n") is None


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


def test_a_name_hidden_by_a_later_one_is_asked_for_again_when_that_one_goes() -> None:
    other = Pid("other@h", 1, 0, 1)
    state = registry()
    state.handle_node_up("other@h")
    state.handle_message(ack((b"n", X, 1, 100)), 0.0, 0)
    state.handle_message(ack((b"n", other, 2, 200), pid=Pid("other@h", 9, 0, 1)), 0.0, 0)
    assert state.lookup(b"n") == (other, 2)
    effects = state.handle_node_down("other@h")
    assert sent(effects) == [(V3, Atom("discover"), SELF)]
    state.handle_message(ack((b"n", X, 1, 100)), 0.0, 0)
    assert state.lookup(b"n") == (X, 1)


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
