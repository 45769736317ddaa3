"""From a commit in one OS process to the effect of a durable query in another one.

Both read ``CLOCK_MONOTONIC``, which all OS processes of a machine share. Commits come one at a time, each when
the one before has had its effect, so that nothing queues. The effect is the call of the query's function.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import attrs

from pyglyn import eventsourcing as es
from pyglyn.node import Node
from pyglyn.testing.bank import AccountOpened, BankAccount, BankAccountEvent, CustomerDepositedCash

NAME = "reacting"
_AT_FIRST = 10
"""Commits that are not counted: connections are made, statements prepared."""


@attrs.frozen
class Reaction:
    """How long effects in another OS process took, in milliseconds, and the CPU time of that process for one.

    Attributes:
        p50_ms, p99_ms: from when the writer knew of its commit. Others may know of it earlier.
        in_all_ms: the median from when the writer asked for it.
    """

    store: str
    commits: int
    p50_ms: float
    p99_ms: float
    in_all_ms: float
    cpu_us: float


def bank(url: str) -> es.EventStore[Any, Any]:
    return es.open_store(url, events=BankAccountEvent, state=BankAccount, aggregate_type="BankAccount")


async def react(url: str, tell: Callable[[str], None], until: int) -> None:
    """The other OS process: run a durable query, and tell of each event when its effect came."""
    done = asyncio.Event()

    async def effect(tx: es.Transaction[Any, Any], envelope: Any) -> None:
        tell(f"{envelope.sequence} {time.monotonic()} {time.process_time()}")
        if envelope.sequence == until:
            done.set()

    async with bank(url) as store, Node(f"bench_{secrets.token_hex(4)}@localhost", cookie="bench") as node:
        await es.DurableQuery(NAME, effect, store=store, into=store).start(node)
        await done.wait()
        await es.wait_for(node, NAME, await store.last_position(), timeout=None)


async def measure(name: str, url: str, commits: int, pause_s: float = 0.02) -> Reaction:
    """Commit events one after the other, with pauses, and have another OS process react."""
    took: list[float] = []
    in_all: list[float] = []
    until = _AT_FIRST + commits
    async with bank(url) as store:
        await store.append("a", [AccountOpened("a")], expected=0)
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-m", __name__, url, str(until), stdout=asyncio.subprocess.PIPE
        )
        try:
            assert child.stdout is not None
            await child.stdout.readline()
            cpu: list[float] = []
            for sequence in range(1, until):
                await asyncio.sleep(pause_s)  # the query has to wait again
                asked = time.monotonic()
                await store.append("a", [CustomerDepositedCash(1.0, 1.0)], expected=sequence)
                committed = time.monotonic()
                got, called, used = (await child.stdout.readline()).split()
                assert int(got) == sequence + 1
                took.append((float(called) - committed) * 1000)
                in_all.append((float(called) - asked) * 1000)
                cpu.append(float(used))
            await child.wait()
        finally:
            with contextlib.suppress(ProcessLookupError):
                child.kill()
    counted = took[_AT_FIRST - 1 :]
    cuts = statistics.quantiles(counted, n=100)
    cpu_us = (cpu[-1] - cpu[_AT_FIRST - 1]) / (len(cpu) - _AT_FIRST) * 1e6
    asked_ms = statistics.median(in_all[_AT_FIRST - 1 :])
    return Reaction(name, len(counted), statistics.median(counted), cuts[98], asked_ms, cpu_us)


def say(line: str) -> None:
    """Write a line to whoever started this OS process."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main(arguments: Sequence[str]) -> None:
    """Be the other OS process."""
    url, until = arguments
    asyncio.run(react(url, say, int(until)))


if __name__ == "__main__":
    main(sys.argv[1:])
