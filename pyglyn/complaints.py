"""What others can make a node write into its log: of a burst a few lines, with a count. Layer: beside all.

The time is an argument, except where a line is written at once.
"""

from __future__ import annotations

import logging
import time

MOST = 100


class Complaints:
    """Which complaints are worth a line of the log: of equal ones the first, and one now and then.

    Args:
        every: seconds between two equal lines of one burst.
        most: so many different ones in that time; the further ones are only counted.
    """

    def __init__(self, every: float = 60.0, most: int = MOST) -> None:
        self._every = every
        self._most = most
        self._last: dict[str, tuple[float, int]] = {}  # when it was said, and how often it came since
        self._others = 0  # those that there was no room for
        self._room_at = float("-inf")  # when some of those in the way can be forgotten

    def take(self, text: str, now: float) -> str | None:
        """Take a complaint; returns the line that it is worth, or None."""
        at, more = self._last.pop(text, (None, 0))
        if at is not None and now - at < self._every:
            self._last[text] = (at, more + 1)
            return None
        if at is None and len(self._last) >= self._most and not self._make_room(now):
            self._others += 1
            return None
        self._last[text] = (now, 0)
        line = f"{text} ({more} times more since then)" if more else text
        if self._others:
            line += f"; {self._others} further ones were not said"
            self._others = 0
        return line

    def log(
        self,
        logger: logging.Logger,
        text: str,
        *,
        start: str = "",
        end: str = "",
        level: int = logging.WARNING,
        error: BaseException | None = None,
    ) -> None:
        """Take a complaint now, and write the line that it is worth, if it is worth one.

        Args:
            logger: where to write it.
            text: what tells equal ones from others.
            start: what is written before it.
            end: what is written behind it.
            level: of the line.
            error: whose traceback follows the line.
        """
        line = self.take(text, time.monotonic())
        if line is not None:
            logger.log(level, "%s%s%s", start, line, end, stacklevel=2, exc_info=error)

    def _make_room(self, now: float) -> bool:
        if now < self._room_at:
            return False
        before, self._last = self._last, {}
        for text, (at, more) in before.items():
            if now - at < self._every:
                self._last[text] = (at, more)
            else:
                self._others += more
        self._room_at = min((at for at, _ in self._last.values()), default=now) + self._every
        return len(self._last) < self._most

    def over(self) -> bool:
        """All is well again: the next complaint is the first one. Returns whether there were any."""
        there_were = bool(self._last)
        self._last.clear()
        return there_were
