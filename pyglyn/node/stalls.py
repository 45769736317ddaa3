"""Saying that the event loop stands still, and what it does meanwhile. Layer: node.

While it does, no tick goes out and no connection is answered, also not by the EPMD that a node may be: peers
take the node for dead after the tick time, as they would a BEAM that is stopped. Nothing here keeps that from
happening (a thread that ticked would say of a stuck node that it is fine, and could not be forked beside).

The loop sets a timer of the operating system anew again and again. Should it ever run out, its signal
interrupts whatever Python code runs, which is where the loop is stuck; code in C is waited for. No thread is
needed. Where there are no such timers (outside of Linux), or the node has not got the main thread, it is only
said afterwards.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from pyglyn.node.os_timer import OsTimer

logger = logging.getLogger("pyglyn.node")

BEATS: Final = 4
"""How often within its limit the loop shows that it goes round."""
FRAMES: Final = 12
"""How many of the innermost frames are logged."""
_watches: set[StallWatch] = set()


class StallWatch:
    """Watches the event loop that it is started in.

    Args:
        limit_s: how long the loop may stand still before that is said.
        ticktime_s: what peers allow, for the text.
        clock: seconds that pass.
    """

    def __init__(
        self, limit_s: float, ticktime_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.limit_s = limit_s
        self._ticktime_s = ticktime_s
        self._clock = clock
        self._last = 0.0
        self._said = False
        self._timer: OsTimer | None = None
        self._handle: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin; the loop has to run."""
        _watches.add(self)
        self._last = self._clock()
        if sys.platform == "linux" and threading.current_thread() is threading.main_thread():
            from pyglyn.node.os_timer import OsTimer  # late: it needs ctypes, which is much

            with contextlib.suppress(OSError, AttributeError, ValueError):
                number = signal.SIGRTMIN + 5
                if signal.getsignal(number) in (signal.SIG_DFL, _on_signal):
                    signal.signal(number, _on_signal)
                    signal.siginterrupt(number, False)
                    self._timer = OsTimer(number)
        self.beat()

    def stop(self) -> None:
        """Watch no more."""
        _watches.discard(self)
        if self._handle is not None:
            self._handle.cancel()
        if self._timer is not None:
            self._timer.delete()
            self._timer = None

    def beat(self) -> None:
        """The loop goes round."""
        now = self._clock()
        late, self._last = now - self._last, now
        if late >= self.limit_s:
            self._over(late)
        self._said = False
        if self._timer is not None:
            self._timer.set(self.limit_s)
        self._handle = asyncio.get_running_loop().call_later(self.limit_s / BEATS, self.beat)

    def _over(self, late: float) -> None:
        lost = ", longer than the tick time: peers may have taken this node for dead"
        logger.warning(
            "the event loop stood still for %.1f s%s; no ticks were sent meanwhile",
            late,
            lost if late >= self._ticktime_s else "",
        )

    def interrupted(self, frame: FrameType | None) -> None:
        """The timer has run out, in this code."""
        still = self._clock() - self._last
        if self._said or still < 0.9 * self.limit_s:
            return
        self._said = True
        stack = "".join(traceback.format_stack(frame)[-FRAMES:]).rstrip()
        with contextlib.suppress(RuntimeError):  # it was in the middle of writing to the log
            logger.warning(
                "the event loop has stood still for %.1f s; "
                "peers take this node for dead after %g s. It is in\n%s",
                still,
                self._ticktime_s,
                stack,
            )


def _on_signal(number: int, frame: Any) -> None:
    for watch in list(_watches):
        watch.interrupted(frame)
