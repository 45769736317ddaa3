"""The functions that every pyglyn node exports for shells and tools: read-only ones of module ``erlang``, and
``pyglyn:tree/0``, ``kill/1``, ``stop/0``, ``log_level/0,1``, and ``logger``'s primary level.

Layer: node. Source: erlang(3), "process_info"; otp-messages on what Observer and ``rpc`` users ask.
"""

from __future__ import annotations

from typing import Any

from pyglyn import counters, logs
from pyglyn.etf import Atom, Pid, Term
from pyglyn.node.census import MEMORY_TYPES, Census
from pyglyn.node.destinations import name_of
from pyglyn.node.exits import atom_of
from pyglyn.node.exports import Badarg, Exports
from pyglyn.node.hub import Hub
from pyglyn.node.process_info import DEFAULT_ITEMS, REGISTERED_NAME, is_item
from pyglyn.node.reasons import OK, UNDEFINED
from pyglyn.node.tools import add_answers
from pyglyn.node.tools.applications import stop_soon
from pyglyn.node.workers import Workers

_VISIBLE = Atom("visible")


def add_builtins(table: Exports, hub: Hub, workers: Workers) -> None:
    """Add what a node exports of itself. The functions are ``async`` to run at once, not in a thread."""

    census = Census(hub, workers)

    async def name() -> Term:
        return Atom(hub.name)

    async def nodes(kind: Term = _VISIBLE) -> Term:
        return _nodes(hub, kind)

    async def whereis(wanted: Term) -> Term:
        return _whereis(hub, wanted)

    async def registered() -> Term:
        return [atom_of(wanted) for wanted in hub.runtime.names]

    async def processes() -> Term:
        return [*await census.pids()]

    async def is_process_alive(pid: Term) -> Term:
        return await census.is_alive(_pid(hub, pid))

    async def process_info(pid: Term, items: Term = None) -> Term:
        return await _process_info(census, _pid(hub, pid), items)

    async def memory(types: Term = None) -> Term:
        return [*await census.memory()] if types is None else await _memory(census, types)

    async def tree() -> Term:
        return [*await census.tree()]

    async def counts() -> Term:
        workers.count()
        return [_count(*each) for each in counters.counted()]

    async def kill(wanted: Term) -> Term:
        text = wanted.decode(errors="replace") if isinstance(wanted, bytes) else str(wanted)
        return census.kill(text)

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
        stop_soon(hub)
        return OK

    table.add("erlang", name, "node")
    table.add("erlang", nodes)
    table.add("erlang", whereis)
    table.add("erlang", registered)
    table.add("erlang", is_process_alive)
    table.add("pyglyn", tree)
    table.add("pyglyn", counts)
    table.add("pyglyn", kill)
    table.add("pyglyn", stop)
    table.add("pyglyn", log_level)
    table.add("logger", get_primary_config)
    table.add("logger", set_primary_config)
    if hub.settings.observe != "off":
        for function in (processes, process_info, memory):
            table.add("erlang", function)
        add_answers(table, hub, census)


_OTP_LEVELS = {name: name for name in logs.LEVELS} | {"notset": "all"}
_LEVELS_OF_OTP = {
    "emergency": "critical",
    "alert": "critical",
    "notice": "info",
    "all": "debug",
    "none": "critical",
}
"""Levels of OTP's logger that Python has not got: the next one that loses nothing, or nothing but noise."""


def _count(name: str, labels: counters.Labels, amount: float) -> Term:
    """``{Name, [{Label, Value}], Amount}``, names and values as binaries."""
    return (name.encode(), [(key.encode(), value.encode()) for key, value in labels], amount)


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


def _pid(hub: Hub, pid: Term) -> Pid:
    if not isinstance(pid, Pid) or pid.node != hub.name:
        raise Badarg("a pid of this node is needed")
    return pid


async def _process_info(census: Census, pid: Pid, items: Term) -> Term:
    if items is None:
        pairs: Any = await census.info(pid, [*DEFAULT_ITEMS])
        if pairs is not None and pairs[0][1] == []:
            pairs = pairs[1:]
        return UNDEFINED if pairs is None else pairs
    wanted = items if isinstance(items, list) else [items]
    if not all(map(is_item, wanted)):
        raise Badarg("process_info needs an item, or a list of items, that OTP has")
    pairs = await census.info(pid, wanted)
    if pairs is None:
        return UNDEFINED
    if isinstance(items, list):
        return pairs  # type: ignore[no-any-return]
    return [] if pairs[0] == (REGISTERED_NAME, []) else pairs[0]


async def _memory(census: Census, types: Term) -> Term:
    wanted = types if isinstance(types, list) else [types]
    if not all(isinstance(kind, Atom) and kind.name in MEMORY_TYPES for kind in wanted):
        raise Badarg(f"memory: {', '.join(MEMORY_TYPES)}")
    values = dict(await census.memory())
    return [(kind, values[kind]) for kind in wanted] if isinstance(types, list) else values[types]  # type: ignore[index]
