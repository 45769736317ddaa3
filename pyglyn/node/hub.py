"""What the parts of a running node have in common. Layer: node.

``Node`` puts a ``Hub`` together and hands it to those who work on it: the router, the workers, the services,
inspection. They know one another only as far as they are given one another, and none of them knows ``Node``.
"""

from __future__ import annotations

import asyncio
import functools
import platform
import time
from collections.abc import Callable

import attrs

from pyglyn._version import __version__
from pyglyn.etf import Pid, Term
from pyglyn.net import LocalNode, Peers
from pyglyn.node.backpressure import Pauses
from pyglyn.node.exports import Exports
from pyglyn.node.process import Process
from pyglyn.node.runtime import Runtime
from pyglyn.node.settings import Settings


@attrs.frozen
class Application:
    """What ``application:which_applications/0`` tells of: something with a version and perhaps processes.

    Attributes:
        name: its name.
        description: in words.
        module: where its code is.
        top: the process above all of its processes, if it has any.
    """

    name: str
    description: str
    module: str
    top: Pid | None = None

    @property
    def version(self) -> str:
        """That of the distribution its module was installed with; empty if there is none."""
        return _version(self.module.partition(".")[0])


@functools.cache
def _version(package: str) -> str:
    if package == platform.python_implementation():
        return platform.python_version()
    if package == "pyglyn":
        return __version__
    from importlib import metadata  # late: it imports much, and only Observer and the like ask

    try:
        return metadata.version(package)
    except (metadata.PackageNotFoundError, ValueError):
        pass
    names = metadata.packages_distributions().get(package, [])
    return metadata.version(names[0]) if names else ""


class Hub:
    """The node's own operating-system process, as its parts see it.

    Attributes:
        local: the node's name, cookie and creation.
        settings: the node's settings.
        peers: its connections.
        runtime: its processes; there is one once the node has been started and its creation is known.
        exports: the functions other nodes may call.
        builtins: the functions that every node exports, for shells and tools.
        pauses: why peers and workers are not read.
        on_info: functions that tell more about what is here (see ``inspection``).
        applications: what runs on the node, by name.
        started_ns: when it was started, by ``time.monotonic_ns``.
        stopping: set once the node has been told to stop.
    """

    runtime: Runtime

    def __init__(self, local: LocalNode, settings: Settings, peers: Peers, exports: Exports) -> None:
        self.local = local
        self.settings = settings
        self.peers = peers
        self.exports = exports
        self.builtins = Exports()
        self.pauses = Pauses()
        self.on_info: list[Callable[[], Term]] = []
        self.stopping = asyncio.Event()
        self.applications: dict[str, Application] = {}
        self.started_ns = time.monotonic_ns()
        self._system: Process | None = None

    @property
    def name(self) -> str:
        """The full node name."""
        return self.local.name

    def begin(self) -> None:
        """There is a runtime with a group leader: whoever speaks for the node, from any thread, can do so."""
        self.started_ns = time.monotonic_ns()
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
