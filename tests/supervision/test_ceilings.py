"""Ceilings of children: memory, heartbeat."""

from __future__ import annotations

import os
import re
import signal
import time

import pytest

from pyglyn.etf import Atom, Reference
from pyglyn.supervision import start, worker
from pyglyn.supervision.effects import Child
from pyglyn.supervision.os import kernel
from pyglyn.supervision.running import Running
from pyglyn.testing import eventually
from pyglyn.testing.waiting import patiently
from tests.supervision.conftest import Client, Program, Start, descendants
from tests.supervision.service import HEARTBEAT_S, TABLE_BYTES, WithTable, probes


async def test_looking_at_memory_for_ever_takes_no_memory() -> None:
    child = worker(print, memory_limit="1 GiB")
    running = Running(Child(child), child, child.start, Reference("n@h", 1, (1, 2, 3)))
    looks = 0

    def look() -> None:
        nonlocal looks
        looks += 1
        running.later(0.0, look)

    look()
    await eventually(lambda: looks > 50)
    assert len(running.closers) == 1
    running.close()


async def test_a_child_over_its_memory_ceiling_is_killed_and_restarted(local: Client) -> None:
    limit = 150 * 2**20
    await start(local.node, probes("a", memory_limit=limit))
    old = local.node.whereis("a")
    ref = local.me.monitor(old)
    local.me.cast("a", Atom("grow"))
    assert await local.reason(ref) == (Atom("memory_limit"), limit)
    await local.restarted("a", old)


async def test_memory_that_a_child_shares_with_its_supervisor_does_not_count(local: Client) -> None:
    await start(local.node, WithTable)
    old = local.node.whereis("a")
    ref = local.me.monitor(old)
    assert kernel.resident_memory(await local.os_pid("a")) > TABLE_BYTES  # type: ignore[operator]
    with pytest.raises(TimeoutError):
        await local.reason(ref, timeout=1.0)
    local.me.cast("a", Atom("grow"))
    assert await local.reason(ref) == (Atom("memory_limit"), TABLE_BYTES)
    await local.restarted("a", old)


async def test_a_child_whose_loop_is_stuck_is_killed_and_restarted(local: Client) -> None:
    await start(local.node, probes("a", heartbeat=0.5))
    old = local.node.whereis("a")
    ref = local.me.monitor(old)
    local.me.cast("a", Atom("busy"))
    assert await local.reason(ref) == Atom("stuck")
    await local.restarted("a", old)


async def test_a_healthy_child_with_a_heartbeat_lives(local: Client) -> None:
    await start(local.node, probes("a", heartbeat=patiently(0.3)))
    old = local.node.whereis("a")
    ref = local.me.monitor(old)
    with pytest.raises(TimeoutError):
        await local.reason(ref, timeout=patiently(0.9))


def paused(program: Program, who: str, worker: int) -> list[int]:
    """The OS processes to be stopped, in the order in which they go on."""
    everyone = [program.process.pid, *sorted(descendants(program.process.pid))]
    supervisor = everyone[1]  # made before its children
    return {
        "all, parents first": everyone,
        "all, children first": everyone[::-1],
        "the supervisor": [supervisor],
        "a worker": [worker],
    }[who]


@pytest.mark.parametrize("who", ["all, parents first", "all, children first", "the supervisor", "a worker"])
async def test_only_a_child_that_was_stopped_alone_counts_as_stuck(program: Start, who: str) -> None:
    node = await program("with_heartbeats")
    stopped = paused(node, who, await node.os_pid("a"))
    for os_pid in stopped:
        os.kill(os_pid, signal.SIGSTOP)
    if who == "a worker":
        await node.logged("a ended .*: stuck")
        assert not re.search("[bc] ended .*: stuck", node.text())
        return
    await passed(1.6 * HEARTBEAT_S)
    for os_pid in stopped:
        os.kill(os_pid, signal.SIGCONT)
    await passed(HEARTBEAT_S / 2)
    assert "stuck" not in node.text()
    assert "ended" not in node.text()


async def passed(seconds: float) -> None:
    until = time.monotonic() + seconds
    await eventually(lambda: time.monotonic() > until, timeout=seconds + 60.0)
