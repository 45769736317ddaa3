"""The stock of a warehouse: the aggregate of the inventory service. It also knows the orders it is told of."""

from __future__ import annotations

import attrs

from pyglyn import eventsourcing as es

from . import orders


@attrs.frozen
class Item:
    id: str
    name: str
    stock_level: int
    reserved: int


@attrs.frozen
class OrderItem:
    product: orders.Product
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
class ReservationReleased:
    product_id: str
    quantity: int
    order_id: str
    new_stock: int


@attrs.frozen
class ReservationConfirmed:
    product_id: str
    quantity: int
    order_id: str
    new_stock: int


@attrs.frozen
class ItemRestocked:
    product_id: str
    quantity: int
    new_stock: int


@attrs.frozen
class OrderCreated:
    id: str
    items: list[OrderItem | orders.Item]  # {order_item, …} here, {item, …} from the order service
    total: int


Event = (
    InventoryInitialized
    | StockReserved
    | StockReservationFailed
    | ReservationReleased
    | ReservationConfirmed
    | ItemRestocked
    | OrderCreated
)


@attrs.frozen
class InitializeInventory:
    items: list[Item]


@attrs.frozen
class ReserveStock:
    product_id: str
    quantity: int
    order_id: str


@attrs.frozen
class ReleaseReservation:
    product_id: str
    quantity: int
    order_id: str


@attrs.frozen
class ConfirmReservation:
    product_id: str
    quantity: int
    order_id: str


@attrs.frozen
class RestockItem:
    product_id: str
    quantity: int


Command = InitializeInventory | ReserveStock | ReleaseReservation | ConfirmReservation | RestockItem


@attrs.frozen
class InventoryNotFound:
    pass


@attrs.frozen
class InventoryActive:
    items: list[Item]


State = InventoryNotFound | InventoryActive


def handle(state: State, command: Command) -> list[Event]:
    """Open once; reserve what is there, then confirm or release it; take in what comes."""
    match state, command:
        case InventoryNotFound(), InitializeInventory(items):
            return [InventoryInitialized(items)]
        case InventoryActive(items), ReserveStock(product_id, quantity, order_id):
            return [reserve(find(items, product_id), product_id, quantity, order_id)]
        case InventoryActive(items), ReleaseReservation(product_id, quantity, order_id):
            item = known(items, product_id)
            return [ReservationReleased(product_id, quantity, order_id, item.stock_level + quantity)]
        case InventoryActive(items), ConfirmReservation(product_id, quantity, order_id):
            item = known(items, product_id)
            return [ReservationConfirmed(product_id, quantity, order_id, item.stock_level - quantity)]
        case InventoryActive(items), RestockItem(product_id, quantity):
            return [ItemRestocked(product_id, quantity, known(items, product_id).stock_level + quantity)]
    raise es.DomainError("Invalid command for current state")


def reserve(
    item: Item | None, product_id: str, quantity: int, order_id: str
) -> StockReserved | StockReservationFailed:
    """Reserve for an order, if so many are not reserved yet."""
    if item is None:
        return StockReservationFailed(product_id, quantity, order_id, "Product not found")
    if item.stock_level - item.reserved < quantity:
        return StockReservationFailed(product_id, quantity, order_id, "Insufficient stock")
    return StockReserved(product_id, quantity, order_id, item.stock_level - quantity)


def find(items: list[Item], product_id: str) -> Item | None:
    """The item of a product, None if there is none."""
    return next((item for item in items if item.id == product_id), None)


def known(items: list[Item], product_id: str) -> Item:
    """The item of a product, which has to be there."""
    if (item := find(items, product_id)) is None:
        raise es.DomainError("Product not found")
    return item


def apply(state: State, event: Event) -> State:
    """Remember what is there and what is promised."""
    match state, event:
        case InventoryNotFound(), InventoryInitialized(items):
            return InventoryActive(items)
        case InventoryActive(items), StockReserved(product_id, quantity):
            return changed(items, product_id, None, quantity)
        case InventoryActive(items), (
            ReservationReleased(product_id, quantity, _, new_stock)
            | ReservationConfirmed(product_id, quantity, _, new_stock)
        ):
            return changed(items, product_id, new_stock, -quantity)
        case InventoryActive(items), ItemRestocked(product_id, _, new_stock):
            return changed(items, product_id, new_stock, 0)
    return state


def changed(items: list[Item], product_id: str, stock_level: int | None, reserved: int) -> InventoryActive:
    """The inventory with another stock of a product (None leaves it), and so many more of it reserved."""
    return InventoryActive(
        [
            attrs.evolve(
                item,
                stock_level=item.stock_level if stock_level is None else stock_level,
                reserved=item.reserved + reserved,
            )
            if item.id == product_id
            else item
            for item in items
        ]
    )
