"""What is still to be done when a process has ended, such as closing its connections. Layer: node.

A process that is killed runs no code of its own any more, so tasks that belong to the runtime do this. A
node, or a worker, that stops waits for them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any


class Aftermath:
    """The tasks of one runtime: asyncio itself does not keep tasks alive."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self, work: Coroutine[Any, Any, None]) -> None:
        """Do this work beside everything else."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def over(self, within_s: float) -> None:
        """Wait until all of it is done; after so many seconds what is left is cancelled."""
        if not self._tasks:
            return
        _, left = await asyncio.wait(self._tasks, timeout=within_s)
        for task in left:
            task.cancel()
