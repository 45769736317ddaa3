"""A process: pid, mailbox, links, monitors, and the methods its body calls on itself. Layer: node.

The body is ``async def body(me, …)``; ``me`` is the ``Process``. It ends with reason ``normal`` when it
returns, with ``raise Exit(reason)``, or with an exception (see ``exits``). An exit signal cancels the body at
its next ``await``: ``finally`` blocks run, then links and monitors are told; only ``kill`` does not wait.

Every destination (``to``) is a ``Pid``, a registered name on this node (``"stock"``), a name on some node
(``("stock", "order@localhost")``), or an alias (``Reference``). Durations are seconds. Where a process lives,
and what that gives it, is its ``runtime``: a ``Host``.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from threading import get_ident
from typing import Any, Protocol, TypeVar

from pyglyn import etf
from pyglyn.dist.control import AliasSend, Control, Exit2, GroupLeader, Op, RegSend, Send, SpawnReply
from pyglyn.errors import DecodeError, EncodeError, NoProcess, PyglynError
from pyglyn.etf import Atom, Limits, Pid, Reference, Term
from pyglyn.node import calls, exits, heads
from pyglyn.node.aftermath import Aftermath
from pyglyn.node.backpressure import BusyNodes, Waits, WhenBusy
from pyglyn.node.belongings import Belongings
from pyglyn.node.destinations import (
    Destination,
    ServerRef,
    check_destination,
    name_and_node,
    name_term,
    node_of,
)
from pyglyn.node.mailbox import Mailbox, Match, Plain, as_it_came
from pyglyn.node.pending import Answer, Pending
from pyglyn.node.readiness import Readiness
from pyglyn.node.reasons import EXIT, KILLED, NORMAL, SHUTDOWN, is_clean
from pyglyn.node.settings import Settings
from pyglyn.node.signals import (
    Down,
    DownSignal,
    Effect,
    ExitSignal,
    MonitorTarget,
    Signals,
    Ties,
    demonitor_signal,
)
from pyglyn.node.system import SystemSide, is_system_message, state_of
from pyglyn.node.threads import Home
from pyglyn.node.ways import SignalWay, Way
from pyglyn.patience import Patience

MAX_LOGGED_REASON = 500
"""Characters of an exit reason in the log: a peer may send one of any size."""

_MONITOR_P, _DEMONITOR_P = Op.MONITOR_P.value, Op.DEMONITOR_P.value
_ALIAS_SEND = Op.ALIAS_SEND.value
ACK, CHECKPOINT, PRIVATE = Atom("ack"), Atom("$checkpoint"), Atom("$pyglyn")
logger = logging.getLogger("pyglyn.process")
current: contextvars.ContextVar[Process] = contextvars.ContextVar("pyglyn.current_process")


def current_process() -> Process:
    """Return the process that runs this code, as ``self()`` does; for code that was not handed ``me``.

    Raises:
        NoProcess: no process does.
    """
    try:
        return current.get()
    except LookupError:
        raise NoProcess("this code is not run by a process of a node") from None


T_co = TypeVar("T_co", covariant=True)


class ValueDecoder(Protocol[T_co]):
    """A decoder of ``pyglyn.gleam``."""

    def decode(self, term: Term) -> T_co: ...
    def decode_bare(self, data: bytes | memoryview, offset: int = 0, *, limits: Limits) -> T_co: ...


class Host(Protocol):
    """What a process, and whoever has one in hand, needs of the runtime it lives in; see ``Runtime``."""

    node: str
    serial: int
    secret: bytes
    home: Home
    settings: Settings
    processes: dict[int, Process]
    aliases: dict[Reference, Process]
    spawn_replies: dict[Reference, tuple[str, Callable[[SpawnReply], None]]]
    group_leader: Pid | None
    busy: BusyNodes
    belongings: Belongings
    aftermath: Aftermath
    readiness: Readiness
    ties: Ties[int]
    read_message: Callable[[bytes | memoryview], Term]
    handling: bool
    signal_ways: dict[str, SignalWay]
    watch_ways: dict[str, Way]

    def complain(self, to: logging.Logger, text: str) -> None: ...
    def make_ref(self) -> Reference: ...
    def is_here(self, dest: Pid | Reference) -> bool: ...
    def spawn(
        self,
        body: Callable[..., Awaitable[Any]],
        args: Sequence[Any] = (),
        *,
        name: str | None = None,
        link_to: Pid | None = None,
        label: str | None = None,
    ) -> Process: ...
    def attach(self, label: str) -> Process: ...
    def ended(self, process: Process, reason: Term) -> None: ...
    def send(self, control: Control, body: Term = None, node: str | None = None) -> None: ...
    def find_way(self, sender: Pid, to: Destination) -> Way | None: ...
    def find_node_ways(self, node: str) -> None: ...
    def apply(self, process: Process, effects: list[Effect]) -> None: ...
    def unregister(self, name: str) -> None: ...
    async def register_name(self, name: str, pid: Pid) -> None: ...
    async def find_name(self, name: str) -> Pid | None: ...
    def tell_release(self, node: str, then: Callable[[int | None], None]) -> None: ...


class Process:
    """The identity and the methods of a running process (``me`` in its body).

    Attributes:
        pid: its pid.
        names: what it is registered as, the first one first; a set in that order.
        label: what it runs, for people.
        group_leader: the pid that answers its I/O requests.
        pending: the answers it waits for.
        dictionary: free use, like Erlang's process dictionary.
        quiet: an abnormal end is not logged.
        supervised: its supervisor logs why it ended; here is only logged where an exception came from.
        when_busy: what it does while much is queued for a node it sends to. One that serves every node does
            not wait for one of them.
        answers_system_messages: those of ``sys`` come with the others, and the body answers them.
        format_state: gives what ``sys:get_state`` shows; None for the ``dictionary``. A server has its own.
        deaf: only replies to its calls reach it, other messages are dropped.
        told_source: gets each message of another node as ``{'$arrived', Node, Message}``: the pids in it are
            whatever its sender says they are.
        on_end: called with the exit reason once it has ended, for code in the same operating-system process.
        parent: the supervisor (or whoever else) that started it as a child; None if nobody did.
        handover: what the last run of this child left with ``checkpoint``; None at the first start.
        started_at: when, by ``time.monotonic``.
        on_wait: called when the process waits for whatever comes, as long as it takes; None for nobody.
        marks_signals: exit signals that it traps come as `signals.ExitSignal`, ends of what it monitors as
            `signals.DownSignal`, which no message is; to others they come as plain tuples.
    """

    # A dict of more than 30 attributes would be shared with no other process: so these are not in it.
    __slots__ = ("__dict__", "__weakref__", "_sent_to", "_way")
    on_wait: Callable[[], None] | None = None
    marks_signals = False

    def __init__(self, runtime: Host, pid: Pid, label: str) -> None:
        self.runtime = runtime
        self.pid = pid
        self.label = label
        self.registered_names: dict[str, None] = {}
        self.aliases: dict[Reference, None] = {}
        self.signals = Signals(pid, runtime.ties)
        self.group_leader: Pid | None = runtime.group_leader
        self.dictionary: dict[str, Any] = {}
        self.exit_reason: Term = NORMAL
        self.alive = True
        self.quiet = False
        self.supervised = False
        self.parent: Pid | None = None
        self.handover: Term = None
        self.started_at = time.monotonic()
        self.answers_system_messages = False
        self.format_state: Callable[[], Term] | None = None
        self.deaf = False
        self.told_source = False
        self.when_busy = WhenBusy.WAIT
        self.on_end: list[Callable[[Term], None]] = []
        self.pending = Pending()
        self._exiting = False
        self._mailbox = Mailbox(runtime.read_message)
        self._system: SystemSide | None = None
        self._waits = Waits()
        self._sent_to: Destination | None = None  # the last message, if to no alias
        self._way: Way | None = None  # and how the next one gets there
        self._task: asyncio.Task[Any] | None = None
        self._give_up: Patience | None = None
        self._timers: dict[Reference, asyncio.TimerHandle] = {}

    def __repr__(self) -> str:
        name = f" {self.name}" if self.registered_names else ""
        return f"<Process {self.pid}{name} {self.label}>"

    @property
    def name(self) -> str | None:
        """What it was registered as first; None if it is not registered."""
        return next(iter(self.registered_names), None)

    @property
    def names(self) -> list[str]:
        """All its registered names, in the order in which it got them."""
        return list(self.registered_names)

    @property
    def node(self) -> str:
        """The name of the node it runs on."""
        return self.pid.node

    @property
    def message_queue_len(self) -> int:
        """How many messages wait."""
        return len(self._mailbox)

    @property
    def task(self) -> asyncio.Task[Any] | None:
        """The task that runs the body; None if it has none of its own."""
        return self._task

    @property
    def waiting_messages(self) -> list[Any]:
        """The messages that wait, the oldest first."""
        return self._mailbox.waiting()

    # --- life -------------------------------------------------------------------------------------

    def start(self, body: Callable[..., Awaitable[Any]], args: Sequence[Any]) -> None:
        """Run the body as a task; for the runtime."""
        context = contextvars.copy_context()
        context.run(current.set, self)
        loop = asyncio.get_running_loop()
        self._task = loop.create_task(self._run(body, args), name=f"pyglyn {self.pid}", context=context)
        self._task.add_done_callback(self._on_task_done)

    async def _run(self, body: Callable[..., Awaitable[Any]], args: Sequence[Any]) -> None:
        try:
            made: object = body(self, *args)
            if not inspect.isawaitable(made):
                what = type(made).__name__
                raise TypeError(f"{self.label} is no async function: it has run, and returned {what}")
            await made
        except (SystemExit, KeyboardInterrupt) as error:  # in a task they would end the event loop
            raise exits.Exit(exits.exit_reason(error)) from error

    def _on_task_done(self, task: asyncio.Task[Any]) -> None:
        self._task = None  # its context knows this process: both would be left to the garbage collector
        error = None if task.cancelled() else task.exception()
        if self._exiting:
            reason = self.exit_reason
        elif task.cancelled():  # by other code than an exit signal: nobody has asked this process to end
            reason = exits.exit_reason(asyncio.CancelledError("a task was cancelled"))
        else:
            reason = NORMAL if error is None else exits.exit_reason(error)
        self._finish(reason, None if self._exiting else error)

    def die(self, reason: Term, *, at_once: bool = False) -> None:
        """An exit signal ends this process; for the runtime."""
        if not self.alive:
            return
        if not self._exiting:
            self._exiting = True
            self.exit_reason = reason
            if self._task is not None:
                self._task.cancel()
                if reason is not SHUTDOWN:  # with that one, a supervisor has a limit of its own
                    self._give_up = Patience(self.runtime.settings.last_words_s, self._finish, reason, None)
        if at_once or self._task is None:
            self._finish(KILLED if at_once and reason is KILLED else reason, None)

    def _finish(self, reason: Term, error: BaseException | None) -> None:
        if not self.alive:
            return
        self.alive = False
        if self._give_up is not None:
            self._give_up.cancel()
        try:
            self.exit_reason = etf.normalise(reason)
        except EncodeError:
            self.exit_reason = (Atom("bad_exit_reason"), repr(reason)[:1000].encode())
        self._mailbox.close(exits.Exit(self.exit_reason))
        for timer in self._timers.values():
            timer.cancel()
        self.pending.close(self.exit_reason)
        self._log_end(error)
        self.runtime.ended(self, self.exit_reason)
        for callback in self.on_end:
            callback(self.exit_reason)
        self.on_end.clear()

    def _log_end(self, error: BaseException | None) -> None:
        if self.quiet or is_clean(self.exit_reason):
            return
        who = f"{self.pid} ({self.name or self.label})"
        if error is not None and not isinstance(error, exits.Exit):
            trace = None if exits.is_placed(error) else error
            logger.error("process %s crashed: %s: %s", who, type(error).__name__, error, exc_info=trace)
        elif not self.supervised and logger.isEnabledFor(logging.INFO):
            reason = etf.text.format(self.exit_reason, limit=MAX_LOGGED_REASON)
            logger.info("process %s ended: %s", who, reason)

    def end(self, reason: Term = NORMAL) -> None:
        """End a process that has no body of its own (see ``Node.process``)."""
        self._finish(exits.as_reason(reason), None)

    def _check_alive(self) -> None:
        """A process that has ended does nothing more: everybody was told, and signals behind that would lie.

        Its body may still run: the ``finally`` of one that was killed, or one that swallows the cancellation.

        Raises:
            Exit: with the reason it ended with.
            WrongThread: this is another thread than the node's.
        """
        if get_ident() != self.runtime.home.thread:
            self.runtime.home.check()
        if not self.alive:
            raise exits.Exit(self.exit_reason)

    # --- messages ---------------------------------------------------------------------------------

    def put(self, message: Term) -> None:
        """A message arrives; replies to pending calls go to the waiting call."""
        if self.pending.futures and self.pending.answer(message):
            return
        if is_system_message(message) and not self.answers_system_messages:
            self._take_system_message(message)
            return
        if not self.deaf:
            self._mailbox.put(message)

    def put_signal(self, message: ExitSignal | DownSignal) -> None:
        """An exit signal is trapped, or a monitor fired."""
        self.put(message if self.marks_signals else tuple(message))

    def put_encoded(self, message: bytes | memoryview) -> None:
        """A message arrives that is no reply to a pending call; it is decoded when it is taken."""
        if not self.deaf:
            self._mailbox.put_encoded(message)

    def put_many_encoded(self, messages: list[bytes]) -> bool:
        """Messages arrive from one sender; False where each has to be looked at."""
        if self.pending.futures or self.told_source:
            return False
        if not self.answers_system_messages:
            for message in messages:
                if message.startswith(heads.SYSTEM):
                    return False
        if not self.deaf:
            self._mailbox.put_many_encoded(messages)
        return True

    def _take_system_message(self, message: Term) -> None:
        """Answer ``sys``; also for a body that knows nothing of it, or is busy."""
        if self._system is None:
            alone = self.when_busy is WhenBusy.WAIT
            self._system = SystemSide(self, "pyglyn", "process", self._shown, suspends=alone)
        end = self._system.take(message)
        self._mailbox.hold(self._system.suspended)
        if end is not None:
            self.die(end[0])

    def _shown(self) -> Term:
        return state_of(self.dictionary.items()) if self.format_state is None else self.format_state()

    def down(self, effect: Down) -> None:
        """A monitor fired: a pending call learns it, else the mailbox gets the DOWN message."""
        if self.pending.fail(effect.ref, effect.reason):
            return
        self._drop_alias(effect.ref)
        self.put_signal(effect.message)

    def send(self, to: Destination, message: Term) -> None:
        """Send a message; never waits. To a process or name that does not exist it does nothing.

        From another thread than the node's the message is sent a moment later, in the order of these calls.

        While much is queued for another node, the next ``receive`` or ``call`` waits until it has gone out.

        Raises:
            EncodeError: the message is no term.
            NodeBusy: far too much is queued for the other node already. From another thread it is logged.
        """
        runtime = self.runtime
        if (
            self.alive
            and not runtime.busy.nodes
            and not runtime.handling
            and get_ident() == runtime.home.thread
        ):
            way = self._way
            if way is not None and (to is self._sent_to or to == self._sent_to):
                if way(message):
                    return
            elif type(to) is Reference:  # such as that of a reply to a call
                to_alias = runtime.signal_ways.get(to.node)
                if to_alias is not None:
                    if to_alias((_ALIAS_SEND, self.pid, to), message):
                        return
                    runtime.signal_ways.pop(to.node, None)
        self._send_all_the_way(to, message)

    def _send_all_the_way(self, to: Destination, message: Term) -> None:
        if not self.runtime.home.is_here():
            self.runtime.home.soon(self._send_for_thread, to, etf.normalise(message))
            return
        self._check_alive()
        if self.when_busy is WhenBusy.DROP and not self.runtime.busy.takes_answer(node_of(to)):
            return
        if type(to) is Pid:
            self.runtime.send(Send(self.pid, to), message)
        elif isinstance(to, (str, Atom)):
            self.runtime.send(RegSend(self.pid, name_term(to)), message)
        elif isinstance(to, Reference):
            self.runtime.send(AliasSend(self.pid, to), message)
            self.runtime.find_node_ways(to.node)
        elif isinstance(to, tuple):
            name, node = name_and_node(to)
            self.runtime.send(RegSend(self.pid, name), message, node)
        else:
            check_destination(to)
        if type(to) is not Reference:
            self._way = self.runtime.find_way(self.pid, to) if to == self._sent_to else None
            self._sent_to = to
        if self.when_busy is WhenBusy.WAIT and self.runtime.busy.nodes:
            self._waits.add(self.runtime.busy.over(node_of(to)))

    def _send_for_thread(self, to: Destination, message: Term) -> None:
        """Send what another thread has sent; it is no longer there to be told of an error."""
        try:
            self.send(to, message)
        except PyglynError as error:
            logger.error("process %s: a message sent from another thread was dropped: %s", self.pid, error)
        except exits.Exit:
            logger.debug("process %s: it had ended when another thread sent a message with it", self.pid)

    async def drain(self) -> None:
        """Wait until the nodes this process has sent much to have taken it."""
        self._check_alive()
        if self._waits.events:
            await self._waits.drain()

    async def receive(self, match: Match | None = None, timeout: float | None = None) -> Term:
        """Take the next message, or the first one for which ``match(message)`` is true.

        Messages passed over stay, in order. ``match`` may be a function with a ``match`` statement in it that
        returns ``True`` in the cases it wants.

        Raises:
            TimeoutError: none came within ``timeout`` seconds; 0 looks only at what is here.
        """
        if not self.alive or get_ident() != self.runtime.home.thread:
            self._check_alive()
        if self._waits.events:
            await self.drain()
        mailbox = self._mailbox
        if mailbox.fresh and (match is None or match is as_it_came):
            found, message = mailbox.next(match)
            if found:
                return message
        if timeout is not None:
            return await mailbox.get(match, timeout)
        if self.on_wait is not None:
            self.on_wait()
        if match is None:  # what most processes do most of the time
            found, message = await mailbox.next_to_come()
            if found:
                return message
        return await mailbox.get(match)

    async def receive_as(self, decoder: ValueDecoder[T_co], timeout: float | None = None) -> T_co:
        """Take the next message as a value, by a decoder such as ``gleam.decoder(OrderEvent)``.

        A derived decoder makes it straight of the bytes that the message came as.

        Raises:
            DecodeErrors: it does not fit; it is taken all the same.
            TimeoutError: none came within ``timeout`` seconds; 0 looks only at what is here.
        """
        until = None if timeout is None else time.monotonic() + timeout
        while True:
            left = None if until is None else max(0.0, until - time.monotonic())
            entry: Any = await self.receive(as_it_came, left)
            if type(entry) is not bytes and type(entry) is not memoryview:
                return decoder.decode(entry.message if type(entry) is Plain else entry)
            try:
                return decoder.decode_bare(entry, limits=self.runtime.settings.limits)
            except DecodeError:
                try:
                    self.runtime.read_message(entry)
                except DecodeError:
                    continue  # dropped, counted and logged, as any message that is no term
                raise

    def interrupt(self, error: BaseException) -> None:
        """Have the ``receive`` that waits raise this error, and each one after it; messages are dropped."""
        self._mailbox.close(error)

    def send_after(self, seconds: float, to: Destination, message: Term) -> Reference:
        """Send a message later; returns the timer's reference. The timer ends with this process.

        Raises:
            EncodeError: the message is no term.
        """
        self._check_alive()
        ref = self.runtime.make_ref()
        message = etf.normalise(message)

        def fire() -> None:
            del self._timers[ref]
            self.send(to, message)

        self._timers[ref] = asyncio.get_running_loop().call_later(seconds, fire)
        return ref

    def cancel_timer(self, timer: Reference) -> float | None:
        """Stop a timer; returns the seconds it had left, None if it has fired or is unknown."""
        handle = self._timers.pop(timer, None)
        if handle is None:
            return None
        handle.cancel()
        return max(0.0, handle.when() - asyncio.get_running_loop().time())

    def make_ref(self) -> Reference:
        """A new unique reference."""
        return self.runtime.make_ref()

    def alias(self) -> Reference:
        """A new alias: others can send to it until ``unalias``; then their messages are dropped."""
        self._check_alive()
        ref = self.runtime.make_ref()
        self._add_alias(ref)
        return ref

    def unalias(self, alias: Reference) -> bool:
        """Deactivate an alias; False if it was not active."""
        self._check_alive()
        return self._drop_alias(alias)

    def _drop_alias(self, alias: Reference) -> bool:
        self.aliases.pop(alias, None)
        return self.runtime.aliases.pop(alias, None) is not None

    def _add_alias(self, ref: Reference) -> None:
        self.aliases[ref] = None
        self.runtime.aliases[ref] = self

    # --- links, monitors, exits -------------------------------------------------------------------

    @property
    def trap_exit(self) -> bool:
        """Whether exit signals arrive as messages ``(Atom("EXIT"), pid, reason)``."""
        return self.signals.trap_exit

    @trap_exit.setter
    def trap_exit(self, value: bool) -> None:
        self.signals.trap_exit = bool(value)

    def _apply(self, effects: list[Effect]) -> None:
        self.runtime.apply(self, effects)

    def link(self, to: Pid) -> None:
        """Link to a process.

        Raises:
            NoProcess: it is of this operating-system process and dead, and exits are not trapped. In every
                other case a dead process answers with exit signal ``noproc``.
        """
        self._check_alive()
        here = self.runtime.is_here(to)
        if here and to.id not in self.runtime.processes and not self.trap_exit:
            raise NoProcess(f"cannot link to {to}: there is no such process")
        self._apply(self.signals.link(to))

    def unlink(self, to: Pid) -> None:
        """Remove a link, and an exit message of it that waits in the mailbox."""
        self._check_alive()
        self._apply(self.signals.unlink(to))
        kind = ExitSignal if self.marks_signals else tuple
        self._mailbox.take(lambda m: type(m) is kind and len(m) == 3 and m[0] is EXIT and m[1] == to)

    def monitor(self, to: ServerRef, *, alias: bool = False) -> Reference:
        """Monitor a process; when it ends ``(Atom("DOWN"), ref, Atom("process"), item, reason)`` comes.

        ``item`` is the pid, or ``(name, node)``. With ``alias`` the reference is an alias of this process
        too, until the monitor fires or is removed (OTP's ``{alias, demonitor}``).
        """
        self._check_alive()
        ref = self.runtime.make_ref()
        if alias:
            self._add_alias(ref)
        self._apply(self.signals.monitor(ref, self._monitor_target(to)))
        return ref

    def _monitor_target(self, to: ServerRef) -> MonitorTarget:
        if isinstance(to, Pid):
            return to
        if isinstance(to, tuple):
            return name_and_node(to)
        return name_term(to), self.node

    def demonitor(self, ref: Reference, *, flush: bool = False) -> None:
        """Stop a monitor; with ``flush`` also take its DOWN message out of the mailbox."""
        self._check_alive()
        self._demonitor(ref)
        if flush:
            kind = DownSignal if self.marks_signals else tuple
            self._mailbox.take(lambda m: type(m) is kind and len(m) == 5 and m[1] == ref)

    def _demonitor(self, ref: Reference) -> None:
        target = self.signals.demonitor(ref)
        if target is not None and not self._watch(_DEMONITOR_P, target, ref):
            self._apply([demonitor_signal(self.pid, ref, target)])
        self._drop_alias(ref)

    def exit(self, to: Pid, reason: Term) -> None:
        """Send an exit signal, as ``exit/2``; a string stands for the atom. ``raise Exit`` ends oneself.

        Raises:
            EncodeError: the reason is no term.
        """
        self._check_alive()
        self.runtime.send(Exit2(self.pid, to), etf.normalise(exits.as_reason(reason)))

    def set_group_leader(self, leader: Pid, to: Pid) -> None:
        """Make ``leader`` the group leader of a process."""
        self._check_alive()
        self.runtime.send(GroupLeader(leader, to))

    # --- as a supervisor's child ------------------------------------------------------------------

    def ready(self) -> None:
        """Tell the parent that this process is ready, as ``proc_lib:init_ack/1``.

        A child function with a start timeout counts as started when it says so; others at once. Without a
        parent it does nothing.
        """
        if self.parent is not None:
            self.tell_parent((ACK, self.pid, (Atom("ok"), self.pid)))

    def checkpoint(self, value: Term) -> None:
        """Leave a value with the supervisor, for the next start of this child: see ``handover``.

        Only the last one is kept, and only where the child specification asks for it.
        """
        if self.parent is not None:
            self.tell_parent((CHECKPOINT, self.pid, value))

    def tell_parent(self, message: Term) -> None:
        """Tell the supervisor something of its child; for the runtime.

        A supervisor of this node believes only what no other node can have sent: it carries a secret.
        """
        assert self.parent is not None
        if self.parent.node == self.node:
            message = (PRIVATE, self.runtime.secret, message)
        self.send(self.parent, message)

    # --- other processes --------------------------------------------------------------------------

    def spawn(self, body: Callable[..., Awaitable[Any]], *args: Any, name: str | None = None) -> Pid:
        """Start a process in this operating-system process.

        Raises:
            NameTaken: another process has the name.
        """
        self._check_alive()
        return self.runtime.spawn(body, args, name=name).pid

    def spawn_link(self, body: Callable[..., Awaitable[Any]], *args: Any, name: str | None = None) -> Pid:
        """Start a process linked to this one."""
        self._check_alive()
        process = self.runtime.spawn(body, args, name=name, link_to=self.pid)
        self.signals.links[process.pid] = 0
        return process.pid

    def spawn_monitor(
        self, body: Callable[..., Awaitable[Any]], *args: Any, name: str | None = None
    ) -> tuple[Pid, Reference]:
        """Start a process monitored by this one."""
        pid = self.spawn(body, *args, name=name)
        return pid, self.monitor(pid)

    async def register(self, name: str, pid: Pid | None = None) -> None:
        """Register this process (or another of this operating-system process) under a name of the node.

        Raises:
            NameTaken: another process has it.
        """
        self._check_alive()
        await self.runtime.register_name(name, pid or self.pid)

    async def unregister(self, name: str) -> None:
        """Give a name up."""
        self._check_alive()
        self.runtime.unregister(name)

    async def whereis(self, name: str) -> Pid | None:
        """The pid registered under a name of this node."""
        self._check_alive()
        return await self.runtime.find_name(name)

    # --- calls ------------------------------------------------------------------------------------

    def expect_reply(self, to: ServerRef) -> tuple[Reference, Answer]:
        """Monitor a process whose answer to the returned reference (an alias) resolves the future.

        The future's result is ``(True, reply)`` or ``(False, exit reason)``. End with ``forget_reply``.
        """
        self._check_alive()
        ref = self.runtime.make_ref()
        future = self.pending.expect(ref)
        self._add_alias(ref)
        target = self._monitor_target(to)
        self.signals.expect_down(ref, target)
        if not self._watch(_MONITOR_P, target, ref):
            self._apply(self.signals.monitor(ref, target))
        return ref, future

    def _watch(self, op: int, target: MonitorTarget, ref: Reference) -> bool:
        """Send a monitor to another node, or its end, where nothing is in the way; see ``Runtime``."""
        watched, node = (target, target.node) if type(target) is Pid else target  # type: ignore[misc]
        way = self.runtime.watch_ways.get(node)
        return way is not None and not self.runtime.handling and way((op, self.pid, watched, ref))

    def forget_reply(self, ref: Reference) -> None:
        """No longer wait for a reply: the monitor and the alias go, a late reply is dropped."""
        self.pending.forget(ref)
        if self.alive:  # else all that is gone already, and this is a ``finally``
            self._demonitor(ref)

    async def call(self, server: ServerRef, request: Term, timeout: float | None = 5.0) -> Term:
        """Call a ``gen_server``, ``gen_statem``, Elixir or pyglyn ``GenServer`` and return its reply.

        From another thread than the node's it waits in that thread's event loop.

        Raises:
            CallTimeout: no reply within ``timeout`` seconds (None waits for ever).
            CallFailed: the server is not there (``noproc``), ended during the call, or its node is gone
                (``{nodedown, Node}``); ``reason`` says which. At once, not after the timeout.
        """
        if not self.runtime.home.is_here():
            return await self.runtime.home.bring(lambda: self.call(server, request, timeout))
        if self._waits.events:
            await self.drain()
        return await calls.call(self, server, request, timeout)

    def cast(self, server: ServerRef, request: Term) -> None:
        """Send a request to a ``gen_server`` without waiting for anything."""
        self.send(server, (calls.GEN_CAST, request))
