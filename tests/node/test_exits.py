"""How a Python exception reads as an exit reason."""

from __future__ import annotations

from typing import Any

import pytest

from pyglyn.errors import CallFailed, CallTimeout, NoProcess
from pyglyn.etf import Atom, decode
from pyglyn.node.exits import (
    MAX_MESSAGE_CHARACTERS,
    MAX_STACK_FRAMES,
    REASON_CHARACTERS,
    ErlangError,
    Exit,
    Throw,
    as_reason,
    atom_of,
    exception_term,
    exit_reason,
    reason_text,
    stack_term,
)
from pyglyn.node.mailbox import Mailbox


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


@pytest.mark.parametrize(
    ("exception", "reason"),
    [
        (Exit("shutdown"), Atom("shutdown")),
        (Exit(), Atom("normal")),
        (Exit((Atom("shutdown"), b"x")), (Atom("shutdown"), b"x")),
        (Throw(5), ((Atom("nocatch"), 5), [])),
        (SystemExit(), Atom("normal")),
        (SystemExit(0), Atom("normal")),
        (SystemExit(3), (Atom("exit_status"), 3)),
        (SystemExit("a text"), (Atom("exit_status"), 1)),
        (CallFailed("x", reason=(Atom("nodedown"), Atom("a@h"))), (Atom("nodedown"), Atom("a@h"))),
        (CallTimeout("x"), Atom("timeout")),
        (ValueError("bad"), ((Atom("exception"), Atom("ValueError"), b"bad"), [])),
    ],
)
def test_the_reason_of_an_exception(exception: BaseException, reason: Any) -> None:
    assert exit_reason(exception) == reason


def test_an_error_of_ours_with_a_word_for_it_has_that_word() -> None:
    error = NoProcess("x")
    error.reason = "noproc"  # type: ignore[attr-defined]
    assert exit_reason(error) == (Atom("noproc"), [])


def test_an_exception_without_text_still_has_a_reason() -> None:
    assert exception_term(Unprintable()) == (
        Atom("exception"),
        Atom("Unprintable"),
        b"it has no text: RuntimeError in its __str__",
    )


def test_texts_and_names_are_cut_and_always_encode() -> None:
    name = type("N" * 300, (Exception,), {})
    _, kind, text = exception_term(name("\ud800" + "x" * 5000))  # type: ignore[misc]
    assert kind == Atom("N" * 255)
    assert text == b"?" + b"x" * (MAX_MESSAGE_CHARACTERS - 1)


def recurse(depth: int) -> None:
    if not depth:
        raise ValueError("deep")
    recurse(depth - 1)


def test_a_stack_has_its_innermost_call_first_and_a_bounded_length() -> None:
    with pytest.raises(ValueError, match="deep") as caught:
        recurse(50)
    stack: Any = stack_term(caught.value.__traceback__)
    assert len(stack) == MAX_STACK_FRAMES
    module, function, arity, where = stack[0]
    assert (module, function, arity) == (Atom("test_exits"), Atom("recurse"), 0)
    places = dict(where)
    assert bytes(places[Atom("file")]).decode() == __file__
    assert places[Atom("line")] == recurse.__code__.co_firstlineno + 2


def test_frames_of_this_package_are_left_out_unless_there_are_no_others() -> None:
    mailbox = Mailbox(decode)
    mailbox.put("message")
    with pytest.raises(TypeError) as caught:
        mailbox.take("no function")  # type: ignore[arg-type]
    outer = caught.value.__traceback__
    assert outer is not None
    stack: Any = stack_term(outer)
    assert [frame[0] for frame in stack] == [Atom("test_exits")]
    stack = stack_term(outer.tb_next)
    assert {frame[0] for frame in stack} == {Atom("mailbox")}


@pytest.mark.parametrize(
    ("name", "term"),
    [("true", True), ("false", False), ("nil", None), ("other", Atom("other")), ("x" * 300, Atom("x" * 255))],
)
def test_a_name_as_a_term(name: str, term: Any) -> None:
    assert atom_of(name) is term


def test_a_plain_string_stands_for_the_atom() -> None:
    assert as_reason("shutdown") is Atom("shutdown")
    assert as_reason(b"shutdown") == b"shutdown"


def test_an_error_of_ones_own_is_told_with_its_stack_or_the_one_it_brings() -> None:
    assert exit_reason(ErlangError("badarg")) == (Atom("badarg"), [])
    brought = ErlangError((Atom("bad"), 1))
    brought.stack = [Atom("frame")]
    assert exit_reason(brought) == ((Atom("bad"), 1), [Atom("frame")])
    with pytest.raises(ErlangError) as raised:
        raise ErlangError("here")
    reason, stack = exit_reason(raised.value)  # type: ignore[misc]
    assert reason is Atom("here")
    assert [frame[0] for frame in stack] == [Atom("test_exits")]


def test_an_exception_of_a_long_name_or_a_broken_text_has_a_reason_all_the_same() -> None:
    long = type("E" * 300, (Exception,), {})
    assert exception_term(long("\ud800")) == (Atom("exception"), Atom("E" * 255), b"?")


def test_an_exception_is_shown_as_python_does_with_where_it_was_raised() -> None:
    def fails() -> None:
        raise ValueError("bad\nquantity")

    with pytest.raises(ValueError, match="bad") as caught:
        fails()
    text = reason_text(exit_reason(caught.value))
    line = fails.__code__.co_firstlineno + 1
    assert text.startswith("ValueError: bad quantity (")
    assert text.endswith(f"test_exits.py:{line} in fails)")


def test_other_reasons_are_terms_on_one_line() -> None:
    assert reason_text((Atom("signal"), 9)) == "{signal,9}"
    long = reason_text([Atom("a")] * 10_000)
    assert len(long) <= REASON_CHARACTERS + 10
    assert "\n" not in reason_text(b"a\nb")
