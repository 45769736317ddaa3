"""What happened in this OS process, counted: names with labels, and how often. Layer: the lowest.

Anything may count, on any thread; whoever shows the counts takes them away (`take`) and adds them to its own
(`add_all`), as the hub of a node does with those of its workers. A fork begins with nothing counted.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from typing import Final, TypeAlias

Labels: TypeAlias = tuple[tuple[str, str], ...]
Count: TypeAlias = tuple[str, Labels, float]
"""A counter's name, its labels in order of their names, and how much was counted."""

MOST_SERIES: Final = 10_000
"""How many combinations of labels are told apart; what comes after them is counted as ``other``."""

_lock = threading.Lock()
_counts: dict[tuple[str, Labels], float] = {}
_when_changed: Callable[[], None] | None = None


def add(name: str, amount: float = 1, /, **labels: str) -> None:
    """Count something."""
    add_all([(name, tuple(sorted(labels.items())), amount)])


def add_all(counts: Iterable[Count], *, most: int = MOST_SERIES) -> None:
    """Count what was counted elsewhere; ``most`` is how many combinations of labels are told apart."""
    with _lock:
        for name, labels, amount in counts:
            key = (name, labels)
            if key not in _counts and len(_counts) >= most:
                key = (name, tuple((label, "other") for label, _ in labels))
            _counts[key] = _counts.get(key, 0) + amount
    if _when_changed is not None:
        _when_changed()


def take() -> list[Count]:
    """Return what was counted since the last call."""
    with _lock:
        taken = [(name, labels, amount) for (name, labels), amount in _counts.items()]
        _counts.clear()
    return taken


def counted() -> list[Count]:
    """Return what has been counted so far, in order of the names."""
    with _lock:
        return sorted((name, labels, amount) for (name, labels), amount in _counts.items())


def when_changed(function: Callable[[], None] | None) -> None:
    """Call a function, on whatever thread counts, after each change."""
    global _when_changed
    _when_changed = function


def _forked() -> None:
    global _lock
    _lock = threading.Lock()  # somebody may have held it
    _counts.clear()
    when_changed(None)


os.register_at_fork(after_in_child=_forked)
