"""What the codec in C costs, in instructions and in memory blocks: counts that no clock has a part in.

Each bound is a little above what was counted when it was last changed (Python 3.11, gcc 12, x86-64), and leaves
room for other compilers and releases. Where one is exceeded, look at what became slower, with

    valgrind --tool=callgrind --toggle-collect=decode python -m tests.etf.costs
"""

from __future__ import annotations

import gc
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from pyglyn.testing import require
from tests.etf.costs import FUNCTIONS, PAYLOADS, REPEATED

pytestmark = pytest.mark.timeout(3600)  # it counts fifty times as slowly as it runs, and others run too

ROOT = Path(__file__).parent.parent.parent

BOUNDS = {
    "event message": (3_400, 5_200, 3_700),
    "call": (2_500, 3_700, 1_700),
    "100 envelopes": (222_000, 352_000, 250_000),
    "1,000 integers": (97_000, 52_000, 26_000),
    "10,000 bytes as a list": (148_000, 171_000, 250_000),
    "1,000 floats": (83_000, 118_000, 26_000),
    "map of 1,000 binaries": (460_000, 990_000, 690_000),
    "1,000 nested tuples": (32_000, 270_000, 375_000),
}
"""Per payload, the instructions of one call of each of the ``FUNCTIONS``."""

BLOCKS = {"event message": 17, "call": 10, "100 envelopes": 1_810, "1,000 nested tuples": 1_001}
"""Per payload, the memory blocks that one decoded term takes: its objects, and the arrays of its lists."""


@pytest.fixture(scope="module")
def instructions(
    tmp_path_factory: pytest.TempPathFactory, speedups: ModuleType
) -> dict[tuple[str, str], int]:
    """The instructions of each function on each payload, everything that it calls included."""
    valgrind = shutil.which("valgrind")
    require(valgrind, "counting instructions takes valgrind (the Debian package of that name)")
    folder = tmp_path_factory.mktemp("callgrind")
    command = [
        str(valgrind), "--tool=callgrind", f"--callgrind-out-file={folder}/out", "--collect-atstart=no",
        *(f"--toggle-collect={name}" for name in FUNCTIONS), *(f"--dump-after={name}" for name in FUNCTIONS),
        sys.executable, "-m", "tests.etf.costs",
    ]  # fmt: skip
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=3500)
    dumps = sorted(folder.glob("out.*"), key=lambda path: int(path.suffix[1:]))
    totals = []
    for dump in dumps:
        found = re.search(r"^(?:totals|summary): (\d+)", dump.read_text(), re.MULTILINE)
        totals.append(int(found[1]) if found else 0)
    per_payload = 1 + len(FUNCTIONS) * REPEATED
    assert len(totals) >= len(PAYLOADS) * per_payload
    return {
        (payload, function): totals[number * per_payload + (position + 1) * REPEATED]
        for number, payload in enumerate(PAYLOADS)
        for position, function in enumerate(FUNCTIONS)
    }


@pytest.mark.beside
@pytest.mark.skipif(
    sys.version_info[:2] != (3, 11), reason="the bounds are for the interpreter of Python 3.11"
)
@pytest.mark.parametrize("payload", PAYLOADS)
def test_instructions_are_no_more_than_they_were(
    payload: str, instructions: dict[tuple[str, str], int]
) -> None:
    counted = [instructions[payload, function] for function in FUNCTIONS]
    assert all(mine <= bound for mine, bound in zip(counted, BOUNDS[payload], strict=True)), counted


@pytest.mark.parametrize("payload", BLOCKS)
def test_memory_blocks_are_no_more_than_they_were(payload: str, speedups: ModuleType) -> None:
    data = speedups.encode(PAYLOADS[payload])
    kept = [speedups.decode(data) for _ in range(10)]
    gc.collect()
    before = sys.getallocatedblocks()
    kept += [speedups.decode(data) for _ in range(10)]
    counted = (sys.getallocatedblocks() - before) / 10
    assert counted <= BLOCKS[payload] + 1, counted
