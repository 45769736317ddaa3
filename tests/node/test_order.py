"""Signals of one process to another keep their order, whatever happens on the way."""

from __future__ import annotations

from pyglyn.node import Node
from pyglyn.testing import PrivateEpmd
from tests.node.conftest import unique_name


async def test_what_waited_for_a_connection_comes_before_what_is_sent_when_it_is_up(
    epmd: PrivateEpmd,
) -> None:
    """Also before what is sent by a function that is told of the connection."""
    async with (
        Node(unique_name("one"), cookie="c") as one,
        Node(unique_name("two"), cookie="c") as two,
        one.process() as sender,
        two.process() as receiver,
    ):
        one.on_node_event(lambda event: sender.send(receiver.pid, (event.up, 2)))
        sender.send(receiver.pid, 1)
        assert [await receiver.receive(timeout=30.0) for _ in range(2)] == [1, (True, 2)]
