"""Effects that no transaction holds: one instance at a time, and a checkpoint before too many of them are at risk."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import attrs
import pytest
import pytest_asyncio

from pyglyn import eventsourcing as es
from pyglyn.etf import Atom
from pyglyn.eventsourcing.queries import turns
from pyglyn.eventsourcing.queries.durable_server import DurableServer
from pyglyn.eventsourcing.queries.turns import LEASE_S, NotOurTurn, Turn, owner_name
from pyglyn.node import Node, Process
from pyglyn.node.signals import DownSignal
from pyglyn.testing import eventually
from pyglyn.testing.waiting import patiently
from tests.eventsourcing.queries.totals import bank, deposits, has_state, status
from tests.node.conftest import unique_name

OK = Atom("ok")

pytestmark = pytest.mark.usefixtures("stores_closed")


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def store(request: pytest.FixtureRequest, tmp_path: Any) -> es.EventStore[Any, Any]:
    match request.param:
        case "memory":
            return bank("memory:")
        case "sqlite":
            return bank(f"sqlite:{tmp_path}/bank.db")
    return bank(request.getfixturevalue("postgres"))


@pytest_asyncio.fixture
async def two(node) -> AsyncIterator[tuple[Process, Process]]:
    """Two processes of a node."""
    async with node.process() as first, node.process() as second:
        first.marks_signals = second.marks_signals = True
        yield first, second


async def test_a_turn_is_one_instances_until_it_ends_or_runs_out(store, two):
    first, second = (Turn(store, "q", process) for process in two)
    await first.take()
    await first.take()
    with pytest.raises(NotOurTurn):
        await second.take()
    await Turn(store, "another", two[1]).take()
    await first.end()
    await second.take()
    with pytest.raises(NotOurTurn):
        await first.take()
    dying, next_one = (Turn(store, "r", process, lease_s=0.05) for process in two)
    await dying.take()

    async def ours() -> bool:
        try:
            await next_one.take()
        except NotOurTurn:
            return False
        return True

    await eventually(ours)


async def test_a_turn_is_kept_though_the_end_of_who_has_it_is_made_up(store, two):
    """References are counted, so a peer may name that of any monitor; a signal comes from whoever has ended."""
    first, second = (Turn(store, "q", process) for process in two)
    await first.take()
    await second.watch_other()
    (ref,) = two[1].signals.monitors
    made_up = (Atom("DOWN"), ref, Atom("process"), two[0].pid, Atom("lie"))
    assert not await second.other_ended(made_up)
    with pytest.raises(NotOurTurn):
        await second.take()
    two[0].exit(two[0].pid, "kill")
    assert not two[1].signals.monitors
    assert not await second.other_ended(made_up)
    assert await second.other_ended(await two[1].receive(timeout=180))
    await second.take()


async def test_the_end_of_who_has_the_turn_is_told_though_its_node_was_lost_before(store, two):
    first, second = Turn(store, "q", two[0]), Turn(store, "q", two[1], lease_s=0.0)
    await first.take()
    await second.watch_other()
    (ref,) = two[1].signals.monitors
    two[1].demonitor(ref)
    lost = DownSignal((Atom("DOWN"), ref, Atom("process"), two[0].pid, Atom("noconnection")))
    assert not await second.other_ended(lost)
    await second.watch_other()
    await second.watch_other()
    assert len(two[1].signals.monitors) == 1
    two[0].exit(two[0].pid, "kill")
    assert await second.other_ended(await two[1].receive(timeout=180))


async def test_a_turn_is_kept_while_an_effect_goes_on(store, two, monkeypatch):
    first, second = (Turn(store, "q", process, lease_s=patiently(0.5)) for process in two)
    renewed = asyncio.Event()
    take, times = store.take_lease, 0

    async def counted(name: str, owner: str, seconds: float) -> bool:
        nonlocal times
        times += 1
        if times > 5:
            renewed.set()
        return await take(name, owner, seconds)

    monkeypatch.setattr(store, "take_lease", counted)
    async with first:
        await asyncio.wait_for(renewed.wait(), 180)
        with pytest.raises(NotOurTurn):
            await second.take()


LONG_S = 3600.0
"""For how long a lease is that no test waits for."""


class Seen:
    """The effects of a query: the sequences of events."""

    def __init__(self) -> None:
        self.sequences: list[int] = []

    async def __call__(self, id: str, envelopes: list[Any]) -> None:
        self.sequences += [envelope.sequence for envelope in envelopes]


async def test_a_query_does_not_wait_for_the_lease_of_one_that_was_killed_here(node, url):
    store, seen = bank(url), Seen()
    await deposits(store, "a", 3)
    async with node.process() as killed:
        assert await store.take_lease("query totals", owner_name(killed.pid), LONG_S)
    await es.DurableQuery("totals", seen, store=store).start(node)
    await eventually(lambda: seen.sequences == [1, 2, 3], timeout=20)


async def test_a_query_goes_on_when_the_one_that_has_the_lease_ends_elsewhere(node, url):
    store, seen = bank(url), Seen()
    await deposits(store, "a", 3)
    async with Node(unique_name(), cookie="eventsourcing") as elsewhere:
        async with elsewhere.process() as other:
            assert await store.take_lease("query totals", owner_name(other.pid), LONG_S)
            await es.DurableQuery("totals", seen, store=store).start(node)
            await has_state(node, "standby")
            await eventually(lambda: other.signals.watchers)
            assert seen.sequences == []
        await eventually(lambda: seen.sequences == [1, 2, 3], timeout=20)


@pytest.mark.parametrize("owner", ["unreachable", "of another incarnation", "no process"])
async def test_a_query_waits_for_a_lease_whose_owner_may_live(node, url, owner, monkeypatch):
    store, seen = bank(url), Seen()
    await deposits(store, "a", 3)
    pid = node.system.pid
    owners = {
        "unreachable": owner_name(attrs.evolve(pid, node="nobody_there@localhost")),
        "of another incarnation": owner_name(attrs.evolve(pid, creation=pid.creation ^ 1)),
        "no process": "0123",
    }
    assert await store.take_lease("query totals", owners[owner], LONG_S)
    heard: list[Any] = []
    other_ended = Turn.other_ended

    async def hear(turn: Turn, message: Any) -> bool:
        heard.append(message)
        return await other_ended(turn, message)

    monkeypatch.setattr(Turn, "other_ended", hear)
    await es.DurableQuery("totals", seen, store=store).start(node)
    await has_state(node, "standby")
    if owner != "no process":
        await eventually(lambda: heard)
    assert seen.sequences == []
    assert await store.lease_owner("query totals") == owners[owner]
    await store.end_lease("query totals", owners[owner])
    await eventually(lambda: seen.sequences == [1, 2, 3], timeout=20)


async def test_two_nodes_have_each_effect_once(node, url):
    calls: Counter[tuple[str, int]] = Counter()

    async def mail(id: str, envelopes: list[Any]) -> None:
        calls.update((id, envelope.sequence) for envelope in envelopes)
        await asyncio.sleep(0.01)

    async with Node(unique_name(), cookie="eventsourcing") as second:
        store = bank(url)
        for each in (node, second):
            await es.DurableQuery("totals", mail, store=bank(url)).start(each)
        for number in range(30):
            await deposits(store, f"a{number}", 1)
            await asyncio.sleep(0.01)

        async def done() -> bool:
            return await store.checkpoint("totals") == await store.last_position()

        await eventually(done, timeout=20)
    assert calls == {(f"a{number}", 1): 1 for number in range(30)}


async def test_when_the_one_that_has_the_effects_ends_another_one_goes_on_at_once(node, url):
    async with Node(unique_name(), cookie="eventsourcing") as second:
        where: list[str] = []
        begun, go_on = asyncio.Event(), asyncio.Event()

        def mail_of(name: str) -> Any:
            async def mail(id: str, envelopes: list[Any]) -> None:
                where.append(name)
                begun.set()
                await go_on.wait()

            return mail

        store = bank(url)
        await es.DurableQuery("totals", mail_of("first"), store=bank(url)).start(node)
        await deposits(store, "a", 3)
        await begun.wait()
        await es.DurableQuery("totals", mail_of("second"), store=bank(url)).start(second)

        async def standing_by() -> bool:
            return (await status(second)).state == "standby"

        await eventually(standing_by)
        assert where == ["first"]
        ending = asyncio.create_task(node.stop())
        await asyncio.sleep(0)
        go_on.set()
        await ending
        await eventually(lambda: where == ["first", "second", "second"])


async def test_a_pause_ends_the_effects_at_the_next_event_and_none_is_repeated(node, url):
    store = bank(url)
    await deposits(store, "a", 50)
    seen: list[int] = []
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def notice(id: str, envelopes: list[Any]) -> None:
        seen.append(envelopes[0].sequence)
        if len(seen) == 3:
            begun.set()
            await go_on.wait()

    await es.DurableQuery("totals", notice, store=store).start(node)
    await begun.wait()
    assert await node.call("totals", Atom("pause")) is OK
    go_on.set()
    await eventually(lambda: _is_at(store, 3))
    await has_state(node, "paused")
    assert seen == [1, 2, 3]
    assert await node.call("totals", Atom("resume")) is OK
    await eventually(lambda: len(seen) == 50)
    assert seen == list(range(1, 51))


async def test_who_stood_still_repeats_nothing_that_another_instance_has_done_meanwhile(
    node, url, monkeypatch
):
    """It has the lease again without ever having been refused it: the other one has ended."""
    store, later = bank(url), 0.0
    await deposits(store, "a", 10)
    seen: list[int] = []
    begun, go_on = asyncio.Event(), asyncio.Event()
    monkeypatch.setattr(turns, "time", SimpleNamespace(monotonic=lambda: time.monotonic() + later))

    async def notice(id: str, envelopes: list[Any]) -> None:
        seen.append(envelopes[0].sequence)
        if len(seen) == 2:
            begun.set()
            await go_on.wait()

    limits = es.BatchLimits(seconds=LONG_S)
    pid = await es.DurableQuery("totals", notice, store=store, limits=limits).start(node)
    await begun.wait()
    later = LEASE_S + 1
    await store.end_lease("query totals", owner_name(pid))
    assert await store.take_lease("query totals", "another", LONG_S)
    await store.save_checkpoint("totals", 5)
    await store.end_lease("query totals", "another")
    go_on.set()
    await eventually(lambda: _is_at(store, 10))
    assert seen == [1, 2, 6, 7, 8, 9, 10]


async def _is_at(store: es.EventStore[Any, Any], position: int) -> bool:
    return await store.checkpoint("totals") == position


async def test_slow_effects_are_checkpointed_one_by_one(node, url):
    store = bank(url)
    await deposits(store, "a", 5)
    at: list[int] = []

    async def notice(id: str, envelopes: list[Any]) -> None:
        at.append(await store.checkpoint("totals"))

    limits = es.BatchLimits(seconds=1e-6)
    await es.DurableQuery("totals", notice, store=store, limits=limits).start(node)
    await eventually(lambda: len(at) == 5)
    assert at == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("patient", [True, False])
async def test_an_orderly_stop_keeps_what_was_done(node, url, patient):
    """Whether the effect under way ends in time, or has to be cancelled."""
    store = bank(url)
    await deposits(store, "a", 9)
    seen: list[int] = []
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def notice(id: str, envelopes: list[Any]) -> None:
        if len(seen) == 4:
            begun.set()
            await go_on.wait()
        seen.append(envelopes[0].sequence)

    query = es.DurableQuery("totals", notice, store=store, limits=es.BatchLimits(seconds=60.0))
    limit = {} if patient else {"last_effect_s": 0.01}
    pid = await node.start(DurableServer, query, name="totals", **limit)
    await begun.wait()
    node.system.exit(pid, "shutdown")
    if patient:
        await asyncio.sleep(0)
        go_on.set()
    await eventually(lambda: node.whereis("totals") is None)
    await eventually(lambda: _is_at(store, len(seen)))
    assert len(seen) == 4 + patient
    go_on.set()
    await query.start(node)
    await eventually(lambda: len(seen) == 9)
    assert seen == list(range(1, 10))
