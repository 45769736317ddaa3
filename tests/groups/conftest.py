"""Python nodes beside the BEAM nodes of a test."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import pytest_asyncio

from pyglyn.node import Node, Process


def unique_name(prefix: str = "py") -> str:
    """A node name nobody has."""
    return f"{prefix}_{secrets.token_hex(4)}@localhost"


async def idle(me: Process) -> None:
    """A process that only lives: its messages stay in its mailbox."""
    await me.receive(lambda message: False)


StartNode = Callable[..., Awaitable[Node]]


@pytest_asyncio.fixture
async def start_node(epmd) -> AsyncIterator[StartNode]:
    """A factory of running Python nodes with the cookie of the test's BEAM nodes."""
    async with AsyncExitStack() as stack:

        async def start(name: str | None = None) -> Node:
            return await stack.enter_async_context(Node(name or unique_name(), cookie="pyglyn_testing"))

        yield start
