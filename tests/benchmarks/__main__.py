"""``python -m tests.benchmarks``: measure, and print tables."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from pyglyn.testing import PrivateEpmd, find_otps
from tests.benchmarks.all import BENCHMARKS
from tests.benchmarks.harness import QUICK, Measurement, Scale, bench, save, show


def main(
    only: Annotated[list[str] | None, typer.Argument(help=f"some of: {', '.join(BENCHMARKS)}")] = None,
    quick: Annotated[bool, typer.Option(help="Only see that everything runs.")] = False,
    otp: Annotated[int | None, typer.Option(help="The OTP release to compare with.")] = None,
    json: Annotated[Path | None, typer.Option(help="Also write the measurements to this file.")] = None,
) -> None:
    """Measure pyglyn against a hidden BEAM peer in the same run."""
    found = [installed for installed in find_otps() if otp in (None, installed.release)]
    if not found:
        raise typer.BadParameter("no such OTP release here")
    chosen = found[-1]

    async def run() -> list[Measurement]:
        measurements = []
        with PrivateEpmd() as epmd:
            os.environ.update(epmd.env)
            async with bench(epmd, chosen, QUICK if quick else Scale()) as started:
                for name in only or BENCHMARKS:
                    measurements += [m async for m in BENCHMARKS[name](started)]
        return measurements

    measurements = asyncio.run(run())
    show(measurements, Console(), chosen.release)
    if json:
        save(measurements, json)


if __name__ == "__main__":
    typer.run(main)
