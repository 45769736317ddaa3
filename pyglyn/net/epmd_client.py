"""Ask EPMD and register with it. Layer: net.

Source: erl_epmd.erl (OTP 25.2). One connection per request; the one of a registration stays open.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from pyglyn.dist import epmd
from pyglyn.dist.epmd import NodeEntry
from pyglyn.errors import EpmdError, EpmdUnreachable
from pyglyn.net.transport import explain

TIMEOUT_S = 5.0
_MAX_ANSWER = 16 * 1024 * 1024


@contextlib.asynccontextmanager
async def _connection(
    host: str, port: int, timeout_s: float
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Connect for one request; foreign errors become one sentence."""
    writer = None
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_connection(host, port, limit=_MAX_ANSWER)
            yield reader, writer
    except EpmdError:  # which is an OSError too, by way of ConnectionError
        raise
    except OSError as error:
        raise EpmdUnreachable(f"EPMD at {host}:{port} cannot be reached: {explain(error)}") from error
    finally:
        if writer is not None:
            writer.transport.abort()


async def _ask(host: str, port: int, request: bytes, timeout_s: float) -> bytes:
    async with _connection(host, port, timeout_s) as (reader, writer):
        writer.write(request)
        answer = await reader.read(_MAX_ANSWER)
        while len(answer) < _MAX_ANSWER and (more := await reader.read(_MAX_ANSWER)):
            answer += more
        return answer


async def lookup(name: str, host: str, port: int, *, timeout_s: float = TIMEOUT_S) -> NodeEntry:
    """Find where a node listens.

    Args:
        name: the part before the ``@``.
        host: address or name of the machine whose EPMD to ask.
        port: EPMD's port.
        timeout_s: for everything.

    Raises:
        EpmdUnreachable: nothing answers there.
        EpmdError: EPMD does not know the name, or what answers is no EPMD.
    """
    # The real daemon closes after its answer; one that does not must not cost the whole timeout.
    async with _connection(host, port, timeout_s) as (reader, writer):
        writer.write(epmd.encode_port_please2(name))
        answer = b""
        entry = None
        while True:
            more = await reader.read(4096)
            answer += more
            try:
                entry = epmd.decode_port2_answer(answer)
                break
            except EpmdError:
                if not more or len(answer) > epmd.MAX_REQUEST:
                    raise
    if entry is None:
        raise EpmdError(f"EPMD at {host}:{port} knows no node named {name!r}")
    return entry


async def names(host: str, port: int, *, timeout_s: float = TIMEOUT_S) -> list[tuple[str, int]]:
    """List the nodes registered on a machine: names (without host) and ports.

    Raises:
        EpmdUnreachable: nothing answers there.
        EpmdError: what answers is no EPMD.
    """
    return epmd.decode_names_answer(await _ask(host, port, epmd.encode_names(), timeout_s))


async def kill(host: str, port: int, *, timeout_s: float = TIMEOUT_S) -> bool:
    """Ask a daemon to end; False where it refuses, because nodes are registered.

    Raises:
        EpmdUnreachable: nothing answers there.
    """
    return await _ask(host, port, epmd.encode_kill(), timeout_s) == b"OK"


class Registration:
    """A node's entry at EPMD: lasts as long as its connection.

    Attributes:
        creation: what EPMD gave.
    """

    def __init__(self, creation: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.creation = creation
        self._reader = reader
        self._writer = writer

    async def lost(self) -> None:
        """Wait until EPMD closes the connection, or ends."""
        with contextlib.suppress(OSError):
            while await self._reader.read(4096):
                pass

    def close(self) -> None:
        """Unregister."""
        self._writer.transport.abort()


async def register(entry: NodeEntry, host: str, port: int, *, timeout_s: float = TIMEOUT_S) -> Registration:
    """Register a node.

    Raises:
        EpmdUnreachable: nothing answers there.
        EpmdError: the name is taken, or what answers is no EPMD.
    """
    writer = None
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_connection(host, port)
            writer.write(epmd.encode_alive2(entry))
            answer = await reader.read(1)
            if answer:
                answer += await reader.readexactly(epmd.alive2_answer_size(answer[0]) - 1)
        creation = epmd.decode_alive2_answer(answer, entry.name)
        registration, writer = Registration(creation, reader, writer), None
        return registration
    except asyncio.IncompleteReadError as error:
        raise EpmdError(f"EPMD at {host}:{port} closed the connection within its answer") from error
    except EpmdError:
        raise
    except OSError as error:
        raise EpmdUnreachable(f"EPMD at {host}:{port} cannot be reached: {explain(error)}") from error
    finally:
        if writer is not None:
            writer.transport.abort()
