"""Peers of a scope that ask for too much, or do not take what they get: the scope and the other nodes go on."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

from pyglyn.dist.control import RegSend
from pyglyn.etf import Atom, Pid, Reference, encode_parts
from pyglyn.groups import effects as fx
from pyglyn.groups import pg, syn
from pyglyn.groups.membership import Leaving, Membership
from pyglyn.groups.pg_state import MAX_OF_A_NODE, PgState
from pyglyn.groups.scope import AT_ONCE
from pyglyn.groups.syn_pg_state import SynGroups
from pyglyn.net import NetSettings
from pyglyn.node import Node, Settings
from pyglyn.testing import eventually
from tests.groups.conftest import unique_name
from tests.net.conftest import Recorder

OWN, PEER = "own@localhost", "peer@localhost"
SELF, THEM = Pid(OWN, 1, 0, 1), Pid(PEER, 1, 0, 1)
DISCOVER, SYNC, CAST, LEAVE = Atom("discover"), Atom("sync"), Atom("$gen_cast"), Atom("leave")


def pids(count: int, first: int = 2) -> list[Pid]:
    return [Pid(PEER, number, 0, 1) for number in range(first, first + count)]


def state(busy: set[str] | None = None) -> PgState:
    counter = iter(range(1, 1 << 40))
    slow = set() if busy is None else busy
    machine = PgState(SELF, "scope", lambda: Reference(OWN, 1, (next(counter), 0, 0)), slow.__contains__)
    machine.handle_node_up(PEER)
    machine.handle_message((DISCOVER, THEM), 0.0)
    return machine


def lines(action: Callable[[], Any]) -> int:
    """How many lines of Python a call runs."""
    count = 0

    def trace(frame: FrameType, event: str, arg: object) -> Any:
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        action()
    finally:
        sys.settrace(before)
    return count


def sent(effects: list[Any]) -> list[Any]:
    return [effect.message for effect in effects if type(effect) is fx.Send]


# --- what a message costs --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "shape", ["unknown groups", "one group again and again", "strangers", "one again and again"]
)
def test_a_leave_costs_what_it_names_and_not_pids_times_groups(shape: str) -> None:
    def make(size: int) -> Any:
        machine = state()
        there, named, groups = pids(size), pids(size), [b"g"] * size
        if shape == "unknown groups":
            groups = [*range(size)]
        elif shape == "strangers":
            named = pids(size, size + 10)
        elif shape == "one again and again":
            there = [*there, *[there[0]] * size]
        machine.handle_message((CAST, (SYNC, THEM, [(b"g", there)])), 0.0)
        return lambda: machine.handle_message((LEAVE, THEM, named, groups), 0.0)

    assert lines(make(400)) < 8 * lines(make(100))


def test_a_group_named_again_is_left_again() -> None:
    machine = state()
    a, b, c = pids(3)
    machine.handle_message((CAST, (SYNC, THEM, [(b"g", [a, a, a, b]), (b"h", [c])])), 0.0)
    ref, _, _ = machine.monitor_scope(SELF)
    told = sent(machine.handle_message((LEAVE, THEM, [b, a, c], [b"g", b"h", b"g", b"g", b"g"]), 0.0))
    assert told == [
        (ref, LEAVE, b"g", [b, a]),
        (ref, LEAVE, b"h", [c]),
        (ref, LEAVE, b"g", [a]),
        (ref, LEAVE, b"g", [a]),
    ]
    assert machine.which_groups() == []


def test_who_leaves_is_found_either_way_in_the_order_named() -> None:
    members = Membership()
    few, many = pids(3), pids(50)
    for pid in many:
        members.add("k", "k", pid)
    assert members.remove_each("k", Leaving([few[2], few[0], few[2]])) == [few[2], few[0]]
    assert members.remove_each("k", Leaving([*pids(60, 100), many[9], many[5], many[9]])) == [
        many[9],
        many[5],
    ]
    assert members.remove_each("other", Leaving(few)) == []


def test_who_subscribes_from_another_node_can_do_so_a_few_times() -> None:
    machine = state()
    call = (Atom("$gen_call"), (THEM, Atom("tag")), Atom("monitor"))
    refs = []
    for _ in range(MAX_OF_A_NODE):
        (answer,) = [each.reply for each in machine.handle_message(call, 0.0) if type(each) is fx.AnswerCall]
        refs.append(answer[0])
    refused = machine.handle_message(call, 0.0)
    assert [each.reply for each in refused if type(each) is fx.AnswerCall] == [
        (Atom("error"), Atom("badarg"))
    ]
    for _ in range(3 * MAX_OF_A_NODE):
        machine.monitor(SELF, b"g")
    assert machine.demonitor(refs[0])[0]
    machine.handle_message(call, 0.0)
    machine.handle_down(THEM, Atom("killed"), 0.0)
    assert machine._of_others == {OWN: 0} or not machine._of_others
    assert len(machine._subscribers) == 3 * MAX_OF_A_NODE


# --- a peer that does not take what it gets ---------------------------------------------------------


def test_a_peer_that_does_not_read_gets_one_sync_when_it_does() -> None:
    busy: set[str] = set()
    machine = state(busy)
    a = Pid(OWN, 7, 0, 1)
    assert sent(machine.join(b"before", a)) == [(Atom("join"), SELF, b"before", a)]
    busy.add(PEER)
    assert sent(machine.join(b"g", a)) == []
    for _ in range(100):
        assert sent(machine.handle_message((DISCOVER, THEM), 1.0)) == []
    assert sent(machine.leave(b"before", a)[1]) == []
    assert sent(machine.handle_timeout(2.0)) == []
    busy.clear()
    due = machine.next_deadline()
    assert due is not None
    assert sent(machine.handle_timeout(due)) == [(CAST, (SYNC, SELF, [(b"g", [a])]))]
    assert sent(machine.join(b"h", a)) == [(Atom("join"), SELF, b"h", a)]


def test_the_data_of_syn_are_sent_once_to_who_asks_often_and_does_not_read() -> None:
    busy = {PEER}
    machine = SynGroups(SELF, "s", is_busy=busy.__contains__)
    machine.handle_node_up(PEER)
    discover = (Atom("3.0"), DISCOVER, THEM)
    for _ in range(100):
        assert sent(machine.handle_message(discover, 1.0, 1)) == []
    due = machine.next_deadline()
    assert due is not None
    assert sent(machine.handle_timeout(due)) == []
    busy.clear()
    again = machine.next_deadline()
    assert again is not None
    assert again > due
    assert sent(machine.handle_timeout(again)) == [(Atom("3.0"), Atom("ack_sync"), SELF, [])]
    assert sent(machine.handle_timeout(again + 9)) == []


async def test_a_scope_goes_on_beside_a_peer_that_asks_and_does_not_read(epmd: object) -> None:
    settings = Settings(send_limit=16 * 1024 * 1024, net=NetSettings(busy_limit=64 * 1024))
    async with (
        Node(unique_name(), cookie="c", settings=settings) as node,
        Node(unique_name("other"), cookie="c") as other,
    ):
        scopes = [pg.start(node), syn.start(node, "s")]
        del scopes
        async with node.process() as me, other.process() as you:
            for number in range(1000):
                await pg.join(node, number, me.pid)
                await syn.join(node, "s", number, me.pid)
            deaf = Recorder(unique_name("deaf"), "c", True, None)
            await deaf.peers.start()
            await node.connect(deaf.name)
            await eventually(lambda: deaf.ups)
            theirs, ours = deaf.ups[0], node.hub.peers.get(deaf.name)
            assert ours is not None
            theirs.pause_reading()
            last = Atom("the last one")
            for _ in range(2000):  # with an answer of some 30 KB each
                for name, message in (
                    ("pg", (DISCOVER, deaf.pid())),
                    ("syn_pg_s", (Atom("3.0"), DISCOVER, deaf.pid())),
                ):
                    theirs.send(RegSend(deaf.pid(), Atom(name)), encode_parts(message))
            theirs.send(RegSend(deaf.pid(), Atom("pg")), encode_parts((Atom("join"), deaf.pid(), last, [])))
            pg.start(other)
            syn.start(other, "s")
            await other.connect(node.name)
            await eventually(lambda: len(pg.start(other).get_members(7)) == 1, timeout=30)
            await pg.join(other, b"theirs", you.pid)
            await syn.join(other, "s", b"theirs", you.pid)
            await eventually(lambda: pg.start(node).get_members(b"theirs") == [you.pid], timeout=30)
            await pg.join(node, b"late", me.pid)
            await eventually(lambda: pg.start(other).get_members(b"late") == [me.pid], timeout=30)
            assert ours.queued_bytes < 4 * 1024 * 1024
            assert node.peers.get(deaf.name) is ours
            await deaf.peers.stop()


async def test_a_peer_that_did_not_read_is_told_though_nobody_says_more_to_the_scope(epmd: object) -> None:
    async with Node(unique_name(), cookie="c") as node, Node(unique_name("other"), cookie="c") as other:
        scope, theirs = pg.start(node), pg.start(other)
        await node.connect(other.name)
        await eventually(
            lambda: scope.machine.nodes() == [other.name] and theirs.machine.nodes() == [node.name]
        )
        await eventually(lambda: scope.machine.next_deadline() is None)
        busy = {other.name}
        scope.machine._is_busy = busy.__contains__
        async with node.process() as me:
            scope.join(b"g", me.pid)
            busy.clear()
            await eventually(lambda: theirs.get_members(b"g") == [me.pid])


async def test_many_effects_of_one_message_let_others_have_their_turn() -> None:
    async with Node(unique_name(), cookie="c", settings=Settings(net=NetSettings(epmd_port=0))) as node:
        scope = pg.start(node)
        async with node.process() as me:
            scope.monitor_scope(me.pid)
            groups = [*range(5 * AT_ONCE)]
            for group in groups:
                scope.join(group, me.pid)
            assert me.message_queue_len == len(groups)
            for _ in groups:
                await me.receive()
            scope.perform([effect for group in groups for effect in scope.machine.leave(group, me.pid)[1]])
            await asyncio.sleep(0)
            assert me.message_queue_len == AT_ONCE
            scope.join(b"later", me.pid)
            await eventually(lambda: me.message_queue_len == len(groups) + 1)
            assert [(await me.receive())[2] for _ in range(len(groups) + 1)] == [*groups, b"later"]
