"""What a program may choose about a node: one tree, each setting in one place. Layer: node.

It holds in every operating-system process of the node: a worker gets the tree with the hub's welcome, and
each runtime has it (``me.runtime.settings``). A new setting is a new attribute, here or in a class of the
tree; its value is plain (numbers, text, flags, tuples of them, or a class of such), or ``HUB_ONLY`` says why
it stays.
"""

from __future__ import annotations

import enum
import functools
from typing import Any, Final, Literal, TypeAlias

import attrs

from pyglyn import etf
from pyglyn.net import NetSettings

Observe: TypeAlias = Literal["full", "read", "off"]


@attrs.frozen(kw_only=True)
class Reconnect:
    """How often to try again to reach a node that should stay connected (``Node.keep_connected``).

    Attributes:
        first: seconds before the second attempt.
        factor: each wait is so many times the one before.
        jitter: by up to which part a wait is made shorter, at random: nodes that lost the same one do not all
            come back in the same moment.
        longest: seconds a wait has at most.
    """

    first: float = 0.25
    factor: float = 2.0
    longest: float = 15.0
    jitter: float = 0.5

    def wait(self, attempts: int, random: float) -> float:
        """How long to wait after so many attempts that failed, given a random number from 0 to 1."""
        longest = min(self.first * self.factor ** min(attempts - 1, 64), self.longest)
        return longest * (1 - self.jitter * random)


@attrs.frozen(kw_only=True)
class Collector:
    """What is asked of Python's garbage collector, in each operating-system process of the node.

    Objects that wait are walked again and again with the thresholds that Python has, which are meant for
    programs that keep little.

    Attributes:
        thresholds: see ``gc.set_threshold``. None leaves those the program has; in the hub they are set while
            a node runs.
        freeze: once the first node of a program, or a worker, has started, what is there by then is never
            walked again (``gc.freeze``).
    """

    thresholds: tuple[int, int, int] | None = (50_000, 20, 100)
    freeze: bool = True


@attrs.frozen(kw_only=True)
class Settings:
    """Settings of a node; the defaults are OTP's where OTP has one.

    Attributes:
        net: addresses, limits, times and choices for connections. The tick time of the cluster (60 s) is
            ``net=NetSettings(channel=ChannelSettings(net_ticktime_s=…))``.
        auto_connect: connect to a node when something is sent to it.
        reconnect: the policy of ``keep_connected``.
        send_limit: bytes queued for one node above which ``send`` raises ``NodeBusy`` (256 MiB). Long before,
            at 1 MiB, a process that sends there waits in its next ``receive``, ``call`` or ``drain``. What is
            no message (exits, downs, answers to spawn requests) is queued up to twice as many; then the
            connection is closed. In a worker: bytes queued for the hub.
        worker_queue_limit: bytes queued for a worker above which the sources that send to it are no longer
            read (64 MiB).
        calls_of_a_node: calls and spawn requests of one other node that may run here at once; to further ones
            the answer is ``system_limit``.
        heartbeat_file: a file that ``Node.run`` writes every two seconds; see ``notify``. None for none.
        limits: depth, count and size of the terms accepted from peers.
        observe: what Observer, etop, LiveDashboard and the like get from this node: ``read`` answers all that
            changes nothing, ``full`` also ``exit/2``, ``sys:suspend`` and ``init:stop/0`` as functions,
            ``off`` nothing. It is no protection: who is in the cluster may send exit signals and messages
            anyway.
        collector: thresholds of the garbage collector, and what it leaves alone.
        spare_memory: bytes of freed memory that each operating-system process keeps for the next large
            message instead of asking the kernel anew, at most 32 MiB, where the allocator is glibc's; 0 for
            what glibc does by itself. It stays so when the node has stopped.
        shared_memory: bytes of memory that the hub and a worker have in common for large messages on their
            way, in each direction (16 MiB); those of more than half of it, and what finds no room, go through
            the socket. It is made when the first large message comes. 0 for none.
        last_words_s: how long a process may clean up after an exit signal. Then it has ended, whatever its
            coroutine does.
        check_timeout_s: how long a check of readiness may take before it counts as failed; a worker has twice
            that to say how its own went.
        worker_answer_s: how long a worker may take to say what is in it, before it is left out.
    """

    net: NetSettings = attrs.field(factory=NetSettings)
    auto_connect: bool = True
    reconnect: Reconnect = Reconnect()
    send_limit: int = 256 * 1024 * 1024
    worker_queue_limit: int = 64 * 1024 * 1024
    calls_of_a_node: int = 10_000
    heartbeat_file: str | None = None
    limits: etf.Limits = attrs.field(factory=etf.Limits)
    observe: Observe = attrs.field(default="read", validator=attrs.validators.in_(("full", "read", "off")))
    collector: Collector = Collector()
    spare_memory: int = 16 * 1024 * 1024
    shared_memory: int = 16 * 1024 * 1024
    last_words_s: float = 5.0
    check_timeout_s: float = 2.0
    worker_answer_s: float = 1.0


HUB_ONLY: Final = {
    "heartbeat_file": "it says whether the hub lives",
    "net.allowed": "a function of the hub's program; only the hub accepts connections",
    "net.tls": "only the hub makes and accepts connections, and a key's password is nobody else's business",
    "net.address_of": "a function of the hub's program; only the hub makes connections",
}
"""Settings that do not reach the workers, each with the reason; they have their default there."""


def to_bytes(settings: Settings) -> bytes:
    """The settings as a worker gets them."""
    return etf.encode(_told(settings, ""))


@functools.lru_cache(maxsize=1)
def from_bytes(data: bytes) -> Settings:
    """The settings that the hub has sent.

    A fork of a worker takes those of the worker, where they are the same: to read them anew would give it
    a third of a megabyte of its own.

    Raises:
        ValueError: there is one among them that this version does not have.
    """
    settings = _made(Settings(), etf.decode(data))
    assert isinstance(settings, Settings)
    return settings


def _told(value: Any, path: str) -> Any:
    if not attrs.has(type(value)):
        return value.value if isinstance(value, enum.Flag) else value
    paths = {field.name: f"{path}{field.name}" for field in attrs.fields(type(value))}
    return {
        name.encode(): _told(getattr(value, name), f"{below}.")
        for name, below in paths.items()
        if below not in HUB_ONLY
    }


def _made(default: Any, told: Any) -> Any:
    """What was told, of the kind that the default in its place is."""
    if attrs.has(type(default)):
        values = {name.decode(): value for name, value in told.items()}
        unknown = values.keys() - {field.name for field in attrs.fields(type(default))}
        if unknown:
            raise ValueError(f"{type(default).__name__} has no setting {', '.join(sorted(unknown))}")
        made = {name: _made(getattr(default, name), value) for name, value in values.items()}
        return attrs.evolve(default, **made)
    match told:
        case bytes():
            return told.decode()
        case tuple():
            return tuple(_made(None, each) for each in told)
    return type(default)(told) if isinstance(default, enum.Flag) else told
