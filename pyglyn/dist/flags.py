"""Capability flags exchanged in the handshake. Layer: dist, pure.

Source: erl_dist_protocol, "Distribution Flags"; dist.h (OTP 25.2, 28.5). The names are OTP's without the
``DFLAG_`` in front. The values were checked against what real nodes offer and refuse (OTP 25, 28).

Not supported: the obsolete atom caches, SMALL_ATOM_TAGS as anything but an offer, and the priority
signals of OTP 28 (ALTACT_SIG), which are read but never offered.
"""

from __future__ import annotations

import enum


class DistFlags(enum.IntFlag):
    """What a node can do; both sides use only what both offer."""

    PUBLISHED = 0x1
    ATOM_CACHE = 0x2
    EXTENDED_REFERENCES = 0x4
    DIST_MONITOR = 0x8
    FUN_TAGS = 0x10
    DIST_MONITOR_NAME = 0x20
    HIDDEN_ATOM_CACHE = 0x40
    NEW_FUN_TAGS = 0x80
    EXTENDED_PIDS_PORTS = 0x100
    EXPORT_PTR_TAG = 0x200
    BIT_BINARIES = 0x400
    NEW_FLOATS = 0x800
    UNICODE_IO = 0x1000
    DIST_HDR_ATOM_CACHE = 0x2000
    SMALL_ATOM_TAGS = 0x4000
    UTF8_ATOMS = 0x10000
    MAP_TAG = 0x20000
    BIG_CREATION = 0x40000
    SEND_SENDER = 0x80000
    BIG_SEQTRACE_LABELS = 0x100000
    EXIT_PAYLOAD = 0x400000
    FRAGMENTS = 0x800000
    HANDSHAKE_23 = 0x1000000
    UNLINK_ID = 0x2000000
    # The documentation prints this one as 1 bsl 36; dist.h and the wire have bit 26 (seen on OTP 28).
    MANDATORY_25_DIGEST = 0x4000000
    SPAWN = 1 << 32
    NAME_ME = 1 << 33
    V4_NC = 1 << 34
    ALIAS = 1 << 35
    LOCAL_EXT = 1 << 36
    ALTACT_SIG = 1 << 37


MANDATORY_25 = (
    DistFlags.EXTENDED_REFERENCES
    | DistFlags.FUN_TAGS
    | DistFlags.NEW_FUN_TAGS
    | DistFlags.EXTENDED_PIDS_PORTS
    | DistFlags.EXPORT_PTR_TAG
    | DistFlags.BIT_BINARIES
    | DistFlags.NEW_FLOATS
    | DistFlags.UTF8_ATOMS
    | DistFlags.MAP_TAG
    | DistFlags.BIG_CREATION
    | DistFlags.HANDSHAKE_23
)
"""What OTP 25 demands of a peer, and what we demand: everything else has a fallback."""

MANDATORY_26 = MANDATORY_25 | DistFlags.V4_NC | DistFlags.UNLINK_ID
"""What OTP 26, 27 and 28 demand of a peer."""

RECOMMENDED = (
    MANDATORY_26
    | DistFlags.DIST_MONITOR
    | DistFlags.DIST_MONITOR_NAME
    | DistFlags.UNICODE_IO
    | DistFlags.SMALL_ATOM_TAGS
    | DistFlags.SEND_SENDER
    | DistFlags.BIG_SEQTRACE_LABELS
    | DistFlags.EXIT_PAYLOAD
    | DistFlags.FRAGMENTS
    | DistFlags.MANDATORY_25_DIGEST
    | DistFlags.SPAWN
    | DistFlags.ALIAS
)
"""What we offer: OTP's own default without the atom cache, so that payloads can be forwarded untouched.

A visible node adds ``PUBLISHED``.
"""


def expand(flags: int) -> DistFlags:
    """Give a peer's flag word its meaning: the digest bit stands for all that OTP 25 demands.

    Bits without a name are dropped; only ``local & peer`` is ever used.
    """
    known = DistFlags(flags & _KNOWN)
    return known | MANDATORY_25 if known & DistFlags.MANDATORY_25_DIGEST else known


def missing(flags: DistFlags, required: DistFlags) -> tuple[str, ...]:
    """The names of the required flags that are not there, lowest bit first."""
    return names(required & ~flags)


def names(flags: DistFlags) -> tuple[str, ...]:
    """The names of the flags that are set, lowest bit first."""
    return tuple(flag.name for flag in DistFlags if flag in flags and flag.name)


_KNOWN = 0
for _flag in DistFlags:
    _KNOWN |= _flag.value
