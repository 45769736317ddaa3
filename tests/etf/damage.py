"""Shared by the tests of damaged input: seeds with every tag, and ways to damage them."""

from __future__ import annotations

import random
import zlib

from pyglyn.errors import DecodeError
from pyglyn.etf import Atom, ImproperList, Limits, Reference, TermMap
from tests.etf.codec import decode, encode
from tests.etf.make_golden import recorded

TIGHT = Limits(depth=200, elements=100_000, size=100_000)
"""Limits under which no damaged length field can cost much."""

NODE = b"w\x03a@b"
OLD_FORMS = [
    b"\x83e" + NODE + b"\0\0\0\x07\x01",  # REFERENCE_EXT
    b"\x83f" + NODE + b"\0\0\0\x07\x01",  # PORT_EXT
    b"\x83g" + NODE + b"\0\0\0\x07\0\0\0\x01\x01",  # PID_EXT
    b"\x83r\0\x02" + NODE + b"\x01\0\0\0\x07\0\0\0\x08",  # NEW_REFERENCE_EXT
    b"\x83s\x02\xe9a",  # SMALL_ATOM_EXT
    b"\x83d\0\x02\xe9a",  # ATOM_EXT
    b"\x83v\0\x03\xe2\x82\xac",  # ATOM_UTF8_EXT
    b"\x83o\0\0\0\x02\x01\x01\x02",  # LARGE_BIG_EXT
    b"\x83M\0\0\0\x02\x08ab",  # BIT_BINARY_EXT of whole bytes
    b"\x83l\0\0\0\x01a\x01l\0\0\0\x01a\x02k\0\x02ab",  # a list in pieces
    b"\x83l\0\0\0\x01a\x01l\0\0\0\x00w\x01z",  # an improper one
    b"\x83P\0\0\0\x02" + zlib.compress(b"a\x01"),
]


def seeds() -> list[bytes]:
    """Short inputs that are right, with every tag among them, always in the same order."""
    known = [data for file in recorded() for data in (*file.opaque.values(), *file.terms.values())]
    mixed = encode(
        (
            [
                1,
                1000,
                -(1 << 70),
                1.5,
                [97, 98],
                ImproperList((Atom("alias"),), Reference("a@b", 1, (1, 2, 3))),
            ],
            {Atom("a"): {b"k": ()}, 1: TermMap([(1, 2), (1.0, 3)])},
        )
    )
    return [data for data in sorted({*known, *OLD_FORMS, mixed}) if len(data) < 400]


def mutated(data: bytes, rng: random.Random) -> bytes:
    """Change, insert, remove or repeat a few bytes, tags and lengths above all."""
    work = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        at = rng.randrange(1, len(work)) if len(work) > 1 else 0
        kind = rng.randrange(6)
        if kind == 0:
            work[at] = rng.choice((0, 1, 2, 127, 128, 255, *range(70, 122)))
        elif kind == 1:
            work[at] ^= 1 << rng.randrange(8)
        elif kind == 2:
            work.insert(at, rng.randrange(256))
        elif kind == 3 and len(work) > 2:
            del work[at : at + rng.randrange(1, 4)]
        elif kind == 4:
            end = at + rng.randrange(1, 12)
            work[at:at] = work[at:end]
        else:
            work[at] = rng.randrange(256)
    return bytes(work)


def outcome(
    data: bytes | bytearray | memoryview, limits: Limits = TIGHT
) -> tuple[object, DecodeError | None]:
    """Decode; every error but a documented one goes through, and its fields are checked."""
    try:
        return decode(data, limits=limits), None
    except DecodeError as error:
        damage = error
    assert damage.offset >= 0
    assert damage.tag is None or 0 <= damage.tag <= 255
    assert str(damage)
    return None, damage
