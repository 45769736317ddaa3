"""Supervision trees of a node: started, told apart, and reported when they end."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

import pytest

from pyglyn import Atom, Node
from pyglyn.errors import TreeEnded
from pyglyn.supervision import Supervisor, start, worker
from pyglyn.testing import eventually
from tests.supervision.conftest import Client, gone
from tests.supervision.service import (
    Probe,
    probes,
)

SHUTDOWN = Atom("shutdown")


async def test_trees_of_two_nodes_in_one_os_process_leave_each_other_alone(local: Client) -> None:
    await start(local.node, probes("a"))
    os_pid = await local.os_pid("a")
    async with Node(f"other_{os.getpid()}@localhost", cookie="pyglyn_testing") as other:
        await start(other, probes("a"))
        pid = other.whereis("a")
        assert pid is not None
        os.kill(other.workers.links[pid.serial].os_pid, signal.SIGKILL)
        await eventually(lambda: other.whereis("a") not in (None, pid))
    assert await local.os_pid("a") == os_pid
    await local.me.call("a", Atom("fork_grandchildren"))
    old = local.node.whereis("a")
    assert old is not None
    os.kill(os_pid, signal.SIGKILL)
    await local.restarted("a", old)


async def test_trees_can_be_started_at_the_same_time(local: Client) -> None:
    trees = [Supervisor(name=f"top{number}").add(worker(Probe, name=f"p{number}")) for number in range(4)]
    await asyncio.gather(*(start(local.node, tree) for tree in trees))
    assert all(local.node.whereis(f"p{number}") for number in range(4))


async def test_when_the_supervisor_of_all_trees_is_killed_they_end_and_new_ones_can_be_started(
    local: Client,
) -> None:
    ended: list[Any] = []
    await start(local.node, probes("a"), on_end=ended.append)
    os_pid = await local.os_pid("a")
    root = local.node.whereis("pyglyn_sup")
    assert root is not None
    local.me.exit(root, Atom("kill"))
    await eventually(lambda: ended == [Atom("killed")])
    await gone({os_pid})
    await eventually(lambda: local.node.whereis("top") is None)
    await start(local.node, probes("a"))
    assert await local.os_pid("a") != os_pid


async def test_a_tree_that_gives_up_is_reported_to_whoever_started_it(local: Client) -> None:
    ended: list[Any] = []
    tree = Supervisor(name="top", intensity=0).add(worker(Probe, name="a"))
    await start(local.node, tree, on_end=ended.append)
    local.me.cast("a", Atom("sigkill"))
    await eventually(lambda: ended == [SHUTDOWN])


async def test_a_tree_that_gives_up_ends_the_run_of_its_node_with_an_error(local: Client) -> None:
    """Else the node would be there and answer pings, without what it is for."""
    await start(local.node, Supervisor(name="top", intensity=0).add(worker(Probe, name="a")))
    running = asyncio.ensure_future(local.node.run())
    local.me.cast("a", Atom("sigkill"))
    with pytest.raises(TreeEnded, match="top has ended by itself") as caught:
        await asyncio.wait_for(running, 180)
    assert (caught.value.tree, caught.value.reason) == (Atom("top"), SHUTDOWN)
    with pytest.raises(TreeEnded):  # also when it is run only now
        await local.node.run()


async def test_a_tree_that_is_stopped_on_request_is_no_error(local: Client) -> None:
    ended: list[Any] = []
    await start(local.node, Supervisor(name="top").add(worker(Probe, name="a")), on_end=ended.append)
    await start(local.node, Supervisor(name="other").add(worker(Probe, name="b")))
    for tree in (Atom("top"), Atom("other")):
        assert await local.me.call("pyglyn_sup", (Atom("terminate_child"), tree)) == Atom("ok")
    local.node.request_stop()
    await local.node.run()
    assert not ended
