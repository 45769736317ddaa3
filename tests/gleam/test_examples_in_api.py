"""The sketch of user programs for Gleam values, as written there, with unions of Python 3.11."""

from __future__ import annotations

import sys
from typing import Any

import attrs
import pytest
import typing_extensions

from pyglyn import Atom, gleam
from pyglyn.gleam import decode


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
class OrderCreated:
    id: str
    items: list[Item]
    total: int


@attrs.frozen
class OrderConfirmed:
    id: str


OrderEvent = OrderCreated | OrderConfirmed


def test_derived() -> None:
    decoder = gleam.decoder(OrderEvent)
    term = (Atom("order_created"), b"o1", [(Atom("item"), (Atom("product"), b"l", b"Laptop", 20), 2)], 40)
    assert decoder.decode(term) == OrderCreated("o1", [Item(Product("l", "Laptop", 20), 2)], 40)
    with pytest.raises(gleam.DecodeErrors, match=r"expected Int, found Float at items\.0\.product\.price"):
        decoder.decode(
            (Atom("order_created"), b"o1", [(Atom("item"), (Atom("product"), b"l", b"", 2.0), 2)], 40)
        )
    assert gleam.encode(OrderConfirmed("o1")) == (Atom("order_confirmed"), b"o1")


def test_by_hand() -> None:
    order = decode.field(0, decode.atom_named("order_confirmed")).then(
        lambda _: decode.field(1, decode.string).map(OrderConfirmed)
    )
    assert order.decode(gleam.encode(OrderConfirmed("o1"))) == OrderConfirmed("o1")
    assert gleam.as_decoder(order) is order


def type_statement() -> Any:
    """``type OrderEvent = OrderCreated | OrderConfirmed``, for Python versions that lack it as well."""
    if sys.version_info < (3, 12):
        return typing_extensions.TypeAliasType("OrderEvent", OrderCreated | OrderConfirmed)
    namespace: dict[str, Any] = {"OrderCreated": OrderCreated, "OrderConfirmed": OrderConfirmed}
    exec("type OrderEvent = OrderCreated | OrderConfirmed", namespace)
    return namespace["OrderEvent"]


def test_derived_from_a_type_statement() -> None:
    decoder = gleam.decoder(type_statement())
    assert decoder.decode((Atom("order_confirmed"), b"o1")) == OrderConfirmed("o1")
    with pytest.raises(gleam.DecodeErrors, match="expected OrderEvent, found Atom order_lost"):
        decoder.decode(Atom("order_lost"))
