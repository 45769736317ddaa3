"""What a message costs on its whole path through the package, in instructions: counts that no clock has a part in.

Each bound is a little above what was counted when it was last changed (Python 3.11, gcc 12, x86-64). Where one is
exceeded, look at what became slower, with

    python -m cProfile -s tottime -m tests.node.paths into_a_process 20000
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from pyglyn.testing import require
from tests.node.paths import MANY, PATHS

pytestmark = pytest.mark.timeout(3600)  # it counts fifty times as slowly as it runs, and others run too

ROOT = Path(__file__).parent.parent.parent

BOUNDS = {
    "into_a_process": 14_900,
    "out_of_a_process": 13_400,
    "to_a_worker": 5_500,
    "within": 14_900,
    "served": 95_000,
    "called": 84_000,
    "through_a_worker": 128_000,
    "out_of_a_worker": 19_000,
    "asked": 208_000,
}
"""Instructions for each message."""


@pytest.fixture(scope="module")
def speedups() -> ModuleType:
    """The codec in C, which the bounds are for."""
    return pytest.importorskip("pyglyn.etf._speedups")  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def instructions(tmp_path_factory: pytest.TempPathFactory, speedups: ModuleType) -> dict[str, float]:
    """Those of each message, by path: all that was done for many messages behind a few."""
    valgrind = shutil.which("valgrind")
    require(valgrind, "counting instructions takes valgrind (the Debian package of that name)")
    folder = tmp_path_factory.mktemp("callgrind")
    command = [
        str(valgrind), "--tool=callgrind", f"--callgrind-out-file={folder}/out", "--dump-after=decode_prefix",
        sys.executable, "-m", "tests.node.paths",
    ]  # fmt: skip
    env = {**os.environ, "PYTHONHASHSEED": "0"}
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=3500, env=env)
    dumps = sorted(folder.glob("out.*"), key=lambda path: int(path.suffix[1:]))
    totals = []
    for dump in dumps:
        found = re.search(r"^(?:totals|summary): (\d+)", dump.read_text(), re.MULTILINE)
        totals.append(int(found[1]) if found else 0)
    assert len(totals) >= 4 * len(PATHS)
    return {path: totals[4 * number + 3] / MANY for number, path in enumerate(PATHS)}


@pytest.mark.beside
@pytest.mark.skipif(
    sys.version_info[:2] != (3, 11), reason="the bounds are for the interpreter of Python 3.11"
)
@pytest.mark.parametrize("path", PATHS)
def test_a_message_takes_no_more_instructions_than_it_did(path: str, instructions: dict[str, float]) -> None:
    assert instructions[path] <= BOUNDS[path]
