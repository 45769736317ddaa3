"""What containers do to a program, as a table: each in namespaces of its own, seen from a node outside."""

from __future__ import annotations

import asyncio
import os
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest

from pyglyn import Atom, Node
from pyglyn.errors import PyglynError
from pyglyn.testing import eventually, require
from pyglyn.testing.waiting import patiently
from tests.cli.test_cli import Program
from tests.node.conftest import unique_name

APP = """
import asyncio, os, subprocess
from pyglyn import Atom, GenServer, export
from pyglyn.supervision import Supervisor, worker

@export("contained")
async def facts():
    zombies = 0
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/stat") as file:
                zombies += file.read().rpartition(")")[2].split()[0] == "Z"
        except OSError:
            pass
    try:
        open("/written", "w").close()
        os.unlink("/written")
        read_only = False
    except OSError:
        read_only = True
    return {
        Atom("pid"): os.getpid(), Atom("uid"): os.getuid(), Atom("read_only"): read_only,
        Atom("home"): "HOME" in os.environ, Atom("zombies"): zombies,
    }

class Till(GenServer):
    async def init(self): pass
    async def handle_call(self, request, caller):
        # An orphan: its parent ends at once, and process 1 inherits it.
        subprocess.run(["sh", "-c", "sleep 0.1 & exit"], check=True)
        return os.getpid()
    async def handle_cast(self, request):
        raise ValueError("crash")

async def stubborn(me):
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            pass

def app(node):
    return Supervisor().add(worker(Till, name="till"))

def never_ends(node):
    return app(node).add(worker(stubborn, name="stubborn", shutdown=0.2))
"""
UID = 12345
TERM_GRACE_S = 30  # what Kubernetes allows; a node that takes longer is killed there, and counts as lost here


@attrs.frozen(kw_only=True)
class Habit:
    """What a container does.

    Attributes:
        first: the node is process 1 of its PID namespace.
        read_only: the root file system cannot be written to.
        home: there is a ``HOME``.
        foreign: the user id is one that no table of users has.
        closed: redirections of the shell.
        app: of the file above.
        status: with which the node ends on SIGTERM.
    """

    first: bool = False
    read_only: bool = False
    home: bool = True
    foreign: bool = False
    closed: str = ""
    app: str = "app"
    status: int = 0

    def command(self, words: list[str]) -> list[str]:
        """Run a command so."""
        outer = ["unshare", "--user", "--map-root-user", "--mount"]
        if self.first:
            outer += ["--pid", "--fork", "--mount-proc", "--kill-child"]
        script = "mount -o remount,bind,ro / && " if self.read_only else ""
        inner = ["unshare", "--user", f"--map-user={UID}", "--map-group=0"] if self.foreign else []
        return [*outer, "sh", "-c", f"{script}exec {shlex.join([*inner, *words])} {self.closed}"]


HABITS = {
    "process 1": Habit(first=True),
    "read-only root": Habit(read_only=True),
    "no HOME": Habit(home=False),
    "any user id": Habit(foreign=True),
    "closed stdin": Habit(closed="<&-"),
    "closed stdout": Habit(closed=">&-"),
    "closed stdin and stdout": Habit(closed="<&- >&-"),
    "a child that does not stop": Habit(first=True, app="never_ends", status=3),
    "all of it": Habit(first=True, read_only=True, home=False, foreign=True, closed="<&- >&-"),
}


def can_unshare() -> bool:
    words = Habit(first=True, read_only=True, foreign=True).command(["true"])
    return shutil.which("unshare") is not None and subprocess.run(words, check=False).returncode == 0


@asynccontextmanager
async def contained(habit: Habit, folder: Path, name: str) -> AsyncIterator[Program]:
    (folder / "contained.py").write_text(APP)
    words = [sys.executable, "-m", "pyglyn", "node", "--sname", name, "--app", f"contained:{habit.app}"]
    environment = {**os.environ, "PYGLYN_COOKIE": "c", "HOME": str(folder)}
    if not habit.home:
        del environment["HOME"]
    process = await asyncio.create_subprocess_exec(
        *habit.command(words),
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    program = Program(process)
    try:
        yield program
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        await program._reader


def the_node(habit: Habit, program: Program) -> int:
    """Its process id as this test sees it."""
    outer = program.process.pid
    if not habit.first:
        return outer
    return int(Path(f"/proc/{outer}/task/{outer}/children").read_text().split()[0])


@pytest.mark.parametrize("habit", HABITS.values(), ids=HABITS)
async def test_a_node_runs_restarts_its_children_and_stops_when_told(
    epmd: Any, tmp_path: Path, habit: Habit
) -> None:
    require(can_unshare(), "namespaces cannot be made here: unshare --user --pid --mount")
    name = f"contained_{secrets.token_hex(4)}@localhost"
    async with contained(habit, tmp_path, name) as program, Node(unique_name(), cookie="c") as outside:

        async def facts() -> dict[Any, Any]:
            try:
                told: Any = await outside.rpc(name, "contained", "facts")
            except PyglynError as error:
                raise AssertionError(f"{error}\n{program.output}") from None
            return {str(key): value for key, value in told.items()}

        async def restarted(before: object) -> object:
            try:
                return (now := await outside.call(("till", name), Atom("orphan"))) != before and now
            except PyglynError as error:
                raise AssertionError(f"{error}\n{program.output}") from None

        seen = await eventually(facts, 30)
        assert (seen["pid"] == 1) is habit.first
        assert seen["uid"] == (UID if habit.foreign else 0)
        assert seen["home"] is habit.home
        if habit.read_only:
            assert seen["read_only"] is True
        before = await eventually(lambda: restarted(None), 30)
        outside.cast(("till", name), Atom("crash"))
        await eventually(lambda: restarted(before), 30)
        if habit.first:

            async def collected() -> bool:
                return (await facts())["zombies"] == 0

            await eventually(collected, 30)
        os.kill(the_node(habit, program), signal.SIGTERM)
        assert await asyncio.wait_for(program.ends(), patiently(TERM_GRACE_S)) == habit.status, program.output
