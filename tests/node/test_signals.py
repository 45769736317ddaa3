"""The rules for links, monitors and exits (Erlang Reference Manual, "Processes"; checked on OTP 25 and 28)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyglyn.dist.control import DemonitorP, Link, LinkExit, MonitorP, MonitorPExit, UnlinkId, UnlinkIdAck
from pyglyn.etf import Atom, Pid, Reference
from pyglyn.node.signals import Deliver, Die, Down, Emit, Signals, Ties, answer_for_the_dead, target_node

ME = Pid("py@localhost", 1, 0, 7)
OTHER = Pid("erl@localhost", 90, 0, 3)
REF = Reference("py@localhost", 7, (1, 0, 0))
BOOM = Atom("boom")
NORMAL, KILL, KILLED = Atom("normal"), Atom("kill"), Atom("killed")


def linked(trap_exit: bool = False) -> Signals:
    signals = Signals(ME)
    signals.trap_exit = trap_exit
    signals.on_link(OTHER)
    return signals


@pytest.mark.parametrize(
    ("reason", "plain", "trapping"),
    [
        (NORMAL, [], [Deliver((Atom("EXIT"), OTHER, NORMAL))]),
        (KILL, [Die(KILL)], [Deliver((Atom("EXIT"), OTHER, KILL))]),
        (KILLED, [Die(KILLED)], [Deliver((Atom("EXIT"), OTHER, KILLED))]),
        (BOOM, [Die(BOOM)], [Deliver((Atom("EXIT"), OTHER, BOOM))]),
    ],
)
def test_an_exit_signal_from_a_link(reason, plain, trapping):
    assert linked().on_exit(OTHER, reason) == plain
    assert linked(trap_exit=True).on_exit(OTHER, reason) == trapping


@pytest.mark.parametrize(
    ("reason", "plain", "trapping"),
    [
        (NORMAL, [], [Deliver((Atom("EXIT"), OTHER, NORMAL))]),
        (KILL, [Die(KILLED, at_once=True)], [Die(KILLED, at_once=True)]),
        (BOOM, [Die(BOOM)], [Deliver((Atom("EXIT"), OTHER, BOOM))]),
    ],
)
def test_an_exit_signal_sent_with_exit_2(reason, plain, trapping):
    assert Signals(ME).on_exit2(OTHER, reason) == plain
    signals = Signals(ME)
    signals.trap_exit = True
    assert signals.on_exit2(OTHER, reason) == trapping


def test_exit_normal_to_oneself_ends_the_process():
    assert Signals(ME).on_exit2(ME, NORMAL) == [Die(NORMAL)]


def test_an_exit_without_a_link_has_no_effect():
    assert Signals(ME).on_exit(OTHER, BOOM) == []


def test_a_link_is_asked_for_once():
    signals = Signals(ME)
    assert signals.link(OTHER) == [Emit(Link(ME, OTHER))]
    assert signals.link(OTHER) == []
    assert signals.link(ME) == []


def test_an_unlinked_process_is_deaf_to_the_exit_that_crosses_the_unlink():
    signals = linked()
    assert signals.unlink(OTHER) == [Emit(UnlinkId(1, ME, OTHER))]
    assert signals.on_exit(OTHER, BOOM) == []
    assert OTHER not in signals.links


def test_a_link_made_anew_before_the_late_acknowledgement_stays():
    signals = linked()
    signals.unlink(OTHER)
    assert signals.link(OTHER) == [Emit(Link(ME, OTHER))]
    signals.on_unlink_ack(OTHER, 1)
    assert signals.on_exit(OTHER, BOOM) == [Die(BOOM)]


def test_a_link_that_crosses_our_unlink_is_ignored():
    signals = linked()
    signals.unlink(OTHER)
    signals.on_link(OTHER)
    signals.on_unlink_ack(OTHER, 1)
    assert OTHER not in signals.links


def test_every_unlink_id_is_acknowledged_also_without_a_link():
    assert Signals(ME).on_unlink_id(OTHER, 5) == [Emit(UnlinkIdAck(5, ME, OTHER))]
    signals = linked()
    assert signals.on_unlink_id(OTHER, 6) == [Emit(UnlinkIdAck(6, ME, OTHER))]
    assert OTHER not in signals.links


def test_a_down_names_what_was_monitored():
    signals = Signals(ME)
    assert signals.monitor(REF, (Atom("stock"), "erl@localhost")) == [
        Emit(MonitorP(ME, Atom("stock"), REF), node="erl@localhost")
    ]
    item = (Atom("stock"), Atom("erl@localhost"))
    message = (Atom("DOWN"), REF, Atom("process"), item, BOOM)
    assert signals.on_down(REF, BOOM) == [Down(REF, BOOM, message)]
    assert signals.on_down(REF, BOOM) == []


def test_a_demonitor_of_somebody_else_is_ignored():
    signals = Signals(ME)
    signals.on_monitor(OTHER, ME, REF)
    signals.on_demonitor(Pid("x@localhost", 1, 0, 1), REF)
    assert REF in signals.watchers
    signals.on_demonitor(OTHER, REF)
    assert REF not in signals.watchers


def test_a_lost_node_ends_its_links_and_monitors_with_noconnection():
    signals = linked(trap_exit=True)
    signals.monitor(REF, OTHER)
    signals.on_monitor(OTHER, ME, Reference("erl@localhost", 3, (1, 2, 3)))
    noconnection = Atom("noconnection")
    assert signals.on_node_down("erl@localhost") == [
        Deliver((Atom("EXIT"), OTHER, noconnection)),
        Down(REF, noconnection, (Atom("DOWN"), REF, Atom("process"), OTHER, noconnection)),
    ]
    assert signals.watchers == {}
    assert signals.on_node_down("erl@localhost") == []


def test_the_end_of_a_process_tells_links_and_watchers_and_gives_up_its_monitors():
    signals = linked()
    peer_ref = Reference("erl@localhost", 3, (1, 2, 3))
    signals.on_monitor(OTHER, Atom("me"), peer_ref)
    signals.monitor(REF, OTHER)
    assert [*signals.on_own_end(BOOM)] == [
        Emit(LinkExit(ME, OTHER), BOOM),
        Emit(MonitorPExit(Atom("me"), OTHER, peer_ref), BOOM),
        Emit(DemonitorP(ME, OTHER, REF)),
    ]


def test_a_link_that_is_being_removed_gets_no_exit_when_the_process_ends():
    """The other end may have removed its side already; it would take the EXIT for one of a newer link."""
    signals = linked()
    still = Pid("erl@localhost", 91, 0, 3)
    signals.on_link(still)
    signals.unlink(OTHER)
    assert [*signals.on_own_end(BOOM)] == [Emit(LinkExit(ME, still), BOOM)]


def test_an_acknowledgement_counts_for_its_sender_and_its_number_alone():
    signals = linked()
    another = Pid("erl@localhost", 91, 0, 3)
    signals.on_link(another)
    signals.unlink(OTHER)
    signals.unlink(another)
    for sender, number in ((OTHER, 2), (another, 1), (Pid("x@localhost", 90, 0, 3), 1), (OTHER, 0)):
        signals.on_unlink_ack(sender, number)
        assert signals.links == {OTHER: 1, another: 2}
    signals.on_unlink_ack(another, 2)
    assert signals.links == {OTHER: 1}
    signals.on_unlink_ack(OTHER, 1)
    assert signals.links == {}


def test_an_acknowledgement_without_an_unlink_leaves_an_active_link():
    signals = linked()
    signals.on_unlink_ack(OTHER, 0)
    assert signals.links == {OTHER: 0}


def test_the_dead_answer_links_and_monitors_with_noproc():
    noproc = Atom("noproc")
    assert answer_for_the_dead(Link(OTHER, ME)) == [Emit(LinkExit(ME, OTHER), noproc)]
    assert answer_for_the_dead(MonitorP(OTHER, ME, REF)) == [Emit(MonitorPExit(ME, OTHER, REF), noproc)]
    assert answer_for_the_dead(UnlinkId(1, OTHER, ME)) == [Emit(UnlinkIdAck(1, ME, OTHER))]
    assert answer_for_the_dead(LinkExit(OTHER, ME)) == []


NODES = ["py@localhost", "a@h", "b@h"]
STEPS = ["link", "unlink", "monitor", "name", "spawn", "linked", "watched", "exit", "down", "node down"]


@given(
    script=st.lists(
        st.tuples(st.sampled_from(STEPS), st.integers(0, 2), st.sampled_from(NODES), st.integers(1, 2))
    )
)
def test_who_has_something_with_a_node_is_found_when_it_goes(script: list[tuple[str, int, str, int]]) -> None:
    """Whatever came before; and with the end of a process it is forgotten."""
    ties = Ties()
    every = [Signals(Pid("py@localhost", number, 0, 7), ties) for number in range(3)]
    for count, (step, which, node, other) in enumerate(script):
        signals, there, ref = (
            every[which],
            Pid(node, other + 10, 0, 1),
            Reference("py@localhost", 7, (count, 0, 0)),
        )
        match step:
            case "link":
                signals.link(there)
            case "unlink":
                signals.unlink(there)
            case "monitor":
                signals.monitor(ref, there)
            case "name":
                signals.monitor(ref, (Atom("shop"), node))
            case "spawn":
                signals.expect_down(ref, (Atom("erpc"), node))
            case "linked":
                signals.on_link(there)
            case "watched":
                signals.on_monitor(there, signals.pid, ref)
            case "exit":
                signals.on_exit(there, BOOM)
            case "down":
                for known in list(signals.monitors):
                    signals.on_down(known, BOOM)
            case "node down" if node != "py@localhost":
                found = ties.take(node)
                for each in every:
                    assert each.pid.id in found or not has_something(each, node)
                    if each.pid.id in found:
                        each.on_node_down(node)
    for signals in every:
        signals.on_own_end(NORMAL)
    assert [ties.take(node) for node in NODES] == [[], [], []]


def has_something(signals: Signals, node: str) -> bool:
    """Whether a node that goes ends anything for a process."""
    ends = [*signals.links, *(watcher for watcher, _ in signals.watchers.values())]
    return any(pid.node == node for pid in ends) or node in map(target_node, signals.monitors.values())
