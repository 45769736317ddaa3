"""Telling of ends: who is linked to what has ended, or monitors it, learns it. Layer: node.

A process, or all those of a worker, may have as many watchers as peers like. So few are told in a turn of the
event loop, and the others have their turn in between. No order is lost: all of this is behind what the dead
have sent, and nothing of theirs comes after it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Final

import attrs

from pyglyn.dist.control import DemonitorP, LinkExit, MonitorPExit
from pyglyn.etf import Pid
from pyglyn.node.signals import Emit

A_TURN: Final = 64
"""So many are told in one turn: a signal to another node takes some microseconds."""


@attrs.define
class _Rest:
    """What is to be told still.

    Attributes:
        lost: nodes that are gone since: those there know it by that.
        then: called when all are told.
    """

    signals: Iterator[Emit]
    then: Callable[[], None] | None
    lost: set[str] = attrs.field(factory=set)


class Telling:
    """The ends that are being told.

    Args:
        send: sends a signal.
    """

    def __init__(self, send: Callable[[Emit], None]) -> None:
        self._send = send
        self._rests: deque[_Rest] = deque()

    def __len__(self) -> int:
        return len(self._rests)

    def tell(self, signals: Iterable[Emit], then: Callable[[], None] | None = None) -> None:
        """Send the signals of an end, many of them later; then call a function."""
        rest = _Rest(iter(signals), then)
        if self._tell_some(rest):
            return
        self._rests.append(rest)
        if len(self._rests) == 1:
            asyncio.get_running_loop().call_soon(self._next_turn)

    def tell_all(self) -> None:
        """Send what is left at once: the node, or this OS process, ends."""
        while self._rests:
            if self._tell_some(self._rests[0]):
                self._rests.popleft()

    def node_lost(self, node: str) -> None:
        """Tell nobody of a node that is gone what was before that."""
        for rest in self._rests:
            rest.lost.add(node)

    def _next_turn(self) -> None:
        try:
            if self._rests and self._tell_some(self._rests[0]):
                self._rests.popleft()
        finally:
            if self._rests:
                asyncio.get_running_loop().call_soon(self._next_turn)

    def _tell_some(self, rest: _Rest) -> bool:
        """Send some of it; whether that was all."""
        left = A_TURN
        for emit in islice(rest.signals, A_TURN):
            left -= 1
            if not rest.lost or _node_of(emit) not in rest.lost:
                self._send(emit)
        if not left:
            return False
        if rest.then is not None:
            rest.then()
        return True


def _node_of(emit: Emit) -> str | None:
    """Whom an end is told, by the node."""
    match emit.control:
        case LinkExit(to=Pid(node=node)) | MonitorPExit(watcher=Pid(node=node)):
            return node
        case DemonitorP(watched=Pid(node=node)):
            return node
    return emit.node
