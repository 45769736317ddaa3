"""The messages a process has not taken yet. Layer: node.

One consumer, any number of senders in the same thread. Messages stay in the order they came, also those
that a selective receive passes over.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from pyglyn.etf import Term
from pyglyn.patience import after_reading

Match = Callable[[Term], object]
FAIRNESS = 128
"""After so many looks into the mailbox without waiting, a process lets the others run."""


class Mailbox:
    """A queue with selective receive."""

    __slots__ = ("_failure", "_held", "_messages", "_streak", "_waiter")

    def __init__(self) -> None:
        self._messages: deque[Term] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._failure: BaseException | None = None
        self._held = False
        self._streak = 0

    def __len__(self) -> int:
        return len(self._messages)

    def waiting(self) -> list[Term]:
        """The messages, the oldest first; they stay."""
        return list(self._messages)

    def put(self, message: Term) -> None:
        """Append a message and wake the receiver."""
        self._messages.append(message)
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def hold(self, held: bool) -> None:
        """Give nothing out, or again; messages still come in."""
        self._held = held
        if not held and self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def close(self, failure: BaseException) -> None:
        """Drop everything; every receive from now on raises ``failure``."""
        self._messages.clear()
        self._failure = failure
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def take(self, match: Match | None, start: int = 0) -> tuple[bool, Term]:
        """Take the first message that matches, looking from index ``start`` on."""
        messages = self._messages
        if self._held:
            return False, None
        if match is None:
            return (True, messages.popleft()) if messages else (False, None)
        for index in range(start, len(messages)):
            message = messages[index]
            if match(message):
                del messages[index]
                return True, message
        return False, None

    async def get(self, match: Match | None = None, timeout: float | None = None) -> Term:
        """Take the first message that matches; wait for it at most ``timeout`` seconds.

        Raises:
            TimeoutError: no message in time. With a timeout of 0 only messages already here are looked at.
        """
        self._streak += 1
        if self._streak >= FAIRNESS:
            self._streak = 0
            await asyncio.sleep(0)
        if self._failure is not None:
            raise self._failure
        found, message = self.take(match)
        if found:
            return message
        if timeout is not None and timeout <= 0:
            raise TimeoutError("no message")
        self._streak = 0
        return await self._wait(match, timeout)

    async def _wait(self, match: Match | None, timeout: float | None) -> Term:
        if self._waiter is not None:
            raise RuntimeError("two coroutines of one process wait for its messages at the same time")
        loop = asyncio.get_running_loop()
        expired = False

        def expire() -> None:
            nonlocal expired
            expired = True
            if self._waiter is not None and not self._waiter.done():
                self._waiter.set_result(None)

        timer = loop.call_later(timeout, after_reading, expire) if timeout is not None else None
        try:
            seen = 0 if self._held else len(self._messages)
            while True:
                self._waiter = loop.create_future()
                await self._waiter
                if self._failure is not None:
                    raise self._failure
                found, message = self.take(match, seen)
                if found:
                    return message
                if expired:
                    raise TimeoutError(f"no message within {timeout} s")
                seen = seen if self._held else len(self._messages)
        finally:
            self._waiter = None
            if timer is not None:
                timer.cancel()
