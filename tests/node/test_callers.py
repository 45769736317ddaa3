"""Calls of other nodes, many, slow or unread: none of them holds up those of somebody else."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Callable

import pytest
import pytest_asyncio

from pyglyn.dist.control import MonitorP, SpawnReply, SpawnRequest
from pyglyn.etf import Atom, Reference, encode_parts
from pyglyn.net import NetSettings
from pyglyn.node import Exports, Node, Process, Settings, census
from pyglyn.node.threads import MAX_THREADS, Threads
from pyglyn.testing import Beam, eventually
from tests.net.conftest import Recorder
from tests.node.conftest import unique_name


async def idle(me: Process) -> None:
    await me.receive()


def held(gate: threading.Event, begun: list[str], name: str) -> Callable[[], str]:
    def work() -> str:
        begun.append(name)
        gate.wait(60)
        return name

    return work


async def test_a_function_whose_calls_hang_holds_up_no_other() -> None:
    threads, gate, other = Threads(limit=3), threading.Event(), threading.Event()
    begun: list[str] = []
    slow, quick = held(gate, begun, "slow"), held(other, begun, "quick")
    hanging = [asyncio.ensure_future(threads.run(slow)) for _ in range(10)]
    await eventually(lambda: begun == ["slow"] * 3)
    waiting = [asyncio.ensure_future(threads.run(quick)) for _ in range(2)]
    await eventually(lambda: begun.count("quick") == 1)
    other.set()
    assert await asyncio.gather(*waiting) == ["quick"] * 2
    assert begun.count("slow") == 3
    gate.set()
    assert await asyncio.gather(*hanging) == ["slow"] * 10


async def test_where_calls_wait_the_functions_take_turns() -> None:
    threads, gate, begun = Threads(limit=1), threading.Event(), []  # type: ignore[var-annotated]
    names = ["a", "b"]
    works = [held(gate, begun, name) for name in names]
    calls = [asyncio.ensure_future(threads.run(work)) for work in works for _ in range(4)]
    await eventually(lambda: len(begun) == 2)
    before = threading.active_count()
    gate.set()
    await asyncio.gather(*calls)
    assert begun.count("a") == begun.count("b") == 4
    assert threading.active_count() <= before
    assert not threads._running
    assert not threads._waiting


@pytest_asyncio.fixture
async def callee(beam: Beam) -> AsyncIterator[tuple[Node, threading.Event]]:
    """A node with a function that waits for an event, and one that does not."""
    gate = threading.Event()
    exports = Exports()
    exports.add("slow", lambda: gate.wait(60), "wait")
    exports.add("quick", lambda: b"here", "answer")
    settings = Settings(calls_of_a_node=400)
    async with Node(unique_name(), cookie=beam.cookie, exports=exports, settings=settings) as node:
        yield node, gate
        gate.set()


async def test_calls_that_block_leave_other_functions_to_others(
    beam: Beam, callee: tuple[Node, threading.Event]
) -> None:
    node, gate = callee
    many = MAX_THREADS + 40
    await beam.eval(
        "register(caller, spawn(fun() ->"
        f" Ids = [erpc:send_request(N, slow, wait, []) || _ <- lists:seq(1, {many})],"
        " Answers = [erpc:receive_response(Id) || Id <- Ids], receive {P, count} -> P ! length(Answers) end"
        " end)), ok",
        N=Atom(node.name),
    )
    await eventually(lambda: len(node.runtime.processes) > many, timeout=30)
    assert await beam.eval("rpc:call(N, quick, answer, [])", N=Atom(node.name)) == b"here"
    assert await beam.eval("erpc:call(N, erlang, node, [])", N=Atom(node.name)) == Atom(node.name)
    gate.set()
    assert await beam.eval("caller ! {self(), count}, receive C -> C end", timeout=60) == many


async def test_a_node_with_too_many_calls_is_told_so(
    beam: Beam, callee: tuple[Node, threading.Event]
) -> None:
    node, gate = callee
    node_name = Atom(node.name)
    await beam.eval("Ids = [erpc:send_request(N, slow, wait, []) || _ <- lists:seq(1, 400)], ok", N=node_name)
    await eventually(lambda: len(node.runtime.processes) > 400, timeout=30)
    refused = await beam.eval("try erpc:call(N, erlang, node, []) catch C:R -> {C, R} end", N=node_name)
    assert refused == (Atom("error"), (Atom("erpc"), Atom("system_limit")))
    refused = await beam.eval("rpc:block_call(N, erlang, node, [])", N=node_name)
    assert refused == (Atom("badrpc"), (Atom("EXIT"), Atom("system_limit")))
    gate.set()
    await eventually(lambda: len(node.runtime.processes) < 100, timeout=30)
    assert await beam.eval("erpc:call(N, erlang, node, [])", N=node_name) == node_name


FORGED = """
Name = atom_to_binary(Victim),
Forged = fun(I) -> binary_to_term(<<131, 88, 119, (byte_size(Name)), Name/binary, I:32, 0:32, 7:32>>) end,
"""


async def test_calls_in_the_name_of_another_node_are_those_of_the_node_that_sends_them(
    beam: Beam, callee: tuple[Node, threading.Event]
) -> None:
    node, gate = callee
    names = {"N": Atom(node.name), "Victim": Atom("victim@localhost")}
    old = "{P, {call, slow, wait, [], P}}", "{'$gen_call', {P, make_ref()}, {call, slow, wait, [], P}}"
    casts = ("{'$gen_cast', {cast, slow, wait, [], P}}",)
    for message in (*old, *casts):
        await beam.eval(
            f"{FORGED} [begin P = Forged(I), {{rex, N}} ! {message} end || I <- lists:seq(1, 150)], ok",
            **names,
        )
    spawn = "{'$gen_call', {P, make_ref()}, {spawn, slow, wait, [], P}}"
    await beam.eval(
        f"{FORGED} [begin P = Forged(I), {{net_kernel, N}} ! {spawn} end || I <- [1, 2, 3]], ok", **names
    )
    await eventually(lambda: len(node.services.callers) == 400, timeout=60)
    assert node.services.callers._running == {beam.name: 400}
    gate.set()
    await eventually(lambda: not len(node.services.callers), timeout=60)


async def deaf_to(node: Node) -> Recorder:
    """A peer that reads nothing any more."""
    deaf = Recorder(unique_name("deaf"), "c", True, None)
    await deaf.peers.start()
    await node.connect(deaf.name)
    await eventually(lambda: deaf.ups)
    deaf.ups[0].pause_reading()
    ours = node.hub.peers.get(deaf.name)
    assert ours is not None
    for connection, option in ((ours, socket.SO_SNDBUF), (deaf.ups[0], socket.SO_RCVBUF)):
        assert connection._transport is not None
        connection._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, option, 4096)
    return deaf


async def test_calls_whose_answers_are_not_read_do_not_run(
    epmd: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each lists all calls that wait: run at once, they would have kept the node busy for minutes."""
    trees = 0
    real = census.Census.tree

    async def counted(self: census.Census) -> object:
        nonlocal trees
        trees += 1
        return await real(self)

    monkeypatch.setattr(census.Census, "tree", counted)
    settings = Settings(net=NetSettings(busy_limit=100_000))
    async with (
        Node(unique_name(), cookie="c", settings=settings) as node,
        Node(unique_name("other"), cookie="c") as other,
    ):
        deaf = await deaf_to(node)
        theirs, ours = deaf.ups[0], node.hub.peers.get(deaf.name)
        assert ours is not None
        for _ in range(50):
            node.spawn(idle)
        args = encode_parts([Reference(deaf.name, 1, (1, 2, 3)), Atom("pyglyn"), Atom("tree"), []])
        mfa = (Atom("erpc"), Atom("execute_call"), 4)
        for number in range(100):
            ref = Reference(deaf.name, deaf.local.creation, (number, 0, 0))
            theirs.send(SpawnRequest(ref, deaf.pid(), deaf.pid(), mfa, [Atom("monitor")]), args)
        assert await other.ping(node.name, 30.0)
        await eventually(lambda: ours.busy, timeout=30)
        ran = trees
        assert ran < 90
        for _ in range(5):
            assert await other.ping(node.name, 30.0)
        assert trees <= ran + 1
        assert ours.queued_bytes < 3_000_000
        theirs.resume_reading()
        await eventually(lambda: sum(type(c) is SpawnReply for c, _ in deaf.messages) == 100, timeout=60)
        await deaf.peers.stop()
        await eventually(lambda: not len(node.services.callers), timeout=60)


async def test_a_peer_that_asks_for_signals_and_does_not_read_is_closed_at_the_limit(epmd: object) -> None:
    settings = Settings(send_limit=300_000)
    async with Node(unique_name(), cookie="c", settings=settings) as node:
        deaf = await deaf_to(node)
        theirs = deaf.ups[0]
        for number in range(20_000):
            ref = Reference(deaf.name, deaf.local.creation, (number & 0x3FFFF, number >> 18, 0))
            theirs.send(MonitorP(deaf.pid(), Atom("nobody"), ref))
            if number % 1000 == 0:
                await asyncio.sleep(0)
        await eventually(lambda: not node.nodes(), timeout=30)
        await deaf.peers.stop()
