"""What a peer did not offer is never sent to it; what OTP does instead is done."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from pyglyn.dist import MANDATORY_25, RECOMMENDED, DistFlags
from pyglyn.dist.control import Link, LinkExit, Unlink
from pyglyn.errors import BadRpc, CallFailed, RemoteException
from pyglyn.etf import Atom, Pid, encode_parts
from pyglyn.net import NetSettings
from pyglyn.node import Node, Process, Settings
from pyglyn.testing import Beam, eventually
from tests.net.conftest import Recorder
from tests.node.conftest import unique_name

C_NODE = MANDATORY_25 | DistFlags.DIST_MONITOR
"""About what a C node of erl_interface offers."""

Pair = tuple[Node, Recorder]


@pytest.fixture
async def pair(epmd) -> AsyncIterator[Callable[[DistFlags], Awaitable[Pair]]]:
    """A node that is connected to a peer with few capabilities; what the peer gets is written down."""
    peers: list[Recorder] = []
    nodes: list[Node] = []

    async def make(flags: DistFlags) -> Pair:
        node = Node(unique_name(), cookie="c")
        await node.start_node()
        nodes.append(node)
        peer = Recorder(unique_name("c"), "c", True, NetSettings(flags=flags))
        await peer.peers.start()
        peers.append(peer)
        await node.connect(peer.name)
        await eventually(lambda: peer.ups)
        return node, peer

    yield make
    for peer in peers:
        await peer.peers.stop()
    for node in nodes:
        await node.stop()


def kinds(peer: Recorder) -> list[str]:
    return [type(control).__name__ for control, _ in peer.messages]


async def test_a_named_process_of_a_c_node_can_be_called(pair) -> None:
    """Its monitor watches the connection only: MONITOR_P by name makes a C node close it."""
    node, peer = await pair(C_NODE)
    call = asyncio.create_task(node.call(("server", peer.name), Atom("question")))
    (((tag, (caller, ref), question),),) = [await peer.has_received(1)]
    assert (tag, question) == (Atom("$gen_call"), Atom("question"))
    peer.send(node.name, caller, (ref, Atom("answer")))
    assert await call is Atom("answer")
    call = asyncio.create_task(node.call(("server", peer.name), Atom("question")))
    await peer.has_received(2)
    assert kinds(peer) == ["RegSend", "RegSend"]
    peer.peers.disconnect(node.name)
    with pytest.raises(CallFailed):
        await call


async def test_a_peer_without_spawn_is_asked_nothing(pair) -> None:
    """The caller is told at once, with the word OTP has for it."""
    node, peer = await pair(RECOMMENDED & ~DistFlags.SPAWN)
    with pytest.raises(RemoteException, match="notsup"):
        await node.erpc(peer.name, "erlang", "node", timeout=None)
    with pytest.raises(BadRpc) as caught:
        await node.rpc(peer.name, "erlang", "node", timeout=None)
    assert caught.value.reason is Atom("notsup")
    assert kinds(peer) == []


async def test_a_peer_without_aliases_is_sent_to_none(pair) -> None:
    node, peer = await pair(RECOMMENDED & ~DistFlags.ALIAS)
    node.send(node.system.runtime.make_ref(), 1)
    alias = peer.pid()
    node.system.send(type(node.make_ref())(peer.name, peer.local.creation, (1, 2, 3)), b"to an alias")
    node.send(alias, b"to a pid")
    assert await peer.has_received(1) == [b"to a pid"]
    assert kinds(peer) == ["Send"]


async def test_a_link_can_be_made_again_with_a_peer_that_acknowledges_no_unlink(pair) -> None:
    """UNLINK has no answer, so the link is gone at once; else a new one of the peer's would count for nothing."""
    node, peer = await pair(RECOMMENDED & ~DistFlags.UNLINK_ID)
    connection = peer.peers.get(node.name)
    assert connection is not None
    unlinked = asyncio.Event()

    async def body(me: Process) -> object:
        me.trap_exit = True
        me.link(peer.pid())
        me.unlink(peer.pid())
        unlinked.set()
        return await me.receive()

    got: list[object] = []

    async def run(me: Process) -> None:
        got.append(await body(me))

    pid = node.spawn(run)
    await eventually(lambda: kinds(peer) == ["Link", "Unlink"])
    connection.send(Link(peer.pid(), pid))
    connection.send(LinkExit(peer.pid(), pid), encode_parts(Atom("over")))
    await eventually(lambda: got == [(Atom("EXIT"), peer.pid(), Atom("over"))])
    assert [type(control) for control, _ in peer.messages] == [Link, Unlink]


FEWER = {
    "monitors": DistFlags.DIST_MONITOR_NAME,
    "spawn": DistFlags.SPAWN,
    "reasons as payload": DistFlags.EXIT_PAYLOAD,
    "senders": DistFlags.SEND_SENDER,
    "fragments": DistFlags.FRAGMENTS,
}


@pytest.mark.parametrize("flag", FEWER.values(), ids=FEWER)
async def test_a_real_node_and_a_node_with_one_capability_less(beam: Beam, flag: DistFlags) -> None:
    """Calls by name both ways, links, exits, rpc: what can be done is done, and the connection stays."""
    settings = Settings(net=NetSettings(flags=RECOMMENDED & ~flag))
    async with Node(unique_name(), cookie=beam.cookie, settings=settings) as node:
        events: list[object] = []
        node.on_node_event(events.append)
        assert await node.ping(beam.name)
        big = bytes(300_000)
        echo = Atom(f"echo_{flag}")
        await beam.eval("register(E, spawn(fun F() -> receive {From, T} -> From ! T, F() end end))", E=echo)
        async with node.process() as me:
            me.send((echo.name, beam.name), (me.pid, big))
            assert await me.receive(timeout=60) == big
            me.trap_exit = True
            linked = await beam.eval(
                "spawn(fun() -> receive stop -> exit({over, binary:copy(<<1>>, 100000)}) end end)"
            )
            assert isinstance(linked, Pid)
            me.link(linked)
            me.send(linked, Atom("stop"))
            assert await me.receive(timeout=60) == (Atom("EXIT"), linked, (Atom("over"), b"\1" * 100_000))
        assert await beam.eval("net_adm:ping(N)", N=Atom(node.name)) is Atom("pong")
        if flag is DistFlags.DIST_MONITOR_NAME:  # then the end of a call's process cannot be told
            with pytest.raises(RemoteException, match="notsup"):
                await node.erpc(beam.name, "erlang", "node")
        elif flag is DistFlags.SPAWN:
            with pytest.raises(RemoteException, match="notsup"):
                await node.erpc(beam.name, "erlang", "node")
            assert await beam.eval("rpc:call(N, erlang, node, [])", N=Atom(node.name)) == (
                Atom("badrpc"),
                Atom("notsup"),
            )
        else:
            assert await node.erpc(beam.name, "erlang", "node") is Atom(beam.name)
        assert len(events) == 1


@pytest.mark.parametrize("way", ["rpc", "cast"])
async def test_a_process_without_a_group_leader_can_spawn_on_a_real_node(beam: Beam, way: str) -> None:
    """A group leader that is no pid, as in a worker whose node has none, made it close the connection."""
    async with Node(unique_name(), cookie=beam.cookie) as node:
        await node.connect(beam.name)
        events: list[object] = []
        node.on_node_event(events.append)
        node.system.group_leader = None
        if way == "rpc":
            assert await node.erpc(beam.name, "erlang", "node") is Atom(beam.name)
        else:
            async with node.process("waiting") as me:
                me.group_leader = None
                from pyglyn.node import rpc

                rpc.cast(me, beam.name, "erlang", "send", [me.pid, Atom("cast")])
                assert await me.receive(timeout=60) is Atom("cast")
        assert await node.ping(beam.name)
        assert events == []
