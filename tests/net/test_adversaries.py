"""Peers that do not behave: a clear error each, the node lives on, nothing leaks."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable

import attrs
import pytest

from pyglyn.dist import (
    RECOMMENDED,
    Acceptor,
    ChannelSettings,
    DistFlags,
    HandshakeComplete,
    Initiator,
    LocalSide,
)
from pyglyn.errors import HandshakeError, WrongCookie
from pyglyn.etf import Pid, Reference, encode_bare
from pyglyn.net import NetSettings, transport
from pyglyn.testing import eventually, no_leaks
from tests.net.conftest import Recorder, StartNode

COOKIE = "pyglyn_testing"
PEER = LocalSide(name="peer@localhost", creation=7, flags=RECOMMENDED, cookie=COOKIE.encode())
SHORT = 0.3


class RawPeer:
    """The other end of a connection, at the level of bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def packet(self) -> bytes:
        """Read one message of the handshake."""
        return await self.reader.readexactly(int.from_bytes(await self.reader.readexactly(2)))

    def send(self, body: bytes) -> None:
        self.writer.write(len(body).to_bytes(2) + body)

    async def ended(self) -> bytes:
        """Read until the node closes the connection."""
        data = b""
        with contextlib.suppress(ConnectionError):
            while more := await self.reader.read(65536):
                data += more
        return data

    async def hand_shake(self, machine: Initiator | Acceptor) -> None:
        """Complete a handshake with a machine of ours."""
        while True:
            self.writer.write(machine.data_to_send())
            data = await self.reader.read(4096)
            assert data, "the node closed the connection"
            events = list(machine.receive_data(data))
            if isinstance(machine, Acceptor) and events and not isinstance(events[0], HandshakeComplete):
                events += machine.send_status("ok")
            if any(isinstance(event, HandshakeComplete) for event in events):
                self.writer.write(machine.data_to_send())
                return


@pytest.fixture
async def node(start_node: StartNode, caplog: pytest.LogCaptureFixture) -> AsyncIterator[Recorder]:
    """A node without EPMD; ``peer@localhost`` is wherever ``acting`` listens.

    Whatever a peer does, the log is in lines that this node wrote.
    """
    ports: list[int] = []
    settings = NetSettings(
        epmd_port=0,
        setup_timeout_s=SHORT,
        address_of=lambda name: ("127.0.0.1", ports[-1]) if ports else None,
        channel=ChannelSettings(net_ticktime_s=60.0),
    )
    recorder = await start_node("py@localhost", COOKIE, settings=settings)
    recorder.ports = ports  # type: ignore[attr-defined]
    yield recorder
    for record in caplog.get_records("call"):
        assert record.getMessage().isprintable()


@contextlib.asynccontextmanager
async def acting(node: Recorder, act: Callable[[RawPeer], Awaitable[None]]) -> AsyncIterator[None]:
    """Let the dialled peer do what ``act`` does; its mistakes fail the test."""
    tasks: list[asyncio.Task[None]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.append(task)
        try:
            await act(RawPeer(reader, writer))
        finally:
            writer.transport.abort()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        node.ports.append(server.sockets[0].getsockname()[1])  # type: ignore[attr-defined]
        yield
    async with asyncio.timeout(180):
        await asyncio.gather(*tasks)


@contextlib.asynccontextmanager
async def calling(node: Recorder) -> AsyncIterator[RawPeer]:
    """Connect to the node as a peer that is about to shake hands."""
    reader, writer = await asyncio.open_connection("127.0.0.1", node.peers.port)
    try:
        async with asyncio.timeout(180):
            yield RawPeer(reader, writer)
    finally:
        writer.transport.abort()


async def lives_on(node: Recorder) -> None:
    """A proper peer can still connect, and dial."""
    async with calling(node) as peer:
        await peer.hand_shake(Initiator(attrs.evolve(PEER, name="good@localhost"), node.name, 1))
        await eventually(lambda: node.peers.get("good@localhost"))
    await eventually(lambda: node.peers.get("good@localhost") is None)


# --- peers that we dial ----------------------------------------------------------------------------


async def close_at_once(peer: RawPeer) -> None:
    pass


async def close_after_the_name(peer: RawPeer) -> None:
    await peer.packet()


async def close_after_the_status(peer: RawPeer) -> None:
    await peer.packet()
    peer.send(b"sok")
    await peer.writer.drain()


async def close_within_the_challenge(peer: RawPeer) -> None:
    await peer.packet()
    peer.send(b"sok")
    peer.writer.write(b"\0\x20Nabc")
    await peer.writer.drain()


async def close_after_alive(peer: RawPeer) -> None:
    await peer.packet()
    peer.send(b"salive")
    assert await peer.packet() == b"strue"


async def close_after_our_digest(peer: RawPeer) -> None:
    machine = Acceptor(PEER, 5)
    await _until_our_reply(peer, machine)


async def _until_our_reply(peer: RawPeer, machine: Acceptor) -> bytes:
    name = await peer.packet()
    machine.receive_data(len(name).to_bytes(2) + name)
    machine.send_status("ok")
    peer.writer.write(machine.data_to_send())
    return await peer.packet()


async def send_garbage(peer: RawPeer) -> None:
    await peer.packet()
    peer.writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    await peer.ended()


async def send_a_wrong_digest(peer: RawPeer) -> None:
    await _until_our_reply(peer, Acceptor(PEER, 5))
    peer.send(b"a" + bytes(16))
    await peer.ended()


async def never_answer(peer: RawPeer) -> None:
    assert await peer.ended()


async def never_finish(peer: RawPeer) -> None:
    await _until_our_reply(peer, Acceptor(PEER, 5))
    await peer.ended()


async def drip(peer: RawPeer) -> None:
    """A byte now and then is no answer: the time is for whole messages."""
    await peer.packet()
    peer.writer.write(b"\x01\x00s")
    ended = asyncio.ensure_future(peer.ended())
    while not ended.done():
        peer.writer.write(b"o")
        await asyncio.wait([ended], timeout=SHORT / 5)


async def say_nok(peer: RawPeer) -> None:
    await peer.packet()
    peer.send(b"snok")
    await peer.ended()


DIALLED: list[tuple[Callable[[RawPeer], Awaitable[None]], type[HandshakeError], str]] = [
    (close_at_once, HandshakeError, "closed the connection without answering"),
    (close_after_the_name, HandshakeError, "closed the connection without answering"),
    (close_after_the_status, HandshakeError, "closed the connection .* its challenge"),
    (close_within_the_challenge, HandshakeError, "closed the connection .* its challenge"),
    (close_after_alive, HandshakeError, "closed the connection .* its challenge"),
    (close_after_our_digest, WrongCookie, "refused this node's cookie"),
    (send_garbage, HandshakeError, "broke the handshake: a message of 18516 bytes is announced"),
    (send_a_wrong_digest, WrongCookie, "does not have this node's cookie"),
    (never_answer, HandshakeError, "did not answer the handshake within 0.3 s"),
    (never_finish, HandshakeError, "did not answer the handshake within 0.3 s"),
    (drip, HandshakeError, "did not answer the handshake within 0.3 s"),
    (say_nok, HandshakeError, "wanted to connect itself, but did not within 0.3 s"),
]


@pytest.mark.parametrize(("act", "error", "text"), DIALLED, ids=[row[0].__name__ for row in DIALLED])
async def test_a_dialled_peer_that_does_not_behave_is_an_error(
    node: Recorder, act: Callable[[RawPeer], Awaitable[None]], error: type[HandshakeError], text: str
) -> None:
    async with no_leaks():
        async with acting(node, act):
            with pytest.raises(error, match=f"^peer@localhost .*{text}|^peer@localhost {text}") as caught:
                await node.peers.connect("peer@localhost")
            assert type(caught.value) is error
            assert "\n" not in str(caught.value)
        assert node.history == []
        await lives_on(node)


async def test_an_attempt_may_be_given_up_at_any_time(node: Recorder) -> None:
    """Nobody waits any more: the attempt itself ends by its own timer, without a complaint."""
    reached = asyncio.Event()

    async def act(peer: RawPeer) -> None:
        reached.set()
        await never_answer(peer)

    async with no_leaks(), acting(node, act):
        attempt = asyncio.ensure_future(node.peers.connect("peer@localhost"))
        await reached.wait()
        attempt.cancel()
        with pytest.raises(asyncio.CancelledError):
            await attempt


# --- peers that dial us ----------------------------------------------------------------------------


async def call_and_close(peer: RawPeer, node: Recorder) -> None:
    peer.writer.close()


async def call_and_close_after_the_name(peer: RawPeer, node: Recorder) -> None:
    peer.writer.write(Initiator(PEER, node.name, 1).data_to_send())
    assert await peer.packet() == b"sok"


async def call_and_close_after_the_challenge(peer: RawPeer, node: Recorder) -> None:
    peer.writer.write(Initiator(PEER, node.name, 1).data_to_send())
    await peer.packet()
    assert (await peer.packet())[:1] == b"N"


async def call_without_the_cookie(peer: RawPeer, node: Recorder) -> None:
    with pytest.raises(AssertionError, match="closed the connection"):
        await peer.hand_shake(Initiator(attrs.evolve(PEER, cookie=b"guess"), node.name, 1))


async def call_with_garbage(peer: RawPeer, node: Recorder) -> None:
    peer.writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert await peer.ended() == b""


async def call_with_a_huge_name(peer: RawPeer, node: Recorder) -> None:
    peer.send(b"N" + bytes(12) + (300).to_bytes(2) + b"x" * 300)
    assert await peer.ended() == b""


async def call_without_flags(peer: RawPeer, node: Recorder) -> None:
    peer.send(b"N" + bytes(12) + (14).to_bytes(2) + b"peer@localhost")
    assert await peer.ended() == b"\0\x0csnot_allowed"


async def call_in_our_name(peer: RawPeer, node: Recorder) -> None:
    peer.writer.write(Initiator(attrs.evolve(PEER, name=node.name), node.name, 1).data_to_send())
    assert await peer.ended() == b"\0\x0csnot_allowed"


async def call_with_a_name_that_forges_a_line(peer: RawPeer, node: Recorder) -> None:
    peer.writer.write(
        Initiator(attrs.evolve(PEER, name="x\nFAKE\x1b[2J@localhost"), node.name, 1).data_to_send()
    )
    assert await peer.ended() == b"\0\x0csnot_allowed"


async def call_without_flags_in_a_forged_name(peer: RawPeer, node: Recorder) -> None:
    side = attrs.evolve(PEER, name="x\nFAKE@localhost", flags=DistFlags(0))
    peer.writer.write(Initiator(side, node.name, 1).data_to_send())
    assert await peer.ended() == b"\0\x0csnot_allowed"


async def call_for_a_name_on_a_forged_host(peer: RawPeer, node: Recorder) -> None:
    side = attrs.evolve(PEER, name="host\nFAKE", flags=RECOMMENDED | DistFlags.NAME_ME)
    peer.writer.write(Initiator(side, node.name, 1).data_to_send())
    assert await peer.ended() == b"\0\x0csnot_allowed"


async def call_in_tls(peer: RawPeer, node: Recorder) -> None:
    hello = ssl.MemoryBIO()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    with contextlib.suppress(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), hello, server_hostname="localhost").do_handshake()
    peer.writer.write(hello.read())
    assert await peer.ended() == b""


async def call_and_say_nothing(peer: RawPeer, node: Recorder) -> None:
    assert await peer.ended() == b""


async def call_and_stop_in_the_middle(peer: RawPeer, node: Recorder) -> None:
    peer.writer.write(Initiator(PEER, node.name, 1).data_to_send())
    assert (await peer.ended()).startswith(b"\0\3sok")


CALLERS = [
    (call_and_close_after_the_name, "peer@localhost closed the connection during the handshake"),
    (call_and_close_after_the_challenge, "peer@localhost closed the connection during the handshake"),
    (call_without_the_cookie, "peer@localhost does not have this node's cookie"),
    (call_with_garbage, "broke the handshake"),
    (call_in_tls, "a connecting node speaks TLS (-proto_dist inet_tls), this connection is plain TCP"),
    (call_with_a_name_that_forges_a_line, r"broke the handshake: 'x\nFAKE\x1b[2J@localhost' is no node name"),
    (call_without_flags_in_a_forged_name, r"'x\nFAKE@localhost' is no node name"),
    (call_for_a_name_on_a_forged_host, r"'host\nFAKE' is no node name"),
    (call_with_a_huge_name, "broke the handshake: a node name of 300 bytes"),
    (call_without_flags, "peer@localhost lacks capabilities that this node requires: EXTENDED_REFERENCES"),
    (call_in_our_name, "it has our own name"),
    (call_and_say_nothing, "a connecting node did not answer the handshake within 0.3 s"),
    (call_and_stop_in_the_middle, "peer@localhost did not answer the handshake within 0.3 s"),
]


@pytest.mark.parametrize(("act", "text"), CALLERS, ids=[row[0].__name__ for row in CALLERS])
async def test_a_calling_peer_that_does_not_behave_is_a_line_in_the_log(
    node: Recorder,
    act: Callable[[RawPeer, Recorder], Awaitable[None]],
    text: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    async with no_leaks():
        async with calling(node) as peer:
            await act(peer, node)
        await eventually(lambda: text in caplog.text)
        assert "refused a connection from 127.0.0.1:" in caplog.text
        assert node.history == []
        await lives_on(node)
    assert COOKIE not in caplog.text


async def test_who_calls_in_the_name_of_a_node_that_is_dialled_does_not_end_the_attempt(
    start_node: StartNode,
) -> None:
    """Without the cookie; while we wait for our turn, and when the node has our name already."""
    ports: list[int] = []
    settings = NetSettings(
        epmd_port=0, max_dials=1, address_of=lambda name: ("127.0.0.1", ports[0]), setup_timeout_s=60.0
    )
    node = await start_node("py@localhost", COOKIE, settings=settings)
    zoe = attrs.evolve(PEER, name="zoe@localhost")

    async def call_as_zoe(peer: RawPeer) -> None:
        initiator = Initiator(zoe, node.name, 1)
        peer.writer.write(initiator.data_to_send())
        assert await peer.packet() == b"sok_simultaneous"

    async def first(peer: RawPeer) -> None:
        """Keep the one turn there is until somebody has called for the next one."""
        await peer.packet()
        async with calling(node) as liar:
            await call_as_zoe(liar)

    async def second(peer: RawPeer) -> None:
        name = await peer.packet()
        async with calling(node) as liar:
            await call_as_zoe(liar)
            acceptor = Acceptor(zoe, 1)
            list(acceptor.receive_data(len(name).to_bytes(2) + name))
            acceptor.send_status("ok")
            peer.writer.write(acceptor.data_to_send())
            await peer.hand_shake(acceptor)
            await eventually(lambda: node.peers.get("zoe@localhost"))

    acts = iter((first, second))
    node.ports = ports  # type: ignore[attr-defined]
    async with acting(node, lambda peer: next(acts)(peer)):
        other = asyncio.ensure_future(node.peers.connect("amy@localhost"))
        dialled = asyncio.ensure_future(node.peers.connect("zoe@localhost"))
        with pytest.raises(HandshakeError):
            await other
        assert (await dialled).name == "zoe@localhost"


async def test_many_callers_that_do_not_behave_in_one_way_are_a_line(
    node: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    for act in (call_with_garbage, call_in_our_name):
        for _ in range(10):
            async with calling(node) as peer:
                await act(peer, node)
            await eventually(lambda: not node.peers._accepting)
    refused = [message for message in caplog.messages if message.startswith("refused a connection")]
    assert len(refused) == 2
    await lives_on(node)


async def test_a_caller_that_only_looks_whether_somebody_listens_is_no_warning(
    node: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    """A health check, or a real node that called its attempt off."""
    async with calling(node) as peer:
        await call_and_close(peer, node)
    await eventually(lambda: not node.peers._accepting)
    assert caplog.text == ""
    await lives_on(node)


async def test_callers_that_say_nothing_are_limited_in_number(
    start_node: StartNode, caplog: pytest.LogCaptureFixture
) -> None:
    """The oldest ones go, so that an honest one, which needs a moment only, always gets through."""
    few = NetSettings(epmd_port=0, max_handshakes=3, setup_timeout_s=30.0)
    node = await start_node("py@localhost", COOKIE, settings=few)
    async with no_leaks(), contextlib.AsyncExitStack() as stack:
        mute = [await stack.enter_async_context(calling(node)) for _ in range(5)]
        ends = [asyncio.ensure_future(peer.ended()) for peer in mute]
        await eventually(lambda: [end.done() for end in ends] == [True, True, False, False, False])
        assert len(node.peers._accepting) == 3
        for _ in range(10):
            await lives_on(node)
            mute += [await stack.enter_async_context(calling(node)) for _ in range(3)]
        assert caplog.text.count("3 connections have not proved the cookie yet") == 1
        for end in ends:
            end.cancel()


@pytest.mark.parametrize("hosts", [1, 4])
async def test_messages_to_many_unknown_nodes_do_not_open_as_many_sockets(
    start_node: StartNode, hosts: int
) -> None:
    """The attempts take turns, the nodes of one host too; all come to their end."""
    now, most, seen = 0, 0, 0

    async def nobody(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal now, most, seen
        now, seen = now + 1, seen + 1
        most = max(most, now)
        await reader.read(1)
        await asyncio.sleep(0)
        now -= 1
        writer.transport.abort()

    server = await asyncio.start_server(nobody, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    settings = NetSettings(
        epmd_port=0, max_dials=6, max_dials_to_host=2, address_of=lambda name: ("127.0.0.1", port)
    )
    node = await start_node("py@localhost", COOKIE, settings=settings)
    async with no_leaks(), asyncio.timeout(180):
        attempts = [node.peers.connect(f"n{number}@host{number % hosts}") for number in range(100)]
        results = await asyncio.gather(*attempts, return_exceptions=True)
    assert all(isinstance(result, HandshakeError) for result in results)
    assert seen == 100
    assert most <= (2 if hosts == 1 else 6)
    server.close()


# --- peers that are up -----------------------------------------------------------------------------


def framed(*parts: bytes) -> bytes:
    body = b"".join(parts)
    return len(body).to_bytes(4) + body


AFTERWARDS = {
    "garbage": (b"\0\0\0\5hello", "expected a distribution header"),
    "text": (b"GET / HTTP/1.1\r\n\r\n", "a packet of 1195725856 bytes is announced"),
    "a length of 3 GB": ((3 << 30).to_bytes(4), "a packet of 3221225472 bytes is announced"),
    "an unknown message": (framed(b"\x83D\0", b"h\1ac"), "unknown control message op 99"),
    "half a term": (framed(b"\x83D\0", b"h\3a\1"), "a control message is damaged"),
    "a fragment of nothing": (framed(b"\x83F", bytes(15), b"\1"), "a message that has not started"),
}


@pytest.mark.parametrize("name", AFTERWARDS)
@pytest.mark.parametrize("dialled", [True, False], ids=["dialled", "calling"])
async def test_what_a_peer_sends_after_the_handshake_may_cost_it_the_connection(
    node: Recorder, name: str, dialled: bool
) -> None:
    data, text = AFTERWARDS[name]

    async def act(peer: RawPeer) -> None:
        machine = Acceptor(PEER, 5) if dialled else Initiator(PEER, node.name, 5)
        await peer.hand_shake(machine)
        await eventually(lambda: node.ups)
        peer.writer.write(data)
        await peer.ended()

    async with no_leaks():
        if dialled:
            async with acting(node, act):
                await node.peers.connect("peer@localhost")
                reason = await node.has_lost("peer@localhost")
        else:
            async with calling(node) as peer:
                await act(peer)
            reason = await node.has_lost("peer@localhost")
        assert reason.startswith("protocol error: ")
        assert text in reason
        assert node.history == [("up", "peer@localhost"), ("down", "peer@localhost")]
        await lives_on(node)


async def test_garbage_together_with_the_end_of_the_handshake_is_noticed(node: Recorder) -> None:
    """It comes in the same segment as the digest."""

    async def act(peer: RawPeer) -> None:
        machine = Acceptor(PEER, 5)
        reply = await _until_our_reply(peer, machine)
        machine.receive_data(len(reply).to_bytes(2) + reply)
        peer.writer.write(machine.data_to_send() + b"\0\0\0\0" + b"\0\0\0\5hello")
        await peer.ended()

    async with no_leaks(), acting(node, act):
        with pytest.raises(
            HandshakeError, match=r"^peer@localhost was up and at once down again: protocol error: "
        ):
            await node.peers.connect("peer@localhost")
        assert node.history == [("up", "peer@localhost"), ("down", "peer@localhost")]


async def test_a_peer_that_does_not_read_does_not_keep_a_closed_connection_open(
    node: Recorder,
) -> None:
    """What is queued for it is given up after a moment."""

    async def act(peer: RawPeer) -> None:
        await peer.hand_shake(Acceptor(PEER, 5))
        peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await eventually(lambda: node.downs)
        await eventually(lambda: connection_gone())

    async with no_leaks(), acting(node, act):
        connection = await node.peers.connect("peer@localhost")
        connection_gone = lambda: connection.gone  # noqa: E731
        while not connection.busy:
            node.send("peer@localhost", node.pid(), bytes(60_000))
            await asyncio.sleep(0)
        connection.close("enough")
        assert node.downs == [("peer@localhost", "enough")]


async def test_what_was_read_is_dispatched_before_the_connection_is_down(node: Recorder) -> None:
    """Other connections have their turn in between; the end does not come before the rest."""

    async def act(peer: RawPeer) -> None:
        await peer.hand_shake(Acceptor(PEER, 5))
        await peer.ended()

    async with no_leaks(), acting(node, act):
        connection = await node.peers.connect("peer@localhost")
        them = Pid("peer@localhost", 1, 0, 7)
        references = [Reference("peer@localhost", 7, (number, 0, 0)) for number in range(100)]
        data = b"".join(framed(b"\x83D\0", encode_bare((19, them, node.pid(), ref))) for ref in references)
        assert connection._transport is not None
        connection._transport.abort()  # as when what we write does not arrive
        connection.get_buffer(-1)[: len(data)] = data
        connection.buffer_updated(len(data))
        assert len(node.monitors()) < 100
        await node.has_lost("peer@localhost")
        assert [control.ref for control in node.monitors()] == references  # type: ignore[union-attr]


async def test_few_of_many_connections_are_accepted_in_one_turn_and_the_others_wait():
    made = most = 0

    class Counted(asyncio.Protocol):
        def connection_made(self, transport):
            nonlocal made
            made += 1

    listening = await transport.listen(["127.0.0.1"], 0, Counted)
    clients = [socket.create_connection(("127.0.0.1", listening.port), timeout=60) for _ in range(100)]
    while made < len(clients):
        before = made
        await asyncio.sleep(0)
        most = max(most, made - before)
    assert most <= transport.ACCEPTED_A_TURN
    for client in clients:
        client.close()
    listening.close()
