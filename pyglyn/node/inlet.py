"""What a read begins with, taken in C from its bytes to the mailbox. Layer: node.

Nearly every read brings messages to processes here and the monitors of calls: for those only tables are to be
asked. ``_hot.Inlet`` takes such frames off the front of what was read, in order, up to the first one that is
anything else, and leaves that and all behind it to the way of every signal (`Connection.receive`, ``router``,
``runtime``), which is the definition: for what the inlet takes, it has the same effects.

At the hub's end of a worker's link it takes as well what is for other nodes: messages, answers to their
calls, and monitors of their processes go into the connection as the bytes that they are, but for what is in
front of them (``Router.from_worker``, ``Router.messages_from_worker``).

With it come methods of turns, waiters, mailboxes, connections and links in C, which are put into their
classes.

Without ``_hot`` (no compiler, or ``PYGLYN_PURE=1``) there are no inlets.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs

from pyglyn.dist.control import RegSend, Send
from pyglyn.net.connection import Inlet
from pyglyn.node import hot
from pyglyn.node.boundary import Boundary
from pyglyn.node.runtime import Runtime
from pyglyn.node.ways import UnreadWay

hot.load(Runtime)


@attrs.frozen
class Onward:
    """What an inlet at the hub's end of a link needs for what a worker sends to other nodes.

    Attributes:
        unread, ways: those of the `LinkProtocol`.
        find_way: gives the way to a node of what has a control message, with None of monitors; None for none.
        boundary: of the worker.
        lost: nodes that the worker has not confirmed to be gone; while there are any, monitors are not taken.
    """

    unread: dict[bytes, UnreadWay]
    ways: dict[bytes, UnreadWay]
    find_way: Callable[[Send | RegSend | None, str], UnreadWay | None]
    boundary: Boundary
    lost: dict[str, int]


def inlet(
    begins: bytes,
    known: dict[bytes, Any],
    runtime: Runtime,
    peer: str | None,
    named: dict[Any, Any],
    links: dict[int, Any],
    onward: Onward | None = None,
) -> Inlet | None:
    """Make one; None where there is none in C.

    Args:
        begins: what every frame begins with.
        known: what its bytes from there up to the end of the control message mean.
        peer: the node that may send these; None where the other end is trusted.
        named: references of monitors by name that were passed on to workers; see ``Workers``.
        links: the workers; what is for one of them is passed on.
        onward: at the hub's end of a link: every frame begins with the name of a node then, and what is for
            another node goes there.
    """
    if hot.c is None:
        return None
    where = () if onward is None else (attrs.astuple(onward, recurse=False),)
    return hot.c.Inlet(begins, known, runtime, peer, named, links, *where)  # type: ignore[no-any-return]
