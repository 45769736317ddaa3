"""``Phoenix.LiveDashboard.SystemInfo``, as a LiveDashboard on another node asks it. Layer: node.

Source: phoenix_live_dashboard 0.8, system_info.ex. LiveDashboard pushes that module to nodes that have not
got it; ``code:is_loaded/1`` says of this node that it has, and ``dashboard_running?`` keeps it from being
replaced.

Environment variables are never told: there are passwords among them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

from pyglyn import etf
from pyglyn.etf import Atom, Pid, Port, Term
from pyglyn.node.census import Census
from pyglyn.node.destinations import name_of
from pyglyn.node.exits import atom_of
from pyglyn.node.exports import Badarg
from pyglyn.node.hub import Hub
from pyglyn.node.reasons import ERROR, OK
from pyglyn.node.tools import applications, modules, trees
from pyglyn.node.tools.ports import INET, Ports
from pyglyn.node.tools.system_info import System
from pyglyn.node.tools.terms import Functions, pairs, text

MODULE: Final = "Elixir.Phoenix.LiveDashboard.SystemInfo"
_PROCESSES: Final = ("memory", "reductions", "message_queue_len", "current_function")
_DETAILS: Final = ("registered_name", "initial_call")
_PROCESS: Final = (
    "links", "monitors", "monitored_by", "registered_name", "current_function", "status", "message_queue_len",
    "trap_exit", "error_handler", "priority", "group_leader", "total_heap_size", "heap_size", "stack_size",
    "reductions", "garbage_collection", "suspending", "current_stacktrace",
)  # fmt: skip


def functions(hub: Hub, census: Census) -> Functions:
    """Its callbacks."""
    info = SystemInfo(hub, census)
    callbacks: tuple[Callable[..., Awaitable[Term]], ...] = (
        info.info_callback,
        info.usage_callback,
        info.capabilities_callback,
        info.processes_callback,
        info.process_info_callback,
        info.applications_info_callback,
        info.app_tree_callback,
        info.ports_callback,
        info.port_info_callback,
        info.ets_callback,
        info.ets_info_callback,
        info.sockets_callback,
        info.socket_info_callback,
        info.memory_allocators_callback,
        info.env_info_callback,
    )
    return {(MODULE, callback.__name__): callback for callback in callbacks}


def _map(*names_and_values: Any) -> Term:
    return dict(pairs(*names_and_values))


def _lower(search: Term) -> str:
    return search.decode(errors="replace").lower() if isinstance(search, bytes) else ""


def _page(found: list[Any], sort_by: Term, sort_dir: Term, limit: Term) -> list[Any]:
    """The first so many property lists in the order of one of their values."""
    if not isinstance(limit, int):
        raise Badarg("a limit is a number")

    def key(entry: list[Any]) -> tuple[int, Any]:
        value = dict(entry).get(sort_by)
        return (0, value) if isinstance(value, int) else (1, etf.text.format(value))

    return sorted(found, key=key, reverse=sort_dir is Atom("desc"))[:limit]


class SystemInfo:
    """Answers for one node."""

    def __init__(self, hub: Hub, census: Census) -> None:
        self.hub = hub
        self.census = census
        self.system = System(hub, census)
        self.ports = Ports(hub, census)

    async def _system_info(self, *names: str) -> list[Term]:
        return [await self.system.info(Atom(name)) for name in names]

    # --- the node ---------------------------------------------------------------------------------

    async def info_callback(self, keys: Term, app: Term) -> Term:
        """The home page."""
        banner, architecture, atoms, ports, processes = await self._system_info(
            "system_version", "system_architecture", "atom_limit", "port_limit", "process_limit"
        )
        found = applications.find(self.hub, app)
        about = _map(
            "banner", banner, "elixir_version", b"None", "phoenix_version", b"None",
            "app_version", text(found.version) if found else b"None", "system_architecture", architecture,
        )  # fmt: skip
        return _map(
            "system_info", about,
            "system_limits", _map("atoms", atoms, "ports", ports, "processes", processes),
            "system_usage", await self.usage_callback(),
            "environment", await self.env_info_callback(keys),
        )  # fmt: skip

    async def usage_callback(self) -> Term:
        """What changes on it."""
        atoms, ports, processes = await self._system_info("atom_count", "port_count", "process_count")
        (_, received), (_, sent) = await self.system.io()
        return _map(
            "atoms", atoms, "ports", ports, "processes", processes, "io", (received, sent),
            "uptime", self.system.uptime_ms(), "memory", await self._memory(),
            "total_run_queue", 0, "cpu_run_queue", 0,
        )  # fmt: skip

    async def _memory(self) -> Term:
        values = {kind.name: value for kind, value in await self.census.memory()}
        kinds = {"process": values["processes"]} | {k: values[k] for k in ("atom", "binary", "code", "ets")}
        shown: list[Any] = [item for pair in kinds.items() for item in pair]
        return _map("total", values["total"], *shown, "other", values["total"] - sum(kinds.values()))

    async def env_info_callback(self, keys: Term) -> Term:
        """The names that were asked for, without values."""
        return [(key, None) for key in keys] if isinstance(keys, list) else None

    async def capabilities_callback(self, requirements: Term) -> Term:
        """What further pages can count on: the applications and names that are here."""
        wanted: list[Any] = requirements if isinstance(requirements, list) else []
        return _map(
            "system_info", bytes(16), "dashboard_running?", True,
            "applications", [what for kind, what in wanted
                             if kind is Atom("application") and applications.find(self.hub, what)],
            "modules", [what for kind, what in wanted
                        if kind is Atom("module") and name_of(what) in modules.names(self.hub)],
            "processes", [what for kind, what in wanted
                          if kind is Atom("process") and self.hub.whereis(name_of(what) or "")],
        )  # fmt: skip

    async def memory_allocators_callback(self, largest: Term) -> Term:
        """The allocators with the largest sizes seen so far, which the page keeps."""
        names: Any = await self.system.info(Atom("alloc_util_allocators"))
        sizes: Any = await self.system.info((Atom("allocator_sizes"), names))
        known: dict[Any, Any] = dict(largest) if isinstance(largest, dict) else {}
        entries = []
        for name, [(_, _, [(_, [(_, [(_, [(_, block, *_)])]), (_, carrier, *_)]), _])] in sizes:
            entries.append((name, block, carrier))
        total = (Atom("total"), sum(e[1] for e in entries), sum(e[2] for e in entries))
        found: list[Term] = []
        for name, block, carrier in [total, *entries]:
            known[name] = max(known.get(name, 0), carrier)
            found.append(
                _map(
                    "name",
                    name,
                    "block_size",
                    block,
                    "carrier_size",
                    carrier,
                    "max_carrier_size",
                    known[name],
                )
            )
        return (found, known)

    # --- processes --------------------------------------------------------------------------------

    async def processes_callback(
        self, search: Term, sort_by: Term, sort_dir: Term, limit: Term, before: Term
    ) -> Term:
        """A page of processes, how many there are, and the reductions to compare with next time."""
        wanted, known = _lower(search), before if isinstance(before, dict) else {}
        items: list[Term] = [Atom(name) for name in _PROCESSES + _DETAILS]
        everybody = await self.census.infos(items)
        found = []
        for pid, answers in everybody:
            values = {item.name: value for item, value in answers}
            name = _shown(values)
            if wanted in name.lower() or wanted in f"<0.{pid.id}.{pid.serial}>":
                past: Any = known.get(pid, 0)
                entry = pairs("pid", pid, "name_or_initial_call", name.encode(),
                              "reductions_diff", values["reductions"] - past)  # fmt: skip
                found.append(entry + [(Atom(key), values[key]) for key in _PROCESSES])
        following: dict[Any, Any] = {
            dict(entry)[Atom("pid")]: dict(entry)[Atom("reductions")] for entry in found
        }
        return (_page(found, sort_by, sort_dir, limit), len(found) if wanted else len(everybody), following)

    async def process_info_callback(self, pid: Pid) -> Term:
        """Everything about one."""
        answers = await self.census.info(
            pid, [Atom(name) for name in ("dictionary", "initial_call", *_PROCESS)]
        )
        if answers is None:
            return ERROR
        values = {item.name: value for item, value in answers}
        ancestors = dict(values["dictionary"]).get(Atom("$ancestors"), [])
        above = [await self._details(one) for one in ancestors]
        found = pairs("initial_call", values["initial_call"], "ancestors", above, "label", None)
        for name in _PROCESS:
            value = values[name]
            if name in ("links", "monitored_by"):
                value = [await self._details(one) for one in value]
            elif name == "monitors":
                value = [await self._details(one) for _, one in value]
            elif name == "group_leader":
                value = await self._details(value)
            found.append((Atom(name), value))
        return (OK, found)

    async def _details(self, of: Any) -> Term:
        """``%ProcessDetails{}`` or ``%PortDetails{}``."""
        if isinstance(of, Port):
            return _struct("PortDetails", port=of, description=of)
        if isinstance(of, Atom):
            of = self.hub.whereis(of.name) or of
        answers = None
        if isinstance(of, Pid) and of.node == self.hub.name:
            answers = await self.census.info(of, [Atom(name) for name in _DETAILS])
        if answers is None:
            shown = etf.text.format(of).encode() if isinstance(of, tuple) else None
            return _struct("ProcessDetails", pid=of, name_or_initial_call=shown, initial_call=None)
        values = {item.name: value for item, value in answers}
        shown = _shown(values).encode()
        call = values["initial_call"]
        return _struct("ProcessDetails", pid=of, name_or_initial_call=shown, initial_call=call)

    # --- applications -----------------------------------------------------------------------------

    async def applications_info_callback(
        self, search: Term, sort_by: Term, sort_dir: Term, limit: Term
    ) -> Term:
        """A page of applications, and how many there are."""
        wanted = _lower(search)
        found = [
            pairs("name", atom_of(each.name), "description", each.description.encode(),
                  "version", each.version.encode(), "state", Atom("started"), "tree?", each.top is not None)
            for each in applications.running(self.hub)
            if any(wanted in part.lower() for part in (each.name, each.description, each.version))
        ]  # fmt: skip
        return (_page(found, sort_by, sort_dir, limit), len(found))

    async def app_tree_callback(self, app: Term) -> Term:
        """``{{master, Pid, []}, Trees}``: what is above its tree, and its tree."""
        application = applications.find(self.hub, app)
        top = None if application is None else await trees.tree(self.hub, self.census, application)
        if top is None:
            return ERROR
        return ((Atom("master"), self.hub.whereis("pyglyn_sup") or self.hub.system.pid, []), [_wrapped(top)])

    # --- ports, sockets, tables -------------------------------------------------------------------

    async def ports_callback(self, search: Term, sort_by: Term, sort_dir: Term, limit: Term) -> Term:
        """A page of the ports that are not of the network."""
        wanted = _lower(search)
        found = [
            [*pairs("port", port), *_port_items(items)]
            for port, items in await self.ports.all()
            if _name(items) not in INET and wanted in _name(items)
        ]
        return (_page(found, sort_by, sort_dir, limit), len(found))

    async def port_info_callback(self, port: Term) -> Term:
        """One of them."""
        items = await self.ports.find(port)
        if items is None:
            return ERROR
        owner = await self._details(items["connected"])
        return (OK, _port_items(items | {"links": [owner], "connected": owner}))

    async def sockets_callback(self, search: Term, sort_by: Term, sort_dir: Term, limit: Term) -> Term:
        """A page of the ports that are of the network."""
        wanted = _lower(search)
        found = [_socket(port, items) for port, items in await self.ports.all() if _name(items) in INET]
        found = [entry for entry in found if any(wanted in _address_of(entry, side) for side in _SIDES)]
        return (_page(found, sort_by, sort_dir, limit), len(found))

    async def socket_info_callback(self, port: Term) -> Term:
        """One of them."""
        items = await self.ports.find(port)
        if items is None or _name(items) not in INET:
            return ERROR
        entry = _socket(port, items)
        connected = Atom("connected")
        owner = await self._details(items["connected"])
        return (OK, [(key, owner if key is connected else value) for key, value in entry])

    async def ets_callback(self, search: Term, sort_by: Term, sort_dir: Term, limit: Term) -> Term:
        """There are no tables."""
        return ([], 0)

    async def ets_info_callback(self, table: Term) -> Term:
        """There are no tables."""
        return ERROR


_SIDES: Final = ("local_address", "foreign_address")


def _struct(name: str, **fields: Any) -> Term:
    return {Atom("__struct__"): Atom(f"{MODULE}.{name}")} | {
        Atom(key): value for key, value in fields.items()
    }


def _shown(values: dict[str, Any]) -> str:
    """The registered name as Elixir shows it, else the initial call."""
    name = values["registered_name"]
    if name != []:
        return f":{name}"
    module, function, arity = values["initial_call"]
    return f":{module}.{function}/{arity}"


def _wrapped(branch: trees.Branch) -> Term:
    kind = Atom("supervisor" if branch.is_supervisor else "worker")
    label = branch.label.encode()  # no atom: there would be a new one in the asking node for every OS process
    return ((kind, branch.pid, label), [_wrapped(child) for child in branch.below])


def _name(items: dict[str, Any]) -> str:
    return "".join(map(chr, items["name"]))


def _port_items(items: dict[str, Any]) -> list[Term]:
    names = ("name", "links", "id", "connected", "input", "output", "os_pid")
    return [(Atom(name), items[name]) for name in names]


def _socket(port: Any, items: dict[str, Any]) -> list[Any]:
    about = items["socket"]
    return pairs(
        "module", Atom("prim_inet"), "port", port,
        "local_address", _address(about[Atom("local")]), "foreign_address", _address(about[Atom("peer")]),
        "state", _state(about), "type", Atom("stream" if _name(items) == "tcp_inet" else "dgram"),
        "connected", items["connected"], "send_oct", items["output"], "recv_oct", items["input"],
    )  # fmt: skip


def _state(about: Any) -> bytes:
    if about[Atom("listening")]:
        return b"LISTEN"
    return b"CONNECTED" if isinstance(about[Atom("peer")], tuple) else b"BOUND"


def _address(address: Any) -> bytes:
    """As ``inet:i/0`` writes it."""
    if not isinstance(address, tuple):
        return b"*:*"
    ip, port = address
    if not any(ip):
        return f"*:{port}".encode()
    if ip in ((127, 0, 0, 1), (0, 0, 0, 0, 0, 0, 0, 1)):
        return f"localhost:{port}".encode()
    shown = ".".join(map(str, ip)) if len(ip) == 4 else ":".join(f"{part:x}" for part in ip)
    return f"{shown}:{port}".encode()


def _address_of(entry: list[Any], side: str) -> str:
    found: bytes = dict(entry)[Atom(side)]
    return found.decode()
