"""``pyglyn events``, ``trace``, ``queries``, ``replay`` and ``parked``, run as a user runs them."""

from __future__ import annotations

import asyncio
import json
import re
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from pyglyn import eventsourcing as es
from pyglyn.cli.eventsourcing import ANSWERS_SHARE
from pyglyn.errors import DomainError
from pyglyn.etf import Atom, Term
from pyglyn.eventsourcing.domain import wire
from pyglyn.node import GenServer, Node
from pyglyn.testing import eventually
from pyglyn.testing.bank import (
    AccountOpened,
    BankAccount,
    BankAccountEvent,
    CustomerDepositedCash,
    DepositMoney,
    OpenAccount,
    apply,
    handle,
)
from pyglyn.testing.waiting import patiently
from tests.cli.test_cli import on_terminal, run
from tests.eventsourcing.conftest import postgres, wheel_server  # noqa: F401
from tests.eventsourcing.handles import bank_at
from tests.eventsourcing.managers.jobs import Begun, Closed, jobs_manager, jobs_service, open_jobs, steady
from tests.eventsourcing.stores.foreign import Foreign
from tests.eventsourcing.stores.foreign import opened as opened_by_gleam
from tests.node.conftest import unique_name

COOKIE = ("--cookie", "eventsourcing")


@pytest_asyncio.fixture
async def node(epmd) -> AsyncIterator[Node]:
    async with Node(unique_name(), cookie="eventsourcing") as running:
        yield running


def bank(url: str, queries: Any = ()) -> es.ServiceSpec:
    store = es.open_store(url, events=BankAccountEvent, state=BankAccount, aggregate_type="BankAccount")
    return es.service("bank", store, handle=handle, apply=apply, empty_state=BankAccount(), queries=queries)


async def test_events_and_trace_show_what_a_store_has(node, tmp_path):
    url = f"sqlite:{tmp_path}/bank.db"

    async def gift(id: str, envelopes: list[Any]) -> None:
        if isinstance(envelopes[0].payload, AccountOpened) and id == "a":
            await bank_at(node).execute("b", OpenAccount("b"))
            await bank_at(node).execute("b", DepositMoney(5.0))

    await es.start(node, bank(url, [("gift", gift)]))
    [opened] = await bank_at(node).execute("a", OpenAccount("a"))
    await bank_at(node).execute("a", DepositMoney(1.0))

    async def both() -> bool:
        return len(await bank_at(node).load_events("b")) == 2

    await eventually(both)
    status, output = await run("events", url)
    assert status == 0
    lines = output.splitlines()
    assert len(lines) == 4
    assert "BankAccount/a/1" in lines[0]
    assert "node=" + node.name in lines[0]
    status, output = await run("events", url, "--aggregate", "b", "--limit", "1")
    assert (status, output.count("\n"), "BankAccount/b/1" in output) == (0, 1, True)

    correlation = dict(opened.metadata)["correlation_id"]
    status, output = await run("trace", correlation, url)
    assert status == 0
    shown = [line.rstrip() for line in output.splitlines()]
    assert len(shown) == 4
    assert shown[1].startswith("└── ")
    assert f"BankAccount/a/1 on {node.name} at 20" in shown[1]
    assert [re.search(r"BankAccount/b/\d", line)[0] for line in shown[2:]] == [
        "BankAccount/b/1",
        "BankAccount/b/2",
    ]
    assert all(line.startswith("    ") for line in shown[2:])

    status, output = await run("trace", "unheard_of", url)
    assert (status, output) == (1, "pyglyn: no event has the correlation id unheard_of\n")
    status, output = await run("events", f"sqlite:{tmp_path}/missing.db")
    assert status == 1
    assert "there is no file" in output
    assert not (tmp_path / "missing.db").exists()


async def test_process_managers_are_listed_with_the_queries_and_their_commands_are_driven(node, tmp_path):
    store = open_jobs(f"sqlite:{tmp_path}/jobs.db")
    await store.append("a", [Begun(2, 3600.0), Closed()], expected=0)
    await es.start(node, jobs_service(store))
    await jobs_manager(store, handle=steady).start(node)

    async def refused() -> list[str]:
        status, output = await run("queries", node.name, *COOKIE)
        assert status == 0
        header, row = output.splitlines()
        assert header.split()[-5:] == ["processed", "parked", "commands", "timers", "error"]
        assert row.split()[:2] == ["steps", "manager"]
        assert row.split()[3:9] == ["2", "0", "2", "1", "1", "0"]
        return [row]

    await eventually(refused, timeout=30)
    status, output = await run("parked", node.name, *COOKIE)
    assert status == 0
    assert "command to jobs: closed" in output
    assert "{step,1}" in output
    status, output = await run("parked", node.name, "steps", "--drive", "all", *COOKIE)
    assert (status, output.splitlines()[0]) == (1, "0 driven")
    assert "failed again: command to jobs: closed" in output
    [parked] = await node.call("steps", Atom("parked"))
    status, output = await run("parked", node.name, "steps", "--drive", str(parked[Atom("id")]), *COOKIE)
    assert (status, output.splitlines()[0]) == (1, "0 driven")
    status, output = await run("replay", node.name, "steps", *COOKIE)
    assert status == 1
    assert "would issue its commands again" in output


async def test_queries_parked_and_replay_work_on_a_running_node(node, tmp_path):
    url = f"sqlite:{tmp_path}/bank.db"
    await es.start(node, bank(url, [("audit", lambda id, envelopes: None)]))
    failing = True

    async def project(tx: es.Transaction[Any, Any], envelope: Any) -> None:
        if failing and envelope.aggregate_id == "b":
            raise DomainError("not b")
        await tx.execute("INSERT INTO seen VALUES (?, ?)", (envelope.aggregate_id, envelope.sequence))

    async def undo(tx: es.Transaction[Any, Any], aggregate_id: str | None) -> None:
        await tx.execute("DELETE FROM seen")

    store = es.open_store(url, events=BankAccountEvent, aggregate_type="BankAccount")
    async with store.transaction() as tx:
        await tx.execute("CREATE TABLE seen (id TEXT, sequence INT)")
    policy = es.FailurePolicy(retries=0)
    query = es.DurableQuery("levels", project, store=store, into=store, policy=policy, on_reset=undo)
    await query.start(node)
    for id in ("a", "b", "c"):
        await bank_at(node).execute(id, OpenAccount(id))

    async def all_read() -> bool:
        return await store.checkpoint("levels") == await store.last_position()

    await eventually(all_read)
    status, output = await run("queries", node.name, *COOKIE)
    assert status == 0
    assert re.search(r"^audit +live +(live|idle) +- +0 +3 +0$", output, re.MULTILINE), output
    assert re.search(r"^levels +durable +(live|idle) +3 +0 +2 +1$", output, re.MULTILINE), output
    status, output = await run("parked", node.name, *COOKIE)
    assert status == 0
    assert re.fullmatch(r"levels\t\d+\tb\t1\t1\t20\S+Z\t.*not b.*\t.*\n", output), output
    failing = False
    assert await run("parked", node.name, "levels", "--drive", "all", *COOKIE) == (0, "1 driven\n")

    async def rows() -> int:
        async with store.transaction() as tx:
            return len(await tx.execute("SELECT * FROM seen"))

    async def three() -> bool:
        return await rows() == 3

    await eventually(three)
    status, output = await run("replay", node.name, "levels", *COOKIE)
    assert status == 0, output
    assert "at position 3, 0 parked" in output
    assert await rows() == 3
    status, output = await run("queries", node.name, "--pause", "levels", *COOKIE)
    assert status == 0
    status, output = await run("replay", node.name, "audit", *COOKIE)
    assert (status, "cannot be reset" in output) == (1, True)
    status, output = await run("replay", node.name, "nonsense", *COOKIE)
    none = f"pyglyn: there is no query 'nonsense' on {node.name}; `pyglyn queries {node.name}` lists them\n"
    assert (status, output) == (1, none)
    await store.close()


# --- looking at databases --------------------------------------------------------------------------------


@pytest.fixture(params=["sqlite", "postgres"])
def foreign(request: pytest.FixtureRequest, tmp_path: Path) -> Foreign:
    """An empty database."""
    if request.param == "postgres":
        return Foreign(request.getfixturevalue("postgres"))
    sqlite3.connect(tmp_path / "bank.db").close()
    (tmp_path / "bank.db").touch()
    return Foreign(f"sqlite:{tmp_path}/bank.db")


def contents(foreign: Foreign, tmp_path: Path) -> object:
    """Everything that looking could change."""
    if not foreign.is_sqlite:
        kinds = "SELECT relname, relkind FROM pg_class WHERE relnamespace = current_schema()::regnamespace"
        tables = foreign.run(f"{kinds} ORDER BY relname")
        return tables, [foreign.run(f'SELECT * FROM "{name}"') for name, kind in tables if kind == "r"]
    return {path.name: path.read_bytes() for path in tmp_path.glob("bank.db*")}


async def test_looking_at_a_database_changes_nothing_in_it(foreign, tmp_path):
    url = foreign.url
    before = contents(foreign, tmp_path)
    status, output = await run("events", url)
    assert (status, "has no events: no service has used it yet" in output) == (1, True)
    assert contents(foreign, tmp_path) == before

    foreign.create_tables()
    for id in ("b", "a"):
        foreign.run(foreign.insert(id, 1, [opened_by_gleam(id)] * 600))
    before = contents(foreign, tmp_path)
    status, output = await run("events", url)
    assert status == 0
    keys = [line.split("\t")[:3] for line in output.splitlines()]
    assert keys == [["-", "-", f"BankAccount/{id}/{n}"] for id in "ab" for n in range(1, 601)]
    status, output = await run("events", url, "--aggregate", "b", "--limit", "2")
    assert (status, output.count("BankAccount/b/")) == (0, 2)
    status, output = await run("events", url, "--after", "1")
    assert (status, "has no positions" in output) == (1, True)
    status, output = await run("trace", "unheard_of", url)
    assert (status, "no event has the correlation id" in output) == (1, True)
    assert contents(foreign, tmp_path) == before

    store = es.open_store(url, events=BankAccountEvent, aggregate_type="BankAccount")
    async with store:
        assert await store.last_position() == 1200
        await store.append("c", [AccountOpened("c")], expected=0)
    before = contents(foreign, tmp_path)
    status, output = await run("events", url, "--after", "1199")
    positions = [line.split("\t")[::2][:2] for line in output.splitlines()]
    last = "1201" if foreign.is_sqlite else "-"  # nobody has read it yet
    assert positions == [["1200", "BankAccount/a/600"], [last, "BankAccount/c/1"]]
    assert contents(foreign, tmp_path) == before


async def test_every_event_is_one_line_whatever_is_in_it(tmp_path):
    url = f"sqlite:{tmp_path}/my bank.db"
    odd = "a\nb\tc\x1b[31m\u2028"
    async with es.open_store(url, aggregate_type="bank") as store:
        await store.append(odd, [{"text": "\x7f\n"}], expected=0, metadata=[("k\n", "v\n")])
        await store.append("x", [{"text": "y"}], expected=0)
    foreign = Foreign(url, aggregate_type="bank")
    broken = ['{"text": "\\ud800"}', "no\njson", '{"text": "\N{NO-BREAK SPACE}"}']
    foreign.run(foreign.insert("x", 2, broken))
    status, output = await run("events", f"sqlite:{tmp_path}/my%20bank.db")
    assert status == 0
    lines = output.splitlines()
    assert len(lines) == 5
    assert lines[0].split("\t")[2:] == [
        r"bank/a\nb\tc\u001b[31m\u2028/1",
        r'{"text": "\u007f\n"}',
        r"k\n=v\n",
    ]
    assert [json.loads(lines[number].split("\t")[3])["text"] for number in (0, 1, 4)] == [
        "\x7f\n",
        "y",
        "\xa0",
    ]
    assert r"\ud800" in lines[2]
    assert r"does not decode: no\njson" in lines[3]


@pytest.mark.parametrize(
    ("args", "status", "says"),
    [
        (("events", "sqlite:bank.db", "--after", str(10**22)), 2, "Invalid value for '--after'"),
        (("events", "sqlite:bank.db", "--aggregate", b"a\xff"), 2, "is not in UTF-8"),
        (("trace", b"a\xff", "sqlite:bank.db"), 1, "no event has the correlation id a"),
        (("events", b"sqlite:\xff.db"), 1, "there is no file"),
        (("events", "sqlite:%00"), 1, "there is no file"),
        (("events", "bank.db"), 1, "no store URL"),
        (("events", "memory:"), 1, "a memory store lives in its service"),
        (("parked", "a@localhost", b"\xff"), 2, "is not in UTF-8"),
        (("parked", "a@localhost", "q", "--drive", "\N{SUPERSCRIPT TWO}"), 2, "--drive needs"),
        (("replay", "a@localhost", "q", "--aggregate", b"\xff"), 2, "is not in UTF-8"),
    ],
)
async def test_arguments_that_make_no_sense_are_refused_in_words(tmp_path, args, status, says):
    async with es.open_store(f"sqlite:{tmp_path}/bank.db"):
        pass
    ended, output = await run(*args, cwd=tmp_path)
    assert (ended, says in " ".join(output.split())) == (status, True), output
    assert "Traceback" not in output


async def test_a_trace_shows_every_event_whole_however_deep_it_is(tmp_path):
    url = f"sqlite:{tmp_path}/bank.db"
    async with es.open_store(url, aggregate_type="t") as store:
        cause, node = "c", "a_service_with_a_long_name@a.host.with.a.long.name.example.com"
        for number in range(40):
            pairs = [("correlation_id", "c"), ("causation_id", cause), ("node", node)]
            await store.append(f"o[red]{number}[/id]", ["opened"], expected=0, metadata=pairs)
            cause = f"t/o[red]{number}[/id]/1"
        await store.append("second", ["opened"], expected=0, metadata=[("correlation_id", "c")])
    status, output = await run("trace", "c", url)
    assert status == 0, output
    lines = output.splitlines()
    assert lines[0] == "correlation c"
    assert len(lines) == 42
    for number, line in enumerate(lines[1:41]):
        start = f"{'├── ' if not number else '│   ' + '    ' * (number - 1) + '└── '}"
        assert re.fullmatch(
            re.escape(f"{start}opened t/o[red]{number}[/id]/1 on {node} at ") + r"20\S+Z", line
        )
    assert lines[41].startswith("└── opened t/second/1 at 20")


# --- queries ---------------------------------------------------------------------------------------------


class Mute(GenServer):
    """A query that never answers."""

    async def init(self, name: str) -> None:
        await self.me.register(f"pyglyn_query_{name}")

    async def handle_call(self, request: Term, caller: Any) -> Any:
        await asyncio.Event().wait()


async def test_a_query_that_does_not_answer_hides_no_other(node):
    await es.start(node, bank("memory:", [("audit", lambda id, envelopes: None)]))
    for name in ("mute_1", "mute_2"):
        await node.start(Mute, name)
    seconds = patiently(3.0)
    timeout, no_reply = ("--timeout", str(seconds)), f"no reply within {seconds * ANSWERS_SHARE} s"
    status, output = await run("queries", node.name, *timeout, *COOKIE, env={"COLUMNS": "40"})
    assert status == 0, output
    assert re.search(r"^audit +live +idle ", output, re.MULTILINE), output
    assert re.search(rf"^mute_1 +- +no answer .*{no_reply}", output, re.MULTILINE), output
    assert re.search(r"^mute_2 +- +no answer ", output, re.MULTILINE), output
    status, output = await run("parked", node.name, *timeout, *COOKIE)
    assert (status, output.count(no_reply)) == (1, 2), output


async def test_driving_says_what_became_of_it(node, tmp_path):
    url = f"sqlite:{tmp_path}/bank.db"
    bad = {"a", "b"}

    def refuse(id: str, envelopes: list[Any]) -> None:
        if id in bad:
            raise ValueError(f"not\n{id}")

    def project(cursor: es.Cursor, envelope: Any) -> None:
        refuse(envelope.aggregate_id, [])

    policy = es.FailurePolicy(retries=0)
    store = es.open_store(url, events=BankAccountEvent, aggregate_type="BankAccount")
    live = es.QuerySpec(name="live", function=refuse, policy=policy)
    await es.start(node, bank(url, [live]))
    await es.DurableQuery("durable", project, store=store, into=store, policy=policy).start(node)
    for id in ("a", "b", "c"):
        await bank_at(node).execute(id, OpenAccount(id))
        await bank_at(node).execute(id, DepositMoney(1.0))

    async def parked(query: str) -> list[Any]:
        found = await node.call(query, Atom("parked"))
        assert len(found) == 4
        return found

    for query in ("live", "durable"):
        bad.update({"a", "b"})
        found = await eventually(lambda query=query: parked(query))
        first = [each[Atom("id")] for each in found if wire.text(each[Atom("aggregate_id")]) == "a"]
        drive = ("parked", node.name, query, *COOKIE, "--drive")
        assert await run(*drive, "7777") == (1, f"pyglyn: query '{query}' has no parked event 7777\n")
        status, output = await run(*drive, "all")
        assert status == 1
        assert output.splitlines()[0] == "0 driven"
        assert sorted(re.findall(r"\d+ failed again: (.*)", output)) == [
            r"ValueError: not\na",
            r"ValueError: not\nb",
        ]
        assert output.splitlines()[3:] == ["2 still parked behind what failed"]
        bad.discard("a")
        assert await run(*drive, str(first[0])) == (0, "1 driven\n")
        bad.clear()
        assert await run(*drive, "all") == (0, "3 driven\n")
        assert await run(*drive, "all") == (0, "nothing is parked\n")
    await store.close()


async def test_parked_events_are_shown_a_line_each_however_deep_they_are(node, tmp_path):
    url = f"sqlite:{tmp_path}/bank.db"
    await es.start(node, bank(url, [("audit", lambda id, envelopes: None)]))
    async with es.open_store(url) as store:
        for sequence, raw in enumerate((b"[" * 100_000 + b"]" * 100_000, b"a\nb\xff", b'{"a": "\xc3\xa9"}')):
            event = es.ParkedEvent(
                query="audit", aggregate_id="a\nb", sequence=sequence, raw=raw, error="a\nb"
            )
            await store.park(event)
    status, output = await run("parked", node.name, *COOKIE)
    assert status == 0, output[-500:]
    lines = [line.split("\t") for line in output.splitlines()]
    assert [line[2] for line in lines] == [r"a\nb"] * 3
    assert lines[0][7] == "[" * 100_000 + "]" * 100_000
    assert lines[2][7] == '{"a": "é"}'
    lines = (await on_terminal("parked", node.name, *COOKIE, columns=80)).splitlines()[1:]
    assert [line[:4] == " " * 4 for line in lines] == [False, True, True] * 3
    assert [lines[at].strip() for at in (1, 2, 5, 8)] == [
        r"a\nb", "[" * 1999 + "…", "a\\nb\ufffd", '{"a": "é"}'
    ]  # fmt: skip
    shown = plain(await on_terminal("queries", node.name, *COOKIE, columns=80))
    assert shown.split()[:7] == ["query", "kind", "state", "position", "lag", "processed", "parked"]
    assert "error" not in shown


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


CHECKED = """
from pyglyn import eventsourcing as es
from pyglyn.testing.bank import AccountOpened, BankAccountEvent

store = es.open_store("sqlite:elsewhere.db", events=BankAccountEvent, aggregate_type="BankAccount")
less = es.open_store("sqlite:elsewhere.db", events=AccountOpened, aggregate_type="BankAccount")
nothing = 3

def made():
    return store

def takes(url):
    return store
"""


async def test_events_are_checked_against_the_types_of_an_application(epmd, tmp_path):
    url = f"sqlite:{tmp_path}/bank.db"
    async with es.open_store(url, events=BankAccountEvent, aggregate_type="BankAccount") as store:
        await store.append("a", [AccountOpened("a"), CustomerDepositedCash(1.0, 1.0)], expected=0)
    async with es.open_store(url, aggregate_type="another") as store:
        await store.append("x", [{"n": 1}], expected=0)
    (tmp_path / "checked.py").write_text(CHECKED)
    app = f"{tmp_path}/checked.py"
    for name in ("store", "made"):
        status, output = await run("events", "check", url, "--app", f"{app}:{name}")
        assert (status, output) == (0, "2 of BankAccount decode, 0 do not, 1 of other types\n")
    status, output = await run("events", "check", url, "--app", f"{app}:less")
    assert status == 1
    assert "a #2\tunknown event-type 'customer-deposited-cash', expected one of ['account-opened']" in output
    assert "1 of BankAccount decode, 1 do not" in output
    wrong = [
        (("check", url), "check needs --app"),
        ((url, "more"), "one STORE-URL"),
        (("check", url, "--app", f"{app}:nothing"), "is of type int: name an SQL store"),
        (("check", url, "--app", f"{app}:absent"), "there is nothing of that name"),
        (("check", url, "--app", f"{app}:takes"), "it is called without arguments: missing"),
    ]
    for words, said in wrong:
        status, output = await run("events", *words)
        assert (status, said in output, "Traceback" in output) == (2, True, False), output


async def test_a_replay_is_over_when_all_is_done_and_says_what_was_parked(node, tmp_path):
    """However slow the query is, and although an event needs another attempt."""
    store = es.open_store(f"sqlite:{tmp_path}/bank.db", events=BankAccountEvent, aggregate_type="BankAccount")
    seen: list[str] = []
    failures = 1

    async def project(tx: es.Transaction[Any, Any], envelope: Any) -> None:
        nonlocal failures
        await asyncio.sleep(0.01)
        if envelope.aggregate_id == "a3" and failures:
            failures -= 1
            raise ValueError("not now")
        if envelope.aggregate_id == "bad":
            raise ValueError("never")
        seen.append(envelope.aggregate_id)

    for id in (*(f"a{number}" for number in range(40)), "bad"):
        await store.append(id, [AccountOpened(id)], expected=0)
    policy = es.FailurePolicy(retries=1, first=0.5)
    query = es.DurableQuery("slow", project, store=store, into=store, idempotent=True, policy=policy)
    await query.start(node)
    await eventually(lambda: len(set(seen)) == 40, timeout=20)
    seen.clear()
    failures = 1
    status, output = await run("replay", node.name, "slow", *COOKIE)
    assert sorted(set(seen)) == sorted(f"a{number}" for number in range(40))
    assert status == 1
    assert "slow is replayed; Ctrl-C leaves it running" in output
    assert "slow: live at position 41, 1 parked" in output
    assert "slow: parked event 1 of bad: ValueError: never" in output
    seen.clear()
    status, output = await run("replay", node.name, "slow", "--aggregate", "a3", *COOKIE)
    assert (status, seen) == (0, ["a3"]), output
    await store.close()


async def test_a_replay_that_is_refused_or_fails_is_told(node, tmp_path):
    url = f"sqlite:{tmp_path}/bank.db"
    store = es.open_store(url, events=BankAccountEvent, aggregate_type="BankAccount")

    async def project(tx: es.Transaction[Any, Any], envelope: Any) -> None:
        pass

    async def undo(tx: es.Transaction[Any, Any], aggregate_id: str | None) -> None:
        raise ValueError("cannot undo")

    await es.DurableQuery("plain", project, store=store, into=store).start(node)
    options: dict[str, Any] = {"on_reset": undo, "policy": es.FailurePolicy(retries=0)}
    await es.DurableQuery("failing", project, store=store, into=store, **options).start(node)
    status, output = await run("replay", node.name, "plain", *COOKIE)
    assert (status, "has no on_reset" in output) == (1, True), output
    status, output = await run("replay", node.name, "failing", *COOKIE)
    assert (status, "failing is stopped ValueError: cannot undo" in output) == (1, True), output
    await store.close()
