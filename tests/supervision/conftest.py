"""A Python node with supervision trees, in the test's own OS process or as a program of its own."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
import pytest_asyncio

from pyglyn import Atom, Node, Pid, Process
from pyglyn.errors import CallFailed
from pyglyn.node import Settings
from pyglyn.supervision.os import kernel
from pyglyn.testing import Beam, eventually
from pyglyn.testing.waiting import patiently
from tests.supervision.asking import Asked, asked_by

ROOT = Path(__file__).parents[2]


def running(os_pid: int) -> bool:
    """Whether an OS process exists and is no zombie."""
    stat = kernel.os_stat(os_pid)
    return stat is not None and stat.state != "Z"


def descendants(os_pid: int) -> set[int]:
    """All OS processes below one, zombies included."""
    parents: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit() and (stat := kernel.os_stat(int(name))) is not None:
            parents.setdefault(stat.parent, []).append(int(name))
    found: set[int] = set()
    waiting = [os_pid]
    while waiting:
        below = parents.get(waiting.pop(), [])
        found.update(below)
        waiting += below
    return found


@attrs.define
class Client:
    """A process of the test on the node with the tree, and what tests ask with it."""

    node: Node
    me: Process

    async def os_pid(self, name: str | Pid) -> int:
        answer: Any = await self.me.call(name, Atom("os_pid"), patiently(5.0))
        return answer

    async def restarted(self, name: str, before: Pid) -> Pid:
        """Wait until a name is registered by another process than before, and that answers."""

        async def answers() -> Pid | None:
            pid = self.node.whereis(name)
            if pid is None or pid == before:
                return None
            with contextlib.suppress(CallFailed):
                await self.os_pid(pid)
                return pid
            return None

        return await eventually(answers, 10.0)

    async def reason(self, ref: Any, timeout: float | None = None) -> Any:
        """The reason of a monitor that fires; without a timeout it has all the time of a busy machine."""
        message: Any = await self.me.receive(
            lambda m: isinstance(m, tuple) and len(m) == 5 and m[1] == ref,
            patiently(10.0) if timeout is None else timeout,
        )
        return message[4]

    async def children(self, supervisor: str | Pid) -> dict[Any, Any]:
        """``which_children`` as id -> pid."""
        rows: Any = await self.me.call(supervisor, Atom("which_children"), patiently(5.0))
        return {row[0]: row[1] for row in rows}


@pytest.fixture
def chosen() -> dict[str, Any]:
    """What is chosen in the settings of the test's node; a test that needs something is parametrised with it."""
    return {}


@pytest_asyncio.fixture
async def local(epmd: Any, chosen: dict[str, Any]) -> AsyncIterator[Client]:
    """A node in this OS process."""
    name = f"sup_{secrets.token_hex(4)}@localhost"
    async with Node(name, cookie="pyglyn_testing", settings=Settings(**chosen)) as node, node.process() as me:
        yield Client(node, me)


@attrs.define
class Program:
    """``pyglyn node --app …`` as a program."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def text(self) -> str:
        return self.log.read_text(errors="replace")

    async def wait(self, timeout: float = 15.0) -> int:
        """Wait for its end; returns the exit status."""
        await eventually(lambda: self.process.poll() is not None, timeout)
        return self.process.returncode

    async def logged(self, pattern: str, timeout: float = 15.0) -> re.Match[str]:
        """Wait for a line in its log."""
        return await eventually(lambda: re.search(pattern, self.text()), timeout)

    async def os_pid(self, name: str) -> int:
        """The OS process of a child, by its log."""
        await self.logged(rf"\b{name} started \(")
        return int(re.findall(rf"\b{name} started \(\S+, os_pid (\d+)\)", self.text())[-1])


@pytest_asyncio.fixture
async def asked(shared_beam: Beam, chosen: dict[str, Any]) -> AsyncIterator[Asked]:
    """A node with a process of each kind, and the BEAM node that asks about them."""
    async with asked_by(shared_beam, Settings(**chosen)) as each:
        yield each


Start = Callable[..., Awaitable[Program]]
"""What the fixture `program` is."""


def _start(name: str, app: str, log: Path, cookie: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "pyglyn", "node", "--sname", name, "--cookie", cookie]
    command += ["--app", f"tests.supervision.service:{app}"]
    with log.open("wb") as out:
        return subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
        )


@pytest.fixture
def program(epmd: Any, tmp_path: Path) -> Iterator[Start]:
    """Starts a node as a program; waits until its tree is up."""
    started: list[Program] = []

    async def start(app: str, *, wait: bool = True, cookie: str = "pyglyn_testing") -> Program:
        name = f"prog_{secrets.token_hex(4)}@localhost"
        log = tmp_path / f"{name}.log"
        process = _start(name, app, log, cookie)
        program = Program(name, process, log)
        started.append(program)
        if wait:
            await program.logged(r"top started")
        return program

    yield start
    for each in started:
        if each.process.poll() is None:
            os.killpg(each.process.pid, signal.SIGKILL)
            each.process.wait()


def left_over(os_pids: set[int]) -> list[int]:
    """Those that are still there; zombies too, unless it is for init (or this test, a subreaper) to collect them."""
    adopters = (1, os.getpid())
    stats = {os_pid: kernel.os_stat(os_pid) for os_pid in os_pids}
    return [
        pid for pid, stat in stats.items() if stat and not (stat.state == "Z" and stat.parent in adopters)
    ]


async def gone(os_pids: set[int]) -> None:
    """Wait until OS processes are gone."""
    await eventually(lambda: not left_over(os_pids))
