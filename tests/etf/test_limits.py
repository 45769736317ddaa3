"""Limits, depth, and time that grows with the size and no faster."""

from __future__ import annotations

import gc
import sys
import threading
import time
import tracemalloc
import zlib
from collections.abc import Callable
from typing import Any

import pytest

from pyglyn.errors import DecodeError, EncodeError, LimitExceeded, TruncatedTerm
from pyglyn.etf import Atom, ImproperList, Limits, TermMap, exact_key, normalise, text
from tests.etf.codec import decode, decode_bare, each_implementation, encode, encode_bare, encode_parts

pytestmark = each_implementation

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


@pytest.mark.parametrize("shape", NESTED)
def test_deep_terms_decode_encode_normalise_compare_and_print(shape: str) -> None:
    data = NESTED[shape](DEEP)
    term = decode(data, limits=WIDE)
    assert encode(term) == data
    assert b"".join(encode_parts(term)) == data[1:]
    again = normalise(term)
    assert encode(again) == data
    assert exact_key(again) == exact_key(term)
    assert exact_key((term,)) != exact_key((again, 1))
    assert exact_key(text.parse(text.format(term))) == exact_key(term)
    assert TermMap([(term, 1)])[again] == 1


def test_a_million_levels_are_possible_where_the_limit_allows() -> None:
    data = NESTED["tuples"](1_000_000)
    assert encode(decode(data, limits=WIDE)) == data


def test_ten_thousand_levels_are_the_default_and_no_more() -> None:
    assert encode(decode(NESTED["tuples"](10_000))) == NESTED["tuples"](10_000)
    with pytest.raises(LimitExceeded, match="deeper than 10000") as caught:
        decode(NESTED["tuples"](10_001))
    assert (caught.value.offset, caught.value.tag) == (20_001, 104)


@pytest.mark.parametrize("shape", NESTED)
@pytest.mark.parametrize("depth", [0, 1, 3, 10, 63, 64, 65, 100])
def test_depth_is_the_number_of_enclosing_containers(shape: str, depth: int) -> None:
    inner = 2 * (depth // 2) if shape in ("improper", "keys of keys") else depth
    if inner and not (shape == "tuple keys" and inner < 2):
        decode(NESTED[shape](inner), limits=Limits(depth=inner))
        with pytest.raises(LimitExceeded):
            decode(NESTED[shape](inner), limits=Limits(depth=inner - 1))
    with pytest.raises(LimitExceeded):
        decode(NESTED[shape](inner + 2), limits=Limits(depth=inner))


def test_a_list_in_pieces_is_one_level_deep() -> None:
    data = b"\x83" + b"l\0\0\0\1a\1" * 50_000 + b"j"
    assert decode(data, limits=Limits(depth=1)) == [1] * 50_000
    improper = decode(data[:-1] + b"w\x01z", limits=Limits(depth=1))
    assert improper == ImproperList((1,) * 50_000, Atom("z"))


@pytest.mark.parametrize(
    ("term", "count"),
    [
        ((), 0),
        ((1, 2, 3), 3),
        ([1000, 2000], 2),
        ([1, 2, 3], 3),
        (b"xyz", 0),
        ({1: 2, 3: 4}, 4),
        (([1], [2]), 4),
        ([[500] * 10] * 10, 110),
    ],
)
def test_all_elements_together_are_limited(term: Any, count: int) -> None:
    assert decode(encode(term), limits=Limits(elements=count)) == term
    if count:
        with pytest.raises(LimitExceeded, match="elements"):
            decode(encode(term), limits=Limits(elements=count - 1))


def test_a_list_in_pieces_is_counted_whole() -> None:
    data = b"\x83" + b"l\0\0\0\1a\1" * 10 + b"k\0\x03abc"
    assert len(decode(data, limits=Limits(elements=13))) == 13
    with pytest.raises(LimitExceeded):
        decode(data, limits=Limits(elements=12))


def test_decompression_stops_at_the_declared_and_the_allowed_size() -> None:
    plain = encode_bare(bytes(50_000_000))
    packed = zlib.compress(plain, 9)
    honest = b"\x83P" + len(plain).to_bytes(4, "big") + packed
    lying = b"\x83P" + (1000).to_bytes(4, "big") + packed
    tracemalloc.start()
    try:
        with pytest.raises(LimitExceeded, match="after decompression"):
            decode(honest, limits=Limits(size=1_000_000))
        with pytest.raises(DecodeError, match="more than the declared"):
            decode(lying)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()
    assert decode(honest) == bytes(50_000_000)


@pytest.mark.parametrize("head", [b"m", b"l", b"i", b"t", b"o", b"M", b"k\xff\xff", b"v\xff\xff", b"P"])
def test_a_length_field_allocates_nothing(head: bytes) -> None:
    data = b"\x83" + (head if len(head) > 1 else head + b"\xff\xff\xff\xff") + b"\x01" * 100
    tracemalloc.start()
    try:
        with pytest.raises(DecodeError):
            decode(data)
        assert tracemalloc.get_traced_memory()[1] < 200_000
    finally:
        tracemalloc.stop()


def test_a_caller_deep_in_its_own_calls_is_served_too() -> None:
    data = NESTED["tuples"](200)

    def descend(levels: int) -> bytes:
        return descend(levels - 1) if levels else encode(normalise(decode(data)))

    depth, frame = 0, sys._getframe()
    while frame := frame.f_back:  # type: ignore[assignment]
        depth += 1
    assert descend(sys.getrecursionlimit() - depth - 40) == data


def test_a_small_thread_stack_is_enough() -> None:
    """Python 3.13 takes some 100 bytes for each level when it frees the term, up to 10,000 levels."""
    results: list[bytes] = []
    old = threading.stack_size((1024 if sys.version_info >= (3, 13) else 256) * 1024)
    try:
        thread = threading.Thread(
            target=lambda: results.append(encode(decode(NESTED["map keys"](DEEP), limits=WIDE)))
        )
        thread.start()
        thread.join()
    finally:
        threading.stack_size(old)
    assert results == [NESTED["map keys"](DEEP)]


# --- time ------------------------------------------------------------------------------------------

MODULUS = (1 << 61) - 1


def _colliding_map(n: int) -> bytes:
    pairs = b"".join(encode_bare(MODULUS * k) + b"j" for k in range(1, n + 1))
    return b"\x83t" + n.to_bytes(4, "big") + pairs


def _colliding_tuples(n: int) -> bytes:
    pairs = b"".join(encode_bare((MODULUS * k,)) + b"j" for k in range(1, n + 1))
    return b"\x83t" + n.to_bytes(4, "big") + pairs


LARGE: dict[str, Callable[[int], bytes]] = {
    **NESTED,
    "pieces": lambda n: b"\x83" + b"l\0\0\0\1a\1" * n + b"j",
    "improper pieces": lambda n: b"\x83" + b"l\0\0\0\1a\1" * n + b"w\1z",
    "integers": lambda n: encode([1000] * n),
    "colliding keys": _colliding_map,
    "colliding tuple keys": _colliding_tuples,
    "funs in funs": lambda n: b"\x83" + _nested_funs(n // 20),
    "long integer": lambda n: encode(1 << (8 * n)),
    "string pieces": lambda n: b"\x83" + b"l\0\0\0\1a\1" * n + b"k\0\x01a",
}


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


def _seconds(action: Callable[[], object]) -> float:
    gc.collect()
    gc.disable()
    try:
        start = time.process_time()
        action()
        return time.process_time() - start
    finally:
        gc.enable()


@pytest.mark.parametrize("shape", LARGE)
def test_time_grows_with_the_size(shape: str) -> None:
    """Eight times the size takes about eight times as long; a quadratic step would take 64 times.

    One attempt of several is enough: noise can make a linear step look slow, but no luck makes a quadratic one
    look linear.
    """
    small, large = LARGE[shape](2_000), LARGE[shape](16_000)
    for work in (_decode, _encode, _normalise, _compare):
        few, many = work(small), work(large)
        assert any(_seconds(many) < 30 * max(_seconds(few), 0.002) for _ in range(8))


def _decode(data: bytes) -> Callable[[], object]:
    return lambda: decode(data, limits=WIDE)


def _encode(data: bytes) -> Callable[[], object]:
    term = decode(data, limits=WIDE)
    return lambda: encode(term)


def _normalise(data: bytes) -> Callable[[], object]:
    term = decode(data, limits=WIDE)
    return lambda: normalise(term)


def _compare(data: bytes) -> Callable[[], object]:
    term = decode(data, limits=WIDE)
    return lambda: exact_key((term,))


def test_keys_made_to_collide_are_kept_in_a_term_map() -> None:
    term = decode(_colliding_map(500), limits=WIDE)
    assert isinstance(term, TermMap)
    assert term[MODULUS * 77] == []
    assert encode(term) == _colliding_map(500)
    assert isinstance(decode(_colliding_map(20)), dict)


def test_damage_at_the_very_end_is_found_in_one_more_pass() -> None:
    data = encode([1000] * 40_000)
    assert _seconds(lambda: _fails(data[:-1])) < 10 * max(_seconds(lambda: decode(data)), 0.002)


def _fails(data: bytes) -> None:
    with pytest.raises(TruncatedTerm):
        decode(data)


# --- copies ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_a_large_binary_is_copied_once_on_the_way_in(kind: Callable[[bytes], Any]) -> None:
    size = 8_000_000
    data = kind(encode((Atom("blob"), bytes(size), 1)))
    tracemalloc.start()
    try:
        assert len(decode(data)[1]) == size
        assert tracemalloc.get_traced_memory()[1] < 1.2 * size
        assert len(decode_bare(data, 1)[0][1]) == size
        assert tracemalloc.get_traced_memory()[1] < 1.2 * size
    finally:
        tracemalloc.stop()


def test_a_large_binary_is_not_copied_on_the_way_out() -> None:
    large, view = bytes(200_000), memoryview(bytes(300_000))
    parts = encode_parts((Atom("blob"), large, [1, view], b"small"))
    assert any(part is large for part in parts)
    assert any(isinstance(part, memoryview) and part.nbytes == 300_000 for part in parts)
    assert b"".join(parts) == encode_bare((Atom("blob"), large, [1, view], b"small"))
    assert len(parts) == 5


def test_what_its_owner_may_change_is_copied_on_the_way_out() -> None:
    owned = bytearray(200_000)
    parts = encode_parts([owned, memoryview(owned)])
    before = b"".join(parts)
    owned[:] = b"x" * 200_000
    assert b"".join(parts) == before


@pytest.mark.parametrize(
    "damage", [b"", b"\x83h\x02w\x05ab", b"\x83l\0\0\0\2m\0\0\0\5abcdea", b"\x83P\0\0\0\2"]
)
def test_the_handler_of_an_error_may_resize_the_buffer(damage: bytes) -> None:
    buffer = bytearray(b"\x83h\x02" + encode_bare(bytes(70_000)) + damage if damage[1:2] != b"P" else damage)
    if damage[1:2] == b"P":
        buffer += bytes(70_000)
    try:
        decode(buffer)
    except DecodeError:
        buffer.clear()
    assert not buffer


def test_tuples_are_no_larger_than_otp_allows() -> None:
    with pytest.raises(EncodeError, match="16777215"):
        encode((None,) * (1 << 24))
