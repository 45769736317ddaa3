"""What the OS process of a supervised child is told at its start. Layer: supervision."""

from __future__ import annotations

import attrs

from pyglyn import loops
from pyglyn.etf import Pid, Reference, Term
from pyglyn.logs import CarriedLog
from pyglyn.node.worker import HubAddress
from pyglyn.supervision.spec import CallableStart, SupervisorStart
from pyglyn.supervision.words import Recycle, StartMethod


@attrs.frozen(kw_only=True)
class ChildBoot:
    """What the OS process of a child needs to know; it is what that process runs.

    Attributes:
        address: of the hub.
        supervisor: its parent.
        ref: which start of which child this is.
        start: what to run.
        name: to register, if any.
        label: shown for its main process.
        title: what ``ps`` shows.
        waits: it is ready when it says so.
        handover: its last checkpoint.
        heartbeat: seconds after which it counts as stuck; None for never.
        recycle: when it has to end after its present work; None for never.
        default_method: how a supervisor makes its children's OS processes unless they or it say otherwise.
        worker: what the lines of its log call it.
        log: how its node logs.
        loop: the kind of event loop that its parent runs in, and it too.
    """

    address: HubAddress
    supervisor: Pid
    ref: Reference
    start: CallableStart | SupervisorStart
    name: str | None
    label: str
    title: str
    waits: bool = False
    handover: Term = None
    heartbeat: float | None = None
    recycle: Recycle | None = None
    default_method: StartMethod | None = None
    worker: str = ""
    log: CarriedLog | None = None
    loop: loops.Kind = "asyncio"
