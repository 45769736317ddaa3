"""What can go wrong with a file: locks, forks, a full disk, a damaged file, two processes starting at once."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pyglyn import eventsourcing as es
from pyglyn.testing import eventually
from pyglyn.testing.bank import (
    BANK_ACCOUNT,
    AccountOpened,
    BankAccount,
    BankAccountEvent,
    DepositMoney,
    OpenAccount,
)

ROOT = Path(__file__).parents[3]
FORKING_SERVICE = """
import asyncio, os, sys
from pyglyn import eventsourcing as es

store = es.open_store(sys.argv[1], aggregate_type="T")

async def append(name):
    for n in range(20):
        await store.append(name, [{"n": n}], expected=n)

asyncio.run(append("before"))
children = []
for child in ("one", "two", "idle"):
    os_pid = os.fork()
    if os_pid == 0:
        if child != "idle":
            asyncio.run(append(child))
        sys.exit(0)
    children.append(os_pid)
asyncio.run(append("parent"))
assert [os.waitpid(os_pid, 0)[1] for os_pid in children] == [0, 0, 0]
"""


def bank(path: object) -> es.EventStore[Any, Any]:
    return es.open_store(
        f"sqlite:{path}", events=BankAccountEvent, state=BankAccount, aggregate_type="BankAccount"
    )


def child(script: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", script, *arguments],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"]},
    )


def integrity(path: Path) -> str:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        [(found,)] = connection.execute("PRAGMA integrity_check").fetchall()
    return str(found)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[sqlite3.Connection]:
    """Another program in the middle of a write."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    yield connection
    connection.execute("ROLLBACK")
    connection.close()


async def test_children_of_a_fork_use_the_store_and_leave_the_parents_alone(tmp_path: Path) -> None:
    process = child(FORKING_SERVICE, f"sqlite:{tmp_path}/bank.db")
    _, errors = await asyncio.to_thread(process.communicate, None, 60)
    assert process.returncode == 0, errors
    async with es.open_store(f"sqlite:{tmp_path}/bank.db") as store:
        events = await store.read()
    assert {
        name: [e.sequence for e in events if e.aggregate_id == name]
        for name in ("before", "parent", "one", "two")
    } == {name: list(range(1, 21)) for name in ("before", "parent", "one", "two")}
    assert integrity(tmp_path / "bank.db") == "ok"


async def test_processes_that_start_at_once_create_the_tables_once(tmp_path: Path) -> None:
    script = """
import asyncio, sys
from pyglyn import eventsourcing as es
async def main():
    async with es.open_store(sys.argv[1], aggregate_type="T") as store:
        await store.append(sys.argv[2], [{"n": 1}], expected=0)
sys.stdin.readline()
asyncio.run(main())
"""
    processes = [child(script, f"sqlite:{tmp_path}/new.db", str(n)) for n in range(5)]
    outcomes = await asyncio.gather(*(asyncio.to_thread(p.communicate, "\n", 60) for p in processes))
    assert [p.returncode for p in processes] == [0] * 5, outcomes
    async with es.open_store(f"sqlite:{tmp_path}/new.db") as store:
        assert sorted(event.aggregate_id for event in await store.read()) == ["0", "1", "2", "3", "4"]


async def test_commits_of_another_process_wake_a_reader(tmp_path: Path) -> None:
    async with bank(tmp_path / "bank.db") as store:
        waiting = asyncio.create_task(store.wait(0, timeout=30))
        process = child(
            """
import asyncio, sys
from pyglyn import eventsourcing as es
async def main():
    async with es.open_store(sys.argv[1], aggregate_type="BankAccount") as store:
        await store.append("a", [{"event-type": "account-opened", "account-id": "a"}], expected=0)
asyncio.run(main())
""",
            f"sqlite:{tmp_path}/bank.db",
        )
        assert await waiting is True
        assert len(await store.read()) == 1
        _, errors = await asyncio.to_thread(process.communicate, None, 30)
        assert process.returncode == 0, errors


async def test_a_writer_that_waits_too_long_says_so_and_the_command_is_tried_again(tmp_path: Path) -> None:
    path = tmp_path / "bank.db"
    async with bank(f"{path}?busy_timeout=0.05") as store:
        executor = es.CommandExecutor(store, BANK_ACCOUNT, unavailable_s=20)
        with locked(path):
            with pytest.raises(es.StoreUnavailable, match="locked") as caught:
                await store.append("a", [AccountOpened("a")], expected=0)
            assert caught.value.outcome_unknown is False
            assert await store.read() == []  # readers do not wait for a writer
            executing = asyncio.create_task(executor.execute("a", OpenAccount("a")))
            assert (await asyncio.wait([executing], timeout=0.3))[0] == set()
        assert (await asyncio.wait_for(executing, 180)).aggregate.sequence == 1
        with locked(path), pytest.raises(es.StoreUnavailable):
            await es.CommandExecutor(store, BANK_ACCOUNT, unavailable_s=0).execute("a", DepositMoney(1.0))


async def test_one_failing_append_of_a_group_does_not_touch_the_others(tmp_path: Path) -> None:
    path = tmp_path / "bank.db"
    async with bank(path) as store:
        with locked(path):  # so that what follows is queued, and committed as one group
            appends = [
                asyncio.create_task(store.append(f"account-{n % 30}", [AccountOpened("x")], expected=0))
                for n in range(60)
            ]
            await asyncio.sleep(0.05)
            appends[5].cancel()
        outcomes = await asyncio.gather(*appends, return_exceptions=True)
    assert sum(isinstance(outcome, list) for outcome in outcomes) == 30 - isinstance(
        outcomes[35], es.VersionConflict
    )
    assert sum(isinstance(outcome, es.VersionConflict) for outcome in outcomes) >= 29
    assert isinstance(outcomes[5], asyncio.CancelledError)


async def test_what_is_no_database_or_not_there_is_said_clearly(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("this is no database, whatever its name says" * 100)
    with pytest.raises(es.EventStoreError, match="not a database") as caught:
        await bank(tmp_path / "text.db").start()
    assert not isinstance(caught.value, es.StoreUnavailable)
    with pytest.raises(es.StoreUnavailable, match="unable to open"):
        await bank(tmp_path / "no" / "such" / "directory.db").start()
    (tmp_path / "newer.db").touch()
    connection = sqlite3.connect(tmp_path / "newer.db", isolation_level=None)
    connection.execute("CREATE TABLE pyglyn_schema (version int)")
    connection.execute("INSERT INTO pyglyn_schema VALUES (99)")
    connection.close()
    newer: Any = bank(tmp_path / "newer.db")
    with pytest.raises(es.EventStoreError, match="newer version"):
        await newer.start()
    assert newer.database()._connections == {}  # nobody closes what did not begin


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("sqlite::memory:", "use memory:"),
        ("sqlite:", "use memory:"),
        ("sqlite:x?synchronous=OFF", "FULL or NORMAL"),
        ("sqlite:x?busy_timeout=long", "number of seconds"),
        ("sqlite:x?mode=ro", "unknown option"),
        ("mysql://x", "unknown kind of store: mysql"),
        ("nothing", "no store URL"),
    ],
)
def test_a_bad_url_is_refused(url: str, complaint: str) -> None:
    with pytest.raises(es.EventStoreError, match=complaint):
        es.open_store(url)


async def test_a_full_disk_refuses_commands_loses_nothing_and_heals(small_disk: Path) -> None:
    async with bank(small_disk / "bank.db") as store:
        executor = es.CommandExecutor(store, BANK_ACCOUNT, unavailable_s=0)
        await executor.execute("a", OpenAccount("a"))
        ballast = small_disk / "ballast"
        deposits = 0
        with contextlib.suppress(OSError), ballast.open("wb") as file:
            while True:
                file.write(b"x" * 4096)
                file.flush()
        with pytest.raises(es.StoreUnavailable, match=r"full|disk I/O") as caught:  # noqa: PT012
            while True:
                await executor.execute("a", DepositMoney(1.0), [("padding", "x" * 2000)])
                deposits += 1
        assert not caught.value.outcome_unknown
        with pytest.raises(es.StoreUnavailable):  # noqa: PT012
            async with store.transaction() as tx:
                for n in range(1000):
                    await tx.append("b", [AccountOpened("x" * 2000)], expected=n)
        assert (await store.load("a")).sequence == deposits + 1
        assert (await store.load("b")).sequence == 0
        waiting = asyncio.create_task(
            es.CommandExecutor(store, BANK_ACCOUNT, unavailable_s=30).execute("a", DepositMoney(1.0))
        )
        ballast.unlink()
        executed = await waiting
        assert executed.aggregate.entity.balance == deposits + 1
        assert [e.sequence for e in await store.read(limit=10_000)] == list(range(1, deposits + 3))


async def test_a_transaction_that_is_cancelled_while_it_waits_for_the_file_holds_no_lock(
    tmp_path: Path,
) -> None:
    path = tmp_path / "bank.db"
    async with bank(path) as store:
        await store.append("a", [AccountOpened("a")], expected=0)

        async def deposit() -> None:
            async with store.transaction() as tx:
                await tx.append("b", [AccountOpened("b")], expected=0)

        with locked(path):
            waiting = asyncio.create_task(deposit())
            database = store.database()  # type: ignore[attr-defined]
            await eventually(lambda: database._write_lock.locked())
            waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await store.append("c", [AccountOpened("c")], expected=0)
        with locked(path):
            pass
        assert [event.aggregate_id for event in await store.read()] == ["a", "c"]


async def test_an_open_transaction_keeps_other_writers_of_the_store_out_and_readers_in(
    tmp_path: Path,
) -> None:
    async with bank(tmp_path / "bank.db") as store:
        async with store.transaction() as tx:
            await tx.append("a", [AccountOpened("a")], expected=0)
            other = asyncio.create_task(store.append("b", [AccountOpened("b")], expected=0))
            assert await store.read() == []
            assert (await store.load("a")).sequence == 0
            assert (await asyncio.wait([other], timeout=0.05))[0] == set()
        await other
        assert [event.aggregate_id for event in await store.read()] == ["a", "b"]
        with pytest.raises(es.EventStoreError, match="has ended"):
            await tx.checkpoint("q")


def test_a_store_serves_one_event_loop_after_another(tmp_path: Path) -> None:
    store: Any = bank(tmp_path / "bank.db")

    async def append(sequence: int) -> int:
        await store.append("a", [AccountOpened("a")], expected=sequence)
        await eventually(lambda: store.wait(sequence, timeout=0))
        return (await store.load("a")).sequence

    assert asyncio.run(append(0)) == 1
    left = [*store._open[1]._connections.values()]  # which nobody closes: Python 3.13 would warn of it later
    assert asyncio.run(append(1)) == 2
    left += store._open[1]._connections.values()
    asyncio.run(store.close())
    for connection in left:
        connection.close()


def _delete(path: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


async def test_a_file_that_is_deleted_takes_no_command_that_would_be_lost_with_it(tmp_path: Path) -> None:
    path = tmp_path / "bank.db"
    async with bank(path) as store:
        await store.append("a", [AccountOpened("a")], expected=0)
        _delete(path)
        with pytest.raises(es.StoreUnavailable, match="deleted or replaced") as caught:
            await store.append("a", [AccountOpened("a")], expected=1)
        assert not caught.value.outcome_unknown
        assert (await store.append("a", [AccountOpened("a")], expected=0))[0].sequence == 1
        async with bank(path) as other:
            assert (await other.load("a")).sequence == 1


async def test_a_file_deleted_during_a_transaction_is_noticed_at_its_end(tmp_path: Path) -> None:
    path = tmp_path / "bank.db"
    async with bank(path) as store:
        with pytest.raises(es.StoreUnavailable, match="deleted or replaced"):  # noqa: PT012
            async with store.transaction() as tx:
                await tx.append("a", [AccountOpened("a")], expected=0)
                _delete(path)
        async with store.transaction() as tx:
            await tx.append("a", [AccountOpened("a")], expected=0)
        assert len(await store.read()) == 1


async def test_readers_notice_that_the_file_was_replaced_and_go_on_with_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "bank.db"
    async with bank(tmp_path / "backup.db") as backup:
        for id in ("x", "y"):
            await backup.append(id, [AccountOpened(id)], expected=0)
    async with bank(path) as store:
        await store.append("a", [AccountOpened("a")], expected=0)
        assert await store.wait(1, timeout=0) is False
        waiting = asyncio.create_task(store.wait(1, timeout=20))
        _delete(path)
        (tmp_path / "backup.db").rename(path)
        with pytest.raises(es.StoreUnavailable, match="deleted or replaced"):
            await waiting
        assert [event.aggregate_id for event in await store.read()] == ["x", "y"]
        assert (await store.load("a")).sequence == 0
        executor = es.CommandExecutor(store, BANK_ACCOUNT)
        assert (await executor.execute("a", OpenAccount("a"))).aggregate.sequence == 1


async def test_who_is_at_work_in_a_store_that_is_closed_is_told_so(tmp_path: Path) -> None:
    """Its threads have ended: nobody would ever answer."""
    store = bank(tmp_path / "bank.db")
    await store.append("a", [AccountOpened("a")], expected=0)

    async def append_and_close() -> None:
        async with store.transaction() as tx:
            await tx.append("a", [AccountOpened("b")], expected=1)
            await store.close()
            await tx.append("a", [AccountOpened("c")], expected=2)

    async def close_and_give_up() -> None:
        async with store.transaction():
            await store.close()
            raise LookupError

    async with asyncio.timeout(20):
        with pytest.raises(es.StoreUnavailable, match="was closed"):
            await append_and_close()
        with pytest.raises(LookupError):
            await close_and_give_up()
        assert len(await store.read()) == 1
        await store.close()


async def test_who_is_opening_a_store_that_is_closed_leaves_nothing_open(tmp_path: Path) -> None:
    before = set(threading.enumerate())  # those of stores that the garbage collector has not found yet, too
    store = bank(tmp_path / "bank.db")
    reading = asyncio.create_task(store.read())
    await asyncio.sleep(0)
    await store.close()
    with pytest.raises(es.StoreUnavailable, match="was closed"):
        await reading

    def left() -> list[threading.Thread]:
        new = set(threading.enumerate()) - before
        return [thread for thread in new if thread.name.startswith("pyglyn-sqlite")]

    await eventually(lambda: not left())


async def test_rows_that_are_no_text_are_reported_and_such_snapshots_are_not_used(tmp_path: Path) -> None:
    path = tmp_path / "bank.db"
    async with bank(path) as store:
        await store.append("a", [AccountOpened("a")], expected=0)
        await store.append("b", [AccountOpened("b")], expected=0)
        foreign = sqlite3.connect(path)
        foreign.execute("UPDATE event SET payload = CAST(x'ff7b' AS text) WHERE aggregate_id = 'a'")
        for id, entity in (("a", "x'7b7d'"), ("b", "CAST(x'ff' AS text)")):
            foreign.execute(f"INSERT INTO snapshot VALUES ('BankAccount', '{id}', 1, {entity}, 1)")
        foreign.commit()
        foreign.close()
        first, second = await store.read()
        assert first.envelope is None
        assert first.error is not None
        assert (first.raw, first.error.payload) == (b"\xff{", "\\xff{")
        assert "no text in UTF-8" in str(first.error)
        assert second.envelope is not None
        assert (await store.load("b")).sequence == 1
        for id in ("a", "b"):
            with pytest.raises(es.EventDecodeError, match="snapshot"):
                await store.latest_snapshot(id)
        with pytest.raises(es.EventDecodeError):
            await store.load("a")
        async with store.transaction() as tx:
            assert (await tx.load("b")).sequence == 1
            with pytest.raises(es.EventDecodeError):
                await tx.load("a")


async def test_an_append_that_cannot_be_bound_does_not_take_others_of_its_group_along(tmp_path: Path) -> None:
    snapshot = es.Snapshot("b", BankAccount(), 2**70, 1)
    async with bank(tmp_path / "bank.db") as store:
        good, bad = await asyncio.gather(
            store.append("a", [AccountOpened("a")], expected=0),
            store.append("b", [AccountOpened("b")], expected=0, snapshot=snapshot),
            return_exceptions=True,
        )
        assert isinstance(good, list)
        assert isinstance(bad, es.EventStoreError)
        assert "OverflowError" in str(bad)
        assert [event.aggregate_id for event in await store.read()] == ["a"]


# --- a file that is replaced while its WAL stays ------------------------------------------------------------


def _contents(folder: Path) -> dict[str, bytes]:
    return {each.name: each.read_bytes() for each in folder.iterdir()}


def _run(script: str, *arguments: str) -> int:
    with child(script, *arguments) as process:
        return process.wait()


def _wal_deleted(path: Path) -> None:
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


async def _make_backup(path: Path) -> None:
    async with bank(path) as backup:
        for n in range(50):
            await backup.append(f"b{n}", [AccountOpened("x")] * 20, expected=0)


@pytest.mark.parametrize("way", ["open", "closed", "killed", "deleted"])
async def test_a_file_put_in_anothers_place_is_not_opened_with_its_wal(tmp_path: Path, way: str) -> None:
    """While the store is open, after it was closed, after its OS process was killed; and a file that is only gone."""
    path, backup_path = tmp_path / "bank.db", tmp_path / "backup.db"
    await _make_backup(backup_path)
    backup = backup_path.read_bytes()
    store = bank(path)
    if way == "killed":
        script = FORKING_SERVICE.partition("children")[0] + "os.kill(os.getpid(), 9)"
        assert await asyncio.to_thread(_run, script, f"sqlite:{path}") == -9
    else:
        for n in range(30):
            await store.append(f"a{n}", [AccountOpened("x")], expected=0)
    assert path.with_name("bank.db-wal").stat().st_size > 0
    backup_path.unlink() if way == "deleted" else backup_path.rename(path)
    if way == "deleted":
        path.unlink()
    if way == "open":
        with pytest.raises(es.StoreUnavailable, match="deleted or replaced"):
            await store.append("a", [AccountOpened("x")], expected=0)
    else:
        await store.close()
    before = _contents(tmp_path)
    for _ in range(3):
        for each in (store, bank(path)):
            with pytest.raises(
                es.EventStoreError, match=r"delete .*bank\.db-wal and .*bank\.db-shm"
            ) as caught:
                await each.load("b1")
            assert not isinstance(caught.value, es.StoreUnavailable)
            await each.close()
    assert _contents(tmp_path) == before
    _wal_deleted(path)
    async with bank(path) as restored:
        if way == "deleted":
            assert await restored.read() == []
        else:
            assert path.read_bytes() == backup
            assert len(await restored.read(limit=2000)) == 1000
        await restored.append("new", [AccountOpened("x")], expected=0)
    assert not path.with_name("bank.db-pyglyn").exists()
    assert integrity(path) == "ok"


async def test_a_wal_that_belongs_to_the_file_is_used(tmp_path: Path) -> None:
    """Also after many checkpoints, in another folder, and in a copy of it all."""
    path = tmp_path / "one" / "bank.db"
    path.parent.mkdir()
    script = """
import asyncio, os, sys
from pyglyn import eventsourcing as es
store = es.open_store(sys.argv[1], aggregate_type="BankAccount")
async def main():
    for n in range(40):
        await store.append(f"{n}", [{"event-type": "account-opened", "account-id": "x" * 200}] * 200, expected=0)
asyncio.run(main())
os.kill(os.getpid(), 9)
"""
    assert await asyncio.to_thread(_run, script, f"sqlite:{path}") == -9
    header = path.with_name("bank.db-wal").read_bytes()[:32]
    assert int.from_bytes(header[12:16], "big") > 0, "the WAL was begun anew more than once"
    shutil.copytree(path.parent, tmp_path / "copy")
    path.parent.rename(tmp_path / "moved")
    for folder in ("moved", "copy"):
        async with bank(tmp_path / folder / "bank.db") as store:
            assert await store.last_position() == 8000


async def test_events_are_found_however_rowids_have_moved(tmp_path):
    """By deletions, by VACUUM, by an import: the way by rowids is a short cut only."""
    path = tmp_path / "bank.db"
    async with bank(path) as store, es.open_store(f"sqlite:{path}", aggregate_type="Other") as other:
        for n in range(20):
            await store.append(f"a{n}", [AccountOpened(f"a{n}")], expected=0)
            await other.append(f"o{n}", [{"n": n}], expected=0)

        async def read_both_ways() -> list[tuple[int, str]]:
            found: list[list[tuple[int, str]]] = []
            for limit in (1, 9, 100):
                after, events = 0, list[tuple[int, str]]()
                while batch := await store.read(after, limit=limit):
                    events += [(event.position, event.envelope.payload.account_id) for event in batch]
                    after = batch[-1].position
                found.append(events)
            assert found[0] == found[1] == found[2]
            return found[0]

        expected = [(2 * n + 1, f"a{n}") for n in range(20)]
        assert await read_both_ways() == expected
        with contextlib.closing(sqlite3.connect(path)) as connection, connection:
            connection.execute("DELETE FROM event WHERE aggregate_id IN ('o3', 'a7', 'o19')")
        assert await read_both_ways() == [each for each in expected if each[1] != "a7"]
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("VACUUM")
        await store.append("late", [AccountOpened("late")], expected=0)
        assert await read_both_ways() == [*(each for each in expected if each[1] != "a7"), (41, "late")]
        with (
            contextlib.closing(sqlite3.connect(path)) as connection,
            connection,
        ):  # rows change places, so that rowids say other events
            connection.execute("CREATE TABLE old AS SELECT * FROM event")
            triggers = connection.execute(
                "SELECT name, sql FROM sqlite_master WHERE type = 'trigger'"
            ).fetchall()
            for name, _ in triggers:
                connection.execute(f"DROP TRIGGER {name}")
            connection.execute("DELETE FROM event")
            connection.execute("INSERT INTO event SELECT * FROM old ORDER BY aggregate_id DESC")
            for _, sql in triggers:
                connection.execute(sql)
        assert await read_both_ways() == [*(each for each in expected if each[1] != "a7"), (41, "late")]


async def test_a_plain_function_runs_in_the_thread_that_writes(tmp_path):
    """Each statement that is handed over to another thread costs many times what the statement does."""
    async with bank(tmp_path / "bank.db") as store, store.transaction() as tx:
        names = await tx.call(
            lambda cursor: {threading.current_thread().name for _ in cursor.execute("SELECT 1")}
        )
    assert len(names) == 1
    assert names.pop().startswith("pyglyn-sqlite-writer")


async def test_a_plain_function_of_a_cancelled_transaction_ends_at_its_next_statement(tmp_path):
    go_on, begun = threading.Event(), asyncio.Event()
    ended, transactions = list[str](), list[Any]()
    loop = asyncio.get_running_loop()

    def work(cursor: es.Cursor) -> None:
        cursor.execute("CREATE TABLE level (n int)")
        loop.call_soon_threadsafe(begun.set)
        go_on.wait(20)
        try:
            cursor.execute("INSERT INTO level VALUES (1)")
        except es.EventStoreError as error:
            ended.append(str(error))
            raise

    async with bank(tmp_path / "bank.db") as store:

        async def transact() -> None:
            async with store.transaction() as tx:
                transactions.append(tx)
                await tx.call(work)

        task = asyncio.create_task(transact())
        await begun.wait()
        task.cancel()
        await eventually(lambda: transactions[0].ended)
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert ended == ["the transaction has ended"]
        async with store.transaction() as tx:
            assert await tx.execute("SELECT name FROM sqlite_master WHERE name = 'level'") == []


async def test_what_most_events_have_in_common_is_not_taken_for_what_others_have(tmp_path: Path) -> None:
    path, page = tmp_path / "bank.db", 10
    async with bank(path) as store:
        for n in range(5 * page):
            metadata = [("by", "teller")] if n < 4 * page else []
            await store.append("a", [AccountOpened("x")], expected=n, metadata=metadata)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for n, change in enumerate(
            (
                "metadata = '[]'",
                "metadata = NULL",
                "metadata = CAST(metadata AS blob)",
                """metadata = '[["by","\\udc00"]]'""",
                "metadata = '{}'",
                "event_type = 'Other'",
                "event_version = '2'",
                "event_version = 'two'",
                "payload = '{}'",
                "payload = CAST(payload AS blob)",
                "payload = CAST(x'ff' AS text)",
            )
        ):
            for sequence in (2 * page + 1 + n, 4 * page, 4 * page + 2):  # at, at the end of and in a page
                columns = "event_type, event_version, payload, metadata"
                [before] = connection.execute(f"SELECT {columns} FROM event WHERE sequence = ?", (sequence,))
                connection.execute(f"UPDATE event SET {change} WHERE sequence = ?", (sequence,))
                async with bank(path) as store, bank(path) as other:  # of a few rows, everything is read
                    single = [
                        event for at in range(0, 5 * page, 5) for event in await other.read(at, limit=5)
                    ]
                    many: list[Any] = []
                    while events := await store.read(len(many), limit=page):
                        many += events
                restore = f"UPDATE event SET ({columns}) = (?, ?, ?, ?) WHERE sequence = ?"
                connection.execute(restore, (*before, sequence))
                assert [_shown(event) for event in many] == [_shown(event) for event in single]


def _shown(event: es.RecordedEvent[Any]) -> tuple[Any, ...]:
    return event.position, event.aggregate_id, event.sequence, event.envelope, str(event.error), event.raw
