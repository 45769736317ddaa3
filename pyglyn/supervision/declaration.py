"""How programs declare supervision trees: `Supervisor`, `worker`, `supervisor`, `program`, `factory`.

Layer: supervision, pure. After Gleam's ``static_supervisor``, ``factory_supervisor`` and ``supervision``,
with their defaults: 2 restarts in 5 seconds, permanent children, transient ones in a factory.

Not supported: restart intensities over a fraction of a second (OTP counts whole seconds).
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import attrs

from pyglyn.errors import SpecificationError
from pyglyn.etf.terms import Atom, Term, exact_key
from pyglyn.supervision.spec import (
    AutoShutdown,
    Backoff,
    CallableStart,
    ChildSpec,
    ChildType,
    Isolation,
    ProgramStart,
    Ready,
    Restart,
    Shutdown,
    ShutdownWord,
    StartMethod,
    Strategy,
    SupervisorStart,
    identifier,
    one_of,
    reject,
    start_method_of,
)

if TYPE_CHECKING:
    from typing import Self

_NO_NAMES = ("", "undefined", "restarting")


def _name(name: str | None) -> str | None:
    if name is not None and (not isinstance(name, str) or name in _NO_NAMES):
        raise reject(f"{name!r} cannot be a registered name", "invalid_name", repr(name))
    if name is not None:
        identifier(name)
    return name


def _described(target: object) -> str:
    """A short name for what is started: a function's or class's own, without its module."""
    text = getattr(target, "__qualname__", None) or type(target).__qualname__
    return str(text).rpartition(".")[2].strip("<>")


def _spec(id: Term, name: str | None, fallback: str, **fields: Any) -> ChildSpec:
    """Build a child specification whose id is the one given, else the name, else a made-up one."""
    made_up = id is None and name is None
    chosen = identifier(id if id is not None else name if name is not None else fallback)
    return ChildSpec(id=chosen, name=_name(name), default_id=made_up, **fields)


def worker(
    target: Callable[..., Any],
    *args: Any,
    name: str | None = None,
    id: Term = None,
    restart: Restart | str = Restart.PERMANENT,
    shutdown: Shutdown | str = 5.0,
    isolation: Isolation | str = Isolation.PROCESS,
    start: StartMethod | str | None = None,
    start_timeout: float | None = None,
    heartbeat: float | None = None,
    memory_limit: int | str | None = None,
    backoff: Backoff | None = None,
    handover: bool = False,
    significant: bool = False,
    **kwargs: Any,
) -> ChildSpec:
    """Specify a worker: an async function, a blocking function or a `GenServer` class, with its arguments.

    The other options are `ChildSpec`'s; ``start`` is its ``start_method``.

    Raises:
        SpecificationError: an option makes no sense; the text says which.
    """
    if not callable(target):
        raise reject(f"a worker is a function or a class, got {target!r}", "invalid_target", repr(target))
    if inspect.isasyncgenfunction(target) or inspect.isgeneratorfunction(target):
        raise reject(
            f"{_described(target)} is a generator; a worker is a function", "invalid_target", repr(target)
        )
    return _spec(
        id,
        name,
        _described(target),
        start=CallableStart(target, args, kwargs),
        restart=restart,
        shutdown=shutdown,
        isolation=isolation,
        start_method=start,
        start_timeout=start_timeout,
        heartbeat=heartbeat,
        memory_limit=memory_limit,
        backoff=backoff,
        handover=handover,
        significant=significant,
    )


def supervisor(
    target: Supervisor | Callable[..., Supervisor],
    *args: Any,
    name: str | None = None,
    id: Term = None,
    restart: Restart | str = Restart.PERMANENT,
    shutdown: Shutdown | str = ShutdownWord.INFINITY,
    isolation: Isolation | str = Isolation.PROCESS,
    start: StartMethod | str | None = None,
    start_timeout: float | None = None,
    backoff: Backoff | None = None,
    significant: bool = False,
) -> ChildSpec:
    """Specify a nested supervisor: a `Supervisor`, a subclass, or a function that returns one.

    A class or function is called with ``args`` at every start and restart, as OTP calls ``init``.

    Raises:
        SpecificationError: an option makes no sense; the text says which.
    """
    if not isinstance(target, Supervisor) and not callable(target):
        raise reject(
            f"expected a Supervisor or what makes one, got {target!r}", "invalid_target", repr(target)
        )
    declared = target.name if isinstance(target, Supervisor) else None
    return _spec(
        id,
        name if name is not None else declared,
        "supervisor" if isinstance(target, Supervisor) else _described(target),
        start=SupervisorStart(target, args),
        type=ChildType.SUPERVISOR,
        restart=restart,
        shutdown=shutdown,
        isolation=isolation,
        start_method=start,
        start_timeout=start_timeout,
        backoff=backoff,
        significant=significant,
    )


def program(
    argv: Sequence[str],
    *,
    env: Mapping[str, str | None] | None = None,
    cwd: str | None = None,
    ready: Ready | None = None,
    name: str | None = None,
    id: Term = None,
    restart: Restart | str = Restart.PERMANENT,
    shutdown: Shutdown | str = 5.0,
    start_timeout: float | None = None,
    memory_limit: int | str | None = None,
    backoff: Backoff | None = None,
    significant: bool = False,
) -> ChildSpec:
    """Specify an external program. It is stopped with SIGTERM, and SIGKILL when its shutdown time is over.

    Raises:
        SpecificationError: an option makes no sense; the text says which.
    """
    if isinstance(argv, (str, bytes)):
        raise reject(f"argv is a list of words, not one text: {argv!r}", "invalid_argv", argv)
    begin = ProgramStart(argv, dict(env or {}), cwd, ready)
    return _spec(
        id,
        name,
        begin.argv[0].rpartition("/")[2],
        start=begin,
        restart=restart,
        shutdown=shutdown,
        start_timeout=start_timeout,
        memory_limit=memory_limit,
        backoff=backoff,
        significant=significant,
    )


def factory(
    child: ChildSpec | Callable[..., Any],
    *args: Any,
    name: str | None = None,
    id: Term = None,
    intensity: int = 2,
    period: float = 5.0,
    **options: Any,
) -> ChildSpec:
    """Specify a factory supervisor: dynamic children of one kind, each started by ``start_child``.

    The arguments of that call follow the ones given here. A function or class makes transient children, as in
    Gleam; give a `ChildSpec` for anything else. Further options are `supervisor`'s.

    Raises:
        SpecificationError: an option makes no sense; the text says which.
    """
    template = child if isinstance(child, ChildSpec) else worker(child, *args, restart=Restart.TRANSIENT)
    made = Supervisor(Strategy.SIMPLE_ONE_FOR_ONE, intensity=intensity, period=period, name=name).add(
        template
    )
    return supervisor(made, name=name, id=id if id is not None or name else template.id, **options)


# --- supervisors ---------------------------------------------------------------------------------------


class Supervisor:
    """A supervisor's declaration: its flags and its children, in start order.

    ``Supervisor("one_for_one").add(…).add(…)`` in one expression, or a subclass whose ``__init__`` calls
    ``super().__init__(…)`` and `add`. `add` changes the supervisor and returns it.

    Args:
        strategy: which children are restarted when one ends.
        intensity: how many restarts are allowed within ``period``; one more and the supervisor gives up.
        period: seconds, a whole number.
        auto_shutdown: whether it stops when significant children have ended.
        name: what it is registered as on the node.
        start: how its children's OS processes are made; None to do as its own supervisor
            does, fork at the top.

    Raises:
        SpecificationError: an argument makes no sense; the text says which, ``reason`` is OTP's term for it.
    """

    def __init__(
        self,
        strategy: Strategy | str = Strategy.ONE_FOR_ONE,
        *,
        intensity: int = 2,
        period: float = 5.0,
        auto_shutdown: AutoShutdown | str = AutoShutdown.NEVER,
        name: str | None = None,
        start: StartMethod | str | None = None,
    ) -> None:
        self.strategy: Strategy = one_of(Strategy, "invalid_strategy", strategy)
        self.auto_shutdown: AutoShutdown = one_of(AutoShutdown, "invalid_auto_shutdown", auto_shutdown)
        if self.strategy is Strategy.SIMPLE_ONE_FOR_ONE and self.auto_shutdown is not AutoShutdown.NEVER:
            words = (("auto_shutdown", self.auto_shutdown), ("strategy", self.strategy))
            raise reject(
                "a simple_one_for_one supervisor cannot shut down by its significant children",
                "bad_combination",
                [(Atom(key), Atom(word)) for key, word in words],
            )
        if isinstance(intensity, bool) or not isinstance(intensity, int) or intensity < 0:
            raise reject(f"intensity is a number from 0, got {intensity!r}", "invalid_intensity", intensity)
        if isinstance(period, bool) or not isinstance(period, (int, float)) or not _whole(period):
            raise reject(
                f"period is a whole number of seconds above 0, as OTP counts it; got {period!r}",
                "invalid_period",
                period,
            )
        self.intensity = intensity
        self.period = int(period)
        self.name = _name(name)
        self.start_method = start_method_of(start)
        self._children: list[ChildSpec] = []

    @property
    def children(self) -> tuple[ChildSpec, ...]:
        """The children in start order."""
        return tuple(self._children)

    def add(self, child: ChildSpec) -> Self:
        """Add a child after the ones there are; returns this supervisor.

        Raises:
            SpecificationError: its id is taken, it does not fit the auto shutdown, or the strategy is
                ``simple_one_for_one`` and there is a child already.
        """
        if not isinstance(child, ChildSpec):
            raise reject(
                f"add takes what worker, supervisor, program or factory return, got {child!r}",
                "invalid_child_spec",
                repr(child),
            )
        if child.default_id and isinstance(child.id, Atom):
            child = attrs.evolve(child, id=_unused(child.id, [each.id for each in self._children]))
        check_children([*self._children, child], self.auto_shutdown, self.strategy)
        self._children.append(child)
        return self

    def __repr__(self) -> str:
        ids = [child.id for child in self._children]
        return f"<{type(self).__name__} {self.name or ''} {self.strategy} children={ids}>"


def _whole(period: float) -> bool:
    return 0 < period < math.inf and int(period) == period


def _unused(id: Atom, taken: Iterable[Term]) -> Atom:
    """``Atom("job")`` as it is, or ``job_2``, ``job_3``, … when that is taken."""
    keys = {exact_key(each) for each in taken}
    candidate, number = id, 1
    while exact_key(candidate) in keys:
        number += 1
        candidate = Atom(f"{id.name}_{number}")
    return candidate


def check_children(children: Sequence[ChildSpec], auto_shutdown: AutoShutdown, strategy: Strategy) -> None:
    """Check that these children may live under one supervisor.

    Raises:
        SpecificationError: with OTP's term as its reason.
    """
    seen: set[object] = set()
    for child in children:
        child.check_auto_shutdown(auto_shutdown)
        if exact_key(child.id) in seen:
            raise SpecificationError(
                f"two children with the id {child.id!r}", reason=(Atom("duplicate_child_name"), child.id)
            )
        seen.add(exact_key(child.id))
    if strategy is Strategy.SIMPLE_ONE_FOR_ONE and len(children) > 1:
        raise SpecificationError(
            "a simple_one_for_one supervisor has one child specification: the template of all its children",
            reason=(Atom("bad_start_spec"), [child.id for child in children]),
        )


def declared(start: SupervisorStart) -> Supervisor:
    """The supervisor to run for a child specification's start; calls the function if it is one.

    Raises:
        SpecificationError: it returned something else.
    """
    made = start.target if isinstance(start.target, Supervisor) else start.target(*start.args)
    if not isinstance(made, Supervisor):
        raise reject(f"expected a Supervisor from {start.target!r}, got {made!r}", "bad_return", repr(made))
    return made
