"""A thread of one's own for calls that block."""

from __future__ import annotations

import asyncio
import gc
import threading

import pytest

from pyglyn.eventsourcing.stores.threads import WorkerThread
from pyglyn.testing import eventually


def worker(name: str) -> WorkerThread:
    return WorkerThread(asyncio.get_running_loop(), name)


def running(name: str) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == name]


async def test_calls_are_made_in_order_in_one_thread() -> None:
    made, thread = [], worker("order")
    assert not thread.is_used
    calls = [thread.call(lambda n=n: made.append((n, threading.current_thread().name))) for n in range(5)]
    await asyncio.gather(*calls)
    assert made == [(n, "order") for n in range(5)]
    assert thread.is_used
    thread.stop()


async def test_what_a_call_raises_comes_to_the_caller() -> None:
    thread = worker("raises")

    def fail() -> None:
        raise LookupError("none")

    with pytest.raises(LookupError, match="none"):
        await thread.call(fail)
    with pytest.raises(RuntimeError, match="StopIteration"):
        await thread.call(lambda: next(iter(())))
    assert await thread.call(lambda: 1) == 1
    thread.stop()


async def test_a_call_that_was_cancelled_before_it_began_is_not_made() -> None:
    thread, go, made = worker("cancelled"), threading.Event(), []
    first = thread.call(go.wait)
    second = thread.call(lambda: made.append("second"))
    second.cancel()
    go.set()
    await first
    await thread.call(lambda: made.append("third"))
    assert made == ["third"]
    thread.stop()


async def test_one_that_has_begun_runs_to_its_end_and_its_result_is_dropped() -> None:
    thread, begun, go, made = worker("begun"), threading.Event(), threading.Event(), []

    def work() -> None:
        begun.set()
        go.wait()
        made.append("done")

    call = thread.call(work)
    await eventually(begun.is_set)
    call.cancel()
    go.set()
    await thread.call(lambda: None)
    assert made == ["done"]
    assert call.cancelled()
    thread.stop()


async def test_a_thread_goes_on_by_itself_after_those_who_wait_for_their_turn() -> None:
    thread, begun, go, made = worker("on"), threading.Event(), threading.Event(), list[str]()

    def work() -> str:
        begun.set()
        go.wait()
        return "first"

    first = thread.call(work, lambda: made.append("on"))
    second = thread.call(lambda: made.append("second"))
    await eventually(begun.is_set)
    go.set()
    assert await first == "first"
    await second
    await thread.call(lambda: made.append("third"))
    assert made == ["second", "on", "third"]
    thread.stop()


async def test_a_thread_does_not_go_on_from_what_failed_or_nobody_waits_for() -> None:
    thread, begun, go, made = worker("off"), threading.Event(), threading.Event(), list[str]()

    def fail() -> None:
        raise LookupError("none")

    def work() -> None:
        begun.set()
        go.wait()

    with pytest.raises(LookupError):
        await thread.call(fail, lambda: made.append("failed"))
    call = thread.call(work, lambda: made.append("dropped"))
    await eventually(begun.is_set)
    call.cancel()
    go.set()
    await thread.call(lambda: None)
    await thread.call(lambda: None)
    assert made == []
    thread.stop()


async def test_a_thread_ends_when_it_is_stopped_and_when_nobody_has_it_any_more() -> None:
    thread = worker("ends")
    done = thread.call(lambda: 1)
    thread.stop()
    assert await done == 1
    await eventually(lambda: not running("ends"))
    other = worker("forgotten")
    await other.call(lambda: None)
    assert running("forgotten")
    del other
    gc.collect()
    await eventually(lambda: not running("forgotten"))


def test_a_result_for_a_loop_that_is_closed_is_dropped() -> None:
    go, kept = threading.Event(), []

    async def leave() -> None:
        thread = worker("closed")
        kept.append(thread)
        thread.call(go.wait)

    asyncio.run(leave())
    go.set()
    kept[0].stop()
    for thread in running("closed"):
        thread.join()
