"""A node used from other threads than the one with its event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from pyglyn.errors import CallFailed, EncodeError, WrongThread
from pyglyn.etf import Atom, Pid
from pyglyn.node import Exports, GenServer, Node, Process
from pyglyn.testing import Beam, eventually
from tests.node.conftest import unique_name


class Counter(GenServer):
    async def handle_call(self, request: Any, caller: Any) -> Any:
        return request + 1


def in_a_thread(function: Callable[[], Any]) -> list[Any]:
    """Run a function in a thread and wait without the event loop: nobody but the thread can wake that."""
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.append(function())
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(30)
    return outcome


async def sleeper(me: Process) -> None:
    await me.receive()


async def test_messages_of_another_thread_wake_an_idle_loop_in_their_order(beam: Beam, node: Node) -> None:
    await beam.eval(
        "S = fun F(L) -> receive {get, P} -> P ! {got, lists:reverse(L)}, F(L); X -> F([X | L]) end end, "
        "register(sink, spawn(fun() -> S([]) end)), ok"
    )
    await node.connect(beam.name)
    arrived: asyncio.Queue[Any] = asyncio.Queue()

    async def local(me: Process) -> None:
        while True:
            arrived.put_nowait(await me.receive())

    pid = node.spawn(local)

    def work() -> None:
        for n in range(100):
            node.send(pid, n)
            node.system.send(("sink", beam.name), n)
        node.cast(pid, Atom("done"))

    thread = threading.Timer(0.05, work)  # the loop is idle by then, or the order of the two does not matter
    thread.start()
    async with asyncio.timeout(180):
        got = [await arrived.get() for _ in range(101)]
    assert got == [*range(100), (Atom("$gen_cast"), Atom("done"))]
    ask = "sink ! {get, self()}, receive {got, L} -> L end"
    await eventually(lambda: _is(beam, ask, list(range(100))))


async def _is(beam: Beam, text: str, wanted: Any) -> bool:
    return bool(await beam.eval(text) == wanted)


async def test_a_call_waits_in_the_event_loop_of_the_other_thread(node: Node) -> None:
    pid = await node.start(Counter)
    assert pid is not None

    async def work() -> list[Any]:
        answers: list[Any] = [await node.call(pid, n) for n in range(3)]
        with pytest.raises(CallFailed):
            await node.call("nobody", 1)
        return answers

    loop = asyncio.get_running_loop()
    assert await loop.run_in_executor(None, lambda: asyncio.run(work())) == [1, 2, 3]


async def test_what_another_thread_may_not_do_is_refused_at_once_and_changes_nothing(node: Node) -> None:
    pid = node.spawn(sleeper)
    me = node.system
    before = dict(node.runtime.processes)
    forbidden: list[Callable[[], Any]] = [
        lambda: node.spawn(sleeper),
        lambda: me.spawn(sleeper),
        lambda: me.monitor(pid),
        lambda: me.link(pid),
        lambda: me.exit(pid, Atom("kill")),
        lambda: me.alias(),
        lambda: me.send_after(1, pid, Atom("x")),
        lambda: node.make_ref(),
        lambda: asyncio.run(node.erpc("nobody@localhost", "m", "f")),
        lambda: asyncio.run(me.receive(timeout=0)),
        lambda: asyncio.run(me.register("somebody")),
    ]
    for number, call in enumerate(forbidden):
        (error,) = in_a_thread(call)
        assert isinstance(error, WrongThread), (number, error)
        assert "another thread" in str(error)
    assert node.runtime.processes == before
    (error,) = in_a_thread(lambda: node.send(pid, object()))
    assert isinstance(error, EncodeError)


async def test_an_exported_function_in_a_thread_of_its_own_sends_as_its_process(beam: Beam) -> None:
    def report(me: Process, to: Pid) -> None:
        me.send(to, (Atom("from"), me.pid))

    table = Exports()
    table.add("work", report)
    async with Node(unique_name(), cookie=beam.cookie, exports=table) as node:
        text = "rpc:call(N, work, report, [self()]), receive {from, P} -> node(P) end"
        assert await beam.eval(text, N=Atom(node.name)) is Atom(node.name)


async def test_a_node_runs_outside_the_main_thread_until_another_thread_stops_it(epmd: Any) -> None:
    started: list[Any] = []

    async def serve() -> None:
        async with Node(unique_name(), cookie="c") as node:
            started.append(node)
            await node.run()
            started.append("stopped")

    def thread() -> None:
        try:
            asyncio.run(serve())
        except BaseException as error:
            started.append(error)

    running = threading.Thread(target=thread, daemon=True)
    running.start()
    await eventually(lambda: bool(started), 30)
    assert isinstance(started[0], Node)
    started[0].request_stop()
    await eventually(lambda: not running.is_alive(), 30)
    assert started[1:] == ["stopped"]
