"""Compare the codec in C with the one in Python on one input; called by ``harness.c``."""

from __future__ import annotations

import _speedups  # type: ignore[import-not-found]

from pyglyn.errors import DecodeError
from pyglyn.etf import Limits, pure
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
    try:
        term, _ = pure.decode_bare(data)
    except DecodeError:
        return
    for name in ("encode", "encode_parts", "normalise"):
        assert_same(_speedups, name, term)
