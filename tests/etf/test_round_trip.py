"""Properties of the codec over all terms."""

from __future__ import annotations

import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyglyn.etf import Atom, exact_key
from pyglyn.etf.decoder import Walk
from pyglyn.etf.encoder import _walk as encode_stepwise
from pyglyn.etf.limits import DEFAULT_LIMITS
from pyglyn.etf.normaliser import _walk as normalise_stepwise
from tests.etf.codec import (
    decode,
    decode_bare,
    decode_prefix,
    each_implementation,
    encode,
    encode_bare,
    encode_parts,
    normalise,
)
from tests.strategies import encodable, small_maps, terms

pytestmark = each_implementation


def same(one: Any, two: Any) -> bool:
    """Equal in Python, of the same types all the way down, and equal in Erlang."""
    return type(one) is type(two) and one == two and exact_key(one) == exact_key(two)


@given(terms(max_leaves=30))
def test_decoding_what_was_encoded_gives_the_term(term: Any) -> None:
    assert same(decode(encode(term)), term)


@given(encodable())
def test_normalise_is_encode_and_decode(term: Any) -> None:
    assert same(normalise(term), decode(encode(term)))


@given(encodable())
def test_a_normalised_term_stays_as_it_is(term: Any) -> None:
    once = normalise(term)
    assert same(normalise(once), once)


@given(small_maps())
def test_no_map_loses_or_merges_a_key(term: Any) -> None:
    again = decode(encode(term))
    assert same(again, term)
    assert sorted(map(repr, again.items())) == sorted(map(repr, term.items()))


@given(encodable())
def test_both_ways_of_walking_agree(term: Any) -> None:
    data = encode_bare(term)
    parts: list[Any] = []
    encode_stepwise(term, parts.append)
    assert b"".join(parts) == data
    assert same(Walk(data, 0, DEFAULT_LIMITS).run()[0], decode_bare(data)[0])
    assert same(normalise_stepwise(term), normalise(term))


@given(terms(), st.binary(max_size=20))
def test_a_prefix_tells_how_many_bytes_it_took(term: Any, rest: bytes) -> None:
    data = encode(term)
    value, used = decode_prefix(data + rest)
    assert used == len(data)
    assert same(value, term)
    value, end = decode_bare(b"xx" + data[1:] + rest, 2)
    assert end == len(data) + 1
    assert same(value, term)


@given(encodable())
def test_all_encodings_agree(term: Any) -> None:
    bare = encode_bare(term)
    assert encode(term) == b"\x83" + bare
    assert b"".join(encode_parts(term)) == bare


@given(terms(), st.integers(1, 9))
def test_compressed_terms_come_back(term: Any, level: int) -> None:
    data = encode(term, compressed=level)
    assert len(data) <= len(encode(term))
    value, used = decode_prefix(data + b"more")
    assert used == len(data)
    assert same(value, term)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, lambda data: memoryview(bytearray(data))])
@given(term=terms(max_leaves=10))
def test_any_buffer_is_decoded(kind: Any, term: Any) -> None:
    term = (term, bytes(70_000), [Atom("a"), term])  # large enough not to be copied as a whole first
    assert same(decode(kind(encode(term))), term)
    assert same(decode(kind(encode(term[0]))), term[0])


def test_a_view_with_gaps_or_of_wider_items_is_decoded() -> None:
    data = encode([1000] * 30_000)
    spread = bytearray(2 * len(data))
    spread[::2] = data
    assert decode(memoryview(spread)[::2]) == [1000] * 30_000
    wide = encode([b"x" * 70_001, b"yy"])
    assert len(wide) % 4 == 0
    assert decode(memoryview(wide).cast("I")) == [b"x" * 70_001, b"yy"]


def test_a_compressed_term_may_hold_large_binaries() -> None:
    term = [b"z" * 1_000_000, Atom("end")]
    data = encode(term, compressed=6)
    assert len(data) < 10_000
    assert zlib.decompress(data[6:]) == encode_bare(term)
    assert decode(data) == term
