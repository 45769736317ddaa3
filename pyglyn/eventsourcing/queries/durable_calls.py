"""Calling the function of a durable query: in a transaction, in a thread, or for effects elsewhere.

Layer: eventsourcing, queries.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import Any, Protocol, TypeAlias

from pyglyn.errors import EventStoreError, StoreUnavailable, TransactionRolledBack
from pyglyn.eventsourcing.domain.causation import caused_by
from pyglyn.eventsourcing.domain.envelope import EventEnvelope, expanded
from pyglyn.eventsourcing.domain.evolution import Several
from pyglyn.eventsourcing.queries.live import is_async
from pyglyn.eventsourcing.stores.later import PutOffFailed
from pyglyn.eventsourcing.stores.store import Cursor, RecordedEvent, Transaction
from pyglyn.patience import is_called_off

Project: TypeAlias = Callable[..., "Awaitable[None] | None"]

PASSING = (StoreUnavailable, TransactionRolledBack, PutOffFailed)
"""What goes wrong with the database is no failure of the function."""


class EffectFailed(Exception):
    """The function raised at the event of that index, or ``on_reset`` did."""

    def __init__(self, index: int | None, error: BaseException) -> None:
        super().__init__(text_of(error))
        self.index = index


def text_of(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:2000]


class failing_at:
    """Make what the application raises an `EffectFailed`, ``sys.exit()`` too, but for ``passing``.

    No generator, which takes three times as long: it is entered for each event.
    """

    __slots__ = ("_index", "_passing")

    def __init__(self, index: int | None, *passing: type[EventStoreError]) -> None:
        self._index, self._passing = index, passing

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if error is None or isinstance(error, self._passing):
            return
        if isinstance(error, asyncio.CancelledError):
            if is_called_off():
                return
            # something the application waited for was cancelled
        elif not isinstance(error, Exception | SystemExit):
            return
        raise EffectFailed(self._index, error) from error


class Projects(Protocol):
    """What has the effects of events."""

    async def project(
        self, tx: Transaction[Any, Any], events: Sequence[RecordedEvent[Any]], is_over: Callable[[], bool]
    ) -> int:
        """Have them in a transaction, until ``is_over()`` after one of them; return of how many."""

    async def call(self, cause: EventEnvelope[Any], *args: Any) -> None:
        """Have that of one event, elsewhere."""


class Calls:
    """Calls one function, event by event.

    Attributes:
        function: the application's.
        is_async: whether it is.
        in_hub: plain functions are called in a thread, since the loop is everybody's.
        batches: the function takes the envelopes of a transaction at once.
    """

    def __init__(self, function: Project, *, in_hub: bool, batches: bool = False) -> None:
        self.function = function
        self.is_async = is_async(function)
        self.in_hub = in_hub
        self.batches = batches

    async def project(
        self, tx: Transaction[Any, Any], events: Sequence[RecordedEvent[Any]], is_over: Callable[[], bool]
    ) -> int:
        """Call the function for each event, until ``is_over()`` after one of them; return for how many."""
        if self.batches:
            await self._project_batch(tx, events)
            return len(events)
        if not self.is_async:
            return await tx.call(lambda cursor: self._project_in_thread(cursor, events, is_over))
        function = self.function
        for index, event in enumerate(events):
            with failing_at(index, *PASSING):
                for envelope in envelopes_of(event):
                    with caused_by(envelope):
                        await function(tx, envelope)  # type: ignore[misc]
                tx.check()
            if is_over():
                return index + 1
        return len(events)

    async def _project_batch(self, tx: Transaction[Any, Any], events: Sequence[RecordedEvent[Any]]) -> None:
        """Call the function once; nobody knows which event makes it raise, unless there is only one."""
        envelopes = [envelope for event in events for envelope in envelopes_of(event)]
        if not envelopes:
            return
        with failing_at(0 if len(events) == 1 else None, *PASSING):
            if self.is_async:
                result = self.function(tx, envelopes)
                if inspect.isawaitable(result):
                    await result
            else:
                await tx.call(lambda cursor: self._batch_in_thread(cursor, envelopes))
            tx.check()

    def _batch_in_thread(self, cursor: Cursor, envelopes: list[EventEnvelope[Any]]) -> None:
        try:
            self.function(cursor, envelopes)
        except StopIteration as error:
            raise RuntimeError("the function raised StopIteration") from error

    def _project_in_thread(
        self, cursor: Cursor, events: Sequence[RecordedEvent[Any]], is_over: Callable[[], bool]
    ) -> int:
        for index, event in enumerate(events):
            try:
                for envelope in envelopes_of(event):
                    with caused_by(envelope):
                        self.function(cursor, envelope)
                cursor.check()
            except PASSING:
                raise
            except (Exception, SystemExit) as error:
                raise EffectFailed(index, error) from error
            if is_over():
                return index + 1
        return len(events)

    async def call(self, cause: EventEnvelope[Any], *args: Any) -> None:
        function = self.function
        with caused_by(cause):
            if self.is_async or not self.in_hub:
                result = function(*args)
            else:
                result = await asyncio.to_thread(_called, function, args)
            if inspect.isawaitable(result):
                await result


def _called(function: Project, args: tuple[Any, ...]) -> Any:
    """Call a function in a thread; a future cannot hold a StopIteration."""
    try:
        return function(*args)
    except StopIteration as error:
        raise RuntimeError("the function raised StopIteration") from error


def envelopes_of(event: RecordedEvent[Any]) -> list[EventEnvelope[Any]]:
    """Return the envelope of a recorded event, or those of the events that it has become."""
    envelope = event.envelope
    assert envelope is not None
    return [envelope] if type(envelope.payload) is not Several else expanded([envelope])
