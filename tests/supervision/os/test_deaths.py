"""How OS processes end, and which reason that is."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pyglyn.etf import Atom
from pyglyn.supervision.os.deaths import ExitStatus, exit_status
from tests.supervision.os.fresh import each_python, run_fresh

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

BODIES = (
    "ends_tell_their_reason",
    "a_lost_status_is_unknown",
)


@each_python
@pytest.mark.parametrize("body", BODIES)
def test_deaths(body: str, python: str) -> None:
    """The bodies are in bodies.py; their names say what they check."""
    run_fresh(f"tests.supervision.os.bodies:{body}", python=python)


@pytest.fixture
def memory_cgroup() -> Iterator[str]:
    """A control group of 64 MiB; needs root and a writable hierarchy."""
    name = f"pyglyn-test-{os.getpid()}"
    for parent, limit in (
        ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
        ("/sys/fs/cgroup", "memory.max"),
    ):
        folder = Path(parent) / name
        with contextlib.suppress(OSError):
            folder.mkdir()
            try:
                (folder / limit).write_text(str(64 << 20))
                with contextlib.suppress(OSError):
                    (folder / "memory.swap.max").write_text("0")
                yield str(folder)
                return
            finally:
                folder.rmdir()
    pytest.skip("no control group can be made here: root and a writable /sys/fs/cgroup are needed")


def test_out_of_memory_kills_are_told_apart(memory_cgroup: str) -> None:
    """The kernel's oom_kill count goes up."""
    run_fresh("tests.supervision.os.bodies:out_of_memory_kills_are_told_apart", memory_cgroup)


@pytest.mark.parametrize(
    ("ended", "reason"),
    [
        ({"code": 0}, Atom("normal")),
        ({"code": 7}, (Atom("exit_status"), 7)),
        ({"signal": 15}, (Atom("signal"), 15)),
        ({"signal": 9, "out_of_memory": True}, (Atom("signal"), 9, Atom("out_of_memory"))),
        ({}, (Atom("exit_status"), Atom("unknown"))),
    ],
)
def test_every_end_has_its_reason(ended: dict[str, Any], reason: Any) -> None:
    assert ExitStatus(os_pid=1, **ended).reason() == reason


@pytest.mark.parametrize(
    ("reason", "clean", "status"),
    [
        (Atom("normal"), True, 0),
        (Atom("boom"), False, 1),
        ((Atom("exit_status"), 7), False, 7),
        ((Atom("exit_status"), 256 + 7), False, 7),
        ((Atom("exit_status"), Atom("unknown")), False, 1),
    ],
)
def test_a_reason_has_its_exit_status(reason: Any, clean: bool, status: int) -> None:
    assert exit_status(reason, clean=clean) == status
