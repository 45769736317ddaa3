"""The linter, the formatter and the type checker find nothing."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pyglyn.testing import require

ROOT = Path(__file__).parent.parent


COMMANDS = [
    ["ruff", "check", "."],
    ["ruff", "format", "--check", "."],
    ["mypy"],
    ["mypy", "tests/typed_program.py"],
]


@pytest.mark.parametrize("command", COMMANDS, ids=["ruff-check", "ruff-format", "mypy", "typed-program"])
def test_nothing_is_found_by(command: list[str]) -> None:
    require(importlib.util.find_spec(command[0]), f"{command[0]} is not installed (pip install -e '.[test]')")
    done = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)}:\n{done.stdout}{done.stderr}"


PATCHED = re.compile(r"""setattr\([^()]*["'](?:[\w.]*\.)?_?[A-Z][A-Z_0-9]+["'],""")


def test_no_constant_is_patched() -> None:
    """Times and bounds are arguments or settings: a patch does not reach other OS processes, and a rename hides it."""
    files = sorted((ROOT / "tests").rglob("*.py"))
    assert not [path.name for path in files if PATCHED.search(path.read_text())]


@pytest.mark.parametrize("arguments", ['routing, "DOORS", 2', "'pyglyn.net.epmd_server.IDLE_S', 1"])
def test_a_patched_constant_is_found(arguments: str) -> None:
    assert PATCHED.search(f"monkeypatch.setattr({arguments})")
