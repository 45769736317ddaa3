"""The hub's socket for workers, which anybody on the machine can find: a stranger gets nothing."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import sys

import attrs
import pytest

from pyglyn import credentials
from pyglyn.errors import CallFailed
from pyglyn.etf import Atom, Pid
from pyglyn.net import NetSettings
from pyglyn.node import Node, Process, Settings, admission
from pyglyn.node.link import encode_request
from pyglyn.node.worker import HubAddress, Worker
from pyglyn.supervision import Supervisor, start, worker
from pyglyn.testing import eventually
from tests.node.conftest import unique_name

HELLO = encode_request((Atom("hello"), 1, 0, b"worker"))


async def idle(me: Process) -> None:
    while True:
        await me.receive()


async def settled(node: Node, already: int) -> None:
    """Wait until the hub has taken note of those who connected."""
    await eventually(lambda: len(node.workers.admission.unknown) == already)


def connected(node: Node) -> socket.socket:
    """A stranger."""
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(node.workers.address)
    sock.setblocking(False)
    return sock


async def is_closed(sock: socket.socket) -> bool:
    """Whether the hub has closed a connection; it sends nothing before."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(10):
            return await loop.sock_recv(sock, 1) == b""
    except ConnectionError:
        return True


@pytest.fixture
def settings() -> Settings:
    return Settings(net=NetSettings(epmd_port=0))


async def test_few_connections_wait_without_the_token_and_the_oldest_go(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    async with Node(unique_name(), cookie="c", settings=settings) as node:
        await node.workers.start()
        strangers = [connected(node) for _ in range(50)]
        await settled(node, 50)
        strangers += [connected(node) for _ in range(100)]
        await settled(node, admission.MAX_UNKNOWN)
        assert await is_closed(strangers[0])
        # An honest worker comes and stays all the same.
        tree = Supervisor(name="tree").add(worker(idle, name="honest"))
        await start(node, tree)
        assert node.whereis("honest")
        for sock in strangers:
            sock.close()
        await settled(node, 0)
    assert len([r for r in caplog.records if "have not shown the token" in r.getMessage()]) == 1


async def test_who_has_a_wrong_token_is_closed_before_a_frame_is_read(settings: Settings) -> None:
    async with Node(unique_name(), cookie="c", settings=settings) as node:
        await node.workers.start()
        sock = connected(node)
        sock.send(b"x" * len(node.workers.token) + HELLO)
        assert await is_closed(sock)
        assert not node.workers.links
        sock.close()


async def test_what_a_stranger_has_sent_is_not_read_when_it_is_refused(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have said all it wants to say before anybody looks at it."""
    async with Node(unique_name(), cookie="c", settings=settings) as node:
        await node.workers.start()
        welcomed = node.workers._next_serial
        monkeypatch.setattr("pyglyn.node.admission.user_of", lambda sock: 54321)
        other = connected(node)
        other.send(HELLO)
        assert await is_closed(other)
        other.close()
        assert node.workers._next_serial == welcomed


async def test_no_frame_of_a_stranger_is_waited_for(settings: Settings) -> None:
    """A frame may announce 4 GiB; of somebody unknown, not more than the token is ever kept."""
    async with Node(unique_name(), cookie="c", settings=settings) as node:
        await node.workers.start()
        sock = connected(node)
        sock.send(b"\xff\xff\xff\xff" + b"\0" * 20)
        await settled(node, 1)
        (waiting,) = node.workers.admission.unknown
        await eventually(lambda: len(waiting._shown) == 24)
        sock.send(b"\0" * 100_000)
        assert await is_closed(sock)
        sock.close()


async def test_the_token_has_to_come_in_time(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    settings = attrs.evolve(settings, net=attrs.evolve(settings.net, setup_timeout_s=0.01))
    async with Node(unique_name(), cookie="c", settings=settings) as node:
        await node.workers.start()
        sock = connected(node)
        sock.send(node.workers.token.encode()[:-1])
        assert await is_closed(sock)
        await settled(node, 0)
        sock.close()
    assert "did not come in time" in caplog.text


async def echo(me: Process) -> None:
    while True:
        from_, request = (await me.receive())[1:]  # type: ignore[index, misc]
        me.send(from_[0], (from_[1].tail, request))


async def test_no_name_that_a_peer_may_have_ends_a_worker(settings: Settings) -> None:
    """Who asks for a state says which node it is of; ``nil`` is an atom too, and none in Python."""
    async with Node(unique_name(), cookie="c", settings=settings) as node:
        await start(node, Supervisor(name="tree").add(worker(echo, name="echo")))
        pid = node.whereis("echo")
        assert pid is not None
        for name in ("nil", "true", "false", ""):
            node.send(pid, (Atom("system"), (Pid(name, 1, 0, 1), 1), Atom("get_state")))
        assert await node.call(pid, b"still here") == b"still here"
        with pytest.raises(CallFailed):
            await node.call(Pid("nil", 1, 0, 1), b"who")


SHOW_TOKEN = """
import socket, sys
sock = socket.socket(socket.AF_UNIX)
sock.connect("\\0" + sys.argv[1])
sock.send(sys.argv[2].encode())
print(sock.recv(1))
"""


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="only root can be another user")
async def test_another_users_program_is_refused_with_the_token(settings: Settings) -> None:
    async with Node(unique_name(), cookie="c", settings=settings) as node:
        await node.workers.start()
        other = await asyncio.create_subprocess_exec(
            *("/usr/bin/python3", "-c", SHOW_TOKEN, node.workers.address[1:], node.workers.token),
            user="nobody",
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            cwd="/",
        )
        out, err = await other.communicate()
        assert out == b"b''\n" or b"ConnectionResetError" in err or b"BrokenPipe" in err, err
        assert not node.workers.links


@pytest.mark.skipif(sys.platform != "linux", reason="the system does not tell who connects")
async def test_a_hub_or_worker_of_another_user_is_refused_even_with_the_token(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Which users there are is the kernel's business, so it is what the kernel says that is another here."""
    caplog.set_level(logging.WARNING)
    async with Node(unique_name(), cookie="c", settings=settings) as node:
        await node.workers.start()
        sock = connected(node)
        assert credentials.user_of(sock) is not None
        sock.close()
        for module in ("admission", "worker"):
            monkeypatch.setattr(f"pyglyn.node.{module}.user_of", lambda sock: 54321)
        worker = Worker()
        with pytest.raises(PermissionError):
            await worker.connect(HubAddress(node.workers.address, node.workers.token), "w")
        sock = connected(node)
        assert await is_closed(sock)
        assert not node.workers.links
        assert not node.workers.admission.unknown
        sock.close()
    assert "it is of user" in caplog.text


def as_many_as_can(node: Node) -> list[socket.socket]:
    """Strangers, up to where the kernel lets no more wait; the hub has not had its turn yet."""
    strangers = []
    with contextlib.suppress(BlockingIOError):
        while True:
            sock = socket.socket(socket.AF_UNIX)
            sock.setblocking(False)
            strangers.append(sock)
            sock.connect(node.workers.address)
    return strangers


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere only this user finds the socket")
async def test_a_worker_waits_where_as_many_as_can_have_connected(settings: Settings) -> None:
    """To asyncio the kernel's refusal is a connection, which then is nobody's."""
    async with Node(unique_name(), cookie="c", settings=settings) as node:
        await node.workers.start()
        strangers = as_many_as_can(node)
        worker = Worker()
        await worker.connect(HubAddress(node.workers.address, node.workers.token), "w")
        assert len(node.workers.links) == 1
        worker._closing = True
        await worker.close()
        for sock in strangers:
            sock.close()
        await settled(node, 0)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere only this user finds the socket")
async def test_who_has_the_token_is_read_before_many_others_that_came_with_it(settings: Settings) -> None:
    async with Node(unique_name(), cookie="c", settings=settings) as node:
        await node.workers.start()
        honest = connected(node)
        honest.send(node.workers.token.encode() + HELLO)
        strangers = as_many_as_can(node)
        assert len(strangers) > admission.MAX_UNKNOWN
        assert await asyncio.get_running_loop().sock_recv(honest, 1000), "no welcome"
        for sock in [honest, *strangers]:
            sock.close()
        await settled(node, 0)


async def test_strangers_one_after_another_cost_one_line(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    async with Node(unique_name(), cookie="c", settings=settings) as node:
        await node.workers.start()
        for _ in range(5):
            sock = connected(node)
            sock.send(b"x" * len(node.workers.token))
            assert await is_closed(sock)
            sock.close()
            await settled(node, 0)
    assert len([r for r in caplog.records if "the token is wrong" in r.getMessage()]) == 1
