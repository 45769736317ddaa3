"""The control messages of the distribution protocol, one class a meaning. Layer: dist, pure.

Source: erl_dist_protocol, "Protocol between Connected Nodes"; dist.h and dist.c (OTP 25.2, 28).

Several op numbers carry one meaning (with or without a trace token, with the reason inside the control
tuple or as the payload after it). Each meaning is one class here; ``to_term`` picks the op number that the
negotiated flags call for, ``from_term`` reads every one of them.

Not supported: acting on trace tokens, and sending the priority signals of OTP 28 to a peer that has not
negotiated them (they go as ordinary ones, as OTP does).

Attributes that recur: ``sender`` and ``to`` are the two ends, ``token`` is a sequential trace token (None
for none; carried along, never acted on). ``reason`` is ``IN_PAYLOAD`` where the exit reason is the term
after the control message.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any, Final, TypeAlias

import attrs

from pyglyn.dist.flags import DistFlags
from pyglyn.errors import DecodeError, LimitExceeded, LocalProtocolError, RemoteProtocolError
from pyglyn.etf import Atom, Limits, Pid, Reference, Term, decode_bare
from pyglyn.etf.frames import Signals


class Op(enum.IntEnum):
    """Op numbers under their OTP names."""

    LINK = 1
    SEND = 2
    EXIT = 3
    UNLINK = 4
    REG_SEND = 6
    GROUP_LEADER = 7
    EXIT2 = 8
    SEND_TT = 12
    EXIT_TT = 13
    REG_SEND_TT = 16
    EXIT2_TT = 18
    MONITOR_P = 19
    DEMONITOR_P = 20
    MONITOR_P_EXIT = 21
    SEND_SENDER = 22
    SEND_SENDER_TT = 23
    PAYLOAD_EXIT = 24
    PAYLOAD_EXIT_TT = 25
    PAYLOAD_EXIT2 = 26
    PAYLOAD_EXIT2_TT = 27
    PAYLOAD_MONITOR_P_EXIT = 28
    SPAWN_REQUEST = 29
    SPAWN_REQUEST_TT = 30
    SPAWN_REPLY = 31
    SPAWN_REPLY_TT = 32
    ALIAS_SEND = 33
    ALIAS_SEND_TT = 34
    UNLINK_ID = 35
    UNLINK_ID_ACK = 36
    ALTACT_SIG_SEND = 37


class _InPayload(enum.Enum):
    IN_PAYLOAD = "in payload"

    def __repr__(self) -> str:
        return "IN_PAYLOAD"


IN_PAYLOAD: Final = _InPayload.IN_PAYLOAD
Reason: TypeAlias = "Term | _InPayload"
Name: TypeAlias = "Atom | bool | None"
"""A registered name: any atom, and so the three atoms that are Python's own values."""


@attrs.define
class Link:
    """LINK: link ``sender`` and ``to``."""

    sender: Pid
    to: Pid


@attrs.define
class Unlink:
    """UNLINK, before OTP 26 only and only without UNLINK_ID negotiated."""

    sender: Pid
    to: Pid


@attrs.define
class UnlinkId:
    """UNLINK_ID: remove the link; ``to`` acknowledges with the same id (1..2^64-1)."""

    id: int
    sender: Pid
    to: Pid


@attrs.define
class UnlinkIdAck:
    """UNLINK_ID_ACK: ``sender`` has removed the link that ``to`` asked it to."""

    id: int
    sender: Pid
    to: Pid


@attrs.define
class Send:
    """SEND, SEND_SENDER: a message to a pid; ``sender`` is None in the older form."""

    sender: Pid | None
    to: Pid
    token: Term = None


@attrs.define
class RegSend:
    """REG_SEND: a message to a registered name."""

    sender: Pid
    name: Name
    token: Term = None


@attrs.define
class AliasSend:
    """ALIAS_SEND: a message to a process alias."""

    sender: Pid
    alias: Reference
    token: Term = None


class Altact(enum.IntFlag):
    """The bits of ALTACT_SIG_SEND."""

    PRIORITY = 1
    TOKEN = 2
    ALIAS = 4
    NAME = 8
    EXIT = 16


@attrs.define
class AltactSend:
    """ALTACT_SIG_SEND (OTP 28): a message, or with ``Altact.EXIT`` an exit signal, to pid, alias or name."""

    bits: Altact
    sender: Pid
    to: Pid | Reference | Name
    token: Term = None


@attrs.define
class LinkExit:
    """EXIT, PAYLOAD_EXIT: ``sender`` ended, or the link broke."""

    sender: Pid
    to: Pid
    reason: Reason = IN_PAYLOAD
    token: Term = None


@attrs.define
class Exit2:
    """EXIT2, PAYLOAD_EXIT2: ``sender`` called ``exit(To, Reason)``."""

    sender: Pid
    to: Pid
    reason: Reason = IN_PAYLOAD
    token: Term = None


@attrs.define
class GroupLeader:
    """GROUP_LEADER: ``leader`` becomes the group leader of ``to``."""

    leader: Pid
    to: Pid


@attrs.define
class MonitorP:
    """MONITOR_P: ``watcher`` monitors a pid or a registered name of the receiving node."""

    watcher: Pid
    watched: Pid | Name
    ref: Reference


@attrs.define
class DemonitorP:
    """DEMONITOR_P: ``watcher`` gives the monitor up."""

    watcher: Pid
    watched: Pid | Name
    ref: Reference


@attrs.define
class MonitorPExit:
    """MONITOR_P_EXIT, PAYLOAD_MONITOR_P_EXIT: the watched process ended.

    ``watched`` is of the kind (pid or name) that the monitor was asked with.
    """

    watched: Pid | Name
    watcher: Pid
    ref: Reference
    reason: Reason = IN_PAYLOAD


@attrs.define
class SpawnRequest:
    """SPAWN_REQUEST: run ``module:function/arity``; the payload is the argument list."""

    request_id: Reference
    sender: Pid
    group_leader: Pid
    mfa: tuple[Name, Name, int]
    options: list[Term]
    token: Term = None


class SpawnFlags(enum.IntFlag):
    """The flags of SPAWN_REPLY."""

    LINK = 1
    MONITOR = 2


@attrs.define
class SpawnReply:
    """SPAWN_REPLY: ``result`` is the new pid, or an atom that says why there is none."""

    request_id: Reference
    to: Pid
    flags: SpawnFlags
    result: Pid | Name
    token: Term = None


Control: TypeAlias = (
    Link
    | Unlink
    | UnlinkId
    | UnlinkIdAck
    | Send
    | RegSend
    | AliasSend
    | AltactSend
    | LinkExit
    | Exit2
    | GroupLeader
    | MonitorP
    | DemonitorP
    | MonitorPExit
    | SpawnRequest
    | SpawnReply
)

# --- writing ---------------------------------------------------------------------------------------

_MONITOR = Atom("monitor")
_NO_COOKIE = Atom("")
"""Fills the place where a cookie once was."""

# Plain integers: testing an IntFlag costs a microsecond, and this is done for every message.
_SEND_SENDER = DistFlags.SEND_SENDER.value
_UNLINK_ID = DistFlags.UNLINK_ID.value
_ALTACT_SIG = DistFlags.ALTACT_SIG.value
_ALIAS = DistFlags.ALIAS.value
_EXIT_PAYLOAD = DistFlags.EXIT_PAYLOAD.value
_SPAWN = DistFlags.SPAWN.value


def to_term(control: Control, flags: int) -> tuple[Any, ...]:
    """Write a control message as the tuple that goes on the wire.

    Where a meaning has several op numbers, the flags that both sides offered decide. A ``reason`` that
    is no ``IN_PAYLOAD`` stays inside the tuple, which every release accepts. ``flags`` may be a
    ``DistFlags``, but its plain integer is faster.

    Raises:
        LocalProtocolError: the peer has not negotiated this message and there is no older form of it,
            or the reason is to travel as payload to a peer that cannot read it there.
    """
    return _WRITERS[type(control)](control, flags)


_MONITORS = (DistFlags.DIST_MONITOR | DistFlags.DIST_MONITOR_NAME).value
"""Both, whatever is monitored: with one of them only, OTP sends nothing (erts_dsig_send_monitor in dist.c)."""


def _need(flags: int, needed: int, what: str) -> None:
    if flags & needed != needed:
        raise LocalProtocolError(f"the peer has not negotiated {DistFlags(needed).name}: no {what}")


def _write_unlink_id(c: UnlinkId, flags: int) -> tuple[Any, ...]:
    if flags & _UNLINK_ID:
        return 35, c.id, c.sender, c.to
    return 4, c.sender, c.to


def _write_unlink_id_ack(c: UnlinkIdAck, flags: int) -> tuple[Any, ...]:
    _need(flags, _UNLINK_ID, "UNLINK_ID_ACK")
    return 36, c.id, c.sender, c.to


def _write_send(c: Send, flags: int) -> tuple[Any, ...]:
    if c.sender is not None and flags & _SEND_SENDER:
        return (22, c.sender, c.to) if c.token is None else (23, c.sender, c.to, c.token)
    return (2, _NO_COOKIE, c.to) if c.token is None else (12, _NO_COOKIE, c.to, c.token)


def _write_reg_send(c: RegSend, flags: int) -> tuple[Any, ...]:
    if c.token is None:
        return 6, c.sender, _NO_COOKIE, c.name
    return 16, c.sender, _NO_COOKIE, c.name, c.token


def _write_alias_send(c: AliasSend, flags: int) -> tuple[Any, ...]:
    _need(flags, _ALIAS, "ALIAS_SEND")
    return (33, c.sender, c.alias) if c.token is None else (34, c.sender, c.alias, c.token)


def _write_altact_send(c: AltactSend, flags: int) -> tuple[Any, ...]:
    bits = c.bits & ~Altact.TOKEN
    if flags & _ALTACT_SIG:
        if c.token is None:
            return 37, int(bits), c.sender, c.to
        return 37, int(bits | Altact.TOKEN), c.sender, c.to, c.token
    to = c.to
    if isinstance(to, Pid):
        if Altact.EXIT in bits:
            return _write_exit2(Exit2(c.sender, to, IN_PAYLOAD, c.token), flags)
        return _write_send(Send(c.sender, to, c.token), flags)
    if Altact.EXIT in bits:
        _need(flags, _ALTACT_SIG, "exit signal to an alias or a name")
    if isinstance(to, Reference):
        return _write_alias_send(AliasSend(c.sender, to, c.token), flags)
    return _write_reg_send(RegSend(c.sender, to, c.token), flags)


def _write_exit(c: LinkExit, flags: int) -> tuple[Any, ...]:
    return _exit_tuple((24, 25, 3, 13), c, flags)


def _write_exit2(c: Exit2, flags: int) -> tuple[Any, ...]:
    return _exit_tuple((26, 27, 8, 18), c, flags)


def _exit_tuple(ops: tuple[int, int, int, int], c: LinkExit | Exit2, flags: int) -> tuple[Any, ...]:
    """Choose among payload, payload with token, reason inside, reason inside with token."""
    if c.reason is IN_PAYLOAD:
        _need(flags, _EXIT_PAYLOAD, "exit reason as payload")
        return (ops[0], c.sender, c.to) if c.token is None else (ops[1], c.sender, c.to, c.token)
    if c.token is None:
        return ops[2], c.sender, c.to, c.reason
    return ops[3], c.sender, c.to, c.token, c.reason


def _write_monitor_p(c: MonitorP, flags: int) -> tuple[Any, ...]:
    _need(flags, _MONITORS, "MONITOR_P")
    return 19, c.watcher, c.watched, c.ref


def _write_demonitor_p(c: DemonitorP, flags: int) -> tuple[Any, ...]:
    _need(flags, _MONITORS, "DEMONITOR_P")
    return 20, c.watcher, c.watched, c.ref


def _write_monitor_p_exit(c: MonitorPExit, flags: int) -> tuple[Any, ...]:
    _need(flags, _MONITORS, "MONITOR_P_EXIT")
    if c.reason is IN_PAYLOAD:
        _need(flags, _EXIT_PAYLOAD, "exit reason as payload")
        return 28, c.watched, c.watcher, c.ref
    return 21, c.watched, c.watcher, c.ref, c.reason


def _write_spawn_request(c: SpawnRequest, flags: int) -> tuple[Any, ...]:
    _need(flags, _SPAWN, "SPAWN_REQUEST")
    if _MONITOR in c.options:
        _need(flags, _MONITORS, "SPAWN_REQUEST whose process is monitored")
    fields = (c.request_id, c.sender, c.group_leader, c.mfa, c.options)
    return (29, *fields) if c.token is None else (30, *fields, c.token)


def _write_spawn_reply(c: SpawnReply, flags: int) -> tuple[Any, ...]:
    _need(flags, _SPAWN, "SPAWN_REPLY")
    fields = (c.request_id, c.to, int(c.flags), c.result)
    return (31, *fields) if c.token is None else (32, *fields, c.token)


_WRITERS: dict[type, Callable[[Any, int], tuple[Any, ...]]] = {
    Link: lambda c, flags: (1, c.sender, c.to),
    Unlink: lambda c, flags: (4, c.sender, c.to),
    UnlinkId: _write_unlink_id,
    UnlinkIdAck: _write_unlink_id_ack,
    Send: _write_send,
    RegSend: _write_reg_send,
    AliasSend: _write_alias_send,
    AltactSend: _write_altact_send,
    LinkExit: _write_exit,
    Exit2: _write_exit2,
    GroupLeader: lambda c, flags: (7, c.leader, c.to),
    MonitorP: _write_monitor_p,
    DemonitorP: _write_demonitor_p,
    MonitorPExit: _write_monitor_p_exit,
    SpawnRequest: _write_spawn_request,
    SpawnReply: _write_spawn_reply,
}


# --- reading ---------------------------------------------------------------------------------------

PAYLOAD_OPS: Final = frozenset((2, 6, 12, 16, 22, 23, 24, 25, 26, 27, 28, 29, 30, 33, 34, 37))
"""The ops that are followed by a payload term."""

_PID = frozenset((Pid,))
_REFERENCE = frozenset((Reference,))
_NAME = frozenset((Atom, bool, type(None)))
_PID_OR_NAME = _PID | _NAME
_INTEGER = frozenset((int,))
_TUPLE = frozenset((tuple,))
_LIST = frozenset((list,))
_ANY: frozenset[type] = frozenset()
_LAST_UNLINK_ID = (1 << 64) - 1


_REASON_LAST = {Op.EXIT: 4, Op.EXIT2: 4, Op.EXIT_TT: 5, Op.EXIT2_TT: 5, Op.MONITOR_P_EXIT: 5}
"""Control messages with a term of the application in the tuple, and their sizes: it is the last element."""

_SMALL_TUPLE = 104


def undecodable(error: DecodeError) -> Term:
    """What stands for a term beyond the limits: ``{undecodable, Text}``.

    A signal is never dropped for what is in it: the monitor fires, the link breaks, with this as the reason.
    """
    return (Atom("undecodable"), str(error).encode("utf-8", "replace"))


def decode_control(data: bytes | memoryview, at: int, limits: Limits) -> tuple[Term, int]:
    """Decode a control tuple; a reason in it that goes beyond the limits is replaced by `undecodable`.

    Returns:
        The tuple and where the payload begins.

    Raises:
        DecodeError: it is damaged, or something else in it goes beyond the limits.
    """
    try:
        return decode_bare(data, at, limits=limits)
    except LimitExceeded as error:
        if bytes(data[at : at + 1]) != bytes([_SMALL_TUPLE]):
            raise
        elements: list[Term] = []
        end = at + 2
        op, end = decode_bare(data, end, limits=limits)
        size = _REASON_LAST.get(op) if type(op) is int else None  # type: ignore[call-overload]
        if size is None or data[at + 1] != size:
            raise
        elements.append(op)
        while len(elements) < size - 1:
            element, end = decode_bare(data, end, limits=limits)
            elements.append(element)
        return (*elements, undecodable(error)), len(data)


def from_term(term: Term) -> Control:
    """Read a control message, as strict about its shape as a real node is.

    Whether the pids in it belong to the right nodes is for the channel to check, which knows them.

    Raises:
        RemoteProtocolError: no tuple, unknown op, wrong arity, or a field of the wrong type. A real
            node closes the connection for any of these (erts_net_message in dist.c).
    """
    if type(term) is not tuple or not term:
        raise RemoteProtocolError("a control message must be a tuple that starts with its op number")
    op = term[0]
    layout = _LAYOUTS.get(op) if type(op) is int else None
    if layout is None:
        raise RemoteProtocolError(f"unknown control message op {op!r:.40}")
    kinds, build = layout
    fields = term[1:]
    if len(fields) != len(kinds):
        if op == Op.ALTACT_SIG_SEND and len(fields) == len(kinds) + 1:
            return _read_altact_send(*fields)
        raise RemoteProtocolError(
            f"{Op(op).name}: expected a tuple of {len(kinds) + 1} elements, got {len(term)}"
        )
    for index, kind in enumerate(kinds):
        if kind and type(fields[index]) not in kind:
            raise _wrong_type(op, index + 2, kind, fields[index])
    return build(*fields)


def _wrong_type(op: int, position: int, kind: frozenset[type], value: object) -> RemoteProtocolError:
    expected = " or ".join(sorted("atom" if k is Atom else k.__name__ for k in kind - {bool, type(None)}))
    return RemoteProtocolError(
        f"{Op(op).name}: expected {expected} as element {position}, got {type(value).__name__}"
    )


def _read_unlink_id(id_: int, sender: Pid, to: Pid) -> UnlinkId:
    return UnlinkId(_checked_unlink_id(id_), sender, to)


def _read_unlink_id_ack(id_: int, sender: Pid, to: Pid) -> UnlinkIdAck:
    return UnlinkIdAck(_checked_unlink_id(id_), sender, to)


def _checked_unlink_id(id_: int) -> int:
    if not 1 <= id_ <= _LAST_UNLINK_ID:
        raise RemoteProtocolError("UNLINK_ID: an id is between 1 and 2^64-1")
    return id_


def _read_spawn_request(
    request_id: Reference,
    sender: Pid,
    leader: Pid,
    mfa: tuple[Any, ...],
    options: list[Term],
    *token: Term,
) -> SpawnRequest:
    if len(mfa) != 3 or not {type(mfa[0]), type(mfa[1])} <= _NAME or type(mfa[2]) is not int:
        raise RemoteProtocolError("SPAWN_REQUEST: expected {Module, Function, Arity} as element 5")
    if not 0 <= mfa[2] <= 255:
        raise RemoteProtocolError("SPAWN_REQUEST: an arity is between 0 and 255")
    return SpawnRequest(request_id, sender, leader, mfa, options, *token)


def _read_spawn_reply(
    request_id: Reference, to: Pid, flags: int, result: Pid | Name, *token: Term
) -> SpawnReply:
    return SpawnReply(request_id, to, SpawnFlags(flags & 3), result, *token)


def _read_altact_send(bits: int, sender: Pid, to: Any, *token: Term) -> AltactSend:
    if type(bits) is not int or bits < 0 or type(sender) is not Pid:
        raise RemoteProtocolError("ALTACT_SIG_SEND: expected bits and a pid as elements 2 and 3")
    kind = _REFERENCE if bits & Altact.ALIAS else _NAME if bits & Altact.NAME else _PID
    if type(to) not in kind:
        raise _wrong_type(Op.ALTACT_SIG_SEND, 4, kind, to)
    if bool(token) != bool(bits & Altact.TOKEN):
        raise RemoteProtocolError("ALTACT_SIG_SEND: the token bit and the tuple disagree")
    return AltactSend(Altact(bits & 31), sender, to, *token)


_LAYOUTS: dict[int, tuple[tuple[frozenset[type], ...], Callable[..., Control]]] = {
    1: ((_PID, _PID), Link),
    2: ((_ANY, _PID), lambda _, to: Send(None, to)),
    3: ((_PID, _PID, _ANY), LinkExit),
    4: ((_PID, _PID), Unlink),
    6: ((_PID, _ANY, _NAME), lambda sender, _, name: RegSend(sender, name)),
    7: ((_PID, _PID), GroupLeader),
    8: ((_PID, _PID, _ANY), Exit2),
    12: ((_ANY, _PID, _ANY), lambda _, to, token: Send(None, to, token)),
    13: ((_PID, _PID, _ANY, _ANY), lambda sender, to, token, reason: LinkExit(sender, to, reason, token)),
    16: ((_PID, _ANY, _NAME, _ANY), lambda sender, _, name, token: RegSend(sender, name, token)),
    18: ((_PID, _PID, _ANY, _ANY), lambda sender, to, token, reason: Exit2(sender, to, reason, token)),
    19: ((_PID, _PID_OR_NAME, _REFERENCE), MonitorP),
    20: ((_PID, _PID_OR_NAME, _REFERENCE), DemonitorP),
    21: ((_PID_OR_NAME, _PID, _REFERENCE, _ANY), MonitorPExit),
    22: ((_PID, _PID), Send),
    23: ((_PID, _PID, _ANY), Send),
    24: ((_PID, _PID), LinkExit),
    25: ((_PID, _PID, _ANY), lambda sender, to, token: LinkExit(sender, to, IN_PAYLOAD, token)),
    26: ((_PID, _PID), Exit2),
    27: ((_PID, _PID, _ANY), lambda sender, to, token: Exit2(sender, to, IN_PAYLOAD, token)),
    28: ((_PID_OR_NAME, _PID, _REFERENCE), MonitorPExit),
    29: ((_REFERENCE, _PID, _PID, _TUPLE, _LIST), _read_spawn_request),
    30: ((_REFERENCE, _PID, _PID, _TUPLE, _LIST, _ANY), _read_spawn_request),
    31: ((_REFERENCE, _PID, _INTEGER, _PID_OR_NAME), _read_spawn_reply),
    32: ((_REFERENCE, _PID, _INTEGER, _PID_OR_NAME, _ANY), _read_spawn_reply),
    33: ((_PID, _REFERENCE), AliasSend),
    34: ((_PID, _REFERENCE, _ANY), AliasSend),
    35: ((_INTEGER, _PID, _PID), _read_unlink_id),
    36: ((_INTEGER, _PID, _PID), _read_unlink_id_ack),
    37: ((_INTEGER, _PID, _ANY), _read_altact_send),
}

CALL_SIGNALS: Final[Signals] = {
    19: ("pnr", MonitorP, False),
    20: ("pnr", DemonitorP, False),
    33: ("pr", AliasSend, True),
}
"""What each call brings, in its usual form: read as it comes off a connection or a link (`etf.cut_frames`)."""

LINK_SIGNALS: Final[Signals] = {
    1: ("pp", Link, False),
    24: ("pp", LinkExit, True),
    28: ("npr", MonitorPExit, True),
    35: ("ipp", UnlinkId, False),
    36: ("ipp", UnlinkIdAck, False),
}
"""The same of links, and of ends."""
