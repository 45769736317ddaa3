"""Durable queries: they catch up from the store by position, then live, and miss nothing.

::

    @es.durable_query("stock_levels", store=events, into="sqlite:stock.db")
    async def project(tx: es.Transaction, envelope: es.EventEnvelope) -> None:
        await tx.execute("UPDATE stock SET level = ? WHERE product = ?", (envelope.payload.new_stock, ...))

    tree.add(project.worker())

With ``into``, the function gets a transaction of that database and one envelope; what it writes and the
checkpoint are committed together, so each event has its effect once, whatever dies when. A plain function
gets a `Cursor` with a blocking ``execute`` instead. Without ``into`` it is called as a live query is,
``(aggregate_id, [envelope])``, and the checkpoint follows its return: a crash in between repeats a batch.

What happens next is decided by :class:`pyglyn.eventsourcing.projection.Projection`; here it is done. Layer:
eventsourcing, on a node.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeAlias, cast

import attrs

from pyglyn import etf
from pyglyn.errors import (
    CheckpointConflict,
    EventStoreError,
    GleamError,
    GroupError,
    ProcessError,
    StoreUnavailable,
    TransactionRolledBack,
)
from pyglyn.etf import Atom, Pid, Term
from pyglyn.eventsourcing import wire
from pyglyn.eventsourcing.causation import caused_by
from pyglyn.eventsourcing.envelope import EventEnvelope
from pyglyn.eventsourcing.failure import FailurePolicy
from pyglyn.eventsourcing.glyn import GlynConfig, GlynStore
from pyglyn.eventsourcing.live import is_async
from pyglyn.eventsourcing.memory import MemoryStore
from pyglyn.eventsourcing.opening import open_store
from pyglyn.eventsourcing.projection import (
    IDLE,
    LIVE,
    Apply,
    BatchLimits,
    Drive,
    Effect,
    Load,
    Projection,
    Read,
    Reset,
    Sleep,
    Wait,
)
from pyglyn.eventsourcing.query_process import QueryServer, QueryStatus
from pyglyn.eventsourcing.scope import ensure_scope
from pyglyn.eventsourcing.sources import RemoteEvents, Source
from pyglyn.eventsourcing.store import EventStore, ParkedEvent, RecordedEvent, Transaction
from pyglyn.groups import syn
from pyglyn.node import Node, Stop
from pyglyn.supervision import ChildSpec, worker

logger = logging.getLogger("pyglyn.eventsourcing")

Project: TypeAlias = Callable[..., "Awaitable[None] | None"]
OnReset: TypeAlias = Callable[[Transaction[Any, Any], "str | None"], Awaitable[None]]


class Cursor:
    """A transaction for plain functions: ``execute`` waits for the database and returns the rows."""

    def __init__(self, tx: Transaction[Any, Any], loop: asyncio.AbstractEventLoop) -> None:
        self._tx = tx
        self._loop = loop

    def execute(self, statement: str, parameters: Sequence[object] = ()) -> list[tuple[object, ...]]:
        """Run a statement; see `Transaction.execute`."""
        future = asyncio.run_coroutine_threadsafe(self._execute(statement, parameters), self._loop)
        return future.result()

    async def _execute(self, statement: str, parameters: Sequence[object]) -> list[tuple[object, ...]]:
        return await self._tx.execute(statement, parameters)


class DurableQuery:
    """A durable query: what `durable_query` makes of a function.

    Attributes:
        name: the query's; its checkpoint and its process have it too.
        function: what is called for each event.
        store: where the events are: a store, or a `GlynConfig` whose services are asked.
        into: the database of the effects; None when they are elsewhere.
        policy, limits: see there.
        on_reset: called with a transaction, and an aggregate id or None for all, to undo the effects before
            they are made again.
        group: the Glyn group whose broadcasts wake it up.
        events: the type of the events, where ``store`` is a `GlynConfig`.
    """

    def __init__(
        self,
        name: str,
        function: Project,
        *,
        store: EventStore[Any, Any] | GlynConfig,
        into: EventStore[Any, Any] | str | None = None,
        policy: FailurePolicy | None = None,
        limits: BatchLimits | None = None,
        on_reset: OnReset | None = None,
        group: GlynConfig | None = None,
        events: object = None,
    ) -> None:
        self.name = name
        self.function = function
        self.group = group
        if isinstance(store, GlynConfig):
            self.group = group or store
        elif isinstance(store, GlynStore):
            self.group, store = group or store.config, store.underlying
        self.store = store
        self.into = open_store(into) if isinstance(into, str) else into
        if self.into is not None and not self.into.has_sql:
            raise EventStoreError(f"query {name!r}: its effects need a database with SQL")
        self.policy = policy or FailurePolicy()
        self.limits = limits or BatchLimits()
        self.on_reset = on_reset
        self.events = events
        self._global_name: str | None = None
        functools.update_wrapper(cast(Any, self), function, updated=())

    def __call__(self, *args: Any) -> Awaitable[None] | None:
        """Call the function, as in a test of it."""
        return self.function(*args)

    def __reduce_ex__(self, protocol: Any) -> str | tuple[Any, ...]:
        return self._global_name or super().__reduce_ex__(protocol)

    def worker(self, **options: Any) -> ChildSpec:
        """Specify it for a supervision tree: an OS process of its own."""
        return worker(DurableServer, self, name=self.name, **options)

    async def start(self, node: Node) -> Pid:
        """Start it in the node's own OS process, without supervision."""
        pid = await node.start(DurableServer, self, name=self.name)
        assert pid is not None
        return pid


def durable_query(name: str, **options: Any) -> Callable[[Project], DurableQuery]:
    """Make a durable query of the decorated function; the options are those of `DurableQuery`."""

    def decorate(function: Project) -> DurableQuery:
        query = DurableQuery(name, function, **options)
        query._global_name = getattr(function, "__qualname__", None)
        return query

    return decorate


class _EffectFailed(Exception):
    """The function raised at the event of that index."""

    def __init__(self, index: int, error: Exception) -> None:
        super().__init__(f"{type(error).__name__}: {error}"[:2000])
        self.index = index


class DurableServer(QueryServer):
    """The process of a durable query: carries out what its `Projection` wants, and takes orders."""

    async def init(self, query: DurableQuery) -> None:
        """Join the group, and begin."""
        await self.register(query.name)
        self.query = query
        self.projection = Projection(query.name, limits=query.limits, policy=query.policy)
        self.awake = asyncio.Event()
        self.own: dict[int, EventStore[Any, Any]] = {}
        self.me.trap_exit = True
        self.me.on_end.append(self._ended)
        self.source: Source = await self._source()
        self.database: EventStore[Any, Any] = self._database()
        self.running = asyncio.get_running_loop().create_task(self._run())
        self.running.add_done_callback(self._run_ended)

    async def _source(self) -> Source:
        query = self.query
        if query.group is not None:
            await ensure_scope(self.me, query.group.pubsub_scope)
            with contextlib.suppress(GroupError, ProcessError):
                group = query.group.pubsub_group.encode()
                await syn.join(self.me, query.group.pubsub_scope, group, self.me.pid)
        if isinstance(query.store, GlynConfig):
            config = query.store
            return RemoteEvents(self.me, config.pubsub_scope, config.pubsub_group, query.events)
        return self._own(query.store)

    def _database(self) -> EventStore[Any, Any]:
        query = self.query
        if query.into is not None:
            return self._own(query.into)
        if isinstance(query.store, EventStore) and query.store.has_side_tables:
            return self._own(query.store)
        return MemoryStore()

    def _own(self, store: EventStore[Any, Any]) -> EventStore[Any, Any]:
        """Open the store anew where it has a URL: connections of our own, which end with us."""
        if store.reopen is None:
            return store
        if id(store) not in self.own:
            self.own[id(store)] = store.reopen()
        return self.own[id(store)]

    # --- the loop -----------------------------------------------------------------------------------

    async def _run(self) -> None:
        effect = self.projection.start()
        while True:
            effect = await self._carry_out(effect)

    async def _carry_out(self, effect: Effect) -> Effect:
        projection, now = self.projection, time.monotonic
        try:
            match effect:
                case Load():
                    return projection.loaded(now(), **await self._load())
                case Read(after, limit, aggregate_id):
                    events = await self.source.read(after, limit=limit, aggregate_id=aggregate_id)
                    return projection.read(now(), events)
                case Wait(after, timeout):
                    await self._wait(after, timeout)
                    return projection.woken(now())
                case Sleep(timeout):
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(timeout):
                            await self.awake.wait()
                    self.awake.clear()
                    return projection.woken(now())
                case Apply():
                    await self._apply(effect)
                    return projection.applied(now())
                case Drive(parked):
                    return projection.driven(now(), remaining=await self._drive(parked))
                case Reset(aggregate_id):
                    await self._reset(aggregate_id)
                    return projection.reset_done(now())
        except CheckpointConflict:
            return projection.conflict(now())
        except (StoreUnavailable, TransactionRolledBack) as error:
            logger.warning("query %s: %s", self.query.name, error)
            return projection.unavailable(now(), str(error))
        except _EffectFailed as failure:
            logger.warning("query %s failed at an event: %s", self.query.name, failure)
            return projection.failed(now(), failure.index, str(failure))

    async def _load(self) -> dict[str, Any]:
        checkpoints = await self.database.checkpoints()
        found = next((each for each in checkpoints if each.query == self.query.name), None)
        blocked = {event.aggregate_id for event in await self.database.parked(self.query.name)}
        position, paused = (found.position, found.paused) if found is not None else (0, False)
        return {"position": position, "paused": paused, "blocked": blocked}

    async def _wait(self, after: int, timeout: float | None) -> None:
        """Wait for the store, a broadcast, an order, or the time."""
        loop = asyncio.get_running_loop()
        store = loop.create_task(self.source.wait(after, timeout=timeout))
        store.add_done_callback(lambda task: task.cancelled() or task.exception())  # seen, if not raised
        order = loop.create_task(self.awake.wait())
        try:
            done, _ = await asyncio.wait((store, order), return_when=asyncio.FIRST_COMPLETED)
        finally:
            order.cancel()
            # Python 3.11's wait_for can lose a cancellation that meets its result: ask again.
            while not store.done():
                store.cancel()
                await asyncio.wait((store,), timeout=0.1)
        self.awake.clear()
        if store in done:
            store.result()

    async def _apply(self, effect: Apply) -> None:
        name = self.query.name
        if self.query.into is None:
            await self._call_each(effect.events)
        park = [await self._with_raw(event) for event in effect.park]
        async with self.database.transaction() as tx:
            if self.query.into is not None:
                await self._project(tx, effect.events)
            for event in park:
                logger.error("query %s parks event %d of %s", name, event.sequence, event.aggregate_id)
                await tx.park(attrs.evolve(event, parked_at=time.time()))
            await tx.save_checkpoint(name, effect.position, expected=effect.expected)

    async def _with_raw(self, event: ParkedEvent) -> ParkedEvent:
        """Add the event as a term where the source has no text of it: a memory store, another node."""
        if event.raw or event.position is None:
            return event
        found = await self.source.read(event.position - 1, limit=1, aggregate_id=event.aggregate_id)
        if not found or found[0].envelope is None:
            return event
        try:
            raw = etf.encode(wire.envelope_term(found[0].envelope))
        except GleamError:
            return attrs.evolve(event, raw=repr(found[0].envelope).encode(), format="text")
        return attrs.evolve(event, raw=raw, format="etf")

    async def _call_each(self, events: Sequence[RecordedEvent[Any]]) -> None:
        for index, event in enumerate(events):
            envelope = _envelope(event)
            try:
                await self._call(envelope, event.aggregate_id, [envelope])
            except Exception as error:
                raise _EffectFailed(index, error) from error

    async def _project(self, tx: Transaction[Any, Any], events: Sequence[RecordedEvent[Any]]) -> None:
        if not is_async(self.query.function):
            await asyncio.to_thread(self._project_in_thread, tx, events, asyncio.get_running_loop())
            return
        for index, event in enumerate(events):
            envelope = _envelope(event)
            try:
                await self._call(envelope, tx, envelope)
            except (StoreUnavailable, TransactionRolledBack):
                raise
            except Exception as error:
                raise _EffectFailed(index, error) from error

    def _project_in_thread(
        self,
        tx: Transaction[Any, Any],
        events: Sequence[RecordedEvent[Any]],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        cursor = Cursor(tx, loop)
        for index, event in enumerate(events):
            envelope = _envelope(event)
            try:
                with caused_by(envelope):
                    self.query.function(cursor, envelope)
            except (StoreUnavailable, TransactionRolledBack):
                raise
            except Exception as error:
                raise _EffectFailed(index, error) from error

    async def _call(self, cause: EventEnvelope[Any], *args: Any) -> None:
        function = self.query.function
        with caused_by(cause):
            if is_async(function) or not self.in_hub:
                result = function(*args)
            else:
                result = await asyncio.to_thread(function, *args)
            if inspect.isawaitable(result):
                await result

    async def _drive(self, parked: ParkedEvent) -> int:
        """Process a parked event as the store has it now; returns how many of its aggregate remain."""
        assert parked.id is not None
        after = (parked.position or 1) - 1
        events = await self.source.read(after, limit=1, aggregate_id=parked.aggregate_id)
        if events and events[0].error is not None:
            raise _EffectFailed(0, events[0].error)
        if self.query.into is None:
            await self._call_each(events)
        async with self.database.transaction() as tx:
            if self.query.into is not None:
                await self._project(tx, events)
            await tx.unpark(parked.id)
            return len(await tx.parked(self.query.name, aggregate_id=parked.aggregate_id))

    async def _reset(self, aggregate_id: str | None) -> None:
        async with self.database.transaction() as tx:
            if self.query.on_reset is not None:
                await self.query.on_reset(tx, aggregate_id)
            for event in await tx.parked(self.query.name, aggregate_id=aggregate_id):
                assert event.id is not None
                await tx.unpark(event.id)
            if aggregate_id is None:
                await tx.save_checkpoint(self.query.name, 0)

    # --- messages and orders -------------------------------------------------------------------------

    async def handle_info(self, message: Term) -> Any:
        """Whatever the group says is a reason to look into the store."""
        match message:
            case (Atom("EXIT"), Pid(), _):
                return None
            case (Atom("pyglyn_query_ended"), reason):
                return Stop(reason)
        self.awake.set()
        return None

    async def status(self) -> QueryStatus:
        """Tell where it stands; the lag is what the store has beyond the checkpoint."""
        projection = self.projection
        state = projection.state(time.monotonic())
        lag, error = 0, projection.error
        if state not in (LIVE, IDLE):
            try:
                lag = max(0, await self.source.last_position() - projection.position)
            except EventStoreError as unavailable:
                error = error or str(unavailable)
        try:
            parked = len(await self.database.parked(self.query.name))
        except EventStoreError:
            parked = 0
        return QueryStatus(
            name=self.query.name,
            kind="durable",
            state=state,
            position=projection.position,
            lag=lag,
            processed=projection.processed,
            parked=parked,
            error=error,
        )

    async def parked(self) -> list[ParkedEvent]:
        """List what is parked."""
        return await self.database.parked(self.query.name)

    async def drive(self, id: int | None) -> int:
        """Have parked events processed again; returns how many are tried."""
        events = [event for event in await self.parked() if id in (None, event.id)]
        self.projection.drive(events)
        self.awake.set()
        return len(events)

    async def pause(self, paused: bool) -> None:
        """Stand still, also after a restart; or go on."""
        await self.database.set_paused(self.query.name, paused)
        if paused:
            self.projection.pause()
        else:
            self.projection.resume()
        self.awake.set()

    async def reset(self) -> None:
        """Undo everything and begin again at the first event."""
        self.projection.reset()
        self.awake.set()

    async def replay(self, aggregate_id: str) -> int:
        """Undo the effects of one aggregate and make them again."""
        self.projection.reset(aggregate_id)
        self.awake.set()
        return 0

    # --- the end ------------------------------------------------------------------------------------

    def _run_ended(self, task: asyncio.Task[None]) -> None:
        if task.cancelled() or not self.me.alive:
            return
        error = task.exception()
        logger.error("query %s ends", self.query.name, exc_info=error)
        reason = f"{type(error).__name__}: {error}"[:500].encode()
        self.me.send(self.me.pid, (Atom("pyglyn_query_ended"), (Atom("error"), reason)))

    async def terminate(self, reason: Term) -> None:
        """Stop the loop (what is not committed is rolled back) and close the stores."""
        self.me.on_end.remove(self._ended)
        await self._close()

    async def _close(self) -> None:
        if hasattr(self, "running"):
            self.running.cancel()
            await asyncio.gather(self.running, return_exceptions=True)
        for store in self.own.values():
            await store.close()

    def _ended(self, _reason: Term) -> None:
        closing = asyncio.get_running_loop().create_task(self._close())
        _closing.add(closing)
        closing.add_done_callback(_closing.discard)


_closing: set[asyncio.Task[None]] = set()


def _envelope(event: RecordedEvent[Any]) -> EventEnvelope[Any]:
    assert event.envelope is not None
    return event.envelope
