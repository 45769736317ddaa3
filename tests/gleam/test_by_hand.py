"""Decoders by hand in C beside their ``run`` in Python: the same values, the same errors, the same exceptions."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyglyn.errors import DecodeErrors
from pyglyn.etf import Atom, Term
from pyglyn.gleam import decode, dynamic
from pyglyn.testing import require
from tests.strategies import terms


@pytest.fixture(autouse=True)
def _built() -> None:
    require(dynamic.c, "the decoders in C were not built: they take a C compiler and Python's headers")


def _refuses(value: Any) -> Any:
    raise ValueError(value)


def _broken(value: Any) -> Any:
    raise TypeError(value)


def _positive(value: int) -> int:
    return value if value > 0 else _refuses(value)


def _raises(term: Term) -> Any:
    raise LookupError("in run")


PAIR = decode.field(
    0, decode.string, lambda key: decode.field(1, decode.int, lambda n: decode.success((key, n)))
)
TREE: decode.Decoder[Any] = decode.one_of(
    decode.int, [decode.list_of(decode.recursive(lambda: TREE)), decode.field(1, decode.string)]
)
DECODERS: dict[str, decode.Decoder[Any]] = {
    "string": decode.string,
    "int": decode.int,
    "float": decode.float,
    "bool": decode.bool,
    "atom": decode.atom,
    "bit array": decode.bit_array,
    "dynamic": decode.dynamic,
    "atom named": decode.atom_named("ok"),
    "nil": decode.atom_named("nil"),
    "success": decode.success(None),
    "failure": decode.failure(0, "Never"),
    "list": decode.list_of(decode.int),
    "list of pairs": decode.list_of(PAIR),
    "pair": PAIR,
    "field": decode.field(1, decode.int),
    "negative field": decode.field(-1, decode.int),
    "key": decode.field("key", decode.int, decode.success),
    "true as a position": decode.field(True, decode.int),
    "map": decode.int.map(lambda n: n + 1),
    "refused": decode.int.map(_positive),
    "broken": decode.int.map(_broken),
    "broken next": decode.field(0, decode.int, _broken),
    "refused next": decode.field(0, decode.int, _refuses),
    "no decoder next": decode.field(0, decode.int, lambda n: n),
    "then": decode.int.then(lambda n: decode.success(n) if n > 0 else decode.failure(0, "positive")),
    "then refused": decode.int.then(_refuses),
    "one of": decode.one_of(decode.int.map(_positive), [decode.string, decode.success(0)]),
    "one of, broken": decode.one_of(decode.int.map(_broken), [decode.success(0)]),
    "one of, run raises": decode.one_of(decode.Decoder(_raises), [decode.success(0)]),
    "optional": decode.list_of(decode.optional(decode.int)),
    "dict": decode.dict_of(decode.string, decode.int),
    "tree": TREE,
    "errors transformed": decode.list_of(decode.int.collapse_errors("Number")),
}
TERMS: list[Term] = [
    1, 0, -1, 1.5, True, None, b"text", b"\xff", Atom("ok"), Atom("null"), [], [1, 2], (1, 2), [1, b"x"], (b"k", 1), (b"k",),
    (b"k", b"v"), [(b"a", 1), (b"b", 2)], [(b"a", 1), (b"b", 2.0)], {b"key": 1}, {b"key": b"x"}, {b"a": 1}, [1, [2, [3, (1, b"x")]]],
    [1, [2, [3, (1, 4)]]], [None, 1], (), (1,), (1, b"x", 3), [True],
]  # fmt: skip


def outcome(function: Callable[[Term], Any], term: Term) -> Any:
    try:
        value = function(term)
    except DecodeErrors as refused:
        return "errors", list(refused.errors)
    except Exception as error:
        return type(error), str(error)
    return type(value), value


def by_python(decoder: decode.Decoder[Any]) -> Callable[[Term], Any]:
    """What ``decode`` is without C."""

    def decoded(term: Term) -> Any:
        value, errors = decoder.run(term)
        if errors:
            raise DecodeErrors(errors)
        return value

    return decoded


@pytest.mark.parametrize("name", DECODERS)
def test_each_decoder_gives_the_same(name: str) -> None:
    decoder = DECODERS[name]
    for term in TERMS:
        assert outcome(decoder.decode, term) == outcome(by_python(decoder), term), term


@given(name=st.sampled_from(sorted(DECODERS)), term=terms())
def test_any_term_gives_the_same(name: str, term: Term) -> None:
    decoder = DECODERS[name]
    assert outcome(decoder.decode, term) == outcome(by_python(decoder), term)


def test_what_fits_is_decoded_without_a_call_of_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(self: object, term: Term) -> Any:
        raise AssertionError("run was called")

    for cls in (
        decode.Field,
        decode.ListOf,
        decode.Success,
        decode.Text,
        decode.Exact,
        decode.OneOf,
        dynamic.Mapped,
    ):
        monkeypatch.setattr(cls, "run", never)
    decoder = decode.one_of(decode.string, [decode.list_of(PAIR).map(dict)])
    assert decoder.decode([(b"a", 1), (b"b", 2)]) == {"a": 1, "b": 2}


def test_a_function_may_change_what_is_being_decoded() -> None:
    term: list[Any] = [1, 2, 3]

    def clears(value: int) -> int:
        term.clear()
        return value

    decoder = decode.list_of(decode.int.map(clears))
    outcome(decoder.decode, term)
    field: Any = decode.field(0, decode.int, lambda n: decode.success(n))

    def forgets(value: int) -> decode.Decoder[int]:
        field.next = field.inner = None
        return decode.success(value)

    field.next = forgets
    assert field.decode((1,)) == 1


def test_a_term_too_deep_is_an_error() -> None:
    term: Term = []
    for _ in range(100_000):
        term = [term]
    with pytest.raises(DecodeErrors, match="less deeply nested"):
        TREE.decode(term)


def test_an_interrupt_is_let_through() -> None:
    def interrupted(value: int) -> int:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        decode.one_of(decode.int.map(interrupted), [decode.int]).decode(1)


def test_a_decoder_with_an_empty_slot_is_as_in_python() -> None:
    empty = dynamic.Mapped.__new__(dynamic.Mapped)
    with pytest.raises(AttributeError):
        empty.decode(1)


def test_only_known_classes_are_made() -> None:
    for arguments in ((), (int,), (decode.Success,), (decode.Success, 1, 2), (1, 2)):
        with pytest.raises(TypeError):
            dynamic.c.make(*arguments)
    for arguments in (
        (),
        (0, int, ()),
        (99, int, ()),
        (0, decode.Success, ("value",)),
        (-1, decode.Text, ()),
    ):
        with pytest.raises((TypeError, ValueError)):
            dynamic.c.know(*arguments)


def test_nothing_is_lost_or_kept() -> None:
    decoder = decode.one_of(decode.string, [decode.list_of(PAIR)])
    term = [(b"a", 1), (b"b", 2)]
    bad = [(b"a", 1), (b"b", 2.0)]
    outcome(decoder.decode, bad)
    gc.collect()
    before = sys.getrefcount(term), sys.getrefcount(decoder), sys.getrefcount(PAIR), sys.getallocatedblocks()
    for _ in range(100):
        decoder.decode(term)
        outcome(decoder.decode, bad)
    gc.collect()
    after = sys.getrefcount(term), sys.getrefcount(decoder), sys.getrefcount(PAIR), sys.getallocatedblocks()
    assert after[:3] == before[:3]
    assert after[3] - before[3] < 50
