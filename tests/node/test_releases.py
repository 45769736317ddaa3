"""The release of a connected node is asked for once it matters, and asked again where there was no answer."""

from __future__ import annotations

import asyncio

import pytest

from pyglyn.dist.control import MonitorPExit, SpawnFlags, SpawnReply, SpawnRequest
from pyglyn.etf import Atom, Term, encode_parts
from pyglyn.node import Node
from pyglyn.node.releases import Releases
from pyglyn.testing import Beam, eventually
from tests.net.conftest import Recorder
from tests.node.conftest import unique_name


async def told(releases: Releases, node: str) -> int | None:
    answer: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()
    releases.tell(node, answer.set_result)
    return await asyncio.wait_for(answer, 60)


async def test_a_node_is_asked_once(beam: Beam, node: Node) -> None:
    releases = Releases(node.hub)
    assert await told(releases, beam.name) is None  # not connected, and not asked
    await node.connect(beam.name)
    both = await asyncio.gather(told(releases, beam.name), told(releases, beam.name))
    assert both == [beam.otp] * 2
    known: list[int | None] = []
    releases.tell(beam.name, known.append)
    assert known == both[:1]


def answer(peer: Recorder, request: SpawnRequest, args: Term, outcome: tuple[Term, ...]) -> None:
    """As a node that runs ``erpc:execute_call/4``, which ends with the outcome."""
    assert isinstance(args, list)
    connection, pid = peer.ups[-1], peer.pid()
    connection.send(SpawnReply(request.request_id, request.sender, SpawnFlags.MONITOR, pid))
    ended = MonitorPExit(pid, request.sender, request.request_id)
    connection.send(ended, encode_parts((args[0], *outcome)))


@pytest.mark.parametrize(
    ("outcome", "release"),
    [
        ((Atom("return"), list(b"27")), 27),
        ((Atom("return"), b"27"), None),
        ((Atom("return"), list(b"new")), None),
        ((Atom("return"), [Atom("x")]), None),
        ((Atom("error"), Atom("undef"), []), None),
    ],
    ids=str,
)
async def test_a_node_that_has_not_answered_is_asked_again(
    epmd: object, outcome: tuple[Term, ...], release: int | None
) -> None:
    async with Node(unique_name(), cookie="c") as node:
        peer = Recorder(unique_name("peer"), "c", True, None)
        await peer.peers.start()
        await node.connect(peer.name)
        await eventually(lambda: peer.ups)
        releases = Releases(node.hub, timeout=0.05)
        assert await told(releases, peer.name) is None
        releases._timeout = 60.0

        def requests() -> list[tuple[SpawnRequest, Term]]:
            return [(control, args) for control, args in peer.messages if isinstance(control, SpawnRequest)]

        again = asyncio.create_task(told(releases, peer.name))
        await eventually(lambda: len(requests()) == 2)
        answer(peer, *requests()[1], outcome)
        assert await again == release
        assert await told(releases, peer.name) == release  # and not a third time
        assert len(requests()) == 2
        await peer.peers.stop()
