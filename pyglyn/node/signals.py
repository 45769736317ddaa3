"""Links, monitors and exits of one process: state and signal in, effects out. Layer: node, pure.

Source: Erlang Reference Manual, "Processes" (links, monitors, exit signals); erl_dist_protocol, "Link
Protocol"; the exit table was checked on OTP 25 and 28. Two kinds of exit signals exist: one from a link
(``LinkExit``) and one from ``exit/2`` (``Exit2``); only the second can carry the untrappable ``kill``.

Not here: where signals travel, mailboxes, registered names.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from itertools import chain
from typing import Generic, TypeAlias, TypeVar

import attrs

from pyglyn.dist.control import (
    Control,
    DemonitorP,
    Link,
    LinkExit,
    MonitorP,
    MonitorPExit,
    Name,
    SpawnFlags,
    SpawnReply,
    SpawnRequest,
    UnlinkId,
    UnlinkIdAck,
)
from pyglyn.etf import Atom, Pid, Reference, Term
from pyglyn.node.reasons import DOWN, EXIT, KILL, KILLED, NOCONNECTION, NOPROC, NORMAL

PROCESS = Atom("process")

_ACTIVE = 0


@attrs.frozen
class Emit:
    """Send this control message.

    Attributes:
        reason: goes along with exits and downs.
        node: where a name in the control message is registered; None where a pid tells.
    """

    control: Control
    reason: Term = None
    node: str | None = None


class ExitSignal(tuple[Term, ...]):
    """``{'EXIT', Pid, Reason}`` made of an exit signal.

    Any process can send such a tuple as a message. Only a signal is of this class, and its sender is checked.
    """

    __slots__ = ()


class DownSignal(tuple[Term, ...]):
    """``{'DOWN', Ref, process, Item, Reason}`` made of the end of what is monitored; as `ExitSignal`."""

    __slots__ = ()


@attrs.frozen
class Deliver:
    """Put this message into the process's mailbox: it traps exits."""

    message: ExitSignal


@attrs.frozen
class Down:
    """A monitor of ours fired; the message says what goes into the mailbox if nobody waits for it."""

    ref: Reference
    reason: Term
    message: DownSignal


@attrs.frozen
class Die:
    """The process ends with this reason; ``at_once`` when it may not clean up (``kill``)."""

    reason: Term
    at_once: bool = False


Effect: TypeAlias = Emit | Deliver | Down | Die
MonitorTarget: TypeAlias = "Pid | tuple[Name, str]"
"""What a process monitors: a pid, or a registered name and the node it is on."""


def target_node(target: MonitorTarget) -> str:
    """Name the node that a monitor looks at."""
    return target.node if isinstance(target, Pid) else target[1]


Tied = TypeVar("Tied", bound=Hashable)


class Ties(Generic[Tied]):
    """What is tied to which other node, so that a node that goes costs what is tied to it and no more.

    Of a runtime these are the processes, by their ids, that have links or monitors across, or had some since
    the node came up; of what crosses to a worker the links and monitors themselves.
    """

    __slots__ = ("_tied",)

    def __init__(self) -> None:
        self._tied: dict[str, dict[Tied, None]] = {}

    def add(self, node: str, what: Tied) -> None:
        """Note something; known already it changes nothing."""
        self._tied.setdefault(node, {})[what] = None

    def discard(self, node: str, what: Tied) -> None:
        """Forget what has ended, if it is known."""
        tied = self._tied.get(node)
        if tied is not None:
            tied.pop(what, None)
            if not tied:
                del self._tied[node]

    def take(self, node: str) -> list[Tied]:
        """What is tied to a node that is gone; it is forgotten."""
        return list(self._tied.pop(node, ()))


class Signals:
    """The links and monitors of one process.

    Args:
        ties: told of each other node that a link or monitor goes to, by the id of the process.

    Attributes:
        links: other end -> 0 for an active link, or the id of the UNLINK_ID that waits for its ack.
        monitors: what this process monitors, by reference.
        watchers_at: who monitors this process: node -> reference -> (watcher, the pid or name it asked with).
        trap_exit: exit signals become messages.
    """

    __slots__ = ("_next_unlink_id", "_tied", "_ties", "links", "monitors", "pid", "trap_exit", "watchers_at")

    def __init__(self, pid: Pid, ties: Ties[int] | None = None) -> None:
        self._ties = ties
        # Other nodes, with the pids of links and the references of monitors of this process that go there.
        self._tied: dict[str, dict[Pid | Reference, None]] | None = None
        self.pid = pid
        self.links: dict[Pid, int] = {}
        self.monitors: dict[Reference, MonitorTarget] = {}
        self.watchers_at: dict[str, dict[Reference, tuple[Pid, Pid | Atom]]] = {}
        self.trap_exit = False
        self._next_unlink_id = 1

    def _tie(self, node: str, what: Pid | Reference) -> None:
        if node == self.pid.node:
            return
        if self._tied is None:
            self._tied = {}
        tied = self._tied.get(node)
        if tied is None:
            tied = self._tied[node] = {}
            if self._ties is not None:
                self._ties.add(node, self.pid.id)
        tied[what] = None

    def _untie(self, node: str, what: Pid | Reference) -> None:
        tied = None if self._tied is None else self._tied.get(node)
        if tied is not None:
            tied.pop(what, None)

    @property
    def watchers(self) -> dict[Reference, tuple[Pid, Pid | Atom]]:
        """Who monitors this process, of all nodes: reference -> (watcher, the pid or name it asked with)."""
        return {ref: of for of_node in self.watchers_at.values() for ref, of in of_node.items()}

    def _unlinked(self, other: Pid) -> None:
        del self.links[other]
        self._untie(other.node, other)

    # --- asked for by the process itself ----------------------------------------------------------

    def link(self, to: Pid) -> list[Effect]:
        """Make a link; an active one stays, one that is being removed is active again."""
        if to == self.pid or self.links.get(to) == _ACTIVE:
            return []
        self.links[to] = _ACTIVE
        self._tie(to.node, to)
        return [Emit(Link(self.pid, to))]

    def unlink(self, to: Pid) -> list[Effect]:
        """Remove a link; from now on an exit signal of ``to`` has no effect."""
        if self.links.get(to) != _ACTIVE:
            return []
        unlink_id = self._next_unlink_id
        self._next_unlink_id = unlink_id % (2**64 - 1) + 1
        self.links[to] = unlink_id
        return [Emit(UnlinkId(unlink_id, self.pid, to))]

    def monitor(self, ref: Reference, target: MonitorTarget) -> list[Effect]:
        """Monitor a process by pid or by ``(name, node)``."""
        self.expect_down(ref, target)
        if isinstance(target, Pid):
            return [Emit(MonitorP(self.pid, target, ref))]
        return [Emit(MonitorP(self.pid, target[0], ref), node=target[1])]

    def expect_down(self, ref: Reference, target: MonitorTarget) -> None:
        """Note a monitor that something else than MONITOR_P asks for, a spawn request for example."""
        self.monitors[ref] = target
        self._tie(target_node(target), ref)

    def demonitor(self, ref: Reference) -> MonitorTarget | None:
        """Forget a monitor; returns what it looked at, for the DEMONITOR_P that the caller sends."""
        target = self.monitors.pop(ref, None)
        if target is not None:
            self._untie(target_node(target), ref)
        return target

    # --- signals that arrive ----------------------------------------------------------------------

    def on_link(self, sender: Pid) -> list[Effect]:
        """LINK: also ignored while unlinking; the peer keeps its side until our UNLINK_ID arrives."""
        self.links.setdefault(sender, _ACTIVE)
        self._tie(sender.node, sender)
        return []

    def on_unlink_id(self, sender: Pid, unlink_id: int) -> list[Effect]:
        """UNLINK_ID: always acknowledged, before any later signal to the sender."""
        if self.links.get(sender) == _ACTIVE:
            self._unlinked(sender)
        return [Emit(UnlinkIdAck(unlink_id, self.pid, sender))]

    def on_unlink_ack(self, sender: Pid, unlink_id: int) -> list[Effect]:
        """UNLINK_ID_ACK: only the latest id counts; a link made anew in between stays."""
        if unlink_id != _ACTIVE and self.links.get(sender) == unlink_id:
            self._unlinked(sender)
        return []

    def on_unlink(self, sender: Pid) -> list[Effect]:
        """UNLINK, the form without acknowledgement."""
        if sender in self.links:
            self._unlinked(sender)
        return []

    def on_exit(self, sender: Pid, reason: Term) -> list[Effect]:
        """EXIT, from a link: no effect unless the link is active."""
        state = self.links.get(sender)
        if state is None:
            return []
        self._unlinked(sender)
        if state != _ACTIVE:
            return []
        if self.trap_exit:
            return [Deliver(ExitSignal((EXIT, sender, reason)))]
        return [] if reason is NORMAL else [Die(reason)]

    def on_exit2(self, sender: Pid, reason: Term) -> list[Effect]:
        """EXIT2, from ``exit(Pid, Reason)``: ``kill`` cannot be trapped and becomes ``killed``."""
        if reason is KILL:
            return [Die(KILLED, at_once=True)]
        if self.trap_exit:
            return [Deliver(ExitSignal((EXIT, sender, reason)))]
        if reason is NORMAL and sender != self.pid:
            return []
        return [Die(reason)]

    def on_monitor(self, watcher: Pid, watched: Pid | Atom, ref: Reference) -> list[Effect]:
        """MONITOR_P: remember with what (pid or name) the watcher asked, the answer uses the same."""
        node = watcher.node
        of_node = self.watchers_at.get(node)
        if of_node is None:
            of_node = self.watchers_at[node] = {}
            if self._ties is not None and node != self.pid.node:
                self._ties.add(node, self.pid.id)
        of_node[ref] = (watcher, watched)
        return []

    def on_demonitor(self, watcher: Pid, ref: Reference) -> list[Effect]:
        """DEMONITOR_P: an unknown reference, or one of another watcher, is ignored."""
        of_node = self.watchers_at.get(watcher.node)
        known = None if of_node is None else of_node.get(ref)
        if known is not None and known[0] == watcher:
            del of_node[ref]  # type: ignore[union-attr]
        return []

    def on_down(self, ref: Reference, reason: Term) -> list[Effect]:
        """MONITOR_P_EXIT: the DOWN message names what was monitored."""
        target = self.demonitor(ref)
        if target is None:
            return []
        item: Term = target if isinstance(target, Pid) else (target[0], Atom(target[1]))
        return [Down(ref, reason, DownSignal((DOWN, ref, PROCESS, item, reason)))]

    def on_node_down(self, node: str) -> list[Effect]:
        """The connection to a node is gone: each link and monitor across it ends with ``noconnection``."""
        effects: list[Effect] = []
        downs: list[Effect] = []
        self.watchers_at.pop(node, None)
        for tied in () if self._tied is None else self._tied.pop(node, ()):
            if type(tied) is Pid:
                effects += self.on_exit(tied, NOCONNECTION)
            elif type(tied) is Reference:
                downs += self.on_down(tied, NOCONNECTION)
        return effects + downs

    def on_own_end(self, reason: Term) -> Iterator[Emit]:
        """The process has ended: tell links and watchers, give up its own monitors.

        They may be many, so each signal is made when it is asked for.
        """
        pid = self.pid
        links, self.links = self.links, {}
        watchers, self.watchers_at = self.watchers_at, {}
        monitors, self.monitors = self.monitors, {}
        if self._ties is not None:
            for node in (*(self._tied or ()), *watchers):
                self._ties.discard(node, self.pid.id)
        return chain(
            (Emit(LinkExit(pid, other), reason) for other, state in links.items() if state == _ACTIVE),
            (
                Emit(MonitorPExit(asked, watcher, ref), reason)
                for of_node in watchers.values()
                for ref, (watcher, asked) in of_node.items()
            ),
            (demonitor_signal(pid, ref, target) for ref, target in monitors.items()),
        )


def demonitor_signal(watcher: Pid, ref: Reference, target: MonitorTarget) -> Emit:
    """The DEMONITOR_P that gives a monitor up."""
    if isinstance(target, Pid):
        return Emit(DemonitorP(watcher, target, ref))
    return Emit(DemonitorP(watcher, target[0], ref), node=target[1])


def answer_for_the_dead(control: Control) -> list[Effect]:
    """What a node answers for a process that does not exist; most signals are just dropped.

    Source: erl_dist_protocol; LINK and MONITOR_P to dead pids checked on OTP 25 and 28.
    """
    match control:
        case Link(sender, to):
            return [Emit(LinkExit(to, sender), NOPROC)]
        case MonitorP(watcher, watched, ref):
            return [Emit(MonitorPExit(watched, watcher, ref), NOPROC)]
        case UnlinkId(unlink_id, sender, to):
            return [Emit(UnlinkIdAck(unlink_id, to, sender))]
        case _:
            return []


def answer_for_the_unreachable(control: Control) -> Control | None:
    """What a signal comes back as that could not be sent to its node; None for nothing."""
    match control:
        case Link(sender, to):
            return LinkExit(to, sender, NOCONNECTION)
        case MonitorP(watcher, watched, ref):
            return MonitorPExit(watched, watcher, ref, NOCONNECTION)
        case UnlinkId(unlink_id, sender, to):
            return UnlinkIdAck(unlink_id, to, sender)
        case SpawnRequest(request_id, sender):
            return SpawnReply(request_id, sender, SpawnFlags(0), NOCONNECTION)
        case _:
            return None
