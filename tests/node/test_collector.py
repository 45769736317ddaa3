"""The garbage collector of the operating-system processes of a node."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from pyglyn.errors import CallTimeout, DistributionError, RemoteException
from pyglyn.etf import Atom, Term
from pyglyn.node import Caller, Collector, Exit, GenServer, Node, Process, Settings, Stop, current_process
from pyglyn.node.calls import GEN_CALL
from pyglyn.node.gen_server import run_server
from pyglyn.supervision import Supervisor, start, supervisor, worker
from pyglyn.supervision.os.process import OsProcess
from pyglyn.supervision.os.processes import OsProcesses
from pyglyn.supervision.running import Running
from pyglyn.testing import eventually
from tests.node.conftest import unique_name


async def tells(me: Process) -> None:
    while True:
        message = await me.receive()
        assert isinstance(message, tuple)
        me.send(message[1], (message[0], list(gc.get_threshold()), gc.get_freeze_count(), os.getpid()))  # type: ignore[arg-type]


async def test_thresholds_hold_in_the_hub_while_a_node_runs_and_in_every_worker(epmd: object) -> None:
    before = gc.get_threshold()
    settings = Settings(collector=Collector(thresholds=(12_345, 6, 7)))
    async with Node(unique_name(), cookie="c", settings=settings) as node:
        assert gc.get_threshold() == (12_345, 6, 7)
        assert gc.get_freeze_count() > 0
        await start(node, Supervisor().add(worker(tells, name="tells")))
        pid = await eventually(lambda: node.whereis("tells"))
        async with node.process() as me:
            ref = me.make_ref()
            me.send(pid, (ref, me.pid))
            _, thresholds, frozen, os_pid = await me.receive(lambda m: m[0] == ref, timeout=20)  # type: ignore[index,misc]
        assert thresholds == [12_345, 6, 7]
        assert frozen > 0  # type: ignore[operator]
        assert os_pid != os.getpid()
    assert gc.get_threshold() == before


async def test_a_program_keeps_its_own_thresholds_where_it_says_so(epmd: object) -> None:
    before = gc.get_threshold()
    async with Node(unique_name(), cookie="c", settings=Settings(collector=Collector(thresholds=None))):
        assert gc.get_threshold() == before


async def test_thresholds_come_back_with_the_end_of_the_last_node(epmd: object) -> None:
    before = gc.get_threshold()
    first, second = Node(unique_name(), cookie="c"), Node(unique_name(), cookie="c")
    async with first:
        await second.start_node()
        await second.stop()
        await second.stop()
        assert gc.get_threshold() == Collector().thresholds
    assert gc.get_threshold() == before


async def returns(me: Process) -> None: ...


async def takes_one(me: Process) -> None:
    await me.receive()


async def crashes(me: Process) -> None:
    me.quiet = True  # what is logged, the log keeps
    raise ValueError("bad quantity")


async def exits(me: Process) -> None:
    raise Exit("boom")


async def says_last_words(me: Process) -> None:
    try:
        await me.receive()
    finally:
        await me.receive()


async def traps(me: Process) -> None:
    me.trap_exit = True
    while True:
        await me.receive()


async def calls_in_vain(me: Process) -> None:
    with contextlib.suppress(CallTimeout):
        await me.call("deaf", 1, timeout=0.01)


class Stops(GenServer):
    async def handle_info(self, message: Term) -> object:
        return Stop()

    async def handle_call(self, request: Term, caller: Caller) -> object:
        return Stop()


async def serves(me: Process) -> None:
    await run_server(me, Stops)


async def serves_a_call(me: Process) -> None:
    me.send(me.pid, (GEN_CALL, (me.pid, 1), Atom("stop")))
    await run_server(me, Stops)


ENDS: dict[str, tuple[Callable[..., Any], list[Term]]] = {
    "returns": (returns, []),
    "returns for a message": (takes_one, [None]),
    "crashes": (crashes, []),
    "exits": (exits, []),
    "is shut down": (takes_one, [Atom("shutdown")]),
    "is told to end": (takes_one, [Atom("boom")]),
    "is killed": (takes_one, [Atom("kill")]),
    "is killed and traps exits": (traps, [Atom("kill")]),
    "says last words": (says_last_words, [Atom("shutdown"), None]),
    "is killed and says last words": (says_last_words, [Atom("kill")]),
    "calls in vain": (calls_in_vain, []),
    "serves and stops": (serves, [None]),
    "serves a call and stops": (serves_a_call, []),
}
"""What runs, and what is sent to it: the reason of an exit signal, or None for a message."""


@pytest.mark.parametrize("how", ENDS)
async def test_a_process_that_has_ended_is_freed_without_a_collection(epmd: object, how: str) -> None:
    """A flood of them would stop the node for a tenth of a second each time the collector walks them."""
    body, sent = ENDS[how]
    async with Node(unique_name(), cookie="c") as node, node.process() as me:
        node.spawn(traps, name="deaf")
        gc.disable()
        try:
            pid = node.spawn(body)
            process = weakref.ref(node.runtime.processes[pid.id])
            await asyncio.sleep(0)  # it runs, up to where it waits
            for each in sent:
                if each is None:
                    me.send(pid, 1)
                else:
                    me.exit(pid, each)
            await eventually(lambda: process() is None)
        finally:
            gc.enable()


async def test_what_a_peer_has_run_here_is_freed_without_a_collection(epmd: object) -> None:
    ran: list[weakref.ref[Process]] = []

    async def noted(fails: bool) -> str:
        ran.append(weakref.ref(current_process()))
        if fails:
            raise ValueError("bad quantity")
        return "done"

    async with Node(unique_name(), cookie="c") as node, Node(unique_name("other"), cookie="c") as other:
        node.exports.add("shop", noted, "noted")
        await other.connect(node.name)
        gc.disable()
        try:
            await other.erpc(node.name, "shop", "noted", [False])
            with pytest.raises(RemoteException):
                await other.erpc(node.name, "shop", "noted", [True])
            assert len(ran) == 2
            await eventually(lambda: not any(process() for process in ran))
        finally:
            gc.enable()


@pytest.mark.parametrize("reason", [Atom("boom"), Atom("kill")])
async def test_a_worker_that_has_ended_is_freed_without_a_collection(epmd: object, reason: Term) -> None:
    """Its link has a buffer of its own, and a tree may lose and start thousands of workers between two of them."""
    async with Node(unique_name(), cookie="c") as node, node.process() as me:
        await start(node, Supervisor().add(worker(tells, name="tells")))
        pid = await eventually(lambda: node.whereis("tells"))
        gc.disable()
        try:
            link = weakref.ref(node.workers.links[pid.serial])
            protocol = weakref.ref(node.workers.links[pid.serial].protocol)
            ref = me.make_ref()
            me.send(pid, (ref, me.pid))
            await me.receive(lambda m: m[0] == ref, timeout=20)  # type: ignore[index]
            me.exit(pid, reason)
            await eventually(lambda: link() is None and protocol() is None)
        finally:
            gc.enable()


async def counts_what_is_kept_of_children(me: Process) -> None:
    """In the OS process of a supervisor, where nothing is collected from now on."""
    gc.disable()
    while True:
        message = await me.receive()
        assert isinstance(message, tuple)
        kept = sum(isinstance(each, Running | OsProcess) for each in gc.get_objects())
        me.send(message[1], (message[0], kept))  # type: ignore[arg-type]


@pytest.mark.parametrize("limits", [{}, {"memory_limit": 2**40}, {"heartbeat": 60.0}], ids=str)
async def test_a_supervisor_keeps_nothing_of_children_that_ended(
    epmd: object, limits: dict[str, Any]
) -> None:
    below = Supervisor(intensity=1000, period=1)
    below.add(worker(counts_what_is_kept_of_children, name="counts", isolation="task"))
    below.add(worker(tells, name="tells", **limits))
    async with Node(unique_name(), cookie="c") as node, node.process() as me:
        await start(node, Supervisor().add(supervisor(below)))

        async def ask(name: str) -> Any:
            ref = me.make_ref()
            me.send(name, (ref, me.pid))
            message: Any = await me.receive(lambda m: isinstance(m, tuple) and m[0] == ref, timeout=20)
            return message[1]

        async def kept() -> int:
            return int(await ask("counts"))

        before = await kept()
        for _ in range(5):
            pid = await eventually(lambda: node.whereis("tells"))
            await ask("tells")
            me.exit(pid, Atom("kill"))
            await eventually(lambda pid=pid: node.whereis("tells") not in (None, pid))  # type: ignore[misc]
        await ask("tells")
        assert await kept() == before


async def test_an_attempt_to_reach_a_node_is_freed_without_a_collection(epmd: object) -> None:
    """Its error knows what had been called, and that knew the attempt."""
    async with Node(unique_name(), cookie="c") as node, Node(unique_name("other"), cookie="d") as other:

        async def fails(name: str) -> weakref.ref[BaseException]:
            try:
                await node.connect(name)
            except DistributionError as error:
                return weakref.ref(error)
            raise AssertionError(name)

        gc.disable()
        try:
            for name in (unique_name("nobody"), other.name):
                failure = await fails(name)
                await eventually(lambda failure=failure: failure() is None)  # type: ignore[misc]
        finally:
            gc.enable()


async def test_what_is_done_later_is_freed_once_it_is_done() -> None:
    """A timer refers to what it calls, and that to the timer which it forgets."""
    processes = OsProcesses(owns_orphans=False)
    run: Any = Running(None, None, None, None)  # type: ignore[arg-type]
    done: list[str] = []
    gc.disable()
    try:
        for later in (processes._later, run.later, run.allow):
            action = lambda: done.append("done")  # noqa: E731
            freed = weakref.ref(action)
            later(0.001, action)
            del action
            await eventually(lambda freed=freed: freed() is None)  # type: ignore[misc]
        assert done == ["done"] * 3
    finally:
        gc.enable()
        await processes.close()
