"""What the group machines ask for, and the checks they share. Layer: groups, pure.

A machine takes inputs (a message, a DOWN, a call of ours) and returns effects in the order in which they
must happen. All effects of one scope leave through one process, so that what it sends one peer stays in
order; pg relies on that.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import attrs

from pyglyn.etf import Atom, BitString, ImproperList, Pid, Term, TermMap
from pyglyn.node.reasons import NORMAL

Target: TypeAlias = "Pid | tuple[Atom, str]"
"""A process by pid, or by its registered name and the node it is on."""

MAX_NAME_BYTES = 65_536
"""How large the name of a group or a registered name may be: it is kept and compared on every node."""


@attrs.frozen
class Send:
    """Send a message. ``to`` may be on this node."""

    to: Target
    message: Term


@attrs.frozen
class AnswerCall:
    """Answer a gen call; ``caller`` is its ``From`` term."""

    caller: Term
    reply: Term


@attrs.frozen
class Monitor:
    """Monitor a process; when it ends the machine gets ``handle_down(target, reason)``.

    There is at most one monitor a target. A DOWN that is under way when ``Demonitor`` comes is dropped.
    """

    target: Target


@attrs.frozen
class Demonitor:
    """Remove the monitor of a target."""

    target: Target


@attrs.frozen
class SendExit:
    """Send an exit signal, as ``exit(Pid, Reason)``."""

    pid: Pid
    reason: Term


@attrs.frozen
class Watch:
    """Learn when a process gets registered as ``name`` on ``node``, without asking again and again.

    Then the machine gets ``handle_watch(node, found)``: ``found`` is False if this node cannot be watched.
    A watch that the connection's end cuts short is not reported.
    """

    name: Atom
    node: str


@attrs.frozen
class CheckWatched:
    """Call ``handle_unwatched(pid)`` if that process does not monitor this scope process."""

    pid: Pid


@attrs.frozen
class AskVersion:
    """Ask a node for its version of syn; the machine gets ``handle_version(node, version)``."""

    node: str


@attrs.frozen
class Rejected:
    """Bad input was dropped and nothing changed; emitted once for each kind and source, to be logged.

    Attributes:
        source: the node it came from as far as one can tell, or ``?``.
        reason: what was wrong, without the contents.
    """

    source: str
    reason: str


@attrs.frozen(kw_only=True)
class Event:
    """Something changed in a syn scope; for callbacks.

    Attributes:
        kind: ``joined``, ``left``, ``member_updated``, ``registered``, ``unregistered``, ``name_updated``.
        scope: the scope's name.
        name: the group, or the registered name.
        pid: the process.
        meta: its metadata now (for the ones that end it: the last).
        previous_meta: what it was before an update; None otherwise.
        reason: ``normal``, the exit reason of the process, ``syn_conflict_resolution``,
            ``{syn_remote_scope_node_up | syn_remote_scope_node_down, Scope, Node}``.
    """

    kind: str
    scope: str
    name: Term
    pid: Pid
    meta: Term
    previous_meta: Term = None
    reason: Term = NORMAL


Effect: TypeAlias = (
    Send | AnswerCall | Monitor | Demonitor | SendExit | Watch | CheckWatched | AskVersion | Rejected | Event
)


class Monitors:
    """Counts who needs a monitor on which target, so that each target has one."""

    def __init__(self) -> None:
        self._uses: dict[Target, int] = {}

    def __contains__(self, target: Target) -> bool:
        return target in self._uses

    def acquire(self, target: Target) -> list[Effect]:
        """One more use; the first one asks for the monitor."""
        uses = self._uses.get(target, 0)
        self._uses[target] = uses + 1
        return [] if uses else [Monitor(target)]

    def release(self, target: Target) -> list[Effect]:
        """One use fewer; the last one removes the monitor. Unknown targets are ignored."""
        uses = self._uses.get(target, 0)
        if uses > 1:
            self._uses[target] = uses - 1
            return []
        return [Demonitor(target)] if self._uses.pop(target, 0) else []

    def fired(self, target: Target) -> None:
        """The DOWN has come: nobody monitors the target any more."""
        self._uses.pop(target, None)


class Rejections:
    """Remembers which kinds of bad input were reported already; bounded."""

    LIMIT = 1000

    def __init__(self) -> None:
        self.count = 0
        self._seen: set[tuple[str, str]] = set()

    def reject(self, source: str, reason: str) -> list[Effect]:
        """Count a dropped input; the first of its kind and source becomes an effect."""
        self.count += 1
        if (source, reason) in self._seen or len(self._seen) >= self.LIMIT:
            return []
        self._seen.add((source, reason))
        return [Rejected(source, reason)]


def too_large(name: Term, limit: int = MAX_NAME_BYTES) -> bool:
    """True if a term is larger than ``limit``, in bytes roughly as in the external term format."""
    if isinstance(name, (bytes, str)):
        return len(name) > limit
    size = 0
    stack: list[Any] = [name]
    while stack and size <= limit:
        term = stack.pop()
        size += 5
        if isinstance(term, (bytes, str)):
            size += len(term)
        elif isinstance(term, int):
            size += term.bit_length() // 8
        elif isinstance(term, Atom):
            size += len(term.name)
        elif isinstance(term, BitString):
            size += len(term.data)
        elif isinstance(term, ImproperList):
            stack += (*term.elements, term.tail)
        elif isinstance(term, (list, tuple)):
            size += len(term)
            stack += term[: limit + 1]
        elif isinstance(term, (dict, TermMap)):
            for key, value in term.items():
                stack += (key, value)
    return size > limit
