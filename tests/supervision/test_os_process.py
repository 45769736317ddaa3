"""OS processes as children: real ones, each test in an interpreter of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyglyn.etf import Reference
from pyglyn.supervision import worker
from pyglyn.supervision.effects import Child
from pyglyn.supervision.running import Running
from pyglyn.testing import eventually
from tests.supervision.fresh import PYTHONS, left_over, run_fresh, start_fresh

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

BODIES = (
    "ends_tell_their_reason",
    "children_begin_clean",
    "descriptors_of_the_parent_do_not_become_others",
    "a_signal_to_a_new_child_is_not_the_parents",
    "threads_forbid_fork_but_not_spawn",
    "a_child_that_ignores_sigterm_is_killed",
    "a_dead_childs_family_dies",
    "the_hubs_own_os_processes_are_left_alone",
    "commands_of_ones_own_keep_their_exit_status",
    "a_killed_supervisor_leaves_nothing",
    "exhausted_descriptors_fail_a_start_cleanly",
    "without_pidfds_signals_tell",
    "many_children_leave_no_trace",
    "memory_is_read",
    "a_lost_status_is_unknown",
)


@pytest.mark.parametrize("python", PYTHONS, ids=[Path(python).name for python in PYTHONS])
@pytest.mark.parametrize("body", BODIES)
def test_os_processes(body: str, python: str) -> None:
    """The bodies are in os_bodies.py; their names say what they check."""
    print(run_fresh(f"tests.supervision.os_bodies:{body}", python=python))  # noqa: T201


async def test_looking_at_memory_for_ever_takes_no_memory() -> None:
    child = worker(print, memory_limit="1 GiB")
    running = Running(Child(child), child, child.start, Reference("n@h", 1, (1, 2, 3)))
    looks = 0

    def look() -> None:
        nonlocal looks
        looks += 1
        running.later(0.0, look)

    look()
    await eventually(lambda: looks > 50)
    assert len(running.closers) == 1
    running.close()


@pytest.mark.parametrize("python", PYTHONS, ids=[Path(python).name for python in PYTHONS])
@pytest.mark.parametrize("supervisor", ["idle", "busy"])
async def test_a_killed_hub_leaves_nothing(supervisor: str, python: str) -> None:
    """Not even when the supervisor below it is stuck in a loop."""
    with start_fresh("tests.supervision.os_bodies:hub", supervisor, python=python) as hub:
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
        begin = time.monotonic()
        await eventually(lambda: not left_over(tree), timeout=1.0)
        print(f"{len(tree)} gone after {time.monotonic() - begin:.3f} s")  # noqa: T201


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
    run_fresh("tests.supervision.os_bodies:out_of_memory_kills_are_told_apart", memory_cgroup)
