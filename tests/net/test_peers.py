"""`Peers` among themselves, without Erlang: the rules for one connection per peer."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import tracemalloc

import attrs
import pytest

from pyglyn.dist import RECOMMENDED, ChannelSettings, DistFlags, Initiator, LocalSide
from pyglyn.dist.control import Send
from pyglyn.errors import (
    EpmdError,
    HandshakeError,
    LocalProtocolError,
    MissingFlags,
    NameRefused,
    WrongCookie,
)
from pyglyn.etf import encode_parts
from pyglyn.net import Connection, LocalNode, NetSettings, Peers, transport
from pyglyn.net.connection import WRITTEN_A_TURN
from pyglyn.testing import eventually, free_port, no_leaks
from tests.net.conftest import Recorder, StartNode

pytestmark = pytest.mark.usefixtures("epmd_port")


async def test_two_nodes_without_erlang_find_each_other(start_node: StartNode) -> None:
    """The first one serves EPMD, because nobody does; the second one registers there."""
    a, b = await start_node("a@localhost"), await start_node("b@localhost")
    assert a.peers.epmd is not None
    assert b.peers.epmd is None
    connection = await b.peers.connect("a@localhost")
    assert connection.creation == a.local.creation >= 4
    b.send("a@localhost", a.pid(7), b"hello")
    a_side = await a.has_received(1)
    assert a_side == [b"hello"]
    a.send("b@localhost", "inbox", [1, 2])
    assert await b.has_received(1) == [[1, 2]]


@pytest.mark.parametrize("round_", range(5))
async def test_two_nodes_that_dial_each_other_at_once_get_one_connection(
    start_node: StartNode, round_: int, caplog: pytest.LogCaptureFixture
) -> None:
    a, b = await start_node("a@localhost"), await start_node("b@localhost")
    caplog.set_level(logging.WARNING)
    up_a, up_b = await asyncio.gather(a.peers.connect("b@localhost"), b.peers.connect("a@localhost"))
    assert not up_a.closed
    assert not up_b.closed
    a.send("b@localhost", b.pid(), round_)
    b.send("a@localhost", a.pid(), round_)
    assert await a.has_received(1) == await b.has_received(1) == [round_]
    assert (a.history, b.history) == ([("up", "b@localhost")], [("up", "a@localhost")])
    assert caplog.text == ""


async def test_a_connect_that_lost_a_race_is_no_warning(
    start_node: StartNode, caplog: pytest.LogCaptureFixture
) -> None:
    """Its socket is closed in the middle of the handshake: the peer has another connection by then."""
    a, b = await start_node("a@localhost"), await start_node("b@localhost")
    reader, writer = await asyncio.open_connection("127.0.0.1", a.peers.port)
    side = LocalSide(name="b@localhost", creation=1, flags=RECOMMENDED, cookie=b"pyglyn_testing")
    await b.peers.connect("a@localhost")
    writer.write(Initiator(side, "a@localhost", 1).data_to_send())
    assert await reader.readexactly(8) == b"\0\6salive"
    writer.transport.abort()
    await eventually(lambda: not a.peers._accepting)
    assert caplog.text == ""
    assert a.history == [("up", "b@localhost")]


async def test_visible_nodes_know_each_other_as_visible(start_node: StartNode) -> None:
    a = await start_node("a@localhost", hidden=False)
    b = await start_node("b@localhost", hidden=False)
    c = await start_node("c@localhost")
    assert not (await a.peers.connect("b@localhost")).hidden
    assert (await a.peers.connect("c@localhost")).hidden
    assert not b.ups[0].hidden
    assert c.ups[0].hidden


async def test_a_connection_is_closed_on_both_sides(start_node: StartNode) -> None:
    a, b = await start_node("a@localhost"), await start_node("b@localhost")
    async with no_leaks():
        connection = await a.peers.connect("b@localhost")
        assert a.peers.disconnect("b@localhost")
        assert a.downs == [("b@localhost", "disconnected by this node")]
        assert await b.has_lost("a@localhost") == "connection closed by the peer"
        await connection.wait_closed()
    with pytest.raises(LocalProtocolError, match="closed"):
        connection.send(Send(a.pid(), b.pid()), encode_parts(1))
    assert not a.peers.disconnect("b@localhost")
    assert a.peers.get("b@localhost") is None


async def test_what_was_sent_before_a_close_still_arrives(start_node: StartNode) -> None:
    a, b = await start_node("a@localhost"), await start_node("b@localhost")
    await a.peers.connect("b@localhost")
    for number in range(100):
        a.send("b@localhost", b.pid(), number)
    a.peers.disconnect("b@localhost")
    assert await b.has_received(100) == list(range(100))


async def test_a_restarted_node_replaces_its_old_connection(start_node: StartNode) -> None:
    """The peer asks (`alive`), and reports the old connection down before the new one is up."""
    a = await start_node("a@localhost")
    first = await start_node("b@localhost")
    await first.peers.connect("a@localhost")
    again = Recorder("b@localhost", "pyglyn_testing", True, NetSettings(epmd_port=0, address_of=_at(a)))
    async with no_leaks():
        await again.peers.start()
        await again.peers.connect("a@localhost")
        assert a.history == [("up", "b@localhost"), ("down", "b@localhost"), ("up", "b@localhost")]
        assert a.downs == [("b@localhost", "replaced by a newer connection from the same node")]
        await first.has_lost("a@localhost")
        assert a.ups[1].creation == again.local.creation
        again.send("a@localhost", a.pid(), b"new")
        assert await a.has_received(1) == [b"new"]
        await again.peers.stop()


async def test_an_impostor_without_the_cookie_does_not_replace_a_connection(start_node: StartNode) -> None:
    a = await start_node("a@localhost")
    b = await start_node("b@localhost")
    await b.peers.connect("a@localhost")
    impostor = Recorder("b@localhost", "guess", True, NetSettings(epmd_port=0, address_of=_at(a)))
    await impostor.peers.start()
    with pytest.raises(WrongCookie):
        await impostor.peers.connect("a@localhost")
    await impostor.peers.stop()
    assert a.history == [("up", "b@localhost")]
    b.send("a@localhost", a.pid(), b"still there")
    assert await a.has_received(1) == [b"still there"]


def _at(recorder: Recorder) -> object:
    return lambda node: ("127.0.0.1", recorder.peers.port)


class TestWhyAConnectFails:
    """One sentence each."""

    async def test_a_wrong_cookie(self, start_node: StartNode, caplog: pytest.LogCaptureFixture) -> None:
        a = await start_node("a@localhost")
        b = await start_node("b@localhost", cookie="not the same")
        with pytest.raises(WrongCookie, match=r"^a@localhost refused this node's cookie(?m:$)"):
            await b.peers.connect("a@localhost")
        await eventually(lambda: "b@localhost does not have this node's cookie" in caplog.text)
        assert "not the same" not in caplog.text + repr(b.local)
        assert (a.history, b.history) == ([], [])

    async def test_an_unknown_node(self, start_node: StartNode, epmd_port: int) -> None:
        a = await start_node("a@localhost")
        with pytest.raises(
            EpmdError, match=f"^EPMD at 127.0.0.1:{epmd_port} knows no node named 'nobody'(?m:$)"
        ):
            await a.peers.connect("nobody@localhost")

    async def test_an_unreachable_epmd(self, start_node: StartNode) -> None:
        """The host is there, but no EPMD is."""
        a = await start_node("a@127.0.0.1")
        a.peers.settings = attrs.evolve(a.peers.settings, epmd_port=(port := free_port()))
        with pytest.raises(
            EpmdError, match=f"^EPMD at 127.0.0.2:{port} cannot be reached: connection refused(?m:$)"
        ):
            await a.peers.connect("b@127.0.0.2")

    async def test_an_unknown_host(self, start_node: StartNode) -> None:
        a = await start_node("a@localhost")
        with pytest.raises(
            HandshakeError, match=r"^the host name 'no-such-host-here' cannot be resolved(?m:$)"
        ):
            await a.peers.connect("b@no-such-host-here")

    async def test_a_long_name_from_a_node_of_short_names(self, start_node: StartNode) -> None:
        short, long = await start_node("a@localhost"), await start_node("b@127.0.0.1")
        with pytest.raises(
            HandshakeError, match=r"^b@127.0.0.1 has a long host name, but .* uses short ones$"
        ):
            await short.peers.connect("b@127.0.0.1")
        with pytest.raises(HandshakeError, match=r"^a@localhost has a short host name, .* uses long ones$"):
            await long.peers.connect("a@localhost")

    @pytest.mark.parametrize("name", ["nohost", "@localhost", "a@", "a@b@c", "a b@localhost", "ж@localhost"])
    async def test_a_name_that_is_none(self, start_node: StartNode, name: str) -> None:
        a = await start_node("a@localhost")
        with pytest.raises(HandshakeError, match="is no node name: expected name@host"):
            await a.peers.connect(name)

    async def test_flags_missing_on_our_side(self, start_node: StartNode) -> None:
        await start_node("a@localhost")
        lacking = NetSettings(flags=RECOMMENDED & ~DistFlags.MAP_TAG & ~DistFlags.MANDATORY_25_DIGEST)
        b = await start_node("b@localhost", settings=lacking)
        with pytest.raises(MissingFlags, match="MAP_TAG") as caught:
            await b.peers.connect("a@localhost")
        assert caught.value.names == ("MAP_TAG",)

    async def test_flags_missing_on_the_peers_side(self, start_node: StartNode) -> None:
        demanding = NetSettings(required_flags=RECOMMENDED)
        a = await start_node("a@localhost", settings=demanding)
        await start_node("b@localhost", settings=NetSettings(flags=RECOMMENDED & ~DistFlags.ALIAS))
        with pytest.raises(MissingFlags, match=r"b@localhost lacks .*: ALIAS") as caught:
            await a.peers.connect("b@localhost")
        assert caught.value.names == ("ALIAS",)

    async def test_a_node_that_does_not_allow_us(self, start_node: StartNode) -> None:
        await start_node("a@localhost", settings=NetSettings(allowed=lambda name: name == "friend@localhost"))
        friend, other = await start_node("friend@localhost"), await start_node("other@localhost")
        await friend.peers.connect("a@localhost")
        with pytest.raises(
            NameRefused, match=r"^a@localhost does not allow other@localhost to connect(?m:$)"
        ):
            await other.peers.connect("a@localhost")

    async def test_a_port_where_nobody_listens(self, start_node: StartNode) -> None:
        port = free_port()
        a = await start_node("a@localhost", settings=NetSettings(address_of=lambda node: ("localhost", port)))
        problem = f"^b@localhost cannot be reached at 127.0.0.1:{port}: connection refused(?m:$)"
        with pytest.raises(HandshakeError, match=problem):
            await a.peers.connect("b@localhost")

    async def test_another_node_at_the_port(self, start_node: StartNode) -> None:
        a = await start_node("a@localhost")
        b = await start_node("b@localhost", settings=NetSettings(address_of=_at(a)))  # type: ignore[arg-type]
        with pytest.raises(HandshakeError, match=r"^c@localhost was dialled, but a@localhost answered(?m:$)"):
            await b.peers.connect("c@localhost")

    async def test_a_setting_that_raises(self, start_node: StartNode) -> None:
        def address_of(node: str) -> tuple[str, int]:
            raise KeyError(node)

        a = await start_node("a@localhost", settings=NetSettings(address_of=address_of))
        with pytest.raises(HandshakeError, match=r"the attempt to connect to b@localhost failed: KeyError"):
            await a.peers.connect("b@localhost")

    async def test_our_own_name(self, start_node: StartNode) -> None:
        a = await start_node("a@localhost")
        with pytest.raises(LocalProtocolError, match="does not connect to itself"):
            await a.peers.connect("a@localhost")

    async def test_an_attempt_called_off(self, start_node: StartNode) -> None:
        a = await start_node("a@localhost")
        await start_node("b@localhost")
        attempt = asyncio.ensure_future(a.peers.connect("b@localhost"))
        await asyncio.sleep(0)
        assert a.peers.disconnect("b@localhost")
        with pytest.raises(HandshakeError, match="called off"):
            await attempt
        assert a.history == []


class TestAnEpmdForThisMachineOnly:
    """One that was started for ``localhost`` serves whoever registers, but other machines do not reach it."""

    async def test_the_node_that_serves_it_says_so_when_it_meets_one_for_others(
        self, start_node: StartNode, caplog: pytest.LogCaptureFixture
    ) -> None:
        a = await start_node("a@localhost")
        b = await start_node("b@some-host", settings=NetSettings(address_of=_at(a)))  # type: ignore[arg-type]
        await start_node("c@localhost")
        for name in ("a@localhost", "a@localhost"):
            await b.peers.connect(name)
            b.peers.disconnect(name)
        await eventually(lambda: len(a.downs) == 2)
        said = "b@some-host is registered with the EPMD of a@localhost, which only this machine reaches"
        assert caplog.text.count(said) == 1

    async def test_the_node_that_is_for_others_says_so(
        self, start_node: StartNode, epmd_port: int, caplog: pytest.LogCaptureFixture
    ) -> None:
        await start_node("a@localhost")
        await start_node("b@127.0.0.2")
        await eventually(
            lambda: "b@127.0.0.2 is registered with an EPMD which only this machine" in caplog.text
        )
        assert f"EPMD at 127.0.0.2:{epmd_port} cannot be reached" in caplog.text


class TestStarting:
    async def test_a_name_that_is_taken(self, start_node: StartNode) -> None:
        await start_node("a@localhost")
        async with no_leaks():
            with pytest.raises(EpmdError, match=r"^the name 'a' is taken"):
                await start_node("a@localhost")

    async def test_a_port_that_is_taken(self, start_node: StartNode) -> None:
        a = await start_node("a@localhost")
        async with no_leaks():
            port = a.peers.port
            with pytest.raises(
                HandshakeError, match=f"cannot listen on 127.0.0.1:{port}: address already in use"
            ):
                await start_node("b@localhost", settings=NetSettings(listen_port=port))

    async def test_a_port_chosen_by_setting(self, start_node: StartNode) -> None:
        port = free_port()
        a = await start_node("a@localhost", settings=NetSettings(listen_port=port))
        assert a.peers.port == port

    async def test_no_epmd_and_not_allowed_to_be_it(self, start_node: StartNode) -> None:
        async with no_leaks():
            with pytest.raises(EpmdError, match="cannot be reached: connection refused"):
                await start_node("a@localhost", settings=NetSettings(embedded_epmd=False))

    async def test_a_host_with_a_name_of_its_own_listens_everywhere_and_says_so(
        self, start_node: StartNode, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO)
        await start_node("a@localhost", settings=NetSettings(epmd_port=0))
        assert "listens on 127.0.0.1:" in caplog.text
        assert "all interfaces" not in caplog.text
        await start_node("a@some-host", settings=NetSettings(epmd_port=0))
        assert "all interfaces" in caplog.text

    @pytest.mark.parametrize(
        "name", ["a", "a@", "@b", "ж@localhost", "a" * 246 + "@localhost", "a.b@c", "é@h"]
    )
    def test_a_name_that_is_none_is_refused_at_once(self, name: str) -> None:
        with pytest.raises(LocalProtocolError, match="is no node name"):
            _peers(LocalNode(name=name, cookie="x"))

    @pytest.mark.parametrize("cookie", ["", "печенье"])
    def test_a_cookie_that_is_none_is_refused_at_once(self, cookie: str) -> None:
        with pytest.raises(LocalProtocolError, match="cookie") as caught:
            _peers(LocalNode(name="a@localhost", cookie=cookie))
        assert not cookie or cookie not in str(caught.value)

    async def test_stopping_leaves_nothing_behind(self) -> None:
        async with no_leaks():
            a, b = (Recorder(f"{x}@localhost", "c", True, None) for x in "ab")
            await a.peers.start()
            await b.peers.start()
            await a.peers.connect("b@localhost")
            attempt = asyncio.ensure_future(a.peers.connect("nobody@localhost"))
            await asyncio.sleep(0)
            await a.peers.stop()
            with pytest.raises(HandshakeError, match="a@localhost is stopping"):
                await attempt
            await b.has_lost("a@localhost")
            await b.peers.stop()


class TestCancelling:
    @pytest.mark.parametrize("turns", range(0, 40, 3))
    async def test_starting_may_be_cancelled_at_any_point(self, turns: int) -> None:
        async with no_leaks():
            recorder = Recorder("a@localhost", "c", True, None)
            starting = asyncio.ensure_future(recorder.peers.start())
            for _ in range(turns):
                await asyncio.sleep(0)
            starting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await starting
            await recorder.peers.stop()

    @pytest.mark.parametrize("turns", range(1, 40, 3))
    async def test_an_attempt_may_be_called_off_at_any_point(self, start_node: StartNode, turns: int) -> None:
        a, b = await start_node("a@localhost"), await start_node("b@localhost")
        async with no_leaks():
            attempt = asyncio.ensure_future(a.peers.connect("b@localhost"))
            for _ in range(turns):
                await asyncio.sleep(0)
            a.peers.disconnect("b@localhost")
            with contextlib.suppress(HandshakeError):
                await attempt
            await eventually(lambda: not a.peers.connections and not b.peers.connections)
        connection = await a.peers.connect("b@localhost")
        assert connection is a.peers.get("b@localhost")


class TestCallbacksThatRaise:
    async def test_on_up_costs_that_connection(
        self, start_node: StartNode, caplog: pytest.LogCaptureFixture
    ) -> None:
        a, b = await start_node("a@localhost"), await start_node("b@localhost")
        b.peers._on_up = lambda connection: 1 // 0  # type: ignore[assignment,return-value]
        await a.peers.connect("b@localhost")
        await a.has_lost("b@localhost")
        assert "could not be taken into use" in caplog.text
        b.peers._on_up = b._on_up
        await a.peers.connect("b@localhost")
        await eventually(lambda: b.ups)

    async def test_on_down_is_logged(self, start_node: StartNode, caplog: pytest.LogCaptureFixture) -> None:
        a, b = await start_node("a@localhost"), await start_node("b@localhost")
        b.peers._on_down = lambda connection, reason: 1 // 0  # type: ignore[assignment,return-value]
        await a.peers.connect("b@localhost")
        await eventually(lambda: b.ups)
        a.peers.disconnect("b@localhost")
        await eventually(lambda: "could not be handled" in caplog.text)
        assert b.peers.connections == []
        b.peers._on_down = b._on_down


def _peers(local: LocalNode) -> Peers:
    ignore = lambda *_: None  # noqa: E731
    return Peers(local, ignore, ignore, ignore, on_message=ignore)


class TestFlow:
    async def test_large_and_small_messages_share_a_connection(self, start_node: StartNode) -> None:
        """16 MiB each way, and small ones in between that do not wait for them."""
        a, b = await start_node("a@localhost"), await start_node("b@localhost")
        await a.peers.connect("b@localhost")
        block = bytes(16 << 20)
        a.send("b@localhost", b.pid(), block)
        b.send("a@localhost", a.pid(), block)
        connection = a.peers.get("b@localhost")
        assert connection is not None
        connection.send(Send(a.pid(2), b.pid()), encode_parts(b"small"))
        assert (await b.has_received(2, 20.0))[0] == b"small"
        assert b.received()[1] == (await a.has_received(1, 20.0))[0] == block

    async def test_a_large_message_takes_few_writes(
        self, start_node: StartNode, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Four fragments with their heads in one: head by head and piece by piece it were 33."""
        a, b = await start_node("a@localhost"), await start_node("b@localhost")
        connection = await a.peers.connect("b@localhost")
        assert connection._transport is not None
        writes: list[str] = []
        gather, write = os.writev, connection._transport.write
        monkeypatch.setattr(os, "writev", lambda *args: (writes.append("writev"), gather(*args))[1])
        monkeypatch.setattr(
            connection._transport, "write", lambda data: (writes.append("write"), write(data))
        )
        for number in range(1, 31):
            if number == 11:
                writes.clear()  # by then the kernel takes a mebibyte at once
            a.send("b@localhost", b.pid(), bytes(1 << 20))
            await b.has_received(number)
        assert writes.count("writev") <= 20 * 10
        assert writes.count("write") <= 20 * 5

    async def test_what_a_socket_takes_in_part_arrives_whole(self, start_node: StartNode) -> None:
        a, b = await start_node("a@localhost"), await start_node("b@localhost")
        connection = await a.peers.connect("b@localhost")
        await eventually(lambda: b.ups)
        sent: list[bytes] = []
        for round_ in range(5):
            b.ups[0].pause_reading()
            while not connection.busy:
                for size in (700_001 + len(sent), 10, 20_000, 3):
                    sent.append(os.urandom(size))
                    a.send("b@localhost", b.pid(), sent[-1])
                await asyncio.sleep(0)
            b.ups[0].resume_reading()
            await eventually(lambda: not connection.busy, timeout=30)
            if round_ % 2:
                await b.has_received(len(sent), 30)
        assert await b.has_received(len(sent), 30) == sent

    async def test_a_large_message_that_is_not_taken_is_not_copied(self, start_node: StartNode) -> None:
        a, b = await start_node("a@localhost"), await start_node("b@localhost")
        connection = await a.peers.connect("b@localhost")
        await eventually(lambda: b.ups)
        b.ups[0].pause_reading()
        blobs = [os.urandom(1 << 20) for _ in range(40)]
        tracemalloc.start(1)
        try:
            for blob in blobs:
                a.send("b@localhost", b.pid(), blob)
                await asyncio.sleep(0)
                await asyncio.sleep(0)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert connection.queued_bytes > 20 << 20
        assert peak < 200_000
        b.ups[0].resume_reading()
        assert await b.has_received(len(blobs), 30) == blobs

    @pytest.mark.parametrize("turns", [0, 1, 5])
    async def test_all_that_was_sent_before_a_connection_is_closed_arrives(
        self, start_node: StartNode, turns: int
    ) -> None:
        """Also more than a turn writes, and more than makes it busy, if the peer takes it soon; uncopied."""
        a, b = await start_node("a@localhost"), await start_node("b@localhost")
        connection = await a.peers.connect("b@localhost")
        await eventually(lambda: b.ups)
        sent: list[object] = [b"first", *(os.urandom(1 << 20) for _ in range(24)), b"last"]
        tracemalloc.start(1)
        try:
            for message in sent:
                a.send("b@localhost", b.pid(), message)
            for _ in range(turns):
                await asyncio.sleep(0)
            connection.close("the test ends it")
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 16 << 20
        assert await b.has_received(len(sent), 30) == sent
        await connection.wait_closed()
        assert not connection._left

    async def test_of_much_a_part_is_written_in_a_turn_and_others_have_theirs(
        self, start_node: StartNode
    ) -> None:
        a, b = await start_node("a@localhost"), await start_node("b@localhost")
        connection = await a.peers.connect("b@localhost")
        await eventually(lambda: b.ups)
        connection.send(Send(a.pid(), b.pid()), encode_parts(bytes(20 << 20)))
        before = connection.traffic.sent_bytes
        while connection.traffic.queued_bytes:
            await asyncio.sleep(0)
            sent = connection.traffic.sent_bytes
            assert sent - before <= 2 * (WRITTEN_A_TURN + 2 * NetSettings().write_buffer)
            before = sent
        assert await b.has_received(1, 30) == [bytes(20 << 20)]

    async def test_a_connection_that_is_not_read_becomes_busy(self, start_node: StartNode) -> None:
        """At 1 MiB queued, as OTP; and it says when there is room again."""
        a, b = await start_node("a@localhost"), await start_node("b@localhost")
        connection = await a.peers.connect("b@localhost")
        await eventually(lambda: b.ups)
        b.ups[0].pause_reading()
        sent = 0
        while not connection.busy:
            connection.send(Send(a.pid(), b.pid()), encode_parts(bytes(50_000)))
            sent += 1
            await asyncio.sleep(0)
        assert a.busy == [True]
        assert 1 << 20 <= connection.queued_bytes < (1 << 20) + NetSettings().write_buffer + 100_000
        assert b.messages == []
        b.ups[0].resume_reading()
        await eventually(lambda: not connection.busy)
        assert a.busy == [True, False]
        assert len(await b.has_received(sent)) == sent

    async def test_a_paused_connection_hands_nothing_up_and_loses_nothing(
        self, start_node: StartNode
    ) -> None:
        a, b = await start_node("a@localhost"), await start_node("b@localhost")
        await a.peers.connect("b@localhost")
        await eventually(lambda: b.ups)
        original, seen = b._on_message, []

        def pause_at_three(connection: Connection, control: object, payload: object) -> None:
            original(connection, control, payload)  # type: ignore[arg-type]
            seen.append(len(b.messages))
            if len(b.messages) == 3:
                connection.pause_reading()

        b.peers.on_message = b.ups[0]._on_message = pause_at_three  # type: ignore[assignment]
        for number in range(10):
            a.send("b@localhost", b.pid(), number)
        await b.has_received(3)
        a.send("b@localhost", b.pid(), 10)
        assert b.received() == [0, 1, 2]
        b.ups[0].resume_reading()
        assert await b.has_received(11) == list(range(11))

    async def test_a_callback_that_raises_does_not_cost_the_connection(
        self, start_node: StartNode, caplog: pytest.LogCaptureFixture
    ) -> None:
        a, b = await start_node("a@localhost"), await start_node("b@localhost")
        await a.peers.connect("b@localhost")
        await eventually(lambda: b.ups)
        b.ups[0].__dict__["_on_message"] = lambda *_: 1 / 0
        a.send("b@localhost", b.pid(), 1)
        await eventually(lambda: "could not be handled" in caplog.text)
        b.ups[0].__dict__["_on_message"] = b._on_message
        a.send("b@localhost", b.pid(), 2)
        assert await b.has_received(1) == [2]

    async def test_small_settings_reach_the_channel(self, start_node: StartNode) -> None:
        """A message over the limit of the receiver closes the connection, not the node."""
        tiny = NetSettings(channel=ChannelSettings(max_message_size=100_000))
        a, b = await start_node("a@localhost"), await start_node("b@localhost", settings=tiny)
        await a.peers.connect("b@localhost")
        a.send("b@localhost", b.pid(), bytes(300_000))
        assert "exceeds 100000 bytes" in await b.has_lost("a@localhost")
        await a.has_lost("b@localhost")
        await a.peers.connect("b@localhost")
        a.send("b@localhost", b.pid(), 1)
        assert await b.has_received(1) == [1]


async def test_no_thread_is_left_of_a_name_that_was_resolved_or_was_not() -> None:
    before = set(os.listdir("/proc/self/task"))
    for host in [socket.gethostname(), "no-such-host", "."] * 20:
        with contextlib.suppress(HandshakeError):
            await transport.resolve(host, 20.0)
        assert set(os.listdir("/proc/self/task")) <= before
