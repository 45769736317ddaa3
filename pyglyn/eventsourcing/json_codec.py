"""Events and states <-> JSON text, derived from their types. Pure.

The payload JSON of a Gleam store is the application's own, so the spelling can be set. By default it is
what the examples of the Gleam library write::

    CustomerDepositedCash(amount=10.0, balance=10.0)
    {"event-type":"customer-deposited-cash","amount":10.0,"balance":10.0}

Rules:

- An attrs class or dataclass is an object; a member of a union carries its name under the tag key. The top
  type of events is always tagged, a state that is one class is not. ``X | None`` is ``null`` or X.
- ``float`` fields are written with a decimal point, also when they hold an ``int``; ``int`` fields refuse
  floats and bools. Reading is as strict, with one exception: an integer literal is accepted for a float, if
  a float holds it exactly, because other writers of the table (JavaScript, SQL by hand) drop the ``.0``.
- Lists, tuples, sets and string-keyed dicts as expected; ``bytes`` in base64, date and time in ISO 8601,
  ``UUID`` and ``Decimal`` as strings, an enum as its member's name in the tag's spelling.
- Keys that the type does not have are ignored, as Gleam's decoders do.
- ``codecs`` overrides single types.

Not supported: dicts with other keys than strings, unions of several non-class types of one JSON kind.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import re
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeAlias, TypeVar

import attrs
import cattrs
from cattrs.gen import make_dict_structure_fn, make_dict_unstructure_fn, override

from pyglyn.errors import EventDecodeError, EventEncodeError
from pyglyn.eventsourcing.json_scalars import SCALARS, kind_of, shown
from pyglyn.eventsourcing.json_text import JsonValue, dump, load

T = TypeVar("T")

Spelling: TypeAlias = Callable[[str], str]
_ToJson: TypeAlias = Callable[[Any], Any]
_FromJson: TypeAlias = Callable[[Any, Any], Any]

_WORDS = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z0-9]+|[A-Z]+|[0-9]+")


def _words(name: str) -> list[str]:
    return [word.lower() for word in _WORDS.findall(name)] or [name]


def kebab_case(name: str) -> str:
    """``AccountOpened`` or ``account_opened`` -> ``account-opened``."""
    return "-".join(_words(name))


def snake_case(name: str) -> str:
    """``AccountOpened`` -> ``account_opened``."""
    return "_".join(_words(name))


def camel_case(name: str) -> str:
    """``account_opened`` -> ``accountOpened``."""
    first, *rest = _words(name)
    return first + "".join(word.capitalize() for word in rest)


def pascal_case(name: str) -> str:
    """``account_opened`` -> ``AccountOpened``."""
    return "".join(word.capitalize() for word in _words(name))


@attrs.frozen(kw_only=True)
class JsonStyle:
    """How names are spelled in JSON.

    Attributes:
        tag_key: the key under which an event's constructor name stands.
        nested_tag_key: the same for unions inside events and for states.
        tag_spelling: class (and enum member) name to tag.
        key_spelling: field name to key.
        tags: tags of single classes that no rule gives.
        codecs: for single types, a pair (value to JSON value, JSON value to value).
    """

    tag_key: str = "event-type"
    nested_tag_key: str = "type"
    tag_spelling: Spelling = kebab_case
    key_spelling: Spelling = kebab_case
    tags: Mapping[type, str] = attrs.field(factory=dict)
    codecs: Mapping[type, tuple[Callable[[Any], JsonValue], Callable[[Any], Any]]] = attrs.field(factory=dict)


class JsonCodec(Generic[T]):
    """Writes and reads one type; built once, then reused."""

    def __init__(self, of: object, style: JsonStyle | None = None, *, tagged: bool = False) -> None:
        """Prepare the codec.

        Args:
            of: a class, a union of classes, or None for plain JSON values as they are.
            style: spelling and overrides.
            tagged: whether a single class carries its tag too (events do), under ``style.tag_key``.

        Raises:
            TypeError: the type, or one inside it, cannot be written as JSON.
            ValueError: two classes of a union have the same tag, or a field's key is the tag key.
        """
        self.style = style or JsonStyle()
        self._encode: _ToJson | None = None
        self._decode: Callable[[Any], Any] | None = None
        if of is None:
            return
        of = _unwrap(of)
        converter = _converter(self.style)
        try:
            if tagged:
                to_json, from_json = _tagged(converter, self.style, _members(of), self.style.tag_key)
            else:
                to_json, from_json = converter.get_unstructure_hook(of), converter.get_structure_hook(of)
        except cattrs.StructureHandlerNotFoundError as error:
            raise TypeError(f"no JSON for {error.type_!r}: give it one in JsonStyle.codecs") from error
        self._encode = to_json
        self._decode = lambda value: from_json(value, of)

    def encode(self, value: T) -> str:
        """Write a value.

        Raises:
            EventEncodeError: it is not of the type.
        """
        if self._encode is None:
            return dump(value)  # type: ignore[arg-type]
        try:
            plain = self._encode(value)
        except EventEncodeError:
            raise
        except (TypeError, ValueError, AttributeError, LookupError, RecursionError) as error:
            name = type(value).__name__
            raise EventEncodeError(f"{name} is not writable as JSON: {error}", value=value) from error
        return dump(plain)

    def decode(self, text: str) -> T:
        """Read a value.

        Raises:
            EventDecodeError: not JSON, or not of the type; it has the text and one line per fault.
        """
        if self._decode is None:
            return load(text, check_floats=True)  # type: ignore[return-value]
        plain = load(text)
        try:
            value: T = self._decode(plain)
        except (cattrs.BaseValidationError, TypeError, ValueError, LookupError) as error:
            raise EventDecodeError(_faults(error), payload=text) from error
        except RecursionError as error:
            raise EventDecodeError(["nested too deeply"], payload=text) from error
        return value


def _faults(error: Exception) -> list[str]:
    return cattrs.transform_error(error, path="$", format_exception=_fault)


def _fault(error: BaseException, _type: type | None) -> str:
    if isinstance(error, KeyError) and error.args:
        return f"missing field {error.args[0]!r}"
    return str(error)


# --- the converter ---------------------------------------------------------------------------------


def _unwrap(of: Any) -> Any:
    """Follow ``type X = …`` and ``NewType`` to what they stand for."""
    while True:
        if hasattr(of, "__value__"):
            of = of.__value__
        elif hasattr(of, "__supertype__"):
            of = of.__supertype__
        else:
            return of


def _origin(of: Any) -> Any:
    return typing.get_origin(of) or of


def _is_record(of: Any) -> bool:
    origin = _origin(of)
    return isinstance(origin, type) and (attrs.has(origin) or dataclasses.is_dataclass(origin))


def _is_union(of: Any) -> bool:
    return typing.get_origin(of) in (typing.Union, types.UnionType)


def _members(of: Any) -> list[Any]:
    of = _unwrap(of)
    if _is_union(of):
        return [member for part in typing.get_args(of) for member in _members(part)]
    return [of]


def _is_enum(of: Any) -> bool:
    return isinstance(of, type) and issubclass(of, enum.Enum)


def _converter(style: JsonStyle) -> cattrs.Converter:
    converter = cattrs.Converter(
        detailed_validation=True, unstruct_collection_overrides={set: list, frozenset: list}
    )
    for of, (to_json, from_json) in SCALARS.items():
        _register(converter, style, of, to_json, from_json)
    converter.register_unstructure_hook_factory(_is_record, lambda of: _record_to_json(converter, style, of))
    converter.register_structure_hook_factory(_is_record, lambda of: _record_from_json(converter, style, of))
    converter.register_unstructure_hook_factory(_is_enum, lambda of: _enum(style, of)[0])
    converter.register_structure_hook_factory(_is_enum, lambda of: _enum(style, of)[1])
    converter.register_unstructure_hook_factory(_is_union, lambda of: _union(converter, style, of)[0])
    converter.register_structure_hook_factory(_is_union, lambda of: _union(converter, style, of)[1])
    for of, (to_plain, from_plain) in style.codecs.items():
        _register(converter, style, of, to_plain, from_plain)
    return converter


def _register(
    converter: cattrs.Converter, style: JsonStyle, of: Any, to_json: _ToJson, from_json: Callable[[Any], Any]
) -> None:
    """Register a scalar. cattrs also comes here for its subclasses, so enums mixed with it are told apart."""

    def unstructure(value: Any) -> Any:
        return _enum(style, type(value))[0](value) if isinstance(value, enum.Enum) else to_json(value)

    def structure(value: Any, wanted: Any) -> Any:
        if wanted is of:
            return from_json(value)
        return _enum(style, wanted)[1](value, wanted) if _is_enum(wanted) else from_json(value)

    mixed = of in (int, str, float)
    converter.register_unstructure_hook(of, unstructure if mixed else to_json)
    converter.register_structure_hook(of, structure)


def _fields(of: Any) -> list[str]:
    origin = _origin(of)
    names = attrs.fields_dict(origin) if attrs.has(origin) else {f.name for f in dataclasses.fields(origin)}
    return list(names)


def _overrides(style: JsonStyle, of: Any) -> dict[str, Any]:
    keys = {name: style.key_spelling(name) for name in _fields(of)}
    if len(set(keys.values())) != len(keys):
        raise ValueError(
            f"two fields of {_origin(of).__name__} have the same JSON key: {sorted(keys.values())}"
        )
    return {name: override(rename=key) for name, key in keys.items()}


def _record_to_json(converter: cattrs.Converter, style: JsonStyle, of: Any) -> _ToJson:
    to_json: _ToJson = make_dict_unstructure_fn(of, converter, **_overrides(style, of))
    expected = _origin(of)

    def write(value: Any) -> Any:
        if type(value) is not expected:
            raise EventEncodeError(f"expected {expected.__name__}, got {shown(value)}", value=value)
        return to_json(value)

    return write


def _record_from_json(converter: cattrs.Converter, style: JsonStyle, of: Any) -> _FromJson:
    from_json: _FromJson = make_dict_structure_fn(
        of, converter, _cattrs_detailed_validation=True, **_overrides(style, of)
    )

    def read(value: Any, wanted: Any) -> Any:
        if not isinstance(value, dict):
            raise TypeError(f"expected an object, got {kind_of(value)}")
        return from_json(value, wanted)

    return read


def _enum(style: JsonStyle, of: Any) -> tuple[_ToJson, _FromJson]:
    def write(value: Any) -> Any:
        if not isinstance(value, of):
            raise TypeError(f"expected a member of {of.__name__}, got {shown(value)}")
        return style.tag_spelling(value.name.lower())

    members = {style.tag_spelling(member.name.lower()): member for member in of}

    def read(value: Any, _of: Any) -> Any:
        if not isinstance(value, str) or value not in members:
            raise ValueError(f"expected one of {sorted(members)}, got {shown(value)}")
        return members[value]

    return write, read


def _union(converter: cattrs.Converter, style: JsonStyle, of: Any) -> tuple[_ToJson, _FromJson]:
    """A union: classes by their tag, anything else by the kind of its JSON value.

    The members' hooks are looked up at the first use, so that a type may contain itself.
    """

    @functools.cache
    def parts() -> _UnionParts:
        return _UnionParts.of_members(converter, style, _members(of))

    def write(value: Any) -> Any:
        return parts().write(value, of)

    def read(value: Any, _of: Any) -> Any:
        return parts().read(value, of)

    return write, read


@attrs.frozen
class _UnionParts:
    nullable: bool
    record: tuple[_ToJson, _FromJson] | None
    others: list[tuple[Any, _ToJson, _FromJson]]  # what is neither a class of ours nor None

    @classmethod
    def of_members(cls, converter: cattrs.Converter, style: JsonStyle, members: list[Any]) -> _UnionParts:
        records = [member for member in members if _is_record(member)]
        others = [member for member in members if not _is_record(member) and member is not type(None)]
        record: tuple[_ToJson, _FromJson] | None = None
        if len(records) > 1:
            record = _tagged(converter, style, records, style.nested_tag_key)
        elif records:
            from_json = _bind(converter.get_structure_hook(records[0]), records[0])
            record = (converter.get_unstructure_hook(records[0]), from_json)
        hooks = [
            (other, converter.get_unstructure_hook(other), _bind(converter.get_structure_hook(other), other))
            for other in others
        ]
        return cls(type(None) in members, record, hooks)

    def write(self, value: Any, of: Any) -> Any:
        if value is None and self.nullable:
            return None
        if len(self.others) == 1 and self.record is None:
            return self.others[0][1](value)
        for cls in type(value).__mro__[:-1]:
            for other, to_json, _ in self.others:
                if _origin(other) is cls:
                    return to_json(value)
        if self.record is None:
            raise EventEncodeError(f"expected {of}, got {shown(value)}", value=value)
        return self.record[0](value)

    def read(self, value: Any, of: Any) -> Any:
        if value is None and self.nullable:
            return None
        if len(self.others) == 1 and self.record is None:
            return self.others[0][2](value, of)
        if self.record is not None and (isinstance(value, dict) or not self.others):
            return self.record[1](value, of)
        faults: list[str] = []
        for _, _, from_json in self.others:
            try:
                return from_json(value, of)
            except (TypeError, ValueError, LookupError, cattrs.BaseValidationError) as error:
                faults.append(_fault(error, None))
        raise TypeError(" or ".join(faults))


def _bind(hook: _FromJson, of: Any) -> _FromJson:
    return lambda value, _of: hook(value, of)


def _tagged(
    converter: cattrs.Converter, style: JsonStyle, members: list[Any], tag_key: str
) -> tuple[_ToJson, _FromJson]:
    """Several classes told apart by a tag."""
    writers: dict[type, tuple[str, _ToJson]] = {}
    readers: dict[str, tuple[Any, _FromJson]] = {}
    for member in members:
        if not _is_record(member):
            raise TypeError(f"expected an attrs class or dataclass in the union, got {member!r}")
        origin = _origin(member)
        tag = style.tags.get(origin) or style.tag_spelling(origin.__name__)
        if tag in readers:
            raise ValueError(
                f"{origin.__name__} and {_origin(readers[tag][0]).__name__} have the same tag {tag!r}"
            )
        if tag_key in (style.key_spelling(name) for name in _fields(member)):
            raise ValueError(f"a field of {origin.__name__} has the key {tag_key!r}, which is the tag's")
        writers[origin] = (tag, converter.get_unstructure_hook(member))
        readers[tag] = (member, converter.get_structure_hook(member))

    def write(value: Any) -> Any:
        found = writers.get(type(value))
        if found is None:
            names = ", ".join(sorted(cls.__name__ for cls in writers))
            raise EventEncodeError(f"expected one of {names}; got {shown(value)}", value=value)
        return {tag_key: found[0], **found[1](value)}

    def read(value: Any, _of: Any) -> Any:
        if not isinstance(value, dict):
            raise TypeError(f"expected an object, got {kind_of(value)}")
        tag = value.get(tag_key)
        if not isinstance(tag, str):
            raise TypeError(
                f"expected a string under {tag_key!r}, got {kind_of(tag) if tag_key in value else 'nothing'}"
            )
        if tag not in readers:
            raise ValueError(f"unknown {tag_key} {tag!r}, expected one of {sorted(readers)}")
        member, reader = readers[tag]
        return reader(value, member)

    return write, read
