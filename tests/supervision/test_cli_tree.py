"""``pyglyn tree``, ``kill`` and ``stop``."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import sys
import termios
from collections.abc import Iterator
from typing import Any

import attrs

from pyglyn import Atom, Pid
from pyglyn.cli import top
from pyglyn.testing import eventually
from tests.supervision.conftest import ROOT, Program, Start


async def pyglyn(*words: str) -> tuple[int, str]:
    """Run the command line; its exit status and what it printed."""
    command = [sys.executable, "-m", "pyglyn", *words, "--cookie", "pyglyn_testing"]
    process = await asyncio.create_subprocess_exec(
        *command, cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    out, _ = await asyncio.wait_for(process.communicate(), 180)
    assert process.returncode is not None
    return process.returncode, out.decode()


def row(text: str, name: str) -> list[str]:
    """The words of a process's row; none where there is no such row."""
    lines = [line.lstrip("│├└─ ") for line in text.splitlines()]
    return next((line.split() for line in lines if line.startswith(name + " ")), [])


async def test_tree_shows_the_processes_of_hub_and_workers_alike(program: Start) -> None:
    node = await program("three")
    status, text = await pyglyn("tree", node.name)
    assert status == 0, text
    drawn = [line[: line.index("<")].rstrip() for line in text.splitlines() if "<" in line]
    assert drawn[drawn.index("└─ pyglyn_sup") :] == [
        "└─ pyglyn_sup",
        "   └─ top",
        "      ├─ a",
        "      ├─ b",
        "      └─ below",
        "         └─ c",
    ]
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


@contextlib.contextmanager
def on_a_terminal(*words: str) -> Iterator[Terminal]:
    """Run the command line on a terminal of 30 lines."""
    ours, theirs = os.openpty()
    termios.tcsetwinsize(theirs, (30, 120))
    command = [sys.executable, "-m", "pyglyn", *words, "--cookie", "pyglyn_testing"]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm"},
        preexec_fn=lambda: os.login_tty(theirs),
    )
    os.close(theirs)
    os.set_blocking(ours, False)
    try:
        yield Terminal(ours, process)
    finally:
        process.kill()
        process.wait()
        os.close(ours)


@attrs.define
class Terminal:
    """A command on a terminal."""

    fd: int
    process: subprocess.Popen[bytes]
    text: str = ""

    def look(self) -> str:
        """What has been drawn last: from the last heading on, without colours."""
        with contextlib.suppress(BlockingIOError, OSError):
            while data := os.read(self.fd, 65536):
                self.text += data.decode(errors="replace")
        plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", self.text)
        return plain[plain.rfind("name  ") :]

    def type(self, key: bytes) -> None:
        os.write(self.fd, key)


async def test_the_live_view_shows_restarts_as_they_happen_until_ctrl_c(program: Start) -> None:
    node = await program("three")
    with on_a_terminal("tree", node.name, "--live", "--interval", "0.1") as terminal:

        def restarts_of_a(count: str) -> bool:
            return row(terminal.look(), "a")[4:5] == [count]

        await eventually(lambda: restarts_of_a("0"), 10.0)
        before = await node.os_pid("a")
        os.kill(before, signal.SIGKILL)
        await eventually(lambda: restarts_of_a("1"), 10.0)
        assert row(terminal.look(), "a")[2] == str(await node.os_pid("a")) != str(before)
        terminal.type(b"\x03")
        assert await eventually(lambda: terminal.process.poll() is not None, 10.0)
        assert "Traceback" not in terminal.text


async def test_the_live_view_of_a_node_that_ends_says_so(program: Start) -> None:
    node = await program("three")
    with on_a_terminal("tree", node.name, "--live", "--interval", "0.1") as terminal:
        await eventually(lambda: row(terminal.look(), "a"), 10.0)
        node.process.terminate()
        assert await eventually(lambda: terminal.process.poll() is not None, 10.0)
        terminal.look()
        assert terminal.process.returncode == 1
        assert node.name in terminal.text.splitlines()[-1]
        assert "Traceback" not in terminal.text


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


async def test_top_tells_the_cpu_and_memory_of_each_os_process_once_and_sorts(program: Start) -> None:
    node = await program("three")
    status, text = await pyglyn("top", node.name, "--interval", "0.2", "--sort", "name")
    assert status == 0, text
    head, columns, *lines = text.splitlines()
    assert "6 OS processes" in head
    assert columns.split()[:6] == ["name", "pid", "os", "pid", "cpu", "memory"]
    names = [line.split()[0] for line in lines]
    assert names == sorted(names, key=str.lower)
    assert sum("MiB" in line for line in lines) == 6
    a = row(text, "a")
    assert int(a[2]) == await node.os_pid("a")
    assert a[3].endswith("%")
    assert a[5] == "MiB"
    _, text = await pyglyn("top", node.name, "--interval", "0.2", "--sort", "memory")
    sizes = [float(line.split("%")[1].split()[0]) for line in text.splitlines() if "MiB" in line]
    assert sizes == sorted(sizes, reverse=True)


def test_top_counts_cpu_between_two_looks_and_puts_the_busiest_first() -> None:
    pid = [Pid("n@h", number, number, 1) for number in range(4)]
    before = [_row(pid[1], 11, 1_000_000), _row(pid[2], 12, 5_000_000)]
    now = [_row(pid[1], 11, 1_500_000, waiting=3), _row(pid[2], 12, 7_000_000), _row(pid[3], 13, 900_000)]
    now.append({**_row(pid[0], 11, 1_500_000), Atom("parent"): pid[1]})  # beside the first one
    found = top.uses(before, now, 4.0)
    assert [use.cpu for use in found] == [0.125, 0.5, None, None]
    assert [use.memory for use in found] == [1 << 20, 1 << 20, 1 << 20, None]
    assert [use.row[Atom("pid")] for use in top.order(found, "cpu")][:2] == [pid[2], pid[1]]
    assert top.order(found, "mailbox")[0].row[Atom("pid")] == pid[1]


def _row(pid: Pid, os_pid: int, cpu_us: int, waiting: int = 0) -> dict[Any, Any]:
    row: dict[Any, Any] = {Atom("pid"): pid, Atom("os_pid"): os_pid, Atom("cpu_us"): cpu_us}
    return row | {Atom("memory"): 1 << 20, Atom("message_queue_len"): waiting}
