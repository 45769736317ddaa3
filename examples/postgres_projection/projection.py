"""The table and the durable query that fills it; works with PostgreSQL and SQLite."""

from __future__ import annotations

import os

from examples.distributed_nodes.stock import (
    Event,
    InventoryInitialized,
    ItemRestocked,
    ReservationConfirmed,
    ReservationReleased,
    State,
    StockReserved,
)
from pyglyn import eventsourcing as es

STORE = os.environ.get("STORE", "sqlite:stock.db")
INTO = os.environ.get("INTO", STORE)
MARK = "?" if INTO.startswith("sqlite:") else "%s"

TABLE = """
CREATE TABLE IF NOT EXISTS stock_level (
  product TEXT, level BIGINT, reserved BIGINT, inventory TEXT, PRIMARY KEY (inventory, product)
)
"""
SET_LEVEL = """
INSERT INTO stock_level VALUES (?, ?, 0, ?)
ON CONFLICT (inventory, product) DO UPDATE SET level = excluded.level
""".replace("?", MARK)
RESERVE = """
UPDATE stock_level SET reserved = reserved + ? WHERE product = ? AND inventory = ?
""".replace("?", MARK)
FORGET = "DELETE FROM stock_level WHERE inventory = ?".replace("?", MARK)

events = es.open_store(STORE, events=Event, state=State, aggregate_type="inventory")
into = es.open_store(INTO)


async def begin_anew(tx: es.Transaction, aggregate_id: str | None) -> None:
    """Undo before a replay: of all inventories, or of one, whose events alone come again."""
    if aggregate_id is None:
        await tx.execute("DELETE FROM stock_level")
    else:
        await tx.execute(FORGET, (aggregate_id,))


async def create_table(tx: es.Transaction) -> None:
    """Make the table, if it is not there: the query calls this whenever it starts, before anything else."""
    await tx.execute(TABLE)


@es.durable_query("stock_levels", store=events, into=into, prepare=create_table, on_reset=begin_anew)
async def stock_levels(tx: es.Transaction, envelope: es.EventEnvelope) -> None:
    """Apply one event to the table; the checkpoint is committed with it."""
    inventory = envelope.aggregate_id
    match envelope.payload:
        case InventoryInitialized(items):
            for item in items:
                await tx.execute(SET_LEVEL, (item.id, item.stock_level, inventory))
        case ItemRestocked(product, _, level):
            await tx.execute(SET_LEVEL, (product, level, inventory))
        case StockReserved(product, quantity):
            await tx.execute(RESERVE, (quantity, product, inventory))
        case ReservationReleased(product, quantity, _, level) | ReservationConfirmed(
            product, quantity, _, level
        ):
            await tx.execute(SET_LEVEL, (product, level, inventory))
            await tx.execute(RESERVE, (-quantity, product, inventory))


async def levels() -> list[tuple[object, ...]]:
    """Read the table."""
    async with into.transaction() as tx:
        return await tx.execute("SELECT * FROM stock_level ORDER BY inventory, product")
