"""The tables of a durable query, read by those who ask its process."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pyglyn import Node
from pyglyn import eventsourcing as es
from pyglyn.errors import DecodeErrors, EventStoreError, StoreUnavailable
from pyglyn.etf import Atom, Term
from pyglyn.eventsourcing.queries import asking
from pyglyn.eventsourcing.queries.asking import Answers, read_value, selected_from, value_term
from tests.eventsourcing.opened import close_opened
from tests.eventsourcing.queries.totals import Totals, bank, deposits
from tests.node.conftest import unique_name

SELECT = "SELECT account, events FROM totals ORDER BY account"
ENDLESS = "WITH RECURSIVE a(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM a) SELECT count(*) FROM a"


async def start(node: Node, url: str, **options: Any) -> es.DurableQuery:
    store = bank(url)
    totals = Totals(store, url)
    await totals.create()
    await deposits(store, "a", 3)
    query = es.DurableQuery("totals", totals.project, store=store, into=store, **options)
    await query.start(node)
    await totals.become({"a": (3, 3.0)})
    return query


async def test_any_node_of_the_cluster_reads_the_tables(node, url):
    query = await start(node, url, sql=True)
    expected = es.Selected(("account", "events"), [("a", 3)])
    assert await es.select(node, query, SELECT) == expected
    mark = "?" if url.startswith("sqlite") else "%s"
    async with Node(unique_name(), cookie="eventsourcing") as other:
        await other.connect(node.name)
        found = await es.select(
            other, ("totals", node.name), f"SELECT account, events FROM totals WHERE account = {mark}", ["a"]
        )
        assert found == expected
        with pytest.raises(EventStoreError, match="begins with SELECT"):
            await es.select(other, ("totals", node.name), "DELETE FROM totals")
    await close_opened()


async def test_a_query_that_does_not_say_so_answers_no_statement(node, url):
    query = await start(node, url)
    with pytest.raises(EventStoreError, match="does not say sql="):
        await es.select(node, query, SELECT)
    await close_opened()


async def test_a_long_statement_holds_up_no_status_and_no_effect_and_too_many_are_refused(node, url):
    limits = es.ReadOnlySql(seconds=600.0)
    query = await start(node, url, sql=limits)
    asked = [asyncio.create_task(es.select(node, query, ENDLESS, timeout=None)) for _ in range(4)]
    waiting = [
        asyncio.create_task(es.select(node, query, SELECT, timeout=None)) for _ in range(asking.WAITING)
    ]
    await asyncio.sleep(0)
    status = es.QueryStatus.from_term(await node.call("totals", Atom("status")))
    assert status.position == 3
    with pytest.raises(StoreUnavailable, match="68 statements before it"):
        await es.select(node, query, SELECT)
    pid = node.whereis("totals")
    assert pid is not None
    node.system.exit(pid, "shutdown")
    for each in await asyncio.gather(*asked, *waiting, return_exceptions=True):
        assert isinstance(each, Exception)
    await close_opened()


@pytest.mark.parametrize(
    "request_",
    [
        (Atom("select"), b"SELECT \xff", []),
        (Atom("select"), b"SELECT 1", [(1, 2)]),
        (Atom("select"), b"SELECT 1", [{}]),
        (Atom("select"), [b"SELECT 1"], []),
        (Atom("select"), b"SELECT 1"),
        (Atom("select"), b"SELECT ?", [1 << 200]),
        (Atom("select"), b"", [b"x"] * 100_000),
        (Atom("select"), b"SELECT " + b"(" * 100_000, []),
        (Atom("select"), b"(" * 1_000_000, []),
    ],
)
async def test_odd_requests_are_answered_by_an_error(node, url, request_):
    await start(node, url, sql=True)
    answer = await node.call("totals", request_)
    assert isinstance(answer, tuple)
    assert answer[0] is Atom("error")
    await close_opened()


@pytest.mark.parametrize("value", [None, True, 0, -(1 << 70), 1.5, "", "ü\0", b"\xff"])
def test_values_travel(value: object) -> None:
    assert read_value(value_term(value)) == value
    assert type(read_value(value_term(value))) is type(value)


def test_what_is_no_value_or_no_answer_is_refused() -> None:
    for value in (float("nan"), [1], object()):
        with pytest.raises(EventStoreError):
            value_term(value)
    odd: list[Term] = [
        Atom("ok"),
        (Atom("ok"), (Atom("selected"), [], [], Atom("maybe"))),
        (Atom("ok"), (Atom("selected"), [b"a"], [[1]], True)),
        (Atom("ok"), (Atom("selected"), [1], [], True)),
        (Atom("ok"), (Atom("selected"), [b"a"], [((1,),)], True)),
    ]
    for answer in odd:
        with pytest.raises(DecodeErrors):
            selected_from(answer)


async def test_without_tables_of_its_own_a_query_cannot_be_asked(tmp_path):
    store = es.open_store(f"sqlite:{tmp_path}/a.db")
    with pytest.raises(EventStoreError, match="without into="):
        es.DurableQuery("q", lambda id, envelopes: None, store=store, sql=True)
    answers = Answers("q", store, None)
    with pytest.raises(EventStoreError):
        answers.take(b"SELECT 1", [], lambda term: None)
    await answers.stop()
