"""What nothing can be quicker than: the parts that event stores and durable queries are made of, by themselves."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg

from pyglyn.eventsourcing.stores.json.codec import JsonCodec
from pyglyn.testing.bank import BankAccountEvent

ACCOUNTS = 1000
_SAMPLE = 20_000


def per_second(count: int, work: Callable[[], Any], rounds: int = 3) -> float:
    """Return the best rate of some rounds."""
    best = float("inf")
    for _ in range(rounds):
        began = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - began)
    return count / best


def payloads(count: int) -> list[str]:
    return [
        f'{{"event-type":"customer-deposited-cash","amount":1.5,"balance":{number}.25}}'
        for number in range(count)
    ]


def json_alone() -> float:
    """Events a second of the standard library's decoder, without types."""
    texts = payloads(_SAMPLE)
    return per_second(_SAMPLE, lambda: [json.loads(text) for text in texts])


def typed_decoding() -> float:
    """Events a second from JSON text to attrs classes, in one thread."""
    codec: JsonCodec[Any] = JsonCodec(BankAccountEvent, tagged=True)
    texts = payloads(_SAMPLE)
    return per_second(_SAMPLE, lambda: [codec.decode(text) for text in texts])


def sqlite_updates(directory: Path) -> float:
    """UPDATEs a second in one transaction, in the thread that wants them."""
    connection = sqlite3.connect(directory / "floor.db", isolation_level=None)
    connection.execute("CREATE TABLE totals (account text PRIMARY KEY, total float)")
    connection.executemany("INSERT INTO totals VALUES (?, 0)", [(f"account-{n}",) for n in range(ACCOUNTS)])
    rows = [(1.5, f"account-{n % ACCOUNTS}") for n in range(_SAMPLE)]

    def work() -> None:
        connection.execute("BEGIN IMMEDIATE")
        for row in rows:
            connection.execute("UPDATE totals SET total = total + ? WHERE account = ?", row)
        connection.execute("COMMIT")

    found = per_second(_SAMPLE, work)
    connection.close()
    return found


def postgres_updates(url: str) -> float:
    """UPDATEs a second in one transaction, pipelined."""
    with psycopg.connect(url) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE floor (account text PRIMARY KEY, total float)")
        cursor.executemany("INSERT INTO floor VALUES (%s, 0)", [(f"account-{n}",) for n in range(ACCOUNTS)])
        connection.commit()
        rows = [(1.5, f"account-{n % ACCOUNTS}") for n in range(_SAMPLE // 4)]

        def work() -> None:
            for start in range(0, len(rows), 500):
                several = rows[start : start + 500]
                cursor.executemany("UPDATE floor SET total = total + %s WHERE account = %s", several)
                connection.commit()

        return per_second(len(rows), work, 2)


def postgres_copy(url: str, events: int) -> float:
    """Rows a second that COPY brings of the table of events, not looked into."""

    def work() -> None:
        with (
            psycopg.connect(url) as connection,
            connection.cursor() as cursor,
            cursor.copy("COPY (SELECT * FROM event) TO STDOUT") as copy,
        ):
            assert sum(bytes(block).count(b"\n") for block in copy) == events

    return per_second(events, work, 2)
