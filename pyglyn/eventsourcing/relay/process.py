"""The process of a relay, and how it is declared.

::

    out = relay.Relay("orders_out", store=store, topics=["orders"], to=relay.NatsPublisher("nats://localhost"))
    tree.add(out.worker())

It answers tools as queries do: its status, pause and resume, what is parked, and driving it. Of several
instances, on several nodes, one delivers at a time. Layer: eventsourcing, on top.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Sequence
from typing import Any

import attrs

from pyglyn.complaints import Complaints
from pyglyn.errors import EventStoreError, NonPositiveArgument, StoreUnavailable, TransactionRolledBack
from pyglyn.etf import Pid, Term
from pyglyn.eventsourcing.cluster.closing import close_after
from pyglyn.eventsourcing.queries.durable_state import (
    CATCHING_UP,
    LIVE,
    PAUSED,
    STANDBY,
    STANDBY_S,
    STOPPED,
    STUCK,
    UNAVAILABLE,
)
from pyglyn.eventsourcing.queries.failure import FailurePolicy
from pyglyn.eventsourcing.queries.query_process import QueryServer, QueryStatus
from pyglyn.eventsourcing.queries.turns import NotOurTurn, Turn
from pyglyn.eventsourcing.relay.delivery import PATIENCE_S, Delivery, Publisher, Stopped
from pyglyn.eventsourcing.stores.memory import refuse_memory_elsewhere
from pyglyn.eventsourcing.stores.store import EventStore, ParkedEvent
from pyglyn.eventsourcing.stores.wrapped import unwrapped
from pyglyn.node import Node
from pyglyn.node.signals import DownSignal
from pyglyn.supervision import ChildSpec, worker

logger = logging.getLogger("pyglyn.eventsourcing")

LOOK_S = 0.5
"""How long a message waits at most that was put into the outbox without an event."""

LAST_S = 3.0

POLICY = FailurePolicy(retries=10, first=0.1, longest=60.0)


@attrs.frozen(kw_only=True)
class Relay:
    """A relay as declared.

    Attributes:
        name: its process's; the ids of its messages begin with it.
        store: whose outbox.
        topics: which messages; the order within each is kept.
        to: where they go.
        policy: how often what fails is tried again, and what then; its topic waits meanwhile.
        batch: messages that the publisher gets at a time.
        patience_s: for how long the publisher may confirm nothing; then what it does has failed, as with an
            error.

    Raises:
        EventStoreError: the store has no outbox, or there are no topics.
        NonPositiveArgument: ``batch`` is less than 1, or ``patience_s`` not more than 0.
    """

    name: str = attrs.field(kw_only=False)
    store: EventStore[Any, Any]
    topics: Sequence[str] = attrs.field(converter=tuple)
    to: Publisher
    policy: FailurePolicy = POLICY
    batch: int = 100
    patience_s: float = PATIENCE_S

    def __attrs_post_init__(self) -> None:
        if not self.store.has_side_tables:
            raise EventStoreError(f"relay {self.name!r}: its store has no outbox")
        if not self.topics:
            raise EventStoreError(f"relay {self.name!r}: it needs topics")
        if self.batch < 1:
            raise NonPositiveArgument(f"relay {self.name!r}: a batch has one message or more")
        if self.patience_s <= 0:
            raise NonPositiveArgument(f"relay {self.name!r}: its patience is more than 0")

    def worker(self, **options: Any) -> ChildSpec:
        """Specify it for a supervision tree: an OS process of its own.

        Raises:
            EventStoreError: the outbox is in memory, which another OS process does not see.
        """
        refuse_memory_elsewhere(f"relay {self.name!r}", self.store, options)
        return worker(RelayServer, self, name=self.name, **options)

    async def start(self, node: Node) -> Pid:
        """Start it in the node's own OS process, without supervision."""
        pid = await node.start(RelayServer, self, name=self.name)
        assert pid is not None
        return pid


class RelayServer(QueryServer):
    """The process of a relay."""

    marks_signals = True

    async def init(self, relay: Relay) -> None:
        """Begin."""
        await self.register(relay.name)
        self.relay = relay
        given = unwrapped(relay.store)
        own = given.reopen() if given.reopen is not None and given.has_sql else None
        self.own: EventStore[Any, Any] | None = own
        self.store: EventStore[Any, Any] = own or given
        self.delivery = Delivery(
            relay.name, self.store, relay.topics, relay.to, relay.policy, relay.batch, relay.patience_s
        )
        self.turn = Turn(self.store, relay.name, self.me)
        self.awake = asyncio.Event()
        self.state = CATCHING_UP
        self.error = ""
        self.complaints = Complaints()
        self.me.trap_exit = True
        self.call_off_closing = close_after(self.me, self._close)
        self.running = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        failures = 0
        while True:
            pause: float | None
            try:
                pause = await self._round()
                failures = 0
            except NotOurTurn:
                self.state, pause = STANDBY, STANDBY_S
                with contextlib.suppress(EventStoreError):
                    await self.turn.watch_other()
            except Stopped as stopped:
                self.state, self.error = STOPPED, str(stopped)
                self._complain(self.error)
                pause = None
            except Exception as error:
                failures += 1
                self.state, self.error = STUCK, f"{type(error).__name__}: {error}"[:2000]
                if not isinstance(error, StoreUnavailable | TransactionRolledBack):
                    logger.exception("relay %s", self.relay.name)
                self._complain(self.error)
                pause = UNAVAILABLE.pause(failures)
            if pause != 0.0:
                await self._sleep(pause)

    async def _round(self) -> float:
        """Deliver what there is, or wait for more; return for how long to do nothing after that."""
        if (await self.store.load_checkpoint(self.relay.name)).paused:
            self.state, self.error = PAUSED, ""
            return 5.0
        seen = await self.store.last_position()
        async with self.turn:
            more = await self.delivery.deliver(time.monotonic())
        self.error = next(iter(self.delivery.errors.values()), "")
        for topic, error in self.delivery.errors.items():
            self._complain(f"{topic}: {error}")
        if more:
            self.state = CATCHING_UP
            return 0.0
        self.state = STUCK if self.delivery.errors else LIVE
        if not self.delivery.errors:
            self.complaints.over()
        until = self.delivery.pause(time.monotonic())
        most = LOOK_S if until is None else min(LOOK_S, until)
        waiting = asyncio.ensure_future(self.store.wait(seen, timeout=most))
        order = asyncio.ensure_future(self.awake.wait())
        try:
            await asyncio.wait((waiting, order), return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
            order.cancel()
            await asyncio.gather(waiting, order, return_exceptions=True)
        self.awake.clear()
        return 0.0

    async def _sleep(self, seconds: float | None) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.awake.wait()
        self.awake.clear()

    def _complain(self, text: str) -> None:
        self.complaints.log(logger, text, start=f"relay {self.relay.name}: ")

    async def handle_info(self, message: Term) -> Any:
        """Go on at once if the instance that delivers has ended."""
        match message:
            case DownSignal():
                with contextlib.suppress(EventStoreError):
                    if await self.turn.other_ended(message):
                        self.awake.set()

    async def status(self) -> QueryStatus:
        """Tell where it stands; the lag is what is in the outbox."""
        state, error, lag, parked = self.state, self.error, 0, 0
        try:
            lag = sum([await self.store.outbox_size(topic) for topic in self.relay.topics])
            parked = await self.store.count_parked(self.relay.name)
        except EventStoreError as unavailable:
            error = error or str(unavailable)
        return QueryStatus(
            name=self.relay.name,
            kind="relay",
            state=state,
            lag=lag,
            processed=self.delivery.delivered,
            parked=parked,
            error=error,
        )

    async def parked(self) -> list[ParkedEvent]:
        """List messages that could not be delivered."""
        return await self.store.parked(self.relay.name)

    async def drive(self, id: int | None) -> int:
        """Put parked messages into the outbox again."""
        events = [event for event in await self.parked() if id in (None, event.id)]
        driven = sum([await self.delivery.drive(event) for event in events])
        self.awake.set()
        return driven

    async def pause(self, paused: bool) -> None:
        """Stand still, also after a restart; or go on, with what has failed at once."""
        await self.store.set_paused(self.relay.name, paused)
        if not paused:
            self.delivery.try_again()
        self.awake.set()

    async def terminate(self, reason: Term) -> None:
        """Stop; what was not confirmed stays in the outbox."""
        self.call_off_closing()
        await self._close()

    async def _close(self) -> None:
        if hasattr(self, "running"):
            self.running.cancel()
            await asyncio.wait((self.running,), timeout=LAST_S)
        with contextlib.suppress(Exception):
            await self.delivery.close()
        await self.turn.end()
        if self.own is not None:
            await self.own.close()
