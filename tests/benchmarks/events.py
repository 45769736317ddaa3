"""``python -m tests.benchmarks.events``: the speed of event sourcing, in one table with its goals and floors.

Beside the Python ``eventsourcing`` package where that does the same: same durability, same number of commands and
accounts, both in turn, the ratio the middle one of the rounds. Elsewhere beside what nothing can be quicker than
(:mod:`tests.benchmarks.floors`). Each measurement is an OS process of its own; where a node and its driver are
measured, they are two. ``--million`` has a reader and a durable query catch up with 1,000,000 events, and tells
their memory when they were a tenth through and at the end.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import secrets
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, TypeVar
from unittest import mock

import attrs
import rich_click as click
from rich.console import Console
from rich.table import Table

from pyglyn import eventsourcing as es
from pyglyn.node import Node
from pyglyn.testing import PrivateEpmd
from pyglyn.testing.postgres import PrivatePostgres, private_schema, wheel_programs
from tests.benchmarks import floors, hub, machine, reacting, stores

T = TypeVar("T")

GOALS = {
    ("memory", 1): 3.0,
    ("SQLite", 1): 1.2,
    ("PostgreSQL", 1): 2.5,
    ("memory", 100): 5.0,
    ("SQLite", 100): 6.0,
    ("PostgreSQL", 100): 5.0,
}
READING_GOAL = 1.6
EFFECT_GOALS = {"SQLite": 50_000, "PostgreSQL": 12_000}
REACTION_GOAL_MS = 2.0
HUB_GOAL_US = 50.0


@attrs.frozen(kw_only=True)
class Row:
    """One line: what was measured, beside what, and what it is to be."""

    what: str
    ours: str
    beside: str
    result: str
    goal: str
    reached: bool
    more: str = ""


def apart(function: Callable[..., T], *arguments: Any) -> T:
    """Call a function in an OS process of its own."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) as pool:
        return pool.submit(function, *arguments).result()


def our_commands(url: str, count: int, accounts: int, clients: int) -> tuple[float, float]:
    return asyncio.run(stores.ours(url, count, accounts, clients, 10_000))


def our_reading(name: str, url: str, events: int) -> stores.CatchUp:
    return asyncio.run(stores.catch_up(name, url, events))


def our_effects(name: str, url: str, events: int) -> list[stores.Rate]:
    return asyncio.run(stores.effects(name, url, events))


def reaction(name: str, url: str, commits: int) -> reacting.Reaction:
    return asyncio.run(reacting.measure(name, url, commits))


def hub_cost(commands: int) -> hub.HubCost:
    return asyncio.run(hub.measure(commands))


@attrs.frozen
class Places:
    """Where things are done.

    Attributes:
        folder: for databases in files.
        server: a PostgreSQL server, if there is one.
        call: calls a function, in an OS process of its own.
    """

    folder: Path
    server: str | None
    call: Callable[..., Any] = apart

    def url(self, store: str) -> str:
        """Return a place for one more store of ours."""
        if store == "memory":
            return "memory:"
        if store == "SQLite":
            return f"sqlite:{self.folder}/{secrets.token_hex(4)}.db"
        assert self.server is not None
        return private_schema(self.server)

    def environment(self, store: str) -> dict[str, str]:
        """Return a place for one more store of the package."""
        if store == "memory":
            return {"PERSISTENCE_MODULE": "eventsourcing.popo"}
        if store == "SQLite":
            path = f"{self.folder}/{secrets.token_hex(4)}.db"
            return {"PERSISTENCE_MODULE": "eventsourcing.sqlite", "SQLITE_DBNAME": path}
        assert self.server is not None
        return stores.of_its_own(self.server)

    @property
    def databases(self) -> list[str]:
        return ["SQLite", "PostgreSQL"] if self.server is not None else ["SQLite"]


def commands(places: Places, count: int, rounds: int) -> Iterator[Row]:
    """Commands a second: load, decide, append."""
    accounts = max(1, count // 10)
    for clients in (1, 100):
        for store in ("memory", *places.databases):
            many = count * 10 if store == "memory" else count
            ours, theirs = [], []
            for _ in range(rounds):
                ours.append(places.call(our_commands, places.url(store), many, accounts, clients))
                environment = places.environment(store)
                theirs.append(places.call(stores.theirs, environment, many, accounts, min(clients, 10)))
            goal = GOALS[store, clients]
            ratio = statistics.median(a[0] / b[0] for a, b in zip(ours, theirs, strict=True))
            cpu = statistics.median(b[1] / a[1] for a, b in zip(ours, theirs, strict=True))
            yield Row(
                what=f"commands, {'one client' if clients == 1 else '100 clients'}, {store}",
                ours=f"{max(each[0] for each in ours):,.0f}/s",
                beside=f"package {max(each[0] for each in theirs):,.0f}/s",
                result=f"{ratio:.2f}",
                goal=f"≥ {goal}",
                reached=ratio >= goal,
                more=f"CPU {min(each[1] for each in ours):.0f} µs, by that {cpu:.2f}",
            )


def reading(places: Places, events: int, rounds: int) -> Iterator[Row]:
    """Events a second of a reader by position."""
    for store in places.databases:
        ours, theirs = [], []
        for _ in range(rounds):
            ours.append(places.call(our_reading, store, places.url(store), events))
            theirs.append(places.call(stores.their_catch_up, store, places.environment(store), events))
        ratio = statistics.median(a.rate / b.rate for a, b in zip(ours, theirs, strict=True))
        last, best = ours[-1], max(each.rate for each in ours)
        yield Row(
            what=f"reading {events:,} events, {store}",
            ours=f"{best:,.0f}/s",
            beside=f"package {max(each.rate for each in theirs):,.0f}/s",
            result=f"{ratio:.2f}",
            goal=f"≥ {READING_GOAL}",
            reached=ratio >= READING_GOAL,
            more=f"CPU {min(each.cpu_us for each in ours):.1f} µs against"
            f" {min(each.cpu_us for each in theirs):.1f}; "
            f"{last.early_mib:.0f} MiB after a tenth, {last.end_mib:.0f} at the end",
        )


def effects(places: Places, events: int) -> Iterator[Row]:
    """Events a second of durable queries with one UPDATE an event."""
    for store in places.databases:
        floor = (
            places.call(floors.sqlite_updates, places.folder)
            if store == "SQLite"
            else places.call(floors.postgres_updates, places.url(store))
        )
        for rate in places.call(our_effects, store, places.url(store), events):
            yield Row(
                what=f"a durable query into {store}, one UPDATE an event, {rate.side}",
                ours=f"{rate.rate:,.0f}/s",
                beside=f"floor {floor:,.0f}/s",
                result=f"{rate.rate:,.0f}/s",
                goal=f"≥ {EFFECT_GOALS[store]:,}/s",
                reached=rate.rate >= EFFECT_GOALS[store],
                more=f"CPU {rate.cpu_us:.1f} µs",
            )


def reactions(places: Places, commits: int) -> Iterator[Row]:
    """From commit to effect in another OS process."""
    for store in places.databases:
        found = places.call(reaction, store, places.url(store), commits)
        yield Row(
            what=f"commit to effect in another OS process, {store}",
            ours=f"p99 {found.p99_ms:.2f} ms",
            beside="",
            result=f"p50 {found.p50_ms:.2f} ms",
            goal=f"≤ {REACTION_GOAL_MS} ms",
            reached=found.p50_ms <= REACTION_GOAL_MS,
            more=f"p50 {found.in_all_ms:.2f} ms with the commit; CPU {found.cpu_us:.0f} µs, waiting included",
        )


def hub_row(places: Places, count: int) -> Row:
    """CPU time of a command in the hub beyond the executor's."""
    found = places.call(hub_cost, count)
    return Row(
        what="CPU of a command in the hub beyond the executor",
        ours=f"{found.hub_us:.0f} µs",
        beside=f"executor {found.executor_us:.0f} µs",
        result=f"{found.beyond_us:.0f} µs",
        goal=f"≤ {HUB_GOAL_US:.0f} µs",
        reached=found.beyond_us <= HUB_GOAL_US,
    )


def decoding_floors(places: Places, events: int) -> Iterator[Row]:
    """What reading cannot be quicker than."""
    rates = {
        "JSON without types": places.call(floors.json_alone),
        "typed decoding": places.call(floors.typed_decoding),
    }
    if places.server is not None:
        url = places.url("PostgreSQL")
        places.call(our_reading, "PostgreSQL", url, events)
        rates["COPY out of PostgreSQL"] = places.call(floors.postgres_copy, url, events)
    for name, rate in rates.items():
        yield Row(what=f"floor: {name}", ours=f"{rate:,.0f}/s", beside="", result="", goal="", reached=True)


def durable_catch_up(name: str, url: str, events: int) -> stores.CatchUp:
    """Have a durable query catch up, and tell the memory of its OS process on the way."""

    async def run() -> stores.CatchUp:
        async with stores.bank(url) as store:
            await stores.fill(store, url, events)
            async with store.transaction() as tx:
                await tx.execute("CREATE TABLE total (events bigint, amount float)")
                await tx.execute("INSERT INTO total VALUES (0, 0)")
            mark = "?" if url.startswith("sqlite") else "%s"

            def project(cursor: es.Cursor, envelopes: list[Any]) -> None:
                cursor.execute(
                    f"UPDATE total SET events = events + {len(envelopes)}, amount = amount + {mark}",
                    (sum(each.payload.amount for each in envelopes),),
                )

            async with Node(f"bench_{secrets.token_hex(4)}@localhost", cookie="bench") as node:
                query = es.DurableQuery("total", project, store=store, into=store, batches=True)
                watch = stores.Stopwatch()
                await query.start(node)
                await es.wait_for(node, "total", events // 10, timeout=None)
                early = stores.resident_mib()
                await es.wait_for(node, "total", await store.last_position(), timeout=None)
                rate, cpu = watch.of(events)
                async with store.transaction() as tx:
                    assert await tx.execute("SELECT events FROM total") == [(events,)]
        return stores.CatchUp(name, "durable query", events, rate, cpu, early, stores.resident_mib())

    return asyncio.run(run())


def million(places: Places, events: int) -> Iterator[Row]:
    """A durable query that catches up with many events: its rate, and its memory on the way."""
    for store in places.databases:
        found = places.call(durable_catch_up, store, places.url(store), events)
        growth = found.end_mib - found.early_mib
        yield Row(
            what=f"a durable query catches up with {events:,} events, {store}",
            ours=f"{found.rate:,.0f}/s",
            beside=f"{found.early_mib:.0f} MiB after a tenth",
            result=f"{found.end_mib:.0f} MiB at the end",
            goal="flat",
            reached=growth < 10,
            more=f"CPU {found.cpu_us:.1f} µs",
        )


@attrs.frozen(kw_only=True)
class Sizes:
    """How much of each."""

    commands: int = 1000
    events: int = 100_000
    effects: int = 20_000
    commits: int = 200
    rounds: int = 3
    sample: int = 50_000
    million: int = 0


def measure(places: Places, sizes: Sizes) -> Iterator[Row]:
    """Measure everything, line by line."""
    yield from decoding_floors(places, sizes.sample)
    yield from commands(places, sizes.commands, sizes.rounds)
    yield from reading(places, sizes.events, sizes.rounds)
    yield from effects(places, sizes.effects)
    yield from reactions(places, sizes.commits)
    yield hub_row(places, sizes.commands * 2)
    if sizes.million:
        yield from million(places, sizes.million)


def table(rows: list[Row]) -> Table:
    """Set the lines in a table."""
    made = Table(title="event sourcing", title_justify="left")
    for column in ("what", "ours", "beside", "result", "goal", "", "more"):
        made.add_column(column)
    for row in rows:
        reached = "" if not row.goal else "yes" if row.reached else "[bold]no[/]"
        made.add_row(row.what, row.ours, row.beside, row.result, row.goal, reached, row.more)
    return made


@click.command()
@click.option("--commands", type=int, default=1000, show_default=True, help="Commands of each side.")
@click.option("--events", type=int, default=100_000, show_default=True, help="Events that are read.")
@click.option("--rounds", type=int, default=3, show_default=True, help="How often both sides take turns.")
@click.option("--million", is_flag=True, help="Read 1,000,000 events, and tell the memory that takes.")
def main(commands: int, events: int, rounds: int, million: bool) -> None:
    """Measure, and print a table."""
    console, began = Console(), time.perf_counter()
    many = 1_000_000 if million else 0
    sizes = Sizes(commands=commands, events=many or events, rounds=1 if million else rounds, million=many)
    rows: list[Row] = []

    def run(folder: str, server: str | None) -> None:
        for row in measure(Places(Path(folder), server), sizes):
            console.print(f"{row.what}: {row.ours} {row.beside} {row.result}", style="dim")
            rows.append(row)

    with (
        tempfile.TemporaryDirectory(prefix="pyglyn-bench-") as folder,
        PrivateEpmd() as epmd,
        mock.patch.dict(os.environ, epmd.env),
    ):
        programs = wheel_programs()
        if programs is None:
            run(folder, None)
        else:
            with PrivatePostgres(programs) as server:
                run(folder, server.url)
    console.print(f"{machine.describe()}; {time.perf_counter() - began:.0f} s", soft_wrap=True)
    console.print(table(rows), soft_wrap=True)


if __name__ == "__main__":
    main()
