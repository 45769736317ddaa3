"""Bytes to terms, the tags without elements: numbers, atoms, binaries, identifiers. Layer: etf, pure.

Every reader takes the input, the offset just after its tag, and a depth that only containers use; it
returns the term and the offset after it. A reader may let ``IndexError`` and ``struct.error`` out where
its fixed-size head is cut off: the caller knows the tag's offset and turns them into TruncatedTerm.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from math import isfinite
from struct import Struct
from typing import Any, TypeAlias

from pyglyn.errors import DecodeError, TruncatedTerm, UnknownTag
from pyglyn.etf import tags
from pyglyn.etf.terms import MAX_ATOM_CHARACTERS, Atom, BitString, Export, Pid, Port, Reference, Term

Buffer: TypeAlias = bytes | memoryview
Reader: TypeAlias = Callable[[Buffer, int, int], tuple[Any, int]]

CACHE_SIZE = 1024
"""Entries of each cache below; a full one starts anew, so ever new atoms cannot fill the memory.

An entry has the bytes of one atom's name, which are at most 255 here, as bytes and as text: less than 2 KiB.
"""

MAX_REFERENCE_WORDS = 5
MAX_OLD_CREATION = 3
MAX_OLD_REFERENCE = (1 << 18) - 1

_U16 = Struct(">H").unpack_from
_U32 = Struct(">I").unpack_from
_I32 = Struct(">i").unpack_from
_F64 = Struct(">d").unpack_from
_BIG = Struct(">IB").unpack_from
_PID = Struct(">III").unpack_from
_OLD_PID = Struct(">IIB").unpack_from
_NEW_PORT = Struct(">II").unpack_from
_OLD_PORT = Struct(">IB").unpack_from
_V4_PORT = Struct(">QI").unpack_from
_FLOAT_TEXT = re.compile(rb"[+-]?[0-9]+\.[0-9]+(?:[eE][+-]?[0-9]+)?\Z")
_WORDS = [Struct(f">{count + 1}I").unpack_from for count in range(MAX_REFERENCE_WORDS + 1)]
_OLD_WORDS = [Struct(f">B{count}I").unpack_from for count in range(MAX_REFERENCE_WORDS + 1)]

_VALUES: dict[str, bool | None] = {"true": True, "false": False, "nil": None}
_names: dict[bytes, str] = {}
"""SMALL_ATOM_UTF8_EXT without its tag (the length byte makes a cut-off one different) to the name."""
_atoms: dict[bytes, Atom | bool | None] = {}
"""The same, to the value."""
_pids: dict[bytes, Pid] = {}
"""NEW_PID_EXT without its tag to the pid."""


def truncated(data: Buffer, offset: int, need: int, tag: int | None) -> TruncatedTerm:
    """The error for an input that lacks some of the ``need`` bytes from ``offset`` on."""
    got = max(len(data) - offset, 0)
    return TruncatedTerm(
        f"expected {need} more bytes at offset {offset} ({tags.tag_name(tag)}), got {got}",
        offset=offset,
        tag=tag,
    )


def invalid(what: str, offset: int, tag: int) -> DecodeError:
    """The error for a field that holds what it must not."""
    return DecodeError(f"{what} at offset {offset} ({tags.tag_name(tag)})", offset=offset, tag=tag)


def take(data: Buffer, start: int, size: int, tag: int) -> bytes:
    """Copy ``size`` bytes out of the input, once."""
    raw = data[start : start + size]
    if len(raw) != size:
        raise truncated(data, start, size, tag)
    return raw if type(raw) is bytes else bytes(raw)


# --- numbers ---------------------------------------------------------------------------------------


def read_small_integer(data: Buffer, pos: int, depth: int) -> tuple[int, int]:
    return data[pos], pos + 1


def read_integer(data: Buffer, pos: int, depth: int) -> tuple[int, int]:
    return _I32(data, pos)[0], pos + 4


def read_small_big(data: Buffer, pos: int, depth: int) -> tuple[int, int]:
    size, sign = data[pos], data[pos + 1]
    raw = take(data, pos + 2, size, tags.SMALL_BIG_EXT)
    value = int.from_bytes(raw, "little")
    return (-value if sign else value), pos + 2 + size


def read_large_big(data: Buffer, pos: int, depth: int) -> tuple[int, int]:
    size, sign = _BIG(data, pos)
    raw = take(data, pos + 5, size, tags.LARGE_BIG_EXT)
    value = int.from_bytes(raw, "little")
    return (-value if sign else value), pos + 5 + size


def read_new_float(data: Buffer, pos: int, depth: int) -> tuple[float, int]:
    value: float = _F64(data, pos)[0]
    if not isfinite(value):
        raise invalid(f"{value} is no Erlang float", pos, tags.NEW_FLOAT_EXT)
    return value, pos + 8


def read_float(data: Buffer, pos: int, depth: int) -> tuple[float, int]:
    """Read the old float: 31 bytes of text as ``%.20e`` prints it, padded with NUL.

    Source: sys_chars_to_double in OTP's sys_float.c: digits on both sides of the dot, nothing after them.
    """
    text = take(data, pos, 31, tags.FLOAT_EXT).partition(b"\0")[0]
    value = float(text) if _FLOAT_TEXT.match(text) else float("nan")
    if not isfinite(value):
        raise invalid("text that is no Erlang float", pos, tags.FLOAT_EXT)
    return value, pos + 31


# --- atoms -----------------------------------------------------------------------------------------


def _keep(cache: dict[bytes, Any], key: bytes, value: Any) -> None:
    if len(cache) >= CACHE_SIZE:
        cache.clear()
    cache[key] = value


def _checked_name(raw: bytes, encoding: str, offset: int, tag: int) -> str:
    try:
        name = raw.decode(encoding)
    except UnicodeDecodeError as error:
        raise invalid("an atom that is not UTF-8", offset + error.start, tag) from None
    if len(name) > MAX_ATOM_CHARACTERS:
        raise invalid(f"an atom of {len(name)} characters, {MAX_ATOM_CHARACTERS} at most", offset, tag)
    return name


def _read_name(data: Buffer, pos: int, tag: int) -> tuple[str, int]:
    """Read an atom's name behind any of the four atom tags."""
    if tag == tags.SMALL_ATOM_UTF8_EXT or tag == tags.SMALL_ATOM_EXT:
        start, size = pos + 1, data[pos]
    else:
        start, size = pos + 2, _U16(data, pos)[0]
    raw = take(data, start, size, tag)
    utf8 = tag == tags.SMALL_ATOM_UTF8_EXT or tag == tags.ATOM_UTF8_EXT
    name = _checked_name(raw, "utf-8" if utf8 else "latin-1", start, tag)
    if tag == tags.SMALL_ATOM_UTF8_EXT:
        _keep(_names, bytes(data[pos : start + size]), name)
    return name, start + size


def atom_value(name: str) -> Atom | bool | None:
    """The Python value of the atom of that name."""
    return _VALUES[name] if name in _VALUES else Atom(name)


def read_small_atom_utf8(data: Buffer, pos: int, depth: int) -> tuple[Atom | bool | None, int]:
    end = pos + 1 + data[pos]
    raw = data[pos:end]
    if type(raw) is not bytes:
        raw = bytes(raw)
    try:
        return _atoms[raw], end
    except KeyError:
        value = atom_value(_read_name(data, pos, tags.SMALL_ATOM_UTF8_EXT)[0])
        _keep(_atoms, raw, value)
        return value, end


def read_atom_utf8(data: Buffer, pos: int, depth: int) -> tuple[Atom | bool | None, int]:
    name, pos = _read_name(data, pos, tags.ATOM_UTF8_EXT)
    return atom_value(name), pos


def read_atom(data: Buffer, pos: int, depth: int) -> tuple[Atom | bool | None, int]:
    name, pos = _read_name(data, pos, tags.ATOM_EXT)
    return atom_value(name), pos


def read_small_atom(data: Buffer, pos: int, depth: int) -> tuple[Atom | bool | None, int]:
    name, pos = _read_name(data, pos, tags.SMALL_ATOM_EXT)
    return atom_value(name), pos


_ATOM_TAGS = frozenset(
    (tags.SMALL_ATOM_UTF8_EXT, tags.ATOM_UTF8_EXT, tags.ATOM_EXT, tags.SMALL_ATOM_EXT),
)


def read_atom_name(data: Buffer, pos: int, outer: int) -> tuple[str, int]:
    """Read an atom, its tag included, where the ``outer`` tag's layout asks for one: its name."""
    if pos >= len(data):
        raise truncated(data, pos, 1, outer)
    tag = data[pos]
    if tag not in _ATOM_TAGS:
        raise UnknownTag(
            f"expected an atom at offset {pos} ({tags.tag_name(outer)}), got {tags.tag_name(tag)}",
            offset=pos,
            tag=tag,
        )
    pos += 1
    size = tags.HEAD_SIZES[tag]
    if len(data) - pos < size:
        raise truncated(data, pos, size, tag)
    if tag == tags.SMALL_ATOM_UTF8_EXT:
        end = pos + 1 + data[pos]
        name = _names.get(bytes(data[pos:end]))
        if name is not None:
            return name, end
    return _read_name(data, pos, tag)


# --- binaries --------------------------------------------------------------------------------------


def read_binary(data: Buffer, pos: int, depth: int) -> tuple[bytes, int]:
    start = pos + 4
    end = start + _U32(data, pos)[0]
    raw = data[start:end]
    if len(raw) != end - start:
        raise truncated(data, start, end - start, tags.BINARY_EXT)
    return (raw if type(raw) is bytes else bytes(raw)), end


def read_bit_binary(data: Buffer, pos: int, depth: int) -> tuple[bytes | BitString, int]:
    """Read a bitstring. Length or bits of 0 are refused: OTP 28 aborts on them."""
    size, bits = _BIG(data, pos)
    if not 1 <= bits <= 8:
        raise invalid(f"{bits} bits in the last byte, 1 to 8 are possible", pos + 4, tags.BIT_BINARY_EXT)
    if size == 0:
        raise invalid("a bitstring without bytes", pos, tags.BIT_BINARY_EXT)
    raw = take(data, pos + 5, size, tags.BIT_BINARY_EXT)
    return (raw if bits == 8 else BitString(raw, bits)), pos + 5 + size


def read_nil(data: Buffer, pos: int, depth: int) -> tuple[list[Term], int]:
    return [], pos


def read_string(data: Buffer, pos: int, depth: int) -> tuple[list[int], int]:
    size = _U16(data, pos)[0]
    return list(take(data, pos + 2, size, tags.STRING_EXT)), pos + 2 + size


# --- identifiers -----------------------------------------------------------------------------------


def _fields(unpack: Callable[..., Any], size: int, data: Buffer, pos: int, tag: int) -> Any:
    if len(data) - pos < size:
        raise truncated(data, pos, size, tag)
    return unpack(data, pos)


def read_new_pid(data: Buffer, pos: int, depth: int) -> tuple[Pid, int]:
    if data[pos] == tags.SMALL_ATOM_UTF8_EXT:
        end = pos + 14 + data[pos + 1]
        raw = data[pos:end]
        known = _pids.get(raw if type(raw) is bytes else bytes(raw))
        if known is not None:
            return known, end
    node, after = read_atom_name(data, pos, tags.NEW_PID_EXT)
    number, serial, creation = _fields(_PID, 12, data, after, tags.NEW_PID_EXT)
    pid = Pid(node, number, serial, creation)
    if data[pos] == tags.SMALL_ATOM_UTF8_EXT:
        _keep(_pids, bytes(data[pos : after + 12]), pid)
    return pid, after + 12


def _check_old(creation: int, word: int, pos: int, tag: int) -> None:
    """Refuse what the tags of old releases cannot hold: OTP 25 and 28 do (checked with binary_to_term)."""
    if creation > MAX_OLD_CREATION:
        raise invalid(f"creation {creation}, {MAX_OLD_CREATION} at most", pos, tag)
    if word > MAX_OLD_REFERENCE:
        raise invalid(f"{word} as first word of the reference, {MAX_OLD_REFERENCE} at most", pos, tag)


def read_pid(data: Buffer, pos: int, depth: int) -> tuple[Pid, int]:
    node, pos = read_atom_name(data, pos, tags.PID_EXT)
    number, serial, creation = _fields(_OLD_PID, 9, data, pos, tags.PID_EXT)
    _check_old(creation, 0, pos + 8, tags.PID_EXT)
    return Pid(node, number, serial, creation), pos + 9


def read_v4_port(data: Buffer, pos: int, depth: int) -> tuple[Port, int]:
    node, pos = read_atom_name(data, pos, tags.V4_PORT_EXT)
    return Port(node, *_fields(_V4_PORT, 12, data, pos, tags.V4_PORT_EXT)), pos + 12


def read_new_port(data: Buffer, pos: int, depth: int) -> tuple[Port, int]:
    node, pos = read_atom_name(data, pos, tags.NEW_PORT_EXT)
    return Port(node, *_fields(_NEW_PORT, 8, data, pos, tags.NEW_PORT_EXT)), pos + 8


def read_port(data: Buffer, pos: int, depth: int) -> tuple[Port, int]:
    node, pos = read_atom_name(data, pos, tags.PORT_EXT)
    number, creation = _fields(_OLD_PORT, 5, data, pos, tags.PORT_EXT)
    _check_old(creation, 0, pos + 4, tags.PORT_EXT)
    return Port(node, number, creation), pos + 5


def _word_count(data: Buffer, pos: int, tag: int) -> int:
    count: int = _U16(data, pos)[0]
    if not 1 <= count <= MAX_REFERENCE_WORDS:
        raise invalid(f"a reference of {count} words, 1 to {MAX_REFERENCE_WORDS} are possible", pos, tag)
    return count


def read_newer_reference(data: Buffer, pos: int, depth: int) -> tuple[Reference, int]:
    tag = tags.NEWER_REFERENCE_EXT
    count = _word_count(data, pos, tag)
    node, pos = read_atom_name(data, pos + 2, tag)
    numbers = _fields(_WORDS[count], 4 * count + 4, data, pos, tag)
    return Reference(node, numbers[0], numbers[1:]), pos + 4 * count + 4


def read_new_reference(data: Buffer, pos: int, depth: int) -> tuple[Reference, int]:
    tag = tags.NEW_REFERENCE_EXT
    count = _word_count(data, pos, tag)
    node, pos = read_atom_name(data, pos + 2, tag)
    creation, *words = _fields(_OLD_WORDS[count], 4 * count + 1, data, pos, tag)
    _check_old(creation, words[0], pos, tag)
    return Reference(node, creation, tuple(words)), pos + 4 * count + 1


def read_reference(data: Buffer, pos: int, depth: int) -> tuple[Reference, int]:
    node, pos = read_atom_name(data, pos, tags.REFERENCE_EXT)
    word, creation = _fields(_OLD_PORT, 5, data, pos, tags.REFERENCE_EXT)
    _check_old(creation, word, pos, tags.REFERENCE_EXT)
    return Reference(node, creation, (word,)), pos + 5


def read_export(data: Buffer, pos: int, depth: int) -> tuple[Export, int]:
    module, pos = read_atom_name(data, pos, tags.EXPORT_EXT)
    function, pos = read_atom_name(data, pos, tags.EXPORT_EXT)
    if len(data) - pos < 2:
        raise truncated(data, pos, 2, tags.EXPORT_EXT)
    if data[pos] != tags.SMALL_INTEGER_EXT:
        raise invalid("an arity that is no small integer", pos, tags.EXPORT_EXT)
    return Export(module, function, data[pos + 1]), pos + 2


def read_unknown(data: Buffer, pos: int, depth: int) -> tuple[Term, int]:
    tag = data[pos - 1]
    where = " (only allowed directly after the version byte)" if tag == tags.COMPRESSED else ""
    raise UnknownTag(
        f"{tags.tag_name(tag)} at offset {pos - 1} starts no term{where}", offset=pos - 1, tag=tag
    )


LEAF_READERS: dict[int, Reader] = {
    tags.NEW_FLOAT_EXT: read_new_float,
    tags.BIT_BINARY_EXT: read_bit_binary,
    tags.NEW_PID_EXT: read_new_pid,
    tags.NEW_PORT_EXT: read_new_port,
    tags.NEWER_REFERENCE_EXT: read_newer_reference,
    tags.SMALL_INTEGER_EXT: read_small_integer,
    tags.INTEGER_EXT: read_integer,
    tags.FLOAT_EXT: read_float,
    tags.ATOM_EXT: read_atom,
    tags.REFERENCE_EXT: read_reference,
    tags.PORT_EXT: read_port,
    tags.PID_EXT: read_pid,
    tags.NIL_EXT: read_nil,
    tags.STRING_EXT: read_string,
    tags.BINARY_EXT: read_binary,
    tags.SMALL_BIG_EXT: read_small_big,
    tags.LARGE_BIG_EXT: read_large_big,
    tags.EXPORT_EXT: read_export,
    tags.NEW_REFERENCE_EXT: read_new_reference,
    tags.SMALL_ATOM_EXT: read_small_atom,
    tags.ATOM_UTF8_EXT: read_atom_utf8,
    tags.SMALL_ATOM_UTF8_EXT: read_small_atom_utf8,
    tags.V4_PORT_EXT: read_v4_port,
}
