"""One child OS process: wait for it, signal it, stop it. Layer: supervision/os."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable

from pyglyn import forks, patience
from pyglyn.supervision.os import kernel
from pyglyn.supervision.os.deaths import ExitStatus


class OsProcess:
    """A child OS process. Made by `OsProcesses.fork`, `OsProcesses.spawn` and `OsProcesses.start`.

    Attributes:
        os_pid: the operating system's id, also of its process group and its session.
        title: what ``ps`` shows.
        token: marks what descends from it.
        started_at: by ``time.monotonic``.
        status: how it ended; None while it runs.
    """

    def __init__(self, os_pid: int, title: str, token: str, lifeline: int) -> None:
        self.os_pid = os_pid
        self.token = token
        self.title = title
        self.started_at = time.monotonic()
        self.status: ExitStatus | None = None
        self.pidfd: int | None = None
        self._lifeline: int | None = forks.keep_number(lifeline)
        self._callbacks: list[Callable[[ExitStatus], None]] = []

    async def wait(self) -> ExitStatus:
        """Wait until it has ended and is collected."""
        if self.status is None:
            future = asyncio.get_running_loop().create_future()
            self.on_exit(lambda status: None if future.done() else future.set_result(status))
            await future
        assert self.status is not None
        return self.status

    def on_exit(self, callback: Callable[[ExitStatus], None]) -> None:
        """Have a function called when it ends; at once if it has ended."""
        if self.status is not None:
            callback(self.status)
        else:
            self._callbacks.append(callback)

    def terminate(self) -> None:
        """Ask it to end (SIGTERM). Only it, not its process group: what it started is its own to stop."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Kill it (SIGKILL). What it leaves behind is killed once it is collected."""
        self.send_signal(signal.SIGKILL)

    def send_signal(self, number: int) -> None:
        """Send it a signal; nothing happens when it has ended."""
        if self.status is None:  # not collected, so the number is still its own
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.os_pid, number)

    async def stop(self, shutdown: float | None) -> ExitStatus:
        """Ask it to end, and kill it when it has not after so many seconds; with None, wait for ever."""
        self.terminate()
        try:
            async with patience.timeout(shutdown):
                return await self.wait()
        except TimeoutError:
            self.kill()
            return await self.wait()

    def resident_memory(self) -> int | None:
        """Bytes in memory; None when it has ended or that cannot be told."""
        return kernel.resident_memory(self.os_pid) if self.status is None else None

    def has_more_memory_than(self, limit: int) -> bool:
        """Whether its own memory, without what others have too, is above a limit; False when it has ended.

        Where its own cannot be told, what it shares counts too.
        """
        resident = self.resident_memory()
        if resident is None or resident <= limit:
            return False
        own = kernel.own_memory(self.os_pid)
        return own is None or own > limit

    def finish(self, status: ExitStatus) -> None:
        """Note how it ended; for `OsProcesses` only."""
        self.status = status
        for fd in (self._lifeline, self.pidfd):
            if fd is not None:
                forks.close_number(fd)
        self._lifeline = self.pidfd = None
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback(status)

    def __repr__(self) -> str:
        state = "running" if self.status is None else str(self.status.reason())
        return f"<OsProcess {self.os_pid} {self.title!r} {state}>"
