"""The answers one process waits for, by the reference that comes back with them. Layer: node."""

from __future__ import annotations

from typing import Any, TypeAlias

from pyglyn.etf import ImproperList, Reference, Term
from pyglyn.loop_turn import Turn, Waiter, current
from pyglyn.node import heads

Answer: TypeAlias = "Waiter[tuple[bool, Any]]"
"""What comes back: ``(True, reply)`` or ``(False, exit reason)``."""


class Pending:
    """References with a future for the answer each.

    Attributes:
        futures: both.
    """

    __slots__ = ("_turn", "futures")

    def __init__(self) -> None:
        self.futures: dict[Reference, Answer] = {}
        self._turn: Turn | None = None

    def __len__(self) -> int:
        return len(self.futures)

    def expect(self, ref: Reference) -> Answer:
        """Wait for an answer with this reference, until ``forget``."""
        if self._turn is None:
            self._turn = current()
        future: Answer = Waiter(self._turn)
        self.futures[ref] = future
        return future

    def expects(self, ref: Reference) -> bool:
        """Whether somebody still waits for an answer with this reference."""
        return ref in self.futures

    def forget(self, ref: Reference) -> None:
        """Nobody waits any more; what comes late is no answer."""
        self.futures.pop(ref, None)

    def answer(self, message: Term) -> bool:
        """Take ``{Ref, Reply}`` or ``{[alias|Ref], Reply}`` for whoever waits for it; False of all else."""
        if type(message) is not tuple or len(message) != 2:
            return False
        tag = message[0]
        if type(tag) is ImproperList:
            tag = tag.tail
        future = self.futures.get(tag) if type(tag) is Reference else None
        if future is None or future.done():
            return False
        future.set_result((True, message[1]))
        return True

    def awaits(self, message: bytes | memoryview) -> bool:
        """Whether an encoded message is an answer that somebody waits for, by its tag."""
        future = self.futures.get(heads.reference_of_answer(message))  # type: ignore[arg-type]
        return future is not None and not future.done()

    def fail(self, ref: Reference, reason: Term) -> bool:
        """The process that was to answer has ended; False if nobody waits for it."""
        future = self.futures.get(ref)
        if future is None:
            return False
        if not future.done():
            future.set_result((False, reason))
        return True

    def close(self, reason: Term) -> None:
        """The waiting process itself has ended."""
        for ref in self.futures:
            self.fail(ref, reason)
        self.futures.clear()
