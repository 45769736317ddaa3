"""What a program may choose about a node. Layer: node."""

from __future__ import annotations

import attrs

from pyglyn import etf


@attrs.frozen(kw_only=True)
class Reconnect:
    """How often to try again to reach a node that should stay connected (``Node.keep_connected``).

    Attributes:
        first: seconds before the second attempt.
        factor: each wait is so many times the one before.
        longest: seconds a wait has at most.
    """

    first: float = 0.25
    factor: float = 2.0
    longest: float = 15.0


@attrs.frozen(kw_only=True)
class Settings:
    """Settings of a node; the defaults are OTP's where OTP has one.

    Attributes:
        net_ticktime: seconds after which a silent peer counts as dead (60; the cluster's value).
        auto_connect: connect to a node when something is sent to it.
        reconnect: the policy of ``keep_connected``.
        send_limit: bytes queued for one node above which ``send`` raises ``NodeBusy`` (256 MiB). Long before,
            at 1 MiB, a process that sends there waits in its next ``receive``, ``call`` or ``drain``.
        worker_queue_limit: bytes queued for a worker above which the sources that send to it are no longer
            read (64 MiB).
        limits: depth, count and size of the terms accepted from peers.
    """

    net_ticktime: float = 60.0
    auto_connect: bool = True
    reconnect: Reconnect = Reconnect()
    send_limit: int = 256 * 1024 * 1024
    worker_queue_limit: int = 64 * 1024 * 1024
    limits: etf.Limits = attrs.field(factory=etf.Limits)
