"""The thread a runtime belongs to, and the pool for exported functions."""

from __future__ import annotations

import asyncio
import contextvars
import threading

import pytest

from pyglyn.errors import WrongThread
from pyglyn.node.threads import Home, Threads

asked: contextvars.ContextVar[str] = contextvars.ContextVar("asked", default="nobody")


async def test_a_result_and_an_error_come_back_from_the_thread() -> None:
    threads = Threads()
    assert await threads.run(divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        await threads.run(divmod, 7, 0)


async def test_a_function_in_a_thread_sees_the_context_of_its_caller() -> None:
    asked.set("me")
    assert await Threads().run(asked.get) == "me"


async def test_of_the_calls_of_one_function_no_more_run_at_once_than_the_limit() -> None:
    threads = Threads(limit=2)
    both, release, lock = threading.Barrier(3), threading.Event(), threading.Lock()
    began, running, most = 0, 0, 0

    def held() -> None:
        nonlocal began, running, most
        with lock:
            began, running = began + 1, running + 1
            most = max(most, running)
            is_first = began <= 2
        if is_first:
            both.wait()
            release.wait()
        with lock:
            running -= 1

    calls = [asyncio.ensure_future(threads.run(held)) for _ in range(9)]
    await asyncio.to_thread(both.wait)
    assert (began, most) == (2, 2)
    release.set()
    await asyncio.gather(*calls)
    assert (began, most) == (9, 2)


async def test_a_function_has_one_thread_however_many_calls_of_others_hang() -> None:
    threads = Threads(limit=1)
    release = threading.Event()
    hanging = [asyncio.ensure_future(threads.run(release.wait)) for _ in range(3)]
    await asyncio.sleep(0)
    assert await threads.run(divmod, 7, 2) == (3, 1)
    assert not any(each.done() for each in hanging)
    release.set()
    assert await asyncio.gather(*hanging) == [True] * 3


async def test_one_that_is_cancelled_lets_its_thread_go_on_and_the_next_one_use_it() -> None:
    threads = Threads(limit=1)
    began, go_on, done = threading.Event(), threading.Event(), threading.Event()

    def slow(last: bool) -> bool:
        if last:
            return done.is_set()
        began.set()
        go_on.wait()
        done.set()
        return False

    running = asyncio.ensure_future(threads.run(slow, False))
    await asyncio.to_thread(began.wait)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    go_on.set()
    assert await threads.run(slow, True) is True


async def test_other_threads_are_refused_and_can_have_this_one_do_things_in_their_order() -> None:
    home = Home()
    assert home.is_here()
    home.check()
    seen: list[int] = []

    def elsewhere() -> bool:
        with pytest.raises(WrongThread, match="another thread than the node's"):
            home.check()
        for number in range(100):
            home.soon(seen.append, number)
        return home.is_here()

    assert await asyncio.to_thread(elsewhere) is False
    await asyncio.sleep(0)
    assert seen == list(range(100))


async def test_another_threads_event_loop_waits_for_a_coroutine_here() -> None:
    home = Home()

    async def here() -> int:
        await asyncio.sleep(0)
        return threading.get_ident()

    def elsewhere() -> int:
        return asyncio.run(home.bring(here))

    assert await asyncio.to_thread(elsewhere) == threading.get_ident()


def test_once_its_event_loop_is_closed_nothing_can_be_brought_there() -> None:
    async def make() -> Home:
        return Home()

    async def nothing() -> None:
        raise AssertionError("it runs all the same")

    home = asyncio.run(make())
    with pytest.raises(WrongThread, match="has ended"):
        home.soon(print)
    with pytest.raises(WrongThread, match="has ended"):
        asyncio.run(home.bring(nothing))
