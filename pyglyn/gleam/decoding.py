"""Derived decoders: from the shape of a type to a function that builds its values. Layer: gleam, pure.

Each function is made once per type and calls those of the types within. For a class its source is
written out, with the checks of plain fields in it: measured, that halves the time of a small class.

A function returns the value or raises ``DecodeErrors``. Whatever went wrong is collected without
decoding anything twice, so a bad term costs no more than a good one however it is nested: the fields
after a bad one are looked at, of a list or map only the first bad element is told, and at most
``MAX_ERRORS`` are kept.
"""

from __future__ import annotations

import enum
import keyword
import operator
import types
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

from pyglyn.errors import DecodeErrors, Misfit, UnsupportedType
from pyglyn.etf.terms import Atom, Term, TermMap
from pyglyn.gleam.annotations import Field, name_of
from pyglyn.gleam.dynamic import DecodeError, classify, path_segment, with_path
from pyglyn.gleam.shapes import (
    ATOM_TYPES,
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
    union_claims,
)

MAX_ERRORS = 100
"""How many errors one ``DecodeErrors`` holds at most: a peer decides how many there are."""

Hook: TypeAlias = Callable[..., Any]
"""Term to value. It has no defaults: where a function has, CPython 3.13 does not look at the recursion limit
(gh-132744), and then only memory bounds how deeply a peer's term makes us recurse."""
Lookup: TypeAlias = Callable[[Any], Hook]
"""The function for a type within, as the converter has it."""


class WrongKind(Exception):
    """A plain field is not of its kind."""


# --- errors ----------------------------------------------------------------------------------------


def describe(term: Term) -> str:
    """Say what a term is: as ``classify`` does, and the name of a constructor."""
    if type(term) is tuple:
        if term and type(term[0]) is Atom:
            fields = len(term) - 1
            return f"{term[0].name} with {fields} field{'' if fields == 1 else 's'}"
        return f"Array of {len(term)}"
    if type(term) is Atom:
        return f"Atom {term.name}"
    return classify(term)


def misfit(expected: str, term: Term) -> DecodeErrors:
    """Make the exception for a term that is not what was expected."""
    return DecodeErrors([DecodeError(expected, describe(term))])


def errors_of(error: Exception, expected: str, term: Term) -> Iterable[Misfit]:
    """List what an exception tells: its decode errors, or that a user's function refused the term.

    Raises:
        RecursionError: that was it; it is for whoever began.
    """
    if isinstance(error, DecodeErrors):
        return error.errors
    if isinstance(error, (RecursionError, MemoryError)):
        raise error
    return [DecodeError(expected, describe(term), (), error)]


def located(error: Exception, annotation: Any, term: Term, segment: str) -> list[Misfit]:
    """List what an exception tells, with one more path element in front."""
    return with_path(list(errors_of(error, name_of(annotation), term))[:MAX_ERRORS], segment)


# --- plain values ----------------------------------------------------------------------------------


_NAMES = {
    bytes: "BitArray",
    types.NoneType: "Nil",
    int: "Int",
    float: "Float",
    bool: "Bool",
}
_PLAIN: dict[type, Hook] = {}
"""The function for each kind of native term, and for ``str``."""
_KIND: dict[Hook, type] = {}


def plain_hook(kind: type) -> Hook:
    """Give the function for a kind of native term, always the same one, so that it can be written out."""
    if kind not in _PLAIN:
        hook = _decode_text if kind is str else _native(kind)
        _PLAIN[kind] = hook
        _KIND[hook] = kind
    return _PLAIN[kind]


def _native(kind: type) -> Hook:
    name = _NAMES.get(kind, kind.__name__)

    def decode(term: Term) -> Any:
        if type(term) is kind:
            return term
        raise misfit(name, term)

    return decode


def _decode_text(term: Term) -> str:
    if type(term) is bytes:
        try:
            return term.decode()
        except UnicodeDecodeError:
            raise DecodeErrors([DecodeError("String", "BitArray that is not UTF-8")]) from None
    raise misfit("String", term)


def _anything(term: Term) -> Term:
    return term


def _enum(shape: EnumOf) -> Hook:
    atoms = {legacy: member for member, (_, legacy) in shape.atoms.items()}
    atoms |= {atom: member for member, (atom, _) in shape.atoms.items()}

    def decode(term: Any) -> enum.Enum:
        if type(term) in ATOM_TYPES and term in atoms:
            return atoms[term]
        raise misfit(shape.cls.__name__, term)

    return decode


# --- collections -----------------------------------------------------------------------------------


def _list(element: Any, lookup: Lookup) -> Hook:
    inner = lookup(element)
    kind = _KIND.get(inner)
    if kind is not None and kind is not str:
        return _list_of_kind(kind, inner)

    def decode(term: Term) -> list[Any]:
        if type(term) is not list:
            raise misfit("List", term)
        if not term:
            return []
        remaining = iter(term)
        try:
            return [inner(each) for each in remaining]
        except Exception as error:
            position = len(term) - operator.length_hint(remaining) - 1
            raise DecodeErrors(located(error, element, term[position], str(position))) from None

    return decode


def _list_of_kind(kind: type, inner: Hook) -> Hook:
    only = {kind}

    def decode(term: Term) -> list[Any]:
        if type(term) is not list:
            raise misfit("List", term)
        if term and set(map(type, term)) != only:
            position = next(i for i, each in enumerate(term) if type(each) is not kind)
            try:
                inner(term[position])
            except DecodeErrors as error:
                raise DecodeErrors(with_path(error.errors, str(position))) from None
        return list(term)

    return decode


def _dict(shape: DictOf, lookup: Lookup) -> Hook:
    key_of, value_of = lookup(shape.key), lookup(shape.value)

    def decode(term: Term) -> dict[Any, Any]:
        if type(term) is not dict and type(term) is not TermMap:
            raise misfit("Dict", term)
        values: dict[Any, Any] = {}
        for raw_key, raw_value in term.items():
            try:
                key = key_of(raw_key)
                hash(key)
            except Exception as error:
                raise DecodeErrors(located(error, shape.key, raw_key, "keys")) from None
            try:
                values[key] = value_of(raw_value)
            except Exception as error:
                raise DecodeErrors(located(error, shape.value, raw_value, path_segment(raw_key))) from None
        if len(values) != len(term):
            raise DecodeErrors([DecodeError("Dict with distinct keys", "Dict with keys equal in Python")])
        return values

    return decode


def _set(shape: SetOf, lookup: Lookup) -> Hook:
    inner = lookup(shape.element)
    kind = shape.kind

    def decode(term: Term) -> Any:
        if type(term) is not tuple or len(term) != 2 or term[0] is not SET:
            raise misfit("Set", term)
        members = term[1]
        if type(members) is not dict and type(members) is not TermMap:
            raise misfit("Set", term)
        values = set()
        for raw, token in members.items():
            if token != [] or type(token) is not list:
                raise misfit("Set", term)
            try:
                values.add(inner(raw))
            except Exception as error:
                raise DecodeErrors(located(error, shape.element, raw, "members")) from None
        if len(values) != len(members):
            raise DecodeErrors([DecodeError("Set of distinct members", "Set with members equal in Python")])
        return kind(values) if kind is not set else values

    return decode


def _tuple(elements: tuple[Any, ...], lookup: Lookup) -> Hook:
    hooks = [lookup(element) for element in elements]
    size = len(elements)

    def decode(term: Term) -> tuple[Any, ...]:
        if type(term) is not tuple or len(term) != size:
            raise misfit(f"Array of {size}", term)
        values, errors = [], list[Misfit]()
        for position, (hook, each) in enumerate(zip(hooks, term, strict=True)):
            try:
                values.append(hook(each))
            except Exception as error:
                errors += located(error, elements[position], each, str(position))
        if errors:
            raise DecodeErrors(errors[:MAX_ERRORS])
        return tuple(values)

    return decode


# --- custom types ----------------------------------------------------------------------------------


def _option(inner_type: Any, lookup: Lookup) -> Hook:
    inner = lookup(inner_type)
    name = f"Option({name_of(inner_type)})"

    def decode(term: Term) -> Any:
        if term is NONE:
            return None
        if type(term) is tuple and len(term) == 2 and term[0] is SOME:
            return inner(term[1])
        raise misfit(name, term)

    return decode


def _union(shape: UnionOf, name: str, lookup: Lookup) -> Hook:
    bare: dict[Any, Hook] = {}
    tagged: dict[Any, dict[int, Hook]] = {}
    kinds: dict[type, Hook] = {}
    hooks = {
        member: (lambda term: None) if member is types.NoneType else lookup(member)
        for member in shape.members
    }
    for claim, member in union_claims(shape.members).items():
        if not isinstance(claim, tuple):
            kinds[claim] = hooks[member]
        elif claim[1] == 0:
            bare[claim[0]] = hooks[member]
        else:
            tagged.setdefault(claim[0], {})[claim[1]] = hooks[member]
    by_tag = {tag: _by_size(name, sizes) for tag, sizes in tagged.items()}

    def decode(term: Any) -> Any:
        kind = type(term)
        hook = None
        if kind is tuple:
            if term and (type(term[0]) is Atom or type(term[0]) in ATOM_TYPES):
                hook = by_tag.get(term[0])
        elif kind in ATOM_TYPES:
            hook = bare.get(term)
        if hook is None:
            hook = kinds.get(kind)
            if hook is None:
                raise misfit(name, term)
        return hook(term)

    return decode


def _by_size(name: str, sizes: dict[int, Hook]) -> Hook:
    """Choose between constructors of one name; a single one checks its size itself."""
    if len(sizes) == 1:
        return next(iter(sizes.values()))

    def decode(term: tuple[Any, ...]) -> Any:
        hook = sizes.get(len(term))
        if hook is None:
            raise misfit(name, term)
        return hook(term)

    return decode


def _constructor(shape: Constructor, annotation: Any, lookup: Lookup) -> Hook:
    cls, atom, legacy = shape.cls, shape.atom, shape.legacy_atom
    if shape.fields:
        return _constructor_with_fields(shape, name_of(annotation), lookup)

    def decode(term: Term) -> Any:
        if term is atom or term is legacy:
            return cls()
        raise misfit(name_of(annotation), term)

    return decode


def _constructor_with_fields(shape: Constructor, name: str, lookup: Lookup) -> Hook:
    """Write the function that takes one constructor apart, and compile it.

    ``at`` says which field was being decoded when an exception came; ``resume`` goes on from there.
    """
    size = shape.size
    hooks = [lookup(field.annotation) for field in shape.fields]
    names = [f"t{i}" for i in range(1, size)]
    namespace: dict[str, Any] = {
        "CLS": shape.cls,
        "ATOM": shape.atom,
        "LEGACY": shape.legacy_atom,
        "WrongKind": WrongKind,
        "refuse": lambda term: _refusal(shape, name, term),
        "resume": _resume(shape, name, hooks),
    }
    other = " and term[0] is not LEGACY" if shape.legacy_atom is not shape.atom else ""
    lines = [
        "def decode(term):",
        f"    if type(term) is not tuple or len(term) != {size} or (term[0] is not ATOM{other}):",
        "        raise refuse(term)",
        f"    _, {', '.join(names)} = term",
        "    try:",
    ]
    for i, hook in enumerate(hooks, 1):
        lines += _field_lines(i, hook, namespace)
    given = sorted(zip(shape.fields, names, strict=True), key=lambda pair: pair[0].keyword)
    arguments = ", ".join(_argument(field, variable) for field, variable in given)
    lines += [
        f"        at = {size}",
        f"        return CLS({arguments})",
        "    except Exception as error:",
        "        raise resume(term, at, error) from None",
    ]
    source = "\n".join(lines)
    exec(compile(source, f"<gleam decoder of {shape.cls.__qualname__}>", "exec"), namespace)
    hook = namespace["decode"]
    assert isinstance(hook, types.FunctionType)
    return hook


def _argument(field: Field, variable: str) -> str:
    if not field.argument.isidentifier() or keyword.iskeyword(field.argument):
        raise UnsupportedType(f"{field.argument!r} cannot be the name of an argument")
    return f"{field.argument}={variable}" if field.keyword else variable


def _field_lines(i: int, hook: Hook, namespace: dict[str, Any]) -> list[str]:
    """Write the lines that decode field number i in place."""
    kind = _KIND.get(hook)
    if hook is _anything:
        return []
    if kind is None:
        namespace[f"h{i}"] = hook
        return [f"        at = {i}", f"        t{i} = h{i}(t{i})"]
    namespace[f"K{i}"] = bytes if kind is str else kind
    check = [
        f"        if type(t{i}) is not K{i}:",
        f"            at = {i}",
        "            raise WrongKind",
    ]
    return [*check, f"        at = {i}", f"        t{i} = t{i}.decode()"] if kind is str else check


def _refusal(shape: Constructor, name: str, term: Any) -> DecodeErrors:
    if type(term) is tuple and term and (term[0] is shape.atom or term[0] is shape.legacy_atom):
        fields = len(shape.fields)
        return misfit(f"{name} with {fields} field{'' if fields == 1 else 's'}", term)
    return misfit(name, term)


def _resume(
    shape: Constructor, name: str, hooks: list[Hook]
) -> Callable[[Any, int, Exception], DecodeErrors]:
    """Make the function that collects the errors of a constructor, from the first field that failed."""
    fields = shape.fields

    def resume(term: tuple[Any, ...], at: int, error: Exception) -> DecodeErrors:
        if at > len(fields):
            return DecodeErrors(errors_of(error, name, term))
        errors: list[Misfit] = []
        if isinstance(error, (WrongKind, UnicodeDecodeError)) and hooks[at - 1] in _KIND:
            at -= 1  # a plain field: decode it again, for its own words
        else:
            errors += located(error, fields[at - 1].annotation, term[at], fields[at - 1].name)
        for i in range(at, len(fields)):
            try:
                hooks[i](term[i + 1])
            except Exception as further:
                errors += located(further, fields[i].annotation, term[i + 1], fields[i].name)
        return DecodeErrors(errors[:MAX_ERRORS])

    return resume


def decode_hook(shape: Shape, annotation: Any, lookup: Lookup) -> Hook:
    """Make the function that decodes the terms of a type."""
    match shape:
        case Native(kind):
            return plain_hook(kind)
        case Text():
            return plain_hook(str)
        case AnyTerm() | AnyValue():
            return _anything
        case ListOf(element):
            return _list(element, lookup)
        case DictOf():
            return _dict(shape, lookup)
        case SetOf():
            return _set(shape, lookup)
        case TupleOf(elements):
            if elements is None:
                raise UnsupportedType("a tuple is decoded by the types of its elements: tuple[A, B]")
            return _tuple(elements, lookup)
        case Option(inner):
            return _option(inner, lookup)
        case UnionOf():
            return _union(shape, name_of(annotation), lookup)
        case EnumOf():
            return _enum(shape)
        case Constructor():
            return _constructor(shape, annotation, lookup)
