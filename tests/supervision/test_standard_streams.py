"""A node that is started without standard input, output or error."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pyglyn import Process
from pyglyn.supervision import Supervisor, worker
from pyglyn.testing import eventually

ROOT = Path(__file__).parents[2]
FOLDER = "PYGLYN_TEST_FOLDER"


async def tells(me: Process, name: str) -> None:
    """Writes what its three streams are; prints, which goes nowhere."""
    print("printed")  # noqa: T201
    os.write(2, b"written\n")
    streams = [os.readlink(f"/proc/self/fd/{number}") for number in range(3)]
    path = Path(os.environ[FOLDER]) / name
    path.with_suffix(".new").write_text(" ".join(streams))
    path.with_suffix(".new").rename(path)
    await me.receive()


def app(node: Any) -> Supervisor:
    return (
        Supervisor(name="top")
        .add(worker(tells, "forked", name="forked"))
        .add(worker(tells, "spawned", name="spawned", start="spawn"))
    )


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
async def test_it_runs_and_nothing_is_written_into_what_got_their_numbers(
    epmd: object, tmp_path: Path, closed: str
) -> None:
    name = f"std_{secrets.token_hex(4)}@localhost"
    command = f"exec {sys.executable} -m pyglyn node --sname {name} --cookie c --app {__name__}:app {closed}"
    node = await asyncio.create_subprocess_exec(
        "sh",
        "-c",
        command,
        cwd=ROOT,
        env={**os.environ, FOLDER: str(tmp_path)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        for child in ("forked", "spawned"):
            path = tmp_path / child
            await eventually(path.exists, timeout=60.0)
            assert path.read_text() == " ".join([os.devnull] * 3)
        node.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(node.wait(), 180) == 0
    finally:
        if node.returncode is None:
            node.kill()
            await node.wait()
