"""Connections, every form of packets, ten thousand messages and large ones with real nodes once more, over TLS."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from pyglyn.net import NetSettings, TlsSettings
from pyglyn.testing import Beam
from tests.net import conftest, test_real_nodes
from tests.net.conftest import Recorder, StartNode
from tests.tls.conftest import TlsBeams, again

globals().update(
    again(
        test_real_nodes,
        leave=(
            "test_a_missing_flag_is_named",
            "test_a_node_of_long_names",
            "test_a_node_of_the_other_kind_of_names_is_told_apart",
            "test_a_real_node_without_a_name_is_given_one",
            "test_a_restarted_real_node_takes_over_its_old_connection",
            "test_names_are_refused_as_by_a_real_node",
        ),
    )
)


start_plainly = conftest.start_node


@pytest.fixture
async def beam(beams: TlsBeams) -> Beam:
    """A node of the test's own, as its tests know our node by one name."""
    return await beams.start()


@pytest.fixture
async def start_node(start_plainly: StartNode, tls: TlsSettings) -> StartNode:
    """The factory of nodes, which gives them certificates."""

    async def start(*args: Any, settings: NetSettings | None = None, **kwargs: Any) -> Recorder:
        settings = attrs.evolve(settings or NetSettings(), tls=tls)
        return await start_plainly(*args, settings=settings, **kwargs)

    return start
