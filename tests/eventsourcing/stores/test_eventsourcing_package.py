"""The tests of persistence that the ``eventsourcing`` package ships, against our stores.

An adapter makes recorders of them: an originator is an aggregate, its versions (from 0, in some cases from 1) are
sequences (from 1), a notification id is a position, what was tracked is a checkpoint; a DCB recorder is a log of facts.
Left out are the package's measurements, which check nothing.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import threading
from collections.abc import Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from eventsourcing.dcb.api import (
    DCBAppendCondition,
    DCBEvent,
    DCBQuery,
    DCBReadResponse,
    DCBRecorder,
    DCBSequencedEvent,
    DCBSubscription,
)
from eventsourcing.dcb.tests import DCBRecorderTestCase
from eventsourcing.persistence import (
    ApplicationRecorder,
    IntegrityError,
    Notification,
    ProcessRecorder,
    ProgrammingError,
    StoredEvent,
    Subscription,
    Tracking,
)
from eventsourcing.tests.persistence import (
    AggregateRecorderTestCase,
    ApplicationRecorderTestCase,
    NonInterleavingNotificationIDsBaseCase,
    ProcessRecorderTestCase,
    TrackingRecorderTestCase,
)

from pyglyn import eventsourcing as es
from pyglyn.eventsourcing.stores.store import SideTables


class Loop:
    """An event loop in a thread of its own, for recorders that are called from many threads."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


# --- recorders of aggregates --------------------------------------------------------------------------------


def _written(event: StoredEvent) -> list[str]:
    return [event.topic, base64.b64encode(event.state).decode()]


def _originator(id: str) -> UUID | str:
    try:
        return UUID(id)
    except ValueError:
        return id


def _in_a_row(numbered: tuple[int, StoredEvent]) -> tuple[str, int]:
    index, event = numbered
    return str(event.originator_id), event.originator_version - index


class StoreRecorder(ApplicationRecorder):
    """One of our stores as an application recorder."""

    first = 0
    """The version of an originator's first event."""

    def __init__(self, loop: Loop, store: es.EventStore[Any, Any]) -> None:
        self._loop = loop
        self._store = store

    def insert_events(self, stored_events: Sequence[StoredEvent], **options: Any) -> Sequence[int]:
        return list(self._loop.run(self._insert(stored_events, **options)))

    async def _insert(
        self, stored_events: Sequence[StoredEvent], tracking: Tracking | None = None
    ) -> list[int]:
        try:
            async with self._store.transaction() as tx:
                for (id, _), numbered in itertools.groupby(enumerate(stored_events), _in_a_row):
                    events = [event for _, event in numbered]
                    expected = events[0].originator_version - self.first
                    await tx.append(id, [_written(event) for event in events], expected=expected)
                if tracking is not None:
                    await self._track(tx, tracking)
        except es.VersionConflict as error:
            raise IntegrityError(error) from error
        found: list[int] = []
        for (id, _), numbered in itertools.groupby(enumerate(stored_events), _in_a_row):
            events = [event for _, event in numbered]
            first = await self._store.position_of(id, events[0].originator_version - self.first + 1)
            assert first is not None
            read = await self._store.read(first - 1, aggregate_id=id, limit=len(events))
            found += [event.position for event in read]
        return found

    @staticmethod
    async def _track(tables: SideTables, tracking: Tracking) -> None:
        known = await tables.load_checkpoint(tracking.application_name)
        if known.version and known.position >= tracking.notification_id:
            raise IntegrityError(tracking)
        await tables.update_checkpoint(known.next(position=tracking.notification_id))

    def select_events(
        self,
        originator_id: UUID | str,
        *,
        gt: int | None = None,
        lte: int | None = None,
        desc: bool = False,
        limit: int | None = None,
    ) -> Sequence[StoredEvent]:
        start = 0 if gt is None else gt + 1
        found = self._loop.run(self._store.load_events(str(originator_id), start))
        events = [_stored(originator_id, each.sequence, each.payload) for each in found]
        events = [event for event in events if lte is None or event.originator_version <= lte]
        return (events[::-1] if desc else events)[:limit]

    def select_notifications(
        self,
        start: int | None,
        limit: int,
        stop: int | None = None,
        topics: Sequence[str] = (),
        *,
        inclusive_of_start: bool = True,
    ) -> Sequence[Notification]:
        after = 0 if start is None else start - inclusive_of_start
        most = limit if stop is None and not topics else 10**6
        found = self._loop.run(self._store.read(after, limit=most))
        made = [
            Notification(
                id=each.position,
                **_stored(_originator(each.aggregate_id), each.sequence, each.envelope.payload).__dict__,
            )
            for each in found
        ]
        return [n for n in made if (stop is None or n.id <= stop) and (not topics or n.topic in topics)][
            :limit
        ]

    def max_notification_id(self) -> int | None:
        return self._loop.run(self._store.last_position()) or None

    def subscribe(self, gt: int | None = None, topics: Sequence[str] = ()) -> Subscription[Any]:
        return StoreSubscription(self, gt, topics)

    def wait_behind(self, after: int) -> None:
        self._loop.run(self._store.wait(after, timeout=0.5))


def _stored(originator_id: UUID | str, sequence: int, payload: list[str]) -> StoredEvent:
    topic, state = payload
    return StoredEvent(
        originator_id=originator_id,
        originator_version=sequence - 1,
        topic=topic,
        state=base64.b64decode(state),
    )


class AggregateOnlyRecorder(StoreRecorder):
    """As an aggregate recorder, which has no notification ids."""

    def insert_events(self, stored_events: Sequence[StoredEvent], **_: Any) -> Any:
        super().insert_events(stored_events)


class TrackingStoreRecorder(StoreRecorder, ProcessRecorder):
    """As a recorder of what was processed, in the transaction of what came of it."""

    first = 1

    def insert_tracking(self, tracking: Tracking) -> None:
        self._loop.run(self._insert((), tracking))

    def max_tracking_id(self, application_name: str) -> int | None:
        known = self._loop.run(self._store.load_checkpoint(application_name))
        return known.position if known.version else None


class StoreSubscription(Subscription[StoreRecorder]):
    def __next__(self) -> Notification:
        while not self._has_been_stopped:
            after = self._last_notification_id or 0
            found = self._recorder.select_notifications(
                after, 1, topics=self._topics, inclusive_of_start=False
            )
            if found:
                self._last_notification_id = found[0].id
                return found[0]
            self._recorder.wait_behind(after)
        raise StopIteration


# --- recorders of decisions ---------------------------------------------------------------------------------


class Response(DCBReadResponse):
    def __init__(self, events: list[DCBSequencedEvent], head: int | None) -> None:
        self._events = iter(events)
        self._head = head

    @property
    def head(self) -> int | None:
        return self._head

    def __next__(self) -> DCBSequencedEvent:
        return next(self._events)


def _query(query: DCBQuery | None) -> es.Query:
    items = query.items if query is not None else []
    return es.Query.of(es.Criterion(item.types, item.tags) for item in items)


class FactRecorder(DCBRecorder):
    """A log of facts as a DCB recorder."""

    def __init__(self, loop: Loop, log: es.FactLog) -> None:
        self._loop = loop
        self._log = log

    def read(
        self, query: DCBQuery | None = None, *, after: int | None = None, limit: int | None = None
    ) -> DCBReadResponse:
        last = self._loop.run(self._log.last_position())
        found = self._loop.run(self._log.read(_query(query), after=after or 0, limit=limit))
        events = [
            DCBSequencedEvent(DCBEvent(fact.type, fact.data, list(fact.tags)), fact.position)
            for fact in found
        ]
        head = last if limit is None else found[-1].position if found else 0
        return Response(events, head or None)

    def append(self, events: Sequence[DCBEvent], condition: DCBAppendCondition | None = None) -> int:
        if not events:
            raise ProgrammingError("nothing to append")
        new = [es.NewFact(type=event.type, data=event.data, tags=event.tags) for event in events]
        query = None if condition is None else _query(condition.fail_if_events_match)
        after = (condition.after if condition is not None else None) or 0
        try:
            written = self._loop.run(self._log.append(new, condition=query, after=after))
        except es.AppendConditionFailed as error:
            raise IntegrityError(condition) from error
        return int(written[-1].position)

    def subscribe(self, query: DCBQuery | None = None, *, after: int | None = None) -> DCBSubscription[Any]:
        return FactSubscription(self, query, after)

    def wait(self, after: int) -> None:
        self._loop.run(self._log.wait(after, timeout=0.5))


class FactSubscription(DCBSubscription[FactRecorder]):
    def __next__(self) -> DCBSequencedEvent:
        while not self._has_been_stopped:
            for event in self._recorder.read(self._query, after=self._last_position, limit=1):
                self._last_position = event.position
                return event
            self._recorder.wait(self._last_position)
        raise StopIteration


# --- the package's tests ------------------------------------------------------------------------------------


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def recorders(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[None]:
    """Give a test case of the package the address of an empty database, and a loop."""
    if request.param == "memory":
        url = "memory:"
    elif request.param == "sqlite":
        url = f"sqlite:{tmp_path}/recorder.db"
    else:
        url = request.getfixturevalue("postgres")
    request.cls.loop, request.cls.url, request.cls.opened = Loop(), url, []
    yield
    for each in request.cls.opened:
        request.cls.loop.run(each.close())
    request.cls.loop.close()


class Recorders:
    """What the cases below have in common. pytest does not collect them: `TestRecorders` runs them."""

    __test__ = False
    made: Any = StoreRecorder
    loop: Loop
    url: str
    opened: list[Any]
    INITIAL_VERSION = 0

    def create_recorder(self) -> Any:
        store: Any = es.open_store(self.url, aggregate_type="recorder")
        self.opened.append(store)
        return self.made(self.loop, store)


class _Aggregates(Recorders, AggregateRecorderTestCase):
    """One aggregate's events."""

    made = AggregateOnlyRecorder


class _Applications(Recorders, ApplicationRecorderTestCase[Any]):
    """All events in one order."""


class _Tracking(Recorders, TrackingRecorderTestCase):
    """How far was processed."""

    made = TrackingStoreRecorder


class _Processes(Recorders, ProcessRecorderTestCase):
    """The same, and the events that came of it."""

    made = TrackingStoreRecorder


class _NonInterleaving(Recorders, NonInterleavingNotificationIDsBaseCase):
    """The ids of one insertion are not mixed with those of another."""

    insert_num = 100


CASES = [
    (_Aggregates, "test_insert_and_select"),
    (_Applications, "test_insert_select"),
    (_Applications, "test_concurrent_no_conflicts"),
    (_Tracking, "test_insert_tracking"),
    (_Tracking, "test_wait"),
    (_Processes, "test_insert_select"),
    (_Processes, "test_has_tracking_id"),
    (_Processes, "test_raises_when_lower_inserted_later"),
    (_NonInterleaving, "test"),
]


@pytest.mark.usefixtures("recorders")
class TestRecorders:
    loop: Loop
    url: str
    opened: list[Any]

    @pytest.mark.parametrize(("case", "name"), CASES, ids=lambda each: getattr(each, "__name__", each))
    def test_of_the_package(self, case: Any, name: str) -> None:
        made = case(name)
        made.loop, made.url, made.opened = self.loop, self.url, self.opened
        getattr(made, name)()

    @pytest.mark.parametrize("name", ["_test_append_read", "_test_append_subscribe"])
    def test_of_decisions_of_the_package(self, name: str) -> None:
        log = es.open_log(self.url)
        self.opened.append(log)
        getattr(DCBRecorderTestCase(name), name)(FactRecorder(self.loop, log))
