"""Workers: message rates beside one process and beside the BEAM; and, as a program of its own, restart times.

``python -m tests.benchmarks.supervision`` prints restart times after SIGKILL, memory for each worker and light
process, what asking all of 64 workers costs, the start of 1,000 light processes and 64 workers, and the work of
two busy workers beside one.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import statistics
import time
from collections.abc import AsyncIterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

from rich.console import Console

from pyglyn.errors import CallFailed
from pyglyn.etf import Atom, Pid, Term
from pyglyn.node import GenServer, Node, Process
from pyglyn.node.census import Census
from pyglyn.node.inspection import cpu_use, own_share_of_memory
from pyglyn.supervision import Supervisor, start, worker
from pyglyn.supervision.os import kernel
from pyglyn.testing import Beam, Beams, PrivateEpmd, find_otps
from tests.benchmarks.harness import Bench, Measurement
from tests.benchmarks.node import EVENT, flood, sink

GROUP = "supervision"


class Server(GenServer):
    """Says which OS process it is in, and floods others when asked."""

    async def handle_call(self, request: Any, caller: object) -> Term:
        match request:
            case (Atom("flood"), to, count):
                to = (to[0].name, to[1].name) if isinstance(to, tuple) else to.name
                return await flood(self.me, to, count)
        return os.getpid()


async def idle(me: Process) -> None:
    """Waits."""
    await me.receive()


def compute(seconds: float) -> int:
    """Compute for so many seconds; returns how far it got."""
    end, turns = time.perf_counter() + seconds, 0
    while time.perf_counter() < end:
        turns += sum(range(100)) > 0
    return turns


async def spin(me: Process) -> None:
    """Computes for as long as it is told, and says how far it got."""
    while True:
        match await me.receive():
            case (Atom("spin"), Pid() as caller, float() as seconds):
                me.send(caller, compute(seconds))


async def supervision(bench: Bench) -> AsyncIterator[Measurement]:
    """Messages between hub, workers and a BEAM peer; the BEAM column is the hidden node's rate to the peer."""
    peer, hidden = bench.peer, bench.hidden
    messages = bench.scale.count(5e-5)
    tree = Supervisor(name="bench_top")
    tree.add(worker(sink, name="bench_worker_sink")).add(worker(Server, name="bench_sender"))
    async with Node("bench_workers@localhost", cookie=peer.cookie) as local, local.process() as me:
        await start(local, tree)
        await local.connect(peer.name)
        local.spawn(sink, name="bench_hub_sink")

        async def beam() -> float:
            ask = "pyglyn_bench:flood({bench_sink, Node}, N, Event)"
            where = Atom(peer.name)
            return await hidden.eval(ask, Node=where, N=messages, Event=EVENT, timeout=60) / 1e6

        async def from_worker(to: Term) -> float:
            seconds: Any = await me.call("bench_sender", (Atom("flood"), to, messages), 60.0)
            return float(seconds)

        async def from_beam() -> float:
            ask = "pyglyn_bench:flood({bench_worker_sink, Node}, N, Event)"
            return await _ask(peer, ask, local.name, messages) / 1e6

        rows = {
            "messages within one process": lambda: flood(me, "bench_hub_sink", messages),
            "messages hub to worker": lambda: flood(me, "bench_worker_sink", messages),
            "messages worker to hub": lambda: from_worker(Atom("bench_hub_sink")),
            "messages worker to worker": lambda: from_worker(Atom("bench_worker_sink")),
            "messages worker to BEAM": lambda: from_worker((Atom("bench_sink"), Atom(peer.name))),
            "messages BEAM to worker": from_beam,
        }
        for name, ours in rows.items():
            yield await bench.compare(GROUP, name, messages, ours, beam)


async def _ask(by: Beam, text: str, node: str, count: int) -> float:
    answer: Any = await by.eval(text, Node=Atom(node), N=count, Event=EVENT, timeout=60)
    return float(answer)


# --- figures that have no counterpart on the BEAM -------------------------------------------------------


async def restart_times(node: Node, me: Process, method: str, count: int, name: str = "quiet") -> list[float]:
    """Seconds from SIGKILL until the child answers a call again."""
    child = f"{name}_{method}"
    tree = Supervisor(name=f"top_{child}", intensity=10**6, start=method)
    await start(node, tree.add(worker(Server, name=child)))
    seconds = []
    for _ in range(count):
        os_pid: Any = await me.call(child, Atom("os_pid"))
        begun = time.perf_counter()
        os.kill(os_pid, signal.SIGKILL)
        while True:
            try:
                if await me.call(child, Atom("os_pid")) != os_pid:
                    break
            except CallFailed:
                await asyncio.sleep(0.0005)
        seconds.append(time.perf_counter() - begun)
    return sorted(seconds)


def percentiles(seconds: list[float]) -> str:
    """The median and the 99th percentile of sorted times."""
    return (
        f"p50 {statistics.median(seconds) * 1e3:.1f} ms, p99 {seconds[int(len(seconds) * 0.99)] * 1e3:.1f} ms"
    )


async def drop(me: Process) -> None:
    """Takes messages and forgets them."""
    while True:
        await me.receive()


async def saturated(node: Node, me: Process, epmd: PrivateEpmd, count: int) -> list[float]:
    """Restart times while a BEAM peer sends the hub as many messages as it takes."""
    beams = Beams(epmd, find_otps()[-1], cookie="bench")
    try:
        peer = await beams.start("bench_flood")
        node.spawn(drop, name="drop")
        await peer.eval(
            "F = fun F() -> {drop, Node} ! Event, F() end, spawn(F), ok", Node=Atom(node.name), Event=EVENT
        )
        return await restart_times(node, me, "fork", count, name="saturated")
    finally:
        beams.close()


async def work(node: Node, me: Process, workers: int, seconds: float) -> int:
    """How many turns so many busy workers do together."""
    for number in range(workers):
        me.send(f"spin{number}", (Atom("spin"), me.pid, seconds))
    return sum([int(await me.receive(timeout=seconds + 10)) for _ in range(workers)])  # type: ignore[call-overload]


async def census_cost(console: Console, node: Node, times: int = 30) -> None:
    """Measure what `erlang:processes/0` and its like cost in CPU time, in the hub and in all workers."""
    census = Census(node.hub, node.workers)
    os_pids = await census.os_pids()
    for what, ask in (("processes/0", census.pids), ("memory/0", census.memory), ("the tree", census.tree)):
        await ask()
        theirs, ours = sum(cpu_use(os_pid).own_us for os_pid in os_pids), time.process_time()
        for _ in range(times):
            await ask()
        ours = time.process_time() - ours
        theirs = sum(cpu_use(os_pid).own_us for os_pid in os_pids) - theirs
        console.print(
            f"{what} with {len(os_pids)} workers: {1000 * ours / times:.1f} ms of CPU in the hub, "
            f"{theirs / 1000 / times:.1f} ms in the workers together"
        )


async def report(console: Console, epmd: PrivateEpmd, restarts: int = 100) -> None:
    """Measure and print."""
    async with Node("bench_tree@localhost", cookie="bench") as node, node.process() as me:
        for method, count in (("fork", restarts), ("spawn", restarts // 5)):
            times = await restart_times(node, me, method, count)
            console.print(f"restart by {method}, {count} times: {percentiles(times)}")
        times = await saturated(node, me, epmd, restarts // 2)
        console.print(f"restart by fork, a BEAM peer sending all the hub can take: {percentiles(times)}")
        many = Supervisor(name="many")
        for number in range(64):
            many.add(worker(idle, name=f"idle{number}"))
        begun = time.perf_counter()
        await start(node, many)
        console.print(f"64 workers started in {time.perf_counter() - begun:.2f} s")
        idles = [link.os_pid for link in node.workers.links.values() if " idle" in link.title]
        shares = [own_share_of_memory(os_pid) for os_pid in idles]
        console.print(
            f"an idle worker has {statistics.mean(shares) / 2**20:.2f} MiB of its own (share of memory)"
        )
        await census_cost(console, node)
        light = Supervisor(name="light")
        for number in range(1000):
            light.add(worker(idle, id=Atom(f"light{number}"), isolation="task"))
        before = time.perf_counter()
        pid = await start(node, light)
        elapsed = time.perf_counter() - before
        os_pid = node.workers.links[pid.serial].os_pid
        used = (kernel.resident_memory(os_pid) or 0) - (kernel.resident_memory(idles[0]) or 0)
        console.print(f"1,000 light processes started in {elapsed:.2f} s, {used / 1000 / 1024:.1f} KiB each")
        await start(
            node, Supervisor(name="spins").add(worker(spin, name="spin0")).add(worker(spin, name="spin1"))
        )
        with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as plain:
            list(plain.map(compute, [0.1, 0.1]))
            rounds = [
                (
                    await work(node, me, 1, 0.5),
                    await work(node, me, 2, 0.5),
                    sum(plain.map(compute, [0.5])),
                    sum(plain.map(compute, [0.5, 0.5])),
                )
                for _ in range(7)
            ]
        one, two, plain_one, plain_two = (max(column) for column in zip(*rounds, strict=True))
        console.print(
            f"two busy workers do {two / one:.2f} times the work of one; on this machine two OS processes "
            f"without pyglyn do {plain_two / plain_one:.2f} times the work of one"
        )


def main() -> None:
    """Run with an EPMD of its own."""
    logging.getLogger("pyglyn").setLevel(logging.CRITICAL)  # a hundred deaths are meant
    with PrivateEpmd() as epmd:
        os.environ.update(epmd.env)
        asyncio.run(report(Console(), epmd))


if __name__ == "__main__":
    main()
