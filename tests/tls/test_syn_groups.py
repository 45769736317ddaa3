"""Groups and names of a real syn once more, over TLS, whoever dials."""

from __future__ import annotations

from tests.groups import test_syn_live
from tests.groups.conftest import start_node as start_node
from tests.tls.conftest import again

globals().update(
    again(
        test_syn_live,
        leave=("test_python_nodes_and_syn_agree_on_a_name_after_a_cut",),
    )
)
