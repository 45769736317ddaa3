"""A user's fully typed program: a type checker finds nothing in it but the mistakes that are marked.

``tests/test_static.py`` runs one. An unused mark is an error too, so each mistake is found.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_type

import attrs

from pyglyn import Atom, Caller, GenServer, Node, Pid, Process, Term, export, gleam
from pyglyn import eventsourcing as es
from pyglyn.glyn.pubsub import PubSub
from pyglyn.glyn.registry import Registry
from pyglyn.groups import pg
from pyglyn.supervision import Supervisor, factory, program, supervisor, worker


@attrs.frozen
class OrderCreated:
    id: str
    total: int


@attrs.frozen
class OrderConfirmed:
    id: str


OrderEvent = OrderCreated | OrderConfirmed


@attrs.frozen
class GetPrice:
    product: str
    reply_to: gleam.Subject[float]


@attrs.frozen
class Open:
    owner: str


@attrs.frozen
class Opened:
    owner: str


@attrs.frozen
class Closed:
    pass


Event = Opened | Closed


@attrs.frozen
class Account:
    owner: str = ""


def handle(account: Account, command: Open) -> list[Event]:
    return [Opened(command.owner)]


def apply(account: Account, event: Event) -> Account:
    match event:
        case Opened(owner):
            return Account(owner)
        case Closed():
            return account


@export("pricing")
async def quote(product: str, quantity: int) -> float:
    return 1.0 * quantity


class Stock(GenServer):
    items: dict[bytes, int]

    async def init(self, items: dict[bytes, int]) -> None:
        self.items = items

    async def handle_call(self, request: Term, caller: Caller) -> Term:
        match request:
            case (Atom("get"), bytes() as product):
                return self.items.get(product, 0)
        return None


async def echo(me: Process) -> None:
    match await me.receive():
        case (Atom("ping"), Pid() as caller):
            me.send(caller, (Atom("pong"), me.pid))


async def watcher(me: Process, orders: PubSub[OrderEvent]) -> None:
    async for event in await orders.subscribe(me, "inventory"):
        assert_type(event, OrderEvent)


async def audit(account_id: str, envelopes: Sequence[es.EventEnvelope[Event]]) -> None:
    assert_type(envelopes[0].payload, Event)


async def no_query(number: int, text: str) -> None:
    pass


def app(node: Node) -> Supervisor:
    store = es.open_store("sqlite:bank.db", events=Event, state=Account, aggregate_type="account")
    bank = es.supervised(
        "bank", store, handle=handle, apply=apply, empty_state=Account(), queries=[("a", audit)]
    )
    es.supervised(
        "bank",
        store,
        handle=handle,
        apply=apply,
        empty_state=Account(),
        queries=[("q", no_query)],  # type: ignore[list-item]
    )
    return (
        Supervisor("one_for_one", intensity=2, period=5.0)
        .add(worker(Stock, {b"laptop": 10}, name="stock"))
        .add(worker(echo, name="echo", restart="transient"))
        .add(program(["node", "x.js"], name="feed"))
        .add(factory(echo, name="sessions"))
        .add(supervisor(Supervisor("rest_for_one").add(worker(echo)), name="ingest"))
        .add(bank)
    )


async def use(node: Node) -> None:
    pid = node.spawn(echo, name="echo")
    await pg.join(node, "workers", pid)
    for member in await pg.get_members(node, "workers"):
        node.send(member, Atom("work"))
    node.send(3.5, "x")  # type: ignore[arg-type]
    node.send("stock", object())  # type: ignore[arg-type]
    await node.call("stock", object())  # type: ignore[arg-type]
    await node.rpc("n", "m", "f", [object()])  # type: ignore[list-item]
    async for up in node.events():
        assert_type(up.node, str)


async def use_glyn(node: Node) -> None:
    orders: PubSub[OrderEvent] = PubSub(node, "orders", OrderEvent)
    await orders.publish("inventory", OrderCreated("o1", 3))
    await orders.publish("inventory", 42)  # type: ignore[arg-type]
    services: Registry[GetPrice] = Registry(node, "services", GetPrice)
    await services.call("pricing", lambda to: GetPrice("laptop", to), reply=float)
    await services.send("pricing", 42)  # type: ignore[arg-type]


async def use_service(node: Node) -> None:
    one = gleam.decoder(OrderConfirmed).decode((Atom("order_confirmed"), b"o1"))
    assert_type(one, OrderConfirmed)
    bank = es.Service(node, "bank", events=Event, state=Account)
    await bank.execute("a1", Open("Ada"))
    aggregate = await bank.load_aggregate("a1")
    assert_type(aggregate, es.Aggregate[Account])
    wrong: es.Aggregate[int] = aggregate  # type: ignore[assignment]
    del wrong
