"""The first steps of a new OS process, before it runs what it was made for. Layer: supervision/os.

However it was made (`pyglyn.supervision.os.processes`), it gets: a session of its own, so that Ctrl-C at a
terminal does not reach it and its process group can be killed as a whole; default signals; no pipe or socket
but those handed down (of a fork, files and terminals stay open: a log file, say); no trace of its parent's
event loop; the order to die with its parent.

It is also made the new parent of its own orphans. So nothing below it can escape upward while it lives, and
when it dies, whatever its own parent then inherits came from it and can be killed.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import contextvars
import gc
import os
import pickle
import signal
import sys
import traceback
from collections.abc import Callable, Mapping
from typing import BinaryIO, Final, NoReturn

import attrs

from pyglyn.supervision.os import kernel
from pyglyn.supervision.os.descriptors import close_descriptors, detach_descriptors
from pyglyn.supervision.os.main_module import become_main

TREE_VARIABLE: Final = "PYGLYN_TREE"
"""Names, in the environment, the tree that an OS process and all it starts belong to."""

CHILD_VARIABLE: Final = "PYGLYN_CHILD"
"""Names, in the environment, the child that an OS process and all it starts belong to."""

EXIT_PARENT_GONE: Final = 70
"""The exit status of a new OS process whose parent died before it had begun."""

_MOST_DESCRIPTORS = 1 << 20
"""Linux's default for fs.nr_open, the highest limit a process can have."""

_DESCRIPTORS = "/proc/self/fd" if kernel.LINUX else "/dev/fd"
_NO_HANDLER = {signal.SIGKILL, signal.SIGSTOP}
_MAIN = "__main__"
_SPAWNED_MAIN = "__pyglyn_main__"


@attrs.frozen(kw_only=True)
class ChildSide:
    """What a new OS process knows about itself.

    Attributes:
        parent_os_pid: who made it.
        title: what ``ps`` shows.
        tree: the tree it belongs to.
        token: names it, and what it starts, for its parent.
        lifeline: a descriptor that reads as ended when the parent is gone.
        fds: further descriptors handed down, by name.
    """

    parent_os_pid: int
    title: str
    tree: str
    token: str
    lifeline: int
    fds: Mapping[str, int] = attrs.field(factory=dict)

    def die_with_parent(self) -> None:
        """Have the running event loop end this OS process with its parent, where the kernel does not."""
        asyncio.get_running_loop().add_reader(self.lifeline, os._exit, EXIT_PARENT_GONE)


Main = Callable[[ChildSide], object]
"""What an OS process runs. An integer it returns is the exit status; anything else is 0."""


def run_forked(main: Main, side: ChildSide) -> NoReturn:
    """Go on as the child of a fork: run ``main`` and end. Signals that programs handle are blocked now."""
    status = 1
    try:
        atexit._clear()  # the parent's
        gc.freeze()  # what the parent left is never collected: its objects would close descriptors of ours
        _forget_event_loop()
        begin(side, detach_descriptors)
        status = contextvars.Context().run(_run, main, side)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def run_spawned(payload: BinaryIO) -> NoReturn:
    """Go on as a fresh interpreter: read what to run from ``payload``, run it and end."""
    status = 1
    try:
        side, main, pickled = pickle.load(payload)
        payload.close()
        begin(side, close_descriptors)
        become_main(main)
        status = _run(pickle.loads(pickled), side)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def _run(main: Main, side: ChildSide) -> int:
    status: object = 1
    try:
        status = main(side)
    except SystemExit as error:
        status = error.code
    except BaseException:
        traceback.print_exc()
        status = 1
    with contextlib.suppress(Exception):
        atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    if status is None:
        return 0
    if isinstance(status, int) and not isinstance(status, bool):
        return status & 0xFF
    return 1 if isinstance(status, str) else 0


def begin(side: ChildSide, let_go: Callable[[set[int]], None]) -> None:
    """Take the first steps, see the module's text.

    Args:
        let_go: does away with all descriptors but the given ones.
    """
    with contextlib.suppress(PermissionError):  # a spawned one has its session already
        os.setsid()
    reset_signals()
    kernel.set_parent_death_signal(signal.SIGKILL)
    if os.getppid() != side.parent_os_pid:  # it died before the line above
        os._exit(EXIT_PARENT_GONE)
    let_go({0, 1, 2, side.lifeline, *side.fds.values()})
    for fd in (side.lifeline, *side.fds.values()):
        os.set_inheritable(fd, False)
    os.environ[TREE_VARIABLE] = side.tree
    os.environ[CHILD_VARIABLE] = side.token
    with contextlib.suppress(OSError):  # no descriptor left: what it forks is told by its session only
        kernel.mark(side.token)
    kernel.set_title(side.title)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def reset_signals() -> None:
    """Undo the parent's signal handling; only SIGPIPE and SIGXFSZ stay ignored, as Python has them."""
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals() - _NO_HANDLER:
        ignored = number in (signal.SIGPIPE, signal.SIGXFSZ)
        with contextlib.suppress(OSError, ValueError):
            signal.signal(number, signal.SIG_IGN if ignored else signal.SIG_DFL)


def _forget_event_loop() -> None:
    """Forget the loop the parent runs; it must not be closed here, its epoll set is the parent's too."""
    asyncio._set_running_loop(None)
    asyncio.set_event_loop(None)
