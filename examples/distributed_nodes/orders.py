"""Orders: the events that both services know, and the aggregate of the order service."""

from __future__ import annotations

import attrs

from pyglyn import eventsourcing as es


@attrs.frozen
class Product:
    id: str
    name: str
    price: int


@attrs.frozen
class Item:
    product: Product
    quantity: int


@attrs.frozen
class OrderCreated:
    id: str
    items: list[Item]
    total: int


@attrs.frozen
class OrderConfirmed:
    id: str


@attrs.frozen
class OrderCancelled:
    id: str
    reason: str


Event = OrderCreated | OrderConfirmed | OrderCancelled


@attrs.frozen
class CreateOrder:
    id: str
    items: list[Item]


@attrs.frozen
class ConfirmOrder:
    id: str


@attrs.frozen
class CancelOrder:
    id: str
    reason: str


Command = CreateOrder | ConfirmOrder | CancelOrder


@attrs.frozen
class Order:
    status: str = "not_found"


def handle(order: Order, command: Command) -> list[Event]:
    """An order is created, then confirmed or cancelled."""
    match command:
        case CreateOrder(id, items) if order.status == "not_found":
            return [OrderCreated(id, items, sum(item.product.price * item.quantity for item in items))]
        case ConfirmOrder(id) if order.status == "pending":
            return [OrderConfirmed(id)]
        case CancelOrder(id, reason) if order.status == "pending":
            return [OrderCancelled(id, reason)]
    raise es.DomainError("not now")


def apply(order: Order, event: Event) -> Order:
    """Remember what became of the order."""
    match event:
        case OrderCreated():
            return Order("pending")
        case OrderConfirmed():
            return Order("confirmed")
        case OrderCancelled():
            return Order("cancelled")
