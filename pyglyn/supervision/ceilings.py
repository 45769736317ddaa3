"""Ceilings of a child that its supervisor watches: its heartbeat and its memory. Layer: supervision."""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import Final

from pyglyn import forks
from pyglyn.patience import Patience
from pyglyn.supervision.os.deaths import STUCK, over_memory
from pyglyn.supervision.running import Running

MEMORY_CHECK_S: Final = 0.1
"""How often the memory of children with a limit is looked at; the kernel has no signal for it."""
LOOKING_SHARE: Final = 20
"""Looking takes a moment where much is in memory; so many times as long as it took, nobody looks again."""


def watch_heartbeat(run: Running, fd: int) -> None:
    """Kill a child with reason ``stuck`` when it has not written to this pipe for too long.

    Counted from the first beat: how long a start may take is the start timeout's business.
    """
    limit = run.spec.heartbeat
    assert limit is not None
    loop = asyncio.get_running_loop()
    os.set_blocking(forks.keep_number(fd), False)
    patience: Patience | None = None

    def read() -> None:
        nonlocal patience
        beats = b""
        with contextlib.suppress(OSError):
            beats = os.read(fd, 4096)
        if not beats:
            loop.remove_reader(fd)
            return
        if patience is None:
            patience = Patience(limit, run.kill, STUCK)
        else:
            patience.restart()

    def close() -> None:
        loop.remove_reader(fd)
        forks.close_number(fd)
        if patience is not None:
            patience.cancel()

    loop.add_reader(fd, read)
    run.closers.append(close)


def watch_memory(run: Running) -> None:
    """Kill a child with reason ``{memory_limit, Bytes}`` when its own memory is above its limit."""
    limit = run.spec.memory_limit
    assert limit is not None
    loop = asyncio.get_running_loop()
    begin = loop.time()
    if run.os_process is not None and run.os_process.has_more_memory_than(limit):
        run.kill(over_memory(limit))
    elif run.os_process is None or run.os_process.status is None:
        pause = max(MEMORY_CHECK_S, LOOKING_SHARE * (loop.time() - begin))
        run.later(pause, lambda: watch_memory(run))
