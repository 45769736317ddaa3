"""The end of what many watch: each is told once, others have their turn in between, and nobody who is gone is told."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator

import pytest

from pyglyn.dist.control import Link, MonitorP, MonitorPExit
from pyglyn.etf import Atom, Pid, Reference
from pyglyn.node.telling import A_TURN
from pyglyn.testing import eventually
from tests.net.conftest import Recorder
from tests.node.joined import Joined, joined

MANY = 10 * A_TURN
BOOM = Atom("boom")


@pytest.fixture
async def here() -> AsyncIterator[Joined]:
    async with joined() as made:
        yield made


def refs(peer: Recorder) -> list[Reference]:
    return [Reference(peer.name, peer.local.creation, (number, 0, 0)) for number in range(MANY)]


def watch(here: Joined, peer: Recorder, watched: Pid) -> list[Reference]:
    """Have a process of a peer monitor one here many times, and others of it link to that."""
    for ref in refs(peer):
        here.node.router.from_peer(here.connection(peer), MonitorP(peer.pid(), watched, ref), None)
    for number in range(2, 5):
        here.node.router.from_peer(here.connection(peer), Link(peer.pid(number), watched), None)
    return refs(peer)


def told(peer: Recorder) -> list[Reference]:
    return [control.ref for control, _ in peer.messages if isinstance(control, MonitorPExit)]


async def test_others_have_their_turn_while_many_are_told(here: Joined) -> None:
    peer = await here.peer()
    process = here.node.runtime.attach("watched")
    watched = watch(here, peer, process.pid)
    sent = [here.connection(peer).traffic.sent]
    process.end(BOOM)
    sent.append(here.connection(peer).traffic.sent)
    while len(here.node.runtime.ends):
        await asyncio.sleep(0)
        sent.append(here.connection(peer).traffic.sent)
    turns = [after - before for before, after in itertools.pairwise(sent)]
    assert max(turns) == A_TURN
    await eventually(lambda: len(peer.messages) == MANY + 3)
    assert told(peer) == watched
    assert {term for _, term in peer.messages} == {BOOM}


async def test_nobody_is_told_of_what_ended_before_its_node_came_back(here: Joined) -> None:
    peer, other = await here.peer(), await here.peer()
    process = here.node.runtime.attach("watched")
    watch(here, peer, process.pid)
    watched = watch(here, other, process.pid)
    process.end(BOOM)
    here.node.disconnect(peer.name)
    await here.node.connect(peer.name)
    await eventually(lambda: len(other.messages) == MANY + 3)
    assert told(other) == watched
    assert len(told(peer)) < A_TURN
    assert not len(here.node.runtime.ends)


async def test_all_are_told_when_the_node_ends() -> None:
    async with joined() as here:
        peer = await here.peer()
        watched = watch(here, peer, here.node.runtime.attach("watched").pid)
        here.node.runtime.kill_all(BOOM)
        assert not len(here.node.runtime.ends)
        await eventually(lambda: told(peer) == watched)


async def test_others_have_their_turn_while_the_death_of_a_worker_is_told(here: Joined) -> None:
    peer, worker = await here.peer(), await here.worker()
    inside = worker.runtime.attach("watched")
    watched = watch(here, peer, inside.pid)
    await eventually(lambda: len(inside.signals.watchers) == MANY)
    link = here.link(worker)
    link.reason.set_result(BOOM)
    worker._closing = True
    worker._protocol.abort()
    here.workers.clear()
    await eventually(lambda: len(here.node.runtime.ends) == 1)
    assert not link.told.done()
    await link.told
    await eventually(lambda: len(peer.messages) == MANY + 3)
    assert told(peer) == watched
