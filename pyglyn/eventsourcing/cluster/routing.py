"""A service's part in the sharing of aggregates: membership, passing on, names in the registry.

A service that gets a command for an aggregate of another one passes it on, once: when two nodes disagree for
a moment, the second one carries it out, and the store refuses what conflicts. How the owner is found is in
:mod:`pyglyn.eventsourcing.cluster.owners`.

For Gleam there are names in the Glyn Registry of the same scope: the service's own name, held by one of the
nodes, and ``name/aggregate_id`` for every aggregate that had a command, held by its owner; ``registry.call``
takes the actor messages of the Gleam library.

Layer: eventsourcing, cluster.
"""

from __future__ import annotations

import logging
from collections import OrderedDict

from pyglyn.errors import GroupError, ProcessError
from pyglyn.etf import Atom, Pid, Term
from pyglyn.eventsourcing.cluster.errands import Errands
from pyglyn.eventsourcing.cluster.owners import AGGREGATES, members, owner_of
from pyglyn.eventsourcing.cluster.scope import ensure_scope
from pyglyn.groups import syn
from pyglyn.node import Process
from pyglyn.node.signals import DownSignal, ExitSignal

logger = logging.getLogger("pyglyn.eventsourcing")

FORWARDED = Atom("pyglyn_forwarded")
DOOR, STOP, GIVEN_UP = Atom("pyglyn_door"), Atom("stop"), Atom("given_up")
DOORS = 10_000
LINGER_S = 5.0


class Routing:
    """A service's part: membership, passing on, names in the registry.

    Args:
        me, scope, name: the service, the scope it is in, and what it is called.
        errands: passes messages on.
        doors: how many aggregates have a name in the registry; the least recently used give theirs up.
        linger_s: how long a process that gave up its name waits for messages of those who had looked it up.
    """

    def __init__(
        self,
        me: Process,
        scope: str,
        name: str,
        errands: Errands,
        *,
        doors: int = DOORS,
        linger_s: float = LINGER_S,
    ) -> None:
        self._me = me
        self._errands = errands
        self._gone: set[Pid] = set()  # services that were not there, though the scope still has them
        self._scope = scope
        self._name = name
        self._most_doors = doors
        self._linger_s = linger_s
        self._doors: OrderedDict[str, Pid] = OrderedDict()
        self._ids: dict[Pid, str] = {}
        self._holder: Pid | None = None

    async def start(self) -> None:
        """Become one of the services of this name."""
        await ensure_scope(self._me, self._scope)
        await syn.join(self._me, self._scope, (AGGREGATES, self._name.encode()), self._me.pid)
        self._hold_name()

    def _hold_name(self) -> None:
        self._holder = self._me.spawn_link(
            _hold_name, self._scope, self._name.encode(), self._me.pid, self._linger_s
        )

    def exited(self, pid: Pid) -> None:
        """A linked process ended, or gave up its name: it lost a conflict, or another node took the name."""
        if pid == self._holder:
            self._hold_name()
        aggregate_id = self._ids.pop(pid, None)
        if aggregate_id is not None:
            del self._doors[aggregate_id]

    async def elsewhere(self, aggregate_id: str) -> Pid | None:
        """Return the owner, if that is another service."""
        found = await members(self._me, self._scope, self._name)
        if self._gone:
            self._gone.intersection_update(found)
        owner = owner_of(aggregate_id, [pid for pid in found if pid not in self._gone])
        if owner is None or owner == self._me.pid:
            self.open_door(aggregate_id)
            return None
        return owner

    def pass_on(self, owner: Pid, message: Term) -> None:
        """Have the owner carry out what a message asks for; without it, the next one, which may be us."""

        def again() -> None:
            self._gone.add(owner)
            self._me.send(self._me.pid, message)

        self._errands.hand_on(FORWARDED, owner, message, again=again)

    def open_door(self, aggregate_id: str) -> None:
        """Give an aggregate that we own its name in the registry, if it has not got it."""
        if aggregate_id in self._doors:
            self._doors.move_to_end(aggregate_id)
            return
        name = f"{self._name}/{aggregate_id}".encode()
        door = self._me.spawn_link(_take_name, self._scope, name, self._me.pid, self._linger_s)
        self._doors[aggregate_id] = door
        self._ids[door] = aggregate_id
        if len(self._doors) > self._most_doors:
            _, pid = self._doors.popitem(last=False)
            del self._ids[pid]
            self._me.exit(pid, GIVEN_UP)


async def start_routing(me: Process, scope: str | None, name: str, errands: Errands) -> Routing | None:
    """Become one of the services of a name; None without a scope."""
    if scope is None:
        return None
    routing = Routing(me, scope, name, errands)
    await routing.start()
    return routing


async def passed_on(routing: Routing | None, request: Term, message: Term) -> bool:
    """Pass a message on to the owner of its aggregate; False if that is this service."""
    if routing is None or not isinstance(request, tuple) or len(request) < 2:
        return False
    id = request[1]
    if not isinstance(id, bytes):
        return False
    owner = await routing.elsewhere(id.decode(errors="replace"))
    if owner is not None:
        routing.pass_on(owner, message)
    return owner is not None


def opened(routing: Routing | None, original: Term) -> None:
    """A command was passed on to us: its aggregate is ours, so its name is too."""
    request = original[-1] if isinstance(original, tuple) and original else None
    id = request[1] if isinstance(request, tuple) and len(request) > 1 else None
    if routing is not None and isinstance(id, bytes):
        routing.open_door(id.decode(errors="replace"))


async def _holds(me: Process, scope: str, name: bytes) -> bool:
    """Whether a process has a name, as far as this node knows."""
    try:
        holder = await syn.lookup(me, scope, name)
    except (GroupError, ProcessError) as error:
        logger.debug("who has the name %r cannot be said: %s", name, error)
        return True
    return holder is not None and holder[0] == me.pid


async def _door(me: Process, scope: str, name: bytes, tag: Term, service: Pid, linger_s: float) -> None:
    """Pass on what comes to a registered name; once it is another's, until nothing has come for a while.

    Anybody may say that it is another's: so it is looked up.
    """
    me.trap_exit = me.marks_signals = True
    patience: float | None = None
    while True:
        try:
            message = await me.receive(timeout=patience)
        except TimeoutError:
            return
        given_up = False
        match message:
            case (Atom("pyglyn_door"), Atom("stop")):
                given_up = not await _holds(me, scope, name)
            case ExitSignal((_, Pid() as sender, reason)):
                given_up = sender.node == me.node and _is_to_give_up(reason)
                if not given_up:
                    return
            case (got, request) if got == tag:
                me.send(service, (tag, request))
        if given_up:
            patience = linger_s
            me.exit(service, GIVEN_UP)


def _is_to_give_up(reason: Term) -> bool:
    """Of what ends a process: the service has too many doors, or ``syn`` found the name at two nodes."""
    return reason is GIVEN_UP or (
        isinstance(reason, tuple) and bool(reason) and reason[0] is Atom("syn_resolve_kill")
    )


def _subject(me: Process) -> tuple[Term, Term]:
    """A new tag, and the metadata Glyn keeps with a name."""
    tag = me.make_ref()
    return tag, ((Atom("subject"), me.pid, tag), None)


async def _hold_name(me: Process, scope: str, name: bytes, service: Pid, linger_s: float) -> None:
    """Register the service's name; while another node has it, wait for that one to end."""
    while True:
        tag, meta = _subject(me)
        try:
            await syn.register(me, scope, name, me.pid, meta)
        except GroupError:
            holder = await syn.lookup(me, scope, name)
            if holder is not None:
                await _end_of(me, holder[0])
        else:
            await _door(me, scope, name, tag, service, linger_s)
            return


async def _end_of(me: Process, pid: Pid) -> None:
    me.marks_signals = True
    ref = me.monitor(pid)
    await me.receive(lambda m: isinstance(m, DownSignal) and m[1] == ref)


async def _take_name(me: Process, scope: str, name: bytes, service: Pid, linger_s: float) -> None:
    """Register the name of an aggregate that moved here; a former owner loses it."""
    tag, meta = _subject(me)
    for _ in range(3):
        try:
            await syn.register(me, scope, name, me.pid, meta)
            break
        except GroupError:
            try:
                holder = await syn.lookup(me, scope, name)
                await syn.unregister(me, scope, name)
            except (GroupError, ProcessError) as error:
                logger.debug("the name %r cannot be freed: %s", name, error)
            else:
                if holder is not None:
                    me.send(holder[0], (DOOR, STOP))
    await _door(me, scope, name, tag, service, linger_s)
