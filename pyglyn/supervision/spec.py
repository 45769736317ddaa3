"""Child specifications and the supervisors they are for. Layer: supervision, pure.

The defaults are OTP's and Gleam's: at most 2 restarts in 5 seconds, workers get 5 seconds to shut
down, supervisors as long as they need. Durations are seconds here and milliseconds in Erlang terms, for
which see `pyglyn.supervision.erlang_spec`. How programs write them is in `pyglyn.supervision.declaration`.

All values can be pickled when their functions can (module-level functions and classes), so they may be
handed to another OS process.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, Self, TypeAlias

import attrs

from pyglyn.errors import SpecificationError
from pyglyn.escaping import shown
from pyglyn.etf.terms import Atom, Term, exact_key
from pyglyn.node.destinations import name_term
from pyglyn.supervision.os.command import ProgramStart
from pyglyn.supervision.words import (
    AutoShutdown,
    Backoff,
    ChildType,
    Isolation,
    Recycle,
    Restart,
    Shutdown,
    StartMethod,
    Strategy,
    bytes_of,
    child_type_of,
    isolation_of,
    one_of,
    positive_seconds,
    reject,
    restart_of,
    shutdown_of,
    start_method_of,
)

# --- how a child starts --------------------------------------------------------------------------------


@attrs.frozen
class CallableStart:
    """An async function, a plain function or a `GenServer` class, with its arguments."""

    target: Callable[..., Any]
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = attrs.field(factory=dict)


@attrs.frozen
class SupervisorStart:
    """A nested supervisor: the declaration itself, or what returns one (called at every start, as ``init``).

    See `declared`.
    """

    target: Supervisor | Callable[..., Supervisor]
    args: tuple[Any, ...] = ()


@attrs.frozen
class ExportStart:
    """``{Module, Function, Args}`` as Erlang names it: an exported function or child specification."""

    module: Atom
    function: Atom
    args: list[Term] = attrs.field(factory=list)


Start: TypeAlias = CallableStart | ProgramStart | SupervisorStart | ExportStart


# --- child specifications ------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class ChildSpec:
    """One child of a supervisor. Made by `worker`, `supervisor`, `program` and `factory`, or from Erlang.

    Attributes:
        id: a term, unique in its supervisor.
        start: what is started.
        restart: when it is started again.
        shutdown: seconds it has for stopping, or ``brutal_kill``, or ``infinity``.
        type: worker or supervisor.
        significant: whether its end can stop the supervisor (see `AutoShutdown`).
        modules: for release handlers; None for the module of what is started.
        name: what it is registered as on the node, if anything.
        isolation: in an OS process of its own, or in the supervisor's.
        start_method: fork or spawn; None to do as its supervisor does.
        start_timeout: seconds until a start that is not done counts as failed; None for no limit.
        heartbeat: seconds its event loop may be stuck before it is killed with reason ``stuck``.
        memory_limit: bytes of memory of its own before it is killed with ``{memory_limit, Bytes}``.
        recycle: when it ends after its present work, to be started anew.
        backoff: pauses before its restarts.
        handover: whether the supervisor keeps what the child last checkpointed, for its successor.
        default_id: the id was made up; a supervisor that has it already makes another one up.
    """

    id: Term
    start: Start
    restart: Restart = attrs.field(default=Restart.PERMANENT, converter=restart_of)
    shutdown: Shutdown = attrs.field(default=5.0, converter=shutdown_of)
    type: ChildType = attrs.field(default=ChildType.WORKER, converter=child_type_of)
    significant: bool = attrs.field(default=False)
    modules: tuple[Atom, ...] | Literal["dynamic"] | None = None
    name: str | None = None
    isolation: Isolation = attrs.field(default=Isolation.PROCESS, converter=isolation_of)
    start_method: StartMethod | None = attrs.field(default=None, converter=start_method_of)
    start_timeout: float | None = attrs.field(default=None, validator=positive_seconds("start_timeout"))
    heartbeat: float | None = attrs.field(default=None, validator=positive_seconds("heartbeat"))
    memory_limit: int | None = attrs.field(default=None, converter=bytes_of)
    recycle: Recycle | None = attrs.field(default=None)
    backoff: Backoff | None = attrs.field(default=None)
    handover: bool = False
    default_id: bool = attrs.field(default=False, eq=False, repr=False)

    @backoff.validator
    def _check_backoff(self, attribute: object, value: object) -> None:
        if value is not None and not isinstance(value, Backoff):
            raise reject(
                f"backoff is a Backoff, such as Backoff(initial=0.5); got {shown(value)}",
                "invalid_backoff",
                repr(value),
            )

    @recycle.validator
    def _check_recycle(self, attribute: object, value: object) -> None:
        if value is None:
            return
        if not isinstance(value, Recycle):
            raise reject(
                f'recycle is a Recycle, such as Recycle(memory="400 MiB"); got {shown(value)}',
                "invalid_recycle",
                repr(value),
            )
        if self.restart is Restart.TEMPORARY:
            raise reject(
                f"{shown(self.id)} is never started again, so it cannot be recycled",
                "bad_combination",
                [(Atom("restart"), Atom("temporary")), (Atom("recycle"), True)],
            )

    @significant.validator
    def _check_significant(self, attribute: object, value: object) -> None:
        if not isinstance(value, bool):
            raise reject(f"significant is True or False, got {shown(value)}", "invalid_significant", value)
        if value and self.restart is Restart.PERMANENT:
            raise SpecificationError(
                f"{shown(self.id)}: a permanent child cannot be significant; make it transient or temporary",
                reason=_bad_combination("restart", Atom("permanent")),
            )

    def __attrs_post_init__(self) -> None:
        if self.isolation is Isolation.TASK:
            for option in ("heartbeat", "memory_limit", "recycle", "start_method"):
                if getattr(self, option) is not None:
                    raise reject(
                        f"{shown(self.id)}: {option} needs an OS process, not isolation='task'",
                        "bad_combination",
                        [(Atom("isolation"), Atom("task")), (Atom(option), True)],
                    )

    def check_auto_shutdown(self, auto_shutdown: AutoShutdown) -> None:
        """Check that a supervisor with this ``auto_shutdown`` may have the child.

        Raises:
            SpecificationError: a significant child where nothing can come of it.
        """
        if self.significant and auto_shutdown is AutoShutdown.NEVER:
            raise SpecificationError(
                f"{shown(self.id)} is significant, but its supervisor's auto_shutdown is never",
                reason=_bad_combination("auto_shutdown", Atom("never")),
            )


def _bad_combination(key: str, value: Term) -> Term:
    return (Atom("bad_combination"), [(Atom(key), value), (Atom("significant"), True)])


def identifier(given: Term) -> Term:
    """A child's id as a term: text becomes an atom, as names do everywhere in calls.

    Raises:
        SpecificationError: text that cannot be an atom.
    """
    if not isinstance(given, str):
        return given
    try:
        return name_term(given)
    except ValueError as error:
        raise reject(f"{shown(given)} cannot be a child's id: {error}", "invalid_child_id", given) from error


# --- supervisors ---------------------------------------------------------------------------------------

_NO_NAMES = ("", "undefined", "restarting")


def registered_name(name: str | None) -> str | None:
    if name is not None and (not isinstance(name, str) or name in _NO_NAMES):
        raise reject(f"{name!r} cannot be a registered name", "invalid_name", repr(name))
    if name is not None:
        identifier(name)
    return name


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
        self.name = registered_name(name)
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
                f"add takes what worker, supervisor, program or factory return, got {child!r}"
                + _instead(child),
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


def _instead(child: object) -> str:
    """What was probably meant, by somebody who has added something else than a specification."""
    if isinstance(child, Supervisor):
        return "; write supervisor(…, name=…) around it"
    if callable(getattr(child, "worker", None)):
        return "; what its worker() returns is one"
    if callable(child):
        return f"; write worker({getattr(child, '__name__', '…')}, …)"
    return ""


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
                f"two children with the id {shown(child.id)}", reason=(Atom("duplicate_child_name"), child.id)
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
