"""Decoders: what turns a term into a value, or into a list of what did not fit. Layer: gleam, pure.

The one interface of both kinds, the derived and the hand-written. The rules are those of
``gleam/dynamic/decode`` (read in gleam_stdlib 1.0.4); the public way to them is ``pyglyn.gleam.decode``.
Terms are those that ``pyglyn.etf.decode`` returns, or ``normalise``: binaries are ``bytes``.

A decoder always gives a value, a placeholder when it also gives errors, so that the fields after a bad
one are looked at too. Where Gleam decodes the surrounding data to get a placeholder for a missing field
(which never ends for a recursive decoder), this one decodes ``MISSING``, which is no term.

What a decoder consists of is in its slots, and for a term that fits, ``_decoders`` in C does the same with
them as ``run`` does here. For one that does not, ``run`` is called from the beginning: so functions given
to ``map``, ``then`` and ``field`` may be called twice.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, Generic, TypeAlias, TypeVar

import attrs

from pyglyn import etf
from pyglyn.errors import DecodeErrors, Misfit
from pyglyn.etf import IMPLEMENTATION, Limits
from pyglyn.etf.limits import DEFAULT_LIMITS
from pyglyn.etf.terms import (
    Atom,
    BitString,
    Export,
    Fun,
    ImproperList,
    Pid,
    Port,
    Reference,
    Term,
    TermMap,
    exact_key,
)

T = TypeVar("T")
U = TypeVar("U")
Input: TypeAlias = bytes | bytearray | memoryview
"""An encoded term."""


def _as_tuple(path: Iterable[str]) -> tuple[str, ...]:
    return tuple(path)


@attrs.frozen
class DecodeError:
    """One thing that did not fit; not an exception, ``DecodeErrors`` is.

    Attributes:
        expected: what the decoder wanted: ``"String"``, ``"Field"``, …
        found: what was there, as ``classify`` names it; ``"Nothing"`` for a missing field.
        path: the way to it, outermost first: field names, positions and keys as text.
        cause: the exception of a user's function that refused the value. Not part of equality.
    """

    expected: str
    found: str
    path: tuple[str, ...] = attrs.field(default=(), converter=_as_tuple)
    cause: Exception | None = attrs.field(default=None, eq=False, repr=False)


Errors = Sequence[Misfit]
Run = Callable[[Any], tuple[Any, Errors]]
"""Term to value and errors; with errors, the value is a placeholder."""


class _Missing:
    """The type of ``MISSING``."""

    def __repr__(self) -> str:
        return "MISSING"


MISSING: Final = _Missing()

_CLASSES: dict[type, str] = {
    bool: "Bool",
    type(None): "Nil",
    bytes: "String",
    BitString: "BitArray",
    int: "Int",
    float: "Float",
    list: "List",
    ImproperList: "List",
    dict: "Dict",
    TermMap: "Dict",
    tuple: "Array",
    Reference: "Reference",
    Pid: "Pid",
    Port: "Port",
    Fun: "Function",
    Export: "Function",
}
_NULLS = frozenset(("undefined", "null"))


def classify(term: Term) -> str:
    """Name the kind of a term as ``gleam/dynamic.classify`` does; ``"Unknown"`` for what is no term."""
    if isinstance(term, Atom):
        return "Nil" if term.name in _NULLS else "Atom"
    return _CLASSES.get(type(term), "Unknown")


def is_null(term: Term) -> bool:
    """Tell whether Gleam's ``decode.optional`` takes the term for nothing: nil, null, undefined."""
    return term is None or (type(term) is Atom and term.name in _NULLS)


c: Any = None
if IMPLEMENTATION == "c":
    with contextlib.suppress(ImportError):
        c = importlib.import_module("pyglyn.gleam._decoders")


class Decoder(Generic[T]):
    """Turns terms into values of one type. Make one with ``gleam.decoder`` or the functions of ``decode``."""

    __slots__ = ("run",)

    run: Run
    """Decode without raising: the value, and what did not fit (then the value is a placeholder)."""

    def __init__(self, run: Run) -> None:
        self.run = run

    def decode(self, term: Term) -> T:
        """Decode a term.

        Raises:
            DecodeErrors: it does not fit, or is nested too deeply for Python's recursion limit.
        """
        if c is not None and (value := c.decode(self, term)) is not c.MISFIT:
            return value  # type: ignore[no-any-return]
        try:
            value, errors = self.run(term)
        except RecursionError:
            raise DecodeErrors([too_deep(term)]) from None
        if errors:
            raise DecodeErrors(errors)
        return value  # type: ignore[no-any-return]

    def decode_bytes(self, data: Input, *, limits: Limits = DEFAULT_LIMITS) -> T:
        """Decode one encoded term, version byte first: ``decode(etf.decode(data))``.

        A derived decoder makes the value straight of the bytes, which takes a third of the time.

        Raises:
            DecodeErrors: the term does not fit.
            errors.DecodeError: the bytes are no term, or exceed the limits.
        """
        return self.decode(etf.decode(data, limits=limits))

    def decode_bare(self, data: Input, offset: int = 0, *, limits: Limits = DEFAULT_LIMITS) -> T:
        """Decode one encoded term without a version byte, as a message is; what follows it is left alone.

        Raises:
            DecodeErrors, errors.DecodeError: as ``decode_bytes``.
        """
        return self.decode(etf.decode_bare(data, offset, limits=limits)[0])

    def map(self, transformer: Callable[[T], U]) -> Decoder[U]:
        """Transform the value. What the function raises of ``REFUSALS`` becomes a decode error."""
        return make(Mapped, self, transformer)  # type: ignore[no-any-return]

    def then(self, next: Callable[[T], Decoder[U]]) -> Decoder[U]:
        """Choose the decoder of the same term by the value found; errors are those of the first to fail."""
        return make(Then, self, next)  # type: ignore[no-any-return]

    def map_errors(self, transformer: Callable[[list[Misfit]], list[DecodeError]]) -> Decoder[T]:
        """Transform the list of errors; it is called with an empty list when all is well, as in Gleam."""
        inner = self.run

        def run(term: Term) -> tuple[Any, Errors]:
            value, errors = inner(term)
            return value, transformer(list(errors))

        return Decoder(run)

    def collapse_errors(self, expected: str) -> Decoder[T]:
        """Report one error with this name instead of all that there are."""
        inner = self.run

        def run(term: Term) -> tuple[Any, Errors]:
            value, errors = inner(term)
            return value, decode_error(expected, term) if errors else errors

        return Decoder(run)


class Planned(Decoder[T]):
    """A decoder with what it consists of in slots, in the order of its arguments, for ``_decoders``."""

    __slots__: tuple[str, ...] = ()

    def __init__(self, *fields: Any) -> None:
        for name, value in zip(self.__slots__, fields, strict=True):
            setattr(self, name, value)


class Mapped(Planned[T]):
    """``Decoder.map``."""

    __slots__ = ("inner", "transformer")

    inner: Decoder[Any]
    transformer: Callable[[Any], T]

    def run(self, term: Term) -> tuple[Any, Errors]:
        value, errors = self.inner.run(term)
        if errors:
            return placeholder(lambda: self.transformer(value)), errors
        try:
            return self.transformer(value), ()
        except REFUSALS as error:
            return None, refusal(error, self.transformer, term)


class Then(Planned[T]):
    """``Decoder.then``."""

    __slots__ = ("inner", "next")

    inner: Decoder[Any]
    next: Callable[[Any], Decoder[T]]

    def run(self, term: Term) -> tuple[Any, Errors]:
        value, errors = self.inner.run(term)
        after, further = continued(self.next, value, term, bool(errors))
        return after, errors or further


def _make(cls: Callable[..., Decoder[Any]], *fields: Any) -> Any:
    return cls(*fields)


make: Callable[..., Any] = _make if c is None else c.make
"""Make a ``Planned`` decoder; its class was made known."""


def know(*classes: type[Planned[Any]]) -> None:
    """Tell ``_decoders`` of classes by the names that it has for them."""
    if c is not None:
        for cls in classes:
            c.know(getattr(c, cls.__name__), cls, cls.__slots__)


know(Mapped, Then)


def decode_error(expected: str, found: Term) -> list[Misfit]:
    """Make the list of one error for a term that is not what was expected."""
    return [DecodeError(expected, classify(found))]


def too_deep(term: Term) -> DecodeError:
    """Make the error for a term nested more deeply than Python recurses."""
    return DecodeError("less deeply nested data", classify(term))


REFUSALS = (ValueError, ArithmeticError, LookupError)
"""What a function given to ``map`` or ``then`` raises to refuse a value; anything else is a bug in it."""


def refusal(error: Exception, function: object, term: Term) -> Errors:
    """Make the errors for a user's function that raised: its own decode errors, or one with its name."""
    if isinstance(error, DecodeErrors):
        return error.errors
    name = getattr(function, "__name__", "<lambda>")
    expected = "a value its decoder accepts" if name == "<lambda>" else name
    return (DecodeError(expected, classify(term), (), error),)


def placeholder(make: Callable[[], U]) -> U | None:
    """Call a user's function on a placeholder, which it need not be ready for."""
    try:
        return make()
    except RecursionError:
        raise
    except Exception:
        return None


def continued(
    next: Callable[[Any], Decoder[Any]], value: object, term: Term, failed: bool
) -> tuple[Any, Errors]:
    """Run the decoder that follows a value; when that value is a placeholder, forgive what goes wrong."""
    if failed:
        return placeholder(lambda: next(value).run(term)) or (None, ())
    try:
        decoder = next(value)
    except REFUSALS as error:
        return None, refusal(error, next, term)
    return decoder.run(term)


def with_path(errors: Errors, *path: str) -> list[Misfit]:
    """Put path elements before those that the errors have."""
    return [
        attrs.evolve(e, path=path + e.path)
        if isinstance(e, DecodeError)
        else DecodeError(e.expected, e.found, path + e.path)
        for e in errors
    ]


# --- fields ----------------------------------------------------------------------------------------

INDEXED_ELEMENTS = 8
"""How far into a list an index reaches: Gleam's own rule."""
_EXACT = (bytes, Atom, type(None), Pid, Port, Reference)


def index(container: Term, key: Any) -> tuple[Any, str | None]:
    """Look one step into a term, as ``gleam_stdlib:index/2`` does.

    Maps by any key (a ``str`` is the binary), tuples by position, lists by the positions 0 to 7.

    Returns:
        The value and None; or MISSING and ``"Nothing"`` where there is no such field, ``"Indexable"`` or
        ``"Dict"`` where the term has no fields of that kind.
    """
    if type(key) is int:
        if isinstance(container, list) and 0 <= key < min(INDEXED_ELEMENTS, len(container)):
            return container[key], None
        if type(container) is tuple:
            return (container[key], None) if 0 <= key < len(container) else (MISSING, "Nothing")
    if isinstance(container, (dict, TermMap)):
        return _lookup(container, key.encode() if isinstance(key, str) else key)
    return MISSING, "Indexable" if type(key) is int else "Dict"


def _lookup(container: dict[Any, Any] | TermMap, key: Any) -> tuple[Any, str | None]:
    """Find a key by Erlang's ``=:=``; to a ``dict``, 1 and 1.0 and True are one key."""
    try:
        value = container.get(key, MISSING)  # type: ignore[arg-type]
    except TypeError:
        return MISSING, "Nothing"
    if value is MISSING:
        return MISSING, "Nothing"
    if isinstance(container, dict) and not isinstance(key, _EXACT):
        wanted = exact_key(key)
        if all(exact_key(each) != wanted for each in container):
            return MISSING, "Nothing"
    return value, None


def path_segment(key: Any) -> str:
    """Write a key for a path: strings and numbers as they are, others as ``<Kind>``, as Gleam does."""
    if isinstance(key, str):
        return key
    if isinstance(key, bytes):
        try:
            return key.decode()
        except UnicodeDecodeError:
            return "<String>"
    if type(key) is int or type(key) is float:
        return _float_text(key) if type(key) is float else str(key)
    return f"<{classify(key)}>"


def _float_text(number: float) -> str:
    """Write a float as Erlang does (``1.0e20``), not as Python does (``1e+20``)."""
    mantissa, _, exponent = repr(number).partition("e")
    if not exponent:
        return mantissa
    return f"{mantissa if '.' in mantissa else mantissa + '.0'}e{int(exponent)}"
