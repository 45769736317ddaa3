"""Asking the scopes of a node: where it is asked, what an error becomes on the way, who is kept."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from pyglyn.errors import (
    CallFailed,
    CallTimeout,
    GroupError,
    NameTaken,
    NoProcess,
    NotInGroup,
    ProcessError,
    RegistrationFailed,
)
from pyglyn.etf import Atom, Term
from pyglyn.groups.operations import OPERATION, do, error_term, forget, running, started, stopped
from pyglyn.node import Node, Process
from tests.node.joined import Joined, joined

OK, ERROR = Atom("ok"), Atom("error")


class Kept:
    """What is asked of a scope here, and nothing else."""

    def __init__(self, node: Node, name: str, *, fails: Exception | None = None) -> None:
        self.node, self.name = node, name
        self.lives: list[str] = []
        self.asked: list[Any] = []
        self._fails = fails

    def start(self) -> None:
        if self._fails is not None:
            raise self._fails
        self.lives.append("started")

    def stop(self) -> None:
        self.lives.append("stopped")

    def overview(self) -> Term:
        return self.name.encode()

    async def operate(self, operation: str, *args: Any) -> Any:
        self.asked.append((operation, *args))
        return len(self.asked)


@pytest.fixture
async def here() -> AsyncIterator[Joined]:
    async with joined() as made:
        yield made


def kept(here: Joined, name: str) -> Kept:
    return started(here.node, name, lambda: Kept(here.node, name))


# --- which scopes there are -----------------------------------------------------------------------------


async def test_a_scope_is_started_once_and_found_until_it_is_stopped(here: Joined) -> None:
    scope = kept(here, "one")
    assert kept(here, "one") is scope
    assert scope.lives == ["started"]
    assert running(here.node, "one") is scope
    assert kept(here, "two") is not scope
    assert stopped(here.node, "one")
    assert scope.lives == ["started", "stopped"]
    assert running(here.node, "one") is None
    assert not stopped(here.node, "one")
    assert kept(here, "one") is not scope


async def test_a_scope_that_does_not_start_is_not_there(here: Joined) -> None:
    with pytest.raises(NameTaken):
        started(here.node, "one", lambda: Kept(here.node, "one", fails=NameTaken("taken")))
    assert running(here.node, "one") is None


async def test_a_scope_that_has_ended_takes_no_later_one_of_its_name_along(here: Joined) -> None:
    first = kept(here, "one")
    forget(first)
    second = kept(here, "one")
    assert second is not first
    forget(first)
    assert running(here.node, "one") is second
    forget(second)
    forget(second)
    assert running(here.node, "one") is None


async def test_the_scopes_of_a_node_are_its_own(here: Joined) -> None:
    async with joined() as other:
        kept(here, "one")
        assert running(other.node, "one") is None


async def test_a_node_tells_what_is_in_its_scopes_in_the_order_of_their_names(here: Joined) -> None:
    for name in ("b", "c", "a"):
        kept(here, name)
    groups = here.node.builtins.find(Atom("pyglyn"), Atom("groups"), 0)
    assert groups is not None
    assert await groups.run(here.node.system, []) == [b"a", b"b", b"c"]


# --- asking ---------------------------------------------------------------------------------------------


async def test_where_the_scope_runs_it_is_asked_directly(here: Joined) -> None:
    scope = kept(here, "one")
    async with here.node.process() as me:
        assert await do(here.node, "one", "join", b"group") == 1
        assert await do(me, "one", "leave") == 2
    assert scope.asked == [("join", b"group"), ("leave",)]


async def serve(me: Process, answers: list[Term], got: list[Term]) -> None:
    """A process that answers each call with the next answer."""
    for answer in answers:
        _, (pid, tag), request = await me.receive()  # type: ignore[misc]
        got.append(request)
        me.send(pid, (tag[1] if isinstance(tag, list) else tag, answer))  # an alias, or a reference


async def asked_from_a_worker(here: Joined, answer: Term, *what: Any) -> tuple[Any, list[Term]]:
    """The result of an operation in a worker whose scope answers like this, and what the scope was asked."""
    got: list[Term] = []
    here.node.spawn(serve, [answer], got, name="one")
    worker = await here.worker()
    me = worker.runtime.attach("test")
    try:
        return await do(me, "one", *what, timeout=20), got
    finally:
        here.node.runtime.unregister("one")


async def test_from_a_worker_the_scope_process_is_called(here: Joined) -> None:
    result, got = await asked_from_a_worker(here, (OK, [b"a"]), "get_members", b"group", 1)
    assert result == [b"a"]
    assert got == [(OPERATION, here.node.runtime.secret, Atom("get_members"), b"group", 1)]


ERRORS = [
    NotInGroup("not one of them"),
    ValueError("a pid of another node"),
    NoProcess("nobody"),
    CallTimeout("too slow"),
    GroupError("something else"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
async def test_an_error_of_an_operation_is_the_same_in_a_worker(here: Joined, error: Exception) -> None:
    with pytest.raises(type(error)) as raised:
        await asked_from_a_worker(here, error_term(error), "join")
    assert type(raised.value) is type(error)
    assert str(raised.value) == str(error)


async def test_an_error_keeps_its_cause_as_a_word(here: Joined) -> None:
    with pytest.raises(RegistrationFailed) as failed:
        await asked_from_a_worker(here, error_term(RegistrationFailed("a", cause="taken")), "register")
    assert failed.value.cause == "taken"
    with pytest.raises(CallFailed) as ended:
        await asked_from_a_worker(here, error_term(CallFailed("b", reason=Atom("noproc"))), "register")
    assert ended.value.reason is Atom("noproc")


def test_an_error_that_has_no_word_of_its_own_goes_by_that_of_its_kind() -> None:
    class Odd(ValueError):
        pass

    assert error_term(Odd("x")) == (ERROR, Atom("ValueError"), b"x", Atom("undefined"))
    assert error_term(KeyError("x"))[1] is Atom("GroupError")
    assert error_term(ProcessError("x"))[1] is Atom("GroupError")
    long = CallFailed("x", reason=(Atom("shutdown"), b"y" * 1000))
    assert len(error_term(long)[3].name) == 100, "an atom has 255 characters at most"
    assert error_term(ValueError("\ud800"))[2] == b"?"


async def test_an_unknown_kind_of_error_is_one_of_groups(here: Joined) -> None:
    with pytest.raises(GroupError, match="strange"):
        await asked_from_a_worker(here, (ERROR, Atom("Later"), b"strange", Atom("x")), "join")


@pytest.mark.parametrize("answer", [Atom("ok"), (OK, 1, 2), (ERROR, Atom("x"))])
async def test_what_answers_otherwise_is_no_scope(here: Joined, answer: Term) -> None:
    with pytest.raises(GroupError, match="one is no scope of pyglyn"):
        await asked_from_a_worker(here, answer, "join")


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("pg", "pg.start(node)"),
        ("own", 'pg.start(node, "own")'),
        ("syn_pg_example", 'syn.start(node, "example")'),
        ("syn_registry_example", 'syn.start(node, "example")'),
    ],
)
async def test_a_worker_is_told_what_starts_the_scope_that_it_misses(
    here: Joined, name: str, call: str
) -> None:
    worker = await here.worker()
    me = worker.runtime.attach("test")
    with pytest.raises(NoProcess) as missing:
        await do(me, name, "join")
    assert f"call {call} where the node runs" in str(missing.value)
    assert here.node.name in str(missing.value)
