"""Terms to bytes, the values without elements, and what Python values count as which term. Layer: etf, pure.

The choices are those of ``term_to_binary`` with ``minor_version`` 2 on OTP 25 and 28, byte for byte, the
order of map entries aside; ports are written as OTP 28 does (25 still writes NEW_PORT_EXT for small ones).

What counts as a term beside the exact types of ``terms``: ``str`` (a UTF-8 binary), ``bytearray``,
``memoryview``, and subclasses of int (``IntEnum`` too), float, str, bytes, list and dict, as what they
derive from. Subclasses of tuple (named tuples), attrs and dataclass instances, numpy integers and
everything else are refused: their meaning is a matter of ``pyglyn.gleam``.

Every writer takes the value, the function that takes the bytes, and a depth that only containers use.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from math import isfinite
from struct import Struct
from typing import Any, TypeAlias

from pyglyn.errors import EncodeError
from pyglyn.etf import tags
from pyglyn.etf.readers import CACHE_SIZE, MAX_REFERENCE_WORDS
from pyglyn.etf.terms import (
    MAX_ATOM_CHARACTERS,
    Atom,
    BitString,
    Export,
    Fun,
    ImproperList,
    Pid,
    Port,
    Reference,
    TermMap,
)

Part: TypeAlias = bytes | memoryview
Write: TypeAlias = Callable[[Part], None]
Writer: TypeAlias = Callable[[Any, Write, int], None]

LARGE_PART = 64 * 1024
"""Binaries from this size on are never copied into a larger run of bytes by ``encode_parts``."""

MAX_TUPLE_ARITY = (1 << 24) - 1
"""MAX_ARITYVAL of OTP."""

LEAF_FAULTS = (struct.error, UnicodeEncodeError, OverflowError, TypeError, AttributeError)
"""What a writer lets out for a field that does not fit, such as a pid's number beyond 32 bits."""

_SMALL_INTEGERS = [bytes((tags.SMALL_INTEGER_EXT, value)) for value in range(256)]
_INTEGER = Struct(">Bi").pack
_FLOAT = Struct(">Bd").pack
_HEAD8 = Struct(">BB").pack
_HEAD16 = Struct(">BH").pack
_HEAD32 = Struct(">BI").pack
_BITS = Struct(">BIB").pack
_PID = Struct(">III").pack
_PORT = Struct(">QI").pack

_atoms: dict[Atom, bytes] = {}
_names: dict[str, bytes] = {}


def write_int(value: int, write: Write, depth: int = 0) -> None:
    if 0 <= value <= 255:
        write(_SMALL_INTEGERS[value])
    elif -0x80000000 <= value <= 0x7FFFFFFF:
        write(_INTEGER(tags.INTEGER_EXT, value))
    else:
        sign, magnitude = (1, -value) if value < 0 else (0, value)
        size = (magnitude.bit_length() + 7) // 8
        head = _HEAD8(tags.SMALL_BIG_EXT, size) if size < 256 else _HEAD32(tags.LARGE_BIG_EXT, size)
        write(head + bytes((sign,)) + magnitude.to_bytes(size, "little"))


def write_float(value: float, write: Write, depth: int = 0) -> None:
    if not isfinite(value):
        raise EncodeError(f"Erlang has no float {value!r}", value=value)
    write(_FLOAT(tags.NEW_FLOAT_EXT, value))


def encode_name(name: str) -> bytes:
    """Encode the atom of that name, ``true`` and the like included.

    Raises:
        OverflowError: more than 255 characters.
        UnicodeEncodeError: lone surrogates.
    """
    known = _names.get(name)
    if known is not None:
        return known
    if len(name) > MAX_ATOM_CHARACTERS:
        raise OverflowError(f"an atom has at most {MAX_ATOM_CHARACTERS} characters")
    raw = name.encode()
    small = len(raw) < 256
    head = _HEAD8(tags.SMALL_ATOM_UTF8_EXT, len(raw)) if small else _HEAD16(tags.ATOM_UTF8_EXT, len(raw))
    if len(_names) >= CACHE_SIZE:
        _names.clear()
    _names[name] = head + raw
    return head + raw


def write_atom(value: Atom, write: Write, depth: int = 0) -> None:
    try:
        write(_atoms[value])
    except KeyError:
        if len(_atoms) >= CACHE_SIZE:
            _atoms.clear()
        _atoms[value] = encode_name(value.name)
        write(_atoms[value])


def write_bool(value: bool, write: Write, depth: int = 0) -> None:
    write(_TRUE if value else _FALSE)


def write_none(value: None, write: Write, depth: int = 0) -> None:
    write(_NIL)


_TRUE, _FALSE, _NIL = map(encode_name, ("true", "false", "nil"))


def write_bytes(value: bytes, write: Write, depth: int = 0) -> None:
    size = len(value)
    if size < LARGE_PART:
        write(_HEAD32(tags.BINARY_EXT, size) + value)
    else:
        write(_HEAD32(tags.BINARY_EXT, size))
        write(value)


def write_str(value: str, write: Write, depth: int = 0) -> None:
    write_bytes(value.encode(), write)


def write_bytearray(value: bytearray, write: Write, depth: int = 0) -> None:
    write_bytes(bytes(value), write)


def write_memoryview(value: memoryview, write: Write, depth: int = 0) -> None:
    if value.nbytes < LARGE_PART or not (value.readonly and value.c_contiguous):
        write_bytes(bytes(value), write)
        return
    write(_HEAD32(tags.BINARY_EXT, value.nbytes))
    write(value.cast("B"))


def write_bit_string(value: BitString, write: Write, depth: int = 0) -> None:
    write(_BITS(tags.BIT_BINARY_EXT, len(value.data), value.bits) + bytes(value.data))


def write_pid(value: Pid, write: Write, depth: int = 0) -> None:
    write(b"X" + encode_name(value.node) + _PID(value.id, value.serial, value.creation))


def write_port(value: Port, write: Write, depth: int = 0) -> None:
    write(b"x" + encode_name(value.node) + _PORT(value.id, value.creation))


def write_reference(value: Reference, write: Write, depth: int = 0) -> None:
    words = value.words
    count = len(words)
    if not 1 <= count <= MAX_REFERENCE_WORDS:
        raise EncodeError(f"a reference has 1 to {MAX_REFERENCE_WORDS} words, got {count}", value=value)
    numbers = struct.pack(f">{count + 1}I", value.creation, *words)
    write(_HEAD16(tags.NEWER_REFERENCE_EXT, count) + encode_name(value.node) + numbers)


def write_export(value: Export, write: Write, depth: int = 0) -> None:
    if not 0 <= value.arity <= 255:
        raise EncodeError(f"an arity is 0 to 255, got {value.arity}", value=value)
    names = encode_name(value.module) + encode_name(value.function)
    write(b"q" + names + _SMALL_INTEGERS[value.arity])


def write_fun(value: Fun, write: Write, depth: int = 0) -> None:
    write(b"p" + value.raw)


LEAF_WRITERS: dict[type, Writer] = {
    int: write_int,
    float: write_float,
    Atom: write_atom,
    bool: write_bool,
    type(None): write_none,
    bytes: write_bytes,
    str: write_str,
    bytearray: write_bytearray,
    memoryview: write_memoryview,
    BitString: write_bit_string,
    Pid: write_pid,
    Port: write_port,
    Reference: write_reference,
    Export: write_export,
    Fun: write_fun,
}

CONTAINERS = frozenset((list, tuple, dict, ImproperList, TermMap))
_BASES: tuple[type, ...] = (int, float, str, bytes, bytearray, list, dict)


def term_type(value: object) -> type:
    """The type whose encoding a value takes: its own, or the one it derives from.

    Raises:
        EncodeError: the value is no term.
    """
    kind = type(value)
    if kind in LEAF_WRITERS or kind in CONTAINERS:
        return kind
    for base in _BASES:
        if isinstance(value, base):
            return base
    name = kind.__name__
    if isinstance(value, tuple):
        raise EncodeError(f"{name} is a subclass of tuple: make it a tuple or use gleam.encode", value=value)
    if hasattr(kind, "__attrs_attrs__") or hasattr(kind, "__dataclass_fields__"):
        raise EncodeError(f"a {name} is no term: use gleam.encode", value=value)
    raise EncodeError(f"a value of type {kind.__module__}.{name} is no term", value=value)
