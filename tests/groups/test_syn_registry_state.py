"""The rules of syn's registry."""

from __future__ import annotations

from typing import Any

import pytest

from pyglyn.etf import Atom, Pid
from pyglyn.groups import effects as fx
from tests.groups.machines import (
    NORMAL,
    PEER,
    SELF,
    THEM,
    UNDEFINED,
    V3,
    A,
    X,
    ack,
    events,
    registry,
    sent,
)


def test_an_update_of_a_name_by_its_process_counts_whatever_its_time() -> None:
    state = registry()
    state.handle_message(ack((b"n", X, 1, 100)), 0.0, 0)
    state.handle_message((V3, Atom("sync_register"), b"n", X, 2, 50, NORMAL), 0.0, 0)
    assert state.lookup(b"n") == (X, 2)


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
