"""Every benchmark runs; how fast is nobody's business here."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from pyglyn.testing import Otp, PrivateEpmd
from tests.benchmarks.all import BENCHMARKS
from tests.benchmarks.harness import QUICK, bench, save, show


@pytest.mark.parametrize("name", BENCHMARKS)
async def test_a_benchmark_measures_both_sides(
    name: str, beam_otp: Otp, epmd: PrivateEpmd, tmp_path: Path
) -> None:
    async with bench(epmd, beam_otp, QUICK) as started:
        measurements = [m async for m in BENCHMARKS[name](started)]
    assert measurements
    assert all(m.ours > 0 and m.beam > 0 for m in measurements)
    console = Console(file=io.StringIO(), width=120)
    show(measurements, console, beam_otp.release)
    assert measurements[0].name in console.file.getvalue()  # type: ignore[attr-defined]
    save(measurements, tmp_path / "measured.json")
    assert len(json.loads((tmp_path / "measured.json").read_text())) == len(measurements)


async def test_the_roles_of_a_benchmark_answer_between_beam_nodes(beam_otp: Otp, epmd: PrivateEpmd) -> None:
    async with bench(epmd, beam_otp, QUICK) as started:
        server = f"{{bench_server, '{started.peer.name}'}}"
        sink = f"{{bench_sink, '{started.peer.name}'}}"
        assert await started.hidden.eval(f"pyglyn_bench:calls({server}, 100)") > 0
        assert await started.hidden.eval(f"pyglyn_bench:flood({sink}, 1000, {{event, 1}})") > 0
