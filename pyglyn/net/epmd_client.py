"""Ask EPMD and register with it. Layer: net.

Source: erl_epmd.erl (OTP 25.2). One connection per request; the one of a registration stays open.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from pyglyn import forks, patience
from pyglyn.dist import epmd
from pyglyn.dist.epmd import NodeEntry
from pyglyn.errors import EpmdError, EpmdNameTaken, EpmdUnreachable, HandshakeError, NotEpmd
from pyglyn.net.transport import explain, resolve

TIMEOUT_S = 5.0
_MAX_ANSWER = 16 * 1024 * 1024


class _Exchange:
    """A connection for one request, and what has come over it so far."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.answer = b""
        self.kept = False  # for longer than the exchange

    async def read(self, limit: int) -> bool:
        """Wait for more of the answer; False at its end."""
        more = await self.reader.read(limit)
        self.answer += more
        return bool(more)


@contextlib.asynccontextmanager
async def _exchange(host: str, port: int, request: bytes, timeout_s: float) -> AsyncIterator[_Exchange]:
    """Connect and send a request; foreign errors, and answers that make no sense, become one sentence."""
    exchange = None
    try:
        async with patience.timeout(timeout_s):
            address = await resolve(host, timeout_s)
            exchange = _Exchange(*await asyncio.open_connection(address, port, limit=_MAX_ANSWER))
            exchange.writer.write(request)
            yield exchange
    except (EpmdNameTaken, NotEpmd):  # which are OSErrors too, by way of ConnectionError
        raise
    except HandshakeError as error:
        raise EpmdUnreachable(f"EPMD at {host}:{port} cannot be reached: {error}") from error
    except OSError as error:
        if exchange is None:
            raise EpmdUnreachable(f"EPMD at {host}:{port} cannot be reached: {explain(error)}") from error
        if exchange.answer:
            text = f"what listens at {host}:{port} is no EPMD: it answers {exchange.answer[:24]!r}"
            raise NotEpmd(text) from error
        if isinstance(error, TimeoutError):
            text = f"what listens at {host}:{port} is no EPMD, or hangs: no answer within {timeout_s:g} s"
            raise NotEpmd(text) from error
        text = f"what listens at {host}:{port} is no EPMD, or is ending: it closes the connection unanswered"
        raise EpmdUnreachable(text) from error
    finally:
        if exchange is not None and not exchange.kept:
            exchange.writer.transport.abort()


async def lookup(name: str, host: str, port: int, *, timeout_s: float = TIMEOUT_S) -> NodeEntry:
    """Find where a node listens.

    Args:
        name: the part before the ``@``.
        host: address or name of the machine whose EPMD to ask.
        port: EPMD's port.
        timeout_s: for everything.

    Raises:
        EpmdUnreachable: nothing answers there.
        NotEpmd: what answers is no EPMD.
        EpmdError: EPMD does not know the name.
    """
    async with _exchange(host, port, epmd.encode_port_please2(name), timeout_s) as exchange:
        # The real daemon closes after its answer; one that does not must not cost the whole timeout.
        while True:
            more = await exchange.read(4096)
            try:
                entry = epmd.decode_port2_answer(exchange.answer)
                break
            except EpmdError:
                if (
                    not more
                    or len(exchange.answer) > epmd.MAX_REQUEST
                    or not epmd.may_be_port2(exchange.answer)
                ):
                    raise
    if entry is None:
        raise EpmdError(f"EPMD at {host}:{port} knows no node named {name!r}")
    return entry


async def names(host: str, port: int, *, timeout_s: float = TIMEOUT_S) -> list[tuple[str, int]]:
    """List the nodes registered on a machine: names (without host) and ports.

    Raises:
        EpmdUnreachable: nothing answers there.
        NotEpmd: what answers is no EPMD.
    """
    async with _exchange(host, port, epmd.encode_names(), timeout_s) as exchange:
        while await exchange.read(_MAX_ANSWER) and len(exchange.answer) < _MAX_ANSWER:
            pass
        return epmd.decode_names_answer(exchange.answer)


async def kill(host: str, port: int, *, timeout_s: float = TIMEOUT_S) -> bool:
    """Ask a daemon to end; False where it refuses, because nodes are registered.

    Raises:
        EpmdUnreachable: nothing answers there.
    """
    async with _exchange(host, port, epmd.encode_kill(), timeout_s) as exchange:
        while await exchange.read(4096) and len(exchange.answer) < 2:
            pass
        return exchange.answer == b"OK"


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
        forks.shut_down_transport(self._writer.transport)
        self._writer.transport.abort()


async def register(entry: NodeEntry, host: str, port: int, *, timeout_s: float = TIMEOUT_S) -> Registration:
    """Register a node.

    Raises:
        EpmdUnreachable: nothing answers there.
        EpmdNameTaken: the name is taken.
        NotEpmd: what answers is no EPMD.
    """
    async with _exchange(host, port, epmd.encode_alive2(entry), timeout_s) as exchange:
        while await exchange.read(64):
            if len(exchange.answer) >= epmd.alive2_answer_size(exchange.answer[0]):
                break
        creation = epmd.decode_alive2_answer(exchange.answer, entry.name)
        exchange.kept = True
        forks.keep_transport(exchange.writer.transport)
        return Registration(creation, exchange.reader, exchange.writer)
