"""The control messages of the distribution protocol, one class a meaning. Layer: dist, pure.

Source: erl_dist_protocol, "Protocol between Connected Nodes"; dist.h and dist.c (OTP 25.2, 28).

Several op numbers carry one meaning (with or without a trace token, with the reason inside the control
tuple or as the payload after it). Each meaning is one class here; ``to_term`` picks the op number that the
negotiated flags call for, ``from_term`` reads every one of them.

Attributes that recur: ``sender`` and ``to`` are the two ends, ``token`` is a sequential trace token (None
for none; carried along, never acted on). ``reason`` is ``IN_PAYLOAD`` where the exit reason is the term
after the control message.
"""

from __future__ import annotations

import enum
from typing import Final, TypeAlias

import attrs

from pyglyn.etf.terms import Atom, Pid, Reference, Term


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
    name: Term
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
    to: Pid | Reference | Atom
    token: Term = None


@attrs.define
class Exit:
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
    watched: Pid | Atom
    ref: Reference


@attrs.define
class DemonitorP:
    """DEMONITOR_P: ``watcher`` gives the monitor up."""

    watcher: Pid
    watched: Pid | Atom
    ref: Reference


@attrs.define
class MonitorPExit:
    """MONITOR_P_EXIT, PAYLOAD_MONITOR_P_EXIT: the watched process ended.

    ``watched`` is of the kind (pid or name) that the monitor was asked with.
    """

    watched: Pid | Atom
    watcher: Pid
    ref: Reference
    reason: Reason = IN_PAYLOAD


@attrs.define
class SpawnRequest:
    """SPAWN_REQUEST: run ``module:function/arity``; the payload is the argument list."""

    request_id: Reference
    sender: Pid
    group_leader: Pid | Atom
    mfa: tuple[Atom, Atom, int]
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
    result: Pid | Atom
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
    | Exit
    | Exit2
    | GroupLeader
    | MonitorP
    | DemonitorP
    | MonitorPExit
    | SpawnRequest
    | SpawnReply
)
