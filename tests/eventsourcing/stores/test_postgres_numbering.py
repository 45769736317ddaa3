"""Positions in PostgreSQL cost what the new events cost: whatever the statistics say, and whoever keeps a transaction
open. And they survive a dump."""

from __future__ import annotations

import asyncio
import subprocess
from typing import Any, cast

import psycopg
import pytest

from pyglyn import eventsourcing as es
from pyglyn.eventsourcing.stores.sql import position_exists, positioned_statement
from pyglyn.testing import eventually
from pyglyn.testing.bank import AccountOpened
from pyglyn.testing.postgres import FAST, PrivatePostgres, wheel_programs
from tests.eventsourcing.stores.foreign import Foreign
from tests.eventsourcing.stores.test_postgres_store import bank

FILL = """
INSERT INTO event SELECT 'BankAccount', %s || (n %% 1000), 1 + n / 1000, 'BankAccountEvent', '1.0',
  '{"event-type":"account-opened","account-id":"x"}', '[]' FROM generate_series(0, %s - 1) AS n
"""
VISITED = """
SELECT (SELECT coalesce(sum(seq_tup_read), 0) FROM pg_stat_user_tables WHERE schemaname = current_schema())
  + (SELECT coalesce(sum(idx_tup_read), 0) FROM pg_stat_user_indexes WHERE schemaname = current_schema())
"""


def visited(url: str) -> int:
    """How many rows and index entries have been looked at in a schema; known once a session has ended."""
    return int(Foreign(url).run(VISITED)[0][0])


def pages(connection: psycopg.Connection[Any], statement: str) -> int:
    """How many pages a statement touches, with all that its functions do."""
    row = connection.execute(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}".encode()).fetchone()
    assert row is not None
    plan = row[0][0]["Plan"]
    return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])


async def test_a_backlog_is_numbered_in_proportion_whatever_the_statistics_say(any_postgres: str) -> None:
    """Autovacuum likes to come when a queue is empty, and its statistics then say that it always is."""
    database = Foreign(any_postgres)
    async with bank(any_postgres) as store:
        database.run((FILL, ("before", 5000)))
        assert await store.last_position() == 5000
        await store.append("one", [AccountOpened("x")], expected=0)
        database.run("VACUUM ANALYZE")
        database.run((FILL, ("after", 5000)))
        await store.close()
        before = visited(any_postgres)
        assert [event.position for event in await store.read(5000, limit=3)] == [5001, 5002, 5003]
        await store.close()
        await eventually(lambda: visited(any_postgres) > before)
        assert visited(any_postgres) - before < 20 * 5000
        assert await store.last_position() == 10_001


async def test_a_long_transaction_of_somebody_else_makes_numbering_no_dearer(any_postgres: str) -> None:
    async with bank(any_postgres) as store:
        with (
            psycopg.connect(any_postgres, autocommit=True) as connection,
            psycopg.connect(any_postgres) as long,
        ):

            async def cost(n: int) -> tuple[int, int]:
                await store.append(f"account-{n}", [AccountOpened("x")], expected=0)
                numbering = pages(connection, "SELECT pyglyn_assign_positions(1000)")
                return numbering, pages(connection, "SELECT pyglyn_is_pending()")

            await cost(-2)
            first = await cost(-1)
            long.execute(
                "CREATE TABLE unrelated (n int)"
            )  # it has a number now, and sees no later transaction
            long.execute("SELECT count(*) FROM event")
            for n in range(600):
                last = await cost(n)
            assert last[0] < 3 * first[0] + 10
            assert last[1] < 3 * first[1] + 10
        assert await store.last_position() == 602


@pytest.mark.parametrize("undo", [False, True])
async def test_events_of_the_long_transaction_itself_come_when_it_commits(postgres: str, undo: bool) -> None:
    """Also after many numberings, and after a batch that was cut off at its limit."""
    database = Foreign(postgres)
    async with bank(postgres) as store:
        with psycopg.connect(postgres) as long:
            long.execute(
                *database.insert("late", 1, ['{"event-type":"account-opened","account-id":"x"}'] * 3)
            )
            for n in range(5):
                await store.append(f"a{n}", [AccountOpened("x")] * 4, expected=0)
                while database.run("SELECT pyglyn_assign_positions(3)")[0][0]:
                    pass
            assert len(await store.read()) == 20
            long.rollback() if undo else long.commit()
        await store.append("last", [AccountOpened("x")], expected=0)
        found = [(event.aggregate_id, event.sequence) for event in await store.read(20)]
        assert found == ([] if undo else [("late", 1), ("late", 2), ("late", 3)]) + [("last", 1)]


async def test_readers_and_writers_get_on_while_autovacuum_works() -> None:
    programs = wheel_programs()
    assert programs is not None
    often = {
        "autovacuum_naptime": "1",
        "autovacuum_vacuum_threshold": "10",
        "autovacuum_analyze_threshold": "10",
    }
    eager = {"autovacuum_vacuum_scale_factor": "0", "autovacuum_vacuum_cost_delay": "0"}
    with PrivatePostgres(programs, settings={**FAST, **often, **eager}) as server:
        database = Foreign(server.url)
        vacuumed = """SELECT coalesce(min(autovacuum_count), 0) FROM pg_stat_user_tables
        WHERE relname IN ('pyglyn_pending', 'pyglyn_assigned')"""
        async with bank(server.url) as store, bank(server.url) as reader:
            seen: list[int] = []

            async def follow() -> None:
                async for batch in reader.follow():
                    seen.extend(event.position for event in batch)

            following = asyncio.create_task(follow())
            count = 0

            async def write() -> bool:
                nonlocal count
                for _ in range(50):
                    count += 2
                    await store.append(f"account-{count}", [AccountOpened("x")], expected=0)
                    async with store.transaction() as tx:
                        await tx.append(f"late-{count}", [AccountOpened("x")], expected=0)
                return int(database.run(vacuumed)[0][0]) >= 2

            await eventually(write, timeout=120)
            await eventually(lambda: len(seen) == count)
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
            assert seen == list(range(1, count + 1))


@pytest.mark.parametrize("read_before", [False, True])
async def test_a_dump_of_the_data_alone_is_restored_into_tables_of_ours(
    postgres: str, own_server: PrivatePostgres, read_before: bool
) -> None:
    """Positions stay; what was not numbered yet is numbered then; and the log goes on. The numbers of transactions
    in the dump are those of another server."""
    schema = Foreign(postgres).run("SELECT current_schema()")[0][0]
    with psycopg.connect(own_server.url, autocommit=True) as connection:
        connection.execute(f'CREATE SCHEMA "{schema}"'.encode())
    target = f"{own_server.url}&options=-csearch_path%3D{schema}"
    async with bank(postgres) as store, bank(target) as copy:
        for n in range(20):
            await store.append(f"a{n}", [AccountOpened("x")], expected=0)
        numbered = await store.read()
        await store.append("late", [AccountOpened("x")] * 2, expected=0)
        await store.put_outbox([es.OutboxMessage("t", "b")])
        await store.save_checkpoint("q", 7)
        if read_before:
            assert await copy.read() == []
            await copy.append("gone", [AccountOpened("x")], expected=0)
            assert len(await copy.read()) == 1
            Foreign(target).run("DELETE FROM event")
        await copy.close()
        await asyncio.to_thread(_dump_and_restore, postgres, own_server.url, schema)
        found = await copy.read()
        assert found[:20] == numbered
        assert [(event.aggregate_id, event.sequence) for event in found[20:]] == [("late", 1), ("late", 2)]
        await copy.append("new", [AccountOpened("x")], expected=0)
        assert [event.aggregate_id for event in await copy.read(found[-1].position)] == ["new"]
        positions = [event.position for event in await copy.read()]
        assert positions == sorted(set(positions))
        assert await copy.last_position() == positions[-1]
        assert (await copy.outbox_size(), await copy.checkpoint("q")) == (1, 7)
        assert Foreign(target).run("SELECT count(*) FROM pyglyn_assigned") == [(1,)]


def _dump_and_restore(source: str, target: str, schema: str) -> None:
    programs = wheel_programs()
    assert programs is not None
    source = psycopg.conninfo.make_conninfo(source, options="")  # pg_dump sets the search_path itself
    dump = [programs / "pg_dump", "--data-only", "-n", schema, "-d", source]
    text = subprocess.run(dump, capture_output=True, check=True).stdout
    restore = [programs / "psql", "-q", "-v", "ON_ERROR_STOP=1", "-d", target]
    subprocess.run(restore, input=text, check=True, capture_output=True)


async def test_pages_are_read_in_proportion_whatever_the_statistics_say(any_postgres: str) -> None:
    """Without statistics PostgreSQL takes what follows for little, and sorts it for each page."""
    database = Foreign(any_postgres)
    async with bank(any_postgres) as store:
        database.run("ALTER TABLE event SET (autovacuum_enabled = off)")
        database.run("ALTER TABLE pyglyn_position SET (autovacuum_enabled = off)")
        database.run((FILL, ("filled", 20_000)))
        assert await store.last_position() == 20_000
        await store.close()
        before, after, found = visited(any_postgres), 0, 0
        async with bank(any_postgres) as reader:
            while page := await reader.read(after, limit=50):
                after, found = page[-1].position, found + len(page)
        assert found == 20_000
        await eventually(lambda: visited(any_postgres) > before)
        assert visited(any_postgres) - before < 5 * 20_000


def counted(database: Any, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return what will have been asked in statements by themselves, and in several at once."""
    asked: list[str] = []
    query, queries = database.query, database.queries

    def one(statement: str, *arguments: Any) -> Any:
        asked.append(statement)
        return query(statement, *arguments)

    def several(*statements: Any) -> Any:
        asked.append(" … ".join(statement for statement, _ in statements))
        return queries(*statements)

    monkeypatch.setattr(database, "query", one)
    monkeypatch.setattr(database, "queries", several)
    return asked


@pytest.mark.parametrize(
    "others", ["sequence <> 2", "aggregate_id LIKE 'first%'"], ids=["others in between", "others before"]
)
async def test_a_reader_looks_as_far_at_a_time_as_its_events_are_apart(
    postgres: str, monkeypatch: pytest.MonkeyPatch, others: str
) -> None:
    database, store = Foreign(postgres), cast(Any, bank(postgres))
    async with store:
        database.run((FILL, ("first", 3000)))
        database.run((FILL, ("second", 3000)))
        database.run(f"UPDATE event SET aggregate_type = 'Other' WHERE {others}")
        await store.last_position()
        database.run(f"UPDATE pyglyn_position SET aggregate_type = 'Other' WHERE {others}")
        expected = database.run("SELECT position FROM pyglyn_position WHERE aggregate_type <> 'Other'")
        asked = counted(store.database(), monkeypatch)
        found: list[es.RecordedEvent[Any]] = []
        while page := await store.read(found[-1].position if found else 0, limit=len(expected) // 100):
            found += page
        assert len(asked) < 120
        assert [event.position for event in found] == sorted(position for (position,) in expected)


@pytest.mark.parametrize("aggregate_type", ["BankAccount", None])
async def test_to_find_nothing_behind_the_end_is_no_look_through_the_log(
    postgres: str, aggregate_type: str | None
) -> None:
    """Also with the plan for all parameters, which PostgreSQL takes after some times."""
    database = Foreign(postgres)
    async with bank(postgres) as store:
        database.run((FILL, ("filled", 5000)))
        assert await store.last_position() == 5000
    by_type = aggregate_type is not None
    exists, parameters = position_exists(by_type=by_type), [f"'{aggregate_type}'"] if by_type else []
    page = positioned_statement(by_type=by_type, by_id=False, limit=500)
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE")
        connection.execute("SET plan_cache_mode TO force_generic_plan")
        for name, statement in (("exists_behind", exists), ("page_behind", page)):
            types = "(bigint, text)" if by_type else "(bigint)"
            for number in range(1, 1 + statement.count("%s")):
                statement = statement.replace("%s", f"${number}", 1)
            connection.execute(f"PREPARE {name} {types} AS {statement}".encode())
            assert pages(connection, f"EXECUTE {name} ({', '.join(['5000', *parameters])})") < 10
