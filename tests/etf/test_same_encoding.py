"""The codec in C beside the one in Python: same value in, same bytes or same error out."""

from __future__ import annotations

import contextlib
import gc
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyglyn.errors import EncodeError
from pyglyn.etf import Atom, BitString, Export, Fun, ImproperList, Pid, Port, Reference, TermMap, exact_key
from pyglyn.etf import pure as python
from tests.etf.codec import ENCODING, NORMALISING, assert_same, function_of, outcome_of
from tests.strategies import encodable, scalars, terms


def _values() -> st.SearchStrategy[Any]:
    """What encode takes, and what it refuses."""
    wrong = st.one_of(
        st.sampled_from([float("nan"), float("-inf"), "\ud800", object, 1j, frozenset(), range(3)]),
        st.builds(
            Pid, st.sampled_from(["a@b", "é" * 256, ""]), st.integers(-1, 1 << 33), st.just(0), st.just(1)
        ),
        st.builds(Reference, st.just("a@b"), st.just(1), st.lists(st.integers(-1, 9), max_size=6).map(tuple)),
        st.builds(Export, st.just("m"), st.just("f"), st.integers(-1, 300)),
    )
    return st.one_of(
        encodable(),
        st.recursive(
            st.one_of(scalars(), wrong),
            lambda inner: st.one_of(
                st.lists(inner, max_size=3),
                st.lists(inner, max_size=3).map(tuple),
                st.dictionaries(
                    st.one_of(st.text(max_size=1), st.binary(max_size=1), st.booleans()), inner, max_size=3
                ),
            ),
            max_leaves=8,
        ),
    )


@given(value=_values())
def test_a_value_gives_the_same_bytes_or_the_same_error(speedups: ModuleType, value: Any) -> None:
    for name in (*ENCODING, NORMALISING):
        assert_same(speedups, name, value)


class _Whole(int):
    pass


class _Words(tuple[int, ...]):
    """Calls ``then`` in the middle of being encoded."""

    then: Callable[[], object]

    def __iter__(self) -> Iterator[int]:
        self.then()
        return super().__iter__()

    def __len__(self) -> int:
        self.then()
        return super().__len__()


def _cycle() -> list[Any]:
    cycle: list[Any] = [1]
    cycle.append((cycle,))
    return cycle


BIG = 65_536
VALUES: list[Any] = [
    [1, _Whole(2)], [_Whole(1), 2], [1, True], [True], [1, 2, 1000], [1, 1 << 80], [255, 256], [0] * 65_535, [0] * 65_536,
    _Whole(300), [1, 2.0], {_Whole(1): 1}, {1: 1, "a": 2}, {"a": 1, b"b": 2}, {"a": 1, b"a": 2}, {(1,): 1}, {("a",): 1, (b"a",): 2},
    -(1 << 63), (1 << 63) - 1, 1 << 63, -(1 << 31), -(1 << 31) - 1, 1 << 31, 1 << 32, 256, 255, -1, 1 << 4096,
    "ü", "\ud800", "a" * 600, {"": ""}, "é" * BIG, Atom("é" * 255), bytearray(b"ab"), memoryview(b"abcd")[::2],
    TermMap([(1, 2), (1.0, 3)]), Fun(b"raw", "m", 1, 0, b""), Port("a@b", 1, 2), BitString(b"\x80", 1), ImproperList((1,), 2),
    (None,) * 255, (None,) * 256, _cycle(), {1: _cycle()}, ImproperList((_cycle(),), 1), type, ..., {1},
]  # fmt: skip

PARTS: list[Any] = [
    bytes(size) for size in (BIG - 6, BIG - 5, BIG - 4, BIG - 1, BIG, BIG + 1)
] + [
    bytearray(BIG), memoryview(bytes(BIG)), [memoryview(bytearray(BIG)), 1], "a" * (BIG - 5), "a" * BIG, [1] * 65_533,
    [[1] * 65_535, [1] * 65_534], 1 << (8 * BIG), [1 << (8 * BIG)] * 2, [b"a" * 40_000, b"b" * 40_000], [bytes(BIG)] * 3,
    (1, bytes(BIG), [b"x"], bytes(BIG)), {bytes(BIG): bytes(BIG)}, ImproperList((bytes(BIG),), bytes(BIG)), [b"x" * 70_000, object()],
    [list(range(1000))] * 100,
]  # fmt: skip


@pytest.mark.parametrize("value", [*VALUES, *PARTS], ids=lambda value: type(value).__name__)
def test_values_that_take_another_way_give_the_same(speedups: ModuleType, value: Any) -> None:
    for name in (*ENCODING, NORMALISING):
        assert_same(speedups, name, value)
        assert_same(speedups, name, [b"first", value, 1])


@pytest.mark.parametrize("value", PARTS[:13], ids=lambda value: type(value).__name__)
def test_large_binaries_are_the_same_parts_uncopied(speedups: ModuleType, value: Any) -> None:
    mine, theirs = speedups.encode_parts([value, 1000]), python.encode_parts([value, 1000])
    assert [(type(part), len(part)) for part in mine] == [(type(part), len(part)) for part in theirs]
    if type(value) is bytes and len(value) >= BIG:
        assert any(part is value for part in mine)


def test_what_changes_while_it_is_encoded_does_no_harm(speedups: ModuleType) -> None:
    """Python code that runs in between may do anything to a list or a dict under way."""
    for change in ("clear", "grow", "replace"):
        for kind in (list, dict):
            words = _Words((1, 2))
            reference = Reference("a@b", 1, words)
            outer: Any = (
                [reference, *map(str, range(50))] if kind is list else dict.fromkeys(range(50), reference)
            )

            def then(outer: Any = outer, change: str = change, reference: Reference = reference) -> None:
                if change == "clear":
                    outer.clear()
                elif isinstance(outer, list):
                    outer[:] = [reference] * (100 if change == "grow" else len(outer))
                elif change == "grow":
                    outer.update(dict.fromkeys(map(str, range(1000)), 0))
                else:
                    outer.update(dict.fromkeys(outer, reference))

            words.then = then
            for name in (*ENCODING, NORMALISING):
                outcome_of(getattr(speedups, name), (outer, b"after"))
    gc.collect()


def test_what_interrupts_python_code_in_between_goes_through(speedups: ModuleType) -> None:
    words = _Words((1, 2))

    def then() -> None:
        raise KeyboardInterrupt

    words.then = then
    for name in ENCODING:
        with pytest.raises(KeyboardInterrupt):
            getattr(speedups, name)([Reference("a@b", 1, words)])


def _deep_cycle(length: int, before: int) -> Any:
    inner: list[Any] = []
    outer: Any = inner
    for n in range(length):
        outer = {n: outer} if n % 3 == 0 else (outer, n) if n % 3 == 1 else [n, outer]
    inner.append(outer)
    for _ in range(before):
        outer = (outer,)
    return outer


@pytest.mark.parametrize("length", [0, 1, 2, 60, 63, 64, 65, 130, 1_000])
@pytest.mark.parametrize("before", [0, 1, 63, 64, 65, 200])
def test_cycles_of_any_length_at_any_depth_are_found(speedups: ModuleType, length: int, before: int) -> None:
    value = _deep_cycle(length, before)
    for name in (*ENCODING, NORMALISING):
        kind, text, *_ = outcome_of(function_of(speedups, name), value)  # type: ignore[misc]
        assert (kind, "contains itself" in text) == (EncodeError, True)
    assert_same(speedups, NORMALISING, value)


def test_what_occurs_often_is_no_cycle(speedups: ModuleType) -> None:
    """The same container, again and again at depths near those that are remembered."""
    shared: Any = [1000]
    value: Any = shared
    for n in range(300):
        value = [shared, value, (shared, {n: shared})] if n % 2 else (value, shared)
    for name in (*ENCODING, NORMALISING):
        assert_same(speedups, name, value)


@given(term=terms(max_leaves=10))
def test_what_one_wrote_the_other_reads(speedups: ModuleType, term: Any) -> None:
    assert (
        exact_key(speedups.decode(python.encode(term)))
        == exact_key(python.decode(speedups.encode(term)))
        == exact_key(term)
    )


@pytest.mark.parametrize("ints", [(255, 256, 257), (4_095, 4_096, 4_097), (2**30 - 1, 2**30, 2**30 + 1)])
@pytest.mark.parametrize("sign", [1, -1])
def test_numbers_around_each_border_are_the_same(
    speedups: ModuleType, ints: tuple[int, ...], sign: int
) -> None:
    borders = [*ints, 2**31 - 1, 2**31, 2**31 + 1, 2**32 - 1, 2**32, 2**60 - 1, 2**60, 2**64 - 1, 2**64]
    for number in [sign * each for each in borders]:
        for value in (
            number, [number, number], Pid("a@b", 1, 0, number), Pid("a@b", number, 2, 3), Port("a@b", number, 1),
            Reference("a@b", number, (1,)), Reference("a@b", 1, (2, number)), Export("m", "f", number),
        ):  # fmt: skip
            for name in ENCODING:
                assert_same(speedups, name, value)
        data = speedups.encode([number, number])
        assert speedups.decode(data) == python.decode(data) == [number, number]


def test_what_comes_last_in_tuples_is_the_same(speedups: ModuleType) -> None:
    large = bytes(70_000)
    inner: Any = (1, (2, [3, (4,)], (5, (), ((),))))
    for value in (
        ((((inner,),),),), (inner, [inner, (inner,)], (inner,)), ({1: (2, (3,))}, (4, {5: (6,)})),
        (large, (large, (large,))), ((((large,),),),), (1, (bytearray(3), (bytearray(2),))),
        (1, ImproperList((1, (2,)), (3, (4,)))), ((_cycle(),),), (1, (2, _cycle())),
    ):  # fmt: skip
        for name in ENCODING:
            assert_same(speedups, name, value)


def test_tuples_in_last_place_are_let_go_when_they_are_written(speedups: ModuleType) -> None:
    inner = (bytearray(3),)
    value = (1, (2, (3, [inner])))
    before = sys.getrefcount(inner), sys.getrefcount(value), sys.getrefcount(value[1])
    for _ in range(3):
        speedups.encode(value)
        with contextlib.suppress(EncodeError):
            speedups.encode((1, (value, (object(),))))
    assert (sys.getrefcount(inner), sys.getrefcount(value), sys.getrefcount(value[1])) == before
