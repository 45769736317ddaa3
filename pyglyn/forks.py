"""What pyglyn has open in this OS process, which no fork of it keeps and whose end every copy tells.

A fork that the application makes (``multiprocessing``, a process pool, ``os.fork``) gets all descriptors. A
connection would live on in it after the node's end: the peer would not be told, the name would stay taken and
the port in use. So every fork lets go of what was noted here, and what is closed is shut down first.
"""

from __future__ import annotations

import asyncio
import contextlib
import mmap
import os
import socket
import weakref
from typing import Protocol, TypeVar


class Open(Protocol):
    """What has a descriptor, or -1 when it is closed."""

    def fileno(self) -> int:
        """The descriptor's number."""
        ...


O = TypeVar("O", bound=Open)  # noqa: E741

_numbers: set[int] = set()
_opened: dict[int, Open] = {}
_mappings: weakref.WeakSet[mmap.mmap] = weakref.WeakSet()
_prune_at = 64


def keep_number(fd: int) -> int:
    """Note a descriptor that no object owns: forks close it. Returns it."""
    _numbers.add(fd)
    return fd


def close_number(fd: int) -> None:
    """Close a descriptor that `keep_number` has noted."""
    _numbers.discard(fd)
    os.close(fd)


def keep_mapping(mapping: mmap.mmap) -> mmap.mmap:
    """Note shared memory: forks have it no more, unless something there refers to it. Returns it."""
    _mappings.add(mapping)
    return mapping


def keep(opened: O) -> O:
    """Note something open, once or more often: in forks its descriptor leads nowhere. Returns it."""
    global _prune_at
    if len(_opened) >= _prune_at:
        for each in [each for each in _opened.values() if _number(each) < 0]:
            del _opened[id(each)]
        _prune_at = max(64, 2 * len(_opened))
    _opened[id(opened)] = opened
    return opened


def keep_transport(transport: asyncio.BaseTransport) -> None:
    """Note the socket of a connection."""
    opened = transport.get_extra_info("socket")
    if opened is not None:
        keep(opened)


def keep_server(server: asyncio.Server) -> asyncio.Server:
    """Note the sockets of a server. Returns it."""
    for opened in server.sockets:
        keep(opened)
    return server


def close_server(server: asyncio.Server) -> None:
    """Stop listening, whoever else has a copy of the sockets."""
    for opened in server.sockets:
        shut_down(opened)
    server.close()


def shut_down(opened: Open | None) -> None:
    """Say on a socket that is about to be closed that it is over, whoever else has a copy of it."""
    if opened is not None:
        with contextlib.suppress(OSError, ValueError), socket.socket(fileno=os.dup(opened.fileno())) as copy:
            copy.shutdown(socket.SHUT_RDWR)


def shut_down_transport(transport: asyncio.BaseTransport | None) -> None:
    """The same for a connection whose last bytes have been written."""
    if transport is not None:
        shut_down(transport.get_extra_info("socket"))


def _number(opened: Open) -> int:
    try:
        return opened.fileno()
    except Exception:  # as psycopg, for what is closed
        return -1


def _let_go() -> None:
    """In a fork. Numbers with an object must stay taken: it would close who has got its number since."""
    for fd in _numbers:
        with contextlib.suppress(OSError):
            os.close(fd)
    _numbers.clear()
    for mapping in _mappings:
        with contextlib.suppress(BufferError):
            mapping.close()
    _mappings.clear()
    numbers = [number for each in _opened.values() if (number := _number(each)) >= 0]
    _opened.clear()
    if not numbers:
        return
    try:
        null = os.open(os.devnull, os.O_RDWR)
    except OSError:  # all numbers are taken
        for number in numbers:
            with contextlib.suppress(OSError):
                os.close(number)
        return
    for number in numbers:
        os.dup2(null, number, inheritable=False)
    os.close(null)


os.register_at_fork(after_in_child=_let_go)
