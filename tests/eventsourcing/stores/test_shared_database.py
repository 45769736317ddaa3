"""Two Python services (OS processes) and a foreign writer on one database at the same time."""

from __future__ import annotations

import asyncio
import sqlite3
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from pyglyn import eventsourcing as es
from pyglyn.testing import eventually
from pyglyn.testing.bank import BankAccount, BankAccountEvent, CustomerDepositedCash
from tests.eventsourcing.stores.foreign import Foreign

DEPOSITS, ACCOUNTS, FOREIGN = 120, 4, 60


def gleam_service(database: Foreign) -> int:
    """Deposit as a Gleam service would; SQLite refuses it when it is busy, so it tries again."""
    done = refused = 0
    while done < FOREIGN:
        try:
            database.execute(f"account-{done % ACCOUNTS}", 1.0)
            done += 1
        except (sqlite3.OperationalError, sqlite3.IntegrityError):
            refused += 1
            assert refused < 100_000
    return done


async def python_service(url: str, name: str) -> int:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(Path(__file__).with_name("service.py")),
        url,
        str(DEPOSITS),
        str(ACCOUNTS),
        name,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={"PYTHONPATH": str(Path(__file__).parents[3]), "PATH": "/usr/bin:/bin"},
    )
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    return int(out)


async def test_no_update_is_lost_on_sqlite(tmp_path: Path) -> None:
    await no_update_is_lost(f"sqlite:{tmp_path}/bank.db")


async def test_no_update_is_lost_on_any_postgres(any_postgres: str) -> None:
    await no_update_is_lost(any_postgres)


async def no_update_is_lost(url: str) -> None:
    database = Foreign(url)
    async with es.open_store(
        url, events=BankAccountEvent, state=BankAccount, aggregate_type="BankAccount"
    ) as store:
        seen: list[es.RecordedEvent[Any]] = []

        async def follow() -> None:
            async for batch in store.follow(batch=7):
                seen.extend(batch)

        following = asyncio.create_task(follow())
        done = await asyncio.wait_for(
            asyncio.gather(
                python_service(url, "one"),
                python_service(url, "two"),
                asyncio.to_thread(gleam_service, database),
            ),
            120,
        )
        assert done == [DEPOSITS, DEPOSITS, FOREIGN]
        last = await store.last_position()
        await eventually(lambda: seen and seen[-1].position == last, timeout=20)
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)

        balances = {}
        for n in range(ACCOUNTS):
            envelopes = (await store.load(f"account-{n}", use_snapshot=False)).envelopes
            assert [envelope.sequence for envelope in envelopes] == list(range(1, len(envelopes) + 1))
            balance = 0.0
            for envelope in envelopes[1:]:
                assert isinstance(envelope.payload, CustomerDepositedCash)
                balance += envelope.payload.amount
                assert envelope.payload.balance == balance
            balances[f"account-{n}"] = balance
        assert sum(balances.values()) >= 2 * DEPOSITS
        # The foreign writer opens an account with its first command if nobody has.
        assert 2 * DEPOSITS + FOREIGN - ACCOUNTS <= sum(balances.values()) <= 2 * DEPOSITS + FOREIGN

        assert len(seen) == len({event.position for event in seen}) == sum(balances.values()) + ACCOUNTS
        followed: Counter[str] = Counter()
        for event in seen:
            followed[event.aggregate_id] += 1
            assert event.sequence == followed[event.aggregate_id], "out of order along an aggregate"
        snapshot = await store.latest_snapshot("account-0")
        assert snapshot is not None
        assert snapshot.entity.balance == snapshot.sequence - 1
