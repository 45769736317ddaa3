"""A visible node in a cluster with OTP's ``global``: nobody waits for it, and everybody's names still work."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from pyglyn.etf import Atom, Pid
from pyglyn.net import NetSettings
from pyglyn.node import Node, Process, Settings
from pyglyn.node.global_names import GlobalNames
from pyglyn.testing import Beam, Beams, eventually
from tests.node.conftest import unique_name


@pytest_asyncio.fixture
async def visible(beam: Beam) -> AsyncIterator[Node]:
    async with Node(unique_name(), cookie=beam.cookie, hidden=False) as node:
        yield node


async def test_sync_returns_beside_a_visible_node(beam: Beam, visible: Node) -> None:
    await visible.connect(beam.name)
    await eventually(lambda: beam.eval("lists:member(N, nodes())", N=Atom(visible.name)))
    assert await beam.eval("global:sync()", timeout=20.0) is Atom("ok")
    visible.disconnect(beam.name)
    await eventually(lambda: beam.eval("not lists:member(N, nodes())", N=Atom(visible.name)))
    assert await beam.eval("net_adm:ping(N)", N=Atom(visible.name)) is Atom("pong")
    assert await beam.eval("global:sync()", timeout=20.0) is Atom("ok")


async def test_names_are_global_among_the_nodes_that_know_them(beams: Beams) -> None:
    one, other = await beams.start(), await beams.start()
    async with Node(unique_name(), cookie=one.cookie, hidden=False) as node:
        await node.connect(one.name)
        await node.connect(other.name)
        assert await one.eval("net_adm:ping(N)", N=Atom(other.name)) is Atom("pong")
        for beam in (one, other):
            assert await beam.eval("global:sync()", timeout=20.0) is Atom("ok")
            assert await beam.eval("length(nodes())") == 2
        assert await one.eval("global:register_name(shop, whereis(init))", timeout=20.0) is Atom("yes")
        pid = await other.eval("global:whereis_name(shop)")
        assert pid == await one.eval("whereis(init)")
        assert await node.rpc(one.name, "global", "whereis_name", [Atom("shop")]) == pid
    for beam, left in ((one, other), (other, one)):
        await eventually(lambda beam=beam, left=left: beam.eval("nodes() =:= [N]", N=Atom(left.name)))


async def test_locks_are_kept_for_who_sets_them_on_all_nodes(beam: Beam, visible: Node) -> None:
    await visible.connect(beam.name)
    await eventually(lambda: beam.eval("lists:member(N, nodes())", N=Atom(visible.name)))
    where = {"N": Atom(visible.name)}
    assert await beam.eval("global:trans({stock, self()}, fun() -> done end)", timeout=20.0) is Atom("done")
    taken = "global:set_lock({stock, Who}, [N], 0)"
    keeper = """
        Test = self(),
        Keeper = spawn(fun() -> Test ! global:set_lock({stock, one}, [N], 0), receive stop -> ok end end),
        receive Set -> {Set, Keeper} end"""
    held, pid = await beam.eval(keeper, **where)
    assert held is True
    assert await beam.eval(taken, Who=Atom("other"), **where) is False
    assert await beam.eval(taken, Who=Atom("one"), **where) is True  # and is given up with this evaluation
    assert await beam.eval(taken, Who=Atom("other"), **where) is False
    await beam.eval("P ! stop", P=pid)
    await eventually(lambda: beam.eval(taken, Who=Atom("other"), **where))
    again = "true = global:set_lock({stock, x}, [N]), global:del_lock({stock, x}, [N]), " + taken
    await eventually(lambda: beam.eval(again, Who=Atom("y"), **where))


async def waiting(me: Process) -> None:
    await me.receive(lambda message: message == b"end")


async def test_as_many_locks_are_held_as_may_be_by_however_many_processes() -> None:
    """A peer may set a lock in the name of any number of processes, each of which is watched."""
    locks = [(b"a", 0), (b"a", 1), (b"b", 2), (b"a", 3), (b"c", 4)]
    settings = Settings(net=NetSettings(epmd_port=0))
    async with Node(unique_name(), cookie="c", settings=settings) as node, node.process() as me:
        server = me.spawn(GlobalNames(most=3))
        holders = [me.spawn(waiting) for _ in locks]

        def sent(what: str, resource: bytes, holder: Pid) -> None:
            node.send(server, (Atom("$gen_call"), (holder, b"tag"), (Atom(what), (resource, b"me"))))

        def watched() -> list[Pid]:
            watchers = node.runtime.processes[server.id].signals.monitors.values()
            return sorted((pid for pid in watchers if isinstance(pid, Pid)), key=lambda pid: pid.id)

        for resource, holder in locks:
            sent("set_lock", resource, holders[holder])
        await eventually(lambda: watched() == holders[:3])
        assert node.runtime.processes[server.id].message_queue_len == 0
        sent("del_lock", b"a", holders[1])
        await eventually(lambda: watched() == [holders[0], holders[2]])
        node.send(holders[2], b"end")
        await eventually(lambda: watched() == [holders[0]])
        sent("set_lock", b"b", holders[4])
        await eventually(lambda: watched() == [holders[0], holders[4]])


async def test_a_lock_is_kept_though_the_end_of_its_holder_is_made_up() -> None:
    """References are counted, so a peer may name that of any monitor; a signal comes from whoever has ended."""
    async with Node(unique_name(), cookie="c", settings=Settings(net=NetSettings(epmd_port=0))) as node:
        server = node.spawn(GlobalNames())
        async with node.process() as holder, node.process() as me:
            assert await holder.call(server, (Atom("set_lock"), (b"stock", b"one"))) is True
            for ref, watched in [*node.runtime.processes[server.id].signals.monitors.items()]:
                assert watched == holder.pid
                me.send(server, (Atom("DOWN"), ref, Atom("process"), holder.pid, Atom("lie")))
            assert await me.call(server, (Atom("set_lock"), (b"stock", b"other"))) is False


async def test_a_hidden_node_has_no_part_in_it(beam: Beam, node: Node) -> None:
    await node.connect(beam.name)
    assert node.whereis("global_name_server") is None
    assert await beam.eval("global:sync()", timeout=20.0) is Atom("ok")
