"""The benchmarks by name."""

from __future__ import annotations

from tests.benchmarks.codec import codec
from tests.benchmarks.gleam import gleam
from tests.benchmarks.groups import groups
from tests.benchmarks.harness import Benchmark
from tests.benchmarks.node import node
from tests.benchmarks.supervision import supervision
from tests.benchmarks.tls import tls

BENCHMARKS: dict[str, Benchmark] = {
    "codec": codec,
    "gleam": gleam,
    "groups": groups,
    "node": node,
    "supervision": supervision,
    "tls": tls,
}
