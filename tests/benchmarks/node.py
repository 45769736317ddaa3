"""Calls and messages between a Python node and a BEAM peer, beside a hidden BEAM node doing the same."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

from pyglyn.etf import Atom, Pid, Term, text
from pyglyn.node import GenServer, Node, Process
from pyglyn.testing import Beam
from tests.benchmarks.harness import Bench, Measurement

GROUP = "node"
EVENT = text.parse(
    '{<<"inventory">>, {process_events, <<"order_001">>, [{memory_store_event_envelop, <<"order_001">>, 1, '
    '{order_created, <<"order_001">>, [{item, {product, <<"laptop">>, <<"Gaming Laptop">>, 20}, 1}], 20}, []}]}}'
)


class Echo(GenServer):
    """Replies with the request."""

    async def handle_call(self, request: Term, caller: object) -> Term:
        return request


async def sink(me: Process) -> None:
    """The role ``sink`` of ``pyglyn_bench.erl``."""
    while True:
        match await me.receive():
            case (Atom("start"), Pid() as sender, int() as count):
                for _ in range(count):
                    await me.receive()
                me.send(sender, Atom("done"))


async def call_again(me: Process, server: tuple[str, str], count: int) -> float:
    """Seconds that so many calls take, one after the other."""
    started = time.perf_counter()
    for n in range(count):
        await me.call(server, n)
    return time.perf_counter() - started


async def flood(me: Process, to: tuple[str, str], count: int, term: Term = EVENT) -> float:
    """Seconds until a sink has said that it got so many messages."""
    started = time.perf_counter()
    me.send(to, (Atom("start"), me.pid, count))
    for _ in range(count):
        me.send(to, term)
        await me.drain()
    await me.receive(lambda m: m is Atom("done"))
    return time.perf_counter() - started


async def node(bench: Bench) -> AsyncIterator[Measurement]:
    """Each direction of calls and of messages."""
    peer, hidden = bench.peer, bench.hidden
    calls, messages = bench.scale.count(5e-4), bench.scale.count(3e-5)
    async with Node("bench_python@localhost", cookie=peer.cookie) as local, local.process() as me:
        await local.start(Echo, name="bench_server")
        local.spawn(sink, name="bench_sink")

        async def called(by: Beam, where: str) -> float:
            ask = "pyglyn_bench:calls({bench_server, Node}, N)"
            return await by.eval(ask, Node=Atom(where), N=calls, timeout=60) / 1e6

        async def flooded(by: Beam, where: str) -> float:
            ask = "pyglyn_bench:flood({bench_sink, Node}, N, Event)"
            return await by.eval(ask, Node=Atom(where), N=messages, Event=EVENT, timeout=60) / 1e6

        server, drain = ("bench_server", peer.name), ("bench_sink", peer.name)
        yield await bench.compare(
            GROUP,
            "gen_server calls answered",
            calls,
            lambda: called(peer, local.name),
            lambda: called(peer, hidden.name),
        )
        yield await bench.compare(
            GROUP,
            "gen_server calls made",
            calls,
            lambda: call_again(me, server, calls),
            lambda: called(hidden, peer.name),
        )
        yield await bench.compare(
            GROUP,
            "event messages in",
            messages,
            lambda: flooded(peer, local.name),
            lambda: flooded(peer, hidden.name),
        )
        yield await bench.compare(
            GROUP,
            "event messages out",
            messages,
            lambda: flood(me, drain, messages),
            lambda: flooded(hidden, peer.name),
        )
