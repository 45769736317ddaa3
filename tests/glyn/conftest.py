"""Python nodes, as the group tests have them."""

from __future__ import annotations

from tests.groups.conftest import StartNode, idle, start_node

__all__ = ["StartNode", "idle", "start_node"]
