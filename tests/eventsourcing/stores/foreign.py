"""A foreign writer: the statements of the Gleam stores, over a plain database connection.

Written after the facts about eventsourcing_postgres 5.1 and eventsourcing_sqlite 3.1: the columns, the table lock,
the deferred BEGIN, a new connection per operation, JSON as their example's encoders write it.
"""

from __future__ import annotations

import json
import sqlite3
from typing import Any

import attrs
import psycopg

GLEAM_TABLES = [
    """
    CREATE TABLE IF NOT EXISTS event (
      aggregate_type text NOT NULL, aggregate_id text NOT NULL, sequence bigint CHECK (sequence >= 0) NOT NULL,
      event_type text NOT NULL, event_version text NOT NULL, payload text NOT NULL, metadata text{not_null},
      PRIMARY KEY (aggregate_type, aggregate_id, sequence))
    """,
    """
    CREATE TABLE IF NOT EXISTS snapshot (
      aggregate_type text NOT NULL, aggregate_id text NOT NULL, sequence bigint CHECK (sequence >= 0) NOT NULL,
      entity text NOT NULL, timestamp int NOT NULL, PRIMARY KEY (aggregate_type, aggregate_id))
    """,
]
SELECT = """
SELECT aggregate_type, aggregate_id, sequence, event_type, event_version, payload, metadata FROM event
WHERE aggregate_type = %s AND aggregate_id = %s AND sequence > %s ORDER BY sequence
"""
INSERT = """
INSERT INTO event (aggregate_type, aggregate_id, sequence, event_type, event_version, payload, metadata) VALUES
"""
SNAPSHOT = """
INSERT INTO snapshot (aggregate_type, aggregate_id, sequence, entity, timestamp) VALUES (%s, %s, %s, %s, %s)
ON CONFLICT (aggregate_type, aggregate_id) DO UPDATE SET sequence = EXCLUDED.sequence, entity = EXCLUDED.entity
"""


def opened(account_id: str) -> str:
    return f'{{"event-type":"account-opened","account-id":"{account_id}"}}'


def deposited(amount: float, balance: float) -> str:
    return f'{{"event-type":"customer-deposited-cash","amount":{amount!r},"balance":{balance!r}}}'


def gleam_decodes(payload: str) -> tuple[Any, ...]:
    """Read a payload as the example's decoder does: its float decoder refuses an integer literal."""
    value = json.loads(payload)
    match value:
        case {"event-type": "account-opened", "account-id": str() as account_id}:
            return ("account_opened", account_id)
        case {
            "event-type": "customer-deposited-cash",
            "amount": float() as amount,
            "balance": float() as balance,
        }:
            return ("customer_deposited_cash", amount, balance)
        case {
            "event-type": "customer-withdrew-cash",
            "amount": float() as amount,
            "balance": float() as balance,
        }:
            return ("customer_withdrew_cash", amount, balance)
    raise AssertionError(f"a Gleam decoder refuses {payload}")


def gleam_metadata(text: str) -> list[tuple[str, str]]:
    pairs = json.loads(text)
    assert all(len(pair) == 2 and all(isinstance(part, str) for part in pair) for pair in pairs)
    return [(key, value) for key, value in pairs]


@attrs.define
class Foreign:
    """A database that both languages use."""

    url: str
    aggregate_type: str = "BankAccount"
    event_type: str = "BankAccountEvent"

    @property
    def is_sqlite(self) -> bool:
        return self.url.startswith("sqlite:")

    def connect(self) -> Any:
        if self.is_sqlite:
            return sqlite3.connect(self.url.removeprefix("sqlite:"), timeout=0, isolation_level=None)
        return psycopg.connect(self.url, autocommit=True)

    def run(self, *statements: str | tuple[str, tuple[Any, ...]]) -> list[tuple[Any, ...]]:
        """Run statements on a connection of their own; return the rows of the last."""
        connection = self.connect()
        try:
            rows: list[tuple[Any, ...]] = []
            for statement in statements:
                text, parameters = statement if isinstance(statement, tuple) else (statement, ())
                rows = self.on(connection, text, parameters)
            return rows
        finally:
            connection.close()

    def on(self, connection: Any, statement: str, parameters: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        if self.is_sqlite:
            return list(connection.execute(statement.replace("%s", "?"), parameters).fetchall())
        cursor = connection.execute(statement.encode(), parameters or None)
        return list(cursor.fetchall()) if cursor.description else []

    def create_tables(self) -> None:
        not_null = "" if self.is_sqlite else " NOT NULL"
        self.run(*(table.replace("{not_null}", not_null) for table in GLEAM_TABLES))

    def insert(
        self, aggregate_id: str, first: int, payloads: list[str], metadata: str | None = "[]"
    ) -> tuple[str, tuple[Any, ...]]:
        """Return the multi-row INSERT of ``commit_events``."""
        rows = [
            (self.aggregate_type, aggregate_id, first + n, self.event_type, "1.0", payload, metadata)
            for n, payload in enumerate(payloads)
        ]
        placeholders = ", ".join(["(%s, %s, %s, %s, %s, %s, %s)"] * len(rows))
        return INSERT + placeholders, tuple(value for row in rows for value in row)

    def execute(self, aggregate_id: str, amount: float) -> None:
        """Carry out one deposit as a Gleam service does: lock, load, decide, insert, commit.

        Raises:
            sqlite3.OperationalError: the file was locked; its store has no busy timeout.
        """
        connection = self.connect()
        try:
            if self.is_sqlite:
                self.on(connection, "BEGIN")
            else:
                self.on(connection, "BEGIN")
                self.on(connection, "LOCK TABLE event IN ACCESS EXCLUSIVE MODE")
            rows = self.on(connection, SELECT, (self.aggregate_type, aggregate_id, 0))
            balance = 0.0
            for row in rows:
                event = gleam_decodes(row[5])
                balance = event[-1] if len(event) == 3 else balance
                gleam_metadata(row[6])
            assert [row[2] for row in rows] == list(range(1, len(rows) + 1))
            payloads = [deposited(amount, balance + amount)] if rows else [opened(aggregate_id)]
            self.on(connection, *self.insert(aggregate_id, len(rows) + 1, payloads))
            self.on(connection, "COMMIT")
        finally:
            connection.close()
