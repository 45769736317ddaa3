"""Which function a process is said to be in: the one that people know, not what waiting is made of."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pyglyn.etf import Atom
from pyglyn.node import GenServer, Process, frames, process_info
from pyglyn.node.gen_server import start_server
from pyglyn.testing import eventually
from tests.node.runtimes import Noted, noted


async def order(me: Process) -> None:
    await me.receive()


async def through_another(me: Process) -> None:
    await order(me)


async def resting(me: Process) -> None:
    await asyncio.sleep(600)


async def at_a_gate(me: Process) -> None:
    await asyncio.gather(asyncio.Event().wait())


class Shop(GenServer):
    async def handle_call(self, request: Any, caller: Any) -> Any:
        await asyncio.Event().wait()


async def waiting(process: Process) -> list[Any]:
    """Its frames, once it waits for something."""
    return await eventually(lambda: len(found := frames.of_task(process.task)) > 1 and found)


@pytest.mark.parametrize(
    ("body", "function", "trace"),
    [
        (order, "order/1", ["order"]),
        (through_another, "order/1", ["order", "through_another"]),
        (resting, "resting/1", ["resting"]),
        (at_a_gate, "at_a_gate/1", ["at_a_gate"]),
    ],
)
async def test_it_is_the_function_that_called_what_waits(body: Any, function: str, trace: list[str]) -> None:
    process = noted().runtime.spawn(body)
    found = await waiting(process)
    assert frames.name(found) == f"test_frames:{function}"
    assert [call[1].name for call in frames.calls(found)] == trace
    process.exit(process.pid, "kill")


async def served(here: Noted) -> Process:
    pid = await start_server(here.runtime, Shop, name="shop")
    return here.runtime.processes[pid.id]


async def test_a_server_that_has_nothing_to_do_is_in_its_loop_and_a_busy_one_in_its_callback() -> None:
    here = noted()
    server = await served(here)
    await eventually(lambda: frames.name(frames.of_task(server.task)) == "gen_server:run/2")
    here.process().send(server.pid, (Atom("$gen_call"), (server.pid, Atom("tag")), 1))
    await eventually(lambda: frames.name(frames.of_task(server.task)) == "test_frames:handle_call/3")
    (stack,) = process_info.items(process_info.facts(server), [Atom("current_stacktrace")])
    assert [call[:3] for call in stack[1]] == [(Atom("test_frames"), Atom("handle_call"), 3)]  # type: ignore[union-attr, index]
    (backtrace,) = process_info.items(process_info.facts(server), [Atom("backtrace")])
    assert b"locks.py" in backtrace[1]  # type: ignore[operator]
    server.exit(server.pid, "kill")


async def test_of_a_process_without_frames_nothing_is_said() -> None:
    assert frames.name(frames.of_task(None)) == ""
    assert frames.calls([]) == []
