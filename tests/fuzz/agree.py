"""Compare the codec in C with the one in Python on one input; called by ``harness.c``."""

from __future__ import annotations

import enum
import sys
from typing import Any

import _speedups  # type: ignore[import-not-found]
import attrs

from pyglyn import etf
from pyglyn.errors import DecodeError
from pyglyn.etf import Limits, frames, pure
from tests.etf.codec import DECODING, assert_same, outcome_of

# The plans are those of the program: made as if its codec was the one in use.
sys.modules["pyglyn.etf._speedups"] = _speedups
import _plans  # type: ignore[import-not-found]  # noqa: E402

sys.modules["pyglyn.gleam._plans"] = _plans
etf.IMPLEMENTATION = "c"
from pyglyn import gleam  # noqa: E402
from pyglyn.gleam import plans  # noqa: E402

etf.IMPLEMENTATION = "python"
assert plans.c is _plans

LIMITS = [Limits(), Limits(depth=5, elements=100, size=1000)]


@attrs.frozen
class Ok:
    value: Any


@attrs.frozen
class Error:
    value: int | str | list[int] | None
    at: float = attrs.field(default=0.0, validator=lambda *_: None)


class Colour(enum.Enum):
    A = 1
    OK = 2


DECODERS: list[Any] = [
    gleam.decoder(type_)
    for type_ in (
        Any, Ok | Error | int | str | float | dict[str, Any], list[Ok | Error | Colour], list[int], list[str], list[list[Any]],
        dict[bytes, int | None], dict[int, Any], tuple[int, Any], tuple[Any, Any, Any], Ok, Error, set[Any], Colour, float, etf.Pid,
    )
]  # fmt: skip
"""Of the terms that are generated, many fit some of these."""


def check(data: bytes) -> None:
    """Read, write and normalise; every result and every error has to be the same.

    Raises:
        AssertionError: one is not.
    """
    for limits in LIMITS:
        assert_same(_speedups, "decode_bare", data, limits=limits)
        for name in DECODING[:2]:
            assert_same(_speedups, name, b"\x83" + data, limits=limits)
        for decoder in DECODERS:
            agree_on_value(decoder, b"\x83" + data, limits)
    framed = (len(data).to_bytes(4) + data) * 2 + data
    for known in ({}, {data[:size]: size for size in range(1, 100)}):
        for each in (data, framed):
            for begins in (b"", b"\x83D\0"):
                assert cut(_speedups, each, begins, known) == cut(frames, each, begins, known)
    try:
        term, _ = pure.decode_bare(data)
    except DecodeError:
        return
    for name in ("encode", "encode_parts", "normalise"):
        assert_same(_speedups, name, term)
    for most in (8, 100, 1 << 20):
        assert _speedups.pack_frame(b"head", term, most) == frames.pack_frame(b"head", term, most)


def values_of(data: bytes, tight: int) -> None:
    """Make values of the bytes, and write them: whatever comes of it, the sanitizers look on."""
    for decoder in DECODERS:
        made = decoder._plan.read_bare(data, 0, LIMITS[tight])
        if made is not plans.MISFIT:
            gleam.default_converter._encode_plans.by_class.write(made)


def agree_on_value(decoder: Any, data: bytes, limits: Limits) -> None:
    """Make a value of the bytes, and bytes of that: they have to be those over the term."""
    value = outcome_of(lambda: decoder.decode(pure.decode(data, limits=limits)))
    planned = decoder._plan.read(data, limits)
    assert planned is plans.MISFIT or outcome_of(lambda: planned) == value
    if planned is not plans.MISFIT:
        by_class = gleam.default_converter._encode_plans.by_class
        written = by_class.write(planned)
        assert written is plans.MISFIT or written == pure.encode(gleam.encode(planned))


SIGNALS: frames.Signals = {
    op: (letters, lambda *fields: fields, op > 30) for op, letters in ((19, "pnr"), (20, "pnr"), (33, "pr"))
}


def cut(codec: Any, data: bytes, begins: bytes, known: dict[bytes, int]) -> tuple[int, list[Any]]:
    """The frames that one of the two cuts off."""
    runs: list[Any] = []
    return codec.cut_frames(data, 0, 1 << 16, begins, known, runs, SIGNALS), runs
