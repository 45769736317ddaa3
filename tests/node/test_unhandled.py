"""What a server says of messages that it does not handle."""

from __future__ import annotations

import logging

import pytest

from pyglyn.etf import Atom
from pyglyn.node import GenServer, Node
from pyglyn.testing import eventually
from tests.node.conftest import unique_name


class Deaf(GenServer):
    """Handles nothing."""


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (Atom("reload"), "reload"),
        ((Atom("order created"), b"secret", 20), "{'order created',_,_}"),
        ((Atom("row"), *range(20)), "{row,…}"),
        ((b"secret", 1), "a tuple"),
        (b"secret", "a bytes"),
    ],
    ids=["atom", "tagged", "long", "untagged", "binary"],
)
async def test_an_unhandled_message_is_named_by_its_tag_and_not_shown(epmd, caplog, message, words):
    caplog.set_level(logging.WARNING, "pyglyn")
    async with Node(unique_name(), cookie="c") as node:
        pid = await node.start(Deaf)
        node.send(pid, message)
        node.cast(pid, message)
        said = [f"unhandled {what} in Deaf: {words}" for what in ("message", "cast")]
        await eventually(lambda: [m for m in caplog.messages if m.startswith("unhandled")] == said)
        assert "secret" not in caplog.text
