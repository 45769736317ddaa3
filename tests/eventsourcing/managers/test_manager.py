"""Process managers on a node: their commands, their deadlines, and what goes wrong, on all stores."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import AsyncIterator
from typing import Any

import attrs
import pytest
import pytest_asyncio

from pyglyn import eventsourcing as es
from pyglyn.etf import Atom
from pyglyn.eventsourcing.cluster.broadcast import GlynConfig
from pyglyn.eventsourcing.domain.causation import value_of
from pyglyn.eventsourcing.managers.server import ManagerServer
from pyglyn.eventsourcing.queries.turns import NotOurTurn, Turn, owner_name
from pyglyn.eventsourcing.stores.managing import PARKED, REFUSED, Status
from pyglyn.eventsourcing.stores.memory_managing import MemoryManagerTables
from pyglyn.eventsourcing.stores.sql import SqlTransaction
from pyglyn.eventsourcing.stores.sql_managing import SqlManagerTables
from pyglyn.node import Node
from pyglyn.testing import eventually
from tests.eventsourcing.managers.jobs import (
    DESTINATION,
    FAR_AWAY,
    Begin,
    Begun,
    Close,
    Closed,
    Noted,
    Progress,
    Reopen,
    Reopened,
    Step,
    Stepped,
    TimedOut,
    become,
    events_of,
    follow,
    jobs_manager,
    jobs_service,
    open_jobs,
    parked,
    rests,
    status,
    steady,
)
from tests.node.conftest import unique_name

OK, ERROR = Atom("ok"), Atom("error")
Store = es.EventStore[Any, Any]


@pytest_asyncio.fixture(params=["memory", "sqlite", "postgres"])
async def store(request: pytest.FixtureRequest, tmp_path: Any) -> AsyncIterator[Store]:
    urls = {"memory": "memory:", "sqlite": f"sqlite:{tmp_path}/jobs.db"}
    async with open_jobs(urls.get(request.param) or request.getfixturevalue("postgres")) as opened:
        yield opened


async def test_the_commands_of_an_instance_are_carried_out_once_and_in_order(
    node: Node, store: Store
) -> None:
    jobs = await es.start(node, jobs_service(store))
    await jobs_manager(store).start(node)
    for job, steps in (("a", 7), ("b", 3)):
        await jobs.execute(job, Begin(steps))
    for job, steps in (("a", 7), ("b", 3)):
        await become(store, job, [Begun(steps, None), *(Stepped(n) for n in range(1, steps + 1))])
    await rests(store)
    found = await status(node)
    assert (found.kind, found.lag, found.parked, found.commands, found.timers) == ("manager", 0, 0, 0, 0)
    assert await store.manager_state("steps", "a") == '{"steps":7,"taken":7}'


async def test_commands_are_caused_by_the_event_that_they_follow_from(node: Node, store: Store) -> None:
    jobs = await es.start(node, jobs_service(store))
    await jobs_manager(store).start(node)
    await jobs.execute("a", Begin(1, 0.0), metadata=[("correlation_id", "all of it")])
    await eventually(lambda: _length(store, "a", 3), timeout=20)
    for envelope in await store.load_events("a"):
        assert value_of(envelope.metadata, "correlation_id") == "all of it"
    caused = [value_of(each.metadata, "causation_id") for each in (await store.load_events("a"))[1:]]
    assert all(cause is not None and cause.endswith("/a/1") for cause in caused)


async def _length(store: Store, job: str, count: int) -> bool:
    return len(await events_of(store, job)) == count


# --- refusals -----------------------------------------------------------------------------------------------


async def closed(store: Store, job: str, steps: int) -> None:
    """Have a job begin and be closed, before anybody follows."""
    await store.append(job, [Begun(steps, None), Closed()], expected=0)


def open_end(progress: Progress, message: object) -> list[es.Action]:
    return [] if isinstance(message, Closed) else follow(progress, message)  # type: ignore[arg-type]


async def test_a_refusal_comes_back_to_the_manager_before_the_commands_behind_it(
    node: Node, store: Store
) -> None:
    await closed(store, "a", 2)
    await es.start(node, jobs_service(store))
    await jobs_manager(store, on_refusal="handle", handle=open_end).start(node)
    notes = [Noted("1 of a: closed"), Noted("2 of a: closed")]
    await become(store, "a", [Begun(2, None), Closed(), *notes])
    await rests(store)
    assert (await status(node)).parked == 0


async def test_a_refused_command_is_parked_and_those_behind_it_wait_until_it_is_driven(
    node: Node, store: Store
) -> None:
    await closed(store, "a", 2)
    await es.start(node, jobs_service(store))
    await jobs_manager(store, handle=open_end).start(node)
    [found] = await parked(node, 1)
    assert found[Atom("aggregate_id")] == b"a"
    assert found[Atom("error")] == b"command to jobs: closed"
    assert found[Atom("id")] < 0
    assert (await status(node)).commands == 1
    assert await node.call("steps", (Atom("drive"), found[Atom("id")])) == (OK, 1)

    async def tried_again() -> bool:
        found = await node.call("steps", Atom("parked"))
        return [each[Atom("attempts")] for each in found] == [2]

    await eventually(tried_again, timeout=20)
    assert await events_of(store, "a") == [Begun(2, None), Closed()]
    assert await node.call("steps", (Atom("drive"), 12345)) == (OK, 0)


@pytest.mark.parametrize("status", [PARKED, REFUSED])
async def test_a_driven_command_is_listed_wherever_it_goes_while_it_is_looked_for(
    node: Node, store: Store, monkeypatch: pytest.MonkeyPatch, status: Status
) -> None:
    await closed(store, "a", 2)
    await es.start(node, jobs_service(store))
    await jobs_manager(store, handle=open_end).start(node)
    [found] = await parked(node, 1)
    assert await node.call("steps", Atom("pause")) == OK
    assert await node.call("steps", (Atom("drive"), found[Atom("id")])) == (OK, 1)
    [waiting] = [each for each in await store.issued_commands("steps") if each.attempts]
    look = type(store).issued_commands

    async def look_and_go_on(*arguments: Any, **options: Any) -> list[Any]:
        seen = await look(*arguments, **options)
        async with store.transaction() as tx:
            await tx.mark_command(waiting.id, status, attempts=2, error="again")
        return seen

    monkeypatch.setattr(type(store), "issued_commands", look_and_go_on)
    for _ in range(2):
        [listed] = await node.call("steps", Atom("parked"))
        assert listed[Atom("id")] == found[Atom("id")]


async def test_a_refused_command_is_left_out_if_the_manager_says_so(node: Node, store: Store) -> None:
    await closed(store, "a", 2)
    await es.start(node, jobs_service(store))
    await jobs_manager(store, on_refusal="skip").start(node)
    await rests(store)
    assert await events_of(store, "a") == [Begun(2, None), Closed()]


async def test_a_refusal_of_an_instance_that_has_ended_is_parked(node: Node, store: Store) -> None:
    await closed(store, "a", 1)
    await es.start(node, jobs_service(store))
    await jobs_manager(store, on_refusal="handle").start(node)
    [found] = await parked(node, 1)
    assert b"its instance has ended; refused: closed" in found[Atom("error")]


# --- failures -----------------------------------------------------------------------------------------------


async def test_a_command_is_sent_again_until_it_is_known_to_be_carried_out(
    node: Node, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is lost is the answer: the transaction that takes note of it fails."""
    tables = MemoryManagerTables if isinstance(store, es.MemoryStore) else SqlManagerTables
    finish, tries = tables.finish_command, 0

    async def failing(self: Any, id: int) -> bool:
        nonlocal tries
        tries += 1
        if tries <= 3:
            raise es.StoreUnavailable("away")
        return await finish(self, id)

    monkeypatch.setattr(tables, "finish_command", failing)
    jobs = await es.start(node, jobs_service(store))
    await jobs_manager(store).start(node)
    await jobs.execute("a", Begin(2))
    await become(store, "a", [Begun(2, None), Stepped(1), Stepped(2)])
    await rests(store)
    assert tries == 5
    assert await events_of(store, "a") == [Begun(2, None), Stepped(1), Stepped(2)]


async def test_a_service_that_is_not_there_is_waited_for(node: Node, store: Store) -> None:
    await store.append("a", [Begun(1, None)], expected=0)
    await jobs_manager(store).start(node)

    async def complains() -> bool:
        found = await status(node)
        return found.state == "stuck" and "no such process" in found.error and found.commands == 1

    await eventually(complains, timeout=20)
    await es.start(node, jobs_service(store))
    await become(store, "a", [Begun(1, None), Stepped(1)])
    await rests(store)
    assert (await status(node)).error == ""


async def test_a_command_that_its_service_cannot_take_is_parked(node: Node, store: Store) -> None:
    def odd(progress: Progress, message: object) -> list[es.Action]:
        return [es.Dispatch("jobs", Progress())] if isinstance(message, Begun) else []

    jobs = await es.start(node, jobs_service(store))
    await jobs_manager(store, handle=odd).start(node)
    await jobs.execute("a", Begin())
    [found] = await parked(node, 1)
    assert b"does not decode" in found[Atom("error")]


async def test_an_event_that_cannot_be_handled_keeps_its_instance_and_no_other(
    node: Node, store: Store
) -> None:
    broken = True

    def failing(progress: Progress, message: Any) -> list[es.Action]:
        if broken and isinstance(message, Begun) and message.steps == 1:
            raise KeyError("no such thing")
        return follow(progress, message)

    jobs = await es.start(node, jobs_service(store))
    await jobs_manager(store, handle=failing).start(node)
    await jobs.execute("a", Begin(1, 0.0))
    await jobs.execute("b", Begin(2))
    await become(store, "b", [Begun(2, None), Stepped(1), Stepped(2)])
    await jobs.execute("a", Begin(2))
    first, behind = await parked(node, 2)
    assert b"no such thing" in first[Atom("error")]
    assert b"earlier" in behind[Atom("error")]
    broken = False
    await node.call("steps", (Atom("drive"), Atom("all")))
    await eventually(lambda: _length(store, "a", 6), timeout=20)
    found = await events_of(store, "a")
    assert [each for each in found if isinstance(each, Stepped)] == [Stepped(1), Stepped(1), Stepped(2)]
    assert sum(isinstance(each, TimedOut) for each in found) == 1
    await rests(store)


@pytest.mark.parametrize(
    ("actions", "says"),
    [
        ([es.Dispatch("bank", 1)], b"'bank' is none of the manager's services: jobs"),
        ([es.Dispatch("jobs", object())], b"object"),
        (None, b"returned None"),
    ],
    ids=["service", "command", "nothing"],
)
async def test_what_cannot_be_sent_is_a_failure_of_the_event(node: Node, actions: Any, says: bytes) -> None:
    store = open_jobs("memory:")
    await store.append("a", [Begun(0, None)], expected=0)
    await jobs_manager(store, handle=lambda state, message: actions).start(node)
    [found] = await parked(node, 1)
    assert says in found[Atom("error")]
    assert await store.manager_state("steps", "a") is None


# --- time ---------------------------------------------------------------------------------------------------


async def test_a_deadline_is_told_to_the_manager_after_what_was_there_before(
    node: Node, store: Store
) -> None:
    """It was due long ago, as was everything: no manager was there."""
    await store.append("a", [Begun(0, 0.0), *(Stepped(n) for n in range(1100))], expected=0)
    await es.start(node, jobs_service(store))
    await jobs_manager(store).start(node)
    await eventually(lambda: _length(store, "a", 1102), timeout=30)
    assert (await events_of(store, "a"))[-1] == TimedOut("late after 1100")
    await rests(store)
    assert (await status(node)).timers == 0


async def test_a_deadline_is_waited_for_and_can_be_cancelled(node: Node, store: Store) -> None:
    jobs = await es.start(node, jobs_service(store))
    await jobs_manager(store).start(node)
    await jobs.execute("a", Begin(0, 3600.0))
    await jobs.execute("b", Begin(0, 0.2))
    await become(store, "b", [Begun(0, 0.2), TimedOut("late after 0")])
    assert (await status(node)).timers == 1
    [timer] = await store.timers("steps")
    assert timer.instance == "a"
    assert timer.due_at == pytest.approx((await store.read(limit=1))[0].recorded_at + 3600.0, abs=0.01)
    await jobs.execute("a", Close())

    async def cancelled() -> bool:
        return (await store.outlook("steps")).timers == 0

    await eventually(cancelled, timeout=20)
    assert await store.manager_state("steps", "a") is None


async def test_a_deadline_set_anew_is_another_one(node: Node, store: Store) -> None:
    jobs = await es.start(node, jobs_service(store))
    await jobs_manager(store).start(node)
    await jobs.execute("a", Begin(0, 3600.0))
    await jobs.execute("a", Begin(0, 0.1))
    await become(store, "a", [Begun(0, 3600.0), Begun(0, 0.1), TimedOut("late after 0")])
    await rests(store)
    assert await store.timers("steps") == []


async def test_a_command_is_sent_when_it_is_scheduled_for(node: Node, store: Store) -> None:
    def schedule(progress: Progress, message: Any) -> list[es.Action]:
        match message:
            case Begun(0, wait_s):
                return [es.Schedule("close", es.Dispatch("jobs", Close()), after=wait_s)]
            case Begun():
                return [es.Cancel("close")]
        return []

    jobs = await es.start(node, jobs_service(store))
    await jobs_manager(store, handle=schedule).start(node)
    await jobs.execute("a", Begin(0, 3600.0))
    await jobs.execute("a", Begin(1))
    await jobs.execute("b", Begin(0, 0.1))
    await become(store, "b", [Begun(0, 0.1), Closed()])
    await rests(store)
    assert await store.timers("steps") == []


async def test_a_deadline_that_cannot_be_handled_is_parked_until_it_is_driven(
    node: Node, store: Store
) -> None:
    broken = True

    def failing(progress: Progress, message: Any) -> list[es.Action]:
        if broken and isinstance(message, es.Expired):
            raise KeyError("no such thing")
        return follow(progress, message)

    jobs = await es.start(node, jobs_service(store))
    await jobs_manager(store, handle=failing).start(node)
    await jobs.execute("a", Begin(0, 0.0))
    [found] = await parked(node, 1)
    assert found[Atom("error")].startswith(b"deadline late: KeyError")
    await jobs.execute("a", Begin(1))  # which is set aside by nothing
    await become(store, "a", [Begun(0, 0.0), Begun(1, None), Stepped(1)])
    broken = False
    assert await node.call("steps", (Atom("drive"), found[Atom("id")])) == (OK, 1)
    await become(store, "a", [Begun(0, 0.0), Begun(1, None), Stepped(1), TimedOut("late after 1")])


async def test_what_is_driven_while_the_checkpoint_moves_is_driven_all_the_same(
    node: Node, postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = True

    def failing(progress: Progress, message: Any) -> list[es.Action]:
        if broken and isinstance(message, es.Expired):
            raise KeyError("no such thing")
        return follow(progress, message)

    async with open_jobs(postgres) as store, open_jobs(postgres) as other:
        jobs = await es.start(node, jobs_service(store))
        await jobs_manager(store, handle=failing).start(node)
        await jobs.execute("a", Begin(0, 0.0))
        [found] = await parked(node, 1)
        await rests(store)
        load = SqlTransaction.load_checkpoint
        moves = iter([True, True])

        async def moving(tx: Any, query: str) -> es.Checkpoint:
            loaded = await load(tx, query)
            if next(moves, False):
                await other.set_paused("steps", False)
            return loaded

        monkeypatch.setattr(SqlTransaction, "load_checkpoint", moving)
        broken = False
        assert await node.call("steps", (Atom("drive"), found[Atom("id")])) == (OK, 1)
        await become(store, "a", [Begun(0, 0.0), TimedOut("late after 0")])
        assert list(moves) == []


async def test_a_deadline_that_another_one_cancels_does_not_come_though_both_are_due(
    node: Node, store: Store
) -> None:
    def both(progress: Progress, message: Any) -> list[es.Action]:
        match message:
            case Begun():
                return [es.Deadline("second", after=0.001), es.Deadline("first", after=0.0)]
            case es.Expired("first"):
                return [es.Cancel("second"), *follow(progress, message)]
        return follow(progress, message)

    await store.append("a", [Begun(0, None)], expected=0)
    await es.start(node, jobs_service(store))
    await jobs_manager(store, handle=both).start(node)
    await become(store, "a", [Begun(0, None), TimedOut("first after 0")])
    await rests(store)
    assert await store.timers("steps") == []
    assert len(await events_of(store, "a")) == 2


# --- orders -------------------------------------------------------------------------------------------------


async def test_a_manager_cannot_be_replayed(node: Node, store: Store) -> None:
    await jobs_manager(store).start(node)
    for order in (Atom("reset"), (Atom("replay"), Atom("all")), (Atom("replay"), b"a")):
        answer = await node.call("steps", order)
        assert answer[0] is ERROR
        assert b"would issue its commands again" in answer[1][1]


async def test_a_paused_manager_handles_nothing_and_sends_nothing_until_it_is_resumed(
    node: Node, store: Store
) -> None:
    jobs = await es.start(node, jobs_service(store))
    await jobs_manager(store).start(node)
    assert await node.call("steps", Atom("pause")) == OK
    await jobs.execute("a", Begin(1, 0.0))
    found = await status(node)
    assert (found.state, found.lag, found.position) == ("paused", 1, 0)
    assert await node.call("steps", Atom("resume")) == OK
    await eventually(lambda: _length(store, "a", 3), timeout=20)


async def test_what_was_issued_before_a_pause_is_sent_after_it(node: Node, store: Store) -> None:
    await store.append("a", [Begun(2, None)], expected=0)
    await jobs_manager(store).start(node)  # there is no service yet

    async def issued() -> bool:
        return (await status(node)).commands == 2

    await eventually(issued, timeout=20)
    assert await node.call("steps", Atom("pause")) == OK
    jobs = await es.start(node, jobs_service(store))
    await jobs.execute("b", Begin())
    assert await events_of(store, "a") == [Begun(2, None)]
    assert await node.call("steps", Atom("resume")) == OK
    await become(store, "a", [Begun(2, None), Stepped(1), Stepped(2)])


async def test_a_manager_waits_for_a_position_as_a_query_does(node: Node, store: Store) -> None:
    jobs = await es.start(node, jobs_service(store))
    await jobs_manager(store).start(node)
    await jobs.execute("a", Begin(0, 3600.0))
    await es.wait_for(node, "steps", await store.last_position(), timeout=20)
    assert (await status(node)).timers == 1


async def test_a_manager_that_begins_now_leaves_out_what_was_before(node: Node, store: Store) -> None:
    await store.append("a", [Begun(1, None)], expected=0)
    jobs = await es.start(node, jobs_service(store))
    await jobs_manager(store, start="now").start(node)

    async def begun() -> bool:
        return await store.checkpoint("steps") == 1

    await eventually(begun, timeout=20)
    await jobs.execute("b", Begin(1))
    await become(store, "b", [Begun(1, None), Stepped(1)])
    assert await events_of(store, "a") == [Begun(1, None)]


async def test_events_that_are_handled_again_lead_to_the_same_commands(node: Node, store: Store) -> None:
    """Somebody has moved the checkpoint: a store that was restored from a backup."""
    jobs = await es.start(node, jobs_service(store))
    pid = await jobs_manager(store).start(node)
    await jobs.execute("a", Begin(2))
    await become(store, "a", [Begun(2, None), Stepped(1), Stepped(2)])
    await rests(store)
    node.system.exit(pid, Atom("kill"))
    await eventually(lambda: node.whereis("steps") is None)
    await store.save_checkpoint("steps", 0)
    await jobs_manager(store).start(node)
    await rests(store)
    assert await events_of(store, "a") == [Begun(2, None), Stepped(1), Stepped(2)]


# --- one owner ----------------------------------------------------------------------------------------------


@pytest_asyncio.fixture(params=["sqlite", "postgres"])
async def shared(request: pytest.FixtureRequest, tmp_path: Any) -> AsyncIterator[Store]:
    url = request.getfixturevalue("postgres") if request.param == "postgres" else f"sqlite:{tmp_path}/jobs.db"
    async with open_jobs(url) as opened:
        yield opened


async def test_another_node_goes_on_when_the_one_that_has_the_lease_ends(node: Node, shared: Store) -> None:
    jobs = await es.start(node, jobs_service(shared))
    here, there = es.Destination(commands=DESTINATION.commands), ("jobs", node.name)
    away = attrs.evolve(here, name=there)
    await jobs_manager(shared, services={"jobs": here}).start(node)
    async with Node(unique_name(), cookie="eventsourcing") as other:
        await other.connect(node.name)
        pid = await jobs_manager(shared, services={"jobs": away}).start(other)
        await jobs.execute("a", Begin(3, FAR_AWAY))
        await become(shared, "a", [Begun(3, FAR_AWAY), *map(Stepped, (1, 2, 3))])
        owner = await shared.lease_owner("query steps")
        mine = node.whereis("steps")
        assert mine is not None
        assert owner in (owner_name(pid), owner_name(mine))
        if owner == owner_name(mine):
            node.system.exit(mine, Atom("kill"))
        else:
            other.system.exit(pid, Atom("kill"))
        [timer] = await shared.timers("steps")
        async with shared.transaction() as tx:
            await tx.set_timer(attrs.evolve(timer, due_at=timer.due_at - FAR_AWAY))
        await eventually(lambda: _length(shared, "a", 5), timeout=30)
        await jobs.execute("b", Begin(2))
        await become(shared, "b", [Begun(2, None), Stepped(1), Stepped(2)])
        assert await shared.lease_owner("query steps") != owner
    assert (await events_of(shared, "a"))[-1] == TimedOut("late after 3")


async def test_who_stands_by_while_commands_wait_says_so(node: Node, shared: Store) -> None:
    """Their service is away, so they wait for long."""
    await shared.append("a", [Begun(2, None)], expected=0)
    await jobs_manager(shared).start(node)
    await eventually(lambda: _state(node, "stuck"), timeout=30)
    async with Node(unique_name(), cookie="eventsourcing") as other, open_jobs_again(shared) as again:
        await jobs_manager(again).start(other)
        await eventually(lambda: _state(other, "standby"), timeout=30)
        await es.start(node, jobs_service(shared))
        await become(shared, "a", [Begun(2, None), Stepped(1), Stepped(2)])


async def _state(node: Node, state: str) -> bool:
    return (await status(node)).state == state


async def test_the_commands_of_an_instance_go_in_order_to_the_owner_of_each_aggregate_in_the_cluster(
    node: Node, shared: Store
) -> None:
    """Each instance sends to a job that one of two services owns, which share a scope."""

    def elsewhere(progress: Progress, message: Any) -> list[es.Action]:
        if not isinstance(message, Begun):
            return []
        return [es.Dispatch("jobs", Step(n), to=to) for n in range(1, 4) for to in ("x", "y", "z")]

    async with Node(unique_name(), cookie="eventsourcing") as other:
        await other.connect(node.name)
        for each in (node, other):
            await es.start(each, jobs_service(open_jobs_again(shared), scope="services"))
        jobs = es.Service(node, "jobs", scope="services")

        async def is_shared() -> bool:
            return {(await jobs.owner(str(n))).node for n in range(20)} == {node.name, other.name}

        await eventually(is_shared, timeout=20)
        destination = es.Destination(scope="services", commands=DESTINATION.commands)
        await jobs_manager(shared, handle=elsewhere, services={"jobs": destination}).start(node)
        await jobs.execute("a", Begin())
        for to in ("x", "y", "z"):
            await become(shared, to, [Stepped(1), Stepped(2), Stepped(3)])
        await rests(shared)


def open_jobs_again(store: Store) -> Store:
    """A store of the same database, with connections of its own."""
    assert store.reopen is not None
    return store.reopen()


async def test_what_was_issued_is_sent_by_whoever_takes_over(node: Node, shared: Store) -> None:
    """The first instance has handled the event, sent nothing, and is killed with the lease in its name."""
    await shared.append("a", [Begun(2, None)], expected=0)
    async with Node(unique_name(), cookie="eventsourcing") as other:
        pid = await jobs_manager(shared).start(other)  # there is no service on its node

        async def issued() -> bool:
            return (await shared.outlook("steps")).waiting == 2

        await eventually(issued, timeout=20)
        await other.connect(node.name)
        await es.start(node, jobs_service(shared))
        await jobs_manager(shared).start(node)
        other.system.exit(pid, Atom("kill"))
        await become(shared, "a", [Begun(2, None), Stepped(1), Stepped(2)], timeout=40)


async def test_an_instance_that_has_lost_the_lease_in_the_middle_of_a_command_changes_nothing(
    node: Node, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was told a refusal, and meanwhile another one has become the owner, which is told the same."""
    refused, go_on, lost = asyncio.Event(), asyncio.Event(), asyncio.Event()
    send, fence = ManagerServer._send, Turn.fence

    async def slow(self: Any, command: Any) -> None:
        try:
            await send(self, command)
        except es.DomainError:
            refused.set()
            await go_on.wait()
            raise

    async def watched(self: Any, tx: Any) -> None:
        try:
            await fence(self, tx)
        except NotOurTurn:
            lost.set()
            raise

    monkeypatch.setattr(ManagerServer, "_send", slow)
    monkeypatch.setattr(Turn, "fence", watched)
    await closed(store, "a", 1)
    jobs = await es.start(node, jobs_service(store))
    await jobs_manager(store, on_refusal="handle", handle=steady).start(node)
    await asyncio.wait_for(refused.wait(), 60)
    mine = node.whereis("steps")
    assert mine is not None
    await store.end_lease("query steps", owner_name(mine))
    assert await store.take_lease("query steps", "another", 3600.0)
    go_on.set()
    await asyncio.wait_for(lost.wait(), 60)
    assert [each.status for each in await store.issued_commands("steps")] == ["waiting"]
    await jobs.execute("a", Reopen())
    await store.end_lease("query steps", "another")
    await become(store, "a", [Begun(1, None), Closed(), Reopened(), Noted("1 of a: closed")])
    await rests(store)


async def test_what_became_of_many_commands_is_written_in_one_transaction(
    node: Node, postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    count, answered, transactions, all_answered = 20, 0, 0, asyncio.Event()
    send, fence = ManagerServer._send, Turn.fence

    async def counted(self: Any, command: Any) -> None:
        nonlocal answered
        await send(self, command)
        answered += 1
        if answered == count:
            all_answered.set()

    async def first_waits(self: Any, tx: Any) -> None:
        nonlocal transactions
        transactions += 1
        await asyncio.wait_for(all_answered.wait(), 60)
        await fence(self, tx)

    monkeypatch.setattr(ManagerServer, "_send", counted)
    monkeypatch.setattr(Turn, "fence", first_waits)
    async with open_jobs(postgres) as store:
        for number in range(count):
            await store.append(f"j{number}", [Begun(1, None)], expected=0)
        await es.start(node, jobs_service(store))
        await jobs_manager(store).start(node)
        await rests(store, timeout=60)
        for number in range(count):
            assert await events_of(store, f"j{number}") == [Begun(1, None), Stepped(1)]
    assert transactions == 2


# --- what is declared ---------------------------------------------------------------------------------------


def test_a_manager_goes_into_another_os_process(tmp_path: Any) -> None:
    manager = jobs_manager(open_jobs(f"sqlite:{tmp_path}/jobs.db"), services={"jobs": es.Destination()})
    copy = pickle.loads(pickle.dumps(manager))
    assert copy.codec.decode(copy.codec.encode(Progress(1, 2))) == Progress(1, 2)
    assert copy.rules == manager.rules
    assert manager.worker().id == Atom("steps")


def test_what_cannot_work_is_refused_when_it_is_declared(tmp_path: Any) -> None:
    store = open_jobs("memory:")
    with pytest.raises(es.EventStoreError, match="one OS process"):
        jobs_manager(store).worker()
    with pytest.raises(es.EventStoreError, match="into="):
        jobs_manager(GlynConfig(pubsub_scope="scope", pubsub_group="group"))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="on_refusal"):
        jobs_manager(store, on_refusal="ignore")
    with pytest.raises(TypeError, match="no JSON"):
        jobs_manager(store, apply=None, empty_state=object())
    with pytest.raises(es.EventStoreError, match="cannot keep its state"):
        jobs_manager(store, into=_WithoutTables())


class _WithoutTables(es.MemoryStore[Any, Any]):
    has_side_tables = False
