"""Deadlines that judge somebody else: lateness of one's own does not count, and what arrived is read first."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable

import pytest

from pyglyn import patience
from pyglyn.patience import STEPS, Patience, after_reading
from pyglyn.testing import eventually


class Late(asyncio.SelectorEventLoop):
    """An event loop whose clock can jump, as it does while an OS process is stopped."""

    ahead = 0.0

    def time(self) -> float:
        return super().time() + self.ahead


def run(test: Callable[[Late], object]) -> None:
    loop = Late()
    try:
        loop.run_until_complete(test(loop))  # type: ignore[arg-type]
    finally:
        loop.close()


def test_a_step_in_which_the_clock_jumped_counts_once() -> None:
    async def test(loop: Late) -> None:
        expired = loop.create_future()
        watch = Patience(1000.0, expired.set_result, None)
        for _ in range(STEPS - 1):
            loop.ahead += 1_000_000.0
            left = watch._left
            await eventually(lambda left=left: watch._left < left)  # type: ignore[misc]
        assert not expired.done()
        loop.ahead += 1_000_000.0
        await expired

    run(test)


def test_a_sign_of_life_begins_anew_even_in_the_last_moment() -> None:
    async def test(loop: Late) -> None:
        expired: list[None] = []
        watch = Patience(1000.0, expired.append, None)
        for _ in range(STEPS):
            watch._count()
        watch.restart()
        for _ in range(5):
            await asyncio.sleep(0)
        watch.cancel()
        assert not expired

    run(test)


def test_what_lies_here_unread_is_read_before_the_judgement() -> None:
    async def test(loop: Late) -> None:
        here, there = socket.socketpair()
        here.setblocking(False)
        happened: list[str] = []
        with here, there:
            loop.add_reader(here, lambda: happened.append(here.recv(9).decode()))
            await asyncio.sleep(0)
            there.send(b"answer")
            after_reading(happened.append, "judged")
            await eventually(lambda: "judged" in happened)
            loop.remove_reader(here)
        assert happened == ["answer", "judged"]

    run(test)


async def test_a_time_limit_ends_what_is_inside_and_nothing_else() -> None:
    with pytest.raises(TimeoutError):
        async with patience.timeout(0.01):
            await asyncio.Event().wait()
    async with patience.timeout(None), patience.timeout(1000.0):
        await asyncio.sleep(0)
    with pytest.raises(ZeroDivisionError):
        async with patience.timeout(1000.0):
            raise ZeroDivisionError


async def test_a_cancellation_in_the_turn_of_a_result_or_an_error_is_not_lost() -> None:
    """As ``asyncio.wait_for`` of Python 3.11 loses it: what it waited for is there when the cancellation comes."""

    async def deaf(error: Exception | None) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        if error is not None:
            raise error

    async def guarded(error: Exception | None) -> None:
        with patience.cancellable():
            await deaf(error)

    for error in (None, KeyError("gone")):
        waiting = asyncio.create_task(guarded(error))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting


async def test_what_nobody_has_cancelled_ends_as_it_does() -> None:
    with patience.cancellable():
        await asyncio.sleep(0)
    with pytest.raises(ZeroDivisionError), patience.cancellable():
        raise ZeroDivisionError
    with pytest.raises(TimeoutError), patience.cancellable():
        async with asyncio.timeout(0):
            await asyncio.Event().wait()


async def test_a_task_that_loses_a_cancellation_is_called_off_all_the_same() -> None:
    lost = 0

    async def deaf() -> None:
        nonlocal lost
        while lost < 2:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                lost += 1
        await asyncio.Event().wait()

    task = asyncio.create_task(deaf())
    await asyncio.sleep(0)
    await patience.call_off(task)
    assert task.cancelled()
    assert lost == 2
    await patience.call_off(task)  # which has ended
