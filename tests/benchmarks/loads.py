"""``python -m tests.benchmarks loads``: how long a BEAM node waits for a ping while another one floods the node.

The node runs here, the one that asks and the one that floods are BEAM nodes. First the pings of a quiet node, then
those during each flood; and the same once more with a hidden BEAM node in the place of ours. On a machine with fewer
processors than nodes, they take time from each other too: what the BEAM's pings become is the machine's part.
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
        p50_us, p99_us: in microseconds.
        pings: how many there were.
    """

    p50_us: float
    p99_us: float
    pings: int

    @classmethod
    def of(cls, waits_us: Sequence[float]) -> Waited:
        """Sum up."""
        cuts = statistics.quantiles(waits_us, n=100)
        return cls(cuts[49], cuts[98], len(waits_us))


@attrs.frozen
class Beside:
    """The pings of our node and those of a BEAM node, beside the same load.

    Attributes:
        load: which one; ``quiet`` for none.
        ours, beam: of whom.
    """

    load: str
    ours: Waited
    beam: Waited


@attrs.frozen
class Flooded:
    """A node that is flooded.

    Attributes:
        name: the node.
        target: a process there that reads its messages, and does nothing with them.
    """

    name: str
    target: Pid


async def _deaf(me: Process) -> None:
    while True:
        await me.receive()


async def _pings(beam: Beam, node: Flooded, count: int) -> list[float]:
    waits = await beam.eval(PING, timeout=600, N=Atom(node.name), Count=count)
    assert isinstance(waits, list)
    return [float(each) for each in waits]


async def _flooded(bench: Bench, node: Flooded, flooding: Beam, load: str, count: int) -> Waited:
    """The pings from the first to the last message of a flood."""
    body = f"fun() -> {FLOODS[load]}, net_adm:ping(N) end"
    flood = f"{{_, R}} = spawn_monitor({body}), receive {{'DOWN', R, _, _, _}} -> ok end"
    running = asyncio.ensure_future(
        flooding.eval(flood, timeout=3600, N=Atom(node.name), P=node.target, Count=count)
    )
    waits: list[float] = []
    while not running.done() or len(waits) < 2 * AT_ONCE:
        waits += await _pings(bench.peer, node, AT_ONCE)
    await running
    return Waited.of(waits)


async def run(bench: Bench, count: int) -> list[Beside]:
    """Ping beside each of the floods, of about so many messages."""
    async with Node("loaded@localhost", cookie=bench.peer.cookie) as node:
        flooding = await bench.beams.start("flooding", hidden=True)
        for beam in (bench.peer, flooding):
            await node.connect(beam.name)
        theirs = await bench.hidden.eval("spawn(fun F() -> receive _ -> F() end end)")
        ours = node.spawn(_deaf)
        assert isinstance(theirs, Pid)
        assert isinstance(ours, Pid)
        both = Flooded(node.name, ours), Flooded(bench.hidden.name, theirs)
        found = [Beside("quiet", *[Waited.of(await _pings(bench.peer, each, QUIET)) for each in both])]
        for load in FLOODS:
            waited = [await _flooded(bench, each, flooding, load, count) for each in both]
            found.append(Beside(load, *waited))
        await flooding.stop()
    return found


def show(found: Sequence[Beside], console: Console) -> None:
    """Print a table."""
    table = Table("beside", "pings", "p50", "p99", "to quiet", "BEAM: pings", "p50", "p99", "to quiet")
    for each in found:
        cells: list[str] = []
        for waited, quiet in ((each.ours, found[0].ours), (each.beam, found[0].beam)):
            cells += [
                f"{waited.pings:,}",
                f"{waited.p50_us / 1000:.2f} ms",
                f"{waited.p99_us / 1000:.2f} ms",
                f"{waited.p99_us / quiet.p99_us:.1f}",
            ]
        table.add_row(each.load, *cells)
    console.print(table)
