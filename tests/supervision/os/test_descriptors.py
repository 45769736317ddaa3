"""What becomes of the parent's descriptors in a new OS process."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.supervision.os.fresh import ROOT, each_python, environment, run_fresh

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

BODIES = ("descriptors_of_the_parent_do_not_become_others", "without_memfd_and_proc_children_run")


@each_python
@pytest.mark.parametrize("body", BODIES)
def test_descriptors(body: str, python: str) -> None:
    """The bodies are in bodies.py; their names say what they check."""
    run_fresh(f"tests.supervision.os.bodies:{body}", python=python)


def test_children_of_one_without_standard_streams_have_none_of_its_files() -> None:
    body = "tests.supervision.os.bodies:children_of_one_without_standard_streams_have_none_of_its_files"
    command = f"exec {sys.executable} -m tests.supervision.os.fresh {body} <&- >&- 2>&-"
    done = subprocess.run(["sh", "-c", command], cwd=ROOT, env=environment(), timeout=150, check=False)
    assert done.returncode == 0
