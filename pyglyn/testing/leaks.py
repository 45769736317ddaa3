"""Counting what a test may leave behind: file descriptors and asyncio tasks."""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from pyglyn.testing.waiting import eventually


def count_file_descriptors() -> int:
    """Count the open file descriptors of this OS process (Linux and macOS)."""
    folder = "/proc/self/fd" if os.path.isdir("/proc/self/fd") else "/dev/fd"
    return len(os.listdir(folder)) - 1  # the listing itself opens one


def count_tasks() -> int:
    """Count the tasks of the running event loop that are not done, the calling one included."""
    return len(asyncio.all_tasks())


@asynccontextmanager
async def no_leaks(timeout: float = 5.0) -> AsyncIterator[None]:
    """Check that as many file descriptors and tasks are open after the block as before it.

    What closes a moment later (a transport's next loop iteration) is waited for.

    Args:
        timeout: seconds the counts may take to come down.

    Raises:
        AssertionError: some are left over; the text has the counts and the tasks.
    """
    gc.collect()
    descriptors, tasks = count_file_descriptors(), asyncio.all_tasks()
    yield

    def clean() -> bool:
        gc.collect()
        left = asyncio.all_tasks() - tasks
        now = count_file_descriptors()
        assert not left, f"tasks left over: {left}"
        assert now <= descriptors, f"{now - descriptors} file descriptors left over (had {descriptors})"
        return True

    await eventually(clean, timeout)
