"""Requests and answers of EPMD, the port mapper daemon. Layer: dist, pure.

Source: erl_dist_protocol, "EPMD Protocol"; epmd_srv.c (OTP 25.2), checked against the real daemon and nodes.

A request is a length of 2 bytes and a body, one request per connection; the daemon closes after its answer,
except after ALIVE2, where the open connection *is* the registration. Not supported: the long obsolete
one-byte-creation requests.
"""

from __future__ import annotations

import enum
import struct

import attrs

from pyglyn.errors import EpmdError, EpmdNameTaken, RemoteProtocolError

DEFAULT_PORT = 4369
MAX_NAME = 255
MAX_REQUEST = 3057
"""Longest body: the real daemon drops anything from 3060 bytes on, length included."""

FIRST_CREATION = 4
LAST_CREATION = (1 << 32) - 1


class Request(enum.IntEnum):
    """First byte of a request."""

    DUMP = 100
    KILL = 107
    NAMES = 110
    STOP = 115
    ALIVE2 = 120
    PORT_PLEASE2 = 122


class Response(enum.IntEnum):
    """First byte of an answer, where it has one."""

    ALIVE2_X = 118
    PORT2 = 119
    ALIVE2 = 121


class NodeType(enum.IntEnum):
    """What a node says of itself; nobody decides anything by it."""

    HIDDEN = 72
    NORMAL = 77


@attrs.frozen(kw_only=True)
class NodeEntry:
    """What EPMD knows of a registered node.

    Attributes:
        name: the part before the ``@``.
        port: where it listens.
        highest_version, lowest_version: of the distribution protocol.
    """

    name: str
    port: int
    node_type: int = NodeType.HIDDEN
    protocol: int = 0
    highest_version: int = 6
    lowest_version: int = 5
    extra: bytes = b""


_ENTRY = struct.Struct(">HBBHH")


def _encode_entry(entry: NodeEntry) -> bytes:
    name = entry.name.encode()
    head = _ENTRY.pack(
        entry.port, entry.node_type, entry.protocol, entry.highest_version, entry.lowest_version
    )
    return head + len(name).to_bytes(2) + name + len(entry.extra).to_bytes(2) + entry.extra


def _decode_entry(body: bytes, at: int, error: type[EpmdError | RemoteProtocolError]) -> NodeEntry:
    """Read port:2 type:1 protocol:1 highest:2 lowest:2 length:2 name length:2 extra."""
    if len(body) < at + 10:
        raise error(f"EPMD entry of {len(body)} bytes ends early")
    port, node_type, protocol, highest, lowest = _ENTRY.unpack_from(body, at)
    name_at = at + 10
    extra_at = name_at + int.from_bytes(body[at + 8 : name_at])
    extra_length = int.from_bytes(body[extra_at : extra_at + 2])
    extra = body[extra_at + 2 : extra_at + 2 + extra_length]
    if len(body) < extra_at + 2 or len(extra) != extra_length:
        raise error(f"EPMD entry of {len(body)} bytes ends early")
    try:
        name = body[name_at:extra_at].decode()
    except UnicodeDecodeError:
        raise error("a name in an EPMD message is not UTF-8") from None
    return NodeEntry(
        name=name,
        port=port,
        node_type=node_type,
        protocol=protocol,
        highest_version=highest,
        lowest_version=lowest,
        extra=extra,
    )


# --- requests --------------------------------------------------------------------------------------


def _request(body: bytes) -> bytes:
    return len(body).to_bytes(2) + body


def encode_alive2(entry: NodeEntry) -> bytes:
    """Write the request to register a node."""
    return _request(bytes((Request.ALIVE2,)) + _encode_entry(entry))


def decode_alive2(body: bytes) -> NodeEntry:
    """Read the body of an ALIVE2 request.

    Raises:
        RemoteProtocolError: it ends early, or the name is empty, too long, or has a NUL.
    """
    entry = _decode_entry(body, 1, RemoteProtocolError)
    check_name(entry.name)
    return entry


def check_name(name: str) -> None:
    """Refuse what the real daemon refuses as a name, and what would forge lines in a list of names.

    Raises:
        RemoteProtocolError: empty, longer than 255 characters, or with a NUL, a blank or a line end.
    """
    if not name or len(name) > MAX_NAME or not name.isprintable() or " " in name:
        raise RemoteProtocolError("a name has 1 to 255 characters, all of them printable and none a blank")


def encode_port_please2(name: str) -> bytes:
    """Write the request for where a node listens."""
    return _request(bytes((Request.PORT_PLEASE2,)) + name.encode())


def decode_name(body: bytes) -> str:
    """Read the name in the body of PORT_PLEASE2 or STOP; a NUL at the end is tolerated.

    Raises:
        RemoteProtocolError: no proper name.
    """
    try:
        name = body[1:].removesuffix(b"\0").decode()
    except UnicodeDecodeError:
        raise RemoteProtocolError("a name in an EPMD message is not UTF-8") from None
    check_name(name)
    return name


def encode_names() -> bytes:
    """Write the request for all names."""
    return _request(bytes((Request.NAMES,)))


def encode_kill() -> bytes:
    """Write the request to end the daemon."""
    return _request(bytes((Request.KILL,)))


# --- answers ---------------------------------------------------------------------------------------


def encode_alive2_answer(entry: NodeEntry, result: int, creation: int) -> bytes:
    """Answer ALIVE2: with 32 bits of creation if the node speaks version 6, else with 16.

    The short form takes 1 to 3 only, as the daemon gives them.
    """
    if entry.highest_version >= 6:
        return bytes((Response.ALIVE2_X, result)) + creation.to_bytes(4)
    return bytes((Response.ALIVE2, result)) + (creation % 3 + 1).to_bytes(2)


def alive2_answer_size(first_byte: int) -> int:
    """Tell how long the answer to ALIVE2 is from its first byte.

    Raises:
        EpmdError: it is no such answer.
    """
    if first_byte == Response.ALIVE2_X:
        return 6
    if first_byte == Response.ALIVE2:
        return 4
    raise EpmdError(f"byte {first_byte} begins no answer to a registration")


def decode_alive2_answer(data: bytes, name: str) -> int:
    """Read the answer to ALIVE2: the creation.

    Raises:
        EpmdNameTaken: refused.
        EpmdError: no such answer.
    """
    if not data or len(data) < alive2_answer_size(data[0]):
        raise EpmdError("EPMD's answer to a registration ends early")
    if data[1]:
        raise name_taken(name)
    return int.from_bytes(data[2 : alive2_answer_size(data[0])])


def name_taken(name: str) -> EpmdNameTaken:
    """What a node is told whose name another one has."""
    return EpmdNameTaken(
        f"the name {name!r} is taken: a node of that name is registered with EPMD already; "
        "stop that one, or give this one another name"
    )


def encode_port2_answer(entry: NodeEntry | None) -> bytes:
    """Answer PORT_PLEASE2; None for a name that is not registered."""
    if entry is None:
        return bytes((Response.PORT2, 1))
    return bytes((Response.PORT2, 0)) + _encode_entry(entry)


def may_be_port2(data: bytes) -> bool:
    """Tell whether this can be the beginning of an answer to PORT_PLEASE2."""
    return not data or data[0] == Response.PORT2


def decode_port2_answer(data: bytes) -> NodeEntry | None:
    """Read the whole answer to PORT_PLEASE2; None where EPMD does not know the name.

    Raises:
        EpmdError: no such answer.
    """
    if len(data) < 2 or not may_be_port2(data):
        raise EpmdError("this is no answer to the question where a node is")
    if data[1]:
        return None
    return _decode_entry(data, 2, EpmdError)


def encode_names_answer(epmd_port: int, entries: list[NodeEntry]) -> bytes:
    """Answer NAMES: the daemon's own port, then a line for each node."""
    lines = "".join(f"name {entry.name} at port {entry.port}\n" for entry in entries)
    return epmd_port.to_bytes(4) + lines.encode()


def decode_names_answer(data: bytes) -> list[tuple[str, int]]:
    """Read the whole answer to NAMES: names and ports.

    Raises:
        EpmdError: no such answer.
    """
    if len(data) < 4:
        raise EpmdError("EPMD's list of names ends early")
    found = []
    for line in data[4:].decode(errors="replace").splitlines():
        words = line.split(" ")
        if len(words) != 5 or (words[0], words[2], words[3]) != ("name", "at", "port"):
            raise EpmdError(f"expected 'name NAME at port N' from EPMD, got {line[:60]!r}")
        if not words[4].isdecimal():
            raise EpmdError(f"expected a port from EPMD, got {words[4][:20]!r}")
        found.append((words[1], int(words[4])))
    return found


def encode_dump_answer(
    epmd_port: int, active: list[tuple[NodeEntry, int]], old: list[tuple[NodeEntry, int]]
) -> bytes:
    """Answer DUMP: registered and former nodes, each with the number of its connection."""
    text = [
        f"active name     <{entry.name}> at port {entry.port}, fd = {number}\n\0" for entry, number in active
    ]
    text += [
        f"old/unused name <{entry.name}>, port = {entry.port}, fd = {number} \n\0" for entry, number in old
    ]
    return epmd_port.to_bytes(4) + "".join(text).encode()
