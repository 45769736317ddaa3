"""``examples/seats.py``: a seat is taken once and nobody has more than four, whoever asks at the same time."""

from __future__ import annotations

import asyncio
import contextlib
import random
import sys
from collections import Counter
from pathlib import Path

import pytest

from examples import seats
from pyglyn import eventsourcing as es
from tests.eventsourcing.conftest import postgres, wheel_server  # noqa: F401

PROGRAM = Path(__file__).parents[2] / "examples" / "seats.py"

PRINTED = """\
A1 is Ada's
A2 is Ada's
A3 is Ada's
A4 is Ada's
A5 is not for Ada: Ada has 4 seats already
A1 is not for Bo: seat A1 is taken
C1 is not for Bo: there is no seat C1
B1 is Bo's
"""


async def test_the_program_prints_what_its_reader_expects() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(PROGRAM), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert (process.returncode, out.decode(), err) == (0, PRINTED, b"")


@pytest.mark.parametrize("store", ["memory", "sqlite", "postgres"])
async def test_both_rules_hold_whoever_asks_at_the_same_time(
    store: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = {"memory": "memory:", "sqlite": f"sqlite:{tmp_path}/seats.db"}.get(store)
    if url is None:
        url = request.getfixturevalue("postgres")
    chance = random.Random(12)
    names = [f"A{n}" for n in range(12)]
    async with seats.open_seats(url) as first, contextlib.AsyncExitStack() as stack:
        second = first if store == "memory" else await stack.enter_async_context(seats.open_seats(url))
        await seats.plan(first, "Hamlet", names)

        async def customer(name: str) -> None:
            for number in range(8):
                make = seats.Release if chance.random() < 0.2 else seats.Reserve
                with contextlib.suppress(es.DomainError):
                    facts = (first, second)[number % 2]
                    await seats.carry_out(facts, make("Hamlet", chance.choice(names), name))

        await asyncio.gather(*(customer(name) for name in ("Ada", "Bo", "Cy", "Di")))
        holders: dict[str, str] = {}
        reserved = 0
        for fact in await first.read():
            match fact.payload:
                case seats.SeatReserved(_, seat, name):
                    assert seat not in holders
                    holders[seat] = name
                    assert Counter(holders.values())[name] <= seats.MOST
                    reserved += 1
                case seats.SeatReleased(_, seat, name):
                    assert holders.pop(seat) == name
        assert reserved > 8
