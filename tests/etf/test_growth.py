"""The work grows with the size of the input and no faster: for both codecs, and for what is built on terms."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from pyglyn.errors import TruncatedTerm
from pyglyn.etf import TermMap, exact_key, normalise, pure, text
from tests.etf.codec import IMPLEMENTATIONS
from tests.etf.shapes import DEEP, LARGE, NESTED, WIDE
from tests.etf.steps import counted_speedups, grows_with_the_size, steps


@pytest.fixture(params=list(IMPLEMENTATIONS))
def counted(request: pytest.FixtureRequest) -> ModuleType:
    """Each codec in the form whose steps are counted."""
    return counted_speedups() if request.param == "c" else pure


@pytest.mark.beside
@pytest.mark.parametrize("shape", LARGE)
def test_reading_and_writing_grow_with_the_size(counted: ModuleType, shape: str) -> None:
    def reading(n: int) -> Callable[[], Any]:
        data = LARGE[shape](n)
        return lambda: counted.decode(data, limits=WIDE)

    def writing(n: int) -> Callable[[], Any]:
        term = pure.decode(LARGE[shape](n), limits=WIDE)
        return lambda: counted.encode(term)

    assert grows_with_the_size(reading)
    assert grows_with_the_size(writing)


@pytest.mark.beside
@pytest.mark.parametrize("shape", LARGE)
def test_normalising_and_comparing_grow_with_the_size(shape: str) -> None:
    def normalising(n: int) -> Callable[[], Any]:
        term = pure.decode(LARGE[shape](n), limits=WIDE)
        return lambda: normalise(term)

    def comparing(n: int) -> Callable[[], Any]:
        term = pure.decode(LARGE[shape](n), limits=WIDE)
        return lambda: exact_key((term,))

    assert grows_with_the_size(normalising)
    assert grows_with_the_size(comparing)


@pytest.mark.beside
def test_damage_at_the_very_end_is_found_in_one_more_pass(counted: ModuleType) -> None:
    """One that goes step by step to say where, which takes some three times as many steps as the quick one."""
    data = pure.encode([1000] * 4_000)

    def fail() -> None:
        with pytest.raises(TruncatedTerm):
            counted.decode(data[:-1])

    one_pass = steps(lambda: counted.decode(data))
    assert steps(fail) < one_pass + 4 * steps(lambda: pure.decode(data))


@pytest.mark.beside
def test_a_square_is_seen() -> None:
    """Lines, and what is copied."""
    assert not grows_with_the_size(lambda n: lambda: [0 for _ in range(n) for _ in range(n)], few=30)
    assert not grows_with_the_size(lambda n: lambda: [bytes(n)[at:] for at in range(n)], few=1000)
    assert grows_with_the_size(lambda n: lambda: [bytes(n), [0 for _ in range(n)]])


@pytest.mark.parametrize("shape", NESTED)
def test_deep_terms_normalise_compare_and_print(shape: str) -> None:
    data = NESTED[shape](DEEP)
    term = pure.decode(data, limits=WIDE)
    again = normalise(term)
    assert pure.encode(again) == data
    assert exact_key(again) == exact_key(term)
    assert exact_key((term,)) != exact_key((again, 1))
    assert exact_key(text.parse(text.format(term))) == exact_key(term)
    assert TermMap([(term, 1)])[again] == 1
