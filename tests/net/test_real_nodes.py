"""Connections with real OTP nodes, both ways."""

from __future__ import annotations

import asyncio

from pyglyn.etf import Atom
from pyglyn.testing import Beam, eventually, no_leaks
from tests.net.conftest import StartNode

ECHO = """
Echo = fun Loop() -> receive {From, Term} -> From ! {echo, Term}, Loop(); stop -> ok end end,
Pid = spawn(Echo), register(echo, Pid), Pid
"""


async def test_a_dialled_node_is_up_and_exchanges_messages(beam: Beam, start_node: StartNode) -> None:
    """Initiator, hidden; messages to a pid and to a name, and an answer."""
    node = await start_node()
    connection = await node.peers.connect(beam.name)
    assert (connection.name, connection.hidden) == (beam.name, True)
    assert await beam.eval("{nodes(), nodes(hidden)}") == ([], [Atom(node.name)])
    echo = await beam.eval(ECHO)
    node.send(beam.name, echo, (node.pid(), b"to a pid"))
    node.send(beam.name, "echo", (node.pid(), b"to a name"))
    assert await node.has_received(2) == [(Atom("echo"), b"to a pid"), (Atom("echo"), b"to a name")]


async def test_a_node_that_dials_us_is_accepted(beam: Beam, start_node: StartNode) -> None:
    """Acceptor, hidden; the BEAM finds us by EPMD with the first message it sends."""
    node = await start_node()
    await beam.eval("{inbox, 'py@localhost'} ! {hello, [1, 2.5, <<\"x\">>, #{a => b}]}")
    assert await node.has_received(1) == [(Atom("hello"), [1, 2.5, b"x", {Atom("a"): Atom("b")}])]
    assert node.ups[0].name == beam.name
    assert await beam.eval("nodes(hidden)") == [Atom(node.name)]


async def test_both_learn_of_a_disconnect(beam: Beam, start_node: StartNode) -> None:
    """Each side closes once; the callbacks come in pairs and nothing is left open."""
    node = await start_node()
    async with no_leaks():
        await node.peers.connect(beam.name)
        assert await beam.disconnect(node.name)
        assert "closed by the peer" in await node.has_lost(beam.name)
        await node.peers.connect(beam.name)
        assert node.peers.disconnect(beam.name)
        await eventually(lambda: _hidden_nodes(beam, 0))
    assert node.history == [("up", beam.name), ("down", beam.name)] * 2


async def _hidden_nodes(beam: Beam, count: int) -> bool:
    return await beam.eval("length(nodes(hidden))") == count


async def test_many_callers_share_one_attempt(beam: Beam, start_node: StartNode) -> None:
    node = await start_node()
    connections = await asyncio.gather(*(node.peers.connect(beam.name) for _ in range(20)))
    assert len(set(map(id, connections))) == 1
    assert node.history == [("up", beam.name)]
