"""The benchmark of the cluster runs, and a durable query's memory stays flat while it catches up."""

from __future__ import annotations

from tests.benchmarks.cluster import catch_up, latency


async def test_commit_to_effect_is_measured(epmd):
    measured = await latency("memory:", 200, 10)
    assert measured.events == 210
    assert 0 < measured.p50_ms <= measured.p99_ms


async def test_memory_stays_flat_while_a_query_catches_up(epmd, tmp_path):
    measured = await catch_up(str(tmp_path), 10_000)
    assert measured.rate > 0
    assert measured.end_mib < measured.early_mib + 20
