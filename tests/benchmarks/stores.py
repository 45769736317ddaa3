"""``python -m tests.benchmarks.stores``: event stores beside the Python ``eventsourcing`` package, in one run.

Commands a second: each loads a bank account, decides a deposit, appends its event. Every side does the same
number of commands on the same number of accounts, files and servers being on the same disk, with fsync. Then the
rate of a reader that catches up, and its memory on the way; then a durable query with one UPDATE an event.

Beside each rate is the CPU time of this OS process, all its threads, for one operation: on a machine that has other
things to do, that tells more than the rate. (What a PostgreSQL server takes is not in it.)
"""

from __future__ import annotations

import asyncio
import os
import secrets
import tempfile
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest import mock

import attrs
import psutil
import psycopg
import rich_click as click
from rich.console import Console
from rich.table import Table

from pyglyn import eventsourcing as es
from pyglyn.eventsourcing.queries.ahead import ReadAhead
from pyglyn.eventsourcing.stores.store import BATCH
from pyglyn.node import Node
from pyglyn.testing import PrivateEpmd
from pyglyn.testing.bank import BANK_ACCOUNT, BankAccount, BankAccountEvent, DepositMoney, OpenAccount
from pyglyn.testing.postgres import PrivatePostgres, private_schema, wheel_programs

PACKAGE = "eventsourcing"


@attrs.frozen
class Rate:
    """Operations a second of one side."""

    what: str
    side: str
    rate: float
    cpu_us: float


@attrs.frozen
class CatchUp:
    """A reader over many events: its rate, and its memory when it was a tenth through and at the end."""

    store: str
    side: str
    events: int
    rate: float
    cpu_us: float
    early_mib: float
    end_mib: float


class Stopwatch:
    """Wall clock and CPU time since it was made."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def of(self, operations: int) -> tuple[float, float]:
        """Return how many there were a second, and the CPU time of one in microseconds."""
        wall, cpu = time.perf_counter() - self._wall, time.process_time() - self._cpu
        return operations / wall, cpu / operations * 1e6


def bank(url: str) -> es.EventStore[Any, Any]:
    return es.open_store(url, events=BankAccountEvent, state=BankAccount, aggregate_type="BankAccount")


async def ours(url: str, commands: int, accounts: int, clients: int, cached: int) -> tuple[float, float]:
    """Return our commands a second, and their CPU time."""
    async with bank(url) as store:
        executor = es.CommandExecutor(store, BANK_ACCOUNT, cached=cached)
        names = [f"{os.urandom(4).hex()}-{n}" for n in range(accounts)]
        await asyncio.gather(*(executor.execute(name, OpenAccount(name)) for name in names))
        todo = iter(range(commands))

        async def client() -> None:
            for n in todo:
                await executor.execute(names[n % accounts], DepositMoney(1.0))

        watch = Stopwatch()
        await asyncio.gather(*(client() for _ in range(clients)))
        return watch.of(commands)


def theirs(environment: dict[str, str], commands: int, accounts: int, threads: int) -> tuple[float, float]:
    """Return the ``eventsourcing`` package's commands a second, and their CPU time."""
    from eventsourcing.application import Application

    from tests.benchmarks.eventsourcing_bank import Account

    application: Application[Any] = Application(environment)
    opened = [Account() for _ in range(accounts)]
    for account in opened:
        application.save(account)

    def deposit(n: int) -> None:
        account: Account = application.repository.get(opened[n % accounts].id)
        account.deposit(1.0)
        application.save(account)

    def work(thread: int) -> None:
        for n in range(commands):
            if n % accounts % threads == thread:  # threads do not meet on an account
                deposit(n)

    watch = Stopwatch()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, range(threads)))
    found = watch.of(commands)
    application.close()
    return found


def their_catch_up(name: str, environment: dict[str, str], events: int) -> CatchUp:
    """Fill one of the package's recorders, then read it all in order, as typed events."""
    from eventsourcing.application import Application
    from eventsourcing.persistence import StoredEvent

    from tests.benchmarks.eventsourcing_bank import Account

    application: Application[Any] = Application(environment)
    account = Account()
    for _ in range(min(events, 1000) - 1):
        account.deposit(1.0)
    template = [application.mapper.to_stored_event(event) for event in account.collect_events()]
    for start in range(0, events, len(template)):
        id = uuid.uuid4()
        several = template[: events - start]
        application.recorder.insert_events(
            [StoredEvent(id, each.originator_version, each.topic, each.state) for each in several]
        )
    process, early, seen, last = psutil.Process(), 0, 0, 0
    watch = Stopwatch()
    while seen < events:
        found = application.recorder.select_notifications(last, BATCH, inclusive_of_start=False)
        assert all(application.mapper.to_domain_event(each) is not None for each in found)
        seen, last = seen + len(found), found[-1].id
        if not early and seen >= events / 10:
            early = process.memory_info().rss
    rate, cpu = watch.of(events)
    application.close()
    end = process.memory_info().rss
    return CatchUp(name, "eventsourcing", events, rate, cpu, early / 2**20, end / 2**20)


def postgres_environment(url: str) -> dict[str, str]:
    """Return the package's settings for a server on a Unix socket."""
    parameters = psycopg.conninfo.conninfo_to_dict(url)
    return {
        "PERSISTENCE_MODULE": "eventsourcing.postgres",
        "POSTGRES_DBNAME": str(parameters["dbname"]),
        "POSTGRES_HOST": str(parameters["host"]),
        "POSTGRES_PORT": "5432",
        "POSTGRES_USER": str(parameters["user"]),
        "POSTGRES_PASSWORD": "none",
        "POSTGRES_POOL_SIZE": "10",
        "POSTGRES_MAX_OVERFLOW": "10",
    }


def commands(directory: Path, server: str | None, count: int) -> Iterator[Rate]:
    """Measure commands a second on every store."""
    stores = {"memory": "memory:", "SQLite": f"sqlite:{directory}/ours.db"}
    packages = {
        "memory": {"PERSISTENCE_MODULE": "eventsourcing.popo"},
        "SQLite": {"PERSISTENCE_MODULE": "eventsourcing.sqlite", "SQLITE_DBNAME": f"{directory}/theirs.db"},
    }
    if server is not None:
        stores["PostgreSQL"] = private_schema(server)
        packages["PostgreSQL"] = postgres_environment(server)
    accounts = max(1, count // 10)
    for name, url in stores.items():
        one, many = f"{name}, one client", f"{name}, 100 clients (the package: 10 threads)"
        yield Rate(one, "pyglyn", *asyncio.run(ours(url, count, accounts, 1, 0)))
        yield Rate(one, "pyglyn, cached", *asyncio.run(ours(url, count, accounts, 1, 10_000)))
        yield Rate(one, "eventsourcing", *theirs(packages[name], count, accounts, 1))
        yield Rate(many, "pyglyn", *asyncio.run(ours(url, count, accounts, 100, 0)))
        yield Rate(many, "pyglyn, cached", *asyncio.run(ours(url, count, accounts, 100, 10_000)))
        yield Rate(many, "eventsourcing", *theirs(packages[name], count, accounts, 10))


AT_ONCE = 10_000

# Each aggregate's thousand events one after the other, as the package's are written.
FILL_SQLITE = """
WITH RECURSIVE n (i) AS (SELECT ? UNION ALL SELECT i + 1 FROM n WHERE i < ?)
INSERT INTO event SELECT 'BankAccount', 'account-' || (i / 1000), 1 + i % 1000, 'BankAccountEvent', '1.0',
'{"event-type":"customer-deposited-cash","amount":1.5,"balance":' || i || '.25}', '[["service","bench"]]' FROM n
"""
FILL_POSTGRES = """
INSERT INTO event SELECT 'BankAccount', 'account-' || (i / 1000), 1 + i %% 1000, 'BankAccountEvent', '1.0',
'{"event-type":"customer-deposited-cash","amount":1.5,"balance":' || i || '.25}', '[["service","bench"]]'
FROM generate_series(%s::bigint, %s::bigint) AS n (i)
"""
ACCOUNTS = 1000
"""Rows that effects write to, in turn: those of one transaction are different ones."""


async def fill(store: es.EventStore[Any, Any], url: str, events: int) -> None:
    """Fill a store, in many transactions, and have its events numbered."""
    statement = FILL_SQLITE if url.startswith("sqlite") else FILL_POSTGRES
    for start in range(0, events, AT_ONCE):
        async with store.transaction() as tx:
            await tx.execute(statement, (start, min(start + AT_ONCE, events) - 1))
    await store.last_position()


def resident_mib() -> float:
    """Return the memory of this OS process."""
    return float(psutil.Process().memory_info().rss) / 2**20


async def catch_up(name: str, url: str, events: int) -> CatchUp:
    """Fill a store, then read it all by position."""
    process, early, seen = psutil.Process(), 0, 0
    async with bank(url) as store:
        await fill(store, url, events)
        watch, source = Stopwatch(), ReadAhead(store)
        after = 0
        while seen < events:
            batch = await source.read(after)
            assert all(event.envelope is not None for event in batch)
            seen, after = seen + len(batch), batch[-1].position
            if not early and seen >= events / 10:
                early = process.memory_info().rss
        rate, cpu = watch.of(events)
        await source.forget()
    end = process.memory_info().rss
    return CatchUp(name, "pyglyn", events, rate, cpu, early / 2**20, end / 2**20)


def updates(mark: str) -> dict[str, Callable[..., Any]]:
    """Return queries with one UPDATE an event, by how they are written."""
    statement = "UPDATE totals SET total = total + ? WHERE account = ?".replace("?", mark)

    def row(envelope: Any) -> tuple[float, str]:
        return envelope.payload.amount, f"account-{envelope.sequence % ACCOUNTS}"

    async def one(tx: es.Transaction[Any, Any], envelope: Any) -> None:
        await tx.execute(statement, row(envelope))

    def plain(cursor: es.Cursor, envelope: Any) -> None:
        cursor.execute(statement, row(envelope))

    async def batch(tx: es.Transaction[Any, Any], envelopes: list[Any]) -> None:
        await tx.execute_many(statement, map(row, envelopes))

    return {"async": one, "plain": plain, "batches": batch}


async def effects(name: str, url: str, events: int) -> list[Rate]:
    """Measure durable queries that write into the database of the events."""
    found: list[Rate] = []
    async with bank(url) as store:
        accounts = [(f"account-{number}",) for number in range(ACCOUNTS)]
        mark = "?" if url.startswith("sqlite") else "%s"
        async with store.transaction() as tx:
            await tx.execute("CREATE TABLE totals (account text PRIMARY KEY, total float)")
            await tx.execute_many(f"INSERT INTO totals VALUES ({mark}, 0)", accounts)
        await fill(store, url, events)
        end = await store.last_position()
        async with Node(f"bench_{secrets.token_hex(4)}@localhost", cookie="bench") as node:
            for side, function in updates(mark).items():
                query = es.DurableQuery(side, function, store=store, into=store, batches=side == "batches")
                watch = Stopwatch()
                await query.start(node)
                await es.wait_for(node, side, end, timeout=None)
                found.append(Rate(f"{name}, an UPDATE an event", side, *watch.of(events)))
                node.system.exit(node.whereis(side), "kill")
    return found


async def catch_ups(directory: Path, server: str | None, events: int) -> list[CatchUp]:
    """Measure catching up on SQLite and PostgreSQL, beside the package."""
    jobs: list[Callable[[], Awaitable[CatchUp]]] = [
        lambda: catch_up("SQLite", f"sqlite:{directory}/many.db", events)
    ]
    if server is not None:
        url = private_schema(server)
        jobs.append(lambda: catch_up("PostgreSQL", url, events))
    found = [await job() for job in jobs]
    sqlite = {"PERSISTENCE_MODULE": "eventsourcing.sqlite", "SQLITE_DBNAME": f"{directory}/many_theirs.db"}
    found.append(their_catch_up("SQLite", sqlite, events))
    if server is not None:
        found.append(their_catch_up("PostgreSQL", of_its_own(server), events))
    return found


def of_its_own(server: str) -> dict[str, str]:
    """Have the package's tables in a schema that the commands have not used."""
    with psycopg.connect(private_schema(server)) as connection:
        row = connection.execute("SELECT current_schema()").fetchone()
    assert row is not None
    return {**postgres_environment(server), "POSTGRES_SCHEMA": row[0]}


async def all_effects(directory: Path, server: str | None, events: int) -> list[Rate]:
    """Measure queries into SQL on SQLite and PostgreSQL."""
    found = await effects("SQLite", f"sqlite:{directory}/effects.db", events)
    if server is not None:
        found += await effects("PostgreSQL", private_schema(server), events)
    return found


def _rates(title: str, rates: list[Rate]) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("what")
    sides = list(dict.fromkeys(rate.side for rate in rates))
    for side in sides:
        table.add_column(side, justify="right")
        table.add_column("CPU µs", justify="right")
    package = sides[-1] == PACKAGE
    if package:
        table.add_column("ratio", justify="right")
        table.add_column("of CPU", justify="right")
    for what in dict.fromkeys(rate.what for rate in rates):
        found = {rate.side: rate for rate in rates if rate.what == what}
        cells = [
            text for side in sides for text in (f"{found[side].rate:,.0f}", f"{found[side].cpu_us:,.0f}")
        ]
        if package:
            ours, theirs = found[sides[-2]], found[PACKAGE]
            cells += [f"{ours.rate / theirs.rate:.2f}", f"{ours.cpu_us / theirs.cpu_us:.2f}"]
        table.add_row(what, *cells)
    return table


def show(rates: list[Rate], caught_up: list[CatchUp], written: list[Rate], console: Console) -> None:
    """Print the tables; a ratio is ours, cached, by the package's."""
    console.print(_rates("commands a second", rates))
    table = Table(title="catching up by position", title_justify="left")
    for column in (
        "store",
        "side",
        "events",
        "events /s",
        "CPU µs",
        "ratio",
        "MiB at 10 %",
        "MiB at the end",
    ):
        table.add_column(column, justify="right")
    for row in caught_up:
        theirs = next(each for each in caught_up if (each.store, each.side) == (row.store, PACKAGE))
        cells = (f"{row.events:,}", f"{row.rate:,.0f}", f"{row.cpu_us:.1f}", f"{row.rate / theirs.rate:.2f}")
        table.add_row(row.store, row.side, *cells, f"{row.early_mib:,.0f}", f"{row.end_mib:,.0f}")
    console.print(table)
    console.print(_rates("a durable query into SQL, events a second", written))


def measure(count: int, events: int, server: str | None) -> tuple[list[Rate], list[CatchUp], list[Rate]]:
    """Measure everything in a temporary directory."""
    with tempfile.TemporaryDirectory(prefix="pyglyn-bench-") as directory:
        rates = list(commands(Path(directory), server, count))
        caught_up = asyncio.run(catch_ups(Path(directory), server, events))
        with PrivateEpmd() as epmd, mock.patch.dict(os.environ, epmd.env):
            written = asyncio.run(all_effects(Path(directory), server, max(1, events // 10)))
        return rates, caught_up, written


@click.command()
@click.option("--commands", "count", default=2000, help="How many commands each side carries out.")
@click.option("--events", default=100_000, help="How many events the reader catches up.")
def main(count: int, events: int) -> None:
    """Measure the event stores beside the ``eventsourcing`` package."""
    programs = wheel_programs()
    if programs is None:
        show(*measure(count, events, None), Console())
        return
    with PrivatePostgres(programs) as server:
        show(*measure(count, events, server.url), Console())


if __name__ == "__main__":
    main()
