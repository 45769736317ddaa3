"""A service whose aggregates are spread over several OS processes: the process that callers know.

It passes each request on to the worker of its aggregate, which answers the caller itself, and then tells here
that it has. Whoever waits for a worker that ends is told so at once, since callers can only monitor the
process they know.

Layer: eventsourcing, service.
"""

from __future__ import annotations

import contextlib
import itertools
import zlib
from collections.abc import Callable
from functools import partial
from typing import Any

from pyglyn import etf
from pyglyn.errors import CallFailed, CallTimeout, EventStoreError
from pyglyn.etf import Atom, Pid, Reference, Term
from pyglyn.eventsourcing.cluster.routing import opened, passed_on, start_routing
from pyglyn.eventsourcing.domain import wire
from pyglyn.eventsourcing.domain.aggregate import SystemStats
from pyglyn.node import Caller, GenServer, NoReply
from pyglyn.node.calls import GEN_CALL, GEN_CAST

PASSED, ANSWERED = Atom("pyglyn_passed"), Atom("pyglyn_answered")

Fail = Callable[[Term], None]
"""Tells a caller that the worker has ended; given the reason."""


def worker_name(name: str, number: int) -> str:
    """Name a worker of a service."""
    return f"{name}_{number}"


class FrontServer(GenServer):
    """Spreads the requests of a service over its OS processes."""

    async def init(self, name: str, workers: int, scope: str | None, queries: int) -> None:
        """Take note of what the service is made of."""
        self.name = name
        self.workers = workers
        self.queries = queries
        self.numbers = itertools.count(1)
        self.monitors: dict[Reference, str] = {}  # whose end we are told
        self.waiting: dict[str, dict[int, Fail]] = {}  # by worker: the requests it has not answered
        self.me.trap_exit = True
        self.routing = await start_routing(self.me, scope, name)

    def _worker(self, request: Term) -> str:
        id = request[1] if isinstance(request, tuple) and len(request) > 1 else b""
        return worker_name(self.name, zlib.crc32(id) % self.workers if isinstance(id, bytes) else 0)

    async def handle_call(self, request: Term, caller: Caller) -> Any:
        """Pass a request on; the worker answers the caller itself."""
        if request in ((wire.SYSTEM_STATS,), wire.SYSTEM_STATS):
            return await self._system_stats()
        message: Term = (GEN_CALL, (caller.pid, caller.tag), request)
        if not await passed_on(self.me, self.routing, request, message):
            self._pass(request, message)
        return NoReply

    async def handle_cast(self, request: Term) -> None:
        """Pass a command on."""
        if not await passed_on(self.me, self.routing, request, (GEN_CAST, request)):
            self._pass(request, (GEN_CAST, request))

    async def handle_info(self, message: Term) -> None:
        """Pass an actor message of the Gleam library on; note answers and the ends of workers."""
        match message:
            case (Atom("pyglyn_answered"), int() as number):
                for requests in self.waiting.values():
                    requests.pop(number, None)
            case (Atom("DOWN"), Reference() as ref, _, _, reason):
                self._worker_ended(ref, reason)
            case (Atom("EXIT"), Pid() as pid, _):
                if self.routing is not None:
                    self.routing.exited(pid)
            case (_, (Atom("get_system_stats"), (Atom("subject"), Pid() as owner, tag))):
                self.me.send(owner, (tag, await self._system_stats()))
            case (Atom("pyglyn_forwarded"), ((_, (_, _), request) | (_, request)) as original):
                opened(self.routing, original)
                self._pass(request, original)
            case (_, request) if not await passed_on(self.me, self.routing, request, message):
                self._pass(request, message)

    def _pass(self, request: Term, message: Term) -> None:
        name, fail = self._worker(request), self._failure(message)
        if fail is None:
            self.me.send(name, message)
            return
        if name not in self.waiting:
            self.waiting[name] = {}
            self.monitors[self.me.monitor(name)] = name
        number = next(self.numbers)
        self.waiting[name][number] = fail
        self.me.send(name, (PASSED, self.me.pid, number, message))

    def _failure(self, message: Term) -> Fail | None:
        """How to tell the one who waits for an answer that none will come; None if nobody does."""
        match message:
            case (Atom("$gen_call"), from_, _) if (caller := Caller.from_term(from_)) is not None:
                return partial(self._fail_caller, caller)
            case (_, (Atom(), *_, (Atom("subject"), Pid() as owner, tag))):
                return partial(self._fail_subject, owner, tag)
        return None

    def _fail_caller(self, caller: Caller, reason: Term) -> None:
        self.reply(caller, (wire.ERROR, (wire.WORKER_ENDED, reason)))

    def _fail_subject(self, owner: Pid, tag: Term, reason: Term) -> None:
        text = f"the service's worker ended: {etf.text.format(reason, limit=500)}"
        self.me.send(owner, (tag, (wire.ERROR, wire.error_term(EventStoreError(text), for_gleam=True))))

    def _worker_ended(self, ref: Reference, reason: Term) -> None:
        name = self.monitors.pop(ref, None)
        for fail in self.waiting.pop(name, {}).values() if name is not None else ():
            fail(reason)

    async def _system_stats(self) -> Term:
        total = 0
        for number in range(self.workers):
            with contextlib.suppress(CallFailed, CallTimeout):  # one that is being restarted
                answer = await self.me.call(worker_name(self.name, number), (wire.SYSTEM_STATS,))
                total += wire.read_system_stats(answer).total_commands_processed
        return wire.system_stats_term(SystemStats(self.queries, total))
