"""The inventory service: commits to its store, broadcasts to group ``inventory``, prints the orders it hears of."""

from __future__ import annotations

import contextlib
import os

from pyglyn import Node, Process, export
from pyglyn import eventsourcing as es
from pyglyn.eventsourcing import glyn
from pyglyn.supervision import Supervisor, worker

from . import stock
from .stock import Event, Inventory, OrderCreated

CONFIG = glyn.GlynConfig(pubsub_scope="example", pubsub_group="inventory")
WAREHOUSE = "inventory_001"
FIRST_STOCK = [stock.Item("laptop", "Gaming Laptop", 50, 0), stock.Item("mouse", "Wireless Mouse", 200, 0)]


def order_coordination(aggregate_id: str, envelopes: list[es.EventEnvelope[Event]]) -> None:
    """Print what happened here, and the orders that other nodes tell of."""
    for envelope in envelopes:
        match envelope.payload:
            case OrderCreated(id, items, total):
                wanted = ", ".join(f"{item.quantity} {item.product.name}" for item in items)
                print(f"order {id}: {wanted}, {total} in total", flush=True)
            case event:
                print(f"{aggregate_id} #{envelope.sequence}: {type(event).__name__}", flush=True)


def inventory_at(me: Process) -> es.Service[Inventory, stock.Command, Event]:
    """Return a handle on the service, for a process."""
    return es.Service(me, "inventory_service", events=Event, state=Inventory)


async def open_warehouse(me: Process) -> None:
    """Fill the shelves, unless they are filled already."""
    with contextlib.suppress(es.DomainError):
        await inventory_at(me).execute(WAREHOUSE, stock.InitializeInventory(FIRST_STOCK))


@export("shop")
async def restock(me: Process, product: str, quantity: int) -> int:
    """Take in goods; returns how many there are now."""
    command = stock.RestockItem(product, quantity)
    [envelope] = await inventory_at(me).execute(WAREHOUSE, command)
    return int(envelope.payload.new_stock)


def app(node: Node) -> Supervisor:
    """Start with the query, so that it hears of everything."""
    url = os.environ.get("INVENTORY_STORE", "memory:")
    events = es.open_store(url, events=Event, state=Inventory, aggregate_type="inventory")
    store, queries = glyn.supervised(
        CONFIG, events, queries=[("order_coordination", order_coordination)], event_decoder=Event
    )
    service = es.supervised(
        "inventory_service", store, handle=stock.handle, apply=stock.apply, empty_state=Inventory()
    )
    opening = worker(open_warehouse, restart="transient")
    return Supervisor("one_for_one").add(queries).add(service).add(opening)
