"""Scopes started by a supervision tree. Layer: eventsourcing, cluster.

A scope lives in the node's own OS process, a tree's children in others. So the child that starts the scope
asks the hub for it, by an exported function: ``pyglyn:start_scope(Name)``.
"""

from __future__ import annotations

from typing import Final

from pyglyn.errors import GroupError
from pyglyn.etf import Atom, Term
from pyglyn.groups import syn
from pyglyn.node import Caller, GenServer, Node, Process, export
from pyglyn.node.rpc import rpc

MOST_SCOPES: Final = 100
"""Scopes of a node above which none is started for whoever asks: they stay for as long as the node does."""


@export("pyglyn", "start_scope")
async def start_scope_here(me: Process, scope: str) -> bool:
    """Start a scope in this OS process, if that is the node's own.

    Raises:
        GroupError: there are too many already.
    """
    node = me.runtime.belongings.find(Node)
    if node is None:
        return False
    scopes = [name for name in node.runtime.names if name.startswith("syn_pg_")]
    if f"syn_pg_{scope}" not in scopes and len(scopes) >= MOST_SCOPES:
        raise GroupError(f"this node has {len(scopes)} scopes already")
    syn.start(node, scope)
    return True


class ScopeServer(GenServer):
    """Has a scope started, which keeps itself running from then on."""

    async def init(self, scope: str) -> None:
        """Ask the hub.

        Raises:
            RemoteError: the scope's name is taken by another process.
        """
        self.scope = scope
        await ensure_scope(self.me, scope)

    async def handle_call(self, request: Term, caller: Caller) -> Term:
        """Nothing is expected, and answered."""
        return (Atom("error"), Atom("unknown_call"))

    async def handle_cast(self, request: Term) -> None:
        """Nothing is expected."""

    async def handle_info(self, message: Term) -> None:
        """Nothing is expected."""


async def ensure_scope(me: Process, scope: str) -> None:
    """Have a scope started on this node, if it does not run.

    Raises:
        RemoteError: the scope's name is taken by another process.
    """
    if await me.whereis(f"syn_pg_{scope}") is None:
        await rpc(me, me.node, "pyglyn", "start_scope", [scope.encode()])
