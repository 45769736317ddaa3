"""A sender that stood still: another instance had the lease meanwhile, and has ended. Its clock is the test's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio

from pyglyn import eventsourcing as es
from pyglyn.errors import ActorTimeout
from pyglyn.etf import encode
from pyglyn.eventsourcing.managers import sending
from pyglyn.eventsourcing.managers.sending import Sender
from pyglyn.eventsourcing.queries import turns
from pyglyn.eventsourcing.queries.durable_state import STANDBY_S
from pyglyn.eventsourcing.queries.turns import LEASE_S, Turn, owner_name
from pyglyn.eventsourcing.stores.managing import PARKED, REFUSED, WAITING, IssuedCommand
from pyglyn.node import Process
from pyglyn.testing import eventually
from tests.eventsourcing.managers.jobs import open_jobs

LEASE = "query steps"
ANOTHER = "another instance"
SOON = es.FailurePolicy(retries=None, first=0.01, longest=0.01)

Store = es.EventStore[Any, Any]


class Clock:
    """Stands for the module `time`."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


class Service:
    """Answers commands as it is told, one after the other; then with success."""

    def __init__(self) -> None:
        self.answers: list[Exception | None] = []
        self.asked: list[str] = []
        self.go_on = asyncio.Event()
        self.go_on.set()

    async def send(self, command: IssuedCommand) -> None:
        self.asked.append(command.command_id)
        await self.go_on.wait()
        if self.answers and (answer := self.answers.pop(0)) is not None:
            raise answer


class World:
    """A manager's commands in a store, its sender, and another instance."""

    def __init__(self, store: Store, me: Process) -> None:
        self.store = store
        self.me = me
        self.service = Service()
        self.lost = 0
        self.turn = Turn(store, "steps", me)
        self.sender = Sender(
            "steps",
            store,
            self.turn,
            self.service.send,
            on_refusal="handle",
            policy=es.FailurePolicy(retries=0),
            unavailable=SOON,
            may_send=lambda: True,
            refused=lambda: None,
            lost=self._lost,
        )

    async def _lost(self) -> None:
        self.lost += 1

    async def issue(self, *ids: str, instance: str = "i", service: str = "jobs") -> None:
        async with self.store.transaction() as tx:
            await tx.issue_commands(
                [
                    IssuedCommand(
                        manager="steps",
                        instance=instance,
                        command_id=id,
                        service=service,
                        aggregate_id="a",
                        command=encode(id.encode()),
                        metadata=[],
                    )
                    for id in ids
                ]
            )
        self.sender.wake()

    async def statuses(self) -> dict[str, str]:
        return {each.command_id: each.status for each in await self.store.issued_commands("steps")}

    async def another_takes_over(self) -> None:
        """The lease of ours runs out, and another instance has it."""
        await self.store.end_lease(LEASE, owner_name(self.me.pid))
        assert await self.store.take_lease(LEASE, ANOTHER, 3600.0)

    async def another_ends(self) -> None:
        await self.store.end_lease(LEASE, ANOTHER)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(turns, "time", made)
    return made


@pytest_asyncio.fixture(params=["memory", "sqlite", "postgres"])
async def world(
    request: pytest.FixtureRequest, tmp_path: Any, node: Any, clock: Clock
) -> AsyncIterator[World]:
    urls = {"memory": "memory:", "sqlite": f"sqlite:{tmp_path}/jobs.db"}
    url = urls.get(request.param) or request.getfixturevalue("postgres")
    async with open_jobs(url) as store, node.process() as me:
        made = World(store, me)
        running = asyncio.create_task(made.sender.run())
        yield made
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await made.sender.stop()


def asked(world: World, *ids: str) -> Callable[[], bool]:
    return lambda: world.service.asked == list(ids)


async def test_a_command_that_another_instance_has_seen_to_is_not_sent_again(
    world: World, clock: Clock
) -> None:
    """It was refused there, and the manager has gone on from that: now it must not be carried out."""
    world.service.go_on.clear()
    world.service.answers = [ActorTimeout("execute", 1)]
    await world.issue("a")
    await eventually(asked(world, "a"))
    clock.now += LEASE_S + 1  # it stands still
    await world.another_takes_over()
    [command] = await world.store.issued_commands("steps")
    async with world.store.transaction() as tx:
        await tx.mark_command(command.id, REFUSED, attempts=1, error="closed")
        assert await tx.finish_command(command.id)
    await world.another_ends()
    await world.issue("b")
    world.service.go_on.set()
    await eventually(lambda: world.service.asked[-1] == "b")
    assert world.service.asked == ["a", "b"]


async def test_a_refusal_does_not_count_once_another_instance_may_have_been_told_otherwise(
    world: World, clock: Clock
) -> None:
    """That one was told that the command is carried out, and has ended before it could take note."""
    world.service.go_on.clear()
    world.service.answers = [es.DomainError("closed")]
    await world.issue("a")
    await eventually(asked(world, "a"))
    clock.now += LEASE_S + 1
    await world.another_takes_over()
    await world.another_ends()
    world.service.go_on.set()
    await eventually(asked(world, "a", "a"))

    async def over() -> bool:
        found = await world.statuses()
        assert found.get("a", WAITING) == WAITING
        return not found

    await eventually(over)


async def test_what_became_of_a_command_is_written_in_the_tenure_in_which_it_was_read(
    world: World, clock: Clock
) -> None:
    """The lease was got again for another command, while this one's answer was on its way."""
    answered, go_on = asyncio.Event(), asyncio.Event()
    send = world.service.send

    async def slowly(command: IssuedCommand) -> None:
        first = command.command_id not in world.service.asked
        try:
            await send(command)
        finally:
            if command.command_id == "a" and first:
                answered.set()
                await go_on.wait()

    world.sender._send = slowly
    world.service.answers = [ValueError("no answer at all")]
    await world.issue("a")
    await asyncio.wait_for(answered.wait(), 60)
    clock.now += LEASE_S + 1
    await world.another_takes_over()
    await world.another_ends()
    await world.issue("b", instance="j")
    await eventually(lambda: "b" in world.service.asked)
    assert world.turn.is_ours
    go_on.set()

    async def over() -> bool:
        found = await world.statuses()
        assert found.get("a") != PARKED
        return not found

    await eventually(over)
    assert world.service.asked.count("a") == 2


async def test_an_instance_that_stands_by_asks_for_the_lease_now_and_then(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await world.store.take_lease(LEASE, ANOTHER, 3600.0)
    own = Clock()
    monkeypatch.setattr(sending, "time", own)
    taken, take = 0, Turn.take

    async def counted(self: Turn) -> None:
        nonlocal taken
        taken += 1
        await take(self)

    monkeypatch.setattr(Turn, "take", counted)
    for number in range(100):
        await world.issue(f"c{number}", instance=f"i{number}")
    await eventually(lambda: world.lost == 1)
    for _ in range(100):
        world.sender.wake()
        await asyncio.sleep(0)
    assert (taken, world.lost, world.sender.stands_by) == (1, 1, True)
    own.now += STANDBY_S
    world.sender.wake()
    await eventually(lambda: world.lost == 2)
    assert (taken, world.service.asked) == (2, [])
    await world.another_ends()
    world.sender.look()  # as when its end was told
    await eventually(lambda: len(world.service.asked) == 100)


async def test_an_error_of_a_command_that_others_have_seen_to_is_not_shown_any_more(world: World) -> None:
    world.service.answers = [ActorTimeout("execute", 1)] * 1000
    await world.issue("a")
    await eventually(lambda: bool(world.sender.error))
    [command] = await world.store.issued_commands("steps")
    async with world.store.transaction() as tx:
        assert await tx.finish_command(command.id)
    world.sender.forget()
    await eventually(lambda: world.sender.error == "")


def held_up_reading(world: World, monkeypatch: pytest.MonkeyPatch) -> tuple[asyncio.Event, asyncio.Event]:
    """Let what is read of the commands wait; returns what is set by then, and what lets it go on."""
    read, reading, go_on = world.store.issued_commands, asyncio.Event(), asyncio.Event()

    async def slowly(manager: str, **options: Any) -> list[IssuedCommand]:
        found = await read(manager, **options)
        reading.set()
        await go_on.wait()
        return found

    monkeypatch.setattr(world.store, "issued_commands", slowly)
    return reading, go_on


async def test_a_command_that_is_over_while_commands_are_read_is_not_sent_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.service.go_on.clear()
    await world.issue("a")
    await eventually(asked(world, "a"))
    reading, go_on = held_up_reading(world, monkeypatch)
    world.sender.forget()
    await reading.wait()
    world.service.go_on.set()
    await eventually(lambda: not world.sender._running)
    go_on.set()
    await world.issue("b")
    await eventually(lambda: world.service.asked[-1] == "b")
    assert world.service.asked == ["a", "b"]


async def test_what_is_forgotten_while_more_is_read_is_read_anew(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is read meanwhile lies behind it, and would be taken for the beginning."""
    world.service.go_on.clear()
    await world.issue("a", "b")  # b waits for a
    await eventually(asked(world, "a"))
    reading, go_on = held_up_reading(world, monkeypatch)
    await world.issue("c", instance="j")
    await reading.wait()
    world.sender.forget()
    go_on.set()
    await eventually(asked(world, "a", "c"))
    world.service.go_on.set()
    await eventually(asked(world, "a", "c", "b"))


async def test_however_many_wait_for_a_service_that_hangs_the_others_get_theirs(world: World) -> None:
    world.sender._outgoing._most = 10  # the same one: it may be in use already
    answers = asyncio.Event()
    asked: list[str] = []

    async def send(command: IssuedCommand) -> None:
        asked.append(command.command_id)
        if command.service == "hung":
            await answers.wait()

    world.sender._send = send
    for number in range(25):
        await world.issue(f"h{number}", instance=f"i{number}", service="hung")
        await world.issue(f"b{number}", instance=f"i{number}")  # behind it
        await world.issue(f"q{number}", instance=f"another {number}")
    quick = [f"q{number}" for number in range(25)]
    await eventually(lambda: sorted(each for each in asked if each[0] == "q") == sorted(quick), timeout=20)
    await world.issue("q25", instance="i3000")
    await eventually(lambda: "q25" in asked, timeout=20)
    await eventually(lambda: len(world.sender._outgoing) <= 10, timeout=20)
    assert not [each for each in asked if each[0] == "b"]
    answers.set()
    await eventually(lambda: _none_wait(world), timeout=20)
    assert sorted(asked) == sorted([*quick, "q25", *(f"{kind}{n}" for kind in "hb" for n in range(25))])
    for number in range(25):
        assert asked.index(f"h{number}") < asked.index(f"b{number}")


async def _none_wait(world: World) -> bool:
    return await world.statuses() == {}
