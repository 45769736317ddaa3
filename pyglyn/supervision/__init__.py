"""Supervision trees as trees of OS processes, with OTP's words and rules. Layer: supervision.

Declare a tree with `Supervisor`, `worker`, `supervisor`, `program` and `factory`; run it with `start`, or
return it from the function given to ``pyglyn node --app``.
"""

from pyglyn.supervision.declaration import factory, program, supervisor, worker
from pyglyn.supervision.exported import export_child
from pyglyn.supervision.hub import start
from pyglyn.supervision.os.command import ReadyFd, ReadyLine, ReadyNotify, ReadyPort
from pyglyn.supervision.spec import ChildSpec, Supervisor
from pyglyn.supervision.words import (
    AutoShutdown,
    Backoff,
    ChildType,
    Isolation,
    Restart,
    ShutdownWord,
    StartMethod,
    Strategy,
)

__all__ = [
    "AutoShutdown",
    "Backoff",
    "ChildSpec",
    "ChildType",
    "Isolation",
    "ReadyFd",
    "ReadyLine",
    "ReadyNotify",
    "ReadyPort",
    "Restart",
    "ShutdownWord",
    "StartMethod",
    "Strategy",
    "Supervisor",
    "export_child",
    "factory",
    "program",
    "start",
    "supervisor",
    "worker",
]
