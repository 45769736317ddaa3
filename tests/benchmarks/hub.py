"""What a command costs the hub of a node, beyond what it costs a `CommandExecutor`: CPU time.

The node with the service and the driver are OS processes of their own, as in a cluster: 32 clients of the driver
call the service over TCP. The events are in memory, so that no database is in it.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import sys
import time
from collections.abc import Sequence
from typing import Any

import attrs

from pyglyn import eventsourcing as es
from pyglyn.node import Node
from pyglyn.testing.bank import (
    BANK_ACCOUNT,
    BankAccount,
    BankAccountEvent,
    DepositMoney,
    OpenAccount,
    apply,
    handle,
)
from tests.benchmarks.reacting import say

CLIENTS = 32
COOKIE = "bench"


@attrs.frozen
class HubCost:
    """CPU time of one command in µs: of the node's OS process, and of an executor by itself."""

    commands: int
    rate: float
    hub_us: float
    executor_us: float

    @property
    def beyond_us(self) -> float:
        """What the hub takes beyond the executor: messages in and out, lanes, terms."""
        return self.hub_us - self.executor_us


async def serve(name: str) -> None:
    """The other OS process: be a node with the service; tell its CPU time whenever a line comes."""
    store: es.EventStore[Any, Any] = es.open_store("memory:", events=BankAccountEvent, state=BankAccount)
    made = es.service("bank", store, handle=handle, apply=apply, empty_state=BankAccount())
    async with Node(name, cookie=COOKIE) as node:
        await es.start(node, made)
        say("ready")
        while await asyncio.to_thread(sys.stdin.readline):
            say(str(time.process_time()))


async def executor_us(commands: int) -> float:
    """Return the CPU time of a command of an executor, with as many clients."""
    store: es.EventStore[Any, Any] = es.open_store("memory:", events=BankAccountEvent, state=BankAccount)
    executor = es.CommandExecutor(store, BANK_ACCOUNT)
    names = [f"account-{number}" for number in range(CLIENTS)]
    for name in names:
        await executor.execute(name, OpenAccount(name))

    async def client(name: str) -> None:
        for _ in range(commands // CLIENTS):
            await executor.execute(name, DepositMoney(1.0))

    began = time.process_time()
    await asyncio.gather(*map(client, names))
    return (time.process_time() - began) / (commands // CLIENTS * CLIENTS) * 1e6


async def measure(commands: int, rounds: int = 3) -> HubCost:
    """Measure both, and return the best of some rounds of each."""
    name = f"bench_{secrets.token_hex(4)}@localhost"
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.benchmarks.hub",
        name,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert child.stdout is not None
    assert child.stdin is not None
    line, ask = child.stdout.readline, child.stdin.write
    found: list[tuple[float, float, float]] = []
    try:
        assert await line() == b"ready\n"
        async with Node(f"bench_{secrets.token_hex(4)}@localhost", cookie=COOKIE) as node:
            await node.connect(name)
            service: es.Service[Any, Any, Any] = es.Service(node, ("bank", name), events=BankAccountEvent)
            await _round(service, CLIENTS, 0)
            for number in range(rounds):
                ask(b"\n")
                began, cpu = time.perf_counter(), float(await line())
                await _round(service, commands, number + 1)
                took = time.perf_counter() - began
                ask(b"\n")
                used = (float(await line()) - cpu) / (commands // CLIENTS * CLIENTS) * 1e6
                found.append((used, commands / took, await executor_us(commands)))
    finally:
        with contextlib.suppress(ProcessLookupError):
            child.kill()
        await child.wait()
    hub_us, rate, _ = min(found)
    return HubCost(commands, rate, hub_us, min(each[2] for each in found))


async def _round(service: es.Service[Any, Any, Any], commands: int, number: int) -> None:
    async def client(name: str) -> None:
        if number == 0:
            await service.execute(name, OpenAccount(name), timeout=60)
        else:
            for _ in range(commands // CLIENTS):
                await service.execute(name, DepositMoney(1.0), timeout=60)

    await asyncio.gather(*(client(f"account-{each}") for each in range(CLIENTS)))


def main(arguments: Sequence[str]) -> None:
    """Be the other OS process."""
    asyncio.run(serve(*arguments))


if __name__ == "__main__":
    main(sys.argv[1:])
