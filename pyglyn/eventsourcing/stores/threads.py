"""A thread of one's own for calls that block: handed over to and back with as little as that takes.

An executor of the standard library makes two futures and takes three locks for each call, about 50 µs of CPU
time, which is what an append takes that does not wait for the disk. Here a call is an entry in a queue and a
callback in the loop.

Layer: eventsourcing, stores.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import weakref
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue
from typing import Any, TypeAlias, TypeVar

T = TypeVar("T")

_Calls: TypeAlias = "SimpleQueue[Callable[[], None] | None]"


class WorkerThread:
    """Calls functions one after the other, in the order in which they are given.

    Args:
        loop: where the results are wanted.
        name: of the thread, which starts with the first call and ends with `stop`, or with this object.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, name: str) -> None:
        self._loop = loop
        self._name = name
        self._calls: _Calls = SimpleQueue()
        self._end: weakref.finalize[..., WorkerThread] | None = None

    @property
    def is_used(self) -> bool:
        """Whether it has been given a call."""
        return self._end is not None

    def call(self, function: Callable[[], T], then: Callable[[], None] | None = None) -> asyncio.Future[T]:
        """Have a function called. One that has begun runs to its end, also where the caller is cancelled.

        Args:
            function: what is called.
            then: what the thread goes on with once that has returned, after those who wait for their turn,
                and if its result is still waited for. It begins without the loop, whose thread may be busy
                and not let go of the interpreter's lock. It must not raise.
        """
        if self._end is None:
            self._end = weakref.finalize(self, self._calls.put, None)
            threading.Thread(target=_work, args=(self._calls,), name=self._name, daemon=True).start()
        future: asyncio.Future[T] = self._loop.create_future()
        self._calls.put(partial(_carry_out, self._loop, self._calls, function, future, then))
        return future

    def stop(self) -> None:
        """End the thread, once it has done what it was given."""
        if self._end is not None:
            self._end()


def _work(calls: _Calls) -> None:
    while (call := calls.get()) is not None:
        call()
        del call  # nothing is kept while nothing is done


def _carry_out(
    loop: asyncio.AbstractEventLoop,
    calls: _Calls,
    function: Callable[[], Any],
    future: asyncio.Future[Any],
    then: Callable[[], None] | None,
) -> None:
    if future.cancelled():
        return
    result, error = None, None
    try:
        result = function()
    except BaseException as raised:
        error = RuntimeError("a function raised StopIteration") if _is_stop(raised) else raised
    if then is not None and error is None and not future.cancelled():
        calls.put(then)
    with contextlib.suppress(RuntimeError):  # the loop is closed: nobody wants to know
        loop.call_soon_threadsafe(_settle, future, result, error)
    error = None


def _is_stop(error: BaseException) -> bool:
    return isinstance(error, StopIteration)  # which a future cannot hold


def _settle(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if future.done():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(result)
