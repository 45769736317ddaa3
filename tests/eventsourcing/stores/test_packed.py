"""A page read in one row is the page read row by row, whatever others have put into the tables."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pyglyn import eventsourcing as es
from pyglyn.eventsourcing.stores.packed import LARGE, Packed, Packing, last_position, parts, unpacked
from pyglyn.testing.bank import AccountOpened, BankAccount, BankAccountEvent
from tests.eventsourcing.stores.foreign import Foreign, deposited

SEPARATOR = "\x1f"


def bank(url: str, aggregate_type: str | None = "BankAccount") -> Any:
    return es.open_store(url, events=BankAccountEvent, state=BankAccount, aggregate_type=aggregate_type)


def texts(*columns: str) -> list[str]:
    return [SEPARATOR.join(column.split(",")) for column in columns]


RIGHT = texts("3,7", "5000,", "a,b", "1,2", "E,E", "1.0,1.0", "{},[]", "[],[]")


def test_rows_are_made_of_columns():
    found = unpacked((2, 2, *RIGHT), "T")
    assert found is not None
    expected = [
        (3, 5000, "T", "a", 1, "E", "1.0", "{}", "[]"),
        (7, None, "T", "b", 2, "E", "1.0", "[]", "[]"),
    ]
    assert list(found) == list(found) == expected
    assert len(found) == 2
    assert last_position(found, 0) == last_position(expected, 0) == 7
    for times, moments in ((",", (None, None)), (",5", (None, 5)), ("5,6", (5, 6))):
        timed = unpacked((2, 2, RIGHT[0], *texts(times), *RIGHT[2:]), "T")
        assert timed is not None
        assert tuple(row[1] for row in timed) == moments
    of_any = unpacked((2, 2, *RIGHT[:2], *texts("T,U"), *RIGHT[2:]), None)
    assert of_any is not None
    assert [row[2] for row in of_any] == ["T", "U"]
    assert unpacked((2, 2, *RIGHT[:2], *texts("T,T"), *RIGHT[2:]), "T") == found


def test_parts_are_pages_of_so_many():
    columns = texts("3,7,9", "5000,,8", "a,b,c", "1,2,3", "E,E,E", "1.0,1.0,1.0", "{},[],[]", "[],[],[]")
    found = unpacked((3, 3, *columns), "T")
    assert found is not None
    for rows in (found, list(found)):
        pages = parts(rows, 2, list)  # type: ignore[arg-type]
        assert [(page.rows, page.last) for page in pages] == [(2, 7), (1, 9)]
        assert [row for page in pages for row in page.decode()] == list(found)


def test_a_page_without_rows_ends_where_it_began():
    found = unpacked((0, 0, *[None] * 8), "T")
    assert found == Packed([], ((),) * 8)
    assert list(found) == []
    assert last_position(found, 12) == last_position([], 12) == 12


@pytest.mark.parametrize(
    "found",
    [
        (2, 1, *RIGHT),
        (2, 2, *RIGHT[:2], *texts("a,b,c"), *RIGHT[3:]),
        (2, 2, *texts("7,3"), *RIGHT[1:]),
        (2, 2, *RIGHT[:3], *texts("1,1.5"), *RIGHT[4:]),
        (2, 2, *RIGHT[:3], *texts("1,"), *RIGHT[4:]),
        (2, 2, *RIGHT[:-1], b"[]\x1f[]"),
        (2, 2, *RIGHT[:-1], None),
    ],
    ids=[
        "not all right",
        "a separator in an id",
        "out of order",
        "no whole number",
        "no number",
        "bytes",
        "nothing",
    ],
)
def test_what_is_not_as_it_should_be_is_to_be_read_row_by_row(found: tuple[Any, ...]):
    assert unpacked(found, "T") is None


def test_pages_are_packed_unless_the_one_before_could_not_be_or_is_large():
    packing = Packing()
    assert packing.is_worth_it
    packing.seen(None)
    assert not packing.is_worth_it
    packing.seen([(1, None, "T", "a", 1, "E", "1.0", "x" * LARGE, "[]")])
    assert packing.is_worth_it
    large = "x" * (LARGE + 1)
    packing.seen(unpacked((1, 1, *texts("1", "", "a", "1", "E", "1.0"), large, "[]"), "T"))
    assert not packing.is_worth_it
    packing.seen([(1, None, "T", "a", 1, "E", "1.0", large, "[]")])
    assert not packing.is_worth_it
    packing.seen([(1, None, "T", "a", 1, "E", "1.0", b"{}", "[]")])
    assert packing.is_worth_it


async def both_ways(url: str, aggregate_type: str | None = "BankAccount") -> list[Any]:
    """Read everything in a page that is packed, if it can be, and in small ones, which never are."""
    async with bank(url, aggregate_type) as store:
        packed: list[Any] = await store.read(0, limit=1000)
    async with bank(url, aggregate_type) as store:
        single: list[Any] = []
        while page := await store.read(single[-1].position if single else 0, limit=5):
            single += page
    assert list(map(shown, packed)) == list(map(shown, single))
    return packed


def shown(event: es.RecordedEvent[Any]) -> tuple[Any, ...]:
    return event.position, event.envelope, str(event.error), event.recorded_at, event.raw


@pytest.mark.parametrize("aggregate_type", ["BankAccount", None])
async def test_a_packed_page_is_the_page(url: str, aggregate_type: str | None) -> None:
    async with bank(url) as store:
        for n in range(20):
            await store.append(f"account {n} Ω '\"\\", [AccountOpened("é\x1f\n\0")], expected=0)
    assert len(await both_ways(url, aggregate_type)) == 20


async def test_an_id_with_the_separator_is_an_id(url: str) -> None:
    async with bank(url) as store:
        for n in range(12):
            await store.append(f"{n}{SEPARATOR}x" if n % 2 else str(n), [AccountOpened("x")], expected=0)
            found = await both_ways(url)
            assert len(found) == n + 1
        assert found[1].aggregate_id == f"1{SEPARATOR}x"


async def test_what_gleam_and_others_wrote_into_a_file_is_read_in_large_pages_and_in_small_ones(
    tmp_path: Path,
) -> None:
    url, path = f"sqlite:{tmp_path}/bank.db", tmp_path / "bank.db"
    async with bank(url) as store:
        for n in range(10):
            await store.append("a", [AccountOpened("x")], expected=n)
        right = await both_ways(url)
        for change in (
            "UPDATE event SET metadata = NULL WHERE sequence = 2",
            "UPDATE pyglyn_position SET recorded_at = NULL WHERE sequence = 3",
            "UPDATE event SET payload = CAST(payload AS blob) WHERE sequence = 4",
            "UPDATE event SET metadata = CAST(metadata AS blob) WHERE sequence = 5",
            "UPDATE event SET event_type = CAST(x'ff' AS text) WHERE sequence = 6",
            "UPDATE event SET payload = payload || ' {}' WHERE sequence = 7",
            "UPDATE event SET sequence = '1_1' WHERE sequence = 8",
            "DELETE FROM pyglyn_position WHERE sequence = 9",
        ):
            with sqlite3.connect(path) as connection:
                connection.execute(change)
            connection.close()
            await both_ways(url)
        found = await both_ways(url, None)
    faults = {event.position for event in found if event.error is not None}
    assert len(right) == 10
    assert faults >= {4, 5, 6, 7}


async def test_positions_without_an_event_and_without_a_time_are_read_in_postgres(postgres: str) -> None:
    database = Foreign(postgres)
    database.run("SELECT 1")
    async with bank(postgres) as store:
        for n in range(10):
            await store.append("a", [AccountOpened("x")], expected=n)
        await both_ways(postgres)
        with psycopg.connect(postgres) as connection:
            connection.execute("UPDATE pyglyn_position SET recorded_at = NULL WHERE position = 3")
            connection.commit()
            assert len(await both_ways(postgres)) == 10
            connection.execute("UPDATE pyglyn_position SET sequence = 99 WHERE position = 4")
            connection.commit()
        found = await both_ways(postgres)
        assert [event.position for event in found] == [1, 2, 3, 5, 6, 7, 8, 9, 10]
        database.run(database.insert("b", 1, [deposited(1.0, 1.0)]))
        assert [event.aggregate_id for event in await both_ways(postgres)][-1] == "b"
