"""What is to be done behind a process is done before a node, or a worker, has stopped."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from pyglyn.node import Node, Process
from pyglyn.node.aftermath import Aftermath
from pyglyn.supervision import Supervisor, start, worker
from pyglyn.testing import eventually
from tests.node.conftest import unique_name


async def test_it_waits_for_what_is_under_way_and_cancels_what_takes_too_long() -> None:
    done: list[str] = []
    go_on = asyncio.Event()

    async def slow() -> None:
        await go_on.wait()
        done.append("slow")

    async def endless() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            done.append("endless")

    aftermath = Aftermath()
    await aftermath.over(0.0)
    aftermath.begin(slow())
    asyncio.get_running_loop().call_soon(asyncio.get_running_loop().call_soon, go_on.set)
    await aftermath.over(60.0)
    assert done == ["slow"]
    aftermath.begin(endless())
    await aftermath.over(0.001)
    await eventually(lambda: done == ["slow", "endless"])


def close_slowly(me: Process, note: Path) -> None:
    async def close() -> None:
        for _ in range(20):
            await asyncio.sleep(0)
        os.close(os.open(note, os.O_CREAT))

    me.on_end.append(lambda reason: me.runtime.aftermath.begin(close()))


async def open_something(me: Process, note: Path) -> None:
    close_slowly(me, note)
    await me.receive()


async def test_a_node_that_stops_waits_for_it(epmd: object, tmp_path: Path) -> None:
    note = tmp_path / "note"
    async with Node(unique_name(), cookie="c") as node:
        process = node.spawn(open_something, note)
        await eventually(lambda: node.runtime.processes[process.id].on_end)
    assert note.exists()


async def test_a_worker_that_stops_waits_for_it(epmd: object, tmp_path: Path) -> None:
    note = tmp_path / "note"
    async with Node(unique_name(), cookie="c") as node:
        await start(node, Supervisor().add(worker(open_something, note, name="opener")))
        await eventually(lambda: node.whereis("opener"))
    assert note.exists()
