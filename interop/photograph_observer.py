"""Photograph Observer looking at a Python node: ``python interop/photograph_observer.py FOLDER``.

Needs Debian's ``erlang-observer``, ``xvfb`` and ``imagemagick``. Starts a node with a supervision tree, and
Observer under Xvfb, walks through four tabs, and says whether the node stayed connected; 1 is the exit status
if it did not.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from pyglyn import Node
from pyglyn.node import GenServer
from pyglyn.supervision import Supervisor, program, start, supervisor, worker
from pyglyn.testing import eventually

TABS = ("System", "Load Charts", "Applications", "Processes")
SCREEN = "850x600x24"
SCRIPT = Path(__file__).parent / "erlang" / "observer_tabs.escript"


class Counter(GenServer):
    """A server with some state to look at."""

    async def init(self) -> None:
        self.sold = {"apples": 3, "pears": 5}

    async def handle_call(self, request: Any, caller: Any) -> Any:
        return self.sold.get("apples", 0)


async def till(me: Any) -> None:
    """A worker with a process beside it."""

    async def printer(me: Any) -> None:
        await asyncio.Event().wait()

    me.spawn(printer, name="printer")
    await asyncio.Event().wait()


def shop() -> Supervisor:
    """The tree that is looked at."""
    orders = (
        Supervisor("one_for_all", name="orders")
        .add(worker(Counter, name="open"))
        .add(worker(Counter, name="shipped", isolation="task"))
    )
    return (
        Supervisor(name="shop")
        .add(worker(Counter, name="stock"))
        .add(worker(till, name="till"))
        .add(supervisor(orders))
        .add(program(["sleep", "3600"], name="mailer"))
    )


@contextlib.asynccontextmanager
async def screen() -> AsyncIterator[str]:
    """A display of its own."""
    number = 90 + secrets.randbelow(1000)
    server = await asyncio.create_subprocess_exec(
        "Xvfb", f":{number}", "-screen", "0", SCREEN, stderr=subprocess.DEVNULL
    )
    try:
        await eventually(Path(f"/tmp/.X11-unix/X{number}").exists)
        yield f":{number}"
    finally:
        server.terminate()
        await server.wait()


async def photograph(node: str, cookie: str, display: str, folder: Path) -> str:
    """Walk through the tabs; returns the last line that Observer's script printed."""
    observer = await asyncio.create_subprocess_exec(
        "escript",
        str(SCRIPT),
        node,
        cookie,
        *TABS,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "DISPLAY": display},
    )
    assert observer.stdin is not None
    assert observer.stdout is not None
    last = ""
    async for line in observer.stdout:
        last = line.decode().strip()
        sys.stdout.write(f"{last}\n")
        if last.startswith("ready "):
            name = last.removeprefix("ready ").lower().replace(" ", "-")
            picture = await asyncio.create_subprocess_exec(
                "import", "-display", display, "-window", "root", str(folder / f"observer-{name}.png")
            )
            await picture.wait()
            observer.stdin.write(b"\n")
    await observer.wait()
    return last


async def main(folder: Path) -> int:
    cookie = secrets.token_hex(8)
    async with Node("shop@localhost", cookie=cookie) as node, screen() as display:
        await start(node, shop())
        last = await photograph(node.name, cookie, display, folder)
    return 0 if last == "connected true observer true looks true" else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main(Path(sys.argv[1]))))
