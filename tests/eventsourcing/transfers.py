"""A bank with transfers: ``Sent`` by one account has to become ``Received`` by another, once. Pure."""

from __future__ import annotations

import attrs

from pyglyn import eventsourcing as es

ACCOUNTS = ["a", "b", "c", "d"]
START = 100


@attrs.frozen
class Sent:
    transfer: str
    to: str
    amount: int


@attrs.frozen
class Received:
    transfer: str
    amount: int


@attrs.frozen
class Send:
    transfer: str
    to: str
    amount: int


@attrs.frozen
class Receive:
    transfer: str
    amount: int


@attrs.frozen
class Account:
    balance: int = START
    received: frozenset[str] = frozenset()


def handle(account: Account, command: Send | Receive) -> list[Sent | Received]:
    match command:
        case Send(transfer, to, amount):
            if amount > account.balance:
                raise es.DomainError("too poor")
            return [Sent(transfer, to, amount)]
        case Receive(transfer, amount):
            return [] if transfer in account.received else [Received(transfer, amount)]


def apply(account: Account, event: Sent | Received) -> Account:
    match event:
        case Sent(_, _, amount):
            return attrs.evolve(account, balance=account.balance - amount)
        case Received(transfer, amount):
            return Account(account.balance + amount, account.received | {transfer})


BANK: es.Domain[Account, Send | Receive, Sent | Received] = es.Domain(handle, apply, Account())
