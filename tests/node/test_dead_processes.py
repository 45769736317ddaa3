"""A process that has ended is silent, whatever its body still does."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import Any

import pytest

from pyglyn.etf import Atom
from pyglyn.node import Exit, Node, Process
from pyglyn.testing import Beam, eventually

ACTS: dict[str, Callable[[Process, Any], Any]] = {
    "send": lambda me, to: me.send(to, "late"),
    "send by name": lambda me, to: me.send("somebody", "late"),
    "cast": lambda me, to: me.cast(to, "late"),
    "call": lambda me, to: me.call(to, "late"),
    "link": lambda me, to: me.link(to),
    "unlink": lambda me, to: me.unlink(to),
    "monitor": lambda me, to: me.monitor(to),
    "demonitor": lambda me, to: me.demonitor(me.make_ref()),
    "exit": lambda me, to: me.exit(to, "late"),
    "set_group_leader": lambda me, to: me.set_group_leader(me.pid, to),
    "alias": lambda me, to: me.alias(),
    "unalias": lambda me, to: me.unalias(me.make_ref()),
    "send_after": lambda me, to: me.send_after(0.0, to, "late"),
    "spawn": lambda me, to: me.spawn(asyncio.sleep),
    "spawn_link": lambda me, to: me.spawn_link(asyncio.sleep),
    "spawn_monitor": lambda me, to: me.spawn_monitor(asyncio.sleep),
    "register": lambda me, to: me.register("late"),
    "unregister": lambda me, to: me.unregister("late"),
    "whereis": lambda me, to: me.whereis("late"),
    "receive": lambda me, to: me.receive(),
    "receive_as": lambda me, to: me.receive_as(None),  # type: ignore[arg-type]
    "drain": lambda me, to: me.drain(),
    "expect_reply": lambda me, to: me.expect_reply(to),
}

HARMLESS = {
    "cancel_timer", "checkpoint", "die", "down", "end", "forget_reply", "interrupt", "make_ref", "put",
    "put_encoded", "put_many_encoded", "put_signal", "ready",
    "start", "tell_parent",
}  # fmt: skip
"""Methods that send nothing, or only through `send`, or are the runtime's."""


def test_every_method_is_in_the_table() -> None:
    methods = {
        name for name, each in inspect.getmembers(Process, inspect.isfunction) if not name.startswith("_")
    }
    assert methods == {name.split()[0] for name in ACTS} | HARMLESS


@pytest.mark.parametrize("act", ACTS)
async def test_after_a_kill_nothing_more_is_done(act: str, beam: Beam, node: Node) -> None:
    seen: list[object] = []

    async def body(me: Process, to: Any) -> None:
        try:
            await me.receive()
        finally:
            try:
                result = ACTS[act](me, to)
                if inspect.isawaitable(result):
                    await result
                seen.append("done")
            except Exit as ended:
                seen.append(ended.reason)

    listener = await beam.eval("spawn(fun() -> receive never -> ok end end)")
    pid = node.spawn(body, listener)
    await asyncio.sleep(0)
    down = await beam.eval(
        "Ref = monitor(process, Pid), exit(Pid, kill), "
        "receive {'DOWN', Ref, process, Pid, R} -> R after 10000 -> none end",
        Pid=pid,
    )
    assert down == Atom("killed")
    await eventually(lambda: seen)
    assert seen == [Atom("killed")]
    asked = "[element(2, process_info(L, I)) || I <- [message_queue_len, links, monitored_by]]"
    assert await beam.eval(asked, L=listener) == [0, [], []]


@pytest.mark.parametrize("chosen", [{"last_words_s": 0.05}], ids=["soon"])
async def test_a_body_that_swallows_the_end_is_silent_once_its_time_is_over(beam: Beam, node: Node) -> None:
    said: list[object] = []
    done = asyncio.Event()

    async def body(me: Process, to: Any) -> None:
        while not done.is_set():
            try:
                await done.wait()
            except asyncio.CancelledError:
                continue
        try:
            me.link(to)
        except Exit as ended:
            said.append(ended.reason)

    listener = await beam.eval("spawn(fun() -> receive never -> ok end end)")
    pid = node.spawn(body, listener)
    await asyncio.sleep(0)
    down = await beam.eval(
        "Ref = monitor(process, Pid), exit(Pid, enough), "
        "receive {'DOWN', Ref, process, Pid, R} -> R after 10000 -> none end",
        Pid=pid,
    )
    done.set()
    assert down == Atom("enough")
    await eventually(lambda: said)
    assert said == [Atom("enough")]
    assert await beam.eval("process_info(L, links)", L=listener) == (Atom("links"), [])
