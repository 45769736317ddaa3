"""How a supervisor begins the start of a child: OS process, light process or program. Layer: supervision."""

from __future__ import annotations

import asyncio
import errno
import functools
import os
from collections.abc import Awaitable, Callable
from typing import Any

from pyglyn import logs, loops
from pyglyn.errors import ChildStartError, ForkUnsafe
from pyglyn.etf import Atom, Pid, Term
from pyglyn.node.exits import Exit, exception_term
from pyglyn.node.process import Process
from pyglyn.supervision.bodies import is_blocking, run_callable, take_name
from pyglyn.supervision.boot import ChildBoot
from pyglyn.supervision.ceilings import watch_heartbeat, watch_memory
from pyglyn.supervision.os.command import ProgramStart
from pyglyn.supervision.os.program import start_program
from pyglyn.supervision.place import Place
from pyglyn.supervision.running import OsEnded, ProgramReady, Running, StartFailed
from pyglyn.supervision.spec import CallableStart, Supervisor, SupervisorStart, declared
from pyglyn.supervision.wording import label, shown
from pyglyn.supervision.words import Isolation, StartMethod


class Launcher:
    """Starts children for one supervisor.

    Args:
        me: the supervisor's process.
        place: where OS processes are made.
        method: how, unless a child says otherwise.
        post: puts an event into the supervisor's mailbox.
        by_pid: filled with the children whose pid is known at once.
        supervise: the body of a light supervisor, by its declaration.
    """

    def __init__(
        self,
        me: Process,
        place: Place,
        method: StartMethod | None,
        post: Callable[[Any], None],
        by_pid: dict[Pid, Running],
        supervise: Callable[[Process, Supervisor], Awaitable[None]],
    ) -> None:
        self.me = me
        self.place = place
        self.by_pid = by_pid
        self._method = method
        self._post = post
        self._supervise = supervise

    def start(self, run: Running, handover: Term) -> None:
        """Begin a start; how it goes on arrives in the supervisor's mailbox.

        Raises:
            Exception: it cannot even be begun; see `start_failure`.
        """
        if isinstance(run.start, ProgramStart):
            run.is_program = True
            run.task = asyncio.get_running_loop().create_task(self._start_program(run, run.start))
        elif run.spec.isolation is Isolation.TASK:
            self._start_task(run, handover)
        else:
            self._start_os_process(run, handover)

    def _start_os_process(self, run: Running, handover: Term) -> None:
        start = run.start
        assert isinstance(start, (CallableStart, SupervisorStart))
        if run.spec.recycle is not None and not _takes_messages(start):
            raise TypeError("recycle is for async functions and GenServers, which take messages")
        role = "supervisor" if isinstance(start, SupervisorStart) else "worker"
        title = self._title(run, role)
        boot = ChildBoot(
            address=self.place.address,
            supervisor=self.me.pid,
            ref=run.ref,
            start=start,
            name=run.spec.name,
            label=label(run),
            title=title,
            waits=run.spec.start_timeout is not None,
            handover=handover,
            heartbeat=run.spec.heartbeat,
            recycle=run.spec.recycle,
            default_method=self._method,
            worker=shown(run.spec),
            log=logs.carried(),
            loop=loops.running(),
        )
        fds: dict[str, int] = {}
        if run.spec.heartbeat is not None:
            reading, fds["heartbeat"] = os.pipe()
            watch_heartbeat(run, reading)
        try:
            method = run.spec.start_method or self._method
            main = functools.partial(self.place.run_child, boot)
            self._runs_in(run, self.place.start(main, title=title, fds=fds, method=method))
        finally:
            for fd in fds.values():
                os.close(fd)

    def _runs_in(self, run: Running, os_process: Any) -> None:
        run.os_process = os_process
        os_process.on_exit(lambda status: self._post(OsEnded(run, status)))
        if run.spec.memory_limit is not None:
            watch_memory(run)

    def _title(self, run: Running, role: str) -> str:
        return f"pyglyn {self.me.node} {shown(run.spec)} {role}"

    def _start_task(self, run: Running, handover: Term) -> None:
        start = run.start
        body: Callable[[Process], Any]
        if isinstance(start, SupervisorStart):
            declaration = declared(start)
            body = lambda me: self._supervise(me, declaration)  # noqa: E731
        else:
            assert isinstance(start, CallableStart)
            if is_blocking(start.target):
                raise TypeError("a blocking function needs an OS process of its own, not isolation='task'")
            waits = run.spec.start_timeout is not None
            body = lambda me: run_callable(me, start, waits)  # noqa: E731

        async def child(me: Process) -> None:
            await take_name(me, run.spec.name)
            await body(me)

        process = self.me.runtime.spawn(child, link_to=self.me.pid, label=label(run))
        self.me.signals.on_link(process.pid)
        process.supervised = True
        process.parent = self.me.pid
        process.handover = handover
        if isinstance(start, SupervisorStart):
            process.on_end.append(lambda reason: self.place.abandon(process.pid))
        run.pid = process.pid
        self.by_pid[process.pid] = run

    # --- programs ----------------------------------------------------------------------------------

    async def _start_program(self, run: Running, start: ProgramStart) -> None:
        method = run.spec.start_method or self._method
        begin = functools.partial(
            start_program,
            self.place.os_processes,
            start,
            name=shown(run.spec),
            title=self._title(run, "program"),
            timeout=run.spec.start_timeout,
        )
        try:
            try:
                os_process = await begin(method=method or StartMethod.FORK)
            except ForkUnsafe:
                if method is not None:
                    raise
                os_process = await begin(method=StartMethod.SPAWN)
        except Exception as error:
            self._post(StartFailed(run, start_failure(error)))
        else:
            self._post(ProgramReady(run, os_process))
        finally:
            run.task = None

    def stand_in(self, event: ProgramReady) -> None:
        """Give the program a pid: a process here that ends when it does, and stops it when it is stopped."""
        run, os_process = event.running, event.os_process

        async def stand_for(me: Process) -> None:
            await take_name(me, run.spec.name)
            me.ready()
            try:
                while not isinstance(await me.receive(), OsEnded):
                    pass  # a program takes no messages
            except asyncio.CancelledError:
                os_process.terminate()
                await os_process.wait()
                if run.override is not None:
                    me.exit_reason = run.override  # it did not stop in time
                raise
            raise Exit(run.final_reason)

        process = self.me.runtime.spawn(stand_for, link_to=self.me.pid, label=label(run))
        self.me.signals.on_link(process.pid)
        process.quiet = True
        process.parent = self.me.pid
        process.on_end.append(lambda reason: os_process.kill())
        run.pid = process.pid
        self.by_pid[process.pid] = run
        self._runs_in(run, os_process)

        def ended(status: Any) -> None:
            event: Any = OsEnded(run, status)
            process.put(event)

        os_process.on_exit(ended)


def start_failure(error: Exception) -> Term:
    """The reason of a start that failed with an exception in the supervisor."""
    if isinstance(error, ChildStartError):
        return error.reason  # type: ignore[return-value]
    if isinstance(error, OSError) and error.errno is not None:
        return (Atom(errno.errorcode.get(error.errno, "oserror").lower()), str(error).encode())
    if isinstance(error, ForkUnsafe):
        return (Atom("fork_unsafe"), str(error).encode())
    return exception_term(error)


def _takes_messages(start: CallableStart | SupervisorStart) -> bool:
    return isinstance(start, CallableStart) and not is_blocking(start.target)
