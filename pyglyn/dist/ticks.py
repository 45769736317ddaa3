"""Ticks: show that we live, notice when the peer does not. Layer: dist, pure.

Source: send_tick in dist_util.erl (OTP 25.2, 28). Silence is counted in whole intervals of net_ticktime /
intensity, and any received byte ends it: so a dead peer is noticed between net_ticktime and one interval
more. A tick is due after an interval in which nothing was written, or nothing was read: the latter asks a
hidden peer, which ticks only when it has a reason, for an answer.

A peer whose net_ticktime is shorter ticks more often than we do, and gives up before our interval is over. So a
second tick in a row is answered by one at once, as C and Java nodes answer each. Not each: two nodes of this
kind would then answer each other for ever.
"""

from __future__ import annotations

import enum


class TickAction(enum.Enum):
    """What is to be done at the end of an interval."""

    NOTHING = "nothing"
    TICK = "tick"
    GIVE_UP = "give up"


class Ticker:
    """Count what is read and written, interval by interval.

    Args:
        now: the driver's clock, in seconds.
        net_ticktime_s: how long the peer may be silent.
        intensity: intervals within that time.

    Attributes:
        deadline: the end of the current interval.
        received, sent: to be changed whenever something is read or written.
    """

    __slots__ = (
        "_intensity",
        "_interval",
        "_received_before",
        "_sent_at_tick",
        "_sent_before",
        "_silent",
        "deadline",
        "received",
        "sent",
    )

    def __init__(self, now: float, net_ticktime_s: float, intensity: int) -> None:
        self.received = 0
        self.sent = 0
        self._interval = net_ticktime_s / intensity
        self._intensity = intensity
        self._silent = 0  # whole intervals without a byte
        self._received_before = 0
        self._sent_before = 0
        self._sent_at_tick = -1  # as counted when the last tick came
        self.deadline = now + self._interval

    def answer_tick(self) -> bool:
        """Note a tick of the peer, and tell whether to answer it: nothing was written since the one before."""
        answer = self.sent == self._sent_at_tick
        self._sent_at_tick = self.sent
        return answer

    def end_interval(self, now: float, *, reading: bool, queued: bool) -> TickAction:
        """Look back at the interval that is over.

        A late call ends one interval, not several: the process was stopped, which proves nothing.

        Args:
            now: the driver's clock.
            reading: whether the driver would have read; where not, silence proves nothing.
            queued: whether something waits to be written anyway.
        """
        read = self.received != self._received_before or not reading
        written = self.sent != self._sent_before
        self._received_before, self._sent_before = self.received, self.sent
        self.deadline = now + self._interval
        self._silent = 0 if read else self._silent + 1
        if self._silent >= self._intensity:
            return TickAction.GIVE_UP
        if (read and written) or queued:
            return TickAction.NOTHING
        self._sent_before += 1  # the tick itself is no reason to leave the next one out
        return TickAction.TICK
