"""Entities that are changed in place: a copy for whoever changes them. Pure.

``apply`` is meant to return another entity, and with frozen classes it cannot do otherwise. One that changes
the entity it is given must not change it for others: the empty state, what is remembered, a snapshot. So
whoever applies events owns the entity; what cannot change is shared, not copied.
"""

from __future__ import annotations

import copy
import dataclasses
import datetime
import decimal
import enum
import operator
import uuid
from collections.abc import Callable
from typing import Any, TypeVar

import attrs

T = TypeVar("T")

_copiers: dict[type, Callable[[Any], Any]] = {}
"""What copies the values of a type, found at its first value."""


def owned(entity: T) -> T:
    """Return an entity that may be changed in place: the same one if nothing in it can be.

    What `copy` cannot copy is shared.
    """
    try:
        return _owned(entity)
    except RecursionError:  # something in it leads back to itself
        return copy.deepcopy(entity)
    except (TypeError, copy.Error):
        return entity


def _owned(value: T) -> T:
    kind = type(value)
    copier = _copiers.get(kind)
    if copier is None:
        copier = _copiers[kind] = _copier(kind, value)
    copied: T = copier(value)
    return copied


def _copier(kind: type, example: object) -> Callable[[Any], Any]:
    if issubclass(kind, enum.Enum) or kind in _UNCHANGEABLE:
        return _shared
    if kind in _CONTAINERS:
        return _CONTAINERS[kind]
    if kind.__reduce_ex__ is not object.__reduce_ex__ or hasattr(kind, "__deepcopy__"):
        return copy.deepcopy
    if attrs.has(kind):
        return _record(example, [field.name for field in attrs.fields(kind)])
    if dataclasses.is_dataclass(kind):
        return _record(example, [field.name for field in dataclasses.fields(kind)])
    return copy.deepcopy


def _shared(value: Any) -> Any:
    return value


def _tuple(value: tuple[Any, ...]) -> tuple[Any, ...]:
    parts = tuple(map(_owned, value))
    return value if all(map(operator.is_, parts, value)) else parts


def _record(example: object, names: list[str]) -> Callable[[Any], Any]:
    """A class of named fields; one that is frozen is itself when all its fields are."""
    frozen = _is_frozen(example, names)
    values = operator.attrgetter(*names) if len(names) > 1 else None

    def copied(value: Any) -> Any:
        if frozen and values is not None:
            try:
                if _UNCHANGEABLE.issuperset(map(type, values(value))):
                    return value
            except AttributeError:
                pass  # one that is not set
        parts = [getattr(value, name, None) for name in names]
        own = [_owned(part) for part in parts]
        if frozen and all(map(operator.is_, parts, own)):
            return value
        made = copy.copy(value)
        for name, part, mine in zip(names, parts, own, strict=True):
            if mine is not part:
                object.__setattr__(made, name, mine)
        return made

    return copied


def _is_frozen(example: object, names: list[str]) -> bool:
    """Try it: attrs and dataclasses say it in their own ways, and a base class may say it."""
    for name in names:
        if hasattr(example, name):
            try:
                setattr(copy.copy(example), name, getattr(example, name))
            except AttributeError:
                return True
            return False
    return True


_UNCHANGEABLE = {
    type(None),
    bool,
    int,
    float,
    complex,
    str,
    bytes,
    datetime.date,
    datetime.datetime,
    datetime.time,
    datetime.timedelta,
    decimal.Decimal,
    uuid.UUID,
    range,
    type,
}

_CONTAINERS: dict[type, Callable[[Any], Any]] = {
    list: lambda value: list(map(_owned, value)),
    dict: lambda value: {key: _owned(each) for key, each in value.items()},
    set: set,
    frozenset: _shared,
    tuple: _tuple,
}
