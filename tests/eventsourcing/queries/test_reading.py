"""Subscriptions from outside, waiting for a query, where a query begins, and aggregates as they were."""

from __future__ import annotations

import asyncio
import datetime
from pathlib import Path
from typing import Any

import pytest

from pyglyn import eventsourcing as es
from pyglyn.errors import ActorTimeout, EntityNotFound, StoreUnavailable
from pyglyn.etf import Atom
from pyglyn.eventsourcing.queries.durable_server import DurableServer
from pyglyn.testing import eventually
from pyglyn.testing.bank import AccountOpened, BankAccount, DepositMoney, OpenAccount, apply, handle
from pyglyn.testing.waiting import patiently
from tests.eventsourcing.queries.totals import bank, deposits

pytestmark = pytest.mark.usefixtures("stores_closed")


async def test_a_subscription_yields_what_is_there_and_what_comes_through_an_outage(url, monkeypatch):
    store = bank(url)
    await deposits(store, "a", 3)
    got: list[tuple[str, int]] = []
    only: list[int] = []

    async def follow(into: Any, **options: Any) -> None:
        async for event in es.subscribe(store, **options):
            into(event)

    tasks = [
        asyncio.create_task(follow(lambda e: got.append((e.aggregate_id, e.sequence)), after=1, batch=2)),
        asyncio.create_task(follow(lambda e: only.append(e.sequence), aggregate_id="b")),
    ]
    await eventually(lambda: got == [("a", 2), ("a", 3)])
    read, outages = store.read, 3

    async def sometimes(*args: Any, **options: Any) -> Any:
        nonlocal outages
        if outages:
            outages -= 1
            raise StoreUnavailable("no connection")
        return await read(*args, **options)

    monkeypatch.setattr(store, "read", sometimes)
    await deposits(store, "b", 2)
    await eventually(lambda: got[2:] == [("b", 1), ("b", 2)])
    await eventually(lambda: only == [1, 2])
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_subscription_yields_nothing_that_was_read_ahead_of_a_file_that_was_replaced(tmp_path):
    path, restored = tmp_path / "bank.db", tmp_path / "restored.db"
    async with bank(f"sqlite:{restored}") as other:
        await deposits(other, "new", 60)
    async with bank(f"sqlite:{path}") as store:
        await deposits(store, "old", 60)
        events = es.subscribe(store, batch=10)
        for position in range(1, 11):
            assert (await anext(events)).position == position
        await store.read(0, limit=1)  # the thread has read the next ones before
        move(restored, path)
        after = await anext(events)
        assert (after.aggregate_id, after.position) == ("new", 11)
        await events.aclose()


def move(restored: Path, path: Path) -> None:
    for end in ("", "-wal", "-shm"):
        path.with_name(f"{path.name}{end}").unlink(missing_ok=True)
    restored.rename(path)


async def test_subscriptions_pass_by_nothing_that_was_none_of_theirs_in_a_file_that_was_replaced(tmp_path):
    """The store tells whoever asks it first; to another one it shows by where the new file ends."""
    path, restored = tmp_path / "bank.db", tmp_path / "restored.db"
    async with bank(f"sqlite:{restored}") as other:
        for id in ("b", "c", "d"):
            await other.append(id, [AccountOpened(id)], expected=0)
            await deposits(other, id, 19, start=1)
    async with bank(f"sqlite:{path}") as store:
        await store.append("old", [AccountOpened("old")], expected=0)
        await deposits(store, "old", 69, start=1)
        several = [es.subscribe(store, select=[AccountOpened]) for _ in range(2)]
        for events in several:
            assert (await anext(events)).position == 1
        move(restored, path)
        for events in several:
            async with asyncio.timeout(patiently(5)):
                assert (await anext(events)).position == 21
            await events.aclose()


async def test_one_waits_until_a_query_has_done_what_was_written(node, url):
    store = bank(url)
    await deposits(store, "a", 2)
    other = es.open_store(url, aggregate_type="other")
    await other.append("x", [{"n": 1}], expected=0)
    passes = asyncio.Semaphore(0)

    async def project(tx: Any, envelope: Any) -> None:
        await passes.acquire()

    limits = es.BatchLimits(seconds=1e-6)
    query = es.DurableQuery("totals", project, store=store, into=store, limits=limits, idempotent=True)
    await query.start(node)
    waiting = [asyncio.create_task(es.wait_for(node, "totals", at, timeout=60)) for at in (3, 1)]
    with pytest.raises(ActorTimeout):
        await es.wait_for(node, "totals", 2, timeout=0.05)
    passes.release()
    await waiting[1]
    assert not waiting[0].done()
    passes.release()
    await waiting[0]  # its position is an event of another type, which is none of the query's
    await es.wait_for(node, "totals", 0)
    await node.call("totals", (Atom("replay"), Atom("all")))
    again = asyncio.create_task(es.wait_for(node, "totals", 3, timeout=60))
    await asyncio.sleep(0.05)
    assert not again.done()
    passes.release()
    passes.release()
    await again
    await other.close()


@pytest.mark.parametrize("where", ["now", "position", "time"])
async def test_a_query_begins_where_it_is_told(node, url, where):
    store = bank(url)
    await deposits(store, "a", 3)
    await asyncio.sleep(0.02)
    start: Any = {"now": "now", "position": 3, "time": datetime.datetime.now(datetime.UTC)}[where]
    await asyncio.sleep(0.02)
    if where != "now":
        await deposits(store, "b", 2)
    seen: list[tuple[str, int]] = []

    async def project(tx: Any, envelope: Any) -> None:
        seen.append((envelope.aggregate_id, envelope.sequence))

    query = es.DurableQuery("totals", project, store=store, into=store, start=start)
    await query.start(node)

    async def begun() -> bool:
        return (await store.load_checkpoint("totals")).version > 0

    await eventually(begun)
    if where == "now":
        await deposits(store, "b", 2)
    await eventually(lambda: seen == [("b", 1), ("b", 2)])


async def test_an_aggregate_is_loaded_as_it_was(node, url):
    store = bank(url)
    made = es.service(
        "bank",
        store,
        handle=handle,
        apply=apply,
        empty_state=BankAccount(),
        snapshot_config=es.SnapshotConfig(2),
    )
    accounts = await es.start(node, made)
    await accounts.execute("a", OpenAccount("a"))
    for _ in range(3):
        await accounts.execute("a", DepositMoney(1.0))
    found = [(await accounts.load_aggregate("a", at=at)).entity.balance for at in (1, 2, 3, 4)]
    assert found == [0.0, 1.0, 2.0, 3.0]
    for missing in (0, 5, -1):
        with pytest.raises(EntityNotFound):
            await accounts.load_aggregate("a", at=missing)


async def test_only_so_many_may_wait_for_what_never_comes(node, tmp_path):
    store = es.open_store(f"sqlite:{tmp_path}/a.db", aggregate_type="t")
    await store.append("a", [{"n": 1}], expected=0)
    await store.set_paused("totals", True)
    query = es.DurableQuery("totals", _nothing, store=store)
    await node.start(DurableServer, query, name="totals", waiting=20)
    waiting = [asyncio.create_task(node.call("totals", (Atom("wait_for"), 1 << 60), None)) for _ in range(20)]
    with pytest.raises(es.StoreUnavailable, match="20 callers wait for query 'totals' already"):
        await es.wait_for(node, query, 1 << 60)
    assert es.QueryStatus.from_term(await node.call("totals", Atom("status"))).state == "paused"
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    await store.close()


def _nothing(id: str, envelopes: list[Any]) -> None:
    pass
