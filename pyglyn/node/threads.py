"""Threads for exported functions that are not ``async``, and which thread a runtime belongs to. Layer: node.

The pool is not asyncio's own (``asyncio.to_thread``): those are few, so that slow calls hold up the
quick ones, and a program waits for each of them before it ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import os
import queue
import threading
import weakref
from collections import Counter, deque
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from pyglyn.errors import CopiedNode, WrongThread

MAX_THREADS = 256
"""So many calls run at the same time, and one of each function. Others wait. A thread costs some 10 KiB."""


T = TypeVar("T")


_homes: weakref.WeakSet[Home] = weakref.WeakSet()


def _become_copies() -> None:
    for home in list(_homes):
        home.become_a_copy()
    _homes.clear()


os.register_at_fork(after_in_child=_become_copies)


class Home:
    """The event loop a runtime belongs to, and its thread: the one in which the runtime was made.

    Attributes:
        thread: that thread, by ``threading.get_ident``.
        copied: this operating-system process is a fork of the one it belongs to.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.thread = threading.get_ident()
        self.copied = False
        _homes.add(self)

    def become_a_copy(self) -> None:
        """In a fork: from now on no thread is the one."""
        self.copied = True
        self.thread = 0

    def is_here(self) -> bool:
        """Whether this code runs in that thread."""
        return threading.get_ident() == self.thread

    def check(self) -> None:
        """Refuse what only that thread may do.

        Raises:
            WrongThread: this is another.
            CopiedNode: this is a fork of its operating-system process.
        """
        if threading.get_ident() != self.thread:
            self.check_no_copy()
            raise WrongThread(
                "called from another thread than the node's, where only send, cast and call work; "
                "for all else use asyncio.run_coroutine_threadsafe or loop.call_soon_threadsafe"
            )

    def check_no_copy(self) -> None:
        """Refuse everything in a fork.

        Raises:
            CopiedNode: this is one.
        """
        if self.copied:
            raise CopiedNode(
                "this node is a copy: it was captured by code that now runs in a fork of its "
                "operating-system process. In a child of a tree use `me`: me.send, me.call, pg.join(me, …)"
            )

    def soon(self, function: Callable[..., object], *args: Any) -> None:
        """Have that thread call a function, in the order of these calls.

        Raises:
            WrongThread: its event loop is closed.
            CopiedNode: this is a fork.
        """
        self.check_no_copy()
        try:
            self._loop.call_soon_threadsafe(function, *args)
        except RuntimeError as error:
            raise WrongThread("the node of this process has ended") from error

    async def bring(self, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run a coroutine in that thread and wait for it in this one's event loop.

        Raises:
            WrongThread: its event loop is closed.
            CopiedNode: this is a fork.
        """
        self.check_no_copy()
        if self._loop.is_closed():
            raise WrongThread("the node of this process has ended")
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(make(), self._loop))


class Threads:
    """A pool of daemon threads: the program may end while one of them is still at work.

    Each function may always have one thread, also beyond the limit, and where calls wait the functions take
    turns: one whose calls all hang (its database does not answer) holds up no other.
    """

    def __init__(self, limit: int = MAX_THREADS) -> None:
        self._limit = limit
        self._idle = threading.Semaphore(0)
        self._jobs: queue.SimpleQueue[tuple[object, Callable[[], None]]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._running: Counter[object] = Counter()
        self._waiting: dict[object, deque[Callable[[], None]]] = {}

    async def run(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call a function in a thread and wait for its result; cancelled, the thread goes on alone."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[tuple[Any, BaseException | None]] = loop.create_future()
        context = contextvars.copy_context()

        def job() -> None:
            outcome: tuple[Any, BaseException | None]
            try:
                outcome = context.run(function, *args), None
            except BaseException as error:
                outcome = None, error
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(settle, outcome)

        def settle(outcome: tuple[Any, BaseException | None]) -> None:
            if not future.done():
                future.set_result(outcome)

        self._submit(_key(function), job)
        result, error = await future
        if error is not None:
            raise error
        return result

    def _submit(self, key: object, work: Callable[[], None]) -> None:
        with self._lock:
            if self._running[key] and self._running.total() >= self._limit:
                self._waiting.setdefault(key, deque()).append(work)
                return
            self._running[key] += 1
        self._jobs.put((key, work))
        if not self._idle.acquire(blocking=False):
            threading.Thread(target=self._work, name="pyglyn export", daemon=True).start()

    def _work(self) -> None:
        job: tuple[object, Callable[[], None]] | None
        while True:
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                self._idle.release()
                job = self._jobs.get()
            while job is not None:
                key, work = job
                del job  # what it holds is not kept while the thread waits
                work()
                del work
                job = self._next(key)

    def _next(self, ended: object) -> tuple[object, Callable[[], None]] | None:
        """What waits and may begin now that a call of a function has ended: the functions take turns."""
        with self._lock:
            self._running[ended] -= 1
            if not self._running[ended]:
                del self._running[ended]
            if ended in self._waiting and ended not in self._running:
                key = ended
            elif self._waiting and self._running.total() < self._limit:
                key = next(iter(self._waiting))
            else:
                return None
            jobs = self._waiting.pop(key)
            work = jobs.popleft()
            if jobs:
                self._waiting[key] = jobs
            self._running[key] += 1
        return key, work


def _key(function: Callable[..., Any]) -> object:
    """What tells a function from another; what cannot be hashed by what it is."""
    try:
        hash(function)
    except TypeError:
        return id(function)
    return function


THREADS = Threads()
"""Those of this operating-system process."""
