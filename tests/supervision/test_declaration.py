"""Declaring supervision trees: defaults, checks, pickling."""

from __future__ import annotations

import pickle
from types import SimpleNamespace
from typing import Any

import pytest

from pyglyn import GenServer
from pyglyn.errors import SpecificationError
from pyglyn.etf import Atom
from pyglyn.supervision.declaration import factory, program, supervisor, worker
from pyglyn.supervision.os.command import ReadyLine, ReadyPort
from pyglyn.supervision.spec import (
    Supervisor,
    SupervisorStart,
    declared,
)
from pyglyn.supervision.words import (
    AutoShutdown,
    Backoff,
    Isolation,
    Restart,
    ShutdownWord,
    Strategy,
)
from tests.supervision.trees import Ingest, job, tree

A = Atom


async def counted(me: object) -> Any:
    yield 1


def test_the_defaults_are_gleams() -> None:
    """gleam/otp/static_supervisor and supervision: 2 restarts in 5 s, permanent, 5 s, infinity for supervisors."""
    made = Supervisor().add(worker(job)).add(supervisor(Supervisor()))
    assert (made.strategy, made.intensity, made.period) == (Strategy.ONE_FOR_ONE, 2, 5)
    assert made.auto_shutdown is AutoShutdown.NEVER
    child, nested = made.children
    assert (child.restart, child.shutdown, child.significant) == (Restart.PERMANENT, 5.0, False)
    assert (child.isolation, child.start_method) == (Isolation.PROCESS, None)
    assert nested.shutdown is ShutdownWord.INFINITY
    dynamic = factory(job)
    assert isinstance(dynamic.start, SupervisorStart)
    made = declared(dynamic.start)
    assert made.strategy is Strategy.SIMPLE_ONE_FOR_ONE
    assert made.children[0].restart is Restart.TRANSIENT


def test_children_keep_their_order_and_ids_come_from_names_or_functions() -> None:
    assert [child.id for child in tree().children] == [A("stock"), A("feed"), A("Ingest"), A("sessions")]
    twins = Supervisor().add(worker(job)).add(worker(job)).add(worker(job, id=("job", 2)))
    assert [child.id for child in twins.children] == [A("job"), A("job_2"), ("job", 2)]


def test_a_declaration_can_be_handed_to_another_os_process() -> None:
    copy = pickle.loads(pickle.dumps(tree()))
    assert copy.children[:3] == tree().children[:3]
    assert declared(copy.children[3].start).children == declared(tree().children[3].start).children
    assert (copy.strategy, copy.intensity, copy.period, copy.name) == (Strategy.ONE_FOR_ALL, 1, 10, "app")
    assert [child.id for child in declared(copy.children[2].start).children] == [A("reader"), A("writer")]


def test_the_class_form_is_made_anew_at_every_start() -> None:
    start = supervisor(Ingest, "orders").start
    assert isinstance(start, SupervisorStart)
    assert declared(start) is not declared(start)
    assert isinstance(declared(start), Ingest)
    with pytest.raises(SpecificationError, match="expected a Supervisor"):
        declared(SupervisorStart(dict))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("make", "text", "reason"),
    [
        (lambda: Supervisor("one_by_one"), "one_for_one, one_for_all", (A("invalid_strategy"), "one_by_one")),
        (lambda: Supervisor(intensity=-1), "number from 0", (A("invalid_intensity"), -1)),
        (lambda: Supervisor(intensity=True), "number from 0", (A("invalid_intensity"), True)),
        (lambda: Supervisor(period=0.5), "whole number of seconds", (A("invalid_period"), 0.5)),
        (lambda: Supervisor(period=0), "whole number of seconds", (A("invalid_period"), 0)),
        (lambda: Supervisor(auto_shutdown="maybe"), "never", (A("invalid_auto_shutdown"), "maybe")),
        (lambda: worker(job, restart="always"), "permanent", (A("invalid_restart_type"), "always")),
        (lambda: worker(job, shutdown=-1), "seconds from 0", (A("invalid_shutdown"), -1)),
        (lambda: worker(job, shutdown="gently"), "brutal_kill, infinity", (A("invalid_shutdown"), "gently")),
        (lambda: worker(job, isolation="thread"), "process, task", (A("invalid_isolation"), "thread")),
        (lambda: worker(job, start="clone"), "fork, spawn", (A("invalid_start_method"), "clone")),
        (lambda: worker(job, heartbeat=0), "heartbeat is a number of seconds", (A("invalid_heartbeat"), 0)),
        (lambda: worker(job, memory_limit="lots"), "512 MiB", (A("invalid_memory_limit"), "lots")),
        (lambda: worker("job"), "a function or a class", None),  # type: ignore[arg-type]
        (lambda: worker(job, name="undefined"), "registered name", None),
        (lambda: worker(job, isolation="task", memory_limit=1), "needs an OS process", None),
        (lambda: worker(job, restart="permanent", significant=True), "cannot be significant", None),
        (lambda: worker(job, backoff=1.0), "such as Backoff(initial=", (A("invalid_backoff"), "1.0")),  # type: ignore[arg-type]
        (lambda: worker(counted), "is a generator", None),
        (lambda: program(["x"], ready="up"), "did you mean ReadyLine('up')", None),  # type: ignore[arg-type]
        (lambda: program(["x"], env={"PORT": 80}), "'PORT' is 80", (A("invalid_env"), "'PORT'")),  # type: ignore[dict-item]
        (lambda: program("ls -l"), "not one text", (A("invalid_argv"), "ls -l")),
        (lambda: program([]), "not empty", (A("invalid_argv"), ())),
        (lambda: ReadyLine("("), "is no pattern", (A("invalid_ready"), "(")),
        (lambda: ReadyPort(0), "1 to 65535", (A("invalid_ready"), 0)),
        (lambda: Backoff(initial=0), "above 0", (A("invalid_backoff"), 0)),
        (lambda: Supervisor().add(job), "what worker, supervisor", None),  # type: ignore[arg-type]
        (
            lambda: Supervisor().add(worker(job, id="a")).add(worker(job, name="a")),
            "two children",
            (A("duplicate_child_name"), A("a")),
        ),
        (
            lambda: Supervisor().add(worker(job, restart="transient", significant=True)),
            "auto_shutdown is never",
            (A("bad_combination"), [(A("auto_shutdown"), A("never")), (A("significant"), True)]),
        ),
        (
            lambda: Supervisor("simple_one_for_one").add(worker(job)).add(worker(job)),
            "template",
            (A("bad_start_spec"), [A("job"), A("job_2")]),
        ),
        (
            lambda: Supervisor("simple_one_for_one", auto_shutdown="any_significant"),
            "significant children",
            (
                A("bad_combination"),
                [(A("auto_shutdown"), A("any_significant")), (A("strategy"), A("simple_one_for_one"))],
            ),
        ),
    ],
)
def test_what_makes_no_sense_is_refused_in_words(make: Any, text: str, reason: Any) -> None:
    """The reason is the term OTP has for it, where it has one."""
    with pytest.raises(SpecificationError) as caught:
        make()
    assert text in str(caught.value)
    if reason is not None:
        assert caught.value.reason == reason


@pytest.mark.parametrize("name", ["", "undefined", "restarting", 5])
def test_what_can_be_no_registered_name_is_refused(name: Any) -> None:
    with pytest.raises(SpecificationError, match="cannot be a registered name"):
        Supervisor(name=name)
    with pytest.raises(SpecificationError, match="255"):
        Supervisor(name="x" * 256)
    assert Supervisor(name="x" * 255).name == "x" * 255


def test_a_supervisor_is_registered_as_it_says_unless_its_specification_says_otherwise() -> None:
    own = Supervisor(name="own")
    assert supervisor(own).name == "own"
    assert supervisor(own, name="given").name == "given"
    assert supervisor(Supervisor()).name is None


def test_how_often_children_may_be_restarted_is_a_number_from_0() -> None:
    assert Supervisor(intensity=0).intensity == 0
    for intensity in (-1, True, 1.5, "1"):
        with pytest.raises(SpecificationError):
            Supervisor(intensity=intensity)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("child", "hint"),
    [
        (GenServer, r"; write worker\(GenServer, …\)$"),
        (job, r"; write worker\(job, …\)$"),
        (Supervisor(), r"; write supervisor\(…, name=…\) around it$"),
        (SimpleNamespace(worker=worker), r"; what its worker\(\) returns is one$"),
        (5, r"got 5$"),
    ],
)
def test_what_is_added_and_is_no_specification_is_told_how_it_becomes_one(child: Any, hint: str) -> None:
    with pytest.raises(SpecificationError, match=hint):
        Supervisor().add(child)
