"""A slow peer suspends those that send to it; memory stays bounded."""

from __future__ import annotations

import asyncio

import pytest

from pyglyn.dist.control import RegSend
from pyglyn.errors import NodeBusy
from pyglyn.etf import Atom, encode_parts
from pyglyn.node import Node, Process, Settings
from pyglyn.node.backpressure import (
    LINK_TO_HUB,
    MOST_ANSWERS,
    BusyNodes,
    FewATurn,
    PausedSources,
    Pauses,
    Waits,
)
from pyglyn.testing import eventually
from tests.net.conftest import Recorder
from tests.node.conftest import unique_name

MEGABYTE = 1024 * 1024
COUNTER = "register(sink, spawn(fun() -> F = fun F(N) -> receive {count, P} -> P ! {n, N}, F(N); _ -> F(N + 1) end end, F(0) end))"


async def test_a_process_that_sends_to_a_stopped_peer_waits_and_nothing_is_lost(beam, node):
    await beam.eval(COUNTER)
    await node.connect(beam.name)
    sent = 0

    async def flood(me: Process) -> None:
        nonlocal sent
        while sent < 64:
            me.send(("sink", beam.name), bytes(MEGABYTE))
            sent += 1
            await me.drain()

    beam.suspend()
    node.spawn(flood)
    connection = node.peers.get(beam.name)
    assert connection is not None
    await eventually(lambda: connection.busy)
    before = -1
    while before != sent:  # the socket's own buffers fill up first
        before = sent
        for _ in range(20):
            await asyncio.sleep(0)
    assert sent < 64
    assert connection.queued_bytes < 4 * MEGABYTE
    beam.resume()
    await eventually(lambda: sent == 64, timeout=30)
    async with node.process() as me:
        me.send(("sink", beam.name), (Atom("count"), me.pid))
        total = await me.receive(timeout=30)
    assert total[0] is Atom("n")
    assert total[1] <= 64
    await eventually(lambda: count_is(node, beam.name, 64), timeout=30)


async def test_a_peer_that_does_not_read_stops_no_answer_to_others(epmd, caplog):
    """It pings and pings, and much is queued for it: what it is answered is dropped after a while, and counted."""
    async with Node(unique_name(), cookie="c") as node, Node(unique_name("other"), cookie="c") as other:
        deaf = Recorder(unique_name("deaf"), "c", True, None)
        await deaf.peers.start()
        await node.connect(deaf.name)
        await eventually(lambda: deaf.ups)
        theirs, ours = deaf.ups[0], node.hub.peers.get(deaf.name)
        assert ours is not None
        theirs.pause_reading()
        while not ours.busy:
            node.send(("sink", deaf.name), bytes(MEGABYTE))
            await asyncio.sleep(0)
        queued = ours.queued_bytes
        request = (Atom("is_auth"), Atom(deaf.name))
        for number in range(MOST_ANSWERS + 500):
            call = (Atom("$gen_call"), (deaf.pid(), number), request)
            theirs.send(RegSend(deaf.pid(), Atom("net_kernel")), encode_parts(call))
        await eventually(lambda: node.hub.runtime.busy._answers[deaf.name] == MOST_ANSWERS + 500, timeout=20)
        assert await other.ping(node.name)
        assert ours.queued_bytes < queued + 200 * MOST_ANSWERS
        theirs.resume_reading()
        await eventually(lambda: f"500 answers to {deaf.name} were dropped" in caplog.text, timeout=20)
        await deaf.peers.stop()


def send_again(me: Process, to: tuple[str, str], count: int) -> None:
    for _ in range(count):
        me.send(to, bytes(MEGABYTE))


async def count_is(node: Node, where: str, expected: int) -> bool:
    async with node.process() as me:
        me.send(("sink", where), (Atom("count"), me.pid))
        return (await me.receive(timeout=30))[1] == expected


async def test_a_loop_that_never_waits_is_told_before_memory_runs_out(beam):
    async with Node(unique_name(), cookie=beam.cookie, settings=Settings(send_limit=8 * MEGABYTE)) as node:
        await node.connect(beam.name)
        beam.suspend()
        async with node.process() as me:
            with pytest.raises(NodeBusy, match=r"me\.drain"):
                send_again(me, ("sink", beam.name), 1000)
        beam.resume()


def test_who_sends_to_a_busy_node_has_something_to_wait_for() -> None:
    busy = BusyNodes()
    assert busy.over("a@h") is None
    busy.begin("a@h")
    event = busy.over("a@h")
    assert event is not None
    busy.begin("a@h")
    assert busy.over("a@h") is event
    assert busy.over("b@h") is busy.over(None) is None
    assert [*busy] == ["a@h"]
    assert not event.is_set()
    assert busy.end("a@h")
    assert event.is_set()
    assert busy.over("a@h") is None
    assert not busy.end("a@h")


def test_everything_waits_for_a_busy_link_to_the_hub() -> None:
    busy = BusyNodes()
    busy.begin("a@h")
    busy.begin(LINK_TO_HUB)
    link = busy.over(None)
    assert link is not None
    assert busy.over("a@h") is busy.over("b@h") is link
    busy.end(LINK_TO_HUB)
    assert busy.over("a@h") is not link
    assert busy.over(None) is None


async def test_a_process_waits_for_all_it_sent_much_to_also_what_comes_meanwhile() -> None:
    waits, first, second, third = Waits(), asyncio.Event(), asyncio.Event(), asyncio.Event()
    for event in (first, None, second, first):
        waits.add(event)
    assert len(waits) == 2
    draining = [asyncio.ensure_future(waits.drain()) for _ in range(2)]
    await asyncio.sleep(0)
    waits.add(third)
    for event in (second, first):
        event.set()
        for _ in range(5):
            await asyncio.sleep(0)
        assert not any(task.done() for task in draining)
    third.set()
    await asyncio.gather(*draining)
    assert len(waits) == 0


async def test_a_wait_that_is_given_up_is_still_to_be_waited_for() -> None:
    waits, event = Waits(), asyncio.Event()
    waits.add(event)
    draining = asyncio.ensure_future(waits.drain())
    await asyncio.sleep(0)
    draining.cancel()
    await asyncio.gather(draining, return_exceptions=True)
    assert len(waits) == 1


class Source:
    """Counts how often it is paused and resumed."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def pause_reading(self) -> None:
        self.calls.append("pause")

    def resume_reading(self) -> None:
        self.calls.append("resume")


def test_a_source_is_paused_once_and_resumed_once() -> None:
    paused, a, b = PausedSources(Pauses()), Source(), Source()
    for source in (a, b, a):
        paused.pause(source)
    paused.resume()
    paused.resume()
    assert a.calls == b.calls == ["pause", "resume"]
    paused.pause(a)
    assert a.calls == ["pause", "resume", "pause"]


def test_a_source_that_two_workers_are_behind_with_is_read_when_both_have_caught_up() -> None:
    pauses, source = Pauses(), Source()
    one, other = PausedSources(pauses), PausedSources(pauses)
    one.pause(source)
    other.pause(source)
    one.resume()
    assert source.calls == ["pause"]
    other.resume()
    assert source.calls == ["pause", "resume"]


async def test_a_source_begins_few_things_a_turn_and_goes_on_in_the_next() -> None:
    pauses, often, seldom = Pauses(), Source(), Source()
    few = FewATurn(3, pauses)
    for _ in range(2):
        for _ in range(3):
            few.count(often)
        few.count(seldom)
        assert often.calls[-1:] == ["pause"]
        await asyncio.sleep(0)
        assert often.calls[-1:] == ["resume"]
    few.count(often)
    few.count(often)
    await asyncio.sleep(0)
    assert often.calls == ["pause", "resume"] * 2
    assert not seldom.calls
    behind = PausedSources(pauses)
    behind.pause(often)
    for _ in range(4):  # some that had been read before it was paused
        few.count(often)
    await asyncio.sleep(0)
    assert often.calls[-1:] == ["pause"]
    behind.resume()
    assert often.calls[-1:] == ["resume"]
