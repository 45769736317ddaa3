"""The order service: hands every new order to whoever listens in group ``inventory``, on any node."""

from __future__ import annotations

import asyncio
import contextlib
import os

from pyglyn import Atom, Node, Process, export
from pyglyn import eventsourcing as es
from pyglyn.errors import ProcessError
from pyglyn.eventsourcing import glyn
from pyglyn.supervision import Supervisor, worker

from . import orders
from .orders import Event, Item, NotFound, OrderCancelled, OrderConfirmed, OrderCreated, Product, State

CONFIG = glyn.GlynConfig(pubsub_scope="example", pubsub_group="registry")
CATALOGUE = {
    "laptop": Product("laptop", "Gaming Laptop", 20),
    "mouse": Product("mouse", "Gaming Mouse", 10),
}
DEMO_ORDER = [Item(CATALOGUE["laptop"], 1), Item(CATALOGUE["mouse"], 2)]
LOOKS = 200
BETWEEN_LOOKS_S = 0.05


async def inventory_coordination(aggregate_id: str, envelopes: list[es.EventEnvelope[Event]]) -> None:
    """Publish each new order to the group of another service."""
    for envelope in envelopes:
        match envelope.payload:
            case OrderCreated(id):
                say(f"🛒 Order created: {id}, requesting inventory reservation")
                await glyn.publish(CONFIG, "inventory", es.ProcessEvents(aggregate_id, [envelope]))
            case OrderConfirmed(id):
                say(f"✅ Order confirmed: {id}")
            case OrderCancelled(id, reason):
                say(f"❌ Order cancelled: {id} - {reason}")


def say(line: str) -> None:
    """Print a line at once, and in one piece: the processes of a service share their standard output."""
    print(f"{line}\n", end="", flush=True)


def orders_at(me: Process) -> es.Service[State, orders.Command, Event]:
    """Return a handle on the service, for a process."""
    return es.Service(me, "order_service", events=Event, state=State)


async def create_demo_order(me: Process) -> None:
    """Look for the inventory service, then place the first order, unless it was placed already."""
    if await reaches(me, inventory_node()):
        say("🔗 Connected to inventory service")
        await until_somebody_listens(me)
    else:
        say("⚠️  Could not connect to inventory service")
    with contextlib.suppress(es.DomainError):
        await orders_at(me).execute("order_001", orders.CreateOrder("order_001", DEMO_ORDER))
    say("📦 Demo order created: order_001 with laptop and mouse")


def inventory_node() -> str:
    """Return the name of the node with the inventory service."""
    return os.environ.get("INVENTORY_NODE", "inventory@localhost")


async def reaches(me: Process, node: str) -> bool:
    """Connect to a node and ask whether it is one, as `net_adm:ping/1` does."""
    try:
        return await me.call(("net_kernel", node), (Atom("is_auth"), Atom(me.node))) is Atom("yes")
    except ProcessError:
        return False


async def until_somebody_listens(me: Process) -> None:
    """Wait for a subscriber of group ``inventory``: the nodes' scopes take a moment to find each other."""
    for _look in range(LOOKS):
        if await glyn.subscribers(CONFIG, "inventory", at=me):
            return
        await asyncio.sleep(BETWEEN_LOOKS_S)


@export("shop")
async def buy(me: Process, order_id: str, product: str, quantity: int) -> int:
    """Place an order; returns what it costs."""
    command = orders.CreateOrder(order_id, [Item(CATALOGUE[product], quantity)])
    [envelope] = await orders_at(me).execute(order_id, command)
    return int(envelope.payload.total)


def app(node: Node) -> Supervisor:
    """Commit orders to a store; a query of the service publishes the new ones, also to an inventory that comes later."""
    say("🚀 Starting Order Service...")
    node.keep_connected(inventory_node())
    url = os.environ.get("ORDER_STORE", "memory:")
    events = es.open_store(url, events=Event, state=State, aggregate_type="order")
    store, broadcast = glyn.supervised(CONFIG, events, event_decoder=Event)
    service = es.supervised(
        "order_service",
        store,
        handle=orders.handle,
        apply=orders.apply,
        empty_state=NotFound(),
        queries=[("inventory_coordination", inventory_coordination)],
    )
    demo = worker(create_demo_order, restart="transient")
    return Supervisor("one_for_one").add(broadcast).add(service).add(demo)
