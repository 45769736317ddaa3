"""What others have written, made safe for a line of a log or a terminal. Layer: escaping; below all, pure."""

from __future__ import annotations

import reprlib
from typing import Any, Final

# What would move a cursor, end a line, begin an escape sequence or turn the direction of the text around.
CONTROLS: Final = {
    code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\t\n"
} | {code: f"\\u{code:04x}" for code in (0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2066, 0x206A))}


def escaped(text: object, limit: int | None = None) -> str:
    """Make text that somebody else has written safe, and no longer than ``limit`` characters of it."""
    written = str(text)
    if limit is not None and len(written) > limit:
        written = written[:limit] + "…"
    return written.translate(CONTROLS).replace("\n", "\\n")


_REPR: Final = reprlib.Repr()
_REPR.maxtuple = _REPR.maxlist = _REPR.maxdict = 20
_REPR.maxstring = _REPR.maxlong = _REPR.maxother = 500


def shown(value: Any) -> str:
    """Show a value as ``repr`` does, which fails where it is deep; cut to some elements and levels."""
    return _REPR.repr(value)
