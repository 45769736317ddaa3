"""What a manager keeps of an aggregate is forgotten with it, on all stores."""

from __future__ import annotations

import pickle
from collections.abc import AsyncIterator
from typing import Any

import attrs
import pytest
import pytest_asyncio

from pyglyn import etf
from pyglyn import eventsourcing as es
from pyglyn.etf import Atom
from pyglyn.eventsourcing.managers.transitions import Transitions
from pyglyn.eventsourcing.stores.encryption import TEXT_MARK
from pyglyn.eventsourcing.stores.keys import MemoryKeys
from pyglyn.eventsourcing.stores.managing import PARKED, IssuedCommand, Timer
from pyglyn.eventsourcing.stores.wrapped import WrappedStore
from pyglyn.node import Node
from pyglyn.testing import eventually
from tests.eventsourcing.managers.jobs import (
    DESTINATION,
    FAR_AWAY,
    Begun,
    Closed,
    Event,
    Job,
    Note,
    events_of,
    jobs_manager,
    jobs_service,
    open_jobs,
    parked,
    rests,
    status,
)

SECRET = "somebody's secret"
MARK = TEXT_MARK.encode()


@attrs.frozen
class Known:
    """The state of an instance."""

    text: str = ""


def remember(known: Known, message: Any) -> Known:
    return Known(SECRET)


def tell(known: Known, message: Any) -> list[es.Action]:
    """Have something to send, something to send later, and a deadline."""
    if not isinstance(message, Begun):
        return []
    return [
        es.Dispatch("away", Note(SECRET)),
        es.Schedule("later", es.Dispatch("away", Note(SECRET)), after=FAR_AWAY),
        es.Deadline("late", after=FAR_AWAY),
    ]


def telling(store: es.EventStore[Any, Any], **options: Any) -> es.Manager[Any]:
    values: dict[str, Any] = {"handle": tell, "apply": remember, "empty_state": Known()}
    return jobs_manager(store, services={"away": DESTINATION}, **(values | options))


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Any) -> str:
    if request.param == "postgres":
        found: str = request.getfixturevalue("postgres")
        return found
    return {"memory": "memory:", "sqlite": f"sqlite:{tmp_path}/jobs.db"}[request.param]


@pytest_asyncio.fixture
async def store(url: str) -> AsyncIterator[es.EncryptedStore[Any, Any]]:
    opened = es.open_store(url, events=Event, state=Job, aggregate_type="job", keys=MemoryKeys())
    assert isinstance(opened, es.EncryptedStore)
    async with opened:
        yield opened


async def kept(store: es.EventStore[Any, Any], instance: str) -> tuple[bool, int, int]:
    """Return whether a store has the state of an instance, and how many commands and timers."""
    commands = [each for each in await store.issued_commands("steps") if each.instance == instance]
    timers = await store.timers("steps", instance=instance)
    return await store.manager_state("steps", instance) is not None, len(commands), len(timers)


async def has(store: es.EventStore[Any, Any], instance: str, commands: int, timers: int) -> None:
    async def it_has() -> bool:
        assert await kept(store, instance) == (True, commands, timers)
        return True

    await eventually(it_has, timeout=20)


async def texts(store: es.EventStore[Any, Any]) -> list[bytes]:
    """Return what a store keeps of the manager's instances, as it is."""
    states = await store.manager_states("steps", ["a", "b"])
    commands = [each.command for each in await store.issued_commands("steps")]
    timers = [each.command for each in await store.timers("steps") if each.service]
    return [*(each.encode() for each in states.values()), *commands, *timers]


async def test_states_commands_and_deadlines_go_with_their_aggregate(
    node: Node, store: es.EncryptedStore[Any, Any]
) -> None:
    manager = telling(store)
    await manager.start(node)
    for id in ("a", "b"):
        await store.append(id, [Begun(1, None)], expected=0)
        await has(store, id, 1, 2)
    found = await texts(store.underlying)
    assert len(found) == 6
    assert all(each.startswith(MARK) for each in found)
    assert not [each for each in found if SECRET.encode() in each]
    await store.forget("a")
    assert await kept(store, "a") == (False, 0, 0)
    assert await kept(store, "b") == (True, 1, 2)
    await store.forget("a")
    # What is left is sent as it was, once there is somebody.
    store_of_others = open_jobs("memory:")
    await es.start(node, attrs.evolve(jobs_service(store_of_others), name="away"))
    await eventually(lambda: _noted(store_of_others, "b"), timeout=20)
    assert await events_of(store_of_others, "a") == []
    await rests(store)


async def _noted(store: es.EventStore[Any, Any], id: str) -> bool:
    return [each.text for each in await events_of(store, id)] == [SECRET]


async def test_what_is_kept_in_another_database_reads_as_nothing(
    node: Node, store: es.EncryptedStore[Any, Any], tmp_path: Any
) -> None:
    async with open_jobs(f"sqlite:{tmp_path}/kept.db") as into:
        manager = telling(store, into=into, policy=es.FailurePolicy(retries=0))
        await manager.start(node)
        await store.append("a", [Begun(1, None)], expected=0)
        await has(into, "a", 1, 2)
        assert not [each for each in await texts(into) if SECRET.encode() in each]
        await store.forget("a")
        assert (await kept(into, "a"))[0]
        await eventually(lambda: _nothing_waits(into), timeout=20)
        # The scheduled command and the deadline come: there is nobody any more whom they concern.
        async with into.transaction() as tx:
            for timer in await tx.timers("steps"):
                await tx.set_timer(attrs.evolve(timer, due_at=0.0))
        await store.append("c", [Begun(0, None)], expected=0)
        await eventually(lambda: _timers_are(into, "a", 0), timeout=20)
        assert await kept(into, "a") == (True, 0, 0)
        assert await manager.sealing.open(await into.manager_state("steps", "a") or "") is None
        assert (await status(node)).parked == 0


async def _nothing_waits(store: es.EventStore[Any, Any]) -> bool:
    return await store.issued_commands("steps") == []


async def _timers_are(store: es.EventStore[Any, Any], instance: str, count: int) -> bool:
    return len(await store.timers("steps", instance=instance)) == count


async def test_what_is_parked_of_it_is_shown_in_clear_text_and_goes_too(
    node: Node, store: es.EncryptedStore[Any, Any]
) -> None:
    await jobs_manager(store).start(node)
    await es.start(node, jobs_service(store))
    await store.append("a", [Begun(1, None), Closed()], expected=0)
    [found] = await parked(node, 1)
    assert etf.decode(found[Atom("raw")]) == (Atom("step"), 1)
    assert [each.status for each in await store.issued_commands("steps")] == [PARKED]
    await store.forget("a")
    assert await node.call("steps", Atom("parked")) == []


def to_all(envelope: es.EventEnvelope[Any]) -> str:
    return "all"


async def test_what_belongs_to_a_process_of_several_aggregates_stays_until_that_ends(
    node: Node, store: es.EncryptedStore[Any, Any]
) -> None:
    await telling(store, correlate=to_all).start(node)
    await store.append("all", [Begun(1, None)], expected=0)
    await has(store, "all", 1, 2)
    await store.forget("all")
    assert await kept(store, "all") == (True, 1, 2)


async def test_others_of_the_same_id_keep_what_is_theirs(
    url: str, store: es.EncryptedStore[Any, Any]
) -> None:
    await store.append("a", [Begun(1, None)], expected=0)
    own = attrs.evolve(_parked("q"), position=1)
    async with store.transaction() as tx:
        await tx.save_manager_state("m", "a", "{}")
        await tx.issue_command(
            IssuedCommand(
                manager="m", instance="a", command_id="c", service="s", aggregate_id="a", command=b"\x83\x6a"
            )
        )
        await tx.set_timer(Timer(manager="m", instance="a", name="t", due_at=0.0))
        await tx.park(own)
        await tx.park(attrs.evolve(own, query="of another type", position=17))
        await tx.park(attrs.evolve(own, query="over the wire", position=None))
    await store.forget("a")
    assert [each.query for each in await store.parked()] == ["of another type"]
    assert await store.manager_state("m", "a") == "{}"
    assert len(await store.issued_commands("m")) == len(await store.timers("m")) == 1


def _parked(query: str) -> es.ParkedEvent:
    return es.ParkedEvent(query=query, aggregate_id="a", sequence=1, raw=b"{}", error="no")


async def test_an_instance_that_is_forgotten_while_its_events_are_handled_leaves_nothing(
    node: Node, store: es.EncryptedStore[Any, Any]
) -> None:
    manager = telling(store)
    await store.append("a", [Begun(1, None)], expected=0)
    [event] = await store.read()
    await store.forget("a")
    async with store.transaction() as tx:
        assert await Transitions(manager).project(tx, [event], lambda: False) == 1
    assert await store.manager_state("steps", "a") is None
    assert await store.issued_commands("steps") == []
    assert [each.name for each in await store.timers("steps")] == ["late"]  # which will find nobody


async def test_what_was_kept_before_there_were_keys_is_read_as_it_is(node: Node, url: str) -> None:
    if url == "memory:":
        pytest.skip("a memory store is one object")
    plain = es.open_store(url, events=Event, state=Job, aggregate_type="job")
    keys = MemoryKeys()
    async with plain, es.open_store(url, events=Event, state=Job, aggregate_type="job", keys=keys) as store:
        await plain.append("a", [Begun(1, None)], expected=0)
        async with plain.transaction() as tx:
            await tx.save_manager_state("steps", "a", '{"steps":1,"taken":0}')
        manager = jobs_manager(store)
        await manager.start(node)
        await es.start(node, jobs_service(store))  # which gives it a key with its next event
        await rests(store)
        state = await store.manager_state("steps", "a")
        assert state is not None
        assert state.startswith(TEXT_MARK)
        assert await manager.sealing.open(state) == '{"steps":1,"taken":1}'


def test_a_manager_with_keys_travels(tmp_path: Any) -> None:
    url = f"sqlite:{tmp_path}/a.db"
    store = es.open_store(url, events=Event, aggregate_type="job", keys=f"sqlite:{tmp_path}/keys.db")
    manager = jobs_manager(store)
    assert manager.sealing._ring is not None
    again: Any = pickle.loads(pickle.dumps(manager))
    assert again.sealing._ring is again.store.ring


class Around(WrappedStore[Any, Any]):
    """A store that does more than to tell what is committed."""

    only_tells = False


async def test_what_is_kept_is_encrypted_whatever_is_around_the_store_with_the_keys(
    store: es.EncryptedStore[Any, Any],
) -> None:
    await store.append("a", [Begun(1, None)], expected=0)
    async with store.transaction() as tx:
        manager = telling(Around(Around(store)), into=store)
        assert await Transitions(manager).project(tx, await store.read(), lambda: False) == 1
    found = await texts(store.underlying)
    assert len(found) == 3
    assert all(each.startswith(MARK) for each in found)
    await store.forget("a")
    assert await kept(store, "a") == (False, 0, 0)
