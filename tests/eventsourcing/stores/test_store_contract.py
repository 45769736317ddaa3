"""Every store of the package keeps the contract."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pyglyn import eventsourcing as es
from pyglyn.errors import EventStoreError
from pyglyn.testing.bank import BankAccount, BankAccountEvent, CustomerDepositedCash
from pyglyn.testing.event_store_contract import Store, opened
from pyglyn.testing.eventsourcing import EventStoreContract


def bank(url: str) -> es.EventStore[Any, Any]:
    return es.open_store(url, events=BankAccountEvent, state=BankAccount, aggregate_type="BankAccount")


CODEC: es.RowCodec[Any, Any] = es.RowCodec(
    aggregate_type="BankAccount", events=BankAccountEvent, state=BankAccount
)


class TestMemoryStore(EventStoreContract):
    shared = False
    encodes = False

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
