"""A bank with transfers in OS processes that die at chosen steps, with links and databases that are cut.

Each run is drawn from a seed: which step kills its OS process (before the commit, between commit and broadcast,
between effect and checkpoint, also while catching up or replaying), when the link between the nodes and when the
connections to the database are cut, what is replayed, what the clients do. Afterwards every command that was acknowledged is in the log, both
projections equal the fold of the log, every transfer has arrived once, and no money is missing.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import psycopg
import pytest

from pyglyn import current_process, supervision
from pyglyn import eventsourcing as es
from pyglyn.errors import ProcessError
from pyglyn.etf import Atom
from pyglyn.eventsourcing import glyn
from pyglyn.node import Node
from pyglyn.supervision import Supervisor
from pyglyn.testing import eventually
from pyglyn.testing.postgres import drop_schema, private_schema
from tests.eventsourcing.transfers import ACCOUNTS, BANK, START, Received, Send, Sent
from tests.eventsourcing.transfers import Account as State
from tests.eventsourcing.transfers import Receive as ReceiveCommand
from tests.node.conftest import unique_name

CONFIG = glyn.GlynConfig(pubsub_scope="example", pubsub_group="bank")
EVENTS = Sent | Received


def bank_at(at: Any) -> es.Service[Any, Any, Any]:
    """Return a handle on the bank with transfers."""
    return es.Service(at, "bank", events=EVENTS, state=State)


STEPS = ("before_commit", "after_commit", "in_effect", "in_undo", "before_carrying", "after_carrying")
RUNS = 50
PATIENCE_S = 60.0
"""How long one waits for what comes in a second, where nothing else uses the machine."""
TOGETHER = 10
"""Runs that share their two nodes."""
hits: dict[str, int] = {}


def step(plan: Path, name: str) -> None:
    """Die here if the plan says so, once: it is a folder of files named ``step.hit``."""
    hits[name] = hits.get(name, 0) + 1
    token = plan / f"{name}.{hits[name]}"
    if token.exists():
        token.unlink()
        os.kill(os.getpid(), signal.SIGKILL)


class DyingStore(glyn.GlynStore[Any, Any]):
    """Dies around its commits."""

    plan: Path

    async def append(self, aggregate_id: str, events: Sequence[Any], **options: Any) -> Any:
        step(self.plan, "before_commit")
        return await super().append(aggregate_id, events, **options)

    async def broadcast(self, aggregate_id: str, envelopes: Any, written: Any) -> None:
        step(self.plan, "after_commit")
        await super().broadcast(aggregate_id, envelopes, written)


@attrs.frozen
class Project:
    """Counts each account's events and sums its movements; dies between effect and checkpoint."""

    statement: str
    plan: Path | None = None

    async def __call__(self, tx: es.Transaction[Any, Any], envelope: Any) -> None:
        event = envelope.payload
        movement = event.amount if isinstance(event, Received) else -event.amount
        await tx.execute(self.statement, (envelope.aggregate_id, movement))
        if self.plan is not None:
            step(self.plan, "in_effect")


@attrs.frozen
class Undo:
    """Undoes what `Project` did; dies before the end."""

    statement: str
    plan: Path

    async def __call__(self, tx: es.Transaction[Any, Any], account: str | None) -> None:
        if account is None:
            await tx.execute("DELETE FROM totals")
        else:
            await tx.execute(self.statement, (account,))
        step(self.plan, "in_undo")


@attrs.frozen
class Carry:
    """Carries what one account has sent to the other one; its effect is a command, not in a transaction."""

    plan: Path

    async def __call__(self, aggregate_id: str, envelopes: list[Any]) -> None:
        for envelope in envelopes:
            match envelope.payload:
                case Sent(transfer, to, amount):
                    step(self.plan, "before_carrying")
                    await bank_at(current_process()).execute(to, ReceiveCommand(transfer, amount))
                    step(self.plan, "after_carrying")


@attrs.frozen
class Database:
    """Where the events and the projections of a run are."""

    url: str

    def store(self) -> es.EventStore[Any, Any]:
        return es.open_store(self.url, events=EVENTS, state=State, aggregate_type="BankAccount")

    def project(self, plan: Path | None = None) -> Project:
        statement = (
            "INSERT INTO totals VALUES (?, 1, ?) ON CONFLICT (account) DO UPDATE "
            "SET events = totals.events + 1, total = totals.total + excluded.total"
        )
        return Project(self._marked(statement), plan)

    def undo(self, plan: Path) -> Undo:
        return Undo(self._marked("DELETE FROM totals WHERE account = ?"), plan)

    def _marked(self, statement: str) -> str:
        return statement if self.url.startswith("sqlite:") else statement.replace("?", "%s")

    async def create(self) -> es.EventStore[Any, Any]:
        store = self.store()
        async with store.transaction() as tx:
            await tx.execute("CREATE TABLE totals (account TEXT PRIMARY KEY, events INT, total INT)")
        return store

    def cut(self) -> None:
        """Cut all connections, if there are any."""
        if self.url.startswith("postgresql:"):
            with psycopg.connect(self.url, autocommit=True) as connection:
                connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
                )


async def totals(store: es.EventStore[Any, Any]) -> dict[Any, Any]:
    async with store.transaction() as tx:
        return {row[0]: row[1:] for row in await tx.execute("SELECT * FROM totals")}


class Run:
    """One run of one seed."""

    def __init__(self, seed: int, folder: Path, near: Database, far: Database) -> None:
        self.random = random.Random(seed)
        self.plan = folder / "plan"
        self.plan.mkdir(parents=True)
        self.near, self.far = near, far
        self.acknowledged: list[tuple[str, int]] = []
        for _ in range(self.random.randint(1, 4)):
            name = self.random.choice(STEPS)
            (self.plan / f"{name}.{self.random.randint(1, 8)}").touch()

    def service(self) -> supervision.ChildSpec:
        store = DyingStore(CONFIG, self.near.store(), EVENTS)
        store.plan = self.plan
        return es.supervised(
            "bank", store, handle=BANK.handle, apply=BANK.apply, empty_state=BANK.empty_state, events=EVENTS
        )

    def queries(self) -> list[es.DurableQuery]:
        store, limits = self.near.store(), es.BatchLimits(size=3)
        patient = es.FailurePolicy(retries=None, first=0.02, longest=0.2)
        project = self.near.project(self.plan)
        return [
            es.DurableQuery(
                "near",
                project,
                store=store,
                into=self.near.store(),
                limits=limits,
                on_reset=self.near.undo(self.plan),
            ),
            es.DurableQuery("carry", Carry(self.plan), store=store, policy=patient, limits=limits),
        ]

    async def run(self, node: Node, far: Node) -> None:
        log, elsewhere = await self.near.create(), await self.far.create()
        # Something to catch up with.
        await log.append("a", [Sent(f"early {n}", "b", n) for n in range(1, 4)], expected=0)
        tree = Supervisor("one_for_one", intensity=100, period=5)
        tree.add(glyn.supervised(CONFIG, log)[1]).add(self.service())
        for query in self.queries():
            tree.add(query.worker())
        await supervision.start(node, tree, name="bank_tree")
        remote = es.DurableQuery(
            "far",
            self.far.project(),
            store=CONFIG,
            into=self.far.store(),
            events=EVENTS,
            limits=es.BatchLimits(size=3),
        )
        far_pid = await remote.start(far)
        try:
            clients = [self.client(node, account) for account in ACCOUNTS]
            await asyncio.gather(self.cut(node, far), self.replay(node), *clients)
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
        for number in range(6):
            to = self.random.choice([each for each in ACCOUNTS if each != account])
            command = Send(f"{account} {number}", to, self.random.randint(1, 60))
            try:
                envelopes = await bank_at(node).execute(account, command, timeout=2.0)
                self.acknowledged += [(account, envelope.sequence) for envelope in envelopes]
            except es.DomainError:
                pass
            except (es.EventSourcingError, ProcessError):
                await eventually(lambda: node.whereis("bank") is not None)

    async def cut(self, node: Node, far: Node) -> None:
        """Cut the link between the nodes, and the connections to the database."""
        for _ in range(self.random.randint(0, 2)):
            await asyncio.sleep(self.random.random() * 0.05)
            far.disconnect(node.name)
            await asyncio.to_thread(self.near.cut)
            await far.connect(node.name)

    async def replay(self, node: Node) -> None:
        """Have one account replayed, or all; what is ordered of a process that dies may be lost."""
        for _ in range(self.random.randint(0, 3)):
            await asyncio.sleep(self.random.random() * 0.05)
            which = self.random.choice([*(account.encode() for account in ACCOUNTS), Atom("all")])
            with contextlib.suppress(ProcessError):
                await node.call("near", (Atom("replay"), which))

    async def check(self, log: es.EventStore[Any, Any], *projections: es.EventStore[Any, Any]) -> None:
        async def arrived() -> list[es.RecordedEvent[Any]]:
            events = await log.read(0, limit=10_000)
            payloads = [event.envelope.payload for event in events if event.envelope is not None]
            sent = sorted((e.transfer, e.amount) for e in payloads if isinstance(e, Sent))
            received = sorted((e.transfer, e.amount) for e in payloads if isinstance(e, Received))
            assert received == sent
            return events

        events = await eventually(arrived, timeout=PATIENCE_S)
        logged = {(event.aggregate_id, event.sequence) for event in events}
        assert len(logged) == len(events)
        assert set(self.acknowledged) <= logged
        accounts = {id: BANK.fold(BANK.empty_state, _payloads(events, id)) for id in ACCOUNTS}
        assert sum(account.balance for account in accounts.values()) == START * len(ACCOUNTS)
        expected = {
            id: (len(_payloads(events, id)), account.balance - START)
            for id, account in accounts.items()
            if _payloads(events, id)
        }
        for projection in projections:

            async def equal(projection: es.EventStore[Any, Any] = projection) -> bool:
                assert await totals(projection) == expected
                return True

            await eventually(equal, timeout=PATIENCE_S)


def _payloads(events: list[es.RecordedEvent[Any]], id: str) -> list[Any]:
    return [e.envelope.payload for e in events if e.aggregate_id == id and e.envelope is not None]


@asynccontextmanager
async def databases(kind: str, folder: Path, server: str | None) -> AsyncIterator[tuple[Database, Database]]:
    """The near one of a run, and the far one."""
    if server is None:
        yield Database(f"sqlite:{folder}/near.db"), Database(f"sqlite:{folder}/far.db")
        return
    near, far = private_schema(server), private_schema(server)
    yield Database(near), Database(far)
    drop_schema(near)
    drop_schema(far)


@pytest.mark.parametrize("first", range(0, RUNS, TOGETHER))
@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
async def test_after_any_fault_each_projection_is_the_fold_of_the_log(request, epmd, tmp_path, kind, first):
    server = request.getfixturevalue("wheel_server") if kind == "postgres" else None
    async with (
        Node(unique_name(), cookie="eventsourcing") as node,
        Node(unique_name(), cookie="eventsourcing") as far,
    ):
        await far.connect(node.name)
        for seed in range(first, first + TOGETHER):
            try:
                async with databases(kind, tmp_path / str(seed), server) as (near, elsewhere):
                    await Run(seed, tmp_path / str(seed), near, elsewhere).run(node, far)
            except Exception as error:
                raise AssertionError(f"seed {seed}: {error}") from error


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
async def test_a_replay_whose_process_is_killed_is_finished_after_its_restart(request, epmd, tmp_path, kind):
    server = request.getfixturevalue("wheel_server") if kind == "postgres" else None
    plan = tmp_path / "plan"
    plan.mkdir()
    (plan / "in_effect.30").touch()  # of the 21 events once, and of the 20 of the replay
    async with (
        databases(kind, tmp_path, server) as (near, _),
        Node(unique_name(), cookie="eventsourcing") as node,
    ):
        log = await near.create()
        await log.append("a", [Received(f"t{n}", 1) for n in range(20)], expected=0)
        await log.append("b", [Received("t20", 7)], expected=0)
        query = es.DurableQuery(
            "near",
            near.project(plan),
            store=near.store(),
            into=near.store(),
            on_reset=near.undo(plan),
            limits=es.BatchLimits(size=3),
        )
        tree = Supervisor("one_for_one").add(query.worker())
        await supervision.start(node, tree, name="tree")
        expected = {"a": (20, 20), "b": (1, 7)}

        async def equal() -> bool:
            assert await totals(log) == expected
            return True

        await eventually(equal, timeout=PATIENCE_S)
        first = node.whereis("near")
        assert await node.call("near", (Atom("replay"), b"a")) == (Atom("ok"), 0)
        await eventually(lambda: not list(plan.iterdir()) and node.whereis("near") not in (None, first))
        await eventually(equal, timeout=PATIENCE_S)
        await log.append("a", [Received("t21", 1)], expected=20)
        expected["a"] = (21, 21)
        await eventually(equal, timeout=PATIENCE_S)
        await log.close()
