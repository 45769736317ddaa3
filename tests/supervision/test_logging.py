"""The log of a node's OS processes: each line once, from every logger, with the worker it came from."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import IO, Any

import pytest

from pyglyn import Atom, Node, Term
from pyglyn.errors import RemoteException
from pyglyn.testing import Beam, eventually
from tests.node.conftest import unique_name
from tests.supervision.conftest import descendants, running

SET_UPS = {
    "none": "",
    "basicConfig": "logging.basicConfig(level='DEBUG', format='APP %(name)s %(message)s')",
    "forced": "logging.basicConfig(level='INFO', format='APP %(name)s %(message)s', force=True)",
    "dictConfig": (
        "import logging.config\n"
        "logging.config.dictConfig({'version': 1, 'disable_existing_loggers': False,\n"
        "    'formatters': {'f': {'format': 'APP %(name)s %(message)s'}},\n"
        "    'handlers': {'h': {'class': 'logging.StreamHandler', 'formatter': 'f'}},\n"
        "    'root': {'handlers': ['h'], 'level': 'INFO'}})"
    ),
}
"""What an application's module does about logging when it is imported."""

APP = """
import logging
from pyglyn import Node, Process
from pyglyn.supervision import Supervisor, worker
{set_up}
log = logging.getLogger("shop")

async def child(me: Process) -> None:
    log.info("info of %s", me.names[0] if me.names else "light")
    log.warning("warning of %s", me.names[0] if me.names else "light")
    while True:
        log.debug("debug of %s", me.names[0] if me.names else "light")
        await me.receive()

def app(node: Node) -> Supervisor:
    log.info("info of app")
    return (
        Supervisor()
        .add(worker(child, name="forked"))
        .add(worker(child, name="fresh", start="spawn"))
        .add(worker(child, name="light", isolation="task"))
    )
"""


def read_all(stream: IO[bytes], into: list[str]) -> None:
    into.extend(line.decode().rstrip("\n") for line in stream)


def start(folder: Path, app: str, out: int, *options: str) -> tuple[str, subprocess.Popen[bytes]]:
    """Start a node whose log goes to ``out``; returns its name and its OS process."""
    name = unique_name("log")
    command = [sys.executable, "-m", "pyglyn", "node", "--sname", name, "--cookie", "x", "--app", app]
    return name, subprocess.Popen(
        [*command, *options],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL if out == subprocess.PIPE else out,
        stderr=out,
        start_new_session=True,
    )


def ping(name: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "pyglyn", "ping", name, "--cookie", "x"]
    return subprocess.run(command, capture_output=True, timeout=60, check=False)


@contextlib.asynccontextmanager
async def logging_node(tmp_path: Path, set_up: str, *options: str) -> AsyncIterator[tuple[str, list[str]]]:
    """Run a node with such an app; gives its name and its log, once every child has written."""
    (tmp_path / "logging_app.py").write_text(APP.format(set_up=set_up))
    name, node = start(tmp_path, "logging_app:app", subprocess.PIPE, *options)
    assert node.stderr is not None
    lines: list[str] = []
    reader = threading.Thread(target=read_all, args=(node.stderr, lines))
    reader.start()
    try:
        wanted = ["warning of forked", "warning of fresh", "warning of light"]
        await eventually(lambda: all(any(text in line for line in lines) for text in wanted), 30.0)
        yield name, lines
    finally:
        node.send_signal(signal.SIGTERM)
        await asyncio.to_thread(node.wait, 30)
        reader.join(30)
        node.stderr.close()


async def lines_of(tmp_path: Path, set_up: str, *options: str) -> list[str]:
    """Run a node with such an app until every child has written, and stop it; returns what the app logged."""
    async with logging_node(tmp_path, set_up, *options) as (_, lines):
        pass
    return [line for line in lines if "shop" in line]


@pytest.mark.parametrize("format", ["text", "json"])
@pytest.mark.parametrize("set_up", ["none", "basicConfig"])
async def test_every_line_comes_once_with_its_worker(
    epmd: Any, tmp_path: Path, set_up: str, format: str
) -> None:
    lines = await lines_of(tmp_path, SET_UPS[set_up], "--log-format", format)
    if format == "json":
        rows = [json.loads(line) for line in lines]
        seen = [(row["message"], row["level"], row["worker"]) for row in rows]
        assert all(row["node"].startswith("log_") and row["pid"] > 1 for row in rows)
    else:
        pattern = re.compile(r"\S+ \S+ (\w+) +shop(?: \[(\S+) \d+\])?: (.*)")
        matches = [pattern.fullmatch(line) for line in lines]
        assert all(matches), lines
        seen = [(m[3], m[1].lower(), m[2] or "") for m in matches if m]
    children = ["forked", "fresh", "light"]
    assert sorted(seen) == sorted(
        [
            ("info of app", "info", ""),
            *((f"info of {name}", "info", "tree_1" if name == "light" else name) for name in children),
            *((f"warning of {name}", "warning", "tree_1" if name == "light" else name) for name in children),
        ]
    )


@pytest.mark.parametrize("set_up", ["forced", "dictConfig"])
async def test_an_application_that_logs_in_its_own_way_does_so_everywhere(
    epmd: Any, tmp_path: Path, set_up: str
) -> None:
    lines = await lines_of(tmp_path, SET_UPS[set_up])
    children = ["forked", "fresh", "light"]
    assert sorted(lines) == sorted(
        [
            "APP shop info of app",
            *(f"APP shop info of {name}" for name in children),
            *(f"APP shop warning of {name}" for name in children),
        ]
    )


async def test_a_configuration_in_a_file_holds_in_every_process(epmd: Any, tmp_path: Path) -> None:
    config = {
        "formatters": {"f": {"format": "%(worker)s %(name)s %(message)s"}},
        "handlers": {"h": {"class": "logging.FileHandler", "filename": "log", "formatter": "f"}},
        "root": {"handlers": ["h", "e"], "level": "INFO"},
    }
    config["handlers"]["e"] = {"class": "logging.StreamHandler", "formatter": "f"}
    (tmp_path / "logging.json").write_text(json.dumps(config))
    lines = await lines_of(tmp_path, "", "--log-config", "logging.json")
    written = [line for line in (tmp_path / "log").read_text().splitlines() if "shop" in line]
    assert sorted(written) == sorted(lines)
    assert "forked shop info of forked" in written
    assert "fresh shop info of fresh" in written


async def test_the_level_changes_in_every_process_while_the_node_runs(
    epmd: Any, tmp_path: Path, beam: Beam
) -> None:
    async with (
        logging_node(tmp_path, "", "--log-level", "warning") as (name, lines),
        Node(unique_name("asks"), cookie="x") as asks,
    ):
        assert not [line for line in lines if "info of" in line]
        process = asks.system

        async def level(*args: Term, module: str = "pyglyn", function: str = "log_level") -> Term:
            return await asks.erpc(name, module, function, list(args), 10.0)

        assert await level() == Atom("warning")
        assert await level(Atom("debug")) == Atom("debug")
        for child in ("forked", "fresh", "light"):
            process.send((child, name), "wake up")
            await eventually(lambda child=child: any(f"debug of {child}" in line for line in lines), 10.0)
        with pytest.raises(RemoteException, match="badarg"):
            await level(Atom("loud"))
        # As OTP's logger is asked and told, with its names of levels.
        config = await level(module="logger", function="get_primary_config")
        theirs = await beam.eval("logger:get_primary_config()")
        assert config == {Atom("level"): Atom("debug")}
        assert config.keys() <= theirs.keys()
        ask = {"module": "logger", "function": "set_primary_config"}
        assert await level(Atom("level"), Atom("notice"), **ask) == Atom("ok")
        assert await level() == Atom("info")


BLOCKED = """
import sys
from pyglyn import Node, Process
from pyglyn.supervision import Supervisor, program, supervisor, worker

async def child(me: Process) -> None:
    await me.receive()

def app(node: Node) -> Supervisor:
    flood = program(["yes", "a line that goes on and on"], name="flood")
    below = supervisor(Supervisor().add(worker(child, name="deep")), name="below")
    return Supervisor(intensity=20).add(worker(child, name="w")).add(flood).add(below)
"""


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
async def test_a_log_that_nobody_reads_stops_nobody_and_keeps_nobody(
    epmd: Any, tmp_path: Path, end: signal.Signals
) -> None:
    (tmp_path / "blocked_app.py").write_text(BLOCKED)
    reading, writing = os.pipe()
    name, node = start(tmp_path, "blocked_app:app", writing, "--log-level", "debug")
    os.close(writing)
    try:
        await eventually(lambda: len(descendants(node.pid)) >= 5, 30.0)  # top, w, yes, below, deep
        answer = await asyncio.to_thread(ping, name)
        assert answer.returncode == 0, answer.stderr
        below = descendants(node.pid)
        node.send_signal(end)
        node.wait(30)
        await eventually(lambda: not [pid for pid in below if running(pid)], 10.0)
    finally:
        node.kill()
        node.wait()
        os.close(reading)


CRASHES = """
from pyglyn import Node, Process
from pyglyn.groups import pg
from pyglyn.supervision import Supervisor, worker

def give_way():
    raise ValueError("on purpose")

async def raising(me: Process) -> None:
    give_way()

def blocking(me) -> None:
    give_way()

async def lonely(me: Process) -> None:
    await pg.join(me, "workers", me.pid)

def app(node: Node) -> Supervisor:
    return Supervisor().add(worker(CHILD, name="child", restart="temporary", OPTIONS))
"""


@pytest.mark.parametrize(
    ("child", "options", "said"),
    [
        ("raising", "", ["crashed: ValueError: on purpose", "in raising", "in give_way"]),
        ("raising", 'start="spawn"', ["crashed: ValueError: on purpose", "in raising", "in give_way"]),
        ("raising", 'isolation="task"', ["crashed: ValueError: on purpose", "in raising", "in give_way"]),
        ("blocking", "", ["crashed: ValueError: on purpose", "in blocking", "in give_way"]),
        ("lonely", "", ["crashed: NoProcess", "call pg.start(node) where the node runs", "in lonely"]),
    ],
)
async def test_a_child_that_crashes_says_what_python_would(
    epmd: Any, tmp_path: Path, child: str, options: str, said: list[str]
) -> None:
    """Its supervisor has the reason only: of an error with an exit reason of OTP's that is a word."""
    (tmp_path / "crashing_app.py").write_text(CRASHES.replace("CHILD", child).replace("OPTIONS", options))
    _, node = start(tmp_path, "crashing_app:app", subprocess.PIPE)
    assert node.stderr is not None
    lines: list[str] = []
    reader = threading.Thread(target=read_all, args=(node.stderr, lines))
    reader.start()
    try:
        await eventually(lambda: any("child ended (" in line for line in lines), 30.0)
        await eventually(lambda: all(any(text in line for line in lines) for text in said), 30.0)
    finally:
        node.send_signal(signal.SIGTERM)
        await asyncio.to_thread(node.wait, 30)
        reader.join(30)
        node.stderr.close()
    assert sum("crashed: " in line for line in lines) == 1
