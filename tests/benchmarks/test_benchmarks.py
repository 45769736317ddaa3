"""Every benchmark runs; how fast is nobody's business here."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from pyglyn.testing import Otp, PrivateEpmd, find_otps, require
from tests.benchmarks import peers, soak
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


async def test_every_peer_that_is_here_is_measured(epmd: PrivateEpmd) -> None:
    otps = find_otps()
    require(bool(otps), "no OTP was found")
    async with bench(epmd, otps[0], QUICK) as started:
        rows = [row async for row in peers.measure(started)]
    for row in rows:
        assert {peers.BEAM, peers.PYGLYN} <= set(row.values)
        assert all(value > 0 for value in row.values.values())
    assert {peers.WORKER, peers.ON_UVLOOP, peers.WORKER_ON_UVLOOP, "pickle"} <= set(peers.names(rows))
    console = Console(file=io.StringIO(), width=200)
    peers.show(rows, console)
    for row in rows:
        assert row.what in console.file.getvalue()  # type: ignore[attr-defined]
        assert f"| {row.what} |" in peers.markdown(rows)


def test_a_ratio_is_to_the_beam_of_the_same_row() -> None:
    row = peers.Compared("calls", True, {peers.BEAM: 50.0, peers.PYGLYN: 75.0, "other": 1234.0})
    assert row.ratio(peers.PYGLYN) == 1.5
    assert row.ratio("nobody") is None
    assert [peers.cell(row, name) for name in (peers.BEAM, peers.PYGLYN, "other", "nobody")] == [
        "50.0", "75.0 (1.50)", "1,234 (24.68)", "–",
    ]  # fmt: skip
    without = peers.Compared("calls", True, {peers.PYGLYN: 75.0})
    assert peers.cell(without, peers.PYGLYN) == "75.0"
    assert peers.markdown([row, without]).splitlines()[-1] == "| calls | – | 75.0 | – |"


def test_threads_of_all_that_an_os_process_has_started_are_found() -> None:
    assert os.getpid() in peers.threads_below(os.getpid())
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        assert child.pid in peers.threads_below(os.getpid())
        cores = os.sched_getaffinity(child.pid)
        with peers.pinned(child.pid):
            assert os.sched_getaffinity(child.pid) == {min(os.sched_getaffinity(0))}
        assert os.sched_getaffinity(child.pid) == cores
        child.kill()
