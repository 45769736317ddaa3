"""What can go wrong with a server: late commits, locks, restarts, cut connections, roles, two starts at once."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Iterator
from typing import Any
from urllib.parse import quote

import psycopg
import pytest

from pyglyn import eventsourcing as es
from pyglyn.testing import eventually
from pyglyn.testing.bank import (
    BANK_ACCOUNT,
    AccountOpened,
    BankAccount,
    BankAccountEvent,
    CustomerDepositedCash,
    DepositMoney,
    OpenAccount,
)
from pyglyn.testing.postgres import PrivatePostgres
from tests.eventsourcing.stores.foreign import Foreign, deposited, opened


def bank(url: str, **options: Any) -> es.EventStore[Any, Any]:
    from pyglyn.eventsourcing.stores.postgres import PostgresStore

    codec: es.RowCodec[Any, Any] = es.RowCodec(
        aggregate_type="BankAccount", events=BankAccountEvent, state=BankAccount
    )
    return PostgresStore(url, codec, **options)


@pytest.fixture
async def store(postgres: str) -> AsyncIterator[es.EventStore[Any, Any]]:
    async with bank(postgres) as store:
        yield store


@contextlib.contextmanager
def late(database: Foreign, *statements: Any) -> Iterator[Any]:
    """A transaction that has run its statements and is not committed yet."""
    connection = database.connect()
    database.on(connection, "BEGIN")
    for statement in statements:
        database.on(connection, *statement) if isinstance(statement, tuple) else database.on(
            connection, statement
        )
    yield connection
    connection.close()


def _keys(events: list[es.RecordedEvent[Any]]) -> list[tuple[str, int]]:
    return [(event.aggregate_id, event.sequence) for event in events]


# --- a reader by position and transactions that commit late -----------------------------------------------


async def test_a_transaction_that_commits_late_is_not_skipped(
    postgres: str, store: es.EventStore[Any, Any]
) -> None:
    database = Foreign(postgres)
    async with bank(postgres) as second:
        with (
            late(database, database.insert("late", 1, [opened("x")] * 3)) as connection,
            late(database, database.insert("never", 1, [opened("x")])) as undone,
        ):
            await store.append("early", [AccountOpened("a")], expected=0)
            first = await store.read()
            assert _keys(first) == [("early", 1)]  # others neither wait for the late one ...
            database.on(undone, "ROLLBACK")
            assert await store.read(first[-1].position) == []
            assert await store.wait(first[-1].position, timeout=0.1) is False
            waiting = asyncio.create_task(store.wait(first[-1].position, timeout=20))
            database.on(connection, "COMMIT")
            assert await waiting is True
        behind = await store.read(first[-1].position)
        assert _keys(behind) == [("late", 1), ("late", 2), ("late", 3)]  # ... nor miss it
        assert [event.position for event in first + behind] == [1, 2, 3, 4]
        assert await second.read() == first + behind


async def test_an_unrelated_long_transaction_holds_up_no_reader(
    postgres: str, store: es.EventStore[Any, Any]
) -> None:
    database = Foreign(postgres)
    with late(database, "CREATE TABLE unrelated (n int)", "INSERT INTO unrelated VALUES (1)"):
        await store.append("a", [AccountOpened("a")], expected=0)
        assert _keys(await store.read()) == [("a", 1)]


async def test_readers_that_give_positions_at_once_agree(postgres: str) -> None:
    async with contextlib.AsyncExitStack() as stack:
        stores = [await stack.enter_async_context(bank(postgres, pool_size=3)) for _ in range(4)]

        async def write(n: int) -> None:
            for sequence in range(0, 40, 2):
                events = [AccountOpened(str(n))] * 2
                await stores[n % 4].append(f"account-{n}", events, expected=sequence)

        async def follow(store: es.EventStore[Any, Any]) -> list[tuple[int, str, int]]:
            seen: list[tuple[int, str, int]] = []
            async for batch in store.follow(batch=9):
                seen += [(event.position, event.aggregate_id, event.sequence) for event in batch]
                if len(seen) == 8 * 40:
                    return seen
            raise AssertionError

        followers = [asyncio.create_task(follow(store)) for store in stores]
        await asyncio.gather(*(write(n) for n in range(8)))
        logs = await asyncio.wait_for(asyncio.gather(*followers), 180)
    assert all(log == logs[0] for log in logs)
    assert [position for position, _, _ in logs[0]] == list(range(1, 321))
    for n in range(8):
        assert [s for _, id, s in logs[0] if id == f"account-{n}"] == list(range(1, 41))


# --- isolation ------------------------------------------------------------------------------------------------

DEFAULTS = [
    "default_transaction_isolation=serializable",
    "default_transaction_isolation=repeatable\\ read",
    "default_transaction_read_only=on",
    "default_transaction_deferrable=on",
]


@pytest.mark.parametrize("default", DEFAULTS, ids=lambda each: each.partition("_")[2])
async def test_a_store_is_independent_of_the_defaults_of_its_database(postgres: str, default: str) -> None:
    url = postgres + quote(f" -c{default}")
    async with bank(url) as store, bank(url) as second:
        read: list[list[tuple[str, int]]] = [[], []]

        async def follow(store: es.EventStore[Any, Any], seen: list[tuple[str, int]]) -> None:
            async for batch in store.follow():
                seen += _keys(batch)
                if len(seen) == 60:
                    return

        async def write(n: int) -> None:
            for sequence in range(15):
                await store.append(f"a{n}", [AccountOpened("x")], expected=sequence)

        following = asyncio.gather(follow(store, read[0]), follow(second, read[1]))
        await asyncio.gather(*(write(n) for n in range(3)))
        for sequence in range(15):
            async with second.transaction() as tx:
                await tx.append("last", [AccountOpened("x")], expected=sequence)
        await asyncio.wait_for(following, 180)
        assert read[0] == read[1]
        assert len(set(read[0])) == 60
        await store.put_outbox([es.OutboxMessage("t", "b")])
        assert len(await second.take_outbox("t")) == 1


async def test_a_gleam_service_in_line_for_the_table_is_no_deadlock(
    postgres: str, store: es.EventStore[Any, Any]
) -> None:
    """It waits for the table behind an append that waits for a transaction that has not touched the table yet."""
    database = Foreign(postgres)
    async with store.transaction() as tx:
        append = asyncio.create_task(store.append("a", [AccountOpened("a")], expected=0))
        waiting = "SELECT 1 FROM pg_locks WHERE NOT granted AND locktype = 'advisory'"
        await eventually(lambda: bool(database.run(waiting)))
        gleam = asyncio.create_task(asyncio.to_thread(database.execute, "g", 1.0))
        await eventually(lambda: _is_waiting_for_a_lock(database))
        await tx.append("t", [AccountOpened("a")], expected=(await tx.load("t")).sequence)
    await asyncio.wait_for(asyncio.gather(append, gleam), 180)
    assert {event.aggregate_id for event in await store.read()} == {"a", "g", "t"}


async def test_an_isolation_that_does_not_exist_is_refused(postgres: str) -> None:
    wrong: Any = "snapshot"
    with pytest.raises(es.EventStoreError, match="expected serializable or read committed"):
        bank(postgres, isolation=wrong)
    with pytest.raises(es.EventStoreError, match="expected serializable or read committed"):
        bank(postgres).transaction(isolation=wrong)


# --- locks and roles ----------------------------------------------------------------------------------------


async def test_an_append_waits_for_the_gleam_table_lock_and_meets_what_was_written(
    postgres: str, store: es.EventStore[Any, Any]
) -> None:
    database = Foreign(postgres)
    lock = "LOCK TABLE event IN ACCESS EXCLUSIVE MODE"
    with late(database, lock, database.insert("a", 1, [opened("a")])) as connection:
        same = asyncio.create_task(store.append("a", [AccountOpened("a")], expected=0))
        other = asyncio.create_task(store.append("b", [AccountOpened("b")], expected=0))
        reading = asyncio.create_task(store.load("a"))
        assert (await asyncio.wait([same, other, reading], timeout=0.2))[0] == set()
        database.on(connection, "COMMIT")
        with pytest.raises(es.VersionConflict) as caught:
            await same
        assert caught.value.actual == 1
        assert len(await other) == 1
        assert (await reading).sequence == 1


async def test_our_open_transaction_makes_a_gleam_service_wait_and_see_its_events(
    postgres: str, store: es.EventStore[Any, Any]
) -> None:
    database = Foreign(postgres)
    await store.append("a", [AccountOpened("a")], expected=0)
    async with store.transaction() as tx:
        await tx.load("a")
        gleam = asyncio.create_task(asyncio.to_thread(database.execute, "a", 2.0))
        await eventually(lambda: _is_waiting_for_a_lock(database))
        await tx.append("a", [CustomerDepositedCash(1.0, 1.0)], expected=1)
    await asyncio.wait_for(gleam, 180)
    assert (await store.load("a")).envelopes[-1].payload == CustomerDepositedCash(2.0, 3.0)


def _is_waiting_for_a_lock(database: Foreign) -> bool:
    return bool(database.run("SELECT 1 FROM pg_locks WHERE NOT granted AND relation = 'event'::regclass"))


async def test_a_role_that_knows_nothing_of_our_tables_can_insert(
    postgres: str, store: es.EventStore[Any, Any]
) -> None:
    database = Foreign(postgres)
    schema = database.run("SELECT current_schema()")[0][0]
    database.run(
        f'CREATE ROLE "gleam_{schema}"',
        f'GRANT USAGE ON SCHEMA "{schema}" TO "gleam_{schema}"',
        f'GRANT SELECT, INSERT, DELETE ON event, snapshot TO "gleam_{schema}"',
        f'SET ROLE "gleam_{schema}"',
        database.insert("a", 1, [opened("a")]),
        database.insert("b", 1, [opened("b")]),
    )
    assert _keys(await store.read()) == [("a", 1), ("b", 1)]
    database.run(f'SET ROLE "gleam_{schema}"', "DELETE FROM event WHERE aggregate_id = 'a'")
    assert _keys(await store.read()) == [("b", 1)]
    database.run(f'DROP OWNED BY "gleam_{schema}"', f'DROP ROLE "gleam_{schema}"')


async def test_services_that_start_at_once_create_the_tables_once(postgres: str) -> None:
    stores = [bank(postgres) for _ in range(6)]
    gleam = Foreign(postgres)
    creating = [asyncio.to_thread(_create_tables_as_gleam, gleam) for _ in range(2)]
    await asyncio.gather(*(store.start() for store in stores), *creating)
    await asyncio.gather(
        *(store.append(str(n), [AccountOpened("a")], expected=0) for n, store in enumerate(stores))
    )
    assert len(await stores[0].read()) == 6
    await asyncio.gather(*(store.close() for store in stores))


def _create_tables_as_gleam(database: Foreign) -> None:
    # CREATE TABLE IF NOT EXISTS can fail when two run at once; a Gleam service would start again.
    errors = psycopg.errors
    with contextlib.suppress(errors.UniqueViolation, errors.DuplicateTable, errors.DuplicateObject):
        database.create_tables()


async def test_a_missing_right_or_schema_is_said_clearly(postgres: str) -> None:
    with pytest.raises(es.EventStoreError, match="no schema that exists"):
        await bank(postgres.replace("pyglyn_test", "no_such")).start()
    async with bank(postgres):
        Foreign(postgres).run("UPDATE pyglyn_schema SET version = 99")
        with pytest.raises(es.EventStoreError, match="newer version"):
            await bank(postgres).start()


# --- connections --------------------------------------------------------------------------------------------


async def test_a_server_that_is_not_there_is_unavailable_and_the_password_stays_secret() -> None:
    store = bank("postgresql://someone:S3cret@127.0.0.1:1/nowhere?connect_timeout=2")
    with pytest.raises(es.StoreUnavailable) as caught:
        await store.append("a", [AccountOpened("a")], expected=0)
    assert caught.value.outcome_unknown is False
    error: BaseException | None = caught.value
    while error is not None:
        assert "S3cret" not in f"{error!s}{error!r}{store!r}"
        error = error.__cause__
    await store.close()


async def test_a_transaction_that_stood_idle_for_too_long_for_the_server_is_unavailable(
    postgres: str,
) -> None:
    async with bank(postgres) as store:

        async def stand_idle() -> None:
            async with store.transaction() as tx:
                [(os_pid,)] = await tx.execute("SELECT pg_backend_pid()")
                alive = f"SELECT 1 FROM pg_stat_activity WHERE pid = {int(os_pid)}"
                await tx.execute("SET LOCAL idle_in_transaction_session_timeout = 1")
                await eventually(lambda: not Foreign(postgres).run(alive))
                await tx.execute("SELECT 1")

        async def has_the_servers_words() -> bool:
            """They may be lost where the client writes into the closed connection before it reads."""
            with pytest.raises(es.StoreUnavailable) as caught:
                await stand_idle()
            return _sqlstate(caught.value) == "25P03" and "idle-in-transaction" in str(caught.value)

        await eventually(has_the_servers_words, timeout=30)


def _sqlstate(error: BaseException | None) -> str | None:
    while error is not None:
        if isinstance(error, psycopg.Error) and error.sqlstate is not None:
            return error.sqlstate
        error = error.__cause__
    return None


async def test_connections_the_server_closed_while_idle_cost_no_command(
    postgres: str, store: es.EventStore[Any, Any]
) -> None:
    seen: list[int] = []

    async def follow() -> None:
        while True:
            with contextlib.suppress(es.StoreUnavailable):
                async for batch in store.follow(seen[-1] if seen else 0):
                    seen.extend(event.position for event in batch)

    following = asyncio.create_task(follow())
    for n in range(5):
        appends = [store.append(f"{n} {k}", [AccountOpened("a")], expected=0) for k in range(8)]
        await asyncio.gather(*appends)
        terminate = """
        SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity
        WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'
        """
        assert Foreign(postgres).run(terminate)[0][0] >= 1
    # The listening connection came back as well.
    await store.append("last", [AccountOpened("a")] * 70, expected=0)
    await eventually(lambda: len(seen) == 110, timeout=30)
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    assert seen == list(range(1, 111))


async def test_a_pool_that_is_used_up_is_unavailable(postgres: str) -> None:
    async with bank(postgres, pool_size=1, timeout=0.2) as store:
        await eventually(lambda: _is_connected(store))
        async with store.transaction():
            with pytest.raises(es.StoreUnavailable):
                await store.append("a", [AccountOpened("a")], expected=0)


async def _is_connected(store: es.EventStore[Any, Any]) -> bool:
    """Whether a store with little time for it has got its connection."""
    try:
        return await store.last_sequence("a") >= 0
    except es.StoreUnavailable:
        return False


# --- answers that are lost -----------------------------------------------------------------------------


class LostAnswers:
    """A line to the server that is cut around appends, as told: before one is sent on, or before its answer."""

    def __init__(self, url: str, folder: str) -> None:
        given = psycopg.conninfo.conninfo_to_dict(url)
        self.url = psycopg.conninfo.make_conninfo(url, host=folder)
        self.server = f"{given['host']}/.s.PGSQL.{given.get('port', 5432)}"
        self.path = f"{folder}/.s.PGSQL.{given.get('port', 5432)}"
        self.todo: list[str] = []
        self.lost = 0

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[LostAnswers]:
        async with await asyncio.start_unix_server(self._serve, self.path):
            yield self

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back, forth = await asyncio.open_unix_connection(self.server)
        mute = False

        async def answers() -> None:
            while data := await back.read(65536):
                if mute and b"SELECT 1" in data:  # the command is done, and committed
                    return
                if not mute:
                    writer.write(data)

        answering = asyncio.create_task(answers())
        try:
            while data := await reader.read(65536):
                if b"INSERT INTO event" in data and self.todo:
                    self.lost += 1
                    mute = True
                    if self.todo.pop(0) == "request":
                        return
                    forth.write(data)
                    await asyncio.wait((answering,), timeout=10)
                    return
                forth.write(data)
        finally:
            answering.cancel()
            writer.close()
            forth.close()


@pytest.fixture
async def line(postgres: str) -> AsyncIterator[LostAnswers]:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        async with LostAnswers(postgres, folder).open() as line:
            yield line


@pytest.mark.parametrize("lost", ["answer", "request"])
async def test_an_append_whose_answer_is_lost_is_written_once(line: LostAnswers, lost: str) -> None:
    async with bank(line.url, prepare_threshold=None) as store:
        await store.append("a", [AccountOpened("a")], expected=0)
        line.todo = [lost]
        deposits = [CustomerDepositedCash(1.0, 1.0)] * 2
        message = es.OutboxMessage("sent", "once")
        written = await store.append("a", deposits, expected=1, outbox=[message])
        assert line.lost == 1
        assert [envelope.sequence for envelope in written] == [2, 3]
        assert [event.sequence for event in await store.load_events("a")] == [1, 2, 3]
        assert await store.outbox_size() == 1


async def test_an_append_whose_answer_is_lost_once_more_is_written_once(line: LostAnswers) -> None:
    async with bank(line.url, prepare_threshold=None) as store:
        line.todo = ["answer", "request", "answer"]
        await store.append("a", [AccountOpened("a")], expected=0)
        assert line.lost == 3
        assert [event.sequence for event in await store.load_events("a")] == [1]


async def test_events_of_others_are_not_taken_for_those_of_a_lost_answer(
    postgres: str, line: LostAnswers
) -> None:
    async with bank(line.url, prepare_threshold=None) as store, bank(postgres) as other:
        await other.append("a", [AccountOpened("a")], expected=0)
        line.todo = ["request"]
        with pytest.raises(es.VersionConflict):
            await store.append("a", [AccountOpened("a")], expected=0)
        assert line.lost == 1


async def test_an_outcome_stays_unknown_when_the_server_does_not_come_back(line: LostAnswers) -> None:
    async with bank(line.url, prepare_threshold=None, timeout=0.3) as store:
        await eventually(lambda: _is_connected(store))
        line.todo = ["answer"] * 1000
        with pytest.raises(es.StoreUnavailable) as caught:
            await store.append("a", [AccountOpened("a")], expected=0)
        assert caught.value.outcome_unknown
        line.todo = []
        await eventually(lambda: _is_connected(store))
        assert [event.sequence for event in await store.load_events("a")] == [1]


async def test_who_waits_for_a_connection_can_be_cancelled_in_the_turn_in_which_it_comes(
    postgres: str,
) -> None:
    async with bank(postgres, pool_size=1) as store:
        await store.start()
        database = store.database()  # type: ignore[attr-defined]
        cancelled = 0
        for turns in range(30):
            async with database.connection():
                waiting = asyncio.create_task(store.last_sequence("a"))
                await eventually(lambda: database._pool.get_stats().get("requests_waiting"))
            for _ in range(turns):
                await asyncio.sleep(0)
            if waiting.cancel():
                cancelled += 1
                with pytest.raises(asyncio.CancelledError):
                    await waiting
            assert await store.last_sequence("a") == 0  # and the connection is not lost
        assert cancelled


async def test_a_follower_can_be_cancelled_in_the_turn_in_which_it_is_woken(postgres: str) -> None:
    async with bank(postgres) as store:
        await store.start()
        database = store.database()  # type: ignore[attr-defined]
        for turns in range(10):
            following = asyncio.create_task(anext(store.follow()))  # type: ignore[arg-type]
            await eventually(lambda: database.grown._waiters)
            database.wake()
            for _ in range(turns):
                await asyncio.sleep(0)
            assert following.cancel()
            with pytest.raises(asyncio.CancelledError):
                await following


@pytest.mark.timeout(240)
@pytest.mark.parametrize("mode", ["fast", "immediate"])
async def test_a_restart_under_load_costs_no_command_and_repeats_none(
    own_server: PrivatePostgres, mode: str
) -> None:
    async with bank(own_server.url, timeout=30.0) as store, bank(own_server.url) as reader:
        executor = es.CommandExecutor(store, BANK_ACCOUNT, unavailable_s=60)
        accounts = [f"account-{n}" for n in range(10)]
        for account in accounts:
            await executor.execute(account, OpenAccount(account))
        confirmed = [0] * 10
        stop = asyncio.Event()

        async def client(n: int) -> None:
            while not stop.is_set():
                await executor.execute(accounts[n], DepositMoney(1.0))
                confirmed[n] += 1

        seen: list[es.RecordedEvent[Any]] = []

        async def follow() -> None:
            while True:
                with contextlib.suppress(es.StoreUnavailable):
                    async for batch in reader.follow(seen[-1].position if seen else 0):
                        seen.extend(batch)

        following = asyncio.create_task(follow())
        clients = [asyncio.create_task(client(n)) for n in range(10)]
        for _ in range(2):
            before = sum(confirmed)
            await eventually(lambda before=before: sum(confirmed) > before + 50, timeout=60)  # type: ignore[misc]
            await asyncio.to_thread(own_server.stop, mode)
            await asyncio.to_thread(own_server.start)
        before = sum(confirmed)
        await eventually(lambda: sum(confirmed) > before + 50, timeout=60)
        stop.set()
        await asyncio.gather(*clients)

        for n, account in enumerate(accounts):
            entity = (await executor.load_aggregate(account)).entity
            assert entity.balance == confirmed[n]
        last = await store.last_position()
        await eventually(lambda: seen and seen[-1].position == last, timeout=30)
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        assert [event.position for event in seen] == list(range(1, last + 1))


async def test_without_the_driver_the_store_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "psycopg_pool", None)
    with pytest.raises(es.EventStoreError, match=r"pip install 'pyglyn\[postgres\]'"):
        es.open_store("postgresql://localhost/bank")


async def test_rows_between_commands_of_both_languages_keep_their_order(
    postgres: str, store: es.EventStore[Any, Any]
) -> None:
    database = Foreign(postgres)
    await store.append("a", [AccountOpened("a")], expected=0)
    database.run(database.insert("a", 2, [deposited(1.0, 1.0), deposited(1.0, 2.0)]))
    await store.append("a", [CustomerDepositedCash(1.0, 3.0)], expected=3)
    assert [event.sequence for event in await store.read(limit=2)] == [1, 2]
    assert [event.sequence for event in await store.read(2)] == [3, 4]


async def test_a_transaction_begins_with_its_first_statement(store: es.EventStore[Any, Any]) -> None:
    name = """it's 100% \\ %s {x} "Ω" $1"""
    parked = es.ParkedEvent(query=name, aggregate_id="a'%s", sequence=1, raw=b"\0\xff%s'", error="why")
    await store.save_checkpoint(name, 3)
    await store.park(parked)
    async with store.transaction(isolation="read committed") as tx:
        assert (await tx.load_checkpoint(name)).position == 3
        assert [(each.aggregate_id, each.raw) for each in await tx.parked(name)] == [("a'%s", b"\0\xff%s'")]
        await tx.save_checkpoint(name, 4)
    assert await store.checkpoint(name) == 4
    for first in ([], ["SELECT 1"]):
        with pytest.raises(KeyError):
            await _undone(store, name, first)
    assert await store.checkpoint(name) == 4


async def _undone(store: es.EventStore[Any, Any], name: str, statements: list[str]) -> None:
    async with store.transaction(isolation="read committed") as tx:
        for statement in statements:
            await tx.execute(statement)
        await tx.save_checkpoint(name, 5)
        raise KeyError


async def test_a_transaction_without_a_statement_leaves_nothing_open(postgres: str) -> None:
    async with bank(postgres, pool_size=1) as store:
        async with store.transaction(isolation="read committed") as tx:
            tx.check()
        with pytest.raises(es.EventStoreError, match="has ended"):
            await tx.load_checkpoint("q")
        with pytest.raises(es.EventStoreError, match="zero"):
            await _fails(store)
        await store.append("a", [AccountOpened("a")], expected=0)  # on the same connection
        async with await psycopg.AsyncConnection.connect(postgres) as other:
            await other.execute("LOCK TABLE event, pyglyn_checkpoint IN ACCESS EXCLUSIVE MODE NOWAIT")


async def _fails(store: es.EventStore[Any, Any]) -> None:
    async with store.transaction(isolation="read committed") as tx:
        with contextlib.suppress(es.EventStoreError):
            await tx.execute("SELECT 1 / 0")
