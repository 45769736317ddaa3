"""The garbage collector of the operating-system processes of a node."""

from __future__ import annotations

import gc
import os

from pyglyn.node import Collector, Node, Process, Settings
from pyglyn.supervision import Supervisor, start, worker
from pyglyn.testing import eventually
from tests.node.conftest import unique_name


async def tells(me: Process) -> None:
    while True:
        message = await me.receive()
        assert isinstance(message, tuple)
        me.send(message[1], (message[0], list(gc.get_threshold()), gc.get_freeze_count(), os.getpid()))  # type: ignore[arg-type]


async def test_thresholds_hold_in_the_hub_while_a_node_runs_and_in_every_worker(epmd: object) -> None:
    before = gc.get_threshold()
    settings = Settings(collector=Collector(thresholds=(12_345, 6, 7)))
    async with Node(unique_name(), cookie="c", settings=settings) as node:
        assert gc.get_threshold() == (12_345, 6, 7)
        assert gc.get_freeze_count() > 0
        await start(node, Supervisor().add(worker(tells, name="tells")))
        pid = await eventually(lambda: node.whereis("tells"))
        async with node.process() as me:
            ref = me.make_ref()
            me.send(pid, (ref, me.pid))
            _, thresholds, frozen, os_pid = await me.receive(lambda m: m[0] == ref, timeout=20)  # type: ignore[index,misc]
        assert thresholds == [12_345, 6, 7]
        assert frozen > 0  # type: ignore[operator]
        assert os_pid != os.getpid()
    assert gc.get_threshold() == before


async def test_a_program_keeps_its_own_thresholds_where_it_says_so(epmd: object) -> None:
    before = gc.get_threshold()
    async with Node(unique_name(), cookie="c", settings=Settings(collector=Collector(thresholds=None))):
        assert gc.get_threshold() == before


async def test_thresholds_come_back_with_the_end_of_the_last_node(epmd: object) -> None:
    before = gc.get_threshold()
    first, second = Node(unique_name(), cookie="c"), Node(unique_name(), cookie="c")
    async with first:
        await second.start_node()
        await second.stop()
        await second.stop()
        assert gc.get_threshold() == Collector().thresholds
    assert gc.get_threshold() == before
