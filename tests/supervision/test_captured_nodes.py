"""A node that a child of a tree has captured is a copy there, and says so."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from pyglyn import Node, Process
from pyglyn.errors import CopiedNode
from pyglyn.groups import pg
from pyglyn.supervision import Supervisor, start, supervisor, worker
from pyglyn.supervision.words import Isolation
from tests.node.conftest import unique_name
from tests.supervision.os.fresh import run_fresh


async def idle(me: Process) -> None:
    await me.receive()


async def later(call: Callable[[], Any]) -> Any:
    return call()


USES: dict[str, Callable[[Node], Awaitable[Any]]] = {
    "send": lambda node: later(lambda: node.send("echo", 1)),
    "cast": lambda node: later(lambda: node.cast("echo", 1)),
    "call": lambda node: node.call("echo", 1),
    "rpc": lambda node: node.rpc(node.name, "erlang", "node"),
    "spawn": lambda node: later(lambda: node.spawn(idle)),
    "nodes": lambda node: later(node.nodes),
    "whereis": lambda node: later(lambda: node.whereis("echo")),
    "connect": lambda node: node.connect("nobody@localhost"),
    "make_ref": lambda node: later(node.make_ref),
    "pg": lambda node: pg.get_members(node, "crew"),
    "start": lambda node: start(node, Supervisor()),
}


async def captured(isolation: str) -> None:
    """In an OS process of its own, as forking takes one without threads."""
    async with Node(unique_name(), cookie="pyglyn_testing") as node, node.process() as me:
        await _use_in_a_child(node, me, Isolation(isolation))


async def _use_in_a_child(node: Node, client: Process, isolation: Isolation) -> None:
    test = client.pid

    async def child(me: Process) -> None:
        for name, use in USES.items():
            try:
                answer: Any = await use(node)
            except CopiedNode as error:
                answer = str(error)
            except Exception as error:
                answer = repr(error)
            me.send(test, (name.encode(), str(answer).encode()))
        await node.stop()  # as the end of `async with Node` does
        me.send(test, (b"stop", b"nothing happened"))
        await me.receive()

    inner = Supervisor(name="inner").add(worker(child, name="child", isolation=isolation))
    await start(node, Supervisor(name="top").add(supervisor(inner)))
    for name in USES:
        said, answer = await client.receive(timeout=30)  # type: ignore[misc]
        assert (said, answer[:23]) == (name.encode(), b"this node is a copy: it"), (said, answer)
    assert await client.receive(timeout=30) == (b"stop", b"nothing happened")
    assert node.nodes() == []


@pytest.mark.parametrize("isolation", list(Isolation))
def test_it_raises_in_a_child_whatever_is_done_with_it(epmd: object, isolation: Isolation) -> None:
    run_fresh(f"{__name__}:captured", isolation.value)
