"""Functions that other nodes may call: ``rpc``, ``erpc`` and remote ``spawn`` reach these and no others.

Layer: node. Arguments are decoded by the function's annotations and the result is encoded by its return
annotation (see ``pyglyn.gleam``); what has no annotation passes as a plain term. A function whose first
parameter is annotated ``Process`` gets the process that runs it.
"""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import attrs

from pyglyn import etf
from pyglyn.errors import GleamError, PyglynError, UnsupportedType
from pyglyn.etf import Term
from pyglyn.node.destinations import name_of
from pyglyn.node.process import Process
from pyglyn.node.reasons import BADARG
from pyglyn.node.threads import THREADS

F = TypeVar("F", bound=Callable[..., Any])


class BadArgument(Exception):
    """An argument that does not fit its annotation.

    Attributes:
        reason: ``{badarg, Text}``, the error the caller sees.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.reason: Term = (BADARG, text.encode("utf-8", "replace"))


class Badarg(PyglynError):
    """An argument that a built-in function does not accept; its caller sees ``badarg``."""

    reason = "badarg"


@attrs.frozen
class Exported:
    """One exported function, its decoders made once.

    Attributes:
        function: the Python function, sync or async.
        decoders: one a parameter, None where the term passes as it is.
        encoder: for the result, None where it passes as it is.
        minimum: how many arguments it needs; ``len(decoders)`` is the most it takes.
        wants_process: the first parameter is the running process.
        waits: it is one of `waits`.
    """

    function: Callable[..., Any]
    decoders: tuple[Any, ...]
    encoder: Any
    minimum: int
    wants_process: bool
    waits: bool = False

    def takes(self, arity: int) -> bool:
        """Whether a call with so many arguments is possible."""
        return self.minimum <= arity <= len(self.decoders)

    async def run(self, me: Process, args: list[Term]) -> Term:
        """Call the function. A plain function runs in a thread, so that a slow one blocks nobody.

        Raises:
            BadArgument: an argument does not fit; or whatever the function raises.
        """
        values = [self._decode(index, arg) for index, arg in enumerate(args)]
        if self.wants_process:
            values.insert(0, me)
        if inspect.iscoroutinefunction(self.function):
            result = await self.function(*values)
        else:
            result = await THREADS.run(self.function, *values)
            if inspect.isawaitable(result):
                result = await result
        return etf.normalise(result if self.encoder is None else self.encoder.encode(result))

    def _decode(self, index: int, arg: Term) -> Any:
        decoder = self.decoders[index]
        if decoder is None:
            return arg
        try:
            return decoder.decode(arg)
        except GleamError as error:
            raise BadArgument(f"argument {index + 1}: {error}") from error


def waits(function: F) -> F:
    """Mark what a node exports of itself and waits for others, or for ever: it has no turn (see ``callers``).

    While it waits, all else that its caller's node asks would wait too.
    """
    function.waits = True  # type: ignore[attr-defined]
    return function


def _inspect(function: Callable[..., Any]) -> Exported:
    hints = _hints(_annotated(function))
    parameters = _positional(function)
    wants_process = bool(parameters) and hints.get(parameters[0].name) is Process
    if wants_process:
        parameters = parameters[1:]
    decoders = tuple(_codec(hints.get(p.name), "decoder") for p in parameters)
    minimum = sum(p.default is p.empty for p in parameters)
    encoder = _codec(hints.get("return"), "encoder")
    is_waiting: bool = getattr(function, "waits", False)
    return Exported(function, decoders, encoder, minimum, wants_process, is_waiting)


def _positional(function: Callable[..., Any]) -> list[inspect.Parameter]:
    """The parameters that a call gives; those of keywords have to have defaults."""
    parameters = list(inspect.signature(function).parameters.values())
    given = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if any(p not in given and (p.kind is not p.KEYWORD_ONLY or p.default is p.empty) for p in parameters):
        raise TypeError(f"{_qualname(function)}: exported functions take positional parameters only")
    return given


def _annotated(function: Callable[..., Any]) -> Callable[..., Any]:
    """What has the annotations: the function of a partial, the ``__call__`` of an object's class."""
    while isinstance(function, functools.partial):
        function = function.func
    return function if inspect.isroutine(function) or inspect.isclass(function) else type(function).__call__


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    """The resolved annotations; ``Process`` may be imported for the type checker only."""
    try:
        return typing.get_type_hints(function)
    except NameError as error:
        if error.name != Process.__name__:
            raise
        names = getattr(inspect.unwrap(function), "__globals__", {})
        return typing.get_type_hints(function, {Process.__name__: Process, **names})


def _qualname(function: Callable[..., Any]) -> str:
    annotated = _annotated(function)
    return getattr(annotated, "__qualname__", repr(annotated))


def _codec(annotation: Any, which: str) -> Any:
    """The ``decoder`` or ``encoder`` of an annotation; None where none is needed."""
    if annotation is None or annotation is Any or annotation is Term:
        return None
    from pyglyn import gleam  # late: most nodes export no function with other annotations

    return getattr(gleam, which)(type(None) if annotation is type(None) else annotation)


def _where(function: Callable[..., Any]) -> tuple[str | None, str]:
    return getattr(_annotated(function), "__module__", None), _qualname(function)


@attrs.frozen
class _Undefined:
    """A function whose annotations name what is not defined yet."""

    function: Callable[..., Any]


class Exports:
    """A table of exported functions, by module and function name.

    An annotation may name what is defined further below in its module: it is looked up when the node starts.

    Args:
        fill: adds more to this table when one is looked for that is not in it, once.
    """

    def __init__(self, fill: Callable[[Exports], None] | None = None) -> None:
        self._table: dict[tuple[str, str], Exported | _Undefined] = {}
        self._fill = fill

    def _filled(self) -> dict[tuple[str, str], Exported | _Undefined]:
        if self._fill is not None:
            fill, self._fill = self._fill, None
            fill(self)
        return self._table

    def add(self, module: str, function: Callable[..., Any], name: str | None = None) -> None:
        """Export one function; the same one defined again (its module was reloaded) takes its place.

        Args:
            module, name: what it is called as; by default its own name. Partials and objects have none.
            function: any callable.

        Raises:
            ValueError: another function has that name already.
            TypeError: keyword-only parameters without defaults, or variadic ones; or it has no name.
            UnsupportedType: an annotation has no Gleam counterpart.
        """
        name = name or getattr(function, "__name__", None)
        if name is None:
            raise TypeError(f"{function!r} has no name: give the one it is called by, export({module!r}, …)")
        key = (module, name)
        known = self._table.get(key)
        if known is not None and _where(known.function) != _where(function):
            raise ValueError(f"{module}:{name} is exported already")
        try:
            self._table[key] = _inspect(function)
        except NameError:
            _positional(function)
            self._table[key] = _Undefined(function)

    def find(self, module: Term, function: Term, arity: int) -> Exported | None:
        """The function for a call, None if it is not exported with that many arguments.

        Raises:
            UnsupportedType: as `check`.
        """
        names = name_of(module), name_of(function)
        if names[0] is None or names[1] is None:
            return None
        key = (names[0], names[1])
        exported = self._table.get(key) or self._filled().get(key)
        if isinstance(exported, _Undefined):
            exported = self._define(key, exported)
        return exported if exported is not None and exported.takes(arity) else None

    def check(self) -> None:
        """Look up what annotations name: by now all is defined.

        Raises:
            UnsupportedType: an annotation names nothing that is visible in its module.
        """
        for key, exported in list(self._table.items()):
            if isinstance(exported, _Undefined):
                self._define(key, exported)

    def _define(self, key: tuple[str, str], undefined: _Undefined) -> Exported:
        try:
            exported = self._table[key] = _inspect(undefined.function)
        except NameError as error:
            where = ".".join(filter(None, _where(undefined.function)))
            raise UnsupportedType(
                f"{key[0]}:{key[1]} ({where}): the annotation {error.name!r} names nothing visible in "
                "its module; import or define it there, not for type checking only and not within a function"
            ) from error
        return exported

    def __contains__(self, name: tuple[str, str]) -> bool:
        return name in self._table or name in self._filled()

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self._filled())


DEFAULT = Exports()
"""What ``@export`` fills; every node of the program serves it."""


def export(module: str, name: str | None = None) -> Callable[[F], F]:
    """Export the decorated function as ``module:name`` (by default the function's own name).

    The names are Erlang atoms: ``@export("pricing")`` on ``quote`` serves
    ``rpc:call(Node, pricing, quote, Args)``. Partials, bound methods and objects that can be called are
    exported with ``export("pricing", "quote")(what)``.
    """

    def decorate(function: F) -> F:
        DEFAULT.add(module, function, name)
        return function

    return decorate
