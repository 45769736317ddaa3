"""Curves of whole nodes: with more peers, all in this OS process, and with more workers, each in one of its own.

Every destination gets as many messages in a row at every size; what they cost is processor time: of both sides for
peers, of the hub for workers.
"""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from typing import Any

import psutil

from pyglyn import Node
from pyglyn.etf import Term
from pyglyn.node import Process
from pyglyn.supervision import Supervisor, start, worker
from pyglyn.supervision.os import kernel
from pyglyn.testing import PrivateEpmd
from tests.benchmarks.chart import Curve

BURST = 200
"""Messages in a row for one destination."""


async def counts(me: Process) -> None:
    """Say how many messages came since the last question."""
    taken = 0
    while True:
        message: Any = await me.receive()
        if type(message) is not tuple:
            taken += 1
            continue
        me.send(message[0], taken)
        taken = 0


@contextmanager
def _epmd() -> Any:
    with PrivateEpmd() as epmd:
        before = {name: os.environ.get(name) for name in epmd.env}
        os.environ.update(epmd.env)
        try:
            yield
        finally:
            for name, value in before.items():
                os.environ.pop(name) if value is None else os.environ.update({name: value})


async def _round(me: Process, to: Sequence[Any], message: Term) -> None:
    for each in to:
        for _ in range(BURST):
            me.send(each, message)
        await me.drain()
        me.send(each, (me.pid,))
    assert [await me.receive(timeout=120) for _ in to] == [BURST] * len(to)


async def _cost(me: Process, to: Sequence[Any], rounds: int) -> float:
    """Microseconds of this OS process's time a message, after a first round."""
    await _round(me, to, 1)
    begun = time.process_time()
    for _ in range(rounds):
        await _round(me, to, 1)
    return (time.process_time() - begun) / (rounds * len(to) * BURST) * 1e6


async def peers(sizes: Sequence[int], messages: int) -> AsyncIterator[Curve]:
    """One node sends to more and more others."""
    points = []
    with _epmd():
        for count in sizes:
            async with AsyncExitStack() as stack:
                name = f"growth_{os.getpid()}_{count}"
                nodes = [
                    await stack.enter_async_context(Node(f"{name}_{number}@localhost", cookie="growth"))
                    for number in range(count + 1)
                ]
                for node in nodes[1:]:
                    node.spawn(counts, name="counts")
                async with nodes[0].process() as me:
                    to = [("counts", node.name) for node in nodes[1:]]
                    points.append((count, await _cost(me, to, max(1, messages // (count * BURST)))))
    yield Curve("peers", "peers", "microseconds a message sent and received", points)


def _cpu_ms(os_pids: Sequence[int]) -> float:
    """Processor time that some OS processes have had."""
    ticks = 0
    for os_pid in os_pids:
        with open(f"/proc/{os_pid}/stat") as stat:
            ticks += sum(map(int, stat.read().rpartition(")")[2].split()[11:13]))
    return ticks * 1000 / os.sysconf("SC_CLK_TCK")


async def workers(sizes: Sequence[int], messages: int) -> AsyncIterator[Curve]:
    """A tree of more and more workers, to which the hub sends."""
    starts, memory, points = [], [], []
    with _epmd():
        for count in sizes:
            names = [f"w{number}" for number in range(count)]
            tree = Supervisor("one_for_one", name="tree")
            for name in names:
                tree = tree.add(worker(counts, name=name))
            async with Node(f"growth_{os.getpid()}_{count}@localhost", cookie="growth") as node:
                before = _cpu_ms([os.getpid()])
                await start(node, tree)
                top = max(psutil.Process().children(), key=psutil.Process.create_time)
                below = [each.pid for each in top.children()]
                starts.append((count, (_cpu_ms([os.getpid(), top.pid, *below]) - before) / count))
                memory.append(
                    (count, sum(kernel.own_memory(each) or 0 for each in below) / len(below) / 1024)
                )
                async with node.process() as me:
                    points.append((count, await _cost(me, names, max(1, messages // (count * BURST)))))
    yield Curve("workers", "workers", "microseconds of the hub for a message to one", points)
    yield Curve("workers-start", "workers", "milliseconds of processor time to start one", starts)
    yield Curve("workers-memory", "workers", "KiB for each of its own", memory)
