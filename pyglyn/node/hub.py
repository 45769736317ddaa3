"""What the parts of a running node have in common. Layer: node.

``Node`` puts a ``Hub`` together and hands it to those who work on it: the router, the workers, the services,
inspection. They know one another only as far as they are given one another, and none of them knows ``Node``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from pyglyn.etf import Pid, Term
from pyglyn.net import LocalNode, Peers
from pyglyn.node.exports import Exports
from pyglyn.node.process import Process
from pyglyn.node.runtime import Runtime
from pyglyn.node.settings import Settings


class Hub:
    """The node's own operating-system process, as its parts see it.

    Attributes:
        local: the node's name, cookie and creation.
        settings: the node's settings.
        peers: its connections.
        runtime: its processes; there is one once the node has been started and its creation is known.
        exports: the functions other nodes may call.
        builtins: the functions that every node exports, for shells and tools.
        on_info: functions that tell more about what is here (see ``inspection``).
        stopping: set once the node has been told to stop.
    """

    runtime: Runtime

    def __init__(self, local: LocalNode, settings: Settings, peers: Peers, exports: Exports) -> None:
        self.local = local
        self.settings = settings
        self.peers = peers
        self.exports = exports
        self.builtins = Exports()
        self.on_info: list[Callable[[], Term]] = []
        self.stopping = asyncio.Event()
        self._system: Process | None = None

    @property
    def name(self) -> str:
        """The full node name."""
        return self.local.name

    def begin(self) -> None:
        """There is a runtime with a group leader: whoever speaks for the node, from any thread, can do so."""
        self._system = self._new_system()

    def _new_system(self) -> Process:
        system = self.runtime.attach("system")
        system.deaf = system.trap_exit = True
        return system

    @property
    def system(self) -> Process:
        """The process that calls and sends on behalf of no process in particular.

        A peer may send it an exit signal, as to any process: there is a new one then.
        """
        if self._system is None or not self._system.alive:
            self._system = self._new_system()
        return self._system

    def nodes(self) -> list[str]:
        """The names of the connected nodes."""
        return sorted(connection.name for connection in self.peers.connections)

    def is_hidden(self, node: str) -> bool:
        """Whether the connection to a connected node is a hidden one."""
        connection = self.peers.get(node)
        return connection is None or connection.hidden

    def whereis(self, name: str) -> Pid | None:
        """The pid registered under a name of this node."""
        return self.runtime.names.get(name)
