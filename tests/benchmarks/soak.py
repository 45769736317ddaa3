"""``python -m tests.benchmarks soak --minutes 30``: a node at work for long; does anything grow or get slower?

At once: calls to a BEAM node, groups that processes join and leave by ending, children that crash and are started
again (light ones and OS processes), commands of an event-sourced service on SQLite, and BEAM nodes that come,
connect, call and go. The first and the last quarter of the time are shown side by side.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import statistics
import tempfile
import time
from array import array
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any, Final

import attrs
import psutil
from rich.console import Console
from rich.table import Table

from pyglyn import eventsourcing as es
from pyglyn.etf import Atom
from pyglyn.groups import pg
from pyglyn.node import Node, Process
from pyglyn.supervision import Supervisor, start, worker
from pyglyn.testing.bank import BankAccount, BankAccountEvent, DepositMoney, OpenAccount, apply, handle
from tests.benchmarks.harness import Bench

SAMPLE_S: Final = 1.0
ACCOUNTS: Final = 20
PEER_STAYS_S: Final = 5.0


@contextlib.contextmanager
def _without_crashes_in_the_log() -> Iterator[None]:
    logger = logging.getLogger("pyglyn.supervision")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


@attrs.define
class Quarter:
    """What was seen in a quarter of the time."""

    memory_mib: list[float] = attrs.field(factory=list)
    tree_mib: list[float] = attrs.field(factory=list)
    descriptors: list[int] = attrs.field(factory=list)
    tasks: list[int] = attrs.field(factory=list)
    processes: list[int] = attrs.field(factory=list)
    calls_s: array[float] = attrs.field(factory=lambda: array("d"))
    commands_s: array[float] = attrs.field(factory=lambda: array("d"))
    done: dict[str, int] = attrs.field(factory=dict)


class Soak:
    """One run.

    Args:
        bench: the nodes to work with.
        seconds: how long.
    """

    def __init__(self, bench: Bench, seconds: float) -> None:
        self.bench = bench
        self.seconds = seconds
        self.quarters = [Quarter() for _ in range(4)]
        self._began = time.monotonic()

    @property
    def now(self) -> Quarter:
        """The quarter that it is."""
        return self.quarters[min(3, int(4 * (time.monotonic() - self._began) / self.seconds))]

    def count(self, what: str) -> None:
        """One more of something was done."""
        done = self.now.done
        done[what] = done.get(what, 0) + 1

    async def run(self) -> list[Quarter]:
        """Run for as long as was said; the four quarters."""
        with _without_crashes_in_the_log(), tempfile.TemporaryDirectory() as folder:
            async with Node(f"soak_{secrets.token_hex(3)}@localhost", cookie=self.bench.peer.cookie) as node:
                await node.connect(self.bench.peer.name)
                store = es.open_store(
                    f"sqlite:{folder}/soak.db",
                    events=BankAccountEvent,
                    state=BankAccount,
                    aggregate_type="BankAccount",
                )
                made = es.service("bank", store, handle=handle, apply=apply, empty_state=BankAccount())
                accounts = await es.start(node, made)
                for number in range(ACCOUNTS):
                    await accounts.execute(f"account-{number}", OpenAccount("soak"), timeout=60)
                await self._supervise(node)
                self._began = time.monotonic()
                works: list[Callable[[], Awaitable[None]]] = [
                    lambda: self._call(node),
                    lambda: self._groups(node),
                    lambda: self._command(accounts),
                    lambda: self._crash(node),
                    lambda: self._visit(node),
                    lambda: self._sample(node),
                ]
                await asyncio.gather(*map(self._again, works))
        return self.quarters

    async def _again(self, work: Callable[[], Awaitable[None]]) -> None:
        while time.monotonic() - self._began < self.seconds:
            await work()

    async def _supervise(self, node: Node) -> None:
        tree = Supervisor("one_for_one", intensity=1_000_000, period=1.0, name="soaked")
        tree.add(worker(_idle, name="light", isolation="task")).add(worker(_idle, name="heavy"))
        await start(node, tree)

    async def _call(self, node: Node) -> None:
        before = time.perf_counter()
        for _ in range(20):
            await node.ping(self.bench.peer.name)
        self.now.calls_s.append((time.perf_counter() - before) / 20)
        self.count("pings")
        await asyncio.sleep(0.01)

    async def _groups(self, node: Node) -> None:
        pids = [node.spawn(_short_lived) for _ in range(20)]
        await asyncio.gather(*(pg.join(node, secrets.randbelow(50), pid) for pid in pids))
        for pid in pids:
            node.send(pid, Atom("end"))
        self.count("group rounds")
        await asyncio.sleep(0.05)

    async def _command(self, accounts: Any) -> None:
        name = f"account-{secrets.randbelow(ACCOUNTS)}"
        before = time.perf_counter()
        await accounts.execute(name, DepositMoney(1.0), timeout=60)
        self.now.commands_s.append(time.perf_counter() - before)
        self.count("commands")
        await asyncio.sleep(0.01)

    async def _crash(self, node: Node) -> None:
        for name, pause in (("light", 0.1), ("heavy", 1.0)):
            pid = node.whereis(name)
            if pid is not None:
                node.system.exit(pid, Atom("kill"))
                self.count("crashes")
            await asyncio.sleep(pause)

    async def _visit(self, node: Node) -> None:
        beam = await self.bench.beams.start(hidden=True)
        try:
            await beam.eval("net_adm:ping(N)", N=Atom(node.name))
            await asyncio.sleep(PEER_STAYS_S)
            self.count("BEAM peers")
        finally:
            await beam.stop()
            self.bench.beams.nodes.remove(beam)  # 12 kB each would look as if the node grew

    async def _sample(self, node: Node) -> None:
        us, now = psutil.Process(os.getpid()), self.now
        now.memory_mib.append(us.memory_info().rss / 2**20)
        now.tree_mib += [each.memory_info().rss / 2**20 for each in us.children() if _is_supervisor(each)]
        now.descriptors.append(us.num_fds())
        now.tasks.append(len(asyncio.all_tasks()))
        now.processes.append(len(node.runtime.processes))
        await asyncio.sleep(SAMPLE_S)


def _is_supervisor(child: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return any("supervisor" in word for word in child.cmdline())
    return False


async def _idle(me: Process) -> None:
    while True:
        await me.receive()


async def _short_lived(me: Process) -> None:
    await me.receive()


def show(quarters: list[Quarter], console: Console) -> None:
    """Print the first and the last quarter side by side."""
    table = Table("", "first quarter", "last quarter")

    def add(name: str, of: Callable[[Quarter], str]) -> None:
        table.add_row(name, of(quarters[0]), of(quarters[-1]))

    def median(name: str, values: Callable[[Quarter], list[Any]], form: str) -> None:
        add(name, lambda q: f"{statistics.median(values(q)):{form}} (most {max(values(q)):{form}})")

    def times(name: str, values: Callable[[Quarter], Sequence[float]]) -> None:
        for at, label in ((49, "p50"), (98, "p99")):
            add(
                f"{name}, {label}",
                lambda q, at=at: f"{statistics.quantiles(values(q), n=100)[at] * 1000:.2f} ms",
            )

    median("memory of the hub, MiB", lambda q: q.memory_mib, ".1f")
    median("memory of the supervisor, MiB", lambda q: q.tree_mib, ".1f")
    median("descriptors", lambda q: q.descriptors, "g")
    median("tasks", lambda q: q.tasks, "g")
    median("processes in the hub", lambda q: q.processes, "g")
    times("ping of the BEAM node", lambda q: q.calls_s)
    times("command on SQLite", lambda q: q.commands_s)
    for what in sorted({name for quarter in quarters for name in quarter.done}):
        add(what, lambda q, what=what: str(q.done.get(what, 0)))
    console.print(table)
