"""`pyglyn store`: migrations, copies between any two databases, checks, archives, figures."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
from click.testing import CliRunner

from pyglyn import eventsourcing as es
from pyglyn.cli.store import store as store_command
from pyglyn.eventsourcing.stores import care, care_database, layout, managing
from pyglyn.testing.bank import BANK_ACCOUNT, BankAccount, BankAccountEvent, DepositMoney, OpenAccount
from tests.eventsourcing.stores.foreign import Foreign

pytestmark = pytest.mark.usefixtures("own_logging")  # commands set it up, here in this OS process


def bank(url: str) -> es.EventStore[Any, Any]:
    return es.open_store(url, events=BankAccountEvent, state=BankAccount, aggregate_type="BankAccount")


def pyglyn_store(*arguments: str, status: int = 0) -> str:
    result = CliRunner().invoke(store_command, arguments)
    assert result.exit_code == status, result.output
    return str(result.output)


MANAGED: dict[str, Any] = {
    "manager": "m",
    "instance": "i",
    "service": "bank",
    "aggregate_id": "a",
    "command": bytes(range(256)),
    "metadata": [("by", "Zoë")],
}


async def fill(url: str, accounts: int = 3, deposits: int = 5) -> None:
    async with bank(url) as store:
        executor = es.CommandExecutor(store, BANK_ACCOUNT, snapshot_config=es.SnapshotConfig(4))
        for n in range(accounts):
            await executor.execute(f"a{n}", OpenAccount("ü"), [("by", "Zoë")])
        for _ in range(deposits):
            for n in range(accounts):
                await executor.execute(f"a{n}", DepositMoney(1.5))
        await store.read()
        if not await store.checkpoints():
            await store.save_checkpoint("q", 4)
            await store.set_paused("q", True)
            park = es.ParkedEvent(
                query="q", aggregate_id="a1", sequence=2, raw=bytes(range(256)), error="why"
            )
            await store.park(park)
            await store.put_outbox([es.OutboxMessage("t", f"m{n}") for n in range(3)])
            async with store.transaction() as tx:
                await tx.save_manager_state("m", "i", '{"ü":1}')
                for n in (2, 1):
                    await tx.issue_command(managing.IssuedCommand(command_id=f"c{n}", **MANAGED))
                await tx.set_timer(managing.Timer(name="d", due_at=5.0, **MANAGED))


async def contents(url: str) -> list[Any]:
    async with bank(url) as store:
        parked = [attrs.evolve(event, id=None) for event in await store.parked()]
        outbox = await store.take_outbox("t", lease_s=0)
        snapshots = [await store.latest_snapshot(f"a{n}") for n in range(3)]
        checkpoints = [
            (each.query, each.position, each.paused, each.version) for each in await store.checkpoints()
        ]
        managed = [*await store.issued_commands("m"), *await store.timers("m")]
        return [
            [await store.manager_state("m", "i"), *(attrs.evolve(each, id=0) for each in managed)],
            await store.read(limit=1000),
            snapshots,
            checkpoints,
            parked,
            [(entry.topic, entry.body) for entry in outbox],
        ]


@pytest.fixture
def address(tmp_path: Path, request: pytest.FixtureRequest) -> Callable[[str, str], str]:
    def make(kind: str, name: str) -> str:
        if kind == "sqlite":
            return f"sqlite:{tmp_path}/{name}.db"
        return str(request.getfixturevalue("postgres" if name == "source" else "second_schema"))

    return make


KINDS = ["sqlite", "postgres"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("into", KINDS)
async def test_a_copy_has_everything_and_goes_on_where_it_was(
    kind: str, into: str, address: Callable[[str, str], str]
) -> None:
    source, target = address(kind, "source"), address(into, "target")
    await fill(source)
    Foreign(source).run(
        "DELETE FROM event WHERE aggregate_id = 'a2' AND sequence = 6"
    )  # positions have a gap
    pages = 0

    def broken_off(done: int, total: int) -> None:
        nonlocal pages
        pages += 1
        if pages == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        care.copy(source, target, progress=broken_off, page=4)
    assert care.stats(target)["events"] == 8
    assert pyglyn_store("copy", source, target) == "9 events copied, 8 were there; 3 snapshots\n"
    assert await contents(target) == await contents(source)
    assert pyglyn_store("verify", target) == "nothing is wrong\n"
    # Both go on from there, and what has come since is copied by the next run.
    await fill(source, accounts=0)
    async with bank(source) as store:
        await store.append("new", [BANK_ACCOUNT.decide(BankAccount(), OpenAccount("x"))[0]], expected=0)
    assert pyglyn_store("copy", source, target) == "1 events copied, 17 were there; 3 snapshots\n"
    assert await contents(target) == await contents(source)
    async with bank(target) as store:
        executor = es.CommandExecutor(store, BANK_ACCOUNT)
        last = await store.last_position()
        await executor.execute("a0", DepositMoney(1.0))
        assert [event.position for event in await store.read(last)] == [last + 1]
    with pytest.raises(es.EventStoreError, match="copy into an empty store"):
        care.copy(source, target)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_copy_of_a_store_in_use_is_that_of_one_moment(
    kind: str, address: Callable[[str, str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between any two tables somebody writes: an event, its effect, and the checkpoint, in one transaction."""
    source, target = address(kind, "source"), address("sqlite", "target")
    await fill(source)
    async with bank(source) as store:
        await store.save_checkpoint("q", 18)
    foreign, count, copy_table = Foreign(source), 0, care._copy_table

    def write() -> None:
        nonlocal count
        count += 1
        foreign.run(
            "BEGIN",
            foreign.insert(
                "more", count, ['{"event-type":"customer-deposited-cash","amount":1.0,"balance":1.0}']
            ),
            "UPDATE pyglyn_checkpoint SET position = position + 1, version = version + 1",
            f"UPDATE pyglyn_manager SET state = '{count}'",
            "COMMIT",
        )

    def written_between(*args: Any) -> int:
        write()
        return copy_table(*args)

    monkeypatch.setattr(care, "_copy_table", written_between)
    care.copy(source, target, progress=lambda done, total: write() if count < 3 else None)
    assert count > 10
    async with bank(target) as store:
        [checkpoint] = await store.checkpoints()
        events = await store.read(checkpoint.position - 1, limit=1000)
        assert [event.position for event in events] == [checkpoint.position]
        assert await store.manager_state("m", "i") == str(events[0].sequence)
    assert pyglyn_store("verify", target) == "nothing is wrong\n"


async def test_what_is_committed_while_a_store_is_verified_is_no_fault(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In PostgreSQL it has no position before somebody reads."""
    await fill(url)
    foreign, count, run = Foreign(url), 0, care_database._Postgres.run

    def written_between(self: Any, statement: str, parameters: Any = ()) -> Any:
        nonlocal count
        if "WHERE p.position IS NULL" in statement or ("pyglyn_is_pending" in statement and count < 5):
            count += 1
            payload = '{"event-type":"customer-deposited-cash","amount":1.0,"balance":1.0}'
            foreign.run(foreign.insert("more", count, [payload]))
        return run(self, statement, parameters)

    monkeypatch.setattr(care_database._Postgres, "run", written_between)
    assert list(care.verify(url)) == []
    assert count == (0 if url.startswith("sqlite") else 6)


async def test_a_copy_into_something_else_is_refused(tmp_path: Path) -> None:
    one, two = f"sqlite:{tmp_path}/one.db", f"sqlite:{tmp_path}/two.db"
    await fill(one)
    await fill(two, accounts=2)
    with pytest.raises(es.EventStoreError, match="events that are not from there"):
        care.copy(one, two)
    with pytest.raises(es.EventStoreError, match="memory"):
        care.copy(one, "memory:")
    (tmp_path / "empty.db").touch()
    with pytest.raises(es.EventStoreError, match="no tables of ours"):
        care.copy(f"sqlite:{tmp_path}/empty.db", two)


@pytest.mark.parametrize("command", [care.migrate, care.stats, lambda url: list(care.verify(url))])
def test_a_file_that_is_not_there_is_refused_and_not_made(
    command: Callable[[str], Any], tmp_path: Path
) -> None:
    with pytest.raises(es.EventStoreError, match=r"there is no file .*nothing\.db"):
        command(f"sqlite:{tmp_path}/nothing.db")
    assert list(tmp_path.iterdir()) == []


async def test_a_schema_that_is_not_there_is_refused(tmp_path: Path, postgres: str) -> None:
    source = f"sqlite:{tmp_path}/bank.db"
    await fill(source)
    elsewhere = re.sub(r"search_path(%3D|=)\w+", r"search_path\1nowhere", postgres)
    assert elsewhere != postgres
    with pytest.raises(es.EventStoreError, match="the search_path names no schema that exists"):
        care.copy(source, elsewhere)


async def test_verify_finds_what_is_wrong(url: str) -> None:
    await fill(url)
    assert pyglyn_store("verify", url) == "nothing is wrong\n"
    database = Foreign(url)
    database.run(
        "DELETE FROM event WHERE aggregate_id = 'a0' AND sequence = 3",
        "DELETE FROM event WHERE aggregate_id = 'a1' AND sequence = 4",
        "DELETE FROM event WHERE aggregate_id = 'a1' AND sequence = 5",
        "DELETE FROM event WHERE aggregate_id = 'a1' AND sequence = 6",
        "UPDATE event SET payload = '{' WHERE aggregate_id = 'a2' AND sequence = 2",
        "DELETE FROM pyglyn_position WHERE aggregate_id = 'a2' AND sequence = 3",
        "UPDATE pyglyn_position SET position = 1000 WHERE aggregate_id = 'a2' AND sequence = 4",
        "UPDATE pyglyn_position SET sequence = 9 WHERE aggregate_id = 'a2' AND sequence = 6",
    )
    found = pyglyn_store("verify", url, status=1).splitlines()
    assert found[:-1] == [
        "BankAccount a2 #3 has no position: readers by position never get it",
        "BankAccount a2 #6 has no position: readers by position never get it",
        "position 18 is for a2 #9, which is not there",
        "BankAccount a0 has 5 events from #1 to #6",
        "BankAccount a2 #5 is at 15, before its predecessor",
        "the snapshot of BankAccount a1 is of #4, which is not there",
    ]
    assert "position 6: " in found[-1]
    assert "no JSON" in found[-1]


@pytest.mark.parametrize("into", KINDS)
async def test_an_archive_takes_what_snapshots_make_needless(
    into: str, tmp_path: Path, address: Callable[[str, str], str]
) -> None:
    url, target = address("sqlite", "source"), address(into, "target")
    await fill(url)
    with pytest.raises(es.EventStoreError, match="query 'q' is at 4: it would miss events; archive until 4"):
        care.archive(url, target, until=8)
    async with bank(url) as store:
        await store.save_checkpoint("q", 8)
        parked = es.ParkedEvent(query="q", aggregate_id="a0", sequence=1, position=1, raw=b"{}", error="why")
        await store.park(parked)
        with pytest.raises(es.EventStoreError, match="the event at 1 is parked by query 'q': drive it first"):
            care.archive(url, target, until=8)
        assert len(await store.read(limit=100)) == 18
        [unparked] = await store.parked("q", aggregate_id="a0")
        async with store.transaction() as tx:
            assert await tx.unpark(unparked.id or 0)
    before = await contents(url)
    assert pyglyn_store("archive", url, target, "--until", "8") == "8 events archived\n"
    assert await contents(target) == before
    async with bank(url) as store:
        await store.save_checkpoint("q", 100)
        kept = await store.read(limit=100)
        assert kept == [event for event in before[1] if event.position > 8]
        executor = es.CommandExecutor(store, BANK_ACCOUNT, snapshot_config=es.SnapshotConfig(4))
        assert (await executor.load_aggregate("a0")).entity.balance == 7.5
        assert (await executor.execute("a0", DepositMoney(1.0))).aggregate.sequence == 7
        without = es.CommandExecutor(store, BANK_ACCOUNT)
        with pytest.raises(es.EventStoreError, match="events 1 to 3 of a0 are not in the store"):
            await without.load_aggregate("a0")
    assert pyglyn_store("verify", url) == "nothing is wrong\n"
    assert pyglyn_store("archive", url, target, "--until", "100") == "1 events archived\n"
    assert pyglyn_store("archive", url, target, "--until", "100") == (
        "0 events archived: up to there none lies before a snapshot of its aggregate\n"
    )
    assert care.stats(target)["events"] == 19


async def test_stats_count_what_is_there(url: str) -> None:
    await fill(url)
    found = json.loads(pyglyn_store("stats", url, "--json"))
    assert found.pop("recorded")[0] > 1.7e9
    assert found == {
        "version": layout.VERSION,
        "events": 18,
        "last_position": 18,
        "types": {"BankAccount": {"events": 18, "aggregates": 3}},
        "snapshots": 3,
        "queries": {"q": {"position": 4, "behind": 14, "paused": True}},
        "parked": 1,
        "outbox": 3,
        "commands": 2,
        "deadlines": 1,
        "facts": None,
    }
    shown = re.sub(r"\d{4}-\S+Z", "…", pyglyn_store("stats", url))
    assert [re.split(r"  +", line) for line in shown.splitlines()] == [
        ["what", "count"],
        ["events", "18", "recorded … to …"],
        ["snapshots", "3"],
        ["parked", "1"],
        ["outbox", "3"],
        ["commands", "2"],
        ["deadlines", "1"],
        ["side tables", str(layout.VERSION), "their version"],
        [""],
        ["aggregate type", "events", "aggregates"],
        ["BankAccount", "18", "3"],
        [""],
        ["query", "position", "behind"],
        ["q", "4", "14", "paused"],
    ]


# --- migrations ---------------------------------------------------------------------------------------------


def _make_version_1(url: str) -> None:
    if url.startswith("sqlite:"):
        connection = sqlite3.connect(url.removeprefix("sqlite:"))
        connection.executescript(layout.step("sqlite", 1))
        connection.close()
        return
    schema = Foreign(url).run("SELECT quote_ident(current_schema())")[0][0]
    Foreign(url).run(layout.step("postgres", 1).replace("{schema}", schema))


async def test_an_older_version_is_refused_until_it_is_migrated(url: str) -> None:
    _make_version_1(url)
    database = Foreign(url)
    payload = '{"event-type":"account-opened","account-id":"x"}'
    database.run(database.insert("a", 1, [payload, payload]))
    with pytest.raises(es.EventStoreError, match=r"have version 1, .* run `pyglyn store migrate URL`"):
        await bank(url).start()
    with pytest.raises(es.EventStoreError, match="have version 1"):
        care.stats(url)
    assert pyglyn_store("migrate", url) == f"from version 1 to {layout.VERSION}\n"
    assert pyglyn_store("migrate", url) == f"version {layout.VERSION}\n"
    async with bank(url) as store:
        assert [event.sequence for event in await store.read()] == [1, 2]
        kind: layout.Kind = "sqlite" if url.startswith("sqlite") else "postgres"
        layout.check_columns(kind, _columns(url))


def _columns(url: str) -> dict[str, list[str]]:
    from tests.eventsourcing.stores.test_layout import columns

    return columns(url)


async def test_a_step_that_fails_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"sqlite:{tmp_path}/a.db"
    _make_version_1(url)
    before = _columns(url)
    real = layout.step
    monkeypatch.setattr(layout, "step", lambda kind, version: real(kind, version) + "DROP TABLE not_there;\n")
    with pytest.raises(es.EventStoreError, match="not_there"):
        care.migrate(url)
    monkeypatch.undo()
    assert _columns(url) == before
    assert care.migrate(url) == (1, layout.VERSION)
