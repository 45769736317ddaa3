"""Terms in Erlang syntax: ``{order, <<"o1">>, 3}``. Layer: etf, pure.

``parse(format(term))`` is the term, but for pids, ports, references and local funs, which have no syntax.

Strings are lists of code points and adjacent ones are joined. Segments of a binary are integers and
strings, with ``:Size`` (bits) and ``/utf8`` or ``/integer``; a value that does not fit its size is an error
here, where Erlang cuts it off. Expressions, variables, records, and what ``scanner`` names are not supported.
"""

from __future__ import annotations

from typing import Any

from pyglyn.errors import TermSyntaxError
from pyglyn.etf.formatter import format, format_atom
from pyglyn.etf.maps import DuplicateKey, make_map
from pyglyn.etf.readers import atom_value
from pyglyn.etf.scanner import Kind, Scanner
from pyglyn.etf.terms import MAX_ATOM_CHARACTERS, BitString, Export, ImproperList, Term

__all__ = ["format", "format_atom", "parse", "parse_terms", "point_at"]

MAX_SEGMENT_BITS = 1 << 20
"""The largest ``:Size`` of an integer in a binary, so that a short text cannot ask for all the memory."""


def parse(text: str) -> Term:
    """Read one term; a full stop after it is allowed.

    Raises:
        TermSyntaxError: with the position; ``point_at`` shows it.
    """
    scanner = Scanner(text)
    term: Term = _Parser(scanner).term()
    scanner.skip(".")
    if not scanner.ended():
        raise scanner.expected("the end of the text")
    return term


def parse_terms(text: str) -> list[Term]:
    """Read any number of terms, separated by commas, or each ended by a full stop as in ``file:consult``.

    Raises:
        TermSyntaxError: with the position.
    """
    scanner = Scanner(text)
    terms: list[Term] = []
    while not scanner.ended():
        terms.append(_Parser(scanner).term())
        if not scanner.skip(".") and not scanner.skip(",") and not scanner.ended():
            raise scanner.expected("a comma, a full stop or the end of the text")
    return terms


def point_at(error: TermSyntaxError) -> str:
    """Show the line with the error, and under it a caret at the offending character."""
    start = error.text.rfind("\n", 0, error.position) + 1
    line = error.text[start:].partition("\n")[0]
    column = error.position - start
    if column > 60:
        line, column = "..." + line[column - 40 :], 43
    return f"{line[:100]}\n{' ' * column}^"


class _Frame:
    """A container that is not closed yet.

    Attributes:
        opening: ``{``, ``[`` or ``#{``.
        items: what came so far; for a map keys and values in turn.
        in_tail: the next element of a list is its tail.
        nested: how many more ``]`` close the same list: ``[a | [b | [c]]]`` is one frame.
    """

    __slots__ = ("in_tail", "items", "nested", "opening", "start")

    def __init__(self, opening: str, start: int) -> None:
        self.opening = opening
        self.start = start
        self.items: list[Any] = []
        self.in_tail = False
        self.nested = 0


_CLOSING = {"{": "}", "[": "]", "#{": "}"}


class _Parser:
    """Reads one term from a scanner with an explicit stack, so depth is no matter."""

    def __init__(self, scanner: Scanner) -> None:
        self.scanner = scanner
        self.stack: list[_Frame] = []

    def term(self) -> Any:
        while True:
            if not self._opened():
                value = self._leaf()
                while self.stack:
                    frame = self.stack[-1]
                    frame.items.append(value)
                    if not self._finished(frame):
                        break
                    value = self._close(self.stack.pop())
                else:
                    return value

    def _opened(self) -> bool:
        """Begin a container if one that is not empty comes here."""
        scanner = self.scanner
        if scanner.kind is not Kind.MARK or scanner.value not in _CLOSING:
            return False
        opening, start = str(scanner.value), scanner.start
        if scanner.following() == _CLOSING[opening]:
            return False
        scanner.advance()
        self.stack.append(_Frame(opening, start))
        return True

    def _finished(self, frame: _Frame) -> bool:
        """Read what follows an element: True at the container's end, False where an element follows."""
        scanner = self.scanner
        if frame.opening == "#{" and len(frame.items) % 2:
            if not scanner.skip("=>"):
                raise scanner.expected("=> after the key of a map")
            return False
        if not frame.in_tail:
            if scanner.skip(","):
                return False
            if frame.opening == "[" and scanner.skip("|"):
                return self._tail(frame)
        return self._closed(frame, "or a comma" if not frame.in_tail else "after the tail")

    def _tail(self, frame: _Frame) -> bool:
        if self.scanner.at("[") and self.scanner.following() != "]":
            self.scanner.advance()
            frame.nested += 1
        else:
            frame.in_tail = True
        return False

    def _closed(self, frame: _Frame, otherwise: str) -> bool:
        closing = _CLOSING[frame.opening]
        for _ in range(frame.nested + 1):
            if not self.scanner.skip(closing):
                raise self.scanner.expected(f"{closing} {otherwise}")
        return True

    def _close(self, frame: _Frame) -> Any:
        items = frame.items
        if frame.opening == "{":
            return tuple(items)
        if frame.opening == "#{":
            try:
                return make_map(items[::2], items[1::2])
            except DuplicateKey:
                raise self.scanner.error("a map with the same key twice", frame.start) from None
        if not frame.in_tail:
            return items
        tail = items.pop()
        return items + tail if isinstance(tail, list) else ImproperList(tuple(items), tail)

    # what has no elements

    def _leaf(self) -> Any:
        scanner = self.scanner
        kind, value = scanner.kind, scanner.value
        if kind is Kind.STRING:
            return self._string()
        if kind is Kind.FUN:
            return self._export()
        if kind is Kind.MARK:
            return self._marked(str(value))
        if kind is Kind.END:
            raise scanner.expected("a term")
        if kind is Kind.ATOM:
            return atom_value(self._atom())
        scanner.advance()
        return value

    def _marked(self, mark: str) -> Any:
        scanner = self.scanner
        if mark == "<<":
            return self._binary()
        if mark in ("-", "+"):
            return self._signed()
        if mark in _CLOSING:
            scanner.advance()
            scanner.advance()
            empty: dict[str, Any] = {"{": (), "[": [], "#{": {}}
            return empty[mark]
        raise scanner.expected("a term")

    def _signed(self) -> int | float:
        scanner = self.scanner
        negative = scanner.at("-")
        scanner.advance()
        if scanner.kind not in (Kind.NUMBER, Kind.CHAR) or isinstance(scanner.value, str):
            raise scanner.expected("a number after the sign")
        value = scanner.value
        scanner.advance()
        return -value if negative else value

    def _atom(self) -> str:
        scanner = self.scanner
        if scanner.kind is not Kind.ATOM:
            raise scanner.expected("an atom")
        name = str(scanner.value)
        if len(name) > MAX_ATOM_CHARACTERS:
            raise scanner.error(f"an atom of {len(name)} characters, {MAX_ATOM_CHARACTERS} at most")
        scanner.advance()
        return name

    def _string(self) -> list[int]:
        codes: list[int] = []
        while self.scanner.kind is Kind.STRING:
            codes.extend(map(ord, str(self.scanner.value)))
            self.scanner.advance()
        return codes

    def _export(self) -> Export:
        scanner = self.scanner
        scanner.advance()
        module = self._atom()
        if not scanner.skip(":"):
            raise scanner.expected("fun Module:Function/Arity; other funs are no terms: a colon")
        function = self._atom()
        if not scanner.skip("/"):
            raise scanner.expected("/ and the arity")
        arity = scanner.value
        if scanner.kind is not Kind.NUMBER or not isinstance(arity, int) or arity > 255:
            raise scanner.expected("an arity from 0 to 255")
        scanner.advance()
        return Export(module, function, arity)

    # binaries

    def _binary(self) -> bytes | BitString:
        scanner = self.scanner
        scanner.advance()
        bits = _Bits()
        if not scanner.skip(">>"):
            self._segment(bits)
            while scanner.skip(","):
                self._segment(bits)
            if not scanner.skip(">>"):
                raise scanner.expected(">> or a comma")
        return bits.finished()

    def _segment(self, bits: _Bits) -> None:
        scanner = self.scanner
        start = scanner.start
        values, is_text = self._segment_values()
        size = self._segment_size() if scanner.skip(":") else 8
        if scanner.skip("/") and self._is_utf8():
            for value in values:
                if not 0 <= value < 0x110000 or 0xD800 <= value < 0xE000:
                    raise scanner.error(f"{value} is no character", start)
                code = chr(value).encode()
                bits.add(int.from_bytes(code, "big"), 8 * len(code))
            return
        for value in values:
            if not -(1 << size) >> 1 <= value < 1 << size:
                hint = "; /utf8 encodes any character" if is_text else ""
                raise scanner.error(f"{value} does not fit {size} bits{hint}", start)
            bits.add(value, size)

    def _segment_values(self) -> tuple[list[int], bool]:
        scanner = self.scanner
        if scanner.kind is Kind.STRING:
            codes = list(map(ord, str(scanner.value)))
            scanner.advance()
            return codes, True
        if scanner.kind is Kind.MARK and scanner.value in ("-", "+"):
            value: Any = self._signed()
        elif scanner.kind in (Kind.NUMBER, Kind.CHAR):
            value = scanner.value
            scanner.advance()
        else:
            raise scanner.expected("an integer or a string in the binary")
        if not isinstance(value, int):
            raise scanner.error("a float has no place in a binary here")
        return [value], False

    def _segment_size(self) -> int:
        scanner = self.scanner
        size = scanner.value
        if scanner.kind is not Kind.NUMBER or not isinstance(size, int) or size > MAX_SEGMENT_BITS:
            raise scanner.expected(f"a size from 0 to {MAX_SEGMENT_BITS} bits")
        scanner.advance()
        return size

    def _is_utf8(self) -> bool:
        scanner = self.scanner
        if scanner.kind is not Kind.ATOM or scanner.value not in ("utf8", "integer"):
            raise scanner.expected("utf8 or integer")
        utf8 = scanner.value == "utf8"
        scanner.advance()
        return utf8


class _Bits:
    """Bits gathered so far: whole bytes, and up to 7 more in ``rest``."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.rest = 0
        self.count = 0

    def add(self, value: int, size: int) -> None:
        gathered = self.rest << size | value & (1 << size) - 1
        whole, self.count = divmod(self.count + size, 8)
        self.data += (gathered >> self.count).to_bytes(whole, "big")
        self.rest = gathered & (1 << self.count) - 1

    def finished(self) -> bytes | BitString:
        if not self.count:
            return bytes(self.data)
        last = self.rest << (8 - self.count)
        return BitString(bytes((*self.data, last)), self.count)
