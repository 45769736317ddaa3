"""Delivering the outbox of a store: in order per topic, at least once, with ids that let receivers see it.

A message leaves the outbox once its publisher has confirmed it. What fails is tried again by the policy; what
comes after it in its topic waits, so that the order stays. Then it is parked (and can be driven, which puts
it at the end of its topic), or the relay stands still.

Layer: eventsourcing, on top.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any, Protocol

import attrs

from pyglyn.eventsourcing.queries.failure import STOP, FailurePolicy
from pyglyn.eventsourcing.stores.store import EventStore, OutboxEntry, OutboxMessage, ParkedEvent
from pyglyn.patience import cancellable, is_called_off

logger = logging.getLogger("pyglyn.eventsourcing")


@attrs.frozen(kw_only=True)
class Message:
    """A message on its way.

    Attributes:
        id: the same at each attempt, unlike that of any other message of this relay.
        topic, body: as they were written.
        created_at: when that was, in seconds since 1970.
        attempts: how often it has failed.
    """

    id: str
    topic: str
    body: str
    created_at: float
    attempts: int


class Publisher(Protocol):
    """Where messages go. It is pickled before it is started, in the OS process of its relay."""

    async def start(self) -> None:
        """Connect. Called again after a failure."""

    async def close(self) -> None:
        """Give up what `start` has opened, if there is anything."""

    def publish(self, messages: Sequence[Message]) -> AsyncGenerator[Message, None]:
        """Deliver messages of one topic in order; yield each one once it is confirmed.

        Raises:
            Exception: the one after those that were yielded is not delivered, or nobody knows. It is as if it
                had been raised where the publisher is cancelled, because it has confirmed nothing for long.
        """


PATIENCE_S = 60.0
CLOSING_S = 5.0


class Stopped(Exception):
    """The policy says that the relay is to stand still."""


class Delivery:
    """The outbox of one store, some topics of it, to one publisher.

    Args:
        name: the relay's; it is in the ids of messages and names what is parked.
        store: whose outbox.
        topics: which messages.
        publisher: where to.
        policy: what happens with what fails.
        batch: messages that are given to the publisher at a time.
        patience_s: for how long the publisher may confirm nothing; then what it does has failed.
    """

    def __init__(
        self,
        name: str,
        store: EventStore[Any, Any],
        topics: Sequence[str],
        publisher: Publisher,
        policy: FailurePolicy,
        batch: int,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._name = name
        self._store = store
        self._topics = topics
        self._publisher = publisher
        self._policy = policy
        self._batch = batch
        self._patience_s = patience_s
        self._started = False
        self._again_at: dict[str, float] = {}  # topics that wait after a failure
        self.errors: dict[str, str] = {}  # the last failure of each topic, until something is delivered
        self.delivered = 0

    async def deliver(self, now: float) -> bool:
        """Deliver a batch of each topic that is not waiting; whether there may be more to do at once.

        Raises:
            Stopped: a message cannot be delivered, and the policy says that this is the end.
            EventStoreError: the store cannot be used.
        """
        more = False
        for topic in self._topics:
            if now >= self._again_at.get(topic, now):
                # The relay's lease keeps others off, so the entries need none of their own.
                entries = await self._store.take_outbox(topic, limit=self._batch, lease_s=0.0)
                if entries:
                    more = await self._deliver(topic, entries, now) or more
        return more

    def pause(self, now: float) -> float | None:
        """Return for how many seconds at most nothing is to be done; None where nothing waits."""
        return min((max(0.0, at - now) for at in self._again_at.values()), default=None)

    async def _deliver(self, topic: str, entries: list[OutboxEntry], now: float) -> bool:
        messages = [self._message(entry) for entry in entries]
        delivered = 0
        error: BaseException | None = None
        loop = asyncio.get_running_loop()
        try:
            with cancellable():
                async with asyncio.timeout(self._patience_s) as limit:
                    if not self._started:
                        await self._publisher.start()
                        self._started = True
                    async with aclosing(self._publisher.publish(messages)) as confirming:
                        async for confirmed in confirming:
                            if delivered == len(messages) or confirmed != messages[delivered]:
                                raise RuntimeError("the publisher has confirmed what is not its turn")
                            delivered += 1
                            limit.reschedule(loop.time() + self._patience_s)
        except TimeoutError as failure:
            error = failure
            if limit.expired():
                error = TimeoutError(f"nothing was confirmed for {self._patience_s:g} s")
        except asyncio.CancelledError as failure:
            if is_called_off():
                raise
            error = failure  # one of the publisher's own: a connection that was closed, for example
        except (Exception, SystemExit) as failure:
            error = failure
        finally:
            if delivered:
                done = [entry.id for entry in entries[:delivered]]
                await asyncio.shield(self._store.finish_outbox(done))
                self.delivered += delivered
        if delivered == len(entries):
            if error is not None:  # what came after the last confirmation is no message's failure
                await self.close()
            self._again_at.pop(topic, None)
            self.errors.pop(topic, None)
            return True
        if error is None:
            error = RuntimeError("the publisher has confirmed less than it was given")
        await self._failed(topic, entries[delivered], error, now)
        return False

    def _message(self, entry: OutboxEntry) -> Message:
        return Message(
            id=f"{self._name}/{entry.id}",
            topic=entry.topic,
            body=entry.body,
            created_at=entry.created_at,
            attempts=entry.attempts,
        )

    async def _failed(self, topic: str, entry: OutboxEntry, error: BaseException, now: float) -> None:
        text = self.errors[topic] = _text(error)
        await self.close()
        await self._store.fail_outbox([entry.id], text)
        pause = self._policy.pause(entry.attempts + 1)
        if pause is not None:
            self._again_at[topic] = now + pause
            return
        if self._policy.then == STOP:
            raise Stopped(text)
        self._again_at.pop(topic, None)
        async with self._store.transaction(isolation="read committed") as tx:
            await tx.park(self._parked(entry, text))
            await tx.finish_outbox([entry.id])

    def _parked(self, entry: OutboxEntry, error: str) -> ParkedEvent:
        return ParkedEvent(
            query=self._name,
            aggregate_id=entry.topic,
            sequence=entry.id,
            raw=entry.body.encode(),
            error=error,
            format="text",
            attempts=entry.attempts + 1,
        )

    def try_again(self) -> None:
        """Wait no longer for what has failed."""
        self._again_at.clear()

    async def drive(self, parked: ParkedEvent) -> bool:
        """Put a parked message at the end of its topic; False if somebody else has."""
        assert parked.id is not None
        async with self._store.transaction(isolation="read committed") as tx:
            there = await tx.unpark(parked.id)
            if there:
                await tx.put_outbox([OutboxMessage(parked.aggregate_id, parked.raw.decode())])
        return there

    async def close(self) -> None:
        """Close the publisher, whatever it says; the next delivery opens it again."""
        if not self._started:
            return
        self._started = False
        try:
            with cancellable():
                async with asyncio.timeout(CLOSING_S):
                    await self._publisher.close()
        except asyncio.CancelledError:
            if is_called_off():
                raise
        except (Exception, SystemExit) as error:
            logger.info("relay %s: its publisher does not close: %s", self._name, _text(error))


def _text(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}"[:2000]
    except Exception:  # an application's error whose text raises
        return type(error).__name__
