"""Scopes started by a supervision tree, without the program having to name its node. Layer: eventsourcing, on
a node.
"""

from __future__ import annotations

from pyglyn.errors import NoProcess
from pyglyn.etf import Atom
from pyglyn.groups import syn
from pyglyn.node import GenServer, Node
from pyglyn.supervision import ChildSpec, worker

UNDEFINED = Atom("undefined")


class ScopeServer(GenServer):
    """Starts a scope in the node's own OS process; the scope keeps itself running from then on."""

    async def init(self, scope: str) -> None:
        """Start it.

        Raises:
            NoProcess: this is another OS process, and the scope does not run.
        """
        self.scope = scope
        node = node_of(self)
        if node is not None:
            start_scope(node, scope)
        elif not await self.me.whereis(f"syn_pg_{scope}"):
            raise NoProcess(
                f"the scope {scope} has to be started in the node's own OS process: put the child into a "
                "tree of the node, or call syn.start(node, scope) first"
            )


def node_of(server: GenServer) -> Node | None:
    """The node, where a process shares its OS process; None elsewhere."""
    router = getattr(server.me.runtime.forward, "__self__", None)
    node = getattr(router, "node", None)
    return node if isinstance(node, Node) else None


def start_scope(node: Node, scope: str) -> None:
    """Start a scope on a node, if it does not run."""
    syn.start(node, scope)


def scope_worker(scope: str) -> ChildSpec:
    """Specify the child that starts a scope."""
    return worker(ScopeServer, scope, id=f"scope_{scope}", isolation="task")
