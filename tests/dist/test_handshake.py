"""The handshake machines (erl_dist_protocol, "Distribution Handshake"; dist_util.erl)."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyglyn.dist import (
    MANDATORY_25,
    RECOMMENDED,
    Acceptor,
    AliveReceived,
    DistFlags,
    HandshakeComplete,
    Initiator,
    LocalSide,
    NameReceived,
    NokReceived,
    is_node_name,
)
from pyglyn.dist.handshake import MAX_PACKET, State, digest, is_own_name
from pyglyn.errors import (
    HandshakeError,
    LocalProtocolError,
    MissingFlags,
    NameRefused,
    WrongCookie,
)

SECRET = "chocolate-chip"
A = LocalSide(name="a@host", creation=11, flags=RECOMMENDED, cookie=SECRET.encode())
B = LocalSide(name="b@host", creation=22, flags=RECOMMENDED, cookie=SECRET.encode())
CHALLENGE_A, CHALLENGE_B = 0xFFFFFFFF, 7


def packet(body: bytes) -> bytes:
    return len(body).to_bytes(2) + body


def name_message(flags: int = int(RECOMMENDED), name: bytes = b"a@host", creation: int = 11) -> bytes:
    head = b"N" + flags.to_bytes(8) + creation.to_bytes(4)
    return packet(head + len(name).to_bytes(2) + name)


def challenge_message(flags: int = int(RECOMMENDED), name: bytes = b"b@host") -> bytes:
    head = b"N" + flags.to_bytes(8) + CHALLENGE_B.to_bytes(4) + (22).to_bytes(4)
    return packet(head + len(name).to_bytes(2) + name)


REPLY = packet(b"r" + CHALLENGE_A.to_bytes(4) + digest(SECRET.encode(), CHALLENGE_B))
ACK = packet(b"a" + digest(SECRET.encode(), CHALLENGE_A))


def initiator(local: LocalSide = A) -> Initiator:
    return Initiator(local, "b@host", CHALLENGE_A)


def acceptor(local: LocalSide = B) -> Acceptor:
    return Acceptor(local, CHALLENGE_B)


def feed(machine: Initiator | Acceptor, data: bytes, one_by_one: bool) -> list[Any]:
    if not one_by_one:
        return list(machine.receive_data(data))
    return [event for i in range(len(data)) for event in machine.receive_data(data[i : i + 1])]


both_ways = pytest.mark.parametrize("one_by_one", [False, True], ids=["whole", "byte-by-byte"])


# --- two machines ----------------------------------------------------------------------------------


def converse(a: Initiator, b: Acceptor, status: str = "ok", take_over: bool = True) -> list[Any]:
    """Join two machines until nothing moves any more; the acceptor's first answer is ``status``."""
    events: list[Any] = []
    while True:
        to_b, to_a = a.data_to_send(), b.data_to_send()
        if not to_a and not to_b:
            return events
        for machine, data in ((b, to_b), (a, to_a)):
            for event in machine.receive_data(data):
                events.append(event)
                if isinstance(event, NameReceived):
                    events += b.send_status(status)
                elif isinstance(event, AliveReceived):
                    events += a.send_alive(take_over)


@pytest.mark.parametrize("status", ["ok", "ok_simultaneous", "alive"])
def test_two_machines_come_to_an_agreement(status: str) -> None:
    a, b = initiator(), acceptor()
    events = converse(a, b, status)
    assert events[0] == NameReceived("a@host", 11, RECOMMENDED)
    assert [event for event in events if isinstance(event, HandshakeComplete)] == [
        HandshakeComplete("a@host", 11, RECOMMENDED),
        HandshakeComplete("b@host", 22, RECOMMENDED),
    ]
    assert a.state is b.state is State.DONE


def test_only_what_both_offer_is_agreed_on() -> None:
    a = initiator(attrs.evolve(A, flags=RECOMMENDED | DistFlags.PUBLISHED))
    b = acceptor(attrs.evolve(B, flags=RECOMMENDED & ~DistFlags.SPAWN))
    flags = {e.flags for e in converse(a, b) if isinstance(e, HandshakeComplete)}
    assert flags == {RECOMMENDED & ~DistFlags.SPAWN}


def test_nok_ends_the_attempt_without_an_error() -> None:
    a, b = initiator(), acceptor()
    assert converse(a, b, "nok")[1:] == [NokReceived()]
    assert a.state is b.state is State.CLOSED


def test_not_allowed_is_a_refused_name() -> None:
    with pytest.raises(NameRefused, match="b@host does not allow a@host") as caught:
        converse(initiator(), acceptor(), "not_allowed")
    assert caught.value.status == "not_allowed"


def test_a_peer_that_keeps_its_older_connection_ends_ours() -> None:
    with pytest.raises(HandshakeError, match="keeps its older connection"):
        converse(initiator(), acceptor(), "alive", take_over=False)


def test_a_wrong_cookie_is_noticed_by_the_acceptor_and_seen_by_the_initiator_as_a_closed_connection() -> None:
    """A bad digest is answered by closing without a word (OTP 25, 28)."""
    a, b = initiator(attrs.evolve(A, cookie=b"other")), acceptor()
    with pytest.raises(WrongCookie, match="a@host does not have this node's cookie"):
        converse(a, b)
    assert b.data_to_send() == b""
    with pytest.raises(WrongCookie, match="b@host refused this node's cookie"):
        a.receive_eof()


def test_missing_mandatory_flags_are_refused_by_name_on_both_sides() -> None:
    a, b = initiator(attrs.evolve(A, flags=DistFlags.HANDSHAKE_23 | DistFlags.MAP_TAG)), acceptor()
    with pytest.raises(MissingFlags) as refused:
        converse(a, b)
    assert "MAP_TAG" not in refused.value.names
    assert {"UTF8_ATOMS", "BIG_CREATION"} <= set(refused.value.names)
    assert b.data_to_send() == packet(b"snot_allowed")
    with pytest.raises(MissingFlags, match="UTF8_ATOMS") as told:
        a.receive_data(packet(b"snot_allowed"))
    assert "V4_NC" in told.value.names


def test_the_initiator_aborts_when_the_peer_lacks_flags() -> None:
    a = initiator()
    a.receive_data(packet(b"sok"))
    with pytest.raises(MissingFlags, match=r"b@host lacks .* MAP_TAG") as caught:
        a.receive_data(challenge_message(int(MANDATORY_25 & ~DistFlags.MAP_TAG)))
    assert caught.value.names == ("MAP_TAG",)


# --- bytes -----------------------------------------------------------------------------------------


@both_ways
def test_the_initiator_writes_what_the_specification_says(one_by_one: bool) -> None:
    a = initiator()
    assert a.data_to_send() == name_message()
    assert feed(a, packet(b"sok") + challenge_message(), one_by_one) == []
    assert a.data_to_send() == REPLY
    assert feed(a, ACK, one_by_one) == [HandshakeComplete("b@host", 22, RECOMMENDED)]


@both_ways
def test_the_acceptor_writes_what_the_specification_says(one_by_one: bool) -> None:
    b = acceptor()
    assert feed(b, name_message(), one_by_one) == [NameReceived("a@host", 11, RECOMMENDED)]
    assert b.send_status("ok") == []
    assert b.data_to_send() == packet(b"sok") + challenge_message()
    assert feed(b, REPLY, one_by_one) == [HandshakeComplete("a@host", 11, RECOMMENDED)]
    assert b.data_to_send() == ACK


def test_the_challenge_is_taken_as_an_unsigned_decimal_number() -> None:
    """What ``erlang:md5("monster" ++ "4294967295")`` gives on OTP 25."""
    assert digest(b"monster", 0xFFFFFFFF).hex() == "9dffd90a48c46a8277429bfdefc02ebe"


def test_bytes_behind_a_name_are_ignored() -> None:
    """OTP does so too, to leave room for later versions."""
    body = name_message()[2:] + b"whatever"
    assert acceptor().receive_data(packet(body)) == [NameReceived("a@host", 11, RECOMMENDED)]


@both_ways
def test_bytes_behind_the_handshake_belong_to_the_connection(one_by_one: bool) -> None:
    a = initiator()
    a.receive_data(packet(b"sok") + challenge_message())
    if one_by_one:
        assert feed(a, ACK, True)[0].trailing_data == b""
    else:
        assert a.receive_data(ACK + b"\0\0\0\0rest")[0].trailing_data == b"\0\0\0\0rest"


def test_bytes_that_come_before_our_answer_are_kept() -> None:
    b = acceptor()
    assert len(b.receive_data(name_message() + REPLY)) == 1
    assert isinstance(b.send_status("ok")[0], HandshakeComplete)
    a = initiator()
    assert a.receive_data(packet(b"salive") + challenge_message()) == [AliveReceived()]
    assert a.send_alive(True) == []
    assert a.data_to_send().endswith(packet(b"strue") + REPLY)


@both_ways
def test_an_old_style_name_is_completed_after_the_challenge(one_by_one: bool) -> None:
    """What OTP 23 and 24 send when EPMD did not tell them our version."""
    b = acceptor()
    low = int(RECOMMENDED) & 0xFFFFFFFF
    events = feed(b, packet(b"n\0\5" + low.to_bytes(4) + b"a@host"), one_by_one)
    assert [event.name for event in events] == ["a@host"]
    b.send_status("ok")
    assert b.data_to_send().startswith(packet(b"sok"))
    complement = packet(b"c" + (int(RECOMMENDED) >> 32).to_bytes(4) + (11).to_bytes(4))
    assert feed(b, complement + REPLY, one_by_one) == [HandshakeComplete("a@host", 11, RECOMMENDED)]


def test_an_old_style_name_without_the_new_handshake_is_refused() -> None:
    b = acceptor()
    low = int(RECOMMENDED & ~DistFlags.HANDSHAKE_23 & ~DistFlags.MANDATORY_25_DIGEST) & 0xFFFFFFFF
    with pytest.raises(MissingFlags, match="HANDSHAKE_23"):
        b.receive_data(packet(b"n\0\5" + low.to_bytes(4) + b"a@host"))


def test_flags_above_the_low_word_are_checked_with_the_complement() -> None:
    b = acceptor(attrs.evolve(B, required=MANDATORY_25 | DistFlags.V4_NC))
    low = int(RECOMMENDED) & 0xFFFFFFFF
    b.receive_data(packet(b"n\0\5" + low.to_bytes(4) + b"a@host"))
    b.send_status("ok")
    with pytest.raises(MissingFlags, match="V4_NC"):
        b.receive_data(packet(b"c" + bytes(8)))


def test_a_node_without_a_name_is_given_one() -> None:
    """NAME_ME: the message has the host only, and creation 0."""
    b = acceptor()
    asked = b.receive_data(name_message(int(RECOMMENDED | DistFlags.NAME_ME), b"host", 0))
    assert asked == [NameReceived("host", 0, RECOMMENDED | DistFlags.NAME_ME, dynamic=True)]
    b.send_named("x1@host", 99)
    written = b.data_to_send()
    named = packet(b"snamed:\0\7x1@host" + (99).to_bytes(4))
    assert written.startswith(named)
    flags = int.from_bytes(written[len(named) + 3 : len(named) + 11])
    assert flags == RECOMMENDED | DistFlags.NAME_ME  # which a real node insists on
    assert b.receive_data(REPLY) == [HandshakeComplete("x1@host", 99, RECOMMENDED)]


UNNAMED = attrs.evolve(A, name="undefined@host", creation=0)


@both_ways
def test_a_node_without_a_name_asks_for_one_and_takes_it(one_by_one: bool) -> None:
    a = Initiator(UNNAMED, "b@host", 1)
    written = a.data_to_send()
    assert written == name_message(int(RECOMMENDED | DistFlags.NAME_ME), b"host", 0)
    named = packet(b"snamed:\0\7x1@host" + (99).to_bytes(4) + b"more")
    assert feed(a, named, one_by_one) == []
    assert (a.local.name, a.local.creation, a.local.unnamed) == ("x1@host", 99, False)
    assert a.state is State.AWAIT_CHALLENGE


def test_two_machines_agree_on_the_name_that_one_gives_to_the_other() -> None:
    a, b = Initiator(UNNAMED, "b@host", 1), acceptor()
    b.receive_data(a.data_to_send())
    b.send_named("x1@host", 99)
    a.receive_data(b.data_to_send())
    (up,) = b.receive_data(a.data_to_send())
    (also_up,) = a.receive_data(b.data_to_send())
    assert (up.name, up.creation, up.flags) == ("x1@host", 99, RECOMMENDED)
    assert (also_up.name, also_up.flags) == ("b@host", RECOMMENDED)


@pytest.mark.parametrize("status", [b"ok", b"ok_simultaneous", b"alive", b"nok"])
def test_who_gives_no_name_is_of_no_use_to_a_node_without_one(status: bytes) -> None:
    a = Initiator(UNNAMED, "b@host", 1)
    with pytest.raises(HandshakeError, match=r"^b@host gives no names to nodes without one$"):
        a.receive_data(packet(b"s" + status))
    assert a.state is State.CLOSED


@pytest.mark.parametrize(
    "named",
    [
        b"",
        b"\0",
        b"\0\7x1@hos",
        b"\0\7x1@host\0\0\1",
        b"\0\0\0\0\0\1",
        b"\0\4host\0\0\0\1",
        b"\0\7x\n@host\0\0\0\1",
    ],
)
def test_a_name_that_is_cut_short_or_none_is_not_taken(named: bytes) -> None:
    a = Initiator(UNNAMED, "b@host", 1)
    with pytest.raises(HandshakeError, match="broke the handshake"):
        a.receive_data(packet(b"snamed:" + named))
    assert a.local.unnamed


def test_a_node_without_a_name_may_not_be_allowed_either() -> None:
    with pytest.raises(NameRefused, match="does not allow"):
        Initiator(UNNAMED, "b@host", 1).receive_data(packet(b"snot_allowed"))


# --- what must not be ------------------------------------------------------------------------------


@pytest.mark.parametrize("answerer", ["c@host", "b@host2", "B@host"])
def test_an_answer_under_another_name_is_refused(answerer: str) -> None:
    a = initiator()
    a.receive_data(packet(b"sok"))
    with pytest.raises(HandshakeError, match=f"b@host was dialled, but {answerer} answered"):
        a.receive_data(challenge_message(name=answerer.encode()))


def test_an_answer_from_a_cluster_of_the_other_kind_of_names_says_so() -> None:
    a = initiator()
    a.receive_data(packet(b"sok"))
    said = "but b@host.domain answered: it uses long names, but this node, a@host, uses short ones"
    with pytest.raises(HandshakeError, match=said):
        a.receive_data(challenge_message(name=b"b@host.domain"))
    a = Initiator(attrs.evolve(A, name="a@10.0.0.1"), "b@10.0.0.2", 1)
    a.receive_data(packet(b"sok"))
    with pytest.raises(HandshakeError, match=r"b@host answered: it uses short names, .* uses long ones"):
        a.receive_data(challenge_message(name=b"b@host"))


@pytest.mark.parametrize("answerer", ["c@host.domain", "b@other.domain"])
def test_another_name_of_the_same_kind_has_no_hint(answerer: str) -> None:
    a = Initiator(attrs.evolve(A, name="a@host.domain"), "b@host.domain", 1)
    a.receive_data(packet(b"sok"))
    with pytest.raises(HandshakeError, match=f"but {answerer} answered$"):
        a.receive_data(challenge_message(name=answerer.encode()))


def test_numbers_of_four_bytes_are_read_and_answered_whole() -> None:
    creation, challenge = 0x81828384, 0xF1F2F3F4
    b = acceptor()
    assert b.receive_data(name_message(creation=creation)) == [NameReceived("a@host", creation, RECOMMENDED)]
    a = initiator()
    a.receive_data(packet(b"sok"))
    a.data_to_send()
    head = b"N" + int(RECOMMENDED).to_bytes(8) + challenge.to_bytes(4) + creation.to_bytes(4)
    a.receive_data(packet(head + (6).to_bytes(2) + b"b@host"))
    assert a.data_to_send() == packet(b"r" + CHALLENGE_A.to_bytes(4) + digest(SECRET.encode(), challenge))
    assert a.receive_data(ACK) == [HandshakeComplete("b@host", creation, RECOMMENDED)]


@pytest.mark.parametrize("answer", [b"smaybe", b"strue.", b"s"])
def test_an_answer_to_alive_that_is_none_is_refused(answer: bytes) -> None:
    machine = reach(State.AWAIT_ALIVE_ANSWER)
    with pytest.raises(HandshakeError, match="expected true or false"):
        machine.receive_data(packet(answer))


@pytest.mark.parametrize(
    ("length_size", "why"),
    [(2, "it may speak TLS, or be no node"), (4, "it may not accept this node's certificate")],
)
def test_a_peer_that_closes_without_an_answer_may_have_a_reason(length_size: int, why: str) -> None:
    a = Initiator(A, "b@host", CHALLENGE_A, length_size=length_size)
    with pytest.raises(HandshakeError, match=f"without answering the handshake: {why}"):
        a.receive_eof()


def test_the_longest_message_and_the_longest_name_are_taken_and_no_longer_ones() -> None:
    with pytest.raises(HandshakeError, match="expected a name of") as caught:
        acceptor().receive_data(packet(b"N".ljust(MAX_PACKET, b"\xff")))
    assert "is announced" not in str(caught.value)
    with pytest.raises(HandshakeError, match=f"a message of {MAX_PACKET + 1} bytes is announced"):
        acceptor().receive_data((MAX_PACKET + 1).to_bytes(2))
    longest = "a@" + "h" * 253
    assert acceptor().receive_data(name_message(name=longest.encode()))
    with pytest.raises(HandshakeError, match="a node name of 256 bytes"):
        acceptor().receive_data(name_message(name=longest.encode() + b"h"))


def test_a_name_that_is_given_is_no_longer_than_others() -> None:
    b = acceptor()
    b.receive_data(name_message(int(RECOMMENDED | DistFlags.NAME_ME), b"host"))
    with pytest.raises(LocalProtocolError, match="too long"):
        b.send_named("a@" + "h" * 254, 1)
    b.send_named("a@" + "h" * 253, 1)
    with pytest.raises(LocalProtocolError, match="did not ask"):
        b.send_named("a@h", 1)


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("a@h", True),
        ("A-b_9@h.domain", True),
        ("a.b@h", False),
        ("\u00e4@h", False),
        ("a b@h", False),
        ("a@h@h", False),
        ("@h", False),
        ("a@" + "h" * 253, True),
        ("a@" + "h" * 254, False),
    ],
)
def test_a_node_of_ours_has_a_name_that_otp_would_start(name: str, ours: bool) -> None:
    assert is_own_name(name) is ours


@pytest.mark.parametrize("record", [b"\x15\x03\x03\0\2", b"\x16\x03\x01\0\2"], ids=["alert", "hello"])
def test_a_peer_that_speaks_tls_is_told_apart(record: bytes) -> None:
    for machine in (initiator(), acceptor()):
        with pytest.raises(
            HandshakeError, match=r" speaks TLS \(-proto_dist inet_tls\), this connection is plain"
        ):
            machine.receive_data(record)


@pytest.mark.parametrize("name", ["", "a", "@host", "a@", "a@b@c", "a b@host", "a\n@host", "a\0@host"])
def test_a_name_that_is_none_is_not_allowed(name: str) -> None:
    assert not is_node_name(name)
    b = acceptor()
    with pytest.raises(HandshakeError):
        b.receive_data(name_message(name=name.encode()))
    assert b.data_to_send() in (b"", packet(b"snot_allowed"))


INPUTS = {
    "name": name_message(),
    "old name": packet(b"n\0\5" + (int(RECOMMENDED) & 0xFFFFFFFF).to_bytes(4) + b"a@host"),
    "complement": packet(b"c" + (int(RECOMMENDED) >> 32).to_bytes(4) + bytes(4)),
    "challenge": challenge_message(),
    "ok": packet(b"sok"),
    "ok_simultaneous": packet(b"sok_simultaneous"),
    "nok": packet(b"snok"),
    "not_allowed": packet(b"snot_allowed"),
    "alive": packet(b"salive"),
    "named": packet(b"snamed:\0\6a@host\0\0\0\1"),
    "true": packet(b"strue"),
    "false": packet(b"sfalse"),
    "reply": REPLY,
    "ack": ACK,
    "empty": packet(b""),
    "too long": (MAX_PACKET + 1).to_bytes(2),
    "garbage": packet(b"GET / HTTP/1.1"),
}


def reach(state: State) -> Initiator | Acceptor:
    """Make a machine that is in a state."""
    a, b = initiator(), acceptor()
    ways: dict[State, Callable[[], Any]] = {
        State.AWAIT_NAME: lambda: b,
        State.AWAIT_OUR_STATUS: lambda: (b.receive_data(INPUTS["name"]), b)[1],
        State.AWAIT_ALIVE_ANSWER: lambda: (b.receive_data(INPUTS["name"]), b.send_status("alive"), b)[2],
        State.AWAIT_COMPLEMENT: lambda: (b.receive_data(INPUTS["old name"]), b.send_status("ok"), b)[2],
        State.AWAIT_REPLY: lambda: (b.receive_data(INPUTS["name"]), b.send_status("ok"), b)[2],
        State.AWAIT_STATUS: lambda: a,
        State.AWAIT_OUR_ALIVE_ANSWER: lambda: (a.receive_data(INPUTS["alive"]), a)[1],
        State.AWAIT_CHALLENGE: lambda: (a.receive_data(INPUTS["ok"]), a)[1],
        State.AWAIT_ACK: lambda: (a.receive_data(INPUTS["ok"] + INPUTS["challenge"]), a)[1],
        State.DONE: lambda: (a.receive_data(INPUTS["ok"] + INPUTS["challenge"] + ACK), a)[1],
        State.CLOSED: lambda: (a.receive_data(INPUTS["nok"]), a)[1],
    }
    machine: Initiator | Acceptor = ways[state]()
    assert machine.state is state
    return machine


LEGAL = {
    (State.AWAIT_NAME, "name"): State.AWAIT_OUR_STATUS,
    (State.AWAIT_NAME, "old name"): State.AWAIT_OUR_STATUS,
    (State.AWAIT_ALIVE_ANSWER, "true"): State.AWAIT_REPLY,
    (State.AWAIT_COMPLEMENT, "complement"): State.AWAIT_REPLY,
    (State.AWAIT_REPLY, "reply"): State.DONE,
    (State.AWAIT_STATUS, "ok"): State.AWAIT_CHALLENGE,
    (State.AWAIT_STATUS, "ok_simultaneous"): State.AWAIT_CHALLENGE,
    (State.AWAIT_STATUS, "alive"): State.AWAIT_OUR_ALIVE_ANSWER,
    (State.AWAIT_STATUS, "nok"): State.CLOSED,
    (State.AWAIT_CHALLENGE, "challenge"): State.AWAIT_ACK,
    (State.AWAIT_ACK, "ack"): State.DONE,
}
KEEP = {State.AWAIT_OUR_STATUS, State.AWAIT_OUR_ALIVE_ANSWER, State.DONE, State.CLOSED}


@both_ways
@pytest.mark.parametrize(("state", "name"), list(itertools.product(State, INPUTS)), ids=str)
def test_every_input_in_every_state_is_legal_or_closes(state: State, name: str, one_by_one: bool) -> None:
    machine = reach(state)
    wanted = LEGAL.get((state, name))
    if wanted is not None:
        feed(machine, INPUTS[name], one_by_one)
        assert machine.state is wanted
    elif state in KEEP:
        assert feed(machine, INPUTS[name], one_by_one) == []
        assert machine.state is state
    else:
        with pytest.raises(HandshakeError):
            feed(machine, INPUTS[name], one_by_one)
        assert machine.state is State.CLOSED
        assert machine.receive_data(INPUTS["name"]) == []


@pytest.mark.parametrize("state", State)
def test_a_closed_connection_is_an_error_in_every_unfinished_state(state: State) -> None:
    machine = reach(state)
    if state in (State.DONE, State.CLOSED):
        machine.receive_eof()
    else:
        with pytest.raises(HandshakeError, match=r"closed|cookie"):
            machine.receive_eof()
    assert machine.state is State.CLOSED


@pytest.mark.parametrize("state", State)
def test_answers_that_nobody_asked_for_are_refused(state: State) -> None:
    machine = reach(state)
    if isinstance(machine, Acceptor) and state is not State.AWAIT_OUR_STATUS:
        with pytest.raises(LocalProtocolError):
            machine.send_status("ok")
        with pytest.raises(LocalProtocolError):
            machine.send_named("x@host", 1)
    if isinstance(machine, Initiator) and state is not State.AWAIT_OUR_ALIVE_ANSWER:
        with pytest.raises(LocalProtocolError):
            machine.send_alive(True)


def test_an_unknown_status_is_not_sent() -> None:
    machine = reach(State.AWAIT_OUR_STATUS)
    assert isinstance(machine, Acceptor)
    with pytest.raises(LocalProtocolError):
        machine.send_status("maybe")


# Shorter than these a message is incomplete; a status or an old name cut further back is another one.
WHOLE_FROM = {"old name": 10, "ok_simultaneous": 2}
EARLY = "ends early|expected a name of|a node name of 0 bytes"
CUT_SHORT = {"name": EARLY, "challenge": EARLY, "reply": EARLY}


@pytest.mark.parametrize(("state", "name"), list(LEGAL), ids=str)
def test_a_message_cut_short_is_refused(state: State, name: str) -> None:
    for size in range(1, WHOLE_FROM.get(name, len(INPUTS[name]) - 2)):
        machine = reach(state)
        with pytest.raises(HandshakeError, match=CUT_SHORT.get(name)):
            machine.receive_data(packet(INPUTS[name][2 : 2 + size]))


@given(st.sampled_from(list(State)), st.lists(st.binary(max_size=40), max_size=5))
def test_no_input_ends_in_an_undocumented_error(state: State, bodies: list[bytes]) -> None:
    machine = reach(state)
    with contextlib.suppress(HandshakeError):
        for body in bodies:
            machine.receive_data(packet(body))
        machine.receive_eof()
    assert machine.state is not state or state in KEEP or not bodies


def test_the_cookie_is_in_no_text() -> None:
    machines = [reach(state) for state in State]
    texts = [repr(machine) for machine in machines] + [repr(A), str(A)]
    for machine in machines:
        try:
            machine.receive_data(INPUTS["garbage"])
            machine.receive_eof()
        except HandshakeError as error:
            texts.append(str(error))
    assert not any(SECRET in text for text in texts)
