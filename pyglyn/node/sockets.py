"""The sockets of an OS process, whoever in it made them, but for those between its own parts. Layer: node.

Source: proc(5), ``/proc/self/fd``; tcp(7), ``TCP_INFO``. Where there is no ``/proc`` none is found.
"""

from __future__ import annotations

import os
import socket
import struct
from typing import Any

from pyglyn.etf import Atom, Term

_TCP_INFO = getattr(socket, "TCP_INFO", None)
_BYTES_AT = 120
"""Where ``tcpi_bytes_acked`` and ``tcpi_bytes_received`` are in ``struct tcp_info`` (since Linux 4.2)."""
_PROTOCOLS = {
    (socket.SOCK_STREAM, True): "tcp_inet",
    (socket.SOCK_DGRAM, True): "udp_inet",
    (socket.SOCK_SEQPACKET, True): "sctp_inet",
}


def here() -> list[Term]:
    """A map for each: ``fd``, ``name`` (OTP's for a port), ``local``, ``peer``, ``listening``, ``options``.

    Bytes ``in`` and ``out`` are those of TCP, else 0.
    """
    found: list[Term] = []
    try:
        names = os.listdir("/proc/self/fd")
    except OSError:
        return found
    for fd in sorted(map(int, names)):
        about = _describe(fd)
        if about is not None:
            found.append(about)
    return found


def _describe(fd: int) -> Term | None:
    try:
        if not os.readlink(f"/proc/self/fd/{fd}").startswith("socket:"):
            return None
        found = socket.socket(fileno=fd)
    except OSError:
        return None  # it was closed meanwhile, or is of a kind that Python does not know
    try:
        return _told_of(found)
    finally:
        found.detach()


def _told_of(one: socket.socket) -> Term | None:
    inet = one.family in (socket.AF_INET, socket.AF_INET6)
    if not inet and one.family != socket.AF_UNIX:
        return None
    local, peer = _address(one.getsockname), _address(one.getpeername)
    if not inet and not any(map(_is_path, (local, peer))):
        return None
    name = _PROTOCOLS.get((one.type, inet), "socket" if inet else "unix")
    received, sent = _counted(one) if name == "tcp_inet" else (0, 0)
    return {
        Atom("fd"): one.fileno(),
        Atom("name"): name.encode(),
        Atom("local"): local,
        Atom("peer"): peer,
        Atom("listening"): bool(_option(one, socket.SOL_SOCKET, "SO_ACCEPTCONN")),
        Atom("in"): received,
        Atom("out"): sent,
        Atom("options"): [
            (Atom("broadcast"), bool(_option(one, socket.SOL_SOCKET, "SO_BROADCAST"))),
            (Atom("keepalive"), bool(_option(one, socket.SOL_SOCKET, "SO_KEEPALIVE"))),
            (Atom("nodelay"), bool(inet and _option(one, socket.IPPROTO_TCP, "TCP_NODELAY"))),
            (Atom("recbuf"), _option(one, socket.SOL_SOCKET, "SO_RCVBUF")),
            (Atom("reuseaddr"), bool(_option(one, socket.SOL_SOCKET, "SO_REUSEADDR"))),
            (Atom("sndbuf"), _option(one, socket.SOL_SOCKET, "SO_SNDBUF")),
        ],
    }


def _is_path(address: Any) -> bool:
    """Whether an address is that of a file; pairs, and the links between OS processes, have none."""
    return isinstance(address, tuple) and isinstance(address[1], bytes) and address[1][:1] not in (b"", b"\0")


def _option(of: socket.socket, level: int, name: str) -> int:
    try:
        return of.getsockopt(level, getattr(socket, name))
    except (OSError, AttributeError):
        return 0


def _counted(of: socket.socket) -> tuple[int, int]:
    try:
        sent, received = struct.unpack_from(
            "QQ", of.getsockopt(socket.IPPROTO_TCP, _TCP_INFO or 0, 256), _BYTES_AT
        )
    except (OSError, struct.error):
        return 0, 0
    return received, sent


def _address(ask: Any) -> Term:
    """``{Ip, Port}`` as ``inet`` has it, ``{local, Path}``, or ``undefined``."""
    try:
        address = ask()
    except OSError:
        return Atom("undefined")
    if isinstance(address, (str, bytes)):
        path = address.encode("utf-8", "surrogateescape") if isinstance(address, str) else address
        return (Atom("local"), path)
    if not isinstance(address, tuple) or not isinstance(address[0], str):
        return Atom("undefined")
    host, port = address[0].partition("%")[0], address[1]
    if ":" in host:
        return (struct.unpack("!8H", socket.inet_pton(socket.AF_INET6, host)), port)
    return (tuple(socket.inet_aton(host)), port)
