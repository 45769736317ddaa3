"""How children and exit reasons are shown to people. Layer: supervision."""

from __future__ import annotations

from typing import Final

from pyglyn import etf
from pyglyn.etf import Atom, Term
from pyglyn.supervision.os.command import ProgramStart
from pyglyn.supervision.running import Running
from pyglyn.supervision.spec import CallableStart, ChildSpec, SupervisorStart

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
