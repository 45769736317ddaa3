"""The next batch is read while one is worked on, and what was read ahead is never what was not asked for."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pyglyn import eventsourcing as es
from pyglyn.errors import StoreUnavailable
from pyglyn.eventsourcing.queries.ahead import ReadAhead
from pyglyn.eventsourcing.stores.store import Page
from pyglyn.testing import eventually
from tests.eventsourcing.queries.totals import deposits


class Told(es.MemoryStore[Any, Any]):
    """Keeps what is read; reads that are not from the beginning wait until they may."""

    def __init__(self) -> None:
        super().__init__("BankAccount")
        self.asked: list[int] = []
        self.cancelled = 0
        self.may = asyncio.Event()
        self.may.set()
        self.fails = False

    async def read(self, after: int = 0, *, limit: int = 500, aggregate_id: str | None = None) -> Any:
        self.asked.append(after)
        try:
            if after:
                await self.may.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.fails:
            raise StoreUnavailable("no connection")
        return await super().read(after, limit=limit, aggregate_id=aggregate_id)


async def told(events: int) -> Told:
    store = Told()
    await deposits(store, "a", events)
    return store


async def positions(ahead: ReadAhead, after: int, **options: Any) -> list[int]:
    return [event.position for event in await ahead.read(after, **options)]


async def test_the_next_batch_is_read_before_it_is_asked_for_and_each_once():
    store = await told(25)
    ahead = ReadAhead(store)
    assert await positions(ahead, 0, limit=10) == list(range(1, 11))
    await eventually(lambda: store.asked == [0, 10])
    assert await positions(ahead, 10, limit=10) == list(range(11, 21))
    assert await positions(ahead, 20, limit=10) == list(range(21, 26))
    assert await positions(ahead, 25, limit=10) == []
    assert store.asked == [0, 10, 20, 20, 25]


@pytest.mark.parametrize("there", [10, 13])
async def test_an_end_that_was_seen_ahead_is_not_the_end_any_more(there):
    """Who asks for the last position and then reads must get all that lies before it."""
    store = await told(there)
    ahead = ReadAhead(store)
    assert await positions(ahead, 0, limit=10) == list(range(1, 11))
    await eventually(lambda: store.asked == [0, 10])
    await deposits(store, "b", 2)
    end = await ahead.last_position()
    assert await positions(ahead, 10, limit=10) == list(range(11, end + 1))


async def test_the_next_page_is_asked_for_before_one_is_decoded():
    """So that the database works meanwhile."""
    store, done = await told(25), []

    async def read_page(after: int = 0, *, limit: int = 500) -> Page[Any]:
        done.append(f"read {after}")
        events = await store.read(after, limit=limit)

        def decode() -> list[Any]:
            done.append(f"decode {after}")
            return events

        return Page(len(events), events[-1].position, decode)

    store.read_page = read_page  # type: ignore[method-assign]
    ahead = ReadAhead(store)
    await ahead.read(0, limit=10)
    await ahead.read(10, limit=10)
    assert done == ["read 0", "read 10", "decode 0", "read 20", "decode 10"]
    await ahead.read(20, limit=10)
    assert done[-1] == "decode 20"


async def test_a_look_at_something_reads_nothing_ahead_and_disturbs_nothing():
    store = await told(25)
    ahead = ReadAhead(store)
    assert await positions(ahead, 0, limit=10) == list(range(1, 11))
    assert await positions(ahead, 3, limit=1) == [4]
    assert await positions(ahead, 0, limit=5, aggregate_id="a") == [1, 2, 3, 4, 5]
    assert await positions(ahead, 10, limit=10) == list(range(11, 21))
    await eventually(lambda: sorted(store.asked) == [0, 0, 3, 10, 20])


async def test_who_goes_on_elsewhere_gets_what_he_asks_for_and_the_rest_is_called_off():
    store = await told(40)
    ahead = ReadAhead(store)
    store.may.clear()
    await ahead.read(0, limit=10)
    await eventually(lambda: store.asked == [0, 10])
    other = asyncio.create_task(positions(ahead, 20, limit=10))
    await eventually(lambda: store.asked == [0, 10, 20])
    assert store.cancelled == 1
    store.may.set()
    assert await other == list(range(21, 31))
    assert await positions(ahead, 30, limit=5) == list(range(31, 36))  # another size
    await ahead.forget()
    await ahead.forget()
    assert await positions(ahead, 35, limit=5) == list(range(36, 41))


async def test_a_failure_comes_to_who_asks_and_the_next_one_reads_anew():
    store = await told(30)
    ahead = ReadAhead(store)
    await ahead.read(0, limit=10)
    await ahead.forget()
    store.fails = True
    with pytest.raises(StoreUnavailable):
        await ahead.read(10, limit=10)
    store.fails = False
    assert await positions(ahead, 10, limit=10) == list(range(11, 21))
    assert await ahead.last_position() == 30
    assert await ahead.wait(29, timeout=0)


async def test_who_stops_waiting_leaves_nothing_behind():
    store = await told(30)
    ahead = ReadAhead(store)
    store.may.clear()
    await ahead.read(0, limit=10)
    await eventually(lambda: store.asked == [0, 10])
    waiting = asyncio.create_task(positions(ahead, 10, limit=10))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await eventually(lambda: store.cancelled == 1)
    store.may.set()
    assert await positions(ahead, 10, limit=10) == list(range(11, 21))
    await ahead.forget()
