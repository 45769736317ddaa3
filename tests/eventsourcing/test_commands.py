"""Commands against stores: conflicts, fairness, unavailable stores, handlers that fail."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from pyglyn import eventsourcing as es
from pyglyn import gleam
from pyglyn.eventsourcing.domain.copying import owned
from pyglyn.node import Exit
from pyglyn.testing.bank import (
    BANK_ACCOUNT,
    AccountOpened,
    BankAccount,
    BankAccountEvent,
    CustomerDepositedCash,
    CustomerWithdrewCash,
    DepositMoney,
    OpenAccount,
    WithDrawMoney,
)

Bank = es.CommandExecutor[BankAccount, Any, Any]


@pytest.fixture(params=["memory", "sqlite", "postgres"])
async def stores(
    request: pytest.FixtureRequest, tmp_path: Path
) -> AsyncIterator[list[es.EventStore[Any, Any]]]:
    """Two store objects on one database; the memory store is one object."""
    if request.param == "memory":
        store: es.EventStore[Any, Any] = es.MemoryStore("BankAccount")
        yield [store, store]
        return
    url = f"sqlite:{tmp_path}/bank.db" if request.param == "sqlite" else request.getfixturevalue("postgres")
    described = {"events": BankAccountEvent, "state": BankAccount, "aggregate_type": "BankAccount"}
    async with es.open_store(url, **described) as one, es.open_store(url, **described) as two:
        yield [one, two]


async def test_a_hundred_clients_on_one_aggregate_take_turns(stores: list[es.EventStore[Any, Any]]) -> None:
    bank: Bank = es.CommandExecutor(stores[0], BANK_ACCOUNT)
    await bank.execute("a", OpenAccount("a"))
    done: Counter[int] = Counter(dict.fromkeys(range(100), 0))
    unfair = 0

    async def client(n: int) -> None:
        nonlocal unfair
        for _ in range(4):
            await bank.execute("a", DepositMoney(1.0))
            done[n] += 1
            unfair = max(unfair, max(done.values()) - min(done.values()))

    await asyncio.gather(*(client(n) for n in range(100)))
    assert (await bank.load_aggregate("a")).entity.balance == 400.0
    assert [e.sequence for e in await stores[0].load_events("a")] == list(range(1, 402))
    assert unfair <= 2  # each waits for about one command of every other
    assert not bank._turns


async def test_a_hundred_clients_of_two_services_lose_no_update(
    stores: list[es.EventStore[Any, Any]],
) -> None:
    banks = [Bank(store, BANK_ACCOUNT, conflict_retries=10_000) for store in stores]
    await banks[0].execute("a", OpenAccount("a"))
    await asyncio.gather(*(banks[n % 2].execute("a", DepositMoney(1.0)) for n in range(100)))
    assert (await banks[0].load_aggregate("a")).entity.balance == 100.0


async def test_a_hundred_clients_on_a_thousand_aggregates(stores: list[es.EventStore[Any, Any]]) -> None:
    banks = [
        Bank(store, BANK_ACCOUNT, snapshot_config=es.SnapshotConfig(2), conflict_retries=1000)
        for store in stores
    ]
    todo = iter(range(2000))

    async def client() -> None:
        for n in todo:
            name = f"account-{n % 1000}"
            await banks[n % 2].execute(name, OpenAccount(name) if n < 1000 else DepositMoney(float(n)))

    await asyncio.gather(*(client() for _ in range(100)))
    last = await stores[0].last_position()
    assert len(await stores[0].read(limit=5000)) == last == 2000
    for n in (0, 1, 500, 999):
        aggregate = await banks[1].load_aggregate(f"account-{n}")
        assert (aggregate.entity, aggregate.sequence) == (BankAccount(True, 1000.0 + n), 2)


class Flaky(es.MemoryStore[Any, Any]):
    """A store whose appends fail as told, before or after they have happened."""

    def __init__(self, *failures: Exception | None, after: bool = False) -> None:
        super().__init__("BankAccount")
        self.failures = list(failures)
        self.after = after
        self.loads = self.appends = 0
        self.tried: list[Any] = []

    async def load(self, aggregate_id: str, *, use_snapshot: bool = True) -> es.Loaded[Any, Any]:
        self.loads += 1
        return await super().load(aggregate_id, use_snapshot=use_snapshot)

    async def append(self, aggregate_id: str, events: Any, **options: Any) -> list[es.EventEnvelope[Any]]:
        self.appends += 1
        self.tried += events
        failure = self.failures.pop(0) if self.failures else None
        if failure is not None and not self.after:
            raise failure
        written = await super().append(aggregate_id, events, **options)
        if failure is not None:
            raise failure
        return written


async def test_what_certainly_was_not_written_is_tried_again() -> None:
    store = Flaky(
        es.StoreUnavailable("down"), es.TransactionRolledBack("deadlock"), es.VersionConflict("a", 0, None)
    )
    executed = await Bank(store, BANK_ACCOUNT).execute("a", OpenAccount("a"))
    assert (executed.aggregate.sequence, store.appends, store.loads) == (1, 4, 4)


async def test_what_may_have_been_written_is_not_tried_again() -> None:
    store = Flaky(es.StoreUnavailable("cut", outcome_unknown=True), after=True)
    bank = Bank(store, BANK_ACCOUNT)
    with pytest.raises(es.StoreUnavailable) as caught:
        await bank.execute("a", OpenAccount("a"))
    assert caught.value.outcome_unknown
    assert store.appends == 1
    # It was: the next command finds it, because nothing was cached.
    assert (await bank.execute("a", DepositMoney(1.0))).aggregate.sequence == 2


async def test_patience_has_an_end() -> None:
    with pytest.raises(es.VersionConflict):
        await Bank(Flaky(*[es.VersionConflict("a", 0, 1)] * 9), BANK_ACCOUNT, conflict_retries=3).execute(
            "a", OpenAccount("a")
        )
    store = Flaky(*[es.StoreUnavailable("down")] * 1000)
    with pytest.raises(es.StoreUnavailable):
        await Bank(store, BANK_ACCOUNT, unavailable_s=0.05).execute("a", OpenAccount("a"))
    assert 1 < store.appends < 100


@attrs.frozen
class Halve:
    """Refused, faulty or without effect on an account that has nothing."""

    how: str


def handle_halve(account: BankAccount, command: Any) -> list[Any]:
    if not isinstance(command, Halve):
        return BANK_ACCOUNT.handle(account, command)  # type: ignore[return-value]
    if account.balance:
        return [CustomerWithdrewCash(account.balance / 2, account.balance / 2)]
    match command.how:
        case "refused":
            raise es.DomainError("nothing there")
        case "a fault in handle":
            raise ZeroDivisionError
        case "a fault in apply":
            return [CustomerWithdrewCash(0.0, "?")]  # type: ignore[arg-type]
        case "not writable":
            return [CustomerWithdrewCash(0.0, float("nan"))]
        case "no list":
            return None  # type: ignore[return-value]
    return []


def apply_halve(account: BankAccount, event: Any) -> BankAccount:
    after = BANK_ACCOUNT.apply(account, event)
    return attrs.evolve(after, balance=after.balance + 0.0)


@pytest.mark.parametrize(
    "how", ["refused", "a fault in handle", "a fault in apply", "not writable", "no list", "no events"]
)
async def test_only_events_are_believed_of_a_remembered_aggregate(
    stores: list[es.EventStore[Any, Any]], how: str
) -> None:
    """Another service has deposited since: nobody is told that there is nothing to halve."""
    domain = es.Domain(handle_halve, apply_halve, BankAccount())
    one, two = (Bank(store, domain, write=gleam.encoder(BankAccountEvent).encode) for store in stores)
    await one.execute("a", OpenAccount("a"))
    await two.execute("a", DepositMoney(100.0))
    assert (await one.execute("a", Halve(how))).aggregate.entity.balance == 50.0
    await two.execute("a", Halve(how))
    assert (await one.execute("a", Halve(how))).aggregate.entity.balance == 12.5


async def test_what_a_store_cannot_write_is_believed_only_of_an_aggregate_that_was_loaded(
    tmp_path: Path,
) -> None:
    """As above, without an encoder before the append: it is the store that refuses the event."""
    url = f"sqlite:{tmp_path}/bank.db"
    described: dict[str, Any] = {"events": BankAccountEvent, "aggregate_type": "BankAccount"}
    async with es.open_store(url, **described) as here, es.open_store(url, **described) as there:
        one, two = (
            Bank(store, es.Domain(handle_halve, apply_halve, BankAccount())) for store in (here, there)
        )
        await one.execute("a", OpenAccount("a"))
        await two.execute("a", DepositMoney(100.0))
        assert (await one.execute("a", Halve("not writable"))).aggregate.entity.balance == 50.0


async def test_an_aggregate_is_loaded_once() -> None:
    store = Flaky()
    bank = Bank(store, BANK_ACCOUNT)
    await bank.execute("a", OpenAccount("a"))
    await bank.execute("a", DepositMoney(1.0))
    assert store.loads == 1
    with pytest.raises(es.DomainError):
        await bank.execute("a", OpenAccount("a"))
    assert (await bank.execute("a", DepositMoney(0.0))).envelopes == []
    await bank.execute("a", DepositMoney(1.0))
    assert store.loads == 1


async def test_events_that_cannot_be_sent_are_not_committed(stores: list[es.EventStore[Any, Any]]) -> None:
    def refuse(event: Any) -> Any:
        raise es.EventEncodeError("no Gleam value")

    bank = Bank(stores[0], BANK_ACCOUNT, write=refuse)
    for _ in range(2):
        with pytest.raises(es.EventEncodeError, match="no Gleam value"):
            await bank.execute("a", OpenAccount("a"))
    assert (await stores[0].load("a")).sequence == 0


@pytest.mark.parametrize("raised", [asyncio.CancelledError, GeneratorExit, SystemExit, StopIteration, Exit])
async def test_what_would_end_a_task_is_an_error_of_its_command(raised: type[BaseException]) -> None:
    def handle(account: BankAccount, command: Any) -> list[Any]:
        if command == "raise":
            raise raised
        return [AccountOpened("raise" if command == "apply" else "a")]

    def apply(account: BankAccount, event: Any) -> BankAccount:
        if event == AccountOpened("raise"):
            raise raised
        return BANK_ACCOUNT.apply(account, event)

    store: es.EventStore[Any, Any] = es.MemoryStore("BankAccount")
    bank = Bank(store, es.Domain(handle, apply, BankAccount()))
    for command in ("raise", "apply"):
        with pytest.raises(RuntimeError, match=raised.__name__):
            await bank.execute("a", command)
    assert (await bank.execute("a", "open")).aggregate.sequence == 1
    await store.append("a", [AccountOpened("raise")], expected=1)
    with pytest.raises(RuntimeError, match=raised.__name__):
        await bank.load_aggregate("a")


async def test_those_in_line_behind_an_unavailable_store_are_told_together() -> None:
    """Each waits as long as it was to from when it came, not from when its turn comes."""
    store = Flaky(*[es.StoreUnavailable("the disk is full")] * 1000)
    bank = Bank(store, BANK_ACCOUNT, unavailable_s=0.2)
    now = time.monotonic()
    outcomes = await asyncio.gather(
        bank.execute("a", OpenAccount("0"), came_at=now),
        *(bank.execute("a", OpenAccount(str(n)), came_at=now - 1.0) for n in range(1, 20)),
        return_exceptions=True,
    )
    assert [str(outcome) for outcome in outcomes] == ["the disk is full"] * 20
    assert {event.account_id for event in store.tried} == {"0"}, "only the first has tried"
    tried = store.appends
    with pytest.raises(es.StoreUnavailable):  # one that comes later tries by itself
        await bank.execute("a", OpenAccount("a"))
    assert store.appends > tried


@pytest.mark.parametrize("bad", [{"by": "teller"}, {"ab": "c"}, ["ab"], [("a", 1)]])
async def test_metadata_that_is_no_pairs_is_refused(bad: Any) -> None:
    bank: Bank = es.CommandExecutor(es.MemoryStore("BankAccount"), BANK_ACCOUNT)
    with pytest.raises(TypeError, match="pairs of two strings"):
        await bank.execute("a", OpenAccount("a"), bad)


# --- snapshots ----------------------------------------------------------------------------------------


async def test_a_snapshot_ahead_of_the_events_is_not_used(
    stores: list[es.EventStore[Any, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    """The events were restored from an older backup, or repaired by hand."""
    store = stores[0]
    ahead = es.Snapshot("a", BankAccount(True, 900.0), 9, 0)
    await store.append("a", [AccountOpened("a"), CustomerDepositedCash(1.0, 1.0)], expected=0, snapshot=ahead)
    bank = Bank(store, BANK_ACCOUNT, snapshot_config=es.SnapshotConfig(3))
    assert (await bank.load_aggregate("a")).entity == BankAccount(True, 1.0)
    assert "the snapshot of a says 9, where it has no event" in caplog.text
    assert (await bank.execute("a", DepositMoney(1.0))).aggregate.sequence == 3
    caplog.clear()
    assert (await bank.load_aggregate("a")).entity == BankAccount(True, 2.0)
    assert not caplog.text, "the new snapshot has replaced the wrong one"


async def test_a_snapshot_far_ahead_is_not_used_when_later_events_exist(
    stores: list[es.EventStore[Any, Any]],
) -> None:
    await stores[0].append(
        "a", [AccountOpened("a")], expected=0, snapshot=es.Snapshot("a", BankAccount(False, 9.0), 0, 0)
    )
    bank = Bank(stores[0], BANK_ACCOUNT, snapshot_config=es.SnapshotConfig(3))
    assert (await bank.load_aggregate("a")).sequence == 1


@attrs.frozen
class CountingAccount:
    """The account of a later version of the program."""

    opened: bool = False
    balance: float = 0.0
    deposits: int = 0


def apply_counting(account: CountingAccount, event: Any) -> CountingAccount:
    after = BANK_ACCOUNT.apply(account, event)  # type: ignore[arg-type]
    counts = isinstance(event, CustomerDepositedCash)
    return attrs.evolve(after, deposits=account.deposits + counts)  # type: ignore[call-arg,return-value]


async def test_a_snapshot_of_a_class_that_has_other_fields_now_is_not_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A field more, with a default, and then a field less."""
    snapshots = es.SnapshotConfig(2)
    described = {"events": BankAccountEvent, "aggregate_type": "BankAccount"}

    def opened(state: type) -> es.EventStore[Any, Any]:
        return es.open_store(f"sqlite:{tmp_path}/bank.db", state=state, **described)

    counting: es.Domain[Any, Any, Any] = es.Domain(
        lambda account, command: [CustomerDepositedCash(1.0, account.balance + 1.0)],
        apply_counting,
        CountingAccount(),
    )
    async with opened(BankAccount) as old:
        bank = Bank(old, BANK_ACCOUNT, snapshot_config=snapshots)
        for command in (OpenAccount("a"), DepositMoney(1.0), DepositMoney(1.0), DepositMoney(1.0)):
            await bank.execute("a", command)
    async with opened(CountingAccount) as new:
        later: es.CommandExecutor[Any, Any, Any] = es.CommandExecutor(
            new, counting, snapshot_config=snapshots
        )
        assert (await later.load_aggregate("a")).entity == CountingAccount(True, 3.0, 3)
        assert "CountingAccount has other fields: missing field 'deposits'" in caplog.text
        for _ in range(2):
            await later.execute("a", "deposit")
        caplog.clear()
        assert (await later.load_aggregate("a")).entity == CountingAccount(True, 5.0, 5)
        assert not caplog.text
    async with opened(BankAccount) as old:
        bank = Bank(old, BANK_ACCOUNT, snapshot_config=snapshots)
        assert (await bank.load_aggregate("a")).entity == BankAccount(True, 5.0)
        assert "BankAccount has other fields: unknown field 'deposits'" in caplog.text


async def test_a_snapshot_that_cannot_be_written_costs_no_command(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    domain: es.Domain[Any, Any, Any] = es.Domain(
        lambda account, command: [AccountOpened("a")], lambda account, event: account, BankAccount(True, 0)
    )
    async with es.open_store(
        f"sqlite:{tmp_path}/bank.db", events=BankAccountEvent, state=BankAccount, aggregate_type="BankAccount"
    ) as store:
        bank: Bank = es.CommandExecutor(store, domain, snapshot_config=es.SnapshotConfig(1))
        assert (await bank.execute("a", "open")).aggregate.sequence == 1
        assert await store.latest_snapshot("a") is None
    assert "no snapshot of a at 1: BankAccount is not writable" in caplog.text


async def test_a_handler_that_raises_writes_nothing_and_harms_nobody() -> None:
    def handle(account: BankAccount, command: Any) -> list[Any]:
        if command == "nothing":
            return None  # type: ignore[return-value]
        if command == "raise":
            raise ZeroDivisionError
        return BANK_ACCOUNT.handle(account, command)  # type: ignore[return-value]

    def apply(account: BankAccount, event: Any) -> BankAccount:
        if event == AccountOpened("poison"):
            raise KeyError("poison")
        return BANK_ACCOUNT.apply(account, event)

    store: es.EventStore[Any, Any] = es.MemoryStore("BankAccount")
    bank = Bank(store, es.Domain(handle, apply, BankAccount()))
    with pytest.raises(ZeroDivisionError):
        await bank.execute("a", "raise")
    with pytest.raises(es.InvalidHandlerResult):
        await bank.execute("a", "nothing")
    with pytest.raises(KeyError):
        await bank.execute("a", OpenAccount("poison"))
    assert await store.read() == []
    assert (await bank.execute("a", OpenAccount("a"))).aggregate.sequence == 1


async def test_a_command_without_events_writes_nothing() -> None:
    store = Flaky()
    bank = Bank(store, BANK_ACCOUNT, snapshot_config=es.SnapshotConfig(1))
    await bank.execute("a", OpenAccount("a"))
    executed = await bank.execute("a", DepositMoney(0))
    assert (executed.envelopes, executed.aggregate.sequence) == ([], 1)
    assert await store.last_position() == 1


async def test_snapshots_are_taken_when_a_batch_steps_over_the_frequency() -> None:
    def handle(_account: BankAccount, command: int) -> list[AccountOpened]:
        return [AccountOpened(str(n)) for n in range(command)]

    store: es.EventStore[Any, Any] = es.MemoryStore("BankAccount")
    domain: es.Domain[Any, int, Any] = es.Domain(handle, BANK_ACCOUNT.apply, BankAccount())
    bank = es.CommandExecutor(store, domain, snapshot_config=es.SnapshotConfig(4), cached=0)
    taken = []
    for count in (3, 3, 3, 1, 9):  # to sequences 3, 6, 9, 10, 19
        await bank.execute("a", count)
        snapshot = await store.latest_snapshot("a")
        taken.append(snapshot.sequence if snapshot else None)
    assert taken == [None, 6, 9, 9, 19]


async def test_the_cache_is_bounded_and_can_be_off() -> None:
    store = Flaky()
    bank = Bank(store, BANK_ACCOUNT, cached=3)
    for n in range(10):
        await bank.execute(str(n), OpenAccount("a"))
    assert len(bank._remembered) == 3
    loads = store.loads
    await bank.execute("9", DepositMoney(1.0))
    assert store.loads == loads
    await Bank(store, BANK_ACCOUNT, cached=0).execute("9", DepositMoney(1.0))
    assert store.loads == loads + 1


async def test_a_cancelled_command_gives_up_its_turn() -> None:
    store: es.EventStore[Any, Any] = es.MemoryStore("BankAccount")
    bank = Bank(store, BANK_ACCOUNT)
    async with store.transaction():
        first = asyncio.create_task(bank.execute("a", OpenAccount("a")))
        second = asyncio.create_task(bank.execute("a", OpenAccount("a")))
        await asyncio.sleep(0)
        first.cancel()
    assert (await second).aggregate.sequence == 1
    assert not bank._turns


async def test_outbox_messages_are_written_with_their_command(stores: list[es.EventStore[Any, Any]]) -> None:
    def outbox(id: str, before: int, events: list[Any]) -> list[es.OutboxMessage]:
        return [es.OutboxMessage("published", f"{id} {before} {len(events)}")]

    bank = Bank(stores[0], BANK_ACCOUNT, outbox=outbox)
    await bank.execute("a", OpenAccount("a"))
    await bank.execute("a", DepositMoney(0))
    with pytest.raises(es.DomainError):
        await bank.execute("a", OpenAccount("a"))
    assert [entry.body for entry in await stores[1].take_outbox("published")] == ["a 0 1"]


def test_errors_have_fields_for_programs() -> None:
    error = es.ActorTimeout("load_aggregate", 50)
    assert (error.operation, error.timeout_ms, str(error)) == (
        "load_aggregate",
        50,
        "load_aggregate failed after 50 ms",
    )
    assert isinstance(error, TimeoutError)
    assert es.EventStoreError("why").text == "why"
    assert es.EntityNotFound("a").aggregate_id == "a"
    assert isinstance(es.StoreUnavailable("down"), ConnectionError)
    assert attrs.asdict(es.AggregateStats("a", 1, 1, False)) == {
        "aggregate_id": "a",
        "event_count": 1,
        "current_sequence": 1,
        "has_snapshot": False,
    }


# --- entities that are changed in place --------------------------------------------------------------------


@attrs.define
class Basket:
    items: list[str] = attrs.field(factory=list)


@attrs.frozen
class Put:
    item: str


def put(basket: Basket, command: Put) -> list[Put]:
    if command.item in basket.items:
        raise es.DomainError("already there")
    basket.items.append(command.item)  # not its business, and without consequence
    return [command]


def apply_in_place(basket: Basket, event: Put) -> Basket:
    basket.items.append(event.item)
    return basket


@pytest.mark.parametrize("cached", [0, 1000])
@pytest.mark.parametrize("frequency", [None, 1, 2])
@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_an_apply_that_changes_the_entity_in_place_changes_nobody_elses(
    kind: str, tmp_path: Path, cached: int, frequency: int | None
) -> None:
    url = "memory:" if kind == "memory" else f"sqlite:{tmp_path}/baskets.db"
    store = es.open_store(url, events=Put, state=Basket, aggregate_type="basket")
    domain: es.Domain[Basket, Put, Put] = es.Domain(put, apply_in_place, Basket())
    config = None if frequency is None else es.SnapshotConfig(frequency)
    async with store:
        baskets = es.CommandExecutor(store, domain, cached=cached, snapshot_config=config)
        shown = []
        for name in ("ada", "bob"):
            for item in ("milk", "bread", "milk", "eggs"):
                if item == "milk" and shown and shown[-1].aggregate_id == name:
                    with pytest.raises(es.DomainError):
                        await baskets.execute(name, Put(item))
                    continue
                shown.append((await baskets.execute(name, Put(item))).aggregate)
        assert domain.empty_state == Basket()
        contents = ["milk", "bread", "eggs"]
        assert [each.entity.items for each in shown] == [contents[:n] for n in (1, 2, 3)] * 2
        for name in ("ada", "bob"):
            assert (await baskets.load_aggregate(name)).entity.items == contents
            other = es.CommandExecutor(store, domain, cached=0)
            assert (await other.load_aggregate(name)).entity.items == contents
            if frequency is not None:
                snapshot = await store.latest_snapshot(name)
                assert snapshot is not None
                assert snapshot.entity.items == contents[: snapshot.sequence]


@attrs.define
class Loop:
    to: Any = None


@attrs.frozen
class Holds:
    parts: Any


@dataclasses.dataclass(frozen=True)
class Point:
    x: float
    tags: list[str]


def test_what_cannot_change_is_shared_and_all_else_is_copied() -> None:
    fixed: list[Any] = [
        1,
        "a",
        None,
        2.5,
        b"b",
        (1, ("x",)),
        BankAccount(True, 1.0),
        Holds(("a", BankAccount())),
    ]
    for value in fixed:
        assert owned(value) is value
    changeable: list[Any] = [
        [1, [2]],
        {"a": [1]},
        {1, 2},
        bytearray(b"x"),
        Basket(["a"]),
        Holds([1]),
        Holds((Basket(["b"]),)),
        Point(1.0, ["t"]),
        ([1], 2),
    ]
    for value in changeable:
        copied = owned(value)
        assert copied == value
        assert copied is not value
    holds = Holds([Basket(["b"]), BankAccount()])
    copied = owned(holds)
    copied.parts[0].items.append("c")
    assert holds.parts[0].items == ["b"]
    assert copied.parts[1] is holds.parts[1]
    loop = Loop()
    loop.to = [loop]
    assert owned(loop).to[0].to[0] is not loop
    generator = (n for n in ())
    assert owned(Holds(generator)).parts is generator


class Counting(es.MemoryStore[Any, Any]):
    """Counts the events that are read."""

    events_read = 0

    async def load(self, aggregate_id: str, *, use_snapshot: bool = True) -> es.Loaded[Any, Any]:
        loaded = await super().load(aggregate_id, use_snapshot=use_snapshot)
        self.events_read += len(loaded.envelopes)
        return loaded

    async def load_events(self, aggregate_id: str, start_from: int = 0, **options: Any) -> Any:
        found = await super().load_events(aggregate_id, start_from, **options)
        self.events_read += len(found)
        return found


async def test_a_refusal_reads_only_what_came_since(caplog: pytest.LogCaptureFixture) -> None:
    store = Counting("BankAccount")
    bank: Bank = es.CommandExecutor(store, BANK_ACCOUNT)
    other: Bank = es.CommandExecutor(store, BANK_ACCOUNT)
    await bank.execute("a", OpenAccount("a"))
    for _ in range(100):
        await bank.execute("a", DepositMoney(1.0))
    assert store.events_read == 0
    for _ in range(3):
        with pytest.raises(es.DomainError):
            await bank.execute("a", OpenAccount("a"))
        assert (await bank.execute("a", DepositMoney(0))).envelopes == []
    assert store.events_read == 6  # the last one each time, as a sign that nothing was lost
    await other.execute("a", DepositMoney(1.0))
    store.events_read = 0
    assert (await bank.execute("a", DepositMoney(0))).aggregate.entity.balance == 101.0
    await other.execute("a", DepositMoney(1.0))
    assert (await bank.execute("a", DepositMoney(1.0))).aggregate.entity.balance == 103.0
    assert store.events_read == 4
    # A log that was put back to what it was, and went on differently.
    for stored in (store._streams["a"], store._log):
        del stored[50:]
    for _ in range(60):
        await other.execute("a", DepositMoney(10.0))
    executed = await bank.execute("a", DepositMoney(0))
    assert executed.aggregate == await other.load_aggregate("a")
    assert "no longer is" in caplog.text


async def test_after_an_outage_nothing_is_decided_on_what_was_remembered_before_it() -> None:
    """The store that comes back may lack the last events, and others may have gone on differently."""
    store = Flaky()
    bank, other = Bank(store, BANK_ACCOUNT), Bank(store, BANK_ACCOUNT)
    for id in ("a", "b"):
        await bank.execute(id, OpenAccount(id))
        await bank.execute(id, DepositMoney(100.0))
    for stored in (store._streams["b"], store._log):
        del stored[-1]
    await other.execute("b", DepositMoney(1.0))
    store.failures = [es.StoreUnavailable("the server has failed over")]
    await bank.execute("a", DepositMoney(1.0))
    with pytest.raises(es.DomainError):
        await bank.execute("b", WithDrawMoney(50.0))
    assert (await bank.execute("b", DepositMoney(1.0))).aggregate.entity.balance == 2.0


async def test_a_final_refusal_is_settled_by_its_id(stores: list[es.EventStore[Any, Any]]) -> None:
    store = stores[0]
    bank = Bank(store, BANK_ACCOUNT)
    await bank.execute("a", OpenAccount("a"))
    for _ in range(2):
        with pytest.raises(es.DomainError) as refused:
            await bank.execute("a", WithDrawMoney(5.0), command_id="w1", final=True)
    known = await store.find_command("w1")
    assert known is not None
    assert (known.aggregate_id, known.sequence, known.events) == ("a", 1, 0)
    await bank.execute("a", DepositMoney(10.0))
    for other in (bank, Bank(stores[-1], BANK_ACCOUNT, cached=0)):
        for final in (True, False):  # one that was late
            with pytest.raises(es.DomainError) as again:
                await other.execute("a", WithDrawMoney(5.0), command_id="w1", final=final)
            assert again.value.error == refused.value.error
    await bank.execute("a", WithDrawMoney(5.0), command_id="w2", final=True)
    assert (await bank.execute("a", WithDrawMoney(5.0), command_id="w2", final=True)).aggregate.sequence == 3
    with pytest.raises(es.DomainError, match="refused before"):  # by other rules than now
        await bank.execute("a", DepositMoney(1.0), command_id="w1")


async def test_a_refusal_that_is_not_final_is_forgotten(stores: list[es.EventStore[Any, Any]]) -> None:
    store = stores[0]
    bank = Bank(store, BANK_ACCOUNT)
    await bank.execute("a", OpenAccount("a"))
    with pytest.raises(es.DomainError):
        await bank.execute("a", WithDrawMoney(5.0), command_id="w1")
    with pytest.raises(es.DomainError):
        await bank.execute("a", WithDrawMoney(5.0), final=True)  # without an id there is nothing to keep
    await bank.execute("a", DepositMoney(10.0))
    assert (await bank.execute("a", WithDrawMoney(5.0), command_id="w1")).aggregate.sequence == 3


async def test_who_refuses_a_command_that_another_one_has_carried_out_says_so(
    stores: list[es.EventStore[Any, Any]],
) -> None:
    store = stores[0]
    await Bank(store, BANK_ACCOUNT).execute("a", OpenAccount("a"))
    refuse = Bank(store, BANK_ACCOUNT)
    remember = refuse._remember_refusal

    async def late(request: Any, sequence: int) -> None:
        other = Bank(stores[-1], BANK_ACCOUNT)
        await other.execute("a", DepositMoney(10.0))
        await other.execute("a", WithDrawMoney(5.0), command_id="w1")
        await remember(request, sequence)

    refuse._remember_refusal = late  # type: ignore[method-assign]
    found = await refuse.execute("a", WithDrawMoney(5.0), command_id="w1", final=True)
    assert found.aggregate.sequence == 3
