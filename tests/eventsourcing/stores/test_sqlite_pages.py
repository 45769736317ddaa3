"""Pages of SQLite: in one row, or row by row, they are the same, whatever others have put into the tables."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from pyglyn import eventsourcing as es
from pyglyn.eventsourcing.stores.packed import LARGE
from pyglyn.eventsourcing.stores.sqlite_pages import SqlitePages
from pyglyn.testing import eventually
from pyglyn.testing.bank import AccountOpened, BankAccount, BankAccountEvent

COUNT = 30


def bank(path: Path, aggregate_type: str | None = "BankAccount") -> Any:
    return es.open_store(
        f"sqlite:{path}", events=BankAccountEvent, state=BankAccount, aggregate_type=aggregate_type
    )


def shown(event: es.RecordedEvent[Any]) -> tuple[Any, ...]:
    return event.position, event.envelope, str(event.error), event.recorded_at, event.raw


async def page_by_page(store: Any, limit: int) -> list[Any]:
    found: list[Any] = []
    while page := await store.read(found[-1].position if found else 0, limit=limit):
        found += page
    return found


async def all_ways(path: Path, aggregate_type: str | None = "BankAccount") -> list[Any]:
    """Read everything in pages of several sizes; those of five events are always read row by row."""
    async with bank(path, aggregate_type) as store:
        row_by_row: list[Any] = await page_by_page(store, 5)
        for limit in (8, 10, 1000):
            for _ in range(2):
                assert list(map(shown, await page_by_page(store, limit))) == list(map(shown, row_by_row))
    return row_by_row


@pytest.fixture
async def path(tmp_path: Path) -> Path:
    """A file with events of which every third one has other metadata than those before."""
    path = tmp_path / "bank.db"
    async with bank(path) as store:
        for n in range(COUNT):
            await store.append(
                f"a{n % 4}", [AccountOpened(f'é{n}\x1f\n"\\')], expected=n // 4, metadata=[("n", str(n // 3))]
            )
    return path


@pytest.fixture
def packed(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Of each page that may be had in one row, whether it was."""
    found: list[bool] = []
    read = SqlitePages._read_packed

    def note(self: SqlitePages, *arguments: Any) -> Any:
        page = read(self, *arguments)
        found.append(page is not None)
        return page

    monkeypatch.setattr(SqlitePages, "_read_packed", note)
    return found


@pytest.mark.parametrize("aggregate_type", ["BankAccount", None])
async def test_pages_in_one_row_have_every_event(
    path: Path, packed: list[bool], aggregate_type: str | None
) -> None:
    found = await all_ways(path, aggregate_type)
    assert [event.envelope.payload.account_id for event in found] == [f'é{n}\x1f\n"\\' for n in range(COUNT)]
    assert [event.envelope.metadata for event in found] == [[("n", str(n // 3))] for n in range(COUNT)]
    assert packed
    assert all(packed)


async def test_what_is_usual_changes_and_nothing_else_does(tmp_path: Path) -> None:
    path = tmp_path / "bank.db"
    async with bank(path) as store:
        for n in range(60):
            by = "a" if n < 20 or n >= 55 else "b"
            await store.append(f"{n}", [AccountOpened(f"{n}")], expected=0, metadata=[("by", by)] * (n != 30))
    found = await all_ways(path)
    assert len(found) == 60
    assert [event.position for event in found if not event.envelope.metadata] == [31]


CHANGES = {
    "no metadata": ("UPDATE event SET metadata = NULL WHERE rowid = 12", True),
    "no time": ("UPDATE pyglyn_position SET recorded_at = NULL WHERE position = 12", True),
    "a time that is none": ("UPDATE pyglyn_position SET recorded_at = 9e999 WHERE position = 12", False),
    "bytes for a payload": ("UPDATE event SET payload = CAST(payload AS blob) WHERE rowid = 12", False),
    "bytes for metadata": ("UPDATE event SET metadata = CAST(metadata AS blob) WHERE rowid = 12", False),
    "no UTF-8": ("UPDATE event SET payload = CAST(x'ff' AS text) WHERE rowid = 12", False),
    "a surrogate": ("UPDATE event SET payload = CAST(x'eda080' AS text) WHERE rowid = 12", False),
    "a zero": ("UPDATE event SET payload = payload || char(0) || ' ' WHERE rowid = 12", True),
    "no JSON": ("UPDATE event SET payload = payload || ' {}' WHERE rowid = 12", True),
    "blanks": ("UPDATE event SET payload = ' ' || payload || ' ' WHERE rowid = 12", True),
    "no number": ("UPDATE event SET sequence = '1_1' WHERE rowid = 12", False),
    "an endless number": ("UPDATE event SET sequence = 9e999 WHERE rowid = 12", False),
    "another version": ("UPDATE event SET event_version = '2' WHERE rowid = 12", True),
    "an event that is gone": ("DELETE FROM event WHERE rowid = 12", True),
    "a place that is gone": ("DELETE FROM pyglyn_position WHERE position = 12", True),
    "an event that nobody gave a place": (
        "UPDATE pyglyn_position SET sequence = 99 WHERE position = 12",
        False,
    ),
    "other rowids": ("UPDATE event SET rowid = rowid + 100 WHERE rowid = 12", False),
    "all other rowids": ("UPDATE event SET rowid = rowid + 100", True),
}


@pytest.mark.parametrize("change", CHANGES)
async def test_what_others_have_changed_is_read_in_every_way(
    path: Path, packed: list[bool], change: str
) -> None:
    statement, is_packed = CHANGES[change]
    with sqlite3.connect(path) as connection:
        connection.execute(statement)
    connection.close()
    for aggregate_type in ("BankAccount", None):
        found = await all_ways(path, aggregate_type)
        assert len(found) >= COUNT - 1
    assert all(packed) is is_packed
    assert True in packed


async def test_numbers_in_columns_of_no_type_are_no_texts(tmp_path: Path, packed: list[bool]) -> None:
    path = tmp_path / "bank.db"
    with sqlite3.connect(path) as connection:
        columns = "aggregate_type, aggregate_id, sequence, event_type, event_version, payload, metadata"
        connection.execute(
            f"CREATE TABLE event ({columns}, PRIMARY KEY (aggregate_type, aggregate_id, sequence))"
        )
    connection.close()
    right = ["BankAccount", "a", 1, "E", "1.0", '{"event-type":"account-opened","account-id":"1"}', "[]"]
    async with bank(path) as store:
        await store.start()
        for place in (1, 3, 4, 5, 6):
            for value in (7, 1.5, float("inf"), None):
                if place < 5 and value is None:
                    continue
                async with store.transaction() as tx:
                    for n in range(10):
                        row: list[Any] = list(right)
                        row[2] = place * 1000 + n + (0 if value is None else int(min(value, 9)) * 10)
                        if n == 5:
                            row[place] = value
                        await tx.execute("INSERT INTO event VALUES (?, ?, ?, ?, ?, ?, ?)", row)
    assert sum(event.error is None for event in await all_ways(path)) >= 9 * 17
    assert False in packed


async def test_large_events_are_read_row_by_row(path: Path, packed: list[bool]) -> None:
    async with bank(path) as store:
        for n in range(20):
            await store.append(f"large{n}", [AccountOpened("x" * 2 * LARGE)], expected=0)
        await all_ways(path)
        packed.clear()
        assert len(await page_by_page(store, 10)) == COUNT + 20
    assert packed == [True] * 4


async def test_events_of_one_aggregate_are_read_in_every_way(path: Path) -> None:
    async with bank(path) as store:
        found = await store.read(0, limit=1000, aggregate_id="a1")
        assert [event.sequence for event in found] == list(range(1, 9))
        assert found == await store.read(0, limit=8, aggregate_id="a1")
        assert found[:5] == await store.read(0, limit=5, aggregate_id="a1")


async def test_another_page_is_read_before_one_is_decoded(path: Path) -> None:
    async with bank(path) as store:
        first = await store.read_page(0, limit=10)
        second = await store.read_page(first.last, limit=10)
        third = await store.read_page(second.last, limit=10)
        pages = [page.decode() for page in (third, first, second)]
        assert [event.position for page in pages for event in page] == [*range(21, 31), *range(1, 21)]
        assert sorted(
            [event for page in pages for event in page], key=lambda event: event.position
        ) == await store.read(0, limit=30)


def positions(page: Any) -> list[int]:
    return [event.position for event in page.decode()]


@pytest.fixture
def read_behind(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Behind which positions pages were read."""
    found: list[int] = []
    read = SqlitePages.read

    def note(self: SqlitePages, connection: Any, after: int, limit: int, keys: Any) -> Any:
        page = read(self, connection, after, limit, keys)
        found.append(after)
        return page

    monkeypatch.setattr(SqlitePages, "read", note)
    return found


async def test_who_reads_on_finds_that_the_thread_has_gone_on_by_itself(
    path: Path, read_behind: list[int]
) -> None:
    async with bank(path) as store:
        first = await store.read_page(0, limit=10)
        assert read_behind == [0]
        second = await first.behind(10)
        await eventually(lambda: read_behind == [0, 10, 20])
        third = await second.behind(10)
        assert [positions(page) for page in (first, second, third)] == [
            list(range(start, start + 10)) for start in (1, 11, 21)
        ]
        await eventually(lambda: read_behind == [0, 10, 20, 30])
        await store.append("a0", [AccountOpened("x")], expected=8)
        assert positions(await third.behind(10)) == []  # as it was: who wants to know asks anew
        assert positions(await store.read_page(30, limit=10)) == [31]


async def test_who_reads_on_with_another_size_gets_that(path: Path, read_behind: list[int]) -> None:
    async with bank(path) as store:
        second = await (await store.read_page(0, limit=8)).behind(8)
        await eventually(lambda: read_behind == [0, 8, 16])
        assert positions(await second.behind(12)) == list(range(17, 29))
        assert read_behind[:4] == [0, 8, 16, 16]


async def test_several_pages_at_once_are_for_who_reads_alone(path: Path) -> None:
    """Others would wait for them, and then for their being decoded."""
    async with bank(path) as store:
        await store.append("b", [AccountOpened("b")] * 300, expected=0)
        page, alone = await store.read_page(0, limit=8), list[bool]()
        for n in range(35):
            if n == 17:
                await store.append("c", [AccountOpened("c")], expected=0)
            page = await page.behind(8)
            alone.append(page.is_small)
    assert alone == [*[False] * 15, True, True, *[False] * 16, True, True]


async def test_nothing_is_read_on_behind_the_end_or_what_is_large(path: Path, read_behind: list[int]) -> None:
    async with bank(path) as store:
        page = await (await store.read_page(0, limit=20)).behind(20)
        assert positions(page) == list(range(21, 31))
        assert positions(await page.behind(20)) == []
        for n in range(40):
            await store.append(f"b{n}", [AccountOpened("x" * LARGE)], expected=0)
        del read_behind[:]
        page = await (await store.read_page(30, limit=10)).behind(10)
        assert not page.is_small
        assert positions(await page.behind(10)) == list(range(51, 61))
        assert read_behind == [30, 40, 50]


async def test_what_the_thread_has_read_of_a_file_that_was_replaced_is_not_handed_out(
    path: Path, tmp_path: Path, read_behind: list[int]
) -> None:
    async with bank(path) as store:
        second = await (await store.read_page(0, limit=10)).behind(10)
        await eventually(lambda: read_behind == [0, 10, 20])
        async with bank(tmp_path / "other.db") as other:
            for n in range(25):
                await other.append(f"o{n}", [AccountOpened("other")], expected=0)
        for end in ("", "-wal", "-shm"):
            (tmp_path / f"bank.db{end}").unlink(missing_ok=True)
        (tmp_path / "other.db").rename(path)
        with pytest.raises(es.StoreUnavailable, match="deleted or replaced"):
            await second.behind(10)
        found = (await second.behind(10)).decode()
        assert [event.aggregate_id for event in found] == [f"o{n}" for n in range(20, 25)]


async def test_a_failure_of_what_the_thread_reads_by_itself_comes_to_who_asks(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, read = [], SqlitePages.read

    def fail(self: SqlitePages, connection: Any, after: int, limit: int, keys: Any) -> Any:
        asked.append(after)
        if after == 20 and asked.count(20) < 3:
            raise sqlite3.OperationalError("disk I/O error")
        return read(self, connection, after, limit, keys)

    monkeypatch.setattr(SqlitePages, "read", fail)
    async with bank(path) as store:
        second = await (await store.read_page(0, limit=10)).behind(10)
        await eventually(lambda: asked == [0, 10, 20])
        with pytest.raises(es.EventStoreError, match="disk I/O error"):
            await second.behind(10)
        assert positions(await second.behind(10)) == list(range(21, 31))


async def test_a_store_is_closed_while_its_thread_reads_on_and_is_used_again(path: Path) -> None:
    async with bank(path) as store:
        second = await (await store.read_page(0, limit=10)).behind(10)
    async with store:
        assert positions(await second.behind(10)) == list(range(21, 31))
    await all_ways(path)


@pytest.mark.parametrize("size", [8, 10, 30])
async def test_parts_of_a_page_have_its_events(path: Path, size: int) -> None:
    async with bank(path) as store:
        for _ in range(2):  # once nothing is known of what is usual
            page = await store.read_page(0, limit=30)
            parts = page.parts(size)
            assert [part.rows for part in parts][:-1] == [size] * (len(parts) - 1)
            found = [event for part in parts for event in part.decode()]
            assert list(map(shown, found)) == list(map(shown, page.decode()))
            assert [part.last for part in parts] == [*range(size, 30, size), 30]


async def test_a_page_that_is_read_row_by_row_has_parts_unless_an_event_is_gone(path: Path) -> None:
    async with bank(path) as store:
        with sqlite3.connect(path) as connection:
            connection.execute("UPDATE event SET payload = CAST(payload AS blob) WHERE rowid = 12")
        connection.close()
        page = await store.read_page(0, limit=30)
        assert not page.is_small
        parts = page.parts(10)
        assert [event for part in parts for event in part.decode()] == page.decode()
        assert [(part.rows, part.last) for part in parts] == [(10, 10), (10, 20), (10, 30)]
        with sqlite3.connect(path) as connection:
            connection.execute("DROP TRIGGER pyglyn_event_deleted")
            connection.execute("DELETE FROM event WHERE rowid = 5")
        connection.close()
        page = await store.read_page(0, limit=30)
        assert (page.rows, page.parts) == (30, None)
        assert len(page.decode()) == 29
