"""A node for other machines that does without TLS says so, once; one for this machine does not."""

from __future__ import annotations

import secrets
import signal

import pytest

from tests.cli.test_cli import pyglyn


@pytest.mark.parametrize(
    ("option", "host", "times"), [("--name", "127.0.0.2", 1), ("--sname", "localhost", 0)]
)
async def test_what_is_in_the_clear_is_said_once(epmd_port, option: str, host: str, times: int) -> None:
    async with pyglyn("node", option, f"clear_{secrets.token_hex(4)}@{host}", "--cookie", "c") as node:
        await node.says("registered as")
        node.process.send_signal(signal.SIGTERM)
        assert await node.ends() == 0
        assert node.output.count("is in the clear") == times
