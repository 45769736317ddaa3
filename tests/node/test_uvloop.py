"""The same on uvloop: tests of connections, rpc, workers and trees once more, in its event loop.

Its transports are no `asyncio.Transport`, and it reads as it likes where the protocol does not say how much.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pyglyn import Atom, export
from pyglyn.etf import Term
from pyglyn.net import NetSettings
from pyglyn.node import Caller, GenServer, Node, Settings
from pyglyn.supervision import Supervisor, start, worker
from pyglyn.testing import Beam
from tests.net.conftest import start_node
from tests.net.test_real_nodes import (
    test_64_mib_both_ways_and_a_small_message_in_between,
    test_a_dialled_node_is_up_and_exchanges_messages,
    test_a_node_that_dials_us_is_accepted,
    test_both_learn_of_a_disconnect,
    test_ten_thousand_messages_each_way_keep_their_order,
)
from tests.node.conftest import unique_name
from tests.node.test_shared import (
    test_blobs_go_through_the_hub_in_their_order_with_small_messages_between,
)
from tests.supervision.conftest import local
from tests.supervision.test_hub import (
    test_a_tree_that_gives_up_is_reported_to_whoever_started_it,
    test_trees_can_be_started_at_the_same_time,
    test_trees_of_two_nodes_in_one_os_process_leave_each_other_alone,
)

uvloop = pytest.importorskip("uvloop")
pytestmark = pytest.mark.filterwarnings('ignore:Overriding the "event_loop_policy" fixture')

__all__ = [
    "local",
    "start_node",
    "test_64_mib_both_ways_and_a_small_message_in_between",
    "test_a_dialled_node_is_up_and_exchanges_messages",
    "test_a_node_that_dials_us_is_accepted",
    "test_a_tree_that_gives_up_is_reported_to_whoever_started_it",
    "test_blobs_go_through_the_hub_in_their_order_with_small_messages_between",
    "test_both_learn_of_a_disconnect",
    "test_ten_thousand_messages_each_way_keep_their_order",
    "test_trees_can_be_started_at_the_same_time",
    "test_trees_of_two_nodes_in_one_os_process_leave_each_other_alone",
]


@pytest.fixture(scope="module")
def event_loop_policy() -> Any:
    return uvloop.EventLoopPolicy()


@export("uvloop_test")
def plain(number: int) -> int:
    """Runs in a thread: it is not async."""
    return number + 1


@export("uvloop_test")
async def loop() -> str:
    return type(asyncio.get_running_loop()).__module__


class Teller(GenServer):
    async def handle_call(self, request: Term, caller: Caller) -> Term:
        return await loop()


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.parametrize("kind", ["asyncio", "uvloop"])
def test_workers_run_in_the_kind_of_event_loop_that_their_node_runs_in(kind: str, method: Any) -> None:
    """Also where that is the loop's own choice, and no policy that a forked child would have."""

    async def told() -> Term:
        settings = Settings(net=NetSettings(epmd_port=0))
        async with Node(unique_name(), cookie="c", settings=settings) as node, node.process() as me:
            await start(node, Supervisor(start=method).add(worker(Teller, name="teller")))
            return await me.call("teller", None, 60)

    make = uvloop.new_event_loop if kind == "uvloop" else asyncio.new_event_loop
    with asyncio.Runner(loop_factory=make) as runner:
        answer = runner.run(told())
    assert isinstance(answer, bytes)
    assert answer.partition(b".")[0] == kind.encode()


async def test_exported_functions_are_called_both_ways(beam: Beam) -> None:
    async with Node(unique_name(), cookie=beam.cookie) as node:
        where = Atom(node.name)
        assert await beam.eval("rpc:call(N, uvloop_test, plain, [1])", N=where) == 2
        assert await beam.eval("erpc:call(N, uvloop_test, loop, [])", N=where) == b"uvloop"
        assert await node.erpc(beam.name, "erlang", "node") is Atom(beam.name)
