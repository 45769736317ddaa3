"""Control messages as tuples (erl_dist_protocol, "Protocol between Connected Nodes")."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyglyn.dist import RECOMMENDED, DistFlags
from pyglyn.dist.control import (
    IN_PAYLOAD,
    PAYLOAD_OPS,
    AliasSend,
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
    Op,
    RegSend,
    Send,
    SpawnFlags,
    SpawnReply,
    SpawnRequest,
    Unlink,
    UnlinkId,
    UnlinkIdAck,
    decode_control,
    from_term,
    to_term,
)
from pyglyn.errors import LimitExceeded, LocalProtocolError, RemoteProtocolError
from pyglyn.etf import Atom, Limits, Pid, Reference, Term, encode_bare
from tests.strategies import terms

A = Pid("a@host", 1, 0, 5)
B = Pid("b@host", 2, 1, 6)
REF = Reference("a@host", 5, (1, 2, 3))
NAME = Atom("name")
WHY = Atom("killed")
NONE = Atom("")
TOKEN = (0, 1, 2, A, 3)
MFA = (Atom("m"), Atom("f"), 2)
ALL = RECOMMENDED | DistFlags.ALTACT_SIG
OLD = RECOMMENDED & ~(DistFlags.EXIT_PAYLOAD | DistFlags.SEND_SENDER | DistFlags.UNLINK_ID)

# Each row: the tuple of the specification, and what it means.
TABLE: list[tuple[tuple[Term, ...], Control]] = [
    ((1, A, B), Link(A, B)),
    ((2, NONE, B), Send(None, B)),
    ((3, A, B, WHY), LinkExit(A, B, WHY)),
    ((4, A, B), Unlink(A, B)),
    ((6, A, NONE, NAME), RegSend(A, NAME)),
    ((7, A, B), GroupLeader(A, B)),
    ((8, A, B, WHY), Exit2(A, B, WHY)),
    ((12, NONE, B, TOKEN), Send(None, B, TOKEN)),
    ((13, A, B, TOKEN, WHY), LinkExit(A, B, WHY, TOKEN)),
    ((16, A, NONE, NAME, TOKEN), RegSend(A, NAME, TOKEN)),
    ((18, A, B, TOKEN, WHY), Exit2(A, B, WHY, TOKEN)),
    ((19, A, B, REF), MonitorP(A, B, REF)),
    ((19, A, NAME, REF), MonitorP(A, NAME, REF)),
    ((19, A, True, REF), MonitorP(A, True, REF)),
    ((20, A, B, REF), DemonitorP(A, B, REF)),
    ((20, A, NAME, REF), DemonitorP(A, NAME, REF)),
    ((21, B, A, REF, WHY), MonitorPExit(B, A, REF, WHY)),
    ((21, NAME, A, REF, [1]), MonitorPExit(NAME, A, REF, [1])),
    ((22, A, B), Send(A, B)),
    ((23, A, B, TOKEN), Send(A, B, TOKEN)),
    ((24, A, B), LinkExit(A, B)),
    ((25, A, B, TOKEN), LinkExit(A, B, IN_PAYLOAD, TOKEN)),
    ((26, A, B), Exit2(A, B)),
    ((27, A, B, TOKEN), Exit2(A, B, IN_PAYLOAD, TOKEN)),
    ((28, NAME, A, REF), MonitorPExit(NAME, A, REF)),
    ((29, REF, A, B, MFA, [Atom("link")]), SpawnRequest(REF, A, B, MFA, [Atom("link")])),
    ((29, REF, A, B, MFA, []), SpawnRequest(REF, A, B, MFA, [])),
    ((30, REF, A, B, MFA, [], TOKEN), SpawnRequest(REF, A, B, MFA, [], TOKEN)),
    ((31, REF, A, 3, B), SpawnReply(REF, A, SpawnFlags.LINK | SpawnFlags.MONITOR, B)),
    ((31, REF, A, 0, Atom("notsup")), SpawnReply(REF, A, SpawnFlags(0), Atom("notsup"))),
    ((32, REF, A, 2, B, TOKEN), SpawnReply(REF, A, SpawnFlags.MONITOR, B, TOKEN)),
    ((33, A, REF), AliasSend(A, REF)),
    ((34, A, REF, TOKEN), AliasSend(A, REF, TOKEN)),
    ((35, 7, A, B), UnlinkId(7, A, B)),
    ((35, 2**64 - 1, A, B), UnlinkId(2**64 - 1, A, B)),
    ((36, 7, A, B), UnlinkIdAck(7, A, B)),
    ((37, 0, A, B), AltactSend(Altact(0), A, B)),
    ((37, 5, A, REF), AltactSend(Altact.PRIORITY | Altact.ALIAS, A, REF)),
    ((37, 8, A, NAME), AltactSend(Altact.NAME, A, NAME)),
    ((37, 18, A, B, TOKEN), AltactSend(Altact.EXIT | Altact.TOKEN, A, B, TOKEN)),
]
IDS = [f"{Op(row[0][0]).name}-{len(row[0])}" for row in TABLE]
NEEDS_OLD_FLAGS = {2, 4, 12}


@pytest.mark.parametrize(("term", "control"), TABLE, ids=IDS)
def test_every_tuple_of_the_specification_is_read(term: tuple[Term, ...], control: Control) -> None:
    assert from_term(term) == control


@pytest.mark.parametrize(("term", "control"), TABLE, ids=IDS)
def test_every_tuple_of_the_specification_is_written(term: tuple[Term, ...], control: Control) -> None:
    flags = OLD if term[0] in NEEDS_OLD_FLAGS else ALL
    assert to_term(control, flags) == term


def test_every_op_number_is_in_the_table() -> None:
    assert {row[0][0] for row in TABLE} == set(Op)


@pytest.mark.parametrize(("term", "control"), TABLE, ids=IDS)
def test_a_tuple_of_another_length_is_refused(term: tuple[Term, ...], control: Control) -> None:
    """Wrong arity makes a real node close the connection."""
    for damaged in (term[:-1], (*term, A, A)):
        with pytest.raises(RemoteProtocolError):
            from_term(damaged)


@pytest.mark.parametrize(("term", "control"), TABLE, ids=IDS)
def test_a_field_of_another_type_is_refused_or_is_one_that_may_be_anything(
    term: tuple[Term, ...], control: Control
) -> None:
    free = {
        2: {1}, 3: {3}, 6: {2}, 8: {3}, 12: {1, 3}, 13: {3, 4}, 16: {2, 4}, 18: {3, 4}, 21: {4},
        23: {3}, 25: {3}, 27: {3}, 30: {6}, 32: {5}, 34: {3}, 37: {4},
    }  # fmt: skip
    for place in range(1, len(term)):
        damaged = (*term[:place], 1.5, *term[place + 1 :])
        if place in free.get(term[0], set()):
            from_term(damaged)
        else:
            with pytest.raises(RemoteProtocolError, match=rf"expected .* element|{place + 1}"):
                from_term(damaged)


@pytest.mark.parametrize(
    "term",
    [
        (),
        [1, A, B],
        (0, A, B),
        (5, A, B),
        (38, A, B),
        (True, A, B),  # `true` is no 1
        (1.0, A, B),
        (2**70, A, B),
        (Atom("send"), A, B),
        (35, 0, A, B),
        (35, 2**64, A, B),
        (36, -1, A, B),
        (33, A, NAME),  # ALIAS_SEND to a name
        (29, REF, A, B, (Atom("m"), Atom("f")), []),
        (29, REF, A, B, (Atom("m"), b"f", 1), []),
        (29, REF, A, B, (Atom("m"), Atom("f"), 256), []),
        (29, REF, A, B, (Atom("m"), Atom("f"), []), []),
        (31, REF, A, True, B),
        (37, 2, A, B),  # says that there is a token
        (37, 0, A, B, TOKEN),  # says that there is none
        (37, 4, A, B),  # says alias
        (37, 8, A, REF),  # says name
        (37, -1, A, B),
        A,
        b"",
        None,
    ],
    ids=repr,
)
def test_what_is_no_control_message_is_refused(term: Term) -> None:
    with pytest.raises(RemoteProtocolError):
        from_term(term)


@given(st.one_of(terms(), st.tuples(st.integers(0, 40), terms(), terms(), terms())))
def test_any_term_is_a_control_message_or_refused(term: Term) -> None:
    try:
        control = from_term(term)
    except RemoteProtocolError:
        return
    assert isinstance(term, tuple)
    assert from_term(to_term(control, ALL)) == control


class TestFallbacks:
    """What a peer that lacks a capability gets instead (erl_dist_protocol, "Distribution Flags")."""

    def test_a_message_to_an_alias_needs_the_flag(self) -> None:
        without = RECOMMENDED & ~DistFlags.ALIAS
        with pytest.raises(LocalProtocolError, match="ALIAS"):
            to_term(AliasSend(A, REF), without)
        assert to_term(AliasSend(A, REF), RECOMMENDED) == (33, A, REF)

    def test_send_without_send_sender(self) -> None:
        assert to_term(Send(A, B), OLD) == (2, NONE, B)
        assert to_term(Send(A, B, TOKEN), OLD) == (12, NONE, B, TOKEN)

    def test_unlink_id_becomes_unlink(self) -> None:
        assert to_term(UnlinkId(3, A, B), OLD) == (4, A, B)
        with pytest.raises(LocalProtocolError, match="UNLINK_ID"):
            to_term(UnlinkIdAck(3, A, B), OLD)

    def test_a_reason_in_the_tuple_needs_no_capability(self) -> None:
        assert to_term(LinkExit(A, B, WHY), OLD) == to_term(LinkExit(A, B, WHY), ALL) == (3, A, B, WHY)
        with pytest.raises(LocalProtocolError, match="EXIT_PAYLOAD"):
            to_term(Exit2(A, B), OLD)
        with pytest.raises(LocalProtocolError, match="EXIT_PAYLOAD"):
            to_term(MonitorPExit(A, B, REF), OLD)

    def test_priority_signals_become_ordinary_ones(self) -> None:
        """As an OTP 28 node does towards one that has no ALTACT_SIG."""
        priority = Altact.PRIORITY
        assert to_term(AltactSend(priority, A, B), RECOMMENDED) == (22, A, B)
        assert to_term(AltactSend(priority | Altact.NAME, A, NAME), RECOMMENDED) == (6, A, NONE, NAME)
        assert to_term(AltactSend(priority | Altact.ALIAS, A, REF), RECOMMENDED) == (33, A, REF)
        assert to_term(AltactSend(priority | Altact.EXIT, A, B), RECOMMENDED) == (26, A, B)
        with pytest.raises(LocalProtocolError, match="ALTACT_SIG"):
            to_term(AltactSend(Altact.EXIT | Altact.ALIAS, A, REF), RECOMMENDED)

    @pytest.mark.parametrize(
        ("control", "flag"),
        [
            (MonitorP(A, B, REF), DistFlags.DIST_MONITOR),
            (DemonitorP(A, B, REF), DistFlags.DIST_MONITOR),
            (MonitorPExit(A, B, REF, WHY), DistFlags.DIST_MONITOR),
            (SpawnRequest(REF, A, B, MFA, []), DistFlags.SPAWN),
        ],
        ids=lambda value: type(value).__name__,
    )
    def test_what_has_no_older_form_is_the_callers_mistake(self, control: Control, flag: DistFlags) -> None:
        with pytest.raises(LocalProtocolError, match=str(flag.name)):
            to_term(control, RECOMMENDED & ~flag)


def test_ops_with_a_payload_are_those_of_the_specification() -> None:
    assert {Op(op).name for op in PAYLOAD_OPS} == {
        name
        for name in Op.__members__
        if name.startswith(("SEND", "REG_SEND", "PAYLOAD_", "SPAWN_REQUEST", "ALIAS_SEND", "ALTACT"))
    }


DEEP: Term = [[[[[[[[[[[[1]]]]]]]]]]]]
FEW = Limits(depth=8)


@pytest.mark.parametrize(
    "before",
    [(3, A, B), (8, A, B), (13, A, B, TOKEN), (18, A, B, TOKEN), (21, A, B, REF)],
    ids=lambda before: str(before[0]),
)
def test_a_reason_beyond_the_limits_is_replaced_and_all_before_it_kept(before: tuple[Term, ...]) -> None:
    data = b"head" + encode_bare((*before, DEEP))
    term, end = decode_control(data, 4, FEW)
    assert isinstance(term, tuple)
    assert (term[:-1], end) == (before, len(data))
    assert isinstance(term[-1], tuple)
    assert term[-1][0] is Atom("undecodable")
    assert from_term(term).reason == term[-1]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "term",
    [
        (1, A, DEEP),
        (3, A, DEEP),
        (3, A, B, 1, DEEP),
        (Atom("x"), A, B, DEEP),
        (DEEP,),
        [3, A, B, DEEP],
        (3, DEEP, B, 1),
    ],
    ids=repr,
)
def test_anything_else_beyond_the_limits_is_an_error(term: Term) -> None:
    with pytest.raises(LimitExceeded):
        decode_control(encode_bare(term), 0, FEW)


def test_the_bits_of_altact_send_are_otps() -> None:
    assert {bit.name: int(bit) for bit in Altact} == {
        "PRIORITY": 1,
        "TOKEN": 2,
        "ALIAS": 4,
        "NAME": 8,
        "EXIT": 16,
    }
