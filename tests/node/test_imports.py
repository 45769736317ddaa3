"""What starting a node imports: each of these would take a noticeable part of the time, and of the memory."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from pyglyn.testing import PrivateEpmd

FOR_NOBODY_WHO_DOES_NOT_ASK = {
    "cattrs",
    "logging.config",
    "multiprocessing",
    "pyglyn.eventsourcing",
    "pyglyn.gleam",
    "pyglyn.groups",
    "pyglyn.http",
    "pyglyn.node.builtins",
    "pyglyn.node.census",
    "pyglyn.node.tools",
    "pyglyn.supervision",
    "sqlite3",
}
NOT_FOR_A_NODE = FOR_NOBODY_WHO_DOES_NOT_ASK | {
    "click",
    "decimal",
    "importlib.metadata",
    "ipaddress",
    "json",
    "pathlib",
    "pickle",
    "pyglyn.cli",
    "pyglyn.etf.io_lib",
    "pyglyn.etf.text",
    "pyglyn.logs",
    "pyglyn.node.process_info",
    "pyglyn.node.worker",
    "pyglyn.node.worker_questions",
    "rich",
    "setproctitle",
    "tempfile",
    "tomllib",
}


def imported(program: str, *arguments: str, env: dict[str, str] | None = None) -> set[str]:
    """What a program has imported when it is done."""
    told = f"import atexit, sys; atexit.register(lambda: print('\\n' + ' '.join(sys.modules)))\n{program}"
    command = [sys.executable, "-c", told, *arguments]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, **(env or {})}
    )
    assert done.stdout, done.stderr
    return {*done.stdout.splitlines()[-1].split()}


def test_a_node_imports_nothing_that_it_does_not_use() -> None:
    modules = imported("import pyglyn; pyglyn.Node")
    assert "pyglyn.node.node" in modules
    assert not NOT_FOR_A_NODE & modules


def test_nor_does_one_that_runs() -> None:
    program = """
import asyncio, pyglyn, sys
async def main():
    async with pyglyn.Node("imports@localhost", cookie="c") as node, node.process() as me:
        me.send(me.pid, b"hello")
        assert await me.receive() == b"hello"
asyncio.run(main())
"""
    with PrivateEpmd() as epmd:
        modules = imported(program, env=epmd.env)
    assert "pyglyn.node.node" in modules
    assert not NOT_FOR_A_NODE & modules


def test_to_import_the_package_imports_nothing_of_it() -> None:
    ours = {name for name in imported("import pyglyn") if name.startswith("pyglyn.")}
    assert ours == {"pyglyn._version"}


@pytest.mark.parametrize(
    ("arguments", "used", "unused"),
    [
        (["--help"], "rich_click", {"asyncio", "pyglyn.node", "pyglyn.logs", "attrs"}),
        (["ping", "nobody@localhost", "--cookie", "c"], "pyglyn.cli.call", {"rich.table", "tempfile"}),
    ],
)
def test_a_command_imports_what_it_is_about(arguments: list[str], used: str, unused: set[str]) -> None:
    with PrivateEpmd() as epmd:
        modules = imported("from pyglyn.cli import main; main()", *arguments, env=epmd.env)
    assert used in modules
    commands = {name for name in modules if name.startswith("pyglyn.cli.")}
    assert commands <= {
        "pyglyn.cli.call", "pyglyn.cli.configuration", "pyglyn.cli.known", "pyglyn.cli.network",
        "pyglyn.cli.options", "pyglyn.cli.values",
    }  # fmt: skip
    assert not (FOR_NOBODY_WHO_DOES_NOT_ASK | unused) & modules


def test_what_is_imported_late_leaves_the_collector_as_it_was() -> None:
    program = "import gc; {} ; import pyglyn; pyglyn.Node; assert gc.isenabled() is {}"
    assert imported(program.format("gc.enable()", True))
    assert imported(program.format("gc.disable()", False))
