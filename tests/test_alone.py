"""The quick subset is what it says: nothing in it starts an OS process or makes a connection."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Callable

import pytest

from tests.alone import ALONE, TESTS, NotAlone, kept_alone

# The fixture that keeps tests alone must not be armed around those that try it.
trying = pytest.mark.beside


def test_the_table_names_only_what_is_there() -> None:
    assert not [entry for entry in sorted(ALONE) if not (TESTS / entry).exists()]


def _listen() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))


def _connect() -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect("\0nobody listens here")


async def _start() -> None:
    await asyncio.create_subprocess_exec(sys.executable, "-c", "")


@trying
@pytest.mark.parametrize(
    "reach",
    [
        lambda: subprocess.run([sys.executable, "-c", ""], check=True),
        lambda: os.system("true"),
        lambda: os.posix_spawn("/bin/true", ["true"], {}),
        lambda: asyncio.run(_start()),
        _listen,
        _connect,
    ],
)
def test_what_reaches_out_is_refused(reach: Callable[[], object]) -> None:
    with pytest.raises(NotAlone), kept_alone():
        reach()


@trying
def test_what_reaches_out_and_hides_it_is_found() -> None:
    with pytest.raises(NotAlone, match=r"does os\.fork"), kept_alone(), contextlib.suppress(NotAlone):
        os.fork()


@trying
def test_files_threads_and_an_event_loop_of_ones_own_are_allowed() -> None:
    with kept_alone():
        asyncio.run(asyncio.to_thread(os.getcwd))
