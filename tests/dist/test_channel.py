"""An established connection without sockets: forms of packets, fragments, order, limits, ticks."""

from __future__ import annotations

import tracemalloc
from collections.abc import Sequence
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyglyn.dist import (
    RECOMMENDED,
    Channel,
    ChannelSettings,
    DistFlags,
    MessageReceived,
    PeerSilent,
    ProtocolBroken,
    TickReceived,
)
from pyglyn.dist.channel import each_by_itself
from pyglyn.dist.control import (
    Altact,
    AltactSend,
    Control,
    DemonitorP,
    Exit2,
    GroupLeader,
    Link,
    LinkExit,
    MonitorP,
    MonitorPExit,
    RegSend,
    Send,
    SpawnFlags,
    SpawnReply,
    SpawnRequest,
    UnlinkId,
)
from pyglyn.errors import LocalProtocolError
from pyglyn.etf import Atom, Pid, Reference, Term, decode_bare, encode_bare, encode_parts
from pyglyn.etf.terms import atom_count

A = Pid("a@host", 1, 0, 5)
A2 = Pid("a@host", 2, 0, 5)
B = Pid("b@host", 2, 1, 6)
REF = Reference("a@host", 5, (1, 2, 3))
FRAGMENTS = DistFlags.FRAGMENTS
CACHE = DistFlags.DIST_HDR_ATOM_CACHE
NEITHER = RECOMMENDED & ~FRAGMENTS
SMALL_FRAGMENTS = ChannelSettings(fragment_size=100)


def pair(flags: DistFlags = RECOMMENDED, settings: ChannelSettings | None = None) -> tuple[Channel, Channel]:
    """Two ends of one connection, with names so that pids are checked."""
    return (
        Channel(flags, 0.0, settings, local_node="a@host", peer_node="b@host"),
        Channel(flags, 0.0, settings, local_node="b@host", peer_node="a@host"),
    )


def wire(channel: Channel, limit: int = 1 << 40) -> bytes:
    return b"".join(channel.data_to_send(limit))


def sent(flags: DistFlags, control: Control, *payload: Term) -> bytes:
    channel = pair(flags)[0]
    channel.send(control, encode_parts(payload[0]) if payload else None)
    return wire(channel)


def received(channel: Channel, data: bytes, step: int = 1 << 40) -> list[Any]:
    """Feed data and show messages as (control, decoded payload)."""
    events: list[Any] = []
    for at in range(0, len(data), min(step, max(1, len(data)))):
        events += channel.receive_data(data[at : at + step])
    return [
        (event.control, None if event.payload is None else decode_bare(event.payload)[0])
        if isinstance(event, MessageReceived)
        else event
        for event in events
    ]


def packet(*parts: bytes) -> bytes:
    body = b"".join(parts)
    return len(body).to_bytes(4) + body


def broken(events: Sequence[Any]) -> str:
    """The text of the protocol error the events must end with."""
    assert isinstance(events[-1], ProtocolBroken)
    return str(events[-1].error)


# --- forms of packets ------------------------------------------------------------------------------


@pytest.mark.parametrize("flags", [RECOMMENDED, RECOMMENDED | CACHE, NEITHER | CACHE], ids=["F", "FC", "C"])
def test_with_headers_terms_have_no_version_byte(flags: DistFlags) -> None:
    control, payload = encode_bare((22, A, B)), encode_bare([1, 2.5])
    assert sent(flags, Send(A, B), [1, 2.5]) == packet(b"\x83D\0", control, payload)
    assert sent(flags, Link(A, B)) == packet(b"\x83D\0", encode_bare((1, A, B)))


def test_without_headers_each_term_has_a_version_byte() -> None:
    control, payload = encode_bare((22, A, B)), encode_bare([1, 2.5])
    assert sent(NEITHER, Send(A, B), [1, 2.5]) == packet(b"p\x83", control, b"\x83", payload)
    assert sent(NEITHER, Link(A, B)) == packet(b"p\x83", encode_bare((1, A, B)))


def test_the_first_byte_of_a_pass_through_packet_is_not_looked_at() -> None:
    """As OTP: net_mess2 skips it."""
    data = packet(b"\xff\x83", encode_bare((1, A, B)))
    assert received(pair(NEITHER)[1], data) == [(Link(A, B), None)]


CONTROLS: list[tuple[Control, tuple[Term, ...]]] = [
    (Link(A, B), ()),
    (Send(A, B), ({Atom("k"): [1, b"x"]},)),
    (Send(None, B), (b"",)),
    (RegSend(A, Atom("inbox")), ([],)),
    (LinkExit(A, B), (Atom("killed"),)),
    (Exit2(A, B, (Atom("shutdown"), 1)), ()),
    (MonitorP(A, Atom("inbox"), REF), ()),
    (DemonitorP(A, B, REF), ()),
    (MonitorPExit(A, B, REF), (Atom("noproc"),)),
    (UnlinkId(5, A, B), ()),
    (SpawnRequest(REF, A, A, (Atom("m"), Atom("f"), 1), []), ([b"argument"],)),
    (SpawnReply(REF, B, SpawnFlags.MONITOR, A), ()),
]


@pytest.mark.parametrize("flags", [RECOMMENDED, NEITHER], ids=["headers", "pass-through"])
@pytest.mark.parametrize("step", [1, 3, 1 << 20])
def test_messages_arrive_however_the_stream_is_cut(flags: DistFlags, step: int) -> None:
    a, b = pair(flags)
    for control, payload in CONTROLS:
        a.send(control, encode_parts(payload[0]) if payload else None)
    expected = [(control, payload[0] if payload else None) for control, payload in CONTROLS]
    assert received(b, wire(a), step) == expected


@pytest.mark.parametrize("flags", [RECOMMENDED, NEITHER, NEITHER | CACHE], ids=["F", "N", "C"])
@pytest.mark.parametrize("step", [1, 7, 4_000, 70_000, 262_144])
def test_so_many_packets_are_taken_at_a_time_as_asked_for(flags: DistFlags, step: int) -> None:
    here, peer = pair(flags)
    for number in range(30):
        peer.send(MonitorP(B, A, Reference("b@host", 6, (number, 2, 3))))
        peer.send(Link(B, A))
        for text in (b"one", b"two"):
            peer.send(Send(B, A), encode_parts((number, text)))
    data = wire(peer) + bytes(40)
    whole = pair(flags)[0].receive_data(data)
    assert len(whole) == 130
    found: list[Any] = []
    for start in range(0, len(data), step):
        piece, at = data[start : start + step], 0
        while at < len(piece):
            events = here.receive_batch(piece, at, 7)
            assert len(events) <= 7
            assert here.taken > at
            at = here.taken
            found += each_by_itself(events)
    assert found == whole
    assert here.packets == 130


@pytest.mark.parametrize("flags", [RECOMMENDED, NEITHER])
@pytest.mark.parametrize("step", [1, 7, 1 << 20])
def test_nothing_points_into_the_buffer_that_is_read_into(flags: DistFlags, step: int) -> None:
    """A bytearray cannot change its size while a view of it is kept, and what is kept must not change with it."""
    large = step > 1_000
    payloads = [b"small", bytes(range(256)) * (800 if large else 2), b"x" * (65_000 if large else 99), [1, 2.5], b"y" * 66_000]
    sender, receiver = pair(flags)
    for payload in payloads:
        sender.send(Send(A, B), encode_parts(payload))
    data, events = wire(sender), []
    buffer = bytearray(step)
    for at in range(0, len(data), step):
        piece = data[at : at + step]
        buffer[: len(piece)] = piece
        with memoryview(buffer) as whole, whole[: len(piece)] as view:
            events += receiver.receive_data(view)
        buffer.append(0)
        buffer[:] = bytes(step)
    assert [decode_bare(event.payload)[0] for event in events] == payloads  # type: ignore[union-attr, arg-type]


def test_a_message_in_fragments_is_copied_out_of_what_was_received_once() -> None:
    """Whoever copies takes another block as large; what was read into is there before."""
    sender, receiver = pair()
    sender.send(Send(A, B), encode_parts(bytes(1 << 20)))
    data, buffer = wire(sender), bytearray(1 << 18)
    events: list[Any] = []
    tracemalloc.start(1)
    try:
        for at in range(0, len(data), len(buffer)):
            piece = memoryview(data)[at : at + len(buffer)]
            buffer[: len(piece)] = piece
            events += receiver.receive_data(memoryview(buffer)[: len(piece)])
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        blob, _ = decode_bare(events[0].payload)
        _, decoded = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert blob == bytes(1 << 20)
    assert peak <= 1.3 * 2**20  # a bytearray that grows, and the part of a packet that the next read completes
    assert decoded <= 2.3 * 2**20


def test_a_payload_is_handed_up_as_it_came() -> None:
    """Bare bytes, whatever the form of the packet: they can be forwarded without decoding."""
    for flags in (RECOMMENDED, NEITHER):
        a, b = pair(flags)
        a.send(Send(A, B), [b"h\x02a\x01", b"a\x02"])
        (event,) = b.receive_data(wire(a))
        assert isinstance(event, MessageReceived)
        assert event.payload == b"h\x02a\x01a\x02"


def test_both_families_of_exit_messages_are_read_whatever_was_negotiated() -> None:
    """What an auto-connecting peer queued before it knew our flags comes in the old form."""
    old = packet(b"\x83D\0", encode_bare((3, A, B, Atom("normal"))))
    new = packet(b"\x83D\0", encode_bare((24, A, B)), encode_bare(Atom("normal")))
    assert received(pair()[1], old + new) == [
        (LinkExit(A, B, Atom("normal")), None),
        (LinkExit(A, B), Atom("normal")),
    ]


def test_a_reason_moves_into_the_tuple_for_a_peer_without_exit_payload() -> None:
    flags = RECOMMENDED & ~DistFlags.EXIT_PAYLOAD
    for control in (LinkExit(A, B), Exit2(A, B), MonitorPExit(A, B, REF)):
        inside = attrs.evolve(control, reason=(Atom("bad"), b"x"))
        a, b = pair(flags)
        a.send(control, encode_parts((Atom("bad"), b"x")))
        assert received(b, wire(a)) == [(inside, None)]


@pytest.mark.parametrize(
    ("control", "payload"),
    [(Send(A, B), None), (Link(A, B), [b"j"]), (LinkExit(A, B, Atom("x")), [b"j"]), (LinkExit(A, B), None)],
    ids=["missing", "too much", "reason twice", "reason missing"],
)
def test_a_payload_that_does_not_fit_the_message_is_the_callers_mistake(
    control: Control, payload: list[bytes] | None
) -> None:
    with pytest.raises(LocalProtocolError, match="payload"):
        pair()[0].send(control, payload)


def test_nothing_can_be_sent_after_the_end() -> None:
    a = pair()[0]
    a.send(Link(A, B))
    a.close()
    assert (a.queued_bytes, a.data_to_send(), a.next_deadline()) == (0, [], None)
    with pytest.raises(LocalProtocolError, match="closed"):
        a.send(Link(A, B))


# --- fragments -------------------------------------------------------------------------------------


def test_a_large_message_goes_out_as_the_specification_says() -> None:
    a = pair(settings=SMALL_FRAGMENTS)[0]
    control, payload = encode_bare((22, A, B)), encode_bare(bytes(range(200)))
    a.send(Send(A, B), [payload])
    room = 100 - len(control)
    rest = payload[room:]
    sequence = (1).to_bytes(8)
    assert wire(a) == b"".join(
        (
            packet(b"\x83E", sequence, (3).to_bytes(8), b"\0", control, payload[:room]),
            packet(b"\x83F", sequence, (2).to_bytes(8), rest[:100]),
            packet(b"\x83F", sequence, (1).to_bytes(8), rest[100:]),
        )
    )
    assert a.queued_bytes == 0


@given(
    payload=st.lists(st.binary(max_size=300), min_size=1, max_size=5),
    fragment_size=st.integers(1, 200),
    step=st.integers(1, 500),
    room=st.none() | st.integers(0, 1600),
)
def test_fragments_put_together_are_the_message(
    payload: list[bytes], fragment_size: int, step: int, room: int | None
) -> None:
    """In a place that is given for it, too, whether they have room there or not."""
    a, b = pair(settings=ChannelSettings(fragment_size=fragment_size))
    b.room_for = lambda control, size: None if room is None else memoryview(bytearray(room))
    parts = [encode_bare(payload[0]), *payload[1:]]
    a.send(Send(A, B), parts)
    a.send(Link(A, B))
    data = wire(a)
    events: list[Any] = []
    for at in range(0, len(data), step):
        events += b.receive_data(data[at : at + step])
    assert [type(event) for event in events] == [MessageReceived] * 2
    assert bytes(events[0].payload) == b"".join(parts)
    assert events[1].control == Link(A, B)


def test_a_large_message_is_put_together_where_it_is_said() -> None:
    a, b = pair()
    asked: list[tuple[Control, int]] = []
    place = bytearray(2 << 20)

    def room_for(control: Control, size: int) -> memoryview:
        asked.append((control, size))
        return memoryview(place)

    b.room_for = room_for
    parts = encode_parts(bytes(range(256)) * 4096)
    a.send(Send(A, B), parts)
    a.send(Exit2(A, B), encode_parts(bytes(1 << 20)))
    a.send(Send(A, B), encode_parts(bytes(1000)))
    events = b.receive_data(wire(a))
    payload = events[0].payload  # type: ignore[union-attr]
    assert isinstance(payload, memoryview)
    assert payload.obj is place
    assert payload == b"".join(parts)
    assert len(events) == 3
    [(control, size)] = asked
    assert control == Send(A, B)
    assert 1 << 20 < size < (1 << 20) + 2 * 65_536


@pytest.mark.parametrize("cut", [1, 10, 30])
def test_a_control_message_cut_between_fragments_is_put_together(cut: int) -> None:
    """An EXIT with a large reason in it: OTP 25 and 28 cut it like a payload, whatever the documentation says."""
    control = encode_bare((3, A, B, bytes(100)))
    pieces = control[:cut], control[cut:70], control[70:]
    data = b"".join(
        packet(b"\x83E" if number == 3 else b"\x83F", (5).to_bytes(8), number.to_bytes(8), zero, piece)
        for number, zero, piece in zip((3, 2, 1), (b"\0", b"", b""), pieces, strict=True)
    )
    assert received(pair()[1], data + data) == [(LinkExit(A, B, bytes(100)), None)] * 2


def test_a_large_payload_is_not_copied_on_its_way_out() -> None:
    a = pair()[0]
    block = bytes(1_000_000)
    a.send(Send(A, B), encode_parts(block))
    views = [piece for piece in a.data_to_send(1 << 30) if isinstance(piece, memoryview)]
    assert sum(len(view) for view in views) > 990_000
    assert all(view.obj is block for view in views if len(view) > 1000)


def test_a_peer_without_fragments_gets_a_large_message_in_one_packet() -> None:
    for flags in (NEITHER, NEITHER | CACHE):
        a, b = pair(flags)
        block = bytes(300_000)
        a.send(Send(A, B), encode_parts(block))
        a.send(Link(A, B))
        pieces = []
        while more := a.data_to_send(10_000):
            assert sum(map(len, more)) < 20_000
            pieces += more
        assert received(b, b"".join(pieces)) == [(Send(A, B), block), (Link(A, B), None)]


def test_small_messages_of_others_overtake_a_large_one_and_its_senders_own_wait() -> None:
    a, b = pair(settings=SMALL_FRAGMENTS)
    a.send(Send(A, B), encode_parts(bytes(1000)))
    a.send(Link(A, B))
    a.send(Send(A2, B), encode_parts(b"quick"))
    a.send(Send(A, B), encode_parts(b"after"))
    order = received(b, wire(a))
    assert [(c, p) for c, p in order if p != bytes(1000)] == [
        (Send(A2, B), b"quick"),
        (Link(A, B), None),
        (Send(A, B), b"after"),
    ]
    assert order[1] == (Send(A, B), bytes(1000))


def test_senders_of_large_messages_take_turns() -> None:
    a, b = pair(settings=SMALL_FRAGMENTS)
    a.send(Send(A, B), encode_parts(bytes(100_000)))
    a.send(Send(A2, B), encode_parts(bytes(1000)))
    first = wire(a, 4000)
    assert received(b, first) == [(Send(A2, B), bytes(1000))]
    assert received(b, wire(a)) == [(Send(A, B), bytes(100_000))]


def test_many_small_messages_do_not_starve_a_large_one() -> None:
    a, b = pair(settings=SMALL_FRAGMENTS)
    a.send(Send(A, B), encode_parts(bytes(5000)))
    got: list[Any] = []
    for _ in range(100):
        for _ in range(20):
            a.send(Send(A2, B), encode_parts(b"chatter"))
        got += received(b, wire(a, 300))
    assert (Send(A, B), bytes(5000)) in got


SIGNALS = st.sampled_from(
    [
        (Send(A, B), b"s"),
        (Send(A, B), bytes(450)),
        (Send(A2, B), b"t"),
        (Send(A2, B), bytes(230)),
        (Link(A, B), None),
        (MonitorP(A2, B, REF), None),
        (MonitorPExit(A, B, REF), b"u"),
        (UnlinkId(1, A2, B), None),
        (SpawnReply(REF, B, SpawnFlags(0), A), None),
        (AltactSend(Altact(0), A2, B), bytes(120)),
    ]
)
SENDER = {Send: "sender", Link: "sender", MonitorP: "watcher", MonitorPExit: "watched", UnlinkId: "sender"}


@given(st.lists(st.one_of(SIGNALS, st.integers(1, 700)), max_size=40))
def test_the_order_of_each_sender_is_kept(script: list[Any]) -> None:
    """Whatever is sent, and however the socket takes it; numbers take so many bytes off the queue."""
    a, b = pair(settings=SMALL_FRAGMENTS)
    wanted: dict[Pid, list[Any]] = {A: [], A2: []}
    data = b""
    for number, step in enumerate(script):
        if isinstance(step, int):
            data += wire(a, step)
            continue
        control, payload = step
        term = None if payload is None else (number, payload)
        a.send(control, None if term is None else encode_parts(term))
        wanted[_sender(control)].append((_as_sent(control), term))
    got: dict[Pid, list[Any]] = {A: [], A2: []}
    for control, term in received(b, data + wire(a)):
        got[_sender(control)].append((control, term))
    assert got == wanted
    assert a.queued_bytes == 0


def _sender(control: Any) -> Pid:
    sender = control.result if isinstance(control, SpawnReply) else None
    return sender or getattr(control, SENDER.get(type(control), "sender"))


def _as_sent(control: Control) -> Control:
    return Send(control.sender, B) if isinstance(control, AltactSend) else control


def test_a_signal_of_unknown_sender_waits_for_what_is_under_way() -> None:
    """A monitor by name that fires does not say which process it was; its last message may be a large one."""
    down = MonitorPExit(Atom("inbox"), B, REF, Atom("normal"))
    a, b = pair(settings=SMALL_FRAGMENTS)
    a.send(Send(A, B), encode_parts(bytes(500)))
    a.send(Send(A2, B), encode_parts(bytes(900)))
    a.send(down)
    a.send(GroupLeader(A, B))
    assert [control for control, _ in received(b, wire(a))] == [
        Send(A, B),
        Send(A2, B),
        down,
        GroupLeader(A, B),
    ]


def test_a_named_sender_need_not_wait_for_others() -> None:
    down = MonitorPExit(Atom("inbox"), B, REF, Atom("normal"))
    a, b = pair(settings=SMALL_FRAGMENTS)
    a.send(Send(A, B), encode_parts(bytes(500)))
    a.send(down, sender=A2)
    assert [control for control, _ in received(b, wire(a))] == [down, Send(A, B)]


# --- what a peer can do wrong ----------------------------------------------------------------------

HEAD = b"\x83D\0"
GOOD = packet(HEAD, encode_bare((1, A, B)))
def test_fragments_in_the_middle_are_copied_to_their_place_alone() -> None:
    """Also the one that is cut where a read ends, of which the next one brings the rest."""
    a, b = pair()
    place = memoryview(bytearray(2 << 20))
    b.room_for = lambda control, size: place
    a.send(Send(A, B), encode_parts(bytes(1 << 20)))
    data, buffer = memoryview(wire(a)), memoryview(bytearray(1 << 18))
    events: list[Any] = []
    tracemalloc.start(1)
    try:
        for at in range(0, len(data), len(buffer)):
            view = buffer[: len(data) - at]
            view[:] = data[at : at + len(view)]
            events += b.receive_data(view)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert events[0].payload.obj is place.obj
    assert b.packets == 17
    assert peak < 16_384


def test_the_control_message_of_messages_in_fragments_is_read_once_where_it_is_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Those that are another only in that they are shorter or longer are read."""
    a, b = pair()
    receivers: list[Pid | Atom] = [B, B, B, Atom("in"), Atom("in"), Atom("inbox"), Atom("inbox"), B]
    for to in receivers:
        a.send(Send(A, to) if isinstance(to, Pid) else RegSend(A, to), encode_parts(bytes(100_000)))
    read: list[int] = []

    def counted(*args: Any, **options: Any) -> tuple[Term, int]:
        read.append(1)
        return decode_bare(*args, **options)

    monkeypatch.setattr("pyglyn.dist.channel.decode_bare", counted)
    monkeypatch.setattr("pyglyn.dist.control.decode_bare", counted)
    controls = [control for control, _ in received(b, wire(a))]
    assert controls == [Send(A, to) if isinstance(to, Pid) else RegSend(A, to) for to in receivers]
    assert len(read) == 4


@settings(max_examples=50)
@given(
    sizes=st.lists(st.integers(60_000, 300_000), min_size=1, max_size=4),
    fragment_size=st.integers(65_500, 66_000),
    step=st.integers(10_000, 500_000),
    room=st.none() | st.integers(0, 500_000),
    most=st.integers(1, 5),
)
def test_large_fragments_of_several_messages_are_put_together(
    sizes: list[int], fragment_size: int, step: int, room: int | None, most: int
) -> None:
    """However they are mixed with each other and with small messages, and wherever they are cut."""
    a, b = pair(settings=ChannelSettings(fragment_size=fragment_size))
    b.room_for = lambda control, size: None if room is None else memoryview(bytearray(room))
    expected: dict[Pid, list[bytes]] = {}
    for number, size in enumerate(sizes):
        for payload in (bytes((number + 1,)) * size, b"small"):
            sender = Pid("a@host", number + 100, 0, 1)
            expected.setdefault(sender, []).append(encode_bare(payload))
            a.send(Send(sender, B), [encode_bare(payload)])
    data = wire(a)
    found: dict[Pid, list[bytes]] = {}
    for start in range(0, len(data), step):
        piece, at = bytearray(data[start : start + step]), 0
        while at < len(piece):
            for event in each_by_itself(b.receive_batch(memoryview(piece), at, most)):
                found.setdefault(event.control.sender, []).append(bytes(event.payload))  # type: ignore[union-attr, arg-type]
            assert b.taken > at
            at = b.taken
        piece[:] = bytes(len(piece))
    assert found == expected
    at, count = 0, 0
    while at < len(data):
        at, count = at + 4 + int.from_bytes(data[at : at + 4]), count + 1
    assert b.packets == count


FIRST = b"\x83E" + (9).to_bytes(8)
NEXT = b"\x83F" + (9).to_bytes(8)
SEND = encode_bare((22, A, B))

DAMAGED = {
    "no header": packet(b"p\x83", encode_bare((1, A, B))),
    "version byte in header mode": packet(HEAD, b"\x83", encode_bare((1, A, B))),
    "unknown header": packet(b"\x83G\0", encode_bare((1, A, B))),
    "one byte": packet(b"\x83"),
    "two bytes": packet(b"\x83D"),
    "no control message": packet(HEAD),
    "unknown op": packet(HEAD, encode_bare((99, A, B))),
    "wrong arity": packet(HEAD, encode_bare((1, A))),
    "no tuple": packet(HEAD, encode_bare([1, A, B])),
    "truncated control message": packet(HEAD, encode_bare((1, A, B))[:-1]),
    "payload missing": packet(HEAD, SEND),
    "link from a third node": packet(HEAD, encode_bare((1, Pid("c@host", 1, 1, 1), B))),
    "link to a third node": packet(HEAD, encode_bare((1, A, Pid("c@host", 1, 1, 1)))),
    "monitor of a third node's pid": packet(HEAD, encode_bare((19, A, Pid("c@host", 1, 1, 1), REF))),
    "exit in our own name": packet(HEAD, encode_bare((3, B, B, Atom("x")))),
    "spawn request of a third node": packet(
        HEAD, encode_bare((29, REF, B, B, (Atom("m"), Atom("f"), 0), [])), encode_bare([])
    ),
    "unlink id 0": packet(HEAD, encode_bare((35, 0, A, B))),
    "3 GB": (3 << 30).to_bytes(4),
    "fragment of nothing": packet(NEXT, (1).to_bytes(8), b"x"),
    "fragment head cut": packet(NEXT[:9]),
    "first fragment cut": packet(FIRST, (2).to_bytes(8)),
    "fragment number 0": packet(FIRST, (0).to_bytes(8), b"\0", SEND),
    "first fragment twice": packet(FIRST, (3).to_bytes(8), b"\0", SEND) * 2,
    "fragment left out": packet(FIRST, (3).to_bytes(8), b"\0", SEND) + packet(NEXT, (1).to_bytes(8), b"x"),
    "large fragment left out": packet(FIRST, (4).to_bytes(8), b"\0", SEND) + packet(NEXT, (2).to_bytes(8), bytes(70_000)),
    "large fragment behind the small one after it": packet(FIRST, (4).to_bytes(8), b"\0", SEND, bytes(70_000))
    + packet(NEXT, (2).to_bytes(8), b"x")
    + packet(NEXT, (3).to_bytes(8), bytes(70_000)),
    "large fragment of nothing": packet(NEXT, (2).to_bytes(8), bytes(70_000)),
    "fragmented without payload": packet(FIRST, (2).to_bytes(8), b"\0", SEND) + packet(NEXT, (1).to_bytes(8)),
    "unknown op in a first fragment": packet(FIRST, (2).to_bytes(8), b"\0", encode_bare((99, A))),
}


@pytest.mark.parametrize("name", DAMAGED)
@pytest.mark.parametrize("step", [1, 1 << 20], ids=["byte-by-byte", "whole"])
def test_what_breaks_the_protocol_ends_the_connection(name: str, step: int) -> None:
    """One error, after the messages before it; nothing is read after that."""
    b = pair()[1]
    events = received(b, GOOD + DAMAGED[name] + GOOD, step)
    assert events[0] == (Link(A, B), None)
    assert broken(events)
    assert len(events) == 2
    assert b.closed
    assert b.receive_data(GOOD) == []


def test_a_damaged_payload_is_no_business_of_the_connection() -> None:
    """It is told from others by whoever decodes it; the next message is fine."""
    b = pair()[1]
    events = b.receive_data(packet(HEAD, SEND, b"\xff\xff") + GOOD)
    assert [type(event) for event in events] == [MessageReceived] * 2


def test_a_send_from_anybody_is_delivered() -> None:
    """OTP takes a foreign sender pid in SEND_SENDER and REG_SEND."""
    data = packet(HEAD, encode_bare((22, Pid("c@host", 1, 1, 1), B)), b"j")
    assert len(received(pair()[1], data)) == 1


@given(st.binary(max_size=200), st.sampled_from([RECOMMENDED, NEITHER]), st.integers(1, 50))
def test_garbage_is_an_error_event_or_incomplete(data: bytes, flags: DistFlags, step: int) -> None:
    whole = pair(flags)[1].receive_data(data)
    cut = pair(flags)[1]
    in_steps = [event for at in range(0, len(data), step) for event in cut.receive_data(data[at : at + step])]
    assert list(map(type, whole)) == list(map(type, in_steps))


@given(st.data(), st.sampled_from([RECOMMENDED, NEITHER]))
def test_a_flipped_byte_is_an_error_event_or_another_message(data: st.DataObject, flags: DistFlags) -> None:
    a, b = pair(flags, SMALL_FRAGMENTS)
    for control, payload in CONTROLS:
        a.send(control, encode_parts(payload[0]) if payload else None)
    a.send(Send(A, B), encode_parts(bytes(300)))
    stream = bytearray(wire(a))
    place = data.draw(st.integers(0, len(stream) - 1))
    stream[place] ^= data.draw(st.integers(1, 255))
    for event in b.receive_data(bytes(stream)):
        assert isinstance(event, (MessageReceived, TickReceived, ProtocolBroken))


class TestLimits:
    def test_an_announced_length_is_refused_before_a_byte_of_it_comes(self) -> None:
        b = pair(settings=ChannelSettings(max_packet_size=1000))[1]
        assert b.receive_data(packet(bytes(0)) + (1000).to_bytes(4)) == [TickReceived()]
        b = pair(settings=ChannelSettings(max_packet_size=1000))[1]
        assert "1001 bytes is announced" in broken(b.receive_data((1001).to_bytes(4)))

    def test_a_fragmented_message_has_a_limit(self) -> None:
        b = pair(settings=ChannelSettings(max_message_size=150))[1]
        assert b.receive_data(packet(FIRST, (4).to_bytes(8), b"\0", SEND, bytes(60))) == []
        assert "exceeds 150 bytes" in broken(b.receive_data(packet(NEXT, (3).to_bytes(8), bytes(60))))

    def test_a_message_counts_no_more_when_its_last_fragment_is_there(self) -> None:
        """Also where that is a small one, and a large one of another message comes in the same read."""
        b = pair(settings=ChannelSettings(max_incomplete_size=180_000))[1]
        other, rest = (10).to_bytes(8), bytes(70_000)
        begun = packet(FIRST, (2).to_bytes(8), b"\0", SEND, rest)
        begun += packet(b"\x83E", other, (3).to_bytes(8), b"\0", SEND, rest)
        assert b.receive_data(begun) == []
        last = packet(NEXT, (1).to_bytes(8), b"x")
        events = b.receive_data(last + packet(b"\x83F", other, (2).to_bytes(8), rest))
        assert [type(event) for event in events] == [MessageReceived]

    def test_a_large_fragment_counts_as_far_as_it_is_there(self) -> None:
        b = pair(settings=ChannelSettings(max_message_size=100_000))[1]
        assert b.receive_data(packet(FIRST, (4).to_bytes(8), b"\0", SEND, bytes(60))) == []
        fragment = packet(NEXT, (3).to_bytes(8), bytes(200_000))
        assert b.receive_data(fragment[:70_000]) == []
        assert "exceeds 100000 bytes" in broken(b.receive_data(fragment[70_000:130_000]))

    def test_incomplete_messages_have_a_limit_together(self) -> None:
        b = pair(settings=ChannelSettings(max_incomplete_size=100))[1]
        events: list[Any] = []
        for sequence in (1, 2):
            head = b"\x83E" + sequence.to_bytes(8)
            events += b.receive_data(packet(head, (4).to_bytes(8), b"\0", SEND, bytes(60)))
        assert "exceed 100 bytes together" in broken(events)

    def test_complete_messages_do_not_count(self) -> None:
        b = pair(settings=ChannelSettings(max_incomplete_size=150, max_incomplete_messages=1))[1]
        for _ in range(5):
            head = packet(FIRST, (2).to_bytes(8), b"\0", SEND, bytes(60))
            events = b.receive_data(head + packet(NEXT, (1).to_bytes(8), bytes(30)))
            assert [type(event) for event in events] == [MessageReceived]

    def test_control_messages_of_incomplete_messages_count_as_bytes(self) -> None:
        """Not as the objects they decode to: 100,000 empty lists in an exit reason are 100 KB on the wire."""
        b = pair(settings=ChannelSettings(max_incomplete_size=250_000))[1]
        control = encode_bare((3, A, B, [[] for _ in range(100_000)]))
        events: list[Any] = []
        for sequence in range(3):
            events += b.receive_data(packet(b"\x83E", sequence.to_bytes(8), (2).to_bytes(8), b"\0", control))
        assert "exceed 250000 bytes together" in broken(events)
        held = [assembly.first for assembly in b._assembler._assemblies.values()]
        assert held == [[], [], []]

    def test_the_number_of_incomplete_messages_has_a_limit(self) -> None:
        b = pair(settings=ChannelSettings(max_incomplete_messages=3))[1]
        events: list[Any] = []
        for sequence in range(4):
            head = b"\x83E" + sequence.to_bytes(8)
            events += b.receive_data(packet(head, (4).to_bytes(8), b"\0", SEND))
        assert "more than 3" in broken(events)


@pytest.mark.parametrize("kind", [68, 69, 70])
def test_a_packet_begins_with_the_version(kind: int) -> None:
    a, b = pair()
    a.send(Send(A, B), encode_parts(1))
    data = bytearray(b"".join(a.data_to_send()))
    data[4:6] = bytes((0, kind))
    [event] = b.receive_data(bytes(data))
    assert isinstance(event, ProtocolBroken)
    assert "expected a distribution header" in str(event.error)


def test_a_message_without_its_payload_is_refused_also_behind_one_like_it() -> None:
    a, _ = pair()
    for _ in range(2):
        with pytest.raises(LocalProtocolError):
            a.send(Send(A, B), None)
        a.send(Send(A, B), encode_parts(1))
    assert a.flags == RECOMMENDED


# --- what was not negotiated ---------------------------------------------------------------------------------

FORMS = {
    DistFlags.SEND_SENDER: [(22, A, B), (23, A, B, 1)],
    DistFlags.EXIT_PAYLOAD: [(24, A, B), (25, A, B, 1), (26, A, B), (27, A, B, 1), (28, A, B, REF)],
    DistFlags.SPAWN: [
        (29, REF, A, A, (Atom("m"), Atom("f"), 0), []),
        (30, REF, A, A, (Atom("m"), Atom("f"), 0), [], 1),
    ],
    DistFlags.UNLINK_ID: [(35, 1, A, B), (36, 1, A, B)],
    DistFlags.ALTACT_SIG: [(37, 0, A, B)],
}


@pytest.mark.parametrize(
    ("flag", "control"), [(flag, control) for flag, controls in FORMS.items() for control in controls]
)
def test_a_form_that_was_not_negotiated_is_refused(flag: DistFlags, control: tuple[Any, ...]) -> None:
    data = packet(b"\x83D\0", encode_bare(control), encode_bare([]) if control[0] not in (35, 36) else b"")
    with_it = Channel(RECOMMENDED | flag, 0.0, local_node="b@host", peer_node="a@host")
    assert isinstance(with_it.receive_data(data)[0], MessageReceived)
    without = Channel(RECOMMENDED & ~flag, 0.0, local_node="b@host", peer_node="a@host")
    assert f"which was not negotiated: {flag.name} is not" in broken(without.receive_data(data))


def test_a_closed_channel_keeps_nothing_of_what_has_come_in_part() -> None:
    """A peer that announces much and goes takes no memory, whoever still holds the channel."""
    large = bytes(10_000_000)
    for begun in (
        packet(FIRST, (100).to_bytes(8), b"\0", SEND) + packet(NEXT, (99).to_bytes(8), large),
        (2 * len(large)).to_bytes(4) + large,
    ):
        channel = Channel(RECOMMENDED, 0.0)
        tracemalloc.start()
        try:
            channel.receive_data(begun)
            assert tracemalloc.get_traced_memory()[0] > len(large) / 2
            channel.close()
            assert tracemalloc.get_traced_memory()[0] < len(large) / 10
        finally:
            tracemalloc.stop()


def test_fragments_that_were_not_negotiated_are_refused() -> None:
    for flags in (NEITHER, NEITHER | CACHE):
        b = pair(flags)[1]
        assert broken(b.receive_data(packet(FIRST, (4).to_bytes(8), b"\0", SEND)))
        assert not b._assembler._assemblies


@pytest.mark.parametrize("name", ["x\nERROR forged", "\x1b[2Jgone", "a\x9b1mb", "\u202eturned"])
def test_a_peers_text_in_an_error_is_one_harmless_line(name: str) -> None:
    stranger = Pid(f"{name}@host", 1, 0, 1)
    b = pair()[1]
    text = broken(b.receive_data(packet(b"\x83D\0", encode_bare((1, stranger, B)))))
    assert text.isprintable()
    assert "@host" in text
    text = broken(pair()[1].receive_data(packet(b"\x83D\0", encode_bare((1, A, stranger)))))
    assert text.isprintable()


# --- ticks -----------------------------------------------------------------------------------------

TICK = bytes(4)
T = ChannelSettings(net_ticktime_s=8.0, tick_intensity=4)  # an interval of 2 s


def test_a_tick_is_an_event() -> None:
    assert received(pair()[1], TICK * 2 + GOOD + TICK) == [
        TickReceived(),
        TickReceived(),
        (Link(A, B), None),
        TickReceived(),
    ]


def test_an_idle_connection_ticks_at_each_interval() -> None:
    a = pair(settings=T)[0]
    ticks = []
    for second in range(1, 8):
        a.receive_data(TICK)
        a.handle_timeout(float(second))
        ticks.append(wire(a))
    assert ticks == [b"", TICK, b"", TICK, b"", TICK, b""]


def test_a_peer_silent_for_net_ticktime_is_given_up() -> None:
    """After as many whole intervals as the intensity says, that is between T and T * (1 + 1/intensity)."""
    a = pair(settings=T)[0]
    a.receive_data(TICK)  # within the first interval
    for now in (2.0, 4.0, 6.0, 8.0):
        assert a.handle_timeout(now) == []
    assert a.handle_timeout(10.0) == [PeerSilent(8.0)]
    assert a.closed
    assert a.next_deadline() is None


def test_any_byte_is_a_sign_of_life() -> None:
    a = pair(settings=T)[0]
    for now in range(2, 100, 2):
        if now % 8 == 0:
            a.receive_data(b"\0")
        assert a.handle_timeout(float(now)) == []


def test_no_tick_where_messages_go_both_ways() -> None:
    a = pair(settings=T)[0]
    a.receive_data(TICK)
    a.send(Link(A, B))
    wire(a)
    a.handle_timeout(2.0)
    assert wire(a) == b""


def test_a_tick_asks_for_an_answer_where_nothing_comes() -> None:
    """A hidden peer ticks only when it has a reason: OTP ticks it even while it writes (send_tick)."""
    a = pair(settings=T)[0]
    a.send(Link(A, B))
    wire(a)
    a.handle_timeout(2.0)
    assert wire(a) == TICK


def test_the_second_tick_in_a_row_is_answered_at_once() -> None:
    """The peer ticks more often than we do: its net_ticktime is shorter, and half of it has passed."""
    a = pair(settings=T)[0]
    answers = []
    for _ in range(4):
        a.receive_data(TICK)
        answers.append(wire(a))
    assert answers == [b"", TICK, b"", TICK]
    a.receive_data(TICK)
    a.send(Link(A, B))
    wire(a)
    a.receive_data(TICK)
    assert wire(a) == b""


def test_two_of_us_do_not_answer_each_other_for_ever() -> None:
    a, b = pair(settings=T)
    for channel in (a, b):  # the state in which either would answer
        channel.receive_data(TICK)
        wire(channel)
    written = 0
    a.handle_timeout(2.0)
    while data := wire(a):
        b.receive_data(data)
        a.receive_data(answer := wire(b))
        written += len(data) + len(answer)
        assert written <= 16


def test_no_tick_is_queued_behind_data_that_does_not_drain() -> None:
    a = pair(settings=T)[0]
    a.send(Link(A, B))
    size = a.queued_bytes
    for now in (2.0, 4.0, 6.0):
        a.receive_data(TICK)
        a.handle_timeout(now)
    assert a.queued_bytes == size


def test_silence_does_not_count_while_we_do_not_read() -> None:
    a = pair(settings=T)[0]
    a.reading = False
    for now in range(2, 100, 2):
        assert a.handle_timeout(float(now)) == []
    a.reading = True
    assert [a.handle_timeout(float(now)) for now in range(100, 108, 2)] == [[], [], [], [PeerSilent(8.0)]]


def test_a_late_timer_counts_as_one_interval() -> None:
    """The machine slept, or the process was stopped: that says nothing about the peer."""
    a = pair(settings=T)[0]
    assert a.handle_timeout(1000.0) == []
    assert a.next_deadline() == 1002.0
    assert a.handle_timeout(1001.0) == []


def test_the_deadline_is_an_interval_away() -> None:
    assert pair(settings=T)[0].next_deadline() == 2.0
    assert pair()[0].next_deadline() == 15.0


# --- repeated control messages ---------------------------------------------------------------------


PIDS = st.builds(
    Pid, st.sampled_from(["a@host", "aa@host"]), st.integers(0, 1), st.just(0), st.integers(0, 1)
)
REPEATED = st.one_of(
    st.builds(Send, st.one_of(st.none(), PIDS), PIDS, st.sampled_from([None, (1, 2)])),
    st.builds(RegSend, PIDS, st.sampled_from([Atom("x"), Atom("xx"), Atom("y"), True])),
    st.builds(MonitorP, st.just(A), PIDS, st.just(REF)),
)


@given(st.lists(REPEATED, max_size=30), st.sampled_from([RECOMMENDED, NEITHER]))
def test_messages_between_the_same_two_are_not_mixed_up_with_others(
    controls: list[Control], flags: DistFlags
) -> None:
    """Both directions remember control messages; whatever follows whatever, each must come out as it went in."""
    a, b = Channel(flags, 0.0), Channel(flags, 0.0)
    for number, control in enumerate(controls):
        a.send(control, None if isinstance(control, MonitorP) else encode_parts(number))
    expected = [(c, None if isinstance(c, MonitorP) else number) for number, c in enumerate(controls)]
    assert received(b, wire(a)) == expected


def test_a_control_message_may_be_used_again_with_other_fields() -> None:
    a, b = pair()
    control = Send(A, B)
    a.send(control, encode_parts(1))
    control.sender = A2
    a.send(control, encode_parts(2))
    control.token = (1, 2)
    a.send(control, encode_parts(3))
    assert received(b, wire(a)) == [(Send(A, B), 1), (Send(A2, B), 2), (Send(A2, B, (1, 2)), 3)]


def test_a_known_control_message_without_payload_is_still_an_error() -> None:
    b = pair()[1]
    good = packet(HEAD, SEND, b"j")
    assert "payload is missing" in broken(received(b, good * 2 + packet(HEAD, SEND)))


def test_many_different_senders_do_not_fill_the_memory() -> None:
    a, b = Channel(RECOMMENDED, 0.0), Channel(RECOMMENDED, 0.0)
    for number in range(3000):
        a.send(Send(Pid("a@host", number, 0, 5), B), encode_parts(number))
    assert [payload for _, payload in received(b, wire(a))] == list(range(3000))
    assert len(b._known_controls) <= 512


def test_a_known_control_message_is_a_small_one() -> None:
    """A field of a registered send that nobody looks at may be any term, and a peer may send ever new ones."""
    channel = pair()[1]
    for number in range(20):
        unused = Atom("x" * 200), [Atom(f"{number}-{each}" + "y" * 200) for each in range(20)]
        head = b"\x83D\0" + encode_bare((6, A, unused, Atom("name")))
        (event,) = channel.receive_data(packet(head, encode_bare(1)))
        assert isinstance(event, MessageReceived)
    assert sum(map(len, channel._known_controls)) < 512 * 1024
    assert not channel._known_controls


def test_atoms_of_a_peer_do_not_stay() -> None:
    channel = pair()[1]
    before = atom_count()
    for number in range(20_000):
        control = (6, A, Atom(""), Atom(f"{number}" + "z" * 200))
        channel.receive_data(packet(b"\x83D\0" + encode_bare(control) + encode_bare(Atom(f"p{number}"))))
    assert atom_count() < before + 5_000
