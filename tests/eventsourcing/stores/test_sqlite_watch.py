"""Being told of commits to a SQLite file by others."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import os
import sqlite3
import sys
from pathlib import Path

import pytest

from pyglyn import eventsourcing as es
from pyglyn.eventsourcing.stores.sqlite import SqliteStore
from pyglyn.eventsourcing.stores.sqlite_watch import FileWatch, tell
from pyglyn.testing import eventually
from pyglyn.testing.bank import AccountOpened, BankAccount, BankAccountEvent

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="inotify is Linux'")


@pytest.fixture
def files(tmp_path: Path) -> str:
    path = tmp_path / "a.db"
    for place in (path, tmp_path / "a.db-wal"):
        place.write_bytes(b"")
    return str(path)


def write(files: str) -> None:
    Path(f"{files}-wal").write_bytes(b"a frame")


async def test_a_commit_is_told_once(files: str) -> None:
    told: list[str] = []
    watch = FileWatch(asyncio.get_running_loop(), files, lambda: told.append("changed"))
    with watch.watching() as is_told:
        assert is_told
        tell(files)
        await eventually(lambda: told)
    watch.close()
    assert told == ["changed"]


async def test_watching_again_leaves_nothing_to_be_collected(files: str) -> None:
    def libraries() -> int:
        return sum(isinstance(each, ctypes.CDLL) for each in gc.get_objects())

    watch = FileWatch(asyncio.get_running_loop(), files, lambda: None)
    with watch.watching():
        before = libraries()
    gc.disable()
    try:
        for _ in range(5):
            with watch.watching():
                pass
        assert libraries() <= before
    finally:
        gc.enable()
        watch.close()


async def test_a_write_to_the_wal_is_told_until_it_must_be_visible(files: str) -> None:
    told: list[str] = []
    watch = FileWatch(asyncio.get_running_loop(), files, lambda: told.append("changed"))
    with watch.watching():
        write(files)
        await eventually(lambda: len(told) == 6)  # 2, 4, 8, 16, 32, 64 ms
    watch.close()


async def test_nothing_is_told_while_nobody_waits(files: str) -> None:
    told: list[str] = []
    watch = FileWatch(asyncio.get_running_loop(), files, lambda: told.append("changed"))
    with watch.watching():
        write(files)
        await asyncio.sleep(0)
    seen = len(told)
    tell(files)
    with watch.watching():
        await eventually(lambda: len(told) > seen)  # what was told meanwhile
    watch.close()


async def test_two_who_wait_are_told_until_the_last_one_goes(files: str) -> None:
    told: list[str] = []
    watch = FileWatch(asyncio.get_running_loop(), files, lambda: told.append("changed"))
    with watch.watching():
        with watch.watching():
            pass
        tell(files)
        await eventually(lambda: told)
    watch.close()


async def test_a_watch_that_is_closed_leaves_its_descriptor_to_others(files: str) -> None:
    loop = asyncio.get_running_loop()
    watch = FileWatch(loop, files, lambda: None)
    with watch.watching():
        watch.close()
        reading, writing = os.pipe()  # has the number of the descriptor that was closed
        got = asyncio.Event()
        loop.add_reader(reading, got.set)
        os.write(writing, b"x")
        await got.wait()
    assert loop.remove_reader(reading)
    os.close(reading)
    os.close(writing)


async def test_files_that_are_not_there_are_not_watched(tmp_path: Path) -> None:
    watch = FileWatch(asyncio.get_running_loop(), str(tmp_path / "none.db"), lambda: None)
    with watch.watching() as is_told:
        assert not is_told
    watch.close()


@pytest.mark.parametrize("is_told", [True, False], ids=["told", "looking"])
async def test_an_event_of_another_program_wakes_a_reader(tmp_path: Path, is_told: bool) -> None:
    url = f"sqlite:{tmp_path}/a.db"
    async with es.open_store(url, events=BankAccountEvent, state=BankAccount, aggregate_type="A") as store:
        await store.append("a", [AccountOpened("a")], expected=0)
        if not is_told:
            assert isinstance(store, SqliteStore)
            store.database().watch = FileWatch(asyncio.get_running_loop(), "/none", lambda: None)
        waiting = asyncio.create_task(store.wait(1))
        await asyncio.sleep(0)
        with sqlite3.connect(tmp_path / "a.db") as connection:
            connection.execute(
                "INSERT INTO event SELECT aggregate_type, aggregate_id, 2, event_type, event_version, "
                "payload, metadata FROM event"
            )
        connection.close()
        assert await waiting
