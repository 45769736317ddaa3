"""Looks at nodes as long as somebody watches, and tells all watchers the same. Layer: http.

The children of supervisors are monitored meanwhile, so that a death is told with its reason, and at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections import deque
from collections.abc import AsyncGenerator, Iterable
from typing import Any, Final

from pyglyn.etf import Pid, Reference
from pyglyn.http import merged
from pyglyn.http.events import Events
from pyglyn.http.observed import Observed
from pyglyn.node import Node, Process
from pyglyn.node.described import Json, pid_text
from pyglyn.node.exits import Exit, reason_text
from pyglyn.node.signals import DownSignal

PERIOD_S: Final = 1.0
"""How often nodes are looked at."""
DEATHS: Final = 200
"""How many deaths are kept for those who open the page later."""
WAITING: Final = 4
"""How many events may wait for a watcher that does not read; then it misses some."""


class Observer:
    """Watches some nodes for the page.

    Args:
        local: the node that asks.
        names: whom.
        may_change: whether the page may pause, resume, replay and drive queries.
        stores: URLs of stores whose last events are shown; they are read in threads.
    """

    def __init__(
        self, local: Node, names: Iterable[str], *, may_change: bool = False, stores: Iterable[str] = ()
    ) -> None:
        self.local = local
        self.stores = [Events(url) for url in stores]
        self.nodes = {name: Observed(local, name) for name in names}
        self.may_change = may_change
        self.deaths: deque[Json] = deque(maxlen=DEATHS)
        self._dead: deque[Pid] = deque(maxlen=DEATHS)
        self._watchers: set[asyncio.Queue[tuple[str, str]]] = set()
        self._latest: str | None = None
        self._task: asyncio.Task[None] | None = None
        self._now = asyncio.Event()
        self._monitored: dict[Pid, tuple[Reference, str]] = {}

    async def look(self) -> Json:
        """What is so now."""
        nodes = await asyncio.gather(*(node.look() for node in self.nodes.values()))
        events = [(store.name, await store.look()) for store in self.stores]
        for node in self.nodes.values():
            events += node.recent
        return {
            "at": time.time(),
            "may_change": self.may_change,
            "nodes": nodes,
            "groups": merged.groups((node.name, node.scopes) for node in self.nodes.values()),
            "events": {
                "sources": [name for name, _ in events],
                "errors": [{"source": s.name, "error": s.error} for s in self.stores if s.error],
                "trees": merged.events(events),
            },
        }

    async def events(self) -> AsyncGenerator[tuple[str, str], None]:
        """Names and data of what happens, beginning with what is so."""
        queue: asyncio.Queue[tuple[str, str]] = asyncio.Queue(WAITING)
        queue.put_nowait(("deaths", json.dumps(list(self.deaths))))
        if self._latest is not None and self._watchers:
            queue.put_nowait(("nodes", self._latest))
        self._watchers.add(queue)
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._watch())
        try:
            while True:
                yield await queue.get()
        finally:
            self._watchers.discard(queue)

    def soon(self) -> None:
        """Look again before the period is over."""
        self._now.set()

    def _tell(self, event: str, data: str) -> None:
        for queue in self._watchers:
            if queue.full():
                queue.get_nowait()
            queue.put_nowait((event, data))

    async def _watch(self) -> None:
        async with self.local.process() as me:
            me.marks_signals = True
            me.on_wait = None  # that somebody looks does not say that the app has started
            deaths = asyncio.get_running_loop().create_task(self._take_deaths(me))
            try:
                while self._watchers:
                    self._now.clear()
                    self._latest = json.dumps(await self.look())
                    self._monitor(me)
                    self._tell("nodes", self._latest)
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(PERIOD_S):
                            await self._now.wait()
            finally:
                deaths.cancel()
                self._monitored.clear()
                self._latest = None

    def _monitor(self, me: Process) -> None:
        wanted = {pid: name for node in self.nodes.values() for pid, name in node.pids.items()}
        for pid in wanted.keys() - self._monitored.keys():
            self._monitored[pid] = me.monitor(pid), wanted[pid]
        for pid in self._monitored.keys() - wanted.keys():
            if self.nodes[pid.node].pids:  # else it did not answer: its deaths are yet to be told
                me.demonitor(self._monitored.pop(pid)[0], flush=True)

    async def _take_deaths(self, me: Process) -> None:
        with contextlib.suppress(Exit):
            while True:
                message = await me.receive()
                match message:
                    case DownSignal((_, ref, _, Pid() as pid, reason)):
                        expected, name = self._monitored.get(pid, (None, ""))
                        if expected == ref:
                            del self._monitored[pid]
                            self._tell_death(pid, name, reason)

    def _tell_death(self, pid: Pid, name: str, reason: Any) -> None:
        """Tell it, once: what a look tells may be older than a death, and then who is dead is monitored."""
        if pid in self._dead:
            return
        self._dead.append(pid)
        death = {
            "at": time.time(),
            "node": pid.node,
            "pid": pid_text(pid),
            "name": name,
            "reason": reason_text(reason),
        }
        self.deaths.append(death)
        self._tell("deaths", json.dumps([death]))
        self.soon()

    async def stop(self) -> None:
        """Look no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
