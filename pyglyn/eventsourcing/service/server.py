"""Aggregates as a supervised service: a process that executes commands and answers questions about them.

Aggregates run in parallel, one command at a time each, in the order in which their commands came. With
``workers=N`` the aggregates are spread over N OS processes, an aggregate always in the same one. After its
events are committed, a command's envelopes go to the queries, then its caller gets them.

The process answers ``gen_server`` calls and casts of the shapes in
:mod:`pyglyn.eventsourcing.domain.wire`, and the Gleam library's actor messages ``{Tag,
Message}`` from whoever holds its subject.

Source: ``eventsourcing.gleam`` 9.1, ``supervised`` and ``handle_message``. Differences: there one actor
executes the commands of all aggregates, and it stops on any error of the store.

Layer: eventsourcing, service.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Generic, TypeVar

import attrs

from pyglyn.errors import (
    DecodeErrors,
    EncodeError,
    EventSourcingError,
    EventStoreError,
    GleamError,
    StoreUnavailable,
    TransactionRolledBack,
)
from pyglyn.etf import Atom, Pid, Term
from pyglyn.eventsourcing.cluster import recent, sources
from pyglyn.eventsourcing.cluster.client import Service
from pyglyn.eventsourcing.cluster.closing import close_after
from pyglyn.eventsourcing.cluster.errands import Done, Errands, handed_on
from pyglyn.eventsourcing.cluster.reachable import must_be_reachable
from pyglyn.eventsourcing.cluster.routing import FORWARDED, opened, passed_on, start_routing
from pyglyn.eventsourcing.commands import UNAVAILABLE_S, CommandExecutor, Executed, OutboxFor
from pyglyn.eventsourcing.domain import wire
from pyglyn.eventsourcing.domain.aggregate import AggregateStats, Domain, SystemStats
from pyglyn.eventsourcing.domain.causation import with_causation, with_node
from pyglyn.eventsourcing.domain.envelope import ProcessEvents, expanded
from pyglyn.eventsourcing.domain.snapshot import SnapshotConfig
from pyglyn.eventsourcing.queries.live import Query, QuerySpec, query_worker
from pyglyn.eventsourcing.queries.parking import parking_of
from pyglyn.eventsourcing.service.front import FrontServer, worker_name
from pyglyn.eventsourcing.service.lanes import Lanes
from pyglyn.eventsourcing.stores.store import EventStore
from pyglyn.eventsourcing.stores.wrapped import WrappedStore
from pyglyn.node import At, Caller, GenServer, Node, NoReply
from pyglyn.node.calls import GEN_CALL, GEN_CAST
from pyglyn.node.signals import ExitSignal
from pyglyn.patience import is_called_off
from pyglyn.supervision import ChildSpec, Supervisor, supervisor, worker

logger = logging.getLogger("pyglyn.eventsourcing")

LANES = 64
"""How many aggregates of one OS process are busy with a command at the same time."""

START_S = 3.0
"""For how long a service that starts waits for its store; then it goes on without."""

S = TypeVar("S")
C = TypeVar("C")
E = TypeVar("E")

Answer = Callable[[Term], None]

_NO_OPTIONS: Term = {}
_AS_USUAL = wire.CommandOptions()


@attrs.frozen(kw_only=True)
class ServiceSpec(Generic[S, C, E]):
    """All that a service is made of; see `supervised`."""

    name: str
    store: EventStore[E, S]
    domain: Domain[S, C, E]
    commands: object = None
    events: object = None
    queries: tuple[QuerySpec, ...] = ()
    snapshot_config: SnapshotConfig | None = None
    workers: int = 0
    causation: bool = True
    scope: str | None = None
    conflict_retries: int = 50
    unavailable_s: float = UNAVAILABLE_S
    outbox: OutboxFor[Any] | None = None
    cached: int = 1000
    required: bool = False

    def types(self) -> wire.Types:
        """Derive how values are read and written; done anew in each OS process.

        Raises:
            UnsupportedType: the commands or events are no Gleam values.
        """
        domain = self.domain
        return wire.Types.of(domain.handle, domain.apply, commands=self.commands, events=self.events)

    def at(self, at: At) -> Service[S, C, E]:
        """Return a handle on the service of this name on a node, which knows its types.

        Args:
            at: the node, or the calling process.
        """
        state = wire.state_type(self.domain.apply, self.domain.empty_state)
        return Service(at, self.name, events=self.events, state=state)


def service(
    name: str,
    eventstore: EventStore[E, S],
    *,
    handle: Callable[[S, C], Iterable[E]],
    apply: Callable[[S, E], S],
    empty_state: S,
    queries: Sequence[tuple[str, Query] | QuerySpec] = (),
    snapshot_config: SnapshotConfig | None = None,
    workers: int = 0,
    commands: object = None,
    events: object = None,
    causation: bool = True,
    scope: str | None = None,
    unavailable_s: float = UNAVAILABLE_S,
    outbox: OutboxFor[E] | None = None,
    conflict_retries: int = 50,
    cached: int = 1000,
    required: bool = False,
) -> ServiceSpec[S, C, E]:
    """Describe a service; the arguments are those of `supervised`."""
    if workers and eventstore.in_memory:
        raise EventStoreError("a memory store belongs to one OS process: workers need SQLite or PostgreSQL")
    if snapshot_config is not None and empty_state is not None:
        eventstore.check_state(empty_state)
    events = events if events is not None else wire.parameter_type(apply, 1)
    made: ServiceSpec[S, C, E] = ServiceSpec(
        name=name,
        store=eventstore,
        domain=Domain(handle, apply, empty_state),
        commands=commands,
        events=events,
        queries=tuple(QuerySpec.of(each, events=events, parking=parking_of(eventstore)) for each in queries),
        snapshot_config=snapshot_config,
        workers=workers,
        causation=causation,
        scope=scope,
        unavailable_s=unavailable_s,
        outbox=outbox,
        conflict_retries=conflict_retries,
        cached=cached,
        required=required,
    )
    made.types()  # refuses what cannot travel, here and not in the OS process of the service
    return made


def supervised(
    name: str,
    eventstore: EventStore[E, S],
    *,
    handle: Callable[[S, C], Iterable[E]],
    apply: Callable[[S, E], S],
    empty_state: S,
    queries: Sequence[tuple[str, Query] | QuerySpec] = (),
    snapshot_config: SnapshotConfig | None = None,
    workers: int = 0,
    commands: object = None,
    events: object = None,
    causation: bool = True,
    scope: str | None = None,
    unavailable_s: float = UNAVAILABLE_S,
    outbox: OutboxFor[E] | None = None,
    conflict_retries: int = 50,
    cached: int = 1000,
    required: bool = False,
) -> ChildSpec:
    """Specify a service for a supervision tree.

    Args:
        name: what its process is registered as, for `Service`.
        eventstore: where the events go; a Glyn store also broadcasts them.
        handle: ``handle(entity, command)`` returns events, or raises DomainError.
        apply: ``apply(entity, event)`` returns the entity after the event.
        empty_state: the entity before any event.
        queries: ``(name, function)`` pairs; each runs in its own OS process and is called as
            ``function(aggregate_id, envelopes)`` after each commit of this service.
        snapshot_config: how often to take snapshots; None for never.
        workers: OS processes to spread the aggregates over; 0 runs all in the one of the service.
        commands: the commands' type; by default what ``handle`` is annotated with.
        events: the events' type; by default what ``apply`` is annotated with.
        causation: add correlation id, causation id and node to the metadata.
        scope: the services of this name on all nodes of that scope share the aggregates; a command that
            comes to one of them is carried out by the owner of its aggregate.
        unavailable_s: for how many seconds a command waits for a store that is not available. Callers who
            wait for less (5 s by default) get `ActorTimeout` instead of the reason.
        outbox: given an aggregate's id, its sequence before and new events, returns messages to be sent after
            the commit, which are written with the events.
        conflict_retries: how often a command is decided anew before its VersionConflict is the answer.
        cached: how many aggregates are kept in memory, so that their next command needs no load.
        required: the node counts as ready for work (``/readyz``) only while the store answers.

    Raises:
        EventStoreError: a memory store with workers; snapshots of a state that the store cannot keep.
        UnsupportedType: the commands or events are no Gleam values.
    """
    made = service(
        name,
        eventstore,
        handle=handle,
        apply=apply,
        empty_state=empty_state,
        queries=queries,
        snapshot_config=snapshot_config,
        workers=workers,
        commands=commands,
        events=events,
        causation=causation,
        scope=scope,
        unavailable_s=unavailable_s,
        outbox=outbox,
        conflict_retries=conflict_retries,
        cached=cached,
        required=required,
    )
    tree = Supervisor("one_for_one")
    for query in made.queries:
        tree.add(query_worker(query))
    if made.workers:
        for number in range(made.workers):
            tree.add(worker(AggregateServer, made, name=worker_name(name, number)))
        front = (made.name, made.workers, made.scope, len(made.queries))
        tree.add(worker(FrontServer, *front, name=name, isolation="task"))
    else:
        tree.add(worker(AggregateServer, made, name=name))
    return supervisor(tree, id=name, isolation="task")


async def start(node: Node, spec: ServiceSpec[S, C, E]) -> Service[S, C, E]:
    """Start a service and its queries in the node's own OS process, without supervision.

    Returns:
        A handle on it, as `ServiceSpec.at` makes it.
    """
    for query in spec.queries:
        await node.start(query.server, query, name=query.name)
    await node.start(AggregateServer, attrs.evolve(spec, workers=0), name=spec.name)
    return spec.at(node)


class AggregateServer(GenServer):
    """Executes commands: the whole service, or its share in one OS process."""

    marks_signals = True

    async def init(self, spec: ServiceSpec[Any, Any, Any]) -> None:
        """Get ready.

        Raises:
            EventStoreError: the store will never work as it is. One that is only unavailable is no reason
                not to start: commands wait for it, and are told why in the end.
        """
        self.spec = spec
        self.store = spec.store
        self.types = spec.types()
        self.write = partial(wire.payload, encode=self.types.write_event)
        self.lanes = Lanes(LANES)
        self.commands = 0
        self.me.trap_exit = True
        self.call_off_closing = close_after(self.me, self._close)
        bind = getattr(self.store, "bind", None)
        if bind is not None:
            await bind(self.me)
        await self._start_store()
        if spec.required:
            must_be_reachable(self.me, self.store, f"store of {spec.name}")
        self.errands = Errands(self.me)
        scope = spec.scope if not spec.workers else None
        self.routing = await start_routing(self.me, scope, spec.name, self.errands)
        if not spec.workers:
            await recent.announce(self.me, spec.name)
        self.executor: CommandExecutor[Any, Any, Any] = CommandExecutor(
            self.store,
            spec.domain,
            snapshot_config=spec.snapshot_config,
            outbox=spec.outbox,
            conflict_retries=spec.conflict_retries,
            cached=spec.cached,
            unavailable_s=spec.unavailable_s,
            write=self.write,
            name=spec.name,
        )

    async def _start_store(self) -> None:
        try:
            async with asyncio.timeout(START_S):
                await self.store.start()
        except (StoreUnavailable, TransactionRolledBack, TimeoutError) as error:
            why = str(error) or f"it does not answer within {START_S:g} s"
            fault = _fault_here(self.store)
            if fault is not None:
                raise EventStoreError(f"{why}; {fault}") from error
            logger.error("%s starts without its store, commands wait for it: %s", self.spec.name, why)

    async def handle_call(self, request: Term, caller: Caller) -> Any:
        """Take a request; the answer comes when its aggregate's turn is over."""
        if self.routing is None or not await passed_on(
            self.routing, request, (GEN_CALL, (caller.pid, caller.tag), request)
        ):
            self._take_call(request, caller)
        return NoReply

    async def handle_cast(self, request: Term) -> None:
        """Take a command that nobody waits for."""
        if not await passed_on(self.routing, request, (GEN_CAST, request)):
            self.take(request, self._log_failure, for_gleam=False)

    async def handle_info(self, message: Term) -> None:
        """Take an actor message of the Gleam library, or what another process of the service was sent."""
        if self.errands.take(message):
            return
        match message:
            case ExitSignal((_, Pid() as pid, _)):
                if self.routing is not None:
                    self.routing.exited(pid)
                return
            case (Atom("pyglyn_forwarded" | "pyglyn_passed") as kind, Pid(), int(), _):
                original, done = handed_on(self.me, message)
                if kind is FORWARDED:
                    opened(self.routing, original)
                self._take_original(original, done)
                return
            case (_, request) if await passed_on(self.routing, request, message):
                return
        self._take_actor_message(message)

    def _take_original(self, message: Term, done: Done | None = None) -> None:
        match message:
            case (Atom("$gen_call"), from_, request):
                if (caller := Caller.from_term(from_)) is not None:
                    self._take_call(request, caller, done)
            case (Atom("$gen_cast"), request):
                self.take(request, self._log_failure, for_gleam=False)
            case _:
                self._take_actor_message(message, done)

    def _take_call(self, request: Term, caller: Caller, done: Done | None = None) -> None:
        answer = _then(partial(self.reply, caller), done)
        if type(request) is tuple and request and request[0] is wire.EXECUTE:  # nearly all are
            self.take(request, answer, for_gleam=False)
            return
        match request:
            case (Atom("read_events"), *_):
                read = partial(sources.answer_read, self.store, request, self.types.write_event)
                self.lanes.put((wire.NONE, caller.pid), partial(self._read_events, read, answer))
            case _ if recent.is_request(request):
                read = partial(recent.answer, self.store, request)
                self.lanes.put((wire.NONE, caller.pid), partial(self._read_events, read, answer))
            case _:
                self.take(request, answer, for_gleam=False)

    def _take_actor_message(self, message: Term, done: Done | None = None) -> None:
        match message:
            case (_, (Atom() as kind, *fields)):
                subject = fields[-1] if fields else None
                match subject:
                    case (Atom("subject"), Pid() as owner, tag) if kind is not wire.EXECUTE:
                        answer = _then(partial(self._answer_subject, owner, tag), done)
                        self.take((kind, *fields[:-1]), answer, for_gleam=True)
                        return
                if kind is wire.EXECUTE:
                    self.take((kind, *fields), _then(self._log_failure, done), for_gleam=True)
                    return
        if done is not None:
            done()
        self.me.runtime.complain(logger, f"{self.spec.name} got a message that is none of its own")

    def _answer_subject(self, owner: Pid, tag: Term, answer: Term) -> None:
        self.me.send(owner, (tag, answer))

    def _log_failure(self, answer: Term) -> None:
        match answer:
            case (Atom("error"), (Atom("domain_error"), _)):
                return
            case (Atom("error"), error):
                logger.error("%s: a command failed: %s", self.spec.name, wire.read_error(error))

    def take(self, request: Term, answer: Answer, *, for_gleam: bool) -> None:
        """Put a request in line behind the others of its aggregate."""
        match request:
            case (Atom("execute_command" | "execute_command_with_response"), bytes() as id, command, pairs):
                work = partial(self._execute, id, command, pairs, time.monotonic(), for_gleam)
            case (Atom("execute_command"), bytes() as id, command, pairs, dict() as options):
                work = partial(self._execute, id, command, pairs, time.monotonic(), for_gleam, options)
            case (Atom("load_aggregate"), bytes() as id):
                work = partial(self._load_aggregate, id)
            case (Atom("load_aggregate"), bytes() as id, int() as sequence):
                work = partial(self._load_aggregate, id, sequence)
            case (Atom("load_all_events"), bytes() as id):
                work = partial(self._load_events, id, 0)
            case (Atom("load_events"), bytes() as id, int() as start_from):
                work = partial(self._load_events, id, start_from)
            case (Atom("load_latest_snapshot"), bytes() as id):
                work = partial(self._load_snapshot, id)
            case (Atom("get_aggregate_stats"), bytes() as id):
                work = partial(self._aggregate_stats, id)
            case (Atom("get_system_stats"),) | Atom("get_system_stats"):
                answer(wire.system_stats_term(SystemStats(len(self.spec.queries), self.commands)))
                return
            case _:
                answer((wire.ERROR, wire.error_term(EventStoreError("an unknown request"))))
                return
        self.lanes.put(id, partial(self._work, work, answer, for_gleam))

    async def _work(self, work: Callable[[], Any], answer: Answer, for_gleam: bool) -> None:
        result: Term
        try:
            result = (wire.OK, await work())
        except (EventSourcingError, GleamError) as error:
            result = (wire.ERROR, wire.error_term(error, for_gleam=for_gleam))
        except (Exception, asyncio.CancelledError) as error:
            if isinstance(error, asyncio.CancelledError) and is_called_off():
                raise
            logger.exception("%s: a command failed", self.spec.name)
            result = (wire.ERROR, wire.error_term(error, for_gleam=for_gleam))
        try:
            answer(result)
        except EncodeError as error:  # an entity or an error of the application, with something in it
            answer((wire.ERROR, wire.error_term(error, for_gleam=for_gleam)))

    async def _read_events(self, read: Callable[[], Any], answer: Answer) -> None:
        try:
            answer(await read())
        except Exception as error:
            answer((wire.ERROR, wire.error_term(error)))

    # --- the requests -------------------------------------------------------------------------------

    async def _execute(
        self,
        id: bytes,
        command: Term,
        pairs: Term,
        came_at: float,
        for_gleam: bool,
        options: Term = _NO_OPTIONS,
    ) -> Term:
        self.commands += 1
        aggregate_id = wire.text(id)
        metadata = wire.read_metadata(pairs)
        try:
            decoded = self.types.command(command)
            asked = _AS_USUAL if options is _NO_OPTIONS else wire.read_options(options)
        except DecodeErrors as error:
            raise EventStoreError(f"the command does not decode: {error}") from error
        if self.spec.causation:
            metadata = with_node(with_causation(metadata), self.me.node)
        executed = await self.executor.execute(
            aggregate_id, decoded, metadata, came_at=came_at, expected=asked.expected, final=asked.final
        )
        envelopes = self._tell(aggregate_id, executed)
        if asked.position:
            position = await self._position(executed)
            return (wire.COMMITTED, envelopes, wire.NONE if position is None else position)
        return None if for_gleam else envelopes

    async def _position(self, executed: Executed[Any, Any]) -> int | None:
        """Return the position of the last event of a command, else of its aggregate; 0 where there is none.

        What was committed is committed: None where the store cannot tell.
        """
        last = executed.envelopes[-1].sequence if executed.envelopes else executed.aggregate.sequence
        if not last:
            return 0
        try:
            return await self.store.position_of(executed.aggregate.aggregate_id, last)
        except EventStoreError as error:
            logger.warning("%s: the position of a command is not known: %s", self.spec.name, error)
            return None

    def _tell(self, aggregate_id: str, executed: Executed[Any, Any]) -> Term:
        """Send the queries what was committed; returns the envelopes as terms."""
        message = wire.committed_term(ProcessEvents(aggregate_id, executed.envelopes), executed.written)
        if executed.envelopes:
            for query in self.spec.queries:
                self.me.send(query.name, message)
        return message[2]

    async def _load_aggregate(self, id: bytes, sequence: int | None = None) -> Term:
        aggregate = await self.executor.load_aggregate(wire.text(id), at=sequence)
        return wire.aggregate_term(aggregate, wire.encoding(None))

    async def _load_events(self, id: bytes, start_from: int) -> Term:
        envelopes = expanded(await self.store.load_events(wire.text(id), start_from))
        return [wire.envelope_term(each, self.types.write_event) for each in envelopes]

    async def _load_snapshot(self, id: bytes) -> Term:
        return wire.snapshot_term(await self.store.latest_snapshot(wire.text(id)), wire.encoding(None))

    async def _aggregate_stats(self, id: bytes) -> Term:
        aggregate_id = wire.text(id)
        sequence = await self.store.last_sequence(aggregate_id)
        snapshot = await self.store.latest_snapshot(aggregate_id)
        return wire.aggregate_stats_term(
            AggregateStats(aggregate_id, sequence, sequence, snapshot is not None)
        )

    # --- the end ------------------------------------------------------------------------------------

    async def terminate(self, reason: Term) -> None:
        """Finish what has begun, within reason, and close the store."""
        try:
            async with asyncio.timeout(3.0):
                await self.lanes.drain()
        except TimeoutError:
            logger.warning("%s: stopping with commands under way", self.spec.name)
        self.call_off_closing()
        await self._close()

    async def _close(self) -> None:
        await self.lanes.stop()
        await self.store.close()


def _then(answer: Answer, done: Done | None) -> Answer:
    """Answer, then say that it is done."""
    if done is None:
        return answer

    def both(term: Term) -> None:
        answer(term)
        done()

    return both


def _fault_here(store: EventStore[Any, Any]) -> str | None:
    """Say what makes a store unavailable for good: what is local has to be there at the start."""
    while isinstance(store, WrappedStore):
        store = store.underlying
    path = getattr(store, "path", None)
    if isinstance(path, str):
        folder = os.path.dirname(os.path.abspath(path))
        if not os.path.isdir(folder):
            return f"there is no folder {folder}"
    return None
