"""Events and states of several versions: read from JSON, from stores, and from nodes of another version."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import attrs
import pytest
import pytest_asyncio

from pyglyn import eventsourcing as es
from pyglyn import gleam
from pyglyn.errors import DecodeErrors, EventDecodeError
from pyglyn.etf import Atom
from pyglyn.eventsourcing import glyn
from pyglyn.eventsourcing.domain import wire
from pyglyn.eventsourcing.domain.evolution import version_number
from pyglyn.groups import syn
from pyglyn.node import Node
from pyglyn.testing import eventually
from tests.node.conftest import unique_name

# --- the past: what golden rows hold -------------------------------------------------------------------


def in_cents(old: dict[str, Any]) -> dict[str, Any]:
    return {**old, "amount": round(old["amount"] * 100)}


def with_currency(old: dict[str, Any]) -> dict[str, Any]:
    return {**old, "currency": "EUR"}


@es.event("order_placed", version=3, aliases=["orderPlaced"], upcasters={1: in_cents, 2: with_currency})
@attrs.frozen
class Placed:
    order: str
    amount: int
    currency: str


@es.event(version=2, upcasters={1: lambda old: None})
@attrs.frozen
class Viewed:
    page: str


def split(old: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"event-type": "shipped", "parcel": each} for each in old["parcels"]]


@attrs.frozen
class Shipped:
    parcel: str


Event = Placed | Viewed | Shipped
STYLE = es.JsonStyle(
    upcasters={"all-shipped": {1: split}}, earlier=(es.JsonStyle(tag_key="kind", key_spelling=es.camel_case),)
)
CODEC: es.JsonCodec[Any] = es.JsonCodec(Event, STYLE, tagged=True)

GOLDEN = [
    (1, '{"event-type":"order_placed","order":"a","amount":1.5}', Placed("a", 150, "EUR")),
    (1, '{"event-type":"orderPlaced","order":"a","amount":1.5}', Placed("a", 150, "EUR")),
    (2, '{"event-type":"order_placed","order":"a","amount":150}', Placed("a", 150, "EUR")),
    (3, '{"event-type":"order_placed","order":"a","amount":1,"currency":"USD"}', Placed("a", 1, "USD")),
    (1, '{"event-type":"viewed"}', es.Several(())),
    (2, '{"event-type":"viewed","page":"p"}', Viewed("p")),
    (1, '{"event-type":"all-shipped","parcels":["x","y"]}', es.Several((Shipped("x"), Shipped("y")))),
    (1, '{"event-type":"all-shipped","parcels":["x"]}', Shipped("x")),
    (1, '{"kind":"shipped","parcel":"z"}', Shipped("z")),
]


@pytest.mark.parametrize(("version", "text", "event"), GOLDEN)
def test_stored_events_of_every_version_are_read(version: int, text: str, event: object) -> None:
    assert CODEC.decode(text, version) == event


def test_what_an_upcaster_gets_wrong_is_said() -> None:
    with pytest.raises(EventDecodeError, match="from version 1 raised KeyError: 'amount'"):
        CODEC.decode('{"event-type":"order_placed","order":"a"}', 1)

    @es.event(version=2, upcasters={1: lambda old: "odd"})  # type: ignore[arg-type, return-value]
    @attrs.frozen
    class Odd:
        pass

    codec: es.JsonCodec[Any] = es.JsonCodec(Odd, tagged=True)
    with pytest.raises(EventDecodeError, match="returned a string in place of an object"):
        codec.decode('{"event-type":"odd"}', 1)


def test_declarations_that_cannot_work_are_refused() -> None:
    with pytest.raises(
        ValueError, match=r"needs an upcaster for each version before it, \[1, 2\]; got \[1\]"
    ):
        es.event(version=3, upcasters={1: in_cents})
    with pytest.raises(ValueError, match="version 0"):
        es.event(version=0)

    @es.event("order_placed")
    @attrs.frozen
    class Other:
        pass

    with pytest.raises(ValueError, match="have the same tag 'order_placed'"):
        es.JsonCodec(Placed | Other, tagged=True)
    with pytest.raises(ValueError, match="'shipped' has a class"):
        es.JsonCodec(Shipped, es.JsonStyle(upcasters={"shipped": {1: split}}), tagged=True)


def test_versions_are_read_from_the_gleam_stores_column() -> None:
    assert [version_number(text) for text in ("1.0", "2", "10.3", "v7", "", "0")] == [1, 2, 10, 1, 1, 1]


def test_snapshots_of_an_earlier_version_are_used() -> None:
    @attrs.frozen
    class Before:
        total: int = 0

    @es.state(version=2, upcasters={1: lambda old: {**old, "count": 1}})
    @attrs.frozen
    class After:
        total: int = 0
        count: int = 0

    old = es.JsonCodec(Before, exact=True).encode(Before(5))
    codec = es.JsonCodec(After, exact=True)
    assert codec.decode(old) == After(5, 1)
    assert codec.decode(codec.encode(After(5, 7))) == After(5, 7)


# --- stores ----------------------------------------------------------------------------------------------


def fold(state: list[Any], event: Event) -> list[Any]:
    return [*state, event]


def handle(state: list[Any], command: Event) -> list[Event]:
    return [command]


async def test_a_store_with_rows_of_three_versions(node, url):
    """They are folded, read and queried as events of now; what is written now has its version beside it."""
    async with es.open_store(url, aggregate_type="order") as old, old.transaction() as tx:
        mark = "?" if url.startswith("sqlite") else "%s"
        for sequence, (version, text, _) in enumerate(GOLDEN, 1):
            values = ", ".join([mark] * 7)
            row = ("order", "a", sequence, "orderEvent", f"{version}.0", text, "[]")
            await tx.execute(f"INSERT INTO event VALUES ({values})", row)
    store = es.open_store(url, events=Event, aggregate_type="order", style=STYLE)
    service = es.service("orders", store, handle=handle, apply=fold, empty_state=[], commands=Event)
    orders = await es.start(node, service)
    new = Placed("b", 7, "CHF")
    [placed] = await orders.execute("a", new)
    assert (placed.sequence, placed.payload, placed.event_version) == (len(GOLDEN) + 1, new, "3")  # type: ignore[union-attr]
    events = [
        each for *_, event in GOLDEN for each in (event.events if isinstance(event, es.Several) else [event])
    ]
    assert [each.payload for each in await orders.load_events("a")] == [*events, new]
    assert (await es.CommandExecutor(store, service.domain).load_aggregate("a")).entity == [*events, new]
    seen: list[Any] = []

    async def project(tx: es.Transaction[Any, Any], envelope: Any) -> None:
        seen.append(envelope.payload)

    query = es.DurableQuery(
        "seen",
        project,
        store=es.open_store(url, events=Event, aggregate_type="order", style=STYLE),
        into=store,
    )
    await query.start(node)
    await eventually(lambda: seen == [*events, new])
    [row] = [each for each in await store.load_events("a") if each.payload == new]
    assert row.event_version == "3"  # type: ignore[union-attr]


# --- nodes of two versions -------------------------------------------------------------------------------


def old() -> tuple[Any, Any]:
    @attrs.frozen
    class Item:
        name: str

    @attrs.frozen
    class Opened:
        owner: str
        items: list[Item] = attrs.field(factory=list)

    @attrs.frozen
    class Closed:
        why: str

    attrs.resolve_types(Opened, globals(), locals())
    return Opened | Closed, (Opened, Closed, Item)


def new() -> tuple[Any, Any]:
    @attrs.frozen
    class Item:
        name: str
        price: int | None = None

    @attrs.frozen
    class Opened:
        owner: str
        items: list[Item] = attrs.field(factory=list)
        country: str = "?"

    @es.event(aliases=["closed"])
    @attrs.frozen
    class Ended:
        why: str

    @attrs.frozen
    class Frozen:
        by: str

    attrs.resolve_types(Opened, globals(), locals())
    return Opened | Ended | Frozen, (Opened, Ended, Item, Frozen)


def test_trailing_defaults_are_filled_in_and_left_out() -> None:
    before, (OldOpened, OldClosed, OldItem) = old()
    after, (Opened, Ended, Item, Frozen) = new()
    newer, older = wire.event_decoding(after), wire.event_decoding(before)
    assert newer(gleam.encode(OldOpened("a", [OldItem("x")]))) == Opened("a", [Item("x")])
    assert older(gleam.encode(Opened("a", [Item("x", 7)], "de"))) == OldOpened("a", [OldItem("x")])
    assert newer(gleam.encode(OldClosed("enough"))) == Ended("enough")
    for read, event in ((older, Frozen("x")), (newer, OldItem("x"))):
        with pytest.raises(DecodeErrors):
            read(gleam.encode(event))
    with pytest.raises(DecodeErrors):
        newer((Atom("opened"),))  # the owner has no default


CONFIG = glyn.GlynConfig(pubsub_scope="w", pubsub_group="g")


@pytest_asyncio.fixture
async def upgraded(node: Node, tmp_path: Any) -> AsyncIterator[tuple[es.Service[Any, Any, Any], Node]]:
    """A node of the new version that serves the events, connected to one that does not."""
    after, _ = new()
    store = es.open_store(f"sqlite:{tmp_path}/a.db", events=after, aggregate_type="account")
    broadcasting = glyn.glyn_store(CONFIG, store, after)
    made = es.service(
        "accounts", broadcasting, handle=handle, apply=fold, empty_state=[], commands=after, events=after
    )
    accounts = await es.start(node, made)
    async with Node(unique_name(), cookie="eventsourcing") as beside:
        syn.start(beside, CONFIG.pubsub_scope)
        await node.connect(beside.name)
        yield accounts, beside


async def test_a_node_of_the_old_version_goes_on_and_the_upgraded_one_does_what_was_left(upgraded, tmp_path):
    """Live and durable queries; nothing is parked for good."""
    accounts, beside = upgraded
    before, (OldOpened, *_) = old()
    after, (Opened, Ended, _Item, Frozen) = new()
    kept = f"sqlite:{tmp_path}/parked.db"
    live: list[Any] = []
    durable: list[Any] = []

    async def start(types: Any) -> list[Any]:
        parking = es.open_store(kept)
        spec = es.QuerySpec(
            name="live",
            function=lambda id, envelopes: live.extend(each.payload for each in envelopes),
            parking=parking,
            events=types,
            scope="w",
            group="g",
        )
        query = es.DurableQuery(
            "durable",
            lambda id, envelopes: durable.extend(each.payload for each in envelopes),
            store=CONFIG,
            checkpoints=es.open_store(kept),
            events=types,
        )
        return [await beside.start(spec.server, spec, name="live"), await query.start(beside)]

    running = await start(before)
    await eventually(lambda: glyn.subscribers(CONFIG, at=beside))

    async def counted() -> bool:
        return len(await glyn.subscribers(CONFIG, at=accounts.at)) == 2

    await eventually(counted)
    await accounts.execute("a", Opened("x", [], "de"))
    await accounts.execute("b", Frozen("z"))
    await accounts.execute("b", Opened("y"))
    for seen in (live, durable):
        await eventually(lambda seen=seen: seen == [OldOpened("x")], timeout=10)

    async def parked(name: str) -> list[Any]:
        found: Any = await beside.call(name, Atom("parked"))
        return found

    async def two_each() -> bool:
        return [len(await parked(name)) for name in ("live", "durable")] == [2, 2]

    await eventually(two_each, timeout=10)
    for pid in running:
        beside.system.exit(pid, "shutdown")
    await eventually(lambda: beside.whereis("live") is None and beside.whereis("durable") is None)
    await start(after)
    for seen in (live, durable):
        await eventually(lambda seen=seen: seen[1:] == [Frozen("z"), Opened("y")], timeout=20)

    async def none_left() -> bool:
        return [len(await parked(name)) for name in ("live", "durable")] == [0, 0]

    await eventually(none_left)
    await accounts.execute("b", Ended("done"))
    for seen in (live, durable):
        await eventually(lambda seen=seen: seen[-1] == Ended("done"), timeout=10)
