"""``python -m tests.benchmarks.stores``: event stores beside the Python ``eventsourcing`` package, in one run.

Commands a second: each loads a bank account, decides a deposit, appends its event. Every side does the same
number of commands on the same number of accounts, files and servers being on the same disk, with fsync. Then the
rate of a reader that catches up, and its memory on the way.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import attrs
import psutil
import psycopg
import rich_click as click
from rich.console import Console
from rich.table import Table

from pyglyn import eventsourcing as es
from pyglyn.testing.bank import BANK_ACCOUNT, BankAccount, BankAccountEvent, DepositMoney, OpenAccount
from pyglyn.testing.postgres import PrivatePostgres, private_schema, wheel_programs


@attrs.frozen
class Rate:
    """Operations a second of one side."""

    what: str
    side: str
    rate: float


@attrs.frozen
class CatchUp:
    """A reader over many events: its rate, and its memory when it was a tenth through and at the end."""

    store: str
    events: int
    rate: float
    early_mib: float
    end_mib: float


def bank(url: str) -> es.EventStore[Any, Any]:
    return es.open_store(url, events=BankAccountEvent, state=BankAccount, aggregate_type="BankAccount")


async def ours(url: str, commands: int, accounts: int, clients: int, cached: int) -> float:
    """Return our commands a second."""
    async with bank(url) as store:
        executor = es.CommandExecutor(store, BANK_ACCOUNT, cached=cached)
        names = [f"{os.urandom(4).hex()}-{n}" for n in range(accounts)]
        await asyncio.gather(*(executor.execute(name, OpenAccount(name)) for name in names))
        todo = iter(range(commands))

        async def client() -> None:
            for n in todo:
                await executor.execute(names[n % accounts], DepositMoney(1.0))

        start = time.perf_counter()
        await asyncio.gather(*(client() for _ in range(clients)))
        return commands / (time.perf_counter() - start)


def theirs(environment: dict[str, str], commands: int, accounts: int, threads: int) -> float:
    """Return the ``eventsourcing`` package's commands a second."""
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

    start = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, range(threads)))
    rate = commands / (time.perf_counter() - start)
    application.close()
    return rate


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
        yield Rate(one, "pyglyn", asyncio.run(ours(url, count, accounts, 1, 0)))
        yield Rate(one, "pyglyn, cached", asyncio.run(ours(url, count, accounts, 1, 10_000)))
        yield Rate(one, "eventsourcing", theirs(packages[name], count, accounts, 1))
        yield Rate(many, "pyglyn", asyncio.run(ours(url, count, accounts, 100, 0)))
        yield Rate(many, "pyglyn, cached", asyncio.run(ours(url, count, accounts, 100, 10_000)))
        yield Rate(many, "eventsourcing", theirs(packages[name], count, accounts, 10))


FILL_SQLITE = """
WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)
INSERT INTO event SELECT 'BankAccount', 'account-' || (i % 1000), 1 + i / 1000, 'BankAccountEvent', '1.0',
'{"event-type":"customer-deposited-cash","amount":1.5,"balance":' || i || '.25}', '[["service","bench"]]' FROM n
"""
FILL_POSTGRES = """
INSERT INTO event SELECT 'BankAccount', 'account-' || (i %% 1000), 1 + i / 1000, 'BankAccountEvent', '1.0',
'{"event-type":"customer-deposited-cash","amount":1.5,"balance":' || i || '.25}', '[["service","bench"]]'
FROM generate_series(1, %s) AS n (i)
"""


async def catch_up(name: str, url: str, fill: str, events: int) -> CatchUp:
    """Fill a store with one statement, then read it all by position."""
    process, early, seen = psutil.Process(), 0, 0
    async with bank(url) as store:
        async with store.transaction() as tx:
            await tx.execute(fill, (events,))
        start = time.perf_counter()
        async for batch in store.follow():
            assert all(event.envelope is not None for event in batch)
            seen += len(batch)
            if not early and seen >= events / 10:
                early = process.memory_info().rss
            if seen >= events:
                break
        rate = events / (time.perf_counter() - start)
    return CatchUp(name, events, rate, early / 2**20, process.memory_info().rss / 2**20)


async def catch_ups(directory: Path, server: str | None, events: int) -> list[CatchUp]:
    """Measure catching up on SQLite and PostgreSQL."""
    jobs: list[Callable[[], Awaitable[CatchUp]]] = [
        lambda: catch_up("SQLite", f"sqlite:{directory}/many.db", FILL_SQLITE, events)
    ]
    if server is not None:
        url = private_schema(server)
        jobs.append(lambda: catch_up("PostgreSQL", url, FILL_POSTGRES, events))
    return [await job() for job in jobs]


def show(rates: list[Rate], caught_up: list[CatchUp], console: Console) -> None:
    """Print both tables."""
    table = Table(title="commands a second", title_justify="left")
    table.add_column("what")
    sides = list(dict.fromkeys(rate.side for rate in rates))
    for side in sides:
        table.add_column(side, justify="right")
    for what in dict.fromkeys(rate.what for rate in rates):
        found = {rate.side: rate.rate for rate in rates if rate.what == what}
        table.add_row(what, *(f"{found[side]:,.0f}" for side in sides))
    console.print(table)
    table = Table(title="catching up by position", title_justify="left")
    for column in ("store", "events", "events /s", "MiB at 10 %", "MiB at the end"):
        table.add_column(column, justify="right")
    for row in caught_up:
        cells = (f"{row.events:,}", f"{row.rate:,.0f}", f"{row.early_mib:,.0f}", f"{row.end_mib:,.0f}")
        table.add_row(row.store, *cells)
    console.print(table)


def measure(count: int, events: int, server: str | None) -> tuple[list[Rate], list[CatchUp]]:
    """Measure everything in a temporary directory."""
    with tempfile.TemporaryDirectory(prefix="pyglyn-bench-") as directory:
        rates = list(commands(Path(directory), server, count))
        return rates, asyncio.run(catch_ups(Path(directory), server, events))


@click.command()
@click.option("--commands", "count", default=2000, help="How many commands each side carries out.")
@click.option("--events", default=1_000_000, help="How many events the reader catches up.")
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
