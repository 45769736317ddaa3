"""Simulated fault schedules: a bank with transfers in which everything dies at any step, by seed.

One log, two durable queries. ``balances`` writes its effect and its checkpoint in one transaction. ``transfers``
carries a withdrawal on to the other account with a command, which no transaction covers, so that effect can be
repeated; the account knows the transfers it has seen. Old instances of a query go on beside new ones, commits go
unanswered, wake-ups get lost, transactions of the log commit late, some events fail for a while, the replay of one
account or of all, a pause, its end, or the status are asked for at any time: also between what an instance does in the
database and the moment when it learns what came of it. After healing, each projection is the fold of the log, every
position had its effect once since it was last undone, no money is missing, and all instances are live.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable
from typing import Any, TypeAlias

import pytest

from pyglyn import eventsourcing as es
from pyglyn.eventsourcing.queries.durable_state import (
    IDLE,
    LIVE,
    STOPPED,
    Apply,
    BatchLimits,
    Drive,
    Effect,
    Load,
    Projection,
    Read,
    Reset,
    Sleep,
    Wait,
)
from pyglyn.eventsourcing.queries.failure import FailurePolicy
from tests.eventsourcing.transfers import ACCOUNTS, BANK, START, Receive, Send, Sent

SEEDS = 1000
Outcome: TypeAlias = Callable[[float], Effect]


class Killed(Exception):
    """The instance of the query is gone; nobody learns what it was doing."""


class Unreachable(Exception):
    """The store did not answer."""


class World:
    """The log, its writers, and the faults."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.calm = seed % 2 == 0  # nothing fails but what surrounds it, so that orders count
        self.faults = True
        self.now = 0.0
        self.log: list[es.RecordedEvent[Any]] = []
        self.late: list[tuple[str, int, list[Any]]] = []  # transactions that are open: id, expected, events
        self.transfers = 0
        self.mended_at = self.random.uniform(0.0, 150.0)  # when some events stop failing

    def chance(self, probability: float) -> bool:
        return self.faults and self.random.random() < probability

    def stream(self, id: str) -> list[Any]:
        return [e.envelope.payload for e in self.log if e.aggregate_id == id and e.envelope is not None]

    def execute(self, id: str, command: Any) -> None:
        events = self.stream(id)
        decided = BANK.decide(BANK.fold(BANK.empty_state, events), command)
        if decided and self.chance(0.2):
            self.late.append((id, len(events), decided))
            if isinstance(command, Receive):
                raise Unreachable  # whether it will be committed, nobody knows yet
        elif decided:
            self.commit(id, len(events), decided)
        if self.chance(0.1) and isinstance(command, Receive):
            raise Unreachable

    def commit(self, id: str, expected: int, events: list[Any]) -> None:
        if len(self.stream(id)) != expected:
            return  # the store refuses it
        for sequence, event in enumerate(events, expected + 1):
            self.log.append(
                es.RecordedEvent(
                    position=len(self.log) + 1,
                    aggregate_id=id,
                    sequence=sequence,
                    envelope=es.MemoryStoreEventEnvelop(id, sequence, event),
                )
            )

    def client(self) -> None:
        source, to = self.random.sample(ACCOUNTS, 2)
        self.transfers += 1
        with contextlib.suppress(es.DomainError):
            self.execute(source, Send(f"t{self.transfers}", to, self.random.randint(1, 60)))

    def end_a_late_transaction(self) -> None:
        if self.late:
            id, expected, events = self.late.pop(self.random.randrange(len(self.late)))
            if self.random.random() < 0.8:
                self.commit(id, expected, events)


class Query:
    """The database side of a query: what is committed there outlives every instance."""

    def __init__(self, world: World, name: str) -> None:
        self.world, self.name = world, name
        self.checkpoint = es.Checkpoint(name)
        self.effects: list[int] = []  # positions, in the order of their effects
        self.balances = dict.fromkeys(ACCOUNTS, START)
        self.parked: dict[tuple[str, int], es.ParkedEvent] = {}
        self.instances: list[Instance] = []
        self.rested: dict[Instance, tuple[int, int]] = {}  # at which end of the log, with which version

    @property
    def rests(self) -> bool:
        """Whether everything was done, and all instances know it, since something last happened."""
        now = (len(self.world.log), self.checkpoint.version)
        is_done = self.checkpoint.position == len(self.world.log) and self.checkpoint.replay is None
        return is_done and all(self.rested.get(instance) == now for instance in self.instances)

    def note_who_rests(self) -> None:
        for instance in self.instances:
            machine = instance.machine
            is_live = isinstance(instance.effect, Wait) and machine.state(self.world.now) in (LIVE, IDLE)
            if is_live and machine.position == len(self.world.log):
                self.rested[instance] = (len(self.world.log), self.checkpoint.version)

    def effect(self, event: es.RecordedEvent[Any]) -> None:
        """What the application does with an event; raises where the application would."""
        payload = event.envelope.payload if event.envelope is not None else None
        unlucky = event.position % 11 == 0 and self.world.now < self.world.mended_at
        if self.world.faults and not self.world.calm and (unlucky or self.world.chance(0.05)):
            raise ValueError("the application fails")
        if self.name == "balances":
            sign = -1 if isinstance(payload, Sent) else 1
            self.balances[event.aggregate_id] += sign * payload.amount
        elif isinstance(payload, Sent):
            self.world.execute(payload.to, Receive(payload.transfer, payload.amount))

    def transaction(self, work: Any) -> None:
        """Run ``work`` with all of the database's state; undo it when it raises."""
        saved = (self.checkpoint, list(self.effects), dict(self.balances), dict(self.parked))
        try:
            work()
        except BaseException:
            self.checkpoint, self.effects, self.balances, self.parked = saved
            raise

    def replace(self, before: es.Checkpoint, after: es.Checkpoint) -> None:
        if self.checkpoint.version != before.version:
            raise es.CheckpointConflict(self.name, before.version, self.checkpoint.version)
        self.checkpoint = after

    def undo(self, id: str | None) -> None:
        """What the application does to have effects made again."""
        self.effects = [p for p in self.effects if id not in (None, self.world.log[p - 1].aggregate_id)]
        self.parked = {key: event for key, event in self.parked.items() if id not in (None, key[0])}
        for account in ACCOUNTS if id is None else [id]:
            self.balances[account] = START


class Instance:
    """A running driver of a query's state machine, which takes orders while it waits for the database."""

    def __init__(self, query: Query) -> None:
        self.query, self.world = query, query.world
        retries, then = (
            query.world.random.choice([0, 1, 3]),
            query.world.random.choice(["park", "park", "stop"]),
        )
        policy = FailurePolicy(retries=retries, first=1.0, then=then)
        limits = BatchLimits(
            size=query.world.random.choice([1, 2, 5, 50]), linger=query.world.random.choice([0.0, 2.0])
        )
        self.machine = Projection(query.name, limits=limits, policy=policy)
        self.effect: Effect = self.machine.start()
        self.since = self.world.now
        self.outcome: Outcome | None = None  # of the effect, not told to the machine yet
        self.orders: list[Callable[[], None]] = []  # written into the database, not told to the machine yet
        self.awake = False

    def step(self) -> None:
        """Carry out one effect, or learn what came of it; raises Killed."""
        if self.outcome is None:
            self.outcome = self._carry_out(self.effect)
            if self.world.chance(0.3):
                return
        outcome, self.outcome = self.outcome, None
        if outcome is not None:
            self.effect, self.since = outcome(self.world.now), self.world.now

    def told(self) -> None:
        """Learn of the first order."""
        if self.orders:
            self.orders.pop(0)()
            self.awake = True

    def pause(self, paused: bool) -> None:
        """Take the order to stand still, or to go on."""
        self.query.checkpoint = self.query.checkpoint.next(paused=paused)

        def told() -> None:
            self.machine.look()
            if paused:
                self.machine.pause()
            else:
                self.machine.resume()

        self.orders.append(told)

    def status(self) -> None:
        """Tell somebody where it stands."""
        if self.query.checkpoint.version != self.machine.checkpoint.version:
            self.machine.look()
            self.awake = True

    def _carry_out(self, effect: Effect) -> Outcome | None:
        world, machine = self.world, self.machine
        if world.chance(0.05):
            raise Killed
        if isinstance(effect, Load | Read | Apply | Drive | Reset) and world.chance(0.1):
            return lambda now: machine.unavailable(now, "no connection")
        match effect:
            case Load():
                checkpoint, blocked = self.query.checkpoint, {id for id, _ in self.query.parked}
                return lambda now: machine.loaded(now, checkpoint, blocked=blocked)
            case Read(after, limit, aggregate_id):
                found = [e for e in world.log[after:] if aggregate_id in (None, e.aggregate_id)][:limit]
                return lambda now: machine.read(now, found)
            case Wait(after, timeout):
                arrived = len(world.log) > after and not world.chance(0.5)  # else the wake-up is lost
                over = world.now >= self.since + timeout
                if arrived or over or self.awake:
                    self.awake = False
                    return machine.woken
                return None
            case Sleep(timeout):
                if self.awake or world.now >= self.since + timeout:
                    self.awake = False
                    return machine.woken
                return None
            case Apply():
                return self._apply(effect)
            case Drive():
                return self._drive(effect)
            case Reset():
                return self._reset(effect)
        raise AssertionError(effect)

    def _apply(self, effect: Apply) -> Outcome:
        query = self.query
        index = 0

        def work() -> None:
            nonlocal index
            for event in effect.events:
                index = effect.events.index(event)
                query.effect(event)
                query.effects.append(event.position)
            query.replace(effect.before, effect.after)
            for parked in effect.park:
                behind = any(id == parked.aggregate_id for id, _ in query.parked)
                assert behind or "earlier" not in parked.error, "parked behind nothing"
                query.parked[parked.aggregate_id, parked.sequence] = parked
            if self.world.chance(0.05):
                raise Killed  # between effect and checkpoint

        return self._run(effect, work, self.machine.applied, lambda: index)

    def _drive(self, effect: Drive) -> Outcome:
        query, parked = self.query, effect.parked
        key, remaining = (parked.aggregate_id, parked.sequence), 0

        def work() -> None:
            nonlocal remaining
            if key in query.parked:
                assert parked.position is not None
                event = self.world.log[parked.position - 1]
                query.effect(event)
                query.effects.append(event.position)
                del query.parked[key]
            query.replace(effect.before, effect.after)
            remaining = sum(id == parked.aggregate_id for id, _ in query.parked)

        def done(now: float) -> Effect:
            return self.machine.driven(now, remaining=remaining)

        return self._run(effect, work, done, lambda: 0)

    def _reset(self, effect: Reset) -> Outcome:
        def work() -> None:
            self.query.undo(effect.aggregate_id)
            if self.world.chance(0.1):
                raise ValueError("the application cannot undo")
            self.query.replace(effect.before, effect.after)

        return self._run(effect, work, self.machine.reset_done, lambda: None)

    def _run(self, effect: Apply | Drive | Reset, work: Any, done: Any, index: Any) -> Outcome:
        machine = self.machine
        try:
            self.query.transaction(work)
        except es.CheckpointConflict:
            return machine.conflict
        except Unreachable:
            return lambda now: machine.unavailable(now, "the other account")
        except ValueError as error:
            said, at = str(error), index()
            if self.query.checkpoint.version != effect.before.version:
                return machine.conflict
            return lambda now: machine.failed(now, at, said)
        if self.world.chance(0.05):
            raise Killed  # after the commit
        if self.world.chance(0.05):
            return lambda now: machine.unavailable(now, "the commit went unanswered")
        return done


def run_instances(world: World, query: Query) -> None:
    """Let a random instance of a query make a step; start one where there is none, sometimes one too many."""
    if not query.instances or world.chance(0.05):
        query.instances.append(Instance(query))
    instance = world.random.choice(query.instances)
    if world.chance(0.01):
        instance.machine.reset(world.random.choice([*ACCOUNTS, None]))
        instance.awake = True
    if world.chance(0.1):
        instance.machine.drive(query.parked[key] for key in sorted(query.parked))
        instance.awake = True
    if world.chance(0.1 if world.calm else 0.03):
        instance.pause(not query.checkpoint.paused)
    if world.chance(0.3):
        instance.status()
    if world.chance(0.5) or not world.faults:
        instance.told()
    try:
        instance.step()
    except Killed:
        query.instances.remove(instance)


def heal(world: World, queries: list[Query]) -> None:
    """No more faults: everything comes to rest, parked events are driven."""
    world.faults = False
    while world.late:
        world.end_a_late_transaction()
    for query in queries:
        for instance in query.instances:
            while instance.orders:
                instance.told()
        states = [instance.machine.state(world.now) for instance in query.instances]
        if query.checkpoint.paused or STOPPED in states:
            query.checkpoint = query.checkpoint.next(paused=False)  # ordered elsewhere
    steps = 0
    while True:
        for query in queries:
            run_instances(world, query)
        world.now += 0.2
        steps += 1
        assert steps < 100_000, "does not come to rest"
        for query in queries:
            query.note_who_rests()
        if not all(query.rests for query in queries):
            continue
        parked = [query for query in queries if query.parked]
        if not parked:
            return
        for query in parked:
            query.instances[0].machine.drive(query.parked[key] for key in sorted(query.parked))
            query.instances[0].awake = True


def run(seed: int) -> World:
    world = World(seed)
    queries = [Query(world, "balances"), Query(world, "transfers")]
    for _ in range(250):
        world.now += world.random.random()
        match world.random.randrange(6):
            case 0:
                world.client()
            case 1:
                world.end_a_late_transaction()
            case _:
                run_instances(world, world.random.choice(queries))
    heal(world, queries)

    balances, transfers = queries
    positions = list(range(1, len(world.log) + 1))
    assert sorted(balances.effects) == positions, "lost, or applied twice"
    assert sorted(transfers.effects) == positions
    fold = {id: BANK.fold(BANK.empty_state, world.stream(id)) for id in ACCOUNTS}
    assert balances.balances == {id: account.balance for id, account in fold.items()}
    assert sum(balances.balances.values()) == START * len(ACCOUNTS), "money is missing"
    for query in queries:
        for id in ACCOUNTS:
            in_order = [p for p in query.effects if world.log[p - 1].aggregate_id == id]
            assert in_order == sorted(in_order), "out of order along an aggregate"
    return world


@pytest.mark.parametrize("part", range(10))
def test_after_healing_projections_are_the_fold_of_the_log(part: int) -> None:
    events = 0
    for seed in range(part, SEEDS, 10):
        try:
            events += len(run(seed).log)
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise
    assert events > SEEDS / 10 * 10
