"""Children that Erlang may start: what is found, what is refused, whose options count."""

from __future__ import annotations

from typing import Any

import pytest

from pyglyn.errors import ChildStartError, UnsupportedType
from pyglyn.etf import Atom
from pyglyn.supervision import ChildSpec, program, supervisor, worker
from pyglyn.supervision.exported import ExportedChildren
from pyglyn.supervision.os.command import ProgramStart
from pyglyn.supervision.spec import CallableStart, ExportStart, SupervisorStart
from tests.supervision.trees import Ingest, job

A = Atom


def stock(items: Any) -> ChildSpec:
    if items == b"none":
        raise ValueError("no items")
    return worker(job, items, name="stock", memory_limit="1 MiB", restart="transient", heartbeat=2.0)


@pytest.fixture
def exported() -> ExportedChildren:
    table = ExportedChildren()
    table.add("shop", "job", job)
    table.add("shop", "stock", stock)
    return table


def from_erlang(function: str, *args: Any, **options: Any) -> ChildSpec:
    return ChildSpec(id=A("x"), start=ExportStart(A("shop"), A(function), list(args)), **options)


def test_a_name_is_given_once() -> None:
    table = ExportedChildren()
    table.add("shop", "job", job)
    table.add("shop", "job", job)
    with pytest.raises(ValueError, match="shop:job is exported"):
        table.add("shop", "job", stock)


def test_a_function_that_says_nothing_of_what_it_returns_is_refused() -> None:
    def unclear(items):  # type: ignore[no-untyped-def]
        return worker(job, items)

    def child(me: Any) -> None:
        me.receive()

    table = ExportedChildren()
    with pytest.raises(TypeError, match=r"shop:unclear .* write `-> ChildSpec`"):
        table.add("shop", "unclear", unclear)
    table.add("shop", "child", child)


def test_what_is_returned_may_be_named_before_it_is_defined_but_has_to_be_in_the_end() -> None:
    module: dict[str, Any] = {"worker": worker, "job": job}
    source = """
def parts(me: Unknown, items: AlsoUnknown) -> None: ...
def later(items: Unknown) -> Spec: return worker(job, items)
async def child(me: Unknown) -> Unknown: ...
"""
    exec("from __future__ import annotations" + source, module)
    table = ExportedChildren()
    table.add("shop", "parts", module["parts"])
    table.add("shop", "later", module["later"])
    message = (
        r"^shop:later: what it returns is annotated 'Spec', and 'Spec' names nothing visible in its module; "
        r"import or define it there, not for type checking only and not within a function$"
    )
    with pytest.raises(UnsupportedType, match=message):
        table.check()
    with pytest.raises(UnsupportedType, match=message):
        table.resolve(from_erlang("later", 1))
    assert table.described(from_erlang("later", 1).start) is None  # type: ignore[arg-type]
    assert table.resolve(from_erlang("parts", 1))[1] == CallableStart(module["parts"], (1,))
    module["Spec"] = ChildSpec
    table.check()
    assert table.resolve(from_erlang("later", 1))[1] == CallableStart(job, (1,))
    table.add("shop", "child", module["child"])  # async: it is the child itself, whatever it returns
    table.check()


def test_the_child_itself_gets_the_arguments_and_those_of_start_child(exported: ExportedChildren) -> None:
    spec, start = exported.resolve(from_erlang("job", 1), (2,))
    assert (spec, start) == (from_erlang("job", 1), CallableStart(job, (1, 2)))


def test_a_specification_gives_what_erlang_left_open_and_nothing_else(exported: ExportedChildren) -> None:
    spec, start = exported.resolve(from_erlang("stock", b"x", heartbeat=9.0))
    assert start == CallableStart(job, (b"x",))
    assert (spec.id, spec.name, spec.memory_limit, spec.heartbeat) == (A("x"), "stock", 1 << 20, 9.0)
    described = exported.described(ExportStart(A("shop"), A("stock"), [b"x"]))
    assert described is not None
    assert described.restart == "transient"


@pytest.mark.parametrize(
    ("function", "args"), [("job", [1]), ("stock", []), ("stock", [b"none"]), ("other", [])], ids=str
)
def test_what_makes_no_specification_describes_nothing(
    exported: ExportedChildren, function: str, args: list[Any]
) -> None:
    assert exported.described(ExportStart(A("shop"), A(function), args)) is None


@pytest.mark.parametrize(("function", "args"), [("other", []), ("stock", []), ("stock", [1, 2])])
def test_what_is_not_there_is_undef(exported: ExportedChildren, function: str, args: list[Any]) -> None:
    with pytest.raises(ChildStartError) as caught:
        exported.resolve(from_erlang(function, *args))
    assert caught.value.reason == (A("EXIT"), (A("undef"), [(A("shop"), A(function), args, [])]))


def test_dynamic_arguments_follow_the_given_ones(exported: ExportedChildren) -> None:
    assert exported.resolve(worker(job, 1), (2,))[1] == CallableStart(job, (1, 2))
    assert exported.resolve(supervisor(Ingest), ("shop",))[1] == SupervisorStart(Ingest, ("shop",))
    _, start = exported.resolve(program(["ls"]), (b"-l", A("x"), 3))
    assert isinstance(start, ProgramStart)
    assert start.argv == ("ls", "-l", "x", "3")


@pytest.mark.parametrize("word", [b"a\0b", (1,), [], {}])
def test_a_programs_argument_is_a_word(exported: ExportedChildren, word: Any) -> None:
    with pytest.raises(ChildStartError) as caught:
        exported.resolve(program(["ls"]), (word,))
    assert caught.value.reason == A("badarg")
