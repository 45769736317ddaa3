"""A slow peer suspends those that send to it; memory stays bounded."""

from __future__ import annotations

import asyncio

import pytest

from pyglyn.errors import NodeBusy
from pyglyn.etf import Atom
from pyglyn.node import Node, Process, Settings
from pyglyn.testing import eventually
from tests.node.conftest import unique_name

MEGABYTE = 1024 * 1024
COUNTER = "register(sink, spawn(fun() -> F = fun F(N) -> receive {count, P} -> P ! {n, N}, F(N); _ -> F(N + 1) end end, F(0) end))"


async def test_a_process_that_sends_to_a_stopped_peer_waits_and_nothing_is_lost(beam, node):
    await beam.eval(COUNTER)
    await node.connect(beam.name)
    sent = 0

    async def flood(me: Process) -> None:
        nonlocal sent
        while sent < 64:
            me.send(("sink", beam.name), bytes(MEGABYTE))
            sent += 1
            await me.drain()

    beam.suspend()
    node.spawn(flood)
    connection = node.peers.get(beam.name)
    assert connection is not None
    await eventually(lambda: connection.busy)
    before = -1
    while before != sent:  # the socket's own buffers fill up first
        before = sent
        for _ in range(20):
            await asyncio.sleep(0)
    assert sent < 64
    assert connection.queued_bytes < 4 * MEGABYTE
    beam.resume()
    await eventually(lambda: sent == 64, timeout=30)
    async with node.process() as me:
        me.send(("sink", beam.name), (Atom("count"), me.pid))
        total = await me.receive(timeout=30)
    assert total[0] is Atom("n")
    assert total[1] <= 64
    await eventually(lambda: count_is(node, beam.name, 64), timeout=30)


def send_again(me: Process, to: tuple[str, str], count: int) -> None:
    for _ in range(count):
        me.send(to, bytes(MEGABYTE))


async def count_is(node: Node, where: str, expected: int) -> bool:
    async with node.process() as me:
        me.send(("sink", where), (Atom("count"), me.pid))
        return (await me.receive(timeout=30))[1] == expected


async def test_a_loop_that_never_waits_is_told_before_memory_runs_out(beam):
    async with Node(unique_name(), cookie=beam.cookie, settings=Settings(send_limit=8 * MEGABYTE)) as node:
        await node.connect(beam.name)
        beam.suspend()
        async with node.process() as me:
            with pytest.raises(NodeBusy, match=r"me\.drain"):
                send_again(me, ("sink", beam.name), 1000)
        beam.resume()
