"""The few encoded terms that the driver of a node itself needs, whatever state the codec is in."""

from __future__ import annotations


def binary(value: bytes | str) -> bytes:
    """Encode a binary with its version byte; text as UTF-8."""
    data = value.encode() if isinstance(value, str) else value
    return b"\x83m" + len(data).to_bytes(4, "big") + data
