"""The processes of one OS process and the way signals take between them, without a node around it."""

from __future__ import annotations

import asyncio
import itertools
import logging
import threading
from typing import Any

import pytest

from pyglyn.dist.control import (
    AliasSend,
    Altact,
    AltactSend,
    DemonitorP,
    Exit2,
    GroupLeader,
    Link,
    LinkExit,
    MonitorP,
    MonitorPExit,
    RegSend,
    Send,
    SpawnFlags,
    SpawnReply,
    SpawnRequest,
    UnlinkId,
    UnlinkIdAck,
)
from pyglyn.errors import NameTaken, ProcessError, WrongThread
from pyglyn.etf import Atom, Limits, Pid, Reference
from pyglyn.node import GenServer, Process
from pyglyn.node.runtime import MAX_PID_ID
from tests.node.runtimes import CREATION, NOCONNECTION, NODE, NOPROC, NORMAL, PEER, REF, THEM, mailbox, noted

BOOM = Atom("boom")


# --- identities -------------------------------------------------------------------------------------------


async def test_pids_and_references_say_which_runtime_made_them() -> None:
    runtime = noted(serial=3).runtime
    assert runtime.make_pid() == Pid(NODE, 1, 3, CREATION)
    assert runtime.make_ref() == Reference(NODE, CREATION, (1, 0, 3))
    runtime._next_ref = 0x3FFFF
    assert runtime.make_ref().words == (0, 1, 3)
    assert runtime.is_here(runtime.make_pid())
    assert runtime.is_here(runtime.make_ref())
    for other in (Pid(NODE, 1, 2, CREATION), Pid(NODE, 1, 3, CREATION + 1), Pid(PEER, 1, 3, CREATION)):
        assert not runtime.is_here(other)
    assert not runtime.is_here(Reference(NODE, CREATION, (1, 0, 0)))


async def test_numbers_of_pids_begin_anew_and_pass_over_those_that_live() -> None:
    here = noted()
    first = here.process()
    here.runtime._next_id = MAX_PID_ID - 2
    assert here.runtime.make_pid().id == MAX_PID_ID - 1
    assert here.runtime.make_pid().id == first.pid.id + 1


# --- messages ---------------------------------------------------------------------------------------------


async def test_a_message_between_processes_here_is_a_term_at_once_and_leaves_nothing_behind() -> None:
    here = noted()
    me, other = here.process(), here.process("other")
    alias = other.alias()
    for to in (other.pid, "other", Atom("other"), ("other", NODE), alias):
        me.send(to, ["text", ("and", b"more")])
    assert mailbox(other) == [[b"text", (b"and", b"more")]] * 5
    assert here.out == []


async def test_a_message_for_elsewhere_leaves_with_the_node_it_is_for() -> None:
    here = noted()
    me = here.process()
    worker = Pid(NODE, 4, 2, CREATION)
    me.send(worker, 1)
    me.send(THEM, 2)
    me.send(("shop", PEER), 3)
    me.send(REF, 4)
    assert here.take() == [
        (Send(me.pid, worker), 1, NODE),
        (Send(me.pid, THEM), 2, PEER),
        (RegSend(me.pid, Atom("shop")), 3, PEER),
        (AliasSend(me.pid, REF), 4, PEER),
    ]


@pytest.mark.parametrize("serial", [0, 1])
async def test_a_name_that_is_not_here_is_nobodys_in_the_hub_and_the_hubs_business_in_a_worker(
    serial: int,
) -> None:
    here = noted(serial)
    me = here.process()
    me.send("nobody", 1)
    ref = me.monitor("nobody")
    if serial:
        [(sent, body, to), (monitor, _, _)] = here.take()
        assert (sent, body, to) == (RegSend(me.pid, Atom("nobody")), 1, NODE)
        assert monitor == MonitorP(me.pid, Atom("nobody"), ref)
    else:
        assert here.out == []
        assert mailbox(me) == [(Atom("DOWN"), ref, Atom("process"), (Atom("nobody"), Atom(NODE)), NOPROC)]


async def test_what_a_signal_causes_comes_behind_it_and_nothing_recurses() -> None:
    """A chain of links far longer than Python's stack, ended from one end."""
    here = noted()
    chain = [here.process() for _ in range(5000)]
    for one, next_one in itertools.pairwise(chain):
        one.link(next_one.pid)
    order: list[int] = []
    for process in chain:
        process.on_end.append(lambda _, id=process.pid.id: order.append(id))  # type: ignore[misc]
    here.receive(Exit2(THEM, chain[0].pid), BOOM)
    assert order == [process.pid.id for process in chain]
    assert here.runtime.processes == {}
    assert chain[-1].exit_reason == BOOM


async def test_a_signal_from_outside_cannot_come_while_one_is_handled() -> None:
    here = noted()
    me = here.process()

    def callback(reason: Any) -> None:
        here.receive(Send(THEM, me.pid), 1)

    other = here.process()
    other.on_end.append(callback)
    with pytest.raises(RuntimeError, match="while one is being handled"):
        here.receive(Exit2(THEM, other.pid), BOOM)
    here.receive(Send(THEM, me.pid), 2)  # and the next one is handled
    assert mailbox(me) == [2]


# --- names ------------------------------------------------------------------------------------------------


async def test_a_name_is_one_live_processs_and_free_when_that_ends() -> None:
    here = noted()
    freed: list[tuple[str, Pid]] = []
    here.runtime.on_unregistered = lambda name, pid: freed.append((name, pid))
    me, other = here.process("shop"), here.process()
    with pytest.raises(NameTaken, match="is registered by"):
        here.runtime.register("shop", other.pid)
    with pytest.raises(NameTaken, match="undefined"):
        here.runtime.register("undefined", other.pid)
    with pytest.raises(ValueError, match="255"):
        here.runtime.register("x" * 256, other.pid)
    assert await here.runtime.find_name("shop") == me.pid
    me.end()
    assert await here.runtime.find_name("shop") is None
    assert freed == [("shop", me.pid)]
    for gone in (me.pid, THEM):
        with pytest.raises(ProcessError, match="not a live process here"):
            here.runtime.register("shop", gone)
    here.runtime.register("shop", other.pid)
    here.runtime.unregister("shop")
    here.runtime.unregister("shop")
    assert freed == [("shop", me.pid), ("shop", other.pid)]
    assert list(other.names) == []


async def test_a_process_whose_name_is_taken_does_not_start() -> None:
    here = noted()
    here.process("shop")
    with pytest.raises(NameTaken):
        here.runtime.spawn(asyncio.sleep, (0,), name="shop")
    assert len(here.runtime.processes) == 1


def plain(me: Process) -> int:
    return 5


async def test_a_process_of_a_function_that_is_not_async_says_so_and_one_of_no_function_does_not_start(
    caplog: pytest.LogCaptureFixture,
) -> None:
    here = noted()
    with pytest.raises(
        TypeError, match=r"started by its function: spawn\(sleep, …\) instead of spawn\(sleep\("
    ):
        here.runtime.spawn(asyncio.sleep(0))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="a process is an async function, and no int"):
        here.runtime.spawn(5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"a GenServer is started by await node\.start\(GenServer, …\)"):
        here.runtime.spawn(GenServer)  # type: ignore[arg-type]
    assert here.runtime.processes == {}
    process = here.runtime.spawn(plain)  # type: ignore[arg-type]
    assert process.task is not None
    await asyncio.wait([process.task])
    assert "TypeError: plain is no async function: it has run, and returned int" in caplog.text


# --- monitors by name -------------------------------------------------------------------------------------


async def test_a_monitor_by_name_stays_with_the_process_that_had_the_name_then() -> None:
    here = noted()
    first = here.process("shop")
    here.receive(MonitorP(THEM, Atom("shop"), REF))
    here.runtime.unregister("shop")
    second = here.process("shop")
    second.end(BOOM)
    assert here.out == []
    first.end(BOOM)
    assert here.take() == [(MonitorPExit(Atom("shop"), THEM, REF), BOOM, PEER)]


async def test_a_monitor_by_name_is_removed_by_its_watcher_alone_whoever_has_the_name_now() -> None:
    here = noted()
    first = here.process("shop")
    here.receive(MonitorP(THEM, Atom("shop"), REF))
    here.runtime.unregister("shop")
    here.process("shop")
    stranger = Pid(PEER, 91, 0, 3)
    here.receive(DemonitorP(stranger, Atom("shop"), REF))
    assert REF in first.signals.watchers
    here.receive(DemonitorP(THEM, Atom("shop"), REF))
    assert REF not in first.signals.watchers
    here.receive(DemonitorP(THEM, Atom("shop"), REF))
    assert here.runtime._named_monitors == {}
    assert here.out == []


async def test_nothing_is_kept_of_a_monitor_by_name_that_fired_or_whose_watcher_is_cut_off() -> None:
    here = noted()
    shop = here.process("shop")
    here.receive(MonitorP(THEM, Atom("shop"), REF))
    here.runtime.node_down("another@h")
    assert REF in here.runtime._named_monitors
    here.runtime.node_down(PEER)
    assert here.runtime._named_monitors == {}
    here.receive(MonitorP(THEM, Atom("shop"), REF))
    shop.end()
    assert here.runtime._named_monitors == {}


@pytest.mark.parametrize("again", [MonitorP, DemonitorP])
async def test_nothing_is_kept_of_a_monitor_that_a_peer_names_by_name_and_then_by_pid(again: Any) -> None:
    """No BEAM does that; one that does would have the table grow for good."""
    here = noted()
    shop = here.process("shop")
    for number in range(3):
        ref = Reference(PEER, 3, (number, 0, 0))
        here.receive(MonitorP(THEM, Atom("shop"), ref))
        here.receive(again(THEM, shop.pid, ref))
    shop.end()
    here.runtime.node_down(PEER)
    assert here.runtime._named_monitors == {}


# --- signals from outside ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "who", [Pid(NODE, 99, 0, CREATION), Pid(NODE, 1, 0, CREATION + 1), Pid(NODE, 1, 5, CREATION)]
)
async def test_the_dead_and_those_of_another_life_answer_with_noproc(who: Pid) -> None:
    here = noted()
    here.process()
    here.receive(Link(THEM, who))
    here.receive(MonitorP(THEM, who, REF))
    here.receive(UnlinkId(5, THEM, who))
    for silent in (Send(THEM, who), Exit2(THEM, who), GroupLeader(THEM, who)):
        here.receive(silent, 1)
    assert here.take() == [
        (LinkExit(who, THEM), NOPROC, PEER),
        (MonitorPExit(who, THEM, REF), NOPROC, PEER),
        (UnlinkIdAck(5, who, THEM), None, PEER),
    ]


async def test_links_and_monitors_of_a_peer_are_answered_by_the_end_of_the_process() -> None:
    here = noted()
    me = here.process()
    here.receive(Link(THEM, me.pid))
    here.receive(MonitorP(THEM, me.pid, REF))
    me.end("boom")
    assert [(type(control), body) for control, body, _ in here.take()] == [
        (LinkExit, BOOM),
        (MonitorPExit, BOOM),
    ]


async def test_what_a_peer_removed_does_not_tell_it_any_more() -> None:
    here = noted()
    me = here.process()
    here.receive(Link(THEM, me.pid))
    here.receive(MonitorP(THEM, me.pid, REF))
    here.receive(UnlinkId(5, THEM, me.pid))
    here.receive(DemonitorP(THEM, me.pid, REF))
    me.end("boom")
    assert here.take() == [(UnlinkIdAck(5, me.pid, THEM), None, PEER)]


async def test_a_message_that_does_not_decode_is_dropped_counted_and_logged_without_what_is_in_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    here = noted(limits=Limits(depth=3))
    me = here.process()
    deep: Any = b"secret"
    for _ in range(9):
        deep = [deep]
    here.receive(Send(THEM, me.pid), deep)
    here.receive(Send(THEM, me.pid), 1)
    assert mailbox(me) == [1]
    assert here.runtime.refused == 1
    assert "dropped a message: its term does not decode" in caplog.text
    assert "secret" not in caplog.text


async def test_a_reason_that_does_not_decode_is_replaced_and_the_signal_still_acts() -> None:
    here = noted(limits=Limits(depth=3))
    me = here.process()
    deep: Any = 1
    for _ in range(9):
        deep = [deep]
    here.receive(Exit2(THEM, me.pid), deep)
    assert not me.alive
    assert isinstance(me.exit_reason, tuple)
    assert me.exit_reason[0] is Atom("undecodable")
    assert here.runtime.refused == 1


async def test_an_answer_that_does_not_decode_fails_the_call_that_waits_for_it() -> None:
    here = noted(limits=Limits(depth=3))
    me = here.process()
    ref, future = me.expect_reply(THEM)
    deep: Any = 1
    for _ in range(9):
        deep = [deep]
    here.receive(AliasSend(THEM, ref), deep)
    answered, reason = future.result()
    assert not answered
    assert reason[0] is Atom("undecodable")


async def test_a_message_to_an_alias_that_is_none_any_more_is_dropped() -> None:
    here = noted()
    me = here.process()
    alias = me.alias()
    here.receive(AliasSend(THEM, alias), 1)
    assert me.unalias(alias)
    assert not me.unalias(alias)
    here.receive(AliasSend(THEM, alias), 2)
    assert mailbox(me) == [1]
    dying = here.process()
    alias = dying.alias()
    dying.end()
    here.receive(AliasSend(THEM, alias), 3)
    assert here.runtime.aliases == {}
    assert here.out == []


async def test_an_altact_send_is_a_message_or_an_exit_signal_by_its_bits() -> None:
    here = noted()
    by_pid, by_alias = here.process(), here.process()
    alias = by_alias.alias()
    for to, process in ((by_pid.pid, by_pid), (alias, by_alias)):
        here.receive(AltactSend(Altact(0), THEM, to), BOOM)
        assert (mailbox(process), process.alive) == ([BOOM], True)
        here.receive(AltactSend(Altact.EXIT, THEM, to), BOOM)
        assert (process.exit_reason, process.alive) == (BOOM, False)


async def test_a_group_leader_is_set_from_outside() -> None:
    here = noted()
    me = here.process()
    here.receive(GroupLeader(THEM, me.pid))
    assert me.group_leader == THEM
    me.set_group_leader(me.pid, me.pid)
    assert me.group_leader == me.pid


async def test_the_answer_to_a_spawn_request_is_taken_even_if_who_asked_has_ended() -> None:
    here = noted()
    answers: list[SpawnReply] = []
    for ends in (False, True):
        me = here.process()
        here.runtime.spawn_replies[REF] = (PEER, answers.append)
        if ends:
            me.end()
        reply = SpawnReply(REF, me.pid, SpawnFlags(0), THEM)
        here.receive(reply)
        here.receive(reply)
        assert answers == [reply]
        answers.clear()
    assert here.out == []


async def test_a_spawn_request_leaves_for_its_node_and_without_one_for_this_one() -> None:
    here = noted()
    me = here.process()
    request = SpawnRequest(REF, me.pid, me.pid, (Atom("m"), Atom("f"), 1), [])
    here.runtime.send(request, [1], PEER)
    here.runtime.send(request, [2])
    assert here.take() == [(request, [1], PEER), (request, [2], NODE)]


# --- the end of a connection, and of all ------------------------------------------------------------------


async def test_with_its_connection_end_links_monitors_and_requests_across_it() -> None:
    here = noted()
    linked, watching, elsewhere = here.process(), here.process(), here.process()
    linked.link(THEM)
    ref = watching.monitor(THEM)
    elsewhere.link(Pid("another@h", 1, 0, 1))
    here.runtime.spawn_replies[REF] = (PEER, lambda reply: None)
    here.take()
    here.runtime.node_down(PEER)
    assert linked.exit_reason is NOCONNECTION
    assert mailbox(watching) == [(Atom("DOWN"), ref, Atom("process"), THEM, NOCONNECTION)]
    assert here.runtime.spawn_replies == {}
    assert elsewhere.alive
    assert here.out == []


async def test_at_the_end_every_process_is_gone_with_that_reason_also_one_that_waits() -> None:
    here = noted()
    waits = here.runtime.spawn(lambda me: me.receive())
    attached = here.process()
    await asyncio.sleep(0)
    here.runtime.kill_all(BOOM)
    assert here.runtime.processes == {}
    assert (waits.exit_reason, attached.exit_reason) == (BOOM, BOOM)


async def test_the_end_of_a_process_is_told_once() -> None:
    here = noted()
    me, other = here.process(), here.process()
    ref = other.monitor(me.pid)
    me.end()
    here.runtime.ended(me, BOOM)
    assert mailbox(other) == [(Atom("DOWN"), ref, Atom("process"), me.pid, NORMAL)]


async def test_another_thread_is_refused_what_belongs_to_this_one() -> None:
    here = noted()
    refused: list[str] = []

    def elsewhere() -> None:
        for what in (here.runtime.make_ref, here.process, lambda: here.runtime.spawn(_nothing)):
            try:
                what()
            except WrongThread:
                refused.append("refused")

    thread = threading.Thread(target=elsewhere)
    thread.start()
    await asyncio.to_thread(thread.join)
    assert refused == ["refused"] * 3
    assert here.runtime.processes == {}


async def _nothing(me: Process) -> None:
    pass


async def test_a_term_that_cannot_leave_is_an_error_of_its_sender(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    here = noted()
    me = here.process()
    with pytest.raises(Exception, match="object"):
        me.send(THEM, object())  # type: ignore[arg-type]
    me.send(THEM, 1)
    assert [body for _, body, _ in here.take()] == [1]
