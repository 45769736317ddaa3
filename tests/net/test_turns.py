"""Turns: so many at once, so many of them for one key, nobody for ever behind the others."""

from __future__ import annotations

import asyncio
import contextlib

from hypothesis import given
from hypothesis import strategies as st

from pyglyn.net.turns import Turns


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_so_many_at_once_and_the_others_in_their_order() -> None:
    turns, began = Turns(2, 2), []

    async def work(number: int) -> None:
        await turns.take("host")
        began.append(number)

    tasks = [asyncio.create_task(work(number)) for number in range(5)]
    await settle()
    assert began == [0, 1]
    turns.give_back("host")
    await settle()
    assert began == [0, 1, 2]
    for _ in range(2):
        turns.give_back("host")
    await settle()
    assert began == [0, 1, 2, 3, 4]
    await asyncio.gather(*tasks)


async def test_a_key_with_much_to_do_leaves_room_for_others() -> None:
    turns, began = Turns(4, 2), []

    async def work(key: str) -> None:
        await turns.take(key)
        began.append(key)

    tasks = [asyncio.create_task(work("a")) for _ in range(100)]
    await settle()
    assert began == ["a", "a"]
    tasks += [asyncio.create_task(work(key)) for key in "bbbc"]
    await settle()
    assert began == ["a", "a", "b", "b"]
    turns.give_back("a")
    await settle()
    assert began == ["a", "a", "b", "b", "a"]
    turns.give_back("b")
    await settle()
    assert began[5:] == ["b"]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_who_does_not_wait_any_more_takes_no_turn() -> None:
    turns = Turns(1, 1)
    await turns.take("a")
    first, second = (asyncio.create_task(turns.take("a")) for _ in range(2))
    await settle()
    first.cancel()
    turns.give_back("a")
    await settle()
    assert first.cancelled()
    assert second.done()
    third, fourth = (asyncio.create_task(turns.take("a")) for _ in range(2))
    await settle()
    turns.give_back("a")
    third.cancel()  # it has its turn, but does not know yet
    await settle()
    assert fourth.done()
    await fourth


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["take", "give", "cancel"])), max_size=60))
async def test_limits_hold_and_room_is_used(steps: list[tuple[str, str]]) -> None:
    turns, limit, per_key = Turns(3, 2), 3, 2
    working: dict[str, int] = {"a": 0, "b": 0, "c": 0}
    waiting: dict[str, list[asyncio.Task[None]]] = {"a": [], "b": [], "c": []}

    async def work(key: str) -> None:
        await turns.take(key)
        working[key] += 1

    for key, step in steps:
        if step == "take":
            waiting[key].append(asyncio.create_task(work(key)))
        elif step == "give" and working[key]:
            working[key] -= 1
            turns.give_back(key)
        elif step == "cancel" and waiting[key]:
            waiting[key][-1].cancel()
        await settle()
        for name, tasks in waiting.items():
            waiting[name] = [task for task in tasks if not task.done()]
            assert working[name] <= per_key
            if waiting[name]:
                assert working[name] == per_key or sum(working.values()) == limit
        assert sum(working.values()) <= limit
    for tasks in waiting.values():
        for task in tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
