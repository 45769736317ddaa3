"""The end of a child that has grown large, or old, after its present work. Layer: supervision.

For code that loses memory, or keeps what it should not: such a child ends in its next ``receive`` once it
has taken so many messages, or has more memory of its own than it should, with reason ``{shutdown,
recycled}``, and its supervisor starts it again. The messages that wait by then are still taken first; what
comes after those is lost with it.

A child ends so after it has taken a message, never before one: where even a fresh one has too much memory,
there is progress all the same.
"""

from __future__ import annotations

import asyncio
import logging
import os
from typing import Final

from pyglyn.etf import Term
from pyglyn.node.exits import Exit
from pyglyn.node.mailbox import Match
from pyglyn.node.process import Process
from pyglyn.node.reasons import RECYCLED
from pyglyn.supervision.os import kernel
from pyglyn.supervision.words import Recycle

CHECK_S: Final = 1.0
"""How often a child looks at its own memory."""

logger = logging.getLogger("pyglyn.supervision")


class Recycling:
    """Watches the main process of a child, whose ``receive`` counts from now on.

    Attributes:
        taken: how many messages it has taken.
        why: why it has to end; empty while it has not.
    """

    def __init__(self, process: Process, limits: Recycle) -> None:
        self._process = process
        self._limits = limits
        self._receive = process.receive
        self._waits = False
        self._left: int | None = None
        self.taken = 0
        self.why = ""
        process.receive = self.receive  # type: ignore[method-assign]  # costs the others nothing

    def start(self) -> None:
        """Begin to look at the memory."""
        if self._limits.memory is not None:
            self._later()
            self._process.on_end.append(lambda reason: self._timer.cancel())

    def _later(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(CHECK_S, self._look)

    async def receive(self, match: Match | None = None, timeout: float | None = None) -> Term:
        """As `Process.receive`, until the process has to end.

        Raises:
            Exit: with reason ``{shutdown, recycled}``: now.
        """
        if self.why:
            waiting = self._process.message_queue_len
            self._left = waiting if self._left is None else min(waiting, self._left - 1)
            if self._left <= 0:
                raise Exit(RECYCLED)
        self._waits = True
        try:
            message = await self._receive(match, timeout)
        finally:
            self._waits = False
        self.taken += 1
        if self._limits.messages is not None and self.taken >= self._limits.messages:
            self.due(f"it has taken {self.taken} messages")
        return message

    def due(self, why: str) -> None:
        """Have it end once its present work, and what waits then, is done; at once where there is none."""
        if self.why:
            return
        self.why = why
        logger.info("%s is started anew after its present work: %s", self._process.label, why)
        if self._waits and not self._process.message_queue_len:
            self._process.interrupt(Exit(RECYCLED))

    def _look(self) -> None:
        limit = self._limits.memory
        assert limit is not None
        if self.taken and not self.why and (kernel.resident_memory(os.getpid()) or 0) > limit:
            own = kernel.own_memory(os.getpid())
            if own is None or own > limit:
                self.due(f"it has more than {limit} bytes of memory of its own")
        if not self.why:
            self._later()
