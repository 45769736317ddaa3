"""Formats that peers send, with what is large or wide: bounded in steps and in characters."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest

from pyglyn.etf import Atom, BitString, ImproperList, io_lib
from tests.etf.steps import steps

LARGE: dict[str, Any] = {
    "numbers": [*range(1000, 200_000)],
    "a tuple": tuple(range(200_000)),
    "a string": [97] * 300_000,
    "a binary": b"a" * 300_000,
    "bytes": bytes(300_000),
    "a number": 1 << 3_000_000,
    "lists": [[Atom("a"), [b"x"]]] * 100_000,
    "a map": {n: n for n in range(100_000)},
    "maps": {n: {Atom("a"): b"x"} for n in range(50_000)},
    "an improper list": ImproperList(range(100_000), b"x"),
    "bits": BitString(bytes(100_000), 3),
}


def _nested(term: Any) -> Any:
    for _ in range(300):
        term = (Atom("a"), term)
    return term


@pytest.mark.beside
@pytest.mark.parametrize("control", ["~p", "~w", "~ts", "~.36B"])
@pytest.mark.parametrize("what", LARGE)
def test_of_what_is_large_little_is_shown_in_little_time(what: str, control: str) -> None:
    """The steps would be millions, or the memory that of 300 copies."""
    template, text = control.encode(), []
    for term in (LARGE[what], _nested(LARGE[what])):

        def work(term: Any = term) -> None:
            with contextlib.suppress(io_lib.BadFormat):
                text.append(io_lib.format(template, [term]))

        assert steps(work) < 2_500_000
    assert all(len(each) < 1_000_000 for each in text)


@pytest.mark.beside
@pytest.mark.parametrize(
    ("template", "args"),
    [
        (b"~i" * 100_000, [0] * 100_000),
        (b"~c" * 5_000, [97] * 5_000),
        (b"~s" * 1_000, [b"x" * 60] * 1_000),
        (b"~60000c" * 1_500, [97] * 1_500),
        (b"~60000n" * 1_500, []),
        (b"~.60000f" * 1_000, [1.5] * 1_000),
        (b"~p" * 1_000, [[*range(1000, 1100)]] * 1_000),
        (b"x" * 500_000 + b"~~" * 1_500, []),
    ],
)
def test_a_format_of_many_parts_takes_little_time_and_memory(template: bytes, args: list[Any]) -> None:
    done: list[str] = []

    def work() -> None:
        with contextlib.suppress(io_lib.BadFormat):
            done.append(io_lib.format(template, args))

    assert steps(work) < 2_500_000
    assert all(len(text) <= io_lib.MAX_TEXT + 3 for text in done)
