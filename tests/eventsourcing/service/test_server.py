"""Aggregates as a service on a node: from Python, from Erlang, and by the Gleam library's actor messages."""

from __future__ import annotations

import asyncio
import datetime
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import attrs
import pytest
import pytest_asyncio

from pyglyn import eventsourcing as es
from pyglyn import gleam
from pyglyn.errors import (
    ActorTimeout,
    CallFailed,
    DomainError,
    EntityNotFound,
    EventStoreError,
    NonPositiveArgument,
    StoreUnavailable,
    VersionConflict,
)
from pyglyn.etf import Atom, Reference, Term, text
from pyglyn.eventsourcing.cluster.client import unwrapped
from pyglyn.eventsourcing.queries.query_process import readable
from pyglyn.node import Node, Process
from pyglyn.testing import eventually
from pyglyn.testing.bank import (
    AccountOpened,
    BankAccount,
    BankAccountEvent,
    CustomerDepositedCash,
    DepositMoney,
    OpenAccount,
    WithDrawMoney,
    apply,
    handle,
)
from tests.eventsourcing.handles import GatedStore, bank_at
from tests.eventsourcing.opened import open_store
from tests.node.conftest import unique_name

pytestmark = pytest.mark.usefixtures("stores_closed")


def bank(url: str = "memory:", **options: Any) -> es.ServiceSpec:
    store = open_store(url, events=BankAccountEvent, state=BankAccount, aggregate_type="BankAccount")
    return es.service(
        "bank", store, **{"handle": handle, "apply": apply, "empty_state": BankAccount(), **options}
    )


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def url(request, tmp_path) -> str:
    if request.param == "memory":
        return "memory:"
    if request.param == "sqlite":
        return f"sqlite:{tmp_path}/bank.db"
    return request.getfixturevalue("postgres")


async def test_a_command_says_what_it_expects_where_it_ended_and_that_it_came_before(node, url):
    spec = bank(url)
    await es.start(node, spec)
    accounts = bank_at(node)
    assert (await accounts.execute("b", OpenAccount("b"))).position is None
    opened = await accounts.execute("a", OpenAccount("a"), position=True)
    assert (len(opened), opened.position) == (1, 2)
    with pytest.raises(VersionConflict) as refused:
        await accounts.execute("a", DepositMoney(1.0), expected=0)
    assert (refused.value.aggregate_id, refused.value.expected, refused.value.actual) == ("a", 0, 1)
    first = await accounts.execute("a", DepositMoney(2.0), expected=1, command_id="one", position=True)
    await accounts.send_command("a", DepositMoney(4.0), expected=2, command_id="two")
    await accounts.send_command("a", DepositMoney(4.0), command_id="two")
    await accounts.send_command("a", DepositMoney(8.0), expected=1)
    other = [("by", "teller"), ("command_id", "another")]
    again = await accounts.execute("a", DepositMoney(2.0), metadata=other, command_id="one", position=True)
    assert (again, again.position) == (first, 3)
    nothing = await accounts.execute("a", DepositMoney(0.0), position=True)
    assert (nothing, nothing.position) == ([], 4)
    with pytest.raises(DomainError):
        await accounts.execute("c", DepositMoney(1.0), position=True)
    assert await accounts.load_aggregate("a") == es.Aggregate("a", BankAccount(True, 6.0), 3)


async def test_a_command_is_committed_also_when_nobody_can_tell_where(node, monkeypatch):
    spec = bank()

    async def away(aggregate_id: str, sequence: int) -> int | None:
        raise StoreUnavailable("no connection")

    monkeypatch.setattr(spec.store, "position_of", away)
    await es.start(node, spec)
    opened = await bank_at(node).execute("a", OpenAccount("a"), position=True)
    assert (len(opened), opened.position) == (1, None)


@pytest.mark.parametrize(
    "options", [{Atom("expected"): b"1"}, {Atom("position"): 1}, {Atom("other"): 1}, {Atom("expected"): True}]
)
async def test_options_that_a_service_does_not_know_are_refused(node, options):
    await es.start(node, bank())
    request = (Atom("execute_command"), b"a", gleam.encode(OpenAccount("a")), [], options)
    answer: Any = await node.call("bank", request)
    assert (answer[0], answer[1][0]) == (Atom("error"), Atom("event_store_error"))
    assert (await bank_at(node).aggregate_stats("a")).event_count == 0


async def test_an_actor_in_gleam_is_not_asked_for_what_it_does_not_know(node):
    actor = bank_at(node, gleam.Subject(node.system.pid, Atom("tag")))
    for asked in ({"expected": 1}, {"position": True}):
        with pytest.raises(EventStoreError, match="Gleam"):
            await actor.execute("a", OpenAccount("a"), **asked)
    with pytest.raises(EventStoreError, match="Gleam"):
        await actor.send_command("a", OpenAccount("a"), expected=1)


async def test_commands_commit_events_on_every_store(node, url):
    await es.start(node, bank(url, snapshot_config=es.SnapshotConfig(2)))
    opened = await bank_at(node).execute("a", OpenAccount("a"))
    assert [(e.sequence, e.payload) for e in opened] == [(1, AccountOpened("a"))]
    deposited = await bank_at(node).execute("a", DepositMoney(10.0), metadata=[("by", "teller")])
    assert deposited[0].payload == CustomerDepositedCash(10.0, 10.0)
    assert ("by", "teller") in deposited[0].metadata
    assert await bank_at(node).execute("a", DepositMoney(0.0)) == []

    aggregate = await bank_at(node).load_aggregate("a")
    assert aggregate == es.Aggregate("a", BankAccount(True, 10.0), 2)
    assert await bank_at(node).load_events("a") == [*opened, *deposited]
    assert await bank_at(node).load_events("a", 1) == deposited
    snapshot = await bank_at(node).latest_snapshot("a")
    assert snapshot is not None
    assert (snapshot.entity, snapshot.sequence) == (BankAccount(True, 10.0), 2)
    assert await bank_at(node).latest_snapshot("b") is None
    assert await bank_at(node).system_stats() == es.SystemStats(0, 3)
    assert await bank_at(node).aggregate_stats("a") == es.AggregateStats("a", 2, 2, True)


async def test_refusals_and_faults_reach_the_caller_as_errors_and_end_nothing(node):
    def moody(account: BankAccount, command: Any) -> Any:
        match command:
            case DepositMoney(1.0):
                return None
            case DepositMoney(2.0):
                raise ZeroDivisionError("a bug")
        return handle(account, command)

    await es.start(node, bank(handle=moody, commands=OpenAccount | DepositMoney | WithDrawMoney))
    with pytest.raises(DomainError) as refused:
        await bank_at(node).execute("a", WithDrawMoney(5.0))
    assert refused.value.error == "refused: WithDrawMoney"
    with pytest.raises(EntityNotFound) as missing:
        await bank_at(node).load_aggregate("a")
    assert missing.value.aggregate_id == "a"
    with pytest.raises(EventStoreError, match="returned None; return a list"):
        await bank_at(node).execute("a", DepositMoney(1.0))
    with pytest.raises(EventStoreError, match="ZeroDivisionError: a bug"):
        await bank_at(node).execute("a", DepositMoney(2.0))
    with pytest.raises(EventStoreError, match="the command does not decode"):
        await bank_at(node).execute("a", AccountOpened("not a command"))
    with pytest.raises(EventStoreError, match="unknown request"):
        await unwrapped(await node.call("bank", Atom("nonsense")))
    with pytest.raises(NonPositiveArgument):
        await bank_at(node).execute("a", OpenAccount("a"), timeout=0)
    with pytest.raises(NonPositiveArgument):
        es.SnapshotConfig(0)
    with pytest.raises(CallFailed, match="no such process"):
        await bank_at(node, "nobody").execute("a", OpenAccount("a"))
    await bank_at(node).execute("a", OpenAccount("a"))


@attrs.frozen
class Priced:
    """What JSON could hold, and Gleam's types do not: the amount and the pair, as they are given."""

    amount: float
    pair: tuple[int, int]
    at: datetime.datetime


NOON = datetime.datetime(2024, 1, 1, 12, tzinfo=datetime.UTC)


@pytest.mark.parametrize(
    ("event", "complaint"),
    [
        (Priced(5, (1, 2), NOON), "expected float, got int at amount"),
        (Priced(5.0, (1, 2, 3), NOON), "expected tuple of 2, got tuple of 3 at pair"),  # type: ignore[arg-type]
        (Priced(5.0, [1, 2], NOON), "expected tuple of 2, got list at pair"),  # type: ignore[arg-type]
        (Priced(5.0, (1, 2), NOON.replace(tzinfo=None)), "a datetime without a time zone is not a moment"),
        (AccountOpened("foreign"), "expected Priced, got AccountOpened"),
    ],
)
async def test_an_event_that_cannot_be_told_is_not_committed(node, url, event, complaint):
    """Neither does the caller get an error for what was done, nor do queries miss what happened."""
    told: list[Any] = []
    store = open_store(url, events=Priced, aggregate_type="Priced")
    spec = es.service(
        "prices",
        store,
        handle=lambda state, command: [Priced(1.0, (1, 2), NOON), event],
        apply=lambda state, event: state,
        empty_state=0,
        commands=OpenAccount,
        events=Priced,
        queries=[("told", lambda id, envelopes: told.extend(envelopes))],
    )
    await es.start(node, spec)
    for _ in range(2):
        with pytest.raises(EventStoreError, match=complaint):
            await bank_at(node, "prices").execute("a", OpenAccount("a"))
    assert await bank_at(node, "prices").load_events("a") == []
    assert told == []


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError


class Unshowable:
    def __repr__(self) -> str:
        return "\ud800"


async def test_whatever_a_handler_raises_is_answered_and_the_aggregate_goes_on(node, caplog):
    caplog.set_level(logging.CRITICAL, logger="pyglyn.eventsourcing")  # pytest-xdist cannot send the texts

    def moody(account: BankAccount, command: DepositMoney) -> Any:
        match command:
            case DepositMoney(1.0):
                raise ValueError("x\ud800")
            case DepositMoney(2.0):
                raise Unprintable
            case DepositMoney(3.0):
                raise asyncio.CancelledError
            case DepositMoney(4.0):
                raise SystemExit(3)
            case DepositMoney(5.0):
                raise GeneratorExit
            case DepositMoney(6.0):
                raise DomainError("\ud800")
            case DepositMoney(7.0):
                raise DomainError(Unshowable())
            case DepositMoney(8.0):
                raise EventStoreError("\ud800")
        return [CustomerDepositedCash(command.amount, account.balance + command.amount)]

    await es.start(node, bank(handle=moody, commands=DepositMoney))
    for amount, error, complaint in [
        (1.0, EventStoreError, "ValueError: x.ud800"),
        (2.0, EventStoreError, "Unprintable, whose text raises RuntimeError"),
        (3.0, EventStoreError, "handle or apply raised CancelledError"),
        (4.0, EventStoreError, "handle or apply raised SystemExit"),
        (5.0, EventStoreError, "handle or apply raised GeneratorExit"),
        (6.0, DomainError, "ud800"),
        (7.0, DomainError, "ud800"),
        (8.0, EventStoreError, "ud800"),
    ]:
        with pytest.raises(error, match=complaint):
            await bank_at(node).execute("a", DepositMoney(amount))
    [done] = await bank_at(node).execute("a", DepositMoney(9.0))
    assert done.sequence == 1


class CancellingStore(es.MemoryStore[Any, Any]):
    """Raises a cancellation that nobody has asked for, as a driver might."""

    async def load(self, aggregate_id: str, *, use_snapshot: bool = True) -> Any:
        if aggregate_id == "bad":
            raise asyncio.CancelledError
        return await super().load(aggregate_id, use_snapshot=use_snapshot)


async def test_a_store_that_raises_a_cancellation_ends_its_command_alone(node):
    store = CancellingStore("BankAccount")
    await es.start(
        node,
        es.service("bank", store, handle=handle, apply=apply, empty_state=BankAccount(), causation=False),
    )
    for _ in range(2):
        with pytest.raises(EventStoreError, match="CancelledError"):
            await bank_at(node).execute("bad", OpenAccount("bad"))
    await bank_at(node).execute("good", OpenAccount("good"))


@pytest.mark.parametrize(
    ("id", "metadata", "error", "complaint"),
    [
        ("a", {"by": "teller"}, TypeError, "metadata is pairs of two strings, such as"),
        ("a", {"ab": 1}, TypeError, "pairs of two strings"),
        ("a", [("by", 1)], TypeError, "pairs of two strings"),
        ("a", [("by", "\ud800")], EventStoreError, "lone surrogate"),
        ("\ud800", (), EventStoreError, "aggregate id .* has a lone surrogate"),
        (7, (), EventStoreError, "aggregate id has to be a string, got 7"),
    ],
)
async def test_an_id_or_metadata_that_cannot_be_sent_is_said_clearly(node, id, metadata, error, complaint):
    with pytest.raises(error, match=complaint):
        await bank_at(node).execute(id, OpenAccount("a"), metadata=metadata)
    with pytest.raises(error, match=complaint):
        await bank_at(node).send_command(id, OpenAccount("a"), metadata=metadata)


async def test_an_aggregate_is_counted_without_its_events_being_read(node, url):
    spec = bank(url)
    await es.start(node, spec)
    assert await bank_at(node).aggregate_stats("a") == es.AggregateStats("a", 0, 0, False)
    await bank_at(node).execute("a", OpenAccount("a"))
    await bank_at(node).execute("a", DepositMoney(1.0))
    load, spec.store.load = spec.store.load, None  # type: ignore[assignment]
    assert await bank_at(node).aggregate_stats("a") == es.AggregateStats("a", 2, 2, False)
    spec.store.load = load  # type: ignore[method-assign]


def gated(store: GatedStore) -> es.ServiceSpec:
    return es.service("bank", store, handle=handle, apply=apply, empty_state=BankAccount())


async def test_aggregates_run_in_parallel_with_one_command_at_a_time_each(node):
    store = GatedStore()
    await es.start(node, gated(store))
    commands = [
        asyncio.create_task(bank_at(node).execute(id, command))
        for id in ("a", "b", "c")
        for command in (OpenAccount(id), DepositMoney(1.0))
    ]
    await eventually(lambda: sorted(store.waiting) == ["a", "b", "c"])
    with pytest.raises(ActorTimeout) as late:
        await bank_at(node).load_aggregate("a", timeout=0.05)
    assert (late.value.operation, late.value.timeout_ms) == ("load_aggregate", 50)
    assert sorted(store.waiting) == ["a", "b", "c"]
    store.open.set()
    assert [e.sequence for done in await asyncio.gather(*commands) for e in done] == [1, 2] * 3


@pytest.mark.parametrize(
    ("url", "aggregates"),
    [("memory", 1), ("sqlite", 1), ("postgres", 1), ("memory", 1000)],
    indirect=["url"],
)
async def test_a_hundred_clients_lose_no_update(node, url, aggregates):
    """100 clients, 10 deposits each; with 1,000 aggregates every deposit has its own."""
    await es.start(node, bank(url))
    names = [f"a{number}" for number in range(aggregates)]
    await asyncio.gather(*(bank_at(node).execute(name, OpenAccount(name), timeout=30) for name in names))
    finished: list[int] = []

    async def client(number: int) -> None:
        for turn in range(10):
            name = names[(number * 10 + turn) % aggregates]
            await bank_at(node).execute(name, DepositMoney(1.0), timeout=30)
            finished.append(number)

    await asyncio.gather(*(client(number) for number in range(100)))
    total = sum([(await bank_at(node).load_aggregate(name)).entity.balance for name in names])
    assert total == 1000.0
    halfway = finished[:500]
    assert all(3 <= halfway.count(number) <= 7 for number in range(100)), "clients take turns"


@pytest.mark.parametrize("url", ["sqlite", "postgres"], indirect=True)
async def test_two_services_on_one_database_lose_no_update(node, url):
    """Conflicts between the two are retried."""
    async with Node(unique_name(), cookie="eventsourcing") as second:
        await es.start(node, bank(url))
        await es.start(second, bank(url))
        await bank_at(node).execute("a", OpenAccount("a"))
        await asyncio.gather(
            *(
                bank_at(at).execute("a", DepositMoney(1.0), timeout=60)
                for at in (node, second)
                for _ in range(25)
            )
        )
        assert (await bank_at(second).load_aggregate("a")).entity == BankAccount(True, 50.0)


@attrs.frozen
class Ship:
    parcel: str


@attrs.frozen
class Shipped:
    parcel: str


async def test_two_services_of_one_name_keep_their_types_apart(node):
    """On two nodes of one OS process; each command is committed, and its answer read as what it is."""

    def ship(state: int, command: Ship) -> list[Shipped]:
        return [Shipped(command.parcel)]

    def count(state: int, event: Shipped) -> int:
        return state + 1

    async with Node(unique_name(), cookie="eventsourcing") as second:
        accounts = await es.start(node, bank())
        store: es.MemoryStore[Shipped, int] = es.MemoryStore("parcel")
        shipping = es.service("bank", store, handle=ship, apply=count, empty_state=0)
        parcels = await es.start(second, shipping)
        [opened] = await accounts.execute("a", OpenAccount("a"))
        [shipped] = await parcels.execute("a", Ship("p"))
        assert (opened.payload, shipped.payload) == (AccountOpened("a"), Shipped("p"))
        assert (await parcels.load_aggregate("a")).entity == 1
        assert await shipping.at(second.system).load_events("a") == [shipped]
        untyped = es.Service(second, "bank")
        assert (await untyped.load_events("a"))[0].payload == (Atom("shipped"), b"p")


# --- queries ---------------------------------------------------------------------------------------------


async def test_queries_see_what_was_committed_in_order(node):
    seen: list[tuple[str, list[int]]] = []

    def plain(id: str, envelopes: list[Any]) -> None:
        seen.append((id, [e.sequence for e in envelopes]))

    counted: list[int] = []

    async def waits(id: str, envelopes: list[Any]) -> None:
        await asyncio.sleep(0)
        counted.extend(e.sequence for e in envelopes)

    await es.start(node, bank(queries=[("plain", plain), ("waits", waits)]))
    await bank_at(node).execute("a", OpenAccount("a"))
    for _ in range(20):
        await bank_at(node).execute("a", DepositMoney(1.0))
    await eventually(lambda: (len(seen), len(counted)) == (21, 21))
    assert seen == [("a", [number]) for number in range(1, 22)]
    assert counted == list(range(1, 22))


async def test_a_query_that_raises_is_tried_again_then_its_event_is_parked_and_driven(node):
    failing = True
    seen: list[int] = []
    attempts = 0

    def project(id: str, envelopes: list[Any]) -> None:
        nonlocal attempts
        if failing and envelopes[0].sequence == 1:
            attempts += 1
            raise KeyError("no such table")
        seen.append(envelopes[0].sequence)

    policy = es.FailurePolicy(retries=2, first=0.001)
    spec = bank()
    query = es.QuerySpec(name="broken", function=project, policy=policy, events=spec.events)
    await es.start(node, attrs.evolve(spec, queries=(query,)))
    await bank_at(node).execute("a", OpenAccount("a"))

    async def parked() -> list[Any]:
        return await node.call("broken", Atom("parked"))

    [event] = await eventually(lambda: _of_length(parked, 1))
    assert attempts == 3
    assert event[Atom("attempts")] == 3
    assert b"no such table" in event[Atom("error")]
    failing = False
    assert await node.call("broken", (Atom("drive"), Atom("all"))) == (Atom("ok"), 1)
    assert seen == [1]
    assert await parked() == []
    await bank_at(node).execute("a", DepositMoney(1.0))
    await eventually(lambda: seen == [1, 2])


async def test_a_message_that_does_not_decode_is_parked_with_its_raw_term(node):
    spec = bank(queries=[("events", lambda id, envelopes: None)])
    await es.start(node, spec)
    bad = text.parse(
        '{process_events, <<"a">>, [{memory_store_event_envelop, <<"a">>, 7, {unheard_of, 1}, []}]}'
    )
    node.send("events", bad)
    node.send("events", (b"group", bad))
    node.send("events", Atom("rubbish"))

    async def parked() -> list[Any]:
        return await node.call("events", Atom("parked"))

    found = await eventually(lambda: _of_length(parked, 2))
    assert found[0][Atom("sequence")] == 7
    assert readable(found[0]) == text.format(bad)


async def _of_length(read: Callable[[], Awaitable[list[Any]]], length: int) -> list[Any]:
    found = await read()
    assert len(found) == length
    return found


# --- the Gleam library's messages --------------------------------------------------------------------------


parse = text.parse


ASK = """
    Ref = make_ref(),
    To ! {{Tag, {message}}},
    receive {{Ref, Reply}} -> Reply after 60000 -> none end
"""


async def ask(beam: Any, node: Node, message: str, **bound: Term) -> Term:
    to = (Atom("bank"), Atom(node.name))
    message = message.replace("SUBJECT", "{subject, self(), Ref}")
    return await beam.eval(ASK.format(message=message), To=to, Tag=Atom("bank"), **bound)


@pytest_asyncio.fixture
async def beside(beam) -> AsyncIterator[Node]:
    async with Node(unique_name(), cookie=beam.cookie) as running:
        yield running


async def test_the_actor_messages_of_gleam_are_answered_with_the_terms_of_gleam(beam, beside):
    await es.start(beside, bank(snapshot_config=es.SnapshotConfig(2), causation=False))
    execute = '{execute_command_with_response, <<"a">>, %s, [{<<"k">>, <<"v">>}], SUBJECT}'
    assert await ask(beam, beside, execute % '{open_account, <<"a">>}') == parse("{ok, nil}")
    assert await ask(beam, beside, execute % "{deposit_money, 10.0}") == parse("{ok, nil}")
    refused = await ask(beam, beside, execute % "{with_draw_money, 99.0}")
    assert refused == parse('{error, {domain_error, <<"refused: WithDrawMoney">>}}')
    # Without a response, and with something that is no command.
    await beam.eval(
        'To ! {bank, {execute_command, <<"a">>, {deposit_money, 5.0}, []}}, To ! {bank, {execute_command, <<"a">>, 1, []}}',
        To=(Atom("bank"), Atom(beside.name)),
    )
    loaded = await ask(beam, beside, '{load_aggregate, <<"a">>, SUBJECT}')
    assert loaded == parse('{ok, {aggregate, <<"a">>, {bank_account, true, 15.0}, 3}}')
    first = '{memory_store_event_envelop, <<"a">>, 1, {account_opened, <<"a">>}, [{<<"k">>, <<"v">>}]}'
    second = first.replace('1, {account_opened, <<"a">>}', "2, {customer_deposited_cash, 10.0, 10.0}")
    third = '{memory_store_event_envelop, <<"a">>, 3, {customer_deposited_cash, 5.0, 15.0}, []}'
    all_events = await ask(beam, beside, '{load_all_events, <<"a">>, SUBJECT}')
    assert all_events == parse(f"{{ok, [{first}, {second}, {third}]}}")
    some = await ask(beam, beside, '{load_events, <<"a">>, 2, SUBJECT}')
    assert some == parse(f"{{ok, [{third}]}}")
    match await ask(beam, beside, '{load_latest_snapshot, <<"a">>, SUBJECT}'):
        case (Atom("ok"), (Atom("some"), (Atom("snapshot"), b"a", entity, 2, (Atom("timestamp"), int(), 0)))):
            assert entity == parse("{bank_account, true, 10.0}")
        case other:
            pytest.fail(f"no snapshot: {other}")
    assert await ask(beam, beside, '{load_latest_snapshot, <<"b">>, SUBJECT}') == parse("{ok, none}")
    assert await ask(beam, beside, '{load_aggregate, <<"b">>, SUBJECT}') == parse("{error, entity_not_found}")
    assert await ask(beam, beside, "{get_system_stats, SUBJECT}") == parse("{system_stats, 0, 5}")
    stats = await ask(beam, beside, '{get_aggregate_stats, <<"a">>, SUBJECT}')
    assert stats == parse('{ok, {aggregate_stats, <<"a">>, 3, 3, true}}')


async def test_a_gleam_actor_is_asked_by_its_subject(beam, beside):
    """The actor is played by an Erlang process with the messages of eventsourcing 9.1."""
    pid, tag = await beam.eval(
        """
        Tag = make_ref(),
        Pid = spawn(fun Loop() ->
            receive
                {Tag, {execute_command_with_response, _, {with_draw_money, _}, _, {subject, P, R}}} ->
                    P ! {R, {error, {domain_error, <<"no">>}}};
                {Tag, {execute_command_with_response, _, _, _, {subject, P, R}}} -> P ! {R, {ok, nil}};
                {Tag, {load_aggregate, Id, {subject, P, R}}} ->
                    P ! {R, {ok, {aggregate, Id, {bank_account, true, 1.5}, 4}}};
                {Tag, {get_system_stats, {subject, P, R}}} -> P ! {R, {system_stats, 1, 2}}
            end, Loop() end),
        {Pid, Tag}
        """
    )
    assert isinstance(tag, Reference)
    subject: gleam.Subject[Any] = gleam.Subject(pid, tag)
    assert await bank_at(beside, subject).execute("a", OpenAccount("a")) == []
    with pytest.raises(DomainError, match="no"):
        await bank_at(beside, subject).execute("a", WithDrawMoney(1.0))
    loaded = await bank_at(beside, subject).load_aggregate("a")
    assert loaded == es.Aggregate("a", BankAccount(True, 1.5), 4)
    assert await bank_at(beside, subject).system_stats() == es.SystemStats(1, 2)
    with pytest.raises(ActorTimeout):
        await bank_at(beside, subject).latest_snapshot("a", timeout=0.05)


# --- metadata ----------------------------------------------------------------------------------------------


async def test_what_a_query_commands_carries_the_ids_of_what_it_saw(node):
    async def interest(id: str, envelopes: list[Any]) -> None:
        if isinstance(envelopes[0].payload, AccountOpened) and id == "a":
            await bank_at(node).execute("b", OpenAccount("b"))

    await es.start(node, bank(queries=[("interest", interest)]))
    [first] = await bank_at(node).execute("a", OpenAccount("a"))
    second = (await eventually(lambda: _of_length(lambda: bank_at(node).load_events("b"), 1)))[0]
    ids, caused = dict(first.metadata), dict(second.metadata)
    assert ids["correlation_id"] == ids["causation_id"] == caused["correlation_id"]
    assert caused["causation_id"] == es.event_id(first) == "/a/1"
    assert ids["node"] == node.name


async def test_a_process_executes_commands_as_itself(node):
    done: list[Any] = []

    async def body(me: Process) -> None:
        done.extend(await bank_at(me).execute("a", OpenAccount("a")))
        await bank_at(me).send_command("a", DepositMoney(1.0))

    await es.start(node, bank())
    node.spawn(body)
    await eventually(lambda: _of_length(lambda: bank_at(node).load_events("a"), 2))
    assert [e.sequence for e in done] == [1]
