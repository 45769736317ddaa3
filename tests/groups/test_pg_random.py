"""Random histories of real pg scopes and ours over three nodes; a failure prints its seed.

``PYGLYN_SEED=<seed>`` runs that one again: the same steps, though not the same timing.
"""

from __future__ import annotations

import os
import random
import secrets
from collections import Counter
from typing import Any

from pyglyn.etf import Atom, Pid
from pyglyn.groups import pg
from pyglyn.node import Node
from pyglyn.testing import Beam, Beams, eventually
from tests.groups.conftest import StartNode, idle

STEPS = 60
GROUPS = [b"a", (Atom("t"), 1), 1, 1.0]
SCOPE = Atom("scope")
MEMBER = "spawn(fun() -> receive stop -> ok end end)"


class RealHistory:
    """Two Python nodes and a BEAM node, and what the scope on each of them has been told to hold."""

    def __init__(self, seed: int, ours: list[Node], beam: Beam) -> None:
        self.random = random.Random(seed)
        self.ours = ours
        self.beam = beam
        self.nodes: list[Node | Beam] = [*ours, beam]
        self.members: dict[str, list[Pid]] = {node.name: [] for node in self.nodes}
        self.truth: dict[str, Counter[tuple[Any, Pid]]] = {node.name: Counter() for node in self.nodes}
        self.beam_has_scope = True

    async def spawn(self, node: Node | Beam) -> None:
        pid = node.spawn(idle) if isinstance(node, Node) else await node.eval(MEMBER)
        assert isinstance(pid, Pid)
        self.members[node.name].append(pid)

    async def join_or_leave(self, node: Node | Beam) -> None:
        if not self.members[node.name] or (node is self.beam and not self.beam_has_scope):
            return
        pid = self.random.choice(self.members[node.name])
        group = self.random.choice(GROUPS)
        held = self.truth[node.name]
        count = self.random.choice([1, 1, 2, 3])
        if self.random.random() < 0.6:
            pids: Any = [pid] * count if count > 1 else pid
            await self.call(node, "join", group, pids)
            held[repr(group), pid] += count
        elif held[repr(group), pid]:
            await self.call(node, "leave", group, pid)
            held[repr(group), pid] -= 1

    async def call(self, node: Node | Beam, function: str, group: Any, pids: Any) -> None:
        if isinstance(node, Node):
            getattr(pg.start(node, "scope"), function)(group, pids)
        else:
            assert await node.eval(f"pg:{function}(S, G, P)", S=SCOPE, G=group, P=pids) is Atom("ok")

    async def kill(self, node: Node | Beam) -> None:
        if not self.members[node.name]:
            return
        pid = self.members[node.name].pop(self.random.randrange(len(self.members[node.name])))
        if isinstance(node, Node):
            node.system.exit(pid, "kill")
        else:
            await node.eval("exit(P, kill)", P=pid)
        for key in [key for key in self.truth[node.name] if key[1] == pid]:
            del self.truth[node.name][key]

    async def cut(self) -> None:
        one, other = self.random.sample(self.nodes, 2)
        if isinstance(one, Node):
            one.disconnect(other.name)
        else:
            await one.disconnect(other.name)

    async def heal(self) -> None:
        one = self.random.choice(self.ours)
        await one.connect(self.random.choice([node.name for node in self.nodes if node is not one]))

    async def crash_scope(self) -> None:
        if self.random.random() < 0.5:
            scope = pg.start(self.random.choice(self.ours), "scope")
            self.ours[0].system.exit(scope.process.pid, "kill")
        elif self.beam_has_scope:
            await self.beam.eval("exit(whereis(S), kill)", S=SCOPE)
            self.beam_has_scope = False
            self.truth[self.beam.name].clear()

    async def start_scope(self) -> None:
        if not self.beam_has_scope:
            await self.beam.eval("{ok, _} = pg:start(S), ok", S=SCOPE)
            self.beam_has_scope = True

    async def step(self) -> None:
        node = self.random.choice(self.nodes)
        kind = self.random.choices(
            ["join_or_leave", "spawn", "kill", "cut", "heal", "crash_scope", "start_scope"],
            [30, 8, 5, 3, 6, 2, 3],
        )[0]
        if kind in ("join_or_leave", "spawn", "kill"):
            await getattr(self, kind)(node)
        else:
            await getattr(self, kind)()

    async def connected(self, one: Node, other: Node | Beam) -> bool:
        """Connect two nodes; either may not have noticed yet that it has been cut off."""
        await one.connect(other.name)
        if isinstance(other, Node):
            return one.name in other.nodes() and other.name in one.nodes()
        known = await other.eval("lists:member(N, nodes(hidden))", N=Atom(one.name))
        return known is True and other.name in one.nodes()

    async def views_agree(self) -> bool:
        expected: Counter[tuple[Any, Pid]] = sum(self.truth.values(), Counter())
        for node in self.nodes:
            view: Counter[tuple[Any, Pid]] = Counter()
            for group in GROUPS:
                if isinstance(node, Node):
                    pids: Any = pg.start(node, "scope").get_members(group)
                else:
                    pids = await node.eval("pg:get_members(S, G)", S=SCOPE, G=group)
                view.update((repr(group), pid) for pid in pids)
            assert view == +expected, f"the view of {node.name}"
        return True


async def test_views_of_real_nodes_agree_after_a_random_history(beams: Beams, start_node: StartNode) -> None:
    seed = int(os.environ.get("PYGLYN_SEED", secrets.randbelow(10**6)))
    beam = await beams.start()
    await beam.eval("{ok, _} = pg:start(S), ok", S=SCOPE)
    ours = [await start_node(), await start_node()]
    for node in ours:
        pg.start(node, "scope")
    history = RealHistory(seed, ours, beam)
    try:
        for _ in range(STEPS):
            await history.step()
        await history.start_scope()
        for one, other in ((ours[0], ours[1]), (ours[0], beam), (ours[1], beam)):
            await eventually(lambda one=one, other=other: history.connected(one, other))
        await eventually(history.views_agree)
        assert "error_info" not in beam.log()
    except AssertionError as error:
        raise AssertionError(f"PYGLYN_SEED={seed}: {error}\n{beam.log()}") from error
