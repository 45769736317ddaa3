"""A durable query into a table of totals, for tests: the events, the table, and questions to the query."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pyglyn import eventsourcing as es
from pyglyn.etf import Atom
from pyglyn.node import Node
from pyglyn.testing import eventually
from pyglyn.testing.bank import BankAccount, BankAccountEvent, CustomerDepositedCash
from tests.eventsourcing.opened import open_store

QUICK = es.FailurePolicy(retries=2, first=0.001, longest=0.002)


def bank(url: str) -> es.EventStore[Any, Any]:
    return open_store(url, events=BankAccountEvent, state=BankAccount, aggregate_type="BankAccount")


async def deposits(store: es.EventStore[Any, Any], account: str, count: int, start: int = 0) -> None:
    """Append deposits of 1.0 in batches of 50."""
    for first in range(start, start + count, 50):
        size = min(50, start + count - first)
        events = [CustomerDepositedCash(1.0, float(first + n + 1)) for n in range(size)]
        await store.append(account, events, expected=first)


class Totals:
    """A projection into a table: the number of events and their sum, per account."""

    def __init__(self, into: es.EventStore[Any, Any], url: str) -> None:
        self.into = into
        self.mark = "?" if url.startswith("sqlite") else "%s"
        self.fail: Callable[[Any], bool] = lambda envelope: False

    async def create(self) -> None:
        async with self.into.transaction() as tx:
            await tx.execute("CREATE TABLE totals (account TEXT PRIMARY KEY, events INT, total FLOAT)")

    @property
    def statement(self) -> str:
        return (
            "INSERT INTO totals VALUES (?, 1, ?) ON CONFLICT (account) DO UPDATE "
            "SET events = totals.events + 1, total = totals.total + excluded.total"
        ).replace("?", self.mark)

    def parameters(self, envelope: Any) -> tuple[str, float]:
        if self.fail(envelope):
            raise KeyError("no such thing")
        return envelope.aggregate_id, getattr(envelope.payload, "amount", 0.0)

    async def project(self, tx: es.Transaction[Any, Any], envelope: Any) -> None:
        await tx.execute(self.statement, self.parameters(envelope))

    def project_plainly(self, cursor: es.Cursor, envelope: Any) -> None:
        cursor.execute(self.statement, self.parameters(envelope))

    async def undo(self, tx: es.Transaction[Any, Any], account: str | None) -> None:
        if account is None:
            await tx.execute("DELETE FROM totals")
        else:
            await tx.execute(f"DELETE FROM totals WHERE account = {self.mark}", (account,))

    async def rows(self) -> dict[str, tuple[int, float]]:
        async with self.into.transaction() as tx:
            rows = await tx.execute("SELECT account, events, total FROM totals ORDER BY account")
        return {str(account): (events, total) for account, events, total in rows}  # type: ignore[misc]

    async def become(self, expected: dict[str, tuple[int, float]], timeout: float = 20.0) -> None:
        async def equal() -> bool:
            assert await self.rows() == expected
            return True

        await eventually(equal, timeout=timeout)


async def status(node: Node, name: str = "totals") -> es.QueryStatus:
    return es.QueryStatus.from_term(await node.call(name, Atom("status")))


async def has_state(node: Node, state: str) -> None:
    async def equal() -> bool:
        assert (await status(node)).state == state
        return True

    await eventually(equal)


async def parked(node: Node, count: int, name: str = "totals") -> list[Any]:
    """Return the parked events, as maps, once there are so many."""

    async def found() -> list[Any]:
        events: list[Any] = await node.call(name, Atom("parked"))
        assert len(events) == count
        return events or [None]

    return [event for event in await eventually(found, timeout=10) if event is not None]
