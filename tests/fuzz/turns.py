"""Calls of turns, waiters and mailboxes in any order, also out of what they call: in Python and in C.

As ``tests.fuzz.hot``: after each step what was said, and what is in the fields, has to be the same.
"""

from __future__ import annotations

import asyncio
import contextvars
import re
import sys
from collections.abc import Callable, Coroutine
from typing import Any, Final

from pyglyn.errors import DecodeError
from pyglyn.loop_turn import Turn, Waiter, _here
from pyglyn.node import hot
from pyglyn.node.inlet import inlet
from pyglyn.node.mailbox import Mailbox, as_it_came

assert inlet is not None  # it has loaded the methods in C
WAITERS: Final = 4
MAILBOXES: Final = 2
DEPTH: Final = 3


class _Value:
    """What is given; how often it is referred to is compared as well."""

    def __init__(self, name: int) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"<{self.name}>"


def _decode(data: bytes | memoryview) -> Any:
    read = bytes(data)
    if read.startswith(b"!"):
        raise DecodeError("damaged", 0)
    if read.startswith(b"?"):
        raise ValueError("worse")
    return "read", read


class Side:
    """Turns, waiters and mailboxes, of an event loop that does nothing by itself."""

    def __init__(self, *, in_c: bool) -> None:
        self.in_c = in_c
        self.log: list[Any] = []
        self.due: list[Callable[[], None]] = []
        self.call_soon = self.due.append
        self.values = [_Value(number) for number in range(4)]
        self.coroutines: list[Coroutine[Any, Any, Any]] = []
        self.context = contextvars.copy_context()
        self.depth = 0
        with self:
            self.turn = Turn(self)  # type: ignore[arg-type]
            _here.turn = self.turn
            self.waiters: list[Waiter[Any]] = [Waiter(self.turn) for _ in range(WAITERS)]
            self.mailboxes = [Mailbox(_decode) for _ in range(MAILBOXES)]

    def __enter__(self) -> None:
        self.built = hot.c
        self.built.use(self.in_c)
        asyncio._set_running_loop(self)  # type: ignore[arg-type]
        if hasattr(self, "turn"):
            _here.turn = self.turn

    def __exit__(self, *_: object) -> None:
        asyncio._set_running_loop(None)
        self.built.use(True)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self.say("failed", context["exception"])

    def say(self, *what: Any) -> None:
        words = (f"{type(x).__name__}: {x}" if isinstance(x, BaseException) else repr(x) for x in what)
        self.log.append(tuple(re.sub(" at 0x[0-9a-f]+", "", each) for each in words))

    def called(self, then: tuple[Any, ...]) -> Callable[..., None]:
        """A function that does something."""

        def function(*arguments: Any) -> None:
            self.say(
                "called",
                then[0],
                *(self.waiters.index(each) if each in self.waiters else -1 for each in arguments),
            )
            self.apply(then)

        return function

    def apply(self, what: tuple[Any, ...]) -> None:
        """Do it, and say what it gave."""
        if self.depth >= DEPTH:
            return
        self.depth += 1
        try:
            self.say(what[0], getattr(self, what[0])(*what[1:]))
        except (SystemExit, KeyboardInterrupt) as error:
            if self.depth > 1:
                raise
            self.say(what[0], error)
        except BaseException as error:
            if self.depth > 1 and what[0] == "fail":
                raise
            self.say(what[0], error)
        finally:
            self.depth -= 1

    # --- what can be done -------------------------------------------------------------------------

    def fail(self, error: type[BaseException]) -> None:
        raise error("on purpose")

    def settle(self, which: int, how: str, value: int) -> Any:
        waiter = self.waiters[which]
        match how:
            case "wake":
                return waiter.wake()
            case "error":
                return waiter.set_exception(ValueError("given"))
            case "cancel":
                return waiter.cancel("over")
            case "reset":
                return waiter.reset()
            case "anew":
                return waiter.anew() is waiter
            case _:
                return waiter.set_result(self.values[value])

    def ask(self, which: int, how: str) -> Any:
        return getattr(self.waiters[which], how)()

    def listen(self, which: int, then: tuple[Any, ...], how: int) -> Any:
        waiter, function = self.waiters[which], self.called(then)
        if how == 0:
            return waiter.add_done_callback(function)
        if how == 1:
            return waiter.add_done_callback(function, context=self.context)
        if how == 2:
            return waiter.add_done_callback(callback=function, context=None)  # type: ignore[call-arg]
        return waiter.remove_done_callback(function)

    def begin(self) -> Any:
        return self.turn.begin()

    def end(self) -> Any:
        return self.turn.end()

    def at_end(self, then: tuple[Any, ...]) -> Any:
        return self.turn.at_end(self.called(then))

    def run(self) -> None:
        due, self.due[:] = list(self.due), []
        for function in due:
            function()

    def put(self, which: int, how: str, data: bytes, value: int) -> Any:
        box = self.mailboxes[which]
        match how:
            case "encoded":
                return box.put_encoded(data)
            case "view":
                return box.put_encoded(memoryview(data))
            case "many":
                return box.put_many_encoded([data, b"x"])
            case "bytes":
                return box.put(data)
            case _:
                return box.put(self.values[value])

    def take(self, which: int, how: str) -> Any:
        box = self.mailboxes[which]
        match how:
            case "next":
                return box.next()
            case "came":
                found, message = box.next(as_it_came)
                return found, bytes(message) if isinstance(message, memoryview) else getattr(
                    message, "message", message
                )
            case "selective":
                return box.take(lambda message: isinstance(message, _Value))
            case "hold":
                return box.hold(True)
            case "free":
                return box.hold(False)
            case "close":
                return box.close(RuntimeError("closed"))
            case _:
                return box.waiting()

    def wait(self, how: str, which: int) -> None:
        async def run() -> Any:
            if how == "waiter":
                return await self.waiters[which % WAITERS]
            box = self.mailboxes[which % MAILBOXES]
            return await (box.next_to_come() if how == "coming" else box.get())

        self.coroutines.append(run())

    def step(self, which: int, how: str) -> Any:
        if not self.coroutines:
            return None
        coroutine = self.coroutines[which % len(self.coroutines)]
        try:
            match how:
                case "send":
                    given = coroutine.send(None)
                case "throw":
                    given = coroutine.throw(asyncio.CancelledError("thrown"))
                case "type":
                    given = coroutine.throw(ValueError)
                case _:
                    coroutine.close()
                    self.coroutines.remove(coroutine)
                    return None
        except StopIteration as error:
            self.coroutines.remove(coroutine)
            return "returned", error.value
        except BaseException:
            if coroutine in self.coroutines:
                self.coroutines.remove(coroutine)
            raise
        blocking = getattr(given, "_asyncio_future_blocking", None)
        if blocking:
            given._asyncio_future_blocking = False
        return "waits", self.waiters.index(given) if given in self.waiters else type(given).__name__, blocking

    # --- what there is to see ---------------------------------------------------------------------

    def state(self) -> Any:
        turn = self.turn
        return (
            self.log,
            (turn._open, turn._due, len(turn._settled), len(turn._last), len(self.due)),
            [
                (
                    repr(each._result) if each.done() else None,
                    repr(each._error),
                    each._callback is None,
                    each._more and len(each._more),
                )
                for each in self.waiters
            ],
            [
                (len(each), each._waits, each._sleeps, each._streak, each._remaining, repr(each._failure))
                for each in self.mailboxes
            ],
        )

    def close(self) -> list[int]:
        """Let go of everything; how often each value is still referred to."""
        with self:
            for coroutine in self.coroutines:
                coroutine.close()
            self.coroutines.clear()
            for waiter in self.waiters:
                waiter.reset()
            self.waiters.clear()
            self.mailboxes.clear()
            self.turn._settled.clear()
            self.turn._last.clear()
            self.due.clear()
            self.log.clear()
        return [sys.getrefcount(value) for value in self.values]


def turns(inputs: Any) -> Callable[[], tuple[int, int]]:
    """Calls in any order, out of each other too."""
    rng = inputs.rng
    sides = [Side(in_c=in_c) for in_c in (False, True)]

    def choose(depth: int = 0) -> tuple[Any, ...]:
        data = rng.choice((b"a", b"bc", b"!", b"?", b""))
        kind = rng.randrange(21 if depth < DEPTH else 12)
        match kind:
            case 0 | 1:
                how = rng.choice(("wake", "wake", "error", "cancel", "reset", "anew", "set", "set", "set"))
                return "settle", rng.randrange(WAITERS), how, rng.randrange(4)
            case 2:
                return "ask", rng.randrange(WAITERS), rng.choice(("result", "exception", "done", "cancelled"))
            case 3 | 4:
                how = rng.choice(("encoded", "encoded", "view", "many", "bytes", "value"))
                return "put", rng.randrange(MAILBOXES), how, data, rng.randrange(4)
            case 5 | 6:
                hows = ("next", "next", "came", "selective", "waiting", "free", "next", "hold")
                how = rng.choice(hows) if rng.random() < 0.98 else "close"
                return "take", rng.randrange(MAILBOXES), how
            case 7 | 8:
                how = rng.choice(("send", "send", "send", "send", "throw", "type", "close"))
                return "step", rng.randrange(100), how
            case 9:
                return "wait", rng.choice(("waiter", "coming", "coming", "get")), rng.randrange(4)
            case 10:
                error = rng.choice(
                    (ValueError, ValueError, KeyboardInterrupt, SystemExit, asyncio.CancelledError)
                )
                return ("fail", error) if depth else ("begin",)
            case 11 | 12:
                return rng.choice((("begin",), ("end",), ("run",), ("run",)))
            case 13 | 14 | 15:
                return "at_end", choose(depth + 1)
            case _:
                return "listen", rng.randrange(WAITERS), choose(depth + 1), rng.randrange(4)

    def feed() -> tuple[int, int]:
        what = choose()
        for side in sides:
            side.log.clear()
            with side:
                side.apply(what)
        plain, quick = (side.state() for side in sides)
        assert plain == quick, (what, plain, quick)
        assert "SystemError" not in repr(quick), quick
        return 1, 0

    def end() -> None:
        counts = [side.close() for side in sides]
        assert counts[0] == counts[1], counts

    feed.end = end  # type: ignore[attr-defined]
    return feed
