"""What a Python type is in Gleam: one level of it, as a value to compile from. Layer: gleam, pure.

Source of the representations: ``erlang.rs`` of the Gleam compiler and the packages named in ``types``, tried
with values made by Gleam 1.18.1 (see ``tests/gleam/test_compiled_gleam.py``).

Not supported, and said so when the decoder or encoder is made: tuples of unknown length, classes that are
neither attrs classes nor dataclasses, unions whose members cannot be told apart by their terms.
"""

from __future__ import annotations

import enum
import types
from typing import Any, TypeAlias, Union, get_args, get_origin

import attrs

from pyglyn.errors import UnsupportedType
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
)
from pyglyn.gleam.annotations import (
    Field,
    fields_of,
    is_union,
    is_value_class,
    name_of,
    resolved,
    takes_none,
    union_members,
)
from pyglyn.gleam.names import atom_term, names_of_class, names_of_member
from pyglyn.gleam.types import Some

AtomTerm: TypeAlias = Atom | bool | None
SET: AtomTerm = Atom("set")
SOME: AtomTerm = Atom("some")
NONE: AtomTerm = Atom("none")
ATOM_TYPES = frozenset((Atom, bool, types.NoneType))


@attrs.frozen
class Native:
    """A term that is its own value, known by its Python type."""

    kind: type


@attrs.frozen
class Text:
    """``str``: a UTF-8 binary."""


@attrs.frozen
class AnyTerm:
    """``Term``: whatever it is, left alone."""


@attrs.frozen
class AnyValue:
    """``Any``: a term on the way in, encoded by its class on the way out."""


@attrs.frozen
class ListOf:
    element: Any


@attrs.frozen
class DictOf:
    key: Any
    value: Any


@attrs.frozen
class SetOf:
    element: Any
    kind: type


@attrs.frozen
class TupleOf:
    elements: tuple[Any, ...] | None
    """None for a tuple of any length, which can only be encoded."""


@attrs.frozen
class Option:
    inner: Any


@attrs.frozen
class UnionOf:
    members: tuple[Any, ...]
    """``NoneType`` among them is the bare atom ``none`` (beside an explicit ``Some``)."""


@attrs.frozen
class EnumOf:
    cls: type[enum.Enum]
    atoms: dict[enum.Enum, tuple[AtomTerm, AtomTerm]] = attrs.field(eq=False)
    """Per member: its atom by today's rule, and by the one before Gleam 1.11."""


@attrs.frozen
class Constructor:
    cls: type
    atom: AtomTerm
    legacy_atom: AtomTerm
    fields: tuple[Field, ...]

    @property
    def size(self) -> int:
        """The size of the tuple; a constructor without fields is the bare atom, size 0."""
        return len(self.fields) + 1 if self.fields else 0


Shape: TypeAlias = (
    Native
    | Text
    | AnyTerm
    | AnyValue
    | ListOf
    | DictOf
    | SetOf
    | TupleOf
    | Option
    | UnionOf
    | EnumOf
    | Constructor
)

_NATIVE = frozenset(
    (
        int,
        float,
        bool,
        bytes,
        types.NoneType,
        Atom,
        Pid,
        Port,
        Reference,
        Fun,
        Export,
        BitString,
        ImproperList,
        TermMap,
    )
)


def shape_of(annotation: Any) -> Shape:
    """Say what a type is in Gleam.

    Raises:
        UnsupportedType: nothing, or nothing definite.
    """
    annotation = resolved(annotation)
    if annotation == Term:
        return AnyTerm()
    if annotation is Any or annotation is object:
        return AnyValue()
    if is_union(annotation):
        return _union(annotation)
    if isinstance(annotation, type) and annotation in _NATIVE:
        return Native(annotation)
    if annotation is str:
        return Text()
    cls = get_origin(annotation) or annotation
    if cls in (list, dict, set, frozenset, tuple):
        return _collection(cls, get_args(annotation), annotation)
    if isinstance(cls, type) and issubclass(cls, enum.Enum):
        return _enum(cls)
    if is_value_class(cls):
        return _constructor(annotation, cls)
    raise UnsupportedType(
        f"{name_of(annotation)} has no Gleam counterpart: use an attrs class or dataclass, list, dict, set, "
        "a tuple of known size, str, bytes, int, float, bool, None, an Enum, Term, or register hooks for it"
    )


def _collection(cls: type, arguments: tuple[Any, ...], annotation: Any) -> Shape:
    if cls is tuple:
        if Ellipsis in arguments:
            raise UnsupportedType(f"{name_of(arguments[0])}, …: Gleam's tuples have a fixed size; use list")
        return TupleOf(None if annotation is tuple else arguments)
    if cls is dict:
        key, value = arguments or (Any, Any)
        return DictOf(key, value)
    element = arguments[0] if arguments else Any
    return ListOf(element) if cls is list else SetOf(element, cls)


def _enum(cls: type[enum.Enum]) -> EnumOf:
    atoms = {}
    for member in cls:
        name, legacy = names_of_member(member)
        try:
            atoms[member] = atom_term(name), atom_term(legacy)
        except ValueError as error:
            raise UnsupportedType(f"{cls.__qualname__}.{member.name}: {error}") from error
    if len({atom for atom, _ in atoms.values()}) != len(atoms):
        raise UnsupportedType(f"two members of {cls.__qualname__} are the same atom")
    return EnumOf(cls, atoms)


def _constructor(annotation: Any, cls: type) -> Constructor:
    name, legacy = names_of_class(cls)
    if not name:
        raise UnsupportedType(f"no constructor name can be made of the class name {cls.__name__!r}")
    return Constructor(cls, atom_term(name), atom_term(legacy), fields_of(annotation))


# --- unions ----------------------------------------------------------------------------------------


def _union(annotation: Any) -> Shape:
    members = union_members(annotation)
    others = [member for member in members if member is not types.NoneType]
    if len(others) == len(members):
        return UnionOf(tuple(members))
    explicit = [member for member in others if (get_origin(member) or member) is Some]
    if not explicit:
        if any(map(takes_none, others)):
            raise UnsupportedType(f"{name_of(annotation)}: a None within would be lost; write Some[…] | None")
        return Option(Union[tuple(others)])  # noqa: UP007
    if len(others) > 1:
        raise UnsupportedType(f"{name_of(annotation)}: beside Some and None nothing else can stand")
    return UnionOf((*others, types.NoneType))


Claim: TypeAlias = tuple[AtomTerm, int] | type
"""Terms of one union member: an atom and the tuple's size (0: the bare atom), or a type of term."""


def claims(annotation: Any) -> dict[Claim, bool]:
    """Say which terms a union member takes, and whether by today's rules (else by a legacy name).

    Raises:
        UnsupportedType: it is of a kind that cannot be in a union.
    """
    if annotation is types.NoneType:
        return {(NONE, 0): True}
    shape = shape_of(annotation)
    match shape:
        case Constructor(_, atom, legacy):
            return {(legacy, shape.size): False, (atom, shape.size): True}
        case EnumOf(_, atoms):
            bare: dict[Claim, bool] = {(legacy, 0): False for _, legacy in atoms.values()}
            return bare | dict.fromkeys([(atom, 0) for atom, _ in atoms.values()], True)
        case SetOf():
            return {(SET, 2): True}
        case Text():
            return {bytes: True}
        case ListOf():
            return {list: True}
        case DictOf():
            return {dict: True, TermMap: True}
        case Native(kind) if kind not in ATOM_TYPES:
            return {kind: True}
        case Native(kind) if kind is bool:
            return {(True, 0): True, (False, 0): True}
        case Native(kind) if kind is Atom:
            return {Atom: True}
    raise UnsupportedType(f"{name_of(annotation)} cannot be a member of a union; put it into a class")


def union_claims(members: tuple[Any, ...]) -> dict[Claim, Any]:
    """Map the terms of a union to its members; a legacy name counts where no proper one wants it.

    Raises:
        UnsupportedType: two members take the same term.
    """
    proper: dict[Claim, Any] = {}
    legacy: dict[Claim, list[Any]] = {}
    for member in members:
        for claim, is_proper in claims(member).items():
            if not is_proper:
                legacy.setdefault(claim, []).append(member)
            elif claim in proper:
                raise UnsupportedType(_ambiguous(proper[claim], member, claim))
            else:
                proper[claim] = member
    bare = [claim for claim in proper if isinstance(claim, tuple) and claim[1] == 0]
    if Atom in proper and bare:
        raise UnsupportedType(_ambiguous(Atom, proper[bare[0]], bare[0]))
    return {claim: wanting[0] for claim, wanting in legacy.items() if len(wanting) == 1} | proper


def _ambiguous(one: Any, other: Any, claim: Claim) -> str:
    if isinstance(claim, tuple):
        term = f"{claim[0]}" if claim[1] == 0 else f"{claim[0]} with {claim[1] - 1} fields"
    else:
        term = claim.__name__
    return (
        f"{name_of(one)} and {name_of(other)} are the same term ({term}), so a union cannot tell them apart"
    )


def accepted_types(annotation: Any) -> tuple[type, ...]:
    """List the classes of the Python values that a union member encodes."""
    if annotation is types.NoneType:
        return (types.NoneType,)
    shape = shape_of(annotation)
    match shape:
        case Constructor(cls) | EnumOf(cls):
            return (cls,)
        case SetOf(_, kind):
            return (kind,)
        case Native(kind):
            return (kind,)
        case Text():
            return (str,)
        case DictOf():
            return (dict,)
        case ListOf():
            return (list,)
    raise UnsupportedType(f"{name_of(annotation)} cannot be a member of a union; put it into a class")
