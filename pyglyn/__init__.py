"""Python services inside Erlang, Gleam and Elixir clusters.

Start with ``Node`` and ``Process``; terms are in ``pyglyn.etf``, Gleam values in ``pyglyn.gleam``.
"""

from pyglyn._version import __version__
from pyglyn.etf import Atom, BitString, Export, Fun, ImproperList, Pid, Port, Reference, Term, TermMap
from pyglyn.node import (
    Caller,
    Exit,
    Exports,
    GenServer,
    Ignore,
    Node,
    NodeEvent,
    NoReply,
    Process,
    Reconnect,
    Reply,
    Settings,
    StartError,
    Stop,
    Throw,
    export,
)

__all__ = [
    "Atom",
    "BitString",
    "Caller",
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
    "export",
]
