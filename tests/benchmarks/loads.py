"""``python -m tests.benchmarks loads``: how long a BEAM node waits for a ping while another one floods the node.

The node runs here, the one that asks and the one that floods are BEAM nodes. First the pings of a quiet node, then
those during each flood. On a machine with as few processors as there are nodes, they take time from each other too.
"""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Sequence
from typing import Final

import attrs
from rich.console import Console
from rich.table import Table

from pyglyn.etf import Atom, Pid
from pyglyn.node import Node, Process
from pyglyn.testing import Beam
from tests.benchmarks.harness import Bench

QUIET: Final = 3_000
AT_ONCE: Final = 20
PING: Final = "[element(1, timer:tc(net_adm, ping, [N])) || _ <- lists:seq(1, Count)]"

FLOODS: Final = {
    "monitors of one process": "[erlang:monitor(process, P) || _ <- lists:seq(1, Count)]",
    "monitors of nobody": "[erlang:monitor(process, {nobody, N}) || _ <- lists:seq(1, Count)]",
    "monitors that come and go": "[erlang:demonitor(erlang:monitor(process, P)) || _ <- lists:seq(1, Count)]",
    "links that come and go": "[begin link(P), unlink(P) end || _ <- lists:seq(1, Count)]",
    "links of processes that end": "[spawn(fun() -> link(P) end) || _ <- lists:seq(1, Count)]",
    "spawn requests": "[spawn_request(N, erlang, node, [], [{reply, no}]) || _ <- lists:seq(1, Count)]",
    "calls that nobody reads": "[erpc:send_request(N, erlang, node, []) || _ <- lists:seq(1, Count div 4)]",
    "messages to nobody": "[{nobody, N} ! x || _ <- lists:seq(1, Count)]",
    "messages that are dropped": "[P ! {x, I} || I <- lists:seq(1, Count)]",
    "atoms": '[P ! list_to_atom("a" ++ integer_to_list(I)) || I <- lists:seq(1, min(Count, 500000))]',
    "messages of 100 kB": "[P ! binary:copy(<<I>>, 100000) || I <- lists:seq(1, Count div 200)]",
}
"""In Erlang: each is run by a process of its own, with the node, a pid there, and how many."""


@attrs.frozen
class Waited:
    """How long pings took.

    Attributes:
        load: beside what.
        p50_us, p99_us: in microseconds.
        pings: how many there were.
    """

    load: str
    p50_us: float
    p99_us: float
    pings: int

    @classmethod
    def of(cls, load: str, waits_us: Sequence[float]) -> Waited:
        """Sum up."""
        cuts = statistics.quantiles(waits_us, n=100)
        return cls(load, cuts[49], cuts[98], len(waits_us))


async def _deaf(me: Process) -> None:
    while True:
        await me.receive()


async def _pings(beam: Beam, node: Node, count: int) -> list[float]:
    waits = await beam.eval(PING, timeout=600, N=Atom(node.name), Count=count)
    assert isinstance(waits, list)
    return [float(each) for each in waits]


async def _flooded(bench: Bench, node: Node, flooding: Beam, load: str, count: int) -> Waited:
    """The pings from the first to the last message of a flood."""
    target = node.spawn(_deaf)
    assert isinstance(target, Pid)
    body = f"fun() -> {FLOODS[load]}, net_adm:ping(N) end"
    flood = f"{{_, R}} = spawn_monitor({body}), receive {{'DOWN', R, _, _, _}} -> ok end"
    running = asyncio.ensure_future(
        flooding.eval(flood, timeout=3600, N=Atom(node.name), P=target, Count=count)
    )
    waits: list[float] = []
    while not running.done() or len(waits) < 2 * AT_ONCE:
        waits += await _pings(bench.peer, node, AT_ONCE)
    await running
    node.system.exit(target, Atom("kill"))
    return Waited.of(load, waits)


async def run(bench: Bench, count: int) -> list[Waited]:
    """Ping beside each of the floods, of about so many messages."""
    async with Node("loaded@localhost", cookie=bench.peer.cookie) as node:
        flooding = await bench.beams.start("flooding", hidden=True)
        for beam in (bench.peer, flooding):
            await node.connect(beam.name)
        quiet = await _pings(bench.peer, node, QUIET)
        found = [Waited.of("quiet", quiet)]
        for load in FLOODS:
            found.append(await _flooded(bench, node, flooding, load, count))  # noqa: PERF401
        await flooding.stop()
    return found


def show(found: Sequence[Waited], console: Console) -> None:
    """Print a table."""
    table = Table("beside", "pings", "p50", "p99", "p99 to quiet")
    for each in found:
        ratio = each.p99_us / found[0].p99_us
        table.add_row(
            each.load,
            f"{each.pings:,}",
            f"{each.p50_us / 1000:.2f} ms",
            f"{each.p99_us / 1000:.2f} ms",
            f"{ratio:.1f}",
        )
    console.print(table)
