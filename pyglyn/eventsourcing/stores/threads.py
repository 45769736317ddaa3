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
from queue import SimpleQueue
from typing import Any, TypeAlias, TypeVar

T = TypeVar("T")

_Call: TypeAlias = "tuple[Callable[[], Any], asyncio.Future[Any]]"
_Calls: TypeAlias = "SimpleQueue[_Call | None]"


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

    def call(self, function: Callable[[], T]) -> asyncio.Future[T]:
        """Have a function called. One that has begun runs to its end, also where the caller is cancelled."""
        if self._end is None:
            self._end = weakref.finalize(self, self._calls.put, None)
            arguments = (self._loop, self._calls)
            threading.Thread(target=_work, args=arguments, name=self._name, daemon=True).start()
        future: asyncio.Future[T] = self._loop.create_future()
        self._calls.put((function, future))
        return future

    def stop(self) -> None:
        """End the thread, once it has done what it was given."""
        if self._end is not None:
            self._end()


def _work(loop: asyncio.AbstractEventLoop, calls: _Calls) -> None:
    while (call := calls.get()) is not None:
        function, future = call
        if not future.cancelled():
            _carry_out(loop, function, future)
        del call, function, future  # nothing is kept while nothing is done


def _carry_out(
    loop: asyncio.AbstractEventLoop, function: Callable[[], Any], future: asyncio.Future[Any]
) -> None:
    result, error = None, None
    try:
        result = function()
    except BaseException as raised:
        error = RuntimeError("a function raised StopIteration") if _is_stop(raised) else raised
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
