"""Work by key: one piece at a time per key, many keys at once, fairly, with a fixed number of tasks.

A key with work stands in one line with the others; a lane (a task) takes the first key, does one piece of its
work and puts the key back at the end. So a busy key does not starve the others, and pieces of one key are
done in the order in which they came. Lanes start when there is work and end when there is none.

Layer: eventsourcing; knows nothing of events.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Hashable

from pyglyn.patience import cancellable, is_called_off

logger = logging.getLogger("pyglyn.eventsourcing")

Work = Callable[[], Awaitable[None]]


class Lanes:
    """Runs work by key.

    Args:
        count: how many keys are worked on at the same time.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._waiting: dict[Hashable, deque[Work]] = {}
        self._ready: deque[Hashable] = deque()
        self._running: set[asyncio.Task[None]] = set()
        self._active = 0

    def put(self, key: Hashable, work: Work) -> None:
        """Add a piece of work. It has to deal with its own errors: what it raises is only logged."""
        queue = self._waiting.get(key)
        if queue is not None:  # in line, or being worked on
            queue.append(work)
            return
        self._waiting[key] = deque((work,))
        self._ready.append(key)
        if self._active < self._count:
            self._active += 1
            task = asyncio.get_running_loop().create_task(self._lane())
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def _lane(self) -> None:
        try:
            await self._work()
        finally:
            self._active -= 1  # at once: a done callback would come too late for the next ``put``

    async def _work(self) -> None:
        while self._ready:
            key = self._ready.popleft()
            queue = self._waiting[key]
            try:
                with cancellable():
                    await queue.popleft()()
            except asyncio.CancelledError:
                if is_called_off():
                    raise
                logger.exception("work for %r was cancelled, by nobody who had to do with it", key)
            except Exception:
                logger.exception("work for %r failed", key)
            if queue:
                self._ready.append(key)
            else:
                del self._waiting[key]

    async def drain(self) -> None:
        """Wait until all work is done."""
        while self._running:
            await asyncio.wait(self._running)

    async def stop(self) -> None:
        """Give up what waits, and cancel what runs."""
        self._ready.clear()
        running = list(self._running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        self._waiting.clear()
