"""What tests of services share: handles on the bank, and a store that can be held up."""

from __future__ import annotations

import asyncio
from typing import Any

from pyglyn import eventsourcing as es
from pyglyn.eventsourcing.cluster.client import Address
from pyglyn.node import Node, Process
from pyglyn.testing.bank import BankAccount, BankAccountEvent


def bank_at(
    at: Node | Process, name: Address = "bank", scope: str | None = None
) -> es.Service[Any, Any, Any]:
    """Return a handle on the service of a name that knows the types of the bank."""
    return es.Service(at, name, events=BankAccountEvent, state=BankAccount, scope=scope)


class GatedStore(es.MemoryStore[Any, Any]):
    """Lets appends through when told to."""

    def __init__(self) -> None:
        super().__init__("BankAccount")
        self.open = asyncio.Event()
        self.waiting: list[str] = []

    async def append(self, aggregate_id: str, *args: Any, **options: Any) -> Any:
        self.waiting.append(aggregate_id)
        await self.open.wait()
        return await super().append(aggregate_id, *args, **options)
