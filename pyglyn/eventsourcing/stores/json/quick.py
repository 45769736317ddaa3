"""Functions that write and read what is as it should be, generated for each class. Pure.

What comes from a log is nearly always right. So a function is generated for each class that takes the fields
one after the other, looks at the types of plain ones in place and makes the object. At anything that is not
as it should be it raises whatever comes, and the caller begins anew with the functions that say what is wrong
and where. Those decide: a quick function takes nothing that they refuse, and makes the same of the rest.

Only the outermost caller begins anew. If each class did, a fault at depth n would be looked for 2ⁿ times.
"""

from __future__ import annotations

import sys
import typing
from collections.abc import Callable, Mapping
from math import isfinite
from types import NoneType
from typing import Any, Protocol, TypeAlias

from pyglyn.eventsourcing.stores.json.collections import ARRAYS, Pair
from pyglyn.gleam.annotations import fields_of, is_union, is_value_class, resolved, union_members

Quick: TypeAlias = Callable[[Any], Any]

_LARGEST = sys.float_info.max
_IN_PLACE = {str: "str", int: "int", bool: "bool"}
_WRITE, _READ = 0, 1


class Rules(Protocol):
    """How the types are written and read."""

    exact: bool
    """Whether an object has the fields of its class and no others."""

    @property
    def own(self) -> Mapping[type, Any]:
        """Types that the application writes and reads itself."""

    def pair(self, of: Any) -> Pair:
        """Return what writes and reads a type, and says what is wrong."""

    def key(self, field: str) -> str:
        """Return the JSON key of a field."""

    def nested_tags(self, members: list[Any]) -> tuple[str, dict[str, tuple[Any, bool]]]:
        """Return the tag's key of a union, and each tag with its class and whether it is written."""


class QuickFunctions:
    """The quick functions of one codec."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._made: dict[Any, Quick] = {}

    def writer(self, of: Any) -> Quick:
        """Return what writes the values of a type."""
        return self._function(of, _WRITE)

    def reader(self, of: Any) -> Quick:
        """Return what reads them."""
        return self._function(of, _READ)

    def tagged_writer(self, tag_key: str, tags: Mapping[str, tuple[Any, bool]]) -> Quick:
        """Return what writes one of some classes with its tag."""
        writers = {
            _class(of): self._record(of, _WRITE, (tag_key, tag))
            for tag, (of, written) in tags.items()
            if written
        }
        return lambda value: writers[type(value)](value)

    def tagged_reader(self, tag_key: str, tags: Mapping[str, tuple[Any, bool]]) -> Quick:
        """Return what reads one of some classes by its tag."""
        readers = {tag: self._record(of, _READ, (tag_key, "")) for tag, (of, _) in tags.items()}
        return lambda value: readers[value[tag_key]](value)

    def _function(self, of: Any, side: int) -> Quick:
        of = resolved(of)
        if of not in self._rules.own:
            if is_value_class(_class(of)):
                return self._record(of, side)
            if is_union(of):
                return self._union(of, side)
            if _class(of) in ARRAYS:
                return self._array(of, side)
            if _class(of) is dict:
                return self._mapping(of, side)
        return self._slow(of, side)

    def _slow(self, of: Any, side: int) -> Quick:
        write, read = self._rules.pair(of)
        return write if side == _WRITE else lambda value: read(value, of)

    def _union(self, of: Any, side: int) -> Quick:
        members = [member for member in union_members(of) if member is not NoneType]
        if any(member in self._rules.own for member in members):
            return self._slow(of, side)
        if len(members) == 1:
            inside = self._function(members[0], side)
        elif all(is_value_class(_class(member)) for member in members):
            make = self.tagged_writer if side == _WRITE else self.tagged_reader
            inside = make(*self._rules.nested_tags(members))
        else:
            return self._slow(of, side)
        if NoneType not in union_members(of):
            return inside
        return lambda value: None if value is None else inside(value)

    def _array(self, of: Any, side: int) -> Quick:
        kind, arguments = _class(of), typing.get_args(of)
        if not arguments or (kind is tuple and Ellipsis not in arguments):
            return self._slow(of, side)
        inside = self._function(arguments[0], side)
        expected = kind if side == _WRITE else list

        def convert(value: Any) -> Any:
            if type(value) is not expected:
                raise TypeError
            converted = [inside(each) for each in value]
            return converted if side == _WRITE or kind is list else kind(converted)

        return convert

    def _mapping(self, of: Any, side: int) -> Quick:
        arguments = typing.get_args(of)
        if not arguments or resolved(arguments[0]) is not str or str in self._rules.own:
            return self._slow(of, side)
        inside = self._function(arguments[1], side)

        def convert(value: Any) -> Any:
            if type(value) is not dict:
                raise TypeError
            for key in value:
                if type(key) is not str:
                    raise TypeError
            return {key: inside(each) for key, each in value.items()}

        return convert

    # --- generated ------------------------------------------------------------------------------------

    def _record(self, of: Any, side: int, tag: tuple[str, str] | None = None) -> Quick:
        key = (of, side, tag)
        if key not in self._made:
            self._made[key] = lambda value: self._made[key](value)  # for a class that is inside itself
            self._made[key] = self._generated(of, side, tag)
        return self._made[key]

    def _generated(self, of: Any, side: int, tag: tuple[str, str] | None) -> Quick:
        fields = fields_of(of)
        cls = _class(of)
        names: dict[str, Any] = {"cls": cls, "str": str, "int": int, "bool": bool, "float": float}
        names |= {"isfinite": isfinite, "LARGEST": _LARGEST}
        fit = "type(value) is cls" if side == _WRITE else "type(value) is dict"
        if side == _READ and self._rules.exact:
            fit += f" and len(value) == {len(fields) + (tag is not None)}"
        lines = ["def convert(value):", f" if not ({fit}): raise TypeError"]
        items = [] if tag is None else [f"{tag[0]!r}: {tag[1]!r}"]
        arguments: list[str] = []
        for number, field in enumerate(fields):
            json_key = self._rules.key(field.name)
            lines.append(f" v{number} = value{f'.{field.name}' if side == _WRITE else f'[{json_key!r}]'}")
            lines.append(f" {self._converted(number, resolved(field.annotation), side, names)}")
            items.append(f"{json_key!r}: v{number}")
            arguments.append(f"{field.argument}=v{number}" if field.keyword else f"v{number}")
        result = f"{{{', '.join(items)}}}" if side == _WRITE else f"cls({', '.join(arguments)})"
        lines.append(f" return {result}")
        exec(compile("\n".join(lines), f"<generated JSON of {cls.__name__}>", "exec"), names)
        function: Quick = names["convert"]
        return function

    def _converted(self, number: int, of: Any, side: int, names: dict[str, Any]) -> str:
        """Return the line that checks one value in place, or has it converted."""
        value, unless_none = f"v{number}", ""
        if of not in self._rules.own and is_union(of):
            members = union_members(of)
            if len(members) == 2 and NoneType in members:
                of = members[0] if members[1] is NoneType else members[1]
                unless_none = f"{value} is not None and "
        if of in _IN_PLACE and of not in self._rules.own:
            return f"if {unless_none}type({value}) is not {_IN_PLACE[of]}: raise TypeError"
        if of is float and of not in self._rules.own:
            if side == _WRITE:
                return f"if {unless_none}not (type({value}) is float and isfinite({value})): raise TypeError"
            names["read_float"] = self._rules.pair(float)[1]
            fits = f"type({value}) is float and -LARGEST <= {value} <= LARGEST"
            return f"if {unless_none}not ({fits}): {value} = read_float({value}, float)"
        names[f"convert{number}"] = self._function(of, side)
        return f"{f'if {value} is not None: ' if unless_none else ''}{value} = convert{number}({value})"


def _class(of: Any) -> Any:
    return typing.get_origin(of) or of
