"""A service whose aggregates are spread over several OS processes: the process that callers know.

It hands each request to the worker of its aggregate, which answers the caller itself; see
:mod:`pyglyn.eventsourcing.cluster.errands`.

Layer: eventsourcing, service.
"""

from __future__ import annotations

import contextlib
import zlib
from typing import Any

from pyglyn.errors import CallFailed, CallTimeout
from pyglyn.etf import Atom, Pid, Term
from pyglyn.eventsourcing.cluster import recent
from pyglyn.eventsourcing.cluster.errands import Done, Errands, handed_on
from pyglyn.eventsourcing.cluster.routing import opened, passed_on, start_routing
from pyglyn.eventsourcing.domain import wire
from pyglyn.eventsourcing.domain.aggregate import SystemStats
from pyglyn.node import Caller, GenServer, NoReply
from pyglyn.node.calls import GEN_CALL, GEN_CAST
from pyglyn.node.signals import ExitSignal

PASSED = Atom("pyglyn_passed")


def worker_name(name: str, number: int) -> str:
    """Name a worker of a service."""
    return f"{name}_{number}"


class FrontServer(GenServer):
    """Spreads the requests of a service over its OS processes."""

    marks_signals = True

    async def init(self, name: str, workers: int, scope: str | None, queries: int) -> None:
        """Take note of what the service is made of."""
        self.name = name
        self.workers = workers
        self.queries = queries
        self.me.trap_exit = True
        self.errands = Errands(self.me)
        self.routing = await start_routing(self.me, scope, name, self.errands)
        await recent.announce(self.me, name)

    def _worker(self, request: Term) -> str:
        id = request[1] if isinstance(request, tuple) and len(request) > 1 else b""
        return worker_name(self.name, zlib.crc32(id) % self.workers if isinstance(id, bytes) else 0)

    async def handle_call(self, request: Term, caller: Caller) -> Any:
        """Pass a request on; the worker answers the caller itself."""
        if request in ((wire.SYSTEM_STATS,), wire.SYSTEM_STATS):
            return await self._system_stats()
        message: Term = (GEN_CALL, (caller.pid, caller.tag), request)
        if not await passed_on(self.routing, request, message):
            self._pass(request, message)
        return NoReply

    async def handle_cast(self, request: Term) -> None:
        """Pass a command on."""
        if not await passed_on(self.routing, request, (GEN_CAST, request)):
            self._pass(request, (GEN_CAST, request))

    async def handle_info(self, message: Term) -> None:
        """Pass an actor message of the Gleam library on; note answers and the ends of workers."""
        if self.errands.take(message):
            return
        match message:
            case ExitSignal((_, Pid() as pid, _)):
                if self.routing is not None:
                    self.routing.exited(pid)
            case (_, (Atom("get_system_stats"), (Atom("subject"), Pid() as owner, tag))):
                self.me.send(owner, (tag, await self._system_stats()))
            case (Atom("pyglyn_forwarded"), _, _, ((_, (_, _), request) | (_, request)) as original):
                opened(self.routing, original)
                self._pass(request, original, handed_on(self.me, message)[1])
            case (_, request) if not await passed_on(self.routing, request, message):
                self._pass(request, message)

    def _pass(self, request: Term, message: Term, done: Done | None = None) -> None:
        self.errands.hand_on(PASSED, self._worker(request), message, done=done)

    async def _system_stats(self) -> Term:
        total = 0
        for number in range(self.workers):
            with contextlib.suppress(CallFailed, CallTimeout):  # one that is being restarted
                answer = await self.me.call(worker_name(self.name, number), (wire.SYSTEM_STATS,))
                total += wire.read_system_stats(answer).total_commands_processed
        return wire.system_stats_term(SystemStats(self.queries, total))
