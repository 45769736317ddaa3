"""``python -m tests.benchmarks.python_peer NAME COOKIE LOOP``: what ``pyglyn_bench.erl`` does, as a user's program would.

The passive roles are in the hub (``bench_…``) and in workers (``worker_…``); what a peer does by itself is exported.
"""

from __future__ import annotations

import asyncio
import sys
import time

from pyglyn import GenServer, Node, Pid, Process, export, loops
from pyglyn.etf import Atom, Term
from pyglyn.supervision import Supervisor, start, worker
from tests.benchmarks import node as roles

SINKS = [f"bench_sink_{number}" for number in range(1, 9)]


class Server(GenServer):
    """Replies with the request."""

    async def handle_call(self, request: Term, caller: object) -> Term:
        return request


async def echo(me: Process) -> None:
    """Answers a pid."""
    while True:
        match await me.receive():
            case Pid() as asker:
                me.send(asker, me.pid)


async def flooder(me: Process) -> None:
    """Floods a sink, and says how long that took."""
    while True:
        match await me.receive():
            case (Atom("flood"), Pid() as asker, sink, int() as count, message):
                me.send(asker, (Atom("flooded"), await flood(me, sink, count, message)))


def target(to: Term) -> tuple[str, str]:
    """``{Name, Node}`` of Erlang."""
    match to:
        case (Atom(name), Atom(node)):
            return name, node
    raise ValueError("a name and a node")


@export("pyglyn_bench")
async def flood(me: Process, to: Term, count: int, message: Term) -> int:
    """Microseconds until a sink has got so many messages."""
    begun = time.perf_counter()
    sink = target(to)
    me.send(sink, (Atom("start"), me.pid, count))
    for _ in range(count):
        me.send(sink, message)
        await me.drain()
    await me.receive(lambda answer: answer is Atom("done"))
    return int((time.perf_counter() - begun) * 1e6)


@export("pyglyn_bench")
async def call_times(me: Process, to: Term, count: int) -> list[int]:
    """Nanoseconds of so many calls, the shortest first."""
    server, times = target(to), []
    for _ in range(count):
        begun = time.perf_counter_ns()
        await me.call(server, Atom("ok"))
        times.append(time.perf_counter_ns() - begun)
    return sorted(times)


async def main(name: str, cookie: str) -> None:
    """Serve until the end."""
    async with Node(name, cookie=cookie) as node:
        await node.start(Server, name="bench_server")
        node.spawn(echo, name="bench_echo")
        node.spawn(flooder, name="bench_flooder")
        for sink in ("bench_sink", *SINKS):
            node.spawn(roles.sink, name=sink)
        tree = Supervisor(name="bench_tree").add(worker(Server, name="worker_server"))
        for what, role in (("echo", echo), ("sink", roles.sink), ("flooder", flooder)):
            tree.add(worker(role, name=f"worker_{what}"))
        await start(node, tree)
        print("ready", flush=True)  # noqa: T201
        await node.run()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=loops.maker(sys.argv[3])) as runner:  # type: ignore[arg-type]
        runner.run(main(*sys.argv[1:3]))
