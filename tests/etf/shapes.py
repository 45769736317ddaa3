"""Terms as bytes, as large or deep as wanted, and made to be awkward."""

from __future__ import annotations

from collections.abc import Callable

from pyglyn.etf import Limits, pure

WIDE = Limits(depth=10**7, elements=10**8, size=1 << 32)
DEEP = 10_000


def _map_values(n: int) -> bytes:
    return b"\x83" + b"t\0\0\0\1a\1" * n + b"j"


def _map_keys(n: int) -> bytes:
    return b"\x83" + b"t\0\0\0\1" * n + b"j" + b"a\1" * n


NESTED: dict[str, Callable[[int], bytes]] = {
    "tuples": lambda n: b"\x83" + b"h\x01" * n + b"j",
    "lists": lambda n: b"\x83" + b"l\0\0\0\1" * n + b"j" + b"j" * n,
    "list heads": lambda n: b"\x83" + b"l\0\0\0\2a\1" * n + b"w\1a" + b"j" * n,
    "improper": lambda n: b"\x83" + b"l\0\0\0\1h\1" * (n // 2) + b"w\x01a" + b"w\x01z" * (n // 2),
    "map values": _map_values,
    "map keys": _map_keys,
    "tuple keys": lambda n: b"\x83t\0\0\0\1" + b"h\1" * (n - 1) + b"a\1" + b"j",
    "keys of keys": lambda n: b"\x83" + b"t\0\0\0\1h\1" * (n // 2) + b"j" + b"a\1" * (n // 2),
}


MODULUS = (1 << 61) - 1
"""Integers that are equal modulo this have one hash."""


def colliding_map(n: int) -> bytes:
    pairs = b"".join(pure.encode_bare(MODULUS * k) + b"j" for k in range(1, n + 1))
    return b"\x83t" + n.to_bytes(4, "big") + pairs


def colliding_tuples(n: int) -> bytes:
    pairs = b"".join(pure.encode_bare((MODULUS * k,)) + b"j" for k in range(1, n + 1))
    return b"\x83t" + n.to_bytes(4, "big") + pairs


def _nested_funs(n: int) -> bytes:
    sizes = 0
    heads = []
    part = b"w\x01ma\0a\0Xw\x01n" + bytes(12)
    for level in range(n):
        sizes += 29 + len(part)
        free = b"\0\0\0\1" if level else b"\0\0\0\0"
        heads.append(b"p" + sizes.to_bytes(4, "big") + bytes(21) + free + part)
        sizes += 1
    return b"".join(reversed(heads))


LARGE: dict[str, Callable[[int], bytes]] = {
    **NESTED,
    "pieces": lambda n: b"\x83" + b"l\0\0\0\1a\1" * n + b"j",
    "improper pieces": lambda n: b"\x83" + b"l\0\0\0\1a\1" * n + b"w\1z",
    "integers": lambda n: pure.encode([1000] * n),
    "colliding keys": colliding_map,
    "colliding tuple keys": colliding_tuples,
    "funs in funs": lambda n: b"\x83" + _nested_funs(n // 20),
    "long integer": lambda n: pure.encode(1 << (8 * n)),
    "string pieces": lambda n: b"\x83" + b"l\0\0\0\1a\1" * n + b"k\0\x01a",
}
