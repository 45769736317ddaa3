"""``appmon_info``: the process that Observer's Applications tab subscribes to. Layer: node.

Source: appmon_info.erl (OTP 25, 28). Clients cast ``{From, Command, Aux, OnOff, Options}``; it sends
``{delivery, self(), Command, Aux, Result}`` whenever the result has changed, looking again every ``timeout``
milliseconds, until the client ends. It ends with its starter, or with its last client.
"""

from __future__ import annotations

import contextlib
import math
import time
from typing import Any, Final

import attrs

from pyglyn import etf
from pyglyn.errors import NodeBusy
from pyglyn.etf import Atom, Pid, Reference, Term
from pyglyn.node.backpressure import WhenBusy
from pyglyn.node.calls import Caller
from pyglyn.node.census import Census
from pyglyn.node.gen_server import GenServer, Stop, start_server
from pyglyn.node.hub import Hub
from pyglyn.node.process_info import DEFAULT_ITEMS
from pyglyn.node.reasons import NORMAL, OK
from pyglyn.node.signals import ExitSignal
from pyglyn.node.tools import applications, trees
from pyglyn.node.tools.terms import Functions, text

NAME: Final = "appmon_info"
DELIVERY, DO_IT = Atom("delivery"), Atom("do_it")
_TIMEOUT_MS: Final = 2000
_LOAD_RANGE: Final = 16
_LONGEST_MS: Final = 2**32 - 1
LEAST_MS: Final = 100
"""How soon it looks again at the soonest, whatever a client asks for."""
MOST_TASKS: Final = 1000
"""What all clients together may have it look at."""


def functions(hub: Hub, census: Census) -> Functions:
    """Those of module ``appmon_info``."""

    async def start_link2(starter: Term, client: Term, options: Term) -> Term:
        known = hub.whereis(NAME)
        if known is not None:
            await hub.system.call(known, (Atom("register_client"), client), 5.0)
            return (OK, known)
        pid = await start_server(hub.runtime, AppmonInfo, hub, census, starter, client, name=NAME)
        return (OK, pid)

    return {(NAME, "start_link2"): start_link2}


@attrs.define
class _Task:
    command: str
    aux: Term
    client: Pid
    wait_ms: int | None
    result: Term = None
    timer: Reference | None = None


def _wait_ms(options: list[Any]) -> int | None:
    """After how long it looks again, by the options of a client; None for never."""
    wait: Any = _TIMEOUT_MS
    for option in options:
        match option:
            case (Atom("timeout"), given):
                wait = given
    return min(max(wait, LEAST_MS), _LONGEST_MS) if type(wait) is int else None


class AppmonInfo(GenServer):
    """Looks, and tells who wants to know."""

    marks_signals = True

    async def init(self, hub: Hub, census: Census, starter: Term, client: Term) -> None:
        self.hub = hub
        self.census = census
        self.starter = starter
        self.clients: set[Any] = set()
        self.tasks: dict[bytes, _Task] = {}
        self.used = (0, time.monotonic_ns())
        self.me.trap_exit = True
        self.me.when_busy = WhenBusy.DROP
        self._register(client)

    def format_state(self) -> Term:
        return [*self.clients]

    def _register(self, client: Term) -> None:
        if isinstance(client, Pid) and client not in self.clients:
            self.clients.add(client)
            self.me.link(client)

    async def handle_call(self, request: Term, caller: Caller) -> Any:
        match request:
            case (Atom("register_client"), client):
                self._register(client)
        return OK

    async def handle_cast(self, request: Term) -> Any:
        match request:
            case (Pid() as client, Atom() as command, aux, wanted, list() as options):
                key = etf.encode((command, aux, client))
                self._forget(key)
                if wanted is True and len(self.tasks) < MOST_TASKS:
                    self._register(client)
                    self.tasks[key] = _Task(command.name, aux, client, _wait_ms(options))
                    await self._do(key)

    async def handle_info(self, message: Term) -> Any:
        match message:
            case (Atom("do_it"), bytes() as key):
                await self._do(key)
            case ExitSignal((_, pid, reason)) if pid == self.starter:
                return Stop(reason)
            case ExitSignal((_, pid, _)):
                self.clients.discard(pid)
                for key in [key for key, task in self.tasks.items() if task.client == pid]:
                    self._forget(key)
                if not self.clients:
                    return Stop(NORMAL)
        return None

    def _forget(self, key: bytes) -> None:
        task = self.tasks.pop(key, None)
        if task is not None and task.timer is not None:
            self.me.cancel_timer(task.timer)

    async def _do(self, key: bytes) -> None:
        task = self.tasks.get(key)
        if task is None:
            return
        if task.timer is not None:  # somebody else has said that it is time
            self.me.cancel_timer(task.timer)
            task.timer = None
        result = await self._result(task)
        if result != task.result:
            task.result = result
            with contextlib.suppress(NodeBusy):  # a client that takes nothing is told nothing
                self.me.send(task.client, (DELIVERY, self.me.pid, Atom(task.command), task.aux, result))
        if task.wait_ms is not None:
            task.timer = self.me.send_after(task.wait_ms / 1000, self.me.pid, (DO_IT, key))
        else:
            del self.tasks[key]  # at_most_once

    async def _result(self, task: _Task) -> Term:
        match task.command:
            case "app_ctrl":
                return self._applications()
            case "app":
                return await self._tree(task.aux)
            case "load":
                return await self._load(task.result)
            case "pinfo":
                return await self._pinfo(task.aux)
        return (Atom(task.command), task.aux)

    def _applications(self) -> Term:
        running = applications.running(self.hub)
        return [(each.top, Atom(each.name), applications.triple(each)) for each in running if each.top]

    async def _tree(self, name: Term) -> Term:
        """``{Root, [{Pid, Label}], [{Parent, Child}], []}``, by labels."""
        application = applications.find(self.hub, name)
        top = application and await trees.tree(self.hub, self.census, application)
        if not top:
            return ([], [], [], [])
        processes: list[Term] = []
        links: list[Term] = []
        waiting = [top]
        while waiting:
            branch = waiting.pop()
            processes.append((branch.pid, text(branch.label)))
            links += [(text(branch.label), text(child.label)) for child in branch.below]
            waiting += branch.below
        return (text(top.label), processes, links, [])

    async def _load(self, before: Any) -> Term:
        use = await self.census.cpu()
        used, now = use.own_us + use.collected_us, time.monotonic_ns()
        share = (used - self.used[0]) * 1000 / max(1, now - self.used[1])
        self.used = (used, now)
        load = min(_LOAD_RANGE, int(_LOAD_RANGE * math.sqrt(max(0.0, share) / 0.9)))
        return (before[1] if isinstance(before, tuple) else 0, load)

    async def _pinfo(self, pid: Term) -> Term:
        if not isinstance(pid, Pid):
            return text("")
        about = await self.census.info(pid, [*DEFAULT_ITEMS])
        shown = etf.text.format(about, limit=10_000) if about is not None else "undefined"
        return text(f"Node: {self.hub.name}, Process: {pid}\n{shown}\n\n")
