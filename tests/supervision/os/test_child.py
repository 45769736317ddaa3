"""The first steps of a new OS process."""

from __future__ import annotations

import sys

import pytest

from tests.supervision.os.fresh import each_python, run_fresh

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

BODIES = (
    "children_begin_clean",
    "a_signal_to_a_new_child_is_not_the_parents",
)


@each_python
@pytest.mark.parametrize("body", BODIES)
def test_first_steps(body: str, python: str) -> None:
    """The bodies are in bodies.py; their names say what they check."""
    run_fresh(f"tests.supervision.os.bodies:{body}", python=python)
