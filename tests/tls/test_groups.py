"""Groups of ``pg`` once more, over TLS, whoever dials."""

from __future__ import annotations

import pytest

from pyglyn.testing import Beam
from tests.groups import test_pg_live
from tests.groups.conftest import start_node as start_node
from tests.tls.conftest import TlsBeams, again

globals().update(again(test_pg_live, leave=("test_python_nodes_find_each_other_whenever_a_scope_starts",)))


@pytest.fixture
async def beam(beams: TlsBeams) -> Beam:
    """A node of the test's own: groups stay in a scope."""
    return await beams.start()
