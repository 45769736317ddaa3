"""Child specifications as Erlang terms, both ways."""

from __future__ import annotations

from typing import Any

import pytest

from pyglyn.errors import SpecificationError
from pyglyn.etf import Atom, TermMap, decode, encode
from pyglyn.supervision.declaration import program, worker
from pyglyn.supervision.erlang_spec import child_record, child_spec_from_term, child_spec_to_term
from pyglyn.supervision.os.command import ProgramStart
from pyglyn.supervision.spec import (
    CallableStart,
    ChildSpec,
    ExportStart,
)
from pyglyn.supervision.words import (
    Restart,
    ShutdownWord,
    StartMethod,
)
from tests.supervision.trees import job, tree

A = Atom


def test_erlang_maps_and_tuples_become_specifications() -> None:
    mfa = (A("shop"), A("stock"), [1, b"x"])
    spec = child_spec_from_term({A("id"): A("s"), A("start"): mfa})
    assert spec == ChildSpec(id=A("s"), start=ExportStart(*mfa), modules=(A("shop"),))
    assert spec.shutdown == 5.0
    nested = child_spec_from_term({A("id"): [1], A("start"): mfa, A("type"): A("supervisor")})
    assert nested.shutdown is ShutdownWord.INFINITY
    old = child_spec_from_term((A("s"), mfa, A("transient"), 1500, A("worker"), A("dynamic")))
    assert (old.restart, old.shutdown, old.modules) == (Restart.TRANSIENT, 1.5, "dynamic")
    odd = TermMap([(1, 2), (1.0, 3), (A("id"), A("s")), (A("start"), mfa), (A("shutdown"), A("brutal_kill"))])
    assert child_spec_from_term(odd).shutdown is ShutdownWord.BRUTAL_KILL


def test_our_own_options_may_stand_in_an_erlang_map() -> None:
    term = {
        A("id"): A("s"),
        A("start"): (A("m"), A("f"), []),
        A("name"): A("stock"),
        A("isolation"): A("process"),
        A("start_method"): A("spawn"),
        A("start_timeout"): 2500,
        A("heartbeat"): 1000,
        A("memory_limit"): 1 << 20,
    }
    spec = child_spec_from_term(term)
    assert (spec.name, spec.start_timeout, spec.heartbeat) == ("stock", 2.5, 1.0)
    assert (spec.start_method, spec.memory_limit) == (StartMethod.SPAWN, 1 << 20)


@pytest.mark.parametrize("shutdown", [0, 1, 999, 5000, 12345, 10**8])
def test_milliseconds_survive_the_way_there_and_back(shutdown: int) -> None:
    term = {A("id"): A("s"), A("start"): (A("m"), A("f"), []), A("shutdown"): shutdown}
    assert child_spec_to_term(child_spec_from_term(term))[A("shutdown")] == shutdown


@pytest.mark.parametrize("child", tree().children, ids=lambda child: child.id.name)
def test_every_specification_is_a_term(child: ChildSpec) -> None:
    """What Python declares can be shown to Erlang: arguments that are no terms as text."""
    term = child_spec_to_term(child)
    assert decode(encode(term)) == term
    assert len(term) == 7
    assert decode(encode(child_record(child))) == child_record(child)


def test_starts_are_shown_as_module_function_arguments() -> None:
    shown = child_spec_to_term(worker(job, 1, "text", object, id="x"))[A("start")]
    assert shown == (A(job.__module__), A("job"), [1, b"text", repr(object).encode()])
    assert child_spec_to_term(worker(job, 1, id="x"), args_kept=False)[A("start")] == (
        A(job.__module__),
        A("job"),
        A("undefined"),
    )
    assert child_spec_to_term(program(["ls", "-l"]))[A("start")] == (A("program"), A("ls"), [b"ls", b"-l"])
    assert isinstance(worker(job).start, CallableStart)
    assert isinstance(program(["ls"]).start, ProgramStart)


@pytest.mark.parametrize(
    "term", [None, 1, A("x"), [], (), (1, 2, 3, 4, 5), {1: 2}, {A("id"): 1}, b"x", {A("start"): A("f")}]
)
def test_other_terms_are_refused(term: Any) -> None:
    with pytest.raises(SpecificationError):
        child_spec_from_term(term)
