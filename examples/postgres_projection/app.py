"""The tree: the inventory service, the durable query, and the page."""

from __future__ import annotations

import asyncio
import html
import os

from examples.distributed_nodes import stock
from pyglyn import Node, Process, export
from pyglyn import eventsourcing as es
from pyglyn.supervision import Supervisor, worker

from .projection import events, levels, stock_levels

PAGE = """<!doctype html><title>Stock</title>
<table border=1><tr><th>product<th>level<th>reserved<th>inventory{rows}</table>
"""


def row_of(values: tuple[object, ...]) -> str:
    """Return a row of the page."""
    return "<tr>" + "".join(f"<td>{html.escape(str(value))}" for value in values)


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer any request with the table as it is now, or with what is in the way."""
    await reader.readline()
    try:
        status, rows = "200 OK", "".join(map(row_of, await levels()))
    except es.EventStoreError as error:
        status, rows = "503 Service Unavailable", row_of((error,))
    body = PAGE.format(rows=rows).encode()
    head = f"HTTP/1.0 {status}\r\nContent-Type: text/html\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    await writer.drain()
    writer.close()


async def page(me: Process) -> None:
    """Serve the page."""
    server = await asyncio.start_server(answer, "127.0.0.1", int(os.environ.get("PORT", "8080")))
    port = server.sockets[0].getsockname()[1]
    print(f"the page is at http://127.0.0.1:{port}/", flush=True)
    async with server:
        await server.serve_forever()


@export("stock")
async def initialize(me: Process, product: str, level: int) -> int:
    """Open the inventory with one product."""
    command = stock.InitializeInventory([stock.Item(product, product.title(), level, 0)])
    return len(await es.Service(me, "inventory_service").execute("inventory_001", command))


@export("stock")
async def restock(me: Process, product: str, quantity: int) -> int:
    """Take in goods."""
    command = stock.RestockItem(product, quantity)
    return len(await es.Service(me, "inventory_service").execute("inventory_001", command))


def app(node: Node) -> Supervisor:
    """Start the service and its readers; the database may be away, and come later."""
    closed = stock.InventoryNotFound()
    service = es.supervised(
        "inventory_service", events, handle=stock.handle, apply=stock.apply, empty_state=closed
    )
    return Supervisor("one_for_one").add(service).add(stock_levels.worker()).add(worker(page))
