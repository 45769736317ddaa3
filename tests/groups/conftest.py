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
    for name in ("to_node", "from_peer"):
        real = getattr(node.router, name)

        def counted(*args: Any, real: Any = real) -> Any:
            signals.append(args)
            return real(*args)

        monkeypatch.setattr(node.router, name, counted)
    monkeypatch.setattr(node.runtime, "outlet", node.router.to_node)
    return signals
