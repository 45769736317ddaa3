"""Making an OS process, by fork or as a fresh interpreter; ending with all below.

Layer: supervision/os.

`pyglyn.supervision.os.processes` decides when and looks after what was made.
"""

from __future__ import annotations

import contextlib
import errno
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from typing import Any, Final, NoReturn

from pyglyn import _standard
from pyglyn.supervision.os import kernel
from pyglyn.supervision.os.child import EXIT_PARENT_GONE, ChildSide, Main, run_forked

CLEANUP_S: Final = 0.8
"""How long an OS process whose parent died tries to clean up below it before it ends anyway."""

_HANDLED = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGCHLD,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGALRM,
    kernel.PARENT_DIED,
)
"""Signals that programs handle: they wait while a fork is under way."""


def flush_streams() -> None:
    """Write out what is buffered, else the child writes it a second time."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()


def fork(main: Main, side: ChildSide) -> int:
    """Fork; signals are blocked until the child has its own handling of them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _HANDLED)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # threads: checked already
            os_pid = os.fork()
        if os_pid == 0:
            run_forked(main, side)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return os_pid


@contextlib.contextmanager
def payload(content: bytes) -> Any:
    """A file with the search path and the pickled message for a fresh interpreter, in memory if that goes."""
    with _unnamed_file() as file:
        file.write(pickle.dumps(sys.path))
        file.write(content)
        file.flush()
        file.seek(0)
        yield file


def _unnamed_file() -> Any:
    try:
        return os.fdopen(os.memfd_create("pyglyn-spawn"), "w+b")
    except AttributeError:  # not Linux
        pass
    except OSError as error:  # refused by a sandbox; without a descriptor left a file does not help either
        if error.errno in (errno.EMFILE, errno.ENFILE):
            raise
    return tempfile.TemporaryFile()


_BOOTSTRAP = """\
import sys, pickle
payload = open({fd}, "rb")
sys.path[:] = pickle.load(payload)
from pyglyn.supervision.os.child import run_spawned
run_spawned(payload)
"""


def spawn(file: Any, inherited: list[int]) -> int:
    fd = file.fileno()
    flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    program = _BOOTSTRAP.format(fd=fd)
    actions: list[tuple[Any, ...]] = [(os.POSIX_SPAWN_DUP2, each, each) for each in (*inherited, fd)]
    for number in range(3):
        if _standard.is_stream(number):
            actions.append((os.POSIX_SPAWN_DUP2, number, number))
        else:
            actions.append((os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_RDWR, 0))
    return os.posix_spawn(
        sys.executable,
        [sys.executable, *flags, "-c", program],
        os.environ,
        file_actions=actions,
        setsid=True,
        setsigmask=(),
    )


def kill_group(os_pid: int) -> None:
    """Kill a process group, if there is one."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(os_pid, signal.SIGKILL)


def end_with_all_below() -> NoReturn:
    """Kill everything below this OS process, then end it: its parent, or its hub, is gone."""
    deadline = time.monotonic() + CLEANUP_S
    with contextlib.suppress(BaseException):
        while time.monotonic() < deadline:
            late = time.monotonic() > deadline - CLEANUP_S / 2
            for os_pid in kernel.os_children():
                if late or not kernel.is_resource_tracker(os_pid):
                    kill_group(os_pid)
                    with contextlib.suppress(OSError):
                        os.kill(os_pid, signal.SIGKILL)
            try:
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
            except ChildProcessError:
                break
            time.sleep(0.002)
    os._exit(EXIT_PARENT_GONE)


def parent_died(number: int, frame: object) -> None:
    """A signal handler, so that it works in a busy loop too."""
    end_with_all_below()
