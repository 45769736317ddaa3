"""Who tells readers in other OS processes of a commit to PostgreSQL, and who gives its positions."""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, cast

import psycopg
import pytest

from pyglyn import eventsourcing as es
from pyglyn.errors import VersionConflict
from pyglyn.eventsourcing.stores.postgres_appends import PostgresAppends
from pyglyn.eventsourcing.stores.postgres_database import LISTENER_LOCK
from pyglyn.testing import eventually
from pyglyn.testing.bank import AccountOpened, BankAccount
from tests.eventsourcing.stores.foreign import Foreign, opened
from tests.eventsourcing.stores.test_postgres_store import bank, late

PENDING = "SELECT count(*) FROM pyglyn_pending"
POSITIONS = "SELECT aggregate_id, position FROM pyglyn_position ORDER BY position"
POSITION_LOCK = "hashtext('pyglyn_position'), hashtext(current_schema())"
LISTENING = """
SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND mode = 'ShareLock' AND granted
AND (classid::bigint, objid::bigint) = (
  hashtext('pyglyn_listener')::bigint & 4294967295, hashtext(current_schema())::bigint & 4294967295
)
"""


class Heard:
    """A session that listens as a reader does."""

    def __init__(self, url: str, connection: psycopg.Connection[Any]) -> None:
        self._url = url
        self._connection = connection
        self._told: list[str] = []

    async def count(self, schema: str) -> int:
        """How many commits of a schema have been told, of all that were made before this was asked."""
        mark = secrets.token_hex(8)
        Foreign(self._url).run(f"SELECT pg_notify('pyglyn_event', '{mark}')")
        await eventually(lambda: self._has(mark))
        return self._told.count(schema)

    def _has(self, mark: str) -> bool:
        self._told += [each.payload for each in self._connection.notifies(timeout=0)]
        return mark in self._told

    async def told(self, schema: str) -> None:
        """Wait until a commit of a schema has been told."""

        async def is_there() -> bool:
            return await self.count(schema) > 0

        await eventually(is_there)

    async def reaches(self, schema: str, number: int) -> None:
        """Wait until so many commits of a schema have been told."""

        async def is_there() -> bool:
            return await self.count(schema) >= number

        await eventually(is_there)
        assert await self.count(schema) == number


@contextlib.contextmanager
def listening(url: str) -> Iterator[Heard]:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"SELECT pg_advisory_lock_shared({LISTENER_LOCK})".encode())
        connection.execute("LISTEN pyglyn_event")
        yield Heard(url, connection)


@pytest.fixture
def schema(postgres: str) -> str:
    return str(Foreign(postgres).run("SELECT current_schema()")[0][0])


async def used(store: es.EventStore[Any, Any]) -> None:
    """See to it that positions have been given once: before, it is for a reader to do."""
    await store.append("first", [AccountOpened("x")], expected=0)
    assert await store.last_position() == 1


def cancelled_after(work: Callable[..., Awaitable[object]]) -> Callable[..., Awaitable[None]]:
    """Do the work, and end as somebody who was cancelled before its answer came."""

    async def work_in_vain(*arguments: object) -> None:
        await work(*arguments)
        raise asyncio.CancelledError

    return work_in_vain


async def test_where_nobody_listens_nobody_is_told(postgres: str, schema: str) -> None:
    database = Foreign(postgres)
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute("LISTEN pyglyn_event")  # as no reader of ours does: without the lock
        async with bank(postgres) as store:
            await store.append("a", [AccountOpened("a")], expected=0)
            assert cast(Any, store).database()._announcer is None
            assert database.run(PENDING) == [(1,)]
            assert await Heard(postgres, connection).count(schema) == 0
            assert [event.position for event in await store.read()] == [1]


async def test_a_single_append_tells_and_has_its_position_with_its_commit(postgres: str, schema: str) -> None:
    database = Foreign(postgres)
    async with bank(postgres) as store:
        await used(store)
        with listening(postgres) as heard:
            for n, id in enumerate("abc", 1):
                await store.append(id, [AccountOpened(id)] * 2, expected=0)
                assert cast(Any, store).database()._announcer is None
                assert database.run(PENDING) == [(0,)]
                assert await heard.count(schema) == n
                assert len(database.run(POSITIONS)) == 1 + 2 * n
        expected = [(id, 2 * n + k) for n, id in enumerate("abc", 1) for k in (0, 1)]
        assert database.run(POSITIONS) == [("first", 1), *expected]
        await store.append("d", [AccountOpened("d")], expected=0)  # nobody listens any more
        assert database.run(PENDING) == [(1,)]
        assert [event.position for event in await store.read()] == list(range(1, 9))


async def test_appends_in_a_group_tell_afterwards(postgres: str, schema: str) -> None:
    async with bank(postgres) as store:
        await used(store)
        with listening(postgres) as heard:
            ids = [f"a{n}" for n in range(20)]
            await asyncio.gather(*(store.append(id, [AccountOpened(id)], expected=0) for id in ids))
            await heard.told(schema)
        found = await store.read()
        assert {event.aggregate_id for event in found} == {"first", *ids}
        assert [event.position for event in found] == list(range(1, 22))


async def test_appends_that_are_too_late_tell_nobody_and_write_nothing(postgres: str, schema: str) -> None:
    database = Foreign(postgres)
    async with bank(postgres) as store:
        await used(store)
        with listening(postgres) as heard:
            before = database.run("SELECT xmin, id FROM pyglyn_assigned")
            for expected in (0, 5):
                appends = [store.append("first", [AccountOpened("x")], expected=expected) for _ in range(5)]
                found = await asyncio.gather(*appends, return_exceptions=True)
                assert [type(each) for each in found] == [VersionConflict] * 5
            assert cast(Any, store).database()._announcer is None
            assert await heard.count(schema) == 0
            assert database.run("SELECT xmin, id FROM pyglyn_assigned") == before


async def test_what_nobody_knows_the_outcome_of_is_told_too(
    postgres: str, schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be committed: else readers in other OS processes learn of it when they look by themselves."""
    database = Foreign(postgres)
    async with bank(postgres) as store:
        await used(store)
        with (
            listening(postgres) as heard,
            late(database, f"SELECT pg_advisory_xact_lock({POSITION_LOCK})") as numbering,
        ):
            monkeypatch.setattr(PostgresAppends, "_insert", cancelled_after(PostgresAppends._insert))
            with pytest.raises(asyncio.CancelledError):
                await store.append("a", [AccountOpened("a")], expected=0, command_id="once")
            await heard.reaches(schema, 1)
            with contextlib.suppress(asyncio.CancelledError):
                async with store.transaction() as tx:
                    await tx.append("b", [AccountOpened("b")], expected=0)
                    monkeypatch.setattr(tx, "commit", cancelled_after(tx.commit))  # type: ignore[attr-defined]
            await heard.reaches(schema, 2)
            database.on(numbering, "COMMIT")
        assert [event.aggregate_id for event in await store.read()] == ["first", "a", "b"]


async def test_what_was_committed_before_comes_before(postgres: str, schema: str) -> None:
    """An append does not go ahead of what has no position yet, be it of its own aggregate or of another one."""
    database = Foreign(postgres)
    async with bank(postgres) as store:
        await store.append("a", [AccountOpened("a")], expected=0)  # nobody listens
        with listening(postgres) as heard:
            await store.append("a", [AccountOpened("a")], expected=1)
            assert await heard.count(schema) == 1
            assert database.run(PENDING) == [(2,)]
            database.run(database.insert("b", 1, [opened("b")]))
            await store.append("b", [AccountOpened("b")], expected=1)
            assert await heard.count(schema) == 3
        found = [(event.aggregate_id, event.sequence) for event in await store.read()]
        assert found == [("a", 1), ("a", 2), ("b", 1), ("b", 2)]


async def test_an_append_waits_for_nobody_who_gives_positions(postgres: str, schema: str) -> None:
    database = Foreign(postgres)
    async with bank(postgres) as store:
        await used(store)
        with (
            listening(postgres) as heard,
            late(database, f"SELECT pg_advisory_xact_lock({POSITION_LOCK})") as numbering,
        ):
            await store.append("a", [AccountOpened("a")], expected=0)
            await heard.reaches(schema, 1)  # by an announcement of its own
            assert database.run(PENDING) == [(1,)]
            database.on(numbering, "COMMIT")
        assert [event.position for event in await store.read()] == [1, 2]


WAITING = """
SELECT count(*) FROM pg_stat_activity
WHERE wait_event_type = 'Lock' AND query LIKE '%INTO event%' AND datname = current_database()
"""


@pytest.mark.parametrize("what", ["snapshot", "command"])
async def test_an_append_that_waits_for_another_transaction_holds_up_nobody(postgres: str, what: str) -> None:
    """For a snapshot, or for the id of a command: it does not have the two locks yet."""
    database = Foreign(postgres)
    with_id = {"command_id": "c"}
    with_state = {"snapshot": es.Snapshot("a", BankAccount(True), 1, 0)}
    async with bank(postgres) as store, bank(postgres, repair_s=3600.0) as reader:
        await used(store)
        with listening(postgres):
            async with store.transaction(isolation="read committed") as tx:
                if what == "command":
                    await tx.append("other", [AccountOpened("x")], expected=0, command_id="c")
                else:
                    await tx.execute("INSERT INTO snapshot VALUES ('BankAccount', 'a', 1, '{}', 0)")
                goes_with: Any = with_id if what == "command" else with_state
                append = asyncio.create_task(store.append("a", [AccountOpened("a")], expected=0, **goes_with))
                await eventually(lambda: database.run(WAITING)[0][0] > 0)
                await store.append("b", [AccountOpened("b")], expected=0)
                assert [event.aggregate_id for event in await asyncio.wait_for(store.read(1), 60)] == ["b"]
                waiting = asyncio.create_task(reader.wait(2))
                await eventually(lambda: database.run(LISTENING) == [(2,)])
                assert not append.done()
            await asyncio.gather(append, return_exceptions=True)
            assert await asyncio.wait_for(waiting, 60) is True
        found = [event.aggregate_id for event in await store.read(2)]
        assert found == (["other"] if what == "command" else ["a"])


async def test_late_commits_of_others_get_the_next_positions(postgres: str) -> None:
    database = Foreign(postgres)
    async with bank(postgres) as store:
        await used(store)
        with listening(postgres), late(database, database.insert("late", 1, [opened("x")])) as connection:
            for n in range(3):
                await store.append(f"a{n}", [AccountOpened("x")], expected=0)
            assert len(database.run(POSITIONS)) == 4
            database.on(connection, "COMMIT")
            await store.append("last", [AccountOpened("x")], expected=0)
        found = [event.aggregate_id for event in await store.read()]
        assert found == ["first", "a0", "a1", "a2", "late", "last"]


async def test_who_begins_to_listen_waits_for_commits_that_did_not_see_it(postgres: str) -> None:
    """Else such a commit would be told by nobody, and found after the commit by nobody who looked before."""
    database = Foreign(postgres)
    async with bank(postgres, repair_s=3600.0) as reader:
        await reader.start()
        with late(
            database,
            f"SELECT pg_try_advisory_xact_lock({LISTENER_LOCK}), set_config('pyglyn.quiet', 'unheard', true)",
            database.insert("a", 1, [opened("a")]),
        ) as append:
            waiting = asyncio.create_task(reader.wait(0))
            waits = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
            await eventually(lambda: database.run(waits)[0][0] > 0)
            database.on(append, "COMMIT")
            assert await waiting is True
        assert [event.position for event in await reader.read()] == [1]


async def test_readers_say_that_they_listen_until_they_are_closed(postgres: str) -> None:
    database = Foreign(postgres)
    async with bank(postgres) as one, bank(postgres) as other:
        for store in (one, other):
            assert await store.wait(0, timeout=0.01) is False
        await eventually(lambda: database.run(LISTENING) == [(2,)])
    await eventually(lambda: database.run(LISTENING) == [(0,)])


@pytest.mark.parametrize("put_off", [False, True])
async def test_transactions_tell_of_events_and_of_nothing_else(
    postgres: str, schema: str, put_off: bool
) -> None:
    database = Foreign(postgres)
    async with bank(postgres) as store:
        with listening(postgres) as heard:
            async with store.transaction() as tx:
                await tx.execute("CREATE TABLE mine (n int)")
            await store.save_checkpoint("q", 1)
            assert await store.take_lease("l", "me", 10.0)
            await store.put_outbox([es.OutboxMessage("t", "b")])
            with contextlib.suppress(ZeroDivisionError):
                async with store.transaction() as tx:
                    await tx.append("a", [AccountOpened("a")], expected=0)
                    raise ZeroDivisionError
            assert cast(Any, store).database()._announcer is None
            assert await heard.count(schema) == 0
            async with store.transaction(isolation="read committed") as tx:
                await tx.append("a", [AccountOpened("a")], expected=0)
                await tx.append("b", [AccountOpened("b")], expected=0)
            await heard.reaches(schema, 1)
            async with store.transaction() as tx:
                if put_off:
                    cast(Any, tx).put_off()
                await tx.execute(*database.insert("by hand", 1, [opened("x")]))
                if put_off:
                    await cast(Any, tx).run_put_off()
            await heard.reaches(schema, 2)
        assert [event.aggregate_id for event in await store.read()] == ["a", "b", "by hand"]


async def test_all_ways_to_write_make_one_log(postgres: str) -> None:
    """Appends, groups, transactions, rollbacks and other languages at once, with readers in between."""
    database = Foreign(postgres)
    async with contextlib.AsyncExitStack() as stack:
        stores = [await stack.enter_async_context(bank(postgres, pool_size=3)) for _ in range(3)]

        async def write(n: int) -> None:
            store, choose, name = stores[n % 3], random.Random(n), f"account-{n}"
            for sequence in range(30):
                way = choose.randrange(4)
                if way == 0:
                    await asyncio.to_thread(database.run, database.insert(name, sequence + 1, [opened("x")]))
                elif way == 1:
                    with contextlib.suppress(ZeroDivisionError):
                        async with store.transaction(isolation="read committed") as tx:
                            await tx.append(name, [AccountOpened("x")], expected=sequence)
                            raise ZeroDivisionError
                if way == 2:
                    async with store.transaction(isolation="read committed") as tx:
                        await tx.append(name, [AccountOpened("x")], expected=sequence)
                elif way != 0:
                    await store.append(name, [AccountOpened("x")], expected=sequence)

        async def follow(store: es.EventStore[Any, Any]) -> list[tuple[int, str, int]]:
            seen: list[tuple[int, str, int]] = []
            async for batch in store.follow(batch=9):
                seen += [(event.position, event.aggregate_id, event.sequence) for event in batch]
                if len(seen) == 8 * 30:
                    return seen
            raise AssertionError

        followers = [asyncio.create_task(follow(store)) for store in stores]
        await asyncio.gather(*(write(n) for n in range(8)))
        logs = await asyncio.wait_for(asyncio.gather(*followers), 180)
    assert all(log == logs[0] for log in logs)
    assert [position for position, _, _ in logs[0]] == list(range(1, 241))
    for n in range(8):
        assert [s for _, id, s in logs[0] if id == f"account-{n}"] == list(range(1, 31))
