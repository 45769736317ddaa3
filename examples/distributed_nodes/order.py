"""The order service: hands every new order to whoever listens in group ``inventory``, on any node."""

from __future__ import annotations

import os

from pyglyn import Node, Process, export
from pyglyn import eventsourcing as es
from pyglyn.eventsourcing import glyn
from pyglyn.supervision import Supervisor

from . import orders
from .orders import Event, Item, Order, OrderCreated, Product

CONFIG = glyn.GlynConfig(pubsub_scope="example", pubsub_group="registry")
CATALOGUE = {
    "laptop": Product("laptop", "Gaming Laptop", 1500),
    "mouse": Product("mouse", "Wireless Mouse", 40),
}


@export("shop")
async def buy(me: Process, order_id: str, product: str, quantity: int) -> int:
    """Place an order; returns what it costs."""
    command = orders.CreateOrder(order_id, [Item(CATALOGUE[product], quantity)])
    [envelope] = await es.Service(me, "order_service", events=Event).execute(order_id, command)
    return int(envelope.payload.total)


async def inventory_coordination(aggregate_id: str, envelopes: list[es.EventEnvelope[Event]]) -> None:
    """Publish each new order to the group of another service."""
    for envelope in envelopes:
        if isinstance(envelope.payload, OrderCreated):
            reached = await glyn.publish(CONFIG, "inventory", es.ProcessEvents(aggregate_id, [envelope]))
            print(f"order {envelope.payload.id} reached {reached} service(s)", flush=True)


def app(node: Node) -> Supervisor:
    """Commit orders to a store; a query of the service publishes the new ones."""
    url = os.environ.get("ORDER_STORE", "memory:")
    events = es.open_store(url, events=Event, state=Order, aggregate_type="order")
    store, broadcast = glyn.supervised(CONFIG, events, event_decoder=Event)
    service = es.supervised(
        "order_service",
        store,
        handle=orders.handle,
        apply=orders.apply,
        empty_state=Order(),
        queries=[("inventory_coordination", inventory_coordination)],
    )
    return Supervisor("one_for_one").add(broadcast).add(service)
