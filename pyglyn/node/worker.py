"""A worker: an operating-system process of the node that runs Erlang-style processes. Layer: node.

It has one way out, the Unix socket to the hub. Processes of one worker signal each other directly; all else
goes through the hub. When the hub goes away, the worker ends at once: nothing outlives its node.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

import attrs

from pyglyn import counters, logs
from pyglyn.credentials import may_talk, user_of
from pyglyn.dist.control import Control, RegSend, Send
from pyglyn.errors import NameTaken, NodeBusy, ProcessError
from pyglyn.etf import Atom, Pid, Reference, Term
from pyglyn.net.transport import connect_here
from pyglyn.node import allocator, garbage
from pyglyn.node.backpressure import LINK_TO_HUB
from pyglyn.node.inlet import inlet
from pyglyn.node.link import HIGH_WATER, LinkProtocol
from pyglyn.node.process import Process
from pyglyn.node.reasons import OK, SHUTDOWN
from pyglyn.node.runtime import MESSAGES, Body, Identity, Parts, Runtime, label_of
from pyglyn.node.settings import Settings, from_bytes
from pyglyn.node.ways import Port
from pyglyn.node.worker_questions import INFO, answer, answer_later, takes_a_while

logger = logging.getLogger("pyglyn.node")

COUNTED_S = 0.1
"""How long what was counted waits for more of it before the hub is told."""


@attrs.frozen
class HubAddress:
    """What a worker needs to find its hub.

    Attributes:
        path: of the Unix socket.
        token: shown to the hub.
        parent: the serial of the worker that started this one, 0 for the hub.
    """

    path: str
    token: str = attrs.field(repr=False)
    parent: int = 0


class WorkerRuntime(Runtime):
    """A runtime whose names are kept by the hub."""

    def __init__(self, identity: Identity, worker: Worker, settings: Settings, secret: bytes) -> None:
        super().__init__(identity, worker.to_hub, settings, secret)
        self.worker = worker
        self.on_way = worker.way
        self.on_unregistered = lambda name, pid: worker.request((Atom("unregister"), name.encode()))

    def spawn(
        self,
        body: Body,
        args: Sequence[Any] = (),
        *,
        name: str | None = None,
        link_to: Pid | None = None,
        label: str | None = None,
    ) -> Process:
        """As ``Runtime.spawn``; the body runs once the hub has confirmed the name, else it ends (badarg)."""
        if name is None:
            return super().spawn(body, args, link_to=link_to, label=label)
        wanted = name

        async def named(me: Process, *arguments: Any) -> None:
            await me.register(wanted)
            await body(me, *arguments)

        return super().spawn(named, args, link_to=link_to, label=label or label_of(body))

    async def register_name(self, name: str, pid: Pid) -> None:
        """Register at the hub.

        Raises:
            NameTaken: another process of the node has the name.
        """
        process = self.processes.get(pid.id) if self.is_here(pid) else None
        if process is None:
            raise ProcessError(f"cannot register {name!r}: {pid} is not a live process here")
        registering = process

        def registered(answer: Term) -> None:
            """Before anything is handled that the hub sent after its answer, such as messages to the name."""
            if answer is not OK:
                return
            if registering.alive:
                self.names[name] = pid
                registering.registered_names[name] = None
            else:
                self.worker.request((Atom("unregister"), name.encode()))

        answer = await self.worker.ask(Atom("register"), name.encode(), pid, on_reply=registered)
        if isinstance(answer, tuple):
            raise NameTaken(bytes(answer[1]).decode())

    async def find_name(self, name: str) -> Pid | None:
        """Ask the hub who has a name."""
        answer = await self.worker.ask(Atom("whereis"), name.encode())
        return answer if isinstance(answer, Pid) else None

    def tell_release(self, node: str, then: Callable[[int | None], None]) -> None:
        """Ask the hub, which has the connections."""

        def told(release: Term) -> None:
            then(release if isinstance(release, int) else None)

        self.worker.question(told, Atom("release"), node.encode())


class Worker:
    """The connection of this operating-system process to its hub, and the runtime on top of it.

    Args:
        on_hub_gone: called when the hub is gone, before this operating-system process ends at once.

    Attributes:
        on_info: functions whose results go to the hub when it asks what is here (see ``inspection``).
    """

    def __init__(self, on_hub_gone: Callable[[], None] = lambda: None) -> None:
        self.runtime: WorkerRuntime
        self.on_info: list[Callable[[], Term]] = []
        self._on_hub_gone = on_hub_gone
        self._protocol = LinkProtocol(
            self._on_request, self._on_closed, on_busy=self._on_link_busy, waits=True
        )
        self._welcome: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._replies: dict[Reference, tuple[asyncio.Future[Term], Callable[[Term], None] | None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._count_due = False
        self._closing = False

    async def connect(self, address: HubAddress, title: str) -> None:
        """Connect to the hub and become part of the node.

        Raises:
            OSError: there is no hub, or what listens there is of another user.
        """
        loop = asyncio.get_running_loop()
        sock = socket.socket(socket.AF_UNIX)
        try:
            await connect_here(sock, address.path)
            if not may_talk(user_of(sock)):
                raise PermissionError("what listens where the hub was is of another user")
            self._secret = address.token.encode()
            sock.send(self._secret)  # before anything else has its turn here; a new socket takes it
            await loop.create_unix_connection(lambda: self._protocol, sock=sock)
        except BaseException:
            sock.close()
            raise
        self.request((Atom("hello"), os.getpid(), address.parent, title.encode()))
        await self._welcome

    def _be_welcome(
        self, serial: Any, node: Any, creation: Any, leader: Term, busy: Any, settings: Any
    ) -> None:
        """Become part of the node: at once, since other frames may follow in the same read."""
        identity = Identity(node.name, creation, serial)
        self.runtime = WorkerRuntime(identity, self, from_bytes(settings), self._secret)
        self._protocol.lend(self.runtime.settings.shared_memory)
        self.runtime.readiness.on_required = self._say_what_is_required
        self.runtime.group_leader = leader if isinstance(leader, Pid) else None
        for name in busy:
            self._set_busy(name.name, True)
        self._protocol.on_signal = self.runtime.receive_encoded
        self._protocol.on_messages = self.runtime.receive_many_encoded
        self._protocol.put_inlet(lambda begins, known: inlet(begins, known, self.runtime, None, {}, {}))
        self._welcome.set_result(None)

    def _say_what_is_required(self, names: list[str]) -> None:
        self.request((Atom("requires"), [name.encode() for name in names]))

    def to_hub(self, control: Control, parts: Parts | None, node: str) -> None:
        """Everything that is not for a process here goes to the hub.

        Raises:
            NodeBusy: a message, and too much is queued for the hub already.
        """
        queued = self._protocol.queued_bytes
        if queued > self.runtime.settings.send_limit and isinstance(control, MESSAGES):
            raise NodeBusy(
                f"{queued} bytes are queued for the hub, which does not take them; "
                "await me.drain() between messages, or raise send_limit"
            )
        self._protocol.send(control, node, parts)

    def way(self, control: Send | RegSend | None, node: str) -> tuple[bytes, int, Port] | None:
        """What a way to the hub needs (see ``ways``); None where each message is for ``to_hub``."""
        if self.runtime.settings.send_limit < 2 * HIGH_WATER:
            return None
        return self._protocol.way(control, node)

    def request(self, request: Term) -> None:
        """Send the hub a private message."""
        self._protocol.request(request)

    async def ask(self, what: Atom, *args: Term, on_reply: Callable[[Term], None] | None = None) -> Term:
        """Send the hub a private message and wait for its reply.

        Args:
            on_reply: called with the reply the moment it is here, also when nobody waits for it any more.
        """
        return await self.question(on_reply, what, *args)

    def question(
        self, on_reply: Callable[[Term], None] | None, what: Atom, *args: Term
    ) -> asyncio.Future[Term]:
        """As ``ask``, without waiting."""
        ref = self.runtime.make_ref()
        future: asyncio.Future[Term] = asyncio.get_running_loop().create_future()
        self._replies[ref] = (future, on_reply)
        self.request((what, ref, *args))
        return future

    async def close(self) -> None:
        """Say everything that is still to say, then leave the node."""
        self._tell_counts()
        self._closing = True
        await self._protocol.written()
        if self._protocol.transport is not None:
            self._protocol.transport.close()

    def _on_request(self, request: Term) -> None:
        match request:
            case (Atom("welcome"), *details):
                self._be_welcome(*details)
            case (Atom("reply"), Reference() as ref, reply):
                future, on_reply = self._replies.pop(ref)
                if on_reply is not None:
                    on_reply(reply)
                if not future.done():
                    future.set_result(reply)
            case (Atom("info"), Reference() as ref, question):
                if takes_a_while(question):
                    self._start(self._answer_later(ref))
                else:
                    self._tell_counts()
                    self._answer(ref, question)
            case Atom("count"):
                counters.when_changed(self._counted)
            case (Atom("node_down"), Atom() as node):
                self.runtime.node_down(node.name)
                self.request((Atom("node_down"), node))
            case (Atom("busy"), Atom() as node, bool() as busy):
                self._set_busy(node.name, busy)
            case (Atom("log_level"), bytes() as level):
                logs.set_level(level.decode())

    def _counted(self) -> None:
        """Something was counted, on whatever thread: tell the hub soon, with what is counted till then."""
        if not self._count_due:
            self._count_due = True
            self.runtime.home.soon(self._tell_counts_later)

    def _tell_counts_later(self) -> None:
        asyncio.get_running_loop().call_later(COUNTED_S, self._tell_counts)

    def _tell_counts(self) -> None:
        self._count_due = False
        counts: Term = [
            (name.encode(), [(key.encode(), value.encode(errors="replace")) for key, value in labels], amount)
            for name, labels, amount in counters.take()
        ]
        if counts:
            self.request((Atom("counted"), counts))

    def _answer(self, ref: Reference, question: Term) -> None:
        try:
            encoded = answer(self.runtime, self.on_info, question)
        except Exception:  # not worth the processes in here
            logger.exception("a question of the hub could not be answered")
        else:
            self.request((INFO, ref, encoded))

    async def _answer_later(self, ref: Reference) -> None:
        encoded = await answer_later(self.runtime)
        if not self._closing:
            self.request((INFO, ref, encoded))

    def _start(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _set_busy(self, node: str, busy: bool) -> None:
        if busy:
            self.runtime.busy.begin(node)
        else:
            self.runtime.busy.end(node)

    def _on_link_busy(self, busy: bool) -> None:
        self._set_busy(LINK_TO_HUB, busy)

    def _on_closed(self) -> None:
        if not self._closing:
            with contextlib.suppress(Exception):
                self._on_hub_gone()
            os._exit(1)


Main = Callable[[Worker], Awaitable[int]]


async def run_worker(address: HubAddress, title: str, main: Main, on_hub_gone: Callable[[], None]) -> int:
    """Connect, run ``main``, tell what is still to tell; returns the exit status ``main`` gave."""
    worker = Worker(on_hub_gone)
    await worker.connect(address, title)
    garbage.begin(worker.runtime.settings.collector)
    allocator.give_back()
    allocator.keep_spare(worker.runtime.settings.spare_memory)
    try:
        return await main(worker)
    finally:
        worker.runtime.kill_all(SHUTDOWN)
        await worker.runtime.aftermath.over(worker.runtime.settings.last_words_s)
        await worker.close()
