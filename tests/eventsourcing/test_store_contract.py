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
