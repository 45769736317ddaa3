"""The event loop in the OS process of a child. Layer: supervision.

The OS process becomes a worker of the node, starts the child's main process, tells the supervisor its pid
(``{'$child', Ref, Pid}``, private) and when it is ready (``{ack, Pid, {ok, Pid}}``, as
``proc_lib:init_ack/1``), and ends when the main process has ended. Everything else the supervisor learns from
the link.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeAlias

from pyglyn import loops, patience
from pyglyn.etf import Atom, Term
from pyglyn.node.process import Process
from pyglyn.node.reasons import SHUTDOWN, is_clean
from pyglyn.node.runtime import Runtime
from pyglyn.node.worker import Worker, run_worker
from pyglyn.supervision.bodies import take_name
from pyglyn.supervision.boot import ChildBoot
from pyglyn.supervision.os import kernel
from pyglyn.supervision.os.child import ChildSide
from pyglyn.supervision.os.deaths import exit_status
from pyglyn.supervision.os.start import end_with_all_below
from pyglyn.supervision.recycling import Recycling

CHILD: Final = Atom("$child")
OTHERS_GRACE_S: Final = 1.0
"""How long the other processes of a worker may clean up once its main process has ended."""
BEATS: Final = 4
"""A child with a heartbeat says so often within the time after which it counts as stuck that it lives."""

Body: TypeAlias = Callable[[Process, Worker], Awaitable[None]]
"""What the main process of a child runs."""


async def run_as_worker(boot: ChildBoot, side: ChildSide, body: Body) -> int:
    """Become a worker of the node and run ``body`` as the main process."""
    if not kernel.parent_death_signal():
        side.die_with_parent()
    if boot.heartbeat is not None:
        beat(side.fds["heartbeat"], boot.heartbeat / BEATS)

    async def main(worker: Worker) -> int:
        return await _main(boot, worker, body)

    return await run_worker(boot.address, boot.title, main, end_with_all_below)


async def _main(boot: ChildBoot, worker: Worker, body: Body) -> int:
    ended: asyncio.Future[Term] = asyncio.get_running_loop().create_future()

    async def run(me: Process) -> None:
        await take_name(me, boot.name)
        await body(me, worker)

    process = worker.runtime.spawn(run, label=boot.label)
    process.supervised = True
    process.parent = boot.supervisor
    process.handover = boot.handover
    process.on_end.append(ended.set_result)
    if boot.recycle is not None:
        Recycling(process, boot.recycle).start()
    process.link(boot.supervisor)
    process.tell_parent((CHILD, boot.ref, process.pid))
    worker.request((Atom("main"), process.pid))
    reason = await ended
    await stop_others(worker.runtime)
    return exit_status(reason, clean=is_clean(reason))


async def stop_others(runtime: Runtime) -> None:
    """Stop all processes of a runtime, which may clean up for a moment."""
    tasks = []
    for process in list(runtime.processes.values()):
        process.die(SHUTDOWN)
        if process._task is not None:
            tasks.append(process._task)
    if tasks:
        with contextlib.suppress(TimeoutError):
            async with patience.timeout(OTHERS_GRACE_S):
                await asyncio.wait(tasks)
    runtime.kill_all(SHUTDOWN)


def run_loop(kind: loops.Kind, coroutine: Any) -> int:
    """Run an event loop of this OS process's own. It is not closed: the OS process ends with it."""
    loop = loops.maker(kind)()
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
