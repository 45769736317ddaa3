"""Ceilings of children: memory, heartbeat."""

from __future__ import annotations

import pytest

from pyglyn.etf import Atom, Reference
from pyglyn.supervision import start, worker
from pyglyn.supervision.effects import Child
from pyglyn.supervision.running import Running
from pyglyn.testing import eventually
from tests.supervision.conftest import Client
from tests.supervision.service import probes


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


async def test_a_child_whose_loop_is_stuck_is_killed_and_restarted(local: Client) -> None:
    await start(local.node, probes("a", heartbeat=0.5))
    old = local.node.whereis("a")
    ref = local.me.monitor(old)
    local.me.cast("a", Atom("busy"))
    assert await local.reason(ref) == Atom("stuck")
    await local.restarted("a", old)


async def test_a_healthy_child_with_a_heartbeat_lives(local: Client) -> None:
    await start(local.node, probes("a", heartbeat=0.2))
    old = local.node.whereis("a")
    ref = local.me.monitor(old)
    with pytest.raises(TimeoutError):
        await local.reason(ref, timeout=1.0)
