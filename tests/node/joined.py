"""A node, workers of it, and a peer, all in one OS process: the sockets between them are real, an EPMD is not needed."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import attrs

from pyglyn.net import Connection, NetSettings
from pyglyn.node import Node, Process, Settings
from pyglyn.node.link import LinkProtocol
from pyglyn.node.worker import HubAddress, Worker
from pyglyn.node.worker_link import WorkerLink
from pyglyn.testing import eventually
from tests.net.conftest import Recorder
from tests.node.conftest import unique_name

COOKIE = "c"


@attrs.define
class Joined:
    """A running node and those that a test has joined to it.

    Attributes:
        ports: where peers listen, by name; what is not in here cannot be connected.
    """

    node: Node
    ports: dict[str, int]
    workers: list[Worker] = attrs.field(factory=list)
    peers: list[Recorder] = attrs.field(factory=list)

    async def worker(self, parent: int = 0) -> Worker:
        """One more worker."""
        made = Worker()
        self.workers.append(made)
        await made.connect(HubAddress(self.node.workers.address, self.node.workers.token, parent), "worker")
        return made

    def link(self, worker: Worker) -> WorkerLink:
        """What the hub has of a worker."""
        return self.node.workers.links[worker.runtime.serial]

    async def peer(self, *, connected: bool = True, hidden: bool = True, **settings: Any) -> Recorder:
        """Another node that writes down what comes; connected, unless the test is about how it gets there."""
        where = ("localhost", self.node.peers.port)
        net = NetSettings(epmd_port=0, address_of=lambda name: where, **settings)
        made = Recorder(unique_name("peer"), COOKIE, hidden, net)
        await made.peers.start()
        self.peers.append(made)
        self.ports[made.name] = made.peers.port
        if connected:
            await self.node.connect(made.name)
            await eventually(lambda: made.ups)
        return made

    def connection(self, peer: Recorder) -> Connection:
        """The node's side of the connection to a peer."""
        found = self.node.peers.get(peer.name)
        assert found is not None
        return found

    async def end(self) -> None:
        """The workers first: one whose hub is gone ends its OS process."""
        for worker in self.workers:
            worker._closing = True
            worker._protocol.abort()
        for peer in self.peers:
            await peer.peers.stop()


@contextlib.asynccontextmanager
async def joined(*, hidden: bool = True, **settings: Any) -> AsyncIterator[Joined]:
    """Start a node that listens for workers."""
    ports: dict[str, int] = {}

    def address_of(name: str) -> tuple[str, int] | None:
        return ("localhost", ports[name]) if name in ports else None

    net = NetSettings(epmd_port=0, address_of=address_of)
    async with Node(unique_name(), COOKIE, hidden=hidden, settings=Settings(net=net, **settings)) as node:
        await node.workers.start()
        here = Joined(node, ports)
        try:
            yield here
        finally:
            await here.end()


class RawWorker:
    """The worker's end of a link, which says what the test has it say."""

    def __init__(self) -> None:
        self.requests: list[Any] = []
        self.controls: list[Any] = []
        self.closed = asyncio.Event()
        self.protocol = LinkProtocol(self.requests.append, self.closed.set)
        self.protocol.on_signal = lambda control, payload, node: self.controls.append(control)

    async def connect(self, node: Node) -> None:
        """Connect, and show the token."""
        path = node.workers.address
        transport, _ = await asyncio.get_running_loop().create_unix_connection(lambda: self.protocol, path)
        transport.write(node.workers.token.encode())


def mailbox(process: Process) -> list[Any]:
    """The messages that wait, without taking them."""
    return process.waiting_messages
