"""What a durable query says of itself, and that its batches let others write."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from pyglyn import eventsourcing as es
from pyglyn.etf import Atom
from pyglyn.eventsourcing.queries.durable_server import DurableServer
from pyglyn.testing import eventually
from tests.eventsourcing.queries.totals import QUICK, Totals, bank, deposits, has_state, status

pytestmark = pytest.mark.usefixtures("stores_closed")


class Gate:
    """A query's function that lets through as many events as it is told."""

    def __init__(self) -> None:
        self.seen: list[Any] = []
        self.passes = asyncio.Semaphore(0)

    async def __call__(self, tx: Any, envelope: Any) -> None:
        await self.passes.acquire()
        self.seen.append(envelope)

    def open(self, count: int) -> None:
        for _ in range(count):
            self.passes.release()


async def reads(node: Any, state: str, lag: int) -> None:
    async def equal() -> bool:
        found = await status(node)
        assert (found.state, found.lag) == (state, lag)
        return True

    await eventually(equal)


async def test_it_is_catching_up_until_all_is_done_and_the_lag_is_what_is_not(node, url):
    store, gate = bank(url), Gate()
    await deposits(store, "a", 5)
    other = es.open_store(url, events=None, aggregate_type="other")
    await other.append("x", [{"n": 1}], expected=0)
    limits = es.BatchLimits(seconds=1e-6, idle_after=0.001)
    query = es.DurableQuery("totals", gate, store=store, into=store, limits=limits, idempotent=True)
    await query.start(node)
    await reads(node, "catching up", 6)
    gate.open(3)
    await reads(node, "catching up", 3)
    gate.open(2)
    await reads(node, "idle", 0)
    await deposits(store, "a", 1, start=5)
    await reads(node, "live", 2)
    gate.open(1)
    await reads(node, "idle", 0)
    assert await node.call("totals", (Atom("replay"), b"a")) == (Atom("ok"), 0)
    found = await status(node)
    assert found.state in ("catching up", "loading")
    gate.open(2)

    async def two_left_out() -> bool:
        found = await status(node)
        assert (found.state, found.lag, len(gate.seen)) == ("catching up", 5, 8)
        return True

    await eventually(two_left_out)
    gate.open(4)
    await reads(node, "idle", 0)
    await other.close()


@pytest.mark.parametrize("plain", [False, True], ids=["async", "plain"])
async def test_a_slow_batch_is_committed_before_it_is_full(node, url, plain):
    """So that commands on the same SQLite file get their turn."""
    store = bank(url)
    totals = Totals(store, url)
    await totals.create()
    await deposits(store, "a", 4)
    limits = es.BatchLimits(seconds=1e-6)
    function = totals.project_plainly if plain else totals.project
    at: list[float] = []
    update = store.reopen

    async def committed() -> bool:
        at.append((await status(node)).position or 0)
        return at[-1] == 4

    assert update is not None
    query = es.DurableQuery("totals", function, store=store, into=store, limits=limits)
    versions = await store.load_checkpoint("totals")
    await query.start(node)
    await eventually(committed)
    assert (await store.load_checkpoint("totals")).version == versions.version + 4, "one commit an event"
    await totals.become({"a": (4, 4.0)})


async def test_commands_are_carried_out_while_a_query_catches_up_in_the_same_file(node, tmp_path):
    """Its writer waits for less than a batch of slow events takes."""
    url = f"sqlite:{tmp_path}/bank.db"
    store = bank(f"{url}?busy_timeout=2")
    await deposits(store, "a", 400)
    seen = 0

    async def slow(tx: Any, envelope: Any) -> None:
        nonlocal seen
        await asyncio.sleep(0.02)
        seen += 1

    await es.DurableQuery("totals", slow, store=store, into=store).start(node)
    await eventually(lambda: seen)
    for number in range(5):
        await deposits(store, f"b{number}", 1)
    assert seen < 400


async def test_a_query_makes_its_tables_when_its_database_is_there(node, url):
    store = bank(url)
    totals = Totals(store, url)
    await deposits(store, "a", 2)
    away = True

    async def prepare(tx: es.Transaction[Any, Any]) -> None:
        if away:
            raise es.StoreUnavailable("no connection")
        await tx.execute(
            "CREATE TABLE IF NOT EXISTS totals (account TEXT PRIMARY KEY, events INT, total FLOAT)"
        )

    await es.DurableQuery("totals", totals.project, store=store, into=store, prepare=prepare).start(node)
    await has_state(node, "stuck")
    away = False
    await has_state(node, "live")
    await totals.become({"a": (2, 2.0)})


async def test_a_query_that_tries_again_complains_once(node, url, caplog):
    caplog.set_level(logging.INFO, logger="pyglyn.eventsourcing")
    store = bank(url)
    attempts = 0

    async def prepare(tx: es.Transaction[Any, Any]) -> None:
        nonlocal attempts
        attempts += 1
        if attempts < 20:
            raise es.StoreUnavailable("no connection")

    async def function(tx: Any, envelope: Any) -> None:
        pass

    query = es.DurableQuery("totals", function, store=store, into=store, prepare=prepare, policy=QUICK)
    soon = es.FailurePolicy(retries=None, first=0.001, longest=0.002)
    await node.start(DurableServer, query, name="totals", unavailable=soon)
    await has_state(node, "idle")
    lines = [record.getMessage() for record in caplog.records]
    assert lines.count("query totals: no connection") == 1
    assert lines.count("query totals goes on") == 1


async def test_a_function_that_fails_says_where_in_the_log(node, url, caplog):
    store = bank(url)
    totals = Totals(store, url)
    await totals.create()
    await deposits(store, "a", 1)
    totals.fail = lambda envelope: True
    query = es.DurableQuery("totals", totals.project, store=store, into=store, policy=QUICK)
    await query.start(node)
    await eventually(lambda: "parks event" in caplog.text)
    assert caplog.text.count("query totals: failed: KeyError: 'no such thing'") == 1
    assert "in parameters" in caplog.text
    assert caplog.text.count("Traceback") == 1
