"""Queries that get a part of the events: by type, by tag, by aggregate; and all of a transaction at once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import attrs
import pytest

from pyglyn import eventsourcing as es
from pyglyn import supervision
from pyglyn.errors import EventStoreError, NonPositiveArgument
from pyglyn.etf import Atom
from pyglyn.eventsourcing.queries.selected import SelectedEvents, SelectedFacts
from pyglyn.eventsourcing.stores.selection import Selection, part_of
from pyglyn.supervision import Supervisor
from pyglyn.testing import eventually
from pyglyn.testing.bank import AccountOpened, CustomerDepositedCash
from tests.eventsourcing.queries.totals import (
    QUICK,
    Totals,
    bank,
    deposits,
    has_state,
    parked,
    status,
)

pytestmark = pytest.mark.usefixtures("stores_closed")


def in_batches(totals: Totals, sizes: list[int]) -> Any:
    async def project(tx: es.Transaction[Any, Any], envelopes: list[Any]) -> None:
        sizes.append(len(envelopes))
        for envelope in envelopes:
            await totals.project(tx, envelope)

    return project


def plainly_in_batches(totals: Totals, sizes: list[int]) -> Any:
    def project(cursor: es.Cursor, envelopes: list[Any]) -> None:
        sizes.append(len(envelopes))
        for envelope in envelopes:
            totals.project_plainly(cursor, envelope)

    return project


@pytest.mark.parametrize("made", [in_batches, plainly_in_batches], ids=["async", "plain"])
async def test_a_function_of_batches_gets_a_transaction_of_events_and_the_failing_one_is_found(
    node, url, made
):
    store = bank(url)
    totals, sizes = Totals(store, url), list[int]()
    await totals.create()
    await deposits(store, "a", 100)
    await deposits(store, "b", 100)
    totals.fail = lambda envelope: (envelope.aggregate_id, envelope.sequence) == ("a", 70)
    query = es.DurableQuery(
        "totals",
        made(totals, sizes),
        store=store,
        into=store,
        batches=True,
        policy=QUICK,
        limits=es.BatchLimits(size=64),
    )
    await query.start(node)
    await totals.become({"a": (69, 69.0), "b": (100, 100.0)})
    errors = [event[Atom("error")] for event in await parked(node, 31)]
    assert [b"KeyError" in error for error in errors] == [True] + [False] * 30
    assert sizes[0] == 64
    assert 1 in sizes
    totals.fail = lambda envelope: False
    await node.call("totals", (Atom("drive"), Atom("all")))
    await totals.become({"a": (100, 100.0), "b": (100, 100.0)})


async def test_a_query_gets_the_types_it_selects_and_is_done_with_the_others(node, url):
    store = bank(url)
    totals = Totals(store, url)
    await totals.create()
    for name in ("a", "b", "c"):
        await store.append(name, [AccountOpened(name), CustomerDepositedCash(1.0, 1.0)], expected=0)
    query = es.DurableQuery(
        "totals", totals.project, store=store, into=store, select=[AccountOpened], idempotent=True
    )
    await query.start(node)
    await totals.become({"a": (1, 0.0), "b": (1, 0.0), "c": (1, 0.0)})
    await es.wait_for(node, "totals", await store.last_position(), timeout=60)
    assert (await status(node)).lag == 0
    await has_state(node, "live")
    await deposits(store, "d", 100)
    await store.append("e", [AccountOpened("e")], expected=0)
    await totals.become({"a": (1, 0.0), "b": (1, 0.0), "c": (1, 0.0), "e": (1, 0.0)})
    assert (await status(node)).processed == 4


class Counting(es.MemoryStore[Any, Any]):
    """Counts what is read, and says when somebody waits."""

    def __init__(self) -> None:
        super().__init__("BankAccount")
        self.reads: list[tuple[int, int]] = []

    async def read(self, after: int = 0, *, limit: int = 500, aggregate_id: str | None = None) -> Any:
        events = await super().read(after, limit=limit, aggregate_id=aggregate_id)
        self.reads.append((after, len(events)))
        return events


async def test_what_is_passed_by_is_read_once_and_wakes_nobody():
    store = Counting()
    await deposits(store, "a", 100)
    source = SelectedEvents(store, Selection((AccountOpened,)))
    assert await source.read(0, limit=30) == []
    assert store.reads == [(0, 30), (30, 30), (60, 30), (90, 10)]
    store.reads.clear()
    assert await source.read(0, limit=30) == []
    assert store.reads == [(100, 0)]
    assert not await source.wait(0, timeout=0)
    await store.append("b", [CustomerDepositedCash(1.0, 1.0), AccountOpened("b")], expected=0)
    assert await source.wait(0, timeout=60)
    assert [event.position for event in await source.read(0, limit=30)] == [102]
    assert [event.position for event in await source.read(50, limit=1)] == [102]
    await deposits(store, "c", 5)
    assert await source.read(102, limit=30) == []
    store.reads.clear()
    assert await source.read(102) == await source.read(105) == []
    assert store.reads == [(107, 0), (107, 0)]
    assert [event.position for event in await source.read(50, limit=30)] == [102]
    assert [event.position for event in await source.read(0, aggregate_id="b")] == [102]


async def test_a_store_that_has_less_than_was_passed_by_is_looked_through_anew():
    store = Counting()
    await deposits(store, "a", 10)
    source = SelectedEvents(store, Selection((AccountOpened,)))
    assert await source.read(0) == []
    store._log.clear()
    store._streams.clear()
    await store.append("b", [AccountOpened("b")], expected=0)
    await source.look()
    assert len(await source.read(0)) == 1


async def test_what_another_node_sends_of_it_at_once_is_not_all_there_is():
    """It sends 3 at most, none of which is selected."""

    store = Counting()
    await deposits(store, "a", 10)
    await store.append("b", [AccountOpened("b")], expected=0)

    class Elsewhere:
        last_position, wait = store.last_position, store.wait

        async def read(self, after: int = 0, *, limit: int = 500, aggregate_id: str | None = None) -> Any:
            return await store.read(after, limit=min(limit, 3), aggregate_id=aggregate_id)

    source = SelectedEvents(Elsewhere(), Selection((AccountOpened,)))
    assert [event.position for event in await source.read(0, limit=5)] == [11]


async def test_partitions_share_the_aggregates_and_keep_the_order_of_each(node, url):
    store = bank(url)
    seen: dict[str, list[tuple[str, int]]] = {}

    async def project(tx: Any, envelope: Any) -> None:
        name = str(asyncio.current_task())
        seen.setdefault(name, []).append((envelope.aggregate_id, envelope.sequence))

    query = es.DurableQuery(
        "totals", project, store=store, into=store, partitions=3, limits=es.BatchLimits(size=5)
    )
    await query.start(node)
    accounts = [f"account-{number}" for number in range(12)]
    for account in accounts:
        await deposits(store, account, 10)
    await es.wait_for(node, query, await store.last_position(), timeout=60)
    assert sorted(pair for part in seen.values() for pair in part) == sorted(
        (account, sequence) for account in accounts for sequence in range(1, 11)
    )
    by_part = [{account for account, _ in part} for part in seen.values()]
    assert sum(map(len, by_part)) == 12
    assert all(len({part_of(account, 3) for account in part}) == 1 for part in by_part)
    for part in seen.values():
        for account in accounts:
            assert [n for id, n in part if id == account] == sorted(n for id, n in part if id == account)
    assert query.names() == ["totals_1_of_3", "totals_2_of_3", "totals_3_of_3"]
    assert sum([(await status(node, name)).processed for name in query.names()]) == 120


async def test_with_another_number_of_partitions_it_stands_still_and_says_why(node, url):
    store = bank(url)
    await deposits(store, "a", 3)

    async def project(tx: Any, envelope: Any) -> None:
        pass

    first = es.DurableQuery("totals", project, store=store, into=store, partitions=2)
    await first.start(node)
    await es.wait_for(node, first, 3, timeout=60)
    for name in first.names():
        node.system.exit(node.whereis(name), "kill")
        await eventually(lambda name=name: node.whereis(name) is None)
    await es.DurableQuery("totals", project, store=store, into=store).start(node)
    await has_state(node, "stopped")
    assert "_of_2" in (await status(node)).error


async def test_partitions_are_processes_of_their_own_under_a_supervisor(node, tmp_path):
    store = es.open_store(f"sqlite:{tmp_path}/a.db", aggregate_type="t")
    query = es.DurableQuery("totals", _nothing, store=store, into=store, partitions=2)
    tree = await supervision.start(node, Supervisor("one_for_one").add(query.worker()))
    await eventually(lambda: all(node.whereis(name) is not None for name in query.names()))
    pids = [node.whereis(name) for name in query.names()]
    assert len({pid.serial for pid in pids if pid is not None}) == 2
    assert tree is not None


def _nothing(tx: Any, envelope: Any) -> None:
    """Do nothing."""


@attrs.frozen
class Reserved:
    seat: str


@attrs.frozen
class Freed:
    seat: str


def seat_tags(event: Any) -> Sequence[str]:
    return [f"seat:{event.seat}"]


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def facts_url(request, tmp_path) -> str:
    if request.param == "memory":
        return "memory:"
    if request.param == "sqlite":
        return f"sqlite:{tmp_path}/facts.db"
    url: str = request.getfixturevalue("postgres")
    return url


async def test_a_query_over_facts_gets_what_it_selects_by_type_and_tag(node, facts_url):
    facts = es.open_facts(facts_url, events=Reserved | Freed, tags=seat_tags)
    seen: list[Any] = []

    async def effect(stream: str, envelopes: list[Any]) -> None:
        seen.extend((stream, envelope.payload) for envelope in envelopes)

    async with facts:
        await facts.append([Reserved("1"), Reserved("2"), Freed("1")])
        select = es.Query([Reserved], tags=["seat:1"]) | es.Query([Freed])
        query = es.DurableQuery(
            "totals", effect, store=facts, checkpoints="memory:", select=select, policy=QUICK
        )
        await query.start(node)
        await es.wait_for(node, "totals", 3, timeout=60)
        assert seen == [("pyglyn", Reserved("1")), ("pyglyn", Freed("1"))]
        await has_state(node, "live")
        await facts.append([Reserved("2")])
        await facts.append([Reserved("1")], stream="other")
        await es.wait_for(node, "totals", 5, timeout=60)
        assert seen[2:] == [("other", Reserved("1"))]
        # What does not decode is parked in its place.
        raw = es.NewFact(type="reserved", data=b"no json", tags=["seat:1"])
        await facts.log.append([raw], stream="third")
        assert [event[Atom("raw")] for event in await parked(node, 1)] == [b"no json"]
        shares = [SelectedFacts(facts, None, (part, 2)) for part in range(2)]
        assert sum([len(await share.read()) for share in shares]) == 6


async def test_what_makes_no_sense_is_refused(tmp_path):
    store = bank(f"sqlite:{tmp_path}/a.db")
    facts = es.open_facts("memory:", events=Reserved)
    with pytest.raises(EventStoreError, match="into="):
        es.DurableQuery("totals", _nothing, store=store, batches=True)
    with pytest.raises(NonPositiveArgument):
        es.DurableQuery("totals", _nothing, store=store, partitions=0)
    with pytest.raises(EventStoreError, match="classes"):
        es.DurableQuery("totals", _nothing, store=store, select=es.Query([Reserved]))
    with pytest.raises(EventStoreError, match=r"es\.Query"):
        es.DurableQuery("totals", _nothing, store=facts, checkpoints="memory:", select=[Reserved])
    with pytest.raises(EventStoreError, match="checkpoint"):
        es.DurableQuery("totals", _nothing, store=facts)


async def test_a_subscription_yields_what_it_selects(url):
    store = bank(url)
    await deposits(store, "a", 3)
    got: list[int] = []

    async def follow() -> None:
        events = es.subscribe(store, select=[AccountOpened])
        async for event in events:
            got.append(event.position)  # noqa: PERF401

    task = asyncio.create_task(follow())
    await store.append("b", [AccountOpened("b"), CustomerDepositedCash(1.0, 1.0)], expected=0)
    await eventually(lambda: got == [4])
    await store.append("c", [CustomerDepositedCash(1.0, 1.0), AccountOpened("c")], expected=0)
    await eventually(lambda: got == [4, 7])
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
