"""Supervision trees as trees of OS processes, with OTP's words and rules. Layer: supervision.

Declare a tree with `Supervisor`, `worker`, `supervisor`, `program` and `factory`; run it with `start`, or
return it from the function given to ``pyglyn node --app``.
"""

from pyglyn.supervision.hub import start

# isort: split
# After the modules `program` and `supervisor` have been imported, whose names these functions have.
from pyglyn.supervision.declaration import Supervisor, factory, program, supervisor, worker
from pyglyn.supervision.exported import export_child
from pyglyn.supervision.spec import (
    AutoShutdown,
    Backoff,
    ChildSpec,
    ChildType,
    Isolation,
    ReadyFd,
    ReadyLine,
    ReadyNotify,
    ReadyPort,
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
