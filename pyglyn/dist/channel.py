"""An established connection: bytes in, events out; calls in, bytes out. Layer: dist, pure.

Source: erl_dist_protocol, "Protocol between Connected Nodes"; dist.c, dist_util.erl (OTP 25.2, 28).

The driver feeds ``receive_data`` and dispatches the events in order, writes what ``data_to_send`` gives, and
calls ``handle_timeout`` at ``next_deadline``. Payloads are handed up undecoded, as bare terms (no 131), so
that a message can be forwarded untouched.

**Order.** Signals between two processes keep their order; a large message goes out in fragments, which other
senders' messages overtake (``outgoing.py``). Which process a control message comes from is read off it; where
it does not say (a monitor by name that fired), the caller may name the sender, else the message waits for
everything that is under way.

Not supported: sending distribution headers with an atom cache.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias, cast

import attrs

from pyglyn.dist import headers
from pyglyn.dist.control import (
    decode_control,
    CALL_SIGNALS,
    LINK_SIGNALS,
    PAYLOAD_OPS,
    AliasSend,
    Control,
    DemonitorP,
    Link,
    LinkExit,
    Exit2,
    MonitorP,
    MonitorPExit,
    Op,
    RegSend,
    Send,
    UnlinkId,
    UnlinkIdAck,
    from_term,
    to_term,
)
from pyglyn.dist.flags import DistFlags
from pyglyn.dist.framing import (
    DIST_FRAG_CONT,
    DIST_FRAG_HEADER,
    DIST_HEADER,
    FRAGMENT_HEADER_SIZE,
    FRAGMENT_SIZE,
    LARGE,
    LAST_LENGTH,
    TICK,
    VERSION_MAGIC,
    Assembler,
    Buffer,
    FragmentedMessage,
    Packet,
    PacketReader,
    Run,
    packet_head,
    parse_fragment_head,
)
from pyglyn.dist.outgoing import OutgoingQueue
from pyglyn.dist.ticks import TickAction, Ticker
from pyglyn.escaping import escaped
from pyglyn.errors import DecodeError, LimitExceeded, LocalProtocolError, RemoteProtocolError, TruncatedTerm
from pyglyn.etf import Atom, Limits, Pid, Reference, Term, decode_bare, encode_bare, join_frames

DEFAULT_CONTROL_LIMITS = Limits()


@attrs.frozen(kw_only=True)
class ChannelSettings:
    """Limits and times of a connection.

    Attributes:
        net_ticktime_s: how long a peer may be silent; must be the same in the whole cluster.
        tick_intensity: ticks within that time.
        max_packet_size: bytes; a longer packet closes the connection when its length is read.
        max_message_size: bytes of one fragmented message, its control message included.
        max_incomplete_messages: fragmented messages under way at once.
        max_incomplete_size: bytes of all those together.
        fragment_size: where to cut messages on the way out; bytes of control message and payload.
        control_limits: bounds for decoding control messages (an exit reason may be in there).
    """

    net_ticktime_s: float = 60.0
    tick_intensity: int = 4
    max_packet_size: int = 512 * 1024 * 1024
    max_message_size: int = 512 * 1024 * 1024
    max_incomplete_messages: int = 1024
    max_incomplete_size: int = 1024 * 1024 * 1024
    fragment_size: int = FRAGMENT_SIZE
    control_limits: Limits = DEFAULT_CONTROL_LIMITS


@attrs.define
class MessageReceived:
    """A control message came, with its undecoded payload if it is of those that have one."""

    control: Control
    payload: bytes | memoryview | None


@attrs.define
class TickReceived:
    """The peer showed that it is alive."""


@attrs.define
class ProtocolBroken:
    """The peer broke the protocol: close the connection. The last event of a channel."""

    error: RemoteProtocolError


@attrs.define
class PeerSilent:
    """Nothing came for net_ticktime: the peer is as good as dead, close the connection."""

    net_ticktime_s: float


Event: TypeAlias = MessageReceived | TickReceived | ProtocolBroken | PeerSilent
Payload: TypeAlias = "bytes | memoryview | None"
Message: TypeAlias = "tuple[Control, Payload]"
Messages: TypeAlias = "tuple[Control, Payload | list[bytes]]"
"""A control message with its undecoded payload, None if it is not of those that have one; or with those of
several messages that have the same one, in order."""
Batched: TypeAlias = "Messages | TickReceived | ProtocolBroken"
_First: TypeAlias = "list[bytes] | tuple[Control, int]"
"""Of a message in fragments: the atoms that its header had; or its control message, and how long that is."""
_TICK_RECEIVED: Final = TickReceived()
_FRAGMENTS: Final = (bytes((DIST_FRAG_HEADER,)), bytes((DIST_FRAG_CONT,)))
_NORMAL_HEADER: Final = bytes((VERSION_MAGIC, DIST_HEADER, 0))
_KNOWN_CONTROLS: Final = 512
_FOR_CALLS: Final = DistFlags.ALIAS | DistFlags.DIST_MONITOR | DistFlags.DIST_MONITOR_NAME
_FOR_LINKS: Final = DistFlags.EXIT_PAYLOAD | DistFlags.UNLINK_ID
_OF_LINKS: Final = frozenset((Link, LinkExit, UnlinkId, UnlinkIdAck))
_MONITOR_BITS: Final = int(DistFlags.DIST_MONITOR | DistFlags.DIST_MONITOR_NAME)
_OP_AT: Final = 6
"""Where the number of the operation is, after the header, the tag and the size of a tuple and a tag."""
_KNOWN_SIZE: Final = 1024
"""Bytes of a control message that is kept; real ones have fewer than 200, and a field may be any term."""


class Channel:
    """See the module.

    Args:
        flags: what both sides offered in the handshake.
        now: the driver's clock, in seconds.
        settings: limits and times.
        local_node, peer_node: names; where given, pids in control messages are checked against them.
    """

    __slots__ = ("__dict__", "__weakref__", "_ticker", "closed", "packets", "queue")  # C looks at these

    def __init__(
        self,
        flags: DistFlags,
        now: float,
        settings: ChannelSettings | None = None,
        *,
        local_node: str | None = None,
        peer_node: str | None = None,
    ) -> None:
        self.flags = flags
        self.settings = settings = settings or ChannelSettings()
        self.closed = False
        self.packets = 0
        """How many packets have come, ticks included."""
        self.taken = 0
        """How many bytes of what was received last have been taken."""
        self.reading = True
        """False while the driver does not read on purpose: then silence proves nothing."""
        self.room_for: Callable[[Control, int], memoryview | None] | None = None
        """Says where a large message with this control message, of about so many bytes, is put together."""
        self._local_node = local_node
        self._peer_node = peer_node
        self._flag_bits = int(flags)
        self._exit_payload = DistFlags.EXIT_PAYLOAD in flags
        self._fragments = DistFlags.FRAGMENTS in flags
        self._with_atoms = DistFlags.DIST_HDR_ATOM_CACHE in flags
        self._with_header = self._fragments or self._with_atoms
        takes_all = self._with_header and _FOR_CALLS | _FOR_LINKS in flags
        self._head_of_signals = _NORMAL_HEADER if takes_all else None
        self._assembler = Assembler(
            settings.max_incomplete_messages, settings.max_message_size, settings.max_incomplete_size
        )
        self._atom_cache = headers.AtomCache()
        # SEND_SENDER and REG_SEND as they came before, by the bytes up to their payload: most messages repeat
        # one of them.
        self._known_controls: dict[bytes, Control] = {}
        self._known_ends: dict[int, int] = {}  # op -> where its last control message ended in the packet
        # The control message of the last message in fragments, and its bytes.
        self._last_fragmented: tuple[bytes, Control | None] = b"", None
        signals = {**CALL_SIGNALS, **LINK_SIGNALS} if _FOR_LINKS in flags else CALL_SIGNALS
        usual = self._with_header and settings.control_limits == DEFAULT_CONTROL_LIMITS
        self.known = (_NORMAL_HEADER, self._known_controls) if usual else None
        """What packets begin with, and the control messages of messages that came, by their bytes from there on;
        None where those have to be looked at more closely. What others take of these is told to ``count``."""
        self._reader = PacketReader(
            settings.max_packet_size,
            _NORMAL_HEADER,
            self._known_controls,
            signals if usual else None,
            self._assembler if self._fragments else None,
        )
        self.queue = OutgoingQueue(settings.fragment_size)
        """What is not in ``data_to_send`` yet; for the driver to look at, and to add frames to."""
        # Kind, sender and receiver of the last ordinary message, and how it was encoded.
        self._last_sent: tuple[type, Pid | None, object] = (object, None, None)
        self._last_head = b""
        self._sequence = 0
        self._ticker = Ticker(now, settings.net_ticktime_s, settings.tick_intensity)

    # --- receiving -----------------------------------------------------------------------------

    def receive_data(self, data: bytes | memoryview) -> list[Event]:
        """As `receive_batch`, with an event for each message."""
        return each_by_itself(self.receive_batch(data))

    def receive_batch(self, data: bytes | memoryview, at: int = 0, most: int = sys.maxsize) -> list[Batched]:
        """Take received bytes and return what happened, in order.

        Whatever the peer does wrong ends as a ``ProtocolBroken`` event after those of the packets before
        it; nothing is read after that. A tick may call for an answer: look at ``queued_bytes`` afterwards.
        What was received may be a view of a buffer that is read into again: no event points into it.

        Args:
            data: what was received.
            at: where to begin in it.
            most: packets to take; messages that have the same control message and follow each other count as
                one. What is behind them is to be given next, from ``taken`` on.
        """
        self.taken = len(data)
        if self.closed:
            return []
        self._ticker.received += 1
        events: list[Batched] = []
        while at < len(data) and most > 0 and not self.closed:
            packets: list[Packet | Run] = []
            self._receive_some(events, packets, data, at, most)
            at, most = self.taken, most - len(packets)
        return events

    @property
    def between_packets(self) -> bool:
        """Whether what is received next begins with a packet."""
        return not self._reader.in_a_packet

    def count(self, packets: int) -> None:
        """So many packets were received, and taken by somebody else."""
        self.packets += packets
        self._ticker.received += 1

    def _receive_some(
        self, events: list[Batched], packets: list[Packet | Run], data: bytes | memoryview, at: int, most: int
    ) -> None:
        """Receive up to a large packet."""
        reader, peer = self._reader, self._peer_node
        try:
            try:
                self.taken = reader.receive_into(packets, data, at, most)
            finally:
                self.packets += len(packets) + reader.fragments
                reader.fragments = 0
                for packet in packets:
                    if type(packet) is tuple:
                        control, payload = packet
                        if type(payload) is list:
                            self.packets += len(payload) - 1
                        elif type(control) is MonitorP or type(control) is DemonitorP:
                            if (
                                control.watcher.node != peer
                                or control.ref.node != peer
                                or (type(control.watched) is Pid and control.watched.node != self._local_node)
                            ):
                                self._check(to_term(control, self._flag_bits | _MONITOR_BITS))
                        elif type(control) in _OF_LINKS and (
                            control.sender.node != peer
                            or (type(control) is Link and control.to.node != self._local_node)
                        ):
                            self._check(to_term(control, self._flag_bits))
                        events.append(packet)
                        continue
                    # As a run has it, where the control message was new when what was received was cut.
                    if type(packet) is bytes and packet[:3] == _NORMAL_HEADER and len(packet) > _OP_AT:
                        end = self._known_ends.get(packet[_OP_AT])
                        if end is not None and end < len(packet):
                            known = self._known_controls.get(packet[:end])
                            if known is not None:
                                events.append((known, packet[end:]))
                                continue
                    if not packet:
                        events.append(_TICK_RECEIVED)
                        if self._ticker.answer_tick() and not self.queue.size:
                            self.queue.add(TICK, None, None)
                        continue
                    message = self._receive_packet(cast("Packet", packet))
                    if message is not None:
                        events.append(message)
        except RemoteProtocolError as error:
            self.closed = True
            events.append(ProtocolBroken(error))
        except DecodeError as error:
            self.closed = True
            broken = RemoteProtocolError(f"a control message is damaged: {error}")
            broken.__cause__ = error
            events.append(ProtocolBroken(broken))

    def _receive_packet(self, packet: Packet) -> Message | None:
        if type(packet) is bytes and packet[:3] == _NORMAL_HEADER and self._with_header:
            return self._receive_normal(packet)
        if isinstance(packet, list):
            head = bytes(packet[0][:FRAGMENT_HEADER_SIZE])
            if self._with_header and len(head) == FRAGMENT_HEADER_SIZE and head[:2] == b"\x83F":
                return self._receive_fragment(head, [packet[0][FRAGMENT_HEADER_SIZE:], *packet[1:]])
            packet = b"".join(packet)
        elif type(packet) is memoryview and packet[1:2] not in _FRAGMENTS:
            packet = bytes(packet)  # it becomes a message, or part of one, and has to stay
        if not self._with_header:
            return self._receive_pass_through(packet)
        if packet[0] != VERSION_MAGIC or len(packet) < 3:
            raise RemoteProtocolError("expected a distribution header, 131 and then 68, 69 or 70")
        kind = packet[1]
        if kind == DIST_HEADER:
            return self._receive_with_atoms(packet, 2)
        if kind == DIST_FRAG_CONT:
            head = bytes(packet[:FRAGMENT_HEADER_SIZE])
            return self._receive_fragment(head, [memoryview(packet)[FRAGMENT_HEADER_SIZE:]])
        if kind == DIST_FRAG_HEADER:
            return self._receive_first_fragment(packet)
        raise RemoteProtocolError(f"expected a distribution header (68, 69 or 70), got {kind}")

    def _receive_normal(self, packet: bytes) -> Message:
        """Read 131 68 0 control [payload], the form of nearly every packet.

        Messages that have the same bytes for a control message as an earlier one share its object, and do
        not come here, nor does what calls and links bring (`CALL_SIGNALS`, `LINK_SIGNALS`), where it is whole and
        nothing is unusual.
        """
        op = packet[_OP_AT] if len(packet) > _OP_AT else 0
        term: Any
        try:
            term, end = decode_bare(packet, 3, limits=self.settings.control_limits)
        except LimitExceeded:
            term, end = decode_control(packet, 3, self.settings.control_limits)
        message = self._message(term, packet, end)
        if (op == 22 or op == 6) and end <= _KNOWN_SIZE:
            if len(self._known_controls) >= _KNOWN_CONTROLS:
                self._known_controls.clear()
            self._known_controls[packet[:end]] = message[0]
            self._known_ends[op] = end
        return message

    def _receive_pass_through(self, packet: bytes | memoryview) -> Message:
        """Read 112 131 control [131 payload]; OTP does not look at the first byte."""
        if packet[1:2] != b"\x83":
            raise RemoteProtocolError("expected a control message with 131 in front")
        control, end = decode_control(packet, 2, self.settings.control_limits)
        if end < len(packet):
            if packet[end] != VERSION_MAGIC:
                raise RemoteProtocolError(f"expected a payload with 131 in front, got {packet[end]}")
            end += 1
        return self._message(control, packet, end)

    def _receive_with_atoms(self, packet: bytes | memoryview, at: int) -> Message:
        """Read a message whose atoms are references into the header; spell them out."""
        atoms, at = self._read_atoms(packet, at)
        return self._message_with_atoms(packet, at, atoms)

    def _read_atoms(self, packet: bytes | memoryview, at: int) -> tuple[list[bytes], int]:
        """Read the atoms of a header, where the peer may send any."""
        if not self._with_atoms and packet[at : at + 1] not in (b"\0", b""):
            raise RemoteProtocolError("atom cache references, which were not negotiated")
        return self._atom_cache.read_refs(packet, at)

    def _message_with_atoms(self, data: bytes | memoryview, at: int, atoms: list[bytes]) -> Message:
        """Make the event of a message whose header had these atoms, if any."""
        limits = self.settings.control_limits
        if not atoms:
            control, at = decode_control(data, at, limits)
            return self._message(control, data, at)
        room = max(_SMALL_EXPANSION, _EXPANSION * len(data))
        control_bytes, at = headers.spell_atoms(data, at, atoms, room)
        control, _ = decode_bare(control_bytes, limits=limits)
        payload = headers.spell_atoms(data, at, atoms, room)[0] if at < len(data) else b""
        return self._message(control, payload, 0)

    def _receive_first_fragment(self, packet: bytes | memoryview) -> Message | None:
        if not self._fragments:
            raise RemoteProtocolError("a fragment, which was not negotiated")
        sequence, count = parse_fragment_head(bytes(packet[:FRAGMENT_HEADER_SIZE]))
        if len(packet) == FRAGMENT_HEADER_SIZE:
            raise RemoteProtocolError("a first fragment without atom cache field")
        if count == 1:
            return self._receive_with_atoms(bytes(packet), FRAGMENT_HEADER_SIZE)
        atoms, at = self._read_atoms(packet, FRAGMENT_HEADER_SIZE)
        # Kept as bytes, which count against the limits; decoded it could be many times as large.
        first: _First = atoms
        room = None
        if not atoms:
            known, control = self._last_fragmented
            if not known or packet[at : at + len(known)] != known:
                control, end = self._control_of_first_fragment(packet, at)
                known = bytes(packet[at:end])
            if isinstance(control, (Send, RegSend, AliasSend)) and len(known) <= _KNOWN_SIZE:
                self._last_fragmented = known, control
                first = control, len(known)
                if self.room_for is not None:
                    room = self.room_for(control, count * max(FRAGMENT_SIZE, len(packet) - at))
        self._assembler.start(sequence, count, first, [memoryview(packet)[at:]], room)
        return None

    def _control_of_first_fragment(self, packet: bytes | memoryview, at: int) -> tuple[Control | None, int]:
        """Read a control message; returns also where it ends. None where it does not end in this fragment.

        The documentation has it in the first one entirely, but OTP 25 and 28 cut a long one, such as an EXIT
        with a large reason in it.
        """
        try:
            term, end = decode_bare(packet, at, limits=self.settings.control_limits)
        except TruncatedTerm:
            return None, at
        return self._check(term), end

    def _receive_fragment(self, head: bytes, parts: list[memoryview]) -> Message | None:
        sequence, number = parse_fragment_head(head)
        assembly = self._assembler.proceed(sequence, number, parts)
        if assembly is None:
            return None
        content, first = assembly.content, cast("_First", assembly.first)
        if isinstance(first, list):
            return self._message_with_atoms(content, 0, first)
        control, at = first
        if at == len(content):
            return self._message_with_atoms(content, 0, [])  # it says what is missing
        return control, _payload(content, at)

    def _message(self, term: Any, data: bytes | memoryview, at: int) -> Message:
        """Make the event of a control message and the payload that starts at ``at`` in ``data``."""
        control = self._check(term)
        if term[0] not in PAYLOAD_OPS:
            return control, None
        if at >= len(data):
            raise RemoteProtocolError(f"{Op(term[0]).name}: the payload is missing")
        return control, _payload(data, at)

    def _check(self, term: Any) -> Control:
        """Read a control message and check whose the pids in it are, as a real node does."""
        control = from_term(term)
        op = term[0]
        needed = _FORMS.get(op)
        if needed is not None and not self._flag_bits & needed:
            flag = DistFlags(needed).name
            raise RemoteProtocolError(f"{Op(op).name}, which was not negotiated: {flag} is not among the flags")
        place = _PEERS_PID.get(op)
        if place is not None and self._peer_node is not None:
            node = term[place].node
            if node != self._peer_node:
                whose = escaped(node, 80)
                raise RemoteProtocolError(f"{Op(op).name}: from a process of {whose}, not of this peer")
        place = _PEERS_REF.get(op)
        if place is not None and self._peer_node is not None and term[place].node != self._peer_node:
            whose = escaped(term[place].node, 80)
            raise RemoteProtocolError(f"{Op(op).name}: with a reference of {whose}, not of this peer")
        place = _OUR_PID.get(op)
        if place is not None and self._local_node is not None:
            to = term[place]
            if type(to) is Pid and to.node != self._local_node:
                whose = escaped(to.node, 80)
                raise RemoteProtocolError(f"{Op(op).name}: to a process of {whose}, not of this node")
        return control

    # --- sending -------------------------------------------------------------------------------

    @property
    def queued_bytes(self) -> int:
        """Bytes waiting in ``data_to_send``."""
        return self.queue.size

    def send(
        self, control: Control, payload: Sequence[Buffer] | None = None, *, sender: Pid | None = None
    ) -> None:
        """Queue a message.

        Args:
            control: what to send.
            payload: parts of an encoded bare term, for the messages that have one. The parts are not
                copied when large, so they must not change any more.
            sender: the sending process, where the control message does not name it.

        Raises:
            LocalProtocolError: the channel is closed, a payload is missing or too much, the message
                cannot be expressed to this peer, or is longer than 2^31 bytes and may not be cut.
            EncodeError: a field is no term.
        """
        if self.closed:
            raise LocalProtocolError("the connection is closed")
        if payload is not None and not self._exit_payload and type(control) in _WITH_REASON:
            reason, _ = decode_bare(b"".join(payload))
            control, payload = attrs.evolve(cast(LinkExit, control), reason=reason), None
        if payload is not None and self._is_like_last(control):
            head = self._last_head
        else:
            head = self._encode(control, payload is not None)
        size = len(head) + (sum(map(len, payload)) if payload else 0)
        if size < self.settings.fragment_size:
            self.queue.add(self._pack(head, payload, size), control, sender)
        elif self._fragments and payload:
            self._sequence += 1
            message = FragmentedMessage(head, payload, self._sequence, self.settings.fragment_size)
            self.queue.add_fragmented(message, control, sender)
        else:
            self._send_whole(control, sender, head, payload, size)

    def send_many(self, control: Send | RegSend, payloads: list[bytes]) -> bool:
        """Queue messages that have the same control message; False where each is for ``send``.

        Raises:
            LocalProtocolError: the channel is closed.
        """
        head = self.head_of(control)
        if head is None or max(map(len, payloads)) + len(head) - 3 >= self.settings.fragment_size:
            return False
        self.queue.add(join_frames(head, payloads), control, None)
        return True

    def head_of(self, control: Send | RegSend | None) -> bytes | None:
        """What stands between the length and the payload of ordinary messages of one sender to one receiver.

        For None, what stands in front of the control message of messages to aliases, of monitors, links and
        their ends. None where they have none that is always the same, or the peer does not take all of these.

        Raises:
            LocalProtocolError: the channel is closed.
        """
        if self.closed:
            raise LocalProtocolError("the connection is closed")
        if control is None:
            return self._head_of_signals
        if not self._with_header or control.token is not None:
            return None
        return _NORMAL_HEADER + (self._last_head if self._is_like_last(control) else self._encode(control, True))

    def send_frame(self, frame: bytes) -> bool:
        """Queue an ordinary message with a head of `head_of`, as `etf.pack_frame` has made it.

        False where it is for ``send``: it may have to wait for a large one.
        """
        return not self.closed and self.queue.add_ready(frame)

    def _encode(self, control: Control, with_payload: bool) -> bytes:
        """Encode a control message; the last one of an ordinary message is remembered."""
        term = to_term(control, self._flag_bits)
        if with_payload is not (term[0] in PAYLOAD_OPS):
            raise LocalProtocolError(f"{Op(term[0]).name} {'has no' if with_payload else 'needs a'} payload")
        head = encode_bare(term)
        if isinstance(control, (Send, RegSend)) and control.token is None:
            to = control.to if isinstance(control, Send) else control.name
            self._last_sent, self._last_head = (type(control), control.sender, to), head
        return head

    def _is_like_last(self, control: Control) -> bool:
        """Whether sender and receiver are those of the ordinary message before: then the bytes are too."""
        kind, sender, to = self._last_sent
        if type(control) is not kind or not isinstance(control, (Send, RegSend)) or control.token is not None:
            return False
        same = control.to == to if isinstance(control, Send) else control.name is to
        return same and control.sender == sender

    def _pack(self, head: bytes, payload: Sequence[Buffer] | None, size: int) -> bytes:
        """Make one packet of a message."""
        if payload is None:
            return packet_head(size, self._with_header) + head
        if self._with_header:
            return b"".join((packet_head(size, True), head, *payload))
        return b"".join((packet_head(size + 1, False), head, b"\x83", *payload))

    def _send_whole(
        self,
        control: Control,
        sender: Pid | None,
        head: bytes,
        payload: Sequence[Buffer] | None,
        size: int,
    ) -> None:
        """Queue a large message that cannot be cut: the peer has no fragments, or there is no payload."""
        if size + 3 > LAST_LENGTH:
            raise LocalProtocolError(f"a message of {size} bytes: one packet takes up to 2^31 - 1")
        if not payload:
            self.queue.add(self._pack(head, None, size), control, sender)
        elif self._with_header:
            self.queue.add_in_parts([packet_head(size, True) + head, *payload])
        else:
            self.queue.add_in_parts([packet_head(size + 1, False) + head + b"\x83", *payload])

    def data_to_send(self, limit: int = 256 * 1024) -> list[Buffer]:
        """Take about ``limit`` bytes off the queue, to be written in this order."""
        pieces = self.queue.take(limit)
        if pieces:
            self._ticker.sent += 1
        return pieces

    # --- ticks ---------------------------------------------------------------------------------

    def next_deadline(self) -> float | None:
        """When ``handle_timeout`` has to be called; None once the channel is closed."""
        return None if self.closed else self._ticker.deadline

    def handle_timeout(self, now: float) -> list[Event]:
        """Look after the ticks: queue one if due, tell whether the peer has been silent for too long."""
        if self.closed or now < self._ticker.deadline:
            return []
        action = self._ticker.end_interval(now, reading=self.reading, queued=self.queue.size > 0)
        if action is TickAction.GIVE_UP:
            self.closed = True
            return [PeerSilent(self.settings.net_ticktime_s)]
        if action is TickAction.TICK:
            self.queue.add(TICK, None, None)
        return []

    def close(self) -> None:
        """Refuse everything from now on and drop what is queued, and what has come in part."""
        self.closed = True
        self.queue.clear()
        self._assembler.clear()
        self._reader.clear()


def _payload(data: bytes | memoryview, at: int) -> bytes | memoryview:
    """What begins at ``at``; not copied if it is large."""
    if len(data) - at < LARGE:
        return bytes(data[at:])
    return memoryview(data)[at:] if at else data


def each_by_itself(batch: list[Batched]) -> list[Event]:
    """What `Channel.receive_batch` gave, with an event for each message."""
    events: list[Event] = []
    for event in batch:
        if not isinstance(event, tuple):
            events.append(event)
            continue
        control, payload = event
        payloads = payload if isinstance(payload, list) else [payload]
        events += [MessageReceived(control, each) for each in payloads]
    return events


_WITH_REASON = frozenset((LinkExit, Exit2, MonitorPExit))

_EXPANSION = 64
"""How much longer a message may become when its atoms are spelled out; 2 bytes stand for up to 258."""

_SMALL_EXPANSION = 1024 * 1024

_FORMS: Final = {
    op: flag.value
    for flag, ops in {
        DistFlags.SEND_SENDER: (Op.SEND_SENDER, Op.SEND_SENDER_TT),
        DistFlags.EXIT_PAYLOAD: (
            Op.PAYLOAD_EXIT,
            Op.PAYLOAD_EXIT_TT,
            Op.PAYLOAD_EXIT2,
            Op.PAYLOAD_EXIT2_TT,
            Op.PAYLOAD_MONITOR_P_EXIT,
        ),
        DistFlags.SPAWN: (Op.SPAWN_REQUEST, Op.SPAWN_REQUEST_TT),
        DistFlags.UNLINK_ID: (Op.UNLINK_ID, Op.UNLINK_ID_ACK),
        DistFlags.ALTACT_SIG: (Op.ALTACT_SIG_SEND,),
    }.items()
    for op in ops
}
"""Op number to the flag without which no peer sends it.

The older ones are always read: what a real node has queued before it knows our flags comes in them. Aliases and
monitors are not here: a peer that cannot be sent them may send them.
"""

_PEERS_PID = {
    Op.LINK: 1,
    Op.EXIT: 1,
    Op.UNLINK: 1,
    Op.EXIT2: 1,
    Op.EXIT_TT: 1,
    Op.EXIT2_TT: 1,
    Op.MONITOR_P: 1,
    Op.DEMONITOR_P: 1,
    Op.PAYLOAD_EXIT: 1,
    Op.PAYLOAD_EXIT_TT: 1,
    Op.PAYLOAD_EXIT2: 1,
    Op.PAYLOAD_EXIT2_TT: 1,
    Op.SPAWN_REQUEST: 2,
    Op.SPAWN_REQUEST_TT: 2,
    Op.UNLINK_ID: 2,
    Op.UNLINK_ID_ACK: 2,
}
"""Op number to the element that must be a pid of the peer; its creation is not looked at (dist.c)."""

_PEERS_REF = {Op.MONITOR_P: 3, Op.DEMONITOR_P: 3, Op.SPAWN_REQUEST: 1, Op.SPAWN_REQUEST_TT: 1}
"""Op number to the element that must be a reference of the peer: what it asks for is kept under it."""

_OUR_PID = {Op.LINK: 2, Op.MONITOR_P: 2}
"""Op number to the element that must be a pid of this node, of whatever creation, if it is a pid."""
