"""The words of child specifications: sizes, times, backoff."""

from __future__ import annotations

import math
from typing import Any

import pytest

from pyglyn.etf import Atom
from pyglyn.supervision.declaration import worker
from pyglyn.supervision.words import (
    Backoff,
    ShutdownWord,
)
from tests.supervision.trees import job

A = Atom


@pytest.mark.parametrize(
    ("given", "size"),
    [(None, None), (1, 1), ("1", 1), ("512 MiB", 512 << 20), ("1.5GiB", 3 << 29), ("2 kB", 2000), ("7 b", 7)],
)
def test_sizes_are_bytes_or_have_a_unit(given: Any, size: int | None) -> None:
    assert worker(job, memory_limit=given).memory_limit == size


def test_infinite_shutdown_may_be_written_as_a_number() -> None:
    assert worker(job, shutdown=math.inf).shutdown is ShutdownWord.INFINITY
    assert worker(job, shutdown=0).shutdown == 0.0


def test_backoff_grows_to_its_maximum() -> None:
    backoff = Backoff(initial=0.1, factor=2.0, maximum=1.0)
    assert [backoff.delay(n) for n in range(6)] == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]
    assert backoff.delay(10**9) == 1.0
    assert Backoff(initial=5.0, maximum=1.0).delay(0) == 1.0
