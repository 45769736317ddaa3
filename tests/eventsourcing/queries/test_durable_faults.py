"""What can go wrong around a durable query: its function, its orders, its stores, a second instance of it."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import sys
from collections.abc import AsyncIterator
from typing import Any

import psycopg
import pytest
import pytest_asyncio

from pyglyn import eventsourcing as es
from pyglyn.etf import Atom
from pyglyn.eventsourcing import glyn
from pyglyn.eventsourcing.queries import durable_state
from pyglyn.node import Node
from pyglyn.testing import eventually
from pyglyn.testing.bank import (
    BankAccountEvent,
    CustomerDepositedCash,
    DepositMoney,
    OpenAccount,
    apply,
    handle,
)
from tests.eventsourcing.handles import bank_at
from tests.eventsourcing.queries.totals import (
    QUICK,
    Totals,
    bank,
    deposits,
    has_state,
    parked,
    status,
)
from tests.eventsourcing.stores.foreign import Foreign, deposited
from tests.node.conftest import unique_name

OK, ERROR = Atom("ok"), Atom("error")

pytestmark = pytest.mark.usefixtures("stores_closed")


async def filled(url: str, **accounts: int) -> tuple[es.EventStore[Any, Any], Totals]:
    """Open a store, make the table, and append deposits to accounts."""
    store = bank(url)
    totals = Totals(store, url)
    await totals.create()
    for account, count in accounts.items():
        await deposits(store, account, count)
    return store, totals


# --- the function ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("plain", [False, True], ids=["async", "plain"])
async def test_a_failed_statement_whose_error_is_caught_is_the_events_failure(node, postgres, plain):
    """PostgreSQL undoes the whole transaction then; what the others wrote must not go with it."""
    store, totals = await filled(postgres, a=2, b=2, c=1)
    bad = "INSERT INTO missing VALUES (1)"

    async def project(tx: es.Transaction[Any, Any], envelope: Any) -> None:
        await totals.project(tx, envelope)
        if envelope.aggregate_id == "b":
            with contextlib.suppress(es.EventStoreError):
                await tx.execute(bad)

    def project_plainly(cursor: es.Cursor, envelope: Any) -> None:
        totals.project_plainly(cursor, envelope)
        if envelope.aggregate_id == "b":
            with contextlib.suppress(es.EventStoreError):
                cursor.execute(bad)

    function = project_plainly if plain else project
    await es.DurableQuery("totals", function, store=store, into=store, policy=QUICK).start(node)
    await totals.become({"a": (2, 2.0), "c": (1, 1.0)})
    found = await parked(node, 2)
    assert b"missing" in found[0][Atom("error")]
    assert (found[0][Atom("attempts")], found[1][Atom("attempts")]) == (3, 0)


@pytest.mark.parametrize("plain", [False, True], ids=["async", "plain"])
async def test_a_statement_fails_where_it_belongs_though_it_was_put_off(node, url, plain):
    """The function is called again for the batch, and then each statement is run at once."""
    store, totals = await filled(url, a=3, b=2, c=1)
    bad = "INSERT INTO missing VALUES (1)"

    async def project(tx: es.Transaction[Any, Any], envelope: Any) -> None:
        await totals.project(tx, envelope)
        if envelope.aggregate_id == "b":
            await tx.execute(bad)

    def project_plainly(cursor: es.Cursor, envelope: Any) -> None:
        totals.project_plainly(cursor, envelope)
        if envelope.aggregate_id == "b":
            try:
                cursor.execute(bad)
            except es.EventStoreError as error:
                raise LookupError("missing") from error

    function = project_plainly if plain else project
    await es.DurableQuery("totals", function, store=store, into=store, policy=QUICK).start(node)
    await totals.become({"a": (3, 3.0), "c": (1, 1.0)})
    found = await parked(node, 2)
    assert b"missing" in found[0][Atom("error")]
    assert [each[Atom("attempts")] for each in found] == [3, 0]


async def test_in_sqlite_a_function_may_catch_what_a_statement_raises_though_it_was_put_off(node, tmp_path):
    url = f"sqlite:{tmp_path}/a.db"
    store, totals = await filled(url, a=3, b=2)

    async def project(tx: es.Transaction[Any, Any], envelope: Any) -> None:
        amount = envelope.payload.amount
        try:
            await tx.execute("INSERT INTO totals VALUES (?, 1, ?)", (envelope.aggregate_id, amount))
        except es.EventStoreError:
            await tx.execute(
                "UPDATE totals SET events = events + 1, total = total + ? WHERE account = ?",
                (amount, envelope.aggregate_id),
            )

    await es.DurableQuery("totals", project, store=store, into=store, policy=QUICK).start(node)
    await totals.become({"a": (3, 3.0), "b": (2, 2.0)})
    assert (await status(node)).parked == 0


@pytest.mark.parametrize("plain", [False, True], ids=["async", "plain"])
async def test_a_query_sees_what_was_put_off_before_it(node, url, plain):
    store, totals = await filled(url, a=5)
    seen: list[Any] = []
    count = "SELECT count(*), sum(events) FROM totals"

    async def project(tx: es.Transaction[Any, Any], envelope: Any) -> None:
        await totals.project(tx, envelope)
        seen.extend(await tx.execute(count))

    def project_plainly(cursor: es.Cursor, envelope: Any) -> None:
        totals.project_plainly(cursor, envelope)
        seen.extend(cursor.execute(count))

    function = project_plainly if plain else project
    await es.DurableQuery("totals", function, store=store, into=store, policy=QUICK).start(node)
    await totals.become({"a": (5, 5.0)})
    assert [tuple(map(int, row)) for row in seen] == [(1, n) for n in range(1, 6)]


async def test_in_a_savepoint_of_its_own_a_statement_may_fail(node, postgres):
    store, totals = await filled(postgres, a=2)

    async def project(tx: es.Transaction[Any, Any], envelope: Any) -> None:
        await tx.execute("SAVEPOINT mine")
        with pytest.raises(es.EventStoreError):
            await tx.execute("INSERT INTO missing VALUES (1)")
        await tx.execute("ROLLBACK TO mine")
        await totals.project(tx, envelope)

    await es.DurableQuery("totals", project, store=store, into=store, policy=QUICK).start(node)
    await totals.become({"a": (2, 2.0)})


@pytest.mark.parametrize("statement", ["COMMIT", " rollback", "END", "BEGIN"])
async def test_a_function_that_would_end_the_transaction_has_its_event_parked(node, url, statement):
    store, totals = await filled(url, a=1, b=1, c=1)

    async def project(tx: es.Transaction[Any, Any], envelope: Any) -> None:
        if envelope.aggregate_id == "b":
            await tx.execute(statement)
        await totals.project(tx, envelope)

    await es.DurableQuery("totals", project, store=store, into=store, policy=QUICK).start(node)
    found = await parked(node, 1)
    assert b"does not begin or end inside" in found[0][Atom("error")]
    await totals.become({"a": (1, 1.0), "c": (1, 1.0)})


async def test_what_only_the_commit_finds_wrong_is_the_failure_of_the_event_it_is_due_to(node, postgres):
    store, totals = await filled(postgres, a=5, b=1, c=5)
    async with store.transaction() as tx:
        await tx.execute("CREATE TABLE parent (id int PRIMARY KEY)")
        await tx.execute(
            "CREATE TABLE child (parent int REFERENCES parent DEFERRABLE INITIALLY DEFERRED)",
        )

    async def project(tx: es.Transaction[Any, Any], envelope: Any) -> None:
        await totals.project(tx, envelope)
        if envelope.aggregate_id == "b":
            await tx.execute("INSERT INTO child VALUES (1)")

    await es.DurableQuery("totals", project, store=store, into=store, policy=QUICK).start(node)
    await totals.become({"a": (5, 5.0), "c": (5, 5.0)})
    [found] = await parked(node, 1)
    assert b"violates foreign key constraint" in found[Atom("error")]
    assert found[Atom("attempts")] == 3


async def raise_exit(*_: Any) -> None:
    sys.exit("no more")


async def be_cancelled(*_: Any) -> None:
    raise asyncio.CancelledError


def raise_stop_iteration(*_: Any) -> None:
    next(iter(()))


@pytest.mark.parametrize("into", [True, False], ids=["into", "outside"])
@pytest.mark.parametrize(
    ("function", "error"),
    [
        (raise_exit, b"SystemExit"),
        (be_cancelled, b"CancelledError"),
        (lambda *_: sys.exit("no more"), b"SystemExit"),
        (raise_stop_iteration, b"StopIteration"),
    ],
    ids=["exit", "cancelled", "plain-exit", "plain-stop"],
)
async def test_a_function_that_wants_to_end_everything_only_fails(node, tmp_path, function, error, into):
    store = bank(f"sqlite:{tmp_path}/bank.db")
    await deposits(store, "a", 1)
    where = {"into": store} if into else {}
    await es.DurableQuery("totals", function, store=store, policy=QUICK, **where).start(node)
    [found] = await parked(node, 1)
    assert error in found[Atom("error")]
    assert found[Atom("attempts")] == 3


async def test_a_batch_that_fails_outside_of_a_transaction_repeats_no_effect_before_the_failing_one(
    node, url
):
    store = bank(url)
    await deposits(store, "a", 5)
    seen: list[int] = []
    failures = 2

    async def notice(id: str, envelopes: list[Any]) -> None:
        nonlocal failures
        for envelope in envelopes:
            if envelope.sequence == 4 and failures:
                failures -= 1
                raise ValueError("not now")
            seen.append(envelope.sequence)

    await es.DurableQuery("totals", notice, store=store, policy=QUICK).start(node)
    await eventually(lambda: len(seen) == 5)
    await has_state(node, "live")
    assert seen == [1, 2, 3, 4, 5]


# --- the stores ------------------------------------------------------------------------------------------


async def test_a_store_that_cannot_be_read_is_tried_until_it_can(node, url):
    """For any reason, and with the reason shown: here its table has gone."""
    store, totals = await filled(url, a=1)
    async with store.transaction() as tx:
        await tx.execute("ALTER TABLE pyglyn_position RENAME TO elsewhere")
    await es.DurableQuery("totals", totals.project, store=store, into=store).start(node)
    await has_state(node, "stuck")
    assert "pyglyn_position" in (await status(node)).error
    async with store.transaction() as tx:
        await tx.execute("ALTER TABLE elsewhere RENAME TO pyglyn_position")
    await totals.become({"a": (1, 1.0)})
    await has_state(node, "live")
    assert (await status(node)).error == ""


async def test_a_checkpoint_that_cannot_be_written_parks_nothing_and_repeats_no_effect(node, tmp_path):
    store = bank(f"sqlite:{tmp_path}/bank.db")
    await deposits(store, "a", 3)
    async with store.transaction() as tx:
        refuse = "BEGIN SELECT RAISE(ABORT, 'not today'); END"
        await tx.execute(f"CREATE TRIGGER refuse BEFORE INSERT ON pyglyn_checkpoint {refuse}")
    seen: list[int] = []

    async def notice(id: str, envelopes: list[Any]) -> None:
        seen.append(envelopes[0].sequence)

    policy = es.FailurePolicy(retries=None, first=0.001)
    await es.DurableQuery("totals", notice, store=store, policy=policy).start(node)
    await has_state(node, "stuck")
    assert "not today" in (await status(node)).error
    async with store.transaction() as tx:
        await tx.execute("DROP TRIGGER refuse")
    await has_state(node, "live")
    assert seen == [1, 2, 3]
    assert await store.parked() == []


BROKEN = {
    "a payload of bytes": "VALUES ('BankAccount', 'odd', 1, 'E', '1', x'7b7d', '[]')",
    "a payload that is no UTF-8": "VALUES ('BankAccount', 'odd', 1, 'E', '1', CAST(x'ff7b' AS text), '[]')",
    "an id that is no UTF-8": "VALUES ('BankAccount', CAST(x'ff7b' AS text), 1, 'E', '1', :good, '[]')",
    "an id of bytes": "VALUES ('BankAccount', x'61', 1, 'E', '1', :good, '[]')",
    "a sequence of letters": "VALUES ('BankAccount', 'odd', 'abc', 'E', '1', :good, '[]')",
    "metadata of bytes": "VALUES ('BankAccount', 'odd', 1, 'E', '1', :good, x'5b5d')",
    "metadata that is no UTF-8": "VALUES ('BankAccount', 'odd', 1, 'E', '1', :good, CAST(x'ff' AS text))",
    "a type of bytes": "VALUES ('BankAccount', 'odd', 1, x'45', '1', :good, '[]')",
}


@pytest.mark.parametrize("values", BROKEN.values(), ids=BROKEN)
async def test_whatever_another_program_puts_into_a_row_is_parked_in_its_place(node, tmp_path, values):
    store, totals = await filled(f"sqlite:{tmp_path}/bank.db", a=1)
    foreign = sqlite3.connect(tmp_path / "bank.db")
    foreign.execute(f"INSERT INTO event {values}", {"good": deposited(1.0, 1.0)} if ":" in values else {})
    foreign.commit()
    foreign.close()
    await es.DurableQuery("totals", totals.project, store=store, into=store).start(node)
    await deposits(store, "a", 1, start=1)
    await totals.become({"a": (2, 2.0)})
    [found] = await parked(node, 1)
    assert found[Atom("aggregate_id")] != b"a"
    if "ff7b" in values and "'odd'" in values:
        assert found[Atom("raw")] == b"\xff{"


async def test_a_checkpoint_ahead_of_the_store_is_said_until_everything_is_replayed(node, url, tmp_path):
    """The events were restored from a backup, or were in memory; the checkpoint is elsewhere."""
    into = es.open_store(f"sqlite:{tmp_path}/elsewhere.db")
    totals = Totals(into, "sqlite:")
    await totals.create()
    await into.save_checkpoint("totals", 1000)
    store = bank(url)
    await deposits(store, "a", 3)
    query = es.DurableQuery("totals", totals.project, store=store, into=into, on_reset=totals.undo)
    await query.start(node)
    await has_state(node, "stopped")
    error = (await status(node)).error
    assert "no events up to position 1000" in error
    assert "A replay of all begins anew" in error
    assert await node.call("totals", (Atom("replay"), Atom("all"))) is OK
    assert (await status(node)).state != "stopped"
    await totals.become({"a": (3, 3.0)})
    await has_state(node, "live")
    assert (await status(node)).error == ""
    await into.close()


async def test_a_store_that_has_grown_past_the_checkpoint_again_is_noticed_as_well(node, tmp_path):
    into = es.open_store(f"sqlite:{tmp_path}/elsewhere.db")
    totals = Totals(into, "sqlite:")
    await totals.create()
    first, second = bank("memory:"), bank("memory:")
    await deposits(first, "a", 3)
    await deposits(second, "b", 5)
    pid = await es.DurableQuery("totals", totals.project, store=first, into=into).start(node)
    await totals.become({"a": (3, 3.0)})
    await eventually(lambda: _is_at(into, 3))
    node.system.exit(pid, "kill")
    await eventually(lambda: node.whereis("totals") is None)
    query = es.DurableQuery("totals", totals.project, store=second, into=into, on_reset=totals.undo)
    await query.start(node)
    await has_state(node, "stopped")
    assert "another event than the one processed at position 3" in (await status(node)).error
    assert await totals.rows() == {"a": (3, 3.0)}
    with pytest.raises(es.ActorTimeout):  # it stands at another store's position 3
        await es.wait_for(node, "totals", 3, timeout=0.2)
    assert await node.call("totals", (Atom("replay"), Atom("all"))) is OK
    await es.wait_for(node, "totals", 5, timeout=60)
    assert await totals.rows() == {"b": (5, 5.0)}
    await into.close()


async def _is_at(store: es.EventStore[Any, Any], position: int) -> bool:
    return await store.checkpoint("totals") == position


async def test_a_query_sees_the_events_of_a_memory_store_opened_by_its_url(node):
    store = bank("memory:")
    seen: list[int] = []

    async def notice(id: str, envelopes: list[Any]) -> None:
        seen.extend(envelope.sequence for envelope in envelopes)

    query = es.DurableQuery("totals", notice, store=store)
    await query.start(node)
    await deposits(store, "a", 3)
    await eventually(lambda: seen == [1, 2, 3])
    with pytest.raises(es.EventStoreError, match="one OS process"):
        query.worker()
    assert query.worker(isolation="task").name == "totals"


async def test_without_a_place_for_its_checkpoint_a_query_is_refused(tmp_path):
    from eventsourcing.popo import POPOApplicationRecorder

    config = glyn.GlynConfig(pubsub_scope="example", pubsub_group="bank")
    recorder = es.RecorderStore(POPOApplicationRecorder(), es.RowCodec(aggregate_type="T"))
    for store in (config, recorder, glyn.glyn_store(config, recorder)):
        with pytest.raises(es.EventStoreError, match=r"give into= .* or checkpoints="):
            es.DurableQuery("q", print, store=store)
        with pytest.raises(es.EventStoreError, match=r"give into= .* or checkpoints="):
            es.DurableQuery("q", print, store=store, checkpoints=recorder)
        es.DurableQuery("q", print, store=store, checkpoints=f"sqlite:{tmp_path}/checkpoints.db")
        es.DurableQuery("q", print, store=store, into=f"sqlite:{tmp_path}/checkpoints.db")
    with pytest.raises(es.EventStoreError, match="in the database into"):
        es.DurableQuery("q", print, store=config, into="sqlite:a.db", checkpoints="sqlite:b.db")


async def serve_bank(node: Node, url: str) -> glyn.GlynConfig:
    config = glyn.GlynConfig(pubsub_scope="example", pubsub_group="bank")
    events = await glyn.start(node, config, bank(url), (), BankAccountEvent)
    await es.start(node, es.service("bank", events, handle=handle, apply=apply, empty_state=events_state()))
    return config


def events_state() -> Any:
    from pyglyn.testing.bank import BankAccount

    return BankAccount()


async def test_a_remote_query_without_a_database_of_its_effects_goes_on_where_it_was(node, tmp_path):
    config = await serve_bank(node, f"sqlite:{tmp_path}/bank.db")
    await bank_at(node).execute("a", OpenAccount("a"))
    seen: list[int] = []

    async def notice(id: str, envelopes: list[Any]) -> None:
        seen.extend(envelope.sequence for envelope in envelopes)

    checkpoints = f"sqlite:{tmp_path}/checkpoints.db"
    async with Node(unique_name(), cookie="eventsourcing") as far:
        await far.connect(node.name)
        query = es.DurableQuery(
            "totals", notice, store=config, checkpoints=checkpoints, events=BankAccountEvent
        )
        pid = await query.start(far)
        await eventually(lambda: _is_live_at(far, 1))  # killed before that, it may repeat the effect
        assert seen == [1]
        far.system.exit(pid, "kill")
        await eventually(lambda: far.whereis("totals") is None)
        await bank_at(node).execute("a", DepositMoney(1.0))
        await query.start(far)
        await eventually(lambda: _is_live_at(far, 2))
        assert seen == [1, 2]
        # Its status tells how far the store is, paused or not.
        assert await far.call("totals", Atom("pause")) is OK
        await bank_at(node).execute("a", DepositMoney(1.0))
        now = await status(far)
        assert (now.state, now.position, now.lag) == ("paused", 2, 1)


class Stingy(es.MemoryStore[Any, Any]):
    """Hands out three events at a time, as another node does that has a bound of its own."""

    async def read(self, after: int = 0, *, limit: int = 500, aggregate_id: str | None = None) -> Any:
        return await super().read(after, limit=min(limit, 3), aggregate_id=aggregate_id)


async def test_a_replay_goes_on_where_less_is_sent_than_was_asked_for(node, tmp_path):
    store = Stingy("BankAccount")
    await deposits(store, "a", 10)
    into = bank(f"sqlite:{tmp_path}/totals.db")
    totals = Totals(into, "sqlite:")
    await totals.create()
    query = es.DurableQuery(
        "totals",
        totals.project,
        store=store,
        into=into,
        limits=es.BatchLimits(size=5),
        on_reset=totals.undo,
    )
    await query.start(node)
    await es.wait_for(node, "totals", 10, timeout=60)
    assert await node.call("totals", (Atom("replay"), b"a")) == (OK, 0)
    await es.wait_for(node, "totals", 10, timeout=60)
    assert await totals.rows() == {"a": (10, 10.0)}


async def test_an_event_that_cannot_be_sent_is_parked_by_a_remote_query_and_the_others_are_not(
    node, tmp_path
):
    config = await serve_bank(node, f"sqlite:{tmp_path}/bank.db")
    await bank_at(node).execute("a", OpenAccount("a"))
    payload = '{"event-type":"account-opened","account-id":"\\ud800"}'
    foreign = Foreign(f"sqlite:{tmp_path}/bank.db")
    foreign.run(foreign.insert("odd", 1, [payload]))
    await bank_at(node).execute("a", DepositMoney(1.0))
    async with Node(unique_name(), cookie="eventsourcing") as far:
        await far.connect(node.name)
        url = f"sqlite:{tmp_path}/elsewhere.db"
        totals = Totals(bank(url), url)
        await totals.create()
        await es.DurableQuery(
            "totals", totals.project, store=config, into=totals.into, events=BankAccountEvent
        ).start(far)
        await totals.become({"a": (2, 1.0)})
        [found] = await parked(far, 1)
        assert (found[Atom("aggregate_id")], found[Atom("raw")]) == (b"odd", payload.encode())


# --- orders ----------------------------------------------------------------------------------------------


async def test_a_query_that_cannot_undo_its_effects_refuses_to_make_them_again(node, url):
    store, totals = await filled(url, a=2)
    query = es.DurableQuery("totals", totals.project, store=store, into=store)
    pid = await query.start(node)
    await totals.become({"a": (2, 2.0)})
    for order in ((Atom("replay"), Atom("all")), (Atom("replay"), b"a"), Atom("reset")):
        tag, (_, text) = await node.call("totals", order)
        assert tag is ERROR
        assert b"has no on_reset" in text
    node.system.exit(pid, "kill")
    await eventually(lambda: node.whereis("totals") is None)
    # One whose effects may be made again says so.
    query = es.DurableQuery("totals", totals.project, store=store, into=store, idempotent=True)
    await query.start(node)
    assert await node.call("totals", (Atom("replay"), Atom("all"))) is OK
    await totals.become({"a": (4, 4.0)})


async def test_a_reset_that_fails_is_shown_and_done_once_it_can_be(node, url):
    store, totals = await filled(url, a=2)
    able = False

    async def undo(tx: es.Transaction[Any, Any], account: str | None) -> None:
        await totals.undo(tx, account)
        if not able:
            raise ValueError("cannot undo")

    query = es.DurableQuery("totals", totals.project, store=store, into=store, on_reset=undo, policy=QUICK)
    await query.start(node)
    await totals.become({"a": (2, 2.0)})
    async with store.transaction() as tx:
        await tx.execute("UPDATE totals SET total = 99")
    assert await node.call("totals", (Atom("replay"), Atom("all"))) is OK
    await has_state(node, "stopped")
    assert "cannot undo" in (await status(node)).error
    assert await totals.rows() == {"a": (2, 99.0)}
    able = True
    await node.call("totals", Atom("resume"))
    await totals.become({"a": (2, 2.0)})
    await has_state(node, "live")


async def test_driving_the_same_events_twice_has_their_effects_once(node, url):
    store, totals = await filled(url, a=20)
    totals.fail = lambda envelope: True
    policy = es.FailurePolicy(retries=0)
    pid = await es.DurableQuery("totals", totals.project, store=store, into=store, policy=policy).start(node)
    await parked(node, 20)
    totals.fail = lambda envelope: False
    for _ in range(3):
        assert (await node.call(pid, (Atom("drive"), Atom("all"))))[0] is OK
    await totals.become({"a": (20, 20.0)})
    await parked(node, 0)
    await deposits(store, "a", 1, start=20)
    await totals.become({"a": (21, 21.0)})


async def test_driving_does_not_read_all_that_is_parked_for_each_event(node, url, monkeypatch):
    store, totals = await filled(url, a=30)
    totals.fail = lambda envelope: True
    policy = es.FailurePolicy(retries=0)
    pid = await es.DurableQuery("totals", totals.project, store=store, into=store, policy=policy).start(node)
    await parked(node, 30)
    totals.fail = lambda envelope: False
    lists: list[str] = []
    monkeypatch.setattr(type(store), "parked", _noting(lists, type(store).parked))
    monkeypatch.setattr("pyglyn.eventsourcing.stores.sql.SqlTransaction.parked", _refuse)
    await node.call(pid, (Atom("drive"), Atom("all")))
    await totals.become({"a": (30, 30.0)})
    assert len(lists) <= 1


def _noting(notes: list[str], function: Any) -> Any:
    def noting(*args: Any, **options: Any) -> Any:
        notes.append(function.__name__)
        return function(*args, **options)

    return noting


def _refuse(*_: Any, **__: Any) -> Any:
    raise AssertionError("all parked events are read")


async def test_odd_requests_are_answered(node, tmp_path):
    store, totals = await filled(f"sqlite:{tmp_path}/bank.db", a=1)
    query = es.DurableQuery("totals", totals.project, store=store, into=store, on_reset=totals.undo)
    await query.start(node)
    odd: list[Any] = [
        (Atom("replay"), b"\xff"),
        (Atom("replay"), b"\0"),
        (Atom("replay"), 1),
        (Atom("drive"), True),
        (Atom("drive"), b"all"),
        Atom("nonsense"),
        [],
    ]
    for request in odd:
        assert (await node.call("totals", request))[0] is ERROR
    await totals.become({"a": (1, 1.0)})
    assert await node.call("totals", (Atom("drive"), 2**80)) == (OK, 0)


# --- two instances ---------------------------------------------------------------------------------------


@pytest_asyncio.fixture
async def two(node, url) -> AsyncIterator[tuple[Node, Node, es.EventStore[Any, Any], Totals]]:
    """The same query on two nodes."""
    store, totals = await filled(url)
    policy = es.FailurePolicy(retries=0)
    async with Node(unique_name(), cookie="eventsourcing") as second:
        for at in (node, second):
            source = bank(url)
            options: dict[str, Any] = {"store": source, "into": source, "policy": policy}
            await es.DurableQuery("totals", totals.project, on_reset=totals.undo, **options).start(at)
        yield node, second, store, totals


async def test_a_pause_and_its_end_hold_for_all_instances(two):
    first, second, store, totals = two
    await deposits(store, "a", 2)
    await totals.become({"a": (2, 2.0)})
    await first.call("totals", Atom("pause"))
    await deposits(store, "a", 2, start=2)
    await has_state(first, "paused")
    await has_state(second, "paused")
    assert await totals.rows() == {"a": (2, 2.0)}
    await second.call("totals", Atom("resume"))
    await totals.become({"a": (4, 4.0)})
    for at in (first, second):
        await eventually(lambda at=at: _runs(at))


async def _runs(node: Node) -> bool:
    return (await status(node)).state in ("live", "idle")


async def test_what_one_instance_has_driven_holds_up_nothing_at_the_other(two):
    first, second, store, totals = two
    totals.fail = lambda envelope: True
    await deposits(store, "a", 1)
    for at in (first, second):
        await parked(at, 1)
        await eventually(lambda at=at: _is_live_at(at, 1))
    totals.fail = lambda envelope: False
    await first.call("totals", (Atom("drive"), Atom("all")))
    await totals.become({"a": (1, 1.0)})
    for n in range(1, 10):
        await deposits(store, "a", 1, start=n)
        await totals.become({"a": (n + 1, n + 1.0)})
    assert await store.parked() == []


async def _is_live_at(node: Node, position: int) -> bool:
    now = await status(node)
    return now.state in ("live", "idle") and now.position == position


async def test_both_instances_take_part_in_a_replay_and_no_effect_is_made_twice(two):
    first, second, store, totals = two
    await deposits(store, "a", 300)
    await deposits(store, "b", 1)
    await totals.become({"a": (300, 300.0), "b": (1, 1.0)})
    for n in range(3):
        await first.call("totals", (Atom("replay"), b"a"))
        await second.call("totals", (Atom("replay"), b"a"))
        await deposits(store, "a", 1, start=300 + n)
    await totals.become({"a": (303, 303.0), "b": (1, 1.0)})
    assert await store.parked() == []


async def test_events_driven_at_both_instances_have_their_effects_once(two):
    first, second, store, totals = two
    totals.fail = lambda envelope: True
    await deposits(store, "a", 20)
    for at in (first, second):
        await parked(at, 20)
    totals.fail = lambda envelope: False
    drive = (Atom("drive"), Atom("all"))
    await asyncio.gather(first.call("totals", drive), second.call("totals", drive))
    await totals.become({"a": (20, 20.0)})
    await deposits(store, "a", 1, start=20)
    await totals.become({"a": (21, 21.0)})
    assert await store.parked() == []


async def test_an_event_that_the_other_instance_was_first_to_process_does_not_fail(node, url, monkeypatch):
    """Its key is in the table already, which the second instance only learns from an error."""
    stops: list[str] = []
    stop = durable_state.Projection._stop
    monkeypatch.setattr(
        durable_state.Projection,
        "_stop",
        lambda self, now, error: stops.append(error) or stop(self, now, error),
    )
    store = bank(url)
    mark = "?" if url.startswith("sqlite") else "%s"
    async with store.transaction() as tx:
        await tx.execute("CREATE TABLE seen (account TEXT, number INT, PRIMARY KEY (account, number))")

    async def project(tx: es.Transaction[Any, Any], envelope: Any) -> None:
        await asyncio.sleep(0)
        await tx.execute(
            f"INSERT INTO seen VALUES ({mark}, {mark})", (envelope.aggregate_id, envelope.sequence)
        )

    policy = es.FailurePolicy(retries=0, then="stop")
    async with Node(unique_name(), cookie="eventsourcing") as second:
        for at in (node, second):
            source = bank(url)
            limits = es.BatchLimits(size=3)
            await es.DurableQuery(
                "totals", project, store=source, into=source, policy=policy, limits=limits
            ).start(at)
        await deposits(store, "a", 200)
        await eventually(lambda: _is_at(store, 200), timeout=20)
        for at in (node, second):
            await eventually(lambda at=at: _is_live_at(at, 200), timeout=2 * durable_state.LOOK_AGAIN_S)
    assert stops == []


# --- PostgreSQL ------------------------------------------------------------------------------------------


async def test_a_reader_that_cannot_listen_finds_new_events_all_the_same(postgres, monkeypatch):
    """The server has no connection left for that."""
    store = bank(f"{postgres}{'&' if '?' in postgres else '?'}repair_s=0.05")
    assert await store.read() == []

    async def refuse(*_: Any, **__: Any) -> Any:
        raise psycopg.OperationalError("too many connections")

    monkeypatch.setattr(psycopg.AsyncConnection, "connect", refuse)
    waiting = asyncio.create_task(store.wait(0, timeout=20))
    await asyncio.sleep(0)
    database = Foreign(postgres)
    database.run(database.insert("a", 1, [deposited(1.0, 1.0)]))
    assert await waiting is True
    assert len(await store.read()) == 1


async def test_a_transaction_whose_error_was_caught_does_not_pass_for_committed(postgres):
    store = bank(postgres)
    with pytest.raises(es.EventStoreError, match="missing"):  # noqa: PT012
        async with store.transaction() as tx:
            await tx.append("a", [CustomerDepositedCash(1.0, 1.0)], expected=0)
            with pytest.raises(es.EventStoreError):
                await tx.execute("INSERT INTO missing VALUES (1)")
    assert await store.read() == []
