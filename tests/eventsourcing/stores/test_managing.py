"""The tables of process managers: the same on all stores, within transactions and across them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import attrs
import pytest
import pytest_asyncio

from pyglyn import eventsourcing as es
from pyglyn.eventsourcing.stores.managing import PARKED, REFUSED, WAITING, IssuedCommand, Outlook, Timer

Store = es.EventStore[Any, Any]


@pytest_asyncio.fixture(params=["memory", "sqlite", "postgres"])
async def store(request: pytest.FixtureRequest, tmp_path: Any) -> AsyncIterator[Store]:
    urls = {"memory": "memory:", "sqlite": f"sqlite:{tmp_path}/m.db"}
    url = urls.get(request.param) or request.getfixturevalue("postgres")
    async with es.open_store(url, aggregate_type="T") as opened:
        yield opened


def command(id: str, instance: str = "i", **fields: Any) -> IssuedCommand:
    values: dict[str, Any] = {"service": "bank", "aggregate_id": "a", "command": b"\x83\x00"} | fields
    return IssuedCommand(manager="m", instance=instance, command_id=id, **values)


def timer(name: str, due_at: float, instance: str = "i", **fields: Any) -> Timer:
    return Timer(manager="m", instance=instance, name=name, due_at=due_at, **fields)


async def test_states_are_one_for_an_instance_of_a_manager(store: Store) -> None:
    async with store.transaction() as tx:
        await tx.save_manager_state("m", "i", "1")
        await tx.save_manager_state("m", "i", "2")
        await tx.save_manager_state("n", "i", "3")
        assert await tx.manager_state("m", "i") == "2"
    assert await store.manager_state("m", "i") == "2"
    assert await store.manager_state("m", "j") is None
    async with store.transaction() as tx:
        await tx.set_timer(timer("d", 1.0))
        await tx.set_timer(timer("d", 1.0, "j"))
        await tx.save_manager_state("m", "i", None)
    assert await store.manager_state("m", "i") is None
    assert await store.manager_state("n", "i") == "3"
    assert [each.instance for each in await store.timers("m")] == ["j"]


async def test_many_rows_at_once_are_as_many_one_by_one(store: Store) -> None:
    names = [f"i{n}" for n in range(250)]
    async with store.transaction() as tx:
        await tx.save_manager_states("m", {name: name for name in names})
        await tx.save_manager_states("m", {"i7": "another", "i251": "new"})
        await tx.issue_commands([command(f"c{n}", name) for n, name in enumerate(names)])
        await tx.issue_commands([command("c7", "i7"), command("c250", "i7")])
        await tx.issue_commands([])
    found = await store.manager_states("m", ["i251", "i7", "none", *names[10:200]])
    assert found == {"i251": "new", "i7": "another", **{name: name for name in names[10:200]}}
    assert await store.manager_states("m", []) == {}
    issued = await store.issued_commands("m", limit=1000)
    assert [each.command_id for each in issued] == [f"c{n}" for n in range(251)]


async def test_commands_come_in_the_order_in_which_they_were_issued_and_each_id_once(store: Store) -> None:
    pairs = [("correlation_id", "é")]
    async with store.transaction() as tx:
        for id in ("c", "b", "c", "a"):
            await tx.issue_command(command(id, metadata=pairs))
    first, second, third = await store.issued_commands("m")
    assert [each.command_id for each in (first, second, third)] == ["c", "b", "a"]
    assert first == attrs.evolve(command("c", metadata=pairs), id=first.id)
    assert await store.issued_commands("m", after=first.id, limit=1) == [second]
    assert await store.issued_commands("n") == []
    async with store.transaction() as tx:
        assert await tx.mark_command(second.id, REFUSED, attempts=1, error="too poor")
        assert await tx.finish_command(third.id)
        assert not await tx.finish_command(third.id)
        assert not await tx.mark_command(third.id, PARKED, attempts=1, error="")
    refused = attrs.evolve(second, status=REFUSED, attempts=1, error="too poor")
    assert await store.issued_commands("m") == [first, refused]
    assert await store.issued_commands("m", status=WAITING) == [first]
    assert await store.refusals("m") == [refused]
    async with store.transaction() as tx:
        await tx.issue_command(command("a"))  # one that is finished is forgotten
    assert [each.command_id for each in await store.issued_commands("m")] == ["c", "b", "a"]
    assert (await store.issued_commands("m"))[-1].id > third.id


async def test_timers_are_one_of_a_name_and_come_when_they_are_due(store: Store) -> None:
    now = await store.clock()
    scheduled = timer("later", now + 3600, service="bank", aggregate_id="a", command=b"\x83")
    async with store.transaction() as tx:
        await tx.set_timer(timer("d", now - 1))
        await tx.set_timer(timer("d", now - 20))
        await tx.set_timer(timer("e", now - 30))
        await tx.set_timer(scheduled)
        assert not await tx.cancel_timer("m", "j", "d")
    due = await store.due_timers("m")
    assert [(each.name, each.service) for each in due] == [("e", ""), ("d", "")]
    assert due[1].due_at == pytest.approx(now - 20, abs=0.002)
    assert [each.name for each in await store.timers("m", instance="i")] == ["e", "d", "later"]
    last = (await store.timers("m"))[-1]
    assert last == attrs.evolve(scheduled, id=last.id, due_at=last.due_at)
    async with store.transaction() as tx:
        assert await tx.mark_timer(due[0].id, attempts=2, error="it fails")
    assert [each.name for each in await store.due_timers("m")] == ["d"]
    async with store.transaction() as tx:
        assert await tx.mark_timer(due[0].id, attempts=2, error="")
        assert await tx.finish_timer(due[1].id)
        assert not await tx.finish_timer(due[1].id)
        assert await tx.cancel_timer("m", "i", "later")
    assert [(each.name, each.attempts) for each in await store.due_timers("m")] == [("e", 2)]


async def test_the_outlook_counts_what_a_manager_has_before_it(store: Store) -> None:
    assert await store.outlook("m") == Outlook()
    now = await store.clock()
    async with store.transaction() as tx:
        for id in ("a", "b", "c"):
            await tx.issue_command(command(id))
        await tx.set_timer(timer("d", now - 10))
        await tx.set_timer(timer("e", now + 1000))
        await tx.set_timer(timer("f", now - 1000))
    ids = [each.id for each in await store.issued_commands("m")]
    async with store.transaction() as tx:
        await tx.mark_command(ids[0], REFUSED, attempts=0, error="no")
        await tx.mark_command(ids[1], PARKED, attempts=0, error="no")
        await tx.mark_timer((await tx.due_timers("m"))[0].id, attempts=0, error="no")
    found = await store.outlook("m")
    assert attrs.evolve(found, due_in=None) == Outlook(waiting=1, refused=1, timers=2, parked=2)
    assert found.due_in is not None
    assert found.due_in <= -10 + 0.002


async def test_what_an_instance_with_parked_events_has_before_it_waits(store: Store) -> None:
    now = await store.clock()
    async with store.transaction() as tx:
        for instance in ("i", "j"):
            await tx.issue_command(command(instance, instance, status=REFUSED))
            await tx.set_timer(timer("d", now - 10, instance))
        await tx.park(
            es.ParkedEvent(query="m", aggregate_id="i", sequence=7, raw=b"{}", error="it fails", position=7)
        )
    assert [each.instance for each in await store.due_timers("m")] == ["j"]
    assert [each.instance for each in await store.refusals("m")] == ["j"]
    async with store.transaction() as tx:
        await tx.finish_timer((await tx.due_timers("m"))[0].id)
    found = await store.outlook("m")
    assert (found.timers, found.due_in) == (1, None)


async def test_a_transaction_that_fails_leaves_everything_as_it_was(store: Store) -> None:
    async with store.transaction() as tx:
        await tx.save_manager_state("m", "i", "1")
        await tx.issue_command(command("a"))
        await tx.set_timer(timer("d", 5.0))
    before = (await store.issued_commands("m"), await store.timers("m"))
    with pytest.raises(RuntimeError, match="broken"):  # noqa: PT012
        async with store.transaction() as tx:
            await tx.issue_command(command("b"))
            await tx.finish_command(before[0][0].id)
            await tx.set_timer(timer("d", 6.0))
            await tx.save_manager_state("m", "i", None)
            raise RuntimeError("broken")
    assert (await store.issued_commands("m"), await store.timers("m")) == before
    assert await store.manager_state("m", "i") == "1"
    async with store.transaction() as tx:
        await tx.issue_command(command("a"))
    assert await store.issued_commands("m") == before[0]
