"""The distribution handshake, both sides, without sockets. Layer: dist, pure.

Source: erl_dist_protocol, "Distribution Handshake"; dist_util.erl (OTP 25.2); refusals and status words were
checked against OTP 25 and 28.

A dials B::

    A -> B  'N' flags:8 creation:4 length:2 name           B -> A  's' status
    B -> A  'N' flags:8 challenge:4 creation:4 length:2 name
    A -> B  'r' challenge:4 digest:16                       B -> A  'a' digest:16

with a length of 2 bytes in front of each, of 4 inside TLS. After the status ``alive`` A says 's' ``true`` or ``false``. A node
of OTP 23 or 24 may start with the old 'n' version:2 flags:4 name, and completes it with 'c' flags:4
creation:4 after the challenge.

The driver feeds ``receive_data``, does what the events ask for, writes ``data_to_send`` (also after an error:
a refusal has to reach the peer) and closes the connection on any ``HandshakeError``. Names and cookies are
Latin-1, as in OTP.

A node without a name asks B for one ("Dynamic Node Name"): it sends its host alone, with the flag NAME_ME and
creation 0, and B answers 's' ``named:`` length:2 name creation:4 where it would answer ``ok``.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable
from typing import ClassVar, TypeAlias

import attrs

from pyglyn.dist.flags import MANDATORY_25, MANDATORY_26, DistFlags, expand, missing
from pyglyn.digests import compare_digest, md5
from pyglyn.dist.framing import handshake_packet
from pyglyn.escaping import escaped
from pyglyn.errors import (
    HandshakeError,
    LocalProtocolError,
    MissingFlags,
    NameRefused,
    RemoteProtocolError,
    TlsError,
    WrongCookie,
)

MAX_NAME = 255
"""Longest node name in bytes: it has to be an atom."""

UNDEFINED = "undefined"
"""Stands before the ``@`` of a node that has no name yet, as in ``erl -sname undefined``."""

MAX_PACKET = 4096
"""Longest message we read here; the longest a real node sends has a name of 255 bytes in it."""


@attrs.frozen(kw_only=True)
class LocalSide:
    """What a node says of itself in every handshake."""

    name: str
    creation: int
    flags: DistFlags
    cookie: bytes = attrs.field(repr=False)
    required: DistFlags = MANDATORY_25

    @property
    def unnamed(self) -> bool:
        """Whether it has no name yet, and the first node it dials has to give it one."""
        return self.name.partition("@")[0] == UNDEFINED


@attrs.frozen
class NameReceived:
    """Acceptor: who is calling. Answer with ``send_status`` (or ``send_named`` if ``dynamic``)."""

    name: str
    creation: int
    flags: DistFlags
    dynamic: bool = False


@attrs.frozen
class AliveReceived:
    """Initiator: the peer believes it has a connection with us already. Answer with ``send_alive``."""


@attrs.frozen
class NokReceived:
    """Initiator: the peer keeps its own attempt. Close this connection and await the peer's."""


@attrs.frozen
class HandshakeComplete:
    """The connection is up. ``flags`` are what both sides offered, and ALIAS if the peer did.

    The bytes in ``trailing_data`` belong to the established connection. ``peer_hidden`` says whether the other
    node is a hidden one; the connection is, if one of the two is.
    """

    name: str
    creation: int
    flags: DistFlags
    trailing_data: bytes = attrs.field(default=b"", repr=False)
    peer_hidden: bool = True


Event: TypeAlias = NameReceived | AliveReceived | NokReceived | HandshakeComplete


class State(enum.Enum):
    """Where a handshake is. What is legal in which state is in the tables of the two machines."""

    AWAIT_NAME = "its name"
    AWAIT_OUR_STATUS = "our status"
    AWAIT_ALIVE_ANSWER = "its answer to alive"
    AWAIT_COMPLEMENT = "the second half of its old-style name"
    AWAIT_REPLY = "its answer to our challenge"
    AWAIT_STATUS = "its status"
    AWAIT_OUR_ALIVE_ANSWER = "our answer to alive"
    AWAIT_CHALLENGE = "its challenge"
    AWAIT_ACK = "its proof of the cookie"
    DONE = "nothing more"
    CLOSED = "nothing any more"


def digest(cookie: bytes, challenge: int) -> bytes:
    """Prove knowledge of the cookie: MD5 of the cookie and the challenge in decimal."""
    made: bytes = md5(cookie + str(challenge).encode(), usedforsecurity=False).digest()
    return made


class _Machine:
    """What both sides share: cutting packets, the table of legal inputs, the end of the connection."""

    _table: ClassVar[dict[tuple[State, int], Callable[..., list[Event]]]]

    def __init__(self, local: LocalSide, challenge: int, state: State, length_size: int) -> None:
        self.local = local
        self._length_size = length_size
        self.state = state
        self.peer_name = "?"
        self._challenge = challenge
        self._peer_flags = DistFlags(0)
        self._peer_creation = 0
        self._buffer = b""
        self._out: list[bytes] = []

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.local.name} with {self.peer_name}: {self.state.name}>"

    def receive_data(self, data: bytes) -> list[Event]:
        """Take received bytes and return what happened, in order.

        While an answer of ours is awaited, further bytes are kept until it is given.

        Raises:
            HandshakeError: the handshake failed; the text says why. Write what is left, then close.
        """
        if self.state is State.CLOSED:
            return []
        self._buffer += data
        return self._proceed()

    def _proceed(self) -> list[Event]:
        events: list[Event] = []
        while not events and self.state not in _NOT_READING:
            begin = self._length_size
            if len(self._buffer) < begin:
                break
            size = int.from_bytes(self._buffer[:begin])
            end = begin + size
            if size <= MAX_PACKET and len(self._buffer) < end:
                break
            packet, self._buffer = self._buffer[begin:end], self._buffer[end:]
            try:
                if size > MAX_PACKET:
                    self._refuse_announced(size)
                events = self._receive_packet(packet)
            except RemoteProtocolError as error:
                self.state = State.CLOSED
                raise HandshakeError(f"{self.peer_name} broke the handshake: {error}") from error
            except HandshakeError:
                self.state = State.CLOSED
                raise
        return events

    def _refuse_announced(self, size: int) -> None:
        """Say what a length stands for that no message has."""
        if size in _TLS_RECORDS:
            raise TlsError(
                f"{self.peer_name} speaks TLS (-proto_dist inet_tls), this connection is plain TCP"
            )
        raise RemoteProtocolError(f"a message of {size} bytes is announced")

    def _receive_packet(self, packet: bytes) -> list[Event]:
        handler = self._table.get((self.state, packet[0] if packet else -1))
        if handler is None:
            got = f"a message {packet[:1]!r}" if packet else "an empty message"
            raise RemoteProtocolError(f"expected {self.state.value}, got {got}")
        return handler(self, packet)

    def receive_eof(self) -> None:
        """Note that the peer closed the connection.

        Raises:
            HandshakeError: always, unless the handshake is over: the text says what the peer's
                closing means in this state.
        """
        state, self.state = self.state, State.CLOSED
        if state not in (State.DONE, State.CLOSED):
            raise self._closed_by_peer(state)

    def _closed_by_peer(self, state: State) -> HandshakeError:
        return HandshakeError(
            f"{self.peer_name} closed the connection during the handshake, where {state.value} was expected"
        )

    def data_to_send(self) -> bytes:
        """Take what is to be written."""
        data = b"".join(self._out)
        self._out.clear()
        return data

    def _send(self, body: bytes) -> None:
        self._out.append(handshake_packet(body, self._length_size))

    def _complete(self) -> list[Event]:
        self.state = State.DONE
        trailing, self._buffer = self._buffer, b""
        # Who sends to an alias needs to know only that the receiver has aliases.
        flags = self._peer_flags & (self.local.flags | DistFlags.ALIAS)
        hidden = DistFlags.PUBLISHED not in self._peer_flags
        return [HandshakeComplete(self.peer_name, self._peer_creation, flags, trailing, hidden)]

    def _check_flags(self, peer_flags: DistFlags) -> None:
        lacking = missing(peer_flags, self.local.required)
        if lacking:
            raise MissingFlags(
                f"{self.peer_name} lacks capabilities that this node requires: {', '.join(lacking)}",
                names=lacking,
            )


_TLS_RECORDS = frozenset((0x1503, 0x1603))
"""What an alert or a hello of TLS looks like where a length is expected."""

_NOT_READING = frozenset((State.AWAIT_OUR_STATUS, State.AWAIT_OUR_ALIVE_ANSWER, State.DONE, State.CLOSED))


class Initiator(_Machine):
    """The side that dials.

    Args:
        local: this node; ``undefined@host`` asks for a name, which ``local`` of the machine has at the end.
        peer_name: the node dialled; it must answer under exactly this name.
        challenge: 32 random bits.
        length_size: bytes of the length in front of a message, 4 inside TLS.
    """

    def __init__(self, local: LocalSide, peer_name: str, challenge: int, length_size: int = 2) -> None:
        super().__init__(local, challenge, State.AWAIT_STATUS, length_size)
        self.peer_name = peer_name
        flags, shown = local.flags, local.name
        if local.unnamed:
            flags, shown = flags | DistFlags.NAME_ME, shown.partition("@")[2]
        name = shown.encode("latin-1")
        head = int(flags).to_bytes(8) + local.creation.to_bytes(4) + len(name).to_bytes(2)
        self._send(b"N" + head + name)

    def send_alive(self, take_over: bool) -> list[Event]:
        """Answer ``AliveReceived``: True makes the peer drop its old connection for this one.

        Returns:
            Events of bytes that came meanwhile.

        Raises:
            LocalProtocolError: nobody asked.
            HandshakeError: as ``receive_data``.
        """
        if self.state is not State.AWAIT_OUR_ALIVE_ANSWER:
            raise LocalProtocolError("the peer did not ask about an older connection")
        self._send(b"strue" if take_over else b"sfalse")
        self.state = State.AWAIT_CHALLENGE if take_over else State.CLOSED
        return self._proceed()

    def _on_status(self, packet: bytes) -> list[Event]:
        status = packet[1:]
        if self.local.unnamed and status != b"not_allowed":
            return self._on_named(status)
        if status in (b"ok", b"ok_simultaneous"):
            self.state = State.AWAIT_CHALLENGE
            return []
        if status == b"alive":
            self.state = State.AWAIT_OUR_ALIVE_ANSWER
            return [AliveReceived()]
        if status == b"nok":
            self.state = State.CLOSED
            return [NokReceived()]
        if status == b"not_allowed":
            raise self._not_allowed()
        word = status.decode("latin-1")
        raise RemoteProtocolError(f"expected a status, got {word[:20]!r}")

    def _on_named(self, status: bytes) -> list[Event]:
        """Read named: length:2 name creation:4; bytes behind it are ignored, as in OTP."""
        word = b"named:"
        if not status.startswith(word):
            raise HandshakeError(f"{self.peer_name} gives no names to nodes without one")
        name = _read_name(status, len(word))
        creation = status[len(word) + 2 + len(name) :][:4]
        if len(creation) < 4 or not is_own_name(name):
            raise RemoteProtocolError(f"{name[:40]!r} is no name for a node")
        self.local = attrs.evolve(self.local, name=name, creation=int.from_bytes(creation))
        self.state = State.AWAIT_CHALLENGE
        return []

    def _not_allowed(self) -> HandshakeError:
        lacking = missing(expand(self.local.flags), MANDATORY_26)
        if lacking:
            return MissingFlags(
                f"{self.peer_name} does not allow {self.local.name} to connect, "
                f"which lacks capabilities that most nodes require: {', '.join(lacking)}",
                names=lacking,
            )
        return NameRefused(f"{self.peer_name} does not allow {self.local.name} to connect")

    def _on_challenge(self, packet: bytes) -> list[Event]:
        flags, challenge, creation, name = _read_challenge(packet)
        if name != self.peer_name:
            what = self._long_or_short(name)
            raise HandshakeError(f"{self.peer_name} was dialled, but {escaped(name)} answered{what}")
        self._peer_flags = expand(flags)
        self._peer_creation = creation
        self._check_flags(self._peer_flags)
        self._send(b"r" + self._challenge.to_bytes(4) + digest(self.local.cookie, challenge))
        self.state = State.AWAIT_ACK
        return []

    def _long_or_short(self, answered: str) -> str:
        """Say what is behind another name, where the peer's cluster has the other kind of names."""
        if has_long_host(answered) == has_long_host(self.local.name):
            return ""
        kinds = ("long", "short") if has_long_host(answered) else ("short", "long")
        return f": it uses {kinds[0]} names, but this node, {self.local.name}, uses {kinds[1]} ones"

    def _on_ack(self, packet: bytes) -> list[Event]:
        if not compare_digest(packet[1:17], digest(self.local.cookie, self._challenge)):
            raise WrongCookie(f"{self.peer_name} does not have this node's cookie")
        return self._complete()

    def _closed_by_peer(self, state: State) -> HandshakeError:
        if state is State.AWAIT_ACK:
            return WrongCookie(f"{self.peer_name} refused this node's cookie")
        if state is State.AWAIT_STATUS:
            text = f"{self.peer_name} closed the connection without answering the handshake"
            if self._length_size == 4:
                return TlsError(f"{text}: it may not accept this node's certificate, see its log")
            return HandshakeError(f"{text}: it may speak TLS, or be no node")
        return super()._closed_by_peer(state)

    _table: ClassVar = {
        (State.AWAIT_STATUS, ord("s")): _on_status,
        (State.AWAIT_CHALLENGE, ord("N")): _on_challenge,
        (State.AWAIT_ACK, ord("a")): _on_ack,
    }


class Acceptor(_Machine):
    """The side that is dialled.

    Args:
        local: this node.
        challenge: 32 random bits.
    """

    def __init__(self, local: LocalSide, challenge: int, length_size: int = 2) -> None:
        super().__init__(local, challenge, State.AWAIT_NAME, length_size)
        self._old_style = False
        self.peer_name = "a connecting node"

    def send_status(self, status: str) -> list[Event]:
        """Answer ``NameReceived`` with ``ok``, ``ok_simultaneous``, ``nok``, ``not_allowed`` or ``alive``.

        After ``nok`` and ``not_allowed`` the connection is over: write what is left and close.

        Returns:
            Events of bytes that came meanwhile.

        Raises:
            LocalProtocolError: no name has come, or the status is none of these.
            HandshakeError: as ``receive_data``.
        """
        if self.state is not State.AWAIT_OUR_STATUS or status not in _NEXT_STATE:
            raise LocalProtocolError(f"status {status!r} is not allowed now")
        self._send(b"s" + status.encode())
        self.state = _NEXT_STATE[status]
        if status in ("ok", "ok_simultaneous"):
            self._send_challenge()
        return self._proceed()

    def send_named(self, name: str, creation: int) -> list[Event]:
        """Answer a ``NameReceived`` that is ``dynamic``: give the peer this name and creation.

        Raises:
            LocalProtocolError: no such question, or the name is too long.
            HandshakeError: as ``receive_data``.
        """
        encoded = name.encode("latin-1")
        if self.state is not State.AWAIT_OUR_STATUS or len(encoded) > MAX_NAME:
            raise LocalProtocolError("the peer did not ask for a name, or it is too long")
        self.peer_name, self._peer_creation = name, creation
        self._send(b"snamed:" + len(encoded).to_bytes(2) + encoded + creation.to_bytes(4))
        self._send_challenge()
        return self._proceed()

    def _send_challenge(self) -> None:
        local = self.local
        name = local.name.encode("latin-1")
        # A node that asked for a name wants its own NAME_ME back (do_setnode in dist_util.erl, OTP 25, 28).
        flags = local.flags | (self._peer_flags & DistFlags.NAME_ME)
        self._send(
            b"N"
            + int(flags).to_bytes(8)
            + self._challenge.to_bytes(4)
            + local.creation.to_bytes(4)
            + len(name).to_bytes(2)
            + name
        )
        self.state = State.AWAIT_COMPLEMENT if self._old_style else State.AWAIT_REPLY

    def _on_name(self, packet: bytes) -> list[Event]:
        if len(packet) < 15:
            raise RemoteProtocolError(f"a name message of {len(packet)} bytes ends early")
        flags = expand(int.from_bytes(packet[1:9]))
        self._peer_creation = int.from_bytes(packet[9:13])
        name = _read_name(packet, 13)
        return self._named(name, flags, flags)

    def _on_old_name(self, packet: bytes) -> list[Event]:
        """Read 'n' version:2 flags:4 name; the high flags and the creation come later, in 'c'."""
        if len(packet) < 8:
            raise RemoteProtocolError(f"a name message of {len(packet)} bytes ends early")
        flags = expand(int.from_bytes(packet[3:7]))
        self._old_style = True
        low_word = DistFlags(self.local.required & 0xFFFFFFFF)
        return self._named(_checked_name(packet[7:]), flags, flags | (self.local.required & ~low_word))

    def _named(self, name: str, flags: DistFlags, to_check: DistFlags) -> list[Event]:
        dynamic = DistFlags.NAME_ME in flags
        if not is_node_name(f"name@{name}" if dynamic else name):
            self._send(b"snot_allowed")
            raise RemoteProtocolError(f"{name[:40]!r} is no node name")
        self.peer_name = name
        self._peer_flags = flags
        try:
            self._check_flags(to_check)
        except MissingFlags:
            self._send(b"snot_allowed")
            raise
        self.state = State.AWAIT_OUR_STATUS
        return [NameReceived(name, self._peer_creation, flags, dynamic)]

    def _on_alive_answer(self, packet: bytes) -> list[Event]:
        if packet == b"strue":
            self._send_challenge()
            return []
        if packet == b"sfalse":
            raise HandshakeError(f"{self.peer_name} keeps its older connection with this node")
        raise RemoteProtocolError("expected true or false as the answer to alive")

    def _on_complement(self, packet: bytes) -> list[Event]:
        if len(packet) < 9:
            raise RemoteProtocolError(f"a complement of {len(packet)} bytes ends early")
        self._peer_flags |= expand(int.from_bytes(packet[1:5]) << 32)
        self._peer_creation = int.from_bytes(packet[5:9])
        self._check_flags(self._peer_flags)
        self.state = State.AWAIT_REPLY
        return []

    def _on_reply(self, packet: bytes) -> list[Event]:
        if len(packet) < 21:
            raise RemoteProtocolError(f"a challenge reply of {len(packet)} bytes ends early")
        if not compare_digest(packet[5:21], digest(self.local.cookie, self._challenge)):
            raise WrongCookie(f"{self.peer_name} does not have this node's cookie")
        self._send(b"a" + digest(self.local.cookie, int.from_bytes(packet[1:5])))
        return self._complete()

    _table: ClassVar = {
        (State.AWAIT_NAME, ord("N")): _on_name,
        (State.AWAIT_NAME, ord("n")): _on_old_name,
        (State.AWAIT_ALIVE_ANSWER, ord("s")): _on_alive_answer,
        (State.AWAIT_COMPLEMENT, ord("c")): _on_complement,
        (State.AWAIT_REPLY, ord("r")): _on_reply,
    }


_NEXT_STATE = {
    "ok": State.AWAIT_REPLY,
    "ok_simultaneous": State.AWAIT_REPLY,
    "alive": State.AWAIT_ALIVE_ANSWER,
    "nok": State.CLOSED,
    "not_allowed": State.CLOSED,
}


def is_node_name(name: str) -> bool:
    """Whether this is ``alive@host`` as a peer may call itself: C and Java nodes are less strict than OTP."""
    alive, at, host = name.partition("@")
    return bool(alive and at and host) and "@" not in host and name.isprintable() and " " not in name


def is_own_name(name: str) -> bool:
    """Whether OTP would start a node of this name: ``valid_name_head`` in net_kernel.erl, and an atom's length."""
    alive = name.partition("@")[0]
    return is_node_name(name) and len(name) <= MAX_NAME and _ALIVE_NAME.fullmatch(alive) is not None


def has_long_host(name: str) -> bool:
    """Whether the host part is fully qualified or an address, as in a cluster of long names."""
    host = name.partition("@")[2]
    return "." in host or ":" in host


_ALIVE_NAME = re.compile("[0-9A-Za-z_-]+")


def _read_challenge(packet: bytes) -> tuple[int, int, int, str]:
    """Read 'N' flags:8 challenge:4 creation:4 length:2 name; bytes after the name are ignored."""
    if len(packet) < 19:
        raise RemoteProtocolError(f"a challenge of {len(packet)} bytes ends early")
    flags = int.from_bytes(packet[1:9])
    challenge = int.from_bytes(packet[9:13])
    creation = int.from_bytes(packet[13:17])
    return flags, challenge, creation, _read_name(packet, 17)


def _read_name(packet: bytes, at: int) -> str:
    """Read length:2 name."""
    length = int.from_bytes(packet[at : at + 2])
    name = packet[at + 2 : at + 2 + length]
    if len(name) != length:
        raise RemoteProtocolError(f"expected a name of {length} bytes, got {len(name)}")
    return _checked_name(name)


def _checked_name(name: bytes) -> str:
    if not 1 <= len(name) <= MAX_NAME:
        raise RemoteProtocolError(f"a node name of {len(name)} bytes")
    return name.decode("latin-1")
