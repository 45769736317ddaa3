"""Every store of the package keeps the contract."""

from __future__ import annotations

import asyncio
import pickle
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pyglyn import eventsourcing as es
from pyglyn.errors import EventStoreError
from pyglyn.node import Node
from pyglyn.testing import eventually
from pyglyn.testing.bank import BankAccount, BankAccountEvent, CustomerDepositedCash, OpenAccount
from pyglyn.testing.bank import apply as bank_apply
from pyglyn.testing.bank import handle as bank_handle
from pyglyn.testing.event_store_contract import Store, opened
from pyglyn.testing.eventsourcing import EventStoreContract


def bank(url: str) -> es.EventStore[Any, Any]:
    return es.open_store(url, events=BankAccountEvent, state=BankAccount, aggregate_type="BankAccount")


CODEC: es.RowCodec[Any, Any] = es.RowCodec(
    aggregate_type="BankAccount", events=BankAccountEvent, state=BankAccount
)


class TestMemoryStore(EventStoreContract):
    shared = False

    @pytest.fixture
    def open_store(self) -> Callable[[], es.EventStore[Any, Any]]:
        return lambda: bank("memory:")

    async def test_what_would_wait_for_its_own_transaction_is_refused(self, store: Store) -> None:
        async with store.transaction() as tx:
            for call in (
                store.append("a", opened(), expected=0),
                store.checkpoint("q"),
                store.transaction().__aenter__(),
            ):
                with pytest.raises(EventStoreError, match="open in this task: use its methods"):
                    await call
            await tx.append("a", opened(), expected=0)
            other = asyncio.create_task(store.append("a", [CustomerDepositedCash(1.0, 1.0)], expected=1))
            await asyncio.sleep(0)
            assert not other.done(), "another task waits for its turn"
        assert [envelope.sequence for envelope in await other] == [2]


class TestSqliteStore(EventStoreContract):
    @pytest.fixture
    def open_store(self, tmp_path: Path) -> Callable[[], es.EventStore[Any, Any]]:
        return lambda: bank(f"sqlite:{tmp_path}/bank.db")


class TestPostgresStore(EventStoreContract):
    @pytest.fixture
    def open_store(self, any_postgres: str) -> Callable[[], es.EventStore[Any, Any]]:
        return lambda: bank(any_postgres)


class TestPopoRecorder(EventStoreContract):
    @pytest.fixture
    def open_store(self) -> Callable[[], es.EventStore[Any, Any]]:
        from eventsourcing.popo import POPOAggregateRecorder, POPOApplicationRecorder

        events, snapshots = POPOApplicationRecorder(), POPOAggregateRecorder()
        return lambda: es.RecorderStore(events, CODEC, snapshots)


class TestSqliteRecorder(EventStoreContract):
    @pytest.fixture
    def open_store(self, tmp_path: Path) -> Iterator[Callable[[], es.EventStore[Any, Any]]]:
        from eventsourcing.sqlite import SQLiteAggregateRecorder, SQLiteApplicationRecorder, SQLiteDatastore

        datastore = SQLiteDatastore(str(tmp_path / "recorder.db"), originator_id_type="text")
        events = SQLiteApplicationRecorder(datastore)
        snapshots = SQLiteAggregateRecorder(datastore, events_table_name="snapshots")
        events.create_table()
        snapshots.create_table()
        yield lambda: es.RecorderStore(events, CODEC, snapshots)
        datastore.close()


async def test_types_and_versions_with_a_colon_are_kept_apart_by_a_recorder() -> None:
    from eventsourcing.popo import POPOAggregateRecorder, POPOApplicationRecorder

    events, snapshots = POPOApplicationRecorder(), POPOAggregateRecorder()

    def store(aggregate_type: str | None) -> es.RecorderStore[Any, Any]:
        codec: es.RowCodec[Any, Any] = es.RowCodec(
            aggregate_type=aggregate_type,
            events=BankAccountEvent,
            state=BankAccount,
            event_type="a:b",
            event_version="v:2%",
        )
        return es.RecorderStore(events, codec, snapshots)

    keys = [("shop", "order:a"), ("shop:order", "a"), ("50%3A", "a"), ("50:", "a"), ("", ":")]
    for type_, id in keys:
        async with store(type_) as one:
            snapshot = es.Snapshot(id, BankAccount(), 1, 1)
            written = await one.append(id, opened(), expected=0, snapshot=snapshot)
            assert await one.load_events(id) == written
            assert [event.envelope for event in await one.read(0, aggregate_id=id)] == written
            assert await one.latest_snapshot(id) == snapshot
    async with store(None) as everything:
        found = [event.envelope for event in await everything.read(0)]
    assert [(each.aggregate_type, each.aggregate_id) for each in found if each is not None] == keys
    assert {(each.event_type, each.event_version) for each in found if each is not None} == {("a:b", "v:2%")}


# --- how a store is described ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("sqlite:a.db?sync=FULL", "unknown option of the store: sync; known are synchronous, busy_timeout"),
        ("sqlite:a.db?busy_timeout=soon", "busy_timeout is a number of seconds, got 'soon'"),
        ("sqlite:a.db?busy_timeout=inf", "busy_timeout is a number of seconds"),
        ("postgresql://h/d?pool_size=0", "pool_size is a number of 1 or more, got '0'"),
        ("postgresql://h/d?timeout=-1", "timeout is a number of seconds"),
        ("postgresql://h/d?prepare_threshold=never", "prepare_threshold is a number, or none"),
        ("postgresql://h/d?isolation=chaos", "unknown isolation: 'chaos'"),
    ],
)
def test_a_wrong_option_of_a_url_is_refused_with_what_is_known(url: str, says: str) -> None:
    with pytest.raises(EventStoreError, match=re.escape(says)):
        bank(url)


async def _is_connected(store: es.EventStore[Any, Any]) -> bool:
    try:
        return await store.load("a") is not None
    except es.StoreUnavailable:  # it has little time for that
        return False


async def test_the_options_of_a_url_reach_the_store(postgres: str) -> None:
    for isolation, alone in (("read+committed", False), ("serializable", True)):
        url = f"{postgres}&pool_size=1&timeout=0.2&prepare_threshold=none&isolation={isolation}"
        async with bank(url) as store, bank(postgres) as other:
            await eventually(lambda: _is_connected(store))
            async with store.transaction() as tx:
                with pytest.raises(es.StoreUnavailable):  # after 0.2 s, as there is one connection
                    await store.load("a")
                appending = asyncio.create_task(other.append(isolation, opened(), expected=0))
                await asyncio.wait((appending,), timeout=10 if not alone else 0.1)
                assert appending.done() is not alone
                for _ in range(10):
                    assert await tx.execute("SELECT count(*) FROM pg_prepared_statements") == [(0,)]
            await appending


@pytest.mark.parametrize("kind", ["memory", "sqlite", "postgres", "glyn"])
async def test_a_store_made_by_its_constructor_travels_to_another_os_process(
    kind: str, tmp_path: Path, postgres: str
) -> None:
    from pyglyn.eventsourcing import glyn
    from pyglyn.eventsourcing.stores.postgres import PostgresStore
    from pyglyn.eventsourcing.stores.sqlite import SqliteStore

    made: es.EventStore[Any, Any]
    if kind == "memory":
        made = es.MemoryStore("BankAccount", CODEC)
    elif kind == "postgres":
        made = PostgresStore(postgres, CODEC, pool_size=2)
    else:
        made = SqliteStore(tmp_path / "a.db", CODEC, busy_timeout=3.0)
    if kind == "glyn":
        made = glyn.glyn_store(glyn.GlynConfig(pubsub_scope="s", pubsub_group="g"), made, BankAccountEvent)
    async with made:
        await made.load("a")  # it has connections, locks and threads now
        if kind != "glyn":
            await made.append("a", opened(), expected=0)
        copy = pickle.loads(pickle.dumps(made))
    async with copy:
        assert type(copy) is type(made)
        found = (await copy.load("a")).envelopes
        assert len(found) == (0 if kind in ("memory", "glyn") else 1)


def test_a_state_that_a_store_cannot_keep_is_refused_when_the_service_is_declared(tmp_path: Path) -> None:
    def declare(store: es.EventStore[Any, Any], empty_state: Any, **options: Any) -> None:
        es.service("bank", store, handle=bank_handle, apply=bank_apply, empty_state=empty_state, **options)

    typed = bank(f"sqlite:{tmp_path}/a.db")
    untyped = es.open_store(f"sqlite:{tmp_path}/a.db", events=BankAccountEvent, aggregate_type="BankAccount")
    snapshots = {"snapshot_config": es.SnapshotConfig(5)}
    declare(typed, BankAccount(), **snapshots)
    declare(typed, None, **snapshots)
    declare(untyped, BankAccount())
    with pytest.raises(EventStoreError, match="no snapshots of BankAccount"):
        declare(untyped, BankAccount(), **snapshots)
    with pytest.raises(EventStoreError, match="no snapshots of BankAccount"):
        declare(typed, BankAccount(balance=1), **snapshots)
    with pytest.raises(EventStoreError, match="no snapshots of tuple"):
        declare(bank("memory:"), (1, 2), **snapshots)


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
async def test_leases_of_the_outbox_go_by_the_clock_of_the_database(
    kind: str, tmp_path: Path, postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One taker's clock is an hour ahead: it does not take what another one has just taken."""
    url = f"sqlite:{tmp_path}/a.db" if kind == "sqlite" else postgres
    async with bank(url) as right, bank(url) as ahead:
        await right.put_outbox([es.OutboxMessage("t", "b")])
        [entry] = await right.take_outbox("t", lease_s=60)
        now = time.time() + 3600
        monkeypatch.setattr(time, "time", lambda: now)
        assert await ahead.take_outbox("t") == []
        await ahead.fail_outbox([entry.id], "on purpose")
        monkeypatch.undo()
        [again] = await right.take_outbox("t")
        assert (again.id, again.attempts) == (entry.id, 1)
        assert abs(again.created_at - time.time()) < 1800


async def test_the_options_of_a_service_reach_its_executor(node: Node) -> None:
    def tell(aggregate_id: str, before: int, events: list[Any]) -> list[es.OutboxMessage]:
        return [es.OutboxMessage("opened", f"{aggregate_id} {before} {len(events)}")]

    store: es.EventStore[Any, Any] = bank("memory:")
    options: dict[str, Any] = {"outbox": tell, "cached": 0, "conflict_retries": 3}
    made = es.service(
        "bank", store, handle=bank_handle, apply=bank_apply, empty_state=BankAccount(), **options
    )
    await es.start(node, made)
    await made.at(node).execute("a", OpenAccount("a"))
    assert [entry.body for entry in await store.take_outbox("opened")] == ["a 0 1"]
    assert (made.cached, made.conflict_retries) == (0, 3)
    es.supervised("bank", store, handle=bank_handle, apply=bank_apply, empty_state=BankAccount(), **options)
