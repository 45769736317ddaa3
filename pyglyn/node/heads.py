"""What an encoded message begins like: what may not wait in a mailbox, and its source. Layer: node, pure.

No more than the first element of a tuple is decoded, and that only where it is a reference.
"""

from __future__ import annotations

from typing import Final

from pyglyn.errors import DecodeError
from pyglyn.etf import Atom, Reference, decode_bare, encode_bare

ARRIVED: Final = Atom("$arrived")
_LONGEST: Final = 32


def _tuple(size: int) -> tuple[bytes, ...]:
    """How a tuple of so many elements begins, in its two forms."""
    return bytes((104, size)), bytes((105, 0, 0, 0, size))


def _atom(name: bytes) -> tuple[bytes, ...]:
    """An atom, in its four forms."""
    return tuple(head + name for tag in (b"w", b"s") for head in (tag + bytes((len(name),)),)) + tuple(
        tag + bytes((0, len(name))) + name for tag in (b"d", b"v")
    )


_PAIRS: Final = _tuple(2)
_ALIASES: Final = tuple(b"l\0\0\0\1" + atom for atom in _atom(b"alias"))
_REFERENCES: Final = (b"Z", b"r", b"e")
SYSTEM: Final = tuple(head + atom for head in _tuple(3) for atom in _atom(b"system"))


def is_system_message(message: bytes | memoryview) -> bool:
    """Whether it is ``{system, _, _}``."""
    head = message if type(message) is bytes else bytes(message[:_LONGEST])
    return head.startswith(SYSTEM)


def reference_of_answer(message: bytes | memoryview) -> Reference | None:
    """The reference of ``{Ref, _}`` or ``{[alias|Ref], _}``; None of anything else."""
    head = bytes(message[:_LONGEST])
    if not head.startswith(_PAIRS):
        return None
    at = len(_PAIRS[0]) if head.startswith(_PAIRS[0]) else len(_PAIRS[1])
    for alias in _ALIASES:
        if head.startswith(alias, at):
            at += len(alias)
            break
    if not head.startswith(_REFERENCES, at):
        return None
    try:
        found, _ = decode_bare(message, at)
    except DecodeError:
        return None
    return found if type(found) is Reference else None


_ARRIVED: Final = b"h\3" + encode_bare(ARRIVED)


def with_source(node: str, message: bytes | memoryview) -> bytes:
    """The message ``{'$arrived', Node, Message}``."""
    return b"".join((_ARRIVED, encode_bare(Atom(node)), message))
