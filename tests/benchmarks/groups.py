"""A pg scope with 10,000 members in 1,000 groups: how fast it gets to a new node, and what it takes there."""

from __future__ import annotations

import gc
import time
import tracemalloc
from collections.abc import AsyncIterator

from pyglyn.etf import Atom
from pyglyn.groups import pg
from pyglyn.node import Node, Process
from pyglyn.testing import Beam, eventually
from tests.benchmarks.harness import QUICK, Bench, Measurement

GROUP = "groups"
MIB = 1024 * 1024
FILL = (
    "{ok, _} = pg:start(S), "
    "[pg:join(S, {group, G}, [spawn(fun() -> receive stop -> ok end end) || _ <- lists:seq(1, N)])"
    " || G <- lists:seq(1, Gs)], ok"
)
# A hidden node has to speak first, as ours does.
SYNC = (
    "garbage_collect(), M = erlang:memory(total), T = erlang:monotonic_time(microsecond), "
    "{ok, P} = pg:start(S), {S, Peer} ! {discover, P}, "
    "(fun F() -> case length(pg:which_groups(S)) of Gs -> ok; _ -> erlang:yield(), F() end end)(), "
    "D = erlang:monotonic_time(microsecond) - T, garbage_collect(P), {D, erlang:memory(total) - M}"
)
STOP = "exit(whereis(S), kill), (fun F() -> case whereis(S) of undefined -> ok; _ -> F() end end)()"


async def idle(me: Process) -> None:
    """A member."""
    await me.receive(lambda message: False)


async def groups(bench: Bench) -> AsyncIterator[Measurement]:
    """Sync in both directions, and memory."""
    members, count = (100, 10) if bench.scale == QUICK else (10_000, 1_000)
    peer, hidden = bench.peer, bench.hidden
    theirs, ours_scope, beam_scope = Atom("bench_theirs"), Atom("bench_ours"), Atom("bench_beam")
    memory: dict[str, list[int]] = {"ours": [], "beam": []}
    await peer.eval(FILL, S=theirs, N=members // count, Gs=count, timeout=60)
    await hidden.eval(FILL, S=beam_scope, N=members // count, Gs=count, timeout=60)
    async with Node("bench_groups@localhost", cookie=peer.cookie) as local:
        await local.connect(peer.name)
        mine = pg.start(local, ours_scope.name)
        for group in range(count):
            mine.join((Atom("group"), group), [local.spawn(idle) for _ in range(members // count)])

        async def synced_here() -> float:
            started = time.perf_counter()
            scope = pg.start(local, theirs.name)
            await eventually(lambda: len(scope.which_groups()) == count, 60)
            took = time.perf_counter() - started
            pg.stop(local, theirs.name)
            return took

        async def synced_on_the_beam() -> float:
            arguments = {"S": theirs, "Peer": Atom(peer.name), "Gs": count}
            took, taken = await hidden.eval(SYNC, timeout=60, **arguments)  # type: ignore[misc]
            memory["beam"].append(int(taken))
            await hidden.eval(STOP, S=theirs)
            return took / 1e6

        yield await bench.compare(
            GROUP, "members of a peer taken up", members, synced_here, synced_on_the_beam
        )
        memory["ours"].append(await _memory(local, theirs.name, count))
        per_mib = {side: members * MIB / max(1, min(taken)) for side, taken in memory.items()}
        yield Measurement(GROUP, "members of a peer held in a MiB", per_mib["ours"], per_mib["beam"])

        async def given(scope: Atom, owner: str) -> float:
            took = await _given_to(peer, scope, owner, count)
            return took / 1e6

        yield await bench.compare(
            GROUP,
            "members given to a new peer",
            members,
            lambda: given(ours_scope, local.name),
            lambda: given(beam_scope, hidden.name),
        )


async def _given_to(peer: Beam, scope: Atom, owner: str, count: int) -> int:
    arguments = {"S": scope, "Peer": Atom(owner), "Gs": count}
    took, _ = await peer.eval(SYNC, timeout=60, **arguments)  # type: ignore[misc]
    await peer.eval(STOP, S=scope)
    return int(took)


async def _memory(local: Node, scope: str, count: int) -> int:
    gc.collect()
    tracemalloc.start()
    try:
        begin, _ = tracemalloc.get_traced_memory()
        started = pg.start(local, scope)
        await eventually(lambda: len(started.which_groups()) == count, 60)
        gc.collect()
        end, _ = tracemalloc.get_traced_memory()
        return end - begin
    finally:
        tracemalloc.stop()
        pg.stop(local, scope)
