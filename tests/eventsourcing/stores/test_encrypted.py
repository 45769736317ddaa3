"""Stores with a key for each aggregate keep the contract, and forget what they are told to."""

from __future__ import annotations

import asyncio
import contextlib
import pickle
import sqlite3
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from pyglyn import eventsourcing as es
from pyglyn.errors import EntityNotFound, EventStoreError, Forgotten
from pyglyn.eventsourcing.domain.evolution import Several
from pyglyn.eventsourcing.stores import care
from pyglyn.eventsourcing.stores.keys import Keys, MemoryKeys
from pyglyn.eventsourcing.stores.selection import Selection
from pyglyn.eventsourcing.stores.wrapped import unwrapped
from pyglyn.testing import eventually
from pyglyn.testing.bank import (
    BANK_ACCOUNT,
    AccountOpened,
    BankAccount,
    BankAccountEvent,
    CustomerDepositedCash,
    DepositMoney,
    OpenAccount,
    apply,
    handle,
)
from pyglyn.testing.event_store_contract import opened
from pyglyn.testing.eventsourcing import EventStoreContract
from tests.eventsourcing.handles import bank_at

SECRET = "somebody's secret"


def bank(url: str, keys: Keys | str) -> es.EncryptedStore[Any, Any]:
    store = es.open_store(
        url, events=BankAccountEvent, state=BankAccount, aggregate_type="BankAccount", keys=keys
    )
    assert isinstance(store, es.EncryptedStore)
    return store


class TestMemoryStoreWithKeys(EventStoreContract):
    shared = False

    @pytest.fixture
    def open_store(self) -> Callable[[], es.EventStore[Any, Any]]:
        return lambda: bank("memory:", "memory:")


class TestSqliteStoreWithKeys(EventStoreContract):
    @pytest.fixture
    def open_store(self, tmp_path: Path) -> Callable[[], es.EventStore[Any, Any]]:
        return lambda: bank(f"sqlite:{tmp_path}/bank.db", f"sqlite:{tmp_path}/keys.db")


class TestPostgresStoreWithKeys(EventStoreContract):
    @pytest.fixture
    def open_store(self, postgres: str) -> Callable[[], es.EventStore[Any, Any]]:
        return lambda: bank(postgres, postgres)


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], es.EncryptedStore[Any, Any]]:
    """Return what opens a store; each call one on the same database, but in memory."""
    if request.param == "memory":
        return lambda: bank("memory:", "memory:")
    if request.param == "sqlite":
        return lambda: bank(f"sqlite:{tmp_path}/bank.db", f"sqlite:{tmp_path}/keys.db")
    url = request.getfixturevalue("postgres")
    return lambda: bank(url, url)


@pytest_asyncio.fixture
async def store(make: Any) -> AsyncIterator[es.EncryptedStore[Any, Any]]:
    async with make() as store:
        yield store


async def test_what_is_forgotten_keeps_its_places_and_has_no_effect_any_more(store):
    snapshot = es.Snapshot("a", BankAccount(True, 1.0), 2, 1)
    await store.append("a", opened(1.0), expected=0, snapshot=snapshot)
    await store.append("b", opened(2.0), expected=0)
    await store.forget("a")
    assert [each.payload for each in await store.load_events("a")] == [Several(())] * 2
    assert (await store.load("a")).snapshot is None
    assert await store.latest_snapshot("a") is None
    read = await store.read()
    assert [(event.aggregate_id, event.sequence, event.error) for event in read] == [
        ("a", 1, None),
        ("a", 2, None),
        ("b", 1, None),
        ("b", 2, None),
    ]
    assert [event.position for event in (await store.scan(Selection((AccountOpened,)))).events] == [3]
    assert [each.payload for each in await store.load_events("b")] == opened(2.0)
    with pytest.raises(Forgotten):
        await store.append("a", [CustomerDepositedCash(1.0, 1.0)], expected=2)
    await store.forget("a")
    await store.forget("never there")
    with pytest.raises(Forgotten):
        await store.append("never there", opened(), expected=0)


async def test_copies_in_the_outbox_and_among_what_is_parked_go_too(store):
    for id in ("a", "b"):
        await store.append(id, opened(), expected=0, outbox=[es.OutboxMessage("t", f"{SECRET} of {id}")])
        async with store.transaction() as tx:
            messages = [es.OutboxMessage("t", f"more of {id}")]
            await tx.append(id, [CustomerDepositedCash(1.0, 1.0)], expected=1, outbox=messages)
        parked = es.ParkedEvent(
            query="q", aggregate_id=id, sequence=1, raw=SECRET.encode(), error="no", format="etf"
        )
        await store.park(parked)
    inside = await store.underlying.take_outbox("t", lease_s=0.0)
    assert not [entry for entry in inside if " of " in entry.body]
    assert not [event for event in await store.underlying.parked("q") if SECRET.encode() in event.raw]
    bodies = [entry.body for entry in await store.take_outbox("t", lease_s=0.0)]
    assert bodies == [f"{SECRET} of a", "more of a", f"{SECRET} of b", "more of b"]
    assert [event.raw for event in await store.parked("q")] == [SECRET.encode()] * 2
    await store.forget("a")
    bodies = [entry.body for entry in await store.take_outbox("t", limit=2, lease_s=0.0)]
    assert bodies == [f"{SECRET} of b", "more of b"]
    assert await store.outbox_size() == 2
    assert [event.aggregate_id for event in await store.parked("q")] == ["b"]


async def test_what_comes_to_be_parked_of_an_aggregate_that_was_forgotten_is_not_kept(store):
    await store.append("a", opened(), expected=0)
    await store.forget("a")
    await store.park(
        es.ParkedEvent(query="q", aggregate_id="a", sequence=1, raw=SECRET.encode(), error="no", format="etf")
    )
    assert await store.underlying.parked("q") == []


async def test_who_asked_for_a_key_before_it_was_forgotten_does_not_bring_it_back(store, monkeypatch):
    await store.append("a", opened(), expected=0)
    monkeypatch.setattr(store.ring, "_known", type(store.ring._known)())
    find, asked, go_on = store.ring.keys.find, asyncio.Event(), asyncio.Event()

    async def slowly(aggregate_type: str, ids: Any) -> Any:
        found = await find(aggregate_type, ids)
        asked.set()
        await go_on.wait()
        return found

    monkeypatch.setattr(store.ring.keys, "find", slowly)
    fetching = asyncio.create_task(store.ring.fetch(["a"]))
    await asked.wait()
    await store.ring.forget("a")
    go_on.set()
    await fetching
    assert store.ring.key("a") is None


async def test_another_one_that_forgets_is_noticed_within_a_minute(make, monkeypatch):
    one, other = make(), make()
    if one.underlying.__class__ is es.MemoryStore:
        pytest.skip("a memory store is one object")
    async with one, other:
        await one.append("a", opened(), expected=0)
        await other.forget("a")
        assert [each.payload for each in await one.load_events("a")] == opened()
        monkeypatch.setattr(one.ring, "_known", type(one.ring._known)())  # its minute is over
        assert [each.payload for each in await one.load_events("a")] == [Several(())]


async def test_of_an_aggregate_that_was_archived_and_forgotten_no_event_is_missed(tmp_path):
    url = f"sqlite:{tmp_path}/bank.db"
    async with bank(url, f"sqlite:{tmp_path}/keys.db") as store:
        executor = es.CommandExecutor(store, BANK_ACCOUNT, snapshot_config=es.SnapshotConfig(3))
        await executor.execute("a", OpenAccount("a"))
        for _ in range(4):
            await executor.execute("a", DepositMoney(1.0))
        assert care.archive(url, f"sqlite:{tmp_path}/old.db", until=5) == 2
        await store.forget("a")
        assert await executor.load_aggregate("a") == es.Aggregate("a", BankAccount(), 5)
        with pytest.raises(Forgotten):
            await executor.execute("a", OpenAccount("a"))


async def test_a_service_and_a_query_take_an_aggregate_that_was_forgotten_for_an_empty_one(node, store):
    seen: list[Any] = []

    async def effect(aggregate_id: str, envelopes: list[Any]) -> None:
        seen.extend(each.payload for each in envelopes)

    spec = es.service("bank", store, handle=handle, apply=apply, empty_state=BankAccount())
    await es.start(node, spec)
    accounts = bank_at(node)
    await accounts.execute("a", OpenAccount("a"))
    await accounts.execute("a", DepositMoney(1.0))
    await store.forget("a")
    assert await accounts.load_aggregate("a") == es.Aggregate("a", BankAccount(), 2)
    with pytest.raises(EventStoreError, match="forgotten"):
        await accounts.execute("a", OpenAccount("a"))
    with pytest.raises(EntityNotFound):
        await accounts.load_aggregate("c")
    await accounts.execute("b", OpenAccount("b"))
    query = es.DurableQuery("effects", effect, store=store, checkpoints="memory:")
    await query.start(node)
    await eventually(lambda: seen == [AccountOpened("b")])
    await es.wait_for(node, "effects", 3, timeout=60)


async def test_nothing_that_is_secret_is_in_the_files(tmp_path):
    store = es.open_store(f"sqlite:{tmp_path}/bank.db", aggregate_type="t", keys=f"sqlite:{tmp_path}/keys.db")
    assert isinstance(store, es.EncryptedStore)
    async with store:
        event = {"event-type": "opened", "by": SECRET}
        snapshot = es.Snapshot("a", {"by": SECRET}, 1, 1)
        messages = [es.OutboxMessage("t", SECRET)]
        await store.append("a", [event], expected=0, snapshot=snapshot, outbox=messages)
        [read] = await store.read()
        assert (read.envelope.payload, SECRET in read.raw) == (event, False)
        with contextlib.closing(sqlite3.connect(tmp_path / "keys.db")) as keys:
            [(key,)] = keys.execute("SELECT key FROM pyglyn_key").fetchall()
        files = [file for file in tmp_path.iterdir() if not file.name.startswith("keys")]
        assert files
        assert not [file for file in files if SECRET.encode() in file.read_bytes()]
        assert key in (tmp_path / "keys.db").read_bytes()
        await store.forget("a")
        assert not [file for file in tmp_path.iterdir() if key in file.read_bytes()]


async def test_a_ciphertext_stands_for_no_other_event(tmp_path):
    path = tmp_path / "bank.db"
    async with bank(f"sqlite:{path}", f"sqlite:{tmp_path}/keys.db") as store:
        await store.append("a", opened(1.0, 2.0), expected=0)
        with contextlib.closing(sqlite3.connect(path)) as other, other:
            other.execute(
                "UPDATE event SET payload = (SELECT payload FROM event WHERE sequence = 2) WHERE sequence = 3"
            )
            other.execute(
                "UPDATE event SET payload = replace(payload, 'pyglyn-encrypted\":\"', 'pyglyn-encrypted\":\"AAAA')"
                " WHERE sequence = 1"
            )
        assert [event.error is None for event in await store.read()] == [False, True, False]
        with pytest.raises(es.EventDecodeError):
            await store.load("a")


async def test_events_from_before_there_were_keys_are_read_still(make, tmp_path):
    store = make()
    if store.underlying.__class__ is es.MemoryStore:
        pytest.skip("a memory store is one object")
    plain = store.underlying.__class__(
        getattr(store.underlying, "path", None) or store.underlying.conninfo,
        es.RowCodec(aggregate_type="BankAccount", events=BankAccountEvent, state=BankAccount),
    )
    async with plain, store:
        await plain.append("a", opened(), expected=0)
        await store.append("a", [CustomerDepositedCash(1.0, 1.0)], expected=1)
        assert [each.payload for each in await store.load_events("a")] == opened(1.0)
        [_, sealed] = await plain.read()
        assert sealed.error is not None


async def test_lost_keys_are_no_forgotten_ones(make, node):
    async with make() as store:
        if store.underlying.__class__ is es.MemoryStore:
            pytest.skip("a memory store keeps objects")
        await store.append("a", opened(), expected=0)
        await store.park(
            es.ParkedEvent(query="q", aggregate_id="x", sequence=1, raw=b"x", error="", format="etf")
        )
        assert [event.raw for event in await store.parked("q")] == [b"x"]
        store.ring.keys = MemoryKeys()
        store.ring._known.clear()
        for read in (store.read, lambda: store.load("a"), lambda: store.load_events("a")):
            with pytest.raises(EventStoreError, match="are the keys lost"):
                await read()


def test_a_store_with_keys_travels_and_what_only_tells_is_looked_through(tmp_path):
    store = bank(f"sqlite:{tmp_path}/bank.db", f"sqlite:{tmp_path}/keys.db")
    again = pickle.loads(pickle.dumps(store))
    assert isinstance(again, es.EncryptedStore)
    assert again.underlying.path == store.underlying.path
    assert unwrapped(store) is store


@pytest.mark.parametrize(
    ("url", "keys", "says"),
    [
        ("sqlite:{0}/a.db", "sqlite:{0}/../{1}/a.db", "a file of their own"),
        ("sqlite:{0}/a.db", "redis:", "keys are in"),
        ("sqlite:{0}/a.db", "sqlite:", "keys are in"),
    ],
)
def test_keys_in_a_wrong_place_are_refused(tmp_path, url, keys, says):
    with pytest.raises(EventStoreError, match=says):
        bank(url.format(tmp_path), keys.format(tmp_path, tmp_path.name))
    with pytest.raises(EventStoreError, match="aggregate_type"):
        es.open_store("memory:", keys=MemoryKeys())


async def test_of_many_that_read_at_once_each_fetches_what_it_needs(make):
    async with make() as store:
        for number in range(30):
            await store.append(f"a{number}", opened(), expected=0)
        store.ring._known.clear()
        found = await asyncio.gather(*(store.read() for _ in range(5)))
        assert [len(each) for each in found] == [30] * 5
        assert all(event.error is None for each in found for event in each)
