"""Runs a test's body in an interpreter of its own: without threads, so that it may fork, and killable.

A body is an async function of a module, named ``module:function``. It raises what it has to say.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import attrs
import pytest

from pyglyn.supervision.os import kernel

ROOT = Path(__file__).parents[3]
PYTHONS = [sys.executable, *filter(None, os.environ.get("PYGLYN_TEST_PYTHONS", "").split(os.pathsep))]
"""This interpreter, and those in PYGLYN_TEST_PYTHONS; they use this one's pure-Python attrs."""

each_python = pytest.mark.parametrize("python", PYTHONS, ids=[Path(python).name for python in PYTHONS])

BACKGROUND = (
    "true >/dev/null 2>&1 &",
    "(sh -c 'sleep 0.1 >/dev/null 2>&1 & exit 0' &) ; exit 0",
    "setsid sh -c 'sleep 0.1 & exit 0' >/dev/null 2>&1",
    "env -i setsid -f sleep 0.1 >/dev/null 2>&1",
)
"""Commands that leave something in the background, which becomes a child of whoever adopts."""


def environment(python: str = sys.executable) -> dict[str, str]:
    """The environment of a fresh interpreter: ours, with what it needs to import this."""
    paths = [str(ROOT)]
    if python != sys.executable:
        paths.append(str(Path(attrs.__file__).parents[1]))
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONFAULTHANDLER": ""}


def run_fresh(body: str, *args: str, python: str = sys.executable, timeout: float = 150.0) -> str:
    """Run a body to its end; returns what it printed, and fails with that when the body fails."""
    with tempfile.TemporaryFile() as output:  # not a pipe, which whatever is left over would keep open
        process = start_fresh(body, *args, python=python, output=output)
        try:
            ended = f"ended with {process.wait(timeout)}"
        except subprocess.TimeoutExpired:
            ended = f"did not end within {timeout} s"
            left = descendants(process.pid)
            for os_pid in (process.pid, *left):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(os_pid, signal.SIGKILL)
            process.wait()
        output.seek(0)
        text = output.read().decode(errors="replace")
    assert process.returncode == 0, f"{body} {ended}:\n{text}"
    return text


def start_fresh(
    body: str, *args: str, python: str = sys.executable, output: Any = subprocess.PIPE
) -> subprocess.Popen[bytes]:
    """Start a body; its output goes to the pipe ``stdout``, or elsewhere."""
    return subprocess.Popen(
        [python, "-W", "error", "-m", "tests.supervision.os.fresh", body, *args],
        cwd=ROOT,
        env=environment(python),
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def descendants(os_pid: int) -> set[int]:
    """All OS processes below one."""
    found: set[int] = set()
    todo = [os_pid]
    while todo:
        current = todo.pop()
        for path in Path(f"/proc/{current}/task").glob("*/children"):
            try:
                below = set(map(int, path.read_text().split()))
            except OSError:
                continue
            todo += below - found
            found |= below
    return found


def running(os_pid: int) -> set[int]:
    """All OS processes below one, without zombies."""
    looked = {each: kernel.os_stat(each) for each in descendants(os_pid)}
    return {each for each, stat in looked.items() if stat is not None and stat.state != "Z"}


def left_over(os_pids: set[int]) -> dict[int, str]:
    """Those of these OS processes that are still there, zombies included unless it is for init to collect them."""
    stats = {os_pid: kernel.os_stat(os_pid) for os_pid in os_pids}
    return {
        os_pid: f"{stat.name} {stat.state} of {stat.parent}"
        for os_pid, stat in stats.items()
        if stat is not None and not (stat.state == "Z" and stat.parent == 1)
    }


def main() -> None:
    """Run the body named on the command line."""
    module, _, function = sys.argv[1].partition(":")
    body = getattr(importlib.import_module(module), function)
    try:
        asyncio.run(body(*sys.argv[2:]))
    finally:
        for os_pid in descendants(os.getpid()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(os_pid, signal.SIGKILL)


if __name__ == "__main__":
    main()
