"""Real nodes that speak TLS, and Python nodes that do; both kinds dial.

The OTP 28 wheel has an emulator, a kernel and crypto, and no ssl. It runs those of another installation here: what is
tested is then OTP 28's distribution over an older ssl. ``PYGLYN_SSL_EBINS`` names folders with others.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from pyglyn import Atom, certificates
from pyglyn.net import TlsSettings
from pyglyn.net.tls import read_option_file
from pyglyn.node import Node, Settings
from pyglyn.testing import Beam, Beams, Otp, PrivateEpmd, find_otps, require

SSL_EBINS = "PYGLYN_SSL_EBINS"
"""The environment variable with the `ebin` folders of compiled asn1, public_key and ssl, separated by ``:``."""

_APPLICATIONS = ("asn1", "public_key", "ssl")


def ssl_of(otp: Otp) -> list[Path] | None:
    """Return what to put on the code path of an installation for TLS (nothing, where it has it); None: not to be had."""
    if any(otp.root.glob("lib/ssl-*")):
        return []
    if named := [Path(name) for name in os.environ.get(SSL_EBINS, "").split(":") if name]:
        return named
    for other in reversed(find_otps()):
        if other.release <= otp.release and any(other.root.glob("lib/ssl-*/ebin/ssl.beam")):
            return [next(other.root.glob(f"lib/{name}-*/ebin")) for name in _APPLICATIONS]
    return None


@pytest.fixture(scope="session")
def beam_otp(request: pytest.FixtureRequest) -> Otp:
    """The installation of this run, where it has TLS or can be given it."""
    otp: Otp | None = request.param
    require(otp is not None and ssl_of(otp) is not None, "no ssl for this OTP: install erlang-ssl")
    assert otp is not None
    return otp


@pytest.fixture(scope="session")
def ca(tmp_path_factory: pytest.TempPathFactory) -> certificates.Authority:
    """A CA of this run's own."""
    return certificates.authority(tmp_path_factory.mktemp("certs"))


@pytest.fixture(scope="session")
def option_file(ca: certificates.Authority) -> Path:
    """One file for both worlds: the certificates are for the host, as OTP checks them."""
    return certificates.for_node(ca, "any@localhost")


@pytest.fixture(scope="session")
def tls(option_file: Path) -> TlsSettings:
    """What a Python node makes of it."""
    return read_option_file(str(option_file))


class TlsBeams(Beams):
    """Starts nodes that speak TLS.

    Attributes:
        option_file: what they read.
    """

    option_file: Path

    def start_blocking(self, name: str | None = None, *, args: Any = (), **kwargs: Any) -> Beam:
        """Start a node with TLS."""
        ebins = [word for ebin in ssl_of(self._otp) or () for word in ("-pa", str(ebin))]
        tls = ("-proto_dist", "inet_tls", "-ssl_dist_optfile", str(self.option_file))
        return super().start_blocking(name, args=(*ebins, *tls, *args), **kwargs)


def _factory(epmd: PrivateEpmd, otp: Otp, option_file: Path) -> Iterator[TlsBeams]:
    factory = TlsBeams(epmd, otp)
    factory.option_file = option_file
    yield factory
    factory.close()


@pytest.fixture
def beams(beam_otp: Otp, epmd: PrivateEpmd, option_file: Path) -> Iterator[TlsBeams]:
    """A factory of nodes that speak TLS."""
    yield from _factory(epmd, beam_otp, option_file)


@pytest.fixture(scope="module")
def _module_beams(beam_otp: Otp, epmd: PrivateEpmd, option_file: Path) -> Iterator[TlsBeams]:
    yield from _factory(epmd, beam_otp, option_file)


@pytest.fixture
def beam(shared_beam: Beam) -> Beam:
    """One node for all tests of a file."""
    return shared_beam


@pytest.fixture(params=["we dial", "they dial"])
def make_node(
    request: pytest.FixtureRequest, tls: TlsSettings, _module_beams: Beams, beams: Beams
) -> Callable[..., Node]:
    """What makes nodes that speak TLS; they dial, or are dialled where a test has them connect."""

    class Dialled(Node):
        """A node that has others connect to it, when it is to connect to them."""

        async def connect(self, name: str) -> None:
            found = [
                beam for beam in (*beams.nodes, *_module_beams.nodes) if beam.name == name and beam.alive
            ]
            for beam in found:
                assert await beam.eval("net_kernel:connect_node(N)", N=Atom(self.name)) is True
            await super().connect(name)

    made = Node if request.param == "we dial" else Dialled

    def make(
        name: str, cookie: str | None = None, *, settings: Settings | None = None, **kwargs: Any
    ) -> Node:
        settings = settings or Settings()
        settings = attrs.evolve(settings, net=attrs.evolve(settings.net, tls=tls))
        return made(name, cookie, settings=settings, **kwargs)

    return make


def again(module: Any, *, fixtures: tuple[str, ...] = (), leave: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return the tests of a module, all but some, and fixtures of it, to be run once more over TLS."""
    tests = [name for name, value in vars(module).items() if name.startswith("test_") and callable(value)]
    assert set(leave) <= set(tests), "a test was renamed"
    return {name: getattr(module, name) for name in (*tests, *fixtures) if name not in leave}
