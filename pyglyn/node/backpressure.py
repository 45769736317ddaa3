"""Who waits for whom when something takes less than it is sent. Layer: node.

Four waits, each where the sender is:

- A connection or the link to the hub has much queued: it is *busy* (``BusyNodes``), and a process that sends
  there waits in its next ``receive``, ``call`` or ``drain`` (``Waits``). The hub tells its workers.
- A worker has much queued for it: the hub no longer reads from the sources whose signals go there, peers and
  other workers, until the worker has caught up (``PausedSources``).
- A peer has calls begun here (``FewATurn``): it is not read before others have had their turn.
- Far too much is queued: ``send`` raises ``NodeBusy`` (see ``router``).
"""

from __future__ import annotations

import asyncio
import enum
import logging
from collections import Counter
from collections.abc import Iterator
from typing import Protocol

logger = logging.getLogger("pyglyn.node")

LINK_TO_HUB = ""
"""The name under which a worker keeps the link to its hub among the busy nodes."""


MOST_ANSWERS = 1000
"""Messages that processes which do not wait (``net_kernel``, ``rex``) may send to a node while it is busy."""


class WhenBusy(enum.Enum):
    """What a process does that sends to a node which does not take what it gets."""

    WAIT = "wait in the next receive, call or drain"
    DROP = "go on; its messages are dropped after a while, and counted"
    QUEUE = "go on; it sees to it by itself that no more is queued than has to be"


class BusyNodes:
    """The nodes that much is queued for, each with what is told when that is over.

    Attributes:
        nodes: both; empty, nobody has to wait for anything.
    """

    __slots__ = ("_answers", "nodes")

    def __init__(self) -> None:
        self.nodes: dict[str, asyncio.Event] = {}
        self._answers: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self.nodes)

    def __iter__(self) -> Iterator[str]:
        return iter(self.nodes)

    def begin(self, node: str) -> None:
        """Much is queued for a node; said again it changes nothing."""
        self.nodes.setdefault(node, asyncio.Event())

    def end(self, node: str) -> bool:
        """No longer: whoever waits goes on. False if the node was not busy."""
        dropped = self._answers.pop(node, 0) - MOST_ANSWERS
        if dropped > 0:
            logger.warning("%d answers to %s were dropped, which did not read them", dropped, node)
        over = self.nodes.pop(node, None)
        if over is None:
            return False
        over.set()
        return True

    def takes_answer(self, node: str | None) -> bool:
        """Whether a process that does not wait may send to a node; counts it where the node is busy."""
        if node is None or node not in self.nodes:
            return True
        self._answers[node] += 1
        return self._answers[node] <= MOST_ANSWERS

    def over(self, node: str | None) -> asyncio.Event | None:
        """What a sender to this node has to wait for; None for nothing. All goes through a busy link."""
        return self.nodes.get(LINK_TO_HUB) or (self.nodes.get(node) if node else None)


class Waits:
    """What one process has to wait for before it goes on.

    Attributes:
        events: all of it.
    """

    __slots__ = ("events",)

    def __init__(self) -> None:
        self.events: list[asyncio.Event] = []

    def __len__(self) -> int:
        return len(self.events)

    def add(self, event: asyncio.Event | None) -> None:
        """One more thing to wait for, if it is one and is not known yet."""
        if event is not None and event not in self.events:
            self.events.append(event)

    async def drain(self) -> None:
        """Wait for all of it; interrupted, the rest is still to wait for."""
        while self.events:
            event = self.events[-1]
            await event.wait()
            if event in self.events:  # more may have come, and somebody else may have waited too
                self.events.remove(event)


class Source(Protocol):
    """Where signals come from: a connection to a peer, or the transport of a worker."""

    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...


class Pauses:
    """For how many reasons each source is not read: it is read again when the last one is gone."""

    __slots__ = ("_reasons",)

    def __init__(self) -> None:
        self._reasons: Counter[Source] = Counter()

    def begin(self, source: Source) -> None:
        """One more reason; the first one stops the reading."""
        self._reasons[source] += 1
        if self._reasons[source] == 1:
            source.pause_reading()

    def end(self, source: Source) -> None:
        """One reason fewer."""
        self._reasons[source] -= 1
        if not self._reasons[source]:
            del self._reasons[source]
            source.resume_reading()


class PausedSources:
    """The sources that are not read because of one worker; each is paused once and resumed once.

    Args:
        pauses: shared with the other reasons for which a source may not be read.
    """

    __slots__ = ("_pauses", "_sources")

    def __init__(self, pauses: Pauses) -> None:
        self._pauses = pauses
        self._sources: set[Source] = set()

    def pause(self, source: Source) -> None:
        """Stop reading from a source until ``resume``."""
        if source not in self._sources:
            self._sources.add(source)
            self._pauses.begin(source)

    def resume(self) -> None:
        """Let all of them go on."""
        while self._sources:
            self._pauses.end(self._sources.pop())


class FewATurn:
    """Lets each source begin few things that take long in a turn of the event loop, and more in the next.

    Args:
        most: how many.
        pauses: shared with the other reasons for which a source may not be read.
    """

    __slots__ = ("_begun", "_most", "_pauses")

    def __init__(self, most: int, pauses: Pauses) -> None:
        self._most = most
        self._pauses = pauses
        self._begun: Counter[Source] = Counter()

    def count(self, source: Source) -> None:
        """One more of a source has begun."""
        if not self._begun:
            asyncio.get_running_loop().call_soon(self._next_turn)
        self._begun[source] += 1
        if self._begun[source] == self._most:
            self._pauses.begin(source)

    def _next_turn(self) -> None:
        begun, self._begun = self._begun, Counter()
        for source, count in begun.items():
            if count >= self._most:
                self._pauses.end(source)
