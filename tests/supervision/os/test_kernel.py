"""What the kernel says of OS processes."""

from __future__ import annotations

import sys

import pytest

from tests.supervision.os.fresh import each_python, run_fresh

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

BODIES = ("memory_is_read",)


@each_python
@pytest.mark.parametrize("body", BODIES)
def test_readings(body: str, python: str) -> None:
    """The bodies are in bodies.py; their names say what they check."""
    run_fresh(f"tests.supervision.os.bodies:{body}", python=python)
