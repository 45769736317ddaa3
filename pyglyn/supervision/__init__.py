"""Supervision trees as trees of OS processes, with OTP's words and rules. Layer: supervision.

Declare a tree with `Supervisor`, `worker`, `supervisor`, `program` and `factory`; run it with `start`, or
return it from the function given to ``pyglyn node --app``. `start_child` and its siblings ask a running
supervisor.
"""

from pyglyn.supervision.calls import (
    ChildCounts,
    ChildInfo,
    count_children,
    start_child,
    terminate_child,
    which_children,
)
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
    Recycle,
    Restart,
    ShutdownWord,
    StartMethod,
    Strategy,
)

__all__ = [
    "AutoShutdown",
    "Backoff",
    "ChildCounts",
    "ChildInfo",
    "ChildSpec",
    "ChildType",
    "Isolation",
    "ReadyFd",
    "ReadyLine",
    "ReadyNotify",
    "ReadyPort",
    "Recycle",
    "Restart",
    "ShutdownWord",
    "StartMethod",
    "Strategy",
    "Supervisor",
    "count_children",
    "export_child",
    "factory",
    "program",
    "start",
    "start_child",
    "supervisor",
    "terminate_child",
    "which_children",
    "worker",
]
