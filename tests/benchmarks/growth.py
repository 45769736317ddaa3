"""Rate and memory of one node against the size of what it has: curves, to see whether one bends.

``python -m tests.benchmarks.growth FOLDER`` writes a table and a chart for each curve. What is measured is a program
of its own with a runtime in it, without a peer, so that nothing but the node's own work is in the figures; but
for curves over peers and workers (``growth_nodes``).
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from itertools import pairwise
from pathlib import Path

import attrs
import rich_click as click

from pyglyn.dist.control import Send
from pyglyn.etf import Atom, Pid, Term, encode_bare
from pyglyn.groups.pg_state import PgState
from pyglyn.node import Collector, Process, garbage
from pyglyn.node.runtime import Identity, Runtime
from tests.benchmarks import growth_nodes
from tests.benchmarks.chart import Curve, table, write_chart
from tests.benchmarks.machine import describe
from tests.benchmarks.node import EVENT


@attrs.frozen
class Sizes:
    """What is measured at which sizes."""

    waiting: Sequence[int] = (1_000, 10_000, 100_000, 1_000_000)
    processes: Sequence[int] = (10, 1_000, 10_000, 100_000)
    passed_over: Sequence[int] = (100, 1_000, 10_000, 100_000)
    members: Sequence[int] = (100, 1_000, 10_000, 100_000)
    message: Sequence[int] = (16, 1_024, 65_536, 1_048_576, 16_777_216, 67_108_864)
    peers: Sequence[int] = (1, 2, 4, 8, 16, 32)
    workers: Sequence[int] = (1, 2, 4, 8, 16, 32)
    messages: int = 200_000
    """How many messages a point takes at least, small ones."""


FEW = Sizes(
    waiting=(10, 100),
    processes=(1, 10),
    passed_over=(1, 10),
    members=(1, 10),
    message=(16, 1_024),
    peers=(1, 2),
    workers=(1, 2),
    messages=100,
)


def runtime() -> Runtime:
    """A node's processes without a network."""
    return Runtime(Identity("growth@localhost", 1), lambda control, parts, node: None)


def resident() -> int:
    """Bytes of this OS process in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


async def _mailbox(sizes: Sizes) -> AsyncIterator[Curve]:
    rates, memory = [], []
    data = encode_bare(EVENT)
    for waiting in sizes.waiting:
        here = runtime()
        process = here.attach("receiver")
        control, rounds = Send(None, process.pid), max(1, sizes.messages // waiting)
        gc.collect()
        before, started = resident(), time.process_time()
        for number in range(rounds):
            for _ in range(waiting):
                here.receive_encoded(control, data[:-1] + data[-1:])
            if not number:
                memory.append((waiting, max(0, resident() - before) / waiting))
            for _ in range(waiting):
                await process.receive()
        rates.append((waiting, waiting * rounds / (time.process_time() - started)))
    yield Curve("mailbox", "event messages in a mailbox", "messages received and taken a second", rates)
    yield Curve("mailbox-memory", "event messages in a mailbox", "bytes for each", memory)


async def _selective(sizes: Sizes) -> AsyncIterator[Curve]:
    points = []
    data, wanted = encode_bare(EVENT), encode_bare(1)

    def match(message: Term) -> bool:
        return message == 1

    for before_it in sizes.passed_over:
        here = runtime()
        process = here.attach("receiver")
        control = Send(None, process.pid)
        for _ in range(before_it):
            here.receive_encoded(control, data)
        with contextlib.suppress(TimeoutError):
            await process.receive(match, timeout=0)  # which decodes them
        times = max(3, sizes.messages // before_it // 10)
        started = time.process_time()
        for _ in range(times):
            here.receive_encoded(control, wanted)
            await process.receive(match)
        points.append((before_it, before_it * times / (time.process_time() - started)))
    yield Curve("selective", "messages before the one that matches", "messages looked at a second", points)


async def _processes(sizes: Sizes) -> AsyncIterator[Curve]:
    times, memory = [], []

    async def waits(me: Process) -> None:
        await me.receive()

    for count in sizes.processes:
        here = runtime()
        gc.collect()
        before, started = resident(), time.process_time()
        for _ in range(count):
            here.spawn(waits)
        await asyncio.sleep(0)
        times.append((count, (time.process_time() - started) / count * 1e6))
        memory.append((count, max(0, resident() - before) / count))
        here.kill_all(None)
        await asyncio.sleep(0)
    yield Curve("spawn", "light processes", "microseconds to start one", times)
    yield Curve("spawn-memory", "light processes", "bytes for each", memory)


async def _members(sizes: Sizes) -> AsyncIterator[Curve]:
    joins, looks, leaves, memory = [], [], [], []
    group, times = Atom("group"), 3
    for count in sizes.members:
        here = runtime()
        scope = here.attach("scope")
        spent, before = [0.0, 0.0, 0.0], 0
        for number in range(times):
            state = PgState(scope.pid, "scope", scope.make_ref)
            members = [Pid("growth@localhost", each, 0, 1) for each in range(1_000, 1_000 + count)]
            gc.collect()
            before = resident()
            points = [time.process_time()]
            for member in members:
                state.join(group, member)
            points.append(time.process_time())
            if not number:
                memory.append((count, max(0, resident() - before) / count))
            assert len(state.get_members(group)) == count
            points.append(time.process_time())
            for member in members:
                state.leave(group, member)
            points.append(time.process_time())
            spent = [sum(pair) for pair in zip(spent, (b - a for a, b in pairwise(points)), strict=True)]
        for curve, seconds in zip((joins, looks, leaves), spent, strict=True):
            curve.append((count, seconds / times / count * 1e6))
    yield Curve("join", "members of a pg group", "microseconds for one to join", joins)
    yield Curve("members", "members of a pg group", "microseconds for each in a list of all", looks)
    yield Curve("leave", "members of a pg group", "microseconds for one to leave", leaves)
    yield Curve("join-memory", "members of a pg group", "bytes for each", memory)


async def _sizes(sizes: Sizes) -> AsyncIterator[Curve]:
    points = []
    for size in sizes.message:
        here = runtime()
        process = here.attach("receiver")
        control, data = Send(None, process.pid), encode_bare(bytes(size))
        times = max(3, min(sizes.messages, 2**28 // size))
        started = time.process_time()
        for _ in range(times):
            here.receive_encoded(control, data)
            await process.receive()
        points.append((size, size * times / (time.process_time() - started) / 2**20))
    yield Curve("size", "bytes of a binary", "MiB received and taken a second", points)


PARTS: dict[str, Callable[[Sizes], AsyncIterator[Curve]]] = {
    "mailbox": _mailbox,
    "processes": _processes,
    "selective": _selective,
    "members": _members,
    "size": _sizes,
    "peers": lambda sizes: growth_nodes.peers(sizes.peers, sizes.messages),
    "workers": lambda sizes: growth_nodes.workers(sizes.workers, sizes.messages),
}


async def measure(sizes: Sizes, only: Sequence[str] = ()) -> list[Curve]:
    """Measure every curve, with the collector as a node sets it."""
    garbage.begin(Collector(freeze=False))
    try:
        return [curve for name in only or PARTS async for curve in PARTS[name](sizes)]
    finally:
        garbage.end()


def write(curves: Sequence[Curve], folder: Path) -> None:
    """Write the table of all curves, and a chart of each."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "growth.md").write_text(f"{describe()}\n\n" + "\n\n".join(map(table, curves)) + "\n")
    for curve in curves:
        write_chart(curve, folder / f"{curve.name}.svg")


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--only", type=click.Choice(list(PARTS)), multiple=True, help="Measure this; may be repeated.")
@click.option("--quick", is_flag=True, help="Only see that everything runs.")
def main(folder: Path, only: tuple[str, ...], quick: bool) -> None:
    """Measure how rates and memory grow; write a table and charts to FOLDER."""
    write(asyncio.run(measure(FEW if quick else Sizes(), only)), folder)
    sys.stdout.write((folder / "growth.md").read_text())


if __name__ == "__main__":
    main()
