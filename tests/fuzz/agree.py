"""Compare the codec in C with the one in Python on one input; called by ``harness.c``."""

from __future__ import annotations

import enum
import random
import sys
from typing import Any

import _speedups  # type: ignore[import-not-found]
import attrs

from pyglyn import etf
from pyglyn.dist.control import CALL_SIGNALS, LINK_SIGNALS
from pyglyn.errors import DecodeError
from pyglyn.etf import Limits, frames, pure
from tests.etf.codec import DECODING, assert_same, outcome_of

# The plans are those of the program: made as if its codec was the one in use.
sys.modules["pyglyn.etf._speedups"] = _speedups
import _decoders  # type: ignore[import-not-found]  # noqa: E402
import _plans  # type: ignore[import-not-found]  # noqa: E402
import _reading  # type: ignore[import-not-found]  # noqa: E402

sys.modules["pyglyn.gleam._plans"] = _plans
sys.modules["pyglyn.eventsourcing.stores.json._reading"] = _reading
sys.modules["pyglyn.gleam._decoders"] = _decoders
etf.IMPLEMENTATION = "c"
from pyglyn import gleam  # noqa: E402
from pyglyn.eventsourcing.stores.json.plans import ENVELOPE, EVENT  # noqa: E402
from pyglyn.gleam import decode as by_hand  # noqa: E402
from pyglyn.gleam import dynamic, plans  # noqa: E402
from tests.fuzz.texts import CODECS, text_of  # noqa: E402

etf.IMPLEMENTATION = "python"
assert plans.c is _plans
assert dynamic.c is _decoders
for case in CODECS:
    assert type(case.codec.in_c) is _reading.Reader

COMMON = ("T", "E", "1.0", [], 1)
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


_LEAF: Any = by_hand.one_of(
    by_hand.int,
    [by_hand.string, by_hand.float, by_hand.bool, by_hand.bit_array, by_hand.atom, by_hand.dynamic],
)
_TWO: Any = by_hand.field(0, _LEAF, lambda a: by_hand.field(1, _LEAF, lambda b: by_hand.success((a, b))))
HAND: list[Any] = [
    _LEAF, _TWO, by_hand.list_of(_LEAF), by_hand.list_of(_TWO), by_hand.list_of(by_hand.list_of(by_hand.int)),
    by_hand.dict_of(by_hand.dynamic, _LEAF), by_hand.optional(by_hand.list_of(by_hand.string)), by_hand.at([1, 0], _LEAF),
    by_hand.int.map(lambda number: 1 // number), by_hand.int.then(lambda n: _LEAF if n else by_hand.failure(0, "x")),
    by_hand.optionally_at([0, 1], 7, by_hand.int),
    by_hand.optional_field(2, 0, by_hand.int, lambda n: by_hand.success(n)),
]  # fmt: skip
"""Decoders by hand, whose C takes terms."""


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
    rng = random.Random(data)
    for case in CODECS:
        for text in (
            text_of(case, rng),
            data.decode(errors="replace"),
            data.decode(errors="surrogateescape"),
        ):
            agree_on_text(case.codec, text)
    framed = (len(data).to_bytes(4) + data) * 2 + data
    for known in ({}, {data[:size]: size for size in range(1, 100)}):
        for each in (data, framed):
            for begins in (b"", b"\x83D\0"):
                assert cut(_speedups, each, begins, known) == cut(frames, each, begins, known)
    try:
        term, _ = pure.decode_bare(data)
    except DecodeError:
        return
    for decoder in HAND:
        made = _decoders.decode(decoder, term)
        if made is not _decoders.MISFIT:
            expected = outcome_of(lambda decoder=decoder: value_of(decoder, term))
            assert outcome_of(lambda made=made: made) == expected
    for name in ("encode", "encode_parts", "normalise"):
        assert_same(_speedups, name, term)
    for most in (8, 100, 1 << 20):
        assert _speedups.pack_frame(b"head", term, most) == frames.pack_frame(b"head", term, most)


def value_of(decoder: Any, term: Any) -> Any:
    """What a decoder by hand makes of a term in Python."""
    value, errors = decoder.run(term)
    assert not errors
    return value


def values_of(data: bytes, tight: int) -> None:
    """Make values of the bytes, and write them: whatever comes of it, the sanitizers look on."""
    for decoder in DECODERS:
        made = decoder._plan.read_bare(data, 0, LIMITS[tight])
        if made is not plans.MISFIT:
            gleam.default_converter._encode_plans.by_class.write(made)
    rng = random.Random(data)
    case = rng.choice(CODECS)
    for text in (text_of(case, rng), data.decode(errors="replace")):
        case.codec.in_c(text)
        _reading.events_of(case.codec.in_c, ENVELOPE, EVENT, [COMMON], [1], [None], ["a"], [1], [text])
    try:
        term, _ = _speedups.decode_bare(data, limits=LIMITS[tight])
    except DecodeError:
        return
    for decoder in HAND:
        _decoders.decode(decoder, term)


def agree_on_text(codec: Any, text: str) -> None:
    """Read a JSON text: what is made of it in C has to be what is made of it in Python."""
    made = codec.in_c(text)
    if made is not _reading.MISFIT:
        assert repr(made) == repr(codec._decode_in_python(text, 1))


def agree_on_value(decoder: Any, data: bytes, limits: Limits) -> None:
    """Make a value of the bytes, and bytes of that: they have to be those over the term."""
    value = outcome_of(lambda: decoder.decode(pure.decode(data, limits=limits)))
    planned = decoder._plan.read(data, limits)
    assert planned is plans.MISFIT or outcome_of(lambda: planned) == value
    if planned is not plans.MISFIT:
        by_class = gleam.default_converter._encode_plans.by_class
        written = by_class.write(planned)
        assert written is plans.MISFIT or written == pure.encode(gleam.encode(planned))


SIGNALS: frames.Signals = {**CALL_SIGNALS, **LINK_SIGNALS}
"""What calls bring, as a connection and a link read it."""


UNREAD: dict[bytes, Any] = {b"a@b": 1}
"""Of whom signals with a term are not read, where a node is in front of them."""


def cut(codec: Any, data: bytes, begins: bytes, known: dict[bytes, int]) -> tuple[int, list[Any]]:
    """The frames that one of the two cuts off."""
    runs: list[Any] = []
    return codec.cut_frames(data, 0, 1 << 16, begins, known, runs, SIGNALS, sys.maxsize, UNREAD), runs
