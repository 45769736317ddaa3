"""A Python service as an OS process of its own: deposits into accounts of a shared store. Run as a script.

Arguments: store URL, number of deposits, number of accounts, a name. Prints how many deposits it made.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys

from pyglyn import eventsourcing as es
from pyglyn.testing.bank import BANK_ACCOUNT, BankAccount, BankAccountEvent, DepositMoney, OpenAccount


async def ensure_open(bank: es.CommandExecutor[BankAccount, object, BankAccountEvent], account: str) -> None:
    with contextlib.suppress(es.DomainError):  # another service was first
        await bank.execute(account, OpenAccount(account))


async def deposit(url: str, deposits: int, accounts: int, name: str) -> int:
    store = es.open_store(url, events=BankAccountEvent, state=BankAccount, aggregate_type="BankAccount")
    async with store:
        bank = es.CommandExecutor(
            store, BANK_ACCOUNT, snapshot_config=es.SnapshotConfig(7), conflict_retries=1000
        )
        await asyncio.gather(*(ensure_open(bank, f"account-{n}") for n in range(accounts)))
        todo = iter(range(deposits))
        done = 0

        async def client() -> None:
            nonlocal done
            for n in todo:
                await bank.execute(f"account-{n % accounts}", DepositMoney(1.0), [("service", name)])
                done += 1

        await asyncio.gather(*(client() for _ in range(4)))
        return done


if __name__ == "__main__":
    print(asyncio.run(deposit(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])))  # noqa: T201
