"""The short way of a message that goes where the one before it went. Layer: node.

A process often sends many messages to one receiver. The control message is the same for all of them then,
and so is the connection, the link or the process here that they come to. A `Way` is what was found out for
the last one: the next is put behind the same bytes into the same queue, or into the same mailbox. It says no
where anything is not as it was, or anybody has to wait, and the message takes the way of every signal
(``runtime``, ``router``), which gives the same bytes in the same queue: so the order is the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

from pyglyn.etf import Pid, Term, normalise, pack_frame
from pyglyn.node import hot

Way: TypeAlias = Callable[[Term], bool]
"""Sends a message; False where it has not, and nothing was done."""


SignalWay: TypeAlias = Callable[[tuple[Any, ...], Term], bool]
"""Sends a signal of another control message each time, with its term, to another node; False as a `Way`."""


UnreadWay: TypeAlias = Callable[[bytes], bool]
"""Sends a control message and its term, encoded; False as a `Way`."""


class Receiver(Protocol):
    """What a way to a process of this runtime needs of it."""

    alive: bool

    def put(self, message: Term) -> None: ...


class Port(Protocol):
    """What goes out of this operating-system process: a connection, or a link."""

    def send_frame(self, frame: bytes) -> bool: ...


def way_out(head: bytes, most: int, port: Port) -> Way:
    """The way through a connection or link, for messages of at most so many bytes with their head."""
    if hot.c is not None:
        return hot.c.Way(head, most, port, 0)  # type: ignore[no-any-return]
    send_frame = port.send_frame

    def send(message: Term) -> bool:
        frame = pack_frame(head, message, most)
        return frame is not None and send_frame(frame)

    return send


def way_for_signals(head: bytes, most: int, port: Port) -> SignalWay:
    """The way through a connection or link of answers to calls, each to an alias of its own, and of ends.

    Args:
        head: what is in front of the control message.
    """
    if hot.c is not None:
        return hot.c.Way(head, most, port, 1)  # type: ignore[no-any-return]
    send_frame = port.send_frame

    def send(control: tuple[Any, ...], term: Term) -> bool:
        frame = pack_frame(head, term, most, control)
        return frame is not None and send_frame(frame)

    return send


def way_unread(head: bytes, most: int, port: Port) -> UnreadWay:
    """The way through a connection for a control message with its term, both encoded.

    Args:
        head: what is in front of the control message.
    """
    if hot.c is not None:
        return hot.c.Way(head, most, port, 2)  # type: ignore[no-any-return]
    send_frame, size = port.send_frame, len(head)

    def send(rest: bytes) -> bool:
        count = size + len(rest)
        return count <= most and send_frame(b"".join((count.to_bytes(4), head, rest)))

    return send


def way_here(receiver: Receiver) -> Way:
    """The way to a process of this runtime.

    Raises:
        EncodeError: when it is gone: the message is no term.
    """

    def send(message: Term) -> bool:
        if not receiver.alive:
            return False
        receiver.put(normalise(message))
        return True

    return send


def way_by_name(way: Way, names: dict[str, Pid], name: str) -> Way:
    """A way that is right as long as a name stands for what it stands for now."""
    pid = names.get(name)

    def send(message: Term) -> bool:
        return names.get(name) is pid and way(message)

    return send
