"""Supervision scenarios as data, and the same scenario run through the policy in a simulated world.

A scenario is the Erlang term that ``interop/erlang/supervisor_oracle.erl`` takes; its format is described
there. What `run_scenario` returns has to equal what the oracle returns.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Generator, Sequence
from typing import Any

from pyglyn.etf import Atom, Pid, Term
from pyglyn.supervision.effects import (
    AnswerRequest,
    CancelTimer,
    Child,
    ChildFailed,
    ChildIgnored,
    ChildStarted,
    Effect,
    EndSupervisor,
    Outcome,
    Report,
    ReportContext,
    SetTimer,
    StartChild,
    Started,
    StopChild,
)
from pyglyn.supervision.erlang_spec import child_spec_from_term
from pyglyn.supervision.policy import Policy
from pyglyn.supervision.requests import receive_request
from pyglyn.supervision.spec import ExportStart
from pyglyn.supervision.words import AutoShutdown, Strategy

A = Atom
ORACLE = A("supervisor_oracle")
OBEY = A("obey")


def behaviour(id: str, *, starts: Sequence[Term] = (), stop: Term = OBEY) -> dict[Term, Term]:
    """What a child of the oracle does."""
    return {A("id"): A(id), A("starts"): list(starts), A("stop"): stop}


def child(id: str, *, starts: Sequence[Term] = (), stop: Term = OBEY, **options: Term) -> dict[Term, Term]:
    """A child specification for the oracle."""
    spec: dict[Term, Term] = {
        A("id"): A(id),
        A("start"): (ORACLE, A("start_child"), [behaviour(id, starts=starts, stop=stop)]),
    }
    return spec | {A(key): A(value) if isinstance(value, str) else value for key, value in options.items()}


def template(**options: Term) -> dict[Term, Term]:
    """The child specification of a simple_one_for_one supervisor: the behaviour comes with ``start_child``."""
    return {
        A("id"): A("dynamic"),
        A("start"): (ORACLE, A("start_child"), []),
    } | {A(key): A(value) if isinstance(value, str) else value for key, value in options.items()}


def scenario(
    strategy: str,
    children: Sequence[Term],
    steps: Sequence[Term],
    *,
    intensity: int = 3,
    period: int = 1000,
    auto_shutdown: str = "never",
) -> dict[Term, Term]:
    """A whole scenario."""
    flags = {
        A("strategy"): A(strategy),
        A("intensity"): intensity,
        A("period"): period,
        A("auto_shutdown"): A(auto_shutdown),
    }
    return {A("flags"): flags, A("children"): list(children), A("steps"): list(steps)}


def crash(id: str, reason: Term) -> Term:
    """A step: a child ends by itself."""
    return (A("crash"), A(id), reason)


def call(*request: Any) -> Term:
    """A step: ``call("terminate_child", A("a"))`` or ``call("which_children")``."""
    return (A("call"), A(request[0]) if len(request) == 1 else (A(request[0]), *request[1:]))


def burst(*steps: Term) -> Term:
    """A step: crashes and calls that are in the mailbox together."""
    return (A("burst"), list(steps))


class World:
    """The simulated processes around one policy: they start, stop and refuse as their behaviour says."""

    def __init__(self, term: dict[Term, Any]) -> None:
        flags = term[A("flags")]
        auto_shutdown = AutoShutdown(flags[A("auto_shutdown")].name)
        specs = [child_spec_from_term(each, auto_shutdown) for each in term[A("children")]]
        self.policy = Policy(
            strategy=Strategy(flags[A("strategy")].name),
            intensity=flags[A("intensity")],
            period=flags[A("period")],
            auto_shutdown=auto_shutdown,
            children=specs,
            is_alive=lambda pid: pid in self.alive,
        )
        self.steps = term[A("steps")]
        self.trace: list[Term] = []
        self.names: dict[Pid, Term] = {}
        self.alive: dict[Pid, dict[Term, Any]] = {}
        self.starts: dict[Atom, int] = {}
        self.timers: deque[int] = deque()
        self.now = 0
        self.calls = 0
        self.ended = False

    def run(self) -> list[Term]:
        """Run the scenario; returns the trace."""
        self.perform(self.policy.start(self.now))
        for number, step in enumerate(self.steps, 1):
            self.trace.append((A("step"), number))
            self.step(step)
        if not self.ended:
            self.trace.append((A("step"), A("final")))
            self.perform(self.policy.stop(A("shutdown"), self.now))
        assert not self.alive, f"children left over: {self.alive}"
        return [self.canonical(event) for event in self.trace]

    def step(self, step: Any) -> None:
        """Do one step."""
        if self.ended:
            return
        match step:
            case (Atom("crash" | "call"), *_):
                self.perform(self.input(step))
            case (Atom("burst"), steps):
                # A handler that waits keeps the policy busy, as a suspended supervisor's mailbox fills.
                effects = self.policy.receive_handler(_hold(), self.now)
                for each in steps:
                    effects += self.input(each)
                effects += self.policy.child_started(ChildIgnored(), self.now)
                self.perform(effects)
            case (Atom("at"), second):
                self.now = second
            case (Atom("stop"), reason):
                self.perform(self.policy.stop(reason, self.now))

    def input(self, step: Any) -> list[Effect]:
        """Give a crash or a call to the policy."""
        match step:
            case (Atom("crash"), id, reason):
                pid = next((p for p, name in reversed(self.names.items()) if name[1] is id), None)
                if pid not in self.alive:
                    return []
                del self.alive[pid]
                return self.policy.child_exited(pid, _exit_reason(reason), self.now)
            case (Atom("call"), request):
                number, self.calls = self.calls, self.calls + 1
                return receive_request(self.policy, number, self.with_pids(request), self.now)
        raise AssertionError(step)

    def perform(self, effects: list[Effect]) -> None:
        """Carry effects out, and what follows from them, until nothing is left to do."""
        todo = deque(effects)
        while todo or self.timers:
            if todo:
                todo.extend(self.effect(todo.popleft()))
            else:
                todo.extend(self.policy.timer_expired(self.timers.popleft(), self.now))

    def effect(self, effect: Effect) -> list[Effect]:
        """Carry one effect out."""
        match effect:
            case StartChild(started):
                return self.policy.child_started(self.start(started), self.now)
            case StopChild(pid, _, how):
                return self.stop(pid, how)
            case SetTimer(timer):
                self.timers.append(timer)
            case CancelTimer(timer):
                if timer in self.timers:
                    self.timers.remove(timer)
            case AnswerRequest(number, term):
                self.trace.append((A("reply"), number, term))
            case Report(ReportContext.PROGRESS):
                pass
            case Report(context, reason, spec, pid):
                shown = (A("nb_children"), len(pid)) if isinstance(pid, list) else pid
                self.trace.append((A("report"), A(context), reason, spec.id, shown))
            case EndSupervisor(reason):
                self.ended = True
                self.trace.append((A("exit"), reason))
            case Started():
                pass
        return []

    def start(self, started: Child) -> Outcome:
        """Start a child as its behaviour says."""
        assert isinstance(started.spec.start, ExportStart)
        does: dict[Term, Any] = [*started.spec.start.args, *started.args][0]
        id = does[A("id")]
        number = self.starts[id] = self.starts.get(id, 0) + 1
        starts = does.get(A("starts"), [])
        match starts[number - 1] if number <= len(starts) else A("ok"):
            case Atom("ok"):
                return ChildStarted(self.spawn(id, number, does))
            case (Atom("ok"), info):
                return ChildStarted(self.spawn(id, number, does), info, True)
            case Atom("ignore"):
                self.trace.append((A("start"), id, number, A("ignore")))
                return ChildIgnored()
            case (Atom("error" | "return"), reason):
                self.trace.append((A("start"), id, number, A("error")))
                return ChildFailed(reason)
        raise AssertionError(does)

    def spawn(self, id: Atom, number: int, does: dict[Term, Any]) -> Pid:
        """Make a process."""
        pid = Pid("sim@localhost", 100 + len(self.names), 0, 1)
        self.names[pid] = (A("pid"), id, number)
        self.alive[pid] = does
        self.trace.append((A("start"), id, number, A("ok")))
        return pid

    def stop(self, pid: Pid, how: str) -> list[Effect]:
        """Send a process an exit signal."""
        if pid not in self.alive:
            return []
        reason: Term = A("killed")
        if how == "shutdown":
            match self.alive[pid].get(A("stop")):
                case Atom("refuse"):
                    return []
                case (Atom("exit"), reason):
                    pass
                case _:
                    reason = A("shutdown")
        del self.alive[pid]
        self.trace.append((A("stop"), *self.names[pid][1:], reason))  # type: ignore[index]
        return self.policy.child_exited(pid, reason, self.now)

    def with_pids(self, term: Any) -> Any:
        """Replace ``{pid, Id, N}`` by the pid."""
        if isinstance(term, tuple) and len(term) == 3 and term[0] is A("pid"):
            return next((pid for pid, name in self.names.items() if name == term), A("no_such_pid"))
        if isinstance(term, (tuple, list)):
            return type(term)(map(self.with_pids, term))
        return term

    def canonical(self, term: Any) -> Any:
        """Replace pids by ``{pid, Id, N}``."""
        if isinstance(term, Pid):
            return self.names[term]
        if isinstance(term, (tuple, list)):
            return type(term)(map(self.canonical, term))
        if isinstance(term, dict):
            return {self.canonical(key): self.canonical(value) for key, value in term.items()}
        return term


def _hold() -> Generator[None, Any, None]:
    yield


def _exit_reason(reason: Term) -> Term:
    """``exit(self(), kill)`` kills: the reason others see is ``killed``."""
    return A("killed") if reason is A("kill") else reason


def run_scenario(term: dict[Term, Any]) -> list[Term]:
    """Run a scenario through the policy; returns the trace."""
    return World(term).run()


def comparable(trace: Any, term: dict[Term, Any]) -> Any:
    """A trace with the order taken out where OTP promises none: factories stop their children all at once."""
    if term[A("flags")][A("strategy")] is not A("simple_one_for_one") or not isinstance(trace, list):
        return trace
    done: list[Term] = []
    group: list[Term] = []
    for event in [*trace, (A("end"),)]:
        if group and event[0] is not group[0][0]:  # type: ignore[index]
            done += sorted(group, key=repr)
            group = []
        if event[0] in (A("stop"), A("report")):
            group.append(event)
        else:
            done.append(event)
    return done


# --- random scenarios ----------------------------------------------------------------------------------

_IDS = ("a", "b", "c", "d", "e")
_REASONS: tuple[Term, ...] = (
    A("normal"),
    A("shutdown"),
    (A("shutdown"), A("done")),
    A("boom"),
    A("kill"),
    (A("bad"), [1, b"x"]),
)


def random_scenario(seed: int) -> dict[Term, Any]:
    """A scenario; the same for the same seed."""
    rng = random.Random(seed)
    strategy = rng.choice(("one_for_one", "one_for_all", "rest_for_one", "simple_one_for_one"))
    auto_shutdown = rng.choice(("never", "never", "any_significant", "all_significant"))
    if strategy == "simple_one_for_one":
        auto_shutdown = "never"
    make = _RandomFactory if strategy == "simple_one_for_one" else _RandomSupervisor
    children, steps = make(rng, auto_shutdown).scenario()
    return scenario(
        strategy, children, steps, intensity=rng.choice((0, 1, 2, 3, 5)), auto_shutdown=auto_shutdown
    )


class _RandomSupervisor:
    """Children with ids, and requests that name them."""

    def __init__(self, rng: random.Random, auto_shutdown: str) -> None:
        self.rng = rng
        self.auto_shutdown = auto_shutdown

    def scenario(self) -> tuple[list[Term], list[Term]]:
        rng = self.rng
        ids = list(_IDS[: rng.randrange(0, 5)])
        children = [self.child(id, rng.random() < 0.15) for id in ids]
        return children, [self.step() for _ in range(rng.randrange(1, 9))]

    def child(self, id: str, first_start_may_fail: bool) -> Term:
        return child(id, starts=self.starts(first_start_may_fail), **self.options())

    def options(self) -> dict[str, Any]:
        rng = self.rng
        restart = rng.choice(("permanent", "transient", "temporary"))
        options: dict[str, Any] = {"restart": restart}
        if self.auto_shutdown != "never" and restart != "permanent" and rng.random() < 0.6:
            options["significant"] = True
        stop = rng.choice(
            (
                A("obey"),
                A("obey"),
                A("refuse"),
                *((A("exit"), reason) for reason in _REASONS if reason is not A("kill")),
            )
        )
        options["stop"] = stop
        shutdowns: tuple[Any, ...] = ("brutal_kill", 5000, "infinity")
        options["shutdown"] = rng.choice(("brutal_kill", 40) if stop is A("refuse") else shutdowns)
        if rng.random() < 0.2:
            options["type"] = "supervisor"
        if rng.random() < 0.2:
            options["modules"] = rng.choice(("dynamic", [A("m1"), A("m2")]))
        return options

    def starts(self, first_may_fail: bool) -> list[Term]:
        rng = self.rng
        kinds: tuple[Callable[[], Term], ...] = (
            lambda: A("ok"),
            lambda: A("ok"),
            lambda: (A("ok"), [A("info"), 7]),
            lambda: A("ignore"),
            lambda: (A("error"), A("nope")),
            lambda: (A("return"), (A("weird"), 1)),
        )
        starts = [rng.choice(kinds)() for _ in range(rng.randrange(0, 5))]
        return starts if first_may_fail or not starts else [A("ok"), *starts]

    def step(self) -> Term:
        rng = self.rng
        choice = rng.random()
        if choice < 0.2:
            return burst(*(self.simple_step() for _ in range(rng.randrange(2, 6))))
        if choice < 0.24:
            return (A("stop"), rng.choice((A("shutdown"), A("boom"))))
        return self.simple_step()

    def simple_step(self) -> Term:
        return self.crash() if self.rng.random() < 0.5 else self.call()

    def crash(self) -> Term:
        return crash(self.rng.choice(_IDS), self.rng.choice(_REASONS))

    def call(self) -> Term:
        rng = self.rng
        id = A(rng.choice((*_IDS, "unknown")))
        name = rng.choice(
            (
                "start_child",
                "start_child",
                "terminate_child",
                "terminate_child",
                "restart_child",
                "delete_child",
                "get_childspec",
                "which_children",
                "count_children",
            )
        )
        if name in ("which_children", "count_children"):
            return call(name)
        return call(name, self.new_spec() if name == "start_child" else id)

    def new_spec(self) -> Term:
        rng = self.rng
        spec: Any = self.child(rng.choice(_IDS), rng.random() < 0.4)
        choice = rng.random()
        if choice < 0.06:
            del spec[rng.choice((A("id"), A("start")))]
        elif choice < 0.2:
            key, value = rng.choice(
                (
                    ("restart", A("sometimes")),
                    ("shutdown", -1),
                    ("shutdown", A("gently")),
                    ("type", A("helper")),
                    ("start", A("nothing")),
                    ("modules", [1]),
                    ("modules", A("m")),
                    ("significant", True),
                    ("significant", A("maybe")),
                )
            )
            spec[A(key)] = value
        elif choice < 0.25:
            return rng.choice((A("nonsense"), (A("a"), A("b")), [], 7))
        elif choice < 0.35:
            keys = ("id", "start", "restart", "shutdown")
            return (*(spec[A(key)] for key in keys), A("worker"), [ORACLE])
        return spec


class _RandomFactory(_RandomSupervisor):
    """Dynamic children of one kind; they are named by pid."""

    def scenario(self) -> tuple[list[Term], list[Term]]:
        options = self.options()
        self.stop = options.pop("stop")
        if options["shutdown"] == 40:
            options["shutdown"] = 100
        steps: list[Term] = [self.start_child() for _ in range(self.rng.randrange(0, 4))]
        steps += [self.step() for _ in range(self.rng.randrange(1, 8))]
        return [template(**options)], steps

    def starts(self, first_may_fail: bool) -> list[Term]:
        """Never ``ignore`` at a restart: OTP then keeps an entry that makes it crash when it stops."""
        starts = super().starts(first_may_fail)
        return starts[:1] + [start for start in starts[1:] if start is not A("ignore")]

    def start_child(self) -> Term:
        rng = self.rng
        id = rng.choice(_IDS)
        return call("start_child", [behaviour(id, starts=self.starts(rng.random() < 0.3), stop=self.stop)])

    def call(self) -> Term:
        rng = self.rng
        pid = (A("pid"), A(rng.choice(_IDS)), rng.randrange(1, 3))
        name = rng.choice(
            (
                "start_child",
                "start_child",
                "terminate_child",
                "get_childspec",
                "restart_child",
                "delete_child",
                "which_children",
                "which_children",
            )
        )
        if name == "start_child":
            return self.start_child()
        if name == "which_children":
            return call(name)
        return call(name, rng.choice((pid, pid, A("dynamic"))))
