"""The keys of ``pyglyn top``: read from the terminal itself, also where several come at once, up to its end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pty
import re
import sys
import termios

import pytest

from pyglyn import Node
from pyglyn.cli.top import _on_keys
from pyglyn.testing import eventually
from tests.cli.test_cli import run
from tests.node.conftest import unique_name


@pytest.mark.parametrize(
    ("keys", "chosen"),
    [(b"m", "memory"), (b"mb", "mailbox"), (b"x", "cpu"), (b"mq", "quit"), (b"qm", "quit"), (b"\xff", "cpu")],
)
def test_keys_that_come_together_all_count(keys: bytes, chosen: str) -> None:
    reader, writer = os.pipe()
    try:
        os.write(writer, keys)
        sort, pressed = ["cpu"], asyncio.Event()
        _on_keys(reader, sort, pressed)
        assert (sort, pressed.is_set()) == ([chosen], True)
    finally:
        os.close(reader)
        os.close(writer)


def test_the_end_of_the_keys_is_the_end() -> None:
    reader, writer = os.pipe()
    os.close(writer)
    sort = ["cpu"]
    _on_keys(reader, sort, asyncio.Event())
    os.close(reader)
    assert sort == ["quit"]


class Terminal:
    """A terminal with ``pyglyn top`` on it."""

    def __init__(self, ours: int) -> None:
        self.ours = ours
        self.shown = ""

    async def watch(self) -> None:
        with contextlib.suppress(OSError):  # the end of a terminal
            while data := await asyncio.to_thread(os.read, self.ours, 65536):
                self.shown += data.decode(errors="replace")

    async def shows(self, text: str) -> None:
        """Wait until it has shown something, in whatever colours and lines."""

        def is_shown() -> bool:
            plain = " ".join(re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.shown).split())
            assert text in plain, self.shown[-2000:]
            return True

        await eventually(is_shown, 30)


@pytest.mark.parametrize("columns", [60, 160])
async def test_keys_sort_at_once_and_q_ends_it(epmd, columns: int) -> None:
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (40, columns))
    environment = {key: value for key, value in os.environ.items() if key not in {"COLUMNS", "LINES"}}
    async with Node(unique_name(), cookie="c") as node:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "pyglyn", "top", node.name, "--cookie", "c", "--interval", "600",
            env={**environment, "TERM": "xterm"}, stdin=theirs, stdout=theirs, stderr=theirs,
        )  # fmt: skip
        os.close(theirs)
        terminal = Terminal(ours)
        watching = asyncio.create_task(terminal.watch())
        try:
            await terminal.shows("by cpu")
            os.write(ours, b"bm")  # both in one piece: an interval is longer than this test
            await terminal.shows("by memory")
            os.write(ours, b"q")
            assert await asyncio.wait_for(process.wait(), 60) == 0, terminal.shown[-500:]
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()
            await watching
            os.close(ours)


@pytest.mark.parametrize("command", ["top", "tree"])
@pytest.mark.parametrize("interval", ["0", "-1", "nan"])
async def test_looking_without_a_pause_is_refused(command: str, interval: str) -> None:
    status, output = await run(command, "a@localhost", "--interval", interval)
    assert (status, "--interval" in output) == (2, True), output
