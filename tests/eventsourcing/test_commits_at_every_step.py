"""Others come in before and after every operation on the store, by seed: real servers, real stores.

A durable query, a subscription, callers of `wait_for`, and a process manager run over a store that lets a schedule
in at each step: another writer commits events, another instance of the query goes on by itself or only changes the
checkpoint's version, somebody pauses and resumes here or elsewhere, asks for the status, or has an aggregate
forgotten. Whatever comes when: nothing is left out but what is forgotten, nothing done twice, and at the end all
is done and nobody stands still.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from pyglyn import eventsourcing as es
from pyglyn.etf import Atom
from pyglyn.eventsourcing.domain.evolution import each
from pyglyn.eventsourcing.queries.durable_state import BatchLimits, mark
from pyglyn.eventsourcing.stores.wrapped import WrappedStore, WrappedTransaction
from pyglyn.node import Node
from pyglyn.testing import eventually
from pyglyn.testing.bank import BankAccount, BankAccountEvent, CustomerDepositedCash
from tests.eventsourcing.managers.jobs import (
    Begin,
    Begun,
    Command,
    Event,
    Job,
    apply,
    at_rest,
    check,
    handle,
    jobs_manager,
    jobs_service,
    steady,
)

FULL = "PYGLYN_TEST_SEEDS"
"""The environment variable that says how many seeds a full run takes."""

SEEDS = 6
ROUNDS = 8
HAPPENINGS = 30
ACCOUNTS = ("a", "b")
MORE_ACCOUNTS = ("a", "b", "c", "d")
STEPS = (
    "read",
    "read_page",
    "scan",
    "last_position",
    "position_of",
    "wait",
    "checkpoints",
    "load_checkpoint",
    "parked",
    "count_parked",
    "parked_aggregates",
    "set_paused",
    "take_lease",
    "issued_commands",
    "outlook",
)


class Restless(WrappedStore[Any, Any]):
    """A store that something happens to before and after each operation."""

    only_tells = False

    def __init__(self, underlying: es.EventStore[Any, Any], happen: Callable[[], Awaitable[None]]) -> None:
        super().__init__(underlying)
        self.happen = happen

    @contextlib.asynccontextmanager
    async def _transaction(self, isolation: Any) -> AsyncIterator[WrappedTransaction[Any, Any]]:
        await self.happen()
        async with super()._transaction(isolation) as tx:
            yield tx
        await self.happen()


def _restless(name: str) -> Any:
    inside = getattr(WrappedStore, name)

    async def step(self: Restless, *args: Any, **options: Any) -> Any:
        await self.happen()
        found = await inside(self, *args, **options)
        await self.happen()
        return found

    return step


for _name in STEPS:
    setattr(Restless, _name, _restless(_name))


class World:
    """What happens, by seed."""

    def __init__(self, seed: int, node: Node, plain: es.EventStore[Any, Any], name: str) -> None:
        self.random = random.Random(seed)
        self.node = node
        self.plain = plain
        self.name = name
        self.left = HAPPENINGS
        self.orders: list[asyncio.Task[Any]] = []
        self.waiters: list[asyncio.Task[Any]] = []
        self.forgotten: set[str] = set()
        self.events: list[Callable[[], Awaitable[None]]] = [
            self.commit,
            self.commit,
            self.ask,
            self.order,
            self.pause_elsewhere,
            self.change_version,
        ]

    async def happen(self) -> None:
        if self.left and self.random.random() < 0.25:
            self.left -= 1
            await self.random.choice(self.events)()

    async def begin(self, request: str) -> None:
        """Ask the query, and wait for no answer: it may be what waits here."""
        self.orders.append(asyncio.ensure_future(self.node.call(self.name, Atom(request), 60.0)))
        for _ in range(self.random.randrange(6)):
            await asyncio.sleep(0)

    async def commit(self) -> None:
        raise NotImplementedError

    async def ask(self) -> None:
        await self.begin("status")

    async def order(self) -> None:
        await self.begin(self.random.choice(["pause", "resume"]))

    async def pause_elsewhere(self) -> None:
        await self.plain.set_paused(self.name, self.random.random() < 0.5)

    async def change_version(self) -> None:
        with contextlib.suppress(es.CheckpointConflict):
            checkpoint = await self.plain.load_checkpoint(self.name)
            await self.plain.update_checkpoint(checkpoint.next())

    def ids(self) -> Sequence[str]:
        """Return the aggregates there are."""
        raise NotImplementedError

    async def forget(self) -> None:
        """Forget one of the aggregates, or one that is forgotten once more."""
        assert isinstance(self.plain, es.EncryptedStore)
        id = self.random.choice(self.ids())
        if len(self.forgotten | {id}) < len(self.ids()):
            self.forgotten.add(id)
            await self.plain.forget(id)

    async def rest(self) -> None:
        """Nothing happens any more, and nobody is to stand still, as is ordered here or elsewhere."""
        self.left = 0
        await asyncio.gather(*self.orders)
        if self.random.random() < 0.3:
            assert await self.node.call(self.name, Atom("resume"), 60.0) is Atom("ok")
        else:
            await self.plain.set_paused(self.name, False)
        for _ in range(self.random.randrange(3)):
            await self.ask()

    async def status(self) -> es.QueryStatus:
        return es.QueryStatus.from_term(await self.node.call(self.name, Atom("status"), 60.0))

    async def is_live(self) -> bool:
        found = await self.status()
        assert (found.state, found.lag, found.error) in (("live", 0, ""), ("idle", 0, "")), found
        return True


class BankWorld(World):
    """The world of a query that writes down which events it has had."""

    def __init__(self, seed: int, node: Node, plain: es.EventStore[Any, Any], *, forgets: bool) -> None:
        super().__init__(seed, node, plain, "totals")
        self.events += [self.another_goes_on, self.wait_for, *([self.forget] if forgets else [])]
        self.accounts = MORE_ACCOUNTS if forgets else ACCOUNTS

    def ids(self) -> Sequence[str]:
        return self.accounts

    async def commit(self) -> None:
        account = self.random.choice([each for each in self.accounts if each not in self.forgotten])
        with contextlib.suppress(es.VersionConflict, es.Forgotten):
            sequence = await self.plain.last_sequence(account)
            events = [CustomerDepositedCash(1.0, 1.0)] * self.random.choice([1, 1, 3])
            await self.plain.append(account, events, expected=sequence)

    async def another_goes_on(self) -> None:
        before = await self.plain.load_checkpoint(self.name)
        found = await self.plain.read(before.position, limit=self.random.randint(1, 3))
        if before.paused or not found:
            return
        async with self.plain.transaction() as tx:
            if (await tx.load_checkpoint(self.name)).version == before.version:
                for event in found:
                    assert event.envelope is not None
                    for _ in each(event.envelope.payload):
                        await project(tx, event.envelope)
                await tx.update_checkpoint(before.next(position=found[-1].position, mark=mark(found[-1])))

    async def wait_for(self) -> None:
        position = await self.plain.last_position() + self.random.randrange(2)
        self.waiters.append(asyncio.ensure_future(es.wait_for(self.node, self.name, position, timeout=120)))


async def project(tx: es.Transaction[Any, Any], envelope: Any) -> None:
    await tx.execute(
        "INSERT INTO seen (account, sequence) VALUES (?, ?)", (envelope.aggregate_id, envelope.sequence)
    )


async def follow_along(store: es.EventStore[Any, Any], seen: list[int], batch: int) -> None:
    async for event in es.subscribe(store, batch=batch):
        seen.append(event.position)  # noqa: PERF401 - it has no end


async def run_query(seed: int, node: Node, path: Path, *, forgets: bool = False) -> None:
    options: dict[str, Any] = {"keys": f"sqlite:{path}.keys"} if forgets else {}
    plain, under = [
        es.open_store(
            f"sqlite:{path}?synchronous=NORMAL",
            events=BankAccountEvent,
            state=BankAccount,
            aggregate_type="BankAccount",
            **options,
        )
        for _ in range(2)
    ]
    async with plain, under:
        async with plain.transaction() as tx:
            await tx.execute("CREATE TABLE seen (id INTEGER PRIMARY KEY, account TEXT, sequence INT)")
        world = BankWorld(seed, node, plain, forgets=forgets)
        store = Restless(under, world.happen)
        for _ in range(world.random.randrange(4)):
            await world.commit()
        limits = BatchLimits(size=world.random.choice([1, 2, 50]))
        await es.DurableQuery("totals", project, store=store, into=store, limits=limits).start(node)
        followed: list[int] = []
        following = asyncio.create_task(follow_along(store, followed, world.random.choice([1, 3, 500])))
        for _ in range(ROUNDS):
            await world.commit()
            await world.status()
        await world.commit()  # whoever waits for one more event than there was gets it
        assert world.left < HAPPENINGS, "nothing has happened"
        await world.rest()
        last = await plain.last_position()
        await eventually(world.is_live, timeout=20)
        await es.wait_for(node, "totals", last, timeout=60)
        await asyncio.gather(*world.orders, *world.waiters)
        await eventually(lambda: len(followed) >= last, timeout=20)
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        assert followed == list(range(1, last + 1))
        log = [(event.aggregate_id, event.sequence) for event in await plain.read(0, limit=last)]
        async with plain.transaction() as tx:
            seen = await tx.execute("SELECT account, sequence FROM seen ORDER BY id")
        assert seen == [place for place in log if place[0] not in world.forgotten or place in set(seen)]
        await end(node, "totals")


async def end(node: Node, *names: str) -> None:
    for name in names:
        pid = node.whereis(name)
        assert pid is not None, f"{name} has ended"
        node.system.exit(pid, Atom("shutdown"))
    await eventually(lambda: not any(map(node.whereis, names)), timeout=20)


class JobsWorld(World):
    """The world of a manager of jobs."""

    def __init__(self, seed: int, node: Node, plain: es.EventStore[Any, Any], *, forgets: bool) -> None:
        super().__init__(seed, node, plain, "steps")
        domain: es.Domain[Job, Command, Event] = es.Domain(handle, apply, Job())
        self.executor = es.CommandExecutor(plain, domain)
        self.begun: dict[str, Begun] = {}
        self.events += [self.lease_runs_out, *([self.forget] if forgets else [])]

    def ids(self) -> Sequence[str]:
        return [*self.begun, "none yet"]

    async def commit(self) -> None:
        id, begin = f"j{len(self.begun)}", Begin(self.random.randrange(3), self.random.choice([None, 0.0]))
        self.begun[id] = Begun(begin.steps, begin.wait_s)
        with contextlib.suppress(es.Forgotten):
            await self.executor.execute(id, begin)

    async def lease_runs_out(self) -> None:
        if (owner := await self.plain.lease_owner("query steps")) is not None:
            await self.plain.end_lease("query steps", owner)


async def run_manager(seed: int, node: Node, *, forgets: bool = False) -> None:
    options = {"keys": "memory:"} if forgets else {}
    async with es.open_store("memory:", events=Event, state=Job, aggregate_type="job", **options) as plain:
        world = JobsWorld(seed, node, plain, forgets=forgets)
        store = Restless(plain, world.happen)
        await es.start(node, jobs_service(plain))
        await jobs_manager(store, on_refusal="handle", handle=steady).start(node)
        for _ in range(ROUNDS):
            await world.commit()
            await world.status()
        assert world.left < HAPPENINGS, "nothing has happened"
        await world.rest()
        await world.commit()
        await eventually(world.is_live, timeout=20)
        await eventually(lambda: at_rest(plain), timeout=60)
        await asyncio.gather(*world.orders, *world.waiters)
        await check(plain, {id: begun for id, begun in world.begun.items() if id not in world.forgotten})
        for id in world.forgotten:
            assert await plain.manager_state("steps", id) is None
        await end(node, "steps", "jobs")


def seeds() -> range:
    return range(int(os.environ.get(FULL, SEEDS)))


@pytest.mark.parametrize("forgets", [False, True], ids=["all is kept", "some is forgotten"])
async def test_a_query_a_subscription_and_who_waits_miss_nothing(
    node: Node, tmp_path: Path, forgets: bool
) -> None:
    for seed in seeds():
        try:
            await run_query(seed, node, tmp_path / f"{seed}.db", forgets=forgets)
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise


@pytest.mark.parametrize("forgets", [False, True], ids=["all is kept", "some is forgotten"])
async def test_a_manager_has_each_command_carried_out_once(node: Node, forgets: bool) -> None:
    for seed in seeds():
        try:
            await run_manager(seed, node, forgets=forgets)
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise
