"""The node: name, cookie, connections, processes, and the way into all of it for a program. Layer: node."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import signal
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from types import TracebackType
from typing import Any, TypeAlias

import attrs

from pyglyn import _main_module
from pyglyn.dist import UNDEFINED
from pyglyn.errors import DistributionError, LocalProtocolError, NodeDisconnected
from pyglyn.etf import Atom, Pid, Reference, Term
from pyglyn.net import Connection, Discovery, LocalNode, Peers
from pyglyn.node import allocator, garbage, rpc
from pyglyn.node.cookie import find_cookie
from pyglyn.node.destinations import Destination, ServerRef
from pyglyn.node.discovering import Discoverer
from pyglyn.node.exports import DEFAULT, Exports
from pyglyn.node.gen_server import GenServer, start_server
from pyglyn.node.hub import Hub
from pyglyn.node.notify import LifeSigns
from pyglyn.node.process import Process
from pyglyn.node.readiness import Readiness
from pyglyn.node.reasons import EXIT, NODEDOWN, SHUTDOWN
from pyglyn.node.router import Router
from pyglyn.node.runtime import Identity, Runtime
from pyglyn.node.services import Services
from pyglyn.node.settings import Settings
from pyglyn.node.signals import ExitSignal
from pyglyn.node.stalls import StallWatch
from pyglyn.node.workers import Workers

logger = logging.getLogger("pyglyn.node")

APP = "app"
"""What `Node.ready` says that it is there."""
NODEUP = Atom("nodeup")
NODE_TYPE, REASON = Atom("node_type"), Atom("nodedown_reason")


@attrs.frozen
class NodeEvent:
    """A node came up or went down.

    Attributes:
        node: its name.
        up: which of the two.
        hidden: whether the connection is a hidden one: this node or that one is hidden.
        reason: why it went down, in words; empty when it came up.
    """

    node: str
    up: bool
    hidden: bool
    reason: str = ""


class Node:
    """A node of the cluster: ``async with Node("inventory@localhost", cookie="…") as node: …``.

    Args:
        name: ``alive@host``; a host with a dot or an address makes it a long name.
        cookie: the cluster's; None reads ``PYGLYN_COOKIE``, then ``~/.erlang.cookie``.
        hidden: False announces the node to the cluster as a visible one. ``global`` goes on without it: its
            names are not kept here, and nobody is told to connect; see ``pyglyn.node.global_names``.
        exports: the functions other nodes may call; by default those marked with ``@export``.
        settings: see ``Settings``.
        announced: False keeps its name from EPMD until `announce`, for what takes long to be ready.
        named_by: the node that gives this one its name, where that is ``undefined@host`` (as ``erl -sname
            undefined``): for a client that comes and goes. It does not listen, and nobody else finds it; its
            ``name`` is known once it is started. When that connection ends, its name may be another's: `run`
            raises `NodeDisconnected`.

    Attributes:
        hub: what the parts of the node have in common.
        services: what serves calls of other nodes.
    """

    def __init__(
        self,
        name: str,
        cookie: str | None = None,
        *,
        hidden: bool = True,
        exports: Exports | None = None,
        settings: Settings | None = None,
        announced: bool = True,
        named_by: str | None = None,
    ) -> None:
        self.settings = settings or Settings()
        self._announced = announced
        self._named_by = named_by
        self.local = LocalNode(name=name, cookie=find_cookie(cookie), hidden=hidden)
        self.peers = Peers(
            self.local,
            on_up=self._on_up,
            on_down=self._on_down,
            on_busy=self._on_busy,
            settings=self.settings.net,
        )
        self.hub = Hub(self.local, self.settings, self.peers, DEFAULT if exports is None else exports)
        self.workers = Workers(self.hub)
        self.router = Router(self.hub, self.workers)
        self.before_stop: list[Callable[[], Awaitable[None]]] = []
        self._watchers: dict[Pid, bool] = {}
        self._listeners: list[Callable[[NodeEvent], None]] = []
        self._keepers: dict[str, asyncio.Task[None]] = {}
        self._discoverers: list[asyncio.Task[None]] = []
        self._changed: dict[str, asyncio.Event] = {}
        self._started = False
        self._collecting = False
        self._serving = asyncio.Event()
        self._app_started = asyncio.Event()
        self._failure: Exception | None = None
        self._failing = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Node {self.name}>"

    @property
    def name(self) -> str:
        """The full node name."""
        return self.local.name

    @property
    def system(self) -> Process:
        """The process that calls and sends on behalf of no process in particular."""
        return self._own().system

    @property
    def runtime(self) -> Runtime:
        """The processes of the node's own operating-system process, once it has been started.

        Raises:
            CopiedNode: this is a fork of that operating-system process.
        """
        return self._own().runtime

    def _own(self) -> Hub:
        """The hub, unless what code in a fork has is a copy: that knows nothing new, and tells nobody.

        Raises:
            CopiedNode: it is one.
        """
        if hasattr(self.hub, "runtime"):
            self.hub.runtime.home.check_no_copy()
        return self.hub

    @property
    def exports(self) -> Exports:
        """The functions other nodes may call."""
        return self.hub.exports

    @property
    def builtins(self) -> Exports:
        """The functions that every node exports, for shells and tools; parts of pyglyn add theirs."""
        return self.hub.builtins

    @property
    def on_info(self) -> list[Callable[[], Term]]:
        """Functions that tell more about what is here, for ``pyglyn tree``."""
        return self.hub.on_info

    @property
    def readiness(self) -> Readiness:
        """What has to be so in the node's own operating-system process before the node counts as ready."""
        return self.runtime.readiness

    @property
    def stopping(self) -> bool:
        """Whether the node has been told to stop."""
        return self.hub.stopping.is_set()

    @property
    def net_ticktime(self) -> float:
        """Seconds after which a silent peer counts as dead."""
        return self.settings.net.channel.net_ticktime_s

    # --- life -------------------------------------------------------------------------------------

    async def __aenter__(self) -> Node:
        await self.start_node()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.stop()

    async def start_node(self) -> None:
        """Listen, register at EPMD (starting one where none runs), and serve.

        With ``announced=False`` nobody finds it by its name until `announce`; it can connect to others.

        Raises:
            EpmdError: the name is taken, or EPMD cannot be used.
            DistributionError: the port cannot be listened on.
            UnsupportedType: an exported function's annotation cannot be resolved.
        """
        if self._started:
            raise LocalProtocolError("this node has been started already")
        if _main_module.is_importing():
            raise LocalProtocolError(
                "a fresh interpreter for a child imports the main module, and that starts a node: "
                'put the start below `if __name__ == "__main__":`'
            )
        if self.local.unnamed != (self._named_by is not None):
            raise LocalProtocolError(
                f"a node of the name {UNDEFINED}@host, and no other, is named by another node"
            )
        if self.local.unnamed and not self.local.hidden:
            raise LocalProtocolError("a node that is named by another one does not listen, and so is hidden")
        self.exports.check()
        self._started = True
        try:
            if self._named_by is not None:
                self._announced = True
                await self.peers.be_named_by(self._named_by, self._prepare)
                self._serving.set()
                return
            if not self._announced:
                await self.peers.check_name()
            await self.peers.listen()
            self._prepare()
            if self._announced:
                await self.peers.announce()
                self._serving.set()
        except BaseException:
            await self.stop()
            raise

    def _prepare(self) -> None:
        """The creation is known and no peer is connected yet: make everything a peer may ask for."""
        identity = Identity(self.name, self.local.creation)
        self.hub.runtime = Runtime(identity, self.router.to_node, self.settings, self.workers.token.encode())
        self.hub.runtime.on_way = self.router.way
        self.runtime.on_release = self.workers.releases.tell
        self.runtime.belongings.put(self)
        self.hub.builtins = Exports(self._add_builtins)
        self.services = Services(self.hub)
        self.services.start()
        self._stalls = StallWatch(self.net_ticktime / 4, self.net_ticktime)
        self._stalls.start()
        self.hub.begin()
        garbage.begin(self.settings.collector)
        allocator.give_back()
        allocator.keep_spare(self.settings.spare_memory)
        self._collecting = True

    def _add_builtins(self, table: Exports) -> None:
        from pyglyn.node.builtins import add_builtins  # late: it is much, and most nodes are asked for none

        add_builtins(table, self.hub, self.workers)

    async def announce(self) -> None:
        """Register at EPMD, for a node made with ``announced=False``: now others may find it, and it serves.

        Raises:
            EpmdError: the name is taken, or EPMD cannot be used.
        """
        if not self._announced:
            self._announced = True
            await self.peers.announce()
            self._serving.set()

    async def stop(self) -> None:
        """Stop: processes get exit signal ``shutdown``, connections close, the name is given up.

        In a fork of its operating-system process it does nothing.
        """
        if hasattr(self.hub, "runtime") and self.hub.runtime.home.copied:
            return
        self.hub.stopping.set()
        reaching = [*self._keepers.values(), *self._discoverers]
        for task in reaching:
            task.cancel()
        await asyncio.gather(*reaching, return_exceptions=True)
        for stop in reversed(self.before_stop):
            await stop()
        if hasattr(self.hub, "runtime"):
            self._stalls.stop()
            await self._stop_processes()
        await self.workers.stop()
        await self.router.stop()
        await self.peers.stop()
        if self._collecting:
            self._collecting = False
            garbage.end()

    async def _stop_processes(self, grace: float = 5.0) -> None:
        """End all processes as a supervisor would: those that trap exits may clean up, within ``grace``."""
        tasks = []
        parent = self.system
        for process in list(self.runtime.processes.values()):
            if process._task is not None:
                tasks.append(process._task)
            if process is parent:
                continue
            if process.trap_exit:
                process.put_signal(ExitSignal((EXIT, parent.pid, SHUTDOWN)))
            else:
                process.die(SHUTDOWN)
        tasks = [task for task in tasks if task is not asyncio.current_task()]
        if tasks:
            await asyncio.wait(tasks, timeout=grace)
        self.runtime.kill_all(SHUTDOWN)
        await self.runtime.aftermath.over(self.settings.last_words_s)

    async def run(self) -> None:
        """Serve until SIGINT, SIGTERM, SIGHUP or ``request_stop``. A second one ends the program at once.

        SIGHUP stays ignored where it is, as below ``nohup``. Outside the main thread, which alone can handle
        signals, none is handled: only ``request_stop`` and `fail` end it.

        systemd is told of it (``Type=notify``, ``WatchdogSec=``), and the heartbeat file is kept.

        Raises:
            Exception: what `fail` was given, before or now: without it the node is of no use. A supervision
                tree that ended by itself is a `TreeEnded`.
        """
        loop = asyncio.get_running_loop()

        def on_signal(number: int) -> None:
            if self.hub.stopping.is_set():
                logger.warning("%s again: ending at once", signal.Signals(number).name)
                os._exit(128 + number)
            logger.info("%s: stopping", signal.Signals(number).name)
            self.hub.stopping.set()

        handled = [signal.SIGINT, signal.SIGTERM]
        if threading.current_thread() is not threading.main_thread():
            handled = []
        elif signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            handled.append(signal.SIGHUP)
        for number in handled:
            loop.add_signal_handler(number, on_signal, number)
        signs = LifeSigns(self.readiness, self.hub.stopping, self.settings.heartbeat_file)
        signs.start()
        self.before_stop.insert(0, signs.stop)
        try:
            await self._stopping_or_failure()
        finally:
            if not self.hub.stopping.is_set():
                for number in handled:
                    loop.remove_signal_handler(number)

    async def _stopping_or_failure(self) -> None:
        waits = [asyncio.ensure_future(event.wait()) for event in (self.hub.stopping, self._failing)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        if self._failure is not None and not self.hub.stopping.is_set():
            raise self._failure

    def fail(self, error: Exception) -> None:
        """Make ``run`` raise this error, now or when it is called; the first one counts."""
        if self._failure is None:
            self._failure = error
            self._failing.set()

    def ready(self) -> None:
        """Say that the app has started; for an ``async`` one that runs on without receiving anything.

        One that returns, be it with a tree, has started then, and one that waits for a message as a process
        of `process`, without a timeout. Until then ``/readyz`` says that it has not, and a node that
        ``pyglyn node`` runs is not announced.
        """
        self.readiness.done(APP)
        self._app_started.set()

    async def until_ready(self) -> None:
        """Wait for `ready`."""
        await self._app_started.wait()

    def request_stop(self) -> None:
        """Make ``run`` return; from any thread."""
        if not hasattr(self.hub, "runtime") or self.runtime.home.is_here():
            self.hub.stopping.set()
        else:
            self.runtime.home.soon(self.hub.stopping.set)

    # --- connections ------------------------------------------------------------------------------

    async def connect(self, node: str) -> None:
        """Connect to a node; nothing happens if it is connected.

        Raises:
            HandshakeError, EpmdError: one sentence that says why not.
        """
        await self._own().peers.connect(node)

    def disconnect(self, node: str) -> None:
        """Close the connection to a node, if there is one."""
        self._own().peers.disconnect(node)

    def nodes(self) -> list[str]:
        """The names of the connected nodes."""
        return self._own().nodes()

    def is_hidden(self, node: str) -> bool:
        """Whether the connection to a connected node is a hidden one."""
        return self._own().is_hidden(node)

    def keep_connected(self, node: str) -> None:
        """Connect to a node, and again whenever the connection is lost, by ``Settings.reconnect``.

        A node made with ``announced=False``, as an app's is, begins with `announce`.
        """
        if node not in self._keepers:
            self._keepers[node] = asyncio.get_running_loop().create_task(self._keep(node))

    def discover(self, discovery: Discovery, every_s: float = 5.0) -> None:
        """Connect to all nodes that a discovery finds, and look again, until the node stops.

        A node made with ``announced=False``, as an app's is, begins with `announce`.

        Args:
            discovery: one of ``pyglyn.net.discovery``, or anything else with ``async def nodes(self)``.
            every_s: seconds between two looks; each wait is shortened by up to a fifth, at random.
        """
        discoverer = Discoverer(self._own().peers, discovery, every_s)

        async def look() -> None:
            await self._serving.wait()
            await discoverer.run()

        self._discoverers.append(asyncio.get_running_loop().create_task(look(), name="pyglyn discovery"))

    async def _keep(self, node: str) -> None:
        await self._serving.wait()
        policy = self.settings.reconnect
        attempts = 0
        changed = self._changed.setdefault(node, asyncio.Event())
        said = ""
        while True:
            changed.clear()
            try:
                await self.peers.connect(node)
                attempts, said = 0, ""
                if self.peers.get(node) is not None:
                    await changed.wait()
                continue
            except DistributionError as error:
                if str(error) != said:
                    logger.warning("cannot connect to %s, trying again: %s", node, error.with_notes)
                said = str(error)
            with contextlib.suppress(TimeoutError):
                attempts += 1
                async with asyncio.timeout(policy.wait(attempts, random.random())):
                    await changed.wait()

    def on_node_event(self, listener: Callable[[NodeEvent], None]) -> Callable[[], None]:
        """Call ``listener`` at each node up and down, before anything of that node; returns its removal."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def monitor_nodes(self, pid: Pid) -> None:
        """Send ``{nodeup, Node, Info}`` and ``{nodedown, Node, Info}`` to a process, until it ends.

        As ``net_kernel:monitor_nodes(true, [{node_type, all}, nodedown_reason])``.
        """
        self._watchers[pid] = True

    async def events(self) -> AsyncIterator[NodeEvent]:
        """The node ups and downs from now on."""
        queue: asyncio.Queue[NodeEvent] = asyncio.Queue()
        remove = self.on_node_event(queue.put_nowait)
        try:
            while True:
                yield await queue.get()
        finally:
            remove()

    def _on_up(self, connection: Connection) -> None:
        logger.info("%s is up%s", connection.name, " (a hidden node)" if connection.peer_hidden else "")
        # First what waited: whoever is told may send.
        self.router.connected(connection)
        self._notify(NodeEvent(connection.name, True, connection.hidden))

    def _on_down(self, connection: Connection, reason: str) -> None:
        logger.info("%s is down: %s", connection.name, reason)
        self.router.busy(connection.name, False)
        self.router.node_lost(connection.name)
        if connection.name == self._named_by:
            self.fail(NodeDisconnected(connection.name, f"it gave this node its name, and is gone: {reason}"))
        self._notify(NodeEvent(connection.name, False, connection.hidden, reason))

    def _notify(self, event: NodeEvent) -> None:
        changed = self._changed.get(event.node)
        if changed is not None:
            changed.set()
        for listener in list(self._listeners):
            listener(event)
        info: list[Term] = [(NODE_TYPE, Atom("hidden" if event.hidden else "visible"))]
        if not event.up:
            info.insert(0, (REASON, event.reason.encode()))
        for pid in [pid for pid in self._watchers if pid.id not in self.runtime.processes]:
            del self._watchers[pid]
        for pid in self._watchers:
            self.system.send(pid, (NODEUP if event.up else NODEDOWN, Atom(event.node), info))

    def _on_busy(self, connection: Connection, busy: bool) -> None:
        self.router.busy(connection.name, busy)

    # --- processes --------------------------------------------------------------------------------

    def spawn(self, body: Callable[..., Awaitable[Any]], *args: Any, name: str | None = None) -> Pid:
        """Start a process in the node's own operating-system process.

        Raises:
            NameTaken: another process has the name.
        """
        return self.runtime.spawn(body, args, name=name).pid

    async def start(
        self, server: type[GenServer], *args: Any, name: str | None = None, **kwargs: Any
    ) -> Pid | None:
        """Start a ``GenServer`` and wait for its ``init``; None if that said ``Ignore``.

        Raises:
            StartError: ``init`` failed.
            NameTaken: another process has the name.
        """
        return await start_server(self.runtime, server, *args, name=name, parent=self.system.pid, **kwargs)

    @contextlib.asynccontextmanager
    async def process(self, name: str | None = None) -> AsyncIterator[Process]:
        """Make the calling coroutine a process for a while, with pid and mailbox."""
        process = self.runtime.attach("attached")
        if not self._app_started.is_set():
            process.on_wait = self.ready
        try:
            if name is not None:
                self.runtime.register(name, process.pid)
            yield process
        finally:
            process.end()

    def whereis(self, name: str) -> Pid | None:
        """The pid registered under a name of this node."""
        return self._own().whereis(name)

    def send(self, to: Destination, message: Term) -> None:
        """Send a message from no process in particular; from any thread."""
        self.system.send(to, message)

    async def call(self, server: ServerRef, request: Term, timeout: float | None = 5.0) -> Term:
        """Call a ``gen_server``, from any thread; see ``Process.call``."""
        return await self.system.call(server, request, timeout)

    def cast(self, server: ServerRef, request: Term) -> None:
        """Send a request to a ``gen_server`` without waiting."""
        self.system.cast(server, request)

    async def rpc(
        self, node: str, module: str, function: str, args: Sequence[Term] = (), timeout: float | None = 5.0
    ) -> Term:
        """Call a function on a node as ``rpc:call``; see ``node.rpc.rpc``."""
        return await rpc.rpc(self.system, node, module, function, args, timeout)

    async def erpc(
        self, node: str, module: str, function: str, args: Sequence[Term] = (), timeout: float | None = 5.0
    ) -> Term:
        """Call a function on a node as ``erpc:call``; see ``node.rpc.erpc``."""
        return await rpc.erpc(self.system, node, module, function, args, timeout)

    async def whereis_global(self, peer: str, name: Term, timeout: float | None = 5.0) -> Pid | None:
        """The pid that a name has in ``global``, as ``global:whereis_name`` on a peer that takes part in it.

        Args:
            peer: a BEAM node; this one is hidden, and so outside of ``global``.
            name: any term; text stands for the atom.

        Raises:
            BadRpc: the peer cannot be asked.
        """
        wanted = Atom(name) if isinstance(name, str) else name
        found = await self.rpc(peer, "global", "whereis_name", [wanted], timeout)
        return found if isinstance(found, Pid) else None

    async def ping(self, node: str, timeout: float | None = 10.0) -> bool:
        """``net_adm:ping``: connect if needed and ask the other node's ``net_kernel``.

        Raises:
            HandshakeError, EpmdError: the node cannot be connected; the text says why.
        """
        await self.connect(node)
        answer = await self.call(("net_kernel", node), (Atom("is_auth"), Atom(self.name)), timeout)
        return answer is Atom("yes")

    def make_ref(self) -> Reference:
        """A new unique reference."""
        return self.runtime.make_ref()


At: TypeAlias = "Node | Process"
"""Where a function acts: the node, in its own operating-system process, or a process anywhere on it."""
