"""Connections to the HTTP port: many that ask nothing leave room for those that ask, and descriptors for the node."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import socket
import types

import pytest

from pyglyn.http.connections import Connections
from pyglyn.http.server import HttpServer
from pyglyn.net.transport import READ_SIZE
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


async def test_who_asks_is_answered_however_many_come_in_the_same_moment(epmd: object) -> None:
    async with Node(unique_name(), cookie="c") as node:
        server = HttpServer(node)
        server.connections = Connections(60)
        await server.start("127.0.0.1", 0)

        def connected() -> socket.socket:
            sock = socket.create_connection(("127.0.0.1", server.port))
            sock.setblocking(False)
            return sock

        honest = connected()
        honest.send(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
        others = [connected() for _ in range(100)]  # all wait in the kernel
        answer = await asyncio.get_running_loop().sock_recv(honest, 1000)
        assert answer.startswith(b"HTTP/1.1 200 ")
        for sock in [honest, *others]:
            sock.close()
        await server.stop()


async def test_half_of_the_connections_may_ask_at_once_and_all_whether_the_node_lives(epmd: object) -> None:
    async with Node(unique_name(), cookie="c") as node:
        server = HttpServer(node)
        server.connections = Connections(20)
        await server.start("127.0.0.1", 0)
        with contextlib.ExitStack() as held:
            for _ in range(10):
                connection = object()
                server.connections.made(connection, Transport())
                assert (await get(server.port, "/readyz"))[0] != 500
                held.enter_context(server.connections.asking(connection))
            for _ in range(50):  # and nobody who asks goes before it is answered
                assert await get(server.port, "/metrics") == (503, "too many ask at once\n")
                assert (await get(server.port, "/livez"))[0] == 200
        assert (await get(server.port, "/metrics"))[0] == 200
        await server.stop()


async def test_of_what_makes_no_request_little_is_read_and_nothing_kept(epmd: object) -> None:
    """What aiohttp has of each knows its error: all of it until the collector looks at what is old."""
    async with Node(unique_name(), cookie="c") as node:
        server = HttpServer(node)
        await server.start("127.0.0.1", 0)
        gc.collect()
        gc.disable()
        try:
            for _ in range(10):
                reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
                writer.write(b"GET / HTTP/1.1\r\nX: " + b"a" * 1_000_000)
                with contextlib.suppress(OSError):
                    await reader.read()
                writer.transport.abort()
            await eventually(lambda: not len(server.connections))
            kept = [len(each) for each in gc.get_objects() if type(each) is bytes]
            frames = [each for each in gc.get_objects() if isinstance(each, types.FrameType)]
            read = [each.f_locals.get("data") for each in frames if each.f_code.co_name == "data_received"]
            kept += [len(each) for each in read if isinstance(each, bytes)]
            assert sum(kept) <= 10 * 2 * READ_SIZE
        finally:
            gc.enable()
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
            with contextlib.suppress(ConnectionResetError):  # of the last one not all is read
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
