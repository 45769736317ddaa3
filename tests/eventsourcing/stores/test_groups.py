"""Group commit: who goes alone, who goes together, and who waits for whom."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from pyglyn.eventsourcing.stores.groups import AT_ONCE, LARGEST, MOST_AT_ONCE, Entry, Groups
from pyglyn.testing import eventually


class Database:
    """Keeps what it is given, and commits when it may."""

    def __init__(self, held_up_s: float = 3600.0) -> None:
        self.commits: list[list[str]] = []
        self.may = asyncio.Event()
        self.fault: Callable[[list[str]], BaseException | None] = lambda items: None
        self.groups = Groups(self.alone, self.together, held_up_s=held_up_s)

    async def alone(self, item: str) -> None:
        await self._commit([item])

    async def together(self, group: list[Entry[str]]) -> None:
        await self._commit([entry.item for entry in group])
        for entry in group:
            if not entry.done.done():
                entry.done.set_result(None)

    async def _commit(self, items: list[str]) -> None:
        self.commits.append(items)
        await self.may.wait()
        error = self.fault(items)
        if error is not None:
            raise error

    def commit(self, name: str) -> asyncio.Task[None]:
        return asyncio.create_task(self.groups.commit(name[0], name))


async def test_one_after_the_other_goes_alone() -> None:
    database = Database()
    database.may.set()
    for name in "abc":
        await database.commit(name)
    assert database.commits == [["a"], ["b"], ["c"]]


async def test_what_comes_meanwhile_goes_together_in_its_order_and_each_key_once_in_a_group() -> None:
    database = Database()
    every = [database.commit(name) for name in ("a", "b", "c1", "d", "c2", "e", "c3")]
    await eventually(lambda: len(database.commits) == AT_ONCE)
    database.may.set()
    await asyncio.gather(*every)
    assert database.commits == [["a"], ["b"], ["c1", "d", "e"], ["c2"], ["c3"]]


async def test_a_group_has_a_largest_size() -> None:
    database = Database()
    every = [database.commit(chr(1000 + number)) for number in range(AT_ONCE + LARGEST + 1)]
    await eventually(lambda: len(database.commits) == AT_ONCE)
    database.may.set()
    await asyncio.gather(*every)
    assert [len(commit) for commit in database.commits] == [1] * AT_ONCE + [LARGEST, 1]


async def test_who_gives_up_before_it_is_taken_is_not_committed_and_holds_up_nobody() -> None:
    database = Database()
    every = [database.commit(name) for name in "abcd"]
    await eventually(lambda: len(database.commits) == AT_ONCE)
    every[2].cancel()
    await asyncio.wait([every[2]])
    database.may.set()
    await every[3]
    assert database.commits == [["a"], ["b"], ["d"]]


async def test_what_goes_wrong_comes_to_those_it_concerns_and_the_next_are_served() -> None:
    database = Database()
    database.fault = lambda items: LookupError(items) if set(items) & {"a", "c"} else None
    every = [database.commit(name) for name in "abcd"]
    await eventually(lambda: len(database.commits) == AT_ONCE)
    database.may.set()
    outcomes = await asyncio.gather(*every, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [LookupError, type(None), LookupError, LookupError]
    await database.commit("e")


async def test_those_that_wait_for_one_that_is_held_up_go_without_it() -> None:
    database = Database(held_up_s=0.001)
    every = [database.commit(chr(ord("a") + number)) for number in range(AT_ONCE)]
    for number in range(AT_ONCE, MOST_AT_ONCE):
        every.append(database.commit(chr(ord("a") + number)))
        await eventually(lambda number=number: len(database.commits) == number + 1)
    more = [database.commit("y"), database.commit("z")]
    database.may.set()
    await asyncio.gather(*every, *more)
    assert database.commits[MOST_AT_ONCE:] == [["y", "z"]]


async def test_when_the_loop_is_closed_nobody_is_left_waiting() -> None:
    database = Database()
    every = [database.commit(name) for name in "abc"]
    await eventually(lambda: len(database.commits) == AT_ONCE)
    every[0].cancel()
    with pytest.raises(asyncio.CancelledError):
        await every[0]
    await eventually(lambda: len(database.commits) == 3)
    for task in database.groups._tasks:
        task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await every[2]
    database.may.set()
    await every[1]
