"""Managers and services in OS processes that are killed at chosen steps; connections to the database are cut.

Each run is drawn from a seed: at which of its steps an OS process dies (before, in and after the transaction of an
event or a deadline, before a command is sent, between its answer and the note of it, and the service around its own
commits). Two nodes run the manager; the service is at one of them. Afterwards each command was carried out once.
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

import psycopg
import pytest

from pyglyn import eventsourcing as es
from pyglyn import supervision
from pyglyn.errors import ProcessError
from pyglyn.etf import Atom
from pyglyn.eventsourcing.managers.machine import Attend
from pyglyn.eventsourcing.managers.server import ManagerServer
from pyglyn.eventsourcing.managers.transitions import Transitions
from pyglyn.eventsourcing.queries.durable_state import Apply
from pyglyn.eventsourcing.stores.managing import IssuedCommand
from pyglyn.eventsourcing.stores.wrapped import WrappedStore
from pyglyn.node import Node
from pyglyn.supervision import Supervisor, worker
from pyglyn.testing import eventually
from pyglyn.testing.postgres import drop_schema, private_schema
from tests.eventsourcing.managers.jobs import (
    FAR_AWAY,
    Begin,
    Begun,
    Close,
    Command,
    at_rest,
    check,
    jobs_manager,
    jobs_service,
    open_jobs,
    steady,
)
from tests.node.conftest import unique_name

RUNS = int(os.environ.get("PYGLYN_TEST_KILLS", "3"))
"""How many seeds; a full run takes 50."""

TOGETHER = 10
"""Seeds that share their two nodes."""

PATIENCE_S = 60.0
STEPS = (
    "before_transaction",
    "in_transaction",
    "after_transaction",
    "before_sending",
    "after_sending",
    "before_commit",
    "after_commit",
)
hits: dict[str, int] = {}


def step(plan: Path, name: str) -> None:
    """Die here if the plan says so, once: it is a folder of files named ``step.hit``."""
    hits[name] = hits.get(name, 0) + 1
    token = plan / f"{name}.{hits[name]}"
    if token.exists():
        token.unlink()
        os.kill(os.getpid(), signal.SIGKILL)


class DyingTransitions(Transitions):
    """Dies in the middle of a transaction."""

    plan: Path

    async def project(self, *args: Any) -> int:
        done = await super().project(*args)
        step(self.plan, "in_transaction")
        return done

    async def attend(self, *args: Any) -> None:
        await super().attend(*args)
        step(self.plan, "in_transaction")


class DyingServer(ManagerServer):
    """Dies between any two steps."""

    async def init(self, query: Any, plan: Path, **options: Any) -> None:  # type: ignore[override]
        self.plan = plan
        await super().init(query, lease_s=2.0, **options)

    def make_calls(self) -> Transitions:
        self.transitions = DyingTransitions(self.spec)
        self.transitions.plan = self.plan
        return self.transitions

    async def _apply(self, effect: Apply) -> None:
        step(self.plan, "before_transaction")
        await super()._apply(effect)
        step(self.plan, "after_transaction")

    async def _attend(self, effect: Attend) -> None:
        step(self.plan, "before_transaction")
        await super()._attend(effect)
        step(self.plan, "after_transaction")

    async def _send(self, command: IssuedCommand) -> None:
        step(self.plan, "before_sending")
        try:
            await super()._send(command)
        finally:
            step(self.plan, "after_sending")


class DyingStore(WrappedStore[Any, Any]):
    """The store of the service; dies around its commits."""

    plan: Path

    async def append(self, aggregate_id: str, events: Sequence[Any], **options: Any) -> Any:
        step(self.plan, "before_commit")
        envelopes = await super().append(aggregate_id, events, **options)
        step(self.plan, "after_commit")
        return envelopes


class Run:
    """One run of one seed."""

    def __init__(self, seed: int, folder: Path, url: str) -> None:
        self.random = random.Random(seed)
        self.url = url
        self.plans = [folder / "here", folder / "there"]
        for plan in self.plans:
            plan.mkdir(parents=True)
            for _ in range(self.random.randint(1, 4)):
                (plan / f"{self.random.choice(STEPS)}.{self.random.randint(1, 6)}").touch()
        self.planned = self.left()
        self.begun: dict[str, Begun] = {}

    def left(self) -> int:
        """Count the deaths that are to come."""
        return sum(len(list(plan.iterdir())) for plan in self.plans)

    async def run(self, here: Node, there: Node) -> None:
        log = open_jobs(self.url)
        await log.start()
        store = DyingStore(open_jobs(self.url))
        store.plan = self.plans[0]
        spec = jobs_service(store)
        service = es.supervised(
            "jobs",
            store,
            handle=spec.domain.handle,
            apply=spec.domain.apply,
            empty_state=spec.domain.empty_state,
        )
        try:
            for node, plan in zip((here, there), self.plans, strict=True):
                address = "jobs" if node is here else ("jobs", here.name)
                services = {"jobs": es.Destination(name=address, commands=Command, timeout=1.0)}
                manager = jobs_manager(
                    open_jobs(self.url), handle=steady, on_refusal="handle", services=services
                )
                tree = Supervisor("one_for_one", intensity=100, period=5)
                if node is here:
                    tree.add(service)
                tree.add(worker(DyingServer, manager, plan, name="steps"))
                await supervision.start(node, tree, name="jobs_tree")
            await asyncio.gather(self.clients(here), self.cut())
            await eventually(lambda: at_rest(log), timeout=PATIENCE_S)
            await check(log, self.begun)
        finally:
            for node in (here, there):
                with contextlib.suppress(ProcessError):
                    await node.call("pyglyn_sup", (Atom("terminate_child"), Atom("jobs_tree")), 20.0)
                await eventually(lambda node=node: node.whereis("steps") is None)  # type: ignore[misc]
            await log.close()

    async def clients(self, node: Node) -> None:
        jobs = es.Service(node, "jobs")
        for number in range(12):
            id = f"j{number}"
            begin = Begin(self.random.randrange(4), self.random.choice([None, 0.0, FAR_AWAY]))
            self.begun[id] = Begun(begin.steps, begin.wait_s)
            await self.send(node, jobs, id, begin, f"begin {id}")
            if self.random.random() < 0.4:
                closed = self.random.choice(list(self.begun))
                await self.send(node, jobs, closed, Close(), f"close {closed} at {number}")

    async def send(self, node: Node, jobs: Any, id: str, command: Command, command_id: str) -> None:
        """Send a command until it is answered; its id makes it one."""

        async def answered() -> bool:
            try:
                await jobs.execute(id, command, command_id=command_id, timeout=2.0)
            except (es.EventSourcingError, ProcessError):
                return False
            return True

        await eventually(answered, timeout=PATIENCE_S)

    async def cut(self) -> None:
        """Cut all connections to the database, if there are any."""
        if self.url.startswith("postgresql:") and self.random.random() < 0.5:
            await asyncio.to_thread(self._cut)

    def _cut(self) -> None:
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
            )


@asynccontextmanager
async def database(folder: Path, server: str | None) -> AsyncIterator[str]:
    if server is None:
        yield f"sqlite:{folder}/jobs.db"
        return
    url = private_schema(server)
    yield url
    drop_schema(url)


@pytest.mark.parametrize("first", range(0, RUNS, TOGETHER))
@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
async def test_whoever_is_killed_each_command_is_carried_out_once(
    request: pytest.FixtureRequest, epmd: object, tmp_path: Path, kind: str, first: int
) -> None:
    server = request.getfixturevalue("wheel_server") if kind == "postgres" else None
    async with (
        Node(unique_name(), cookie="eventsourcing") as here,
        Node(unique_name(), cookie="eventsourcing") as there,
    ):
        await there.connect(here.name)
        deaths = 0
        seeds = range(first, min(first + TOGETHER, RUNS))
        for seed in seeds:
            folder = tmp_path / str(seed)
            try:
                async with database(folder, server) as url:
                    run = Run(seed, folder, url)
                    await run.run(here, there)
                    deaths += run.planned - run.left()
            except Exception as error:
                raise AssertionError(f"seed {seed}: {error}") from error
        assert deaths >= len(seeds)
