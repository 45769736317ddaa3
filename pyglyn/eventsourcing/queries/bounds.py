"""Bounds on the messages that others can make a query keep. Pure.

Layer: eventsourcing, queries.
"""

from __future__ import annotations


class Allowance:
    """How many messages that do not decode may be kept: at most so many, so large, and so many a second.

    Args:
        count: entries at most.
        size: bytes at most.
        rate: entries a second for long; as many as a tenth of ``count`` may come at once. None for any.
    """

    def __init__(self, count: int = 1000, size: int = 16 * 2**20, rate: float | None = 10.0) -> None:
        self._count = count
        self._size = size
        self._rate = rate
        self._burst = max(1.0, count / 10)
        self._credit = self._burst
        self._at: float | None = None

    def take(self, size: int, now: float) -> bool:
        """Take a message of so many bytes; False if it is too much."""
        if self._at is not None and self._rate is not None:
            self._credit = min(self._burst, self._credit + (now - self._at) * self._rate)
        self._at = now
        if self._credit < 1 or self._count < 1 or size > self._size:
            return False
        if self._rate is not None:
            self._credit -= 1
        self.count(size)
        return True

    def count(self, size: int) -> None:
        """Take note of a message that is kept."""
        self._count -= 1
        self._size -= size

    def give_back(self, size: int) -> None:
        """Take note of a message that is kept no longer."""
        self._count += 1
        self._size += size
