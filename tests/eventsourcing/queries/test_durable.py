"""Durable queries on real stores: nothing missed, nothing twice, whatever happens in between."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pyglyn import eventsourcing as es
from pyglyn.etf import Atom
from pyglyn.eventsourcing import glyn
from pyglyn.eventsourcing.queries.query_process import readable
from pyglyn.node import Node
from pyglyn.testing import eventually
from pyglyn.testing.bank import (
    AccountOpened,
    BankAccount,
    BankAccountEvent,
    DepositMoney,
    OpenAccount,
    apply,
    handle,
)
from tests.eventsourcing.handles import bank_at
from tests.eventsourcing.queries.totals import (
    QUICK,
    Totals,
    bank,
    deposits,
    has_state,
    parked,
    status,
)
from tests.node.conftest import unique_name

pytestmark = pytest.mark.usefixtures("stores_closed")


@pytest.mark.parametrize("plain", [False, True], ids=["async", "plain"])
async def test_it_catches_up_then_joins_the_live_stream_without_gap_or_duplicate(node, url, plain):
    store = bank(url)
    totals = Totals(store, url)
    await totals.create()
    await deposits(store, "a", 700)
    function = totals.project_plainly if plain else totals.project
    limits = es.BatchLimits(size=100, idle_after=0.3)
    query = es.DurableQuery("totals", function, store=store, into=store, limits=limits)
    await query.start(node)
    # Events go on being committed while it catches up.
    await deposits(store, "b", 200)
    await totals.become({"a": (700, 700.0), "b": (200, 200.0)})
    other = bank(url)  # another connection, as another OS process has
    await other.append("c", [AccountOpened("c")], expected=0)
    await totals.become({"a": (700, 700.0), "b": (200, 200.0), "c": (1, 0.0)})
    await other.close()
    await has_state(node, "idle")
    now = await status(node)
    assert (now.lag, now.parked, now.error, now.processed) == (0, 0, "", 901)
    assert now.position == await store.last_position() == await store.checkpoint("totals")


async def test_it_goes_on_where_it_was_when_its_process_is_killed_again_and_again(node, url):
    store = bank(url)
    totals = Totals(store, url)
    await totals.create()
    await deposits(store, "a", 400)
    query = es.DurableQuery("totals", totals.project, store=store, into=store, limits=es.BatchLimits(size=20))
    for _ in range(6):
        pid = await query.start(node)
        await asyncio.sleep(0)
        await eventually(lambda: node.call("totals", Atom("status")))
        node.system.exit(pid, "kill")
        await eventually(lambda: node.whereis("totals") is None)
    await query.start(node)
    await totals.become({"a": (400, 400.0)})


async def test_two_instances_of_one_query_apply_each_event_once(node, url):
    store, again = bank(url), bank(url)
    totals = Totals(store, url)
    await totals.create()
    async with Node(unique_name(), cookie="eventsourcing") as second:
        for at, source in ((node, store), (second, again)):
            limits = es.BatchLimits(size=7)
            await es.DurableQuery("totals", totals.project, store=source, into=source, limits=limits).start(
                at
            )
        await deposits(store, "a", 200)
        await totals.become({"a": (200, 200.0)})


async def test_it_is_paused_resumed_reset_and_replayed(node, url):
    store = bank(url)
    totals = Totals(store, url)
    await totals.create()
    query = es.DurableQuery("totals", totals.project, store=store, into=store, on_reset=totals.undo)
    pid = await query.start(node)
    await deposits(store, "a", 3)
    await totals.become({"a": (3, 3.0)})
    assert await node.call("totals", Atom("pause")) is Atom("ok")
    await has_state(node, "paused")
    await deposits(store, "b", 2)
    # A pause lasts over a restart.
    node.system.exit(pid, "kill")
    await eventually(lambda: node.whereis("totals") is None)
    await query.start(node)
    await has_state(node, "paused")
    assert (await status(node)).lag == 2
    assert await totals.rows() == {"a": (3, 3.0)}
    assert await node.call("totals", Atom("resume")) is Atom("ok")
    await totals.become({"a": (3, 3.0), "b": (2, 2.0)})

    async with store.transaction() as tx:
        await tx.execute("UPDATE totals SET total = 99")
    assert await node.call("totals", (Atom("replay"), b"a")) == (Atom("ok"), 0)
    await totals.become({"a": (3, 3.0), "b": (2, 99.0)})
    assert await node.call("totals", (Atom("replay"), Atom("all"))) is Atom("ok")
    await totals.become({"a": (3, 3.0), "b": (2, 2.0)})


async def test_a_failing_event_is_parked_with_those_after_it_and_driven_in_order(node, url):
    store = bank(url)
    totals = Totals(store, url)
    await totals.create()
    totals.fail = lambda envelope: (envelope.aggregate_id, envelope.sequence) == ("a", 2)
    await es.DurableQuery("totals", totals.project, store=store, into=store, policy=QUICK).start(node)
    await deposits(store, "a", 3)
    await deposits(store, "b", 2)
    await totals.become({"a": (1, 1.0), "b": (2, 2.0)})
    found = await parked(node, 2)
    assert [(each[Atom("sequence")], each[Atom("attempts")]) for each in found] == [(2, 3), (3, 0)]
    assert b"no such thing" in found[0][Atom("error")]
    # Driving while it still fails leaves both parked.
    assert await node.call("totals", (Atom("drive"), Atom("all"))) == (Atom("ok"), 2)

    async def tried_again() -> bool:
        assert (await parked(node, 2))[0][Atom("attempts")] == 4
        return True

    await eventually(tried_again)
    totals.fail = lambda envelope: False
    await node.call("totals", (Atom("drive"), Atom("all")))
    await totals.become({"a": (3, 3.0), "b": (2, 2.0)})
    assert await parked(node, 0) == []
    await deposits(store, "a", 1, start=3)
    await totals.become({"a": (4, 4.0), "b": (2, 2.0)})


async def test_a_row_that_is_no_json_is_parked_with_its_text(node, url):
    store = bank(url)
    totals = Totals(store, url)
    await totals.create()
    await deposits(store, "a", 2)
    async with store.transaction() as tx:
        await tx.execute("UPDATE event SET payload = '{broken' WHERE sequence = 2")
    await es.DurableQuery("totals", totals.project, store=store, into=store).start(node)
    await deposits(store, "b", 1)
    await totals.become({"a": (1, 1.0), "b": (1, 1.0)})
    [found] = await parked(node, 1)
    assert (found[Atom("raw")], found[Atom("sequence")]) == (b"{broken", 2)


async def test_with_the_policy_stop_it_stands_still_until_it_is_resumed(node, url):
    store = bank(url)
    totals = Totals(store, url)
    await totals.create()
    totals.fail = lambda envelope: envelope.sequence == 2
    policy = es.FailurePolicy(retries=0, then="stop")
    await es.DurableQuery("totals", totals.project, store=store, into=store, policy=policy).start(node)
    await deposits(store, "a", 3)
    await has_state(node, "stopped")
    assert "no such thing" in (await status(node)).error
    assert await totals.rows() == {"a": (1, 1.0)}
    totals.fail = lambda envelope: False
    await node.call("totals", Atom("resume"))
    await totals.become({"a": (3, 3.0)})


async def test_without_a_database_of_its_own_the_checkpoint_is_in_the_store_of_the_events(node, url):
    store = bank(url)
    seen: list[tuple[str, int]] = []

    async def notice(id: str, envelopes: list[Any]) -> None:
        seen.extend((id, envelope.sequence) for envelope in envelopes)

    query = es.DurableQuery("totals", notice, store=store)
    pid = await query.start(node)
    await deposits(store, "a", 3)
    await eventually(lambda: len(seen) == 3)

    async def saved() -> bool:
        assert await store.checkpoint("totals") == await store.last_position()
        return True

    await eventually(saved)
    node.system.exit(pid, "kill")
    await eventually(lambda: node.whereis("totals") is None)
    await deposits(store, "a", 1, start=3)
    await query.start(node)
    await eventually(lambda: seen == [("a", number) for number in range(1, 5)])


async def test_a_query_on_a_node_without_the_database_reads_from_one_that_has_it(node, tmp_path):
    """And repairs what it missed while the link was cut."""
    config = glyn.GlynConfig(pubsub_scope="example", pubsub_group="bank")
    events = await glyn.start(node, config, bank(f"sqlite:{tmp_path}/bank.db"), (), BankAccountEvent)
    service = es.service("bank", events, handle=handle, apply=apply, empty_state=BankAccount())
    await es.start(node, service)
    await bank_at(node).execute("a", OpenAccount("a"))
    await bank_at(node).execute("a", DepositMoney(1.0))

    url = f"sqlite:{tmp_path}/elsewhere.db"
    async with Node(unique_name(), cookie="eventsourcing") as far:
        totals = Totals(es.open_store(url), url)
        await totals.create()
        await es.DurableQuery(
            "totals", totals.project, store=config, into=totals.into, events=BankAccountEvent, policy=QUICK
        ).start(far)
        await has_state(far, "stuck")  # nobody has the events yet
        await far.connect(node.name)
        await totals.become({"a": (2, 1.0)})
        await bank_at(node).execute("a", DepositMoney(2.0))
        await totals.become({"a": (3, 3.0)})
        far.disconnect(node.name)
        await eventually(lambda: not far.nodes() and not node.nodes())
        await bank_at(node).execute("a", DepositMoney(4.0))
        await far.connect(node.name)
        await totals.become({"a": (4, 7.0)})
        await has_state(far, "live")
        # What cannot be processed is parked as the term that came.
        totals.fail = lambda envelope: True
        await bank_at(node).execute("a", DepositMoney(8.0))
        [found] = await parked(far, 1)
        assert readable(found).startswith('{serialized_event_envelop,<<"a">>,5,')
        await totals.into.close()


async def test_a_failure_policy_that_makes_no_sense_is_refused():
    with pytest.raises(es.NonPositiveArgument):
        es.FailurePolicy(retries=-1)
    with pytest.raises(es.NonPositiveArgument):
        es.FailurePolicy(first=0)
    with pytest.raises(ValueError, match="park or stop"):
        es.FailurePolicy(then="drop")
    with pytest.raises(es.EventStoreError, match="need a database"):
        es.DurableQuery("q", print, store=es.MemoryStore(), into=es.MemoryStore())
