"""Our own EPMD, asked by our client, by raw sockets, by the `epmd` program and by real nodes."""

from __future__ import annotations

import asyncio
import resource
import subprocess
import sys
from collections.abc import AsyncIterator

import pytest

from pyglyn.dist import epmd
from pyglyn.dist.epmd import NodeEntry
from pyglyn.errors import EpmdError, EpmdNameTaken, EpmdUnreachable, LocalProtocolError, NotEpmd
from pyglyn.etf import Atom
from pyglyn.net import EpmdServer, NetSettings, epmd_client
from pyglyn.testing import Beams, Otp, PrivateEpmd, eventually, find_otps, free_port, no_leaks, require
from pyglyn.testing.waiting import patiently
from tests.net.conftest import EpmdOnPort, StartNode


def quick() -> NetSettings:
    """Settings made inside a test, when the port is in the environment."""
    return NetSettings(epmd_retry_s=0.1)


@pytest.fixture
async def server(epmd_port: int) -> AsyncIterator[EpmdServer]:
    running = EpmdServer(epmd_port, clock=lambda: 1000.0)
    await running.start()
    yield running
    running.stop()


async def ask(port: int, request: bytes, host: str = "127.0.0.1") -> bytes:
    """Write a request and read until the server closes."""
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(request)
        async with asyncio.timeout(180):
            return await reader.read(-1)
    finally:
        writer.transport.abort()


def request(body: bytes) -> bytes:
    return len(body).to_bytes(2) + body


async def test_a_node_is_found_while_it_is_registered(server: EpmdServer) -> None:
    entry = NodeEntry(name="py", port=4711, extra=b"x")
    async with no_leaks():
        registration = await epmd_client.register(entry, "127.0.0.1", server.port)
        assert await epmd_client.lookup("py", "127.0.0.1", server.port) == entry
        assert await epmd_client.names("127.0.0.1", server.port) == [("py", 4711)]
        registration.close()
        await eventually(lambda: not server.nodes)
        with pytest.raises(EpmdError, match="knows no node named 'py'"):
            await epmd_client.lookup("py", "127.0.0.1", server.port)


async def test_a_name_is_given_once(server: EpmdServer) -> None:
    entry = NodeEntry(name="py", port=4711)
    registration = await epmd_client.register(entry, "127.0.0.1", server.port)
    with pytest.raises(EpmdError, match="the name 'py' is taken"):
        await epmd_client.register(NodeEntry(name="py", port=1), "127.0.0.1", server.port)
    assert server.nodes == [entry]
    registration.close()


async def test_each_registration_of_a_name_gets_a_creation_of_its_own(server: EpmdServer) -> None:
    """The time at first, then one more each time; other names start anew (epmd_srv.c)."""
    creations = []
    for name in ("a", "a", "b", "a"):
        registration = await epmd_client.register(NodeEntry(name=name, port=1), "127.0.0.1", server.port)
        creations.append(registration.creation)
        registration.close()
        await eventually(lambda: not server.nodes)
    assert creations == [1000, 1001, 1000, 1002]


async def test_creations_wrap_to_four(epmd_port: int) -> None:
    """0 to 3 are never given: an OTP 25 node with creation 0 would have none."""
    server = EpmdServer(epmd_port, clock=lambda: epmd.LAST_CREATION)
    await server.start()
    for creation in (epmd.LAST_CREATION, 4, 5):
        registration = await epmd_client.register(NodeEntry(name="a", port=1), "127.0.0.1", server.port)
        assert registration.creation == creation
        registration.close()
        await eventually(lambda: not server.nodes)
    server.stop()


async def test_a_node_of_version_5_gets_a_short_creation(server: EpmdServer) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(epmd.encode_alive2(NodeEntry(name="old", port=1, highest_version=5)))
    answer = await reader.readexactly(4)
    assert answer[:2] == b"\x79\0"
    assert 1 <= int.from_bytes(answer[2:]) <= 3
    writer.transport.abort()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_it_listens_on_both_loopback_addresses(server: EpmdServer, host: str) -> None:
    assert await epmd_client.names(host, server.port) == []


async def test_requests_may_come_byte_by_byte(server: EpmdServer) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    for byte in epmd.encode_port_please2("nobody"):
        writer.write(bytes((byte,)))
        await writer.drain()
        await asyncio.sleep(0)
    assert await reader.read(-1) == b"\x77\1"
    writer.transport.abort()


@pytest.mark.parametrize(
    "data",
    [
        b"\0\0",
        (3058).to_bytes(2) + bytes(10),
        request(b"?"),
        request(b"\x78\0\1"),
        request(b"\x7a"),
        request(b"\x7a\xff"),
        request(b"\x78\0\1H\0\0\6\0\5\0\1\0\0\0"),  # a NUL as name
        request(b"s" + b"py"),  # STOP needs the relaxed command check
    ],
    ids=["length 0", "too long", "unknown", "cut", "no name", "not UTF-8", "NUL", "STOP"],
)
async def test_what_is_no_request_closes_the_connection_only(server: EpmdServer, data: bytes) -> None:
    async with no_leaks():
        assert await ask(server.port, data) == b""
    assert await epmd_client.names("127.0.0.1", server.port) == []


async def test_a_registered_node_that_says_more_is_dropped(server: EpmdServer) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(epmd.encode_alive2(NodeEntry(name="chatty", port=1)))
    await reader.readexactly(6)
    writer.write(b"x")
    assert await reader.read(-1) == b""
    assert server.nodes == []
    writer.transport.abort()


async def test_a_name_is_free_again_after_a_refusal(server: EpmdServer) -> None:
    """A refused registration must not count as one when its connection closes."""
    first = await epmd_client.register(NodeEntry(name="py", port=1), "127.0.0.1", server.port)
    with pytest.raises(EpmdError):
        await epmd_client.register(NodeEntry(name="py", port=2), "127.0.0.1", server.port)
    await asyncio.sleep(0)
    assert await epmd_client.names("127.0.0.1", server.port) == [("py", 1)]
    first.close()


async def test_it_is_killed_only_while_no_node_is_registered(server: EpmdServer) -> None:
    registration = await epmd_client.register(NodeEntry(name="py", port=1), "127.0.0.1", server.port)
    assert not await epmd_client.kill("127.0.0.1", server.port)
    registration.close()
    await eventually(lambda: not server.nodes)
    assert await epmd_client.kill("127.0.0.1", server.port)
    async with asyncio.timeout(180):
        await server.killed()
    with pytest.raises(EpmdUnreachable):
        await epmd_client.names("127.0.0.1", server.port)


async def test_nodes_are_stopped_by_name_where_that_is_allowed(epmd_port: int) -> None:
    server = EpmdServer(epmd_port, relaxed_command_check=True)
    await server.start()
    registration = await epmd_client.register(NodeEntry(name="py", port=1), "127.0.0.1", server.port)
    assert await ask(server.port, request(b"spy")) == b"STOPPED"
    async with asyncio.timeout(180):
        await registration.lost()
    registration.close()
    assert await ask(server.port, request(b"spy")) == b"NOEXISTSTOPPED"
    server.stop()


async def test_clients_that_ask_nothing_leave_room_for_others(epmd_port: int) -> None:
    """They are given an eighth of what the process may open; the oldest goes, but never a registration."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (400, hard))
    server = EpmdServer(epmd_port)
    try:
        await server.start()
        registration = await epmd_client.register(NodeEntry(name="py", port=1), "127.0.0.1", epmd_port)
        idle = [await asyncio.open_connection("127.0.0.1", epmd_port) for _ in range(120)]
        assert await epmd_client.names("127.0.0.1", epmd_port) == [("py", 1)]
        assert await idle[0][0].read() == b""
        await eventually(lambda: len(server._connections) == 50)
        assert await epmd_client.names("127.0.0.1", epmd_port) == [("py", 1)]
        for _, writer in idle:
            writer.transport.abort()
        registration.close()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        server.stop()


async def test_a_port_in_use_is_an_os_error(server: EpmdServer) -> None:
    async with no_leaks():
        with pytest.raises(OSError, match="in use"):
            await EpmdServer(server.port).start()


async def test_a_client_says_what_is_wrong_with_what_answers(epmd_port: int) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    web = await asyncio.start_server(answer, "127.0.0.1", epmd_port)
    for call in (
        epmd_client.lookup("py", "127.0.0.1", epmd_port),
        epmd_client.names("127.0.0.1", epmd_port),
        epmd_client.register(NodeEntry(name="py", port=1), "127.0.0.1", epmd_port),
    ):
        said = f"^what listens at 127.0.0.1:{epmd_port} is no EPMD: it answers b'HTTP/1.1 "
        with pytest.raises(NotEpmd, match=said):
            await call
    web.close()


async def test_a_client_does_not_wait_for_ever(epmd_port: int) -> None:
    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(-1)
        writer.close()

    mute = await asyncio.start_server(say_nothing, "127.0.0.1", epmd_port)
    async with no_leaks():
        for call in (
            epmd_client.lookup("py", "127.0.0.1", epmd_port, timeout_s=0.1),
            epmd_client.names("127.0.0.1", epmd_port, timeout_s=0.1),
            epmd_client.register(NodeEntry(name="py", port=1), "127.0.0.1", epmd_port, timeout_s=0.1),
        ):
            with pytest.raises(NotEpmd, match=r"is no EPMD, or hangs: no answer within 0\.1 s$"):
                await call
    mute.close()


# --- the real thing --------------------------------------------------------------------------------


@pytest.fixture
def epmd_program(beam_otp: Otp) -> str:
    require(beam_otp.epmd, f"no epmd program in {beam_otp.label}")
    return str(beam_otp.epmd)


async def run_epmd(program: str, port: int, *arguments: str) -> str:
    process = await asyncio.create_subprocess_exec(
        program, "-port", str(port), *arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    output, _ = await asyncio.wait_for(process.communicate(), 180)
    return output.decode()


async def test_the_epmd_program_lists_names(server: EpmdServer, epmd_program: str) -> None:
    registration = await epmd_client.register(NodeEntry(name="py", port=4711), "127.0.0.1", server.port)
    assert await run_epmd(epmd_program, server.port, "-names") == (
        f"epmd: up and running on port {server.port} with data:\nname py at port 4711\n"
    )
    assert b"active name     <py> at port 4711, fd = " in await ask(server.port, request(b"d"))
    registration.close()


async def test_the_epmd_program_kills_it_politely(server: EpmdServer, epmd_program: str) -> None:
    registration = await epmd_client.register(NodeEntry(name="py", port=4711), "127.0.0.1", server.port)
    assert "not allowed" in (await run_epmd(epmd_program, server.port, "-kill")).lower()
    registration.close()
    await eventually(lambda: not server.nodes)
    assert await run_epmd(epmd_program, server.port, "-kill") == "Killed\n"
    async with asyncio.timeout(180):
        await server.killed()


@pytest.fixture
def our_beams(beam_otp: Otp, epmd_port: int) -> AsyncIterator[Beams]:
    factory = Beams(EpmdOnPort(epmd_port), beam_otp)
    yield factory  # type: ignore[misc]
    factory.close()


async def test_real_nodes_use_the_epmd_of_a_python_node(our_beams: Beams, start_node: StartNode) -> None:
    node = await start_node(settings=quick())
    assert node.peers.epmd is not None
    one, two = await our_beams.start("one"), await our_beams.start("two")
    names = await one.eval("{ok, Names} = net_adm:names(), lists:sort([N || {N, _} <- Names])")
    assert names == [list(b"one"), list(b"py"), list(b"two")]
    assert await one.eval("net_adm:ping('two@localhost')") == Atom("pong")
    await node.peers.connect("one@localhost")
    assert await two.eval("net_kernel:connect_node('py@localhost')") is True
    assert {connection.name for connection in node.peers.connections} == {"one@localhost", "two@localhost"}
    await one.stop()
    await eventually(lambda: node.peers.epmd and len(node.peers.epmd.nodes) == 2)


async def test_a_real_node_gets_a_creation_it_can_use(our_beams: Beams, server: EpmdServer) -> None:
    beam = await our_beams.start("one")
    assert await beam.eval("erts_internal:get_creation()") == 1000


async def test_the_epmd_is_handed_over_when_its_process_ends(
    our_beams: Beams, start_node: StartNode, epmd_port: int
) -> None:
    """Another of our nodes takes over; the others, real ones too, register again and keep their creations."""
    first = await start_node("first@localhost", settings=quick())
    second = await start_node("second@localhost", settings=quick())
    third = await start_node("third@localhost", settings=quick())
    beam = await our_beams.start("real")
    before = (second.local.creation, await beam.eval("erts_internal:get_creation()"))
    await first.peers.stop()
    await eventually(lambda: second.peers.epmd or third.peers.epmd)
    await eventually(lambda: _registered(epmd_port, {"second", "third", "real"}), 10.0)
    assert (second.peers.epmd is None) is not (third.peers.epmd is None)
    assert (second.local.creation, await beam.eval("erts_internal:get_creation()")) == before
    await second.peers.connect("real@localhost")
    await beam.eval("net_kernel:connect_node('third@localhost')")
    assert third.peers.get("real@localhost") is not None


SERVING = """
import asyncio
from pyglyn.net import LocalNode, Peers

async def main():
    ignore = lambda *_: None
    peers = Peers(LocalNode(name="server@localhost", cookie="c"), ignore, ignore, ignore, on_message=ignore)
    await peers.start()
    print(peers.epmd is not None, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_the_epmd_is_taken_over_when_its_process_is_killed(
    start_node: StartNode, epmd_port: int
) -> None:
    """An OS process of its own, ended by SIGKILL."""
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", SERVING, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"True\n"
        node = await start_node(settings=quick())
        assert node.peers.epmd is None
    finally:
        process.kill()
        await process.wait()
    await eventually(lambda: node.peers.epmd is not None)
    await eventually(lambda: _registered(epmd_port, {"py"}))


async def test_nodes_that_start_together_agree_on_one_epmd(start_node: StartNode, epmd_port: int) -> None:
    names = [f"n{number}" for number in range(8)]
    nodes = await asyncio.gather(*(start_node(f"{name}@localhost", settings=quick()) for name in names))
    assert len([node for node in nodes if node.peers.epmd]) == 1
    assert await _registered(epmd_port, set(names))


async def test_further_addresses_come_from_the_environment(
    start_node: StartNode, epmd_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ERL_EPMD_ADDRESS: there and on loopback, nowhere else."""
    monkeypatch.setenv("ERL_EPMD_ADDRESS", "127.0.0.3, 127.0.0.4")
    await start_node("py@localhost")
    for address in ("127.0.0.1", "::1", "127.0.0.3", "127.0.0.4"):
        assert await epmd_client.names(address, epmd_port)
    with pytest.raises(EpmdUnreachable):
        await epmd_client.names("127.0.0.2", epmd_port)


async def test_a_port_that_is_none_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for text in ("x", "0", "65536", "-1"):
        monkeypatch.setenv("ERL_EPMD_PORT", text)
        with pytest.raises(LocalProtocolError, match="ERL_EPMD_PORT must be a port number"):
            NetSettings()


async def test_a_caller_that_says_nothing_is_dropped(epmd_port: int) -> None:
    """After a minute unless another time is given; a registered node is not."""
    server = EpmdServer(epmd_port, idle_s=patiently(0.1))
    await server.start()
    registration = await epmd_client.register(NodeEntry(name="py", port=1), "127.0.0.1", epmd_port)
    assert await ask(epmd_port, b"\0") == b""
    assert len(server.nodes) == 1
    registration.close()
    server.stop()


async def _registered(port: int, wanted: set[str]) -> bool:
    try:
        return {name for name, _ in await epmd_client.names("127.0.0.1", port)} == wanted
    except EpmdError:
        return False


async def test_a_real_epmd_that_comes_and_goes(start_node: StartNode, epmd_port: int) -> None:
    """Started after ours ended, it is used; ended, it is replaced."""
    program = next((otp.epmd for otp in find_otps() if otp.epmd), None)
    require(program, "no epmd program")
    real = PrivateEpmd()
    real.port = epmd_port
    assert program is not None
    real._start_program(program)
    assert await asyncio.to_thread(real._wait_until_open)
    node = await start_node(settings=quick())
    assert node.peers.epmd is None
    assert await _registered(epmd_port, {"py"})
    await asyncio.to_thread(real.stop)
    await eventually(lambda: node.peers.epmd is not None)
    await eventually(lambda: _registered(epmd_port, {"py"}))


async def test_a_node_that_cannot_register_again_keeps_trying(
    start_node: StartNode, server: EpmdServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Its name was taken meanwhile; when it is free it gets it back."""
    node = await start_node(settings=quick())
    server._registered["py"][1].drop()
    thief = await epmd_client.register(NodeEntry(name="py", port=1), "127.0.0.1", server.port)
    await eventually(lambda: "cannot register again yet: the name 'py' is taken" in caplog.text)
    thief.close()
    await eventually(lambda: [entry.port for entry in server.nodes] == [node.peers.port])


async def test_a_name_whose_holder_has_just_ended_is_waited_for(
    start_node: StartNode, server: EpmdServer
) -> None:
    """Nobody listens at the port it is registered with: EPMD is about to notice."""
    gone = await epmd_client.register(NodeEntry(name="py", port=free_port()), "127.0.0.1", server.port)
    starting = asyncio.ensure_future(start_node())
    done, _ = await asyncio.wait([starting], timeout=0.2)
    assert not done
    gone.close()
    node = await starting
    assert [entry.port for entry in server.nodes] == [node.peers.port]


async def test_a_name_whose_holder_does_not_go_is_taken(start_node: StartNode, server: EpmdServer) -> None:
    holder = await epmd_client.register(NodeEntry(name="py", port=free_port()), "127.0.0.1", server.port)
    with pytest.raises(EpmdNameTaken):
        await start_node()
    holder.close()


async def test_an_unused_port_is_no_epmd() -> None:
    port = free_port()
    with pytest.raises(
        EpmdUnreachable, match=f"^EPMD at 127.0.0.1:{port} cannot be reached: connection refused$"
    ):
        await epmd_client.names("127.0.0.1", port)
