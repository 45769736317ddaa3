"""Statements that read: what is let out, and that nothing else can be done with them."""

from __future__ import annotations

import asyncio
import datetime
import json
import resource
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from pyglyn import eventsourcing as es
from pyglyn.errors import EventStoreError, NonPositiveArgument, StoreUnavailable
from pyglyn.eventsourcing.stores.read_only_sql import ReadOnlySql, database_of
from pyglyn.eventsourcing.stores.selecting import select
from pyglyn.testing import eventually

LIMITS = ReadOnlySql()


@pytest_asyncio.fixture
async def stock(url: str) -> AsyncIterator[es.EventStore[Any, Any]]:
    """A store with a table of an application in its database."""
    async with es.open_store(url, aggregate_type="t") as store:
        async with store.transaction() as tx:
            await tx.execute("CREATE TABLE stock (product TEXT PRIMARY KEY, level INT)")
            for number in range(20):
                await tx.execute(marked(store, "INSERT INTO stock VALUES (?, ?)"), (f"p{number:02}", number))
        yield store


def is_sqlite(store: es.EventStore[Any, Any]) -> bool:
    return hasattr(store, "path")


def marked(store: es.EventStore[Any, Any], statement: str) -> str:
    return statement if is_sqlite(store) else statement.replace("?", "%s")


async def levels(store: es.EventStore[Any, Any]) -> int:
    async with store.transaction() as tx:
        [[total]] = await tx.execute("SELECT sum(level) FROM stock")
    assert isinstance(total, int)
    return total


async def test_rows_come_with_their_columns_and_parameters_go_along(stock):
    statement = marked(stock, "SELECT product, level AS so_many FROM stock WHERE level < ? ORDER BY product")
    found = await select(stock, statement, [2], LIMITS)
    assert found == es.Selected(("product", "so_many"), [("p00", 0), ("p01", 1)])
    assert await select(
        stock, "-- none\n SELECT level FROM stock WHERE level > 100", (), LIMITS
    ) == es.Selected(("level",), [])
    with_comment = await select(
        stock, "/* a */ WITH a(x) AS (VALUES (1)) SELECT x, x + 1 AS y FROM a -- end", (), LIMITS
    )
    assert with_comment == es.Selected(("x", "y"), [(1, 2)])
    nothing = await select(
        stock, marked(stock, "SELECT level FROM stock WHERE product = ?"), ["none"], LIMITS
    )
    assert nothing == es.Selected(("level",), [])


async def test_values_of_every_kind_are_some_that_travel(stock):
    if is_sqlite(stock):
        statement = "SELECT NULL, 1.5, 'ü', x'00ff', 9e999, CAST(x'ff' AS TEXT)"
        expected: tuple[Any, ...] = (None, 1.5, "ü", b"\x00\xff", "inf", b"\xff")
    else:
        statement = (
            "SELECT NULL, 1.5::float8, 'ü', decode('00ff', 'hex'), 'infinity'::float8, 1.50::numeric, true, "
            "'2026-01-02'::date, '[1, null]'::jsonb, ARRAY['a'], '00000000-0000-0000-0000-00000000000a'::uuid"
        )
        uuid = "00000000-0000-0000-0000-00000000000a"
        date = datetime.date(2026, 1, 2).isoformat()
        expected = (None, 1.5, "ü", b"\x00\xff", "inf", "1.50", True, date, "[1, null]", '["a"]', uuid)
    assert (await select(stock, statement, (), LIMITS)).rows == [expected]


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO stock VALUES ('x', 1)",
        "DELETE FROM stock",
        "DROP TABLE stock",
        "COMMIT",
        "PRAGMA query_only=OFF",
        "ATTACH 'other.db' AS other",
        "SET TRANSACTION READ WRITE",
        "COPY stock TO PROGRAM 'cat'",
        "",
        "SELECT 1; DELETE FROM stock",
        "SELECT 1; COMMIT; DELETE FROM stock",
        "WITH gone AS (DELETE FROM stock RETURNING level) SELECT * FROM gone",
        "WITH one(n) AS (VALUES (1)) DELETE FROM stock",
        "WITH one(n) AS (VALUES (1)) INSERT INTO stock SELECT 'x', n FROM one",
        "EXPLAIN ANALYZE DELETE FROM stock",
        "SELECT level INTO other FROM stock",
        "SELECT * FROM stock FOR UPDATE",
        "SELECT set_config('transaction_read_only', 'off', true)",
        "SELECT load_extension('x')",
        "SELECT * FROM pragma_query_only(0)",
        "SELECT nextval('pyglyn_pending_id_seq')",
        "SELECT lo_create(0)",
        "SELECT * FROM nowhere",
        "SELECT ? ?",
        "SELECT '\0'",
    ],
)
async def test_what_does_more_than_reading_is_refused_and_changes_nothing(
    stock, tmp_path, statement, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    before = await levels(stock)
    with pytest.raises(EventStoreError):
        await select(stock, statement, (), LIMITS)
    assert await levels(stock) == before
    assert not (tmp_path / "other.db").exists()


async def test_what_a_statement_sets_is_gone_with_it(stock):
    if is_sqlite(stock):
        return
    lasting = "SELECT set_config('statement_timeout', '1', false), pg_advisory_lock(7)"
    await select(stock, lasting, (), LIMITS)
    found = await select(
        stock, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 7", (), LIMITS
    )
    assert found.rows == [(0,)]


async def test_only_so_many_rows_and_bytes_are_let_out(stock):
    few = await select(stock, "SELECT level FROM stock ORDER BY level", (), ReadOnlySql(rows=3))
    assert (few.rows, few.complete) == ([(0,), (1,), (2,)], False)
    all_of_them = await select(stock, "SELECT level FROM stock", (), ReadOnlySql(rows=20))
    assert (len(all_of_them.rows), all_of_them.complete) == (20, True)
    endless = "WITH RECURSIVE a(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM a) SELECT 'xxxxxxxxxx', n FROM a"
    cut = await select(stock, endless, (), ReadOnlySql(size=1000, rows=10_000))
    assert (len(cut.rows), cut.complete) == (1000 // 18, False)


async def test_a_statement_that_takes_too_long_is_ended(stock):
    endless = "WITH RECURSIVE a(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM a) SELECT count(*) FROM a"
    with pytest.raises(EventStoreError, match=r"longer than the 0\.2 s"):
        await select(stock, endless, (), ReadOnlySql(seconds=0.2))


async def test_one_that_is_called_off_ends(stock):
    endless = "WITH RECURSIVE a(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM a) SELECT count(*) FROM a"
    asking = asyncio.create_task(select(stock, endless, (), ReadOnlySql(seconds=600.0)))
    await asyncio.wait((asking,), timeout=0.2)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    if is_sqlite(stock):
        return

    async def none_runs() -> bool:
        running = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'WITH RECURSIVE a(n)%'"
        return (await select(stock, running, (), LIMITS)).rows == [(0,)]

    await eventually(none_runs)


TOO_BIG = {
    "sqlite": ["SELECT zeroblob(1000000000)", "SELECT randomblob(10000000)"],
    "postgres": [
        "SELECT repeat('x', 30000000)",
        "SELECT 1, NULL, repeat('x', 30000000)::bytea;",
        "TABLE large",
        "(VALUES (1, repeat('x', 30000000)))",
        "SELECT to_json(repeat('x', 30000000)) -- json",
        "SELECT ARRAY[repeat('x', 15000000), repeat('x', 15000000)]",
        "SELECT ROW(1, repeat('x', 30000000))",
        "SELECT repeat('9', 100000)::numeric FROM generate_series(1, 2)",
        "EXPLAIN SELECT 1 FROM stock WHERE product = repeat('x', 10000000)",
        "EXPLAIN (VERBOSE, FORMAT JSON) SELECT repeat('x', 10000000)",
    ],
}


async def test_a_value_that_is_too_large_is_refused_where_it_is(stock):
    if not is_sqlite(stock):
        async with stock.transaction() as tx:
            await tx.execute("CREATE TABLE large AS SELECT 1 AS one, repeat('x', 30000000) AS text")
    small = ReadOnlySql(size=50_000, seconds=600.0)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for statement in TOO_BIG["sqlite" if is_sqlite(stock) else "postgres"]:
        with pytest.raises(EventStoreError, match="too big"):
            await select(stock, statement, (), small)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000  # KiB
    if not is_sqlite(stock):
        at_most = await select(stock, "SELECT repeat('ü', 25000) AS a", (), small)
        assert at_most == es.Selected(("a",), [("ü" * 25_000,)])


async def test_rows_that_are_too_long_only_as_a_whole_are_left_out(stock):
    if is_sqlite(stock):
        return
    long = "SELECT n, repeat('x', n * 400) AS a, repeat('y', n * 400) AS b FROM generate_series(1, 3) AS n"
    found = await select(stock, long, (), ReadOnlySql(size=2000))
    assert (found.columns, found.complete) == (("n", "a", "b"), False)
    assert [row[0] for row in found.rows] == [1]


async def test_a_statement_is_asked_for_whatever_its_columns_are(stock):
    """The order, names that are there twice, and none at all."""
    if is_sqlite(stock):
        return
    parameters = ["p0%", 3]
    twice = "SELECT product, product, level FROM stock WHERE product LIKE %s ORDER BY level DESC LIMIT %s"
    found = await select(stock, twice, parameters, LIMITS)
    assert found.columns == ("product", "product", "level")
    assert found.rows == [("p09", "p09", 9), ("p08", "p08", 8), ("p07", "p07", 7)]
    assert await select(stock, "SELECT", (), LIMITS) == es.Selected((), [()])
    none = await select(stock, "SELECT product FROM stock WHERE false; ", (), LIMITS)
    assert none == es.Selected(("product",), [])
    of_types = (
        "SELECT 'a'::varchar(3), 'b'::char(3), '1 day'::interval, '{}'::json, '{1,2}'::int[], '(1,2)'::point"
    )
    [row] = (await select(stock, of_types, (), LIMITS)).rows
    assert row == ("a", "b  ", "1 day, 0:00:00", "{}", "[1, 2]", "(1,2)")


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT product FROM stock WHERE level = 3; -- the third",
        "SELECT product FROM stock WHERE level = 3 /* the; third */ ;\f; /* -- */",
        "SELECT product FROM stock WHERE level = 3 -- the third;",
        "SELECT product FROM stock WHERE level = 3 AND product <> '; --'",
        r"SELECT product FROM stock WHERE level = 3 AND product NOT IN ($a$; -- $a$, E'\'; --', '''; --')",
        'SELECT "a; --" FROM (SELECT product AS "a; --" FROM stock WHERE level = 3) AS q;\n--',
    ],
)
async def test_a_statement_may_end_in_a_semicolon_and_comments(stock, statement):
    if is_sqlite(stock):
        return
    assert (await select(stock, statement, (), LIMITS)).rows == [("p03",)]


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT repeat('x', 100)) SELECT c0, 0, 0 FROM asked --",
        "SELECT 'a') SELECT repeat('x', 100000), 0, 0 /*",
        "SELECT 'a') AS x; COMMIT; DELETE FROM stock; SELECT ('a'",
    ],
)
async def test_nobody_gets_out_of_the_statement_around_his_own(stock, statement):
    if is_sqlite(stock):
        return
    with pytest.raises(EventStoreError, match=r"syntax error|cannot insert multiple|unterminated"):
        await select(stock, statement, (), ReadOnlySql(size=60))
    assert await levels(stock) == sum(range(20))


async def test_a_plan_is_told_as_ever(stock):
    if is_sqlite(stock):
        return
    found = await select(stock, "explain SELECT * FROM stock WHERE product = %s", ["it's"], LIMITS)
    assert found.columns == ("QUERY PLAN",)
    assert any("it''s" in line for (line,) in found.rows)
    as_json = await select(stock, "EXPLAIN (FORMAT JSON) SELECT 1", (), LIMITS)
    [[plan]] = as_json.rows
    assert json.loads(plan)[0]["Plan"]["Node Type"] == "Result"
    few = await select(stock, "EXPLAIN SELECT * FROM stock ORDER BY level", (), ReadOnlySql(rows=1))
    assert (len(few.rows), few.complete) == (1, False)


async def test_a_database_that_is_away_is_unavailable(tmp_path):
    with pytest.raises(StoreUnavailable):
        await select(es.open_store(f"sqlite:{tmp_path}/none.db"), "SELECT 1", (), LIMITS)
    assert not (tmp_path / "none.db").exists()
    away = es.open_store("postgresql://nobody:secret@127.0.0.1:1/x")
    with pytest.raises(StoreUnavailable):
        await select(away, "SELECT 1", (), LIMITS)


async def test_another_role_may_be_asked_as(stock, postgres):
    if is_sqlite(stock):
        return
    async with stock.transaction() as tx:
        [[role]] = await tx.execute("SELECT 'reader_' || substr(md5(current_schema()), 1, 8)")
        await tx.execute(f"CREATE ROLE {role} LOGIN")
        [[schema]] = await tx.execute("SELECT current_schema()")
        await tx.execute(f"GRANT USAGE ON SCHEMA {schema} TO {role}")
        await tx.execute(f"GRANT SELECT ON stock TO {role}")
    try:
        url = postgres.replace("postgresql://postgres@", f"postgresql://{role}@")
        assert url != postgres
        as_reader = ReadOnlySql(url=url)
        assert (await select(stock, "SELECT count(*) FROM stock", (), as_reader)).rows == [(20,)]
        with pytest.raises(EventStoreError, match="permission denied"):
            await select(stock, "SELECT * FROM event", (), as_reader)
        assert role not in repr(as_reader)
    finally:
        async with stock.transaction() as tx:
            await tx.execute(f"DROP OWNED BY {role}")
            await tx.execute(f"DROP ROLE {role}")


def test_limits_and_places_that_make_no_sense_are_refused(tmp_path):
    for bad in ({"rows": 0}, {"size": 0}, {"seconds": 0.0}):
        with pytest.raises(NonPositiveArgument):
            ReadOnlySql(**bad)
    with pytest.raises(EventStoreError, match="only SQLite and PostgreSQL"):
        ReadOnlySql(url="memory:")
    with_keys = es.open_store(f"sqlite:{tmp_path}/a.db", aggregate_type="t", keys="memory:")
    assert is_sqlite(database_of(with_keys))
