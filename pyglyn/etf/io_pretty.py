"""Terms as ``~p`` prints them: strings as strings, and over lines where they are long. Layer: etf, pure.

A term is on one line if that has room; else every element that has parts of its own begins a line, below the
first one.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import attrs

from pyglyn.etf.io_write import CONTAINERS, MAX_NESTING, Names, bytes_text, is_atom, write
from pyglyn.etf.terms import ImproperList, TermMap

_CHARS_A_LEVEL = 4
"""How many characters of a string ``~P`` shows for each level of its depth."""
_STRING_ESCAPES = {
    8: "\\b",
    9: "\\t",
    10: "\\n",
    11: "\\v",
    12: "\\f",
    13: "\\r",
    27: "\\e",
    34: '\\"',
    92: "\\\\",
}


PRINTABLE = frozenset((*_STRING_ESCAPES, *range(32, 127), *range(160, 256)))


@attrs.frozen
class _Shown:
    """A term, or a part of one, on its way to text.

    Attributes:
        flat: all of it on one line.
        kind: ``leaf`` (never broken), ``bytes``, ``list``, ``tuple``, ``tagged`` (a tuple that begins with an
            atom), ``map`` or ``pair``.
        parts: what it is made of.
        rest: the end that is no part: an improper list's, or the dots where the depth ends.
        cut: ``rest`` are dots.
    """

    flat: str
    kind: str = "leaf"
    parts: list[_Shown] = attrs.field(factory=list)
    rest: _Shown | None = None
    cut: bool = False

    @property
    def is_short(self) -> bool:
        """Whether others may stand on its line: a leaf, or a pair of leaves."""
        return self.kind == "leaf" or (
            self.kind == "pair" and all(part.kind == "leaf" for part in self.parts)
        )


_DOTS = _Shown("...")


@attrs.frozen
class Shower:
    """Makes terms ready to print, as deep as they are to be shown.

    Attributes:
        unicode: binaries may be UTF-8, atoms beyond Latin-1 are written as they are.
        strings: lists and binaries of printable characters are strings.
        names: the numbers of nodes.
    """

    unicode: bool
    strings: bool
    names: Names | None

    def shown(self, term: Any, depth: int, nesting: int = 0) -> _Shown:
        """One term."""
        if depth == 0 or nesting > MAX_NESTING:
            return _DOTS
        if (
            not isinstance(term, CONTAINERS)
            or not _size(term)
            or (depth == 1 and not isinstance(term, bytes))
        ):
            brief = depth == 1 and isinstance(term, (dict, TermMap)) and len(term)
            return _Shown(
                "#{...}" if brief else write(term, depth=depth, unicode=self.unicode, names=self.names)
            )
        if isinstance(term, bytes):
            return self._binary(term, depth)
        if isinstance(term, (dict, TermMap)):
            return self._map(term, depth, nesting)
        if isinstance(term, tuple):
            return self._sequence(term, None, depth, nesting)
        if isinstance(term, list) and self.strings and all(type(c) is int and _printable(c) for c in term):
            return _Shown(_quoted(term))
        elements = term.elements if isinstance(term, ImproperList) else term
        return self._sequence(elements, term, depth, nesting)

    def _sequence(self, elements: Any, whole: Any, depth: int, nesting: int) -> _Shown:
        """A tuple (``whole`` is None) or a list."""
        left, parts, rest, cut = depth, [], None, False
        for element in elements:
            if left == 1:
                rest, cut = _DOTS, True
                break
            parts.append(self.shown(element, left - 1, nesting + 1))
            left -= 1
        if isinstance(whole, ImproperList) and not cut:
            rest = self.shown(whole.tail, left - 1, nesting + 1)
        opening, closing, before = "{}," if whole is None else "[]|"
        flat = ",".join(part.flat for part in parts) + (before + rest.flat if rest is not None else "")
        tagged = whole is None and len(elements) > 1 and is_atom(elements[0])
        kind = "list" if whole is not None else "tagged" if tagged else "tuple"
        return _Shown(f"{opening}{flat}{closing}", kind, parts, rest, cut)

    def _map(self, term: Any, depth: int, nesting: int) -> _Shown:
        pairs: list[_Shown] = []
        for key, value in term.items():
            if depth >= 0 and len(pairs) == depth - 1:
                break
            parts = [self.shown(each, depth - 1, nesting + 1) for each in (key, value)]
            pairs.append(_Shown(f"{parts[0].flat} => {parts[1].flat}", "pair", parts))
        rest = _DOTS if len(pairs) < len(term) else None
        flat = ",".join(pair.flat for pair in pairs) + (",..." if rest is not None else "")
        return _Shown(f"#{{{flat}}}", "map", pairs, rest, rest is not None)

    def _binary(self, data: bytes, depth: int) -> _Shown:
        if self.strings and depth != 1:
            codes, utf8 = self._codes(data)
            shown = codes if depth < 0 else codes[: _CHARS_A_LEVEL * (depth - 1)]
            if codes and all(map(_printable, shown)):
                dots = "..." if len(shown) < len(codes) else ""
                return _Shown(f"<<{_quoted(shown)}{'/utf8' if utf8 else ''}{dots}>>")
        return _Shown(bytes_text(data, depth), "bytes")

    def _codes(self, data: bytes) -> tuple[list[int], bool]:
        """The characters of a binary, and whether it is in UTF-8 and more than ASCII."""
        if self.unicode and not data.isascii():
            try:
                return [ord(character) for character in data.decode()], True
            except UnicodeDecodeError:
                pass
        return list(data), False


class _NoRoom(Exception):
    """A tag is too long to have the other elements behind it."""


@attrs.frozen
class _Lines:
    """Breaks a term over lines.

    Columns are counted from 1; ``closing`` is how many brackets follow on the same line.

    Attributes:
        width: of a line.
        indent: how far the elements of a tagged tuple are to its right at most; None for behind the tag.
    """

    width: int
    indent: int | None
    strict: bool

    def text(self, shown: _Shown, column: int, closing: int = 0) -> str:
        """The text of what begins in a column."""
        if len(shown.flat) < self.width - column - closing or shown.kind == "leaf":
            return shown.flat
        if shown.kind == "bytes":
            return self._bytes(shown.flat, column + 2, closing)
        if shown.kind == "map":
            return f"#{{{self._elements(shown, shown.parts, column + 2, closing, ',')}}}"
        if shown.kind == "tagged":
            return f"{{{self._tagged(shown, column, closing)}}}"
        opening, end, before = "[]|" if shown.kind == "list" else "{},"
        return f"{opening}{self._elements(shown, shown.parts, column + 1, closing, before)}{end}"

    def _tagged(self, shown: _Shown, column: int, closing: int) -> str:
        tag, *others = shown.parts
        behind = column + len(tag.flat) + 2
        if self.indent is not None and behind > column + self.indent:
            column += self.indent
            self._check(column)
            return tag.flat + self._tail(shown, others, column, behind, closing, ",")
        self._check(behind)
        if not others:
            return f"{tag.flat},..."
        return f"{tag.flat},{self._elements(shown, others, behind, closing, ',')}"

    def _check(self, column: int) -> None:
        if self.strict and column > self.width // 2:
            raise _NoRoom

    def _elements(self, shown: _Shown, parts: list[_Shown], column: int, closing: int, before: str) -> str:
        """The elements; the first one begins in this column, as the first ones of other lines do."""
        is_last = len(parts) == 1 and shown.rest is None
        text, used = self._element(parts[0], column, closing + 1 if is_last else 0)
        return text + self._tail(shown, parts[1:], column, column + used, closing, before)

    def _tail(
        self, shown: _Shown, parts: list[_Shown], first: int, column: int, closing: int, before: str
    ) -> str:
        text = []
        for number, part in enumerate(parts):
            last = closing + 1 if number + 1 == len(parts) and shown.rest is None else 0
            needed = 1 + len(part.flat)
            if part.is_short and needed + (0 if last else 1) < self.width - column - last:
                text.append("," + part.flat)
                column += needed
            else:
                made, used = self._element(part, first, last)
                text.append(",\n" + " " * (first - 1) + made)
                column = first + used
        rest = shown.rest
        if rest is None:
            return "".join(text)
        if shown.cut or (rest.is_short and len(rest.flat) + 1 < self.width - column - (closing + 1)):
            return "".join(text) + before + rest.flat
        return "".join(text) + before + "\n" + " " * (first - 1) + self.text(rest, first, closing + 1)

    def _element(self, part: _Shown, column: int, closing: int) -> tuple[str, int]:
        """An element's text and how much of the line it uses: all, if it is to be alone there."""
        if len(part.flat) < self.width - column - closing:
            return part.flat, len(part.flat) if part.is_short else self.width
        if part.kind != "pair":
            return self.text(part, column, closing), self.width
        key, value = part.parts
        further = 4 if self.indent is None else self.indent
        under = self.text(value, column + further, closing)
        return f"{self.text(key, column, closing)} =>\n{' ' * (column + further - 1)}{under}", self.width

    def _bytes(self, flat: str, column: int, closing: int) -> str:
        width = max(8, self.width - column - closing)
        *parts, last = flat[2:-2].split(",")
        text, left, break_ = ["<<"], width, "\n" + " " * (column - 1)
        for part in [*(f"{part}," for part in parts), last]:
            if len(part) > left:
                text.append(break_)
                left = width
            text.append(part)
            left -= len(part)
        return "".join(text) + ">>"


def printed(shown: _Shown, width: int, column: int) -> str:
    """A term from a column on, counted from 1, in lines of a width; 0 is one line however long."""
    if width == 0 or len(shown.flat) < width - column:
        return shown.flat
    for indent in (None, 4):
        try:
            return _Lines(width, indent, strict=True).text(shown, column)
        except _NoRoom:
            pass
    return _Lines(width, 1, strict=False).text(shown, column)


def _size(term: Any) -> int:
    return len(term.elements) if isinstance(term, ImproperList) else len(term)


def _printable(code: int) -> bool:
    return code in PRINTABLE


def _quoted(codes: Iterable[int]) -> str:
    return '"' + "".join(_STRING_ESCAPES.get(code) or chr(code) for code in codes) + '"'
