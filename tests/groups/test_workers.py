"""Processes with an operating-system process of their own take part in groups like any other."""

from __future__ import annotations

import os
import signal
from typing import Any

from pyglyn import glyn
from pyglyn.etf import Atom
from pyglyn.groups import pg, syn
from pyglyn.supervision import Supervisor, start, worker
from pyglyn.testing import Beam, eventually
from tests.groups import worker_bodies
from tests.groups.conftest import StartNode, idle
from tests.groups.worker_bodies import Priced


async def test_a_worker_joins_registers_and_reads_and_its_death_is_told(
    beam: Beam, start_node: StartNode
) -> None:
    node = await start_node()
    scope, example = pg.start(node, "scope"), syn.start(node, "example")
    await example.registry.register(b"taken", node.spawn(idle))
    await beam.eval("{ok, _} = pg:start(scope), ok")
    await node.connect(beam.name)
    async with node.process() as me:
        await start(
            node,
            Supervisor("one_for_one", intensity=0).add(
                worker(worker_bodies.member, me.pid, restart="temporary", name="w")
            ),
        )
        members, groups, in_syn, found, count, errors = await _answer(me)
        pid = node.whereis("w")
        assert pid is not None
        assert members == [pid]
        assert groups == [b"workers"]
        assert in_syn == [(pid, [b"meta"])]
        assert found == (pid, 2)
        assert count == 2
        assert [bytes(name).decode() for name in errors] == [
            "NotInGroup",
            "ValueError",
            "NoProcess",
            "RegistrationFailed",
            "CallFailed",
        ]
        there = 'pg:get_members(scope, <<"workers">>) =:= M'
        await eventually(lambda: beam.eval(there, M=[pid]))
        os.kill(next(link.os_pid for link in node.workers.links.values()), signal.SIGKILL)
        await eventually(lambda: beam.eval(there, M=[]))
        assert scope.which_groups() == []
        await eventually(lambda: example.groups.members(b"workers") == [])
        assert example.registry.lookup(b"worker") is None


async def test_a_worker_without_the_scope_is_told_how_to_start_it(start_node: StartNode) -> None:
    node = await start_node()
    async with node.process() as me:
        child = worker(worker_bodies.without_scopes, me.pid, restart="temporary")
        await start(node, Supervisor("one_for_one").add(child))
        for call in (b"pg.start(node)", b'pg.start(node, "own")', *[b'syn.start(node, "example")'] * 2):
            said = await me.receive(timeout=60)
            assert isinstance(said, bytes)
            assert call in said
            assert node.name.encode() in said


async def test_a_worker_subscribes_publishes_and_serves(start_node: StartNode) -> None:
    node = await start_node()
    prices: glyn.PubSub[Any] = glyn.PubSub(node, "example", Priced)
    registry: glyn.Registry[Any] = glyn.Registry(node, "example", Priced, metadata=str)
    async with node.process() as me:
        await start(node, Supervisor("one_for_one").add(worker(worker_bodies.subscriber, me.pid)))
        _, pid, member = await _answer(me)
        assert await prices.subscribers("prices") == [member]
        mine = await prices.subscribe(me, "prices")
        assert await prices.publish("prices", Priced("laptop", 20)) == 2
        assert await _answer(me, lambda m: m[0] is Atom("event")) == (Atom("event"), b"laptop", 20)
        assert await mine.receive(5) == Priced("laptop", 20)
        assert await mine.receive(5) == Priced("from the worker", 1)
        assert await _answer(me) == 2
        assert await registry.whereis("prices") == (pid, "here")
        await registry.send("prices", Priced("mouse", 1))
        assert await _answer(me) == (Atom("message"), b"mouse")
        assert await _answer(me) == 1


async def _answer(me: Any, match: Any = None) -> Any:
    return await me.receive(match, timeout=20)
