"""A node as a program: kill -9 anywhere leaves nothing, and what signals and exit statuses mean."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from pyglyn.supervision.os import kernel
from pyglyn.testing import eventually
from tests.supervision.conftest import ROOT, Start, descendants, gone


def unix_sockets(os_pid: int) -> list[str]:
    """The sockets for workers that an OS process made."""
    lines = Path("/proc/net/unix").read_text().splitlines()
    return [line.split()[-1] for line in lines if f"pyglyn-{os_pid}-" in line]


def title(os_pid: int) -> str:
    """What ``ps`` shows."""
    return Path(f"/proc/{os_pid}/cmdline").read_text().rstrip("\0")


async def test_a_killed_hub_leaves_nothing_one_second_later(program: Start) -> None:
    node = await program("three")
    below = descendants(node.process.pid)
    assert len(below) == 5  # two supervisors, three workers
    node.process.send_signal(signal.SIGKILL)
    await gone(below)
    node.process.wait()


@pytest.mark.parametrize("how", ["kill -9", "second signal"])
async def test_families_of_children_go_with_the_hub_every_time(program: Start, how: str) -> None:
    for _ in range(5):
        node = await program("families")
        below = await eventually(lambda node=node: _five_below(node.process.pid))  # type: ignore[misc]
        if how == "kill -9":
            node.process.send_signal(signal.SIGKILL)
        else:
            node.process.terminate()
            node.process.terminate()
        await gone(below)
        node.process.wait()


def _five_below(os_pid: int) -> set[int]:
    below = descendants(os_pid)
    assert len(below) == 5  # a supervisor, a worker and a program, each with one more
    return below


async def test_a_killed_hub_leaves_no_socket(program: Start) -> None:
    node = await program("three")
    names = unix_sockets(node.process.pid)
    assert names
    below = descendants(node.process.pid)
    node.process.send_signal(signal.SIGKILL)
    await gone(below)
    node.process.wait()
    for name in names:
        with socket.socket(socket.AF_UNIX) as client, pytest.raises(ConnectionRefusedError):
            client.connect("\0" + name.removeprefix("@"))


@pytest.mark.parametrize("name", ["below", "top", "c", "a"])
async def test_a_killed_supervisor_or_worker_leaves_nothing_and_comes_back(program: Start, name: str) -> None:
    node = await program("three")
    victim = await node.os_pid(name)
    others = {victim, *descendants(victim)}
    os.kill(victim, signal.SIGKILL)
    await gone(others)
    if name == "top":
        assert await node.wait() == 1
        return
    await eventually(lambda: len(descendants(node.process.pid)) == 5, 5.0)

    async def back() -> bool:
        return await node.os_pid(name) != victim

    await eventually(back)


async def test_sigterm_stops_the_tree_in_reverse_order_and_exits_with_0(program: Start) -> None:
    node = await program("three")
    below = descendants(node.process.pid)
    node.process.terminate()
    assert await node.wait() == 0
    text = node.text()
    assert sorted("cbelow.b.a.top".replace("cbelow", "c.below").split("."), key=lambda n: text.index(f" {n} ended")) == [
        "c", "below", "b", "a", "top",
    ]  # fmt: skip
    assert text.count("ended (") == 5
    assert not [pid for pid in below if kernel.os_stat(pid)]


async def test_the_exit_status_says_that_something_had_to_be_killed(program: Start) -> None:
    node = await program("with_stubborn")
    node.process.terminate()
    assert await node.wait() == 3
    assert "s did not stop in time" in node.text()


async def test_a_closed_terminal_stops_the_tree_in_order(program: Start) -> None:
    node = await program("three")
    node.process.send_signal(signal.SIGHUP)
    assert await node.wait() == 0
    assert node.text().count("ended (") == 5


async def test_interrupting_the_terminal_stops_the_tree_in_order(program: Start) -> None:
    node = await program("three")
    os.killpg(node.process.pid, signal.SIGINT)  # what Ctrl-C does: the whole foreground group
    assert await node.wait() == 0
    text = node.text()
    assert text.count("shutdown") >= 5
    assert "signal" not in text.replace("SIGINT", "")


async def test_sigterm_gives_up_a_start_that_hangs(program: Start) -> None:
    node = await program("hangs", wait=False)
    await node.logged(r"\ba started")
    await eventually(lambda: len(descendants(node.process.pid)) == 4)
    below = descendants(node.process.pid)
    node.process.terminate()
    await node.wait(5.0)
    await gone(below)


async def test_a_second_signal_ends_the_node_at_once_and_nothing_is_left(program: Start) -> None:
    node = await program("with_stubborn")
    below = descendants(node.process.pid)
    node.process.terminate()
    await node.logged("SIGTERM: stopping")
    node.process.terminate()
    assert await node.wait() in (128 + signal.SIGTERM, 3)
    await gone(below)


async def test_a_tree_that_gives_up_ends_the_node_with_1(program: Start) -> None:
    node = await program("gives_up")
    for _ in range(2):
        victim = await node.os_pid("a")
        count = node.text().count(" a started")
        os.kill(victim, signal.SIGKILL)
        await eventually(
            lambda count=count: node.text().count(" a started") > count or node.process.poll(), 5.0
        )  # type: ignore[misc]
    assert await node.wait() == 1
    assert "gives up" in node.text()


async def test_a_tree_that_does_not_start_ends_the_node_with_1(program: Start) -> None:
    node = await program("does_not_start", wait=False)
    assert await node.wait() == 1
    assert "not today" in node.text()


async def test_an_app_that_returns_something_else_is_refused(program: Start) -> None:
    node = await program("a_list", wait=False)
    assert await node.wait() == 1
    assert "the function given to --app returned a list; it returns a Supervisor" in node.text()


UNGUARDED = """
import asyncio
from pyglyn import Node
from pyglyn.supervision import Supervisor, start, worker

async def wait(me):
    await me.receive()

async def main():
    async with Node("unguarded@localhost", cookie="pyglyn_testing") as node:
        await start(node, Supervisor(start="spawn").add(worker(wait)))

asyncio.run(main())
"""


def test_a_main_module_that_starts_a_node_when_it_is_imported_is_told_how_not_to(
    epmd: object, tmp_path: Path
) -> None:
    script = tmp_path / "unguarded.py"
    script.write_text(UNGUARDED)
    done = subprocess.run(
        [sys.executable, script], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert 'put the start below `if __name__ == "__main__":`' in done.stderr


async def test_titles_tell_node_name_and_role(program: Start) -> None:
    node = await program("three")
    os_pids = descendants(node.process.pid)
    titles = set(map(title, os_pids))
    roles = {"top": "supervisor", "below": "supervisor", "a": "worker", "b": "worker", "c": "worker"}
    assert titles == {f"pyglyn {node.name} {name} {role}" for name, role in roles.items()}
