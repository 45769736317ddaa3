"""A bank account as an aggregate: commands in, events out, the balance folded from them.

python examples/bank_account.py [STORE-URL]

STORE-URL says where the events go: memory: (unless given), sqlite:bank.db, or postgresql://localhost/bank.
"""

from __future__ import annotations

import asyncio
import sys

import attrs

from pyglyn import Node
from pyglyn import eventsourcing as es

# --- the domain: pure functions, nothing to mock in a test ---------------------------------------------


@attrs.frozen
class OpenAccount:
    owner: str


@attrs.frozen
class Deposit:
    amount: int


@attrs.frozen
class Withdraw:
    amount: int


Command = OpenAccount | Deposit | Withdraw


@attrs.frozen
class AccountOpened:
    owner: str


@attrs.frozen
class Deposited:
    amount: int


@attrs.frozen
class Withdrawn:
    amount: int


Event = AccountOpened | Deposited | Withdrawn


@attrs.frozen
class Account:
    owner: str = ""
    balance: int = 0


def handle(account: Account, command: Command) -> list[Event]:
    """Decide: the events that a command causes, or a DomainError."""
    match command:
        case OpenAccount(owner) if not account.owner:
            return [AccountOpened(owner)]
        case Deposit(amount) if account.owner and amount > 0:
            return [Deposited(amount)]
        case Withdraw(amount) if amount > account.balance:
            raise es.DomainError("insufficient funds")
        case Withdraw(amount) if account.owner and amount > 0:
            return [Withdrawn(amount)]
    raise es.DomainError(f"{type(command).__name__} is not possible now")


def apply(account: Account, event: Event) -> Account:
    """Remember: the account after an event."""
    match event:
        case AccountOpened(owner):
            return Account(owner)
        case Deposited(amount):
            return attrs.evolve(account, balance=account.balance + amount)
        case Withdrawn(amount):
            return attrs.evolve(account, balance=account.balance - amount)


# --- the service: on a node, for every node of the cluster ---------------------------------------------


async def print_events(account_id: str, envelopes: list[es.EventEnvelope[Event]]) -> None:
    """Print what happened, as it happens: a query."""
    for envelope in envelopes:
        print(f"{account_id} #{envelope.sequence}: {envelope.payload}", flush=True)


Bank = es.Service[Account, Command, Event]


def bank(url: str) -> es.ServiceSpec[Account, Command, Event]:
    """Bring domain and store together."""
    store = es.open_store(url, events=Event, state=Account, aggregate_type="account")
    return es.service(
        "bank",
        store,
        handle=handle,
        apply=apply,
        empty_state=Account(),
        queries=[("print_events", print_events)],
        snapshot_config=es.SnapshotConfig(frequency=100),
    )


async def main(url: str = "memory:") -> None:
    async with Node("bank@localhost", cookie="eventsourcing") as node:
        accounts = await es.start(node, bank(url))
        await open_account(accounts, "account-1")
        await accounts.execute("account-1", Deposit(100))
        await accounts.execute("account-1", Withdraw(30))
        try:
            await accounts.execute("account-1", Withdraw(1000))
        except es.DomainError as refused:
            print("refused:", refused.error)
        account = await accounts.load_aggregate("account-1")
        print(f"after {account.sequence} events: {account.entity}")


async def open_account(accounts: Bank, account_id: str) -> None:
    """Open the account, unless an earlier run has."""
    try:
        await accounts.execute(account_id, OpenAccount("Ada"))
    except es.DomainError:
        print("the account is open already")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["-h" | "--help"]:
            print(__doc__)
        case [] | [_]:
            try:
                asyncio.run(main(*sys.argv[1:]))
            except es.EventStoreError as error:
                sys.exit(f"{error}")
        case _:
            sys.exit(__doc__)
