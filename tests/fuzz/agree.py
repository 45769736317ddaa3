"""Compare the codec in C with the one in Python on one input; called by ``harness.c``."""

from __future__ import annotations

from typing import Any

import _speedups  # type: ignore[import-not-found]

from pyglyn.errors import DecodeError
from pyglyn.etf import Limits, frames, pure
from tests.etf.codec import DECODING, assert_same

LIMITS = [Limits(), Limits(depth=5, elements=100, size=1000)]


def check(data: bytes) -> None:
    """Read, write and normalise; every result and every error has to be the same.

    Raises:
        AssertionError: one is not.
    """
    for limits in LIMITS:
        assert_same(_speedups, "decode_bare", data, limits=limits)
        for name in DECODING[:2]:
            assert_same(_speedups, name, b"\x83" + data, limits=limits)
    framed = (len(data).to_bytes(4) + data) * 2 + data
    for known in ({}, {data[:size]: size for size in range(1, 100)}):
        for each in (data, framed):
            assert cut(_speedups, each, known) == cut(frames, each, known)
    try:
        term, _ = pure.decode_bare(data)
    except DecodeError:
        return
    for name in ("encode", "encode_parts", "normalise"):
        assert_same(_speedups, name, term)
    for most in (8, 100, 1 << 20):
        assert _speedups.pack_frame(b"head", term, most) == frames.pack_frame(b"head", term, most)


def cut(codec: Any, data: bytes, known: dict[bytes, int]) -> tuple[int, list[Any]]:
    """The frames that one of the two cuts off."""
    runs: list[Any] = []
    return codec.cut_frames(data, 0, 1 << 16, b"", known, runs), runs
