"""The process that answers I/O requests of functions we run elsewhere: our group leader. Layer: node.

Source: stdlib "The Erlang I/O Protocol"; requests as real nodes send them (OTP 25, 28). Output goes to the
log, line by line; there is no input (``eof``). Formats: the common controls of ``io_lib:format``
(``~p ~w ~s ~ts ~b ~c ~f ~e ~g ~n ~~``, with field width, precision and padding ignored).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator

from pyglyn import etf
from pyglyn.etf import Atom, Pid, Term
from pyglyn.node.process import Process
from pyglyn.node.reasons import ERROR, OK

logger = logging.getLogger("pyglyn.io")

REQUEST = Atom("request")
IO_REPLY = Atom("io_reply")
ENOTSUP = Atom("enotsup")

_CONTROL = re.compile(r"~(-?\*?\d*)(?:\.(\*|-?\d+))?(?:\.(.))?(t?l?)([a-zA-Z~])")
_NO_ARGUMENT = {"n": "\n", "~": "~"}
MAX_DEPTH = 100
MAX_LINE = 4096
"""Characters without a newline after which they are logged all the same: dots of progress may never end."""


class UnsupportedFormat(ValueError):
    """A format control this server does not know, or too few arguments."""


def characters(data: Term) -> str:
    """The text of Erlang chardata: a binary, or a list of code points, binaries and lists.

    Raises:
        ValueError: something else.
    """
    return "".join(_characters(data, 0))


def _characters(data: Term, depth: int) -> Iterator[str]:
    if depth > MAX_DEPTH:
        raise ValueError("chardata nested too deeply")
    if isinstance(data, bytes):
        yield data.decode("utf-8", "replace")
    elif isinstance(data, list):
        for item in data:
            yield from _characters(item, depth + 1)
    elif isinstance(data, int) and not isinstance(data, bool) and 0 <= data < 0x110000:
        yield chr(data)
    elif isinstance(data, Atom):
        yield data.name
    else:
        raise ValueError("not chardata")


def io_lib_format(template: Term, args: Term) -> str:
    """Format as ``io_lib:format`` does, for the common controls.

    Raises:
        UnsupportedFormat: an unknown control or the wrong number of arguments.
    """
    values = iter(args if isinstance(args, list) else [])

    def one(match: re.Match[str]) -> str:
        control = match.group(5)
        if control in _NO_ARGUMENT:
            return _NO_ARGUMENT[control]
        try:
            value = next(values)
        except StopIteration:
            raise UnsupportedFormat("too few arguments") from None
        return _control(control, value)

    return _CONTROL.sub(one, characters(template))


def _control(control: str, value: Term) -> str:
    if control in "pwPW":
        return etf.text.format(value)
    if control == "s":
        return characters(value)
    if control == "c" and isinstance(value, int):
        return chr(value)
    if control in "bBx" and isinstance(value, int):
        return str(value)
    if control in "feg" and isinstance(value, (int, float)):
        return format(float(value), ".6f" if control == "f" else control)
    if control == "i":
        return ""
    raise UnsupportedFormat(f"~{control}")


class IoServer:
    """The body of the process named ``user``."""

    def __init__(self) -> None:
        self._line = ""

    async def __call__(self, me: Process) -> None:
        """Answer requests for ever; anything else is dropped."""
        while True:
            match await me.receive():
                case (Atom("io_request"), Pid() as pid, reply_as, request):
                    me.send(pid, (IO_REPLY, reply_as, self.answer(request)))

    def answer(self, request: Term) -> Term:
        """The reply to one I/O request."""
        try:
            return self._answer(request)
        except (ValueError, OverflowError):
            return (ERROR, REQUEST)

    def _answer(self, request: Term, depth: int = 0) -> Term:
        match request:
            case (Atom("put_chars"), _, data) | (Atom("put_chars"), data):
                return self.write(characters(data))
            case (Atom("put_chars"), _, Atom("io_lib"), Atom("format" | "fwrite"), [template, args]):
                return self.write(io_lib_format(template, args))
            case (Atom("put_chars"), _, Atom("io_lib"), Atom("write" | "print"), [term, *_]):
                return self.write(etf.text.format(term))
            case (Atom("put_chars"), _, Atom(), Atom(), args):
                return self.write(etf.text.format(args))
            case (Atom("requests"), list() as requests):
                if depth >= MAX_DEPTH:
                    raise ValueError("requests nested too deeply")
                answer: Term = OK
                for each in requests:
                    answer = self._answer(each, depth + 1)
                    if isinstance(answer, tuple) and answer[0] is ERROR:
                        break
                return answer
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

    def write(self, text: str) -> Term:
        """Log each complete line; the rest waits for its newline, or until it is long."""
        *lines, self._line = (self._line + text).split("\n")
        if len(self._line) > MAX_LINE:
            lines.append(self._line)
            self._line = ""
        for line in lines:
            logger.info("%s", line)
        return OK
