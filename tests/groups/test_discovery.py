"""The rules by which scope processes of other nodes are found, and noticed to be gone."""

from __future__ import annotations

from pyglyn.etf import Atom
from pyglyn.groups import effects as fx
from pyglyn.groups.discovery import LONGEST_PAUSE_S, PROMPT_ATTEMPTS, Discovery
from tests.groups.machines import (
    NOCONNECTION,
    NOPROC,
    PEER,
    THEM,
)


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
