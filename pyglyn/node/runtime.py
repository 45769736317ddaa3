"""The processes of one operating-system process, and the one way signals take between them. Layer: node.

The hub and every worker has one runtime. Signals are the control messages of the distribution protocol,
also between two processes of the same runtime, so that each rule exists once. A signal goes one of two ways:
to a process here, at once; or to ``outlet``, encoded. Handling a signal may cause others (a death tells its
links): those queue up behind it and nothing recurses, however long a chain of links is.

A pid says where its process is: ``serial`` is the number of the runtime (0 is the hub), ``id`` counts within
it. References end in the same number. So routing needs no table of processes.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from operator import attrgetter
from typing import Any, Protocol

import attrs

from pyglyn import etf
from pyglyn.complaints import Complaints
from pyglyn.dist.control import (
    IN_PAYLOAD,
    PAYLOAD_OPS,
    AliasSend,
    Altact,
    AltactSend,
    Control,
    DemonitorP,
    Exit2,
    GroupLeader,
    Link,
    LinkExit,
    MonitorP,
    MonitorPExit,
    RegSend,
    Send,
    SpawnReply,
    SpawnRequest,
    Unlink,
    UnlinkId,
    UnlinkIdAck,
    to_term,
    undecodable,
)
from pyglyn.errors import DecodeError, NameTaken, ProcessError
from pyglyn.etf import Atom, Pid, Reference, Term
from pyglyn.etf.limits import DEFAULT_LIMITS
from pyglyn.node import heads, signals
from pyglyn.node.aftermath import Aftermath
from pyglyn.node.backpressure import BusyNodes
from pyglyn.node.belongings import Belongings
from pyglyn.node.destinations import Destination, name_and_node, name_of, name_term
from pyglyn.node.process import Process
from pyglyn.node.readiness import Readiness
from pyglyn.node.settings import Settings
from pyglyn.node.signals import Deliver, Die, Down, Effect, Emit
from pyglyn.node.telling import Telling
from pyglyn.node.threads import Home
from pyglyn.node.ways import Port, SignalWay, Way, way_by_name, way_for_signals, way_here, way_out

logger = logging.getLogger("pyglyn.process")

MAX_PID_ID = 2**28
Parts = Sequence["bytes | memoryview"]
Body = Callable[..., Awaitable[Any]]


def label_of(body: Body) -> str:
    """What a process runs, for people."""
    return str(getattr(body, "__qualname__", type(body).__name__))


def _no_body(given: object) -> str:
    name = label_of(given)  # type: ignore[arg-type]
    if isinstance(given, Coroutine):
        given.close()  # it is said here that it never runs, not in a warning later
        return f"a process is started by its function: spawn({name}, …) instead of spawn({name}(…))"
    if isinstance(given, type):
        return f"a process is an async function; a GenServer is started by await node.start({name}, …)"
    return f"a process is an async function, and no {type(given).__name__}"


class Outlet(Protocol):
    """Where signals go that are not for a process of this runtime.

    Args of the call: the control message, its encoded term if it has one, and the destination node.
    """

    def __call__(self, control: Control, parts: Parts | None, node: str) -> None: ...


@attrs.frozen
class Identity:
    """Who this runtime is.

    Attributes:
        node: the node's full name.
        creation: this incarnation of the node.
        serial: the number of this runtime within the node; 0 is the hub.
    """

    node: str
    creation: int
    serial: int = 0


_DESTINATION: dict[type, Callable[[Any], Pid | Reference | Term]] = {
    kind: attrgetter(field)
    for field, kinds in {
        "to": (
            Send, AltactSend, Link, Unlink, UnlinkId, UnlinkIdAck, LinkExit, Exit2, GroupLeader, SpawnReply,
        ),
        "name": (RegSend,),
        "alias": (AliasSend,),
        "watched": (MonitorP, DemonitorP),
        "watcher": (MonitorPExit,),
    }.items()
    for kind in kinds
}  # fmt: skip
_WITH_PAYLOAD = (Send, RegSend, AliasSend, AltactSend, LinkExit, Exit2, MonitorPExit, SpawnRequest)
MESSAGES = (Send, RegSend, AliasSend, AltactSend)
"""What carries a message; these are refused, not queued, where far too much waits already."""


_SHORT = (MonitorP, DemonitorP, MonitorPExit, Link, LinkExit, UnlinkId, UnlinkIdAck)
_EVERYTHING = ~0
"""All that peers may have negotiated: those without something of it have no short way."""
_REENTERED = "a signal from outside arrived while one is being handled"


def _is_exit(control: Control) -> bool:
    return type(control) is AltactSend and bool(control.bits & Altact.EXIT)


def destination(control: Control) -> Pid | Reference | Term:
    """Whom a control message is for: a pid, an alias, or a name."""
    return _DESTINATION[type(control)](control)


class Runtime:
    """A table of processes with the signals between them.

    Attributes:
        home: the thread it belongs to.
        settings: the node's settings, the same in every runtime of it.
        limits: of the terms in messages.
        secret: what only the operating-system processes of this node know; see ``Process.tell_parent``.
        names: registered name -> pid. The hub has every name of the node, a worker its own ones.
        on_spawn_request: called with SPAWN_REQUEST messages for this node (the hub's services).
        on_release: asked by ``tell_release``.
        busy: nodes with too much queued for them.
        belongings: what other parts of the package keep with this runtime.
        aftermath: what is done when processes have ended.
        readiness: what has to be so here before the node counts as ready.
        ties: which processes have links or monitors across to which node.
        ends: those that are being told.
        source: the node that sent what is being taken now; None for this one.
        handling: a signal is being handled; what is sent now goes out behind what that causes.
        on_way: gives what `ways.way_out` needs for messages with a control message to a node, and with None
            what `ways.way_for_signals` does.
        signal_ways: other node -> the way of answers to calls of it, and of ends that are told there.
        watch_ways: other node -> the way for monitors of its processes.
        refused: terms that did not decode, of messages (dropped) and of signals (replaced); each is logged.
    """

    def __init__(
        self, identity: Identity, outlet: Outlet, settings: Settings | None = None, secret: bytes = b""
    ) -> None:
        self.identity = identity
        self.home = Home()
        self.node = identity.node
        self.serial = identity.serial
        self.creation = identity.creation
        self.secret = secret
        self.outlet = outlet
        self.settings = settings or Settings()
        given = self.settings.limits
        self.limits = DEFAULT_LIMITS if given == DEFAULT_LIMITS else given  # C knows them by that
        self.processes: dict[int, Process] = {}
        self.names: dict[str, Pid] = {}
        self.aliases: dict[Reference, Process] = {}
        self.spawn_replies: dict[Reference, tuple[str, Callable[[SpawnReply], None]]] = {}
        self.on_spawn_request: Callable[[SpawnRequest, Term], None] | None = None
        self.on_unregistered: Callable[[str, Pid], None] | None = None
        self.on_release: Callable[[str, Callable[[int | None], None]], None] | None = None
        self.group_leader: Pid | None = None
        self.busy = BusyNodes()
        self.belongings = Belongings()
        self.aftermath = Aftermath()
        self.readiness = Readiness(self.settings.check_timeout_s)
        self.ties: signals.Ties[int] = signals.Ties()
        self.source: str | None = None
        self.on_way: Callable[[Send | RegSend | None, str], tuple[bytes, int, Port] | None] | None = None
        self.signal_ways: dict[str, SignalWay] = {}
        self.watch_ways: dict[str, Way] = {}
        self.refused = 0
        self.read_message: Callable[[bytes | memoryview], Term] = self._read_message  # one for all mailboxes
        # Monitors by name of processes here: reference -> (the pid behind the name, the watcher).
        self._named_monitors: dict[Reference, tuple[Pid, Pid]] = {}
        self._complaints = Complaints()
        self._next_id = 0
        self._next_ref = 0
        self.ends = Telling(lambda emit: self.send(emit.control, emit.reason, emit.node))
        self._queue: deque[tuple[Control, Term, str | None]] = deque()
        self.handling = False

    def complain(self, to: logging.Logger, text: str) -> None:
        """Log what a peer can bring about: of the same as often as it comes a line now and then."""
        self._complaints.log(to, text)

    # --- identities -------------------------------------------------------------------------------

    def make_pid(self) -> Pid:
        """A pid never used before in this runtime (ids wrap after 2^28 and skip live ones)."""
        while True:
            self._next_id = self._next_id % (MAX_PID_ID - 1) + 1
            if self._next_id not in self.processes:
                return Pid(self.node, self._next_id, self.serial, self.creation)

    def make_ref(self) -> Reference:
        """A new reference; 18 + 32 bits count, the last word is the runtime's number.

        Raises:
            WrongThread: this is another thread than the node's.
        """
        self.home.check()
        self._next_ref += 1
        count = self._next_ref
        return Reference(self.node, self.creation, (count & 0x3FFFF, (count >> 18) & 0xFFFFFFFF, self.serial))

    def is_here(self, dest: Pid | Reference) -> bool:
        """True if a pid or reference belongs to this runtime, dead or alive."""
        serial = dest.serial if type(dest) is Pid else dest.words[-1]  # type: ignore[union-attr]
        return serial == self.serial and dest.creation == self.creation and dest.node == self.node

    # --- processes --------------------------------------------------------------------------------

    def spawn(
        self,
        body: Body,
        args: Sequence[Any] = (),
        *,
        name: str | None = None,
        link_to: Pid | None = None,
        label: str | None = None,
    ) -> Process:
        """Start ``body(me, *args)`` as a process; it runs when the caller next waits.

        Raises:
            NameTaken: another process has the name.
            TypeError: ``body`` is no function.
            ValueError: the name cannot be an atom's.
            WrongThread: this is another thread than the node's.
        """
        self.home.check()
        if not callable(body) or (isinstance(body, type) and not hasattr(body, "__await__")):
            raise TypeError(_no_body(body))
        process = Process(self, self.make_pid(), label or label_of(body))
        self.processes[process.pid.id] = process
        if name is not None:
            try:
                self.register(name, process.pid)
            except (ProcessError, ValueError):
                del self.processes[process.pid.id]
                raise
        if link_to is not None:
            process.signals.on_link(link_to)
        process.start(body, args)
        return process

    def attach(self, label: str) -> Process:
        """A process without a body of its own: the calling coroutine acts as it (see ``Node.process``).

        Raises:
            WrongThread: this is another thread than the node's.
        """
        self.home.check()
        process = Process(self, self.make_pid(), label)
        self.processes[process.pid.id] = process
        return process

    def ended(self, process: Process, reason: Term) -> None:
        """Take a process out and tell everyone who asked; called once for each process."""
        if self.processes.pop(process.pid.id, None) is None:
            return
        for name in process.registered_names:
            if self.names.get(name) == process.pid:
                del self.names[name]
                if self.on_unregistered is not None:
                    self.on_unregistered(name, process.pid)
        for ref in process.aliases:
            self.aliases.pop(ref, None)
        if self._named_monitors:
            for of_node in process.signals.watchers_at.values():
                for ref, (_, asked) in of_node.items():
                    if not isinstance(asked, Pid):
                        self._named_monitors.pop(ref, None)
        self.ends.tell(process.signals.on_own_end(reason))
        if self.serial:  # this OS process may end, and then the hub would tell of that
            self.ends.tell_all()

    # --- names ------------------------------------------------------------------------------------

    def register(self, name: str, pid: Pid) -> None:
        """Give a process of this runtime a name.

        Raises:
            NameTaken: the name is in use, or is ``undefined``.
            ProcessError: the process is not alive.
        """
        process = self.processes.get(pid.id) if self.is_here(pid) else None
        if process is None:
            raise ProcessError(f"cannot register {name!r}: {pid} is not a live process here")
        self.claim_name(name, pid)
        process.registered_names[name] = None

    def claim_name(self, name: str, pid: Pid) -> None:
        """Enter a name in the table, for a process here or (in the hub) in a worker."""
        if name == "undefined":
            raise NameTaken("the name 'undefined' cannot be registered")
        taken = self.names.get(name)
        if taken is not None:
            raise NameTaken(f"the name {name!r} is registered by {taken}")
        name_term(name)
        self.names[name] = pid

    async def register_name(self, name: str, pid: Pid) -> None:
        """As ``register``; in a worker this asks the hub.

        Raises:
            NameTaken: another process of the node has the name.
        """
        self.register(name, pid)

    async def find_name(self, name: str) -> Pid | None:
        """The pid of a name of this node; in a worker this asks the hub."""
        return self.names.get(name)

    def tell_release(self, node: str, then: Callable[[int | None], None]) -> None:
        """Call ``then`` with the OTP release of a node, at once or later; None if it is no BEAM, or away."""
        if self.on_release is None:
            then(None)
        else:
            self.on_release(node, then)

    def unregister(self, name: str) -> None:
        """Remove a name; nothing happens if nobody has it."""
        pid = self.names.pop(name, None)
        if pid is None:
            return
        process = self.processes.get(pid.id) if self.is_here(pid) else None
        if process is not None:
            process.registered_names.pop(name, None)
        if self.on_unregistered is not None:
            self.on_unregistered(name, pid)

    # --- signals: out and between processes here --------------------------------------------------

    def send(self, control: Control, body: Term = None, node: str | None = None) -> None:
        """Send a signal. Signals sent while one is being handled wait until that one is done.

        Args:
            control: the signal.
            body: its term: the message, the exit reason, the argument list.
            node: where the name in ``control`` is registered; None for this node or where a pid tells.

        Raises:
            EncodeError: ``body`` is no term, and the signal leaves this runtime.
        """
        if self.handling:
            self._queue.append((control, body, node))
            return
        self.handling = True
        try:
            self._choose_way(control, body, node)
            while self._queue:
                self._choose_way(*self._queue.popleft())
        finally:
            self.handling = False

    def find_way(self, sender: Pid, to: Destination) -> Way | None:
        """How the next message of a process gets where its last one went; None where none is known."""
        if isinstance(to, Pid):
            if not self.is_here(to):
                return self._way_out(Send(sender, to), to.node)
            process = self.processes.get(to.id)
            return None if process is None else way_here(process)
        if isinstance(to, tuple):
            name, node = name_and_node(to)
            if node != self.node:
                return self._way_out(RegSend(sender, name), node)
        elif isinstance(to, (str, Atom)):
            name = name_term(to)
        else:
            return None
        known = name_of(name)
        pid = None if known is None else self.names.get(known)
        if known is None or (pid is None and not self.serial):
            return None
        if pid is not None and self.is_here(pid):
            way = self.find_way(sender, pid)
        else:
            way = self._way_out(RegSend(sender, name), self.node)
        return None if way is None else way_by_name(way, self.names, known)

    def find_node_ways(self, node: str) -> None:
        """Note how answers to calls of another node, monitors and ends get there, until it is down."""
        found = None if self.on_way is None or node == self.node else self.on_way(None, node)
        if found is None:
            self.signal_ways.pop(node, None)
            self.watch_ways.pop(node, None)
        else:
            self.signal_ways[node] = way_for_signals(*found)
            self.watch_ways[node] = way_out(*found)

    def _way_out(self, control: Send | RegSend, node: str) -> Way | None:
        found = None if self.on_way is None else self.on_way(control, node)
        return None if found is None else way_out(*found)

    def _choose_way(self, control: Control, body: Term, node: str | None) -> None:
        if type(control) is SpawnRequest:
            self._send_out(control, body, node or self.node)
            return
        dest = destination(control)
        if type(dest) is Pid or type(dest) is Reference:
            if self.is_here(dest):
                if isinstance(control, MESSAGES):
                    body = etf.normalise(body)
                self._hand_over(control, dest, body)
            elif isinstance(control, _SHORT):
                self._send_short(control, body, dest.node)
            else:
                self._send_out(control, body, dest.node)
        elif node is not None and node != self.node:
            if isinstance(control, _SHORT):
                self._send_short(control, body, node)
            else:
                self._send_out(control, body, node)
        else:
            self._choose_way_by_name(control, dest, body)

    def _send_short(self, control: Control, body: Term, node: str) -> None:
        """Send a signal of which many may come, or be told, at once: monitors, links and their ends."""
        signal = to_term(control, _EVERYTHING)
        if signal[0] in PAYLOAD_OPS:
            with_term = self.signal_ways.get(node)
            sent = with_term is not None and with_term(signal, body)
        else:
            way = self.watch_ways.get(node)
            sent = way is not None and way(signal)
        if not sent:
            self._send_out(control, body, node)
            self.find_node_ways(node)

    def _send_out(self, control: Control, body: Term, node: str) -> None:
        parts = etf.encode_parts(body) if isinstance(control, _WITH_PAYLOAD) else None
        self.outlet(control, parts, node)

    def _choose_way_by_name(self, control: Control, name: Term, body: Term) -> None:
        pid = self.resolve(control, name)
        if pid is not None and self.is_here(pid):
            self._hand_over(control, pid, etf.normalise(body))
        elif pid is not None or self.serial or type(control) is DemonitorP:
            self._send_out(control, body, self.node)
        else:
            self.answer_for_the_dead(control)

    def resolve(self, control: Control, name: Term) -> Pid | None:
        """The pid a by-name signal is for.

        For a process here a name is looked up once a monitor: the reference remembers.
        """
        if type(control) is DemonitorP:
            known = self._named_monitors.get(control.ref)
            if known is None or known[1] != control.watcher:
                return None
            del self._named_monitors[control.ref]
            return known[0]
        wanted = name.name if type(name) is Atom else name_of(name)
        pid = None if wanted is None else self.names.get(wanted)
        if type(control) is MonitorP and pid is not None and self.is_here(pid):
            self._named_monitors[control.ref] = (pid, control.watcher)
        return pid

    def answer_for_the_dead(self, control: Control) -> None:
        """Answer a signal whose receiver does not exist."""
        for effect in signals.answer_for_the_dead(control):
            assert isinstance(effect, Emit)
            self.send(effect.control, effect.reason, effect.node)

    # --- signals: in ------------------------------------------------------------------------------

    def receive_encoded(
        self, control: Control, payload: bytes | memoryview | None, node: str | None = None
    ) -> None:
        """Take a signal from outside for this runtime, its term still encoded.

        Args:
            control, payload: the signal.
            node: to which a name in it belongs, where the hub tells: always this one.
        """
        kind = type(control)
        dest: Any
        if (kind is MonitorP or kind is DemonitorP) and self._note_watcher(control):  # type: ignore[arg-type]
            return
        if kind is Link and self._note_link(control):  # type: ignore[arg-type]
            return
        if (kind is Send or kind is AliasSend) and payload is not None:
            dest = control.to if kind is Send else control.alias  # type: ignore[union-attr]
            if self.is_here(dest):
                self._receive_message(control, dest, payload)
            return
        dest = _DESTINATION[kind](control)
        if type(dest) is not Pid and type(dest) is not Reference:
            dest = self.resolve(control, dest)
            if dest is None:
                self.answer_for_the_dead(control)
                return
        if not self.is_here(dest):
            self.answer_for_the_dead(control)
            return
        if isinstance(control, MESSAGES) and payload is not None and not _is_exit(control):
            self._receive_message(control, dest, payload)
            return
        reason = getattr(control, "reason", IN_PAYLOAD)
        if reason is not IN_PAYLOAD:
            body: Term = reason
        elif payload is None:
            body = None
        else:
            try:
                body, _ = etf.decode_bare(payload, limits=self.settings.limits)
            except DecodeError as error:
                self.refused += 1
                what = type(control).__name__
                self.complain(
                    logger, f"replaced the reason of a signal ({what}): its term does not decode: {error}"
                )
                body = undecodable(error)
        self._handle_with_consequences(control, dest, body)

    def _note_link(self, control: Link) -> bool:
        """Note a link of a process here, which causes nothing; False where it does."""
        process = None if self.handling or not self.is_here(control.to) else self.processes.get(control.to.id)
        if process is None:
            return False
        process.signals.on_link(control.sender)
        return True

    def _note_watcher(self, control: MonitorP | DemonitorP) -> bool:
        """Note a monitor of a process here, or its end, which causes nothing; False where it does."""
        watched, watcher, ref = control.watched, control.watcher, control.ref
        if self.handling:
            return False
        begins = type(control) is MonitorP
        pid: Pid | None = None
        if type(watched) is Pid:
            pid = watched if self.is_here(watched) else None
        elif begins:
            pid = self.names.get(watched.name) if type(watched) is Atom else None
        elif (known := self._named_monitors.get(ref)) is not None and known[1] == watcher:
            pid = known[0]
        # What has a name is of this node: whether it is here, its serial number says.
        process = self.processes.get(pid.id) if pid is not None and pid.serial == self.serial else None
        if process is None:
            return False
        if pid is watched and self._named_monitors:
            self._named_monitors.pop(ref, None)  # a peer that names a monitor by name and by pid
        if not begins:
            if pid is not watched:
                del self._named_monitors[ref]
            process.signals.on_demonitor(watcher, ref)
            return True
        if pid is not watched:
            self._named_monitors[ref] = (process.pid, watcher)
        process.signals.on_monitor(watcher, watched, ref)  # type: ignore[arg-type]
        return True

    def receive_many_encoded(
        self, control: Send | RegSend, payloads: list[bytes], node: str | None = None
    ) -> bool:
        """Take messages from outside that have the same control message; as `receive_encoded`.

        Returns:
            False where they are for ``receive_encoded``, one by one.
        """
        if self.handling:
            return False
        if type(control) is Send:
            to: Pid | None = control.to
            here = self.is_here(control.to)
        else:
            name = control.name  # type: ignore[union-attr]
            to = self.names.get(name.name) if type(name) is Atom else self.resolve(control, name)
            if to is None:
                return True
            here = to.serial == self.serial  # what has a name is of this node
        if not here:
            return False
        process = self.processes.get(to.id)  # type: ignore[union-attr]
        return process is None or process.put_many_encoded(payloads)

    def _handle_with_consequences(self, control: Control, dest: Pid | Reference, body: Term) -> None:
        """Deliver to a process of this runtime, then what that causes."""
        if self.handling:
            raise RuntimeError(_REENTERED)
        self.handling = True
        try:
            self._hand_over(control, dest, body)
            while self._queue:
                self._choose_way(*self._queue.popleft())
        finally:
            self.handling = False

    def _receive_message(self, control: Control, dest: Pid | Reference, payload: bytes | memoryview) -> None:
        """Put a message into its mailbox as it came.

        Decoded now is only an answer that somebody awaits, and what the mailbox answers itself.
        """
        if self.handling:
            raise RuntimeError(_REENTERED)
        process = self.processes.get(dest.id) if type(dest) is Pid else self.aliases.get(dest)  # type: ignore[arg-type]
        if process is None:
            return
        pending = process.pending
        awaited = pending.futures and (pending.expects(dest) or pending.awaits(payload))  # type: ignore[arg-type]
        if not awaited and (process.answers_system_messages or not heads.is_system_message(payload)):
            told = process.told_source and self.source is not None
            process.put_encoded(heads.with_source(self.source, payload) if told else payload)  # type: ignore[arg-type]
            return
        try:
            message = self._read_message(payload)
        except DecodeError as error:
            if type(dest) is Reference:  # whoever waits for the answer is told at once
                pending.fail(dest, undecodable(error))
            return
        process.put(message)

    def _read_message(self, payload: bytes | memoryview) -> Term:
        """Decode a message.

        Raises:
            DecodeError: it is to be dropped; this is counted and logged.
        """
        try:
            return etf.decode_bare(payload, limits=self.limits)[0]
        except DecodeError as error:
            self.refused += 1
            self.complain(logger, f"dropped a message: its term does not decode: {error}")
            raise

    def _hand_over(self, control: Control, dest: Pid | Reference, body: Term) -> None:
        if type(dest) is Reference:
            process = self.aliases.get(dest)
            if process is not None:
                self._hand_to_alias(process, control, body)
            return
        assert isinstance(dest, Pid)
        process = self.processes.get(dest.id)
        if process is None:
            if type(control) is SpawnReply:
                self._take_spawn_reply(control)
            else:
                self.answer_for_the_dead(control)
            return
        handler = _HANDLERS.get(type(control))
        if handler is not None:
            handler(self, process, control, body)

    def _put_message(self, process: Process, control: Control, body: Term) -> None:
        process.put(body)

    def _hand_to_alias(self, process: Process, control: Control, body: Term) -> None:
        if type(control) is AltactSend and control.bits & Altact.EXIT:
            self.apply(process, process.signals.on_exit2(control.sender, body))
        else:
            process.put(body)

    def _take_spawn_reply(self, control: Control) -> None:
        assert isinstance(control, SpawnReply)
        waiting = self.spawn_replies.pop(control.request_id, None)
        if waiting is not None:
            waiting[1](control)

    def apply(self, process: Process, effects: list[Effect]) -> None:
        """Carry out what the signal rules decided for a process."""
        for effect in effects:
            if type(effect) is Deliver:
                process.put_signal(effect.message)
            elif type(effect) is Emit:
                self.send(effect.control, effect.reason, effect.node)
            elif type(effect) is Down:
                process.down(effect)
            elif type(effect) is Die:
                process.die(effect.reason, at_once=effect.at_once)

    def node_down(self, node: str) -> None:
        """The connection to a node is gone: links, monitors and spawn requests across it end."""
        self.signal_ways.pop(node, None)
        self.watch_ways.pop(node, None)
        self.ends.node_lost(node)
        for process in map(self.processes.get, self.ties.take(node)):
            if process is not None:  # what happened to one before may have ended it
                if self._named_monitors:
                    for ref in process.signals.watchers_at.get(node, ()):
                        self._named_monitors.pop(ref, None)
                self.apply(process, process.signals.on_node_down(node))
        for ref in [ref for ref, (asked, _) in self.spawn_replies.items() if asked == node]:
            del self.spawn_replies[ref]

    def kill_all(self, reason: Term) -> None:
        """End every process at once, at the end of the node."""
        for process in list(self.processes.values()):
            process.die(reason, at_once=True)
        self.ends.tell_all()


def _on_exit2(runtime: Runtime, process: Process, control: Any, body: Term) -> None:
    runtime.apply(process, process.signals.on_exit2(control.sender, body))


def _on_altact(runtime: Runtime, process: Process, control: Any, body: Term) -> None:
    if control.bits & Altact.EXIT:
        runtime.apply(process, process.signals.on_exit2(control.sender, body))
    else:
        process.put(body)


def _on_group_leader(runtime: Runtime, process: Process, control: Any, body: Term) -> None:
    process.group_leader = control.leader


def _on_spawn_reply(runtime: Runtime, process: Process, control: Any, body: Term) -> None:
    runtime._take_spawn_reply(control)


_Handler = Callable[[Runtime, Process, Any, Term], None]
_HANDLERS: dict[type, _Handler] = {
    Send: Runtime._put_message,
    RegSend: Runtime._put_message,
    AltactSend: _on_altact,
    LinkExit: lambda r, p, c, body: r.apply(p, p.signals.on_exit(c.sender, body)),
    Exit2: _on_exit2,
    Link: lambda r, p, c, body: r.apply(p, p.signals.on_link(c.sender)),
    Unlink: lambda r, p, c, body: r.apply(p, p.signals.on_unlink(c.sender)),
    UnlinkId: lambda r, p, c, body: r.apply(p, p.signals.on_unlink_id(c.sender, c.id)),
    UnlinkIdAck: lambda r, p, c, body: r.apply(p, p.signals.on_unlink_ack(c.sender, c.id)),
    MonitorP: lambda r, p, c, body: r.apply(p, p.signals.on_monitor(c.watcher, c.watched, c.ref)),
    DemonitorP: lambda r, p, c, body: r.apply(p, p.signals.on_demonitor(c.watcher, c.ref)),
    MonitorPExit: lambda r, p, c, body: r.apply(p, p.signals.on_down(c.ref, body)),
    GroupLeader: _on_group_leader,
    SpawnReply: _on_spawn_reply,
}
