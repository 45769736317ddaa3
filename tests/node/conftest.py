"""A Python node beside the BEAM nodes of a test."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio

from pyglyn.node import Node, Settings
from pyglyn.testing import Beam


def unique_name(prefix: str = "py") -> str:
    """A node name nobody has."""
    return f"{prefix}_{secrets.token_hex(4)}@localhost"


@pytest.fixture
def beam(shared_beam: Beam) -> Beam:
    """One node for all tests of a file: each has a Python node of its own, and who ends it gets another started."""
    return shared_beam


@pytest.fixture
def chosen() -> dict[str, Any]:
    """What is chosen in the settings of the test's node; a test that needs something is parametrised with it."""
    return {}


@pytest_asyncio.fixture
async def node(beam: Beam, chosen: dict[str, Any], make_node: Callable[..., Node]) -> AsyncIterator[Node]:
    """A running Python node with the cookie of ``beam``; not connected yet."""
    async with make_node(unique_name(), cookie=beam.cookie, settings=Settings(**chosen)) as running:
        yield running
