"""Derived encoders: from the shape of a type to a function that takes its values apart. Layer: gleam, pure.

As strict as decoding: a value has the very type that its field declares, since what is sent must be
what the other side expects. An ``int`` is no ``float``, a ``bool`` no ``int``, and an instance of a subclass
is not its base. A function returns the term or raises ``ValueEncodeError`` for the first thing wrong.
"""

from __future__ import annotations

import enum
import keyword
import math
import operator
import types
from collections.abc import Callable
from typing import Any, TypeAlias

from pyglyn.errors import UnsupportedType, ValueEncodeError
from pyglyn.etf.terms import Term, TermMap
from pyglyn.gleam.annotations import name_of
from pyglyn.gleam.dynamic import path_segment
from pyglyn.gleam.shapes import (
    NONE,
    SET,
    SOME,
    AnyTerm,
    AnyValue,
    Constructor,
    DictOf,
    EnumOf,
    ListOf,
    Native,
    Option,
    SetOf,
    Shape,
    Text,
    TupleOf,
    UnionOf,
    accepted_types,
    union_claims,
)

Hook: TypeAlias = Callable[[Any], Any]
Lookup: TypeAlias = Callable[[Any], Hook]


class WrongKind(Exception):
    """A plain field is not of its kind."""


# --- errors ----------------------------------------------------------------------------------------


def describe(value: object) -> str:
    """Say what a value is, never what is in it."""
    if type(value) is float and not math.isfinite(value):
        return "a float that is not finite"
    return type(value).__name__


def located(error: Exception, annotation: Any, value: object, segment: str) -> ValueEncodeError:
    """Make the error to raise for an exception at one path element.

    Raises:
        RecursionError: that was it; it is for whoever began.
    """
    if isinstance(error, (RecursionError, MemoryError)):
        raise error
    if isinstance(error, ValueEncodeError):
        made = ValueEncodeError(error.expected, error.found, (segment, *error.path))
        made.__cause__ = error.__cause__
        return made
    made = ValueEncodeError(name_of(annotation), describe(value), (segment,))
    made.__cause__ = None if isinstance(error, WrongKind) else error
    return made


# --- plain values ----------------------------------------------------------------------------------

_PLAIN: dict[type, Hook] = {}
"""The function for each kind of native term, and for ``str``."""
_KIND: dict[Hook, type] = {}


def plain_hook(kind: type) -> Hook:
    """Give the function for a kind of native term, always the same one, so that it can be written out."""
    if kind not in _PLAIN:
        hook = _encode_text if kind is str else _encode_float if kind is float else _native(kind)
        _PLAIN[kind] = hook
        _KIND[hook] = kind
    return _PLAIN[kind]


def _native(kind: type) -> Hook:
    def encode(value: object) -> Any:
        if type(value) is kind:
            return value
        raise ValueEncodeError(name_of(kind), describe(value))

    return encode


def _encode_float(value: object) -> float:
    if type(value) is float and math.isfinite(value):
        return value
    raise ValueEncodeError("float", describe(value))


def _encode_text(value: object) -> bytes:
    if type(value) is str:
        try:
            return value.encode()
        except UnicodeEncodeError:
            raise ValueEncodeError("str that UTF-8 can hold", "str with a lone surrogate") from None
    raise ValueEncodeError("str", describe(value))


def _as_it_is(value: Term) -> Term:
    return value


def _enum(shape: EnumOf, legacy_names: bool) -> Hook:
    atoms = {member: legacy if legacy_names else atom for member, (atom, legacy) in shape.atoms.items()}

    def encode(value: object) -> Any:
        if isinstance(value, enum.Enum) and type(value) is shape.cls:
            return atoms[value]
        raise ValueEncodeError(shape.cls.__name__, describe(value))

    return encode


# --- collections -----------------------------------------------------------------------------------


def _list(element: Any, lookup: Lookup) -> Hook:
    inner = lookup(element)

    def encode(value: object) -> list[Any]:
        if type(value) is not list:
            raise ValueEncodeError("list", describe(value))
        remaining = iter(value)
        try:
            return [inner(each) for each in remaining]
        except Exception as error:
            position = len(value) - operator.length_hint(remaining) - 1
            failure = located(error, element, value[position], str(position))
            raise failure from failure.__cause__

    return encode


def map_of(keys: list[Any], values: list[Any]) -> dict[Any, Any] | TermMap:
    """Make a map of encoded keys and values: a dict if one can hold it."""
    try:
        made: dict[Any, Any] | TermMap = dict(zip(keys, values, strict=True))
    except TypeError:
        made = TermMap(zip(keys, values, strict=True))
    if len(made) != len(keys):
        made = TermMap(zip(keys, values, strict=True))
    if len(made) != len(keys):
        raise ValueEncodeError("distinct keys", "two that are one as Gleam values")
    return made


def _dict(shape: DictOf, lookup: Lookup) -> Hook:
    key_of, value_of = lookup(shape.key), lookup(shape.value)

    def encode(value: object) -> Any:
        if type(value) is not dict:
            raise ValueEncodeError("dict", describe(value))
        keys, values = [], []
        for key, each in value.items():
            try:
                keys.append(key_of(key))
            except Exception as error:
                failure = located(error, shape.key, key, "keys")
                raise failure from failure.__cause__
            try:
                values.append(value_of(each))
            except Exception as error:
                failure = located(error, shape.value, each, path_segment(key))
                raise failure from failure.__cause__
        return map_of(keys, values)

    return encode


def _set(shape: SetOf, lookup: Lookup) -> Hook:
    inner = lookup(shape.element)
    kind: Any = shape.kind

    def encode(value: Any) -> Any:
        if type(value) is not kind:
            raise ValueEncodeError(kind.__name__, describe(value))
        members = []
        for each in value:
            try:
                members.append(inner(each))
            except Exception as error:
                failure = located(error, shape.element, each, "members")
                raise failure from failure.__cause__
        return SET, map_of(members, [[] for _ in members])

    return encode


def _tuple(elements: tuple[Any, ...] | None, lookup: Lookup) -> Hook:
    if elements is None:
        return _tuple_of_any(lookup(Any))
    hooks = [lookup(element) for element in elements]
    size = len(elements)

    def encode(value: object) -> tuple[Any, ...]:
        if type(value) is not tuple or len(value) != size:
            found = f"tuple of {len(value)}" if type(value) is tuple else describe(value)
            raise ValueEncodeError(f"tuple of {size}", found)
        made: list[Any] = []
        try:
            for hook, each in zip(hooks, value, strict=True):
                made.append(hook(each))  # its length says where it stopped
        except Exception as error:
            at = len(made)
            failure = located(error, elements[at], value[at], str(at))
            raise failure from failure.__cause__
        return tuple(made)

    return encode


def _tuple_of_any(inner: Hook) -> Hook:
    def encode(value: tuple[Any, ...]) -> tuple[Any, ...]:
        remaining = iter(value)
        try:
            return tuple([inner(each) for each in remaining])
        except Exception as error:
            at = len(value) - operator.length_hint(remaining) - 1
            failure = located(error, Any, value[at], str(at))
            raise failure from failure.__cause__

    return encode


# --- custom types ----------------------------------------------------------------------------------


def _option(inner_type: Any, lookup: Lookup) -> Hook:
    inner = lookup(inner_type)
    return lambda value: NONE if value is None else (SOME, inner(value))


def _union(shape: UnionOf, name: str, lookup: Lookup) -> Hook:
    union_claims(shape.members)
    hooks: dict[type, Hook] = {}
    for member in shape.members:
        hook = (lambda value: NONE) if member is types.NoneType else lookup(member)
        hooks |= dict.fromkeys(accepted_types(member), hook)

    def encode(value: object) -> Any:
        hook = hooks.get(type(value))
        if hook is None:
            raise ValueEncodeError(name, describe(value))
        return hook(value)

    return encode


def _constructor(shape: Constructor, name: str, lookup: Lookup, legacy_names: bool) -> Hook:
    """Write the function that makes the tuple of one constructor, and compile it.

    ``at`` says which field was being encoded when an exception came.
    """
    cls, fields = shape.cls, shape.fields
    atom = shape.legacy_atom if legacy_names else shape.atom
    hooks = [lookup(field.annotation) for field in fields]

    def refuse(value: object) -> ValueEncodeError:
        return ValueEncodeError(name, describe(value))

    def fail(value: object, at: int, error: Exception) -> ValueEncodeError:
        field = fields[at]
        part = getattr(value, field.name, None)
        if hooks[at] in _KIND:  # a plain field: encode it again, for its own words
            try:
                hooks[at](part)
            except ValueEncodeError as plain:
                error = plain
        return located(error, field.annotation, part, field.name)

    namespace: dict[str, Any] = {
        "ATOM": atom,
        "CLS": cls,
        "WrongKind": WrongKind,
        "isfinite": math.isfinite,
        "refuse": refuse,
        "fail": fail,
    }
    lines = ["def encode(value):", "    if type(value) is not CLS:", "        raise refuse(value)"]
    if not fields:
        lines.append("    return ATOM")
    else:
        lines.append("    try:")
        for i, (field, hook) in enumerate(zip(fields, hooks, strict=True)):
            if not field.name.isidentifier() or keyword.iskeyword(field.name):
                raise UnsupportedType(f"{field.name!r} cannot be the name of a field")
            lines += _field_lines(i, field.name, hook, namespace)
        lines += [
            "    except Exception as error:",
            "        failure = fail(value, at, error)",
            "        raise failure from failure.__cause__",
            f"    return (ATOM, {', '.join(f'v{i}' for i in range(len(fields)))})",
        ]
    exec(compile("\n".join(lines), f"<gleam encoder of {cls.__qualname__}>", "exec"), namespace)
    hook = namespace["encode"]
    assert isinstance(hook, types.FunctionType)
    return hook


def _field_lines(i: int, name: str, hook: Hook, namespace: dict[str, Any]) -> list[str]:
    """Write the lines that encode field number i into the variable of that number."""
    read = [f"        at = {i}", f"        v{i} = value.{name}"]
    kind = _KIND.get(hook)
    if hook is _as_it_is:
        return read
    if kind is None:
        namespace[f"h{i}"] = hook
        return [f"        at = {i}", f"        v{i} = h{i}(value.{name})"]
    namespace[f"K{i}"] = kind
    finite = f" or not isfinite(v{i})" if kind is float else ""
    check = [*read, f"        if type(v{i}) is not K{i}{finite}:", "            raise WrongKind"]
    return [*check, f"        v{i} = v{i}.encode()"] if kind is str else check


def encode_hook(shape: Shape, annotation: Any, lookup: Lookup, by_class: Hook, legacy_names: bool) -> Hook:
    """Make the function that encodes the values of a type.

    Args:
        by_class: encodes a value of which only its class is known.
        legacy_names: whether to name constructors as Gleam before 1.11 did.
    """
    match shape:
        case Native(kind):
            return plain_hook(kind)
        case Text():
            return plain_hook(str)
        case AnyTerm():
            return _as_it_is
        case AnyValue():
            return by_class
        case ListOf(element):
            return _list(element, lookup)
        case DictOf():
            return _dict(shape, lookup)
        case SetOf():
            return _set(shape, lookup)
        case TupleOf(elements):
            return _tuple(elements, lookup)
        case Option(inner):
            return _option(inner, lookup)
        case UnionOf():
            return _union(shape, name_of(annotation), lookup)
        case EnumOf():
            return _enum(shape, legacy_names)
        case Constructor():
            return _constructor(shape, name_of(annotation), lookup, legacy_names)
