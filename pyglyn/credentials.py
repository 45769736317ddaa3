"""Who is at the other end of a Unix socket, and whether it may be part of this node. Layer: beside all.

On Linux the kernel says it (``SO_PEERCRED`` of a connection, ``SCM_CREDENTIALS`` beside a datagram, both a
``struct ucred``, see unix(7)); elsewhere nobody does, and the permissions of the socket's file have to do.
"""

from __future__ import annotations

import os
import socket
import struct
from typing import Any, Final, NamedTuple

ROOT: Final = 0

_UCRED: Final = struct.Struct("3i")
SIZE: Final = _UCRED.size


class Credentials(NamedTuple):
    """What the kernel says of a sender when it sent or connected; user and group are the effective ones."""

    os_pid: int
    user: int
    group: int


def unpack(data: bytes) -> Credentials:
    """Credentials of the `SIZE` bytes that the kernel gives."""
    return Credentials(*_UCRED.unpack(data))


def user_of(connection: Any) -> int | None:
    """The user at the other end of a Unix socket; None where the system does not tell (outside of Linux)."""
    if not hasattr(socket, "SO_PEERCRED"):
        return None
    sock = socket.socket(fileno=connection.fileno())  # no copy: descriptors may have run out
    try:
        return unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, SIZE)).user
    finally:
        sock.detach()


def may_talk(user: int | None) -> bool:
    """Whether the OS processes of a user can be parts of this node: ours, and root's, who can do it all."""
    return user is None or user in (os.geteuid(), ROOT)
