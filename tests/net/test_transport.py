"""Writing to a socket past its transport: all arrives in its order, and what is not taken is not copied."""

from __future__ import annotations

import asyncio
import os
import random
import socket
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from pyglyn import certificates, loops
from pyglyn.net.tls import Contexts, read_option_file
from pyglyn.net.transport import HANDED_OVER, Buffer, number_for_writing, write_through
from pyglyn.testing import eventually


class Writes(asyncio.Protocol):
    """Writes on whenever the socket takes more, as a connection does."""

    def __init__(self) -> None:
        self.left: list[Buffer] = []
        self.paused = False
        self.lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport
        self.number = number_for_writing(self.transport)
        self.transport.set_write_buffer_limits(0)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False
        self.write(self.left)

    def write(self, pieces: list[Buffer]) -> None:
        assert not self.paused
        self.left = write_through(self.transport, self.number, pieces, sum(map(len, pieces)))
        assert self.transport.get_write_buffer_size() <= HANDED_OVER
        assert self.paused or not self.left


async def joined() -> tuple[Writes, socket.socket]:
    """One that writes, and the socket at the other end."""
    ours, theirs = socket.socketpair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 * 1024)
    theirs.setblocking(False)
    writes = Writes()
    await asyncio.get_running_loop().create_unix_connection(lambda: writes, sock=ours)
    return writes, theirs


@pytest.mark.parametrize("seed", range(10))
async def test_pieces_arrive_in_their_order_however_the_socket_takes_them(seed: int) -> None:
    chance, loop = random.Random(seed), asyncio.get_running_loop()
    writes, theirs = await joined()
    wanted, got = bytearray(), bytearray()
    for _ in range(30):
        sizes = [
            chance.choice((0, 1, 22, 4096, 4097, 65_536, 300_000)) for _ in range(chance.randrange(1, 12))
        ]
        pieces: list[Buffer] = [chance.randbytes(size) for size in sizes]
        wanted += b"".join(pieces)
        writes.write([memoryview(piece) if chance.random() < 0.5 else piece for piece in pieces])
        while writes.paused:
            got += await loop.sock_recv(theirs, chance.choice((1000, 100_000)))
    writes.transport.close()
    while data := await loop.sock_recv(theirs, 1 << 20):
        got += data
    assert got == wanted
    theirs.close()


async def test_what_the_socket_does_not_take_is_not_copied() -> None:
    writes, theirs = await joined()
    blobs: list[Buffer] = [os.urandom(1 << 20) for _ in range(8)]
    tracemalloc.start(1)
    try:
        writes.write(blobs)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert sum(map(len, writes.left)) > 7 << 20
    assert peak <= 64 * 1024
    writes.transport.abort()
    theirs.close()


async def test_a_socket_that_nobody_reads_any_more_ends_the_connection() -> None:
    writes, theirs = await joined()
    theirs.close()
    writes.left = write_through(writes.transport, writes.number, [bytes(1 << 20)], 1 << 20)
    await eventually(lambda: writes.lost)
    assert write_through(writes.transport, writes.number, [b"more"], 4) == [b"more"]


@pytest.mark.parametrize("kind", loops.KINDS)
def test_past_tls_nothing_is_written(kind: loops.Kind, tmp_path: Path) -> None:
    """Whichever event loop it is of: what is written there would go out as it is."""
    if kind == "uvloop":
        pytest.importorskip("uvloop")
    options = certificates.for_node(certificates.authority(tmp_path), "any@localhost")
    contexts = Contexts(read_option_file(str(options)))

    async def number_of(**options: Any) -> int:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()
            writer.close()

        server_side = contexts.server if options else None
        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=server_side)
        async with server:
            port = server.sockets[0].getsockname()[1]
            _, writer = await asyncio.open_connection("127.0.0.1", port, **options)
            number = number_for_writing(writer.transport)
            writer.close()
            await writer.wait_closed()
        return number

    with asyncio.Runner(loop_factory=loops.maker(kind)) as runner:
        assert runner.run(number_of()) >= 0
        assert runner.run(number_of(ssl=contexts.client, server_hostname="localhost")) == -1
