"""The process that runs a group machine on a node. Layer: groups.

A scope lives in the hub, registered under the name that other nodes expect. It takes its mailbox message by
message, hands each to its machine and carries out the effects; calls of this node's programs go to the
machine directly (``perform``), in the same thread. When the process ends for any reason but ``stop`` (a fault
of ours, or somebody killed it), a new one starts with the old one's local members, and all nodes sync anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import inspect
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import attrs

from pyglyn import etf
from pyglyn.errors import NameTaken, NodeBusy, PyglynError
from pyglyn.etf import Atom, Pid, Reference, Term
from pyglyn.groups import watch
from pyglyn.groups.discovery import Discovery
from pyglyn.groups.effects import (
    AnswerCall,
    AskVersion,
    CheckWatched,
    Demonitor,
    Effect,
    Event,
    Monitor,
    Rejected,
    Send,
    SendExit,
    Target,
    Watch,
)
from pyglyn.groups.operations import error_term, forget
from pyglyn.node import Caller, Node, NodeEvent, Process
from pyglyn.node.backpressure import WhenBusy
from pyglyn.node.process import MAX_LOGGED_REASON
from pyglyn.node.reasons import OK
from pyglyn.node.signals import DownSignal

logger = logging.getLogger("pyglyn.groups")

RESTARTS_AT_ONCE = 5
RESTART_PAUSE_S = 1.0
BUSY_PART = 16
"""This part of what may be queued for a node (16 of 256 MiB) is what a scope queues before it waits."""
AT_ONCE = 256
"""Effects that are carried out in one turn of the event loop; a message of a peer may have many thousands."""


class Machine(Protocol):
    """What the machines of this package have in common."""

    @property
    def discovery(self) -> Discovery: ...
    def handle_node_up(self, node: str) -> list[Effect]: ...
    def handle_node_down(self, node: str) -> list[Effect]: ...
    def handle_down(self, target: Target, reason: Term, now: float) -> list[Effect]: ...
    def handle_watch(self, node: str, found: bool, now: float) -> list[Effect]: ...
    def handle_unwatched(self, pid: Pid, now: float) -> list[Effect]: ...
    def next_deadline(self) -> float | None: ...
    def handle_timeout(self, now: float) -> list[Effect]: ...


M = TypeVar("M", bound=Machine)


@attrs.frozen
class _Input:
    """Something that is no message; no message from outside can look like it."""

    feed: Callable[[], list[Effect]]


class Scope(Generic[M]):
    """One scope on one node; see ``PgScope``, ``SynGroupsScope`` and ``SynRegistryScope``.

    Attributes:
        node: the node.
        name: what the scope process is registered as.
        machine: the state of the running scope process.
        process: the running scope process.
    """

    machine: M
    process: Process

    def __init__(self, node: Node, name: str) -> None:
        self.node = node
        self.name = name
        self.listeners: list[Callable[[Event], None]] = []
        self._refs: dict[Target, Reference] = {}
        self._targets: dict[Reference, Target] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._settling: list[asyncio.Future[None]] = []
        self._remove_listener: Callable[[], None] | None = None
        self._kept = False
        self._ends: list[float] = []
        self._pause: asyncio.TimerHandle | None = None
        self._backlog: deque[Effect] = deque()
        self._caught_up: asyncio.Future[None] | None = None
        self._waits_until = -math.inf  # when its process looks at the time, should no message come before

    # --- what the kinds of scopes provide ---------------------------------------------------------

    def make_machine(self, process: Process) -> M:
        """A new machine for a new scope process."""
        raise NotImplementedError

    def take_over(self, old: M) -> list[Effect]:
        """Give the new machine the local members of the old one."""
        raise NotImplementedError

    def take(self, message: Term, now: float) -> list[Effect]:
        """Hand the machine a message."""
        raise NotImplementedError

    def overview(self) -> Term:
        """What is in it, for ``pyglyn groups``."""
        raise NotImplementedError

    operations: ClassVar[frozenset[str]] = frozenset()
    """The methods, async or not, that workers may ask for; their arguments and results are terms."""

    async def operate(self, operation: str, *args: Any) -> Any:
        """Call one of the ``operations``."""
        result = getattr(self, operation)(*args)
        return await result if inspect.isawaitable(result) else result

    # --- life -------------------------------------------------------------------------------------

    @property
    def running(self) -> bool:
        """Whether the scope process is alive, or about to be again."""
        return self._kept

    def start(self) -> None:
        """Start the scope process.

        Raises:
            NameTaken: another process has its name.
        """
        self._start_process()
        self._remove_listener = self.node.on_node_event(self._on_node_event)
        self._kept = True

    def stop(self) -> None:
        """End the scope process; the other nodes forget its members."""
        if not self._kept:
            return
        self._kept = False
        if self._remove_listener is not None:
            self._remove_listener()
        if self._pause is not None:
            self._pause.cancel()
        self.node.system.exit(self.process.pid, "kill")
        forget(self)

    def _start_process(self) -> None:
        self._refs.clear()
        self._targets.clear()
        self.process = self.node.runtime.spawn(self._run, name=self.name, label=f"scope {self.name}")
        self.process.on_end.append(self._ended)
        self.process.when_busy = WhenBusy.QUEUE
        self.process.marks_signals = True
        self.process.format_state = self.overview
        self.machine = self.make_machine(self.process)

    def _ended(self, reason: Term) -> None:
        """Start the scope process anew whenever it ends, after a pause if that happens all the time.

        The runtime says so, not a message: there is nothing that a peer could end or pretend.
        """
        if not self._kept or self.node.stopping:
            forget(self)
            return
        shown = etf.text.format(reason, limit=MAX_LOGGED_REASON)
        logger.error("scope %s ended, starting it anew: %s", self.name, shown)
        now = time.monotonic()
        self._ends = [end for end in self._ends if now - end < 10.0] + [now]
        pause = RESTART_PAUSE_S if len(self._ends) > RESTARTS_AT_ONCE else 0.0
        self._pause = asyncio.get_running_loop().call_later(pause, self._start_anew)

    def _start_anew(self) -> None:
        old = self.machine
        left, self._backlog = self._backlog, deque()
        self._perform(left)
        try:
            self._start_process()
        except NameTaken as error:
            logger.error("scope %s does not start anew yet: %s", self.name, error)
            self._pause = asyncio.get_running_loop().call_later(RESTART_PAUSE_S, self._start_anew)
            return
        self.perform(self.take_over(old))

    async def _run(self, me: Process) -> None:
        try:
            for node in self.node.nodes():
                self.perform(self.machine.handle_node_up(node))
            while True:
                if self._backlog:
                    self._caught_up = asyncio.get_running_loop().create_future()
                    await self._caught_up
                deadline = self.machine.next_deadline()
                timeout = None if deadline is None else max(0.0, deadline - time.monotonic())
                self._waits_until = math.inf if deadline is None else deadline
                try:
                    message = await me.receive(timeout=timeout)
                except TimeoutError:
                    self._waits_until = -math.inf
                    self.perform(self.machine.handle_timeout(time.monotonic()))
                else:
                    self._waits_until = -math.inf
                    self._on_message(message)
        finally:
            for task in self._tasks:
                task.cancel()

    def _on_node_event(self, event: NodeEvent) -> None:
        handle = self.machine.handle_node_up if event.up else self.machine.handle_node_down
        self._feed(self.process, lambda: handle(event.node))

    async def settled(self) -> None:
        """Wait until each node that is connected now has told what it has, or has no such scope."""
        nodes = set(self.node.nodes())
        while True:
            nodes.intersection_update(self.node.nodes())
            if all(map(self.machine.discovery.has_settled, nodes)):
                return
            moved = asyncio.get_running_loop().create_future()
            self._settling.append(moved)
            await moved

    def _feed(self, process: Process, feed: Callable[[], list[Effect]]) -> None:
        if process.alive:
            process.put(_Input(feed))  # type: ignore[arg-type]

    def _on_message(self, message: Any) -> None:
        try:
            self._take_message(message, time.monotonic())
        finally:
            if self._settling:
                self._look_whether_settled()

    def _look_whether_settled(self) -> None:
        waiting, self._settling = self._settling, []
        for moved in waiting:
            if not moved.done():
                moved.set_result(None)

    def _take_message(self, message: Any, now: float) -> None:
        if type(message) is _Input:
            self.perform(message.feed())
            return
        match message:
            case DownSignal((_, Reference() as ref, _, _, reason)):
                target = self._targets.pop(ref, None)
                if target is not None:
                    del self._refs[target]
                    self.perform(self.machine.handle_down(target, reason, now))
            case (
                Atom("$gen_call"),
                (Pid() as pid, _) as caller,
                (Atom("pyglyn_do"), bytes() as secret, Atom() as what, *args),
            ):
                mine = hmac.compare_digest(secret, self.node.runtime.secret)
                if mine and pid.node == self.node.name and what.name in self.operations:
                    self._spawn_task(self._operate(caller, what.name, args))
            case _:
                self.perform(self.take(message, now))

    async def _operate(self, caller: Term, what: str, args: list[Any]) -> None:
        try:
            answer: Term = (OK, await self.operate(what, *args))
        except (PyglynError, ValueError, TypeError) as error:
            answer = error_term(error)
        self._reply(AnswerCall(caller, answer))

    # --- effects ----------------------------------------------------------------------------------

    def perform(self, effects: list[Effect]) -> None:
        """Carry out effects in their order.

        Between the end of the scope process and its successor nothing is sent: the successor takes over what
        the machine knows, and tells all nodes anew. After `AT_ONCE` of them others have their turn, and the
        rest goes before anything that is to be carried out later.
        """
        if self._backlog or len(effects) > AT_ONCE:
            if not self._backlog:
                asyncio.get_running_loop().call_soon(self._go_on)
            self._backlog += effects
        else:
            self._perform(effects)
        due = self.machine.next_deadline()
        if due is not None and due < self._waits_until:
            self._waits_until = -math.inf
            self._feed(self.process, list)

    def _go_on(self) -> None:
        backlog = self._backlog
        try:
            self._perform([backlog.popleft() for _ in range(min(AT_ONCE, len(backlog)))])
        finally:
            if backlog and backlog is self._backlog:
                asyncio.get_running_loop().call_soon(self._go_on)
            elif self._caught_up is not None and not self._caught_up.done():
                self._caught_up.set_result(None)

    def _perform(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            if self.process.alive or type(effect) not in _SENT:
                _PERFORM[type(effect)](self, effect)

    def is_busy(self, node: str) -> bool:
        """Whether so much is queued for a node that it shall not get more than it has to."""
        connection = self.node.peers.get(node)
        return connection is not None and connection.queued_bytes > self.node.settings.send_limit // BUSY_PART

    def _is_connected(self, node: str) -> bool:
        """False once the connection is gone, which the mailbox may not have told yet: never dial for it."""
        return node == self.node.name or self.node.peers.get(node) is not None

    def _send(self, effect: Send) -> None:
        to = effect.to
        node = to.node if isinstance(to, Pid) else to[1]
        if not self._is_connected(node):
            return
        try:
            self.process.send(to, effect.message)
        except NodeBusy:
            # A message of the stream is missing from here on; only a new connection makes it whole again.
            logger.error(
                "scope %s: %s does not take what it is sent: closing the connection", self.name, node
            )
            self.node.disconnect(node)

    def _monitor(self, effect: Monitor) -> None:
        target = effect.target
        if self._is_connected(target.node if isinstance(target, Pid) else target[1]):
            ref = self.process.monitor(target)
            self._refs[target] = ref
            self._targets[ref] = target

    def _demonitor(self, effect: Demonitor) -> None:
        ref = self._refs.pop(effect.target, None)
        if ref is not None:
            del self._targets[ref]
            self.process.demonitor(ref)

    def _exit(self, effect: SendExit) -> None:
        self.process.exit(effect.pid, effect.reason)

    def _reply(self, effect: AnswerCall) -> None:
        caller = Caller.from_term(effect.caller)
        if caller is None or not self._is_connected(caller.pid.node):
            return
        if self.node.runtime.busy.takes_answer(caller.pid.node):
            with contextlib.suppress(NodeBusy):  # a caller that takes no answers gets none
                self.process.send(caller.destination(), (caller.tag, effect.reply))

    def _watch(self, effect: Watch) -> None:
        process, machine, node = self.process, self.machine, effect.node

        async def wait() -> None:
            found = await watch.until_registered(self.node, node, effect.name, process.pid)
            self._feed(process, lambda: machine.handle_watch(node, found, time.monotonic()))

        self._spawn_task(wait())

    def _check_watched(self, effect: CheckWatched) -> None:
        watchers = self.process.signals.watchers_at.get(effect.pid.node, {})
        if all(watcher != effect.pid for watcher, _ in watchers.values()):
            self.perform(self.machine.handle_unwatched(effect.pid, time.monotonic()))

    def _ask_version(self, effect: AskVersion) -> None:
        process, machine, node = self.process, self.machine, effect.node

        async def ask() -> None:
            version = await watch.syn_version(self.node, node)
            if version is not None:
                self._feed(process, lambda: machine.handle_version(node, version))  # type: ignore[attr-defined]

        self._spawn_task(ask())

    def _reject(self, effect: Rejected) -> None:
        logger.warning("scope %s dropped, from %s: %s", self.name, effect.source, effect.reason)

    def _event(self, effect: Event) -> None:
        for listener in list(self.listeners):
            try:
                listener(effect)
            except Exception:
                logger.exception("scope %s: a callback failed", self.name)

    def _spawn_task(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


_SENT = {Send, Monitor, Demonitor, SendExit, AnswerCall}
"""What only a living process can do."""

_PERFORM: dict[type, Callable[[Scope[Any], Any], None]] = {
    Send: Scope._send,
    Monitor: Scope._monitor,
    Demonitor: Scope._demonitor,
    SendExit: Scope._exit,
    AnswerCall: Scope._reply,
    Watch: Scope._watch,
    CheckWatched: Scope._check_watched,
    AskVersion: Scope._ask_version,
    Rejected: Scope._reject,
    Event: Scope._event,
}
