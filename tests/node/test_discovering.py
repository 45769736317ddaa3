"""A node connects to whom a discovery finds, with real nodes behind a DNS server of the test's own."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os

import attrs

from pyglyn import Atom, Node, Settings
from pyglyn.errors import DiscoveryError
from pyglyn.net import NetSettings
from pyglyn.net.discovery import DnsAddresses, DnsServices, FromVariable
from pyglyn.testing import eventually, free_port
from pyglyn.testing.waiting import patiently
from tests.net.dns_server import dns_server
from tests.node.conftest import unique_name

SERVICE = "order.default.svc.cluster.local."


@attrs.define
class Scripted:
    """A discovery that gives one answer after the other, and then the last one again."""

    answers: list[object]
    asked: int = 0

    async def nodes(self):
        answer = self.answers[min(self.asked, len(self.answers) - 1)]
        self.asked += 1
        if isinstance(answer, BaseException):
            raise answer
        return answer


async def nodes_without_epmd(beams, count: int) -> tuple[list[str], int]:
    """BEAM nodes of one name as pods are: each with an address to itself, all at one port."""
    port, names = free_port(), []
    for last in range(2, 2 + count):
        interface = f"{{127,{os.getpid() % 250},{port % 250},{last}}}"
        address = interface.strip("{}").replace(",", ".")
        args = ("-start_epmd", "false", "-erl_epmd_port", str(port))
        beam = await beams.start(
            f"order@{address}", args=(*args, "-kernel", "inet_dist_use_interface", interface)
        )
        names.append(beam.name)
    return names, port


async def test_the_nodes_behind_a_headless_service_are_connected_as_they_come(beams):
    names, port = await nodes_without_epmd(beams, 2)
    settings = Settings(net=NetSettings(dist_port=port, listen_port=0))
    async with dns_server() as server, Node("py@127.0.0.1", cookie=beams.cookie, settings=settings) as node:
        where = DnsAddresses(name=SERVICE, alive="order", servers=("127.0.0.1",), port=server.port)
        node.discover(where, every_s=0.05)
        await eventually(lambda: len(server.asked) >= 2)
        assert node.nodes() == []
        server.records[SERVICE, "A"] = [names[0].partition("@")[2]]
        await eventually(lambda: node.nodes() == names[:1])
        server.records[SERVICE, "A"] = [name.partition("@")[2] for name in names]
        await eventually(lambda: node.nodes() == sorted(names))
        # Who is not ready leaves DNS and lives: the connection says who has ended, not DNS.
        server.records.clear()
        asked = len(server.asked)
        await eventually(lambda: len(server.asked) > asked + 2)
        assert node.nodes() == sorted(names)
        for beam in beams.nodes:
            assert await beam.eval("nodes(hidden)") == [Atom("py@127.0.0.1")]


async def test_the_hosts_of_srv_records_are_connected_again_when_they_come_back(beams):
    beam = await beams.start()
    alive = beam.name.partition("@")[0]
    async with dns_server() as server, Node(unique_name(), cookie=beam.cookie) as node:
        server.records[SERVICE, "SRV"] = ["0 1 4370 localhost."]
        where = DnsServices(name=SERVICE, alive=alive, servers=("127.0.0.1",), port=server.port)
        node.discover(where, every_s=0.05)
        await eventually(lambda: node.nodes() == [beam.name])
        beam.kill()
        await eventually(lambda: node.nodes() == [])
        await beams.start(beam.name)
        await eventually(lambda: node.nodes() == [beam.name])


async def test_a_discovery_of_ones_own_may_fail_and_is_asked_again(beam, caplog):
    me = unique_name()
    way = Scripted([DiscoveryError("no idea"), DiscoveryError("no idea"), ValueError("oh"), [me, beam.name]])
    with caplog.at_level(logging.WARNING, "pyglyn.node"):
        async with Node(me, cookie=beam.cookie) as node:
            node.discover(way, every_s=0.01)
            await eventually(lambda: node.nodes() == [beam.name])
    said = [record.getMessage() for record in caplog.records]
    assert said == [
        "no nodes are found, trying again: no idea",
        "no nodes are found, trying again: ValueError('oh')",
    ]


async def test_who_is_found_and_not_reached_holds_up_nobody_and_is_told_of_once(beam, caplog):
    way = Scripted([["gone@localhost", "nonsense", beam.name]])
    with caplog.at_level(logging.WARNING, "pyglyn.node"):
        async with Node(unique_name(), cookie=beam.cookie) as node:
            node.discover(way, every_s=0.01)
            await eventually(lambda: node.nodes() == [beam.name] and way.asked > 5)
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2
    assert any(each.startswith("gone@localhost is found, but not reached, trying again: ") for each in said)
    assert any(each.startswith("nonsense is found, but not reached") for each in said)


async def test_what_is_found_and_is_no_name_is_told_of_once_and_the_others_are_connected(beam, caplog):
    odd = [None, 3, ("a",), b"x@y", "x\n@y", "", beam.name]
    discovery = Scripted([odd])
    async with Node(unique_name(), cookie=beam.cookie) as node:
        node.discover(discovery, every_s=0.01)
        await eventually(lambda: node.nodes() == [beam.name])
        await eventually(lambda: discovery.asked > 5)
    said = "what is found has to be names of nodes, and not NoneType, bytes, int, tuple"
    assert caplog.messages.count(said) == 1
    assert "Traceback" not in caplog.text
    assert not [line for line in caplog.text.splitlines() if line.startswith("@y")]


async def test_a_node_that_stops_looks_no_more_and_leaves_no_task(beam):
    way = Scripted([[]])
    before = asyncio.all_tasks()
    async with Node(unique_name(), cookie=beam.cookie) as node:
        node.discover(way, every_s=0.01)
        await eventually(lambda: way.asked > 1)
    asked = way.asked
    assert asyncio.all_tasks() == before
    assert way.asked == asked


async def test_a_node_stops_although_its_discovery_takes_no_notice_of_a_cancellation():
    """As dnspython does now and then on Python 3.11: its ``asyncio.wait_for`` loses one that meets the answer."""
    asked = asyncio.Event()

    class Deaf:
        async def nodes(self):
            asked.set()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            return []

    async with Node(unique_name(), cookie="x", settings=Settings(net=NetSettings(epmd_port=0))) as node:
        node.discover(Deaf(), every_s=0.01)
        await asked.wait()
        async with asyncio.timeout(patiently(10)):
            await node.stop()


async def test_a_variable_is_read_anew(beam, monkeypatch):
    async with Node(unique_name(), cookie=beam.cookie) as node:
        node.discover(FromVariable("THE_NODES", beam.name.partition("@")[0]), every_s=0.01)
        monkeypatch.setenv("THE_NODES", "localhost")
        await eventually(lambda: node.nodes() == [beam.name])
