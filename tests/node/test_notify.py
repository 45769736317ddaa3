"""What a node tells systemd, and writes into its heartbeat file, while it starts, runs, hangs and stops."""

from __future__ import annotations

import os
import secrets
import signal
import socket
from pathlib import Path

import pytest

from pyglyn.node.notify import Heartbeat, ServiceManager
from pyglyn.testing import eventually
from tests.cli.test_cli import pyglyn

APP = """
import asyncio, os, time

async def app(node):
    assert "NOTIFY_SOCKET" not in os.environ  # children would speak in the node's name
    while not os.path.exists("go"):
        await asyncio.sleep(0.01)

async def stuck(node):
    while not os.path.exists("go"):
        await asyncio.sleep(0.01)
    while os.path.exists("go"):
        time.sleep(0.01)
"""


class Systemd:
    """The socket at which systemd listens, with what has come there."""

    def __init__(self, path: str) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.bind(path)
        self.sock.setblocking(False)
        self.told: list[str] = []

    def heard(self, text: str) -> bool:
        try:
            while True:
                self.told.append(self.sock.recv(4096).decode())
        except BlockingIOError:
            return text in self.told


@pytest.fixture(params=["path", "abstract"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path):
    where = str(tmp_path / "notify") if request.param == "path" else f"\0pyglyn-{secrets.token_hex(8)}"
    manager = Systemd(where)
    manager.address = where.replace("\0", "@")
    yield manager
    manager.sock.close()


def started(tmp_path: Path, app: str, *args: str, **env: str):
    (tmp_path / "life.py").write_text(APP)
    name = f"life_{secrets.token_hex(4)}@localhost"
    words = ("node", "--sname", name, "--cookie", "c", "--app", f"life:{app}", *args)
    return pyglyn(*words, cwd=tmp_path, env=env)


async def test_systemd_hears_that_a_node_is_ready_and_that_it_stops(systemd, tmp_path):
    async with started(tmp_path, "app", NOTIFY_SOCKET=systemd.address) as node:
        await node.says("listens on")
        assert not systemd.heard("READY=1")
        (tmp_path / "go").touch()
        await eventually(lambda: systemd.heard("READY=1"), timeout=20)
        node.process.send_signal(signal.SIGTERM)
        assert await node.ends() == 0
        assert systemd.heard("STOPPING=1")
        assert systemd.told == ["READY=1", "STOPPING=1"]


async def test_the_watchdog_hears_nothing_from_an_event_loop_that_is_stuck(tmp_path):
    systemd = Systemd(str(tmp_path / "notify"))
    env = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "40000"}
    async with started(tmp_path, "stuck", **env) as node:
        await eventually(lambda: systemd.heard("WATCHDOG=1"), timeout=20)
        (tmp_path / "go").touch()

        def silent() -> bool:
            before = len(systemd.told)
            systemd.heard("")
            return len(systemd.told) == before

        await eventually(lambda: silent(), timeout=20)
        (tmp_path / "go").unlink()
        systemd.told.clear()
        await eventually(lambda: systemd.heard("WATCHDOG=1"), timeout=20)
        node.process.kill()
    systemd.sock.close()


@pytest.mark.parametrize(
    ("variables", "watchdog_s"),
    [
        ({"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "3000000"}, 1.5),
        ({"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"}, None),
        ({"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getpid())}, 1.5),
        ({"WATCHDOG_USEC": "3000000"}, None),
        ({"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "soon"}, None),
        ({}, None),
    ],
)
def test_the_watchdog_is_for_the_os_process_that_it_names(monkeypatch, variables, watchdog_s) -> None:
    for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"):
        monkeypatch.delenv(name, raising=False)
    for name, text in variables.items():
        monkeypatch.setenv(name, text)
    assert ServiceManager().watchdog_s == watchdog_s
    assert not {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"} & os.environ.keys()


def test_a_service_manager_that_is_gone_costs_a_line_in_the_log(monkeypatch, caplog) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", "/nowhere/notify")
    ServiceManager().tell("READY=1\nSTATUS=x")
    assert caplog.messages == ["cannot tell the service manager READY=1: [Errno 2] No such file or directory"]


async def test_the_heartbeat_file_says_what_the_node_does(tmp_path, monkeypatch):
    file = tmp_path / "beat"

    def holds(text: str) -> bool:
        return file.exists() and file.read_text() == text

    async with started(tmp_path, "app", "--heartbeat-file", str(file)) as node:
        await eventually(lambda: holds("starting\n"), timeout=20)
        (tmp_path / "go").touch()
        await eventually(lambda: holds("ready\n"), timeout=20)
        os.utime(file, (0, 0))
        await eventually(lambda: file.stat().st_mtime > 0, timeout=20)
        node.process.send_signal(signal.SIGTERM)
        assert await node.ends() == 0
        assert not file.exists()


def test_who_reads_the_heartbeat_file_finds_a_whole_one(tmp_path: Path) -> None:
    file = tmp_path / "beat"
    heartbeat = Heartbeat(str(file))
    heartbeat.write("starting")
    with file.open() as reader:
        heartbeat.write("ready")
        assert (reader.read(), file.read_text()) == ("starting\n", "ready\n")
    heartbeat.remove()
    assert not list(tmp_path.iterdir())


async def test_a_heartbeat_file_that_cannot_be_written_is_said_once(tmp_path):
    async with started(tmp_path, "app", "--heartbeat-file", "/nowhere/beat") as node:
        (tmp_path / "go").touch()
        await node.says("cannot write the heartbeat file")
        node.process.send_signal(signal.SIGTERM)
        assert await node.ends() == 0
        assert node.output.count("cannot write the heartbeat file") == 1
