"""``python -m tests.benchmarks.cluster``: from commit to effect on another node, and a durable query's catch-up.

Latency: a service on one node commits, a query on another one is called; both nodes are in this OS process, so
one clock measures, and talk over TCP. Catch-up: a durable query with SQL effects reads a long log; its memory is
read when it is a tenth through and at the end. For a million events: ``--events 1000000``.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import statistics
import tempfile
import time
from typing import Any

import attrs
import psutil
import rich_click as click
from rich.console import Console
from rich.table import Table

from pyglyn import eventsourcing as es
from pyglyn.eventsourcing import glyn
from pyglyn.node import Node
from pyglyn.testing import PrivateEpmd, eventually
from pyglyn.testing.bank import (
    AccountOpened,
    BankAccount,
    BankAccountEvent,
    CustomerDepositedCash,
    DepositMoney,
    OpenAccount,
    apply,
    handle,
)

CONFIG = glyn.GlynConfig(pubsub_scope="bench", pubsub_group="bank")


@attrs.frozen
class Latency:
    """From commit to effect on another node: milliseconds, and how many went through a second."""

    store: str
    events: int
    rate: float
    p50_ms: float
    p99_ms: float


@attrs.frozen
class CaughtUp:
    """A durable query over a log: its rate, and the memory of its OS process on the way."""

    events: int
    rate: float
    early_mib: float
    end_mib: float


def bank(url: str) -> es.EventStore[Any, Any]:
    return es.open_store(url, events=BankAccountEvent, state=BankAccount, aggregate_type="BankAccount")


class Stamped(glyn.GlynStore[Any, Any]):
    """Notes when each event was committed."""

    committed: dict[tuple[str, int], float]

    async def broadcast(self, aggregate_id: str, envelopes: Any, written: Any) -> None:
        now = time.perf_counter()
        for envelope in envelopes:
            self.committed[aggregate_id, envelope.sequence] = now
        await super().broadcast(aggregate_id, envelopes, written)


async def latency(url: str, commands: int, clients: int) -> Latency:
    """Execute commands and measure when each event has its effect."""
    cookie, took = secrets.token_hex(8), []
    finished = asyncio.Event()
    async with (
        Node(f"bench_{secrets.token_hex(3)}@localhost", cookie=cookie) as here,
        Node(f"bench_{secrets.token_hex(3)}@localhost", cookie=cookie) as there,
    ):
        store = Stamped(CONFIG, bank(url), BankAccountEvent)
        store.committed = {}
        made = es.service("bank", store, handle=handle, apply=apply, empty_state=BankAccount())
        accounts = await es.start(here, made)

        async def effect(aggregate_id: str, envelopes: list[Any]) -> None:
            now = time.perf_counter()
            took.extend(now - store.committed[aggregate_id, each.sequence] for each in envelopes)
            if len(took) == commands + clients:
                finished.set()

        far = await glyn.start(there, CONFIG, es.MemoryStore(), [("effect", effect)], BankAccountEvent)
        await here.connect(there.name)
        await eventually(lambda: glyn.subscribers(CONFIG, at=here))
        names = [f"account-{number}" for number in range(clients)]
        started = time.perf_counter()

        async def client(name: str) -> None:
            await accounts.execute(name, OpenAccount(name), timeout=60)
            for _ in range(commands // clients):
                await accounts.execute(name, DepositMoney(1.0), timeout=60)

        await asyncio.gather(*map(client, names))
        async with asyncio.timeout(60):
            await finished.wait()
        seconds = time.perf_counter() - started
        await far.close()
    cuts = statistics.quantiles(took, n=100)
    return Latency(url.partition(":")[0], len(took), len(took) / seconds, cuts[49] * 1000, cuts[98] * 1000)


def resident_mib() -> float:
    return float(psutil.Process().memory_info().rss) / 2**20


async def catch_up(folder: str, events: int) -> CaughtUp:
    """Write a log, then let a durable query read it."""
    url = f"sqlite:{folder}/log.db?synchronous=NORMAL"
    async with bank(url) as log:
        for start in range(0, events, 1000):
            batch: list[Any] = [AccountOpened("a")] if start == 0 else []
            batch += [CustomerDepositedCash(1.0, 1.0)] * (min(1000, events - start) - len(batch))
            await log.append("a", batch, expected=start)
        async with log.transaction() as tx:
            await tx.execute("CREATE TABLE total (events INT, amount FLOAT)")
            await tx.execute("INSERT INTO total VALUES (0, 0)")

    async def project(tx: es.Transaction[Any, Any], envelope: Any) -> None:
        amount = getattr(envelope.payload, "amount", 0.0)
        await tx.execute("UPDATE total SET events = events + 1, amount = amount + ?", (amount,))

    early = 0.0
    async with Node(f"bench_{secrets.token_hex(3)}@localhost", cookie="bench") as node:
        query = es.DurableQuery("total", project, store=bank(url), into=bank(url))
        started = time.perf_counter()
        await query.start(node)
        async with bank(url) as log:
            while (position := await log.checkpoint("total")) < events:
                if not early and position >= events // 10:
                    early = resident_mib()
                await asyncio.sleep(0.01)
            seconds = time.perf_counter() - started
            async with log.transaction() as tx:
                assert await tx.execute("SELECT events FROM total") == [(events,)]
    return CaughtUp(events, events / seconds, early, resident_mib())


@click.command()
@click.option("--commands", type=int, default=2000, show_default=True)
@click.option("--clients", type=int, default=20, show_default=True)
@click.option("--events", type=int, default=20_000, show_default=True)
def main(commands: int, clients: int, events: int) -> None:
    """Measure and print."""

    async def run() -> tuple[list[Latency], CaughtUp]:
        with PrivateEpmd() as epmd, tempfile.TemporaryDirectory() as folder:
            os.environ.update(epmd.env)
            urls = ("memory:", f"sqlite:{folder}/bank.db")
            latencies = [await latency(url, commands, clients) for url in urls]
            return latencies, await catch_up(folder, events)

    latencies, caught_up = asyncio.run(run())
    table = Table("store", "events", "events/s", "p50 ms", "p99 ms", title="commit to effect on another node")
    for each in latencies:
        table.add_row(
            each.store, str(each.events), f"{each.rate:,.0f}", f"{each.p50_ms:.2f}", f"{each.p99_ms:.2f}"
        )
    console = Console()
    console.print(table)
    console.print(
        f"catch-up of {caught_up.events:,} events with SQL effects: {caught_up.rate:,.0f}/s, "
        f"memory {caught_up.early_mib:.0f} MiB after a tenth, {caught_up.end_mib:.0f} MiB at the end"
    )


if __name__ == "__main__":
    main()
