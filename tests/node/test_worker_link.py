"""A worker and its hub, joined by a socket."""

from __future__ import annotations

import asyncio
from pathlib import Path

from pyglyn.etf import Atom, Limits
from pyglyn.node.link import Frame, LinkProtocol
from pyglyn.node.settings import Settings, to_bytes
from pyglyn.node.worker import HubAddress, Worker


async def test_what_the_hub_sends_right_behind_its_welcome_is_taken(tmp_path: Path) -> None:
    """A connection may be lost at any moment, and other workers' nodes be busy from the beginning."""

    def hub() -> LinkProtocol:
        def on_frame(frame: Frame) -> None:
            if frame.request is not None:
                node = Atom("here@localhost")
                busy = [Atom("slow@localhost")]
                welcome = (Atom("welcome"), 7, node, 1, Atom("undefined"), busy, to_bytes(settings))
                protocol.request(welcome)
                protocol.request((Atom("node_down"), Atom("other@localhost")))
                protocol.request((Atom("busy"), Atom("slow@localhost"), False))

        protocol = LinkProtocol(on_frame, lambda: None)
        return protocol

    settings = Settings(limits=Limits(depth=7))
    path = str(tmp_path / "hub")
    server = await asyncio.get_running_loop().create_unix_server(hub, path)
    async with server:
        worker = Worker()
        async with asyncio.timeout(5):
            await worker.connect(HubAddress(path, "token"), "worker")
        assert worker.runtime.serial == 7
        assert not worker.runtime.busy
        assert worker.runtime.settings == settings
        await worker.close()
