"""The next batch is read while one is worked on, and what was read ahead is never what was not asked for."""

from __future__ import annotations

import asyncio
import tracemalloc
from typing import Any

import attrs
import pytest

from pyglyn import eventsourcing as es
from pyglyn.errors import StoreUnavailable
from pyglyn.eventsourcing.queries.ahead import MOST, SINGLE, ReadAhead
from pyglyn.eventsourcing.stores.packed import ROOM
from pyglyn.eventsourcing.stores.store import BATCH, Page
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


class Small(Told):
    """Says of its pages that they are small, and notes how large those are that are read."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[tuple[int, int]] = []
        self.decoded: list[int] = []
        self.is_small = True
        self.has_parts = True
        self.too_much = 1000

    async def read_page(self, after: int = 0, *, limit: int = 500) -> Page[Any]:
        self.sizes.append((after, limit))
        if limit > self.too_much:
            raise es.EventStoreError("too much for one text")
        return self.page(await self.read(after, limit=limit), after)

    def page(self, events: list[Any], after: int) -> Page[Any]:
        def decode() -> list[Any]:
            self.decoded.append(len(events))
            return events

        def parts(size: int) -> list[Page[Any]]:
            return [self.page(events[at : at + size], after) for at in range(0, len(events), size)]

        last = events[-1].position if events else after
        return Page(len(events), last, decode, self.is_small, parts if self.has_parts else None)


async def small(events: int) -> Small:
    store = Small()
    await deposits(store, "a", events)
    return store


async def all_of(ahead: ReadAhead, limit: int = 10) -> list[int]:
    found: list[int] = []
    while batch := await positions(ahead, found[-1] if found else 0, limit=limit):
        assert len(batch) <= limit
        found += batch
    return found


async def test_several_small_batches_are_read_at_once_and_decoded_one_by_one():
    store = await small(103)
    assert await all_of(ReadAhead(store)) == list(range(1, 104))
    assert store.sizes == [(0, 10), (10, 40), (50, 40), (90, 40), (100, 10), (103, 10)]
    assert store.decoded == [*[10] * 10, 3, 0]


@pytest.mark.parametrize(("limit", "size"), [(500, 500), (300, 300), (200, 400), (125, 500), (600, 600)])
async def test_there_is_a_most_that_is_read_at_once(limit, size):
    store = await small(limit + 1)
    ahead = ReadAhead(store)
    assert await positions(ahead, 0, limit=limit) == list(range(1, limit + 1))
    await eventually(lambda: store.sizes == [(0, limit), (limit, size)])
    await ahead.forget()


async def test_of_what_is_large_one_batch_is_read_at_a_time():
    store = await small(60)
    ahead = ReadAhead(store)
    assert await positions(ahead, 0, limit=10) == list(range(1, 11))
    await eventually(lambda: store.sizes == [(0, 10), (10, 40)])
    store.is_small = False
    assert await all_of(ahead) == list(range(1, 61))
    assert all(limit == 10 for _, limit in store.sizes[2:])


async def test_batches_that_cannot_be_told_apart_are_read_one_by_one():
    """As where an event is gone: who asks for so many never gets more."""
    store = await small(45)
    store.has_parts = False
    assert await all_of(ReadAhead(store)) == list(range(1, 46))
    assert (10, 40) in store.sizes
    assert (10, 10) in store.sizes


async def test_what_is_too_much_at_once_is_read_batch_by_batch():
    store = await small(45)
    store.too_much = 20
    assert await all_of(ReadAhead(store)) == list(range(1, 46))
    store.too_much = 5
    with pytest.raises(es.EventStoreError, match="too much"):
        await all_of(ReadAhead(store))


async def test_large_events_behind_small_ones_are_read_as_there_is_room_for_them(url, monkeypatch):
    """Nobody knows of a page how large it is before it is read. Of PostgreSQL one batch is."""
    large, pages = 1 << 20, list[Page[Any]]()
    read = ReadAhead._behind

    async def note(self: ReadAhead, page: Page[Any], size: int) -> Page[Any]:
        pages.append(await read(self, page, size))
        return pages[-1]

    monkeypatch.setattr(ReadAhead, "_behind", note)
    async with es.open_store(url, aggregate_type="t") as store:
        await store.append("small", [{}] * (30 * BATCH), expected=0)
        for n in range(40):
            await store.append(f"large{n}", [{"text": "x" * large}], expected=0)
        await store.append("end", [{}] * (3 * BATCH), expected=0)
        ahead, found = ReadAhead(store), list[int]()
        while batch := await positions(ahead, found[-1] if found else 0):
            assert len(batch) <= BATCH
            found += batch
        whole = len(await store.read(30 * BATCH, limit=200)), len(await store.read(0, limit=3000))
    assert found == list(range(1, 33 * BATCH + 41))
    assert whole == (200, 3000)
    sizes = [sum(len(event.raw) for event in page.decode()) for page in pages]
    above = [size for size in sizes if size > ROOM + large + 20]
    assert above == [] if url.startswith("sqlite") else all(size <= BATCH * (large + 20) for size in above)
    assert len(above) <= 1
    assert MOST in [page.rows for page in pages]


async def test_what_was_packed_is_no_more_in_memory_than_what_is_read_row_by_row(tmp_path):
    async with es.open_store(f"sqlite:{tmp_path}/a.db", aggregate_type="t") as store:
        await store.append("small", [{}] * 250, expected=0)
        for n in range(64):
            await store.append(f"large{n}", [{"text": "x" * (1 << 20)}], expected=0)
        ahead, after = ReadAhead(store), 0
        tracemalloc.start()
        try:
            while batch := await positions(ahead, after, limit=250):
                after = batch[-1]
            _, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert after == 314
    assert most < 8 * ROOM


async def test_a_page_that_is_cut_is_not_the_end():
    store = await small(25)
    read_page = store.read_page

    async def cut(after: int = 0, *, limit: int = 500) -> Page[Any]:
        page = await read_page(after, limit=min(limit, 7))
        return attrs.evolve(page, is_cut=page.rows == 7 < limit)

    store.read_page = cut  # type: ignore[method-assign]
    assert await all_of(ReadAhead(store)) == list(range(1, 26))


async def test_after_several_that_could_not_be_had_there_is_one_at_a_time_for_a_while():
    store = await small(40 * 20 + 1)
    store.too_much = 20
    assert len(await all_of(ReadAhead(store))) == 801
    assert 3 <= [limit for _, limit in store.sizes].count(40) <= 80 // SINGLE + 1


async def test_batches_that_are_there_are_forgotten_with_the_rest():
    store = await small(60)
    ahead = ReadAhead(store)
    for after in (0, 10):
        await ahead.read(after, limit=10)
    await ahead.forget()
    del store.sizes[:]
    assert await positions(ahead, 20, limit=10) == list(range(21, 31))
    assert store.sizes[0] == (20, 10)
    await ahead.read(30, limit=10)
    assert await positions(ahead, 32, limit=10) == list(range(33, 43))  # elsewhere
    assert await positions(ahead, 42, limit=4) == list(range(43, 47))  # another size
    await ahead.forget()


async def test_the_end_of_several_batches_is_not_the_end_any_more():
    store = await small(33)
    ahead = ReadAhead(store)
    assert await positions(ahead, 0, limit=10) == list(range(1, 11))
    await eventually(lambda: store.sizes == [(0, 10), (10, 40)])
    await deposits(store, "b", 5)
    for after in (10, 20):
        assert await positions(ahead, after, limit=10) == list(range(after + 1, after + 11))
    assert await positions(ahead, 30, limit=10) == list(range(31, 39))


async def test_who_stops_between_two_batches_gets_each_again():
    store = await small(60)
    ahead = ReadAhead(store)
    for after in (0, 10):
        await ahead.read(after, limit=10)
    waiting = asyncio.create_task(positions(ahead, 20, limit=10))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert await positions(ahead, 20, limit=10) == list(range(21, 31))
    assert await positions(ahead, 30, limit=10) == list(range(31, 41))
    await ahead.forget()


async def test_a_page_says_itself_what_is_behind_it():
    store, asked = await small(60), list[int]()
    page = store.page

    def telling(events: list[Any], after: int) -> Page[Any]:
        made = page(events, after)

        async def behind(size: int) -> Page[Any]:
            asked.append(size)
            return await store.read_page(made.last, limit=size)

        return Page(made.rows, made.last, made.decode, True, made.parts, behind)

    store.page = telling  # type: ignore[method-assign]
    assert await all_of(ReadAhead(store)) == list(range(1, 61))
    assert asked == [40, 40]
