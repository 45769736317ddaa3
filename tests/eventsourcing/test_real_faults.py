"""A bank in OS processes that die at chosen steps, and a reader behind a link that is cut.

Each run is drawn from a seed: which step kills its OS process (before the commit, between commit and broadcast,
between effect and checkpoint, also while catching up), when the link is cut, what the clients do. Afterwards
every command that was acknowledged is in the log, and both projections equal the fold of the log.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from pyglyn import eventsourcing as es
from pyglyn import supervision
from pyglyn.errors import ProcessError
from pyglyn.etf import Atom
from pyglyn.eventsourcing import glyn
from pyglyn.node import Node
from pyglyn.supervision import Supervisor
from pyglyn.testing import eventually
from pyglyn.testing.bank import (
    AccountOpened,
    BankAccount,
    BankAccountEvent,
    CustomerDepositedCash,
    CustomerWithdrewCash,
    DepositMoney,
    OpenAccount,
    WithDrawMoney,
    apply,
    handle,
)
from tests.node.conftest import unique_name

CONFIG = glyn.GlynConfig(pubsub_scope="example", pubsub_group="bank")
ACCOUNTS = ("a", "b", "c")
STEPS = ("before_commit", "after_commit", "in_effect")
hits: dict[str, int] = {}


def step(plan: str, name: str) -> None:
    """Die here if the plan says so, once: it is a folder of files named ``step.hit``."""
    hits[name] = hits.get(name, 0) + 1
    token = Path(plan) / f"{name}.{hits[name]}"
    if token.exists():
        token.unlink()
        os.kill(os.getpid(), signal.SIGKILL)


class DyingStore(glyn.GlynStore[Any, Any]):
    """Dies around its commits."""

    plan = ""

    async def append(self, aggregate_id: str, events: Sequence[Any], **options: Any) -> Any:
        step(self.plan, "before_commit")
        return await super().append(aggregate_id, events, **options)

    async def broadcast(self, aggregate_id: str, envelopes: Any) -> None:
        step(self.plan, "after_commit")
        await super().broadcast(aggregate_id, envelopes)


class Project:
    """Counts each account's events and sums its movements; dies between effect and checkpoint."""

    def __init__(self, plan: str) -> None:
        self.plan = plan

    async def __call__(self, tx: es.Transaction[Any, Any], envelope: Any) -> None:
        await tx.execute(
            "INSERT INTO totals VALUES (?, 1, ?) ON CONFLICT (account) DO UPDATE "
            "SET events = events + 1, total = total + excluded.total",
            (envelope.aggregate_id, movement(envelope.payload)),
        )
        if self.plan:
            step(self.plan, "in_effect")


def movement(event: Any) -> float:
    match event:
        case CustomerDepositedCash(amount):
            return float(amount)
        case CustomerWithdrewCash(amount):
            return -float(amount)
    return 0.0


def bank(url: str) -> es.EventStore[Any, Any]:
    return es.open_store(url, events=BankAccountEvent, state=BankAccount, aggregate_type="BankAccount")


async def totals(store: es.EventStore[Any, Any]) -> dict[Any, Any]:
    async with store.transaction() as tx:
        return {row[0]: row[1:] for row in await tx.execute("SELECT * FROM totals")}


async def create_table(url: str) -> es.EventStore[Any, Any]:
    store = bank(url)
    async with store.transaction() as tx:
        await tx.execute("CREATE TABLE totals (account TEXT PRIMARY KEY, events INT, total FLOAT)")
    return store


class Run:
    """One run of one seed."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.random = random.Random(seed)
        self.folder = folder
        self.plan = folder / "plan"
        self.plan.mkdir(parents=True)
        self.acknowledged: list[tuple[str, int]] = []
        for _ in range(self.random.randint(1, 3)):
            name = self.random.choice(STEPS)
            (self.plan / f"{name}.{self.random.randint(1, 8)}").touch()

    async def run(self, node: Node, far: Node) -> None:
        near_url, far_url = f"sqlite:{self.folder}/near.db", f"sqlite:{self.folder}/far.db"
        log, elsewhere = await create_table(near_url), await create_table(far_url)
        # Something to catch up with.
        backlog = [AccountOpened("a"), CustomerDepositedCash(5.0, 5.0), CustomerDepositedCash(5.0, 10.0)]
        await log.append("a", backlog, expected=0)
        store = DyingStore(CONFIG, bank(near_url), BankAccountEvent)
        store.plan = str(self.plan)
        service = es.supervised("bank", store, handle=handle, apply=apply, empty_state=BankAccount())
        limits = es.BatchLimits(size=3)
        project = Project(str(self.plan))
        query = es.DurableQuery("near", project, store=bank(near_url), into=bank(near_url), limits=limits)
        _, scope = glyn.supervised(CONFIG, bank(near_url))
        tree = Supervisor("one_for_one", intensity=100, period=5).add(scope).add(service).add(query.worker())
        await supervision.start(node, tree, name="bank_tree")
        remote = es.DurableQuery(
            "far", Project(""), store=CONFIG, into=bank(far_url), events=BankAccountEvent, limits=limits
        )
        far_pid = await remote.start(far)
        try:
            cutter = asyncio.create_task(self.cut(node, far))
            await asyncio.gather(*(self.client(node, account) for account in ACCOUNTS))
            await cutter
            await far.connect(node.name)
            await self.check(log, log, elsewhere)
        finally:
            far.system.exit(far_pid, "shutdown")
            await node.call("pyglyn_sup", (Atom("terminate_child"), Atom("bank_tree")), 20.0)
            await eventually(lambda: node.whereis("bank") is None and far.whereis("far") is None)
            await log.close()
            await elsewhere.close()

    async def client(self, node: Node, account: str) -> None:
        """Send commands; what is not answered may or may not have happened."""
        commands: list[Any] = [OpenAccount(account)] if account != "a" else []
        for _ in range(4):
            commands.append(DepositMoney(float(self.random.randint(1, 9))))
            commands.append(WithDrawMoney(1.0))
        for command in commands:
            try:
                envelopes = await es.execute(node, "bank", account, command, timeout=2.0)
                self.acknowledged += [(account, envelope.sequence) for envelope in envelopes]
            except es.DomainError:
                pass
            except (es.EventSourcingError, ProcessError):
                await eventually(lambda: node.whereis("bank") is not None)

    async def cut(self, node: Node, far: Node) -> None:
        for _ in range(self.random.randint(0, 2)):
            await asyncio.sleep(self.random.random() * 0.05)
            far.disconnect(node.name)
            await far.connect(node.name)

    async def check(self, log: es.EventStore[Any, Any], *projections: es.EventStore[Any, Any]) -> None:
        expected: dict[str, tuple[int, float]] = {}
        events = await log.read(0, limit=10_000)
        for event in events:
            assert event.envelope is not None
            count, total = expected.get(event.aggregate_id, (0, 0.0))
            expected[event.aggregate_id] = (count + 1, total + movement(event.envelope.payload))
        logged = {(event.aggregate_id, event.sequence) for event in events}
        assert len(logged) == len(events)
        assert set(self.acknowledged) <= logged
        for projection in projections:

            async def equal(projection: es.EventStore[Any, Any] = projection) -> bool:
                assert await totals(projection) == expected
                return True

            await eventually(equal, timeout=20)


@pytest.mark.parametrize("first", range(0, 50, 10))
async def test_after_any_fault_each_projection_is_the_fold_of_the_log(epmd, tmp_path, first):
    async with (
        Node(unique_name(), cookie="eventsourcing") as node,
        Node(unique_name(), cookie="eventsourcing") as far,
    ):
        await far.connect(node.name)
        for seed in range(first, first + 10):
            try:
                await Run(seed, tmp_path / str(seed)).run(node, far)
            except Exception as error:
                raise AssertionError(f"seed {seed}: {error}") from error
