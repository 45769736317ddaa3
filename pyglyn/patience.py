"""Deadlines that judge somebody else, in an event loop that may be late itself.

OS processes can be stopped and go on later (a frozen container, a closed lid), and an event loop can be busy.
Then the clock says that the other side's time is over, although it had none, or although its answer lies
here unread. So such a deadline counts steps in which this event loop ran, and has what arrived read before it
judges.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Final

_AGAIN_S: Final = 0.1

STEPS: Final = 8
"""How many steps a deadline has. One in which this OS process was stopped counts like any other."""


class Patience:
    """Calls a function when so many seconds have gone by in which this event loop ran.

    Args:
        seconds: how long the other side may take; judged up to one step of `STEPS` later.
        expired: called then, with ``args``, unless `cancel` came first.
    """

    def __init__(self, seconds: float, expired: Callable[..., object], *args: Any) -> None:
        self._loop = asyncio.get_running_loop()
        self._step = seconds / STEPS
        self._left = STEPS
        self._expired: Callable[..., object] | None = expired
        self._args = args
        self._handle: asyncio.Handle = self._loop.call_later(self._step, self._count)

    def restart(self) -> None:
        """The other side has given a sign: count anew. A step under way does not count."""
        if self._left > 0:
            self._left = STEPS + 1
        elif not self._handle.cancelled():
            self._handle.cancel()
            self._left = STEPS
            self._handle = self._loop.call_later(self._step, self._count)

    def cancel(self) -> None:
        """Judge no more, and forget who would be told: they know this, mostly."""
        self._handle.cancel()
        self._expired, self._args = None, ()

    def _count(self) -> None:
        self._left -= 1
        if self._left > 0:
            self._handle = self._loop.call_later(self._step, self._count)
        else:
            self._handle = self._loop.call_soon(self._read_once)

    def _read_once(self) -> None:
        self._handle = self._loop.call_soon(self._judge)  # behind what is read in between

    def _judge(self) -> None:
        expired, args = self._expired, self._args
        self.cancel()
        if expired is not None:
            expired(*args)


def after_reading(function: Callable[..., object], *args: Any) -> None:
    """Call a function once what has arrived by now was read."""
    loop = asyncio.get_running_loop()
    loop.call_soon(loop.call_soon, function, *args)


@contextlib.asynccontextmanager
async def timeout(seconds: float | None) -> AsyncIterator[None]:
    """As ``asyncio.timeout``, by `Patience`.

    Raises:
        TimeoutError: what is inside was not done within so many seconds; None for no limit.
    """
    async with asyncio.timeout(None) as limit:
        loop = asyncio.get_running_loop()
        patience = None
        if seconds is not None:
            patience = Patience(seconds, lambda: limit.reschedule(loop.time()))
        try:
            yield
        finally:
            if patience is not None:
                patience.cancel()


def is_called_off() -> bool:
    """Tell whether somebody asked the running task to end; a CancelledError may be raised by anybody."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def call_off(task: asyncio.Task[Any]) -> None:
    """Cancel a task until it has ended: code in it may lose a cancellation, as `cancellable` says."""
    while not task.done():
        task.cancel()
        await asyncio.wait((task,), timeout=_AGAIN_S)


@contextlib.contextmanager
def cancellable() -> Iterator[None]:
    """Let no cancellation of this task get lost in what is inside: it comes out at the end at the latest.

    For code of others that waits with ``asyncio.wait_for``: that of Python 3.11 returns what it waited for,
    when that came in the same turn as the cancellation, and says nothing of it (python/cpython#86296).

    Raises:
        asyncio.CancelledError: the task was cancelled inside, which went unnoticed or became another error.
    """
    task = asyncio.current_task()
    before = task.cancelling() if task is not None else 0
    try:
        yield
    except Exception as error:
        if task is not None and task.cancelling() > before:
            raise asyncio.CancelledError from error
        raise
    if task is not None and task.cancelling() > before:
        raise asyncio.CancelledError
