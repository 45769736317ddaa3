"""Encoded terms to values, and values to encoded terms: what it is with a term in between, errors and limits included."""

from __future__ import annotations

import gc
import random
import sys
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given

from pyglyn import etf, gleam
from pyglyn.errors import DecodeError, DecodeErrors, EncodeError, UnsupportedType, ValueEncodeError
from pyglyn.etf import Atom, Limits, Term
from pyglyn.gleam import plans
from pyglyn.gleam.plans import MISFIT
from pyglyn.testing import require
from tests.gleam.terms import any_term
from tests.gleam.test_plans import LEAF, VALUES, Anything, Box, Empty, Leaf, Own, Tree, Wide, _variants

TYPES: list[Any] = [
    *dict.fromkeys(type_ for type_, _ in VALUES),
    list[Any],
    list[int | str],
    list[float],
    dict[int, Any],
    dict[bytes, list[str]],
    list[tuple[str, int | None]],
    Box[Tree | Empty],
]


@pytest.fixture(autouse=True)
def _built() -> None:
    require(plans.c, "the plans in C were not built: they take a C compiler and Python's headers")


def outcome(function: Callable[[], Any]) -> object:
    """A result with every type in it, or an error with all that it says."""
    try:
        return repr(function())
    except DecodeErrors as error:
        return repr(list(error.errors))
    except ValueEncodeError as error:
        return error.expected, error.found, error.path
    except (DecodeError, EncodeError, UnsupportedType) as error:
        return type(error), str(error), vars(error)


def same_as_by_the_term(decoder: Any, data: bytes, limits: Limits = etf.Limits()) -> None:  # noqa: B008
    expected = outcome(lambda: decoder.decode(etf.decode(data, limits=limits)))
    assert outcome(lambda: decoder.decode_bytes(data, limits=limits)) == expected
    planned = decoder._plan.read(data, limits)
    assert planned is MISFIT or repr(planned) == expected


def damaged(data: bytes, count: int, seed: int) -> Iterator[bytes]:
    """Cut off, prolonged, and with a byte or two replaced by one that means something."""
    chosen = random.Random(seed)
    yield from (data[:size] for size in range(len(data)))
    yield data + b"j"
    tags = bytes(
        [0, 1, 2, 3, 97, 98, 70, 100, 104, 105, 106, 107, 108, 109, 110, 115, 116, 118, 119, 131, 255]
    )
    for _ in range(count):
        made = bytearray(data)
        for _ in range(chosen.randint(1, 2)):
            made[chosen.randrange(len(made))] = chosen.choice(tags)
        yield bytes(made)


@pytest.mark.parametrize(("type_", "value"), VALUES, ids=[str(type_)[:40] for type_, _ in VALUES])
def test_what_fits_is_read_and_written_without_a_term(type_: Any, value: Any) -> None:
    decoder: Any = gleam.decoder(type_)
    encoder: Any = gleam.encoder(type_)
    data = etf.encode(encoder.encode(value))
    assert encoder._plan.write(value) == encoder.encode_bytes(value) == data
    assert (
        repr(decoder._plan.read(data))
        == repr(decoder.decode_bytes(data))
        == repr(decoder.decode(etf.decode(data)))
    )
    for kind in (bytearray, memoryview):
        assert repr(decoder._plan.read(kind(data))) == repr(decoder.decode_bytes(data))
    padded = b"xx" + data[1:] + b"rest"
    assert (
        repr(decoder._plan.read_bare(padded, 2))
        == repr(decoder.decode_bare(padded, 2))
        == repr(decoder.decode_bytes(data))
    )


@pytest.mark.parametrize(("type_", "value"), VALUES, ids=[str(type_)[:40] for type_, _ in VALUES])
def test_what_does_not_fit_ends_as_it_does_by_the_term(type_: Any, value: Any) -> None:
    decoder: Any = gleam.decoder(type_)
    encoder: Any = gleam.encoder(type_)
    term = encoder.encode(value)
    for variant in _variants(term):
        same_as_by_the_term(decoder, etf.encode(variant))
        assert outcome(lambda v=variant: encoder.encode_bytes(v)) == outcome(
            lambda v=variant: etf.encode(encoder.encode(v))
        )  # type: ignore[misc]
    for data in damaged(etf.encode(term), 300, seed=len(repr(type_))):
        same_as_by_the_term(decoder, data)


@given(any_term)
def test_any_term_ends_as_it_does_by_the_term(term: Term) -> None:
    data = etf.encode(term)
    for type_ in TYPES:
        same_as_by_the_term(gleam.decoder(type_), data)


@pytest.mark.parametrize(("type_", "value"), VALUES, ids=[str(type_)[:40] for type_, _ in VALUES])
def test_limits_hold_to_the_element(type_: Any, value: Any) -> None:
    decoder: Any = gleam.decoder(type_)
    data = etf.encode(gleam.encoder(type_).encode(value))
    for limits in [*(Limits(depth=n) for n in range(8)), *(Limits(elements=n) for n in range(40))]:
        same_as_by_the_term(decoder, data, limits)
    refused = [limits for n in range(40) if decoder._plan.read(data, limits := Limits(elements=n)) is MISFIT]
    expected = [limits for n in range(40) if _exceeds(data, limits := Limits(elements=n))]
    assert refused == expected


def _exceeds(data: bytes, limits: Limits) -> bool:
    try:
        etf.decode(data, limits=limits)
    except DecodeError:
        return True
    return False


LEAF_BYTES = b"\x83h\3w\4leafm\0\0\0\1xa\1"


@pytest.mark.parametrize(
    "spelled",
    [
        b"\x83h\3d\0\4leafm\0\0\0\1xa\1",
        b"\x83h\3s\4leafm\0\0\0\1xa\1",
        b"\x83h\3v\0\4leafm\0\0\0\1xa\1",
        b"\x83i\0\0\0\3w\4leafm\0\0\0\1xa\1",
        b"\x83h\3w\4leafm\0\0\0\1xn\1\0\1",
        etf.encode(etf.decode(LEAF_BYTES), compressed=9),
        b"\x83P\0\0\0\x10" + zlib.compress(LEAF_BYTES[1:]),
    ],
)
def test_the_same_term_in_other_words_is_the_same_value(spelled: bytes) -> None:
    decoder: Any = gleam.decoder(Leaf)
    assert decoder._plan.read(LEAF_BYTES) == decoder.decode_bytes(spelled) == Leaf("x", 1)


@pytest.mark.parametrize(
    ("type_", "data"),
    [
        (list[int], b"\x83k\0\2ab"),
        (list[int | str], b"\x83k\0\2ab"),
        (list[float], b"\x83k\0\2ab"),
        (list[str], b"\x83l\0\0\0\1m\0\0\0\1al\0\0\0\1m\0\0\0\1bj"),
        (list[str], b"\x83l\0\0\0\0j"),
        (list[str], b"\x83l\0\0\0\0m\0\0\0\1b"),
        (list[str], b"\x83l\0\0\0\1m\0\0\0\1bm\0\0\0\1b"),
        (list[str], b"\x83l\0\0\0\1m\0\0\0\1bk\0\1a"),
        (dict[str, int], b"\x83t\0\0\0\2m\0\0\0\1ka\1m\0\0\0\1ka\2"),
        (dict[float, int], b"\x83t\0\0\0\2F\x3f\xf0\0\0\0\0\0\0a\1F\x3f\xf0\0\0\0\0\0\0a\2"),
        (dict[Any, int], b"\x83t\0\0\0\2a\1a\1F\x3f\xf0\0\0\0\0\0\0a\2"),
        (tuple[()], b"\x83h\0"),
        (Any, b"\x83l\xff\xff\xff\xffj"),
        (list[str], b"\x83l\xff\xff\xff\xffj"),
        (list[Leaf], b"\x83l\x7f\xff\xff\xff" + b"j" * 1000),
        (dict[str, str], b"\x83t\xff\xff\xff\xffj"),
    ],
)
def test_lists_and_maps_of_every_form(type_: Any, data: bytes) -> None:
    same_as_by_the_term(gleam.decoder(type_), data)


@pytest.mark.parametrize(
    ("type_", "value"),
    [
        (list[int], [1, 2, 255]),
        (list[int], [1, 256]),
        (list[int], [True]),
        (list[bool], [True, False]),
        (list[int | str], [1, 2]),
        (list[int | str], [1, "x"]),
        (list[int | str], ["x", 1]),
        (list[Term], [1, 2]),
        (list[Term], [1, object()]),
        (Any, [1, 2, 3]),
        (Any, Anything([1, 2, Anything([b"", LEAF])])),
        (list[int | None], [1, None]),
        (str, "\ud800"),
        (str, "ü" * 1000),
        (float, float("inf")),
        (int, 1 << 200),
        (int, -1),
        (Wide, Wide(*[n << 8 * n for n in range(14)])),
        (list[Leaf], [LEAF] * 1000),
        (Term, object()),
    ],
    ids=[str(number) for number in range(20)],
)
def test_what_is_written_is_what_the_codec_writes_of_the_term(type_: Any, value: Any) -> None:
    encoder: Any = gleam.encoder(type_)
    expected = outcome(lambda: etf.encode(encoder.encode(value)))
    assert outcome(lambda: encoder.encode_bytes(value)) == expected
    written = encoder._plan.write(value)
    assert written is MISFIT or repr(written) == expected


def test_values_are_written_by_their_class() -> None:
    value: Any = Anything([Leaf("a", 1), Anything([1, 2]), None, {"k": (1.5, b"x")}, [LEAF, 5]])
    plan = gleam.default_converter._encode_plans.by_class
    assert plan.write(value) == gleam.encode_bytes(value) == etf.encode(gleam.encode(value))
    assert gleam.encode_bytes(None, int | None) == etf.encode(Atom("none"))
    for wrong in (object(), Anything(object()), Anything([float("nan")])):
        assert outcome(lambda w=wrong: gleam.encode_bytes(w)) == outcome(lambda w=wrong: gleam.encode(w))  # type: ignore[misc]


def test_decoders_by_hand_take_bytes_too() -> None:
    decoder = gleam.decode.field(1, gleam.decode.string)
    assert decoder.decode_bytes(LEAF_BYTES) == decoder.decode_bare(LEAF_BYTES, 1) == "x"
    with pytest.raises(DecodeErrors):
        decoder.decode_bytes(b"\x83j")


def test_the_collector_runs_while_a_hook_does_and_is_as_it_was_afterwards() -> None:
    converter = gleam.Converter()
    seen: list[bool] = []

    def structure(term: Any, _: object) -> Own:
        seen.append(gc.isenabled())
        if term == b"bad":
            raise ValueError
        return Own("x")

    converter.register_structure_hook(Own, structure)
    decoder = converter.decoder(list[Own])
    assert len(decoder.decode_bytes(etf.encode([b"x" * 200] * 20))) == 20
    with pytest.raises(DecodeErrors):
        decoder.decode_bytes(etf.encode([b"x" * 200] * 20 + [b"bad"]))
    assert set(seen) == {True}
    assert gc.isenabled()


def test_an_interruption_goes_through() -> None:
    converter = gleam.Converter()

    def interrupt(*_: object) -> Any:
        raise KeyboardInterrupt

    converter.register_structure_hook(Own, interrupt)
    converter.register_unstructure_hook(Own, interrupt)
    with pytest.raises(KeyboardInterrupt):
        converter.decoder(list[Own]).decode_bytes(etf.encode([1]))
    with pytest.raises(KeyboardInterrupt):
        converter.encoder(list[Own]).encode_bytes([Own("x")])


def test_a_list_that_a_hook_changes_does_no_harm() -> None:
    converter = gleam.Converter()
    values = [Box(Own("a"), None), Box(Own("b"), None)]

    def unstructure(own: Own) -> Term:
        values.clear()
        return 1

    converter.register_unstructure_hook(Own, unstructure)
    encoder = converter.encoder(list[Box[Own]])
    assert etf.decode(encoder.encode_bytes(values)) in ([], [(Atom("box"), 1, Atom("none"))])


def test_deep_values_end_in_an_error_and_not_in_a_crash() -> None:
    term: Any = (Atom("tree"), b"leaf", [])
    value = Tree("leaf", [])
    for _ in range(20_000):
        term = (Atom("tree"), b"x", [term])
        value = Tree("x", [value])
    limits = Limits(depth=1 << 20)
    with pytest.raises(DecodeErrors, match="less deeply nested"):
        gleam.decoder(Tree).decode_bytes(etf.encode(term), limits=limits)
    with pytest.raises(ValueEncodeError, match="less deeply nested"):
        gleam.encoder(Tree).encode_bytes(value)


def test_nothing_is_kept_of_what_was_read_or_written() -> None:
    cases = []
    for type_, value in VALUES:
        decoder, encoder = gleam.decoder(type_), gleam.encoder(type_)
        data = encoder.encode_bytes(value)
        cases.append((decoder, encoder, value, [data, *damaged(data, 20, seed=1)]))

    def rounds(count: int) -> int:
        for _ in range(count):
            for decoder, encoder, value, inputs in cases:
                for data in inputs:
                    outcome(lambda d=decoder, b=data: d.decode_bytes(b))  # type: ignore[misc]
                encoder.encode_bytes(value)
                outcome(lambda e=encoder: e.encode_bytes(Anything(object())))  # type: ignore[misc]
        gc.collect()
        return sys.getallocatedblocks()

    rounds(2)
    before = rounds(1)
    assert rounds(5) - before < 200
