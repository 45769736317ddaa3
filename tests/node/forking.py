"""A node whose application forks: ``python -m tests.node.forking NAME COOKIE PORT``; says ``up``, then serves."""

from __future__ import annotations

import asyncio
import multiprocessing
import sys
import time

from pyglyn import Node, Settings
from pyglyn.net import NetSettings
from pyglyn.testing import eventually


def idle() -> None:
    """What a pool's process does most of the time: nothing, without having closed anything."""
    while True:
        time.sleep(1.0)


async def main(name: str, cookie: str, port: str) -> None:
    async with Node(name, cookie=cookie, settings=Settings(net=NetSettings(listen_port=int(port)))) as node:
        print("up", flush=True)  # noqa: T201
        await eventually(lambda: node.peers.connections, timeout=60.0)
        forked = multiprocessing.get_context("fork").Process(target=idle)
        forked.start()
        print(forked.pid, flush=True)  # noqa: T201
        await node.run()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
