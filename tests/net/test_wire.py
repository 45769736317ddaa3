"""The log of control messages: a line each, no payload, and nothing in the way where it is off."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio

from pyglyn.dist.control import (
    AliasSend,
    Altact,
    AltactSend,
    Control,
    DemonitorP,
    Exit2,
    GroupLeader,
    Link,
    LinkExit,
    MonitorP,
    MonitorPExit,
    RegSend,
    Send,
    SpawnFlags,
    SpawnReply,
    SpawnRequest,
    Unlink,
    UnlinkId,
    UnlinkIdAck,
)
from pyglyn.etf import Atom, Pid, Reference, Term
from pyglyn.net import wire
from pyglyn.node import Node
from pyglyn.testing import eventually
from tests.node.conftest import unique_name

A, B, REF = Pid("a@h", 1, 0, 3), Pid("b@h", 2, 0, 3), Reference("a@h", 3, (1, 2, 3))
SECRET: Term = b"secret"
EACH_KIND: list[tuple[Control, str]] = [
    (Send(A, B, SECRET), "Send sender=<a@h.1.0> to=<b@h.2.0>"),
    (Send(None, B), "Send to=<b@h.2.0>"),
    (RegSend(A, Atom("rex"), SECRET), "RegSend sender=<a@h.1.0> name=rex"),
    (AliasSend(A, REF, SECRET), "AliasSend sender=<a@h.1.0> alias=#Ref<a@h.3.2.1>"),
    (AltactSend(Altact.EXIT, A, B, SECRET), "AltactSend bits=16 sender=<a@h.1.0> to=<b@h.2.0>"),
    (Link(A, B), "Link sender=<a@h.1.0> to=<b@h.2.0>"),
    (Unlink(A, B), "Unlink sender=<a@h.1.0> to=<b@h.2.0>"),
    (UnlinkId(7, A, B), "UnlinkId id=7 sender=<a@h.1.0> to=<b@h.2.0>"),
    (UnlinkIdAck(7, A, B), "UnlinkIdAck id=7 sender=<a@h.1.0> to=<b@h.2.0>"),
    (LinkExit(A, B, SECRET, SECRET), "LinkExit sender=<a@h.1.0> to=<b@h.2.0>"),
    (Exit2(A, B, SECRET, SECRET), "Exit2 sender=<a@h.1.0> to=<b@h.2.0>"),
    (GroupLeader(A, B), "GroupLeader leader=<a@h.1.0> to=<b@h.2.0>"),
    (MonitorP(A, B, REF), "MonitorP watcher=<a@h.1.0> watched=<b@h.2.0> ref=#Ref<a@h.3.2.1>"),
    (DemonitorP(A, Atom("n"), REF), "DemonitorP watcher=<a@h.1.0> watched=n ref=#Ref<a@h.3.2.1>"),
    (
        MonitorPExit(B, A, REF, SECRET),
        "MonitorPExit watched=<b@h.2.0> watcher=<a@h.1.0> ref=#Ref<a@h.3.2.1>",
    ),
    (
        SpawnRequest(REF, A, Atom("user"), (Atom("m"), Atom("f"), 2), [SECRET], SECRET),
        "SpawnRequest request_id=#Ref<a@h.3.2.1> sender=<a@h.1.0> group_leader=user mfa={m,f,2}",
    ),
    (
        SpawnReply(REF, A, SpawnFlags.MONITOR, B, SECRET),
        "SpawnReply request_id=#Ref<a@h.3.2.1> to=<a@h.1.0> flags=2 result=<b@h.2.0>",
    ),
]


@pytest.mark.parametrize(("control", "line"), EACH_KIND, ids=[type(c).__name__ for c, _ in EACH_KIND])
def test_each_kind_has_a_line_without_the_programs_data(control: Control, line: str) -> None:
    assert wire.describe(control, None) == line
    assert wire.describe(control, 6) == f"{line} (6 bytes)"


@pytest.mark.parametrize(
    "control",
    [
        RegSend(A, Atom("x\nINFO forged")),
        Link(Pid("a@h\nINFO forged", 1, 0, 3), B),
        RegSend(A, Atom("\x1b[2J")),
    ],
)
def test_names_cannot_begin_a_line_of_their_own(control: Control) -> None:
    assert wire.describe(control, None).isprintable()


@pytest_asyncio.fixture
async def two_nodes(request: pytest.FixtureRequest) -> AsyncIterator[Callable[[], Any]]:
    """A function that starts two connected nodes; they are stopped at the end."""
    nodes: list[Node] = []

    async def begin() -> tuple[Node, Node]:
        for _ in range(2):
            node = Node(unique_name(), cookie="the_cookie_of_this_test")
            await node.start_node()
            nodes.append(node)
        await nodes[0].connect(nodes[1].name)
        await eventually(lambda: nodes[1].nodes() == [nodes[0].name])
        return nodes[0], nodes[1]

    yield begin
    for node in nodes:
        await node.stop()


async def test_both_sides_log_what_passes_and_never_what_is_in_it(two_nodes, caplog) -> None:
    with caplog.at_level(logging.DEBUG, "pyglyn.dist.wire"):
        a, b = await two_nodes()
        async with b.process("inbox") as me:
            a.send(("inbox", b.name), (b"the payload", Atom("secret_atom")))
            assert await me.receive(timeout=60) == (b"the payload", Atom("secret_atom"))
    lines = [
        r.getMessage() for r in caplog.records if r.name == "pyglyn.dist.wire" and "inbox" in r.getMessage()
    ]
    sent = f"RegSend sender={a.system.pid} name=inbox"
    assert [line.partition(" (")[0] for line in lines] == [f"{b.name} <- {sent}", f"{a.name} -> {sent}"]
    for record in caplog.records:
        text = record.getMessage()
        assert "\n" not in text
        assert not any(word in text for word in ("the payload", "secret_atom", "the_cookie_of_this_test"))


async def test_where_it_is_off_nothing_stands_in_the_way(two_nodes, caplog) -> None:
    with caplog.at_level(logging.INFO, "pyglyn.dist.wire"):
        a, _ = await two_nodes()
    [connection] = a.peers.connections
    assert connection._send == connection._channel.send
    assert connection._on_message == a.peers.on_message
