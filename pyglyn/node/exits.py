"""Exit reasons: how a process says why it ends, and what a Python exception is on the BEAM. Layer: node.

An uncaught exception becomes ``{{exception, 'ValueError', <<"bad quantity">>}, Stack}``, the shape of an
Erlang error with its stack trace (``[{Module, Function, Arity, [{file, F}, {line, N}]}]``, innermost call
first), so that BEAM tools print it as they print their own.
"""

from __future__ import annotations

import contextlib
import os
import traceback
from types import TracebackType
from typing import Any, Final

from pyglyn import etf
from pyglyn.errors import CallFailed, CallTimeout, PyglynError
from pyglyn.etf import Atom, Term
from pyglyn.node.reasons import NORMAL

EXCEPTION = Atom("exception")
MAX_STACK_FRAMES = 8
_OWN_FOLDER = os.path.dirname(os.path.dirname(__file__)) + os.sep
MAX_MESSAGE_CHARACTERS = 1000
REASON_CHARACTERS: Final = 400


class Exit(BaseException):
    """Raise in a process to end it with a reason, as Erlang's ``exit/1``.

    It is no ``Exception``, so that ``except Exception`` does not keep a process alive.

    Attributes:
        reason: any term; ``"shutdown"`` stands for the atom.
    """

    def __init__(self, reason: Term = NORMAL) -> None:
        super().__init__(reason)
        self.reason: Term = Atom(reason) if isinstance(reason, str) else reason


class Placed(Exception):
    """An error that may know better than its traceback where it comes from.

    Attributes:
        stack: the stack trace it is told with; by default where it was raised.
    """

    stack: list[Term] | None = None


class ErlangError(Placed):
    """Raise in a process or an exported function to fail with an error of one's own, as Erlang's ``error/1``.

    Attributes:
        reason: any term; ``"badarg"`` stands for the atom.
    """

    def __init__(self, reason: Term) -> None:
        super().__init__(reason)
        self.reason: Term = Atom(reason) if isinstance(reason, str) else reason


class Throw(BaseException):
    """Raise in an exported function to answer its caller with a throw, as Erlang's ``throw/1``."""

    def __init__(self, value: Term) -> None:
        super().__init__(value)
        self.value = value


def as_reason(reason: Term) -> Term:
    """An exit reason given by a user: a plain string stands for the atom."""
    return Atom(reason) if isinstance(reason, str) else reason


def exception_term(exception: BaseException) -> Term:
    """``{exception, Type, Message}``; our own errors and ``ErlangError`` reasons keep their term."""
    try:
        message = str(exception)[:MAX_MESSAGE_CHARACTERS]
    except Exception as error:
        message = f"it has no text: {type(error).__name__} in its __str__"
    return (EXCEPTION, Atom(type(exception).__name__[:255]), message.encode("utf-8", "replace"))


def stack_term(tb: TracebackType | None) -> list[Term]:
    """A traceback as an Erlang stack trace, innermost call first, at most 8 entries, none of this package."""
    frames = list(traceback.extract_tb(tb))
    outside = [frame for frame in frames if not is_own_code(frame.filename)]
    frames = (outside or frames)[-MAX_STACK_FRAMES:]
    return [call_site(frame.filename, frame.name, 0, frame.lineno or 0) for frame in reversed(frames)]


def call_site(filename: str, function: str, arity: int, line: int) -> tuple[Term, ...]:
    """An entry of an Erlang stack trace for a place in a Python file."""
    module = filename.rsplit("/", 1)[-1].removesuffix(".py") or "python"
    where: list[Term] = [(Atom("file"), list(filename.encode())), (Atom("line"), line)]
    return (atom_of(module), atom_of(function), arity, where)


def is_own_code(filename: str) -> bool:
    """Whether a file is of this package."""
    return filename.startswith(_OWN_FOLDER)


def atom_of(name: str) -> Term:
    """The term of a name: also ``true``, ``false`` and ``nil``, cut to 255 characters."""
    special: dict[str, Term] = {"true": True, "false": False, "nil": None}
    return special[name] if name in special else Atom(name[:255])


def exit_reason(exception: BaseException) -> Term:
    """The exit reason of a process that ended with this exception."""
    if isinstance(exception, Exit):
        return exception.reason
    if isinstance(exception, Throw):
        return ((Atom("nocatch"), exception.value), stack_term(exception.__traceback__))
    if isinstance(exception, ErlangError):
        return (exception.reason, _stack_of(exception))
    if isinstance(exception, SystemExit):
        return NORMAL if not exception.code else (Atom("exit_status"), _status(exception.code))
    if isinstance(exception, CallFailed):
        reason: Term = exception.reason
        return reason
    if isinstance(exception, CallTimeout):
        return Atom("timeout")
    word = getattr(exception, "reason", None) if isinstance(exception, PyglynError) else None
    if isinstance(word, str):
        return (Atom(word), stack_term(exception.__traceback__))
    return (exception_term(exception), _stack_of(exception))


def is_placed(exception: BaseException) -> bool:
    """Whether it says itself where it comes from, and its traceback says nothing more."""
    return isinstance(exception, Placed) and exception.stack is not None


def _stack_of(exception: BaseException) -> list[Term]:
    if isinstance(exception, Placed) and exception.stack is not None:
        return exception.stack
    return stack_term(exception.__traceback__)


def _status(code: object) -> int:
    return code if isinstance(code, int) else 1


def reason_text(reason: Term) -> str:
    """A reason for people, on one line: an exception as Python says it, with where it was raised."""
    match reason:
        case ((Atom("exception"), kind, bytes() as message), list() as stack):
            where = _where(stack)
            return f"{kind!s}: {message.decode(errors='replace')}{where}".replace("\n", " ")
        case _:
            return etf.text.format(reason, limit=REASON_CHARACTERS).replace("\n", " ")


def _where(stack: list[Any]) -> str:
    for entry in stack[:1]:
        match entry:
            case (_, function, _, [(_, list() as file), (_, int() as line)]):
                with contextlib.suppress(TypeError, ValueError):  # another node may say anything
                    name = bytes(file).decode(errors="replace")
                    return f" ({name}:{line} in {etf.text.format(function)})"
    return ""
