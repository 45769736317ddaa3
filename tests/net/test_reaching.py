"""Nodes that are reached otherwise than by IPv4 and EPMD: over IPv6, at a fixed port, again after a while."""

from __future__ import annotations

import contextlib
import socket

import pytest

from pyglyn import Atom, Node, Settings
from pyglyn.errors import HandshakeError, LocalProtocolError
from pyglyn.net import NetSettings
from pyglyn.net.epmd_client import lookup
from pyglyn.net.settings import dist_port_from_environment
from pyglyn.net.transport import resolve
from pyglyn.node import Reconnect
from pyglyn.testing import free_port
from tests.cli.test_cli import run
from tests.node.conftest import unique_name


@pytest.fixture
def ipv6(tmp_path) -> tuple[str, ...]:
    """Arguments of `erl`, to which localhost has an IPv6 address whatever the machine's own table says."""
    table = tmp_path / "inetrc"
    table.write_text('{host, {0,0,0,0,0,0,0,1}, ["localhost"]}.\n{lookup, [file, native]}.\n')
    return ("-proto_dist", "inet6_tcp", "-kernel", "inetrc", f'"{table}"')


def over_ipv6(**more: object) -> Settings:
    return Settings(net=NetSettings(ipv6=True, **more))


async def test_a_node_speaks_ipv6_with_otp_both_ways(beams, ipv6):
    beam = await beams.start(args=ipv6)
    async with Node(unique_name(), cookie=beam.cookie, settings=over_ipv6()) as node:
        assert await node.ping(beam.name)
        family = "{ok, I} = net_kernel:node_info(N), element(5, proplists:get_value(address, I))"
        assert await beam.eval(family, N=Atom(node.name)) is Atom("inet6")
        node.disconnect(beam.name)
    async with Node(unique_name(), cookie=beam.cookie, settings=over_ipv6()) as node:
        assert await beam.eval("net_adm:ping(N)", N=Atom(node.name)) is Atom("pong")
        assert await beam.eval(
            "gen_server:call({rex, N}, {call, erlang, node, [], user})", N=Atom(node.name)
        ) is Atom(node.name)


async def test_a_node_of_ipv6_is_not_reached_over_ipv4(beams, ipv6):
    with socket.socket() as taken:  # at its port of IPv4 nobody listens, nor begins to
        while taken.getsockname()[1] == 0:
            beam = await beams.start(args=ipv6)
            entry = await lookup(beam.name.partition("@")[0], "127.0.0.1", beam.epmd_port)
            with contextlib.suppress(OSError):
                taken.bind(("127.0.0.1", entry.port))
        async with Node(unique_name(), cookie=beam.cookie) as node:
            with pytest.raises(HandshakeError, match="connection refused"):
                await node.connect(beam.name)


async def test_commands_speak_ipv6_too(beams, ipv6):
    beam = await beams.start(args=ipv6)
    status, output = await run("ping", beam.name, "--cookie", beam.cookie, "--proto-dist", "inet6_tcp")
    assert (status, output[:4]) == (0, "pong")


async def test_a_host_without_an_ipv6_address_is_said_to_have_none():
    with pytest.raises(
        HandshakeError, match=r"'no-such-host.invalid' cannot be resolved to an IPv6 address$"
    ):
        await resolve("no-such-host.invalid", 5.0, ipv6=True)


async def test_nodes_without_epmd_find_each_other_at_their_port(beams, monkeypatch):
    """One port for a cluster: each of its nodes has a host to itself, or the second here its own port."""
    port = free_port()
    beam = await beams.start("fixed@127.0.0.1", args=("-start_epmd", "false", "-erl_epmd_port", str(port)))
    monkeypatch.setenv("ERL_EPMD_PORT", str(free_port()))  # nothing listens there
    name = f"{unique_name().partition('@')[0]}@127.0.0.1"
    async with Node(
        name, cookie=beam.cookie, settings=Settings(net=NetSettings(dist_port=port, listen_port=0))
    ) as node:
        assert await node.ping(beam.name)
        assert await beam.eval("rpc:call(N, erlang, node, [])", N=Atom(name)) is Atom(name)


async def test_a_beam_without_epmd_finds_a_node_at_the_port_of_all(beams, monkeypatch):
    port = free_port()
    monkeypatch.setenv("ERL_DIST_PORT", str(port))
    name = f"{unique_name().partition('@')[0]}@127.0.0.1"
    async with Node(name, cookie="pyglyn_testing") as node:
        assert node.peers.port == port
        other = free_port()  # where it listens itself; it looks for others at the port of all
        args = ("-start_epmd", "false", "-erl_epmd_port", str(port), "-dist_listen", "false")
        beam = await beams.start(f"asker{other}@127.0.0.1", args=args)
        assert await beam.eval("net_kernel:connect_node(N)", N=Atom(name)) is True
        assert await beam.eval("rpc:call(N, erlang, node, [])", N=Atom(name)) is Atom(name)


async def test_commands_find_a_node_without_epmd(beams, monkeypatch):
    port = free_port()
    beam = await beams.start("fixed@127.0.0.1", args=("-start_epmd", "false", "-erl_epmd_port", str(port)))
    monkeypatch.setenv("ERL_EPMD_PORT", str(free_port()))
    for words, env in ((("--dist-port", str(port)), {}), ((), {"ERL_DIST_PORT": str(port)})):
        status, output = await run("ping", beam.name, "--cookie", beam.cookie, *words, env=env)
        assert (status, output[:4]) == (0, "pong"), output


async def test_a_node_that_is_not_there_is_refused_at_the_port_of_all(epmd_port):
    port = free_port()
    async with Node(
        unique_name(), cookie="c", settings=Settings(net=NetSettings(dist_port=port, listen_port=0))
    ) as node:
        with pytest.raises(
            HandshakeError, match=rf"cannot be reached at 127.0.0.1:{port}: connection refused"
        ):
            await node.connect("gone@localhost")
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", epmd_port)) != 0  # it has started no EPMD


@pytest.mark.parametrize("text", ["0", "65536", "-1", "any", "1.5"])
def test_the_port_of_all_is_a_port(monkeypatch, text: str) -> None:
    monkeypatch.setenv("ERL_DIST_PORT", text)
    with pytest.raises(LocalProtocolError, match=f"^ERL_DIST_PORT must be a port number, got '{text}'$"):
        dist_port_from_environment()


def test_waits_grow_up_to_the_longest_and_are_shortened_at_random() -> None:
    policy = Reconnect(first=1.0, factor=2.0, longest=5.0, jitter=0.5)
    assert [policy.wait(attempts, 0.0) for attempts in (1, 2, 3, 4, 10_000)] == [1.0, 2.0, 4.0, 5.0, 5.0]
    assert [policy.wait(attempts, 1.0) for attempts in (1, 2, 3)] == [0.5, 1.0, 2.0]
    assert Reconnect(jitter=0.0).wait(1, 1.0) == 0.25
