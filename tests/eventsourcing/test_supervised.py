"""Services and queries as OS processes of a supervision tree."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
import signal
import sqlite3
from typing import Any

import pytest
from eventsourcing.popo import POPOApplicationRecorder

from pyglyn import eventsourcing as es
from pyglyn import gleam, supervision
from pyglyn.errors import CallFailed, EventStoreError, ProcessError
from pyglyn.etf import Atom
from pyglyn.eventsourcing import glyn, relay
from pyglyn.node import Node
from pyglyn.supervision import Supervisor
from pyglyn.testing import eventually
from pyglyn.testing.bank import (
    AccountOpened,
    BankAccount,
    BankAccountCommand,
    BankAccountEvent,
    DepositMoney,
    OpenAccount,
    apply,
    handle,
)
from pyglyn.testing.postgres import PrivatePostgres
from tests.eventsourcing.handles import bank_at

CONFIG = glyn.GlynConfig(pubsub_scope="example", pubsub_group="bank")


def bank(url: str) -> es.EventStore[Any, Any]:
    return es.open_store(url, events=BankAccountEvent, state=BankAccount, aggregate_type="BankAccount")


def supervised(store: es.EventStore[Any, Any], **options: Any) -> supervision.ChildSpec:
    return es.supervised(
        "bank", store, **{"handle": handle, "apply": apply, "empty_state": BankAccount(), **options}
    )


def note(aggregate_id: str, envelopes: list[Any]) -> None:
    """Leave a line in a file; runs in the query's own OS process."""
    with open(os.environ["NOTES"], "a") as notes:
        notes.writelines(f"{os.getpid()} {aggregate_id} {envelope.sequence}\n" for envelope in envelopes)


def os_pid(node: Node, name: str) -> int:
    pid = node.whereis(name)
    assert pid is not None
    assert pid.serial in node.workers.links  # else its end is just being told
    return node.workers.links[pid.serial].os_pid


async def test_aggregates_are_spread_over_workers_each_always_on_the_same_one(node, tmp_path):
    tree = Supervisor("one_for_one", intensity=10).add(
        supervised(bank(f"sqlite:{tmp_path}/bank.db"), workers=2)
    )
    await supervision.start(node, tree)
    names = [f"account-{number}" for number in range(10)]
    await asyncio.gather(*(bank_at(node).execute(name, OpenAccount(name)) for name in names))
    for _ in range(3):
        await asyncio.gather(*(bank_at(node).execute(name, DepositMoney(1.0)) for name in names))
    assert (await bank_at(node).system_stats()).total_commands_processed == 40
    stats = [await bank_at(node, worker).system_stats() for worker in ("bank_0", "bank_1")]
    shares = [each.total_commands_processed for each in stats]
    assert sum(shares) == 40
    assert all(share % 4 == 0 and share > 0 for share in shares), "all four commands of an aggregate in one"
    assert os_pid(node, "bank_0") != os_pid(node, "bank_1")

    os.kill(os_pid(node, "bank_0"), signal.SIGKILL)

    async def answers() -> bool:
        try:
            return bool(await bank_at(node).execute("account-0", DepositMoney(1.0), timeout=1.0))
        except (es.EventSourcingError, ProcessError):
            return False

    await eventually(answers, timeout=10)
    for name in names:
        assert (await bank_at(node).load_aggregate(name)).entity.balance >= 3.0


async def test_each_query_has_an_os_process_of_its_own_and_is_started_again(node, tmp_path, monkeypatch):
    notes = tmp_path / "notes"
    notes.touch()
    monkeypatch.setenv("NOTES", str(notes))
    store, queries = glyn.supervised(
        CONFIG, es.MemoryStore("BankAccount"), [("note", note)], BankAccountEvent
    )
    await supervision.start(node, Supervisor("one_for_one").add(queries).add(supervised(store)))
    assert len(await glyn.subscribers(CONFIG, at=node)) == 1
    await bank_at(node).execute("a", OpenAccount("a"))
    first = os_pid(node, "note")
    await eventually(lambda: notes.read_text() == f"{first} a 1\n")
    assert len({first, os_pid(node, "bank"), os.getpid()}) == 3
    os.kill(first, signal.SIGKILL)

    async def again() -> bool:
        pid = node.whereis("note")
        members = await glyn.subscribers(CONFIG, at=node)
        return pid is not None and members == [pid] and os_pid(node, "note") != first

    await eventually(again)
    await bank_at(node).execute("a", DepositMoney(1.0))
    await eventually(lambda: notes.read_text().endswith(f"{os_pid(node, 'note')} a 2\n"))


async def test_a_tree_can_be_started_by_fresh_interpreters(node, tmp_path, monkeypatch):
    """Everything a child is made of travels, where a fork is not possible."""
    notes = tmp_path / "notes"
    notes.touch()
    monkeypatch.setenv("NOTES", str(notes))
    url = f"sqlite:{tmp_path}/bank.db"
    store, queries = glyn.supervised(CONFIG, bank(url), [("note", note)], BankAccountEvent)
    service = supervised(store)
    assert len(pickle.dumps((queries, service))) > 0
    tree = Supervisor("one_for_one", start="spawn").add(queries).add(service)
    await supervision.start(node, tree)
    await bank_at(node).execute("a", OpenAccount("a"))
    await eventually(lambda: notes.read_text().endswith(" a 1\n"))


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        ("no/such/folder/bank.db", "there is no folder"),
        ("text.db", "not a database"),
        ("newer.db", "a newer version made the tables"),
    ],
)
async def test_a_store_that_can_never_work_fails_the_start_with_its_reason(node, tmp_path, file, reason):
    (tmp_path / "text.db").write_text("this is no database, whatever its name says" * 100)
    with contextlib.closing(sqlite3.connect(tmp_path / "newer.db")) as connection, connection:
        connection.execute("CREATE TABLE pyglyn_schema (version int)")
        connection.execute("INSERT INTO pyglyn_schema VALUES (99)")
    connection.close()
    tree = Supervisor("one_for_one").add(supervised(bank(f"sqlite:{tmp_path}/{file}")))
    with pytest.raises(supervision.hub.ChildStartError, match=reason):
        await supervision.start(node, tree)


async def test_a_service_starts_and_starts_again_while_its_database_is_away(
    node: Node, own_server: PrivatePostgres
) -> None:
    """Commands are told why they are not carried out, within the time that callers wait by default."""
    own_server.stop()
    service = supervised(bank(own_server.url), unavailable_s=0.5)
    await supervision.start(node, Supervisor("one_for_one", intensity=1).add(service))
    with pytest.raises(es.StoreUnavailable, match="PostgreSQL: connection"):
        await bank_at(node).execute("a", OpenAccount("a"))
    first = os_pid(node, "bank")
    os.kill(first, signal.SIGKILL)
    await eventually(lambda: os_pid(node, "bank") != first)
    with pytest.raises(es.StoreUnavailable, match="PostgreSQL: connection") as caught:
        await bank_at(node).execute("a", OpenAccount("a"))
    assert not caught.value.outcome_unknown
    await asyncio.to_thread(own_server.start)
    assert [envelope.sequence for envelope in await bank_at(node).execute("a", OpenAccount("a"))] == [1]
    own_server.stop()  # the pool of connections is there by now
    with pytest.raises(es.StoreUnavailable, match="PostgreSQL: connection"):
        await bank_at(node).execute("a", DepositMoney(1.0))


def deadly(account: BankAccount, command: BankAccountCommand) -> list[Any]:
    """Kill the OS process that carries out a deposit of 13."""
    if command == DepositMoney(13.0):
        os.kill(os.getpid(), signal.SIGKILL)
    return handle(account, command)


async def test_those_who_wait_for_a_worker_that_dies_are_told_at_once(node, tmp_path):
    store = bank(f"sqlite:{tmp_path}/bank.db")
    tree = Supervisor("one_for_one", intensity=10).add(supervised(store, handle=deadly, workers=2))
    await supervision.start(node, tree)
    names = [f"account-{number}" for number in range(4)]
    for name in names:
        await bank_at(node).execute(name, OpenAccount(name))
    deposits = [bank_at(node).execute(name, DepositMoney(13.0), timeout=60) for name in names]
    outcomes = await asyncio.wait_for(asyncio.gather(*deposits, return_exceptions=True), 180)
    assert [type(outcome) for outcome in outcomes] == [CallFailed] * 4
    assert all("that had the command ended" in str(outcome) for outcome in outcomes)

    async def again() -> bool:
        with contextlib.suppress(ProcessError):
            return bool(await bank_at(node).execute("account-0", DepositMoney(1.0)))
        return False

    await eventually(again, timeout=20)
    actor = (gleam.NamedSubject[Any](Atom("bank")), node.name)
    with pytest.raises(EventStoreError, match="that had the command ended"):
        await asyncio.wait_for(bank_at(node, actor).execute("account-0", DepositMoney(13.0), timeout=60), 180)


async def test_a_memory_store_is_not_shared_by_workers():
    with pytest.raises(EventStoreError, match="workers need SQLite or PostgreSQL"):
        supervised(es.MemoryStore(), workers=2)


def in_memory(kind: str) -> es.EventStore[Any, Any]:
    """A store in memory, itself or inside of another one."""
    match kind:
        case "itself":
            return bank("memory:")
        case "that tells a group":
            return glyn.glyn_store(CONFIG, bank("memory:"))
        case "with keys":
            return es.open_store("memory:", aggregate_type="t", keys="memory:")
        case "that tells a group of one with keys":
            return glyn.glyn_store(CONFIG, es.open_store("memory:", aggregate_type="t", keys="memory:"))
        case _:
            return es.RecorderStore(POPOApplicationRecorder(), es.RowCodec(aggregate_type="BankAccount"))


@pytest.mark.parametrize(
    "kind",
    ["itself", "that tells a group", "with keys", "that tells a group of one with keys", "a recorder's"],
)
def test_what_is_in_memory_is_given_to_no_other_os_process_whatever_is_around_it(tmp_path, kind):
    store = in_memory(kind)
    database = f"sqlite:{tmp_path}/of_queries.db"
    query = es.DurableQuery("q", note, store=store, checkpoints=database)
    manager = es.manager("m", store=store, handle=lambda state, message: [], services={}, into=database)
    to = relay.WebhookPublisher("http://localhost")
    out = [relay.Relay("r", store=store, topics=["t"], to=to)] if store.has_side_tables else []
    with pytest.raises(EventStoreError, match="workers need SQLite or PostgreSQL"):
        supervised(store, workers=2)
    for each in (query, manager, *out):
        with pytest.raises(EventStoreError, match="a memory store belongs to one OS process"):
            each.worker()
        each.worker(isolation="task")


def test_facts_in_memory_are_given_to_no_other_os_process():
    query = es.DurableQuery("q", note, store=es.open_facts("memory:"), checkpoints="memory:")
    with pytest.raises(EventStoreError, match="a memory store belongs to one OS process"):
        query.worker()


async def test_the_database_restarts_under_load_and_commands_go_on(node, postgres):
    """All connections of the server are cut again and again; every command is answered, and in the log once."""
    import psycopg

    made = es.service("bank", bank(postgres), handle=handle, apply=apply, empty_state=BankAccount())
    await es.start(node, made)
    await bank_at(node).execute("a", OpenAccount("a"), timeout=20)
    answered: list[int] = []

    async def client() -> None:
        for _ in range(25):
            done = await bank_at(node).execute("a", DepositMoney(1.0), timeout=20)
            answered.extend(envelope.sequence for envelope in done)

    def cut() -> None:
        with psycopg.connect(postgres, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE pid <> pg_backend_pid() AND datname = current_database()"
            )

    async def cutter() -> None:
        for _ in range(4):
            await asyncio.to_thread(cut)
            await asyncio.sleep(0.05)

    await asyncio.gather(*(client() for _ in range(4)), cutter())
    logged = await bank_at(node).load_events("a", timeout=20)
    assert [envelope.sequence for envelope in logged] == list(range(1, 102))
    assert sorted(answered) == list(range(2, 102))


@pytest.mark.parametrize("mode", ["fast", "immediate"])
async def test_a_server_that_stops_and_starts_costs_no_command_and_repeats_none(
    node: Node, own_server: PrivatePostgres, mode: str
) -> None:
    """Service, workers and query are OS processes; commands and events wait until the server is back."""
    await sums(node, own_server.url, workers=2, unavailable_s=60.0)
    accounts = [f"account-{number}" for number in range(4)]
    answered = dict.fromkeys(accounts, 0)
    enough = asyncio.Event()

    async def client(account: str) -> None:
        await bank_at(node).execute(account, OpenAccount(account), timeout=60)
        while not enough.is_set():
            await bank_at(node).execute(account, DepositMoney(1.0), timeout=60)
            answered[account] += 1

    clients = [asyncio.create_task(client(account)) for account in accounts]
    for _ in range(2):
        before = sum(answered.values())
        await eventually(lambda before=before: sum(answered.values()) > before + 20, timeout=60)  # type: ignore[misc]
        await asyncio.to_thread(own_server.stop, mode)
        await asyncio.to_thread(own_server.start)
    before = sum(answered.values())
    await eventually(lambda: sum(answered.values()) > before + 20, timeout=60)
    enough.set()
    await asyncio.gather(*clients)
    for account in accounts:
        assert (await bank_at(node).load_aggregate(account)).entity.balance == answered[account]
    await eventually(lambda: _sums(own_server.url, {a: float(n) for a, n in answered.items()}), timeout=60)


async def test_a_full_disk_under_a_service_is_told_and_commands_go_on_when_there_is_room(small_disk, node):
    url = f"sqlite:{small_disk}/bank.db"
    await sums(node, url)
    await bank_at(node).execute("a", OpenAccount("a"))
    ballast = small_disk / "ballast"
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)
    deposits = 0
    padding = [("padding", "x" * 2000)]
    with pytest.raises(es.StoreUnavailable, match=r"full|disk I/O") as caught:  # noqa: PT012
        while True:
            await bank_at(node).execute("a", DepositMoney(1.0), metadata=padding)
            deposits += 1
    assert not caught.value.outcome_unknown
    waiting = asyncio.create_task(bank_at(node).execute("a", DepositMoney(1.0)))
    ballast.unlink()
    await waiting
    expected = deposits + 1.0
    assert (await bank_at(node).load_aggregate("a")).entity.balance == expected
    await eventually(lambda: _sums(url, {"a": expected}), timeout=20)


async def sums(node: Node, url: str, **options: Any) -> None:
    """Start a service, and a durable query that sums the deposits of each account beside the events."""
    async with bank(url) as store, store.transaction() as tx:
        await tx.execute("CREATE TABLE sums (account TEXT PRIMARY KEY, total FLOAT)")
    query = es.DurableQuery("sums", add_deposit, store=bank(url), into=bank(url))
    tree = Supervisor("one_for_one", intensity=0).add(supervised(bank(url), **options)).add(query.worker())
    await supervision.start(node, tree)


async def add_deposit(tx: es.Transaction[Any, Any], envelope: es.EventEnvelope[Any]) -> None:
    amount = getattr(envelope.payload, "amount", 0.0)
    statement = (
        f"INSERT INTO sums VALUES ('{envelope.aggregate_id}', {amount}) "
        f"ON CONFLICT (account) DO UPDATE SET total = sums.total + {amount}"
    )
    await tx.execute(statement)


async def _sums(url: str, expected: dict[str, float]) -> bool:
    async with bank(url) as store, store.transaction() as tx:
        assert dict(await tx.execute("SELECT account, total FROM sums")) == expected  # type: ignore[call-overload]
        return True


async def test_the_status_of_a_live_query_in_its_own_process(node, tmp_path):
    store, queries = glyn.supervised(CONFIG, es.MemoryStore(), [("quiet", print)], BankAccountEvent)
    await supervision.start(node, Supervisor("one_for_one").add(queries).add(supervised(store)))
    status = es.QueryStatus.from_term(await node.call("quiet", Atom("status")))
    assert (status.name, status.kind, status.state, status.parked) == ("quiet", "live", "idle", 0)


def refuse(aggregate_id: str, envelopes: list[Any]) -> None:
    assert isinstance(envelopes[0].payload, AccountOpened), "not decoded"
    raise ValueError("never")


async def test_what_live_queries_parked_in_the_store_is_there_after_a_restart(node, tmp_path):
    policy = es.FailurePolicy(retries=0)
    store, queries = glyn.supervised(
        CONFIG,
        bank(f"sqlite:{tmp_path}/bank.db"),
        [es.QuerySpec(name="of_glyn", function=refuse, policy=policy)],
        BankAccountEvent,
    )
    service = supervised(store, queries=[es.QuerySpec(name="of_service", function=refuse, policy=policy)])
    await supervision.start(node, Supervisor("one_for_one").add(queries).add(service))
    await bank_at(node).execute("a", OpenAccount("a"))

    async def parked(name: str) -> bool:
        with contextlib.suppress(ProcessError):
            found = await node.call(name, Atom("parked"))
            assert [event[Atom("error")] for event in found] == [b"ValueError: never"]
            return True
        return False

    for name in ("of_glyn", "of_service"):
        await eventually(lambda name=name: parked(name))
        first = os_pid(node, name)
        os.kill(first, signal.SIGKILL)
        await eventually(lambda name=name: node.whereis(name) is None)
        await eventually(lambda name=name: parked(name))
        assert os_pid(node, name) != first
