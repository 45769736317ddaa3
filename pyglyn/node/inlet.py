"""What a read begins with, taken in C from its bytes to the mailbox. Layer: node.

Nearly every read brings messages to processes here and the monitors of calls: for those only tables are to be
asked. ``_hot.Inlet`` takes such frames off the front of what was read, in order, up to the first one that is
anything else, and leaves that and all behind it to the way of every signal (`Connection.receive`, ``router``,
``runtime``), which is the definition: for what the inlet takes, it has the same effects.

With it come methods of turns, waiters and mailboxes in C, which are put into their classes.

Without ``_hot`` (no compiler, or ``PYGLYN_PURE=1``) there are no inlets.
"""

from __future__ import annotations

from typing import Any

from pyglyn.net.connection import Inlet
from pyglyn.node import hot
from pyglyn.node.runtime import Runtime

hot.load(Runtime)


def inlet(
    begins: bytes,
    known: dict[bytes, Any],
    runtime: Runtime,
    peer: str | None,
    named: dict[Any, Any],
    links: dict[int, Any],
) -> Inlet | None:
    """Make one; None where there is none in C.

    Args:
        begins: what every frame begins with.
        known: what its bytes from there up to the end of the control message mean.
        peer: the node that may send these; None where the other end is trusted.
        named: references of monitors by name that were passed on to workers; see ``Workers``.
        links: the workers; what is for one of them is passed on.
    """
    made: Inlet | None = None if hot.c is None else hot.c.Inlet(begins, known, runtime, peer, named, links)
    return made
