"""The functions that every pyglyn node exports for shells and tools: read-only ones of module ``erlang``, and
``pyglyn:tree/0``, ``kill/1``, ``stop/0``, ``log_level/0,1``, and ``logger``'s primary level.

Layer: node. Source: erlang(3), "process_info"; otp-messages on what Observer and ``rpc`` users ask.
"""

from __future__ import annotations

import asyncio
import resource
from typing import Any

from pyglyn import logs
from pyglyn.errors import PyglynError
from pyglyn.etf import Atom, Pid, Term
from pyglyn.node import inspection
from pyglyn.node.destinations import name_of
from pyglyn.node.exits import atom_of
from pyglyn.node.exports import Exports
from pyglyn.node.hub import Hub
from pyglyn.node.process import Process
from pyglyn.node.reasons import OK, UNDEFINED
from pyglyn.node.workers import Workers

_VISIBLE = Atom("visible")
_STOP_DELAY_S = 0.05
"""Lets the answer to ``pyglyn:stop()`` go out first."""


class Badarg(PyglynError):
    """An argument a built-in function does not accept."""

    reason = "badarg"


def builtins(hub: Hub, workers: Workers) -> Exports:
    """What a node exports of itself. The functions are ``async`` to run at once, not in a thread."""

    async def name() -> Term:
        return Atom(hub.name)

    async def nodes(kind: Term = _VISIBLE) -> Term:
        return _nodes(hub, kind)

    async def whereis(wanted: Term) -> Term:
        return _whereis(hub, wanted)

    async def registered() -> Term:
        return [atom_of(wanted) for wanted in hub.runtime.names]

    async def processes() -> Term:
        return [process.pid for process in hub.runtime.processes.values()]

    async def is_process_alive(pid: Term) -> Term:
        return _process(hub, pid) is not None

    async def process_info(pid: Term, items: Term = None) -> Term:
        return _process_info(hub, pid, items)

    async def memory() -> Term:
        return [(Atom("total"), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)]

    async def tree() -> Term:
        return await inspection.tree(hub, workers)

    async def kill(wanted: Term) -> Term:
        text = wanted.decode(errors="replace") if isinstance(wanted, bytes) else str(wanted)
        return inspection.kill(hub, workers, text)

    async def log_level(level: Term = UNDEFINED) -> Term:
        if level is not UNDEFINED:
            _set_log_level(workers, level)
        return Atom(logs.level())

    async def get_primary_config() -> Term:
        return {Atom("level"): Atom(_OTP_LEVELS.get(logs.level(), "notice"))}

    async def set_primary_config(key: Term, value: Term) -> Term:
        if key is not Atom("level"):
            raise Badarg("the level is the one thing of the log that can be set from outside")
        _set_log_level(workers, value)
        return OK

    async def stop() -> Term:
        asyncio.get_running_loop().call_later(_STOP_DELAY_S, hub.stopping.set)
        return OK

    table = Exports()
    table.add("erlang", name, "node")
    for function in (nodes, whereis, registered, processes, is_process_alive, process_info, memory):
        table.add("erlang", function)
    for function in (tree, kill, stop, log_level):
        table.add("pyglyn", function)
    table.add("logger", get_primary_config)
    table.add("logger", set_primary_config)
    return table


_OTP_LEVELS = {name: name for name in logs.LEVELS} | {"notset": "all"}
_LEVELS_OF_OTP = {
    "emergency": "critical",
    "alert": "critical",
    "notice": "info",
    "all": "debug",
    "none": "critical",
}
"""Levels of OTP's logger that Python has not got: the next one that loses nothing, or nothing but noise."""


def _set_log_level(workers: Workers, level: Term) -> None:
    name = level.decode(errors="replace") if isinstance(level, bytes) else str(level)
    try:
        logs.set_level(_LEVELS_OF_OTP.get(name, name))
    except ValueError as error:
        raise Badarg(str(error)) from error
    workers.log_level(logs.level())


def _nodes(hub: Hub, kind: Term) -> Term:
    kinds = kind if isinstance(kind, list) else [kind]
    hidden = {name for name in hub.nodes() if hub.is_hidden(name)}
    names: set[str] = set()
    for each in kinds:
        match each:
            case Atom("visible"):
                names |= set(hub.nodes()) - hidden
            case Atom("hidden"):
                names |= hidden
            case Atom("connected"):
                names |= set(hub.nodes())
            case Atom("this"):
                names.add(hub.name)
            case Atom("known"):
                names |= {*hub.nodes(), hub.name}
            case _:
                raise Badarg("nodes: visible, hidden, connected, this or known")
    return [Atom(name) for name in sorted(names)]


def _whereis(hub: Hub, name: Term) -> Term:
    wanted = name_of(name)
    if wanted is None:
        raise Badarg("whereis needs an atom")
    return hub.whereis(wanted) or UNDEFINED


def _process(hub: Hub, pid: Term) -> Process | None:
    if not isinstance(pid, Pid) or pid.node != hub.name:
        raise Badarg("a pid of this node is needed")
    return hub.runtime.processes.get(pid.id) if hub.runtime.is_here(pid) else None


_DEFAULT_ITEMS = [
    "registered_name",
    "current_function",
    "initial_call",
    "status",
    "message_queue_len",
    "links",
    "dictionary",
    "trap_exit",
    "group_leader",
]


def _process_info(hub: Hub, pid: Term, items: Term) -> Term:
    process = _process(hub, pid)
    if process is None:
        return UNDEFINED
    if isinstance(items, Atom):
        value = _item(process, items)
        return [] if value == [] and items is Atom("registered_name") else (items, value)
    wanted = [Atom(name) for name in _DEFAULT_ITEMS] if items is None else items
    if not isinstance(wanted, list) or not all(isinstance(item, Atom) for item in wanted):
        raise Badarg("process_info needs an item or a list of items")
    pairs: list[Term] = [(item, _item(process, item)) for item in wanted]
    if items is None and pairs[0] == (Atom("registered_name"), []):
        pairs = pairs[1:]
    return pairs


def _item(process: Process, item: Atom) -> Term:
    python = (Atom("python"), Atom(process.label[:255] or "process"), 1)
    values: dict[str, Any] = {
        "registered_name": lambda: Atom(process.names[0]) if process.names else [],
        "current_function": lambda: python,
        "current_location": lambda: (*python, []),
        "current_stacktrace": lambda: [(*python, [])],
        "initial_call": lambda: python,
        "status": lambda: Atom("waiting"),
        "message_queue_len": lambda: process.message_queue_len,
        "links": lambda: [pid for pid, state in process.signals.links.items() if state == 0],
        "monitors": lambda: [
            (Atom("process"), t if isinstance(t, Pid) else (t[0], Atom(t[1])))
            for t in process.signals.monitors.values()
        ],
        "monitored_by": lambda: [watcher for watcher, _ in process.signals.watchers.values()],
        "dictionary": list,
        "trap_exit": lambda: process.trap_exit,
        "group_leader": lambda: process.group_leader or UNDEFINED,
        "memory": lambda: 0,
        "reductions": lambda: 0,
        "heap_size": lambda: 0,
        "stack_size": lambda: 0,
        "total_heap_size": lambda: 0,
        "priority": lambda: Atom("normal"),
        "error_handler": lambda: Atom("error_handler"),
        "suspending": list,
    }
    if item.name not in values:
        raise Badarg(f"process_info has no item {item}")
    return values[item.name]()  # type: ignore[no-any-return]
