"""Every benchmark runs; how fast is nobody's business here."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from pyglyn.testing import Otp, PrivateEpmd
from tests.benchmarks import soak
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


async def test_a_soak_does_all_of_its_work_and_shows_two_quarters(beam_otp: Otp, epmd: PrivateEpmd) -> None:
    async with bench(epmd, beam_otp, QUICK) as started:
        run = soak.Soak(started, 8.0)
        quarters = await run.run()
    done = {what for quarter in quarters for what in quarter.done}
    assert done == {"pings", "group rounds", "commands", "crashes", "BEAM peers"}
    for quarter in quarters:  # a busy machine may have skipped one of them
        quarter.calls_s = quarter.calls_s * 2 or [0.0, 0.0]
        quarter.commands_s = quarter.commands_s * 2 or [0.0, 0.0]
        quarter.memory_mib = quarter.memory_mib or [0.0]
        quarter.descriptors = quarter.descriptors or [0]
        quarter.tasks = quarter.tasks or [0]
        quarter.processes = quarter.processes or [0]
    console = Console(file=io.StringIO(), width=120)
    soak.show(quarters, console)
    assert "command on SQLite, p99" in console.file.getvalue()  # type: ignore[attr-defined]
