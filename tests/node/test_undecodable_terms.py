"""What goes beyond a limit: signals arrive with a reason that says so, calls fail at once, messages are counted."""

from __future__ import annotations

from typing import Any

import pytest

from pyglyn.errors import CallFailed, PyglynError
from pyglyn.etf import Atom, Pid, Term
from pyglyn.node import Node, Process
from pyglyn.supervision import Supervisor, start, worker
from pyglyn.testing import Beam, eventually

DEEP = "Deep = lists:foldl(fun(_, A) -> [A] end, [], lists:seq(1, 20000)),"


def is_undecodable(reason: Any) -> bool:
    return isinstance(reason, tuple) and reason[0] is Atom("undecodable") and b"nested deeper" in reason[1]


async def test_an_exit_and_a_down_with_a_reason_beyond_the_limits_arrive(beam: Beam, node: Node) -> None:
    pid = await beam.eval(f"spawn(fun() -> receive go -> {DEEP} exit(Deep) end end)")
    async with node.process() as me:
        me.trap_exit = True
        me.link(pid)
        ref = me.monitor(pid)
        me.send(pid, Atom("go"))
        messages: list[Any] = [await me.receive(timeout=60) for _ in range(2)]
        [ended] = [m for m in messages if m[0] is Atom("EXIT")]
        [down] = [m for m in messages if m[0] is Atom("DOWN")]
        assert is_undecodable(ended[2])
        assert down[1] == ref
        assert is_undecodable(down[4])
    assert node.runtime.refused >= 2


async def test_exit_2_with_a_reason_beyond_the_limits_ends_the_process(beam: Beam, node: Node) -> None:
    async def waiting(me: Process) -> None:
        await me.receive()

    pid = node.spawn(waiting)
    seen = await beam.eval(
        f"{DEEP} Ref = monitor(process, Pid), exit(Pid, Deep), "
        "receive {'DOWN', Ref, process, Pid, R} -> R after 10000 -> none end",
        Pid=pid,
    )
    assert is_undecodable(seen)


SERVER = """
Loop = fun(Loop) -> receive {'$gen_call', From, _} -> gen_server:reply(From, Deep), Loop(Loop) end end,
spawn(fun() -> Loop(Loop) end)
"""


async def test_a_call_whose_answer_goes_beyond_the_limits_fails_at_once(beam: Beam, node: Node) -> None:
    pid = await beam.eval(DEEP + SERVER)
    async with node.process() as me:
        with pytest.raises(CallFailed) as failed:
            await me.call(pid, Atom("get"), timeout=None)
        assert is_undecodable(failed.value.reason)


async def test_a_remote_function_whose_result_goes_beyond_the_limits_fails_at_once(
    beam: Beam, node: Node
) -> None:
    with pytest.raises(PyglynError, match="nested deeper"):
        await node.erpc(beam.name, "lists", "foldl", [await nesting(beam), [], list(range(20_000))], None)


async def nesting(beam: Beam) -> Term:
    return await beam.eval("fun erlang:'++'/2") if False else await beam.eval("fun(_, A) -> [A] end")


async def test_a_message_beyond_the_limits_is_dropped_when_its_turn_comes(beam: Beam, node: Node) -> None:
    async with node.process() as me:
        await beam.eval(f"{DEEP} Pid ! Deep, Pid ! after_it, ok", Pid=me.pid)
        await eventually(lambda: me.message_queue_len == 2)
        assert node.runtime.refused == 0
        assert await me.receive(timeout=60) is Atom("after_it")
        assert node.runtime.refused == 1
        assert me.message_queue_len == 0


async def test_only_answers_that_somebody_waits_for_are_decoded_at_once(beam: Beam, node: Node) -> None:
    """A late reply, and a message that begins like one, wait encoded like any other."""
    async with node.process() as me:
        ref, answer = me.expect_reply(me.pid)
        await beam.eval(
            f"{DEEP} Pid ! {{make_ref(), Deep}}, Pid ! {{[alias|make_ref()], Deep}}, Pid ! {{[alias|Ref], yes}}, "
            "Pid ! {[alias|Ref], Deep}, ok",
            Pid=me.pid,
            Ref=ref,
        )
        assert await answer == (True, Atom("yes"))
        me.forget_reply(ref)
        await eventually(lambda: me.message_queue_len == 3)
        assert node.runtime.refused == 0


async def waits(me: Process) -> None:
    while True:
        message = await me.receive()
        if message is Atom("stop"):
            return


async def test_a_process_of_a_worker_is_ended_as_well(beam: Beam, node: Node) -> None:
    await start(node, Supervisor().add(worker(waits, name="waits", restart="temporary")))
    pid = await eventually(lambda: node.whereis("waits"))
    assert isinstance(pid, Pid)
    seen = await beam.eval(
        f"{DEEP} Ref = monitor(process, Pid), exit(Pid, Deep), "
        "receive {'DOWN', Ref, process, Pid, R} -> R after 10000 -> none end",
        Pid=pid,
    )
    assert is_undecodable(seen)
