"""Terms on one line as ``io_lib:write/2`` writes them. Layer: etf, pure. See `io_lib`."""

from __future__ import annotations

import re
from collections.abc import Container, Iterator
from decimal import Decimal
from typing import Any, Final

import attrs

from pyglyn.etf import formatter
from pyglyn.etf.terms import Atom, BitString, Fun, ImproperList, Pid, Port, Reference, Term, TermMap

UNLIMITED: Final = -1
MAX_NESTING = 200
MAX_NODES = 4_096
"""Other nodes that have numbers; then the numbers begin anew."""
CONTAINERS = (bytes, list, ImproperList, tuple, dict, TermMap)
_BARE_LATIN1 = re.compile("[a-zß-öø-ÿ][a-zA-Z0-9_@À-ÖØ-öø-ÿ]*")


@attrs.frozen
class Names:
    """The numbers that stand for nodes in pids, ports and references: 0 for one's own, others as they come.

    Attributes:
        own: the name of the node that prints.
    """

    own: str
    _others: dict[str, int] = attrs.field(factory=dict, repr=False)

    def number(self, node: str) -> int:
        """The number of a node; the same one whenever it is asked for."""
        if node == self.own:
            return 0
        if len(self._others) >= MAX_NODES and node not in self._others:
            self._others.clear()
        return self._others.setdefault(node, len(self._others) + 1)


DOTS: Final = Atom("...")
"""Stands for what is left out, and is shown without quotes."""


@attrs.define
class Cut:
    """Leaves of terms what can be printed soon: so much of all of them together.

    A string that is cut, as a list or a binary, ends in three dots as well.

    Attributes:
        elements: of containers.
        size: bytes of binaries and integers, characters of strings.
        nesting: how deep.
    """

    elements: int = 2_000
    size: int = 1 << 16
    nesting: int = 50

    def term(self, term: Any, characters: Container[int], nesting: int = 0) -> Any:
        """As much of a term as is left to be had.

        Args:
            characters: a list of these alone is a string.
        """
        self.elements -= 1
        if self.elements < 0 or self.size < 0 or nesting > self.nesting:
            return DOTS
        if isinstance(term, bytes):
            return self._some(term, b"...")
        if isinstance(term, int):
            self.size -= term.bit_length() // 8
            return term if self.size >= 0 else DOTS
        if isinstance(term, BitString):
            self.size -= len(term.data)
            return term if self.size >= 0 else DOTS
        if isinstance(term, list):
            if all(type(code) is int and code in characters for code in term[: self.size + 1]):
                return self._some(term, [46, 46, 46])
            return self._each(term, characters, nesting)
        if isinstance(term, tuple):
            return tuple(self._each(term, characters, nesting))
        if isinstance(term, ImproperList):
            elements = self._each(term.elements, characters, nesting)
            return (
                ImproperList(tuple(elements), self.term(term.tail, characters, nesting)) if elements else DOTS
            )
        if isinstance(term, (dict, TermMap)):
            return TermMap(self._pairs(term, characters, nesting))
        return term

    def _some(self, text: Any, dots: Any) -> Any:
        left = self.size
        self.size -= len(text)
        return text if len(text) <= left else text[: max(left, 0)] + dots

    def _each(self, elements: Any, characters: Container[int], nesting: int) -> list[Any]:
        some = []
        for each in elements:
            some.append(self.term(each, characters, nesting + 1))
            if self.elements < 0:
                break
        return some

    def _pairs(self, term: Any, characters: Container[int], nesting: int) -> Iterator[tuple[Any, Any]]:
        for key, value in term.items():
            yield self.term(key, characters, nesting + 1), self.term(value, characters, nesting + 1)
            if self.elements < 0:
                break


@attrs.frozen
class _Style:
    """How the smallest parts of terms are written.

    Attributes:
        unicode: atoms beyond Latin-1 as they are.
        names: for pids, ports and references; None writes them with their node's name.
    """

    unicode: bool = False
    names: Names | None = None


def write(term: Term, *, depth: int = UNLIMITED, unicode: bool = False, names: Names | None = None) -> str:
    """Write a term on one line as ``io_lib:write`` does: strings as lists of numbers.

    Args:
        depth: how deep, and how many elements; negative for all.
        unicode: atoms beyond Latin-1 as they are.
        names: the numbers of nodes; None for their names instead.
    """
    return "".join(_written(term, depth, _Style(unicode, names), 0))


def _written(term: Any, depth: int, style: _Style, nesting: int) -> Iterator[str]:
    if depth == 0 or nesting > MAX_NESTING:
        yield "..."
    elif is_atom(term) or not isinstance(term, CONTAINERS):
        yield _leaf(term, style)
    elif isinstance(term, bytes):
        yield bytes_text(term, depth)
    elif isinstance(term, (dict, TermMap)):
        yield from _written_map(term, depth, style, nesting)
    elif isinstance(term, tuple):
        yield from _written_tuple(term, depth, style, nesting)
    else:
        yield from _written_list(term, depth, style, nesting)


def _written_list(term: Any, depth: int, style: _Style, nesting: int) -> Iterator[str]:
    elements = term.elements if isinstance(term, ImproperList) else term
    if not elements:
        yield "[]"
        return
    if depth == 1:
        yield "[...]"
        return
    before, left = "[", depth
    for element in elements:
        if left == 1:
            yield "|..."
            break
        yield before
        yield from _written(element, left - 1, style, nesting + 1)
        before, left = ",", left - 1
    else:
        if isinstance(term, ImproperList):
            yield "|"
            yield from _written(term.tail, left - 1, style, nesting + 1)
    yield "]"


def _written_tuple(term: tuple[Any, ...], depth: int, style: _Style, nesting: int) -> Iterator[str]:
    if depth == 1 and term:
        yield "{...}"
        return
    before, left = "{", depth
    for element in term:
        if left == 1:
            yield ",..."
            break
        yield before
        yield from _written(element, left - 1, style, nesting + 1)
        before, left = ",", left - 1
    yield "}" if term else "{}"


def _written_map(term: Any, depth: int, style: _Style, nesting: int) -> Iterator[str]:
    yield "#{"
    left, before = depth, ""
    for key, value in () if depth == 1 else term.items():
        if left == 1:
            yield ",..."
            break
        yield before
        yield from _written(key, depth - 1, style, nesting + 1)
        yield " => "
        yield from _written(value, depth - 1, style, nesting + 1)
        before, left = ",", left - 1
    yield "}"


def bytes_text(data: bytes, depth: int) -> str:
    if not data:
        return "<<>>"
    if depth == 1:
        return "<<...>>"
    shown = list(map(str, data if depth < 0 else data[: depth - 1]))
    return f"<<{','.join(shown + ['...'] * (0 <= depth <= len(data)))}>>"


def _leaf(term: Any, style: _Style) -> str:
    if term is DOTS:
        return "..."
    if is_atom(term):
        return _atom(atom_name(term), style.unicode)
    if isinstance(term, float):
        return _short_float(term)
    if isinstance(term, Fun):
        return f"#Fun<{_atom(term.module, style.unicode)}.{term.index}.{_old_uniq(term)}>"
    if style.names is not None:
        match term:
            case Pid():
                return f"<{style.names.number(term.node)}.{term.id}.{term.serial}>"
            case Port():
                return f"#Port<{style.names.number(term.node)}.{term.id}>"
            case Reference():
                words = ".".join(map(str, reversed(term.words)))
                return f"#Ref<{style.names.number(term.node)}.{words}>"
    return formatter.format(term)


def _old_uniq(fun: Fun) -> int:
    """The number that OTP shows of a fun: the third term behind its header, after module and old index."""
    raw, at = fun.raw, 29
    numbers: list[int] = []
    while len(numbers) < 3:
        tag, at = raw[at], at + 1
        if tag in (97, 119):  # one byte: the number, or an atom's length
            size, at = (0 if tag == 97 else raw[at]), at + 1
            numbers.append(raw[at - 1])
        elif tag in (100, 118):
            size, at = int.from_bytes(raw[at : at + 2]), at + 2
            numbers.append(size)
        elif tag == 98:
            size, at = 0, at + 4
            numbers.append(int.from_bytes(raw[at - 4 : at], signed=True))
        else:  # 110: a number of more than 31 bits
            size = 1 + raw[at]
            at += 1
            numbers.append(int.from_bytes(raw[at + 1 : at + size], "little"))
        at += size
    return numbers[2]


def _short_float(value: float) -> str:
    """The fewest digits that are read back as the same float, in the shorter of two notations."""
    mantissa = Decimal(repr(value)).normalize()
    if value == 0:
        return "-0.0" if str(value).startswith("-") else "0.0"
    exponent = mantissa.adjusted()
    scaled = f"{mantissa.scaleb(-exponent):f}"
    scientific = f"{scaled if '.' in scaled else scaled + '.0'}e{exponent}"
    fixed = f"{mantissa:f}"
    fixed = fixed if "." in fixed else fixed + ".0"
    return fixed if abs(value) < 1 << 53 and len(fixed) <= len(scientific) else scientific


def is_atom(term: Any) -> bool:
    return isinstance(term, (Atom, bool)) or term is None


def atom_name(term: Any) -> str:
    return term.name if isinstance(term, Atom) else {True: "true", False: "false", None: "nil"}[term]


def _atom(name: str, unicode: bool) -> str:
    if name.isascii():
        return formatter.format_atom(name)
    if _BARE_LATIN1.fullmatch(name):
        return name
    inner = formatter.format_atom(name)[1:-1]
    return "'" + "".join(c if unicode or ord(c) < 256 else f"\\x{{{ord(c):X}}}" for c in inner) + "'"
