"""What all benchmarks share: rounds of ours and the BEAM's in turn, and a table of both with their ratio."""

from __future__ import annotations

import json
import statistics
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
from rich.console import Console
from rich.table import Table

from pyglyn.testing import Beam, Beams, Otp, PrivateEpmd, eventually

INTEROP = Path(__file__).parents[2] / "interop" / "erlang"


@attrs.frozen
class Scale:
    """How much work is measured.

    Attributes:
        rounds: how often each side is measured; the medians are compared.
        target_s: about how long one round of one side should take.
    """

    rounds: int = 5
    target_s: float = 0.3

    def count(self, seconds_each: float) -> int:
        """Return how many repetitions of something fill a round."""
        return max(1, int(self.target_s / max(seconds_each, 1e-9)))


QUICK = Scale(rounds=1, target_s=0.01)


@attrs.frozen
class Measurement:
    """The same work done by us and by the BEAM.

    Attributes:
        group: the table it belongs to.
        name: the work.
        ours: operations a second, Python.
        beam: operations a second, BEAM.
    """

    group: str
    name: str
    ours: float
    beam: float

    @property
    def ratio(self) -> float:
        """Return our rate as a fraction of the BEAM's."""
        return self.ours / self.beam


@attrs.frozen
class Bench:
    """What a benchmark function gets: nodes to measure against, and how much to measure.

    Attributes:
        beams: starts further nodes; the benchmark's Python node finds their EPMD through the environment.
        peer: a visible node, the other end of every connection measured.
        hidden: a hidden node that does on the BEAM what the Python node does, for comparison.
        otp: the installation that both are of.
    """

    beams: Beams
    peer: Beam
    hidden: Beam
    scale: Scale
    otp: Otp

    async def compare(
        self,
        group: str,
        name: str,
        operations: int,
        ours: Callable[[], Awaitable[float]],
        beam: Callable[[], Awaitable[float]],
    ) -> Measurement:
        """Measure both sides in turn, round by round.

        Args:
            group: the table.
            name: the row.
            operations: how many operations one round does.
            ours: runs one round in Python and returns its seconds.
            beam: runs the same round on the BEAM and returns its seconds.
        """
        ours_s, beam_s = [], []
        for _ in range(self.scale.rounds):
            ours_s.append(await ours())
            beam_s.append(await beam())
        return Measurement(
            group, name, operations / statistics.median(ours_s), operations / statistics.median(beam_s)
        )


Benchmark = Callable[[Bench], AsyncIterator[Measurement]]


async def pair(beams: Beams, prefix: str = "bench") -> tuple[Beam, Beam]:
    """Start a visible and a hidden node, connected, with the benchmark module loaded."""
    peer = await beams.start(f"{prefix}_peer")
    hidden = await beams.start(f"{prefix}_hidden", hidden=True)
    for node in (peer, hidden):
        await node.load(INTEROP / "pyglyn_bench.erl")
        await node.eval("pyglyn_bench:start_server(bench_server), pyglyn_bench:start_sink(bench_sink)")
    await eventually(lambda: hidden.eval(f"pong =:= net_adm:ping('{peer.name}')"))
    return peer, hidden


@asynccontextmanager
async def bench(epmd: PrivateEpmd, otp: Otp, scale: Scale) -> AsyncIterator[Bench]:
    """Start the two BEAM nodes of a benchmark run, connected, with the benchmark module loaded."""
    beams = Beams(epmd, otp)
    try:
        peer, hidden = await pair(beams)
        yield Bench(beams, peer, hidden, scale, otp)
    finally:
        beams.close()


def show(measurements: Sequence[Measurement], console: Console, otp: int) -> None:
    """Print a table for each group."""
    for group in dict.fromkeys(m.group for m in measurements):
        table = Table(title=f"{group} (OTP {otp} measured in the same run)", title_justify="left")
        table.add_column("what")
        for column in ("pyglyn /s", "BEAM /s", "ratio"):
            table.add_column(column, justify="right")
        for m in measurements:
            if m.group == group:
                table.add_row(m.name, f"{m.ours:,.0f}", f"{m.beam:,.0f}", f"{m.ratio:.3f}")
        console.print(table)


def markdown(measurements: Sequence[Measurement]) -> str:
    """The same tables for a file."""
    lines = []
    for group in dict.fromkeys(m.group for m in measurements):
        lines += [f"\n| {group} | pyglyn /s | BEAM /s | ratio |", "|---|---:|---:|---:|"]
        lines += [
            f"| {m.name} | {m.ours:,.0f} | {m.beam:,.0f} | {m.ratio:.3f} |"
            for m in measurements
            if m.group == group
        ]
    return "\n".join(lines)


def save(measurements: Sequence[Measurement], path: Path) -> None:
    """Write the measurements as JSON, for a later run to be compared with."""
    rows = [{**attrs.asdict(m), "ratio": m.ratio} for m in measurements]
    path.write_text(json.dumps(rows, indent=2) + "\n")
