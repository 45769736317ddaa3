"""Queries that follow what is committed now: functions of ``(aggregate_id, envelopes)`` as processes.

A live query sees what is sent to it while it runs, as in the Gleam library; what it misses it does not get
again. For a query that must not miss anything there is :mod:`pyglyn.eventsourcing.durable`.

One message is processed at a time. When the function raises, its :class:`FailurePolicy` decides; by default
the message is tried again and then parked with its raw term. A message that does not decode is parked at
once.

Layer: eventsourcing, on a node.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import attrs

from pyglyn import etf
from pyglyn.errors import DecodeErrors, EventSourcingError
from pyglyn.etf import Atom, Pid, Term
from pyglyn.eventsourcing import wire
from pyglyn.eventsourcing.causation import caused_by
from pyglyn.eventsourcing.envelope import EventEnvelope, ProcessEvents
from pyglyn.eventsourcing.failure import FailurePolicy
from pyglyn.eventsourcing.memory import MemoryStore
from pyglyn.eventsourcing.ordering import Ordering
from pyglyn.eventsourcing.query_process import QueryServer, QueryStatus, parked_from_term
from pyglyn.eventsourcing.store import EventStore, ParkedEvent
from pyglyn.groups import syn
from pyglyn.node import GenServer, NoReply
from pyglyn.supervision import ChildSpec, worker

logger = logging.getLogger("pyglyn.eventsourcing")

Query: TypeAlias = Callable[[str, list[EventEnvelope[Any]]], "Awaitable[None] | None"]


@attrs.frozen(kw_only=True)
class QuerySpec:
    """A live query.

    Attributes:
        name: what its process is registered as.
        function: what is called, plain or async.
        events: the events' type or decoder; None leaves them terms.
        policy: what happens when the function raises.
        scope, group: the Glyn group to subscribe; None for messages sent to the process only.
        parking: where parked events are kept; None keeps them in memory.
    """

    name: str
    function: Query
    events: object = None
    policy: FailurePolicy = attrs.field(factory=FailurePolicy)
    scope: str | None = None
    group: str | None = None
    parking: EventStore[Any, Any] | None = None

    @classmethod
    def of(cls, given: tuple[str, Query] | QuerySpec, *, events: object = None, **options: Any) -> QuerySpec:
        """Make one of a ``(name, function)`` pair; one that is made already is left as it is."""
        if isinstance(given, QuerySpec):
            return attrs.evolve(given, **options) if options else given
        name, function = given
        if not callable(function):
            raise TypeError(f"query {name!r}: expected a function of (aggregate_id, envelopes)")
        return cls(name=name, function=function, events=events, **options)

    @property
    def server(self) -> type[GenServer]:
        """The process that runs it."""
        return LiveQuery


def query_worker(spec: QuerySpec) -> ChildSpec:
    """Specify a query for a supervision tree: an OS process of its own."""
    return worker(LiveQuery, spec, name=spec.name)


class LiveQuery(QueryServer):
    """The process of a live query."""

    kind = "live"

    async def init(self, spec: QuerySpec) -> None:
        """Subscribe."""
        await self.register(spec.name)
        self.spec = spec
        self.read = wire.decoding(spec.events)
        self.ordering = Ordering()
        self.parking: EventStore[Any, Any] = spec.parking or MemoryStore()
        self.processed = 0
        self.last_at = 0.0
        self.error = ""
        self.paused = False
        self.waiting: list[ProcessEvents[Any]] = []
        if spec.scope is not None and spec.group is not None:
            await syn.join(self.me, spec.scope, spec.group, self.me.pid)

    # --- messages -----------------------------------------------------------------------------------

    async def handle_info(self, message: Term) -> Any:
        """Take a message of the group, tagged or not, or one sent by a service of this node."""
        match message:
            case Atom("timeout"):
                pass
            case (Atom("EXIT"), Pid(), _):
                return None
            case (bytes(), (Atom("process_events"), *_) as body):
                await self._take(body)
            case (Atom("process_events"), *_):
                await self._take(message)
            case _:
                await self._take(message[1] if isinstance(message, tuple) and len(message) == 2 else message)
        for ready in self.ordering.overdue(time.monotonic()):
            await self._process(ready)
        deadline = self.ordering.next_deadline()
        return None if deadline is None else NoReply(timeout=max(0.0, deadline - time.monotonic()))

    async def _take(self, body: Term) -> None:
        try:
            message = wire.read_process_events(body, self.read)
        except DecodeErrors as error:
            await self._park_term(body, error)
            return
        for ready in self.ordering.take(message, time.monotonic()):
            await self._process(ready)

    async def _process(self, message: ProcessEvents[Any]) -> None:
        if self.paused:
            self.waiting.append(message)
            return
        attempts = 0
        while True:
            try:
                await self._call(message)
                self.error = ""
                return
            except Exception as error:
                attempts += 1
                self.error = f"{type(error).__name__}: {error}"
                pause = self.spec.policy.pause(attempts)
                if pause is None:
                    await self._give_up(message, error, attempts)
                    return
                logger.warning("query %s: attempt %d failed: %s", self.spec.name, attempts, self.error)
            await asyncio.sleep(pause)

    async def _call(self, message: ProcessEvents[Any]) -> None:
        await call_query(self.spec.function, message, in_thread=self.in_hub)
        self.processed += 1
        self.last_at = time.monotonic()

    async def _give_up(self, message: ProcessEvents[Any], error: Exception, attempts: int) -> None:
        if self.spec.policy.then == "stop":
            self.paused = True
            self.waiting.append(message)
            logger.error("query %s stands still: %s", self.spec.name, self.error)
            return
        logger.error("query %s parked an event of %s", self.spec.name, message.aggregate_id, exc_info=error)
        raw = etf.encode(wire.process_events_term(message))
        sequence = message.events[0].sequence if message.events else 0
        await self._park(message.aggregate_id, sequence, raw, self.error, attempts)

    async def _park_term(self, body: Term, error: DecodeErrors) -> None:
        aggregate_id, sequence = "", 0
        match body:
            case (Atom("process_events"), bytes() as id, [(_, bytes(), int() as number, *_), *_]):
                aggregate_id, sequence = id.decode(errors="replace"), number
        self.error = str(error)
        logger.error("query %s parked a message that does not decode: %s", self.spec.name, error)
        await self._park(aggregate_id, sequence, etf.encode(body), self.error, 1)

    async def _park(self, aggregate_id: str, sequence: int, raw: bytes, error: str, attempts: int) -> None:
        event = ParkedEvent(
            query=self.spec.name,
            aggregate_id=aggregate_id,
            sequence=sequence,
            raw=raw,
            error=error,
            format="etf",
            attempts=attempts,
        )
        try:
            await self.parking.park(event)
        except EventSourcingError:
            logger.exception(
                "query %s cannot park an event in the store: it is kept in memory", self.spec.name
            )
            self.parking = MemoryStore()
            await self.parking.park(event)

    # --- what the command line asks -------------------------------------------------------------------

    async def status(self) -> QueryStatus:
        """Tell where it stands."""
        state = "paused" if self.paused else "live" if time.monotonic() - self.last_at < 10.0 else "idle"
        if self.error and self.paused:
            state = "stuck"
        parked = len(await self.parking.parked(self.spec.name))
        return QueryStatus(
            name=self.spec.name,
            kind=self.kind,
            state=state,
            processed=self.processed,
            parked=parked,
            error=self.error,
        )

    async def parked(self) -> list[ParkedEvent]:
        """List the parked messages."""
        return await self.parking.parked(self.spec.name)

    async def drive(self, id: int | None) -> int:
        """Process parked messages again, in order; returns how many were processed."""
        driven = 0
        for event in await self.parking.parked(self.spec.name):
            if id is not None and event.id != id:
                continue
            try:
                message = wire.read_process_events(parked_from_term(event), self.read)
                await self._call(message)
            except Exception as error:
                text = f"{type(error).__name__}: {error}"
                await self.parking.park(attrs.evolve(event, error=text, attempts=event.attempts + 1))
                continue
            assert event.id is not None
            await self.parking.unpark(event.id)
            driven += 1
        return driven

    async def pause(self, paused: bool) -> None:
        """Stand still (what comes waits in memory), or go on."""
        self.paused = paused
        if not paused:
            waiting, self.waiting = self.waiting, []
            for message in waiting:
                await self._process(message)


def is_async(function: Callable[..., Any]) -> bool:
    """Whether a function, or an object with ``__call__``, is async."""
    called = getattr(function, "__call__", function)  # noqa: B004
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(called)


async def call_query(function: Query, message: ProcessEvents[Any], *, in_thread: bool) -> None:
    """Call a query's function; a plain one in a thread where it would hold up others."""
    events = message.events
    if not events:
        return
    with caused_by(events[-1]):
        if in_thread and not is_async(function):
            result = await asyncio.to_thread(function, message.aggregate_id, events)
        else:
            result = function(message.aggregate_id, events)
        if inspect.isawaitable(result):
            await result
