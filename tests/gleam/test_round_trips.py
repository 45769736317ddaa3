"""Properties: random types with random values, and random terms against random types."""

from __future__ import annotations

import contextlib
import datetime
import enum
from typing import Any, Generic, TypeVar, Union

import attrs
import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from pyglyn import etf, gleam
from pyglyn.errors import DecodeErrors, UnsupportedType
from pyglyn.etf import Atom, Term
from pyglyn.gleam import Duration, Error, Ok, Result, Some, Timestamp, decode
from pyglyn.testing import Beam
from tests.gleam.terms import any_term, leaves

T = TypeVar("T")
U = TypeVar("U")


class Size(enum.Enum):
    SMALL = 1
    LARGE = 2


@attrs.frozen
class Leaf:
    pass


@attrs.frozen
class Node(Generic[T]):
    value: T
    left: Leaf | Node[T]
    right: Leaf | Node[T]


@attrs.frozen
class Wide(Generic[T, U]):
    first: T
    second: list[U]
    third: dict[str, T]
    fourth: int


@attrs.frozen
class Tagged(Generic[T]):
    value: T


Case = tuple[Any, st.SearchStrategy[Any]]
"""A type and its values."""

PLAIN: list[Case] = [
    (int, st.integers()),
    (float, st.floats(allow_nan=False, allow_infinity=False)),
    (bool, st.booleans()),
    (str, st.text()),
    (bytes, st.binary()),
    (None, st.none()),
    (Size, st.sampled_from(Size)),
    (Atom, st.sampled_from([Atom("a"), Atom("b")])),
    (Term, leaves),
    (Leaf, st.just(Leaf())),
    (Timestamp, st.integers(-(2**70), 2**70).map(Timestamp.from_nanoseconds)),
    (Duration, st.integers(-(2**70), 2**70).map(Duration.from_nanoseconds)),
    (datetime.datetime, st.datetimes(timezones=st.just(datetime.UTC))),
    (datetime.timedelta, st.timedeltas()),
]
"""``Term`` is among them, so that whatever is left alone is met at every place."""


def tree(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.recursive(st.just(Leaf()), lambda inner: st.builds(Node, values, inner, inner), max_leaves=5)


@st.composite
def cases(draw: st.DrawFn, depth: int = 3) -> Case:
    if depth == 0 or draw(st.booleans()):
        return draw(st.sampled_from(PLAIN))
    type_, values = draw(cases(depth=depth - 1))
    kind = draw(
        st.sampled_from(["list", "tuple", "dict", "option", "result", "some", "tree", "wide", "union"])
    )
    if kind == "list":
        return list[type_], st.lists(values, max_size=3)
    if kind == "dict":
        return dict[int, type_], st.dictionaries(st.integers(), values, max_size=3)
    if kind == "option":
        return Union[type_, None], st.none() | values  # noqa: UP007 - None | None is no type
    if kind == "some":
        return Some[type_] | None, st.none() | st.builds(Some, values)
    if kind == "tree":
        return Leaf | Node[type_], tree(values)
    other, others = draw(cases(depth=depth - 1))
    if kind == "tuple":
        return tuple[type_, other], st.tuples(values, others)
    if kind == "result":
        return Result[type_, other], st.builds(Ok, values) | st.builds(Error, others)
    if kind == "union":
        return Tagged[type_] | Leaf | Size, st.builds(Tagged, values) | st.sampled_from([Leaf(), *Size])
    return Wide[type_, other], st.builds(
        Wide,
        values,
        st.lists(others, max_size=2),
        st.dictionaries(st.text(), values, max_size=2),
        st.integers(),
    )


@st.composite
def valued(draw: st.DrawFn) -> tuple[Any, Any]:
    """A type and a value of it; types whose options are ambiguous are left out."""
    type_, values = draw(cases().filter(supported))
    return type_, draw(values)


def supported(case: Case) -> bool:
    """Tell whether a type has no option of an option, the one thing wrong that the types above can have."""
    with contextlib.suppress(UnsupportedType):
        gleam.decoder(case[0])
        return True
    with pytest.raises(UnsupportedType, match="Some"):
        gleam.encoder(case[0])
    return False


@settings(max_examples=4 * settings.default.max_examples)
@given(valued())
def test_decode_of_encode_is_the_value_through_bytes(case: tuple[Any, Any]) -> None:
    type_, value = case
    term = gleam.encoder(type_).encode(value)
    arrived = etf.decode(etf.encode(term))
    assert gleam.decoder(type_).decode(arrived) == value
    assert etf.exact_key(arrived) == etf.exact_key(etf.normalise(term))


@settings(max_examples=4 * settings.default.max_examples)
@given(any_term, cases().filter(supported))
def test_any_term_for_any_type_decodes_or_is_refused(term: Term, case: Case) -> None:
    """And what is taken is the same term again: nothing was converted or lost."""
    type_, _ = case
    decoder = gleam.decoder(type_)
    match decode.run(term, decoder):
        case Ok(value):
            assert etf.exact_key(gleam.encode(value, type_)) == etf.exact_key(term)
        case Error(errors):
            with pytest.raises(DecodeErrors) as caught:
                decoder.decode(term)
            assert list(caught.value.errors) == errors
            assert all(each.expected and each.found for each in errors)


@st.composite
def spoiled(draw: st.DrawFn) -> tuple[Any, Term]:
    """A type, and a term of it in which one element was replaced by what fits nowhere."""
    type_, value = draw(valued())
    term = etf.normalise(gleam.encode(value, type_))
    place: list[int] = []
    inner = term
    while isinstance(inner, (list, tuple)) and inner:
        place.append(draw(st.integers(0, len(inner) - 1)))
        inner = inner[place[-1]]
    return type_, replaced(term, place)


ALIEN = etf.Port("nowhere@b", 1, 2)


def replaced(term: Any, place: list[int]) -> Term:
    if not place:
        return ALIEN
    at, *rest = place
    return type(term)([*term[:at], replaced(term[at], rest), *term[at + 1 :]])


@settings(max_examples=3 * settings.default.max_examples)
@given(spoiled())
def test_what_fits_nowhere_is_always_found(case: tuple[Any, Term]) -> None:
    type_, term = case
    match decode.run(term, gleam.decoder(type_)):
        case Ok(value):
            assert repr(ALIEN) in repr(value), "only a Term takes it"
        case Error(errors):
            assert any(each.found != "Nothing" for each in errors)


async def test_the_beam_agrees_with_our_bytes(shared_beam: Beam) -> None:
    """Random values go to a real node and back, as terms that it has taken apart and put together."""
    found: list[tuple[Any, Any]] = []

    @settings(max_examples=100, database=None)
    @given(valued())
    def collect(case: tuple[Any, Any]) -> None:
        found.append(case)

    collect()
    for type_, value in found:
        sent = etf.encode(gleam.encode(value, type_))
        back = await shared_beam.eval_bytes("Sent", Sent=sent)
        assert gleam.decoder(type_).decode(etf.decode(back)) == value
