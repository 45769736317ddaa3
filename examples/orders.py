"""Glyn PubSub and Registry: typed events to a group of processes, and a service with a name.

Run two of them, then publish from anywhere (a Gleam node with glyn, another Python node, the command line):

    python -m pyglyn node --sname a@localhost --cookie demo --app examples/orders.py:app
    python -m pyglyn node --sname b@localhost --cookie demo --app examples/orders.py:app --connect a@localhost
    python -m pyglyn publish a@localhost --cookie demo --scope example --group inventory '{order_confirmed, <<"o1">>}'
"""

import attrs

from pyglyn import Node, Process
from pyglyn.errors import RegistrationFailed
from pyglyn.gleam import Subject
from pyglyn.glyn import PubSub, Registry, send


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


OrderEvent = OrderCreated | OrderConfirmed


@attrs.frozen
class GetPrice:
    product: str
    reply_to: Subject[float]


async def watcher(me: Process, orders: PubSub[OrderEvent]) -> None:
    async for event in await orders.subscribe(me, "inventory"):
        match event:
            case OrderCreated(id=order, total=total):
                print(f"{me.node}: order {order} over {total}", flush=True)
            case OrderConfirmed(id=order):
                print(f"{me.node}: order {order} is confirmed", flush=True)


async def pricing(me: Process, services: Registry[GetPrice]) -> None:
    try:
        requests = await services.register(me, "pricing")
    except RegistrationFailed:
        return  # another node of the cluster serves it
    async for request in requests:
        send(me, request.reply_to, 999.0 if request.product == "laptop" else 0.0)


async def app(node: Node) -> None:
    orders = PubSub(node, scope="example", decoder=OrderEvent)
    services = Registry(node, scope="services", decoder=GetPrice)
    node.spawn(watcher, orders)
    node.spawn(pricing, services)


async def ask_price(node: Node, product: str) -> float:
    """What a client of the registry does; any node can."""
    services = Registry(node, scope="services", decoder=GetPrice)
    return await services.call(
        "pricing", lambda reply_to: GetPrice(product, reply_to), timeout=5.0, reply=float
    )
