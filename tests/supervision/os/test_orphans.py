"""Who adopts, collects; what was started here is left to who started it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from tests.supervision.os.fresh import ROOT, environment, run_fresh

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

BODIES = "tests.supervision.os.bodies"


@pytest.mark.parametrize("owner", ["hub", "supervisor"])
@pytest.mark.parametrize(
    "body", ["what_was_adopted_is_collected", "what_was_started_here_keeps_its_exit_status"]
)
def test_orphans(body: str, owner: str) -> None:
    """The bodies are in bodies.py; their names say what they check."""
    run_fresh(f"{BODIES}:{body}", owner)


def test_what_was_forked_and_has_ended_is_forgotten() -> None:
    run_fresh(f"{BODIES}:what_was_forked_and_has_ended_is_forgotten")


def test_a_handler_of_ones_own_is_left_alone() -> None:
    run_fresh(f"{BODIES}:a_handler_of_ones_own_is_left_alone")


@pytest.mark.skipif(
    shutil.which("unshare") is None
    or subprocess.run(["unshare", "-pf", "true"], check=False).returncode != 0,
    reason="no namespaces can be made here",
)
def test_a_node_that_is_process_1_collects_what_it_adopts(epmd: object) -> None:
    command = ["unshare", "-pf", "--kill-child", "--mount-proc", sys.executable, "-m", "pyglyn", "node"]
    command += ["--sname", f"one_{os.getpid()}@localhost", "--cookie", "c"]
    command += ["--app", "tests.supervision.service:leaves_orphans"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT, env=environment()) as node:
        try:
            assert node.stdout is not None
            assert node.stdout.readline() == b"all collected\n"
        finally:
            node.kill()
