"""Making OS processes."""

from __future__ import annotations

import sys

import pytest

from tests.supervision.os.fresh import each_python, run_fresh

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

BODIES = ("threads_forbid_fork_but_not_spawn", "a_frozen_program_does_not_start_itself_anew")


@each_python
@pytest.mark.parametrize("body", BODIES)
def test_starts(body: str, python: str) -> None:
    """The bodies are in bodies.py; their names say what they check."""
    run_fresh(f"tests.supervision.os.bodies:{body}", python=python)
