"""Python's garbage collector while a node runs in this operating-system process. Layer: node.

What was there when a node had started stays for good, and is not walked any more: ``gc.freeze``. It is
never undone: in a forked worker the objects of its parent are among what is frozen, and to collect those
would close descriptors that belong to somebody else by now.
"""

from __future__ import annotations

import gc
import os

from pyglyn.node.settings import Collector

_running: list[tuple[int, int, int]] = []
"""For each node that runs here, the thresholds from before it."""
_frozen_in = 0
"""The operating-system process that has frozen its objects; a fork of it has more of them."""


def begin(collector: Collector) -> None:
    """A node, or this operating-system process as a worker of one, has started."""
    global _frozen_in
    _running.append(gc.get_threshold())
    if collector.thresholds is not None:
        gc.set_threshold(*collector.thresholds)
    if collector.freeze and _frozen_in != os.getpid():
        _frozen_in = os.getpid()
        gc.collect()
        gc.freeze()


def end() -> None:
    """A node has stopped: with the last one the thresholds are again what they were."""
    before = _running.pop()
    if not _running:
        gc.set_threshold(*before)
