"""A node with a tree that has a process of each kind, and a BEAM node that asks about them."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import sys
from collections.abc import AsyncIterator
from typing import Any

import attrs

from pyglyn import Atom, Node, Pid, Process
from pyglyn.node import Settings
from pyglyn.supervision import Supervisor, program, start, worker
from pyglyn.testing import Beam, eventually
from tests.supervision.service import Probe

SHAPES = """
Shape = fun S(T) when is_atom(T) -> atom; S(T) when is_integer(T) -> integer; S(T) when is_pid(T) -> pid;
    S(T) when is_binary(T) -> binary; S(T) when is_map(T) -> maps:map(fun(_, V) -> S(V) end, T);
    S([]) -> list; S([{K, _} | _] = L) when is_atom(K) -> [{I, S(V)} || {I, V} <- L]; S(L) when is_list(L) -> list;
    S(T) when is_tuple(T) -> tuple_size(T) end,
"""


async def crowd(me: Process) -> None:
    """A worker with a light process beside it; never takes its messages."""

    async def beside(me: Process) -> None:
        me.dictionary["mood"] = "good"
        await me.register("beside")
        await asyncio.Event().wait()

    me.spawn(beside)
    await asyncio.Event().wait()


@attrs.frozen
class Asked:
    """A node with a tree, and the BEAM node that asks it."""

    node: Node
    beam: Beam

    async def erlang(self, function: str, *args: Any) -> Any:
        text = f"rpc:call(N, erlang, {function}, Args)"
        return await self.beam.eval(text, N=Atom(self.node.name), Args=list(args), timeout=60)

    def whereis(self, name: str) -> Pid:
        pid = self.node.whereis(name)
        assert pid is not None
        return pid


@contextlib.asynccontextmanager
async def asked_by(beam: Beam, settings: Settings | None = None) -> AsyncIterator[Asked]:
    """Start the node, and connect it."""
    sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
    tree = (
        Supervisor(name="top", intensity=50)
        .add(worker(Probe, name="a"))
        .add(worker(Probe, name="light", isolation="task"))
        .add(worker(crowd, name="crowd"))
        .add(program(sleep, name="slow"))
    )
    async with Node(f"info_{secrets.token_hex(4)}@localhost", cookie=beam.cookie, settings=settings) as node:
        await node.connect(beam.name)
        await start(node, tree)
        await eventually(lambda: node.whereis("beside") is not None, 30)
        yield Asked(node, beam)
