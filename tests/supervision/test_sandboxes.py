"""A node with a tree where something that it uses on Linux is refused or hidden."""

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
from pyglyn.supervision import Supervisor, program, worker
from pyglyn.testing import eventually, require
from tests.supervision.sandbox import can_hide_proc, can_refuse

ROOT = Path(__file__).parents[2]
FOLDER = "PYGLYN_TEST_FOLDER"
KINDS = ("forked", "spawned", "blocking", "program")


def tell(kind: str) -> None:
    """Write which OS process this is."""
    path = Path(os.environ[FOLDER]) / kind
    path.with_suffix(".new").write_text(str(os.getpid()))
    path.with_suffix(".new").rename(path)


async def tells(me: Process, kind: str) -> None:
    tell(kind)
    await me.receive()


def tells_blocking(me: Any) -> None:
    tell("blocking")
    me.receive()


def app(node: Any) -> Supervisor:
    script = (
        f'echo $$ > "${FOLDER}/program.new"; mv "${FOLDER}/program.new" "${FOLDER}/program"; exec sleep 600'
    )
    return (
        Supervisor(name="top", intensity=20)
        .add(worker(tells, "forked", name="forked", memory_limit="1 GiB"))
        .add(worker(tells, "spawned", name="spawned", start="spawn"))
        .add(worker(tells_blocking, name="blocking"))
        .add(program(["sh", "-c", script], name="program"))
    )


def os_pid_of(kind: str, folder: Path) -> int:
    """Which OS process a child is, 0 until it has said so."""
    path = folder / kind
    return int(path.read_text()) if path.exists() else 0


def exists(os_pid: int) -> bool:
    try:
        os.kill(os_pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.skipif(sys.platform != "linux", reason="these are Linux's")
@pytest.mark.parametrize(
    "refused",
    [["proc"], ["memfd_create", "pidfd_open", "pidfd_send_signal"]],
    ids=["no /proc", "refused calls"],
)
async def test_its_children_start_start_again_and_end_with_it(
    epmd: object, tmp_path: Path, refused: list[str]
) -> None:
    if "proc" in refused:
        require(can_hide_proc(), "/proc cannot be hidden here: that takes root and mount namespaces")
    if refused != ["proc"]:
        require(can_refuse(), "this kernel takes no seccomp filters")
    name = f"sandbox_{secrets.token_hex(4)}@localhost"
    node_command = ["-m", "pyglyn", "node", "--sname", name, "--cookie", "c", "--app", f"{__name__}:app"]
    with (tmp_path / "log").open("wb") as log:
        node = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.supervision.sandbox", *refused, "--", sys.executable, *node_command,
            cwd=ROOT, env={**os.environ, FOLDER: str(tmp_path)},
            stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        )  # fmt: skip
    said = (tmp_path / "log").read_text
    try:
        first: dict[str, int] = {}
        for kind in KINDS:
            first[kind] = await eventually(lambda kind=kind: os_pid_of(kind, tmp_path), timeout=60.0)
        await eventually(lambda: "registered as" in said(), timeout=60.0)
        for os_pid in first.values():
            os.kill(os_pid, signal.SIGKILL)
        again = {}
        for kind in KINDS:

            def restarted(kind: str = kind) -> int:
                os_pid = os_pid_of(kind, tmp_path)
                return os_pid if os_pid != first[kind] else 0

            again[kind] = await eventually(restarted, timeout=60.0)
        tree = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "pyglyn", "tree", name, "--cookie", "c", stdout=subprocess.PIPE
        )
        shown, _ = await tree.communicate()
        assert tree.returncode == 0
        assert all(kind in shown.decode() for kind in KINDS)
        node.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(node.wait(), 180) == 0
        for os_pid in again.values():
            await eventually(lambda os_pid=os_pid: not exists(os_pid), timeout=60.0)
        assert "Traceback" not in said()
    except BaseException:
        print(said())  # noqa: T201
        raise
    finally:
        if node.returncode is None:
            node.kill()
            await node.wait()
