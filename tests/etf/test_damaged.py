"""Damaged input: always a DecodeError with offset and tag, or a right value; never anything else."""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyglyn.errors import DecodeError, TruncatedTerm, UnknownTag
from pyglyn.etf import exact_key
from pyglyn.etf import tags as t
from tests.etf.codec import decode, decode_bare, decode_prefix, each_implementation, encode, encode_bare
from tests.etf.damage import NODE, mutated, outcome, seeds

pytestmark = each_implementation

SEEDS = seeds()


def test_the_seeds_have_every_tag_that_decodes() -> None:
    refused = {t.ATOM_CACHE_REF, t.FUN_EXT, t.LOCAL_EXT}
    seen = {data[1] for data in SEEDS} | {byte for data in SEEDS for byte in data}
    assert set(t.NAMES) - refused <= seen
    assert all(outcome(data)[1] is None for data in SEEDS)


@pytest.mark.parametrize("data", SEEDS, ids=lambda data: data[:12].hex())
def test_input_cut_off_at_any_byte_is_truncated(data: bytes) -> None:
    for size in range(len(data)):
        _, error = outcome(data[:size])
        assert type(error) is TruncatedTerm
        assert error.offset <= size


@pytest.mark.parametrize("data", SEEDS, ids=lambda data: data[:12].hex())
def test_bytes_after_the_term_are_refused_where_they_begin(data: bytes) -> None:
    _, error = outcome(data + b"\0\1")
    assert error is not None
    assert error.offset == len(data)
    assert decode_prefix(data + b"\0\1")[1] == len(data)


@pytest.mark.parametrize("tag", range(256))
def test_every_byte_value_as_a_tag_ends_well(tag: int) -> None:
    for rest in (b"", b"\0" * 40, b"\xff" * 40, b"a" * 40):
        _, error = outcome(bytes((131, tag)) + rest)
        if tag not in t.HEAD_SIZES and tag != t.COMPRESSED:
            assert type(error) is UnknownTag
            assert (error.offset, error.tag) == (1, tag)


def test_single_byte_changes_end_in_a_value_or_a_documented_error() -> None:
    for data in SEEDS:
        for at in range(len(data)):
            for byte in (0, 1, 0x7F, 0x80, 0xFF, data[at] ^ 1, (data[at] + 1) & 255):
                changed = data[:at] + bytes((byte,)) + data[at + 1 :]
                value, error = outcome(changed)
                if error is None:
                    assert exact_key(decode(encode(value))) == exact_key(value)


def test_random_damage_ends_in_a_value_or_a_documented_error() -> None:
    rng = random.Random(20240917)
    for _ in range(20_000):
        value, error = outcome(mutated(rng.choice(SEEDS), rng))
        if error is None:
            assert exact_key(decode(encode(value))) == exact_key(value)


@given(st.binary(max_size=60))
def test_noise_ends_in_a_value_or_a_documented_error(noise: bytes) -> None:
    outcome(noise)
    outcome(b"\x83" + noise)


@pytest.mark.parametrize("data", SEEDS, ids=lambda data: data[:12].hex())
def test_the_error_is_the_same_for_every_kind_of_buffer(data: bytes) -> None:
    for damaged in (data[:-1], data + b"x", data[:2] + b"\xff" + data[3:]):
        for whole in (damaged, b"\x83h\x02" + BLOB + damaged[1:]):
            first = outcome(whole)
            for kind in (bytearray, memoryview, lambda data: memoryview(bytearray(data))):
                assert _shown(outcome(kind(whole))) == _shown(first)


BLOB = encode_bare(bytes(70_000))
"""So much that views are read as views."""


def _shown(result: tuple[object, DecodeError | None]) -> object:
    value, error = result
    if error is None:
        return exact_key(value)
    return type(error), str(error), error.offset, error.tag


BIG = b"\xff\xff\xff\xff"
WRONG = {
    "empty input": (b"", TruncatedTerm, 0, None),
    "only the version": (b"\x83", TruncatedTerm, 1, None),
    "another version": (b"\x82a\x01", UnknownTag, 0, 0x82),
    "atom of two versions": (b"\x83\x83a\x01", UnknownTag, 1, 131),
    "NaN": (b"\x83F" + struct.pack(">d", float("nan")), DecodeError, 2, 70),
    "infinity": (b"\x83F" + struct.pack(">d", float("-inf")), DecodeError, 2, 70),
    "float text": (b"\x83c" + b"1.5x".ljust(31, b"\0"), DecodeError, 2, 99),
    "float text with space": (b"\x83c" + b" 1.5".ljust(31, b"\0"), DecodeError, 2, 99),
    "float text without dot": (b"\x83c" + b"15".ljust(31, b"\0"), DecodeError, 2, 99),
    "float text of infinity": (b"\x83c" + b"inf".ljust(31, b"\0"), DecodeError, 2, 99),
    "float text with underscore": (b"\x83c" + b"1_0.0".ljust(31, b"\0"), DecodeError, 2, 99),
    "float text too large": (b"\x83c" + b"1.5e999".ljust(31, b"\0"), DecodeError, 2, 99),
    "atom not UTF-8": (b"\x83w\x02a\xff", DecodeError, 4, 119),
    "atom with a surrogate": (b"\x83w\x03\xed\xa0\x80", DecodeError, 3, 119),
    "atom in overlong UTF-8": (b"\x83v\0\x02\xc0\x80", DecodeError, 4, 118),
    "atom of 256 characters": (b"\x83d\x01\0" + b"a" * 256, DecodeError, 4, 100),
    "UTF-8 atom of 256 characters": (b"\x83v\x02\0" + "é".encode() * 256, DecodeError, 4, 118),
    "reference without words": (b"\x83Z\0\0" + NODE + b"\0\0\0\x01", DecodeError, 2, 90),
    "reference of six words": (b"\x83Z\0\x06" + NODE + b"\0" * 28, DecodeError, 2, 90),
    "old reference of six words": (b"\x83r\0\x06" + NODE + b"\0" * 25, DecodeError, 2, 114),
    "old creation": (b"\x83g" + NODE + b"\0\0\0\x01\0\0\0\x01\x04", DecodeError, 15, 103),
    "node that is no atom": (b"\x83Xa\x01" + b"\0" * 12, UnknownTag, 2, 97),
    "module that is no atom": (b"\x83qm\0\0\0\x01aw\x01ba\x01", UnknownTag, 2, 109),
    "arity that is no small integer": (b"\x83qw\x01aw\x01bb\0\0\0\x01", DecodeError, 8, 113),
    "arity that is an atom": (b"\x83qw\x01aw\x01bw\x01c", DecodeError, 8, 113),
    "no bits": (b"\x83M\0\0\0\x01\0a", DecodeError, 6, 77),
    "nine bits": (b"\x83M\0\0\0\x01\x09a", DecodeError, 6, 77),
    "bits of no byte": (b"\x83M\0\0\0\0\x01", DecodeError, 2, 77),
    "no bits of no byte": (b"\x83M\0\0\0\0\0", DecodeError, 6, 77),
    "key twice": (b"\x83t\0\0\0\x02a\x01a\x02a\x01a\x03", DecodeError, 1, 116),
    "key twice in two forms": (b"\x83t\0\0\0\x02a\x01jb\0\0\0\x01j", DecodeError, 1, 116),
    "list as key twice": (b"\x83t\0\0\0\x02k\0\x01aa\x01l\0\0\0\x01aaja\x01", DecodeError, 1, 116),
    "nested key twice": (b"\x83h\x01t\0\0\0\x02ja\x01ja\x02", DecodeError, 3, 116),
    "long binary": (b"\x83m" + BIG + b"abc", TruncatedTerm, 6, 109),
    "long list": (b"\x83l" + BIG + b"jj", TruncatedTerm, 6, 108),
    "long tuple": (b"\x83i" + BIG + b"jj", TruncatedTerm, 6, 105),
    "long map": (b"\x83t" + BIG + b"jj", TruncatedTerm, 6, 116),
    "long integer": (b"\x83o" + BIG + b"\0\1", TruncatedTerm, 7, 111),
    "long bitstring": (b"\x83M" + BIG + b"\3\1", TruncatedTerm, 7, 77),
    "fun of many variables": (
        b"\x83p\0\0\0\x30\x01" + bytes(20) + BIG + NODE + b"a\0a\0X" + NODE + bytes(12),
        TruncatedTerm,
        58,
        112,
    ),
    "list without tail": (b"\x83l\0\0\0\x01a\x01", TruncatedTerm, 8, 108),
    "list whose tail lacks its tail": (b"\x83l\0\0\0\x01a\x01l\0\0\0\x01a\x02", TruncatedTerm, 15, 108),
    "cache reference": (b"\x83R\0", UnknownTag, 1, 82),
    "old fun": (b"\x83u\0\0\0\0", UnknownTag, 1, 117),
    "local": (b"\x83y" + b"\0" * 9, UnknownTag, 1, 121),
    "compressed inside": (b"\x83h\x01P\0\0\0\x02" + zlib.compress(b"a\x01"), UnknownTag, 3, 80),
    "compressed twice": (
        b"\x83P\0\0\0\x11" + zlib.compress(b"P\0\0\0\x02" + zlib.compress(b"a\x01"), 0),
        DecodeError,
        None,
        None,
    ),
    "compressed too short": (b"\x83P\0\0\0\x03" + zlib.compress(b"a\x01"), DecodeError, 2, 80),
    "compressed too long": (b"\x83P\0\0\0\x02" + zlib.compress(b"a\x01a"), DecodeError, 2, 80),
    "compressed to nothing": (b"\x83P\0\0\0\0" + zlib.compress(b""), TruncatedTerm, 0, None),
    "compressed with version": (b"\x83P\0\0\0\x03" + zlib.compress(b"\x83a\x01"), UnknownTag, 0, 131),
    "bytes after the compressed term": (b"\x83P\0\0\0\x03" + zlib.compress(b"a\x01a"), DecodeError, 2, None),
    "no zlib": (b"\x83P\0\0\0\x02garbage!", DecodeError, 6, 80),
    "zlib checksum": (b"\x83P\0\0\0\x02" + zlib.compress(b"a\x01")[:-1] + b"\xff", DecodeError, 6, 80),
}


@pytest.mark.parametrize("case", WRONG)
def test_each_damage_has_its_error_offset_and_tag(case: str) -> None:
    data, kind, offset, tag = WRONG[case]
    _, error = outcome(data)
    assert type(error) is kind or (kind is DecodeError and isinstance(error, DecodeError))
    if offset is not None:
        assert (error.offset, error.tag) == (offset, tag)
    if tag is not None and tag in t.NAMES and not isinstance(error, UnknownTag):
        assert t.NAMES[tag] in str(error)


def _fun(
    size_error: int = 0, parts: bytes = NODE + b"a\0a\0X" + NODE + bytes(12), free: int = 0, end: bytes = b""
) -> bytes:
    size = 4 + 1 + 16 + 4 + 4 + len(parts) + len(end) + size_error
    return b"\x83p" + struct.pack(">IB16xII", size, 1, 7, free) + parts + end


def test_a_fun_that_is_right_is_kept_as_it_is() -> None:
    assert encode(decode(_fun())) == _fun()
    nested = _fun(free=2, end=_fun()[1:] + b"a\x01")
    assert encode(decode(nested)) == nested


@pytest.mark.parametrize(
    "data",
    [
        _fun(1),
        _fun(-1),
        _fun(parts=b"a\1a\0a\0X" + NODE + bytes(12)),
        _fun(parts=NODE + b"ja\0X" + NODE + bytes(12)),
        _fun(parts=NODE + b"a\0w\x01aX" + NODE + bytes(12)),
        _fun(parts=NODE + b"a\0a\0a\1"),
        _fun(free=1, end=b"\xff"),
        _fun(free=1, end=b"t\0\0\0\2a\1ja\1j"),
        _fun(free=1, end=_fun(1)[1:]),
        _fun(free=2, end=b"a\1"),
    ],
)
def test_a_fun_is_checked_to_its_last_free_variable(data: bytes) -> None:
    assert outcome(data)[1] is not None


def test_a_bare_term_is_never_compressed() -> None:
    with pytest.raises(UnknownTag, match="only allowed directly after the version byte"):
        decode_bare(b"P\0\0\0\x02" + zlib.compress(b"a\x01"))


def test_an_offset_beyond_the_input_is_truncated_and_a_negative_one_the_callers_fault() -> None:
    with pytest.raises(TruncatedTerm):
        decode_bare(b"a\x01", 2)
    with pytest.raises(TruncatedTerm):
        decode_bare(b"a\x01", 10)
    with pytest.raises(ValueError, match="negative"):
        decode_bare(b"a\x01", -1)


@pytest.mark.parametrize("function", [decode, decode_prefix, decode_bare])
def test_what_is_no_buffer_is_a_type_error(function: Callable[[object], object]) -> None:
    for value in ("text", 5, None, [131, 97, 1]):
        with pytest.raises(TypeError):
            function(value)


def test_the_text_says_what_was_expected_and_what_came() -> None:
    with pytest.raises(DecodeError) as caught:
        decode(b"\x83h\x02a\x01w\x05ab")
    assert str(caught.value) == "expected 5 more bytes at offset 7 (SMALL_ATOM_UTF8_EXT), got 2"
