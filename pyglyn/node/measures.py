"""What an OS process of a node measures of itself, for the hub. Layer: node."""

from __future__ import annotations

import time

import attrs

from pyglyn.etf import Term
from pyglyn.node.process import Host


@attrs.frozen(kw_only=True)
class Measures:
    """One OS process, now.

    Attributes:
        processes: how many there are.
        messages: how many wait in all mailboxes together.
        longest: how many wait in the longest one.
        lag_s: how late the event loop was with the question.
    """

    processes: int
    messages: int
    longest: int
    lag_s: float

    def term(self) -> Term:
        """Write it as a tuple; the lag in nanoseconds."""
        return (self.processes, self.messages, self.longest, int(self.lag_s * 1e9))

    def __add__(self, other: Measures) -> Measures:
        """Two OS processes as one."""
        return Measures(
            processes=self.processes + other.processes,
            messages=self.messages + other.messages,
            longest=max(self.longest, other.longest),
            lag_s=max(self.lag_s, other.lag_s),
        )

    @classmethod
    def from_term(cls, term: tuple[int, int, int, int]) -> Measures:
        """Read it."""
        processes, messages, longest, lag_ns = term
        return cls(processes=processes, messages=messages, longest=longest, lag_s=lag_ns / 1e9)


def now_ns() -> int:
    """A clock that all OS processes of a machine share."""
    return time.monotonic_ns()


def measure(runtime: Host, asked_ns: int) -> Measures:
    """Measure an OS process that was asked at a moment of `now_ns`."""
    waiting = [process.message_queue_len for process in runtime.processes.values()]
    return Measures(
        processes=len(waiting),
        messages=sum(waiting),
        longest=max(waiting, default=0),
        lag_s=max(0, now_ns() - asked_ns) / 1e9,
    )
