"""Terms to Erlang text, as ``io:format("~0p", [Term])`` prints them. Layer: etf, pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from math import isfinite
from typing import Any

from pyglyn.errors import EncodeError
from pyglyn.etf.scanner import RESERVED
from pyglyn.etf.terms import Atom, BitString, Export, Fun, ImproperList, Pid, Port, Reference, TermMap
from pyglyn.etf.writers import CONTAINERS, term_type

_BARE_ATOM = re.compile(r"[a-z][a-zA-Z0-9_@]*\Z")
_ESCAPES = {8: "\\b", 9: "\\t", 10: "\\n", 11: "\\v", 12: "\\f", 13: "\\r", 27: "\\e", 92: "\\\\"}
_LONG_INTEGER = 1 << 4000
"""Python refuses to write integers of more than 4300 digits in base 10, for the time it takes."""


def format(term: object, *, limit: int | None = None) -> str:
    """Write a term in Erlang syntax on one line; ``parse`` reads it back.

    Pids, ports, references and local funs have no syntax; they come out readable: ``<stock@host.12.0>``.
    As in the Erlang shell, a list of printable characters is a string. Integers of more than about 1200
    digits are in base 16.

    Args:
        term: what ``encode`` takes.
        limit: about how many characters to write at most, for logs; the rest is ``...``.

    Raises:
        EncodeError: something in it is no term.
    """
    text: list[str] = []
    size = 0
    for piece in _pieces(term, limit):
        text.append(piece)
        size += len(piece)
        if limit is not None and size > limit:
            return "".join(text)[:limit] + "..."
    return "".join(text)


def _pieces(term: object, limit: int | None) -> Iterator[str]:
    """Walk with an explicit stack: of each open container what is left of it, its identity, its end."""
    stack: list[tuple[Iterator[tuple[str, Any]], int, str]] = [(iter((("", term),)), 0, "")]
    active: set[int] = set()
    while stack:
        elements, container, closing = stack[-1]
        for before, item in elements:
            yield before
            kind = term_type(item)
            if limit is not None and kind in _CUT and len(item) > limit:
                item = item[: limit + 1]  # what comes later would be written for nothing
            text = _LEAVES[kind](item) if kind in _LEAVES else _short(item)
            if text is not None:
                yield text
                continue
            if id(item) in active:
                raise EncodeError(f"a {kind.__name__} that contains itself")
            active.add(id(item))
            opened, closing = _OPENERS[kind](item)
            stack.append((iter(opened), id(item), closing))
            break
        else:
            yield closing
            stack.pop()
            active.discard(container)


# --- leaves ----------------------------------------------------------------------------------------


def format_atom(name: str) -> str:
    """Write an atom of that name, in quotes where it needs them."""
    return name if _BARE_ATOM.match(name) and name not in RESERVED else f"'{_escaped(name, 39)}'"


def _escaped(text: str, quote: int) -> str:
    if text.isascii() and text.isprintable() and "\\" not in text and chr(quote) not in text:
        return text
    return "".join(_escaped_char(ord(char), quote) for char in text)


def _escaped_char(code: int, quote: int) -> str:
    if code == quote:
        return f"\\{chr(quote)}"
    if code in _ESCAPES:
        return _ESCAPES[code]
    return chr(code) if chr(code).isprintable() else f"\\x{{{code:X}}}"


def _format_int(value: int) -> str:
    if -_LONG_INTEGER < value < _LONG_INTEGER:
        return int.__repr__(value)
    return f"{'-' if value < 0 else ''}16#{abs(value):X}"


def _format_float(value: float) -> str:
    if not isfinite(value):
        raise EncodeError(f"Erlang has no float {value!r}", value=value)
    mantissa, e, exponent = float.__repr__(value).partition("e")
    if "." not in mantissa:
        mantissa += ".0"
    return f"{mantissa}{e}{int(exponent)}" if e else mantissa


def _format_bytes(value: bytes | bytearray | memoryview) -> str:
    data = bytes(value)
    if not data:
        return "<<>>"
    try:
        text = data.decode()
    except UnicodeDecodeError:
        text = ""
    if not text or not _printable(map(ord, text)):
        return f"<<{','.join(map(str, data))}>>"
    return f'<<"{_escaped(text, 34)}"{"" if text.isascii() else "/utf8"}>>'


def _format_str(value: str) -> str:
    try:
        return _format_bytes(value.encode())
    except UnicodeEncodeError as error:
        raise EncodeError(f"a str that does not fit its encoding: {error}", value=value) from None


def _printable(codes: Iterable[int]) -> bool:
    return all(code in _ESCAPES or (code > 31 and chr(code).isprintable()) for code in codes)


def _format_bit_string(value: BitString) -> str:
    whole = [str(byte) for byte in value.data[:-1]]
    return f"<<{','.join([*whole, f'{value.data[-1] >> (8 - value.bits)}:{value.bits}'])}>>"


def _format_export(value: Export) -> str:
    return f"fun {format_atom(value.module)}:{format_atom(value.function)}/{value.arity}"


_LEAVES: dict[type, Callable[[Any], str]] = {
    int: _format_int,
    float: _format_float,
    bool: lambda value: "true" if value else "false",
    type(None): lambda value: "nil",
    Atom: lambda value: format_atom(value.name),
    bytes: _format_bytes,
    bytearray: _format_bytes,
    memoryview: _format_bytes,
    str: _format_str,
    BitString: _format_bit_string,
    Export: _format_export,
    Pid: repr,
    Port: repr,
    Reference: repr,
    Fun: repr,
}


_CUT = frozenset((bytes, bytearray, memoryview, str, list))

# --- containers ------------------------------------------------------------------------------------


def _short(item: Any) -> str | None:
    """The text of an empty container or of a string; None for what has to be walked."""
    if isinstance(item, list):
        if not item:
            return "[]"
        return _string(item)
    if not isinstance(item, ImproperList) and not len(item):
        return "{}" if isinstance(item, tuple) else "#{}"
    return None


def _string(item: list[Any]) -> str | None:
    if not all(type(code) is int and 0 <= code < 0x110000 for code in item) or not _printable(item):
        return None
    return f'"{_escaped("".join(map(chr, item)), 34)}"'


def _separated(opening: str, items: Iterable[Any]) -> Iterator[tuple[str, Any]]:
    before = opening
    for item in items:
        yield before, item
        before = ","


def _improper(item: ImproperList) -> Iterator[tuple[str, Any]]:
    yield from _separated("[", item.elements)
    yield "|", item.tail


def _pairs(item: dict[Any, Any] | TermMap) -> Iterator[tuple[str, Any]]:
    before = "#{"
    for key, value in item.items():
        yield before, key
        yield " => ", value
        before = ","


_OPENERS: dict[type, Callable[[Any], tuple[Iterable[tuple[str, Any]], str]]] = {
    list: lambda item: (_separated("[", item), "]"),
    tuple: lambda item: (_separated("{", item), "}"),
    ImproperList: lambda item: (_improper(item), "]"),
    dict: lambda item: (_pairs(item), "}"),
    TermMap: lambda item: (_pairs(item), "}"),
}

assert _OPENERS.keys() | _LEAVES.keys() >= CONTAINERS
