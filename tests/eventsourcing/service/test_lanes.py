"""Work by key: order, fairness, errors, and cancellations, true and false ones."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from pyglyn.eventsourcing.service.lanes import Lanes


async def test_pieces_of_a_key_are_done_in_order_and_keys_take_turns() -> None:
    done: list[str] = []

    async def work(name: str) -> None:
        await asyncio.sleep(0)
        done.append(name)

    lanes = Lanes(1)
    for number in range(3):
        for key in "ab":
            lanes.put(key, lambda key=key, number=number: work(f"{key}{number}"))  # type: ignore[misc]
    await lanes.drain()
    assert done == ["a0", "b0", "a1", "b1", "a2", "b2"]


@pytest.mark.parametrize("error", [ValueError, asyncio.CancelledError])
async def test_a_piece_that_fails_or_says_it_was_cancelled_does_not_hold_up_the_next(
    error: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    done: list[int] = []

    async def fail() -> None:
        raise error

    async def work(number: int) -> None:
        done.append(number)

    lanes = Lanes(2)
    lanes.put("a", fail)
    lanes.put("a", lambda: work(1))
    lanes.put("b", lambda: work(2))
    await asyncio.wait_for(lanes.drain(), 180)
    assert sorted(done) == [1, 2]
    assert "work for 'a'" in caplog.text


async def test_stopping_cancels_what_runs_and_forgets_what_waits() -> None:
    begun, cancelled, done = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def hang() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async def work() -> None:
        done.set()

    lanes = Lanes(1)
    lanes.put("a", hang)
    lanes.put("a", work)
    lanes.put("b", work)
    await begun.wait()
    await asyncio.wait_for(lanes.stop(), 180)
    assert (cancelled.is_set(), done.is_set()) == (True, False)
    lanes.put("a", work)
    await asyncio.wait_for(done.wait(), 180)


async def test_stopping_does_not_wait_for_what_is_behind_a_piece_that_takes_no_notice() -> None:
    begun, done = asyncio.Event(), asyncio.Event()

    async def deaf() -> None:
        begun.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()

    async def work() -> None:
        done.set()

    lanes = Lanes(1)
    lanes.put("a", deaf)
    lanes.put("a", work)
    await begun.wait()
    await asyncio.wait_for(lanes.stop(), 180)
    assert not done.is_set()
