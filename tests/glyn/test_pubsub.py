"""Where the event is in an encoded message, in both forms: what is read at that place is what is in the term."""

from __future__ import annotations

from typing import Any

import pytest

from pyglyn import etf
from pyglyn.etf import Atom
from pyglyn.glyn.pubsub import event_in

TAGGED = b"h\2" + etf.encode_bare(b"orders")
EVENT = (Atom("confirmed"), b"3")


@pytest.mark.parametrize(
    ("message", "event"),
    [
        (etf.encode_bare((b"orders", EVENT)), EVENT),
        (etf.encode_bare(EVENT), EVENT),
        (etf.encode_bare((Atom("created"), b"orders", 1)), (Atom("created"), b"orders", 1)),
        (etf.encode_bare(b"orders"), b"orders"),
        (etf.encode_bare([EVENT]), [EVENT]),
        (etf.encode_bare((b"others", EVENT)), None),
        (etf.encode_bare((1, EVENT)), None),
        (b"i\0\0\0\2" + etf.encode_bare(b"orders") + etf.encode_bare(EVENT), None),
        (b"h\2M\0\0\0\6\10orders" + etf.encode_bare(EVENT), None),
        (b"P", None),
        (b"h\2", None),
        (b"", None),
    ],
)
@pytest.mark.parametrize("kind", [bytes, memoryview])
def test_the_place_of_an_event(message: bytes, event: Any, kind: Any) -> None:
    at = event_in(kind(message), TAGGED)
    assert (at is None) == (event is None)
    if at is not None:
        assert etf.decode_bare(message, at) == (event, len(message))
