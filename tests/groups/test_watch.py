"""What a scope asks of a BEAM node: to tell when a name appears there, and its version of syn."""

from __future__ import annotations

import asyncio

import pytest

from pyglyn.etf import Atom, Pid
from pyglyn.groups.watch import syn_version, until_registered
from pyglyn.node import Node
from pyglyn.testing import Beam, eventually
from tests.groups.conftest import StartNode

NAME = Atom("watched_for")
LOOKING = "length([P || P <- processes(), {monitors, M} <- [process_info(P, monitors)], lists:member({process, O}, M)])"
"""How many processes of the peer watch the one for which a name is looked for."""


async def looking(beam: Beam, owner: Pid, count: int) -> bool:
    return await beam.eval(f"{LOOKING} =:= {count}", O=owner) is True


@pytest.fixture
async def node(beam: Beam, start_node: StartNode) -> Node:
    started = await start_node()
    await started.connect(beam.name)
    return started


async def test_it_is_told_when_the_name_appears_and_not_before(beam: Beam, node: Node) -> None:
    watching = asyncio.create_task(until_registered(node, beam.name, NAME, node.system.pid))
    await eventually(lambda: looking(beam, node.system.pid, 1))
    await beam.eval("register(another_name, self()), ok")
    assert not watching.done()
    await beam.eval("register(watched_for, spawn(fun() -> receive stop -> ok end end)), ok")
    assert await watching is True
    await eventually(lambda: looking(beam, node.system.pid, 0))
    assert await until_registered(node, beam.name, NAME, node.system.pid) is True


async def test_a_watch_ends_with_the_process_for_which_it_is(beam: Beam, node: Node) -> None:
    async with node.process() as owner:
        watching = asyncio.create_task(until_registered(node, beam.name, NAME, owner.pid))
        await eventually(lambda: looking(beam, owner.pid, 1))
    assert await watching is False
    await eventually(lambda: looking(beam, owner.pid, 0))


async def test_a_watch_ends_with_the_connection(beam: Beam, node: Node) -> None:
    watching = asyncio.create_task(until_registered(node, beam.name, NAME, node.system.pid))
    await eventually(lambda: looking(beam, node.system.pid, 1))
    node.disconnect(beam.name)
    assert await watching is False
    await eventually(lambda: looking(beam, node.system.pid, 0))


async def test_a_node_that_runs_nothing_it_is_sent_cannot_be_watched(start_node: StartNode) -> None:
    node, other = await start_node(), await start_node()
    other.runtime.register(NAME.name, other.system.pid)
    assert await until_registered(node, other.name, NAME, node.system.pid) is False
    assert await syn_version(node, other.name) is None


@pytest.mark.parametrize(
    ("version", "read"),
    [
        ('"3.3.0"', (3, 3, 0)),
        ('"3.4.1-rc.2"', (3, 4, 1)),
        ('"10"', (10,)),
        ('"3.x"', None),
        ('""', None),
        ("[51, 46, 10000]", None),
        ("[0]", None),
        ("'3.3.0'", None),
    ],
)
async def test_the_version_of_syn_is_that_of_its_application(
    beam: Beam, node: Node, version: str, read: tuple[int, ...] | None
) -> None:
    assert await syn_version(node, beam.name) is None
    await beam.eval(f"application:load({{application, syn, [{{vsn, {version}}}]}})")
    assert await syn_version(node, beam.name) == read


async def test_a_node_that_is_gone_has_no_version(beam: Beam, node: Node) -> None:
    await beam.stop()
    assert await syn_version(node, beam.name) is None
