"""Hand-written decoders, after ``gleam/dynamic/decode``. Layer: gleam, pure.

Same names, same rules, same errors (read in gleam_stdlib 1.0.4); ``list`` and ``dict`` are ``list_of`` and
``dict_of``. What Gleam writes with ``use`` is a lambda or a chain here::

    order = decode.field(0, decode.atom_named("order_confirmed"), lambda _:
            decode.field(1, decode.string, lambda id:
            decode.success(OrderConfirmed(id))))

    order = decode.field(1, decode.string).map(OrderConfirmed)      # the same without looking at the tag

Where this differs, because nothing is to be lost in silence: an improper list and two keys that become
one are errors; ``atom`` does not take ``true``, ``false`` and ``nil``, which are no ``Atom`` in Python; a
``ValueError`` (or one of arithmetic or look-up) from a function given to ``map`` or ``then`` is a decode
error. ``optional`` is for ``nil``, ``null`` and ``undefined``, as in Gleam; a Gleam ``Option`` travels as
``{some, X}`` or ``none``, for which there is ``gleam.decoder(X | None)``.
"""

from __future__ import annotations

import builtins
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Final, TypeVar, overload

from pyglyn.errors import Misfit
from pyglyn.etf.terms import Atom, BitString, Term, TermMap
from pyglyn.gleam.dynamic import (
    MISSING,
    DecodeError,
    Decoder,
    Errors,
    Planned,
    classify,
    continued,
    decode_error,
    index,
    is_null,
    know,
    make,
    path_segment,
    placeholder,
    too_deep,
    with_path,
)
from pyglyn.gleam.names import atom_term
from pyglyn.gleam.types import BitArray, Error, Ok

__all__ = [
    "DecodeError",
    "Decoder",
    "at",
    "atom",
    "atom_named",
    "bit_array",
    "bool",
    "classify",
    "collapse_errors",
    "decode_error",
    "dict_of",
    "dynamic",
    "failure",
    "field",
    "float",
    "int",
    "list_of",
    "map",
    "map_errors",
    "new_primitive_decoder",
    "one_of",
    "optional",
    "optional_field",
    "optionally_at",
    "recursive",
    "run",
    "string",
    "subfield",
    "success",
    "then",
]

T = TypeVar("T")
U = TypeVar("U")
K = TypeVar("K")
Key = Hashable
"""A map key, where a str is the binary, or a position in a tuple or a list."""


def run(term: Term, decoder: Decoder[T]) -> Ok[T] | Error[list[Misfit]]:
    """Decode a term into a Gleam ``Result``; ``decoder.decode`` raises instead."""
    try:
        value, errors = decoder.run(term)
    except RecursionError:
        return Error([too_deep(term)])
    return Error(list(errors)) if errors else Ok(value)


# --- single values ---------------------------------------------------------------------------------


class Exact(Planned[T]):
    """Takes what is exactly of a type."""

    __slots__ = ("kind", "name", "zero")

    kind: type[T]
    name: str
    zero: T

    def run(self, term: Term) -> tuple[T, Errors]:
        if type(term) is self.kind:
            return term, ()
        return self.zero, decode_error(self.name, term)


class Text(Planned[str]):
    """Takes a binary that is UTF-8."""

    __slots__ = ()

    def run(self, term: Term) -> tuple[str, Errors]:
        if type(term) is bytes:
            try:
                return term.decode(), ()
            except UnicodeDecodeError:
                pass
        return "", decode_error("String", term)


def _bit_array(term: Term) -> tuple[BitArray, Errors]:
    if isinstance(term, (bytes, BitString)):
        return term, ()
    return b"", decode_error("BitArray", term)


def _dynamic(term: Any) -> tuple[Term, Errors]:
    return (None if term is MISSING else term), ()


string: Final[Decoder[str]] = Text()
int: Final[Decoder[builtins.int]] = Exact(builtins.int, "Int", 0)
float: Final[Decoder[builtins.float]] = Exact(builtins.float, "Float", 0.0)
bool: Final[Decoder[builtins.bool]] = Exact(builtins.bool, "Bool", False)
bit_array: Final[Decoder[BitArray]] = Decoder(_bit_array)
atom: Final[Decoder[Atom]] = Exact(Atom, "Atom", Atom("undefined"))
dynamic: Final[Decoder[Term]] = Decoder(_dynamic)


class Named(Planned[Atom | builtins.bool | None]):
    """Takes one atom only."""

    __slots__ = ("name", "wanted")

    name: str
    wanted: Atom | builtins.bool | None

    def run(self, term: Term) -> tuple[Any, Errors]:
        return self.wanted, () if term is self.wanted else decode_error(self.name, term)


def atom_named(name: str) -> Decoder[Atom | builtins.bool | None]:
    """Take one atom only; the error expects its name. ``true``, ``false`` and ``nil`` work too."""
    return Named(name, atom_term(name))


def new_primitive_decoder(name: str, function: Callable[[Term], Ok[T] | Error[T]]) -> Decoder[T]:
    """Make a decoder of a function that gives ``Ok(value)``, or ``Error(placeholder)`` if it cannot."""

    def run(term: Term) -> tuple[Any, Errors]:
        result = function(term)
        if isinstance(result, Ok):
            return result.value, ()
        return result.error, decode_error(name, term)

    return Decoder(run)


# --- values within values --------------------------------------------------------------------------


class ListOf(Planned[list[T]]):
    """``list_of``."""

    __slots__ = ("inner",)

    inner: Decoder[T]

    def run(self, term: Term) -> tuple[list[T], Errors]:
        if type(term) is not list and type(term) is not tuple:
            return [], decode_error("List", term)
        run_inner = self.inner.run
        values = []
        for position, element in enumerate(term):
            value, errors = run_inner(element)
            if errors:
                return [], with_path(errors, str(position))
            values.append(value)
        return values, ()


def list_of(inner: Decoder[T]) -> Decoder[list[T]]:
    """Take a list of such elements, or a tuple of them; the first bad element ends it, as in Gleam."""
    return make(ListOf, inner)  # type: ignore[no-any-return]


def dict_of(key: Decoder[K], value: Decoder[T]) -> Decoder[dict[K, T]]:
    """Take a map; the first bad key (path ``keys``) or value (path: its key) ends it, as in Gleam.

    Two keys that are one in Python, and keys that no ``dict`` can hold, are errors.
    """

    def run(term: Term) -> tuple[dict[K, T], Errors]:
        if not isinstance(term, (dict, TermMap)):
            return {}, decode_error("Dict", term)
        values: dict[K, T] = {}
        for each_key, each_value in term.items():
            decoded_key, errors = key.run(each_key)
            if errors:
                return {}, with_path(errors, "keys")
            decoded, errors = value.run(each_value)
            if errors:
                return {}, with_path(errors, path_segment(each_key))
            try:
                values[decoded_key] = decoded
            except TypeError:
                return {}, [DecodeError("hashable key", classify(each_key), ("keys",))]
        if len(values) != len(term):
            return {}, [DecodeError("Dict with distinct keys", "Dict")]
        return values, ()

    return Decoder(run)


def optional(inner: Decoder[T]) -> Decoder[T | None]:
    """Take ``nil``, ``null`` and ``undefined`` as None, and anything else by the inner decoder."""
    run_inner = inner.run
    return Decoder(lambda term: (None, ()) if is_null(term) else run_inner(term))


def at(path: Sequence[Key], inner: Decoder[T]) -> Decoder[T]:
    """Decode what is at the end of a path; a field missing on the way is an error."""
    return Decoder(lambda term: _follow(path, inner, term, None))


def optionally_at(path: Sequence[Key], default: T, inner: Decoder[T]) -> Decoder[T]:
    """Decode what is at the end of a path, or give the default if a field on the way is missing."""
    return Decoder(lambda term: _follow(path, inner, term, lambda: default))


def _follow(
    path: Sequence[Key], inner: Decoder[T], term: Any, default: Callable[[], T] | None
) -> tuple[Any, Errors]:
    gone: list[str] = []
    for key in path:
        value, problem = index(term, key)
        if problem == "Nothing":
            if default is not None:
                return default(), ()
            gone.append(path_segment(key))
            return placeholder(lambda: inner.run(MISSING)[0]), [DecodeError("Field", "Nothing", tuple(gone))]
        if problem is not None:
            return placeholder(lambda: inner.run(MISSING)[0]), [
                DecodeError(problem, classify(term), tuple(gone))
            ]
        term = value
        gone.append(path_segment(key))
    found, errors = inner.run(term)
    return found, with_path(errors, *gone) if errors else ()


# --- fields, one after the other -------------------------------------------------------------------


@overload
def field(name: Key, decoder: Decoder[T]) -> Decoder[T]: ...


@overload
def field(name: Key, decoder: Decoder[T], next: Callable[[T], Decoder[U]]) -> Decoder[U]: ...


def field(
    name: Key, decoder: Decoder[Any], next: Callable[[Any], Decoder[Any]] | None = None
) -> Decoder[Any]:
    """Decode a field, then go on with the decoder that ``next`` makes of its value; errors add up.

    Without ``next``, the field is the result. A field is looked up in a map by any key (a str is the
    binary), in a tuple by its position from 0, in a list by the positions 0 to 7.
    """
    return make(Field, decoder, name, next)  # type: ignore[no-any-return]


class Field(Planned[T]):
    """``field``."""

    __slots__ = ("inner", "name", "next")

    inner: Decoder[Any]
    name: Key
    next: Callable[[Any], Decoder[T]] | None

    def run(self, term: Term) -> tuple[Any, Errors]:
        if self.next is None:
            return self._first(term)
        return _and_then(self._first, self.next, term)

    def _first(self, term: Any) -> tuple[Any, Errors]:
        """Decode the field alone; the short way is for the fields of constructors."""
        name = self.name
        if type(name) is not builtins.int or type(term) is not tuple or not 0 <= name < len(term):
            return _follow([name], self.inner, term, None)
        value, errors = self.inner.run(term[name])
        return value, with_path(errors, str(name)) if errors else ()


@overload
def subfield(path: Sequence[Key], decoder: Decoder[T]) -> Decoder[T]: ...


@overload
def subfield(path: Sequence[Key], decoder: Decoder[T], next: Callable[[T], Decoder[U]]) -> Decoder[U]: ...


def subfield(
    path: Sequence[Key], decoder: Decoder[Any], next: Callable[[Any], Decoder[Any]] | None = None
) -> Decoder[Any]:
    """Do as ``field`` does, at the end of a path."""
    if next is None:
        return at(path, decoder)

    def first(term: Term) -> tuple[Any, Errors]:
        return _follow(path, decoder, term, None)

    return Decoder(lambda term: _and_then(first, next, term))


@overload
def optional_field(name: Key, default: T, decoder: Decoder[T]) -> Decoder[T]: ...


@overload
def optional_field(
    name: Key, default: T, decoder: Decoder[T], next: Callable[[T], Decoder[U]]
) -> Decoder[U]: ...


def optional_field(
    name: Key, default: Any, decoder: Decoder[Any], next: Callable[[Any], Decoder[Any]] | None = None
) -> Decoder[Any]:
    """Do as ``field`` does, with a default for a field that is missing (not for one that does not fit)."""

    def first(term: Term) -> tuple[Any, Errors]:
        value, problem = index(term, name)
        if problem == "Nothing":
            return default, ()
        if problem is not None:
            return default, [DecodeError(problem, classify(term), (path_segment(name),))]
        found, errors = decoder.run(value)
        return found, with_path(errors, path_segment(name)) if errors else ()

    return Decoder((lambda term: _and_then(first, next, term)) if next else first)


def _and_then(
    first: Callable[[Term], tuple[Any, Errors]], next: Callable[[Any], Decoder[U]], term: Term
) -> tuple[Any, Errors]:
    value, errors = first(term)
    after, further = continued(next, value, term, len(errors) > 0)
    return after, [*errors, *further] if errors else further


# --- choices ---------------------------------------------------------------------------------------


class Success(Planned[T]):
    """``success``."""

    __slots__ = ("value",)

    value: T

    def run(self, term: Term) -> tuple[T, Errors]:
        return self.value, ()


def success(value: T) -> Decoder[T]:
    """Give this value, whatever the term."""
    return make(Success, value)  # type: ignore[no-any-return]


def failure(zero: T, expected: str) -> Decoder[T]:
    """Fail, whatever the term, having expected what the text says.

    ``zero`` is the placeholder that the decoders after it go on with; None does in most cases.
    """
    return Decoder(lambda term: (zero, decode_error(expected, term)))


class OneOf(Planned[T]):
    """``one_of``."""

    __slots__ = ("alternatives", "first")

    alternatives: tuple[Decoder[T], ...]
    first: Decoder[T]

    def run(self, term: Term) -> tuple[T, Errors]:
        failed = value, errors = self.first.run(term)
        if not errors:
            return value, errors
        for decoder in self.alternatives:
            value, errors = decoder.run(term)
            if not errors:
                return value, errors
        return failed


def one_of(first: Decoder[T], alternatives: Sequence[Decoder[T]]) -> Decoder[T]:
    """Try one decoder after the other. If none succeeds, the errors are those of the first."""
    return OneOf(tuple(alternatives), first)


def recursive(make: Callable[[], Decoder[T]]) -> Decoder[T]:
    """Put off making the decoder until it is used, for one that contains itself."""

    def run(term: Any) -> tuple[Any, Errors]:
        if term is MISSING:
            return None, decode_error("Field", None)
        return make().run(term)

    return Decoder(run)


know(Exact, Text, Named, ListOf, Field, Success, OneOf)

then = Decoder.then
map = Decoder.map
map_errors = Decoder.map_errors
collapse_errors = Decoder.collapse_errors
