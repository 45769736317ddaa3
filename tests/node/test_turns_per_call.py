"""How often the event loop turns for one message: each turn is a poll of the sockets, the dearest thing in it.

Counted with real peers that wait for each answer before they ask again, so that nothing is shared between calls.
How many pieces a question comes in is the peer's affair (a BEAM writes a call's monitor and its message at once, or
not), so what counts are the turns in which nothing came: those that this package makes of its own accord.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from pyglyn import loop_turn
from pyglyn.dist.control import Send
from pyglyn.etf import Atom, Pid, Term, encode_bare
from pyglyn.node import Caller, GenServer, Node, Process
from pyglyn.supervision import Supervisor, start, worker
from pyglyn.testing import Beam, eventually

CALLS = 300
ASIDE = 30
"""Turns in which nothing comes, for what else goes on: the question to the test's BEAM, ticks, timers."""


class Adder(GenServer):
    async def handle_call(self, request: Term, caller: Caller) -> Term:
        return request

    async def handle_info(self, message: Any) -> None:
        self.me.send(message, self.me.pid)


async def empty_polls(action: Callable[[], Awaitable[object]], monkeypatch: pytest.MonkeyPatch) -> int:
    """How often the event loop polls and finds nothing while something is done."""
    loop: Any = asyncio.get_running_loop()
    original, count = loop._selector.select, 0

    def select(timeout: float | None) -> Any:
        nonlocal count
        found = original(timeout)
        count += not found
        return found

    monkeypatch.setattr(loop._selector, "select", select)
    try:
        await action()
    finally:
        monkeypatch.setattr(loop._selector, "select", original)
    return count


CALL = "[ok = gen_server:call(Pid, ok) || _ <- lists:seq(1, N)], ok"
PING = "[begin Pid ! self(), receive Pid -> ok end end || _ <- lists:seq(1, N)], ok"


@pytest.mark.parametrize("code", [CALL, PING], ids=["call", "message and answer"])
async def test_what_a_beam_asks_a_process_of_the_hub_takes_one_turn(
    code: str, beam: Beam, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid = await node.start(Adder)
    await beam.eval(code, Pid=pid, N=1)
    counted = await empty_polls(lambda: beam.eval(code, Pid=pid, N=CALLS), monkeypatch)
    assert counted <= ASIDE


async def test_what_a_beam_asks_a_process_of_a_worker_takes_the_hub_two_turns(
    beam: Beam, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    await start(node, Supervisor().add(worker(Adder, name="adder")))
    pid = await eventually(lambda: node.whereis("adder"))
    await beam.eval(CALL, Pid=pid, N=1)
    counted = await empty_polls(lambda: beam.eval(CALL, Pid=pid, N=CALLS), monkeypatch)
    assert counted <= ASIDE


async def test_what_a_process_asks_a_beam_takes_one_turn(
    beam: Beam, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid = await beam.eval(
        "spawn(fun() -> (fun Loop() -> receive {'$gen_call', From, R} -> gen:reply(From, R), Loop() end end)() end)"
    )
    assert isinstance(pid, Pid)

    async def ask(me: Process) -> None:
        for _ in range(CALLS):
            assert await me.call(pid, Atom("ok"), 60) is Atom("ok")

    async def asked() -> None:
        process = node.runtime.spawn(ask)
        assert process.task is not None
        await process.task

    async with node.process() as me:
        await me.call(pid, 1)
    counted = await empty_polls(asked, monkeypatch)
    assert counted <= ASIDE


async def test_all_that_one_read_brings_is_there_when_the_receiver_goes_on(node: Node) -> None:
    """So it is woken once for all of it."""
    seen: list[tuple[Term, int]] = []

    async def look(me: Process) -> None:
        seen.append((await me.receive(), me.message_queue_len))

    process = node.runtime.spawn(look)
    await asyncio.sleep(0)
    turn = loop_turn.current()

    def batch() -> None:
        assert turn.begin()
        for number in range(10):
            node.runtime.receive_encoded(Send(None, process.pid), encode_bare(number))
        assert seen == []
        turn.end()
        assert seen == [(0, 9)]

    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def call() -> None:
        try:
            done.set_result(batch())
        except BaseException as error:
            done.set_exception(error)

    asyncio.get_running_loop().call_soon(call)
    await done
