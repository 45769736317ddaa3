"""A Python node beside the BEAM nodes of a test."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from pyglyn.node import Node
from pyglyn.testing import Beam


def unique_name(prefix: str = "py") -> str:
    """A node name nobody has."""
    return f"{prefix}_{secrets.token_hex(4)}@localhost"


@pytest.fixture
def beam(shared_beam: Beam) -> Beam:
    """One node for all tests of a file: each has a Python node of its own, and who ends it gets another started."""
    return shared_beam


@pytest_asyncio.fixture
async def node(beam) -> AsyncIterator[Node]:
    """A running Python node with the cookie of ``beam``; not connected yet."""
    async with Node(unique_name(), cookie=beam.cookie) as running:
        yield running
