"""Connections to the HTTP port: many that ask nothing leave room for those that ask, and descriptors for the node."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging

import pytest

from pyglyn.http.connections import Connections
from pyglyn.http.server import HttpServer
from pyglyn.node import Node
from pyglyn.testing import eventually
from tests.http.asking import get
from tests.node.conftest import unique_name


class Transport:
    aborted = False

    def abort(self) -> None:
        self.aborted = True


def test_the_one_that_asks_nothing_for_longest_goes_and_one_with_a_request_stays() -> None:
    connections: Connections[str] = Connections(3)
    transports = {name: Transport() for name in "abcdef"}
    for name in "abc":
        connections.made(name, transports[name])
    with connections.asking("a"):
        connections.made("d", transports["d"])
        assert [name for name, each in transports.items() if each.aborted] == ["b"]
    with connections.asking("c"), connections.asking("d"), connections.asking("a"):
        connections.made("e", transports["e"])  # all others get an answer
    assert [name for name, each in transports.items() if each.aborted] == ["b", "e"]
    connections.lost("e")
    connections.made("f", transports["f"])
    assert [name for name, each in transports.items() if each.aborted] == ["a", "b", "e"]
    assert len(connections) == 3
    for name in "cdfab":
        connections.lost(name)
    assert not len(connections)


async def test_idle_clients_leave_room_for_who_asks(epmd: object, caplog: pytest.LogCaptureFixture) -> None:
    async with Node(unique_name(), cookie="c") as node:
        server = HttpServer(node)
        server.connections = Connections(20)
        await server.start("127.0.0.1", 0)
        idle = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(100)]
        for _, writer in idle[::2]:
            writer.write(b"GET /livez HTTP/1.1\r\nX: ")  # and never more
        for _ in range(5):
            assert (await get(server.port, "/livez"))[0] == 200
        assert 10 <= len(server.connections) <= 20
        assert caplog.text.count("more than 20 HTTP connections") == 1
        for _, writer in idle:
            writer.transport.abort()
        await eventually(lambda: not len(server.connections))
        await server.stop()


async def test_malformed_requests_are_a_line_and_what_is_too_much_is_refused_without_one(
    epmd: object, caplog: pytest.LogCaptureFixture
) -> None:
    """No trace of the parser for each, nor of a connection that goes before it has begun."""
    caplog.set_level(logging.INFO)
    async with Node(unique_name(), cookie="c") as node:
        server = HttpServer(node)
        server.connections = Connections(20)
        await server.start("127.0.0.1", 0)
        for request in (
            b"GET * HTTP/1.1\r\n\r\n",
            b"\0\r\n\r\n",
            b"GET / HTTP/1.1\r\nX: " + b"a" * 100_000,
        ) * 10:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(request)
            await reader.read()
            writer.close()
        with contextlib.ExitStack() as held:
            for _ in range(20):
                connection = object()
                server.connections.made(connection, Transport())
                held.enter_context(server.connections.asking(connection))
            for _ in range(5):
                reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
                with contextlib.suppress(ConnectionResetError):
                    assert not await reader.read()
                writer.close()
        await server.stop()
        gc.collect()
    lines = [
        record
        for record in caplog.records
        if record.name.startswith(("asyncio", "pyglyn.http.requests", "aiohttp"))
    ]
    assert 1 <= len(lines) <= 5
    assert not any(record.exc_info for record in lines)
