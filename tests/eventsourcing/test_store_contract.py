"""Every store of the package keeps the contract."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pyglyn import eventsourcing as es
from pyglyn.testing.bank import BankAccount, BankAccountEvent
from pyglyn.testing.eventsourcing import EventStoreContract


def bank(url: str) -> es.EventStore[Any, Any]:
    return es.open_store(url, events=BankAccountEvent, state=BankAccount, aggregate_type="BankAccount")


class TestMemoryStore(EventStoreContract):
    shared = False

    @pytest.fixture
    def open_store(self) -> Callable[[], es.EventStore[Any, Any]]:
        return lambda: bank("memory:")


class TestSqliteStore(EventStoreContract):
    @pytest.fixture
    def open_store(self, tmp_path: Path) -> Callable[[], es.EventStore[Any, Any]]:
        return lambda: bank(f"sqlite:{tmp_path}/bank.db")


class TestPostgresStore(EventStoreContract):
    @pytest.fixture
    def open_store(self, any_postgres: str) -> Callable[[], es.EventStore[Any, Any]]:
        return lambda: bank(any_postgres)
