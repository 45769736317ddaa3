"""The contract every event store keeps, as a test class to inherit. Needs pytest and pytest-asyncio, which
may be in strict mode; no other configuration.

::

    import pytest

    from pyglyn.testing.bank import BankAccount, BankAccountEvent
    from pyglyn.testing.eventsourcing import EventStoreContract

    class TestMyStore(EventStoreContract):
        @pytest.fixture
        def open_store(self, tmp_path):
            # Each call returns a new store object on the same, at first empty, database.
            return lambda: MyStore(tmp_path / "events", events=BankAccountEvent, state=BankAccount)

The events and the entity are those of :mod:`pyglyn.testing.bank`. Stores without side tables
(``has_side_tables = False``) skip those tests, stores that live in one object (``shared = False`` on the test
class) those with two objects, and stores that keep objects as they are (``encodes = False``) those with
values that cannot be written.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeAlias

import attrs
import pytest
import pytest_asyncio

from pyglyn.errors import (
    CheckpointConflict,
    CommandRepeated,
    DomainError,
    EntityNotFound,
    EventEncodeError,
    EventStoreError,
    TransactionRolledBack,
    VersionConflict,
)
from pyglyn.eventsourcing import (
    Checkpoint,
    CommandExecutor,
    CommandRecord,
    Cursor,
    EventStore,
    OutboxMessage,
    ParkedEvent,
    RecordedEvent,
    Replay,
    Snapshot,
    SnapshotConfig,
)
from pyglyn.eventsourcing.stores.selection import Selection, part_of
from pyglyn.eventsourcing.stores.store import Isolation
from pyglyn.testing.bank import (
    BANK_ACCOUNT,
    AccountOpened,
    BankAccount,
    BankAccountEvent,
    CustomerDepositedCash,
    DepositMoney,
    OpenAccount,
    WithDrawMoney,
)

Store: TypeAlias = EventStore[BankAccountEvent, BankAccount]


def opened(*amounts: float) -> list[BankAccountEvent]:
    """Return the events of an account that was opened and got these deposits."""
    events: list[BankAccountEvent] = [AccountOpened("a")]
    balance = 0.0
    for amount in amounts:
        balance += amount
        events.append(CustomerDepositedCash(amount, balance))
    return events


ISOLATIONS: list[Isolation] = ["serializable", "read committed"]


async def _in_transaction(store: Store, call: Callable[[Any], Awaitable[object]]) -> None:
    async with store.transaction() as tx:
        await call(tx)


def _is_conflict(outcome: object) -> bool:
    return isinstance(outcome, VersionConflict | TransactionRolledBack)


def _keys(events: list[RecordedEvent[Any]]) -> list[tuple[str, int]]:
    return [(event.aggregate_id, event.sequence) for event in events]


async def _scanned(store: Store, selection: Selection) -> list[RecordedEvent[Any]]:
    """Return all that is selected, read two at a time."""
    found: list[RecordedEvent[Any]] = []
    after, more = 0, True
    while more:
        scanned = await store.scan(selection, after, limit=2)
        assert all(after < event.position <= scanned.end for event in scanned.events)
        found += scanned.events
        after, more = scanned.end, scanned.more
    return found


async def _marks(store: Store) -> str:
    """Return the placeholder of the driver."""
    async with store.transaction() as tx:
        try:
            await tx.execute("SELECT ? + 1", (1,))
        except EventStoreError:
            pass
        else:
            return "?"
    return "%s"


def _payload(event: RecordedEvent[Any]) -> Any:
    assert event.envelope is not None
    return event.envelope.payload


@pytest.mark.asyncio
class EventStoreContract:
    """Inherit it, and give the fixture ``open_store``."""

    shared = True
    encodes = True

    @pytest.fixture
    def open_store(self) -> Callable[[], Store]:
        raise NotImplementedError("give a fixture open_store that returns a function")

    @pytest_asyncio.fixture
    async def store(self, open_store: Callable[[], Store]) -> AsyncIterator[Store]:
        async with open_store() as store:
            yield store

    @pytest_asyncio.fixture
    async def other(self, store: Store, open_store: Callable[[], Store]) -> AsyncIterator[Store]:
        if not self.shared:
            pytest.skip("this store lives in one object")
        async with open_store() as other:
            yield other

    @pytest.fixture
    def side_tables(self, store: Store) -> Store:
        if not store.has_side_tables:
            pytest.skip("this store has no side tables")
        return store

    # --- events --------------------------------------------------------------------------------------

    async def test_events_come_back_as_they_were_with_sequence_and_metadata(self, store: Store) -> None:
        events = opened(0.1, 1e22, 5e-324, 123456789.123)
        written = await store.append(
            "Ünicode ' \" % \\ 🏦", events, expected=0, metadata=[("k", "v"), ("k", "")]
        )
        loaded = await store.load("Ünicode ' \" % \\ 🏦")
        assert loaded.envelopes == written
        assert [envelope.payload for envelope in written] == events
        assert [envelope.sequence for envelope in written] == [1, 2, 3, 4, 5]
        assert all(envelope.metadata == [("k", "v"), ("k", "")] for envelope in loaded.envelopes)
        assert loaded.snapshot is None
        assert loaded.sequence == 5

    async def test_an_unknown_aggregate_is_empty(self, store: Store) -> None:
        loaded = await store.load("nobody")
        assert (loaded.snapshot, loaded.envelopes, loaded.sequence) == (None, [], 0)
        assert await store.load_events("nobody") == []
        assert await store.latest_snapshot("nobody") is None

    async def test_no_events_write_nothing(self, store: Store) -> None:
        assert await store.append("a", [], expected=0) == []
        assert await store.append("a", [], expected=7) == []
        assert await store.read() == []

    @pytest.mark.parametrize("expected", [0, 1, 3, 100])
    async def test_an_unexpected_sequence_is_refused_and_nothing_written(
        self, store: Store, expected: int
    ) -> None:
        await store.append("a", opened(1.0), expected=0)
        with pytest.raises(VersionConflict) as caught:
            await store.append("a", [CustomerDepositedCash(2.0, 3.0)], expected=expected)
        assert (caught.value.aggregate_id, caught.value.expected, caught.value.actual) == ("a", expected, 2)
        assert (await store.load("a")).sequence == 2
        assert len(await store.read()) == 2

    async def test_of_many_writers_with_one_expectation_one_succeeds(self, store: Store) -> None:
        appends = [store.append("a", opened(float(n + 1)), expected=0) for n in range(20)]
        outcomes = await asyncio.gather(*appends, return_exceptions=True)
        winners = [outcome for outcome in outcomes if isinstance(outcome, list)]
        assert len(winners) == 1
        assert sum(isinstance(outcome, VersionConflict) for outcome in outcomes) == 19
        assert (await store.load("a")).envelopes == winners[0]

    async def test_a_batch_with_an_event_of_another_type_writes_nothing(self, store: Store) -> None:
        if not self.encodes:
            pytest.skip("this store keeps objects")
        bad: Any = "no event"
        with pytest.raises(EventEncodeError):
            await store.append("a", [AccountOpened("a"), bad], expected=0)
        assert await store.read() == []

    async def test_the_position_of_an_event_is_the_one_readers_get(self, store: Store) -> None:
        await store.append("b", opened(), expected=0)
        await store.append("a", opened(1.0, 2.0), expected=0)
        assert await store.position_of("a", 3) == await store.last_position()  # before anybody has read
        read = {(event.aggregate_id, event.sequence): event.position for event in await store.read()}
        assert {key: await store.position_of(*key) for key in read} == read
        for missing in (("a", 0), ("a", 4), ("a", -1), ("c", 1)):
            assert await store.position_of(*missing) is None

    async def test_a_statement_is_run_for_each_row_of_parameters(self, store: Store) -> None:
        if not store.has_sql:
            pytest.skip("this store has no SQL")
        async with store.transaction() as tx:
            await tx.execute("CREATE TABLE numbers (n int PRIMARY KEY, square int)")
        marks = await _marks(store)
        insert = f"INSERT INTO numbers VALUES ({marks}, {marks})"

        def plainly(cursor: Cursor) -> None:
            cursor.execute_many(insert, ((n, n * n) for n in range(100, 103)))

        async with store.transaction() as tx:
            await tx.execute_many(insert, [(n, n * n) for n in range(100)])
            await tx.execute_many(insert, [])
            await tx.call(plainly)
        with pytest.raises(EventStoreError):
            async with store.transaction() as tx:
                await tx.execute_many(insert, [(200, 1), (5, 1), (201, 1)])
        async with store.transaction() as tx:
            rows = await tx.execute("SELECT n, square FROM numbers ORDER BY n")
            with pytest.raises(EventStoreError, match="does not begin or end"):
                await tx.execute_many("COMMIT", [()])
        assert rows == [(n, n * n) for n in range(103)]

    async def test_what_is_selected_is_found_and_nothing_else(self, store: Store) -> None:
        for number in range(6):
            await store.append(f"a{number}", opened(float(number)), expected=0)
        everything = await store.read(limit=100)
        deposits = Selection((CustomerDepositedCash,))
        assert await _scanned(store, deposits) == [
            event for event in everything if isinstance(_payload(event), CustomerDepositedCash)
        ]
        assert await _scanned(store, Selection((AccountOpened, CustomerDepositedCash))) == everything
        assert await _scanned(store, Selection((str,))) == []
        shares = [await _scanned(store, Selection(None, (part, 3))) for part in range(3)]
        assert sorted(event.position for share in shares for event in share) == [
            event.position for event in everything
        ]
        for part, share in enumerate(shares):
            assert all(part_of(event.aggregate_id, 3) == part for event in share)
            both = await _scanned(store, Selection((AccountOpened,), (part, 3)))
            assert both == [event for event in share if isinstance(_payload(event), AccountOpened)]
        assert (await store.scan(deposits, await store.last_position())).events == []

    async def test_load_events_starts_after_a_sequence_and_keeps_to_the_limit(self, store: Store) -> None:
        await store.append("a", opened(1.0, 2.0, 3.0), expected=0)
        await store.append("b", opened(9.0), expected=0)
        assert [e.sequence for e in await store.load_events("a")] == [1, 2, 3, 4]
        assert [e.sequence for e in await store.load_events("a", 2)] == [3, 4]
        assert [e.sequence for e in await store.load_events("a", 1, limit=2)] == [2, 3]
        assert await store.load_events("a", 4) == []

    async def test_another_store_object_sees_the_events(self, store: Store, other: Store) -> None:
        await store.append("a", opened(1.0), expected=0)
        assert (await other.load("a")).envelopes == (await store.load("a")).envelopes
        await other.append("a", [CustomerDepositedCash(2.0, 3.0)], expected=2)
        with pytest.raises(VersionConflict):
            await store.append("a", [CustomerDepositedCash(4.0, 5.0)], expected=2)

    async def test_a_closed_store_opens_again(self, store: Store) -> None:
        await store.append("a", opened(), expected=0)
        await store.close()
        assert (await store.load("a")).sequence == 1

    # --- snapshots -----------------------------------------------------------------------------------

    async def test_a_snapshot_replaces_the_events_before_it(self, store: Store) -> None:
        await store.append(
            "a", opened(1.0), expected=0, snapshot=Snapshot("a", BankAccount(True, 1.0), 2, 111)
        )
        await store.append("a", [CustomerDepositedCash(2.0, 3.0)], expected=2)
        loaded = await store.load("a")
        assert loaded.snapshot == Snapshot("a", BankAccount(True, 1.0), 2, 111)
        assert [envelope.sequence for envelope in loaded.envelopes] == [3]
        assert loaded.sequence == 3
        without = await store.load("a", use_snapshot=False)
        assert without.snapshot is None
        assert [envelope.sequence for envelope in without.envelopes] == [1, 2, 3]

    async def test_a_newer_snapshot_takes_the_place_of_the_old_one(self, store: Store) -> None:
        await store.append("a", opened(), expected=0, snapshot=Snapshot("a", BankAccount(True, 0.0), 1, 1))
        newer = Snapshot("a", BankAccount(True, 10.0), 2, 2)
        await store.append("a", [CustomerDepositedCash(10.0, 10.0)], expected=1, snapshot=newer)
        assert await store.latest_snapshot("a") == newer
        assert (await store.load("a")).envelopes == []

    async def test_a_refused_append_leaves_no_snapshot(self, store: Store) -> None:
        with pytest.raises(VersionConflict):
            await store.append("a", opened(), expected=1, snapshot=Snapshot("a", BankAccount(), 2, 1))
        assert await store.latest_snapshot("a") is None

    # --- positions -----------------------------------------------------------------------------------

    async def test_positions_grow_in_the_order_of_the_commits_and_stay(self, store: Store) -> None:
        await store.append("a", opened(1.0), expected=0)
        await store.append("b", opened(), expected=0)
        await store.append("a", [CustomerDepositedCash(2.0, 3.0)], expected=2)
        events = await store.read()
        assert _keys(events) == [("a", 1), ("a", 2), ("b", 1), ("a", 3)]
        positions = [event.position for event in events]
        assert positions == sorted(set(positions))
        assert positions[0] > 0
        assert events == await store.read()
        assert await store.last_position() == positions[-1]

    async def test_read_returns_what_lies_behind_a_position_in_batches(self, store: Store) -> None:
        for name in "abcdefg":
            await store.append(name, opened(1.0), expected=0)
        everything = await store.read(limit=100)
        assert len(everything) == 14
        collected: list[RecordedEvent[BankAccountEvent]] = []
        while batch := await store.read(collected[-1].position if collected else 0, limit=4):
            assert len(batch) <= 4
            collected += batch
        assert collected == everything
        assert await store.read(everything[-1].position) == []

    async def test_read_can_be_confined_to_one_aggregate(self, store: Store) -> None:
        await store.append("a", opened(1.0), expected=0)
        await store.append("b", opened(2.0), expected=0)
        found = await store.read(aggregate_id="b")
        assert _keys(found) == [("b", 1), ("b", 2)]
        assert [event.envelope.payload for event in found if event.envelope] == opened(2.0)
        assert _keys(await store.read(found[0].position, aggregate_id="b", limit=1)) == [("b", 2)]

    async def test_a_limit_of_0_or_less_reads_nothing(self, store: Store) -> None:
        await store.append("a", opened(1.0), expected=0)
        for limit in (0, -1):
            assert await store.read(limit=limit) == []
            assert await store.read(aggregate_id="a", limit=limit) == []
            assert await store.load_events("a", limit=limit) == []

    async def test_odd_arguments_are_answered_or_refused_by_an_error_of_ours(self, store: Store) -> None:
        odd: list[Callable[[], Awaitable[object]]] = [
            lambda: store.load("\ud800"),
            lambda: store.load("a\0"),
            lambda: store.load_events("a\0"),
            lambda: store.load_events("a", 2**70),
            lambda: store.load_events("a", -5),
            lambda: store.read(2**70),
            lambda: store.read(-1),
            lambda: store.read(limit=2**70),
            lambda: store.read(aggregate_id="\ud800"),
            lambda: store.read(aggregate_id="a\0"),
            lambda: store.wait(2**70, timeout=0),
            lambda: store.append("h", opened(), expected=2**70),
            lambda: store.append("h", opened(), expected=-1),
        ]
        if store.has_side_tables:
            event = ParkedEvent(query="q", aggregate_id="\ud800\0", sequence=1, raw=b"", error="\ud800\0")
            odd += [
                lambda: store.checkpoint("\ud800"),
                lambda: store.checkpoint("a\0"),
                lambda: store.save_checkpoint("q", 2**70),
                lambda: store.set_paused("a\0", True),
                lambda: store.park(event),
                lambda: store.park(attrs.evolve(event, sequence=2**70)),
                lambda: store.unpark(2**70),
                lambda: store.put_outbox([OutboxMessage("t", "\ud800")]),
                lambda: store.fail_outbox([1], "\ud800"),
            ]
        for call in odd:
            with contextlib.suppress(EventStoreError):
                await call()
        assert (await store.append("a", opened(), expected=0))[0].sequence == 1

    async def test_ids_that_no_database_can_store_are_refused_by_every_call(self, store: Store) -> None:
        for id in ("a\0", "\ud800"):
            calls: list[Callable[[str], Awaitable[object]]] = [
                store.load,
                store.load_events,
                store.last_sequence,
                store.latest_snapshot,
                lambda id: store.append(id, opened(), expected=0),
                lambda id: store.read(aggregate_id=id),
            ]
            if store.has_side_tables:
                calls += [lambda id: _in_transaction(store, lambda tx: tx.load(id))]
                calls += [lambda id: _in_transaction(store, lambda tx: tx.require(id, 0))]
                calls += [lambda id: _in_transaction(store, lambda tx: tx.append(id, opened(), expected=0))]
                calls += [lambda id: store.set_paused(id, True), lambda id: store.save_checkpoint(id, 1)]
                calls += [lambda id: store.put_outbox([OutboxMessage(id, "")])]
            for call in calls:
                with pytest.raises(EventEncodeError):
                    await call(id)
        assert await store.read() == []

    async def test_refused_appends_do_not_show_up_for_readers(self, store: Store) -> None:
        await store.append("a", opened(), expected=0)
        with pytest.raises(VersionConflict):
            await store.append("a", opened(), expected=0)
        await store.append("b", opened(), expected=0)
        assert _keys(await store.read()) == [("a", 1), ("b", 1)]

    async def test_a_reader_that_waits_is_woken_by_a_commit(self, store: Store) -> None:
        await store.append("a", opened(), expected=0)
        after = await store.last_position()
        assert await store.wait(after, timeout=0.05) is False
        waiting = asyncio.create_task(store.wait(after, timeout=10))
        await asyncio.sleep(0)
        await store.append("b", opened(), expected=0)
        assert await waiting is True
        assert _keys(await store.read(after)) == [("b", 1)]
        assert await store.wait(after, timeout=0) is True
        assert await store.wait(await store.last_position(), timeout=0) is False

    async def test_a_reader_is_woken_by_another_store_object(self, store: Store, other: Store) -> None:
        waiting = asyncio.create_task(store.wait(0, timeout=10))
        await asyncio.sleep(0.02)
        await other.append("a", opened(), expected=0)
        assert await waiting is True

    async def test_follow_goes_from_the_past_to_the_present_without_a_gap(self, store: Store) -> None:
        for n in range(5):
            await store.append(f"before {n}", opened(1.0), expected=0)
        seen: list[tuple[str, int]] = []

        async def follow() -> None:
            async for batch in store.follow(batch=3):
                seen.extend(_keys(batch))
                if len(seen) >= 20:
                    return

        following = asyncio.create_task(follow())
        for n in range(5):
            await store.append(f"after {n}", opened(1.0), expected=0)
        await asyncio.wait_for(following, 20)
        expected = [(f"{when} {n}", k) for when in ("before", "after") for n in range(5) for k in (1, 2)]
        assert seen == expected

    async def test_a_follower_that_is_cancelled_ends(self, store: Store) -> None:
        """In whichever turn of the event loop: also in that in which it is woken, or gets a connection."""

        async def follow(after: int) -> None:
            async for _ in store.follow(after):
                pass

        for turns in range(40):
            following = asyncio.create_task(follow(await store.last_position()))
            await asyncio.sleep(0)
            await store.append(f"account {turns}", opened(), expected=0)
            for _ in range(turns):
                await asyncio.sleep(0)
            following.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asyncio.wait_for(following, 60)

    # --- commands ------------------------------------------------------------------------------------

    async def test_commands_decide_append_and_fold(self, store: Store) -> None:
        bank = CommandExecutor(store, BANK_ACCOUNT, snapshot_config=SnapshotConfig(2))
        await bank.execute("a", OpenAccount("a"))
        await bank.execute("a", DepositMoney(10.0))
        executed = await bank.execute("a", WithDrawMoney(5.99), [("user", "alice")])
        assert executed.aggregate.entity == BankAccount(True, 10.0 - 5.99)
        assert executed.envelopes[0].metadata == [("user", "alice")]
        assert (await bank.execute("a", DepositMoney(0))).envelopes == []
        with pytest.raises(DomainError):
            await bank.execute("a", WithDrawMoney(100.0))
        with pytest.raises(EntityNotFound):
            await bank.load_aggregate("nobody")
        assert (await bank.load_aggregate("a")) == executed.aggregate
        snapshot = await store.latest_snapshot("a")
        assert snapshot is not None
        assert (snapshot.sequence, snapshot.entity) == (2, BankAccount(True, 10.0))

    async def test_concurrent_commands_on_one_aggregate_lose_no_update(self, store: Store) -> None:
        executors = [CommandExecutor(store, BANK_ACCOUNT, cached=n % 2 * 10) for n in range(4)]
        await executors[0].execute("a", OpenAccount("a"))
        await asyncio.gather(*(executors[n % 4].execute("a", DepositMoney(1.0)) for n in range(40)))
        assert (await executors[0].load_aggregate("a")).entity.balance == 40.0
        assert (await store.load("a")).sequence == 41

    async def test_a_command_with_an_id_is_carried_out_once(self, side_tables: Store) -> None:
        store = side_tables
        banks = [CommandExecutor(store, BANK_ACCOUNT, cached=n * 10) for n in range(2)]
        await banks[0].execute("a", OpenAccount("a"), command_id="open")
        calls = (banks[n % 2].execute("a", DepositMoney(1.0), command_id="once") for n in range(6))
        outcomes = await asyncio.gather(*calls)
        assert all(outcome.envelopes == outcomes[0].envelopes for outcome in outcomes)
        assert all(outcome.aggregate == outcomes[0].aggregate for outcome in outcomes)
        assert await store.find_command("once") == CommandRecord("once", "a", 2, 1)
        assert await store.find_command("never") is None
        by_metadata = await banks[0].execute("a", DepositMoney(1.0), [("command_id", "once")])
        assert by_metadata.envelopes == outcomes[0].envelopes
        assert (await store.load("a")).sequence == 2
        with pytest.raises(EventStoreError, match="used for 'a' before"):
            await banks[0].execute("b", OpenAccount("b"), command_id="once")
        with pytest.raises(DomainError):
            await banks[0].execute("a", WithDrawMoney(9.0), command_id="refused")
        await banks[0].execute("a", DepositMoney(9.0), command_id="refused")

    async def test_an_append_under_a_known_id_writes_nothing(self, side_tables: Store) -> None:
        store = side_tables
        await store.append("a", opened(), expected=0, command_id="c")
        with pytest.raises(CommandRepeated) as caught:
            await store.append("b", opened(), expected=0, command_id="c", outbox=[OutboxMessage("t", "b")])
        assert caught.value.command_id == "c"
        with pytest.raises(CommandRepeated):
            async with store.transaction() as tx:
                await tx.append("b", opened(), expected=0, command_id="c")
        with pytest.raises(VersionConflict):
            await store.append("a", opened(), expected=0, command_id="d")
        assert await store.find_command("d") is None
        assert (await store.load("b")).sequence == 0
        assert await store.outbox_size() == 0

    async def test_a_command_can_expect_a_sequence(self, store: Store) -> None:
        for cached in (0, 10):
            bank = CommandExecutor(store, BANK_ACCOUNT, cached=cached)
            other = CommandExecutor(store, BANK_ACCOUNT, cached=cached)
            id = f"a{cached}"
            await bank.execute(id, OpenAccount("a"), expected=0)
            await bank.execute(id, DepositMoney(1.0), expected=1)
            await other.execute(id, DepositMoney(1.0), expected=2)
            await bank.execute(id, DepositMoney(1.0), expected=3)
            for expected in (0, 3, 5):
                with pytest.raises(VersionConflict) as caught:
                    await bank.execute(id, DepositMoney(1.0), expected=expected)
                assert (caught.value.expected, caught.value.actual) == (expected, 4)
            assert (await bank.load_aggregate(id)).entity.balance == 3.0

    # --- transactions and side tables ----------------------------------------------------------------

    async def test_a_transaction_commits_everything_or_nothing(self, side_tables: Store) -> None:
        store = side_tables
        with pytest.raises(RuntimeError, match="changed my mind"):  # noqa: PT012
            async with store.transaction() as tx:
                await tx.append("a", opened(), expected=0, snapshot=Snapshot("a", BankAccount(True), 1, 1))
                await tx.save_checkpoint("q", 5, expected=0)
                await tx.put_outbox([OutboxMessage("t", "b")])
                await tx.park(ParkedEvent(query="q", aggregate_id="a", sequence=1, raw=b"x", error="e"))
                raise RuntimeError("changed my mind")
        assert await store.read() == []
        assert await store.latest_snapshot("a") is None
        assert (await store.checkpoint("q"), await store.outbox_size(), await store.parked()) == (0, 0, [])
        async with store.transaction() as tx:
            assert (await tx.load("a")).sequence == 0
            await tx.append("a", opened(), expected=0)
            assert (await tx.load("a")).sequence == 1
            await tx.save_checkpoint("q", 5, expected=0)
        assert _keys(await store.read()) == [("a", 1)]
        assert await store.checkpoint("q") == 5

    async def test_what_a_transaction_writes_is_seen_once_it_is_committed(self, side_tables: Store) -> None:
        store = side_tables
        await store.append("a", opened(), expected=0, snapshot=Snapshot("a", BankAccount(True, 0.0), 1, 1))
        last = await store.last_position()

        async def seen_outside() -> tuple[object, ...]:
            loaded, events = await store.load("a", use_snapshot=False), await store.load_events("a")
            snapshot = await store.latest_snapshot("a")
            assert snapshot is not None
            assert loaded.envelopes == events
            return len(events), snapshot.sequence, len(await store.read(0)), await store.last_position()

        new = [CustomerDepositedCash(1.0, 1.0), CustomerDepositedCash(1.0, 2.0)]
        async with store.transaction() as tx:
            await tx.append("a", new, expected=1, snapshot=Snapshot("a", BankAccount(True, 2.0), 3, 2))
            assert len((await tx.load("a", use_snapshot=False)).envelopes) == 3
            assert (await tx.load("a")).sequence == 3
            assert await seen_outside() == (1, 1, 1, last)
        assert await seen_outside() == (3, 3, 3, await store.last_position())
        assert await store.last_position() > last

    async def test_a_transaction_that_has_ended_is_refused(self, side_tables: Store) -> None:
        async with side_tables.transaction() as committed:
            await committed.append("a", opened(), expected=0)
        with pytest.raises(KeyError):
            async with side_tables.transaction() as undone:
                raise KeyError("on purpose")
        for tx in (committed, undone):
            for call in (tx.load("a"), tx.append("b", opened(), expected=0), tx.save_checkpoint("q", 1)):
                with pytest.raises(EventStoreError, match="ended"):
                    await call
        assert len(await side_tables.read(0)) == 1

    async def test_a_conflict_inside_a_transaction_rolls_it_back(self, side_tables: Store) -> None:
        store = side_tables
        await store.append("a", opened(), expected=0)
        with pytest.raises(VersionConflict):  # noqa: PT012
            async with store.transaction() as tx:
                await tx.save_checkpoint("q", 5)
                await tx.append("a", opened(), expected=0)
        assert await store.checkpoint("q") == 0

    async def test_what_a_transaction_has_read_holds_until_it_commits(self, side_tables: Store) -> None:
        """Check, then append elsewhere: of many that take the last seat, one does."""
        await side_tables.append("room", opened(), expected=0)

        async def book(n: int) -> bool:
            async with side_tables.transaction() as tx:
                taken = [(await tx.load(f"seat-{k}")).sequence for k in range(6)]
                await asyncio.sleep(0)
                if sum(taken):
                    return False
                await tx.append(f"seat-{n}", opened(), expected=0)
                return True

        assert sum(await asyncio.gather(*(book(n) for n in range(6)))) == 1

    async def test_no_append_comes_between_what_a_transaction_reads_and_its_end(
        self, side_tables: Store
    ) -> None:
        store = side_tables
        async with store.transaction() as tx:
            before = (await tx.load("a")).sequence
            appending = asyncio.create_task(store.append("a", opened(), expected=0))
            await asyncio.wait((appending,), timeout=0.1)
            assert not appending.done()
            assert (await tx.load("a")).sequence == before
            await tx.append("b", opened(), expected=0)
        await appending
        assert _keys(await store.read()) == [("b", 1), ("a", 1)]

    async def test_a_required_sequence_is_checked(self, side_tables: Store) -> None:
        store = side_tables
        await store.append("a", opened(1.0), expected=0)
        for isolation in ISOLATIONS:
            for wrong in (0, 1, 3):
                with pytest.raises(VersionConflict) as caught:
                    async with store.transaction(isolation=isolation) as tx:
                        await tx.require("a", wrong)
                conflict = caught.value
                assert (conflict.aggregate_id, conflict.expected, conflict.actual) == ("a", wrong, 2)
        async with store.transaction() as tx:
            await tx.require("a", 2)
            await tx.require("b", 0)
            await tx.append("a", [CustomerDepositedCash(1.0, 2.0)], expected=2)
            await tx.require("a", 3)
            await tx.append("b", opened(), expected=0)
        assert _keys(await store.read()) == [("a", 1), ("a", 2), ("a", 3), ("b", 1)]

    async def test_a_required_sequence_holds_until_the_commit(self, side_tables: Store, other: Store) -> None:
        """At the weakest isolation too, and against every other writer."""
        await side_tables.append("stock", opened(), expected=0)

        async def sell(store: Store, n: int) -> bool:
            async with store.transaction(isolation="read committed") as tx:
                stock = await tx.load("stock")
                orders = [(await tx.load(f"order-{k}")).sequence for k in range(6)]
                await tx.require("stock", stock.sequence)
                if sum(orders):
                    return False
                await tx.append(f"order-{n}", opened(), expected=0)
                await tx.append("stock", [CustomerDepositedCash(1.0, 1.0)], expected=stock.sequence)
                return True

        selling = (sell(side_tables if n % 2 else other, n) for n in range(6))
        outcomes = await asyncio.gather(*selling, return_exceptions=True)
        assert outcomes.count(True) == 1
        assert all(outcome in (True, False) or _is_conflict(outcome) for outcome in outcomes)
        async with side_tables.transaction(isolation="read committed") as tx:
            await tx.require("stock", 2)
            appending = asyncio.create_task(
                other.append("stock", [CustomerDepositedCash(1.0, 1.0)], expected=2)
            )
            await asyncio.wait((appending,), timeout=0.1)
            assert not appending.done()
            await tx.append("last", opened(), expected=0)
        await appending
        assert _keys(await side_tables.read())[-2:] == [("last", 1), ("stock", 3)]

    async def test_a_transaction_that_is_cancelled_leaves_nothing_locked(self, side_tables: Store) -> None:
        store, inside = side_tables, asyncio.Event()

        async def hold() -> None:
            async with store.transaction() as tx:
                await tx.append("a", opened(), expected=0)
                inside.set()
                await asyncio.Event().wait()

        holding = asyncio.create_task(hold())
        await asyncio.wait_for(inside.wait(), 10)
        holding.cancel()
        with pytest.raises(asyncio.CancelledError):
            await holding
        await store.append("a", opened(1.0), expected=0)
        assert (await store.load("a")).sequence == 2

    async def test_checkpoints_move_only_from_where_they_are_expected(self, side_tables: Store) -> None:
        store = side_tables
        assert await store.checkpoint("q") == 0
        with pytest.raises(CheckpointConflict):
            await store.save_checkpoint("q", 9, expected=3)
        await store.save_checkpoint("q", 3, expected=0)
        with pytest.raises(CheckpointConflict) as caught:
            await store.save_checkpoint("q", 9, expected=0)
        assert (caught.value.query, caught.value.expected, caught.value.actual) == ("q", 0, 3)
        await store.save_checkpoint("q", 9, expected=3)
        await store.save_checkpoint("q", 1)
        await store.save_checkpoint("p", 7)
        await store.set_paused("p", True)
        found = [(c.query, c.position, c.paused) for c in await store.checkpoints()]
        assert found == [("p", 7, True), ("q", 1, False)]
        await store.save_checkpoint("p", 8, expected=7)
        await store.set_paused("r", True)
        found = [(c.query, c.position, c.paused) for c in await store.checkpoints()]
        assert found == [("p", 8, True), ("q", 1, False), ("r", 0, True)]

    async def test_a_checkpoint_is_changed_by_who_has_seen_its_last_version(self, side_tables: Store) -> None:
        store = side_tables
        unseen = await store.load_checkpoint("q")
        assert (unseen, unseen.version) == (Checkpoint("q"), 0)
        first = unseen.next(position=3, mark="m", replay=Replay("a", 1, until=2))
        await store.update_checkpoint(first)
        assert await store.load_checkpoint("q") == first
        changes: list[Callable[[], Awaitable[object]]] = [
            lambda: store.set_paused("q", True),
            lambda: store.save_checkpoint("q", 5, expected=3),
            lambda: store.save_checkpoint("q", 4),
        ]
        for change in changes:
            seen = await store.load_checkpoint("q")
            await change()
            with pytest.raises(CheckpointConflict):
                await store.update_checkpoint(seen.next(position=9))
        left = Checkpoint("q", 4, paused=True, version=4)
        assert await store.load_checkpoint("q") == left
        async with store.transaction() as tx:
            await tx.update_checkpoint(left.next(paused=False))
            assert await tx.load_checkpoint("q") == left.next(paused=False)
        assert await store.checkpoints() == [Checkpoint("q", 4, version=5)]

    async def test_parked_events_are_counted_in_all_and_by_aggregate(self, side_tables: Store) -> None:
        for query, aggregate_id, sequence in (("q", "a", 1), ("q", "a", 2), ("q", "b", 1), ("p", "c", 1)):
            event = ParkedEvent(query=query, aggregate_id=aggregate_id, sequence=sequence, raw=b"", error="e")
            await side_tables.park(event)
        assert await side_tables.parked_aggregates("q") == {"a", "b"}
        assert await side_tables.count_parked("q") == 3
        assert await side_tables.count_parked("q", aggregate_id="a") == 2
        assert await side_tables.count_parked("q", aggregate_id="c") == 0

    async def test_of_two_instances_of_a_query_one_moves_the_checkpoint(self, side_tables: Store) -> None:
        moves = [side_tables.save_checkpoint("q", 10 + n, expected=0) for n in range(8)]
        outcomes = await asyncio.gather(*moves, return_exceptions=True)
        assert sum(isinstance(outcome, CheckpointConflict) for outcome in outcomes) == 7
        assert await side_tables.checkpoint("q") == 10 + outcomes.index(None)

    async def test_parked_events_are_kept_listed_and_forgotten(self, side_tables: Store) -> None:
        store = side_tables
        first = ParkedEvent(
            query="q",
            aggregate_id="a",
            aggregate_type="T",
            sequence=1,
            raw=bytes(range(256)),
            error="b\0d",
            format="etf",
            position=4,
            parked_at=1000.5,
        )
        await store.park(first)
        await store.park(ParkedEvent(query="q", aggregate_id="b", sequence=1, raw=b"{}", error="e"))
        await store.park(ParkedEvent(query="p", aggregate_id="a", sequence=1, raw=b"{}", error="e"))
        found = await store.parked("q", aggregate_id="a")
        assert len(found) == 1
        assert found[0].raw == first.raw
        assert (found[0].format, found[0].position, found[0].parked_at) == ("etf", 4, 1000.5)
        await store.park(attrs.evolve(first, attempts=2, error="again"))
        again = await store.parked("q")
        assert [(e.aggregate_id, e.attempts) for e in again] == [("a", 2), ("b", 1)]
        assert again[0].id == found[0].id
        assert len(await store.parked()) == 3
        assert len(await store.parked(limit=2)) == 2
        assert again[0].id is not None
        assert await store.unpark(again[0].id) is True
        assert await store.unpark(again[0].id) is False
        assert [e.aggregate_id for e in await store.parked("q")] == ["b"]

    async def test_outbox_messages_are_taken_once_finished_or_given_back(self, side_tables: Store) -> None:
        store = side_tables
        outgoing = [OutboxMessage("t", f"message {n}") for n in range(3)]
        await store.append("a", opened(), expected=0, outbox=outgoing)
        with pytest.raises(VersionConflict):
            await store.append("a", opened(), expected=0, outbox=outgoing)
        assert await store.outbox_size("t") == 3
        assert await store.take_outbox("u") == []
        taken = await store.take_outbox("t", limit=2)
        assert [entry.body for entry in taken] == ["message 0", "message 1"]
        assert [entry.body for entry in await store.take_outbox("t")] == ["message 2"]
        assert await store.take_outbox("t") == []
        await store.finish_outbox([taken[0].id])
        await store.fail_outbox([taken[1].id], "no node")
        again = await store.take_outbox("t", lease_s=0)
        assert [(entry.body, entry.attempts) for entry in again] == [("message 1", 1)]
        assert [entry.body for entry in await store.take_outbox("t", lease_s=60)] == ["message 1"]
        await store.fail_outbox([taken[1].id], "no node", retry_after_s=60)
        assert await store.take_outbox("t") == []
        assert await store.outbox_size() == 2

    async def test_a_lease_is_one_owners_at_a_time(self, side_tables: Store) -> None:
        store = side_tables
        assert await store.lease_owner("l") is None
        assert await store.take_lease("l", "first", 3600)
        assert await store.take_lease("l", "first", 3600)
        assert not await store.take_lease("l", "second", 3600)
        assert await store.take_lease("another", "second", 3600)
        await store.end_lease("l", "second")
        assert await store.lease_owner("l") == "first"
        await store.end_lease("l", "first")
        assert await store.lease_owner("l") is None
        assert await store.take_lease("l", "second", 0)
        assert await store.lease_owner("l") == "second"
        assert await store.take_lease("l", "first", 3600)

    async def test_takers_of_the_outbox_share_it(self, side_tables: Store) -> None:
        await side_tables.put_outbox(OutboxMessage("t", str(n)) for n in range(40))
        taken = await asyncio.gather(*(side_tables.take_outbox("t", limit=10) for _ in range(4)))
        bodies = [entry.body for entries in taken for entry in entries]
        assert len(bodies) == len(set(bodies))

    async def test_a_plain_function_sees_the_transaction(self, side_tables: Store) -> None:
        store = side_tables
        if not store.has_sql:
            return
        async with store.transaction() as tx:
            await tx.execute("CREATE TABLE level (product text PRIMARY KEY, n int)")

        def fill(cursor: Cursor) -> int:
            cursor.execute("INSERT INTO level VALUES ('laptop', 1)")
            cursor.execute("UPDATE level SET n = n + 1")
            cursor.check()
            found = cursor.execute("SELECT n FROM level")[0][0]
            assert isinstance(found, int)
            return found

        def fail(cursor: Cursor) -> None:
            cursor.execute("UPDATE level SET n = 100")
            raise UnicodeError("the application's own")

        def mistake(cursor: Cursor) -> None:
            with pytest.raises(EventStoreError):
                cursor.execute("SELECT nothing FROM nowhere")

        async with store.transaction() as tx:
            assert await tx.call(fill) == 2
            assert await tx.execute("SELECT n FROM level") == [(2,)]
        with pytest.raises(UnicodeError, match="the application's own"):
            async with store.transaction() as tx:
                await tx.call(fail)
        with contextlib.suppress(EventStoreError):  # PostgreSQL has undone it all
            async with store.transaction() as tx:
                await tx.call(mistake)
        async with store.transaction() as tx:
            assert await tx.call(lambda cursor: cursor.execute("SELECT n FROM level")) == [(2,)]

    async def test_own_statements_run_in_the_transaction(self, side_tables: Store) -> None:
        store = side_tables
        if not store.has_sql:
            async with store.transaction() as tx:
                with pytest.raises(EventStoreError):
                    await tx.execute("SELECT 1")
            return
        async with store.transaction() as tx:
            await tx.execute("CREATE TABLE level (product text PRIMARY KEY, n int)")
        with pytest.raises(RuntimeError):  # noqa: PT012
            async with store.transaction() as tx:
                await tx.execute("INSERT INTO level VALUES ('laptop', 1)")
                await tx.save_checkpoint("q", 1)
                raise RuntimeError
        async with store.transaction() as tx:
            assert await tx.execute("SELECT * FROM level") == []
            await tx.execute("INSERT INTO level VALUES ('laptop', 2)")
        async with store.transaction() as tx:
            assert await tx.execute("SELECT product, n FROM level") == [("laptop", 2)]
        with pytest.raises(EventStoreError):
            async with store.transaction() as tx:
                await tx.execute("SELECT nonsense FROM nowhere")
        assert await store.checkpoint("q") == 0
