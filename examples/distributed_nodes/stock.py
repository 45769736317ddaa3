"""The stock of a warehouse: the aggregate of the inventory service. It also knows the orders it is told of."""

from __future__ import annotations

import attrs

from pyglyn import eventsourcing as es
from pyglyn import gleam

from .orders import Product


@attrs.frozen
class Item:
    id: str
    name: str
    stock_level: int
    reserved: int


@gleam.constructor("item")  # as the order service sends it
@attrs.frozen
class OrderItem:
    product: Product
    quantity: int


@attrs.frozen
class InventoryInitialized:
    items: list[Item]


@attrs.frozen
class StockReserved:
    product_id: str
    quantity: int
    order_id: str
    remaining_stock: int


@attrs.frozen
class StockReservationFailed:
    product_id: str
    quantity: int
    order_id: str
    reason: str


@attrs.frozen
class ItemRestocked:
    product_id: str
    quantity: int
    new_stock: int


@attrs.frozen
class OrderCreated:
    id: str
    items: list[OrderItem]
    total: int


Event = InventoryInitialized | StockReserved | StockReservationFailed | ItemRestocked | OrderCreated


@attrs.frozen
class InitializeInventory:
    items: list[Item]


@attrs.frozen
class ReserveStock:
    product_id: str
    quantity: int
    order_id: str


@attrs.frozen
class RestockItem:
    product_id: str
    quantity: int


Command = InitializeInventory | ReserveStock | RestockItem


@attrs.frozen
class Inventory:
    items: dict[str, Item] | None = None


def handle(inventory: Inventory, command: Command) -> list[Event]:
    """Open once; reserve what is there; take in what comes."""
    items = inventory.items
    match command:
        case InitializeInventory(new):
            if items is not None:
                raise es.DomainError("the inventory is open already")
            return [InventoryInitialized(new)]
        case _ if items is None:
            raise es.DomainError("the inventory is closed")
        case ReserveStock(product_id, quantity, order_id):
            return [reserve(items.get(product_id), product_id, quantity, order_id)]
        case RestockItem(product_id, quantity):
            if product_id not in items:
                raise es.DomainError("no such product")
            return [ItemRestocked(product_id, quantity, items[product_id].stock_level + quantity)]


def reserve(
    item: Item | None, product_id: str, quantity: int, order_id: str
) -> StockReserved | StockReservationFailed:
    """Reserve for an order, if there is enough."""
    if item is None:
        return StockReservationFailed(product_id, quantity, order_id, "no such product")
    remaining = item.stock_level - item.reserved - quantity
    if remaining < 0:
        return StockReservationFailed(product_id, quantity, order_id, "out of stock")
    return StockReserved(product_id, quantity, order_id, remaining)


def apply(inventory: Inventory, event: Event) -> Inventory:
    """Remember what is there and what is promised."""
    items = inventory.items or {}
    match event:
        case InventoryInitialized(new):
            return Inventory({item.id: item for item in new})
        case StockReserved(product_id, quantity):
            item = items[product_id]
            return Inventory({**items, product_id: attrs.evolve(item, reserved=item.reserved + quantity)})
        case ItemRestocked(product_id, _, new_stock):
            return Inventory({**items, product_id: attrs.evolve(items[product_id], stock_level=new_stock)})
    return inventory
