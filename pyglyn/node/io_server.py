"""The process that answers I/O requests of functions we run elsewhere: our group leader. Layer: node.

Source: stdlib "The Erlang I/O Protocol"; requests as real nodes send them (OTP 25, 28). Output goes to the
log, line by line, formatted as OTP does (``etf.io_lib``); there is no input (``eof``).
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING

from pyglyn import etf
from pyglyn.etf import Atom, Pid, Term
from pyglyn.node.process import Process
from pyglyn.node.reasons import ERROR, OK

if TYPE_CHECKING:
    from pyglyn.etf.io_write import Names

logger = logging.getLogger("pyglyn.io")

REQUEST = Atom("request")
IO_REPLY = Atom("io_reply")
ENOTSUP = Atom("enotsup")

MAX_DEPTH = 100
MAX_REQUESTS = 1000
"""Requests that one request may be made of."""
MAX_LINE = 4096
"""Characters without a newline after which they are logged all the same: dots of progress may never end."""
MAX_LINES = 10_000
"""Lines that are logged of one text; of more it is said how many they are."""
LINES_A_TURN = 32
"""Lines that are logged before others have their turn."""

Steps = Generator[None, None, Term]
"""Gives an answer in the end, and before that lets others have their turn now and then."""


class IoServer:
    """The body of the process named ``user``."""

    def __init__(self, node: str) -> None:
        self._line = ""
        self._left = 0
        self._node = node

    @functools.cached_property
    def _names(self) -> Names:
        from pyglyn.etf.io_write import Names  # late, as io_lib: most nodes are never asked to print

        return Names(self._node)

    async def __call__(self, me: Process) -> None:
        """Answer requests for ever; anything else is dropped."""
        while True:
            match await me.receive():
                case (Atom("io_request"), Pid() as pid, reply_as, request):
                    steps = self.answering(request)
                    while True:
                        try:
                            next(steps)
                        except StopIteration as answered:
                            me.send(pid, (IO_REPLY, reply_as, answered.value))
                            break
                        await asyncio.sleep(0)

    def answer(self, request: Term) -> Term:
        """The reply to one I/O request, whatever it takes."""
        steps = self.answering(request)
        while True:
            try:
                next(steps)
            except StopIteration as answered:
                value: Term = answered.value
                return value

    def answering(self, request: Term) -> Steps:
        """Find the reply to one I/O request, step by step."""
        self._left = MAX_REQUESTS
        try:
            return (yield from self._answer(request))
        except (ValueError, OverflowError):
            return (ERROR, REQUEST)

    def _answer(self, request: Term, depth: int = 0) -> Steps:
        match request:
            case (Atom("put_chars"), Atom("latin1"), bytes() as data):
                return (yield from self.write(data.decode("latin-1")))
            case (Atom("put_chars"), _, data) | (Atom("put_chars"), data):
                from pyglyn.etf import io_lib

                return (yield from self.write(io_lib.characters(data)))
            case (Atom("put_chars"), _, Atom(module), Atom(function), args):
                try:
                    made = self._made(module, function, args)
                except (ValueError, OverflowError):
                    return (ERROR, Atom(function))
                yield
                return (yield from self.write(made))
            case (Atom("requests"), list() as requests):
                return (yield from self._each(requests, depth))
            case (Atom("get_geometry"), _):
                return (ERROR, ENOTSUP)
            case Atom("getopts"):
                return [(Atom("binary"), True), (Atom("encoding"), Atom("unicode"))]
            case (Atom("setopts"), _):
                return OK
            case (Atom("get_line" | "get_chars" | "get_until" | "get_password"), *_):
                return Atom("eof")
            case _:
                return (ERROR, REQUEST)

    def _each(self, requests: list[Term], depth: int) -> Steps:
        if depth >= MAX_DEPTH:
            raise ValueError("requests nested too deeply")
        answer: Term = OK
        for each in requests:
            self._left -= 1
            if self._left < 0:
                raise ValueError("too many requests in one")
            answer = yield from self._answer(each, depth + 1)
            if isinstance(answer, tuple) and answer[0] is ERROR:
                break
        return answer

    def _made(self, module: str, function: str, args: Term) -> str:
        """What ``Module:Function(Args…)`` makes of its arguments, of module io_lib; others are shown."""
        from pyglyn.etf import io_lib

        match module, function, args:
            case "io_lib", "format" | "fwrite", [template, values]:
                return io_lib.format(template, values, self._names)
            case "io_lib", "write", [term]:
                return io_lib.format(b"~w", [term], self._names)
            case "io_lib", "write", [term, depth]:
                return io_lib.format(b"~W", [term, depth], self._names)
            case "io_lib", "print", [term]:
                return io_lib.format(b"~p", [term], self._names)
            case "io_lib", "print", [term, column, width, depth]:
                return io_lib.format(b"~*.*P", [width, column, term, depth], self._names)
        return etf.text.format(args, limit=MAX_LINE)

    def write(self, text: str) -> Steps:
        """Log each complete line; the rest waits for its newline, or until it is long."""
        for number, line in enumerate(self._complete(text), 1):
            logger.info("%s", line)
            if number % LINES_A_TURN == 0:
                yield
        return OK

    def _complete(self, text: str) -> Iterator[str]:
        """The lines that are complete with this text, long ones in pieces."""
        *lines, rest = (self._line + text).split("\n", MAX_LINES)
        further = rest.count("\n")
        self._line = rest[rest.rfind("\n") + 1 :]
        for line in lines:
            yield from _pieces(line)
        if further:
            yield f"({further} more lines)"
        if len(self._line) > MAX_LINE:
            line, self._line = self._line, ""
            yield from _pieces(line)


def _pieces(line: str) -> Iterator[str]:
    for at in range(0, max(len(line), 1), 2 * MAX_LINE):
        yield line[at : at + 2 * MAX_LINE]
