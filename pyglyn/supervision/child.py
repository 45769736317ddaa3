"""What runs in the OS process of a supervised child, by what the child is. Layer: supervision.

`run_child` is on top of everything here: a child may be a supervisor, which starts children in turn. So it is
handed down to where they are started, in `pyglyn.supervision.place.Place`.
"""

from __future__ import annotations

import asyncio

import attrs

from pyglyn import logs
from pyglyn.errors import SpecificationError
from pyglyn.etf import Atom
from pyglyn.node.exits import Exit
from pyglyn.node.gen_server import run_server
from pyglyn.node.process import Process
from pyglyn.node.worker import Worker
from pyglyn.supervision.blocking import run_blocking
from pyglyn.supervision.bodies import is_blocking, run_callable, take_name
from pyglyn.supervision.boot import ChildBoot
from pyglyn.supervision.child_loop import Body, run_as_worker, run_loop
from pyglyn.supervision.os.child import ChildSide
from pyglyn.supervision.os.processes import OsProcesses
from pyglyn.supervision.place import Place
from pyglyn.supervision.server import SupervisorServer
from pyglyn.supervision.spec import CallableStart, Supervisor, SupervisorStart, declared


def run_child(boot: ChildBoot, side: ChildSide) -> int:
    """Run a child in this OS process until it ends; returns the exit status."""
    logs.continue_in_child(boot.log, node=boot.supervisor.node, worker=boot.worker)
    if isinstance(boot.start, CallableStart) and is_blocking(boot.start.target):
        return run_blocking(boot, boot.start, side)
    return run_loop(boot.loop, run_as_worker(boot, side, _body(boot, boot.start)))


def _body(boot: ChildBoot, start: CallableStart | SupervisorStart) -> Body:
    if isinstance(start, CallableStart):
        return lambda me, worker: run_callable(me, start, boot.waits)

    async def supervise(me: Process, worker: Worker) -> None:
        await _run_supervisor(me, worker, _declared(start), boot)

    return supervise


def _declared(start: SupervisorStart) -> Supervisor:
    """The declaration of a supervisor.

    Raises:
        Exit: it makes no sense.
    """
    try:
        return declared(start)
    except SpecificationError as error:
        raise Exit((Atom("supervisor_data"), error.reason)) from error


async def _run_supervisor(me: Process, worker: Worker, declaration: Supervisor, boot: ChildBoot) -> None:
    """The body of a supervisor that has this OS process to itself."""
    place = Place(
        OsProcesses(owns_orphans=True),
        attrs.evolve(boot.address, parent=worker.runtime.serial),
        lambda os_pid, reason: asyncio.ensure_future(worker.ask(Atom("exited"), os_pid, reason)),
        run_child,
        declaration.start_method or boot.default_method,
    )
    worker.on_info.append(place.rows)
    if declaration.name is not None and not me.names:
        await take_name(me, declaration.name)
    try:
        await run_server(me, SupervisorServer, (declaration, place))
    finally:
        await place.os_processes.close()
