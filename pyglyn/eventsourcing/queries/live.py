"""Queries that follow what is committed now: functions of ``(aggregate_id, envelopes)`` as processes.

A live query sees what is sent to it while it runs, as in the Gleam library; what it misses it does not get
again. For a query that must not miss anything there is :mod:`pyglyn.eventsourcing.queries.durable`.

One message is processed at a time. When the function raises, its :class:`FailurePolicy` decides; by default
the message is tried again and then parked with its raw term. A message that does not decode is parked at
once. Later messages of the same aggregate are parked behind it, without an attempt, until it is driven. While
the store of what is parked cannot be reached, the query is stuck and tries again.

Layer: eventsourcing, queries.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import attrs

from pyglyn import etf
from pyglyn.complaints import Complaints
from pyglyn.errors import (
    DecodeErrors,
    EventSourcingError,
    EventStoreError,
    StoreUnavailable,
    TransactionRolledBack,
)
from pyglyn.etf import Atom, Pid, Term
from pyglyn.eventsourcing.cluster.closing import close_after
from pyglyn.eventsourcing.domain import wire
from pyglyn.eventsourcing.domain.causation import caused_by
from pyglyn.eventsourcing.domain.envelope import EventEnvelope, ProcessEvents
from pyglyn.eventsourcing.queries.bounds import Allowance
from pyglyn.eventsourcing.queries.failure import STOP, FailurePolicy
from pyglyn.eventsourcing.queries.ordering import Ordering
from pyglyn.eventsourcing.queries.parking import Aggregate, Parking, aggregate_of
from pyglyn.eventsourcing.queries.query_process import QueryServer, QueryStatus, parked_from_term
from pyglyn.eventsourcing.stores.store import EventStore, ParkedEvent
from pyglyn.groups import syn
from pyglyn.node import Caller, GenServer, NoReply, Stop
from pyglyn.node.exits import Exit, exit_reason
from pyglyn.patience import cancellable, is_called_off
from pyglyn.supervision import ChildSpec, worker

logger = logging.getLogger("pyglyn.eventsourcing")

_UNAVAILABLE = FailurePolicy(retries=None, first=0.05, longest=5.0)
_STATUS_S = 3.0
"""How long the answer to ``status`` waits for the store of what is parked."""
_EARLIER = "an earlier event of this aggregate is parked"

Query: TypeAlias = Callable[[str, list[EventEnvelope[Any]]], "Awaitable[None] | None"]


@attrs.frozen(kw_only=True)
class QuerySpec:
    """A live query.

    Attributes:
        name: what its process is registered as.
        function: what is called, plain or async.
        events: the events' type or decoder; None takes that of the service or Glyn store, if it has one, and
            otherwise leaves them terms.
        policy: what happens when the function raises.
        scope, group: the Glyn group to subscribe; None takes that of the Glyn store, or for a service's own
            query none: it gets the messages sent to its process.
        parking: where parked events are kept; None takes the SQL store of the service or Glyn store, if
            there is one, and otherwise keeps them in memory.
    """

    name: str
    function: Query
    events: object = None
    policy: FailurePolicy = attrs.field(factory=FailurePolicy)
    scope: str | None = None
    group: str | None = None
    parking: EventStore[Any, Any] | None = None

    @classmethod
    def of(cls, given: tuple[str, Query] | QuerySpec, **defaults: Any) -> QuerySpec:
        """Make one of a ``(name, function)`` pair, or take the one given, and fill in what it leaves open."""
        if not isinstance(given, QuerySpec):
            name, function = given
            if not callable(function):
                raise TypeError(f"query {name!r}: expected a function of (aggregate_id, envelopes)")
            given = cls(name=name, function=function)
        open_ = {name: value for name, value in defaults.items() if getattr(given, name) is None}
        return attrs.evolve(given, **open_)

    @property
    def server(self) -> type[GenServer]:
        """The process that runs it."""
        return LiveQuery


def query_worker(spec: QuerySpec) -> ChildSpec:
    """Specify a query for a supervision tree: an OS process of its own."""
    return worker(LiveQuery, spec, name=spec.name)


@attrs.frozen
class _Received(ProcessEvents[Any]):
    """A message with the term it came as."""

    body: Term


@attrs.frozen
class _Unreadable:
    """A message that does not decode, why, and how many bytes it has."""

    body: Term
    error: str
    size: int


class LiveQuery(QueryServer):
    """The process of a live query.

    The process takes messages and answers tools; a task beside it processes one message at a time. So it
    answers while a message is tried again, and while an async function waits.
    """

    kind = "live"

    async def init(self, spec: QuerySpec) -> None:
        """Subscribe."""
        await self.register(spec.name)
        self.spec = spec
        self.read = wire.event_decoding(spec.events)
        self.ordering: Ordering[_Received] = Ordering()
        self.parking = Parking(spec.name, spec.parking)
        self.processed = 0
        self.last_at = 0.0
        self.error = ""
        self.complaints = Complaints()  # of attempts; over with a success
        self.garbage = Complaints()
        self.allowance: Allowance | None = None  # for messages that do not decode
        self.room = Allowance(rate=None)  # for those of them that wait
        self.dropped = 0
        self.paused = False  # by an order
        self.stopped = False  # by the policy
        self.waiting: deque[_Received | _Unreadable] = deque()
        self.orders: deque[tuple[Term, Caller]] = deque()  # those that have to wait for their turn
        self.awake = asyncio.Event()
        self._begin()
        self.failure: BaseException | None = None
        close_after(self.me, self._close)
        if spec.scope is not None and spec.group is not None:
            await syn.join(self.me, spec.scope, spec.group, self.me.pid)
        self.running = asyncio.get_running_loop().create_task(self._run())

    # --- messages -----------------------------------------------------------------------------------

    async def handle_info(self, message: Term) -> Any:
        """Take a message of the group, tagged or not, or one sent by a service of this node."""
        match message:
            case (Atom("EXIT"), Pid(), _):
                return None
            case Atom("pyglyn_query_ended") if self.failure is not None:
                return Stop(exit_reason(self.failure))
            case (_, (Atom("process_events"), *_) as body):
                self._take(body)
            case (bytes(), body):
                self._take(body)
            case _:
                self._take(message)
        self.awake.set()
        return None

    def _take(self, body: Term) -> None:
        try:
            message = wire.read_process_events(body, self.read)
        except Exception as error:  # DecodeErrors, or what a decoder of the application's raises
            unreadable = _Unreadable(body, _in_words(error), len(etf.encode(body)))
            if self.room.take(unreadable.size, time.monotonic()):
                self.waiting.append(unreadable)
            else:  # it is paused, or the store is away, or more comes than it can look at
                self._drop(unreadable)
            return
        received = _Received(message.aggregate_id, message.events, body)
        self.waiting.extend(self.ordering.take(received, time.monotonic()))

    async def _run(self) -> None:
        try:
            with contextlib.suppress(StoreUnavailable, TransactionRolledBack):
                await self.parking.load()  # before the first message comes, which would have to wait for it
                await self._drive_what_is_readable_now()
            while True:
                await self._go_on()
        except BaseException as error:
            if not self.me.alive or is_called_off():
                raise
            if not isinstance(error, Exit):
                logger.error("query %s ends", self.spec.name, exc_info=error)
            self.failure = error
            self.me.send(self.me.pid, Atom("pyglyn_query_ended"))

    async def _go_on(self) -> None:
        """Carry out orders, then process one message or wait for something to do."""
        while self.orders:
            request, caller = self.orders.popleft()
            is_pause = request is Atom("pause")  # carried out when it came: it may have been resumed since
            self.reply(caller, wire.OK if is_pause else await super().handle_call(request, caller))
        now = time.monotonic()
        self.waiting.extend(self.ordering.overdue(now))
        ready = bool(self.waiting) and not (self.paused or self.stopped)
        if ready and now >= self.again_at:
            await self._process(self.waiting[0])
            await asyncio.sleep(0)  # let the process answer, however many are waiting
            return
        times = [self.ordering.next_deadline(), self.again_at if ready else None]
        until = min((time for time in times if time is not None), default=None)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None if until is None else max(0.0, until - now)):
                await self.awake.wait()
        self.awake.clear()

    def _begin(self) -> None:
        """Begin with the first message that waits."""
        self.attempts = 0
        self.unavailable = 0  # attempts in a row to reach the store of what is parked
        self.again_at = 0.0
        self.doomed: tuple[Term, str, int] | None = None  # what is to be parked in place of it

    async def _process(self, message: _Received | _Unreadable) -> None:
        """Process the first message: afterwards it is done, parked, or waits to be tried again."""
        try:
            if self.doomed is None and not await self._is_done(message):
                return
            if self.doomed is not None:
                await self.parking.keep(*self.doomed)
        except (StoreUnavailable, TransactionRolledBack) as error:
            self.unavailable += 1
            self.error = str(error)
            self._complain(self.complaints, str(error))
            self._again_after(_UNAVAILABLE.pause(self.unavailable))
            return
        self.waiting.popleft()
        if isinstance(message, _Unreadable):
            self.room.give_back(message.size)
        self._begin()

    async def _is_done(self, message: _Received | _Unreadable) -> bool:
        """Call the function, or say in ``doomed`` why not; False when it is to be tried again, or stops."""
        name = self.spec.name
        if isinstance(message, _Unreadable):
            if self.attempts == 0 and not await self._may_keep(message):
                self._drop(message)
                return True
            self._complain(self.garbage, "parks messages that do not decode", message.error)
            self.doomed, self.error = (message.body, message.error, 0), message.error
            return True
        if self.attempts == 0 and await self.parking.blocks(message.body):
            logger.error("query %s parks events of %s behind earlier ones", name, message.aggregate_id)
            self.doomed = (message.body, _EARLIER, 0)
            return True
        try:
            await self._call(message)
        except Exception as error:
            return self._has_failed(message, error)
        self.error = ""
        self.complaints.over()
        return True

    async def _may_keep(self, message: _Unreadable) -> bool:
        """Whether there is room for a message that does not decode; otherwise it is counted and dropped."""
        if self.allowance is None:
            self.allowance = Allowance()
            for event in await self.parking.all():
                self.allowance.count(len(event.raw))
        return self.allowance.take(message.size, time.monotonic())

    def _drop(self, message: _Unreadable) -> None:
        self.dropped += 1
        self._complain(self.garbage, "drops messages that do not decode: there are too many of them")
        self.error = f"{self.dropped} messages that do not decode were dropped; {message.error}"

    def _complain(self, complaints: Complaints, text: str, example: str = "") -> None:
        """Log one line a burst."""
        complaints.log(logger, text, start=f"query {self.spec.name}: ", end=f": {example}" if example else "")

    def _has_failed(self, message: _Received, error: Exception) -> bool:
        name = self.spec.name
        self.attempts += 1
        self.error = _in_words(error)
        pause = self.spec.policy.pause(self.attempts)
        if pause is not None:
            self._complain(self.complaints, f"failed and tries again: {self.error}")
            self._again_after(pause)
            return False
        if self.spec.policy.then == STOP:
            self.stopped = True
            logger.error("query %s stands still: %s", name, self.error)
            return False
        logger.error("query %s parks events of %s", name, message.aggregate_id, exc_info=error)
        self.doomed = (message.body, self.error, self.attempts)
        return True

    def _again_after(self, pause: float | None) -> None:
        self.again_at = time.monotonic() + (pause or 0.0)

    async def _call(self, message: ProcessEvents[Any]) -> None:
        with cancellable():
            await call_query(self.spec.function, message, in_thread=self.in_hub)
        self.processed += 1
        self.last_at = time.monotonic()

    # --- what the command line asks -------------------------------------------------------------------

    async def handle_call(self, request: Term, caller: Caller) -> Any:
        """Answer tools; what has to come in between two messages is done by the task that processes them.

        Parked messages are driven there, and ``pause`` is answered there: no effect follows its answer.
        """
        match request:
            case (Atom("drive"), *_) | Atom("pause"):
                if request is Atom("pause"):
                    await self.pause(True)  # nothing begins before it is answered
                self.orders.append((request, caller))
                self.awake.set()
                return NoReply
        return await super().handle_call(request, caller)

    async def status(self) -> QueryStatus:
        """Tell where it stands; the lag is how many messages wait."""
        parked, error = 0, self.error
        try:
            async with asyncio.timeout(_STATUS_S):
                parked = await self.parking.count()
        except (EventSourcingError, TimeoutError) as unknown:
            error = error or f"what is parked cannot be counted: {unknown}"
        return QueryStatus(
            name=self.spec.name,
            kind=self.kind,
            state=self._state(),
            lag=len(self.waiting),
            processed=self.processed,
            parked=parked,
            error=error,
        )

    def _state(self) -> str:
        if self.stopped:
            return "stopped"
        if self.paused:
            return "paused"
        if self.attempts or self.unavailable:
            return "stuck"
        return "live" if time.monotonic() - self.last_at < 10.0 else "idle"

    async def parked(self) -> list[ParkedEvent]:
        """List the parked messages."""
        return await self.parking.all()

    async def drive(self, id: int | None) -> int:
        """Process parked messages again, in order; returns how many were processed.

        After a failure the rest of its aggregate stays parked.

        Raises:
            EventStoreError: before the one asked for, another of its aggregate is parked.
        """
        remaining: list[ParkedEvent] = []
        driven = 0
        first: dict[Aggregate, int | None] = {}  # what has to be driven before others of its aggregate
        for event in await self.parking.all():
            aggregate = aggregate_of(event)
            if id == event.id and aggregate in first:
                raise EventStoreError(f"event {first[aggregate]} has to be driven first: it came before {id}")
            if id not in (None, event.id) or aggregate in first or not await self._drive(event):
                remaining.append(event)
                if aggregate is not None:
                    first.setdefault(aggregate, event.id)
            else:
                driven += 1
        self.parking.release(remaining)
        return driven

    async def _drive_what_is_readable_now(self) -> None:
        """Process what an earlier version of the application could not read, with what waits behind it."""
        found = await self.parking.all()
        whose = {event.id: aggregate_of(event) or ("", f"event {event.id}") for event in found}
        first: dict[Aggregate, bool] = {}  # whether the first of its events is readable now
        for event in found:
            aggregate = whose[event.id]
            if aggregate not in first:
                first[aggregate] = event.attempts == 0 and self._is_readable(event)
            if first[aggregate]:
                first[aggregate] = await self._drive(event)
        if any(first.values()):
            logger.info("query %s has processed parked events that it can read now", self.spec.name)
        self.parking.release(await self.parking.all())

    def _is_readable(self, event: ParkedEvent) -> bool:
        try:
            wire.read_process_events(parked_from_term(event), self.read)
        except Exception:
            return False
        return True

    async def _drive(self, event: ParkedEvent) -> bool:
        try:
            await self._call(wire.read_process_events(parked_from_term(event), self.read))
        except Exception as error:
            await self.parking.failed_again(event, _in_words(error))
            return False
        await self.parking.forget(event)
        return True

    async def pause(self, paused: bool) -> None:
        """Stand still until it is resumed or ends (what comes waits in memory), or go on."""
        self.paused = paused
        self.stopped = self.stopped and paused
        self.attempts, self.again_at = 0, 0.0
        self.awake.set()

    # --- the end ------------------------------------------------------------------------------------

    async def _close(self) -> None:
        if hasattr(self, "running"):
            self.running.cancel()
            await asyncio.gather(self.running, return_exceptions=True)
        await self.parking.close()


def _in_words(error: Exception) -> str:
    return str(error) if isinstance(error, DecodeErrors) else f"{type(error).__name__}: {error}"


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
