"""The log: what a line says, that nothing a peer sends breaks it, that nobody waits for its reader."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO, TypeAlias

import pytest

from pyglyn import logs
from pyglyn.logs import MOST_QUEUED, JsonFormatter, LogHandler, LogSettings, TextFormatter
from pyglyn.testing import eventually

MakeHandler: TypeAlias = Callable[[int], LogHandler]


pytestmark = pytest.mark.usefixtures("own_logging")


def record(message: str, *args: object, level: int = logging.INFO, name: str = "shop") -> logging.LogRecord:
    made = logging.LogRecord(name, level, __file__, 1, message, args, None)
    made.node, made.worker = "inventory@localhost", "stock"
    return made


def test_a_line_says_when_how_bad_who_and_in_which_worker() -> None:
    line = TextFormatter().format(record("sold %d", 3))
    date, time, rest = line.split(" ", 2)
    assert (len(date), len(time)) == (10, 12)
    assert rest == f"INFO    shop [stock {os.getpid()}]: sold 3"


def test_what_a_peer_sends_writes_no_line_of_its_own_and_no_escape_sequence() -> None:
    hostile = "x\nFAKE INFO all is well\r\x1b[2J\x9b2J\u2028end"
    [head, second] = TextFormatter().format(record("a node %s", hostile)).split("\n")
    assert head.endswith("a node x")
    assert second == "    FAKE INFO all is well\\x0d\\x1b[2J\\x9b2J\\u2028end"
    assert logs.escaped(hostile) == "x\\nFAKE INFO all is well\\x0d\\x1b[2J\\x9b2J\\u2028end"
    [only] = JsonFormatter().format(record("a node %s", hostile)).split("\n")
    assert json.loads(only)["message"] == f"a node {hostile}"
    assert only.isprintable()


def test_json_has_everything_in_fields() -> None:
    try:
        raise ValueError("no stock")
    except ValueError:
        made = record("failed", level=logging.ERROR)
        made.exc_info = sys.exc_info()
    made.order = "o1"
    content = json.loads(JsonFormatter().format(made))
    assert content.pop("time").endswith("+00:00")
    assert "ValueError: no stock" in content.pop("exception")
    assert content == {
        "level": "error",
        "logger": "shop",
        "message": "failed",
        "node": "inventory@localhost",
        "worker": "stock",
        "pid": os.getpid(),
        "extra": {"order": "o1"},
    }


@pytest.fixture
def handler_for() -> Iterator[MakeHandler]:
    """Make handlers that write to a descriptor, which is closed in the end."""
    made: list[tuple[LogHandler, TextIO]] = []

    def make(fd: int) -> LogHandler:
        stream = os.fdopen(fd, "w")
        handler = LogHandler(stream)
        handler.setFormatter(logging.Formatter("%(message)s"))
        made.append((handler, stream))
        return handler

    yield make
    for handler, stream in made:
        handler.close()
        stream.close()


async def test_a_pipe_that_nobody_reads_holds_up_nobody_and_what_was_dropped_is_said(
    handler_for: MakeHandler,
) -> None:
    reading, writing = os.pipe()
    handler = handler_for(writing)
    text = "x" * 999
    lines = 2 * (MOST_QUEUED + (1 << 16)) // 1000
    for _ in range(lines):
        handler.handle(record(text))
    assert 0 < handler.dropped < lines
    os.set_blocking(reading, False)
    seen = bytearray()

    def everything() -> bool:
        try:
            seen.extend(os.read(reading, 1 << 16))
        except BlockingIOError:
            return False
        return b"dropped" in seen

    await eventually(everything)
    written = seen.decode().splitlines()
    assert written[:-1] == [text] * (lines - handler.dropped)
    assert written[-1] == f"{handler.dropped} lines of this log were dropped: nobody read it"
    handler.handle(record("again"))
    assert os.read(reading, 100) == b"again\n"
    assert os.get_blocking(writing), "the flag would be everybody's who has this pipe"
    os.close(reading)


def test_without_a_loop_what_waits_goes_out_with_the_next_line(
    handler_for: MakeHandler,
) -> None:
    reading, writing = os.pipe()
    handler = handler_for(writing)
    for number in range(200):
        handler.handle(record(f"{number:03} " + "x" * 995))
    seen = b""
    for _ in range(4):  # a pipe takes 64 KiB
        seen += os.read(reading, 1 << 20)
        handler.handle(record("the last"))
    numbers = [line.split()[0] for line in seen.decode().splitlines()]
    assert numbers[:201] == [f"{number:03}" for number in range(200)] + ["the"]
    os.close(reading)


def test_a_socket_that_nobody_reads_holds_up_nobody(
    handler_for: MakeHandler,
) -> None:
    ours, theirs = socket.socketpair()
    handler = handler_for(theirs.detach())
    for _ in range(3000):
        handler.handle(record("x" * 999))
    assert handler.dropped > 0
    assert ours.recv(5) == b"xxxxx"
    ours.close()
    handler.handle(record("nobody is there"))
    handler.close()


@pytest.mark.parametrize("stream", [None, io.StringIO(), sys.__stdin__])
def test_a_stream_that_cannot_be_written_to_is_no_error(stream: object) -> None:
    handler = LogHandler(stream)
    handler.setFormatter(logging.Formatter("%(message)s"))
    handler.handle(record("lost"))
    handler.close()


def test_a_reader_that_has_gone_is_no_error(
    handler_for: MakeHandler,
) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    handler = handler_for(writing)
    handler.handle(record("lost"))
    handler.handle(record("lost too"))
    handler.close()


def run(program: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True, **options
    )  # type: ignore[call-overload, no-any-return]


def test_an_application_that_calls_basic_config_sees_each_line_once() -> None:
    done = run(
        "import logging, pyglyn.logs as logs\n"
        "logs.set_up(logs.LogSettings(), node='n@h')\n"
        "logging.basicConfig(level='DEBUG')\n"
        "logging.getLogger('shop').info('one')\n"
        "logging.getLogger('pyglyn.node').warning('two')\n"
        "logs.set_level('error'); logging.getLogger('shop').warning('three')\n"
    )
    assert [line.split(" ", 2)[2] for line in done.stderr.splitlines()] == [
        "INFO    shop: one",
        "WARNING pyglyn.node: two",
    ]


def test_a_fork_writes_its_own_lines_and_none_of_its_parents_that_wait() -> None:
    done = run(
        "import logging, os, sys, pyglyn.logs as logs\n"
        "logs.set_up(logs.LogSettings(format='json'), node='n@h')\n"
        "log = logging.getLogger('shop'); log.info('before')\n"
        "handler = logging.getLogger().handlers[0]\n"
        "handler._put(b'waits\\n')\n"
        "if os.fork() == 0:\n"
        "    logs.continue_in_child(logs.carried(), node='n@h', worker='stock')\n"
        "    log.info('child'); os._exit(0)\n"
        "os.wait(); log.info('after')\n"
    )
    lines = done.stderr.splitlines()
    assert lines.count("waits") == 1
    seen = [json.loads(line) for line in lines if line != "waits"]
    assert [(each["message"], each["worker"]) for each in seen] == [
        ("before", ""),
        ("child", "stock"),
        ("after", ""),
    ]


def test_a_configuration_of_ones_own_knows_node_and_worker(tmp_path: Path) -> None:
    file = tmp_path / "logging.toml"
    file.write_text(
        '[formatters.f]\nformat = "%(node)s|%(worker)s|%(name)s|%(message)s"\n'
        '[handlers.h]\nclass = "logging.FileHandler"\nformatter = "f"\n'
        f'filename = "{tmp_path}/log"\n[root]\nhandlers = ["h"]\nlevel = "INFO"\n'
    )
    logs.set_up(LogSettings(config=logs.load_config(file)), node="n@h", worker="stock")
    logging.getLogger("shop").info("sold")
    logging.getLogger().handlers[-1].close()
    assert (tmp_path / "log").read_text() == "n@h|stock|shop|sold\n"


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("missing.json", None, "No such file"),
        ("broken.json", "{", "Expecting property name"),
        ("list.json", "[]", "is a table, not a list"),
        ("broken.toml", "x", "after a key"),
    ],
)
def test_a_configuration_that_is_none_is_refused_with_the_reason(
    tmp_path: Path, name: str, content: str | None, said: str
) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=said):
        logs.load_config(tmp_path / name)


def test_levels_are_checked() -> None:
    with pytest.raises(ValueError, match="'loud' is no log level: one of debug, info"):
        logs.set_level("loud")
    with pytest.raises(ValueError, match="level"):
        LogSettings(level="loud")


def test_a_terminal_sees_colours_unless_it_does_not_want_them(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "\x1b[33mWARNING\x1b[0m" in TextFormatter(True).format(record("x", level=logging.WARNING))
    main, terminal = os.openpty()
    monkeypatch.delenv("NO_COLOR", raising=False)
    stream = os.fdopen(terminal, "w")
    handler = LogHandler(stream)
    assert handler.coloured
    handler.setFormatter(logging.Formatter("%(message)s"))
    handler.handle(record("seen"))
    assert os.read(main, 100) == b"seen\r\n"
    handler.close()
    monkeypatch.setenv("NO_COLOR", "1")
    assert not LogHandler(stream).coloured
    os.close(main)
    stream.close()


async def test_lines_of_other_threads_come_too(
    handler_for: MakeHandler,
) -> None:
    reading, writing = os.pipe()
    handler = handler_for(writing)
    await asyncio.to_thread(handler.handle, record("from a thread"))
    assert os.read(reading, 100) == b"from a thread\n"
    os.close(reading)
