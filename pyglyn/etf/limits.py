"""What a caller allows an input to cost. Layer: etf, pure."""

from __future__ import annotations

import attrs


@attrs.frozen(kw_only=True)
class Limits:
    """Bounds on one decoded term; whatever breaks one is refused with ``LimitExceeded``.

    An uncompressed input is its own bound (every declared element needs at least a byte, and that is
    checked before anything is allocated), so the size of a message is the business of whoever reads it.

    Attributes:
        depth: how many containers may enclose a term. The default suits any hand-written data; Python
            itself cannot compare, hash or print much deeper values.
        elements: list elements, tuple elements, map keys and map values, all together.
        size: bytes of a compressed term after decompression.
    """

    depth: int = 10_000
    elements: int = 16 * 1024 * 1024
    size: int = 256 * 1024 * 1024


DEFAULT_LIMITS = Limits()
