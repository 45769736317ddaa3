"""Events and states <-> JSON text, derived from their types. Pure.

The payload JSON of a Gleam store is the application's own, so the spelling can be set. By default it is
what the examples of the Gleam library write::

    CustomerDepositedCash(amount=10.0, balance=10.0)
    {"event-type":"customer-deposited-cash","amount":10.0,"balance":10.0}

Rules:

- An attrs class or dataclass is an object; a member of a union carries its name under the tag key. The top
  type of events is always tagged, a state that is one class is not. ``X | None`` is ``null`` or X.
- Lists, tuples, sets and dicts with keys written as strings; ``bytes`` in base64, date and time in ISO 8601,
  ``UUID`` and ``Decimal`` as strings, an enum as its member's name in the tag's spelling, a ``Literal`` as
  its value; ``Any`` is a JSON value as it is.
- A value is written only if it has the very type that its field declares, as :mod:`pyglyn.gleam` encodes it:
  an ``int`` is no ``float``, a tuple no list, a tuple of three no ``tuple[int, int]``, an ``IntEnum`` no
  ``int``, a ``datetime`` has its time zone. So nothing is stored that cannot be sent, or that reads back as
  something else. A float always has a decimal point.
- Reading is as strict, with two exceptions: an integer literal is accepted for a float, if a float holds it
  exactly, because other writers of the table (JavaScript, SQL by hand) drop the ``.0``; and a date and time
  without a time zone.
- Keys that the type does not have are ignored, as Gleam's decoders do, and a missing one takes the field's
  default; unless the codec is made ``exact``, as the one for states is: a snapshot of a class that has other
  fields now is none of that class.
- ``codecs`` overrides single types.

Not supported: any other type; unions of several non-class types of one JSON kind.
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import functools
import re
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Generic, Literal, TypeAlias, TypeVar

import attrs
import cattrs
from cattrs.dispatch import MultiStrategyDispatch
from cattrs.gen import make_dict_structure_fn, make_dict_unstructure_fn, override

from pyglyn.errors import EventDecodeError, EventEncodeError, UnsupportedType
from pyglyn.eventsourcing.domain.evolution import Evolution, Upcaster, evolution_of
from pyglyn.eventsourcing.stores.json.collections import (
    ARRAYS,
    FromJson,
    Pair,
    ToJson,
    array,
    enumeration,
    literal,
    mapping,
    plain,
)
from pyglyn.eventsourcing.stores.json.plans import MISFIT, Readers
from pyglyn.eventsourcing.stores.json.plans import c as in_c
from pyglyn.eventsourcing.stores.json.quick import Quick, QuickFunctions
from pyglyn.eventsourcing.stores.json.scalars import SCALARS, kind_of, shown
from pyglyn.eventsourcing.stores.json.text import JsonValue, dump, load, scan_once
from pyglyn.eventsourcing.stores.json.upcasting import Upcasting
from pyglyn.gleam.annotations import is_union, name_of, no_type, resolved

T = TypeVar("T")

Spelling: TypeAlias = Callable[[str], str]

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
        upcasters: of events that have no class any more, by their tag and version; see `es.event`.
        earlier: how names were spelled before, the last style first: what does not read by this one is read
            by those.
    """

    tag_key: str = "event-type"
    nested_tag_key: str = "type"
    tag_spelling: Spelling = kebab_case
    key_spelling: Spelling = kebab_case
    tags: Mapping[type, str] = attrs.field(factory=dict)
    codecs: Mapping[type, tuple[Callable[[Any], JsonValue], Callable[[Any], Any]]] = attrs.field(factory=dict)
    upcasters: Mapping[str, Mapping[int, Upcaster]] = attrs.field(factory=dict)
    earlier: Sequence[JsonStyle] = ()


class JsonCodec(Generic[T]):
    """Writes and reads one type; built once, then reused."""

    def __init__(
        self, of: object, style: JsonStyle | None = None, *, tagged: bool = False, exact: bool = False
    ) -> None:
        """Prepare the codec.

        Args:
            of: a class, a union of classes, or None for plain JSON values as they are.
            style: spelling and overrides.
            tagged: whether a single class carries its tag too (events do), under ``style.tag_key``.
            exact: whether an object has to have all fields of its class, and no others, to be read.

        Raises:
            TypeError: the type, or one inside it, cannot be written as JSON.
            ValueError: two classes of a union have the same tag, or a field's key is the tag key.
        """
        self.style = style or JsonStyle()
        self._encode: ToJson = plain
        self._decode: Callable[[Any], Any] | None = None
        self._upcasting: Upcasting | None = None
        self._earlier: list[JsonCodec[T]] = []
        self._quick_of: Callable[[QuickFunctions], tuple[Quick, Quick]] | None = None
        self._reader_of: Callable[[Readers], Any] | None = None
        if of is None:
            return
        self._converter = converter = _Converter(self.style, exact=exact)
        of = resolved(of)
        self._earlier = [
            JsonCodec(of, each, tagged=tagged, exact=exact) for each in (style.earlier if style else ())
        ]
        if tagged:
            members, tag_key = _members(of), self.style.tag_key
            self._encode, from_json = _tagged(converter, members, tag_key)
            tags = converter.tags(members)
            self._quick_of = lambda quick: (
                quick.tagged_writer(tag_key, tags),
                quick.tagged_reader(tag_key, tags),
            )
            self._reader_of = lambda readers: readers.tagged(tag_key, tags)
            self._upcasting = Upcasting.of_events(
                self.style.tag_key, _tags(self.style, _members(of)), self.style.upcasters
            )
        else:
            self._encode, from_json = converter.pair(of)
            self._quick_of = lambda quick: (quick.writer(of), quick.reader(of))
            self._reader_of = lambda readers: readers.reader(of)
            if _is_record(of) and evolution_of(_origin(of)).version > 1:
                self._upcasting = Upcasting.of_state(evolution_of(_origin(of)))
                self._encode = self._upcasting.marking(self._encode)
        self._decode = lambda value: from_json(value, of)

    @functools.cached_property
    def _quick(self) -> tuple[Quick, Quick]:
        """What writes and reads right values quickly, and raises at others."""
        if self._quick_of is None or self._decode is None:
            return self._encode, self._decode or _refuse
        try:
            write, read = self._quick_of(QuickFunctions(self._converter))
        except UnsupportedType:  # a type that only cattrs can resolve
            return self._encode, self._decode
        if self._upcasting is not None and self._upcasting.tag_key is None:
            write = self._upcasting.marking(write)
        return write, read

    @functools.cached_property
    def in_c(self) -> Any:
        """The reader in C, which gives ``MISFIT`` where `decode` is needed; None where there is none."""
        if in_c is None or self._reader_of is None or self._upcasting is not None:
            return None
        try:
            return self._reader_of(Readers(self._converter, QuickFunctions(self._converter)))
        except UnsupportedType:
            return None

    def names_of(self, types: Iterable[type | str]) -> frozenset[str]:
        """Return all tags under which events of some types may be stored, as they are now or were before.

        What has upcasters may become anything, so its tags are always among them.
        """
        names = {each for each in types if isinstance(each, str)}
        for of in types:
            if isinstance(of, type):
                names |= {tag_of(self.style, of), *evolution_of(of).aliases}
        if self._upcasting is not None:
            names |= {tag for tag, each in self._upcasting.types.items() if each.upcasters}
        return frozenset(names).union(*(codec.names_of(types) for codec in self._earlier))

    def encode(self, value: T) -> str:
        """Write a value.

        Raises:
            EventEncodeError: it is not of the type.
        """
        try:
            return dump(self._quick[0](value))
        except Exception:  # the long way, which says what is wrong
            pass
        try:
            written = self._encode(value)
        except EventEncodeError:
            raise
        except Exception as error:
            name = type(value).__name__
            raise EventEncodeError(f"{name} is not writable as JSON: {error}", value=value) from error
        return dump(written)

    def decode(self, text: str, version: int = 1) -> T:
        """Read a value; an old event that is none or several events now is `Several`.

        Args:
            text: the JSON.
            version: which version of its type it is; states have theirs in the JSON.

        Raises:
            EventDecodeError: not JSON, or not of the type; it has the text and one line per fault.
        """
        if self._decode is None:
            return load(text, check_floats=True)  # type: ignore[return-value]
        made: T = MISFIT if self.in_c is None else self.in_c(text)  # type: ignore[assignment]
        return made if made is not MISFIT else self._decode_in_python(text, version)

    def _decode_in_python(self, text: str, version: int) -> T:
        try:
            value, end = scan_once(text, 0)
            if end == len(text):
                read = self._quick[1]
                quick: T = (
                    read(value) if self._upcasting is None else self._upcasting.read(value, version, read)
                )
                return quick
        except Exception:  # the long way, which says what is wrong
            pass
        try:
            return self._read(text, version)
        except EventDecodeError:
            for codec in self._earlier:
                with contextlib.suppress(EventDecodeError):
                    return codec.decode(text, version)
            raise

    def quick_reader(self) -> Callable[[str, int], T]:
        """Return what reads right values quickly, and raises where `decode` is needed."""
        if self._decode is None or self._upcasting is not None:
            return self.decode
        quick, reader = self._quick[1], self.in_c

        def read(text: str, version: int) -> T:
            if reader is not None:
                found: T = reader(text)
                if found is not MISFIT:
                    return found
            value, end = scan_once(text, 0)
            if end != len(text):
                raise ValueError
            made: T = quick(value)
            return made

        return read

    def _read(self, text: str, version: int) -> T:
        assert self._decode is not None
        plain_value = load(text)
        try:
            if self._upcasting is None:
                value: T = self._decode(plain_value)
            else:
                value = self._upcasting.read(plain_value, version, self._decode)
        except RecursionError as error:
            raise EventDecodeError(["nested too deeply"], payload=text) from error
        except Exception as error:
            raise EventDecodeError(_faults(error), payload=text) from error
        return value


def _refuse(_value: Any) -> Any:
    raise TypeError("there is no quick way to read it")


def _faults(error: Exception) -> list[str]:
    return cattrs.transform_error(error, path="$", format_exception=_fault)


def _fault(error: BaseException, _type: type | None) -> str:
    if isinstance(error, KeyError) and error.args:
        return f"missing field {error.args[0]!r}"
    return str(error)


# --- the converter ---------------------------------------------------------------------------------


def _origin(of: Any) -> Any:
    return typing.get_origin(of) or of


def _is_record(of: Any) -> bool:
    origin = _origin(of)
    return isinstance(origin, type) and (attrs.has(origin) or dataclasses.is_dataclass(origin))


def _members(of: Any) -> list[Any]:
    of = resolved(of)
    if is_union(of):
        return [member for part in typing.get_args(of) for member in _members(part)]
    return [of]


class _Converter(cattrs.Converter):
    """Derives the pair of each type. cattrs makes the functions for the fields of a class, nothing else.

    Its own hooks coerce (``int("1")``, a list of the letters of a string), so none of them is left.
    """

    def __init__(self, style: JsonStyle, *, exact: bool) -> None:
        super().__init__(detailed_validation=True)
        self.style = style
        self.exact = exact
        self._pairs: dict[Any, Pair] = {}
        self._unstructure_func = MultiStrategyDispatch(lambda of: self.pair(of)[0], self)
        self._structure_func = MultiStrategyDispatch(lambda of: self.pair(of)[1], self)

    def pair(self, of: Any) -> Pair:
        """Derive what writes and reads a type.

        Raises:
            TypeError: it has no JSON.
        """
        of = resolved(of)
        if of not in self._pairs:
            self._pairs[of] = self._derived(of)
        return self._pairs[of]

    @property
    def own(self) -> Mapping[type, Any]:
        return self.style.codecs

    def key(self, field: str) -> str:
        return self.style.key_spelling(field)

    def nested_tags(self, members: list[Any]) -> tuple[str, dict[str, tuple[Any, bool]]]:
        return self.style.nested_tag_key, self.tags(members)

    def tags(self, members: list[Any]) -> dict[str, tuple[Any, bool]]:
        """Return each tag of a union with its class, and whether it is the one that is written."""
        found: dict[str, tuple[Any, bool]] = {}
        for member in members:
            tag = tag_of(self.style, _origin(member))
            for name in (tag, *evolution_of(_origin(member)).aliases):
                found[name] = member, name == tag
        return found

    def inside(self, of: Any) -> Callable[[], Pair]:
        """Return what gives the pair of a type inside another; derived now if the other one is already."""
        try:
            pair = self.pair(of)
        except RecursionError:  # cattrs: the functions of a class are being made
            return lambda: self.pair(of)
        return lambda: pair

    def _derived(self, of: Any) -> Pair:
        if of in self.style.codecs:
            to_plain, from_plain = self.style.codecs[of]
            return to_plain, lambda value, _of: from_plain(value)
        if of in SCALARS:
            return SCALARS[of]
        origin = _origin(of)
        if _is_record(of):
            return _record(self, of)
        if is_union(of):
            return _union(self, of)
        if isinstance(of, type) and issubclass(of, enum.Enum):
            return enumeration(of, self.style.tag_spelling)
        if origin in ARRAYS:
            return array(of, self.inside)
        if origin is dict:
            return mapping(of, self.inside)
        if origin is Literal:
            return literal(of, self.inside)
        if of is Any:
            return plain, lambda value, _of: value
        raise TypeError(f"no JSON for {name_of(of)}: give it one in JsonStyle.codecs")


def _fields(of: Any) -> list[str]:
    origin = _origin(of)
    names = attrs.fields_dict(origin) if attrs.has(origin) else {f.name for f in dataclasses.fields(origin)}
    return list(names)


def _record(converter: _Converter, of: Any) -> Pair:
    expected = _origin(of)
    keys = {name: converter.style.key_spelling(name) for name in _fields(of)}
    if len(set(keys.values())) != len(keys):
        raise ValueError(f"two fields of {expected.__name__} have the same JSON key: {sorted(keys.values())}")
    overrides: dict[str, Any] = {name: override(rename=key) for name, key in keys.items()}
    to_json: ToJson = make_dict_unstructure_fn(of, converter, **overrides)
    from_json: FromJson = make_dict_structure_fn(of, converter, _cattrs_detailed_validation=True, **overrides)
    wanted = {keys[name] for name in _written(expected)} if converter.exact else None

    def write(value: Any) -> Any:
        if type(value) is not expected:
            raise EventEncodeError(f"expected {expected.__name__}, got {shown(value)}", value=value)
        return to_json(value)

    def read(value: Any, as_type: Any) -> Any:
        if type(value) is not dict:
            raise TypeError(f"expected an object, got {kind_of(value)}")
        if wanted is not None and value.keys() != wanted:
            faults = [f"missing field {key!r}" for key in sorted(wanted - value.keys())]
            faults += [f"unknown field {key!r}" for key in sorted(value.keys() - wanted)]
            raise ValueError(f"{expected.__name__} has other fields: {', '.join(faults)}")
        return from_json(value, as_type)

    return write, read


def _written(cls: Any) -> list[str]:
    """List the fields that ``__init__`` takes: only those are written."""
    if attrs.has(cls):
        return [field.name for field in attrs.fields(cls) if field.init]
    return [field.name for field in dataclasses.fields(cls) if field.init]


def _union(converter: _Converter, of: Any) -> Pair:
    """A union: classes by their tag, anything else by the kind of its JSON value."""
    members = _members(of)
    records = [member for member in members if _is_record(member)]
    others = [member for member in members if not _is_record(member) and member is not type(None)]
    others.sort(key=lambda member: member is float)  # it would take the literals of an int
    parts = _UnionParts(
        nullable=type(None) in members,
        record=_tagged(converter, records, converter.style.nested_tag_key)
        if len(records) > 1
        else _bound(converter.inside(records[0]), records[0])
        if records
        else None,
        others=[(other, *_bound(converter.inside(other), other)) for other in others],
    )
    return (lambda value: parts.write(value, of)), (lambda value, _of: parts.read(value, of))


@attrs.frozen
class _UnionParts:
    nullable: bool
    record: Pair | None
    others: list[tuple[Any, ToJson, FromJson]]  # what is neither a class of ours nor None

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
            raise EventEncodeError(f"expected {name_of(of)}, got {shown(value)}", value=value)
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
            except Exception as error:
                faults.append(_fault(error, None))
        raise TypeError(" or ".join(faults))


def _bound(inside: Callable[[], Pair], of: Any) -> Pair:
    return (lambda value: inside()[0](value)), (lambda value, _of: inside()[1](value, of))


def tag_of(style: JsonStyle, origin: type) -> str:
    """Return the tag under which a class is written."""
    return style.tags.get(origin) or evolution_of(origin).name or style.tag_spelling(origin.__name__)


def _tags(style: JsonStyle, members: list[Any]) -> dict[str, Evolution]:
    """What is declared of the events, by the tag that they have now."""
    return {tag_of(style, _origin(member)): evolution_of(_origin(member)) for member in members}


def _tagged(converter: _Converter, members: list[Any], tag_key: str) -> Pair:
    """Several classes told apart by a tag."""
    style = converter.style
    writers: dict[type, tuple[str, Callable[[], Pair]]] = {}
    readers: dict[str, tuple[Any, Callable[[], Pair]]] = {}
    for member in members:
        if not _is_record(member):
            raise TypeError(
                no_type(member) or f"expected an attrs class or dataclass in the union, got {member!r}"
            )
        origin = _origin(member)
        tag = tag_of(style, origin)
        for name in (tag, *evolution_of(origin).aliases):
            if name in readers:
                other = _origin(readers[name][0]).__name__
                raise ValueError(f"{origin.__name__} and {other} have the same tag {name!r}")
        if tag_key in (style.key_spelling(name) for name in _fields(member)):
            raise ValueError(f"a field of {origin.__name__} has the key {tag_key!r}, which is the tag's")
        inside = converter.inside(member)
        writers[origin] = (tag, inside)
        for name in (tag, *evolution_of(origin).aliases):
            readers[name] = (member, inside)

    def write(value: Any) -> Any:
        found = writers.get(type(value))
        if found is None:
            names = ", ".join(sorted(cls.__name__ for cls in writers))
            raise EventEncodeError(f"expected one of {names}; got {shown(value)}", value=value)
        return {tag_key: found[0], **found[1]()[0](value)}

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
        member, inside = readers[tag]
        if converter.exact:
            value = {key: each for key, each in value.items() if key != tag_key}
        return inside()[1](value, member)

    return write, read
