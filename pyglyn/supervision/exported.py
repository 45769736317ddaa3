"""Children that Erlang may start, by specifications exported for that. Layer: supervision, pure.

Only what was exported for that on purpose can be started. What is exported is the child itself (a `GenServer`
class, a function), or a function that returns a `ChildSpec`, annotated so: then what is started, and every
option that Erlang did not give, is taken from there::

    @export_child("shop")
    def stock(items) -> ChildSpec:
        return worker(Stock, items, name="stock", memory_limit="512 MiB")

    supervisor:start_child(Sup, #{id => stock, start => {shop, stock, [#{<<"laptop">> => 10}]}})

Arguments are terms as they come.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, Final, TypeVar

import attrs

from pyglyn.errors import ChildStartError, UnsupportedType
from pyglyn.etf import Atom, Term
from pyglyn.supervision.os.command import ProgramStart
from pyglyn.supervision.spec import CallableStart, ChildSpec, ExportStart, Start, SupervisorStart

_OPTIONS: Final = (
    "isolation", "start_method", "start_timeout", "heartbeat", "memory_limit", "recycle", "backoff",
    "handover", "name",
)  # fmt: skip
"""Those OTP does not know; `described` is for the others."""


class ExportedChildren:
    """A table of what Erlang may start, by module and name."""

    def __init__(self) -> None:
        self._table: dict[tuple[str, str], Callable[..., Any]] = {}

    def add(self, module: str, name: str, target: Callable[..., Any]) -> None:
        """Export a class or function.

        Raises:
            ValueError: another one has that name.
            TypeError: nothing says whether a function is the child itself or returns its specification.
        """
        if _says_nothing(target):
            raise TypeError(
                f"{module}:{name} is a function without a return annotation: write `-> ChildSpec` if it "
                "returns the specification of the child, `-> None` if it is the child itself"
            )
        if self._table.setdefault((module, name), target) is not target:
            raise ValueError(f"{module}:{name} is exported as a child already")

    def check(self) -> None:
        """Look up what the return annotations name: by now all is defined.

        Raises:
            UnsupportedType: one names nothing that is visible in its module.
        """
        for module, name in self._table:
            self._makes_specification(module, name)

    def _makes_specification(self, module: str, name: str) -> bool:
        """Whether what is exported is a function that returns the specification, not the child itself.

        Raises:
            UnsupportedType: its annotation names nothing that is visible in its module.
        """
        target = self._table[module, name]
        if inspect.isclass(target) or inspect.iscoroutinefunction(target):
            return False
        returned = getattr(target, "__annotations__", {}).get("return")
        if not isinstance(returned, str):
            return returned is ChildSpec
        globals = getattr(inspect.unwrap(target), "__globals__", {})
        try:
            hints = typing.get_type_hints(SimpleNamespace(__annotations__={"": returned}), globals)
        except NameError as error:
            raise UnsupportedType(
                f"{module}:{name}: what it returns is annotated {returned!r}, and {error.name!r} names "
                "nothing visible in its module; import or define it there, not for type checking only and "
                "not within a function"
            ) from error
        return hints[""] is ChildSpec

    def _find(self, start: ExportStart) -> tuple[Callable[..., Any], bool] | None:
        """What is exported for a start, and whether it makes the specification; None if it does not fit.

        Raises:
            UnsupportedType: its annotation names nothing that is visible in its module.
        """
        key = (start.module.name, start.function.name)
        target = self._table.get(key)
        if target is None:
            return None
        makes = self._makes_specification(*key)
        return (target, makes) if not makes or _takes(target, start.args) else None

    def resolve(self, spec: ChildSpec, extra: Sequence[Any] = ()) -> tuple[ChildSpec, Start]:
        """What to start for a specification, with the arguments of a dynamic child after its own.

        Raises:
            ChildStartError: ``{'EXIT', {undef, Stack}}`` for what is not exported, as OTP's; ``badarg`` for
                arguments that do not fit.
            UnsupportedType: the annotation of what is exported names nothing that is visible in its module.
        """
        start = spec.start
        if isinstance(start, ExportStart):
            return self._resolve_export(spec, attrs.evolve(start, args=[*start.args, *extra]))
        if not extra:
            return spec, start
        if isinstance(start, ProgramStart):
            return spec, attrs.evolve(start, argv=(*start.argv, *(_word(spec, each) for each in extra)))
        assert isinstance(start, (CallableStart, SupervisorStart))
        return spec, attrs.evolve(start, args=(*start.args, *extra))

    def described(self, start: ExportStart) -> ChildSpec | None:
        """The specification that an exported function returns, whose options are those Erlang did not give.

        None where a function or class is the child itself, and where the start will fail.
        """
        try:
            found = self._find(start)
            if found is None or not found[1]:
                return None
            made = found[0](*start.args)
        except Exception:
            return None
        return made if isinstance(made, ChildSpec) else None

    def _resolve_export(self, spec: ChildSpec, start: ExportStart) -> tuple[ChildSpec, Start]:
        found = self._find(start)
        if found is None:
            undef: Term = (Atom("undef"), [(start.module, start.function, start.args, [])])
            named = f"{start.module}:{start.function}/{len(start.args)}"
            raise _error(spec, (Atom("EXIT"), undef), f"{named} is not exported as a child")
        target, makes = found
        if not makes:
            return spec, CallableStart(target, tuple(start.args))
        made: ChildSpec = target(*start.args)
        return _merged(spec, made), made.start


EXPORTED = ExportedChildren()
"""What ``@export_child`` fills; the supervisors of this OS process start from it."""

F = TypeVar("F", bound=Callable[..., Any])


def export_child(module: str, name: str | None = None) -> Callable[[F], F]:
    """Let Erlang start the decorated class or function as ``{module, name, Args}``.

    A function that is not async says by its return annotation what it is: ``-> ChildSpec`` where it returns
    the child's specification, anything else where it is the child itself.

    Raises:
        ValueError: another one has that name.
        TypeError: a function has no such annotation.
    """

    def decorate(target: F) -> F:
        EXPORTED.add(module, name or target.__name__, target)
        return target

    return decorate


def _word(spec: ChildSpec, value: Any) -> str:
    if isinstance(value, bytes) and b"\0" not in value:
        return value.decode(errors="surrogateescape")
    if isinstance(value, (str, int, float, Atom)):
        return str(value)
    raise _error(spec, Atom("badarg"), "an argument of a program is a binary, an atom or a number")


def _error(spec: ChildSpec, reason: Term, text: str) -> ChildStartError:
    return ChildStartError(text, child_id=spec.id, reason=reason)


def _says_nothing(target: Callable[..., Any]) -> bool:
    return (
        inspect.isroutine(target)
        and not inspect.iscoroutinefunction(target)
        and "return" not in getattr(target, "__annotations__", {})
    )


def _takes(target: Callable[..., Any], args: Sequence[Term]) -> bool:
    """Whether a function that returns a specification can be called with so many arguments."""
    try:
        inspect.signature(target).bind(*args)
    except TypeError:
        return False
    return True


def _merged(spec: ChildSpec, made: ChildSpec) -> ChildSpec:
    """The given specification with the options of the exported one that it leaves open."""
    default = ChildSpec(id=spec.id, start=spec.start)
    left_open = [key for key in _OPTIONS if getattr(spec, key) == getattr(default, key)]
    return attrs.evolve(spec, **{key: getattr(made, key) for key in left_open})
