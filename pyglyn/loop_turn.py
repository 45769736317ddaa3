"""What is done before a turn of the event loop ends: waiting processes go on, and what they sent is written.

asyncio's futures wake who waits for them one turn of the event loop later, and what is sent then is written
yet another turn later: three polls of the sockets for one answer. Here a batch of messages (all that one read
brought) is dispatched first; then everyone who waited for one of them goes on, once however many came for
it; then what all of them sent is written. That is one turn.

The order is asyncio's own: nobody goes on before the whole batch is dispatched, and those that wait go on in
the order in which something came for them. Nothing recurses: whom a process wakes by what it does now goes on
in the next turn. Where no batch is under way, both happen in the next turn.
"""

from __future__ import annotations

import asyncio
import contextvars
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator
from typing import Any, Final, Generic, TypeVar

from pyglyn.patience import after_reading

T = TypeVar("T")

_PENDING: Final = object()
# Asks for the task that runs in an event loop: in Python 3.11 `asyncio.current_task` is Python around it.
_running: Final[Callable[[asyncio.AbstractEventLoop], object]] = (
    asyncio.current_task if sys.version_info >= (3, 12) else asyncio.tasks._current_tasks.get  # type: ignore[attr-defined]
)


class Turn:
    """The turns of one event loop; see ``current``.

    Attributes:
        loop: the event loop.
        limits: how long some wait at most.
    """

    __slots__ = ("_due", "_last", "_open", "_settled", "limits", "loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.limits = Limits(loop)
        self._open = False
        self._due = False
        self._settled: deque[Waiter[Any]] = deque()
        self._last: list[Callable[[], None]] = []

    def begin(self) -> bool:
        """Begin a batch; False where one is under way, or a task runs, which no other can interrupt.

        Whoever gets True calls ``end``, in any case.
        """
        if self._open or _running(self.loop) is not None:
            return False
        self._open = True
        return True

    def end(self) -> None:
        """Let everyone go on who waited for something of this batch; then do what is to be done last."""
        settled = self._settled
        try:
            for _ in range(len(settled)):
                settled.popleft().go_on()
        finally:
            try:
                self._do_last()
            finally:  # one that stays open ends all turns of the loop
                self._open = False
                if settled or self._last:
                    self._soon()

    def _do_last(self) -> None:
        last, self._last = self._last, []
        for function in last:
            try:
                function()
            except Exception as error:  # its own affair, not that of whoever began the batch
                self._say(function, error)

    def _say(self, function: object, error: BaseException) -> None:
        self.loop.call_exception_handler(
            {"message": f"{function!r} failed at the end of a turn", "exception": error}
        )

    def at_end(self, function: Callable[[], None]) -> None:
        """Call a function when everyone has gone on."""
        self._last.append(function)
        if not self._open:
            self._soon()

    def settle(self, waiter: Waiter[Any]) -> None:
        """Let whoever waits for this go on; for `Waiter`."""
        self._settled.append(waiter)
        if not self._open:
            self._soon()

    def _soon(self) -> None:
        if not self._due:
            self._due = True
            try:
                self.loop.call_soon(self._run)
            except MemoryError:
                self._due = False  # else nobody asks again
                raise

    def _run(self) -> None:
        self._due = False
        if self.begin():
            self.end()


LATE: Final[Any] = (False, None)
"""Stands for what did not come in time. An exception kept there would know its waiter: a cycle."""
_AT_ONCE_S: Final = 0.001
"""Whose time is over within this has no timer of its own; uvloop's clock is not finer."""
MOST_LIMITS: Final = 16
"""So many limits of different lengths share their timers; programs have a few."""


class Limits:
    """How long some wait at most, without a timer for each: nearly all of them get their answer long before.

    Those that wait for the same number of seconds are in the order in which their time is over. So there is
    one timer for them all, set to the one that was first when it was set.
    """

    __slots__ = ("_loop", "_timers", "_until")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._until: dict[float, dict[Waiter[Any], float]] = {}  # by seconds; emptied by its timer only
        self._timers: dict[Waiter[Any], asyncio.TimerHandle] = {}  # of those that have one each

    def begin(self, waiter: Waiter[Any], seconds: float) -> None:
        """Settle this with ``LATE`` in so many seconds, after what has arrived by then was read."""
        waiting = self._until.get(seconds)
        if waiting is None:
            if len(self._until) >= MOST_LIMITS:
                self._timers[waiter] = self._loop.call_later(seconds, after_reading, _expire, waiter)
                return
            self._loop.call_later(seconds, self._judge, seconds)
            waiting = self._until[seconds] = {}
        waiting[waiter] = self._loop.time() + seconds

    def end(self, waiter: Waiter[Any], seconds: float) -> None:
        """It waits no more."""
        waiting = self._until.get(seconds)
        if waiting is None or waiting.pop(waiter, None) is None:
            timer = self._timers.pop(waiter, None)
            if timer is not None:
                timer.cancel()

    def _judge(self, seconds: float) -> None:
        """Look who is over by now, once what has arrived by now was read: others may be over by then."""
        after_reading(self._over, seconds, self._loop.time() + _AT_ONCE_S)

    def _over(self, seconds: float, now: float) -> None:
        waiting, over = self._until[seconds], []
        for waiter, until in waiting.items():
            if until > now:
                self._loop.call_at(until, self._judge, seconds)
                break
            over.append(waiter)
        else:
            del self._until[seconds]
        for waiter in over:
            del waiting[waiter]
            _expire(waiter)


def _expire(waiter: Waiter[Any]) -> None:
    if not waiter.done():
        waiter.set_result(LATE)


_here = threading.local()


def current() -> Turn:
    """The turns of the running event loop."""
    loop = asyncio.get_running_loop()
    turn: Turn | None = getattr(_here, "turn", None)
    if turn is None or turn.loop is not loop:
        turn = _here.turn = Turn(loop)
    return turn


class Waiter(Generic[T]):
    """A future whose waiting task goes on within the turn, not in the next one.

    It is what asyncio takes for a future (``asyncio.isfuture``): tasks await it, and it can be given to
    ``asyncio.wait``, ``gather`` and ``shield``. ``reset`` makes a settled one new.

    Args:
        turn: that of the running event loop, where it is known already: to ask for it is a system call.

    Attributes:
        turn: the turns that it goes on in.
    """

    __slots__ = ("_asyncio_future_blocking", "_callback", "_context", "_error", "_more", "_result", "turn")

    def __init__(self, turn: Turn | None = None) -> None:
        self.turn = current() if turn is None else turn
        self._asyncio_future_blocking = False
        self._callback: Callable[[Any], object] | None = None
        self._context: contextvars.Context | None = None
        self._more: list[tuple[Callable[[Any], object], contextvars.Context]] | None = None
        self._result: object = _PENDING
        self._error: BaseException | None = None

    def reset(self) -> None:
        """Make it one that is not settled, and that nobody waits for."""
        if self._callback is not None:
            self._take_callbacks()
        self._result = _PENDING
        self._error = None

    def anew(self) -> Waiter[T]:
        """Reset it; what it gives is for a generator to yield, where to await it would take one more."""
        if self._callback is not None:
            self._take_callbacks()
        self._result = _PENDING
        self._error = None
        self._asyncio_future_blocking = True
        return self

    # --- how it ends ------------------------------------------------------------------------------

    def set_result(self, result: T) -> None:
        """Settle it.

        Raises:
            asyncio.InvalidStateError: it has been.
        """
        if self._result is not _PENDING:
            raise asyncio.InvalidStateError("settled already")
        turn = None if self._callback is None else self.turn
        if turn is not None:
            turn._settled.append(self)  # before it is settled: there may be no memory for that
        self._result = result
        if turn is not None and not turn._open:
            turn._soon()

    def wake(self) -> None:
        """Settle it with None, unless it is settled."""
        if self._result is _PENDING:
            if self._callback is not None:
                self.turn._settled.append(self)
            self._result = None
        if self._callback is not None and not self.turn._open:
            self.turn._soon()  # also where it was settled already: there may have been no memory for this

    def set_exception(self, error: BaseException) -> None:
        """Have whoever waits get an exception.

        Raises:
            asyncio.InvalidStateError: it has been settled.
        """
        self.set_result(None)  # type: ignore[arg-type]
        self._error = error

    def cancel(self, msg: object = None) -> bool:
        """Have whoever waits get ``CancelledError``; False if it is settled."""
        if self._result is not _PENDING:
            return False
        self.set_exception(asyncio.CancelledError() if msg is None else asyncio.CancelledError(msg))
        return True

    # --- for asyncio ------------------------------------------------------------------------------

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """The event loop it belongs to."""
        return self.turn.loop

    def _make_cancelled_error(self) -> asyncio.CancelledError:
        """What ``asyncio.gather`` asks one for that was cancelled."""
        return asyncio.CancelledError(*(() if self._error is None else self._error.args))

    @property
    def _cancel_message(self) -> object:
        """What ``asyncio.gather`` asks one for that was cancelled, where it returns exceptions."""
        return self._error.args[0] if self._error is not None and self._error.args else None

    def done(self) -> bool:
        """Whether it is settled."""
        return self._result is not _PENDING

    def cancelled(self) -> bool:
        """Whether it was cancelled."""
        return isinstance(self._error, asyncio.CancelledError)

    def exception(self) -> BaseException | None:
        """The exception it was settled with.

        Raises:
            asyncio.InvalidStateError: it is not settled.
            asyncio.CancelledError: it was cancelled.
        """
        if self._result is _PENDING:
            raise asyncio.InvalidStateError("not settled")
        if isinstance(self._error, asyncio.CancelledError):
            raise self._error
        return self._error

    def result(self) -> T:
        """What it was settled with.

        Raises:
            asyncio.InvalidStateError: it is not settled.
            BaseException: it was settled with that.
        """
        if self._result is _PENDING:
            raise asyncio.InvalidStateError("not settled")
        error = self._error
        if error is None:
            return self._result  # type: ignore[return-value]
        if isinstance(error, asyncio.CancelledError):
            raise asyncio.CancelledError(*error.args)  # kept here, it would know this by its traceback
        raise error

    def add_done_callback(
        self, callback: Callable[[Any], object], *, context: contextvars.Context | None = None
    ) -> None:
        """Call a function with this once it is settled."""
        if context is None:
            context = contextvars.copy_context()
        if self._callback is None:
            self._callback, self._context = callback, context
            if self._result is not _PENDING:
                self.turn.settle(self)
        elif self._more is None:
            self._more = [(callback, context)]
        else:
            self._more.append((callback, context))

    def remove_done_callback(self, callback: Callable[[Any], object]) -> int:
        """Call a function no more; returns how often it would have been called."""
        every = self._take_callbacks()
        kept = [each for each in every if each[0] != callback]
        for each, context in kept:
            self.add_done_callback(each, context=context)
        return len(every) - len(kept)

    def _take_callbacks(self) -> list[tuple[Callable[[Any], object], contextvars.Context]]:
        more, self._more = self._more, None
        callback, context = self._callback, self._context
        self._callback = self._context = None
        if callback is None or context is None:
            return []
        return [(callback, context), *(more or ())]

    def go_on(self) -> None:
        """Let whoever waits go on; for `Turn`."""
        callback, context = self._callback, self._context
        if callback is None or context is None or self._result is _PENDING:
            return
        if self._more is None:
            self._callback = self._context = None
            self._call(callback, context)
            del callback  # see _call
            return
        for each, its in self._take_callbacks():
            self._call(each, its)

    def _call(self, callback: Callable[[Any], object], context: contextvars.Context) -> None:
        try:
            context.run(callback, self)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            self.turn._say(callback, error)
        finally:
            # A cancelled task keeps the exception, that its traceback, and that the frames up to here: with
            # the task in one of them all would be left to the garbage collector.
            del callback

    def __await__(self) -> Generator[Any, None, T]:
        if self._result is _PENDING:
            self._asyncio_future_blocking = True
            yield self
            if self._result is _PENDING:
                raise asyncio.InvalidStateError("not settled")
        return self._result if self._error is None else self.result()  # type: ignore[return-value]

    __iter__ = __await__
