"""Events that a newer or an older node sends: what differs at the end of a constructor. Pure.

Nodes of two versions run beside each other during an upgrade. A constructor that has a field more now, at its
end and with a default, is read by both: the newer node puts the default in the place of what it was not sent,
the older one leaves out what it does not know. The same goes for what is inside lists, options, tuples and
other constructors, and for one that goes by an earlier name (the aliases of `es.event`). Commands are not
read like that: leaving a part of them out would change what they ask for.

Only a term that does not decode as it is comes here. Layer: eventsourcing, domain.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import attrs

from pyglyn import gleam
from pyglyn.errors import DecodeErrors, GleamError
from pyglyn.etf import Atom, Term
from pyglyn.eventsourcing.domain.evolution import evolution_of
from pyglyn.gleam.annotations import Field
from pyglyn.gleam.shapes import Constructor, DictOf, ListOf, Option, TupleOf, UnionOf, shape_of

_SOME = Atom("some")


def event_decoder(type_: Any) -> Callable[[Term], Any]:
    """Return the function that reads events of a class or union, of this version or of one near to it."""
    decode = gleam.decoder(type_).decode

    def read(term: Term) -> Any:
        try:
            return decode(term)
        except DecodeErrors:
            other = _adapted(term, type_)
            if other == term:
                raise
            return decode(other)

    return read


def _adapted(term: Term, annotation: Any) -> Term:
    shape = shape_of(annotation)
    match shape:
        case Constructor():
            return _constructor(term, shape)
        case UnionOf(members):
            found = [each for each in members if _is_named(term, each)]
            return _adapted(term, found[0]) if len(found) == 1 else term
        case ListOf(element) if isinstance(term, list):
            return [_adapted(each, element) for each in term]
        case Option(inner) if isinstance(term, tuple) and len(term) == 2 and term[0] is _SOME:
            return (_SOME, _adapted(term[1], inner))
        case DictOf(_, value) if isinstance(term, dict):
            return {key: _adapted(each, value) for key, each in term.items()}
        case TupleOf(elements) if isinstance(term, tuple) and elements and len(term) == len(elements):
            return tuple(_adapted(each, of) for each, of in zip(term, elements, strict=True))
    return term


def _tag(term: Term) -> Term:
    return term[0] if isinstance(term, tuple) and term else term


def _is_named(term: Term, annotation: Any) -> bool:
    shape = shape_of(annotation)
    return isinstance(shape, Constructor) and _tag(term) in _names(shape)


def _names(shape: Constructor) -> tuple[Term, ...]:
    aliases = evolution_of(shape.cls).aliases
    return (shape.atom, shape.legacy_atom, *(Atom(gleam.constructor_name(alias)) for alias in aliases))


def _constructor(term: Term, shape: Constructor) -> Term:
    if not isinstance(_tag(term), Atom) or _tag(term) not in _names(shape):
        return term
    given = term[1:] if isinstance(term, tuple) else ()
    values = [_adapted(each, field.annotation) for each, field in zip(given, shape.fields, strict=False)]
    for field in shape.fields[len(given) :]:
        try:
            values.append(gleam.encode(_default(shape.cls, field), field.annotation))
        except (LookupError, GleamError):
            return term
    return (shape.atom, *values) if values else shape.atom


def _default(cls: type, field: Field) -> Any:
    """Return a field's default.

    Raises:
        LookupError: it has none that can be told without the other fields.
    """
    if attrs.has(cls):
        default: Any = attrs.fields_dict(cls)[field.name].default
        if default is attrs.NOTHING:
            raise LookupError(field.name)
        if not isinstance(default, attrs.Factory):  # type: ignore[arg-type]
            return default
        if default.takes_self:
            raise LookupError(field.name)
        return default.factory()
    found = next(each for each in dataclasses.fields(cls) if each.name == field.name)
    if found.default is not dataclasses.MISSING:
        return found.default
    if found.default_factory is not dataclasses.MISSING:
        return found.default_factory()
    raise LookupError(field.name)
