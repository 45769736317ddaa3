"""What starting a node imports: each of these would take a noticeable part of the time."""

from __future__ import annotations

import subprocess
import sys

NOT_FOR_A_NODE = {
    "cattrs",
    "importlib.metadata",
    "multiprocessing",
    "pyglyn.cli",
    "pyglyn.eventsourcing",
    "pyglyn.gleam",
    "pyglyn.groups",
    "pyglyn.http",
    "pyglyn.supervision",
    "rich",
    "sqlite3",
}


def test_a_node_imports_nothing_that_it_does_not_use() -> None:
    program = "import sys, pyglyn; pyglyn.Node; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not NOT_FOR_A_NODE & set(done.stdout.split())
