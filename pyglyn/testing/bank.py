"""The bank account of the Gleam library's examples, for the store contract and for tests. Pure."""

from __future__ import annotations

from typing import TypeAlias

import attrs

from pyglyn.errors import DomainError
from pyglyn.eventsourcing import Domain


@attrs.frozen
class AccountOpened:
    account_id: str


@attrs.frozen
class CustomerDepositedCash:
    amount: float
    balance: float


@attrs.frozen
class CustomerWithdrewCash:
    amount: float
    balance: float


BankAccountEvent: TypeAlias = AccountOpened | CustomerDepositedCash | CustomerWithdrewCash


@attrs.frozen
class OpenAccount:
    account_id: str


@attrs.frozen
class DepositMoney:
    amount: float


@attrs.frozen
class WithDrawMoney:
    amount: float


BankAccountCommand: TypeAlias = OpenAccount | DepositMoney | WithDrawMoney


@attrs.frozen
class BankAccount:
    opened: bool = False
    balance: float = 0.0


def handle(account: BankAccount, command: BankAccountCommand) -> list[BankAccountEvent]:
    """Decide a command; a deposit of nothing changes nothing."""
    match command:
        case OpenAccount(account_id) if not account.opened:
            return [AccountOpened(account_id)]
        case DepositMoney(0):
            return []
        case DepositMoney(amount) if account.opened and amount > 0:
            return [CustomerDepositedCash(amount, account.balance + amount)]
        case WithDrawMoney(amount) if account.opened and 0 < amount <= account.balance:
            return [CustomerWithdrewCash(amount, account.balance - amount)]
    raise DomainError(f"refused: {type(command).__name__}")


def apply(account: BankAccount, event: BankAccountEvent) -> BankAccount:
    """Fold an event."""
    match event:
        case AccountOpened():
            return attrs.evolve(account, opened=True)
        case CustomerDepositedCash(_, balance) | CustomerWithdrewCash(_, balance):
            return attrs.evolve(account, balance=balance)


BANK_ACCOUNT: Domain[BankAccount, BankAccountCommand, BankAccountEvent] = Domain(handle, apply, BankAccount())
