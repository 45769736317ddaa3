"""The codec against ``term_to_binary`` and ``binary_to_term`` of running nodes."""

from __future__ import annotations

import random
from typing import Any

import pytest

from pyglyn.errors import DecodeError, LimitExceeded
from pyglyn.etf import Atom, Fun, ImproperList, Limits, TermMap, exact_key
from pyglyn.etf.text import format
from pyglyn.testing import Beam
from tests.etf.codec import decode, each_implementation, encode
from tests.etf.damage import TIGHT, mutated, outcome, seeds
from tests.strategies import drawn, terms, written_terms

pytestmark = each_implementation

WRITE = "[term_to_binary(binary_to_term(B), [{minor_version, 2}]) || B <- Bs]"
TRY = "[try term_to_binary(binary_to_term(B), [{minor_version, 2}]) catch error:badarg -> refused end || B <- Bs]"


async def _written(beam: Beam, batch: list[bytes], expression: str = WRITE) -> list[Any]:
    """Have the node decode each of the binaries and encode it again."""
    answer = decode(await beam.eval_bytes(expression, Bs=encode(batch), timeout=60.0))
    assert isinstance(answer, list)
    return answer


def _has_both_zeros(term: Any) -> bool:
    """OTP 25 takes ``0.0`` and ``-0.0`` for one key, as any OTP before 27."""
    if isinstance(term, (dict, TermMap)):
        keys = [format(key).replace("-0.0", "0.0") for key in _without_identifiers(term)]
        return len(set(keys)) < len(keys) or any(map(_has_both_zeros, [*term, *term.values()]))
    if isinstance(term, ImproperList):
        return any(map(_has_both_zeros, (*term.elements, term.tail)))
    return isinstance(term, (list, tuple)) and any(map(_has_both_zeros, term))


def _without_identifiers(term: Any) -> list[Any]:
    return list(term)


@pytest.fixture(scope="module")
def any_terms() -> list[Any]:
    return drawn(terms(), 320)


@pytest.fixture(scope="module")
def any_written_terms() -> list[Any]:
    return drawn(written_terms(), 160)


async def test_a_node_reads_our_bytes_and_writes_the_same_term(
    shared_beam: Beam, any_terms: list[Any]
) -> None:
    if shared_beam.otp < 27:
        any_terms = [term for term in any_terms if not _has_both_zeros(term)]
    written = await _written(shared_beam, [encode(term) for term in any_terms])
    for term, data in zip(any_terms, written, strict=True):
        assert exact_key(decode(data)) == exact_key(term)
        if not _has_map_or_port(term):
            assert data == encode(term)


def _has_map_or_port(term: Any) -> bool:
    return any(mark in format(term) for mark in ("#{", "#Port<"))


async def test_a_node_reads_our_text_as_the_same_term(
    shared_beam: Beam, any_written_terms: list[Any]
) -> None:
    for term in any_written_terms:
        if shared_beam.otp < 27 and _has_both_zeros(term):
            continue
        assert exact_key(await shared_beam.eval(format(term))) == exact_key(term)


async def test_text_of_a_node_is_read_as_the_term(shared_beam: Beam) -> None:
    rng = random.Random(3)
    values = [decode(data) for data in seeds()]
    shown = [value for value in values if "<a@b" not in format(value) and "#" not in format(value)]
    rng.shuffle(shown)
    for value in shown:
        text = await shared_beam.eval('unicode:characters_to_binary(io_lib:format("~0tp", [T]))', T=value)
        from pyglyn.etf.text import parse

        if not text.startswith((b"<", b"{<0")):
            assert exact_key(parse(text.decode())) == exact_key(value)


STRICTER = (
    "a reference of 0 words",  # an empty reference, which no OTP makes
    "an arity that is no small integer",  # OTP reads any integer, and writes only small ones
    "bytes after the term",
    "a fun of",  # OTP ignores the size field
    "in place of the fun's",
    "no Erlang float",  # OTP reads a comma for the dot
    "without bytes",
    "bits in the last byte",
)
"""Where we refuse what a node lets pass, by the text of our error. A node makes none of these."""


async def test_damaged_bytes_are_refused_by_us_where_a_node_refuses_them(shared_beam: Beam) -> None:
    """A value of ours is the node's value, and an error of ours is an error there, but for the list above."""
    rng = random.Random(shared_beam.otp)
    inputs = [data for data in _damaged(rng, 6000) if not _aborts_a_node(data)]
    accepted = 0
    for start in range(0, len(inputs), 500):
        batch = inputs[start : start + 500]
        for data, theirs in zip(batch, await _written(shared_beam, batch, TRY), strict=True):
            accepted += _compare(data, theirs, shared_beam.otp)
    assert 500 < accepted < len(inputs) - 500


def _damaged(rng: random.Random, count: int) -> list[bytes]:
    known = seeds()
    return [mutated(rng.choice(known), rng) for _ in range(count)]


def _aborts_a_node(data: bytes) -> bool:
    """Tell what must not reach a node, for it might end it.

    Its own tags 73 to 76 are indexes and pointers that it trusts; OTP 28 aborts on a bitstring of no bytes and
    no bits, OTP 25 on a fun that declares too many free variables; compressed data could hide any of these.
    """
    error = outcome(data)[1]
    if data[1:2] == b"P" or b"M\0\0\0\0" in data:
        return True
    return error is not None and (error.tag in range(73, 77) or b"p\0" in data)


def _compare(data: bytes, theirs: Any, otp: int) -> bool:
    try:
        ours = decode(data, limits=TIGHT)
    except LimitExceeded:
        return False
    except DecodeError as error:
        assert theirs is REFUSED or any(text in str(error) for text in STRICTER), (data, str(error))  # noqa: PT017
        return False
    if theirs is REFUSED:
        assert otp < 27, data
        assert _has_both_zeros(ours), data
        return False
    if not isinstance(ours, Fun) and b"p" not in data:  # a fun's bytes we keep, OTP 28 rewrites them
        assert exact_key(decode(theirs)) == exact_key(ours), data
    return True


REFUSED = Atom("refused")


async def test_deep_terms_go_to_a_node_and_back(shared_beam: Beam) -> None:
    wide = Limits(depth=30_001)
    for shape in (b"h\x01" * 30_000 + b"j", b"t\0\0\0\1a\1" * 30_000 + b"j"):
        (data,) = await _written(shared_beam, [b"\x83" + shape])
        assert data == b"\x83" + shape
        assert encode(decode(data, limits=wide)) == data


async def test_compressed_terms_are_read_on_both_sides(shared_beam: Beam) -> None:
    term = [(Atom("item"), b"laptop", n) for n in range(2000)]
    packed = encode(term, compressed=6)
    assert len(packed) < len(encode(term)) / 3
    (data,) = await _written(shared_beam, [packed])
    assert data == encode(term)
    back = await shared_beam.eval("term_to_binary(T, [compressed])", T=term)
    assert back[1:2] == b"P"
    assert decode(back) == term


async def test_a_fun_that_came_over_still_runs(shared_beam: Beam) -> None:
    fun = await shared_beam.eval("Y = 5, fun(X) -> X + Y end")
    assert isinstance(fun, Fun)
    assert await shared_beam.eval("F(2)", F=fun) == 7
    assert await shared_beam.eval("(hd(L))(2)", L=[fun]) == 7


async def test_identifiers_of_a_node_are_the_same_after_a_round_trip(shared_beam: Beam) -> None:
    text = "[self(), make_ref(), alias(), hd(erlang:ports()), fun lists:map/2]"
    assert await shared_beam.eval(f"L = {text}, L =:= binary_to_term(term_to_binary(L))") is True
    for index in range(1, 6):
        one = f"lists:nth({index}, {text})"
        value = await shared_beam.eval(f"T = {one}, persistent_term:put(kept, T), T")
        assert await shared_beam.eval("T =:= persistent_term:get(kept)", T=value) is True


async def test_a_binary_of_16_mib_goes_both_ways(shared_beam: Beam) -> None:
    blob = bytes(range(256)) * 65_536
    assert await shared_beam.eval("byte_size(B)", B=blob) == len(blob)
    assert (
        await shared_beam.eval("binary:copy(<<1,2,3,4>>, 4194304)", timeout=30.0) == b"\1\2\3\4" * 4_194_304
    )
