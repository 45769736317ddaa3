"""The child's side: what runs in the OS process of a supervised child. Layer: supervision.

The OS process becomes a worker of the node, starts the child's main process, tells the supervisor its pid
(``{'$child', Ref, Pid}``) and when it is ready (``{ack, Pid, {ok, Pid}}``, as ``proc_lib:init_ack/1``), and
ends when the main process has ended. Everything else the supervisor learns from the link.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import sys
from collections.abc import Awaitable, Callable
from typing import Any, Final

import attrs

from pyglyn.errors import NameTaken, SpecificationError
from pyglyn.etf import Atom, Pid, Reference, Term
from pyglyn.node.exits import Exit
from pyglyn.node.gen_server import GenServer, Ignore, run_server
from pyglyn.node.process import ACK, Process
from pyglyn.node.reasons import SHUTDOWN, is_clean
from pyglyn.node.runtime import Runtime
from pyglyn.node.worker import HubAddress, Worker, run_worker
from pyglyn.supervision import kernel
from pyglyn.supervision.declaration import Supervisor, declared
from pyglyn.supervision.os_child import ChildSide
from pyglyn.supervision.os_start import end_with_all_below
from pyglyn.supervision.spec import CallableStart, StartMethod, SupervisorStart

CHILD: Final = Atom("$child")
OTHERS_GRACE_S: Final = 1.0
"""How long the other processes of a worker may clean up once its main process has ended."""
BEATS: Final = 4
"""A child with a heartbeat says so often within the time after which it counts as stuck that it lives."""

logger = logging.getLogger("pyglyn.supervision")


def is_server(target: object) -> bool:
    """Whether a child is a `GenServer` class."""
    return inspect.isclass(target) and issubclass(target, GenServer)


def is_blocking(target: Callable[..., Any]) -> bool:
    """Whether a child is a plain function, which has its OS process to itself."""
    if is_server(target):
        return False
    called: object = target
    if not inspect.isroutine(target):
        called = getattr(target, "func", None) or type(target).__call__
    return not inspect.iscoroutinefunction(target) and not inspect.iscoroutinefunction(called)


class Started(asyncio.Future[Any]):
    """Resolved when a server's ``init`` is through; tells the parent in that very moment."""

    me: Process

    def set_result(self, error: Any) -> None:
        super().set_result(error)
        if error is None:
            self.me.ready()
        elif isinstance(error, Ignore):
            assert self.me.parent is not None
            self.me.send(self.me.parent, (ACK, self.me.pid, Atom("ignore")))


async def run_callable(me: Process, start: CallableStart, waits: bool) -> None:
    """The body of a child that is an async function or a `GenServer`.

    Args:
        waits: a function is started when it calls ``me.ready()``, not at once.
    """
    target: Any = start.target
    if is_server(target):
        started = Started()
        started.me = me
        await run_server(me, target, start.args, dict(start.kwargs), started, me.parent)
        return
    if not waits:
        me.ready()
    await target(me, *start.args, **start.kwargs)


async def take_name(me: Process, name: str | None) -> None:
    """Register the child's name.

    Raises:
        Exit: ``{already_started, Pid}`` when another process has it, as from ``gen_server:start``.
    """
    if name is None:
        return
    try:
        await me.register(name)
    except NameTaken:
        raise Exit((Atom("already_started"), await me.whereis(name) or Atom("undefined"))) from None


def exit_status(reason: Term) -> int:
    """The exit status of an OS process whose main process ended with a reason."""
    match reason:
        case (Atom("exit_status"), int() as status):
            return status & 0xFF
        case _:
            return 0 if is_clean(reason) else 1


async def stop_others(runtime: Runtime) -> None:
    """Stop all processes of a runtime, which may clean up for a moment."""
    tasks = []
    for process in list(runtime.processes.values()):
        process.die(SHUTDOWN)
        if process._task is not None:
            tasks.append(process._task)
    if tasks:
        await asyncio.wait(tasks, timeout=OTHERS_GRACE_S)
    runtime.kill_all(SHUTDOWN)


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
        default_method: how a supervisor makes its children's OS processes unless they or it say otherwise.
        log_level: of the logger ``pyglyn``, for a fresh interpreter.
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
    default_method: StartMethod | None = None
    log_level: int = logging.INFO

    def __call__(self, side: ChildSide) -> int:
        """Run the child in this OS process until it ends; returns the exit status."""
        set_up_logging(self.log_level)
        if isinstance(self.start, CallableStart) and is_blocking(self.start.target):
            from pyglyn.supervision.blocking import run_blocking

            return run_blocking(self, self.start, side)
        return run_loop(self.run(side, self._body(side)))

    def _body(self, side: ChildSide) -> Callable[[Process, Worker], Awaitable[None]]:
        start = self.start
        if isinstance(start, CallableStart):
            return lambda me, worker: run_callable(me, start, self.waits)

        async def supervise(me: Process, worker: Worker) -> None:
            from pyglyn.supervision.supervisor import run_in_worker

            await run_in_worker(me, worker, self.declared(start), self)

        return supervise

    def declared(self, start: SupervisorStart) -> Supervisor:
        """The declaration of a supervisor.

        Raises:
            Exit: it makes no sense.
        """
        try:
            return declared(start)
        except SpecificationError as error:
            raise Exit((Atom("supervisor_data"), error.reason)) from error

    async def run(self, side: ChildSide, body: Callable[[Process, Worker], Awaitable[None]]) -> int:
        """Become a worker of the node and run ``body`` as the main process."""
        if not kernel.parent_death_signal():
            side.die_with_parent()
        if self.heartbeat is not None:
            beat(side.fds["heartbeat"], self.heartbeat / BEATS)

        async def main(worker: Worker) -> int:
            return await self._main(worker, body)

        return await run_worker(self.address, self.title, main, end_with_all_below)

    async def _main(self, worker: Worker, body: Callable[[Process, Worker], Awaitable[None]]) -> int:
        ended: asyncio.Future[Term] = asyncio.get_running_loop().create_future()

        async def run(me: Process) -> None:
            await take_name(me, self.name)
            await body(me, worker)

        process = worker.runtime.spawn(run, label=self.label)
        process.quiet = True  # the supervisor's log line says it
        process.parent = self.supervisor
        process.handover = self.handover
        process.on_end.append(ended.set_result)
        process.link(self.supervisor)
        process.send(self.supervisor, (CHILD, self.ref, process.pid))
        worker.request((Atom("main"), process.pid))
        reason = await ended
        await stop_others(worker.runtime)
        return exit_status(reason)


def run_loop(coroutine: Any) -> int:
    """Run an event loop of this OS process's own. It is not closed: the OS process ends with it."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    status: int = loop.run_until_complete(coroutine)
    return status


def beat(fd: int, interval: float) -> None:
    """Write a byte now and then, for as long as this event loop goes round."""
    loop = asyncio.get_running_loop()
    os.set_blocking(fd, False)

    def tick() -> None:
        try:
            os.write(fd, b".")
        except BlockingIOError:
            pass  # the supervisor is slow, and will find many
        except OSError:
            return
        loop.call_later(interval, tick)

    tick()


def set_up_logging(level: int) -> None:
    """Log to standard error, unless the application or a fork has set up logging."""
    own = logging.getLogger("pyglyn")
    if own.hasHandlers():
        return
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    own.addHandler(handler)
    own.setLevel(level)
