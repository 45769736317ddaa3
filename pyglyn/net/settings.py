"""What a caller may choose about a node's connections. Layer: net.

``ERL_EPMD_PORT``, ``ERL_EPMD_ADDRESS`` and ``ERL_DIST_PORT`` are read here, as real nodes read them.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import attrs

from pyglyn.dist import MANDATORY_25, RECOMMENDED, UNDEFINED, ChannelSettings, DistFlags, has_long_host
from pyglyn.dist.epmd import DEFAULT_PORT
from pyglyn.errors import LocalProtocolError
from pyglyn.net.tls import TlsSettings

LOOPBACK_HOSTS = frozenset(("localhost", "127.0.0.1", "::1"))


def epmd_port_from_environment() -> int:
    """Where EPMD listens: ``ERL_EPMD_PORT``, else 4369.

    Raises:
        LocalProtocolError: the variable does not hold a port.
    """
    text = os.environ.get("ERL_EPMD_PORT", "")
    if not text:
        return DEFAULT_PORT
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise LocalProtocolError(f"ERL_EPMD_PORT must be a port number, got {text!r}")
    return int(text)


def dist_port_from_environment() -> int:
    """The port of all nodes of a cluster without EPMD: ``ERL_DIST_PORT``, else 0.

    Raises:
        LocalProtocolError: the variable does not hold a port.
    """
    text = os.environ.get("ERL_DIST_PORT", "")
    if not text:
        return 0
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise LocalProtocolError(f"ERL_DIST_PORT must be a port number, got {text!r}")
    return int(text)


def epmd_addresses_from_environment() -> tuple[str, ...]:
    """Where an EPMD of ours listens beside loopback: ``ERL_EPMD_ADDRESS``, addresses with commas between."""
    text = os.environ.get("ERL_EPMD_ADDRESS", "")
    return tuple(part.strip() for part in text.split(",") if part.strip())


@attrs.frozen(kw_only=True)
class NetSettings:
    """Limits, times and choices for all connections of a node.

    Attributes:
        channel: limits and ticks of each connection.
        listen_port: 0 for any free one; None for ``dist_port`` where there is one, else any.
        dist_port: the port at which all other nodes listen, and no EPMD is asked or told (OTP's ``-start_epmd
            false -erl_epmd_port N``); 0 for EPMD.
        ipv6: connect and listen over IPv6 alone, as OTP's ``-proto_dist inet6_tcp``.
        setup_timeout_s: how long each step of a handshake may take, and each attempt to reach a host; also a
            worker to show the hub its token.
        busy_limit: from so many queued bytes on a connection is busy (OTP's dist_buf_busy_limit).
        write_buffer: bytes handed to the socket ahead of what it takes.
        max_handshakes: accepted connections that have not proved the cookie (fewer where the process may not
            open eight times as many files); where one more comes, the oldest is closed.
        max_dials: attempts to reach other nodes at once; further ones wait for their turn.
        max_dials_to_host: how many of those to nodes of the same host.
        epmd_port: where EPMD listens; 0 for no EPMD at all (then only ``address_of`` finds nodes).
        embedded_epmd: whether to be the EPMD of this machine when there is none.
        epmd_addresses: where that one listens beside loopback; None for what fits the host part.
        epmd_retry_s: how often to try again when EPMD is gone, as real nodes do.
        allowed: which nodes may connect, by name; None for all.
        address_of: host and port of nodes that are not to be looked up with EPMD.
        tls: how to speak TLS with the other nodes, as OTP's ``-proto_dist inet_tls``; None for plain TCP.
        flags: what to offer; a visible node adds PUBLISHED by itself.
        required_flags: what a peer must offer.
    """

    channel: ChannelSettings = attrs.field(factory=ChannelSettings)
    listen_port: int | None = None
    dist_port: int = attrs.field(factory=dist_port_from_environment)
    ipv6: bool = False
    setup_timeout_s: float = 7.0
    busy_limit: int = 1024 * 1024
    write_buffer: int = 256 * 1024
    max_handshakes: int = 256
    max_dials: int = 128
    max_dials_to_host: int = 32
    epmd_port: int = attrs.field(factory=epmd_port_from_environment)
    embedded_epmd: bool = True
    epmd_addresses: tuple[str, ...] | None = None
    epmd_retry_s: float = 2.0
    allowed: Callable[[str], bool] | None = None
    address_of: Callable[[str], tuple[str, int] | None] | None = None
    tls: TlsSettings | None = None
    flags: DistFlags = RECOMMENDED
    required_flags: DistFlags = MANDATORY_25

    @property
    def port(self) -> int:
        """Where to listen; 0 for any free port."""
        return self.dist_port if self.listen_port is None else self.listen_port

    @property
    def has_epmd(self) -> bool:
        """Whether nodes are found by EPMD."""
        return bool(self.epmd_port) and not self.dist_port

    @property
    def loopback(self) -> str:
        """This machine's address for itself alone."""
        return "::1" if self.ipv6 else "127.0.0.1"

    @property
    def everywhere(self) -> str:
        """The address of all interfaces."""
        return "::" if self.ipv6 else "0.0.0.0"


@attrs.define(kw_only=True)
class LocalNode:
    """Who this node is.

    Attributes:
        name: ``alive@host``; a host part with a dot makes it a node of long names. ``undefined@host`` until
            another node has given it a name (OTP's ``-sname undefined``).
        cookie: text, Latin-1 as in OTP.
        hidden: whether peers list it under ``nodes(hidden)`` only.
        creation: tells this incarnation from earlier ones; EPMD gives it when the node registers.
    """

    name: str
    cookie: str = attrs.field(repr=False)
    hidden: bool = True
    creation: int = 0

    @property
    def alive_name(self) -> str:
        """The part before the ``@``."""
        return self.name.partition("@")[0]

    @property
    def host(self) -> str:
        """The part after the ``@``."""
        return self.name.partition("@")[2]

    @property
    def long_names(self) -> bool:
        """Whether the host part is fully qualified (or an address), as ``-name`` wants."""
        return has_long_host(self.name)

    @property
    def unnamed(self) -> bool:
        """Whether it has no name yet."""
        return self.alive_name == UNDEFINED

    @property
    def loopback_only(self) -> bool:
        """Whether nobody outside this machine can mean this node."""
        return self.host in LOOPBACK_HOSTS
