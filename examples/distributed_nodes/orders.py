"""Orders: the aggregate of the order service, with the events that it tells other services."""

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
class NotFound:
    pass


@attrs.frozen
class Pending:
    id: str
    items: list[Item]
    total: int


@attrs.frozen
class Confirmed:
    id: str
    items: list[Item]
    total: int


@attrs.frozen
class Cancelled:
    id: str
    reason: str


State = NotFound | Pending | Confirmed | Cancelled


def handle(state: State, command: Command) -> list[Event]:
    """An order is created, then confirmed or cancelled."""
    match state, command:
        case NotFound(), CreateOrder(id, items):
            return [OrderCreated(id, items, sum(item.product.price * item.quantity for item in items))]
        case Pending(), ConfirmOrder(id):
            return [OrderConfirmed(id)]
        case Pending(), CancelOrder(id, reason):
            return [OrderCancelled(id, reason)]
    raise es.DomainError("Invalid command for current state")


def apply(state: State, event: Event) -> State:
    """Remember what became of the order."""
    match state, event:
        case _, OrderCreated(id, items, total):
            return Pending(id, items, total)
        case Pending(_, items, total), OrderConfirmed(id):
            return Confirmed(id, items, total)
        case _, OrderCancelled(id, reason):
            return Cancelled(id, reason)
    return state
