"""How children and exit reasons are shown to people. Layer: supervision."""

from __future__ import annotations

import contextlib
from typing import Any, Final

from pyglyn import etf
from pyglyn.etf import Atom, Term
from pyglyn.supervision.os.command import ProgramStart
from pyglyn.supervision.running import Running
from pyglyn.supervision.spec import CallableStart, ChildSpec, SupervisorStart

REASON_CHARACTERS: Final = 400
WORD_CHARACTERS: Final = 40


def shown(spec: ChildSpec) -> str:
    """A child for people: its name, or its id."""
    return spec.name or str(spec.id)


def label(run: Running) -> str:
    """What a child runs, for people."""
    start = run.start
    if isinstance(start, ProgramStart):
        return start.argv[0]
    if isinstance(start, SupervisorStart):
        return "supervisor"
    assert isinstance(start, CallableStart)
    return str(getattr(start.target, "__qualname__", type(start.target).__name__))


def reason_text(reason: Term) -> str:
    """A reason on one line: an exception as Python says it, with where it was raised."""
    match reason:
        case ((Atom("exception"), kind, bytes() as message), list() as stack):
            where = _where(stack)
            return f"{kind!s}: {message.decode(errors='replace')}{where}".replace("\n", " ")
        case _:
            return etf.text.format(reason, limit=REASON_CHARACTERS).replace("\n", " ")


def reason_word(reason: Term) -> str:
    """A reason in a word or two, for statistics: there are few of them, whatever the reasons are about."""
    match reason:
        case ((Atom("exception"), Atom() as kind, bytes()), list()):
            return kind.name[:WORD_CHARACTERS]
        case (Atom("signal"), _, Atom("out_of_memory")):
            return "out_of_memory"
        case (Atom("signal" | "exit_status") as what, int() as number):
            return f"{what.name} {etf.text.format(number, limit=WORD_CHARACTERS)}"
        case (Atom("shutdown"), Atom("recycled")):
            return "recycled"
        case Atom() as word:
            return word.name[:WORD_CHARACTERS]
        case (Atom() as word, *_):
            return word.name[:WORD_CHARACTERS]
        case ((Atom() as word, *_), list()):
            return word.name[:WORD_CHARACTERS]
        case _:
            return "other"


def _where(stack: list[Any]) -> str:
    for entry in stack[:1]:
        match entry:
            case (_, function, _, [(_, list() as file), (_, int() as line)]):
                with contextlib.suppress(TypeError, ValueError):  # another node may say anything
                    name = bytes(file).decode(errors="replace")
                    return f" ({name}:{line} in {etf.text.format(function)})"
    return ""
