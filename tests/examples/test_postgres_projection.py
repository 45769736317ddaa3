"""``examples/postgres_projection``: a service, its durable query in an OS process of its own, and the page."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from examples.distributed_nodes import stock
from pyglyn import Node
from pyglyn import eventsourcing as es
from pyglyn.testing import eventually
from tests.cli.test_cli import pyglyn, run
from tests.eventsourcing.conftest import own_server, postgres, wheel_server  # noqa: F401
from tests.examples.test_distributed_nodes import ROOT
from tests.node.conftest import unique_name

COOKIE = ("--cookie", "example")


async def fetch(port: str) -> str:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(port))
    writer.write(b"GET / HTTP/1.0\r\n\r\n")
    page = (await reader.read()).decode()
    writer.close()
    return page


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
async def test_the_page_shows_what_was_committed_also_after_the_query_was_killed(
    epmd, tmp_path, request, kind
):
    url = f"sqlite:{tmp_path}/stock.db" if kind == "sqlite" else request.getfixturevalue("postgres")
    name = unique_name("stock")
    where = "examples.postgres_projection.app:app"
    env = {"STORE": url, "PORT": "0"}
    async with pyglyn("node", "--sname", name, *COOKIE, "--app", where, cwd=ROOT, env=env) as node:
        port = (await node.says(r"http://127.0.0.1:(\d+)/"))[1]
        await node.says("tree_1 started")
        assert await run("call", name, "stock", "initialize", '<<"laptop">>', "5", *COOKIE) == (0, "1\n")

        async def shows(row: str) -> bool:
            return row in await fetch(port)

        await eventually(lambda: shows("<tr><td>laptop<td>5<td>0"))
        query = await node.says(r"stock_levels started \(<[^>]*>, os_pid (\d+)\)")
        os.kill(int(query[1]), signal.SIGKILL)
        assert await run("call", name, "stock", "restock", '<<"laptop">>', "7", *COOKIE) == (0, "1\n")
        await eventually(lambda: shows("<tr><td>laptop<td>12<td>0<td>inventory_001"), timeout=10)

        async with Node(unique_name(), cookie="example") as client:
            await client.connect(name)
            items = [stock.Item("laptop", "Laptop", 3, 0), stock.Item("mouse", "Mouse", 4, 0)]
            command = stock.InitializeInventory(items)
            await es.Service(client, ("inventory_service", name)).execute("inventory_002", command)
        await eventually(lambda: shows("<tr><td>mouse<td>4<td>0<td>inventory_002"))
        before = await fetch(port)
        for only in (("--aggregate", "inventory_001"), ()):
            status, output = await run("replay", name, "stock_levels", *only, *COOKIE)
            assert (status, ", 0 parked" in output) == (0, True), output
            assert await fetch(port) == before
        node.process.terminate()
        assert await node.ends() == 0


async def test_it_starts_while_its_database_is_away(epmd, request):
    server = request.getfixturevalue("own_server")
    server.stop()
    name = unique_name("stock")
    env = {"STORE": server.url, "PORT": "0"}
    where = "examples.postgres_projection.app:app"
    async with pyglyn("node", "--sname", name, *COOKIE, "--app", where, cwd=ROOT, env=env) as node:
        port = (await node.says(r"http://127.0.0.1:(\d+)/"))[1]
        assert "503 Service Unavailable" in await fetch(port)
        await asyncio.to_thread(server.start)
        command = ("call", name, "stock", "initialize", '<<"laptop">>', "5", *COOKIE)

        async def opened() -> bool:
            return (await run(*command))[0] == 0

        await eventually(opened, timeout=30)

        async def shows() -> bool:
            return "<tr><td>laptop<td>5<td>0" in await fetch(port)

        await eventually(shows, timeout=30)
        node.process.terminate()
        assert await node.ends() == 0
