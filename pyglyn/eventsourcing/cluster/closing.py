"""Closing what a process had open after it has ended, whatever ended it. Layer: eventsourcing, cluster.

A process that is killed runs no code of its own any more. What it had open (tasks, connections) is closed by
a task of its runtime, for which a node or worker that stops waits.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from pyglyn.etf import Term
from pyglyn.node import Process


def close_after(me: Process, close: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """Have ``close`` run when a process has ended; returns what calls that off, for an orderly end."""

    def ended(_reason: Term) -> None:
        me.runtime.aftermath.begin(close())

    me.on_end.append(ended)

    def call_off() -> None:
        if ended in me.on_end:
            me.on_end.remove(ended)

    return call_off
