"""A stock service: a GenServer, and a function that other nodes may call.

Run:          python -m pyglyn node --sname inventory@localhost --cookie eventsourcing --app examples/stock.py:app
Then, in erl: gen_server:call({stock, 'inventory@localhost'}, {take, <<"laptop">>, 2}).
              rpc:call('inventory@localhost', pricing, quote, [<<"laptop">>, 3]).
"""

import asyncio

from pyglyn import Atom, GenServer, Node, NoReply, Reply, export

PRICES = {"laptop": 999.0, "mouse": 19.5}
RESTOCK_AFTER_S = 0.2


@export("pricing")
async def quote(product: str, quantity: int) -> float:
    """What so many of a product cost."""
    return PRICES[product] * quantity


class Stock(GenServer):
    """Counts products. When one runs out, the caller waits until it has been ordered again."""

    async def init(self, items: dict[bytes, int]) -> None:
        self.items = dict(items)
        self.waiting: list[tuple[object, bytes, int]] = []

    async def handle_call(self, request, caller):
        match request:
            case (Atom("get"), product):
                return self.items.get(product, 0)
            case (Atom("take"), product, quantity) if self.items.get(product, 0) >= quantity:
                self.items[product] -= quantity
                return (Atom("ok"), self.items[product])
            case (Atom("take"), product, quantity):
                self.waiting.append((caller, product, quantity))
                self.me.send_after(RESTOCK_AFTER_S, self.me.pid, (Atom("delivered"), product, quantity))
                return NoReply  # answered by handle_info
            case (Atom("reset"), items):
                return Reply(Atom("ok"), then=items)

    async def handle_continue(self, items):
        self.items = dict(items)

    async def handle_info(self, message):
        match message:
            case (Atom("delivered"), product, quantity):
                self.items[product] = self.items.get(product, 0) + quantity
                waiting, self.waiting = self.waiting, []
                for caller, wanted, amount in waiting:
                    self.items[wanted] -= amount
                    self.reply(caller, (Atom("ok"), self.items[wanted]))


async def app(node: Node) -> None:
    await node.start(Stock, {b"laptop": 10, b"mouse": 0}, name="stock")


async def main() -> None:
    async with Node("inventory@localhost", cookie="eventsourcing") as node:
        await app(node)
        await node.run()


if __name__ == "__main__":
    asyncio.run(main())
