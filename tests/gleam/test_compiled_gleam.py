"""Python values against what compiled Gleam puts on the wire, both ways."""

from __future__ import annotations

import datetime
from typing import Any, Generic, TypeVar

import attrs
import pytest

from pyglyn import etf, gleam
from pyglyn.etf import Atom, BitString
from pyglyn.gleam import BitArray, Duration, Error, NamedSubject, Ok, Result, Some, Timestamp
from pyglyn.testing import Beam
from tests.gleam.compiled import COMPILED_NAMES, COMPILED_VALUES

T = TypeVar("T")


@attrs.frozen
class Product:
    id: str
    name: str
    price: int


@attrs.frozen
class Item:
    product: Product
    quantity: int


@attrs.frozen
class OrderCreatedEvent:
    id: str
    items: list[Item]
    total: int


@attrs.frozen
class OrderConfirmed:
    id: str


@attrs.frozen
class OrderForgotten:
    pass


OrderEvent = OrderCreatedEvent | OrderConfirmed | OrderForgotten


@attrs.frozen
class MemoryEnvelope(Generic[T]):
    aggregate_id: str
    sequence: int
    payload: T
    metadata: list[tuple[str, str]]


@attrs.frozen
class Leaf:
    pass


@attrs.frozen
class Branch(Generic[T]):
    left: Leaf | Branch[T]
    value: T
    right: Leaf | Branch[T]


@attrs.frozen
class Hidden:
    secret: int


@attrs.frozen(kw_only=True)
class Labelled:
    second: int
    first: str


@attrs.frozen
class Box(Generic[T]):
    value: T


@attrs.frozen
class FHTTPServer:
    value: int


UTC = datetime.UTC

VALUES: dict[str, tuple[Any, Any]] = {
    "int": (int, 42),
    "negative": (int, -7),
    "big": (int, 123456789012345678901234567890),
    "float": (float, 1.5),
    "string": (str, "h\u00e9llo \U0001f600"),
    "empty string": (str, ""),
    "bit array": (bytes, bytes([1, 2, 255])),
    "odd bits": (BitArray, BitString(b"\xa0", 3)),
    "true": (bool, True),
    "false": (bool, False),
    "nil": (None, None),
    "list": (list[int], [1, 2, 3]),
    "long list": (list[int], [1000, 2]),
    "empty list": (list[str], []),
    "strings": (list[str], ["a", "b"]),
    "tuple": (tuple[int, str, float], (1, "a", 2.0)),
    "one tuple": (tuple[int], (1,)),
    "empty tuple": (tuple[()], ()),
    "ok": (Result[int, str], Ok(1)),
    "error": (Result[int, str], Error("no")),
    "ok nil": (Result[None, str], Ok(None)),
    "some": (int | None, 1),
    "none": (int | None, None),
    "some none": (Some[int | None] | None, Some(None)),
    "some some": (Some[int | None] | None, Some(3)),
    "dict": (dict[str, int], {"a": 1, "b": 2}),
    "empty dict": (dict[str, int], {}),
    "set": (set[str], {"a", "b"}),
    "empty set": (frozenset[str], frozenset()),
    "product": (Product, Product("laptop", "Gaming Laptop", 20)),
    "order": (OrderEvent, OrderCreatedEvent("o1", [Item(Product("laptop", "Gaming Laptop", 20), 2)], 40)),
    "confirmed": (OrderEvent, OrderConfirmed("o1")),
    "forgotten": (OrderEvent, OrderForgotten()),
    "envelope": (
        MemoryEnvelope[OrderEvent],
        MemoryEnvelope("o1", 1, OrderConfirmed("o1"), [("k", "v")]),
    ),
    "tree": (Leaf | Branch[int], Branch(Leaf(), 1, Branch(Leaf(), 2, Leaf()))),
    "hidden": (Hidden, Hidden(3)),
    "labelled": (Labelled, Labelled(first="f", second=2)),
    "box option": (Box[int | None], Box(1)),
    "box none": (Box[int | None], Box(None)),
    "timestamp": (Timestamp, Timestamp(1_700_000_000, 123_456_789)),
    "old timestamp": (Timestamp, Timestamp.from_nanoseconds(-1_000_000_001)),
    "duration": (datetime.timedelta, datetime.timedelta(milliseconds=1500)),
    "negative duration": (Duration, Duration.from_timedelta(datetime.timedelta(milliseconds=-1500))),
    "atom": (Atom, Atom("hello")),
    "named subject": (NamedSubject[int], NamedSubject(Atom("worker$1"))),
    "full": (FHTTPServer, FHTTPServer(1)),
}


def test_every_compiled_value_is_tried() -> None:
    """The one that Python cannot hold, a map with a list as key, has its own test."""
    assert set(VALUES) == set(COMPILED_VALUES) - {"list key dict"}
    assert len(COMPILED_NAMES) == 56


@pytest.mark.parametrize("name", VALUES)
def test_decodes_what_gleam_made(name: str) -> None:
    type_, value = VALUES[name]
    assert gleam.decoder(type_).decode(etf.decode(COMPILED_VALUES[name])) == value


@pytest.mark.parametrize("name", VALUES)
def test_encodes_what_gleam_makes(name: str) -> None:
    type_, value = VALUES[name]
    term = gleam.encoder(type_).encode(value)
    assert etf.exact_key(term) == etf.exact_key(etf.decode(COMPILED_VALUES[name]))


OPTIONS = {"some", "none", "some none", "some some", "box option", "box none"}


@pytest.mark.parametrize("name", sorted(set(VALUES) - OPTIONS))
def test_the_class_alone_determines_all_but_options(name: str) -> None:
    type_, value = VALUES[name]
    assert gleam.encode(value) == gleam.encode(value, type_)


def test_a_map_with_a_list_as_key_is_read_as_a_term() -> None:
    term = etf.decode(COMPILED_VALUES["list key dict"])
    assert list(gleam.decoder(etf.TermMap).decode(term).items()) == [([1], 2.0)]
    with pytest.raises(gleam.DecodeErrors, match="at keys"):
        gleam.decoder(dict[list[int], float]).decode(term)


async def test_the_beam_reads_our_bytes_as_what_gleam_made(shared_beam: Beam) -> None:
    for name, (type_, value) in VALUES.items():
        ours = etf.encode(gleam.encode(value, type_))
        same = await shared_beam.eval(
            "binary_to_term(Ours) =:= binary_to_term(Theirs).", Ours=ours, Theirs=COMPILED_VALUES[name]
        )
        assert same is True, name
