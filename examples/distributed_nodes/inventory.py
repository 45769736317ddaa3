"""The inventory service: commits to its store, broadcasts to group ``inventory``, prints the orders it hears of."""

from __future__ import annotations

import contextlib
import os

from pyglyn import Node, Process, export
from pyglyn import eventsourcing as es
from pyglyn.eventsourcing import glyn
from pyglyn.supervision import Supervisor, worker

from . import stock
from .stock import Event, InventoryInitialized, InventoryNotFound, OrderCreated, State

CONFIG = glyn.GlynConfig(pubsub_scope="example", pubsub_group="inventory")
WAREHOUSE = "inventory_001"
FIRST_STOCK = [
    stock.Item("laptop", "Gaming Laptop", 10, 0),
    stock.Item("mouse", "Gaming Mouse", 50, 0),
    stock.Item("keyboard", "Gaming Keyboard", 30, 0),
]


def order_events_query(aggregate_id: str, envelopes: list[es.EventEnvelope[Event]]) -> None:
    """Print what happened here, and the orders that other nodes tell of."""
    say(f"📥 Query actor received {len(envelopes)} events for aggregate: {aggregate_id}")
    for envelope in envelopes:
        match envelope.payload:
            case OrderCreated(id, items, total):
                say(f"🛒 New order created: {id}")
                for item in items:
                    say(f"   - {item.product.name} (qty: {item.quantity}) | Total: {total}")
            case InventoryInitialized(items):
                say("📦 Inventory initialized with items:")
                for item in items:
                    say(f"   - {item.name} (qty: {item.stock_level})")


def inventory_at(me: Process) -> es.Service[State, stock.Command, Event]:
    """Return a handle on the service, for a process."""
    return es.Service(me, "inventory_service", events=Event, state=State)


def say(line: str) -> None:
    """Print a line at once, and in one piece: the processes of a service share their standard output."""
    print(f"{line}\n", end="", flush=True)


async def initialize_demo_inventory(me: Process) -> None:
    """Fill the shelves, unless they are filled already."""
    with contextlib.suppress(es.DomainError):
        await inventory_at(me).execute(WAREHOUSE, stock.InitializeInventory(FIRST_STOCK))
    say("📦 Demo inventory initialized with laptops, mice, and keyboards")


@export("shop")
async def restock(me: Process, product: str, quantity: int) -> int:
    """Take in goods; returns how many there are now."""
    command = stock.RestockItem(product, quantity)
    [envelope] = await inventory_at(me).execute(WAREHOUSE, command)
    return int(envelope.payload.new_stock)


def app(node: Node) -> Supervisor:
    """Start with the query, so that it hears of everything."""
    say("🏪 Starting Inventory Service...")
    url = os.environ.get("INVENTORY_STORE", "memory:")
    events = es.open_store(url, events=Event, state=State, aggregate_type="inventory")
    store, queries = glyn.supervised(
        CONFIG, events, queries=[("order_coordination", order_events_query)], event_decoder=Event
    )
    service = es.supervised(
        "inventory_service", store, handle=stock.handle, apply=stock.apply, empty_state=InventoryNotFound()
    )
    demo = worker(initialize_demo_inventory, restart="transient")
    return Supervisor("one_for_one").add(queries).add(service).add(demo)
