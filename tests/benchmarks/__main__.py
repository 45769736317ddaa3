"""``python -m tests.benchmarks``: measure, and print tables."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import rich_click as click
from rich.console import Console

from pyglyn.testing import PrivateEpmd, find_otps
from tests.benchmarks import growth, loads, peers, soak
from tests.benchmarks.all import BENCHMARKS
from tests.benchmarks.chart import Curve
from tests.benchmarks.harness import QUICK, Measurement, Scale, bench, markdown, save, show
from tests.benchmarks.machine import describe

MORE = ("peers", "growth")
"""What else runs where nothing is chosen."""
OTHERS = ("soak", "loads")


@click.command()
@click.argument("only", nargs=-1, type=click.Choice([*BENCHMARKS, *MORE, *OTHERS]))
@click.option("--quick", is_flag=True, help="Only see that everything runs.")
@click.option("--otp", type=int, help="The OTP release to compare with.")
@click.option("--minutes", type=float, default=30.0, show_default=True, help="How long to soak.")
@click.option("--count", default=100_000, show_default=True, help="How many messages a load has.")
@click.option("--json", type=click.Path(path_type=Path), help="Also write the measurements to this file.")
@click.option(
    "--folder", type=click.Path(path_type=Path), help="Also write tables and charts to this folder."
)
def main(
    only: tuple[str, ...],
    quick: bool,
    otp: int | None,
    minutes: float,
    count: int,
    json: Path | None,
    folder: Path | None,
) -> None:
    """Measure pyglyn against a hidden BEAM peer in the same run, and against what else is installed.

    With ``soak``, have one node work for long, and show the first and the last quarter of the time. With ``loads``,
    flood a node from one BEAM node, and show how long another one waits for its pings.
    """
    found = [installed for installed in find_otps() if otp in (None, installed.release)]
    if not found:
        raise click.UsageError("no such OTP release here")
    chosen, console, described = found[-1], Console(), describe()
    rows: list[peers.Compared] = []
    curves: list[Curve] = []

    async def run() -> list[Measurement]:
        measurements = []
        with PrivateEpmd() as epmd:
            os.environ.update(epmd.env)
            async with bench(epmd, chosen, QUICK if quick else Scale()) as started:
                if "soak" in only:
                    soak.show(await soak.Soak(started, minutes * 60).run(), console)
                if "loads" in only:
                    loads.show(await loads.run(started, count), console)
                for name in [each for each in only or BENCHMARKS if each in BENCHMARKS]:
                    measurements += [m async for m in BENCHMARKS[name](started)]
                if not only or "peers" in only:
                    rows.extend([row async for row in peers.measure(started)])
        return measurements

    measurements = asyncio.run(run())
    if not only or "growth" in only:
        curves = asyncio.run(growth.measure(growth.FEW if quick else growth.Sizes()))
    console.print(f"{described}; OTP {chosen.release}", soft_wrap=True)
    if measurements:
        show(measurements, console, chosen.release)
    if rows:
        peers.show(rows, console)
    if json:
        save(measurements, json)
    if folder is not None:
        growth.write(curves, folder)
        parts = [f"{described}; OTP {chosen.release}", peers.markdown(rows), markdown(measurements)]
        (folder / "results.md").write_text("\n\n".join(parts) + "\n")


if __name__ == "__main__":
    main()
