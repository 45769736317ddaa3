"""What OTP's own supervisor did in the scenarios, for tests without a BEAM.

``python -m tests.supervision.recorded`` runs them in the newest OTP that is found and writes the file, JSON lines:
``otp``, then ``name`` and ``trace`` of each scenario (external term format, base64). That older releases do the same, and
that the file is what a BEAM does, is held by ``test_policy_against_otp``.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pyglyn.etf import Term, decode, encode
from pyglyn.testing import Beam, Beams, PrivateEpmd, find_otps
from tests.supervision.scenario_groups import GROUPS
from tests.supervision.scenarios import comparable, random_scenario

ORACLE = Path(__file__).parents[2] / "interop" / "erlang" / "supervisor_oracle.erl"
FILE = Path(__file__).parent / "transcripts" / "supervisor.jsonl"
SEEDS = range(20250, 20330)


def named_scenarios() -> Iterator[tuple[str, dict[Term, Any]]]:
    """The scenarios that are recorded: the groups, and random ones."""
    for group in GROUPS.values():
        yield from group()
    for seed in SEEDS:
        yield f"seed {seed}", random_scenario(seed)


async def run_in_otp(beam: Beam, scenarios: list[Any]) -> list[Any]:
    """Run scenarios in a real supervisor; returns their traces."""
    await beam.load(ORACLE)
    await beam.eval("logger:remove_handler(default)")
    return await beam.eval("supervisor_oracle:run_all(Scenarios)", timeout=120.0, Scenarios=scenarios)  # type: ignore[return-value]


def recorded() -> dict[str, Any]:
    """Read the traces, by the names of the scenarios."""
    lines = [json.loads(line) for line in FILE.read_text().splitlines()]
    return {line["name"]: decode(base64.b64decode(line["trace"])) for line in lines[1:]}


async def main() -> None:
    """Write the file."""
    with PrivateEpmd() as epmd:
        os.environ.update(epmd.env)
        otp = max(find_otps(), key=lambda otp: int(otp.release))
        beams = Beams(epmd, otp)
        named = list(named_scenarios())
        traces = await run_in_otp(await beams.start(), [term for _, term in named])
        beams.close()
    lines: list[dict[str, str]] = [{"otp": str(otp.release)}]
    for (name, term), trace in zip(named, traces, strict=True):
        lines.append({"name": name, "trace": base64.b64encode(encode(comparable(trace, term))).decode()})
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text("".join(json.dumps(line) + "\n" for line in lines))
    print(FILE.name, len(named))  # noqa: T201


if __name__ == "__main__":
    asyncio.run(main())
