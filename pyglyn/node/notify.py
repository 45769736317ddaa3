"""What a node says of its life to who started it: systemd, and whoever looks at a file. Layer: node.

Source: sd_notify(3), sd_watchdog_enabled(3). ``READY=1`` when nothing is waited for any more, ``STOPPING=1``
when the node stops, ``WATCHDOG=1`` twice in each ``WATCHDOG_USEC``, by the event loop: one that is stuck says
nothing. The heartbeat file is for orchestrators that can only look at a file: it holds ``starting``,
``ready`` or ``stopping``, and is replaced by a new one every `BEAT_S` seconds: who reads it never finds it
empty.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from typing import Final

from pyglyn.node.readiness import Readiness

logger = logging.getLogger("pyglyn.node")

BEAT_S: Final = 2.0
"""How often the heartbeat file is touched."""


class ServiceManager:
    """Who waits at ``NOTIFY_SOCKET``, if anybody; the variables are taken out of the environment.

    Children would otherwise speak in this node's name.

    Attributes:
        watchdog_s: how often it wants to hear that the node lives; None for never.
    """

    def __init__(self) -> None:
        address = os.environ.pop("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        usec, pid = os.environ.pop("WATCHDOG_USEC", ""), os.environ.pop("WATCHDOG_PID", "")
        is_for_us = bool(address) and pid in ("", str(os.getpid())) and usec.isdecimal() and int(usec) > 0
        self.watchdog_s = int(usec) / 1e6 / 2 if is_for_us else None

    def tell(self, text: str) -> None:
        """Send a notification; nothing happens where nobody waits for one."""
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
                sock.setblocking(False)
                sock.sendto(text.encode(), self._address)
        except OSError as error:
            logger.warning("cannot tell the service manager %s: %s", text.partition("\n")[0], error)


class Heartbeat:
    """A file that says whether the node lives, and what it does.

    Args:
        path: where; None for no file.
    """

    def __init__(self, path: str | None) -> None:
        self._path = path
        self._new = f"{path}.new"
        self._failed = False

    def write(self, state: str) -> None:
        """Say what the node does; a file that cannot be written is said in the log, once."""
        if self._path is None:
            return
        try:
            with open(self._new, "w", encoding="ascii") as file:
                file.write(state + "\n")
            os.replace(self._new, self._path)
            self._failed = False
        except OSError as error:
            if not self._failed:
                logger.warning("cannot write the heartbeat file: %s", error)
            self._failed = True

    def remove(self) -> None:
        """The node has ended."""
        if self._path is not None:
            for path in (self._path, self._new):
                with contextlib.suppress(OSError):
                    os.unlink(path)


class LifeSigns:
    """Tells both of them, for as long as the node runs."""

    def __init__(self, readiness: Readiness, stopping: asyncio.Event, heartbeat_file: str | None) -> None:
        self._readiness = readiness
        self._stopping = stopping
        self._manager = ServiceManager()
        self._file = Heartbeat(heartbeat_file)
        self._state = "starting"
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin to tell."""
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._phases()), loop.create_task(self._beat())]
        if self._manager.watchdog_s is not None:
            self._tasks.append(loop.create_task(self._watchdog(self._manager.watchdog_s)))

    async def stop(self) -> None:
        """Tell nothing any more."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._file.remove()

    async def _phases(self) -> None:
        starting = asyncio.ensure_future(self._readiness.begun())
        stopping = asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait((starting, stopping), return_when=asyncio.FIRST_COMPLETED)
            if not self._stopping.is_set():
                self._enter("ready", "READY=1")
            await stopping
            self._enter("stopping", "STOPPING=1")
        finally:
            starting.cancel()
            stopping.cancel()

    def _enter(self, state: str, notification: str) -> None:
        self._state = state
        self._file.write(state)
        self._manager.tell(notification)

    async def _beat(self) -> None:
        while True:
            self._file.write(self._state)
            await asyncio.sleep(BEAT_S)

    async def _watchdog(self, interval: float) -> None:
        while True:
            self._manager.tell("WATCHDOG=1")
            await asyncio.sleep(interval)
