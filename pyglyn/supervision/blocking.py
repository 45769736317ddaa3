"""Plain blocking functions as children: the function in the main thread, the node in a second one.

Layer: supervision. The function gets a `BlockingProcess`: the methods of a process without ``await``. An exit
signal is raised in the main thread as `Exit`, also while it sleeps or computes in Python; not while it is
inside a C function that does not come back, which the supervisor's ``kill`` ends.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import inspect
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final, TypeVar

from pyglyn import etf
from pyglyn.etf import Pid, Reference, Term
from pyglyn.node.destinations import Destination, ServerRef, check_destination
from pyglyn.node.exits import Exit
from pyglyn.node.mailbox import Match
from pyglyn.node.process import Process
from pyglyn.node.worker import Worker
from pyglyn.supervision.child_loop import run_as_worker, run_loop
from pyglyn.supervision.os.child import ChildSide

if TYPE_CHECKING:
    from pyglyn.supervision.boot import ChildBoot
    from pyglyn.supervision.spec import CallableStart

EXIT_SIGNAL: Final = signal.SIGRTMIN + 6 if sys.platform == "linux" else signal.SIGUSR1
"""Sent to the main thread of a blocking child to raise `Exit` there."""

SIGNAL_AGAIN_S: Final = 0.05
"""After how long it is sent again."""

MOST_WAITING: Final = 256
"""Messages that may wait for the node's thread; the next ``send`` waits until they have gone out."""

T = TypeVar("T")


class BlockingProcess:
    """``me`` in a blocking function: what `Process` has, without ``await``. For the main thread only.

    What is sent goes out in the order of the calls, with everything else this process does.
    """

    def __init__(self, process: Process, loop: asyncio.AbstractEventLoop) -> None:
        self._process = process
        self._loop = loop
        self._outbox: deque[tuple[Destination, Term]] = deque()
        self._failure: Exception | None = None  # of a message that had been taken
        self.pid: Pid = process.pid
        self.handover: Term = process.handover

    def __repr__(self) -> str:
        return repr(self._process)

    @property
    def node(self) -> str:
        """The name of the node it runs on."""
        return self.pid.node

    @property
    def names(self) -> list[str]:
        """What it is registered as."""
        return list(self._process.names)

    @property
    def message_queue_len(self) -> int:
        """How many messages wait."""
        return self._process.message_queue_len

    @property
    def trap_exit(self) -> bool:
        """Whether exit signals arrive as messages."""
        return self._process.trap_exit

    @trap_exit.setter
    def trap_exit(self, value: bool) -> None:
        self._process.trap_exit = value

    # --- the bridge between the threads ----------------------------------------------------------------

    def _wait(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the node's thread and wait for it; an exit signal ends the wait."""
        if self._failure is not None:
            coroutine.close()
            self._raise_failure()
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def _do(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        async def run() -> T:
            return function(*args, **kwargs)

        return self._wait(run())

    def run(self, function: Callable[..., Awaitable[T]], *args: Any, **kwargs: Any) -> T:
        """Call an async function with this process as its first argument, and wait for it.

        For what has no blocking form: ``me.run(pg.join, "workers", me.pid)``, or ``me.run(lambda process:
        es.Service(process, "bank").execute(id, command))``.
        """

        async def call() -> T:
            return await function(self._process, *args, **kwargs)

        return self._wait(call())

    # --- messages --------------------------------------------------------------------------------------

    def send(self, to: Destination, message: Term) -> None:
        """Send a message; see `Process.send`.

        It waits only while much that was sent before has not gone out.

        Raises:
            EncodeError: the message is no term.
            TypeError: that is no destination.
            NodeBusy: far too much is queued for another node; a message before this one was not sent.
        """
        check_destination(to)
        self._raise_failure()
        self._outbox.append((to, etf.normalise(message)))
        if len(self._outbox) >= MOST_WAITING:
            self._wait(self._send_all())
        elif len(self._outbox) == 1:
            self._loop.call_soon_threadsafe(self._flush)

    def _raise_failure(self) -> None:
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def _flush(self) -> None:
        while self._outbox:
            to, message = self._outbox.popleft()
            if self._process.alive:
                try:
                    self._process.send(to, message)
                except Exception as error:
                    self._failure = error

    async def _send_all(self) -> None:
        self._flush()
        await self._process.drain()

    def receive(self, match: Match | None = None, timeout: float | None = None) -> Term:
        """Take the next message, or the first one that matches; see `Process.receive`.

        Raises:
            TimeoutError: none came in time.
        """
        return self._wait(self._process.receive(match, timeout))

    def drain(self) -> None:
        """Wait until the nodes this process has sent much to have taken it."""
        self._wait(self._process.drain())

    def send_after(self, seconds: float, to: Destination, message: Term) -> Reference:
        """Send a message later; see `Process.send_after`."""
        return self._do(self._process.send_after, seconds, to, message)

    def cancel_timer(self, timer: Reference) -> float | None:
        """Stop a timer; see `Process.cancel_timer`."""
        return self._do(self._process.cancel_timer, timer)

    def make_ref(self) -> Reference:
        """A new unique reference."""
        return self._do(self._process.make_ref)

    def call(self, server: ServerRef, request: Term, timeout: float | None = 5.0) -> Term:
        """Call a server; see `Process.call`."""
        return self._wait(self._process.call(server, request, timeout))

    def cast(self, server: ServerRef, request: Term) -> None:
        """Send a request to a ``gen_server`` without waiting."""
        self._do(self._process.cast, server, request)

    # --- links, monitors, other processes --------------------------------------------------------------

    def link(self, to: Pid) -> None:
        """Link to a process; see `Process.link`."""
        self._do(self._process.link, to)

    def unlink(self, to: Pid) -> None:
        """Remove a link."""
        self._do(self._process.unlink, to)

    def monitor(self, to: ServerRef, *, alias: bool = False) -> Reference:
        """Monitor a process; see `Process.monitor`."""
        return self._do(self._process.monitor, to, alias=alias)

    def alias(self) -> Reference:
        """A reference that stands for this process; see `Process.alias`."""
        return self._do(self._process.alias)

    def unalias(self, ref: Reference) -> bool:
        """Give an alias up."""
        return self._do(self._process.unalias, ref)

    def demonitor(self, ref: Reference, *, flush: bool = False) -> None:
        """Stop a monitor."""
        self._do(self._process.demonitor, ref, flush=flush)

    def exit(self, to: Pid, reason: Term) -> None:
        """Send an exit signal, as ``exit/2``."""
        self._do(self._process.exit, to, reason)

    def spawn(self, body: Callable[..., Awaitable[Any]], *args: Any, name: str | None = None) -> Pid:
        """Start an async function as a process in this OS process, in the node's thread."""
        return self._do(self._process.spawn, body, *args, name=name)

    def spawn_link(self, body: Callable[..., Awaitable[Any]], *args: Any, name: str | None = None) -> Pid:
        """Start a process linked to this one."""
        return self._do(self._process.spawn_link, body, *args, name=name)

    def spawn_monitor(
        self, body: Callable[..., Awaitable[Any]], *args: Any, name: str | None = None
    ) -> tuple[Pid, Reference]:
        """Start a process that this one monitors."""
        return self._do(self._process.spawn_monitor, body, *args, name=name)

    def register(self, name: str, pid: Pid | None = None) -> None:
        """Register this process under a name of the node; see `Process.register`."""
        self._wait(self._process.register(name, pid))

    def unregister(self, name: str) -> None:
        """Give a name up."""
        self._wait(self._process.unregister(name))

    def whereis(self, name: str) -> Pid | None:
        """The pid registered under a name of this node."""
        return self._wait(self._process.whereis(name))

    # --- as a supervisor's child -----------------------------------------------------------------------

    def ready(self) -> None:
        """Tell the supervisor that this process is ready; see `Process.ready`."""
        self._do(self._process.ready)

    def checkpoint(self, value: Term) -> None:
        """Leave a value for the next start; see `Process.checkpoint`."""
        self._do(self._process.checkpoint, value)


class _Bridge:
    """Hands the process to the main thread, and the main thread's end to the process."""

    def __init__(self, waits: bool) -> None:
        self.waits = waits
        self.begun: concurrent.futures.Future[BlockingProcess] = concurrent.futures.Future()
        self.finished: asyncio.Future[None]
        self.loop: asyncio.AbstractEventLoop
        self.process: Process
        self.running = False
        self.signalled = False
        self.over = False

    async def body(self, me: Process, worker: Worker) -> None:
        """The process's body in the node's thread: waits until the function is done."""
        self.loop = asyncio.get_running_loop()
        self.finished = self.loop.create_future()
        self.process = me
        if not self.waits:
            me.ready()
        self.begun.set_result(BlockingProcess(me, self.loop))
        try:
            await asyncio.shield(self.finished)
        except asyncio.CancelledError:
            await self._interrupt()
            await asyncio.shield(self.finished)
            raise

    async def _interrupt(self) -> None:
        """Signal the main thread until its handler has run.

        What comes just before it begins to wait in C, for a lock or in a sleep, is not seen before it wakes.
        """
        while not (self.signalled or self.finished.done()):
            signal.pthread_kill(threading.main_thread().ident or 0, EXIT_SIGNAL)
            await asyncio.wait((self.finished,), timeout=SIGNAL_AGAIN_S)

    def raise_exit(self, number: int, frame: object) -> None:
        """The signal handler, in the main thread: `Exit` is raised once, in the function and nowhere else."""
        self.signalled = True
        if self.running:
            self.running = False
            raise Exit(self.process.exit_reason)

    def call(self, function: Callable[[], object]) -> BaseException | None:
        """Call the function in the main thread; returns what it raised."""
        try:
            self.running = True
            if self.signalled:  # before the line above
                self.raise_exit(EXIT_SIGNAL, None)
            made = function()
            self.running = False
            if inspect.isawaitable(made):
                return TypeError("the function returned something to be awaited: make it an async function")
        except BaseException as error:
            return error
        return None

    def finish(self, error: BaseException | None) -> None:
        """The function is done; from the main thread."""

        def tell() -> None:
            if self.finished.done():
                return
            if error is None:
                self.finished.set_result(None)
            else:
                self.finished.set_exception(error)

        self.loop.call_soon_threadsafe(tell)


def run_blocking(boot: ChildBoot, start: CallableStart, side: ChildSide) -> int:
    """Run a blocking child in this OS process: the function here, its event loop in a second thread."""
    bridge = _Bridge(boot.waits)
    signal.signal(EXIT_SIGNAL, bridge.raise_exit)
    status = 1

    def serve() -> None:
        nonlocal status
        try:
            status = run_loop(boot.loop, run_as_worker(boot, side, bridge.body))
        finally:
            if not bridge.over:  # killed, or never begun: the main thread has nothing left to do
                os._exit(status)

    thread = threading.Thread(target=serve, name="pyglyn node", daemon=True)
    thread.start()
    me = bridge.begun.result()
    error = bridge.call(functools.partial(start.target, me, *start.args, **start.kwargs))
    bridge.over = True
    bridge.finish(error)
    thread.join()
    return status
