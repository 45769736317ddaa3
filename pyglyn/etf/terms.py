"""Erlang's own types that Python lacks: atoms, pids, references and the like. Layer: etf, pure.

Source: Erlang External Term Format (erts, "ext_dist"). Equality here is Erlang's ``=:=``: every field
counts, the creation included. The classes built once per decoded term are plain attrs classes that are
immutable by convention: measured on Python 3.11, a frozen one costs more than twice as much to build. C makes
them as well and reads their slots, and puts the same ``__hash__`` and ``__eq__`` into those of identifiers.
"""

from __future__ import annotations

import operator
import weakref
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from struct import error as StructError
from struct import pack
from typing import Any, TypeAlias, final

import attrs

from pyglyn.errors import EncodeError

MAX_ATOM_CHARACTERS = 255
_WORDS = [f">{count + 1}I" for count in range(6)]
_RESERVED = {"true": "True", "false": "False", "nil": "None"}


@final
class Atom:
    """An Erlang atom; two atoms of one name are one object, and no atom equals a string.

    ``true``, ``false`` and ``nil`` are Python's ``True``, ``False`` and ``None``, so there is no
    ``Atom`` of those names. ``case Atom("ping")`` works as a pattern. Names nobody uses any more are
    forgotten, so a peer cannot fill the memory with new atoms.

    Raises:
        ValueError: more than 255 characters, lone surrogates, or one of the three names above.
    """

    __slots__ = ("__weakref__", "name")
    __match_args__ = ("name",)
    name: str

    def __new__(cls, name: str) -> Atom:
        known = _interned.get(name)
        if known is not None:
            return known
        if not isinstance(name, str):
            raise TypeError(f"an atom's name is a str, got {type(name).__name__}")
        if name in _RESERVED:
            raise ValueError(f"the atom {name} is {_RESERVED[name]} in Python")
        if len(name) > MAX_ATOM_CHARACTERS:
            raise ValueError(f"an atom has at most {MAX_ATOM_CHARACTERS} characters, got {len(name)}")
        try:
            name.encode()
        except UnicodeEncodeError:
            raise ValueError(f"an atom's name is Unicode text, got lone surrogates in {name!r}") from None
        atom = object.__new__(cls)
        object.__setattr__(atom, "name", str(name))
        _interned[atom.name] = atom
        return atom

    def __setattr__(self, key: str, value: object) -> None:
        raise AttributeError("atoms are immutable")

    def __repr__(self) -> str:
        return f"Atom({self.name!r})"

    def __str__(self) -> str:
        return self.name

    def __reduce__(self) -> tuple[type[Atom], tuple[str]]:
        return Atom, (self.name,)

    def __copy__(self) -> Atom:
        return self

    def __deepcopy__(self, memo: object) -> Atom:
        return self


_interned: weakref.WeakValueDictionary[str, Atom] = weakref.WeakValueDictionary()


def atom_count() -> int:
    """How many atoms are in use in this OS process."""
    return len(_interned)


def _hash(fields: tuple[Any, ...], layout: str, *numbers: Any) -> int:
    """Hash an identifier, of which a peer chooses the numbers, in a way that it cannot steer.

    The hash of bytes has a secret key; that of numbers, and of tuples of numbers, has none.
    """
    try:
        return hash(fields[0]) ^ hash(pack(layout, *numbers))
    except StructError:
        return hash(fields)


@attrs.define(repr=False)
class Pid:
    """The identity of a process: ``<id.serial>`` of one incarnation (creation) of a node."""

    node: str
    id: int
    serial: int
    creation: int

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return (
            self.creation == other.creation
            and self.serial == other.serial
            and self.id == other.id
            and self.node == other.node
        )

    def __hash__(self) -> int:
        numbers = self.id, self.serial, self.creation
        return _hash((self.node, *numbers), ">III", *numbers)

    def __repr__(self) -> str:
        return f"<{self.node}.{self.id}.{self.serial}>"

    def sort_key(self) -> tuple[int, int, str, int]:
        """Erlang's order of pids: serial, then number, then node, then creation (checked on OTP 25, 28)."""
        return self.serial, self.id, self.node, self.creation


@attrs.define(repr=False)
class Port:
    """The identity of an Erlang port."""

    node: str
    id: int
    creation: int

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return self.creation == other.creation and self.id == other.id and self.node == other.node

    def __hash__(self) -> int:
        return _hash((self.node, self.id, self.creation), ">QI", self.id, self.creation)

    def __repr__(self) -> str:
        return f"#Port<{self.node}.{self.id}>"


@attrs.define(repr=False)
class Reference:
    """A unique reference; also a monitor and a process alias. One to five 32-bit words."""

    node: str
    creation: int
    words: tuple[int, ...]

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return self.words == other.words and self.creation == other.creation and self.node == other.node

    def __hash__(self) -> int:
        fields = self.node, self.creation, self.words
        if type(self.words) is tuple and len(self.words) < len(_WORDS):
            return _hash(fields, _WORDS[len(self.words)], self.creation, *self.words)
        return hash(fields)

    def __repr__(self) -> str:
        return f"#Ref<{self.node}.{'.'.join(map(str, reversed(self.words)))}>"


@attrs.define(unsafe_hash=True)
class Export:
    """``fun Module:Function/Arity``."""

    module: str
    function: str
    arity: int


@attrs.define(unsafe_hash=True, repr=False)
class Fun:
    """A local fun of some BEAM module: opaque here, and sent back byte for byte.

    Attributes:
        raw: NEW_FUN_EXT without its tag byte: size, arity and all the rest, as it came.
        module, arity, index, uniq: read out of ``raw``, to look at.
    """

    raw: bytes
    module: str = attrs.field(eq=False)
    arity: int = attrs.field(eq=False)
    index: int = attrs.field(eq=False)
    uniq: bytes = attrs.field(eq=False)

    def __repr__(self) -> str:
        return f"#Fun<{self.module}.{self.index}.{self.uniq.hex()[:8]}>/{self.arity}"


@attrs.define(unsafe_hash=True)
class BitString:
    """A bitstring whose length is not a multiple of 8; the other ones are ``bytes``.

    Attributes:
        data: the bytes; the last one holds its bits in the high places, the rest are 0.
        bits: how many bits of the last byte count, 1 to 7.
    """

    data: bytes
    bits: int = attrs.field()

    @bits.validator
    def _check(self, attribute: object, value: int) -> None:
        if not 1 <= value <= 7 or not self.data:
            raise ValueError("a BitString has at least one byte and 1 to 7 bits in the last; use bytes")
        unused = (1 << (8 - value)) - 1
        if self.data[-1] & unused:
            self.data = self.data[:-1] + bytes((self.data[-1] & ~unused,))


@attrs.define(unsafe_hash=True)
class ImproperList:
    """A list whose last tail is not the empty list: ``[a, b | tail]``."""

    elements: tuple[Term, ...]
    tail: Term

    # By hand, as a converter would cost every decoded one more.
    def __init__(self, elements: Iterable[Term], tail: Term) -> None:
        items = elements if type(elements) is tuple else tuple(elements)
        if not items or isinstance(tail, list):
            raise ValueError("an ImproperList has elements and a tail that is no list; use list")
        if isinstance(tail, ImproperList):
            items, tail = items + tail.elements, tail.tail
        self.elements = items
        self.tail = tail


@final
class TermMap:
    """A map whose keys a ``dict`` would merge or refuse: ``1`` beside ``1.0``, lists and maps as keys.

    Looks up by Erlang's ``=:=``, iterates over its keys, and has ``items``, ``keys`` (a list view),
    ``values`` and ``get``. Decoding gives a plain ``dict`` wherever one can hold the map.
    """

    __slots__ = ("_entries",)

    def __init__(self, items: Iterable[tuple[Term, Term]]) -> None:
        self._entries: dict[object, tuple[Term, Term]] = {}
        for key, value in items:
            self._entries[exact_key(key)] = (key, value)

    def __getitem__(self, key: Term) -> Term:
        try:
            return self._entries[exact_key(key)][1]
        except KeyError:
            raise KeyError(key) from None

    def get(self, key: Term, default: Term = None) -> Term:
        """The value of a key, or the default."""
        entry = self._entries.get(exact_key(key))
        return default if entry is None else entry[1]

    def __contains__(self, key: Term) -> bool:
        return exact_key(key) in self._entries

    def __iter__(self) -> Iterator[Term]:
        return (key for key, _ in self._entries.values())

    def __len__(self) -> int:
        return len(self._entries)

    def exact_items(self) -> Iterator[tuple[object, Term]]:
        """The pairs with keys that need no second look: for ``exact_key``."""
        for exact, (_, value) in self._entries.items():
            yield (_Known(exact[0]) if isinstance(exact, tuple) else exact), value

    def items(self) -> Iterable[tuple[Term, Term]]:
        """The pairs, in the order they came."""
        return self._entries.values()

    def keys(self) -> Iterable[Term]:
        """The keys, in the order they came."""
        return [key for key, _ in self._entries.values()]

    def values(self) -> Iterable[Term]:
        """The values, in the order of the keys."""
        return [value for _, value in self._entries.values()]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, TermMap):
            return NotImplemented
        return exact_key(self) == exact_key(other)

    def __hash__(self) -> int:
        return hash(exact_key(self))

    def __repr__(self) -> str:
        return f"TermMap({list(self._entries.values())!r})"


Term: TypeAlias = (
    Atom
    | bool
    | int
    | float
    | bytes
    | str
    | BitString
    | list[Any]
    | ImproperList
    | tuple[Any, ...]
    | dict[Any, Any]
    | TermMap
    | Pid
    | Port
    | Reference
    | Fun
    | Export
    | None
)
"""What ``decode`` returns and ``encode`` takes (which also takes bytearray and memoryview)."""


# --- equality as in Erlang -------------------------------------------------------------------------

_PLAIN_INTEGER = 1 << 60
"""Integers below it have a hash of their own; larger ones can be made to share one."""
_PLAIN_SIZE = 64
_END = object()
"""Ends a key or a value among the parts of a map."""


def exact_key(term: Term) -> object:
    """Give a hashable stand-in for a term: two of them are equal exactly when the terms are in Erlang.

    ``1``, ``1.0`` and ``True`` have three different ones, ``"a"`` and ``b"a"`` the same. It is the term
    itself or a tuple of bytes: an unambiguous form of the term, of which long ones are hashed (BLAKE2b,
    256 bits). So it is small, its hash cannot be steered from outside, and depth does not matter.

    Raises:
        EncodeError: something in it is no term, or contains itself.
    """
    plain: Any = term
    kind = _canonical_type(term)
    if kind is str:
        return plain.encode("utf-8", "surrogatepass")
    if kind is bytearray or kind is memoryview:
        return bytes(plain)
    if kind is int and -_PLAIN_INTEGER < plain < _PLAIN_INTEGER:
        return plain
    if kind is bytes or kind is Atom or term is None:
        return plain
    return (_shortened(_canonical(term)),)


def _shortened(form: bytes) -> bytes:
    if len(form) <= _PLAIN_SIZE:
        return form
    from hashlib import blake2b  # half a mebibyte, for keys that hardly anybody has

    return b"D" + blake2b(form, digest_size=32).digest()


def _sized(mark: bytes, data: bytes) -> bytes:
    return mark + len(data).to_bytes(8, "big") + data


def _integer_form(value: int) -> bytes:
    return _sized(b"i", value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))


def _fields_form(*fields: object) -> bytes:
    return _sized(b"o", repr(fields).encode("utf-8", "surrogatepass"))


_FORMS: dict[type, Callable[[Any], bytes]] = {
    bool: lambda value: b"T" if value else b"F",
    type(None): lambda value: b"N",
    int: _integer_form,
    float: lambda value: b"f" + pack(">d", value),
    bytes: lambda value: _sized(b"b", value),
    bytearray: lambda value: _sized(b"b", value),
    memoryview: lambda value: _sized(b"b", bytes(value)),
    str: lambda value: _sized(b"b", value.encode("utf-8", "surrogatepass")),
    Atom: lambda value: _sized(b"a", value.name.encode()),
    Pid: lambda pid: _fields_form("pid", pid.node, pid.id, pid.serial, pid.creation),
    Port: lambda port: _fields_form("port", port.node, port.id, port.creation),
    Reference: lambda ref: _fields_form("ref", ref.node, ref.creation, ref.words),
    Export: lambda fun: _fields_form("export", fun.module, fun.function, fun.arity),
    Fun: lambda fun: _fields_form("fun", fun.raw),
    BitString: lambda value: _fields_form("bits", bytes(value.data), value.bits),
}


class _Form:
    """The form of a map under way: a TermMap knows those of its keys already."""

    __slots__ = ("entries", "parts")

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.entries: list[bytes] = []

    def end_part(self) -> None:
        self.entries.append(_shortened(b"".join(self.parts)))
        self.parts.clear()

    def finished(self) -> bytes:
        entries = sorted(map(operator.add, self.entries[::2], self.entries[1::2]))
        return _sized(b"m", _shortened(b"".join(entries)))


def _canonical(term: object) -> bytes:
    """Write the unambiguous form, with an explicit stack, each part of the term visited once."""
    forms = [_Form()]
    stack: list[tuple[Iterator[Any], object]] = [(iter((term,)), None)]
    active: set[int] = set()
    while stack:
        elements, container = stack[-1]
        for item in elements:
            if item is _END:
                forms[-1].end_part()
            elif type(item) is _Known:
                forms[-1].parts.append(item.form)
            elif (form := _FORMS.get(_canonical_type(item))) is not None:
                forms[-1].parts.append(form(item))
            elif id(item) in active:
                raise EncodeError(f"a {type(item).__name__} that contains itself")
            else:
                active.add(id(item))
                stack.append((_elements(item, forms), item))
                break
        else:
            stack.pop()
            active.discard(id(container))
            if isinstance(container, (dict, TermMap)):
                done = forms.pop().finished()
                forms[-1].parts.append(done)
    return b"".join(forms[0].parts)


class _Known:
    """A key's form, already shortened."""

    __slots__ = ("form",)

    def __init__(self, form: bytes) -> None:
        self.form = form


def _canonical_type(item: object) -> type:
    kind = type(item)
    if kind in _FORMS or kind in _CONTAINERS:
        return kind
    for base in (int, float, str, bytes, bytearray, list, dict):
        if isinstance(item, base):
            return base
    raise EncodeError(f"a value of type {kind.__name__} is no term", value=item)


_CONTAINERS = frozenset((list, tuple, dict, ImproperList, TermMap))


def _elements(item: Any, forms: list[_Form]) -> Iterator[Any]:
    """Begin a container: what it holds, with marks between the parts of a map."""
    if isinstance(item, (dict, TermMap)):
        forms.append(_Form())
        return _map_elements(item)
    if isinstance(item, ImproperList):
        forms[-1].parts.append(b"I" + len(item.elements).to_bytes(8, "big"))
        return chain(item.elements, (item.tail,))
    mark = b"t" if isinstance(item, tuple) else b"l"
    forms[-1].parts.append(mark + len(item).to_bytes(8, "big"))
    return iter(item)


def _map_elements(item: dict[Any, Any] | TermMap) -> Iterator[Any]:
    if isinstance(item, dict):
        pairs: Iterable[tuple[Any, Any]] = item.items()
    else:
        pairs = item.exact_items()
    for key, value in pairs:
        yield key
        yield _END
        yield value
        yield _END
