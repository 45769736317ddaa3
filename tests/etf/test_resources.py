"""What the codec in C takes: stack, memory, and that it gives all of it back."""

from __future__ import annotations

import contextlib
import gc
import itertools
import random
import re
import sys
import threading
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from pyglyn.etf import pure as python
from tests.etf.codec import DECODING, ENCODING, NORMALISING, assert_same, outcome_of
from tests.etf.damage import mutated, seeds
from tests.etf.test_same_decoding import DEEP
from tests.etf.test_same_encoding import VALUES

SEEDS = seeds()


def test_a_small_thread_stack_is_enough_for_as_deep_as_it_goes(speedups: ModuleType) -> None:
    results: list[object] = []

    def work() -> None:
        for shape in DEEP.values():
            for depth in (63, 64, 65):
                data = shape(depth)
                results.append(speedups.encode(speedups.decode(data)) == python.encode(python.decode(data)))

    old = threading.stack_size(128 * 1024)
    try:
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    finally:
        threading.stack_size(old)
    assert results == [True] * 3 * len(DEEP)


def test_nothing_is_kept_of_what_was_read_or_written(speedups: ModuleType) -> None:
    """Memory blocks before and after many rounds over every tag, right and damaged."""
    rng = random.Random(7)
    inputs = [
        *SEEDS,
        *(data[:-1] for data in SEEDS),
        *(mutated(data, rng) for data in SEEDS for _ in range(10)),
    ]
    values = [*(python.decode(data) for data in SEEDS), *VALUES]

    def rounds(count: int) -> int:
        for _ in range(count):
            for data in inputs:
                for name in DECODING:
                    _ignored(getattr(speedups, name), data)
            for value in values:
                for name in (*ENCODING, NORMALISING):
                    _ignored(getattr(speedups, name), value)
        gc.collect()
        return sys.getallocatedblocks()

    rounds(3)
    counts = [rounds(1), *(rounds(10) for _ in range(3))]
    grown = [after - before for before, after in itertools.pairwise(counts)]
    assert min(grown) < 200, (
        grown
    )  # what a round keeps, each of them does; other threads take some now and then


def _ignored(function: Callable[[Any], object], value: Any) -> None:
    with contextlib.suppress(ValueError):
        function(value)


def test_wide_terms_are_limited_by_their_bytes_before_memory_is_taken(speedups: ModuleType) -> None:
    """Nested heads that each promise as many elements as there are bytes promise too much together."""
    for head in (b"l\0\1\xff\xff", b"i\0\1\xff\xff", b"t\0\0\xff\xff"):
        data = b"\x83" + head * 60 + b"a\1" * 66_000
        peak = _peak_of(lambda data=data: outcome_of(speedups.decode, data))  # type: ignore[misc]
        assert peak < 12 * len(data)
        assert_same(speedups, "decode", data)


def _peak_of(action: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        action()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("size", [(32 << 20) - 1, 32 << 20, (40 << 20) + 5])
def test_a_binary_that_has_pages_of_its_own_asks_for_large_ones(speedups: ModuleType, size: int) -> None:
    data = b"\x83m" + size.to_bytes(4) + bytes(range(256)) * (size // 256) + bytes(size % 256)
    term = speedups.decode(data)
    assert len(term) == size
    assert term == data[6:]
    if sys.platform == "linux" and Path("/sys/kernel/mm/transparent_hugepage").exists():
        assert ("hg" in _flags_at(id(term) + size // 2)) == (size >= 32 << 20)


def _flags_at(address: int) -> list[str]:
    """The flags of the mapping that an address is in; see VmFlags in proc(5)."""
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if found := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line):
            inside = int(found[1], 16) <= address < int(found[2], 16)
        elif inside and line.startswith("VmFlags:"):
            return line.split()[1:]
    raise LookupError(hex(address))
