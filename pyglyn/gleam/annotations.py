"""Type annotations taken apart: aliases, generics, unions, the fields of classes. Layer: gleam, pure.

Here is all that looks into Python's typing; ``shapes`` says what the pieces are in Gleam. Supported: what
``typing.get_type_hints`` can resolve, ``Annotated`` and ``NewType`` (both taken for what they wrap), PEP 695
aliases where Python or ``typing_extensions`` has them, classes with type parameters and their subclasses.
"""

from __future__ import annotations

import dataclasses
import inspect
import types
import typing
from collections.abc import Mapping
from typing import Annotated, Any, Generic, Protocol, TypeVar, Union, get_args, get_origin

import attrs

from pyglyn.errors import UnsupportedType

Variables = Mapping[Any, Any]
"""Type variables and what stands for them."""


@attrs.frozen
class Field:
    """One field of a class, in its place on the wire.

    Attributes:
        name: the attribute.
        argument: what ``__init__`` calls it.
        keyword: whether ``__init__`` takes it by keyword only.
        annotation: its type, type variables replaced.
    """

    name: str
    argument: str
    keyword: bool
    annotation: Any


def resolved(annotation: Any) -> Any:
    """Unwrap aliases, ``Annotated`` and ``NewType``; a free type variable is its bound, or ``Any``."""
    while True:
        if annotation is None:
            return types.NoneType
        if isinstance(annotation, (str, typing.ForwardRef)):
            raise UnsupportedType(f"the name {annotation!r} cannot be resolved here; give the type itself")
        if isinstance(annotation, TypeVar):
            return resolved(annotation.__bound__) if annotation.__bound__ is not None else Any
        origin = get_origin(annotation)
        if origin is Annotated:
            annotation = get_args(annotation)[0]
        elif is_alias(annotation):
            annotation = annotation.__value__
        elif origin is not None and is_alias(origin):
            variables = dict(zip(origin.__type_params__, get_args(annotation), strict=True))
            annotation = substituted(origin.__value__, variables)
        elif hasattr(annotation, "__supertype__"):
            annotation = annotation.__supertype__
        else:
            return annotation


def is_alias(annotation: object) -> bool:
    """Tell whether this is a ``type X = …`` alias, of Python 3.12 or of ``typing_extensions``."""
    return type(annotation).__name__ == "TypeAliasType"


def is_union(annotation: object) -> bool:
    """Tell whether this is ``X | Y``, ``Union[X, Y]`` or ``Optional[X]``."""
    return get_origin(annotation) in (Union, types.UnionType)


def union_members(annotation: Any) -> list[Any]:
    """List the members of a union, those of aliases for unions included.

    Raises:
        UnsupportedType: ``None`` is in it twice, by way of an alias: an option of an option.
    """
    members: list[Any] = []
    for argument in get_args(annotation):
        member = resolved(argument)
        for each in union_members(member) if is_union(member) else [member]:
            if each is types.NoneType and types.NoneType in members:
                raise _nested_option(annotation)
            if each not in members:
                members.append(each)
    return members


def _nested_option(annotation: Any) -> UnsupportedType:
    return UnsupportedType(
        f"{name_of(annotation)}: None cannot be both the outer and the inner one; write Some[…] | None"
    )


def substituted(annotation: Any, variables: Variables) -> Any:
    """Put types in the place of type variables.

    Raises:
        UnsupportedType: it would make an option of an option, which Python silently takes for one.
    """
    if isinstance(annotation, TypeVar):
        return variables.get(annotation, annotation)
    arguments = get_args(annotation)
    if not getattr(annotation, "__parameters__", ()) or not arguments:
        return annotation
    replaced = tuple(substituted(argument, variables) for argument in arguments)
    if is_union(annotation):
        if types.NoneType in arguments:
            for before, after in zip(arguments, replaced, strict=True):
                if before is not types.NoneType and not isinstance(after, TypeVar) and takes_none(after):
                    raise _nested_option(annotation)
        return Union[replaced]  # noqa: UP007
    if get_origin(annotation) is Annotated:
        return replaced[0]
    return get_origin(annotation)[replaced if len(replaced) > 1 else replaced[0]]


def takes_none(annotation: Any) -> bool:
    """Tell whether ``None`` is a value of a type, so that an option of it needs an explicit ``Some``."""
    annotation = resolved(annotation)
    if is_union(annotation):
        return types.NoneType in union_members(annotation)
    return annotation in (types.NoneType, Any, object)


def no_type(value: object) -> str | None:
    """Say what to write instead, of several classes in a list or a tuple; None for what is none of these."""
    if not isinstance(value, list | tuple | set | frozenset):
        return None
    classes = " | ".join(name_of(each) for each in value) or "A | B"
    return f"a {type(value).__name__} of classes is no type: for one of several write {classes}"


def name_of(annotation: Any) -> str:
    """Name a type for people: ``list[Item]``, ``OrderEvent`` for an alias, ``A | B`` for a union."""
    if isinstance(annotation, TypeVar):
        annotation = resolved(annotation)
    if annotation is types.NoneType:
        return "Nil"
    arguments = get_args(annotation)
    if is_union(annotation):
        names = [name_of(each) for each in arguments]
        return " | ".join(names[:6]) + (" | …" if len(names) > 6 else "")
    name = getattr(get_origin(annotation) or annotation, "__name__", None)
    if name is None:
        return str(annotation)
    return f"{name}[{', '.join(map(name_of, arguments))}]" if arguments else str(name)


# --- classes ---------------------------------------------------------------------------------------


def is_value_class(cls: object) -> bool:
    """Tell whether this is an attrs class or a dataclass."""
    return isinstance(cls, type) and (attrs.has(cls) or dataclasses.is_dataclass(cls))


def fields_of(annotation: Any) -> tuple[Field, ...]:
    """List the fields of a class, or of one with its type parameters given, that ``__init__`` takes.

    Raises:
        UnsupportedType: a field has no type, or one that names something unknown.
    """
    cls = get_origin(annotation) or annotation
    hints = _hints(cls, _variables(annotation))
    members = attrs.fields(cls) if attrs.has(cls) else dataclasses.fields(cls)
    fields = []
    for member in members:
        if not member.init:
            continue
        if member.name not in hints and member.type is None:
            raise UnsupportedType(f"the field {cls.__name__}.{member.name} has no type")
        fields.append(
            Field(
                name=member.name,
                argument=getattr(member, "alias", None) or member.name,
                keyword=bool(member.kw_only),
                annotation=hints.get(member.name, member.type),
            )
        )
    return tuple(fields)


def _variables(annotation: Any) -> dict[Any, Any]:
    """Say what stands for the type parameters of a class that are given."""
    origin = get_origin(annotation)
    if origin is None:
        return {}
    parameters, arguments = origin.__parameters__, get_args(annotation)
    if len(parameters) != len(arguments):
        raise UnsupportedType(f"{name_of(annotation)}: a type parameter for each variable is needed")
    return dict(zip(parameters, arguments, strict=True))


def _hints(cls: type, variables: Variables) -> dict[str, Any]:
    """Give the annotations of a class and its bases, those of each generic base with its own parameters."""
    hints: dict[str, Any] = {}
    for written in reversed(cls.__dict__.get("__orig_bases__", cls.__bases__)):
        base = get_origin(written) or written
        if base not in (object, Generic, Protocol):
            inner = {k: substituted(v, variables) for k, v in _variables(written).items()}
            hints |= _hints(base, inner)
    return hints | {name: substituted(hint, variables) for name, hint in _own_hints(cls).items()}


def _own_hints(cls: type) -> dict[str, Any]:
    """Resolve the annotations that a class itself has; it may name itself though it is local."""
    try:
        names = inspect.get_annotations(cls)
        hints = typing.get_type_hints(cls, localns={cls.__name__: cls}, include_extras=True) if names else {}
        return {name: hints[name] for name in names}
    except NameError as error:
        if attrs.has(cls) and not any(isinstance(member.type, str) for member in attrs.fields(cls)):
            return {}  # attrs.resolve_types was called with the names that we cannot see
        raise UnsupportedType(
            f"{cls.__qualname__}: the annotation {error.name!r} names nothing that is visible in its module; "
            "for a local class, call attrs.resolve_types(cls, globals(), locals()) first"
        ) from error
