"""Handles on the bank that these tests serve."""

from __future__ import annotations

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
