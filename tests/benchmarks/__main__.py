"""``python -m tests.benchmarks``: measure, and print tables."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import rich_click as click
from rich.console import Console

from pyglyn.testing import PrivateEpmd, find_otps
from tests.benchmarks import loads, soak
from tests.benchmarks.all import BENCHMARKS
from tests.benchmarks.harness import QUICK, Measurement, Scale, bench, save, show

OTHERS = ("soak", "loads")


@click.command()
@click.argument("only", nargs=-1, type=click.Choice([*BENCHMARKS, *OTHERS]))
@click.option("--quick", is_flag=True, help="Only see that everything runs.")
@click.option("--otp", type=int, help="The OTP release to compare with.")
@click.option("--minutes", type=float, default=30.0, show_default=True, help="How long to soak.")
@click.option("--count", default=100_000, show_default=True, help="How many messages a load has.")
@click.option("--json", type=click.Path(path_type=Path), help="Also write the measurements to this file.")
def main(
    only: tuple[str, ...], quick: bool, otp: int | None, minutes: float, count: int, json: Path | None
) -> None:
    """Measure pyglyn against a hidden BEAM peer in the same run.

    With ``soak``, have one node work for long, and show the first and the last quarter of the time. With ``loads``,
    flood a node from one BEAM node, and show how long another one waits for its pings.
    """
    found = [installed for installed in find_otps() if otp in (None, installed.release)]
    if not found:
        raise click.UsageError("no such OTP release here")
    chosen = found[-1]

    async def run() -> list[Measurement]:
        measurements = []
        with PrivateEpmd() as epmd:
            os.environ.update(epmd.env)
            async with bench(epmd, chosen, QUICK if quick else Scale()) as started:
                if "soak" in only:
                    soak.show(await soak.Soak(started, minutes * 60).run(), Console())
                if "loads" in only:
                    loads.show(await loads.run(started, count), Console())
                for name in [each for each in only or BENCHMARKS if each not in OTHERS]:
                    measurements += [m async for m in BENCHMARKS[name](started)]
        return measurements

    measurements = asyncio.run(run())
    if measurements:
        show(measurements, Console(), chosen.release)
    if json:
        save(measurements, json)


if __name__ == "__main__":
    main()
