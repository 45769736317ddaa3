"""Messages, calls, links and rpc between a Python node and real ones once more, over TLS, whoever has dialled."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio

from pyglyn.node import Node, Settings
from pyglyn.testing import Beam
from tests.node import test_interop_links, test_interop_messages, test_interop_rpc
from tests.node.conftest import unique_name
from tests.tls.conftest import again

globals().update(
    again(
        test_interop_messages,
        fixtures=("stock",),
        leave=(
            "test_selective_receive_leaves_the_others_in_order",
            "test_send_after_and_cancel_timer",
            "test_two_python_nodes_talk",
            "test_what_is_no_term_is_refused_at_the_sender_also_locally",
        ),
    )
)
globals().update(again(test_interop_links))
globals().update(again(test_interop_rpc))


@pytest.fixture
def chosen() -> dict[str, Any]:
    """What is chosen in the settings of the test's node."""
    return {}


@pytest_asyncio.fixture
async def node(beam: Beam, chosen: dict[str, Any], make_node: Callable[..., Node]) -> AsyncIterator[Node]:
    """A Python node, connected."""
    async with make_node(unique_name(), cookie=beam.cookie, settings=Settings(**chosen)) as running:
        await running.connect(beam.name)
        yield running


@pytest_asyncio.fixture
async def serving(beam: Beam, make_node: Callable[..., Node]) -> AsyncIterator[Node]:
    """A Python node that serves functions, connected."""
    exports = test_interop_rpc.exports()
    async with make_node(unique_name("serving"), cookie=beam.cookie, exports=exports) as running:
        await running.connect(beam.name)
        yield running


async def test_the_connection_is_one_of_tls_and_the_one_who_should_has_dialled(
    beam: Beam, node: Node, request: pytest.FixtureRequest
) -> None:
    connection = node.peers.get(beam.name)
    assert connection is not None
    assert connection._transport is not None
    tls = connection._transport.get_extra_info("ssl_object")
    assert tls.server_side is ("they dial" in request.node.name)
