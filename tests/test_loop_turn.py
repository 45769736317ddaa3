"""Who waits goes on in the turn in which something came, in asyncio's own order; on both event loops."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from typing import Any

import pytest

from pyglyn import loop_turn
from pyglyn.loop_turn import LATE, Waiter
from tests.hot import hot as hot
from tests.hot import in_python_and_in_c

uvloop = pytest.importorskip("uvloop")
pytestmark = [
    pytest.mark.filterwarnings('ignore:Overriding the "event_loop_policy" fixture'),
    in_python_and_in_c,
]


@pytest.fixture(params=["asyncio", "uvloop"])
def event_loop_policy(request: pytest.FixtureRequest) -> Any:
    return uvloop.EventLoopPolicy() if request.param == "uvloop" else asyncio.DefaultEventLoopPolicy()


async def in_a_callback(function: Any) -> None:
    """Call something as an event loop calls a protocol: no task runs."""
    done = asyncio.get_running_loop().create_future()

    def call() -> None:
        try:
            function()
        except BaseException as error:
            done.set_exception(error)
        else:
            done.set_result(None)

    asyncio.get_running_loop().call_soon(call)
    await done


async def waiting_for(waiter: Waiter[Any], said: list[Any]) -> asyncio.Task[None]:
    async def wait() -> None:
        said.append(await waiter)

    task = asyncio.ensure_future(wait())
    await asyncio.sleep(0)
    return task


async def test_who_waits_goes_on_at_the_end_of_the_batch_and_last_comes_what_they_asked_for() -> None:
    turn, said = loop_turn.current(), []  # type: ignore[var-annotated]
    first, second = Waiter[str](), Waiter[str]()
    for waiter in (first, second):
        await waiting_for(waiter, said)

    def batch() -> None:
        assert turn.begin()
        turn.at_end(lambda: said.append("written"))
        second.set_result("second")
        first.set_result("first")
        assert said == []
        turn.end()
        assert said == ["second", "first", "written"]

    await in_a_callback(batch)


async def test_without_a_batch_all_that_happens_in_the_next_turn() -> None:
    turn, said = loop_turn.current(), []  # type: ignore[var-annotated]
    waiter = Waiter[str]()
    await waiting_for(waiter, said)
    turn.at_end(lambda: said.append("written"))
    waiter.set_result("went on")
    assert said == []
    await asyncio.sleep(0)
    assert said == ["went on", "written"]


async def test_no_batch_begins_while_a_task_runs_or_within_another() -> None:
    turn = loop_turn.current()
    assert not turn.begin()

    def batch() -> None:
        assert turn.begin()
        assert not turn.begin()
        turn.end()

    await in_a_callback(batch)


async def test_whom_a_process_wakes_goes_on_in_the_next_turn() -> None:
    """Two that wake each other for ever do not keep the event loop."""
    turn, said = loop_turn.current(), []  # type: ignore[var-annotated]
    one, other = Waiter[None](), Waiter[None]()

    async def play(mine: Waiter[None], others: Waiter[None], name: str) -> None:
        while True:
            await mine
            mine.reset()
            said.append(name)
            others.set_result(None)

    tasks = [asyncio.ensure_future(play(one, other, "one")), asyncio.ensure_future(play(other, one, "other"))]
    await asyncio.sleep(0)

    def batch() -> None:
        turn.begin()
        one.set_result(None)
        turn.end()
        assert said == ["one"]

    await in_a_callback(batch)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_an_error_at_the_end_of_a_turn_is_logged_and_stops_nothing(caplog: Any) -> None:
    turn, said = loop_turn.current(), []  # type: ignore[var-annotated]
    waiter = Waiter[str]()
    waiter.add_done_callback(lambda _: 1 // 0)
    waiter.add_done_callback(lambda w: said.append(w.result()))
    turn.at_end(lambda: [][0])
    turn.at_end(lambda: said.append("written"))
    waiter.set_result("went on")
    with caplog.at_level(logging.ERROR, "asyncio"):
        await asyncio.sleep(0)
    assert said == ["went on", "written"]
    assert "ZeroDivisionError" in caplog.text
    assert "IndexError" in caplog.text


async def test_the_context_of_who_waits_is_its_own() -> None:
    variable = contextvars.ContextVar("variable", default="nobody's")
    waiter, said = Waiter[str](), []

    async def wait() -> None:
        variable.set("mine")
        await waiter
        said.append(variable.get())

    task = asyncio.ensure_future(wait())
    await asyncio.sleep(0)
    waiter.set_result("x")
    await task
    assert said == ["mine"]
    assert variable.get() == "nobody's"


# --- limits ----------------------------------------------------------------------------------------------


class Timed:
    """An event loop as `Limits` sees it, and how many timers it was asked for."""

    def __init__(self) -> None:
        self.loop, self.timers = asyncio.get_running_loop(), 0
        self.time = self.loop.time

    def call_at(self, *args: Any) -> asyncio.TimerHandle:
        self.timers += 1
        return self.loop.call_at(*args)

    def call_later(self, *args: Any) -> asyncio.TimerHandle:
        self.timers += 1
        return self.loop.call_later(*args)


async def test_those_that_wait_equally_long_share_a_timer_and_their_time_is_over_in_order() -> None:
    loop: Any = Timed()
    limits, said = loop_turn.Limits(loop), []  # type: ignore[var-annotated]
    waiters = [Waiter[str]() for _ in range(102)]
    for waiter in waiters:
        limits.begin(waiter, 0.01)
    assert loop.timers == 1
    for waiter in waiters[:100]:
        waiter.set_result("in time")
        limits.end(waiter, 0.01)
    for name, waiter in zip(("first", "second"), waiters[100:], strict=True):
        waiter.add_done_callback(lambda _, name=name: said.append(name))  # type: ignore[misc]
    for waiter in waiters[100:]:
        assert await waiter is LATE
        limits.end(waiter, 0.01)
    await asyncio.sleep(0)
    assert said == ["first", "second"]
    assert waiters[0].result() == "in time"
    assert loop.timers <= 3
    assert limits._until == {}


async def test_who_gets_an_answer_in_time_is_not_late_because_the_loop_stood_still_meanwhile() -> None:
    """The second one's time is over when the first one's end is looked after, and its answer is still unread."""
    loop: Any = Timed()
    now = 0.0
    loop.time = lambda: now
    timers: list[Any] = []
    loop.call_later = lambda seconds, function, *args: timers.append((function, args))
    loop.call_at = lambda until, function, *args: second.set_result("in time")
    limits = loop_turn.Limits(loop)
    first, second = Waiter[str](), Waiter[str]()
    limits.begin(first, 1.0)
    now = 0.5
    limits.begin(second, 1.0)
    now = 1.0
    [(function, args)] = timers
    function(*args)
    now = 9.0  # something has computed for long before what had arrived by then was read
    assert await first is LATE
    assert await second == "in time"


async def test_limits_of_many_lengths_have_a_timer_each_which_ends_with_the_wait() -> None:
    limits = loop_turn.Limits(asyncio.get_running_loop())
    many = [Waiter[None]() for _ in range(3 * loop_turn.MOST_LIMITS)]
    for number, waiter in enumerate(many):
        limits.begin(waiter, 1000.0 + number)
    assert len(limits._until) == loop_turn.MOST_LIMITS
    timers = list(limits._timers.values())
    assert len(timers) == 2 * loop_turn.MOST_LIMITS
    for number, waiter in enumerate(many):
        limits.end(waiter, 1000.0 + number)
        limits.end(waiter, 1000.0 + number)
    assert all(timer.cancelled() for timer in timers)
    assert limits._timers == {}
    assert not any(limits._until.values())


async def test_one_that_would_wait_too_long_behind_sixteen_others_times_out_too() -> None:
    limits = loop_turn.Limits(asyncio.get_running_loop())
    for number in range(loop_turn.MOST_LIMITS):
        limits.begin(Waiter[None](), 1000.0 + number)
    limits.begin(waiter := Waiter[None](), 0.001)
    assert await waiter is LATE


# --- it is a future ----------------------------------------------------------------------------------------


async def test_a_task_that_is_cancelled_while_it_waits_ends() -> None:
    waiter = Waiter[None]()
    task = await waiting_for(waiter, [])
    task.cancel("enough")
    with pytest.raises(asyncio.CancelledError):
        await task
    assert waiter.cancelled()
    assert not waiter.cancel()


async def test_a_task_that_is_cancelled_when_its_answer_has_come_ends_too() -> None:
    waiter, said = Waiter[str](), []  # type: ignore[var-annotated]
    task = await waiting_for(waiter, said)
    waiter.set_result("too late")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert said == []


async def test_what_it_was_settled_with_is_told_before_and_after() -> None:
    waiter = Waiter[int]()
    for ask in (waiter.result, waiter.exception):
        with pytest.raises(asyncio.InvalidStateError):
            ask()
    assert not waiter.done()
    waiter.set_result(1)
    assert await waiter == 1
    assert (waiter.done(), waiter.result(), waiter.exception()) == (True, 1, None)
    with pytest.raises(asyncio.InvalidStateError):
        waiter.set_exception(KeyError())
    assert await waiter == 1
    waiter.reset()
    waiter.set_exception(KeyError("x"))
    with pytest.raises(KeyError):
        await waiter
    assert isinstance(waiter.exception(), KeyError)
    waiter.reset()
    waiter.cancel("why")
    with pytest.raises(asyncio.CancelledError, match="why"):
        waiter.exception()


async def test_asyncio_takes_it_for_a_future() -> None:
    waiters = [Waiter[int]() for _ in range(5)]
    assert asyncio.isfuture(waiters[0])
    assert waiters[0].get_loop() is asyncio.get_running_loop()
    gathered = asyncio.gather(*waiters[:2])  # type: ignore[arg-type]
    shielded = asyncio.shield(waiters[2])  # type: ignore[arg-type,var-annotated]
    limited = asyncio.ensure_future(asyncio.wait_for(waiters[3], 10))  # type: ignore[arg-type,var-annotated]
    await asyncio.sleep(0)
    for number, waiter in enumerate(waiters[:4]):
        waiter.set_result(number)
    assert await gathered == [0, 1]
    assert await shielded == 2
    assert await limited == 3
    done, pending = await asyncio.wait(waiters[3:], timeout=0)  # type: ignore[type-var]
    assert (done, pending) == ({waiters[3]}, {waiters[4]})


@pytest.mark.parametrize("as_results", [False, True])
async def test_what_gathers_some_ends_when_it_or_one_of_them_is_cancelled(as_results: bool) -> None:
    async def gathering(*waiters: Waiter[int]) -> Any:
        return await asyncio.gather(*waiters, return_exceptions=as_results)  # type: ignore[arg-type]

    waiters = [Waiter[int]() for _ in range(2)]
    task = asyncio.ensure_future(gathering(*waiters))
    await asyncio.sleep(0)
    task.cancel("enough")
    await asyncio.wait([task], timeout=30)
    assert task.cancelled()
    one, other = Waiter[int](), Waiter[int]()
    task = asyncio.ensure_future(gathering(one, other))
    await asyncio.sleep(0)
    one.cancel("why")
    other.set_result(2)
    await asyncio.wait([task], timeout=30)
    assert task.done()
    if not as_results:
        assert task.cancelled()
        return
    cancelled, result = task.result()
    assert (type(cancelled), cancelled.args, result) == (asyncio.CancelledError, ("why",), 2)


async def test_a_callback_that_was_removed_is_not_called() -> None:
    said: list[str] = []
    waiter = Waiter[None]()

    def one(_: object) -> None:
        said.append("one")

    def other(_: object) -> None:
        said.append("other")

    for callback in (one, other, one):
        waiter.add_done_callback(callback)
    assert waiter.remove_done_callback(one) == 2
    assert waiter.remove_done_callback(one) == 0
    waiter.set_result(None)
    await asyncio.sleep(0)
    assert said == ["other"]
    waiter.add_done_callback(one)
    await asyncio.sleep(0)
    assert said == ["other", "one"]
