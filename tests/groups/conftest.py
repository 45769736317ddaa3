"""Python nodes beside the BEAM nodes of a test."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
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
async def start_node(epmd, make_node: Callable[..., Node]) -> AsyncIterator[StartNode]:
    """A factory of running Python nodes with the cookie of the test's BEAM nodes."""
    async with AsyncExitStack() as stack:

        async def start(name: str | None = None) -> Node:
            return await stack.enter_async_context(make_node(name or unique_name(), cookie="pyglyn_testing"))

        yield start


def count_signals(node: Node, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Every signal between the node and its peers from now on; ticks are none."""
    signals: list[Any] = []

    def counted(real: Any) -> Any:
        def call(*args: Any) -> Any:
            signals.append(args)
            return real(*args)

        return call

    monkeypatch.setattr(node.runtime, "outlet", counted(node.router.to_node))
    for connection in node.peers.connections:
        monkeypatch.setattr(connection, "_on_message", counted(connection._on_message))
        monkeypatch.setattr(connection, "_inlet", None)  # which would take most of them
    return signals
