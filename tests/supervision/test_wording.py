"""How children and exit reasons are shown to people."""

from __future__ import annotations

from typing import Any

import pytest

from pyglyn.etf import Atom
from pyglyn.node.exits import exit_reason
from pyglyn.supervision import program, supervisor, worker
from pyglyn.supervision.wording import REASON_CHARACTERS, reason_text, reason_word, shown
from tests.supervision.trees import Ingest, job


def test_a_child_is_shown_by_its_name_or_its_id() -> None:
    assert shown(worker(job, name="stock", id="x")) == "stock"
    assert shown(worker(job)) == "job"
    assert shown(supervisor(Ingest)) == "Ingest"
    assert shown(program(["/bin/ls"])) == "ls"


def test_an_exception_is_shown_as_python_does_with_where_it_was_raised() -> None:
    def fails() -> None:
        raise ValueError("bad\nquantity")

    with pytest.raises(ValueError, match="bad") as caught:
        fails()
    text = reason_text(exit_reason(caught.value))
    line = fails.__code__.co_firstlineno + 1
    assert text.startswith("ValueError: bad quantity (")
    assert text.endswith(f"test_wording.py:{line} in fails)")


def test_other_reasons_are_terms_on_one_line() -> None:
    assert reason_text((Atom("signal"), 9)) == "{signal,9}"
    long = reason_text([Atom("a")] * 10_000)
    assert len(long) <= REASON_CHARACTERS + 10
    assert "\n" not in reason_text(b"a\nb")


def test_a_reason_that_only_looks_like_an_exception_or_a_status_is_shown_too() -> None:
    """Another node may end a child with any reason; its supervisor logs and counts it."""
    wrong: list[list[Any]] = [[300], [-1], [Atom("x")]]
    for file, line in [*((file, 1) for file in wrong), ([*b"x.py"], 10**5000)]:
        place: list[Any] = [(Atom("file"), file), (Atom("line"), line)]
        stack: list[Any] = [(Atom("m"), Atom("f"), 1, place)]
        assert reason_text(((Atom("exception"), Atom("K"), b"text"), stack)) == "K: text"
    assert len(reason_word((Atom("exit_status"), 10**5000))) < 100
