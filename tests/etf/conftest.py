"""Run the tests of the codec with each of its implementations."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType

import pytest

from pyglyn.etf import pure
from tests.etf import codec


@pytest.fixture(scope="module", params=list(codec.IMPLEMENTATIONS))
def implementation(request: pytest.FixtureRequest) -> Iterator[None]:
    """Choose the implementation behind the functions of `codec`."""
    codec.run_with(codec.implementation(request.param))
    yield
    codec.run_with(pure)


@pytest.fixture(scope="module")
def speedups() -> ModuleType:
    """The codec in C, for tests that compare it with ``pure``."""
    return codec.implementation("c")
