"""Limits, depth, copies. How the work grows with the size is in `test_growth`."""

from __future__ import annotations

import sys
import threading
import tracemalloc
import zlib
from collections.abc import Callable
from typing import Any

import pytest

from pyglyn.errors import DecodeError, EncodeError, LimitExceeded
from pyglyn.etf import Atom, ImproperList, Limits, TermMap, exact_key
from pyglyn.etf.maps import MAX_COLLISIONS
from tests.etf.codec import (
    decode,
    decode_bare,
    each_implementation,
    encode,
    encode_bare,
    encode_parts,
    normalise,
)
from tests.etf.shapes import DEEP, NESTED, WIDE, colliding_map, colliding_tuples

pytestmark = each_implementation


@pytest.mark.parametrize("shape", NESTED)
def test_deep_terms_decode_and_encode(shape: str) -> None:
    data = NESTED[shape](DEEP)
    term = decode(data, limits=WIDE)
    assert encode(term) == data
    assert b"".join(encode_parts(term)) == data[1:]


def test_as_many_levels_are_possible_as_the_limit_allows() -> None:
    """Many more than a stack of 8 MiB holds frames."""
    data = NESTED["tuples"](150_000)
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


@pytest.mark.parametrize("count", [MAX_COLLISIONS, MAX_COLLISIONS + 1])
@pytest.mark.parametrize("make", [colliding_map, colliding_tuples])
def test_keys_made_to_collide_are_kept_in_a_term_map(make: Callable[[int], bytes], count: int) -> None:
    term = decode(make(count), limits=WIDE)
    assert isinstance(term, TermMap if count > MAX_COLLISIONS else dict)
    assert encode(term) == make(count)
    assert len({exact_key(key) for key in term}) == count


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
