"""Messages keep coming from the BEAM while workers die.

PYGLYN_LOAD_S sets for how many seconds (60), PYGLYN_LOAD_RATE how many messages a second (20,000).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import sys
from pathlib import Path
from typing import Any

from pyglyn import Atom
from pyglyn.testing import Beam
from tests.supervision.conftest import Start

NAMES = [f"w{number}" for number in range(8)]
SECONDS = float(os.environ.get("PYGLYN_LOAD_S", "60"))
RATE = int(os.environ.get("PYGLYN_LOAD_RATE", "20000"))


async def test_every_message_is_processed_or_its_sender_is_told(beam: Beam, program: Start) -> None:
    node = await program("eight_counting", cookie=beam.cookie)
    await beam.load(Path(__file__).with_name("load_sender.erl"))
    sending = asyncio.create_task(
        beam.eval(
            "load_sender:run(Node, Names, Rate, Ms)",
            Node=Atom(node.name),
            Names=[Atom(name) for name in NAMES],
            Rate=RATE,
            Ms=int(SECONDS * 1000),
            timeout=SECONDS + 60,
        )
    )
    chance = random.Random(1)
    kills = 0
    while not (await asyncio.wait([sending], timeout=1.0))[0]:
        if kills < SECONDS - 2:
            with contextlib.suppress(ProcessLookupError):  # the last one killed, and not back yet
                os.kill(await node.os_pid(chance.choice(NAMES)), signal.SIGKILL)
                kills += 1
    results: Any = await sending
    sent, processed, lost, downs, out_of_order = (sum(column) for column in zip(*results, strict=True))
    counts = (
        f"{sent} sent, {processed} processed, {lost} lost with {downs} deaths, {out_of_order} out of order"
    )
    rate = f"{sent / SECONDS:.0f} a second over {SECONDS:.0f} s, OTP {beam.otp}"
    sys.stdout.write(f"{counts}; {rate}\n")
    assert sent == processed + lost, counts
    assert out_of_order == 0, counts
    assert 0 < downs <= kills, counts  # one killed again before its sender had found it fires no monitor
    assert processed > 0, counts
