"""Encoding and decoding against ``term_to_binary`` and ``binary_to_term``."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable

from pyglyn.etf import IMPLEMENTATION, Atom, ImproperList, Pid, Reference, Term, decode, encode
from tests.benchmarks.harness import Bench, Measurement


def _event(number: int) -> Term:
    item = (Atom("item"), (Atom("product"), b"laptop", b"Gaming Laptop", 20), 1)
    return (
        Atom("memory_store_event_envelop"), b"order_%05d" % number, number,
        (Atom("order_created"), b"order_%05d" % number, [item], 20), [],
    )  # fmt: skip


_CALLER = Pid("order@localhost", 101, 0, 1_700_000_000)
_ALIAS = Reference("order@localhost", 1_700_000_000, (1 << 17, 1 << 20, 1 << 30))

PAYLOADS: dict[str, Term] = {
    "atom": Atom("ok"),
    "gen_server call": (Atom("$gen_call"), (_CALLER, ImproperList((Atom("alias"),), _ALIAS)), Atom("get")),
    "gen_server reply": (ImproperList((Atom("alias"),), _ALIAS), 20),
    "100 pids": [Pid("order@localhost", number, 0, 1_700_000_000) for number in range(100)],
    "100 references": [
        Reference("order@localhost", 1_700_000_000, (number, 1 << 20, 1 << 30)) for number in range(100)
    ],
    "long atoms": [Atom(letter * 255) for letter in "aü€"],
    "event message": (b"inventory", (Atom("process_events"), b"order_001", [_event(1)])),
    "100 event envelopes": [_event(number) for number in range(100)],
    "1,000 integers": list(range(1_000, 2_000)),
    "10,000 bytes as a list": [n % 256 for n in range(10_000)],
    "1,000 floats": [n / 7 for n in range(1_000)],
    "map of 1,000 binaries": {b"key%d" % n: b"value%d" % n for n in range(1_000)},
    "binary of 1 MiB": bytes(1 << 20),
    "1,000 nested tuples": None,
}

_nested: Term = 0
for _ in range(1_000):
    _nested = (_nested,)
PAYLOADS["1,000 nested tuples"] = _nested

_ON_THE_BEAM = (
    "{Micros, ok} = timer:tc(lists, foreach, [fun erlang:%s/1, lists:duplicate(Count, Value)]), Micros"
)


async def codec(bench: Bench) -> AsyncIterator[Measurement]:
    """Measure every payload both ways."""
    for name, term in PAYLOADS.items():
        data = encode(term)
        yield await _compare(bench, f"encode, {IMPLEMENTATION}", name, encode, term, "term_to_binary", term)
        yield await _compare(bench, f"decode, {IMPLEMENTATION}", name, decode, data, "binary_to_term", data)


async def _compare(
    bench: Bench,
    group: str,
    name: str,
    function: Callable[..., object],
    argument: object,
    bif: str,
    value: Term,
) -> Measurement:
    def round_of(count: int) -> float:
        repeat = range(count)
        started = time.perf_counter()
        for _ in repeat:
            function(argument)
        return time.perf_counter() - started

    count = bench.scale.count(round_of(1))

    async def ours() -> float:
        return round_of(count)

    async def beam() -> float:
        micros = await bench.hidden.eval(_ON_THE_BEAM % bif, Count=count, Value=value, timeout=None)
        assert isinstance(micros, int)
        return max(micros, 1) / 1e6

    return await bench.compare(group, name, count, ours, beam)
