"""How children and exit reasons are shown to people."""

from __future__ import annotations

from typing import Any

from pyglyn.etf import Atom
from pyglyn.node.exits import reason_text
from pyglyn.supervision import program, supervisor, worker
from pyglyn.supervision.wording import reason_word, shown
from tests.supervision.trees import Ingest, job


def test_a_child_is_shown_by_its_name_or_its_id() -> None:
    assert shown(worker(job, name="stock", id="x")) == "stock"
    assert shown(worker(job)) == "job"
    assert shown(supervisor(Ingest)) == "Ingest"
    assert shown(program(["/bin/ls"])) == "ls"


def test_a_reason_that_only_looks_like_an_exception_or_a_status_is_shown_too() -> None:
    """Another node may end a child with any reason; its supervisor logs and counts it."""
    wrong: list[list[Any]] = [[300], [-1], [Atom("x")]]
    for file, line in [*((file, 1) for file in wrong), ([*b"x.py"], 10**5000)]:
        place: list[Any] = [(Atom("file"), file), (Atom("line"), line)]
        stack: list[Any] = [(Atom("m"), Atom("f"), 1, place)]
        assert reason_text(((Atom("exception"), Atom("K"), b"text"), stack)) == "K: text"
    assert len(reason_word((Atom("exit_status"), 10**5000))) < 100
