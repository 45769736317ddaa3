"""The process of a durable query: carries out what its `Projection` wants, and takes orders.

Layer: eventsourcing, queries.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import heapq
import itertools
import logging
import re
import time
from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

import attrs

from pyglyn import etf
from pyglyn.complaints import Complaints
from pyglyn.errors import (
    CheckpointConflict,
    EventSourcingError,
    EventStoreError,
    GleamError,
    GroupError,
    ProcessError,
    StoreUnavailable,
    TransactionRolledBack,
)
from pyglyn.etf import Atom, Pid, Term
from pyglyn.eventsourcing.cluster.broadcast import GlynConfig
from pyglyn.eventsourcing.cluster.closing import close_after
from pyglyn.eventsourcing.cluster.scope import ensure_scope
from pyglyn.eventsourcing.cluster.sources import RemoteEvents, Source
from pyglyn.eventsourcing.domain import wire
from pyglyn.eventsourcing.queries.ahead import ReadAhead
from pyglyn.eventsourcing.queries.asking import Answers
from pyglyn.eventsourcing.queries.durable_calls import (
    PASSING,
    Calls,
    EffectFailed,
    Projects,
    envelopes_of,
    failing_at,
    text_of,
)
from pyglyn.eventsourcing.queries.durable_spec import DurableSpec
from pyglyn.eventsourcing.queries.durable_state import (
    CATCHING_UP,
    IDLE,
    LIVE,
    PAUSED,
    STOPPED,
    STUCK,
    UNAVAILABLE,
    Apply,
    Drive,
    Effect,
    Load,
    Other,
    Projection,
    Read,
    Reset,
    Sleep,
    Wait,
    mark,
)
from pyglyn.eventsourcing.queries.failure import FailurePolicy
from pyglyn.eventsourcing.queries.query_process import QueryServer, QueryStatus
from pyglyn.eventsourcing.queries.turns import NotOurTurn, Turn
from pyglyn.eventsourcing.stores.facts.store import FactStore
from pyglyn.eventsourcing.stores.later import PutOffFailed
from pyglyn.eventsourcing.stores.rows import storable_text
from pyglyn.eventsourcing.stores.store import (
    Checkpoint,
    EventStore,
    ParkedEvent,
    RecordedEvent,
    SideTables,
    Transaction,
)
from pyglyn.groups import syn
from pyglyn.node import Caller, NoReply, Stop
from pyglyn.node.signals import DownSignal
from pyglyn.patience import call_off

logger = logging.getLogger("pyglyn.eventsourcing")

Outcome: TypeAlias = Callable[[float], Effect]
"""Reports to the projection what came of an effect, at a time."""

_STATUS_S = 2.0
"""How long the status waits to learn how far the store is."""

STAND_BACK_S = 0.12
"""For how long a query lets others write to a file with one writer: they look every 0.1 s."""

LAST_EFFECT_S = 3.0

WAITING = 10_000
"""Callers that may wait for positions at once; who has given up counts until the position is reached."""


_HELD_LONG = 4
"""After the time of so many full transactions others get their turn, which costs a tenth of the rate."""

_WORTH_PUTTING_OFF = 3
"""After so many batches in which a statement that was put off has failed, none is any more."""


class HeldUp(Exception):
    """There is something else to do before the next effect."""


class DurableServer(QueryServer):
    """The process of a durable query: carries out what its `Projection` wants, and takes orders."""

    marks_signals = True

    async def init(
        self,
        query: DurableSpec,
        partition: int = 0,
        *,
        last_effect_s: float = LAST_EFFECT_S,
        unavailable: FailurePolicy = UNAVAILABLE,
        waiting: int = WAITING,
    ) -> None:
        """Join the group, and begin.

        Args:
            query: what is declared of it.
            partition: which one of its partitions, from 0.
            last_effect_s: how long it waits, when it is to end, for the effect that is under way.
            unavailable: how often to try again what a store could not be reached for.
            waiting: how many callers may wait for positions.
        """
        self.waiting = waiting
        self.name = query.names()[partition]
        await self.register(self.name)
        self.query = query
        self.partition = partition
        self.last_effect_s = last_effect_s
        self.projection = self.make_projection(unavailable)
        self.calls: Projects = self.make_calls()
        self.awake = asyncio.Event()
        self.own: dict[int, EventStore[Any, Any]] = {}
        self.facts: FactStore[Any] | None = None
        self.turn: Turn | None = None
        self.under_way: Apply | None = None  # effects outside of any transaction
        self.had_effect: set[int] = set()  # positions behind the checkpoint with effects outside
        self.checked_in = 0  # the tenure of the lease in which the checkpoint was looked at
        self.prepared = False
        self.failed_with: Term = None
        self.waiting_for: list[tuple[int, int, Caller]] = []  # callers by the position that they wait for
        self.numbers = itertools.count()
        self.fault: str | None = None  # why the checkpoint is none of this store; None before that is known
        self.looked_at_parked = False
        self.complaints = Complaints()
        self.stopping = False
        self.put_off_failures = 0
        self.held_s = 0.0  # for how long others could not write, since they last could
        self.me.trap_exit = True
        self.call_off_closing = close_after(self.me, self._close)
        self.events, self.selected = query.source(await self._source(), partition)
        self.ahead = ReadAhead(self.selected or self.events)
        self.source: Source = self.ahead
        self.database: EventStore[Any, Any] = self._own(query.checkpoints)
        self.answers = Answers(self.name, self.database, query.sql)
        await self.make_ready()
        self.running = asyncio.get_running_loop().create_task(self._run())
        self.running.add_done_callback(self._run_ended)

    def make_projection(self, unavailable: FailurePolicy) -> Projection:
        """Make the state machine."""
        query = self.query
        return Projection(self.name, limits=query.limits, policy=query.policy, unavailable=unavailable)

    def make_calls(self) -> Projects:
        """Make what has the effects of events."""
        return Calls(self.query.function, in_hub=self.in_hub, batches=self.query.batches)

    async def make_ready(self) -> None:
        """Prepare what needs the database's object, before anything is read."""
        if self.query.into is None:
            self.turn = Turn(self.database, self.name, self.me)

    def others_went_on(self) -> None:
        """The checkpoint is not as we left it: what was concluded from the database may be wrong."""
        self.had_effect.clear()

    async def other(self, effect: Other) -> Outcome:
        """Carry out an effect that only this kind of query has."""
        raise NotImplementedError

    async def _source(self) -> Source | FactStore[Any]:
        query = self.query
        if query.group is not None:
            await ensure_scope(self.me, query.group.pubsub_scope)
            with contextlib.suppress(GroupError, ProcessError):
                group = query.group.pubsub_group.encode()
                await syn.join(self.me, query.group.pubsub_scope, group, self.me.pid)
        if isinstance(query.store, GlynConfig):
            config = query.store
            return RemoteEvents(self.me, config.pubsub_scope, config.pubsub_group, query.events)
        if isinstance(query.store, FactStore):
            self.facts = query.store.reopened()
            return self.facts
        return self._own(query.store)

    def _own(self, store: EventStore[Any, Any]) -> EventStore[Any, Any]:
        """Open a database anew where it has a URL: connections of our own, which end with us."""
        if store.reopen is None or not store.has_sql:
            return store
        if id(store) not in self.own:
            self.own[id(store)] = store.reopen()
        return self.own[id(store)]

    # --- the loop -----------------------------------------------------------------------------------

    async def _run(self) -> None:
        effect = self.projection.start()
        while not self.stopping:
            effect = await self._carry_out(effect)

    async def _carry_out(self, effect: Effect) -> Effect:
        projection = self.projection
        outcome: Outcome
        try:
            outcome = await self._outcome(effect)
        except CheckpointConflict:
            outcome = projection.conflict
        except HeldUp:
            outcome = projection.conflict
        except NotOurTurn:
            await self._watch_other()
            outcome = projection.standby
        except (StoreUnavailable, TransactionRolledBack) as error:
            self._complain(str(error))
            outcome = partial(projection.unavailable, error=str(error))
        except EffectFailed as failure:
            outcome = await self._failure(effect, failure.index, str(failure), failure.__cause__)
        except Exception as error:
            outcome = await self._failure(effect, None, text_of(error), error)
        following = outcome(time.monotonic())
        await self._answer_waiting()
        if not projection.is_failing and self.complaints.over():
            logger.info("query %s goes on", self.name)
        return following

    async def _watch_other(self) -> None:
        assert self.turn is not None
        with contextlib.suppress(EventStoreError):
            await self.turn.watch_other()

    async def _see_other_end(self, message: Term) -> bool:
        """Go on at once if it is told that the instance which had the effects has ended."""
        ended = False
        with contextlib.suppress(EventStoreError):
            ended = self.turn is not None and await self.turn.other_ended(message)
        if ended:
            self.projection.look()
        return ended

    def _complain(self, text: str, error: BaseException | None = None) -> None:
        self.complaints.log(logger, text, start=f"query {self.name}: ", error=error)

    async def _outcome(self, effect: Effect) -> Outcome:
        projection = self.projection
        match effect:
            case Load():
                return await self._load()
            case Read(after, limit, aggregate_id):
                return partial(projection.read, events=await self._read(after, limit, aggregate_id))
            case Wait(after, timeout):
                await self._wait(after, timeout)
                return projection.woken
            case Sleep(timeout):
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(timeout):
                        await self.awake.wait()
                self.awake.clear()
                return projection.woken
            case Apply():
                await self._apply(effect)
                await self._let_others_write()
                return projection.applied
            case Drive():
                return partial(projection.driven, remaining=await self._drive(effect))
            case Reset():
                await self._reset(effect)
                return projection.reset_done
            case Other():
                return await self.other(effect)

    async def _failure(
        self, effect: Effect, index: int | None, error: str, cause: BaseException | None
    ) -> Outcome:
        """Tell a failure of the application from that of another part, and from a race with another instance.

        An event that the other instance has just processed may well fail here.
        """
        self._complain(f"failed: {error}", cause)
        before = getattr(effect, "before", None)
        if before is None:
            return partial(self.projection.unavailable, error=error)
        try:
            stored = await self.database.load_checkpoint(self.name)
        except EventStoreError as unavailable:
            return partial(self.projection.unavailable, error=str(unavailable))
        if stored.version != before.version:
            return self.projection.conflict
        return partial(self.projection.failed, index=index, error=error)

    async def _load(self) -> Outcome:
        name, known = self.name, self.projection.checkpoint
        if self.projection.is_loading:
            await self.ahead.forget()
        await self._prepare()
        if self.selected is not None:
            await self.selected.look()
        checkpoint = await self.database.load_checkpoint(name)
        if checkpoint.version == 0:
            checkpoint = await self._begin(checkpoint)
        blocked = await self.database.parked_aggregates(name)
        if checkpoint.version != known.version:
            self.others_went_on()
        self.fault = fault = await self._fault(checkpoint) or await self._other_partitions()
        if not self.looked_at_parked:
            self.projection.drive(await self._readable_now())
            self.looked_at_parked = True
        return partial(self.projection.loaded, checkpoint=checkpoint, blocked=blocked, fault=fault)

    async def _readable_now(self) -> list[ParkedEvent]:
        """List what an earlier version of the application could not read, with what waits behind it."""
        readable: dict[str, bool] = {}
        found: list[ParkedEvent] = []
        for event in await self.database.parked(self.name):
            if event.aggregate_id not in readable:
                readable[event.aggregate_id] = event.attempts == 0 and await self._is_readable(event)
            if readable[event.aggregate_id]:
                found.append(event)
        return found

    async def _is_readable(self, parked: ParkedEvent) -> bool:
        event = await self._event_at(parked.position)
        return event is not None and event.error is None

    async def _begin(self, none_yet: Checkpoint) -> Checkpoint:
        """Write the first checkpoint of a query that does not begin at the first event."""
        begin = self.query.begin
        if begin == 0:
            return none_yet
        if isinstance(begin, datetime.datetime):
            position = await self._position_before(begin.timestamp())
        else:
            position = await self.events.last_position() if begin == "now" else begin
        found = await self._event_at(position)
        first = none_yet.next(position=position, mark=mark(found) if found is not None else "")
        await self.database.update_checkpoint(first)
        return first

    async def _position_before(self, moment: float) -> int:
        """Return a position behind which all events recorded since a moment are, by halving."""
        low, high = 0, await self.events.last_position()
        while low < high:
            middle = (low + high) // 2
            found = await self._read(middle, 1, source=self.events)
            if found and (found[0].recorded_at is None or found[0].recorded_at < moment):
                low = found[0].position
            else:
                high = middle
        return low

    async def _prepare(self) -> None:
        """Have the application make its tables, once in each run of the query."""
        prepare = self.query.prepare
        if prepare is None or self.prepared:
            return
        async with self.database.transaction(isolation="read committed") as tx:
            await prepare(tx)
        self.prepared = True

    async def _other_partitions(self) -> str:
        """Say that the query had another number of partitions: nobody knows what of ours is done."""
        own = self.query.names()
        pattern = re.compile(re.escape(self.query.name) + r"(_\d+_of_\d+)?")
        others = [each.query for each in await self.database.checkpoints() if pattern.fullmatch(each.query)]
        others = [name for name in others if name not in own]
        if not others:
            return ""
        return (
            f"the query has had other partitions, {', '.join(others[:3])}: with another number it takes "
            "another name (and start=), or their rows in pyglyn_checkpoint have to be deleted"
        )

    async def _fault(self, checkpoint: Checkpoint) -> str:
        """Say why the checkpoint is none of this store; empty if it is one. Reading on would skip events."""
        position = checkpoint.position
        if position <= 0:
            return ""
        found = await self._read(position - 1, 1, source=self.events)
        if found and found[0].position == position:
            if checkpoint.mark in ("", mark(found[0])):
                return ""
            where = f"another event than the one processed at position {position}"
        elif found or await self.events.last_position() >= position:
            return ""  # that event is of another type, or was deleted
        else:
            where = f"no events up to position {position}, where the query is"
        return f"the store has {where}: was it restored, or is it another one? A replay of all begins anew"

    async def _read(
        self, after: int, limit: int, aggregate_id: str | None = None, *, source: Source | None = None
    ) -> list[RecordedEvent[Any]]:
        """Read the events that are ours. Whatever goes wrong with that is no event's fault."""
        try:
            return await (source or self.source).read(after, limit=limit, aggregate_id=aggregate_id)
        except StoreUnavailable:
            raise
        except Exception as error:
            raise StoreUnavailable(f"the events cannot be read: {text_of(error)}") from error

    async def _event_at(self, position: int | None) -> RecordedEvent[Any] | None:
        found = [] if position is None else await self._read(position - 1, 1, source=self.events)
        event = found[0] if found and found[0].position == position else None
        return event if event is None or self.selected is None else self.selected.kept(event) or event

    async def _wait(self, after: int, timeout: float) -> None:
        """Wait for the store, a broadcast, an order, or the time."""
        loop, began = asyncio.get_running_loop(), time.monotonic()
        store = loop.create_task(self.source.wait(after, timeout=timeout))
        store.add_done_callback(lambda task: task.cancelled() or task.exception())  # seen, if not raised
        order = loop.create_task(self.awake.wait())
        try:
            done, _ = await asyncio.wait((store, order), return_when=asyncio.FIRST_COMPLETED)
        finally:
            order.cancel()
            await call_off(store)
        self.awake.clear()
        self.held_s = max(0.0, self.held_s - (time.monotonic() - began))
        if store in done:
            store.result()

    async def _apply(self, effect: Apply) -> None:
        name = self.name
        if self.query.into is None and effect.events:
            self.under_way = effect
            effect = await self._call_each(effect)
            self.under_way = None
        park = [await self._with_raw(event) for event in effect.park]
        try:
            effect = await self._commit(effect, park, put_off=self.put_off_failures < _WORTH_PUTTING_OFF)
        except PutOffFailed as error:
            self.put_off_failures += 1
            logger.debug("query %s has its effects again, one by one: %s", name, error)
            effect = await self._commit(effect, park, put_off=False)
        self.had_effect.difference_update(event.position for event in effect.events)

    async def _commit(self, effect: Apply, park: list[ParkedEvent], *, put_off: bool) -> Apply:
        """Carry out an Apply in one transaction; return it as it was done."""
        name = self.name
        async with self.database.transaction(isolation="read committed") as tx:
            began = time.monotonic()
            if self.query.into is not None:
                await self._check_current(tx, effect.before)
                if effect.events:
                    over = began + self.query.limits.seconds
                    done = await self._project(tx, effect.events, over, put_off=put_off)
                    effect = self.projection.cut(done)
            for event in park:
                logger.error("query %s parks event %d of %s", name, event.sequence, event.aggregate_id)
                await tx.park(attrs.evolve(event, parked_at=time.time()))
            await self._save(tx, effect.before, effect.after)
        self.held_s += time.monotonic() - began
        return effect

    async def _project(
        self, tx: Transaction[Any, Any], events: tuple[RecordedEvent[Any], ...], over: float, *, put_off: bool
    ) -> int:
        """Have effects in a transaction until a time; return of how many events.

        Raises:
            PutOffFailed: a statement that was put off has failed.
        """
        if put_off:
            tx.put_off()
        try:
            done = await self.calls.project(tx, events, lambda: time.monotonic() >= over)
        except EffectFailed as failure:
            with contextlib.suppress(PutOffFailed):
                tx.check()
                raise
            raise PutOffFailed(str(failure)) from failure  # the function caught it, or made it another one
        await tx.run_put_off()
        return done

    async def _let_others_write(self) -> None:
        """After some time of transactions in a row, stand back for long enough that others get their turn.

        Who waits for a SQLite file looks again every 100 ms, and would hardly ever meet the moment between
        two transactions.
        """
        if not self.database.one_writer or self.held_s < _HELD_LONG * self.query.limits.seconds:
            return
        self.held_s = 0.0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STAND_BACK_S):
                await self.awake.wait()

    async def _save(self, tx: Transaction[Any, Any], before: Checkpoint, after: Checkpoint) -> None:
        """Replace the checkpoint, in the version that was known.

        Effects elsewhere are not undone any more: they count, whether the query was paused meanwhile or not.
        """
        if self.query.into is None:
            stored = await tx.load_checkpoint(self.name)
            if (stored.position, stored.replay) == (before.position, before.replay):
                after = stored.next(position=after.position, mark=after.mark, replay=after.replay)
        await tx.update_checkpoint(after)

    async def _check_current(self, tables: SideTables, before: Checkpoint) -> None:
        """Check that the checkpoint is as we know it, before the application is called in vain."""
        stored = await tables.load_checkpoint(self.name)
        if stored.version != before.version:
            raise CheckpointConflict(self.name, before.version, stored.version, what="version")

    async def _with_raw(self, event: ParkedEvent) -> ParkedEvent:
        """Add the event as a term where the source has no text of it: a memory store, another node."""
        if event.raw:
            return event
        found = await self._event_at(event.position)
        if found is None or found.envelope is None:
            return event
        try:
            raw = etf.encode(wire.envelope_term(found.envelope))
        except GleamError:
            return attrs.evolve(event, raw=repr(found.envelope).encode(), format="text")
        return attrs.evolve(event, raw=raw, format="etf")

    async def _call_each(self, effect: Apply) -> Apply:
        """Have effects outside of any transaction, and cut the batch where it is time for the checkpoint.

        Raises:
            NotOurTurn: another instance of the query has the effects.
            CheckpointConflict: it has had them.
            HeldUp: there is something else to do.
        """
        assert self.turn is not None
        over = time.monotonic() + self.query.limits.seconds
        async with self.turn:
            self.checked_in = 0
            for index, event in enumerate(effect.events):
                if index and (self._is_held_up() or time.monotonic() >= over):
                    return self.projection.cut(index)
                try:
                    await self._call_one(effect.before, event, index)
                except NotOurTurn:
                    if index:
                        return self.projection.cut(index)
                    raise
        return effect

    def _is_held_up(self) -> bool:
        return self.stopping or self.projection.is_to_stand_still

    async def _call_one(self, before: Checkpoint, event: RecordedEvent[Any], index: int) -> None:
        """Have the effect of one event, if it is ours to have, and was not had already."""
        assert self.turn is not None
        if event.position in self.had_effect:
            return
        await self.turn.take()
        if index == 0 or self.checked_in != self.turn.tenure:
            self.checked_in = self.turn.tenure  # before the look: it may be over after it
            await self._check_current(self.database, before)
            if self.stopping:
                raise HeldUp
        envelopes = envelopes_of(event)
        if envelopes:
            with failing_at(index):
                await self.calls.call(envelopes[0], event.aggregate_id, envelopes)
        self.had_effect.add(event.position)

    async def _drive(self, effect: Drive) -> int:
        """Process a parked event as the store has it now; returns how many of its aggregate remain."""
        parked, name = effect.parked, self.name
        assert parked.id is not None
        event = await self._event_at(parked.position)
        if event is None:
            raise EffectFailed(0, EventStoreError("the store no longer has this event"))
        if event.error is not None:
            raise EffectFailed(0, event.error)
        if self.query.into is None and await self._is_parked(parked):
            assert self.turn is not None
            async with self.turn:
                await self._call_one(effect.before, event, 0)
        async with self.database.transaction(isolation="read committed") as tx:
            # Another instance, or the same order given twice, may have been first.
            if await tx.unpark(parked.id) and self.query.into is not None:
                await self.calls.project(tx, [event], lambda: True)
            await self._save(tx, effect.before, effect.after)
            remaining = await tx.count_parked(name, aggregate_id=parked.aggregate_id)
        self.had_effect.discard(event.position)
        return remaining

    async def _is_parked(self, event: ParkedEvent) -> bool:
        """Tell whether an event is parked still; they are driven in order, so usually it is the first one."""
        for limit in (1, None):
            found = await self.database.parked(self.name, aggregate_id=event.aggregate_id, limit=limit)
            if any(each.id == event.id for each in found):
                return True
        return False

    async def _reset(self, effect: Reset) -> None:
        on_reset, id = self.query.on_reset, effect.aggregate_id
        async with self.database.transaction(isolation="read committed") as tx:
            if on_reset is not None:
                with failing_at(None, *PASSING):
                    await on_reset(tx, id)
                    tx.check()
            for event in await tx.parked(self.name, aggregate_id=id):
                assert event.id is not None
                await tx.unpark(event.id)
            await tx.update_checkpoint(effect.after)
        self.had_effect.clear()

    # --- messages and orders -------------------------------------------------------------------------

    async def handle_info(self, message: Term) -> Any:
        """Whatever the group says is a reason to look into the store."""
        match message:
            case (Atom("EXIT"), Pid(), _):
                return None
            case Atom("pyglyn_query_ended") if self.failed_with is not None:
                return Stop(self.failed_with)
            case DownSignal():
                await self._see_other_end(message)
        self.awake.set()
        return None

    async def status(self) -> QueryStatus:
        """Tell where it stands; the lag is what is behind the checkpoint, and what is left of a replay."""
        projection = self.projection
        state = projection.state(time.monotonic())
        position, lag, parked, error = projection.position, 0, 0, projection.error
        try:
            stored = await self.database.load_checkpoint(self.name)
            position = stored.position
            parked = await self.database.count_parked(self.name)
            if stored.version != projection.checkpoint.version:
                projection.look()
                self.awake.set()
            if stored.paused != (state == PAUSED) and state not in (STUCK, STOPPED):  # at another instance
                state = PAUSED if stored.paused else CATCHING_UP
            async with asyncio.timeout(_STATUS_S):
                lag = await self._lag(stored)
            if lag and state == IDLE:
                state = LIVE
        except (EventStoreError, TimeoutError) as unavailable:
            error = error or str(unavailable) or "the store of the events does not answer"
        return QueryStatus(
            name=self.name,
            kind="durable",
            state=state,
            position=position,
            lag=lag,
            processed=projection.processed,
            parked=parked,
            error=error,
        )

    async def _lag(self, stored: Checkpoint) -> int:
        replay = stored.replay
        lag = 0 if replay is None else replay.until - replay.position
        if await self.source.read(stored.position, limit=1):
            lag += max(0, await self.source.last_position() - stored.position)
        return lag

    async def handle_call(self, request: Term, caller: Caller) -> Any:
        """Answer tools, those who wait for a position, and those who ask for rows."""
        match request:
            case (Atom("wait_for"), int() as position):
                if len(self.waiting_for) >= self.waiting:
                    busy = StoreUnavailable(f"{self.waiting} callers wait for query {self.name!r} already")
                    return (wire.ERROR, wire.error_term(busy))
                heapq.heappush(self.waiting_for, (position, next(self.numbers), caller))
                await self._answer_waiting()
                return NoReply
            case (Atom("select"), bytes() as statement, list() as parameters):
                try:
                    self.answers.take(statement, parameters, partial(self.reply, caller))
                except (EventSourcingError, GleamError) as error:
                    return (wire.ERROR, wire.error_term(error))
                return NoReply
        return await super().handle_call(request, caller)

    async def _answer_waiting(self) -> None:
        """Answer those who wait for what is done by now; where that cannot be told they go on waiting."""
        with contextlib.suppress(EventStoreError):
            while self.waiting_for:
                first = self.waiting_for[0]
                if not await self._is_done(first[0]):
                    return
                if self.waiting_for and self.waiting_for[0] is first:  # nobody has answered meanwhile
                    self.reply(heapq.heappop(self.waiting_for)[2], wire.OK)

    async def _is_done(self, position: int) -> bool:
        """Whether no event up to a position is left to be done; between ours there may be others' events."""
        stored = await self.database.load_checkpoint(self.name)
        if stored.replay is not None or self.projection.is_to_begin_anew or self.fault != "":
            return False
        if position <= stored.position:
            return True
        found = await self._read(stored.position, 1)
        return not found or found[0].position > position

    async def parked(self) -> list[ParkedEvent]:
        """List what is parked."""
        return await self.database.parked(self.name)

    async def drive(self, id: int | None) -> int:
        """Have parked events processed again; returns how many are tried."""
        events = [event for event in await self.parked() if id in (None, event.id)]
        self.projection.drive(events)
        self.awake.set()
        return len(events)

    async def pause(self, paused: bool) -> None:
        """Stand still, also after a restart; or go on."""
        await self.database.set_paused(self.name, paused)
        self.projection.look()
        if paused:
            self.projection.pause()
        else:
            self.projection.resume()
        self.awake.set()

    async def reset(self) -> None:
        """Undo everything and begin again at the first event."""
        self._check_repeatable()
        self.projection.reset()
        self.awake.set()

    async def replay(self, aggregate_id: str) -> int:
        """Undo the effects of one aggregate and make them again."""
        self._check_repeatable()
        self.projection.reset(storable_text(aggregate_id, "aggregate id"))
        self.awake.set()
        return 0

    def _check_repeatable(self) -> None:
        if self.query.on_reset is None and not self.query.idempotent:
            raise EventStoreError(
                f"query {self.name!r} has no on_reset that undoes its effects, so they would be made "
                "twice; give it one, or idempotent=True if that does no harm"
            )

    # --- the end ------------------------------------------------------------------------------------

    def _run_ended(self, task: asyncio.Task[None]) -> None:
        if task.cancelled() or not self.me.alive or self.stopping:
            return
        error = task.exception()
        logger.error("query %s ends", self.name, exc_info=error)
        reason = f"{type(error).__name__}: {error}"[:500].encode()
        self.failed_with = (Atom("error"), reason)  # a message alone is not believed: anybody can send it
        self.me.send(self.me.pid, Atom("pyglyn_query_ended"))

    async def terminate(self, reason: Term) -> None:
        """Stop the loop (what is not committed is rolled back) and close the stores."""
        self.call_off_closing()
        self.stopping = True
        self.awake.set()
        if self.turn is not None and not self.running.done():
            await asyncio.wait((self.running,), timeout=self.last_effect_s)
            await self._stop_running()
            await self._save_what_was_done()
        await self._close()

    async def _stop_running(self) -> None:
        self.running.cancel()
        await asyncio.gather(self.running, return_exceptions=True)

    async def _save_what_was_done(self) -> None:
        """Write the checkpoint of the effects before one that had to be cancelled."""
        events = self.under_way.events if self.under_way is not None else ()
        done = sum(1 for _ in itertools.takewhile(lambda event: event.position in self.had_effect, events))
        if not done:
            return
        effect = self.projection.cut(done)
        with contextlib.suppress(EventStoreError):
            async with self.database.transaction(isolation="read committed") as tx:
                await self._save(tx, effect.before, effect.after)

    async def _close(self) -> None:
        if hasattr(self, "answers"):
            await self.answers.stop()
        if hasattr(self, "running"):
            await self._stop_running()
            await self.ahead.forget()
        if self.turn is not None:
            await self.turn.end()
        if self.facts is not None and self.facts is not self.query.store:
            await self.facts.log.close()
        for store in self.own.values():
            await store.close()
