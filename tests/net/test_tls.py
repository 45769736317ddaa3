"""TLS between nodes: with real OTP nodes that run ``-proto_dist inet_tls``, both dialling; and what goes wrong.

The tests of connections, messages, links, rpc and groups are run once more over TLS in `tests/tls`.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import weakref
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import attrs
import pytest

from pyglyn import Atom, certificates
from pyglyn.errors import HandshakeError, LocalProtocolError
from pyglyn.net import NetSettings, TlsSettings, TlsSide
from pyglyn.net.tls import Contexts, read_option_file
from pyglyn.node import Node, Settings
from pyglyn.testing import Beam, Beams, Otp, PrivateEpmd, eventually, find_otps
from tests.cli.test_cli import run
from tests.net.conftest import Recorder, StartNode
from tests.node.conftest import unique_name
from tests.tls.conftest import TlsBeams, ssl_of
from tests.tls.conftest import beam_otp as beam_otp
from tests.tls.conftest import beams as beams
from tests.tls.conftest import ca as ca
from tests.tls.conftest import option_file as option_file
from tests.tls.conftest import tls as tls


def test_each_installation_here_is_tested() -> None:
    if "PYGLYN_REQUIRE_ALL" in os.environ:
        assert [otp.release for otp in find_otps() if ssl_of(otp) is None] == []


@pytest.fixture
async def beam(beams: TlsBeams) -> Beam:
    return await beams.start()


@pytest.fixture
async def start_node(start_node: StartNode, tls: TlsSettings) -> StartNode:
    async def start(
        name: str = "py@localhost", cookie: str = "pyglyn_testing", *, settings: Any = None, **kwargs: Any
    ) -> Recorder:
        settings = attrs.evolve(settings or NetSettings(), tls=tls)
        return await start_node(name, cookie, settings=settings, **kwargs)

    return start


# --- with real nodes -------------------------------------------------------------------------------


def with_version(option_file: Path, folder: Path, version: str) -> Path:
    text = option_file.read_text().replace("{verify,", f"{{versions, ['{version}']}}, {{verify,")
    copy = folder / "version.conf"
    copy.write_text(text)
    return copy


@pytest.mark.parametrize("version", ["tlsv1.2", "tlsv1.3"])
@pytest.mark.parametrize("who_dials", ["we", "they"])
async def test_versions(
    beams: TlsBeams, option_file: Path, tmp_path: Path, version: str, who_dials: str
) -> None:
    beams.option_file = with_version(option_file, tmp_path, version)
    beam = await beams.start()
    settings = Settings(net=NetSettings(tls=read_option_file(str(option_file))))
    async with Node(unique_name(), cookie=beam.cookie, settings=settings) as node:
        if who_dials == "we":
            assert await node.ping(beam.name)
        else:
            assert await beam.eval("net_adm:ping(N)", N=Atom(node.name)) is Atom("pong")
        connection = node.hub.peers.get(beam.name)
        assert connection is not None
        assert connection._transport is not None
        spoken = connection._transport.get_extra_info("ssl_object").version()
        assert spoken.lower() == version
        assert await node.erpc(beam.name, "erlang", "node") is Atom(beam.name)
        assert await beam.eval("erpc:call(N, erlang, node, [])", N=Atom(node.name)) is Atom(node.name)


async def test_commands_take_certificates_as_they_are_made_by_one(
    epmd: PrivateEpmd, beams: TlsBeams, tmp_path: Path
) -> None:
    folder = tmp_path / "made"
    status, output = await run("certs", str(folder), "beam_tls@localhost", "any@localhost")
    assert status == 0, output
    beams.option_file = folder / "beam_tls@localhost.conf"
    beam = await beams.start()
    cookie = ("--cookie", beam.cookie)
    own = ("--ssl-dist-optfile", str(folder / "any@localhost.conf"))
    status, output = await run("ping", beam.name, *cookie, *own)
    assert (status, output[:4]) == (0, "pong")
    parts = [str(folder / name) for name in ("any@localhost.pem", "any@localhost-key.pem", "ca.pem")]
    files = ("--tls-cert", parts[0], "--tls-key", parts[1], "--tls-ca", parts[2])
    status, output = await run(
        "call", beam.name, "erlang", "node", *cookie, "--proto-dist", "inet_tls", *files
    )
    assert (status, output) == (0, f"{beam.name}\n")
    status, output = await run("ping", beam.name, *cookie)
    assert status == 1
    assert "speaks TLS" in output
    status, output = await run("ping", beam.name, *cookie, "--proto-dist", "inet_tls")
    assert status == 2
    assert "TLS needs a certificate" in output


async def test_a_wrong_cookie_is_a_wrong_cookie_over_tls(beam: Beam, start_node: StartNode) -> None:
    node = await start_node(cookie="another")
    with pytest.raises(HandshakeError, match=r"refused this node's cookie(?m:$)"):
        await node.peers.connect(beam.name)


async def test_a_plain_node_and_a_real_one_with_tls(
    beam: Beam, epmd: PrivateEpmd, option_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with Node(unique_name("plain"), cookie=beam.cookie) as node:
        with pytest.raises(
            HandshakeError, match=f"^{beam.name} speaks TLS .*, this connection is plain TCP(?m:$)"
        ):
            await node.connect(beam.name)
        assert await beam.eval("net_adm:ping(N)", N=Atom(node.name)) is Atom("pang")
        await eventually(lambda: "a connecting node speaks TLS (-proto_dist inet_tls)" in caplog.text)


async def test_a_real_plain_node_and_a_node_with_tls(
    beam_otp: Otp, epmd: PrivateEpmd, start_node: StartNode, caplog: pytest.LogCaptureFixture
) -> None:
    plain = Beams(epmd, beam_otp)
    try:
        beam = await plain.start()
        node = await start_node()
        with pytest.raises(HandshakeError, match="speaks plain TCP"):
            await node.peers.connect(beam.name)
        assert await beam.eval("net_adm:ping('py@localhost')") is Atom("pang")
        await eventually(lambda: "a connecting node speaks plain TCP, but this node TLS" in caplog.text)
    finally:
        await asyncio.to_thread(plain.close)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("ca", "does not know the CA of this node's certificate$"),
        ("expired", "does not accept this node's certificate: it has expired$"),
        (
            "none",
            "demands a certificate, and this node shows none$|shares no TLS version, cipher or certificate",
        ),
    ],
)
async def test_what_a_real_node_says_of_our_certificate(
    beam: Beam, option_file: Path, tmp_path: Path, fault: str, said: str
) -> None:
    tls = read_option_file(str(option_file))
    client = tls.client
    if fault == "none":
        client = attrs.evolve(client, certificate=None, key=None)
    else:
        folder = tmp_path if fault == "ca" else option_file.parent
        days = -1 if fault == "expired" else 9
        own = certificates.for_node(certificates.authority(folder), f"{fault}@localhost", days=days)
        client = attrs.evolve(client, certificate=str(own).replace(".conf", ".pem"), key=None)
        client = attrs.evolve(client, key=str(own).replace(".conf", "-key.pem"))
    settings = Settings(net=NetSettings(tls=attrs.evolve(tls, client=client)))
    async with Node(unique_name(), cookie=beam.cookie, settings=settings) as node:
        with pytest.raises(HandshakeError, match=f"(?m){said}"):
            await node.connect(beam.name)


# --- what goes wrong, among ourselves --------------------------------------------------------------

Make = Callable[..., TlsSide]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Make a side with a certificate of a CA, by the CA's name; and the CAs it accepts."""

    def side(signed_by: str | None = "ours", accepts: str | None = "ours", **options: Any) -> TlsSide:
        given: dict[str, Any] = {"verify": accepts is not None, "certificate_required": accepts is not None}
        if accepts is not None:
            given["authorities"] = str(certificates.authority(tmp_path / accepts, name=accepts).path)
        if signed_by is not None:
            ca = certificates.authority(tmp_path / signed_by, name=signed_by)
            host, days = options.pop("host", "localhost"), options.pop("days", 9)
            name = f"n{len(list(tmp_path.rglob('*')))}@localhost"
            certificates.for_node(ca, name, host=host, days=days)
            given["certificate"], given["key"] = (
                str(ca.folder / f"{name}.pem"),
                str(ca.folder / f"{name}-key.pem"),
            )
        return TlsSide(**{**given, **options})

    return side


@contextlib.asynccontextmanager
async def pair(
    dialler: TlsSettings | None, dialled: TlsSettings | None
) -> AsyncIterator[tuple[Recorder, Recorder]]:
    """Two nodes that find each other without EPMD."""
    port: list[int] = []
    nodes = [
        Recorder(
            f"{name}@localhost",
            "c",
            True,
            NetSettings(epmd_port=0, tls=tls, address_of=lambda node: ("127.0.0.1", port[0])),
        )
        for name, tls in (("a", dialler), ("b", dialled))
    ]
    for node in reversed(nodes):
        await node.peers.start()
        port.append(node.peers.port)
    try:
        yield nodes[0], nodes[1]
    finally:
        for node in nodes:
            await node.peers.stop()


def both(side: TlsSide) -> TlsSettings:
    return TlsSettings(server=side, client=side)


# asyncio drops the alert in which it would say why (a real node's arrives, see below); the other log says it.
NOT_ACCEPTED = (
    r"^b@localhost (closed the connection without answering the handshake: it may not accept this node's "
    r"certificate, see its log|closed the connection during the TLS handshake|does not)"
)

WRONG: dict[str, tuple[Callable[[Make], TlsSettings | None], Callable[[Make], TlsSettings | None], str]] = {
    "the dialled node's CA is unknown": (
        lambda make: both(make()),
        lambda make: both(make("theirs")),
        r"^the certificate of b@localhost is not accepted: it comes from an unknown CA",
    ),
    "the dialled node's certificate has expired": (
        lambda make: both(make()),
        lambda make: both(make(days=-1)),
        r"^the certificate of b@localhost is not accepted: it has expired$",
    ),
    "the dialled node's certificate is for another host": (
        lambda make: both(make()),
        lambda make: both(make(host="elsewhere")),
        r"^the certificate of b@localhost is not accepted: .*ostname mismatch",
    ),
    "the dialling node's CA is unknown": (
        lambda make: both(make("theirs")),
        lambda make: both(make()),
        NOT_ACCEPTED,
    ),
    "the dialling node's certificate has expired": (
        lambda make: both(make(days=-1)),
        lambda make: both(make()),
        NOT_ACCEPTED,
    ),
    "the dialling node has no certificate": (
        lambda make: TlsSettings(server=make(), client=make(None)),
        lambda make: both(make()),
        NOT_ACCEPTED,
    ),
    "no version in common": (
        lambda make: both(make(versions=("tlsv1.2",))),
        lambda make: both(make(versions=("tlsv1.3",))),
        r"^b@localhost (and this node share no version of TLS|closed the connection during the TLS handshake)",
    ),
    "the dialled node is plain": (
        lambda make: both(make()),
        lambda make: None,
        r"^b@localhost speaks plain TCP, but this node TLS|closed the connection during the TLS handshake",
    ),
    "the dialling node is plain": (
        lambda make: None,
        lambda make: both(make()),
        r"^b@localhost closed the connection without answering the handshake: it may speak TLS, or be no node$",
    ),
}


@pytest.mark.parametrize("case", WRONG)
async def test_a_set_up_that_is_wrong_is_said_in_a_sentence(
    make: Make, case: str, caplog: pytest.LogCaptureFixture
) -> None:
    dialler, dialled, said = WRONG[case]
    async with pair(dialler(make), dialled(make)) as (a, b):
        with pytest.raises(HandshakeError, match=f"(?m){said}"):
            await a.peers.connect("b@localhost")
        await eventually(lambda: not b.peers._accepting)
        assert (a.history, b.history) == ([], [])
        assert caplog.text.count("refused a connection") <= 1


UNUSABLE: dict[str, tuple[Callable[[Make, Path], TlsSide], str]] = {
    "no certificate": (lambda make, folder: TlsSide(), "needs a certificate"),
    "no such file": (
        lambda make, folder: TlsSide(certificate="/nowhere.pem"),
        "no file /nowhere.pem with a cert",
    ),
    "another key": (
        lambda make, folder: attrs.evolve(make(), key=make().key),
        r"-key.pem is not the key of .*\.pem$",
    ),
    "no PEM": (lambda make, folder: TlsSide(certificate=__file__), "cannot be used"),
    "no CA file": (
        lambda make, folder: attrs.evolve(make(), authorities="/nowhere.pem"),
        "with CA certificates",
    ),
    "nothing to check with": (
        lambda make, folder: attrs.evolve(make(), authorities=None),
        "needs the certificates of",
    ),
}


@pytest.mark.parametrize("case", UNUSABLE)
def test_files_that_cannot_be_used_are_named_at_once(make: Make, tmp_path: Path, case: str) -> None:
    side, said = UNUSABLE[case]
    with pytest.raises(LocalProtocolError, match=said):
        Contexts(both(side(make, tmp_path)))


def overwrite(path: str, content: bytes) -> None:
    Path(path).write_bytes(content)


async def test_certificates_are_read_again_when_they_change(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    old, new = make(days=-1), make()
    assert old.certificate
    assert old.key
    assert new.certificate
    assert new.key
    async with pair(both(make()), both(old)) as (a, b):
        with pytest.raises(HandshakeError, match="it has expired"):
            await a.peers.connect("b@localhost")
        overwrite(old.certificate, b"being written")
        with pytest.raises(HandshakeError, match="it has expired"):
            await a.peers.connect("b@localhost")
        assert "the old ones stay in use" in caplog.text
        os.replace(new.certificate, old.certificate)
        os.replace(new.key, old.key)
        await a.peers.connect("b@localhost")
        assert "were read again" in caplog.text
        a.send("b@localhost", b.pid(), b"over TLS")
        assert await b.has_received(1) == [b"over TLS"]


async def test_callers_that_never_speak_tls_are_limited_too(make: Make) -> None:
    settings = NetSettings(epmd_port=0, tls=both(make()), max_handshakes=3, setup_timeout_s=30.0)
    node = Recorder("b@localhost", "c", True, settings)
    await node.peers.start()
    mute = [await asyncio.open_connection("127.0.0.1", node.peers.port) for _ in range(6)]
    for reader, _ in mute[:3]:
        assert await reader.read() == b""
    assert len(node.peers._accepting) == 3
    for _, writer in mute:
        writer.transport.abort()
    await node.peers.stop()


async def test_what_is_left_of_callers_that_fail_needs_no_collector(make: Make) -> None:
    """Each has buffers of a quarter of a mebibyte, and anybody may call."""
    node = Recorder("b@localhost", "c", True, NetSettings(epmd_port=0, tls=both(make())))
    await node.peers.start()
    gc.collect()
    gc.disable()
    try:
        for _ in range(20):
            reader, writer = await asyncio.open_connection("127.0.0.1", node.peers.port)
            writer.write(b"GET / HTTP/1.1\r\n\r\n")
            await reader.read()
            writer.close()

        def left() -> int:
            return sum(type(each).__name__ == "SSLProtocol" for each in gc.get_objects())

        await eventually(lambda: left() <= 1)
    finally:
        gc.enable()
        await node.peers.stop()


async def test_connections_that_were_up_leave_nothing_to_be_collected(
    epmd: PrivateEpmd, tls: TlsSettings
) -> None:
    """What TLS keeps for each knew the connection, which knew that."""
    settings = Settings(net=NetSettings(tls=tls))
    async with (
        Node(unique_name(), cookie="c", settings=settings) as node,
        Node(unique_name("other"), cookie="c", settings=settings) as other,
    ):
        gc.disable()
        try:
            await node.connect(other.name)
            await eventually(lambda: other.hub.peers.get(node.name))
            both = node.hub.peers.get(other.name), other.hub.peers.get(node.name)
            freed = [weakref.ref(each) for each in both if each is not None]
            del both
            assert len(freed) == 2
            node.disconnect(other.name)
            await eventually(lambda: not any(each() for each in freed))
        finally:
            gc.enable()


def test_an_option_file_of_otp(tmp_path: Path) -> None:
    file = tmp_path / "dist.conf"
    file.write_text("""
        [{server, [{certfile, "/c.pem"}, {keyfile, "/k.pem"}, {cacertfile, "/ca.pem"}, {password, "x"},
                   {secure_renegotiate, true}, {verify, verify_peer}, {fail_if_no_peer_cert, true}]},
         {client, [{versions, ['tlsv1.3']}, {verify, verify_none}]}].
    """)
    settings = read_option_file(str(file))
    assert settings.server == TlsSide(
        certificate="/c.pem",
        key="/k.pem",
        authorities="/ca.pem",
        password="x",
        verify=True,
        certificate_required=True,
    )
    assert settings.client == TlsSide(versions=("tlsv1.3",))
    for text, said in (
        ("[{server, [{verify_fun, {m, f, []}}]}].", "server option verify_fun is not supported"),
        ("[{server, [{versions, ['tlsv1.1']}]}].", "server option versions is not supported"),
        ("not erlang!", "is no Erlang term"),
        ("[server].", "expected a list"),
        ("[{srver, []}].", "srver is neither server nor client$"),
    ):
        file.write_text(text)
        with pytest.raises(LocalProtocolError, match=said):
            read_option_file(str(file))
    with pytest.raises(LocalProtocolError, match=r"cannot be read: No such file or directory$"):
        read_option_file(str(tmp_path / "nothing"))
