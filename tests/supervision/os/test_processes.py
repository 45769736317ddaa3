"""OS processes as children: real ones, each test in an interpreter of its own."""

from __future__ import annotations

import os
import signal
import sys

import pytest

from pyglyn.testing import eventually
from tests.supervision.os.fresh import each_python, left_over, run_fresh, start_fresh

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

BODIES = (
    "a_child_that_ignores_sigterm_is_killed",
    "a_dead_childs_family_dies",
    "the_hubs_own_os_processes_are_left_alone",
    "commands_of_ones_own_keep_their_exit_status",
    "a_killed_supervisor_leaves_nothing",
    "exhausted_descriptors_fail_a_start_cleanly",
    "without_pidfds_signals_tell",
    "many_children_leave_no_trace",
)


@each_python
@pytest.mark.parametrize("body", BODIES)
def test_os_processes(body: str, python: str) -> None:
    """The bodies are in bodies.py; their names say what they check."""
    print(run_fresh(f"tests.supervision.os.bodies:{body}", python=python))  # noqa: T201


@each_python
@pytest.mark.parametrize("supervisor", ["idle", "busy"])
async def test_a_killed_hub_leaves_nothing(supervisor: str, python: str) -> None:
    """Not even when the supervisor below it is stuck in a loop."""
    with start_fresh("tests.supervision.os.bodies:hub", supervisor, python=python) as hub:
        try:
            assert hub.stdout is not None
            line = hub.stdout.readline().split()
            assert line[:1] == [b"tree"], line + hub.stdout.readlines()
            tree = set(map(int, line[1:]))
            os.killpg(hub.pid, signal.SIGINT)  # as Ctrl-C at a terminal: for the hub alone
            assert hub.stdout.readline() == b"interrupted\n"
            assert set(left_over(tree)) == tree
        finally:
            hub.kill()
        await eventually(lambda: not left_over(tree))
