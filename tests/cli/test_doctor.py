"""``pyglyn doctor`` on set-ups that are broken, each in its own way: the step at which it stops, and what it advises."""

from __future__ import annotations

import contextlib
import re
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import attrs
import pytest

from pyglyn import Node, Settings
from pyglyn.cli.doctor import advice_for
from pyglyn.dist.epmd import NodeEntry
from pyglyn.errors import (
    CallTimeout,
    EpmdUnreachable,
    HandshakeError,
    MissingFlags,
    NameRefused,
    TlsError,
    WrongCookie,
)
from pyglyn.net import NetSettings, epmd_client
from pyglyn.node.cookie import CookieError
from pyglyn.testing import free_port
from tests.cli.test_cli import run
from tests.node.conftest import unique_name


@attrs.frozen
class Broken:
    """A set-up.

    Attributes:
        node: whom to look for.
        step: where the walk has to stop.
        says: of what was seen, and of the advice.
        words: options.
    """

    node: str
    step: str
    says: str
    words: tuple[str, ...] = ()
    env: dict[str, str] = attrs.field(factory=dict)


@contextlib.contextmanager
def listening(answer: bytes | None = None):
    """Something that takes connections, and answers, or does not."""
    import threading

    sock = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = sock.accept()
                held.append(connection)
                if answer is not None:
                    connection.recv(1)
                    connection.sendall(answer)
                    connection.close()

    held: list[socket.socket] = []
    threading.Thread(target=serve, daemon=True).start()
    try:
        yield sock.getsockname()[1]
    finally:
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)
        sock.close()
        for connection in held:
            connection.close()


@contextlib.asynccontextmanager
async def registered(epmd_port: int, port: int) -> AsyncIterator[str]:
    """A name at the EPMD that leads to a port."""
    name = unique_name()
    registration = await epmd_client.register(
        NodeEntry(name=name.partition("@")[0], port=port), "127.0.0.1", epmd_port
    )
    try:
        yield name
    finally:
        registration.close()


async def no_name(stack, beam, epmd):
    return Broken("nonsense", "name", r"is no node name.*write name@host")


async def unknown_host(stack, beam, epmd):
    return Broken("a@no-such-host", "host", r"cannot be resolved.*/etc/hosts")


async def no_ipv6_address(stack, beam, epmd):
    return Broken("a@no-such-host", "host", r"to an IPv6 address", ("--proto-dist", "inet6_tcp"))


async def no_epmd(stack, beam, epmd):
    return Broken(
        "a@localhost", "EPMD", r"connection refused.*ERL_EPMD_PORT", env={"ERL_EPMD_PORT": str(free_port())}
    )


async def another_program_as_epmd(stack, beam, epmd):
    port = stack.enter_context(listening(b"HTTP/1.1 400 Bad Request\r\n\r\n"))
    return Broken(
        "a@localhost", "EPMD", r"no EPMD.*another program has that port", env={"ERL_EPMD_PORT": str(port)}
    )


async def not_registered(stack, beam, epmd):
    alive = beam.name.partition("@")[0]
    return Broken("nobody@localhost", "EPMD", rf"{alive}.*and no nobody.*start nobody")


async def a_port_that_nobody_listens_at(stack, beam, epmd):
    name = await stack.enter_async_context(registered(epmd.port, port := free_port()))
    return Broken(name, "port", rf"127.0.0.1:{port}: connection refused.*firewall")


async def a_port_that_never_speaks(stack, beam, epmd):
    name = await stack.enter_async_context(registered(epmd.port, stack.enter_context(listening())))
    return Broken(name, "handshake", r"no connection to .* within 1 s.*one that hangs", ("--timeout", "1"))


async def a_port_that_speaks_something_else(stack, beam, epmd):
    port = stack.enter_context(listening(b"SSH-2.0-OpenSSH_9.2\r\n"))
    name = await stack.enter_async_context(registered(epmd.port, port))
    return Broken(name, "handshake", r"may be no node")


async def another_cookie(stack, beam, epmd):
    return Broken(beam.name, "cookie", r"the same one", ("--cookie", "guess"))


async def not_allowed(stack, beam, epmd):
    settings = Settings(net=NetSettings(allowed=lambda name: False))
    node = await stack.enter_async_context(Node(unique_name(), cookie=beam.cookie, settings=settings))
    return Broken(node.name, "handshake", r"lets in only some")


async def nothing_at_the_port_of_all(stack, beam, epmd):
    port = free_port()
    return Broken("a@localhost", "port", rf"127.0.0.1:{port}: connection refused", ("--dist-port", str(port)))


async def ipv6_for_a_node_of_ipv4(stack, beam, epmd):
    return Broken(
        beam.name, "port", r"\[?::1\]?:\d+: connection refused.*IPv6", ("--proto-dist", "inet6_tcp")
    )


async def tls_for_a_plain_node(stack, beam, epmd):
    folder = Path(stack.enter_context(_temporary()))
    status, output = await run("certs", str(folder), "doctor@localhost")
    assert status == 0, output
    return Broken(
        beam.name,
        "TLS",
        r"this command speaks TLS",
        ("--ssl-dist-optfile", f"{folder}/doctor@localhost.conf"),
    )


def _temporary():
    import tempfile

    return tempfile.TemporaryDirectory()


async def plain_for_a_node_of_tls(stack, beam, epmd):
    folder = Path(stack.enter_context(_temporary()))
    from pyglyn.net.tls import read_option_file

    name = unique_name()
    status, output = await run("certs", str(folder), name)
    assert status == 0, output
    settings = Settings(net=NetSettings(tls=read_option_file(f"{folder}/{name}.conf")))
    await stack.enter_async_context(Node(name, cookie=beam.cookie, settings=settings))
    return Broken(name, "TLS|handshake", r"TLS")


SET_UPS = [
    no_name, unknown_host, no_ipv6_address, no_epmd, another_program_as_epmd, not_registered, a_port_that_nobody_listens_at,
    a_port_that_never_speaks, a_port_that_speaks_something_else, another_cookie, not_allowed, nothing_at_the_port_of_all,
    ipv6_for_a_node_of_ipv4, tls_for_a_plain_node, plain_for_a_node_of_tls,
]  # fmt: skip


@pytest.mark.parametrize("set_up", SET_UPS, ids=lambda set_up: set_up.__name__)
async def test_the_walk_stops_where_something_is_broken_and_says_what_to_do(
    shared_beam, epmd, set_up
) -> None:
    async with contextlib.AsyncExitStack() as stack:
        broken = await set_up(stack, shared_beam, epmd)
        words = (
            broken.words if "--cookie" in broken.words else (*broken.words, "--cookie", shared_beam.cookie)
        )
        status, output = await run("doctor", broken.node, *words, env=broken.env)
    *_, seen, advice = output.splitlines()
    assert status == 1, output
    assert re.match(rf"FAILED  (?:{broken.step}) +\S", seen), output
    assert re.search(broken.says, f"{seen.strip()} {advice.strip()}"), output
    assert output.count("FAILED") == 1


def test_no_step_hangs_on_how_an_error_is_worded() -> None:
    """The kind of an error says at which step a walk ends, whatever its text."""
    net = NetSettings()
    steps = {
        TlsError("x"): "TLS",
        WrongCookie("TLS certificate"): "cookie",
        CookieError("x"): "cookie",
        MissingFlags("TLS"): "flags",
        NameRefused("TLS"): "handshake",
        HandshakeError("TLS certificate"): "handshake",
        EpmdUnreachable("TLS"): "EPMD",
        CallTimeout("TLS"): "handshake",
    }
    for error, step in steps.items():
        assert advice_for(error, net)[0] == step, error


async def test_a_connect_that_fails_names_the_command_that_finds_out_why(shared_beam) -> None:
    async with Node(unique_name(), cookie="c") as node:
        with pytest.raises(HandshakeError) as first:
            await node.connect("nobody@no-such-host")
        with pytest.raises(WrongCookie) as second:
            await node.connect(shared_beam.name)
    assert first.value.__notes__ == ["`pyglyn doctor nobody@no-such-host` finds out why"]
    assert second.value.with_notes == f"{second.value}; `pyglyn doctor {shared_beam.name}` finds out why"
    status, output = await run("ping", shared_beam.name, "--cookie", "c")
    assert status == 1
    assert output.strip().endswith(f"; `pyglyn doctor {shared_beam.name}` finds out why")


async def test_a_node_that_is_reached_is_walked_to_the_end(shared_beam) -> None:
    status, output = await run("doctor", shared_beam.name, "--cookie", shared_beam.cookie)
    assert status == 0, output
    steps = [line[8:17].strip() for line in output.splitlines()]
    assert steps == ["name", "host", "EPMD", "port", "handshake", "cookie", "groups"]
