"""One database for both languages: the Gleam stores' tables, rows in both directions, positions for all rows."""

from __future__ import annotations

import logging
import tracemalloc
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from pyglyn import eventsourcing as es
from pyglyn.testing.bank import AccountOpened, BankAccount, BankAccountEvent, CustomerDepositedCash
from tests.eventsourcing.stores.foreign import (
    SELECT,
    SNAPSHOT,
    Foreign,
    deposited,
    gleam_decodes,
    gleam_metadata,
    opened,
)


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Foreign:
    if request.param == "sqlite":
        return Foreign(f"sqlite:{tmp_path}/bank.db")
    return Foreign(request.getfixturevalue("postgres"))


def bank(database: Foreign, **options: Any) -> es.EventStore[Any, Any]:
    arguments = {"events": BankAccountEvent, "state": BankAccount, "aggregate_type": "BankAccount", **options}
    return es.open_store(database.url, **arguments)


@pytest.fixture
async def store(database: Foreign) -> AsyncIterator[es.EventStore[Any, Any]]:
    async with bank(database) as store:
        yield store


def _described(database: Foreign) -> list[Any]:
    """What the database itself says about the two tables."""
    if database.is_sqlite:
        columns = [database.run(f"PRAGMA table_info({table})") for table in ("event", "snapshot")]
        checks = database.run(
            "SELECT sql FROM sqlite_master WHERE name IN ('event', 'snapshot') ORDER BY name"
        )
        return [columns, [" ".join(row[0].split()).replace("( ", "(").replace(" )", ")") for row in checks]]
    columns = database.run(
        """SELECT table_name, column_name, data_type, is_nullable, column_default, ordinal_position
        FROM information_schema.columns WHERE table_schema = current_schema()
        AND table_name IN ('event', 'snapshot') ORDER BY table_name, ordinal_position"""
    )
    constraints = database.run(
        """SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint
        WHERE conrelid IN ('event'::regclass, 'snapshot'::regclass) ORDER BY conname"""
    )
    return [columns, constraints]


async def test_our_tables_are_the_gleam_stores_tables(database: Foreign, tmp_path: Path) -> None:
    async with bank(database):
        ours = _described(database)
    if database.is_sqlite:
        database = Foreign(f"sqlite:{tmp_path}/gleam.db")
    else:
        database.run("DROP TABLE event, snapshot")
    database.create_tables()
    assert ours == _described(database)


async def test_rows_of_a_gleam_service_load_here(database: Foreign, store: es.EventStore[Any, Any]) -> None:
    payloads = [opened("a"), deposited(0.1, 0.1), deposited(1e22, 1e22)]
    database.run(database.insert("a", 1, payloads, '[["meta","data"],["k",""]]'))
    loaded = await store.load("a")
    assert [envelope.payload for envelope in loaded.envelopes] == [
        AccountOpened("a"),
        CustomerDepositedCash(0.1, 0.1),
        CustomerDepositedCash(1e22, 1e22),
    ]
    envelope = loaded.envelopes[0]
    assert isinstance(envelope, es.SerializedEventEnvelop)
    assert envelope.metadata == [("meta", "data"), ("k", "")]
    names = (envelope.event_type, envelope.event_version, envelope.aggregate_type)
    assert names == ("BankAccountEvent", "1.0", "BankAccount")
    assert [(event.position, event.sequence) for event in await store.read()] == [(1, 1), (2, 2), (3, 3)]


async def test_our_rows_load_in_a_gleam_service(database: Foreign, store: es.EventStore[Any, Any]) -> None:
    events = [
        AccountOpened('"\\é\n\t🏦'),
        *(CustomerDepositedCash(n, n) for n in (10.0, 1e22, 1e-7, 0.1 + 0.2, 5e-324)),
    ]
    await store.append("a", events, expected=0, metadata=[("k", "v"), ("é", '"')])
    rows = database.run((SELECT, ("BankAccount", "a", 0)))
    assert [gleam_decodes(row[5]) for row in rows] == [
        ("account_opened", '"\\é\n\t🏦'),
        *(("customer_deposited_cash", float(n), float(n)) for n in (10, 1e22, 1e-7, 0.1 + 0.2, 5e-324)),
    ]
    assert all(gleam_metadata(row[6]) == [("k", "v"), ("é", '"')] for row in rows)
    assert [row[2:5] for row in rows] == [(n, "BankAccountEvent", "1.0") for n in range(1, 7)]
    assert rows[1][5] == '{"event-type":"customer-deposited-cash","amount":10.0,"balance":10.0}'


async def test_a_command_of_each_language_builds_on_the_others(
    database: Foreign, store: es.EventStore[Any, Any]
) -> None:
    database.execute("a", 0.0)
    await store.append("a", [CustomerDepositedCash(5.0, 5.0)], expected=1)
    database.execute("a", 2.5)
    assert (await store.load("a")).envelopes[-1].payload == CustomerDepositedCash(2.5, 7.5)


async def test_snapshots_are_shared(database: Foreign, store: es.EventStore[Any, Any]) -> None:
    await store.append(
        "a", [AccountOpened("a")], expected=0, snapshot=es.Snapshot("a", BankAccount(True, 7.0), 1, 11)
    )
    rows = database.run("SELECT aggregate_type, aggregate_id, sequence, entity, timestamp FROM snapshot")
    assert rows == [("BankAccount", "a", 1, '{"opened":true,"balance":7.0}', 11)]
    database.run((SNAPSHOT, ("BankAccount", "a", 5, '{"opened":true,"balance":8.5}', 99)))
    assert await store.latest_snapshot("a") == es.Snapshot("a", BankAccount(True, 8.5), 5, 11)


async def test_rows_from_before_get_positions_in_order(database: Foreign) -> None:
    database.create_tables()
    database.run(
        database.insert("b", 1, [opened("b")]),
        database.insert("a", 1, [opened("a"), deposited(1.0, 1.0)]),
        database.insert("b", 2, [deposited(2.0, 2.0)]),
    )
    async with bank(database) as store:
        events = await store.read()
        assert [(event.aggregate_id, event.sequence) for event in events] == [
            ("b", 1),
            ("a", 1),
            ("a", 2),
            ("b", 2),
        ]
        database.run(database.insert("c", 1, [opened("c")]))
        assert [event.aggregate_id for event in await store.read(events[-1].position)] == ["c"]
    async with bank(database) as store:
        assert len(await store.read()) == 5


async def test_old_positions_follow_each_aggregates_sequence_even_where_space_was_reused(
    database: Foreign,
) -> None:
    database.create_tables()
    database.run(database.insert("x", 1, [opened("x" * 500)] * 50), database.insert("a", 1, [opened("a")]))
    database.run(
        "DELETE FROM event WHERE aggregate_id = 'x'", *([] if database.is_sqlite else ["VACUUM event"])
    )
    database.run(database.insert("a", 2, [deposited(1.0, 1.0)] * 30), database.insert("b", 1, [opened("b")]))
    async with bank(database) as store:
        events = await store.read()
        assert [event.sequence for event in events if event.aggregate_id == "a"] == list(range(1, 32))
        assert len(events) == 32


async def test_deleted_events_leave_gaps_and_positions_are_never_used_again(
    database: Foreign, store: es.EventStore[Any, Any]
) -> None:
    database.run(database.insert("a", 1, [opened("a")] * 5))
    assert await store.last_position() == 5
    database.run("DELETE FROM event WHERE sequence >= 2")
    assert [event.position for event in await store.read()] == [1]
    database.run(database.insert("a", 2, [opened("a")]))
    assert [(event.position, event.sequence) for event in await store.read()] == [(1, 1), (6, 2)]
    database.run("DELETE FROM event" if database.is_sqlite else "TRUNCATE event")
    assert await store.read() == []
    database.run(database.insert("a", 1, [opened("a")]))
    assert [event.position for event in await store.read()] == [7]


async def test_events_of_other_types_have_positions_but_are_not_read(
    database: Foreign, store: es.EventStore[Any, Any]
) -> None:
    other = Foreign(database.url, "Order", "OrderEvent")
    database.run(
        other.insert("a", 1, ['{"x":1}'] * 700),
        database.insert("a", 1, [opened("a")]),
        other.insert("a", 701, ['{"x":1}'] * 2),
    )
    assert [event.position for event in await store.read(limit=10)] == [701]
    assert await store.read(701) == []
    assert await store.wait(701, timeout=0.1) is False
    assert await store.last_position() == 703
    async with es.open_store(database.url) as everything:
        events = await everything.read(limit=1000)
        assert len(events) == 703
        envelope = events[0].envelope
        assert isinstance(envelope, es.SerializedEventEnvelop)
        assert (envelope.aggregate_type, envelope.payload) == ("Order", {"x": 1})
        with pytest.raises(es.EventStoreError, match="without an aggregate_type"):
            await everything.append("a", [{"x": 1}], expected=0)


@pytest.mark.parametrize(
    ("payload", "metadata", "fault"),
    [
        ("{broken", "[]", "no JSON"),
        ("", "[]", "no JSON"),
        ('{"event-type":"account-closed"}', "[]", "unknown event-type 'account-closed'"),
        ('{"event-type":"account-opened","account-id":null}', "[]", "got null @ $.account_id"),
        (opened("a"), "{}", "metadata is no array"),
        (opened("a"), '[["k"]]', "metadata[0]"),
        (opened("a"), '[["k",1]]', "metadata[0]"),
        (opened("a"), "[[", "no JSON"),
    ],
)
async def test_a_row_that_does_not_decode_is_reported_and_never_skipped(
    database: Foreign, store: es.EventStore[Any, Any], payload: str, metadata: str, fault: str
) -> None:
    database.run(
        database.insert("a", 1, [opened("a")]),
        database.insert("a", 2, [payload], metadata),
        database.insert("b", 1, [opened("b")]),
    )
    with pytest.raises(es.EventDecodeError) as caught:
        await store.load("a")
    error = caught.value
    assert (error.aggregate_id, error.sequence, error.payload) == ("a", 2, payload)
    assert fault in str(error)
    with pytest.raises(es.EventDecodeError):
        await store.load_events("a")
    events = await store.read()
    assert [(event.aggregate_id, event.envelope is None) for event in events] == [
        ("a", False),
        ("a", True),
        ("b", False),
    ]
    assert events[1].error is not None
    assert (events[1].error.payload, events[1].sequence) == (payload, 2)
    assert (await store.load("b")).sequence == 1


async def test_null_metadata_is_empty_metadata(database: Foreign, store: es.EventStore[Any, Any]) -> None:
    if database.is_sqlite:  # the column allows it there
        database.run(database.insert("a", 1, [opened("a")], None))
        assert (await store.load("a")).envelopes[0].metadata == []


async def test_a_broken_snapshot_is_logged_and_done_without(
    database: Foreign, store: es.EventStore[Any, Any], caplog: pytest.LogCaptureFixture
) -> None:
    database.run(
        database.insert("a", 1, [opened("a")]), (SNAPSHOT, ("BankAccount", "a", 1, '{"opened":1}', 9))
    )
    with caplog.at_level(logging.WARNING, "pyglyn.eventsourcing"):
        loaded = await store.load("a")
    assert (loaded.snapshot, len(loaded.envelopes)) == (None, 1)
    assert "snapshot 1 of aggregate 'a' does not decode" in caplog.text
    with pytest.raises(es.EventDecodeError, match="snapshot 1 of aggregate 'a'"):
        await store.latest_snapshot("a")
    async with store.transaction() as tx:
        assert len((await tx.load("a")).envelopes) == 1


async def test_keys_that_a_database_cannot_store_are_refused(store: es.EventStore[Any, Any]) -> None:
    for key in ("a\0b", "\ud800"):
        with pytest.raises(es.EventEncodeError, match="cannot store"):
            await store.append(key, [AccountOpened("a")], expected=0)
    with pytest.raises(TypeError):
        await store.append("a", [AccountOpened("a")], expected=0, metadata=[("k", 1)])  # type: ignore[list-item]
    assert await store.read() == []
    await store.append("", [AccountOpened("\0")], expected=0, metadata=[("\0", "\0")])
    assert (await store.load("")).envelopes[0].metadata == [("\0", "\0")]


async def test_catching_up_takes_the_memory_of_a_batch_not_of_the_log(
    database: Foreign, store: es.EventStore[Any, Any]
) -> None:
    numbers = "generate_series(1, 30000) AS n (i)"
    if database.is_sqlite:
        counting = "SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 30000"
        numbers = f"(WITH RECURSIVE n (i) AS ({counting}) SELECT i FROM n)"
    payload = deposited(1.0, 1.0).replace("}", ',"padding":"' + "x" * 300 + '"}')
    columns = f"'BankAccount', 'a', i, 'BankAccountEvent', '1.0', '{payload}', '[]'"
    database.run(f"INSERT INTO event SELECT {columns} FROM {numbers}")
    seen = highest = 0
    tracemalloc.start()
    try:
        async for batch in store.follow(batch=500):
            seen += len(batch)
            del batch
            if seen == 5000:
                tracemalloc.reset_peak()
            if seen == 30_000:
                highest = tracemalloc.get_traced_memory()[1]
                break
    finally:
        tracemalloc.stop()
    assert highest < 8 * 2**20
