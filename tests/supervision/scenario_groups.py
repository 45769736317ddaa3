"""The scenarios that the policy and OTP's own supervisor run, by what they are about."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from pyglyn.etf import Term
from tests.supervision.scenarios import (
    A,
    behaviour,
    burst,
    call,
    child,
    crash,
    scenario,
    template,
)

STRATEGIES = ("one_for_one", "one_for_all", "rest_for_one")
RESTARTS = ("permanent", "transient", "temporary")
REASONS: tuple[Term, ...] = (
    A("normal"),
    A("shutdown"),
    (A("shutdown"), A("done")),
    A("boom"),
    A("kill"),
    (A("exit_status"), 3),
    (A("signal"), 9),
)


def table() -> Iterator[tuple[str, dict[Term, Any]]]:
    """Each strategy, restart type and exit reason: the middle one of three children ends."""
    for strategy, restart, reason in itertools.product(STRATEGIES, RESTARTS, REASONS):
        children = [
            child("a", restart="temporary"),
            child("b", restart="transient"),
            child("c", restart=restart),
            child("d", restart="temporary"),
            child("e"),
        ]
        steps = [crash("c", reason), call("which_children"), call("count_children")]
        yield f"{strategy} {restart} {reason!r}", scenario(strategy, children, steps)


def starts_and_stops() -> Iterator[tuple[str, dict[Term, Any]]]:
    """What else the rules say, by name."""
    error = (A("error"), A("nope"))
    for strategy in STRATEGIES:
        abc = [child("a"), child("b"), child("c")]
        failing = [child("a"), child("b", starts=[A("ok"), error, error]), child("c")]
        yield (
            f"{strategy}: the first start of a child fails, those before it are stopped in reverse",
            scenario(strategy, [child("a"), child("b"), child("c", starts=[error]), child("d")], []),
        )
        yield (
            f"{strategy}: a failing restart is tried again and counted",
            scenario(strategy, failing, [crash("b", A("boom")), call("which_children")]),
        )
        yield (
            f"{strategy}: a failing restart exhausts the intensity",
            scenario(strategy, failing, [crash("b", A("boom")), call("which_children")], intensity=2),
        )
        yield (
            f"{strategy}: requests get their turn between two attempts",
            scenario(
                strategy,
                failing,
                [
                    burst(
                        crash("b", A("boom")),
                        call("which_children"),
                        call("count_children"),
                        call("restart_child", A("b")),
                        call("delete_child", A("b")),
                        call("terminate_child", A("b")),
                        call("delete_child", A("b")),
                    ),
                    call("which_children"),
                ],
            ),
        )
        yield (
            f"{strategy}: a sibling cannot be started again",
            scenario(
                strategy,
                [child("a"), child("b"), child("c", starts=[A("ok"), error])],
                [
                    burst(crash("b", A("boom")), call("which_children"), call("restart_child", A("c"))),
                    call("which_children"),
                ],
            ),
        )
        yield (
            f"{strategy}: two children end at once",
            scenario(strategy, abc, [burst(crash("c", A("x")), crash("a", A("y"))), call("which_children")]),
        )
        yield (
            f"{strategy}: all children end at once",
            scenario(strategy, abc, [burst(*(crash(id, A("x")) for id in "bac")), call("which_children")]),
        )
        yield (
            f"{strategy}: intensity 0 allows no restart",
            scenario(strategy, abc, [crash("b", A("boom"))], intensity=0),
        )
        yield (
            f"{strategy}: a child that ended already is stopped: its own reason is reported",
            scenario(
                strategy,
                abc,
                [burst(call("which_children"), crash("b", A("boom")), call("terminate_child", A("b")))],
            ),
        )
        yield (
            f"{strategy}: the parent stops it while a child's end waits",
            scenario(strategy, abc, [crash("b", A("boom")), (A("stop"), A("gone"))]),
        )
        yield (
            f"{strategy}: ended transient and terminated children start again with the others",
            scenario(
                strategy,
                [child("a", restart="transient"), child("b"), child("c", restart="transient"), child("d")],
                [
                    crash("a", A("normal")),
                    crash("c", A("normal")),
                    call("terminate_child", A("d")),
                    crash("b", A("boom")),
                    call("which_children"),
                ],
            ),
        )


def shutdowns() -> Iterator[tuple[str, dict[Term, Any]]]:
    """How children are stopped, and what is reported of it."""
    answers = (A("obey"), (A("exit"), A("normal")), (A("exit"), (A("shutdown"), 1)), (A("exit"), A("oops")))
    for restart, shutdown, stop in itertools.product(
        RESTARTS, (40, 0, "brutal_kill", "infinity"), (*answers, A("refuse"))
    ):
        if (shutdown == "infinity" and stop is A("refuse")) or (shutdown == 0 and stop is not A("refuse")):
            continue  # never ends; and who is first within 0 ms is chance
        children = [child("a"), child("b", restart=restart, shutdown=shutdown, stop=stop), child("c")]
        steps = [call("terminate_child", A("b")), call("which_children"), call("restart_child", A("b"))]
        yield f"{restart} {shutdown} {stop!r}", scenario("one_for_one", children, steps)


def auto_shutdowns() -> Iterator[tuple[str, dict[Term, Any]]]:
    """Significant children."""
    for mode, restart, reason in itertools.product(
        ("any_significant", "all_significant"), ("transient", "temporary"), REASONS
    ):
        children = [
            child("a", restart=restart, significant=True),
            child("b"),
            child("c", restart=restart, significant=True),
            child("d", restart="temporary"),
        ]
        steps = [crash("d", A("normal")), crash("a", reason), crash("b", A("x")), crash("c", reason)]
        yield f"{mode} {restart} {reason!r}", scenario("one_for_one", children, steps, auto_shutdown=mode)
    children = [
        child("a", restart="transient", significant=True),
        child("b", restart="transient", significant=True),
    ]
    yield (
        "a significant child stopped by request does not stop the supervisor",
        scenario(
            "one_for_one",
            children,
            [call("terminate_child", A("a")), call("which_children"), crash("b", A("normal"))],
            auto_shutdown="all_significant",
        ),
    )


def factories() -> Iterator[tuple[str, dict[Term, Any]]]:
    """simple_one_for_one."""

    def start(id: str, **options: Any) -> Term:
        return call("start_child", [behaviour(id, **options)])

    error = (A("error"), A("nope"))
    for restart, reason in itertools.product(RESTARTS, REASONS):
        steps = [start("a"), start("b"), crash("a", reason), call("which_children"), call("count_children")]
        yield (
            f"factory {restart} {reason!r}",
            scenario("simple_one_for_one", [template(restart=restart)], steps),
        )
    pid = (A("pid"), A("a"), 1)
    yield (
        "factory: the requests",
        scenario(
            "simple_one_for_one",
            [template(restart="transient")],
            [
                start("a"),
                start("b", starts=[(A("ok"), A("info"))]),
                start("c", starts=[A("ignore")]),
                start("d", starts=[error]),
                call("restart_child", A("dynamic")),
                call("delete_child", A("dynamic")),
                call("terminate_child", A("dynamic")),
                call("get_childspec", A("dynamic")),
                call("get_childspec", pid),
                call("terminate_child", pid),
                call("terminate_child", pid),
                call("get_childspec", pid),
                call("which_children"),
                call("count_children"),
            ],
        ),
    )
    yield (
        "factory: a failing restart is tried again",
        scenario(
            "simple_one_for_one",
            [template(type="supervisor")],
            [
                start("a", starts=[A("ok"), error, error]),
                start("b"),
                burst(crash("a", A("boom")), call("which_children"), call("count_children")),
                call("which_children"),
            ],
        ),
    )
    for stop, shutdown in itertools.product(
        (A("obey"), A("refuse"), (A("exit"), A("oops"))), (100, "brutal_kill")
    ):
        yield (
            f"factory: all stop together, {stop!r} {shutdown}",
            scenario(
                "simple_one_for_one",
                [template(shutdown=shutdown)],
                [start("a", stop=stop), start("b", stop=stop), start("c")],
            ),
        )


def requests() -> Iterator[tuple[str, dict[Term, Any]]]:
    """Each request in each state of a child."""
    error = (A("error"), A("nope"))
    for name in ("start_child", "terminate_child", "restart_child", "delete_child", "get_childspec"):
        for restart in RESTARTS:
            argument = child("a", restart=restart) if name == "start_child" else A("a")
            for prelude in ([], [call("terminate_child", A("a"))], [crash("a", A("normal"))]):
                steps = [*prelude, call(name, argument), call("which_children"), call("count_children")]
                yield (
                    f"{name} of a {restart} child after {prelude!r}",
                    scenario("one_for_one", [child("a", restart=restart), child("b")], steps),
                )
    specs: list[Any] = [
        child("new", starts=[error]),
        child("new", starts=[A("ignore")]),
        child("new", starts=[A("ignore")], restart="temporary"),
        child("new", starts=[(A("ok"), {A("k"): [1]})], restart="temporary"),
        child("new", type="supervisor"),
        child("new", significant=True, restart="temporary"),
        child("new", modules="dynamic"),
        (A("old"), child("old")[A("start")], A("transient"), 2000, A("worker"), [A("m")]),
        {A("id"): A("x")},
        {A("start"): (A("m"), A("f"), [])},
        {},
        [],
        A("x"),
        (A("a"), A("b")),
        *(
            child("new") | {A(key): value}
            for key, value in (
                ("start", (A("m"), A("f"))),
                ("restart", 1),
                ("shutdown", -1),
                ("shutdown", A("soon")),
                ("shutdown", 1.5),
                ("type", A("boss")),
                ("modules", A("m")),
                ("modules", [A("m"), b"x"]),
                ("significant", 1),
            )
        ),
    ]
    for spec in specs:
        steps = [
            call("start_child", spec),
            call("get_childspec", A("new")),
            call("get_childspec", A("old")),
            call("which_children"),
            call("restart_child", A("new")),
        ]
        yield f"start_child {spec!r}", scenario("one_for_one", [], steps)
    yield (
        "a significant permanent child",
        scenario(
            "one_for_one",
            [],
            [call("start_child", child("a", significant=True))],
            auto_shutdown="any_significant",
        ),
    )


GROUPS = {
    "the table": table,
    "starts and stops": starts_and_stops,
    "shutdowns": shutdowns,
    "auto shutdowns": auto_shutdowns,
    "factories": factories,
    "requests": requests,
}
