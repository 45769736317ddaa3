"""Decoding and encoding the event message of the order example, beside the same in Erlang."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from typing import Any, Generic, TypeVar

import attrs

from pyglyn import etf
from pyglyn import gleam as values
from pyglyn.etf import Atom, Term
from pyglyn.gleam import decode
from tests.benchmarks.harness import INTEROP, Bench, Measurement

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
class OrderCreated:
    id: str
    items: list[Item]
    total: int


@attrs.frozen
class OrderConfirmed:
    id: str


@attrs.frozen
class MemoryStoreEventEnvelop(Generic[T]):
    aggregate_id: str
    sequence: int
    payload: T
    metadata: list[tuple[str, str]]


@attrs.frozen
class ProcessEvents(Generic[T]):
    aggregate_id: str
    events: list[MemoryStoreEventEnvelop[T]]


MESSAGE: Term = (
    Atom("process_events"), b"order_001",
    [(Atom("memory_store_event_envelop"), b"order_001", 1,
      (Atom("order_created"), b"order_001",
       [(Atom("item"), (Atom("product"), b"laptop", b"Gaming Laptop", 20), 1)], 20), [])],
)  # fmt: skip

_field = decode.field
_product = _field(1, decode.string, lambda id: _field(2, decode.string, lambda name: _field(
    3, decode.int, lambda price: decode.success(Product(id, name, price)))))  # fmt: skip
_item = _field(1, _product, lambda product: _field(2, decode.int).map(lambda n: Item(product, n)))
_created = _field(1, decode.string, lambda id: _field(2, decode.list_of(_item), lambda items: _field(
    3, decode.int, lambda total: decode.success(OrderCreated(id, items, total)))))  # fmt: skip
_pair = _field(0, decode.string, lambda key: _field(1, decode.string).map(lambda value: (key, value)))
_pairs = _field(4, decode.list_of(_pair))
_envelope = _field(1, decode.string, lambda id: _field(2, decode.int, lambda n: _field(3, _created, lambda event:
    _pairs.map(lambda pairs: MemoryStoreEventEnvelop(id, n, event, pairs)))))  # fmt: skip
BY_HAND = _field(1, decode.string, lambda id: _field(2, decode.list_of(_envelope)).map(
    lambda events: ProcessEvents(id, events)))  # fmt: skip


async def gleam(bench: Bench) -> AsyncIterator[Measurement]:
    """Measure the derived decoder, the one by hand, and the encoder."""
    await bench.hidden.load(INTEROP / "pyglyn_bench_gleam.erl")
    type_ = ProcessEvents[OrderCreated | OrderConfirmed]
    derived, encoder = values.decoder(type_), values.encoder(type_)
    value = derived.decode(MESSAGE)
    assert encoder.encode(value) == MESSAGE
    assert BY_HAND.decode(MESSAGE) == value
    decodes = "pyglyn_bench_gleam:decodes(Count, Term)"
    builds = "pyglyn_bench_gleam:builds(Count)"
    yield await _compare(bench, "decode an event message, derived", derived.decode, MESSAGE, decodes)
    yield await _compare(bench, "decode an event message, by hand", BY_HAND.decode, MESSAGE, decodes)
    data = etf.encode(MESSAGE)
    assert derived.decode_bytes(data) == value
    assert encoder.encode_bytes(value) == data
    for name, function in (("", etf.decode), (", as values", derived.decode_bytes)):
        text = f"read an event message{name} (BEAM: binary_to_term)"
        yield await _compare(bench, text, function, data, READS % "binary_to_term(Term)", data)
    for name, write, given in (("", etf.encode, MESSAGE), (", of values", encoder.encode_bytes, value)):
        text = f"write an event message{name} (BEAM: term_to_binary)"
        yield await _compare(bench, text, write, given, READS % "term_to_binary(Term)")
    yield await _compare(bench, "encode an event message (BEAM: make it)", encoder.encode, value, builds)
    yield await _compare(bench, "encode it by its class (BEAM: make it)", values.encode, value, builds)


READS = "{Micros, ok} = timer:tc(lists, foreach, [fun(_) -> %s end, lists:seq(1, Count)]), Micros"


async def _compare(
    bench: Bench,
    name: str,
    function: Callable[[Any], object],
    argument: object,
    expression: str,
    term: Term = MESSAGE,
) -> Measurement:
    def round_of(count: int) -> float:
        started = time.perf_counter()
        for _ in range(count):
            function(argument)
        return time.perf_counter() - started

    count = bench.scale.count(round_of(10) / 10)

    async def ours() -> float:
        return round_of(count)

    async def beam() -> float:
        micros = await bench.hidden.eval(expression, Count=count, Term=term, timeout=None)
        assert isinstance(micros, int)
        return max(micros, 1) / 1e6

    return await bench.compare("Gleam values", name, count, ours, beam)
