"""External programs as children: real ones, each test in an interpreter of its own."""

from __future__ import annotations

import os
import sys

import pytest

from tests.supervision.os.fresh import run_fresh

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

BODIES = (
    "output_goes_to_the_log",
    "programs_say_when_they_are_ready",
    "failed_starts_tell_why",
    "a_cancelled_start_kills_the_program",
    "a_program_begins_clean",
    "a_stopped_program_leaves_nothing",
    "a_flood_of_output_does_not_block_the_loop",
)


@pytest.mark.parametrize("body", BODIES)
def test_programs(body: str) -> None:
    """The bodies are in program_bodies.py; their names say what they check."""
    run_fresh(f"tests.supervision.os.program_bodies:{body}")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
def test_only_a_program_says_that_it_is_ready() -> None:
    run_fresh("tests.supervision.os.program_bodies:only_a_program_says_that_it_is_ready")
