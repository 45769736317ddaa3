"""``pyglyn events``, ``trace``, ``queries``, ``replay`` and ``parked``, run as a user runs them."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Any

import pytest_asyncio

from pyglyn import eventsourcing as es
from pyglyn.errors import DomainError
from pyglyn.node import Node
from pyglyn.testing import eventually
from pyglyn.testing.bank import (
    AccountOpened,
    BankAccount,
    BankAccountEvent,
    DepositMoney,
    OpenAccount,
    apply,
    handle,
)
from tests.cli.test_cli import run
from tests.node.conftest import unique_name

COOKIE = ("--cookie", "eventsourcing")


@pytest_asyncio.fixture
async def node(epmd) -> AsyncIterator[Node]:
    async with Node(unique_name(), cookie="eventsourcing") as running:
        yield running


def bank(url: str, queries: Any = ()) -> es.ServiceSpec:
    store = es.open_store(url, events=BankAccountEvent, state=BankAccount, aggregate_type="BankAccount")
    return es.service("bank", store, handle=handle, apply=apply, empty_state=BankAccount(), queries=queries)


async def test_events_and_trace_show_what_a_store_has(node, tmp_path):
    url = f"sqlite:{tmp_path}/bank.db"

    async def gift(id: str, envelopes: list[Any]) -> None:
        if isinstance(envelopes[0].payload, AccountOpened) and id == "a":
            await es.execute(node, "bank", "b", OpenAccount("b"))
            await es.execute(node, "bank", "b", DepositMoney(5.0))

    await es.start(node, bank(url, [("gift", gift)]))
    [opened] = await es.execute(node, "bank", "a", OpenAccount("a"))
    await es.execute(node, "bank", "a", DepositMoney(1.0))

    async def both() -> bool:
        return len(await es.load_events(node, "bank", "b")) == 2

    await eventually(both)
    status, output = await run("events", url)
    assert status == 0
    lines = output.splitlines()
    assert len(lines) == 4
    assert "BankAccount/a/1" in lines[0]
    assert "node=" + node.name in lines[0]
    status, output = await run("events", url, "--aggregate", "b", "--limit", "1")
    assert (status, output.count("\n"), "BankAccount/b/1" in output) == (0, 1, True)

    correlation = dict(opened.metadata)["correlation_id"]
    status, output = await run("trace", correlation, url)
    assert status == 0
    shown = [line.rstrip() for line in output.splitlines()]
    assert len(shown) == 4
    assert shown[1].startswith("└── ")
    assert f"BankAccount/a/1 on {node.name} at 20" in shown[1]
    assert [re.search(r"BankAccount/b/\d", line)[0] for line in shown[2:]] == [
        "BankAccount/b/1",
        "BankAccount/b/2",
    ]
    assert all(line.startswith("    ") for line in shown[2:])

    status, output = await run("trace", "unheard_of", url)
    assert (status, output) == (1, "pyglyn: no event has the correlation id unheard_of\n")
    status, output = await run("events", f"sqlite:{tmp_path}/missing.db")
    assert status == 1
    assert "there is no file" in output
    assert not (tmp_path / "missing.db").exists()


async def test_queries_parked_and_replay_work_on_a_running_node(node, tmp_path):
    url = f"sqlite:{tmp_path}/bank.db"
    await es.start(node, bank(url, [("audit", lambda id, envelopes: None)]))
    failing = True

    async def project(tx: es.Transaction[Any, Any], envelope: Any) -> None:
        if failing and envelope.aggregate_id == "b":
            raise DomainError("not b")
        await tx.execute("INSERT INTO seen VALUES (?, ?)", (envelope.aggregate_id, envelope.sequence))

    async def undo(tx: es.Transaction[Any, Any], aggregate_id: str | None) -> None:
        await tx.execute("DELETE FROM seen")

    store = es.open_store(url, events=BankAccountEvent, aggregate_type="BankAccount")
    async with store.transaction() as tx:
        await tx.execute("CREATE TABLE seen (id TEXT, sequence INT)")
    policy = es.FailurePolicy(retries=0)
    query = es.DurableQuery("levels", project, store=store, into=store, policy=policy, on_reset=undo)
    await query.start(node)
    for id in ("a", "b", "c"):
        await es.execute(node, "bank", id, OpenAccount(id))

    async def all_read() -> bool:
        return await store.checkpoint("levels") == await store.last_position()

    await eventually(all_read)
    status, output = await run("queries", node.name, *COOKIE)
    assert status == 0
    assert re.search(r"audit +│ live +│ live +│ - +│ 0 +│ 3 +│ 0 ", output), output
    assert re.search(r"levels +│ durable +│ live +│ 3 +│ 0 +│ 2 +│ 1 ", output), output
    status, output = await run("parked", node.name, *COOKIE)
    assert status == 0
    assert re.fullmatch(r"levels\t\d+\tb\t1\t1\t20\S+Z\t.*not b.*\t.*\n", output), output
    failing = False
    assert await run("parked", node.name, "levels", "--drive", "all", *COOKIE) == (0, "1 driven\n")

    async def rows() -> int:
        async with store.transaction() as tx:
            return len(await tx.execute("SELECT * FROM seen"))

    async def three() -> bool:
        return await rows() == 3

    await eventually(three)
    status, output = await run("replay", node.name, "levels", *COOKIE)
    assert status == 0, output
    assert "at position 3, 0 parked" in output
    assert await rows() == 3
    status, output = await run("queries", node.name, "--pause", "levels", *COOKIE)
    assert status == 0
    status, output = await run("replay", node.name, "audit", *COOKIE)
    assert (status, "cannot be reset" in output) == (1, True)
    status, output = await run("replay", node.name, "nonsense", *COOKIE)
    assert (status, "there is no query" in output) == (1, True)
    await store.close()
