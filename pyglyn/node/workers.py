"""The hub's side of its workers: who they are, what crosses to them, how their death is told. Layer: node.

A worker connects to a Unix socket of the hub, shows the token it was started with (``admission``), and gets a
serial, the number that its pids and references carry. It is dead when its socket closes; why is said by the
one that is its parent to the operating system, which alone can know. Signals in the name of its processes go
out then, with that reason.

On Linux the socket is in the abstract namespace: no file that a killed hub could leave behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from pyglyn import counters, forks, patience
from pyglyn.dist.control import Control
from pyglyn.errors import ProcessError
from pyglyn.etf import Atom, Pid, Reference, Term
from pyglyn.net.transport import listen_here
from pyglyn.node.admission import Admission, Arriving
from pyglyn.node.backpressure import PausedSources
from pyglyn.node.hub import Hub
from pyglyn.node.link import LinkProtocol, Payload
from pyglyn.node.reasons import ERROR, KILLED, OK, UNDEFINED
from pyglyn.node.releases import Releases
from pyglyn.node.settings import to_bytes
from pyglyn.node.worker_link import BUSY, WorkerLink

logger = logging.getLogger("pyglyn.node")

REASON_DEADLINE_S = 1.0
"""How long the death of a worker waits for its parent to say why, before it is ``killed``."""
HELD_OPEN_S = 0.05
"""How long the socket of a dead worker may stay open because a descendant has it too."""
ASK_AGAIN_S = 10.0
"""How long a worker that does not answer is not asked again, unless its answer comes after all."""
WELCOME, REPLY, NODE_DOWN = Atom("welcome"), Atom("reply"), Atom("node_down")
LOG_LEVEL, COUNT = Atom("log_level"), Atom("count")


class Workers:
    """The workers of a node.

    Attributes:
        on_signal: called with each worker and signal of it, in order (see `LinkProtocol`).
        on_messages: called with messages of a worker that have the same header; False for each of them to be
            given to ``on_signal``.
        on_welcome: called with each worker that is part of the node now, before any signal of it.
        address: the path workers connect to.
        token: what they must show.
        admission: the connections that have not shown it yet.
        links: serial -> worker.
        named: monitors by name of processes in workers: reference -> (the watcher, the worker). The name may
            be another process's when the monitor ends.
    """

    on_signal: Callable[[WorkerLink, Control, Payload, str | None], None]
    on_messages: Callable[[WorkerLink, Any, list[bytes], str | None], bool]
    on_welcome: Callable[[WorkerLink], None]

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.releases = Releases(hub)
        self.links: dict[int, WorkerLink] = {}
        self.named: dict[Reference, tuple[Pid, WorkerLink]] = {}
        self.token = os.urandom(16).hex()
        self.admission = Admission(self.token.encode(), hub.settings.net.setup_timeout_s)
        self.address = ""
        self._directory: str | None = None
        self._counting = False
        self._stopped = False
        self._server: asyncio.Server | None = None
        self._next_serial = 0
        self._by_os_pid: dict[int, WorkerLink] = {}
        self._asked: dict[Reference, tuple[int, asyncio.Future[bytes]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen for workers; called when the first supervision tree is started."""
        if self._server is not None:
            return
        name = f"pyglyn-{os.getpid()}-{os.urandom(8).hex()}"
        if sys.platform == "linux":
            self.address = "\0" + name
        else:
            import tempfile  # late: where there is an abstract socket, nobody needs one

            self._directory = tempfile.mkdtemp(prefix=name)
            self.address = os.path.join(self._directory, "hub")
        self._server = forks.keep_server(await listen_here(self.address, self._accept))

    async def stop(self) -> None:
        """Close every link, and stop listening."""
        if self._server is None:
            return
        self._stopped = True
        forks.close_server(self._server)
        self.admission.close()
        for link in list(self.links.values()):
            link.protocol.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._directory is not None:
            with contextlib.suppress(OSError):
                os.unlink(self.address)
                os.rmdir(self._directory)

    # --- workers come and go ----------------------------------------------------------------------

    def _accept(self) -> LinkProtocol:
        link: WorkerLink | None = None

        def on_request(request: Term) -> None:
            nonlocal link
            if link is None:
                link = self._welcome(protocol, request)
            else:
                self._request(link, request)

        def on_closed() -> None:
            if link is not None and not self._stopped:
                self._start(self._gone(link))

        def on_busy(busy: bool) -> None:
            if link is not None and not busy:
                link.paused.resume()

        settings = self.hub.settings
        protocol = Arriving(
            self.admission,
            on_request,
            on_closed,
            high_water=settings.worker_queue_limit,
            on_busy=on_busy,
            memory=settings.shared_memory,
        )
        return protocol

    def _start(self, coroutine: Any) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _welcome(self, protocol: LinkProtocol, request: Term) -> WorkerLink | None:
        match request:
            case (Atom("hello"), int() as os_pid, int() as parent, bytes() as title):
                pass
            case _:
                protocol.close()
                return None
        self._next_serial += 1
        link = WorkerLink(self._next_serial, os_pid, parent, title.decode(), protocol)
        link.paused = PausedSources(self.hub.pauses)
        self.links[link.serial] = link
        self._by_os_pid[os_pid] = link
        protocol.on_signal = functools.partial(self.on_signal, link)
        protocol.on_messages = functools.partial(self.on_messages, link)
        self.on_welcome(link)
        hub = self.hub
        link.busy = {*hub.runtime.busy}
        busy: list[Term] = [Atom(name) for name in link.busy]
        leader: Term = hub.runtime.group_leader or UNDEFINED
        protocol.request(
            (WELCOME, link.serial, Atom(hub.name), hub.local.creation, leader, busy, to_bytes(hub.settings))
        )
        if self._counting:
            protocol.request(COUNT)
        return link

    def exited(self, os_pid: int, reason: Term) -> asyncio.Future[None]:
        """The parent of an OS process says how it ended.

        Returns:
            What is resolved once its names are withdrawn and its links and monitors told.
        """
        link = self._by_os_pid.get(os_pid)
        if link is None:
            nothing: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            nothing.set_result(None)
            return nothing
        self._ended(link, reason)
        return link.told

    def _ended(self, link: WorkerLink, reason: Term) -> None:
        if not link.reason.done():
            link.reason.set_result(reason)
            if link.serial in self.links:
                # Grandchildren may hold the socket open: do not wait for them.
                asyncio.get_running_loop().call_later(HELD_OPEN_S, link.protocol.abort)

    async def _gone(self, link: WorkerLink) -> None:
        """The socket is closed: once the reason is known, tell everyone."""
        self.links.pop(link.serial, None)
        for serial, future in self._asked.values():
            if serial == link.serial:
                future.cancel()  # nobody need wait for its answer
        link.paused.resume()
        if link.parent and link.parent not in self.links:
            self._ended(link, KILLED)
        try:
            async with patience.timeout(REASON_DEADLINE_S):
                reason = await asyncio.shield(link.reason)
        except TimeoutError:
            reason = KILLED
        if self._by_os_pid.get(link.os_pid) is link:
            del self._by_os_pid[link.os_pid]
        for child in [child for child in self._by_os_pid.values() if child.parent == link.serial]:
            self._ended(child, KILLED)  # the kernel kills it with its parent, and nobody else can tell
        for name, pid in list(self.hub.runtime.names.items()):
            if pid.serial == link.serial:
                self.hub.runtime.unregister(name)
        for ref in [ref for ref, (_, behind) in self.named.items() if behind is link]:
            del self.named[ref]
        self.hub.runtime.ends.tell(link.boundary.death(reason), lambda: link.told.set_result(None))

    # --- private messages -------------------------------------------------------------------------

    def _request(self, link: WorkerLink, request: Term) -> None:
        match request:
            case (Atom("register"), Reference() as ref, bytes() as name, Pid() as pid):
                link.protocol.request((REPLY, ref, self._register(name.decode(), pid)))
            case (Atom("unregister"), bytes() as name):
                self.hub.runtime.unregister(name.decode())
            case (Atom("whereis"), Reference() as ref, bytes() as name):
                found = self.hub.runtime.names.get(name.decode())
                link.protocol.request((REPLY, ref, found or UNDEFINED))
            case (Atom("release"), Reference() as ref, bytes() as node):
                self.releases.tell(
                    node.decode(), lambda release: link.protocol.request((REPLY, ref, release or UNDEFINED))
                )
            case (Atom("exited"), Reference() as ref, int() as os_pid, reason):
                told = self.exited(os_pid, reason)
                told.add_done_callback(lambda _: link.protocol.request((REPLY, ref, OK)))
            case (Atom("main"), Pid() as pid):
                link.main = pid
            case (Atom("node_down"), Atom() as node):
                link.lost -= Counter((node.name,))
            case (Atom("counted"), list() as counts):
                counters.add_all(_counts(counts))
            case (Atom("requires"), list() as names):
                link.required = tuple(bytes(name).decode() for name in names)
            case (Atom("info"), Reference() as ref, bytes() as answer):
                waiting = self._asked.get(ref)
                if link.unanswered is not None and link.unanswered[0] == ref:
                    link.unanswered = None
                if waiting is not None and not waiting[1].done():
                    waiting[1].set_result(answer)
            case _:
                logger.warning("worker %s (%s) asks for something unknown", link.serial, link.title)

    def _register(self, name: str, pid: Pid) -> Term:
        try:
            self.hub.runtime.claim_name(name, pid)
        except (ProcessError, ValueError) as error:
            return (ERROR, str(error).encode())
        return OK

    # --- looking into workers, and killing them ---------------------------------------------------

    async def ask(
        self,
        question: Term,
        links: Iterable[WorkerLink] | None = None,
        *,
        timeout_s: float | None = None,
    ) -> dict[int, Any]:
        """Ask workers what is in them, all at once (see ``worker_questions``); serial -> answer.

        One that does not answer in time, or ends before, is left out. It is not asked again before it has
        answered, or some time has passed: a worker that is stuck keeps who asks several things waiting once,
        and questions do not pile up for it.

        Args:
            links: whom to ask; by default all.
            timeout_s: how long they may take; by default ``Settings.worker_answer_s``. With a time of its
                own, a question is put to each, and says nothing about later ones.
        """
        from pyglyn.node.worker_questions import INFO, read  # late: a node without workers asks none

        now = asyncio.get_running_loop().time()
        futures: dict[Reference, tuple[int, asyncio.Future[bytes]]] = {}
        for link in list(self.links.values()) if links is None else links:
            silent = link.unanswered
            if timeout_s is None and silent is not None and now - silent[1] < ASK_AGAIN_S:
                continue
            ref = self.hub.runtime.make_ref()
            futures[ref] = (link.serial, asyncio.get_running_loop().create_future())
            link.protocol.request((INFO, ref, question))
        if not futures:
            return {}
        self._asked.update(futures)
        try:
            with contextlib.suppress(TimeoutError):
                async with patience.timeout(
                    self.hub.settings.worker_answer_s if timeout_s is None else timeout_s
                ):
                    await asyncio.wait([future for _, future in futures.values()])
        finally:
            for ref in futures:
                del self._asked[ref]
        for ref, (serial, future) in futures.items():
            if timeout_s is None and not future.done() and serial in self.links:
                self.links[serial].unanswered = ref, asyncio.get_running_loop().time()
        done = [
            (serial, future)
            for serial, future in futures.values()
            if future.done() and not future.cancelled()
        ]
        return {serial: read(future.result()) for serial, future in done}

    # --- for all workers --------------------------------------------------------------------------

    def node_down(self, node: str) -> None:
        """Tell every worker that the connection to a node is gone."""
        for link in self.links.values():
            link.protocol.unread.pop(node.encode(), None)
            link.protocol.ways.clear()
            for ref in link.boundary.node_down(node):
                self.named.pop(ref, None)
            link.lost[node] += 1
            link.protocol.request((NODE_DOWN, Atom(node)))

    def no_longer_busy(self, node: str) -> None:
        """Tell the workers that know a node as busy that it no longer is."""
        for link in self.links.values():
            if node in link.busy:
                link.busy.discard(node)
                link.protocol.request((BUSY, Atom(node), False))

    def count(self) -> None:
        """Have every worker, those to come too, tell what it counts soon after."""
        self._counting = True
        for link in self.links.values():
            link.protocol.request(COUNT)

    def log_level(self, level: str) -> None:
        """Have every worker, and the workers that its programs start, log from this level on."""
        for link in self.links.values():
            link.protocol.request((LOG_LEVEL, level.encode()))


def _counts(told: list[Any]) -> Iterable[counters.Count]:
    for name, labels, amount in told:
        pairs = tuple((key.decode(), value.decode()) for key, value in labels)
        yield name.decode(), pairs, amount
