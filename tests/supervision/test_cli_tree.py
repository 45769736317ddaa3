"""``pyglyn tree``, ``kill`` and ``stop``."""

from __future__ import annotations

import asyncio
import re
import sys

from pyglyn.testing import eventually
from tests.supervision.conftest import ROOT, Program, Start


async def pyglyn(*words: str) -> tuple[int, str]:
    """Run the command line; its exit status and what it printed."""
    command = [sys.executable, "-m", "pyglyn", *words, "--cookie", "pyglyn_testing"]
    process = await asyncio.create_subprocess_exec(
        *command, cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    out, _ = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode is not None
    return process.returncode, out.decode()


def row(text: str, name: str) -> list[str]:
    """The words of a process's row."""
    [line] = [line for line in text.splitlines() if line.strip().startswith(name + " ")]
    return line.split()


async def test_tree_shows_the_processes_of_hub_and_workers_alike(program: Start) -> None:
    node = await program("three")
    status, text = await pyglyn("tree", node.name)
    assert status == 0, text
    indents = {
        name: re.search(rf"^( *){name} ", text, re.M) for name in ("pyglyn_sup", "top", "a", "below", "c")
    }
    depths = [len(found[1]) for found in indents.values() if found]
    assert depths == [depths[0] + step for step in (0, 2, 4, 4, 6)]
    name, pid, os_pid, state, restarts, memory, unit, mailbox, *uptime = row(text, "a")
    assert (name, int(os_pid), state, restarts, unit, mailbox) == (
        "a",
        await node.os_pid("a"),
        "running",
        "0",
        "MiB",
        "0",
    )
    assert re.fullmatch(r"<\d+\.\d+>", pid)
    assert 1 < float(memory) < 500
    assert uptime[1] == "s"
    assert "net_kernel" in text


async def test_kill_ends_a_process_and_its_supervisor_restarts_it(program: Start) -> None:
    node = await program("three")
    before = await node.os_pid("a")
    assert await pyglyn("kill", node.name, "a") == (0, "")
    await eventually(lambda: restarted(node, "a", before))
    _, text = await pyglyn("tree", node.name)
    assert row(text, "a")[4] == "1"
    status, text = await pyglyn("kill", node.name, "nobody")
    assert status == 1
    assert "nobody" in text


async def restarted(node: Program, name: str, before: int) -> bool:
    return await node.os_pid(name) != before


async def test_stop_stops_the_node_and_waits_for_it(program: Start) -> None:
    node = await program("three")
    assert await pyglyn("stop", node.name) == (0, "")
    assert await node.wait() == 0
    assert node.text().count("ended (") == 5
