"""What is on the other side of a relay: a NATS server, an HTTP server."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web

from pyglyn import eventsourcing as es
from pyglyn.testing import eventually, free_port, require

PROGRAM = shutil.which("nats-server") or shutil.which("nats-server", path="/usr/sbin")


class NatsServer:
    """A NATS server with JetStream, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    def start(self) -> None:
        assert PROGRAM is not None
        where = ["-a", "127.0.0.1", "-p", str(self.port), "-js", "-sd", str(self._folder)]
        self._process = subprocess.Popen([PROGRAM, *where, "-l", str(self._folder / "log")])

    async def ready(self) -> None:
        async def connects() -> bool:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", self.port)
            except OSError:
                return False
            writer.close()
            return True

        await eventually(connects, timeout=20)

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@pytest.fixture
def nats_server(tmp_path: Path) -> Iterator[NatsServer]:
    require(PROGRAM, "nats-server is not installed (apt install nats-server)")
    folder = tmp_path / "nats"
    folder.mkdir()
    server = NatsServer(folder)
    server.start()
    yield server
    server.stop()


class Hooks:
    """An HTTP server that keeps what it gets, and answers as it is told."""

    def __init__(self) -> None:
        self.got: list[tuple[str, dict[str, str], bytes]] = []
        self.answers: list[int] = []
        self.refused: set[bytes] = set()
        self.url = ""

    async def take(self, request: web.Request) -> web.Response:
        body = await request.read()
        status = 500 if body in self.refused else self.answers.pop(0) if self.answers else 204
        if 200 <= status < 300:
            self.got.append((request.path, {k.lower(): v for k, v in request.headers.items()}, body))
        return web.Response(status=status, text="so it is" if status != 204 else None)

    @property
    def bodies(self) -> list[bytes]:
        return [body for _, _, body in self.got]


@pytest_asyncio.fixture
async def hooks() -> AsyncIterator[Hooks]:
    made = Hooks()
    app = web.Application()
    app.router.add_post("/{topic}", made.take)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield made
    await runner.cleanup()


@pytest_asyncio.fixture(params=["memory", "sqlite", "postgres"])
async def store(request: Any, tmp_path: Path) -> AsyncIterator[es.EventStore[Any, Any]]:
    """Events as plain JSON, with an outbox, on every store."""
    url = {"memory": "memory:", "sqlite": f"sqlite:{tmp_path}/out.db"}.get(request.param)
    async with es.open_store(url or request.getfixturevalue("postgres"), aggregate_type="t") as store:
        yield store
