"""The messages a process has not taken yet. Layer: node.

One consumer, any number of senders in the same thread. Messages stay in the order they came, also those
that a selective receive passes over.

What came from outside waits **encoded**, as its bytes, and is decoded when the receiver gets to it: once,
since a message that a selective receive has decoded and passed over stays decoded. So a long queue costs the
garbage collector nothing and little memory, and a message that does not decode is dropped in the receiver's
turn, not in the sender's.

Two rows follow each other: the messages that were looked at, which only selective receives go through, and
behind them the fresh ones. Taking a message costs the looks at those before it, never a move of the others.
"""

from __future__ import annotations

import asyncio
import types
from collections import deque
from collections.abc import Callable, Generator, Iterable
from typing import Any, Final

from pyglyn.errors import DecodeError
from pyglyn.etf import Term
from pyglyn.loop_turn import Waiter
from pyglyn.patience import after_reading

Match = Callable[[Term], object]
FAIRNESS = 128
"""After so many looks into the mailbox without waiting, a process lets the others run."""

_NOTHING: Final[deque[Any]] = deque(maxlen=0)
"""Where nothing has come yet: an empty queue of one's own takes a sixth of what a process needs."""
_TAKEN: Final = object()
"""What is left in the row of those looked at where one was taken."""
_FEW: Final = 64
"""So many of these are not worth making the row anew."""


class Plain:
    """A decoded message that is a binary; bare bytes in the row of the fresh ones are encoded."""

    __slots__ = ("message",)

    def __init__(self, message: Any) -> None:
        self.message = message


def as_it_came(message: object) -> bool:
    """Match every message, and take it undecoded: bytes, a `Plain` one, or a term."""
    return True


class Mailbox:
    """A queue with selective receive.

    Args:
        decode: reads the term of a message; raises ``DecodeError`` for one to be dropped, having said so.

    Attributes:
        fresh: the messages that nobody has looked at, as they came; for others to see whether there are any.
    """

    __slots__ = (
        "_decode",
        "_failure",
        "_first",
        "_held",
        "_looked_at",
        "_moved",
        "_remaining",
        "_sleeps",
        "_streak",
        "_waiter",
        "_waits",
        "fresh",
    )

    def __init__(self, decode: Callable[[bytes | memoryview], Term]) -> None:
        self._decode = decode
        self.fresh: deque[Any] = _NOTHING
        self._looked_at: list[Any] = []  # from _first on; taken ones are _TAKEN
        self._first = 0
        self._remaining = 0  # how many of these are not taken
        self._moved = False  # `take` has looked at some that the receive under way has not
        self._waiter: Waiter[None] | None = None  # the last one
        self._waits = False
        self._sleeps = False  # who waits has not been woken
        self._failure: BaseException | None = None
        self._held = False
        self._streak = 0

    def __len__(self) -> int:
        return self._remaining + len(self.fresh)

    def waiting(self) -> list[Term]:
        """The messages, the oldest first; they stay, and those that wait encoded stay so."""
        found = [message for message in self._looked_at if message is not _TAKEN]
        for _ in range(len(self.fresh)):
            entry = self.fresh.popleft()
            kind = type(entry)
            try:
                encoded = kind is bytes or kind is memoryview
                found.append(self._decode(entry) if encoded else entry.message if kind is Plain else entry)
            except DecodeError:
                continue
            self.fresh.append(entry)
        return found

    def put(self, message: Term) -> None:
        """Append a message and wake the receiver."""
        self.put_encoded(Plain(message) if isinstance(message, (bytes, memoryview)) else message)  # type: ignore[arg-type]

    def put_encoded(self, message: bytes | memoryview) -> None:
        """Append a message that is decoded when it is taken, and wake the receiver."""
        if self.fresh is _NOTHING:
            self.fresh = deque()
        self.fresh.append(message)
        if self._sleeps:
            self._waiter.wake()  # type: ignore[union-attr]
            self._sleeps = False

    def put_many_encoded(self, messages: Iterable[bytes]) -> None:
        """Append messages as `put_encoded` does each."""
        if self.fresh is _NOTHING:
            self.fresh = deque()
        self.fresh.extend(messages)
        if self._sleeps:
            self._waiter.wake()  # type: ignore[union-attr]
            self._sleeps = False

    def _wake(self) -> None:
        self._sleeps = False
        if self._waiter is not None:
            self._waiter.wake()

    def hold(self, held: bool) -> None:
        """Give nothing out, or again; messages still come in."""
        self._held = held
        if not held:
            self._wake()

    def close(self, failure: BaseException) -> None:
        """Drop everything; every receive from now on raises ``failure``."""
        self.fresh.clear()
        self._looked_at.clear()
        self._first = self._remaining = 0
        self._failure = failure
        self._wake()

    # --- taking -----------------------------------------------------------------------------------

    def take(self, match: Match | None) -> tuple[bool, Term]:
        """Take the first message that matches of those that are here; also while a receive is under way."""
        found, message = self._take_looked_at(match)
        if found:
            return found, message
        self._moved = self._moved or bool(self.fresh)
        return self._take_fresh(match, len(self.fresh))

    def _take_looked_at(self, match: Match | None) -> tuple[bool, Term]:
        if not self._remaining or self._held:
            return False, None
        row = self._looked_at
        for index in range(self._first, len(row)):
            message = row[index]
            if message is not _TAKEN and (match is None or match(message)):
                self._remove(index)
                plain: Any = Plain(message) if match is as_it_came and type(message) is bytes else message
                return True, plain
        return False, None

    def _remove(self, index: int) -> None:
        """Take one of those looked at out; the row is made anew when more than half of it is taken."""
        row = self._looked_at
        row[index] = _TAKEN
        self._remaining -= 1
        while self._first < len(row) and row[self._first] is _TAKEN:
            self._first += 1
        if len(row) > 2 * self._remaining + _FEW or not self._remaining:
            self._looked_at = [message for message in row if message is not _TAKEN]
            self._first = 0

    def _take_fresh(self, match: Match | None, most: int) -> tuple[bool, Term]:
        """Look at so many of the fresh ones; what is passed over joins those that were looked at."""
        fresh = self.fresh
        for _ in range(0 if self._held else min(most, len(fresh))):
            message = fresh.popleft()
            if match is as_it_came:
                return True, message
            kind = type(message)
            if kind is bytes or kind is memoryview:
                try:
                    message = self._decode(message)
                except DecodeError:
                    continue
            elif kind is Plain:
                message = message.message
            if match is None:
                return True, message
            self._looked_at.append(message)  # before the match, which may raise
            self._remaining += 1
            if match(message):
                self._looked_at.pop()
                self._remaining -= 1
                return True, message
        return False, None

    def next(self, match: Match | None = None) -> tuple[bool, Term]:
        """Take the first message, where nobody has to wait and it is not the others' turn; see ``get``.

        Args:
            match: None or ``as_it_came``.
        """
        fresh = self.fresh
        if not fresh or self._remaining or self._held or self._streak >= FAIRNESS - 1:
            return False, None
        self._streak += 1
        message = fresh.popleft()
        if match is as_it_came:
            return True, message
        kind = type(message)
        if kind is bytes or kind is memoryview:
            try:
                message = self._decode(message)
            except DecodeError:
                return False, None
        elif kind is Plain:
            message = message.message
        return True, message

    @types.coroutine
    def next_to_come(self) -> Generator[Any, None, tuple[bool, Term]]:
        """Wait where nothing is here, and take what comes; where nothing is found it is for ``get``."""
        if self.fresh or self._remaining or self._held or self._waits or self._failure is not None:
            return False, None
        waiter = self._waiter
        if waiter is None:
            waiter = self._waiter = Waiter()
        waiter.anew()  # before anybody is told to wake it
        self._streak = 0
        self._waits = self._sleeps = True
        try:
            yield waiter
        finally:
            self._waits = self._sleeps = False
        return self.next()

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
        self._moved = False
        found, message = self._take_looked_at(match) if self._remaining else (False, None)
        if not found and self.fresh:
            here = len(self.fresh)
            found, message = self._take_fresh(match, FAIRNESS)
            if not found and here > FAIRNESS:
                await asyncio.sleep(0)
                found, message = await self._look(match, here - FAIRNESS)
            if not found and self._moved:
                found, message = self._take_looked_at(match)
        if found:
            return message
        if timeout is not None and timeout <= 0:
            raise TimeoutError("no message")
        self._streak = 0
        return await self._wait(match, timeout)

    async def _look(self, match: Match | None, most: int) -> tuple[bool, Term]:
        """Look at so many of the fresh messages; the others run in between where they are many."""
        while True:
            if self._failure is not None:
                raise self._failure
            found, message = self._take_fresh(match, min(most, FAIRNESS))
            most -= FAIRNESS
            if found or most <= 0:
                return found, message
            await asyncio.sleep(0)

    async def _wait(self, match: Match | None, timeout: float | None) -> Term:
        if self._waits:
            raise RuntimeError("two coroutines of one process wait for its messages at the same time")
        waiter = self._waiter
        if waiter is None:
            waiter = self._waiter = Waiter()
        self._waits = True
        expired = False
        unseen = self._held  # what others have looked at
        timer = None
        if timeout is not None:

            def expire() -> None:
                nonlocal expired
                expired = True
                self._wake()

            timer = waiter.get_loop().call_later(timeout, after_reading, expire)
        try:
            while True:
                # Some may have come, or been looked at by others, during a look.
                if (self._held or not (self.fresh or self._moved)) and not expired:
                    waiter.reset()
                    self._sleeps = True
                    await waiter
                last = expired
                unseen, self._moved = unseen or self._moved, False
                found, message = self._take_looked_at(match) if unseen else (False, None)
                unseen = unseen and self._held
                if not found:
                    here = len(self.fresh)
                    if here <= FAIRNESS and self._failure is None:
                        found, message = self._take_fresh(match, here)
                    else:
                        found, message = await self._look(match, here)
                if found:
                    return message
                if last:
                    raise TimeoutError(f"no message within {timeout} s")
        finally:
            self._waits = self._sleeps = False
            if timer is not None:
                timer.cancel()
