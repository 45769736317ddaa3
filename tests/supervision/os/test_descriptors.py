"""What becomes of the parent's descriptors in a new OS process."""

from __future__ import annotations

import sys

import pytest

from tests.supervision.os.fresh import each_python, run_fresh

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

BODIES = ("descriptors_of_the_parent_do_not_become_others",)


@each_python
@pytest.mark.parametrize("body", BODIES)
def test_descriptors(body: str, python: str) -> None:
    """The bodies are in bodies.py; their names say what they check."""
    run_fresh(f"tests.supervision.os.bodies:{body}", python=python)
