"""Python services inside Erlang, Gleam and Elixir clusters.

Start with ``Node`` and ``Process``; terms are in ``pyglyn.etf``, Gleam values in ``pyglyn.gleam``. Names are
imported when they are first used: the pytest plugin is loaded in every session and must cost next to nothing.
"""

from __future__ import annotations

import gc
from importlib import import_module
from typing import TYPE_CHECKING

from pyglyn._version import __version__ as __version__

if TYPE_CHECKING:
    from pyglyn.etf import Atom as Atom
    from pyglyn.etf import BitString as BitString
    from pyglyn.etf import Export as Export
    from pyglyn.etf import Fun as Fun
    from pyglyn.etf import ImproperList as ImproperList
    from pyglyn.etf import Pid as Pid
    from pyglyn.etf import Port as Port
    from pyglyn.etf import Reference as Reference
    from pyglyn.etf import Term as Term
    from pyglyn.etf import TermMap as TermMap
    from pyglyn.node import Caller as Caller
    from pyglyn.node import Collector as Collector
    from pyglyn.node import ErlangError as ErlangError
    from pyglyn.node import Exit as Exit
    from pyglyn.node import Exports as Exports
    from pyglyn.node import GenServer as GenServer
    from pyglyn.node import Ignore as Ignore
    from pyglyn.node import Node as Node
    from pyglyn.node import NodeEvent as NodeEvent
    from pyglyn.node import NoReply as NoReply
    from pyglyn.node import Process as Process
    from pyglyn.node import Reconnect as Reconnect
    from pyglyn.node import Reply as Reply
    from pyglyn.node import Settings as Settings
    from pyglyn.node import StartError as StartError
    from pyglyn.node import Stop as Stop
    from pyglyn.node import Throw as Throw
    from pyglyn.node import current_process as current_process
    from pyglyn.node import export as export

_MODULE_OF = {
    **dict.fromkeys(
        ("Atom", "BitString", "Export", "Fun", "ImproperList", "Pid", "Port", "Reference", "Term", "TermMap"),
        "pyglyn.etf",
    ),
    **dict.fromkeys(
        (
            "Caller",
            "Collector",
            "ErlangError",
            "Exit",
            "Exports",
            "GenServer",
            "Ignore",
            "NoReply",
            "Node",
            "NodeEvent",
            "Process",
            "Reconnect",
            "Reply",
            "Settings",
            "StartError",
            "Stop",
            "Throw",
            "current_process",
            "export",
        ),
        "pyglyn.node",
    ),
}

__all__ = [
    "Atom",
    "BitString",
    "Caller",
    "Collector",
    "ErlangError",
    "Exit",
    "Export",
    "Exports",
    "Fun",
    "GenServer",
    "Ignore",
    "ImproperList",
    "NoReply",
    "Node",
    "NodeEvent",
    "Pid",
    "Port",
    "Process",
    "Reconnect",
    "Reference",
    "Reply",
    "Settings",
    "StartError",
    "Stop",
    "Term",
    "TermMap",
    "Throw",
    "__version__",
    "current_process",
    "export",
]


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    collects = gc.isenabled()
    gc.disable()  # modules are not garbage, and to look through them again and again is a tenth of the time
    try:
        value = getattr(import_module(_MODULE_OF[name]), name)
    finally:
        if collects:
            gc.enable()
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULE_OF})
