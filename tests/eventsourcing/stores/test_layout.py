"""Side tables of another layout are refused when a store is opened, before anything is written."""

from __future__ import annotations

import re
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pyglyn import eventsourcing as es
from pyglyn.eventsourcing.stores import layout
from pyglyn.eventsourcing.stores.readonly import look
from pyglyn.testing import eventually, require
from pyglyn.testing.bank import AccountOpened, BankAccount, BankAccountEvent
from tests.eventsourcing.stores.foreign import Foreign


def bank(url: str) -> es.EventStore[Any, Any]:
    return es.open_store(url, events=BankAccountEvent, state=BankAccount, aggregate_type="BankAccount")


def columns(url: str) -> dict[str, list[str]]:
    if url.startswith("sqlite:"):
        statement = """SELECT t.name, c.name FROM sqlite_master AS t, pragma_table_info(t.name) AS c
        WHERE t.type = 'table'"""
    else:
        statement = """SELECT table_name::text, column_name::text FROM information_schema.columns
        WHERE table_schema = current_schema() ORDER BY ordinal_position"""
    found: dict[str, list[str]] = {}
    for table, column in Foreign(url).run(statement):
        found.setdefault(table, []).append(column)
    return {table: names for table, names in found.items() if table.startswith("pyglyn")}


async def test_the_columns_that_are_checked_are_those_that_are_made(url: str) -> None:
    async with bank(url):
        kind: layout.Kind = "sqlite" if url.startswith("sqlite") else "postgres"
        assert columns(url) == {table: list(names) for table, names in layout.TABLES[kind].items()}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("UPDATE pyglyn_schema SET version = 99", "a newer version made the tables: 99"),
        ("UPDATE pyglyn_schema SET version = 0", "have version 0, which was never released"),
        ("DELETE FROM pyglyn_schema", "has no version of our side tables"),
        ("ALTER TABLE pyglyn_checkpoint DROP COLUMN mark", "pyglyn_checkpoint has no mark"),
        ("ALTER TABLE pyglyn_outbox RENAME COLUMN body TO text", "pyglyn_outbox has no body"),
        ("DROP TABLE pyglyn_parked", "pyglyn_parked is missing"),
    ],
)
async def test_side_tables_of_another_layout_are_refused_when_opened(
    url: str, change: str, says: str
) -> None:
    async with bank(url) as store:
        await store.append("a", [AccountOpened("a")], expected=0)
    Foreign(url).run(change)
    before = columns(url)
    for call in ("start", "last_position"):
        store = bank(url)
        with pytest.raises(es.EventStoreError, match=re.escape(says)) as caught:
            await getattr(store, call)()
        assert not isinstance(caught.value, es.StoreUnavailable)
        await store.close()
    assert columns(url) == before
    assert Foreign(url).run("SELECT count(*) FROM event") == [(1,)]


async def test_a_session_that_the_server_ends_for_being_idle_is_unavailable(postgres: str) -> None:
    async with bank(postgres) as store:
        with pytest.raises(es.StoreUnavailable, match="idle"):  # noqa: PT012
            async with store.transaction() as tx:
                [(os_pid,)] = await tx.execute("SELECT pg_backend_pid()")
                await tx.execute("SET LOCAL idle_in_transaction_session_timeout TO '50ms'")
                running = f"SELECT 1 FROM pg_stat_activity WHERE pid = {os_pid}"
                await eventually(lambda: not Foreign(postgres).run(running))
                await tx.append("a", [AccountOpened("a")], expected=0)
        assert await store.read() == []


# --- looking where nothing can be written -------------------------------------------------------------------


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """A folder whose contents can be seen at ``seen``, where nothing can be written."""
    folder, seen = tmp_path / "folder", tmp_path / "seen"
    folder.mkdir()
    seen.mkdir()
    made = subprocess.run(["mount", "--bind", folder, seen], check=False, capture_output=True)
    if made.returncode == 0:
        made = subprocess.run(["mount", "-o", "remount,bind,ro", seen], check=False, capture_output=True)
    require(made.returncode == 0, "a folder cannot be mounted read-only here (needs root)")
    yield folder
    subprocess.run(["umount", seen], check=True)


def _contents(folder: Path) -> dict[str, bytes]:
    return {each.name: each.read_bytes() for each in folder.iterdir() if not each.name.endswith("-shm")}


@pytest.mark.parametrize("left", ["nothing", "a WAL", "a writer"])
async def test_events_are_seen_in_a_folder_that_cannot_be_written_to(read_only: Path, left: str) -> None:
    path, seen = read_only / "bank.db", read_only.parent / "seen" / "bank.db"
    store = bank(f"sqlite:{path}")
    await store.append("a", [AccountOpened("a")], expected=0)
    if left != "a writer":
        keeper = sqlite3.connect(path) if left == "a WAL" else None
        if keeper is not None:
            keeper.execute("SELECT count(*) FROM event").fetchone()  # with it open, closing leaves the WAL
        await store.close()
        if keeper is not None:
            wal = path.with_name("bank.db-wal").read_bytes()
            keeper.close()
            path.with_name("bank.db-wal").write_bytes(wal)
    before = _contents(read_only)
    assert [event.aggregate_id for event in look(f"sqlite:{seen}")] == ["a"]
    assert _contents(read_only) == before
    await store.close()
