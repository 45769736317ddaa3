"""The table and the durable query that fills it; works with PostgreSQL and SQLite."""

from __future__ import annotations

import os

from examples.distributed_nodes.stock import (
    Event,
    Inventory,
    InventoryInitialized,
    ItemRestocked,
    StockReserved,
)
from pyglyn import eventsourcing as es

STORE = os.environ.get("STORE", "sqlite:stock.db")
INTO = os.environ.get("INTO", STORE)
MARK = "?" if INTO.startswith("sqlite:") else "%s"

TABLE = "CREATE TABLE IF NOT EXISTS stock_level (product TEXT PRIMARY KEY, level BIGINT, reserved BIGINT)"
SET_LEVEL = """
INSERT INTO stock_level VALUES (?, ?, 0) ON CONFLICT (product) DO UPDATE SET level = excluded.level
""".replace("?", MARK)
RESERVE = "UPDATE stock_level SET reserved = reserved + ? WHERE product = ?".replace("?", MARK)

events = es.open_store(STORE, events=Event, state=Inventory, aggregate_type="inventory")
into = es.open_store(INTO)


async def begin_anew(tx: es.Transaction, aggregate_id: str | None) -> None:
    """Empty the table before a replay."""
    await tx.execute("DELETE FROM stock_level")


@es.durable_query("stock_levels", store=events, into=into, on_reset=begin_anew)
async def stock_levels(tx: es.Transaction, envelope: es.EventEnvelope) -> None:
    """Apply one event to the table; the checkpoint is committed with it."""
    match envelope.payload:
        case InventoryInitialized(items):
            for item in items:
                await tx.execute(SET_LEVEL, (item.id, item.stock_level))
        case ItemRestocked(product, _, level):
            await tx.execute(SET_LEVEL, (product, level))
        case StockReserved(product, quantity):
            await tx.execute(RESERVE, (quantity, product))


async def create_table() -> None:
    """Make the table, if it is not there."""
    async with into, into.transaction() as tx:
        await tx.execute(TABLE)


async def levels() -> list[tuple[object, ...]]:
    """Read the table."""
    async with into.transaction() as tx:
        return await tx.execute("SELECT product, level, reserved FROM stock_level ORDER BY product")
