"""Tag numbers of the external term format under their OTP names. Layer: etf, pure.

Source: Erlang External Term Format (erts, "ext_dist") and ``external.h`` of OTP 25 and 28.

Not supported, and refused with UnknownTag: ATOM_CACHE_REF and the other distribution header tags (the
atom cache is never negotiated), LOCAL_EXT (opaque outside the node that wrote it), FUN_EXT (removed in
OTP 23).
"""

from __future__ import annotations

VERSION = 131

NEW_FLOAT_EXT = 70
BIT_BINARY_EXT = 77
COMPRESSED = 80
ATOM_CACHE_REF = 82
NEW_PID_EXT = 88
NEW_PORT_EXT = 89
NEWER_REFERENCE_EXT = 90
SMALL_INTEGER_EXT = 97
INTEGER_EXT = 98
FLOAT_EXT = 99
ATOM_EXT = 100
REFERENCE_EXT = 101
PORT_EXT = 102
PID_EXT = 103
SMALL_TUPLE_EXT = 104
LARGE_TUPLE_EXT = 105
NIL_EXT = 106
STRING_EXT = 107
LIST_EXT = 108
BINARY_EXT = 109
SMALL_BIG_EXT = 110
LARGE_BIG_EXT = 111
NEW_FUN_EXT = 112
EXPORT_EXT = 113
NEW_REFERENCE_EXT = 114
SMALL_ATOM_EXT = 115
MAP_EXT = 116
FUN_EXT = 117
ATOM_UTF8_EXT = 118
SMALL_ATOM_UTF8_EXT = 119
V4_PORT_EXT = 120
LOCAL_EXT = 121

NAMES: dict[int, str] = {
    number: name for name, number in list(globals().items()) if isinstance(number, int) and name != "VERSION"
}
"""Tag number to OTP name, for messages."""

HEAD_SIZES: dict[int, int] = {
    NEW_FLOAT_EXT: 8,
    BIT_BINARY_EXT: 5,
    NEW_PID_EXT: 2,
    NEW_PORT_EXT: 2,
    NEWER_REFERENCE_EXT: 4,
    SMALL_INTEGER_EXT: 1,
    INTEGER_EXT: 4,
    FLOAT_EXT: 31,
    ATOM_EXT: 2,
    REFERENCE_EXT: 2,
    PORT_EXT: 2,
    PID_EXT: 2,
    SMALL_TUPLE_EXT: 1,
    LARGE_TUPLE_EXT: 4,
    NIL_EXT: 0,
    STRING_EXT: 2,
    LIST_EXT: 4,
    BINARY_EXT: 4,
    SMALL_BIG_EXT: 2,
    LARGE_BIG_EXT: 5,
    NEW_FUN_EXT: 29,
    EXPORT_EXT: 2,
    NEW_REFERENCE_EXT: 4,
    SMALL_ATOM_EXT: 1,
    MAP_EXT: 4,
    ATOM_UTF8_EXT: 2,
    SMALL_ATOM_UTF8_EXT: 1,
    V4_PORT_EXT: 2,
}
"""How many bytes follow each tag at least; exactly, where the rest of the layout is variable."""


def tag_name(tag: int | None) -> str:
    """The OTP name of a tag, or its number for one that OTP does not have."""
    return "no tag" if tag is None else NAMES.get(tag, f"tag {tag}")
