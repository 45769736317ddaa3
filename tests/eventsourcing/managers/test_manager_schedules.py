"""Fault schedules of a process manager: everything dies at any step, by seed, on real stores.

Real are the stores and their transactions, the aggregates with their commands, what a manager does in a transaction,
its state machine, and the order of its commands. The schedule is simulated: several instances of the manager take
their steps in any order, are killed between any two of them, before and after a commit; commits go unanswered,
answers of services are lost, commands come to their service late, when they were sent again and answered long since,
an instance is taken for dead while it is in the middle of a command, wake-ups do not come. After healing each command of each job was carried out once, in order, and each deadline came once, unless it
was cancelled.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
from pathlib import Path
from typing import Any

import pytest

from pyglyn import etf
from pyglyn import eventsourcing as es
from pyglyn.eventsourcing.managers.machine import Attend, ManagerMachine, Survey
from pyglyn.eventsourcing.managers.outgoing import Outgoing
from pyglyn.eventsourcing.managers.transitions import Transitions
from pyglyn.eventsourcing.queries.durable_calls import EffectFailed
from pyglyn.eventsourcing.queries.durable_state import Apply, BatchLimits, Effect, Load, Read, Sleep, Wait
from pyglyn.eventsourcing.stores.managing import REFUSED, IssuedCommand
from tests.eventsourcing.managers.jobs import (
    FAR_AWAY,
    Begin,
    Begun,
    Close,
    Command,
    Event,
    Job,
    Reopen,
    apply,
    at_rest,
    check,
    handle,
    jobs_manager,
    open_jobs,
    steady,
)

FULL = "PYGLYN_TEST_SEEDS"
"""The environment variable that says how many seeds a full run takes."""

SEEDS = {"memory": 100, "sqlite": 20, "postgres": 4}
LEASE = "query steps"


class Killed(Exception):
    """The instance is gone; nobody learns what it was doing."""


class Unanswered(Exception):
    """The transaction was committed, and nobody was told."""


class World:
    """The store, its writers, and the faults."""

    def __init__(self, seed: int, store: es.EventStore[Any, Any]) -> None:
        self.random = random.Random(seed)
        self.faults = True
        self.now = 0.0
        self.store = store
        domain: es.Domain[Job, Command, Event] = es.Domain(handle, apply, Job())
        self.executors = [es.CommandExecutor(store, domain, cached=cached) for cached in (0, 10)]
        self.spec = jobs_manager(store, on_refusal="handle", handle=steady)
        self.instances: list[Instance] = []
        self.serials = itertools.count(1)
        self.begun: dict[str, Begun] = {}
        self.late: list[IssuedCommand] = []  # somewhere on their way

    def chance(self, probability: float) -> bool:
        return self.faults and self.random.random() < probability

    async def client(self) -> None:
        executor = self.random.choice(self.executors)
        if self.begun and self.random.random() < 0.3:
            command: Command = self.random.choice([Close(), Reopen()])
            await executor.execute(self.random.choice(list(self.begun)), command)
        else:
            id = f"j{len(self.begun)}"
            begin = Begin(self.random.randrange(4), self.random.choice([None, 0.0, FAR_AWAY]))
            self.begun[id] = Begun(begin.steps, begin.wait_s)
            await executor.execute(id, begin)

    async def carry_out(self, command: IssuedCommand) -> None:
        """Do what the service does with a command."""
        executor, term = self.random.choice(self.executors), etf.decode(command.command)
        decoded = self.spec.readers["jobs"](term)
        await executor.execute(
            command.aggregate_id, decoded, command.metadata, command_id=command.command_id, final=True
        )

    async def arrive(self) -> None:
        """A command that was late comes to its service, and nobody waits for what becomes of it."""
        if self.late:
            with contextlib.suppress(es.DomainError):
                await self.carry_out(self.late.pop(self.random.randrange(len(self.late))))

    @contextlib.asynccontextmanager
    async def transaction(self) -> Any:
        """A transaction before, in, or after which the instance may be killed."""
        async with self.store.transaction() as tx:
            yield tx
            if self.chance(0.04):
                raise Killed
        if self.chance(0.04):
            raise Killed
        if self.chance(0.04):
            raise Unanswered


class Instance:
    """A running driver of the manager."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.owner = f"instance {next(world.serials)}"
        limits = BatchLimits(size=world.random.choice([1, 2, 5, 50]))
        self.machine = ManagerMachine("steps", world.spec.rules, limits=limits, policy=world.spec.policy)
        self.transitions = Transitions(world.spec)
        self.outgoing = Outgoing(64)
        self.unread = True
        self.under_way: list[tuple[IssuedCommand, str | None]] = []  # sent, and what came of it
        self.effect: Effect = self.machine.start()
        self.since = world.now

    async def is_ours(self, tables: Any) -> bool:
        """Take the lease; it never runs out by itself, since the schedule has no clock."""
        return bool(await tables.take_lease(LEASE, self.owner, FAR_AWAY))

    async def step(self) -> None:
        """Do one thing; raises Killed."""
        if self.world.chance(0.02):
            raise Killed
        match self.world.random.randrange(4):
            case 0:
                await self.send()
            case 1:
                await self.take_note()
            case _:
                before = self.effect
                self.effect = await self.carry_out(before)
                if self.effect is not before:
                    self.since = self.world.now

    # --- the machine -----------------------------------------------------------------------------------

    async def carry_out(self, effect: Effect) -> Effect:
        world, machine, store, now = self.world, self.machine, self.world.store, self.world.now
        if not isinstance(effect, Wait | Sleep) and world.chance(0.05):
            return machine.unavailable(now, "no connection")
        match effect:
            case Load():
                checkpoint = await store.load_checkpoint("steps")
                if checkpoint.version != machine.checkpoint.version:
                    self.outgoing.forget()
                    self.unread = True
                return machine.loaded(now, checkpoint, blocked=await store.parked_aggregates("steps"))
            case Read(after, limit):
                return machine.read(now, await store.read(after, limit=limit))
            case Wait(after, timeout):
                arrived = await store.last_position() > after and not world.chance(0.5)  # or it is not woken
                return machine.woken(now) if arrived or now >= self.since + timeout else effect
            case Sleep():
                return machine.woken(now)
            case Survey():
                return await self.survey()
            case Apply():
                return await self.write(effect, machine.applied)
            case Attend():
                return await self.write(effect, machine.attended)
        raise AssertionError(effect)

    async def survey(self) -> Effect:
        store = self.world.store
        outlook = await store.outlook("steps")
        self.unread = self.unread or outlook.waiting > 0
        items: list[Any] = await store.refusals("steps", limit=3) if outlook.refused else []
        due_in, barrier = outlook.due_in, 0
        if due_in is not None and due_in <= 0:
            items += await store.due_timers("steps", limit=3)
            due_in, barrier = None, await store.last_position()
        return self.machine.surveyed(self.world.now, items, due_in=due_in, barrier=barrier)

    async def write(self, effect: Apply | Attend, done: Any) -> Effect:
        machine, now = self.machine, self.world.now
        try:
            if not await self.is_ours(self.world.store):
                return machine.standby(now)
            async with self.world.transaction() as tx:
                if (await tx.load_checkpoint("steps")).version != effect.before.version:
                    raise es.CheckpointConflict("steps", effect.before.version, -1)
                if isinstance(effect, Apply):
                    assert not effect.park
                    count = await self.transitions.project(tx, effect.events, lambda: self.world.chance(0.2))
                    effect = machine.cut(count)
                else:
                    await self.transitions.attend(tx, effect.item)
                await tx.update_checkpoint(effect.after)
        except es.CheckpointConflict:
            return machine.conflict(now)
        except Unanswered:
            return machine.unavailable(now, "the commit went unanswered")
        except EffectFailed as failure:
            raise AssertionError("nothing in here fails") from failure
        if isinstance(effect, Attend) and isinstance(effect.item, IssuedCommand):
            self.outgoing.release(effect.item)
        if self.transitions.timers:
            machine.survey()
        self.unread = True
        following: Effect = done(now)
        return following

    # --- the sender ------------------------------------------------------------------------------------

    async def send(self) -> None:
        """Have a command carried out; nobody has taken note of that yet."""
        world = self.world
        if not self.machine.may_send:
            return
        if self.unread:
            self.unread = False
            found = await world.store.issued_commands("steps", after=self.outgoing.last, limit=3)
            self.outgoing.put(found)
            self.unread = len(found) == 3
        command = self.outgoing.take(world.now)
        if command is None:
            return
        if not await self.is_ours(world.store):
            self.lose(command)
            return
        refusal = None
        try:
            if world.chance(0.1):
                raise es.StoreUnavailable("it did not arrive")
            if world.chance(0.2):
                world.late.append(command)
                raise es.StoreUnavailable("it has not arrived yet")
            await world.carry_out(command)
            if world.chance(0.2):
                raise es.StoreUnavailable("the answer was lost")
        except es.DomainError as refused:
            refusal = str(refused.error)
        except es.StoreUnavailable:
            self.outgoing.again(command, world.now + world.random.random())
            return
        self.under_way.append((command, refusal))

    async def take_note(self) -> None:
        """Write what became of a command."""
        if not self.under_way:
            return
        number = self.world.random.randrange(len(self.under_way))
        command, refusal = self.under_way.pop(number)
        try:
            async with self.world.transaction() as tx:
                if not await self.is_ours(tx):
                    self.lose(command)
                elif refusal is None:
                    await tx.finish_command(command.id)
                    self.outgoing.done(command)
                else:
                    await tx.mark_command(command.id, REFUSED, attempts=1, error=refusal)
                    self.outgoing.hold(command)
                    self.machine.survey()
        except Unanswered:
            raise Killed from None  # what the machine does then is tested with its transactions

    def lose(self, command: IssuedCommand) -> None:
        self.outgoing.again(command, float("-inf"))
        self.outgoing.forget()
        self.unread = True
        self.machine.look()


async def run_instances(world: World) -> None:
    """Let a random instance make a step; start one where there is none, sometimes one too many."""
    if not world.instances or world.chance(0.03):
        world.instances.append(Instance(world))
    instance = world.random.choice(world.instances)
    if world.chance(0.01) and (owner := await world.store.lease_owner(LEASE)) is not None:
        await world.store.end_lease(LEASE, owner)  # it ran out, whatever its owner is doing
    if world.chance(0.01):
        checkpoint = await world.store.load_checkpoint("steps")
        await world.store.set_paused("steps", not checkpoint.paused)
    try:
        await instance.step()
    except Killed:
        world.instances.remove(instance)
        if world.random.random() < 0.7:
            await world.store.end_lease(LEASE, instance.owner)  # others were told


async def heal(world: World) -> None:
    """No more faults: everything comes to rest."""
    world.faults = False
    while world.late:
        await world.arrive()
    await world.store.set_paused("steps", False)
    del world.instances[1:]
    owner = await world.store.lease_owner(LEASE)
    if owner is not None and owner not in [each.owner for each in world.instances]:
        await world.store.end_lease(LEASE, owner)
    for steps in itertools.count():
        assert steps < 20_000, "does not come to rest"
        await run_instances(world)
        world.now += 1.0
        if steps % 20 == 0 and await at_rest(world.store):
            return


async def run(seed: int, store: es.EventStore[Any, Any]) -> int:
    world = World(seed, store)
    for _ in range(250):
        world.now += world.random.random()
        if world.random.randrange(12) == 0:
            await world.client()
        elif world.random.randrange(20) == 0:
            await world.arrive()
        else:
            await run_instances(world)
    await heal(world)
    await check(store, world.begun)
    return await store.last_position()


@pytest.mark.parametrize("kind", ["memory", "sqlite", "postgres"])
async def test_after_healing_each_command_was_carried_out_once(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    seeds = int(os.environ.get(FULL, SEEDS[kind])) if kind != "postgres" else SEEDS[kind]
    events = 0
    for seed in range(seeds):
        match kind:
            case "postgres":
                url = request.getfixturevalue("postgres")
                if seed:
                    await _emptied(url)
            case "sqlite":
                url = f"sqlite:{tmp_path}/{seed}.db?synchronous=NORMAL"
            case _:
                url = "memory:"
        async with open_jobs(url) as store:
            try:
                events += await run(seed, store)
            except BaseException as error:
                error.add_note(f"seed {seed}")
                raise
    assert events > seeds * 20


async def _emptied(url: str) -> None:
    async with open_jobs(url) as store, store.transaction() as tx:
        tables = "event, pyglyn_position, pyglyn_pending, pyglyn_checkpoint, pyglyn_command, pyglyn_lease"
        await tx.execute(f"TRUNCATE {tables}, pyglyn_manager, pyglyn_dispatch, pyglyn_deadline")
