"""A running node: processes, signals, routing, and what other nodes expect of any node. Layer: node."""

import sys

if sys.platform == "win32":
    raise ImportError("pyglyn.node needs POSIX (forks, signals, Unix sockets): on Windows it runs in WSL")

from pyglyn.node.calls import Caller
from pyglyn.node.exits import ErlangError, Exit, Throw
from pyglyn.node.exports import Exports, export
from pyglyn.node.gen_server import GenServer, Ignore, NoReply, Reply, StartError, Stop
from pyglyn.node.node import At, Node, NodeEvent
from pyglyn.node.output import put_chars
from pyglyn.node.process import Process, current_process
from pyglyn.node.settings import Collector, Reconnect, Settings

__all__ = [
    "At",
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
    "put_chars",
]
