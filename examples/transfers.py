"""Transfers between bank accounts: a process manager that carries money over, or back again.

python examples/transfers.py [STORE-URL]

STORE-URL says where the events go: memory: (unless given), sqlite:bank.db, or postgresql://localhost/bank.

A transfer concerns two accounts, and no command can change both. So a manager follows it: what was sent is received
by the other account; what that one refuses is given back. Whatever is killed at any moment, no money is lost and
none is made: what the manager is to do next is written together with how far it has come.
"""

from __future__ import annotations

import asyncio
import sys

import attrs

from pyglyn import Node
from pyglyn import eventsourcing as es

# --- the accounts --------------------------------------------------------------------------------------


@attrs.frozen
class Open:
    balance: int


@attrs.frozen
class Close:
    pass


@attrs.frozen
class Send:
    transfer: str
    source: str
    target: str
    amount: int


@attrs.frozen
class Receive:
    transfer: str
    amount: int


@attrs.frozen
class TakeBack:
    transfer: str
    amount: int
    reason: str


Command = Open | Close | Send | Receive | TakeBack


@attrs.frozen
class Opened:
    balance: int


@attrs.frozen
class Closed:
    pass


@attrs.frozen
class Sent:
    transfer: str
    source: str
    target: str
    amount: int


@attrs.frozen
class Received:
    transfer: str
    amount: int


@attrs.frozen
class TakenBack:
    transfer: str
    amount: int
    reason: str


Event = Opened | Closed | Sent | Received | TakenBack


@attrs.frozen
class Account:
    is_open: bool = False
    balance: int = 0


def handle(account: Account, command: Command) -> list[Event]:
    """Decide: the events that a command causes, or a DomainError."""
    match command:
        case Open(balance) if not account.is_open:
            return [Opened(balance)]
        case TakeBack(transfer, amount, reason):
            return [TakenBack(transfer, amount, reason)]
        case Send(transfer, source, target, amount) if account.balance >= amount:
            return [Sent(transfer, source, target, amount)]
        case Receive(transfer, amount) if account.is_open:
            return [Received(transfer, amount)]
        case Close() if account.is_open and not account.balance:
            return [Closed()]
    raise es.DomainError(f"{type(command).__name__} is not possible now")


def apply(account: Account, event: Event) -> Account:
    """Remember: the account after an event."""
    match event:
        case Opened(balance):
            return Account(True, balance)
        case Closed():
            return Account(False)
        case Sent():
            return attrs.evolve(account, balance=account.balance - event.amount)
        case Received() | TakenBack():
            return attrs.evolve(account, balance=account.balance + event.amount)


# --- the manager ---------------------------------------------------------------------------------------


@attrs.frozen
class Transfer:
    """What is to be known of a transfer that is under way."""

    source: str = ""


def follow(transfer: Transfer, message: Event | es.Refused) -> list[es.Action]:
    """Say what follows."""
    match message:
        case Sent(id, _, target, amount):
            return [es.Dispatch("accounts", Receive(id, amount), to=target)]
        case es.Refused(es.Dispatch(_, Receive(id, amount)), reason):
            return [es.Dispatch("accounts", TakeBack(id, amount, reason), to=transfer.source)]
    return [es.End()]


def note(transfer: Transfer, message: Event | es.Refused) -> Transfer:
    """Remember: the transfer after an event."""
    return Transfer(message.source) if isinstance(message, Sent) else transfer


def transfer_of(envelope: es.EventEnvelope[Event]) -> str | None:
    """Say which transfer an event is about."""
    return getattr(envelope.payload, "transfer", None)


# --- on a node -----------------------------------------------------------------------------------------


def bank(url: str) -> tuple[es.ServiceSpec[Account, Command, Event], es.Manager[Transfer]]:
    """Describe the accounts, and the manager of the transfers."""
    store = es.open_store(url, events=Event, state=Account, aggregate_type="account")
    accounts = es.service("accounts", store, handle=handle, apply=apply, empty_state=Account())
    transfers = es.manager(
        "transfers",
        store=store,
        handle=follow,
        apply=note,
        empty_state=Transfer(),
        correlate=transfer_of,
        starts=(Sent,),
        services={"accounts": es.Destination(commands=Command)},
        on_refusal="handle",
    )
    return accounts, transfers


async def main(url: str = "memory:") -> None:
    async with Node("bank@localhost", cookie="eventsourcing") as node:
        service, transfers = bank(url)
        accounts = await es.start(node, service)
        await transfers.start(node)
        for id, balance in (("ada", 100), ("bo", 20)):
            try:
                await accounts.execute(id, Open(balance))
            except es.DomainError:
                print(f"{id} is here already")
        for id, target in (("t1", "bo"), ("t2", "nobody")):
            await accounts.execute("ada", Send(id, "ada", target, 30), command_id=id)
            async for event in es.subscribe(transfers.store):
                happened = event.envelope.payload if event.envelope else None
                if isinstance(happened, Received | TakenBack) and happened.transfer == id:
                    print(f"{id}: {happened}")
                    break
        for id in ("ada", "bo"):
            print(f"{id} has {(await accounts.load_aggregate(id)).entity.balance}")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["-h" | "--help"]:
            print(__doc__)
        case [] | [_]:
            try:
                asyncio.run(main(*sys.argv[1:]))
            except es.EventStoreError as error:
                sys.exit(str(error))
        case _:
            sys.exit(__doc__)
