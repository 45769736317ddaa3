"""Nodes without processes: `Peers` that write down what happens to them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from pyglyn.dist.control import Control, DemonitorP, MonitorP, RegSend, Send
from pyglyn.etf import Atom, Pid, Term, decode_bare, encode_parts
from pyglyn.net import Connection, LocalNode, NetSettings, Peers
from pyglyn.testing import PrivateEpmd, eventually


class Recorder:
    """A node that keeps what its `Peers` report."""

    def __init__(self, name: str, cookie: str, hidden: bool, settings: NetSettings | None) -> None:
        self.ups: list[Connection] = []
        self.downs: list[tuple[str, str]] = []
        self.history: list[tuple[str, str]] = []
        self.messages: list[tuple[Control, Term]] = []
        self.busy: list[bool] = []
        self.local = LocalNode(name=name, cookie=cookie, hidden=hidden)
        self.peers = Peers(
            self.local,
            on_up=self._on_up,
            on_message=self._on_message,
            on_down=self._on_down,
            on_busy=lambda connection, busy: self.busy.append(busy),
            settings=settings,
        )

    @property
    def name(self) -> str:
        return self.local.name

    def pid(self, number: int = 1) -> Pid:
        return Pid(self.name, number, 0, self.local.creation)

    def _on_up(self, connection: Connection) -> None:
        self.ups.append(connection)
        self.history.append(("up", connection.name))

    def _on_down(self, connection: Connection, reason: str) -> None:
        self.downs.append((connection.name, reason))
        self.history.append(("down", connection.name))

    def _on_message(self, connection: Connection, control: Control, payload: Any) -> None:
        self.messages.append((control, None if payload is None else decode_bare(payload)[0]))

    def received(self) -> list[Term]:
        """The ordinary messages so far."""
        return [term for control, term in self.messages if isinstance(control, (Send, RegSend))]

    def monitors(self) -> list[Control]:
        return [control for control, _ in self.messages if isinstance(control, (MonitorP, DemonitorP))]

    def send(self, node: str, to: Pid | str, term: Term) -> None:
        """Send a term to a pid, or to a registered name, of a connected node."""
        connection = self.peers.get(node)
        assert connection is not None
        if isinstance(to, Pid):
            connection.send(Send(self.pid(), to), encode_parts(term))
        else:
            connection.send(RegSend(self.pid(), Atom(to)), encode_parts(term))

    async def has_received(self, count: int, timeout: float = 10.0) -> list[Term]:
        await eventually(lambda: len(self.received()) >= count, timeout)
        return self.received()

    async def has_lost(self, node: str, timeout: float = 10.0) -> str:
        """Wait until the connection with a node is down and return why."""
        await eventually(lambda: any(name == node for name, _ in self.downs), timeout)
        return next(reason for name, reason in self.downs if name == node)


class EpmdOnPort(PrivateEpmd):
    """Stands in for the private EPMD of the fixtures: nodes are pointed at a port that the test serves."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self.port = port


StartNode = Callable[..., Awaitable[Recorder]]


@pytest.fixture
async def start_node() -> AsyncIterator[StartNode]:
    """A factory of started nodes; all are stopped at the end of the test."""
    started: list[Recorder] = []

    async def start(
        name: str = "py@localhost",
        cookie: str = "pyglyn_testing",
        *,
        hidden: bool = True,
        settings: NetSettings | None = None,
    ) -> Recorder:
        recorder = Recorder(name, cookie, hidden, settings)
        await recorder.peers.start()
        started.append(recorder)
        return recorder

    yield start
    for recorder in started:
        await recorder.peers.stop()
