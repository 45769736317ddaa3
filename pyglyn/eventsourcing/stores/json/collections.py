"""JSON of collections, enums, literals and plain values; strict both ways. Pure.

Each function returns a pair: what writes (value to JSON value) and what reads it. For what is inside they are
given functions that return its pair, to be called when it is used, since a type may contain itself. What is
written is of the very class; what is read reports each fault with its place, as cattrs does.
"""

from __future__ import annotations

import enum
import typing
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

from cattrs.errors import IterableValidationError, IterableValidationNote

from pyglyn.eventsourcing.stores.json.scalars import kind_of, shown
from pyglyn.gleam.annotations import name_of

ToJson: TypeAlias = Callable[[Any], Any]
FromJson: TypeAlias = Callable[[Any, Any], Any]
Pair: TypeAlias = tuple[ToJson, FromJson]
Lookup: TypeAlias = Callable[[Any], Callable[[], Pair]]

ARRAYS = (list, tuple, set, frozenset)


def array(of: Any, lookup: Lookup) -> Pair:
    """A list, set or tuple, of one type throughout or (tuples) of one for each place."""
    kind: Any = typing.get_origin(of) or of
    arguments = typing.get_args(of)
    if kind is tuple and of is not tuple and Ellipsis not in arguments:
        return _fixed(of, arguments, lookup)
    element = arguments[0] if arguments else Any
    inside = lookup(element)

    def write(value: Any) -> list[Any]:
        if type(value) is not kind:
            raise TypeError(f"expected {kind.__name__}, got {shown(value)}")
        to_json = inside()[0]
        return [to_json(each) for each in value]

    def read(value: Any, _of: Any) -> Any:
        _check_array(value)
        from_json = inside()[1]
        found = _each(of, ((n, each, element, from_json) for n, each in enumerate(value)))
        try:
            return kind(found)
        except TypeError as error:  # a set of what has no hash
            raise TypeError(f"no {name_of(of)}") from error

    return write, read


def _fixed(of: Any, elements: tuple[Any, ...], lookup: Lookup) -> Pair:
    size = len(elements)
    inside = [lookup(element) for element in elements]

    def write(value: Any) -> list[Any]:
        if type(value) is not tuple or len(value) != size:
            found = f"one of {len(value)}" if type(value) is tuple else shown(value)
            raise TypeError(f"expected a tuple of {size}, got {found}")
        return [pair()[0](each) for pair, each in zip(inside, value, strict=True)]

    def read(value: Any, _of: Any) -> tuple[Any, ...]:
        _check_array(value)
        if len(value) != size:
            raise ValueError(f"expected an array of {size}, got one of {len(value)}")
        places = enumerate(zip(value, elements, inside, strict=True))
        return tuple(_each(of, ((n, each, element, pair()[1]) for n, (each, element, pair) in places)))

    return write, read


def _check_array(value: Any) -> None:
    if type(value) is not list:
        raise TypeError(f"expected an array, got {kind_of(value)}")


def _each(of: Any, places: Iterable[tuple[Any, Any, Any, FromJson]]) -> list[Any]:
    """Read what is in each place, once: what is nested n deep would otherwise be read 2ⁿ times.

    Raises:
        IterableValidationError: all faults, each with its place.
    """
    found: list[Any] = []
    faults: list[Exception] = []
    for index, value, type_, from_json in places:
        try:
            found.append(from_json(value, type_))
        except Exception as error:
            error.add_note(IterableValidationNote(f"@ {index!r}", index, type_))
            faults.append(error)
    if faults:
        raise IterableValidationError(f"while reading {name_of(of)}", faults, of)
    return found


def mapping(of: Any, lookup: Lookup) -> Pair:
    """A dict whose keys are written as strings.

    Raises:
        TypeError: its keys are of a type that is not.
    """
    key_type, value_type = typing.get_args(of) or (Any, Any)
    if key_type in (int, float, bool, None, type(None)) or typing.get_origin(key_type) in (*ARRAYS, dict):
        raise TypeError(f"no JSON for {name_of(of)}: the keys of an object are strings")
    of_key, of_value = lookup(key_type), lookup(value_type)

    def write(value: Any) -> dict[str, Any]:
        if type(value) is not dict:
            raise TypeError(f"expected dict, got {shown(value)}")
        key_to_json, to_json = of_key()[0], of_value()[0]
        written = {key_to_json(key): to_json(each) for key, each in value.items()}
        for key in written:
            if type(key) is not str:
                raise TypeError(f"expected a string as key, got {kind_of(key)}")
        if len(written) != len(value):
            raise ValueError("two keys are written as the same string")
        return written

    def read(value: Any, _of: Any) -> dict[Any, Any]:
        if type(value) is not dict:
            raise TypeError(f"expected an object, got {kind_of(value)}")
        key_from_json, from_json = of_key()[1], of_value()[1]
        keys = [(key, key, key_type, key_from_json) for key in value]
        values = [(key, each, value_type, from_json) for key, each in value.items()]
        found = _each(of, keys + values)
        return dict(zip(found[: len(value)], found[len(value) :], strict=True))

    return write, read


def literal(of: Any, lookup: Lookup) -> Pair:
    """One of some values, each written as its type is."""
    values = typing.get_args(of)
    written = {(type(value), value): lookup(type(value))()[0](value) for value in values}
    wanted = {(type(plain), plain): value for (_, value), plain in written.items()}

    def write(value: Any) -> Any:
        try:
            return written[type(value), value]
        except (KeyError, TypeError):
            raise TypeError(f"expected one of {values}, got {shown(value)}") from None

    def read(value: Any, _of: Any) -> Any:
        try:
            return wanted[type(value), value]
        except (KeyError, TypeError):
            raise ValueError(f"expected one of {[each for _, each in wanted]}, got {shown(value)}") from None

    return write, read


def enumeration(of: type[enum.Enum], spelling: Callable[[str], str]) -> Pair:
    """A member of an enum, by its name.

    Raises:
        ValueError: two members are spelled alike.
    """
    tags = {member: spelling(member.name.lower()) for member in of}
    members = {tag: member for member, tag in tags.items()}
    if len(members) != len(tags):
        raise ValueError(f"two members of {of.__name__} have the same tag: {sorted(tags.values())}")

    def write(value: Any) -> Any:
        if type(value) is not of or value not in tags:
            raise TypeError(f"expected a member of {of.__name__}, got {shown(value)}")
        return tags[value]

    def read(value: Any, _of: Any) -> Any:
        if type(value) is not str or value not in members:
            raise ValueError(f"expected one of {sorted(members)}, got {shown(value)}")
        return members[value]

    return write, read


def plain(value: Any) -> Any:
    """Let a JSON value through: what reads back as the very same.

    Raises:
        TypeError: something in it does not.
    """
    kind = type(value)
    if kind is dict:
        if not all(type(key) is str for key in value):
            raise TypeError("expected strings as keys")
        return {key: plain(each) for key, each in value.items()}
    if kind is list:
        return [plain(each) for each in value]
    if kind in (str, int, float, bool, type(None)):
        return value
    raise TypeError(f"expected a JSON value, got {kind_of(value)}")
