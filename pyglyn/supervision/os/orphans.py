"""Which children of this OS process were started here, and which it has adopted. Layer: supervision/os.

An OS process that adopts (a subreaper, process 1) has to collect what it adopted, and must not collect what
somebody in it started and will wait for: that one would lose the exit status. The kernel does not say which
is which.
"""

from __future__ import annotations

import gc
import os
import subprocess
import sys

from pyglyn.supervision.os import kernel

_forked: set[int] = set()


def started_here() -> set[int]:
    """The OS processes that `subprocess`, `multiprocessing` or a fork has started here and not collected yet.

    Not told apart from adopted ones: those made by ``os.posix_spawn`` or by C code.
    """
    commands = [each for each in gc.get_objects() if isinstance(each, subprocess.Popen)]
    process = sys.modules.get("multiprocessing.process")
    children = list(getattr(process, "_children", ())) if process is not None else []
    _forked.intersection_update(kernel.os_children())
    return {
        *(each.pid for each in commands if each.returncode is None),
        *(each._popen.pid for each in children if each._popen is not None),
        *_forked,
    }


def watch_forks() -> None:
    """From now on, remember what is forked here."""
    global _watching
    if not _watching:
        _watching = True
        os.register_at_fork(before=_before, after_in_parent=_after)


_watching = False
_before_fork: list[int] = []


def _before() -> None:
    _before_fork[:] = kernel.os_children()
    _forked.intersection_update(_before_fork)  # those collected since are nobody's


def _after() -> None:
    _forked.update(set(kernel.os_children()).difference(_before_fork))
