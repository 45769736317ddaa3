"""Sockets: dialling, listening, resolving. Layer: net.

IPv4 between nodes, as OTP's ``inet_tcp`` has it, or IPv6, as ``inet6_tcp``; EPMD is served on both loopbacks.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import resource
import socket
import threading
from collections.abc import Callable, Sequence
from typing import TypeAlias, TypeVar

from pyglyn import forks, patience
from pyglyn.errors import HandshakeError

READ_SIZE = 16 * 1024
"""Bytes read from a socket at once; about a hundred messages."""

HANDED_OVER = 4 * 1024
"""Bytes of what a socket does not take that wait in the transport: the event loop then looks after it."""

ACCEPTED_A_TURN = 8
"""Connections that are accepted in one turn of the event loop: each costs a fraction of a millisecond."""
BACKLOG = 128
"""Connections that wait for that in the kernel."""

_AT_ONCE = 512
"""Pieces that one system call writes; Linux takes 1024."""

CONNECT_AGAIN_S = 0.002
"""When to try a Unix socket again that as many wait for as can: anybody on the machine may be among them."""

P = TypeVar("P", bound=asyncio.BaseProtocol)
Buffer: TypeAlias = "bytes | bytearray | memoryview"


def explain(error: OSError) -> str:
    """Say an operating system's error in words."""
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, socket.gaierror):
        return "the host name cannot be resolved"
    if error.errno:
        return os.strerror(error.errno).lower()
    return str(error) or type(error).__name__


async def resolve(host: str, timeout_s: float, *, ipv6: bool = False) -> str:
    """Find the IPv4 address of a host, or the IPv6 one; an address stays what it is.

    Raises:
        HandshakeError: the name does not resolve.
    """
    if host == "localhost":
        return "::1" if ipv6 else "127.0.0.1"
    address, percent, scope = host.partition("%")
    for family in (socket.AF_INET, socket.AF_INET6):
        with contextlib.suppress(OSError, ValueError):  # as for a name with a zero in it
            return socket.inet_ntop(family, socket.inet_pton(family, address)) + percent + scope
    answer, thread = _ask_the_system(host, socket.AF_INET6 if ipv6 else socket.AF_INET)
    try:
        async with patience.timeout(timeout_s):
            return await answer
    except (OSError, UnicodeError) as error:
        kind = " to an IPv6 address" if ipv6 else ""
        raise HandshakeError(f"the host name {host!r} cannot be resolved{kind}") from error
    finally:
        if answer.done() and not answer.cancelled():
            _see_off(thread)


def _see_off(thread: threading.Thread) -> None:
    """Wait for the end of a thread that has nothing left to do, as the kernel sees it.

    No process is forked beside a thread; who has resolved a name may do that next.
    """
    thread.join()
    for _ in range(1000):
        if not os.path.exists(f"/proc/self/task/{thread.native_id}"):
            break
        os.sched_yield()


def _ask_the_system(host: str, family: socket.AddressFamily) -> tuple[asyncio.Future[str], threading.Thread]:
    """Resolve a name in a thread of its own.

    One of asyncio's pool would stay, where no process can be forked any more, and a program that ends would
    wait for it, however long the name servers take.
    """
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[str] = loop.create_future()

    def settle(address: str, error: BaseException | None) -> None:
        if answer.done():
            return
        if error is not None:
            answer.set_exception(error)
        else:
            answer.set_result(address)

    def ask() -> None:
        address, problem = "", None
        try:
            address = str(socket.getaddrinfo(host, 0, family, socket.SOCK_STREAM)[0][4][0])
        except Exception as error:
            problem = error
        with contextlib.suppress(RuntimeError):  # the event loop is gone
            loop.call_soon_threadsafe(settle, address, problem)

    thread = threading.Thread(target=ask, name=f"pyglyn resolves {host[:40]}", daemon=True)
    thread.start()
    return answer, thread


async def dial(address: str, port: int, factory: Callable[[], P], timeout_s: float) -> P:
    """Connect and return the protocol that talks over the connection.

    Raises:
        OSError: refused, unreachable, or no answer in time (TimeoutError).
    """
    loop = asyncio.get_running_loop()
    async with patience.timeout(timeout_s):
        transport, protocol = await loop.create_connection(factory, address, port)
    no_delay(transport)
    return protocol


def share_of_descriptors(part: int, most: int) -> int:
    """A number of connections: ``most``, or that part of the descriptors the process may open, if fewer."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return most if limit == resource.RLIM_INFINITY else max(1, min(most, limit // part))


def no_delay(transport: asyncio.BaseTransport) -> None:
    """Switch Nagle's algorithm off (asyncio does, other event loops may not)."""
    sock = transport.get_extra_info("socket")
    if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def read_in_small_pieces(transport: asyncio.BaseTransport) -> None:
    """Have a transport read less at a time than asyncio's 256 KiB: a busy peer then lets others in between.

    All that a read brings is dispatched in one turn of the event loop. Event loops without that setting
    (uvloop) read as they do.
    """
    if hasattr(transport, "max_size"):
        transport.max_size = READ_SIZE


def number_for_writing(transport: asyncio.Transport) -> int:
    """The descriptor for `write_through`; -1 where all goes through the transport, as with TLS."""
    sock = transport.get_extra_info("socket")
    return -1 if sock is None or transport.get_extra_info("sslcontext") is not None else sock.fileno()


def write_through(transport: asyncio.Transport, number: int, pieces: list[Buffer], size: int) -> list[Buffer]:
    """Write several pieces in one system call; returns what the socket does not take now, uncopied.

    asyncio's transports have a call for each, or join them before, and copy what the socket does not take;
    those of Python 3.11 move it as well, whenever it takes some of it. So a transport gets only the first
    bytes of that: it then says when the socket takes more. It has to have a limit of 0 for what it buffers,
    and the rest is for this when ``resume_writing`` is called, before anything else. Errors are left to its
    own attempt, which sees to them.

    Args:
        number: of the socket; see `number_for_writing`.
        pieces: what to write.
        size: bytes in them.
    """
    while size and not transport.get_write_buffer_size() and not transport.is_closing():
        try:
            written = os.writev(number, pieces if len(pieces) <= _AT_ONCE else pieces[:_AT_ONCE])
        except OSError:
            written = 0
        if written == size:
            return []
        pieces = _behind(pieces, written)
        first = pieces[0][:HANDED_OVER]
        transport.write(first)
        size -= written + len(first)
        pieces = _behind(pieces, len(first))
    return pieces if size else []


def _behind(pieces: list[Buffer], count: int) -> list[Buffer]:
    """The rest of pieces that are more than so many bytes."""
    for index, piece in enumerate(pieces):
        if count < len(piece):
            return [memoryview(piece)[count:], *pieces[index + 1 :]]
        count -= len(piece)
    return []


class ListeningSockets:
    """Servers on the same port of several addresses.

    Attributes:
        port: that port.
        addresses: where it listens.
    """

    def __init__(self, servers: list[asyncio.Server], port: int, addresses: list[str]) -> None:
        self._servers = servers
        self.port = port
        self.addresses = addresses

    def close(self) -> None:
        """Stop accepting; what was accepted is the protocols' business."""
        for server in self._servers:
            forks.close_server(server)
        self._servers.clear()


async def listen(
    addresses: Sequence[str], port: int, factory: Callable[[], asyncio.Protocol]
) -> ListeningSockets:
    """Listen on the same port of several addresses; those this machine does not have are left out.

    With port 0 the first address gets any free port and the others follow it.

    Raises:
        OSError: the port is in use on one of them, or not one address can be bound.
    """
    sockets: list[socket.socket] = []
    served: list[str] = []
    problem: OSError | None = None
    loop = asyncio.get_running_loop()
    servers: list[asyncio.Server] = []
    try:
        for address in addresses:
            try:
                sockets.append(bound(address, sockets[0].getsockname()[1] if sockets else port))
                served.append(address)
            except OSError as error:
                if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                    raise
                problem = error
        if not sockets:
            raise problem or OSError(errno.EADDRNOTAVAIL, "no address to listen on")
        port = sockets[0].getsockname()[1]
        while sockets:
            server = await loop.create_server(factory, sock=sockets[0], backlog=ACCEPTED_A_TURN)
            servers.append(forks.keep_server(server))
            sockets[0].listen(BACKLOG)  # to asyncio the backlog is also what it accepts in one turn
            del sockets[0]
    except BaseException:
        for sock in sockets:
            sock.close()
        for server in servers:
            forks.close_server(server)
        raise
    return ListeningSockets(servers, port, served)


async def listen_here(path: str, factory: Callable[[], asyncio.BaseProtocol]) -> asyncio.Server:
    """Listen on a Unix socket; few are accepted in a turn of the event loop, as by `listen`.

    Raises:
        OSError: it cannot be bound.
    """
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.setblocking(False)
        sock.bind(path)
        loop = asyncio.get_running_loop()
        server = await loop.create_unix_server(factory, sock=sock, backlog=ACCEPTED_A_TURN)
        sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    return server


async def connect_here(sock: socket.socket, path: str) -> None:
    """Connect to a Unix socket. While as many wait there as the kernel lets, it is tried again.

    Not by the event loop: it takes the kernel's refusal for a connection that is under way, and then for one
    that is up.

    Raises:
        OSError: nobody listens.
    """
    sock.setblocking(False)
    while True:
        try:
            sock.connect(path)
        except BlockingIOError:
            await asyncio.sleep(CONNECT_AGAIN_S)
        else:
            return


def bound(address: str, port: int) -> socket.socket:
    """Listen on one address; port 0 is any free one.

    Raises:
        OSError: it is in use, or this machine does not have it.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((address, port))
        sock.listen(BACKLOG)
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock
