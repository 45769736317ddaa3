"""Bounds on what others can make a query write: lines of its log, and messages that it keeps. Pure.

Layer: eventsourcing, queries.
"""

from __future__ import annotations


class Complaints:
    """Which complaints are worth a line of the log: of equal ones the first, and one now and then.

    Args:
        every: seconds between two lines of one burst.
    """

    def __init__(self, every: float = 60.0) -> None:
        self._every = every
        self._last: dict[str, tuple[float, int]] = {}  # when it was said, and how often it came since

    def take(self, text: str, now: float) -> str | None:
        """Take a complaint; returns the line that it is worth, or None."""
        said = self._last.get(text)
        if said is not None and now - said[0] < self._every:
            self._last[text] = (said[0], said[1] + 1)
            return None
        if len(self._last) >= 100:
            self._last.clear()
        self._last[text] = (now, 0)
        return text if said is None or not said[1] else f"{text} ({said[1]} times more since then)"

    def over(self) -> bool:
        """All is well again: the next complaint is the first one. Returns whether there were any."""
        there_were = bool(self._last)
        self._last.clear()
        return there_were


class Allowance:
    """How many messages that do not decode may be kept: at most so many, so large, and so many a second.

    Args:
        count: entries at most.
        size: bytes at most.
        rate: entries a second for long; as many as a tenth of ``count`` may come at once.
    """

    def __init__(self, count: int = 1000, size: int = 16 * 2**20, rate: float = 10.0) -> None:
        self._count = count
        self._size = size
        self._rate = rate
        self._burst = max(1.0, count / 10)
        self._credit = self._burst
        self._at: float | None = None

    def take(self, size: int, now: float) -> bool:
        """Take a message of so many bytes; False if it is too much."""
        if self._at is not None:
            self._credit = min(self._burst, self._credit + (now - self._at) * self._rate)
        self._at = now
        if self._credit < 1 or self._count < 1 or size > self._size:
            return False
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
