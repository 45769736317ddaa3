"""``erlang:ports/0``, ``port_info/1,2``, and what Observer and LiveDashboard show of ports. Layer: node.

A port of this node is a socket of the hub or of a worker: the number of its OS process times 2^20, and its
descriptor. ``connected`` is ``net_kernel`` for the hub's, the worker's main process for others. What came
and went is counted for TCP. ``port_info`` of a port of a worker asks that worker alone.
"""

from __future__ import annotations

from typing import Any, Final

from pyglyn.etf import Atom, Pid, Port, Term
from pyglyn.node.census import Census
from pyglyn.node.exports import Badarg
from pyglyn.node.hub import Hub
from pyglyn.node.reasons import UNDEFINED
from pyglyn.node.tools.terms import Functions, pairs, text

_DESCRIPTORS: Final = 2**20
INET: Final = ("tcp_inet", "udp_inet", "sctp_inet")
_FIRST: Final = ("name", "links", "id", "connected", "input", "output", "os_pid")
"""What ``port_info/1`` has, in OTP's order."""
_MORE: Final = ("monitors", "monitored_by", "parallelism", "locking", "queue_size", "memory")


def functions(hub: Hub, census: Census) -> Functions:
    """Those of modules ``erlang`` and ``inet``."""
    ports = Ports(hub, census)

    async def all_ports() -> Term:
        return [port for port, _ in await ports.all()]

    async def port_info(port: Term, item: Term = None) -> Term:
        return await ports.info(port, item)

    return {("erlang", "ports"): all_ports, ("erlang", "port_info"): port_info}


class Ports:
    """The ports of one node."""

    def __init__(self, hub: Hub, census: Census) -> None:
        self.hub = hub
        self.census = census

    async def all(self) -> list[tuple[Port, dict[str, Any]]]:
        """Every port with its items."""
        return [
            (port, self._items(port, serial, about))
            for serial, found in (await self.census.sockets()).items()
            for about in found
            for port in [self._port(serial, about)]
        ]

    def _port(self, serial: int, about: Any) -> Port:
        number = serial * _DESCRIPTORS + about[Atom("fd")]
        return Port(self.hub.name, number, self.hub.local.creation)

    async def find(self, port: Term) -> dict[str, Any] | None:
        """The items of a port; None if it is none of an open socket of this node.

        Raises:
            Badarg: it is no port of this node.
        """
        if not isinstance(port, Port) or port.node != self.hub.name:
            raise Badarg("a port of this node is needed")
        serial, fd = divmod(port.id, _DESCRIPTORS)
        if port.creation != self.hub.local.creation:
            return None
        found = (await self.census.sockets(serial)).get(serial, [])
        return next((self._items(port, serial, each) for each in found if each[Atom("fd")] == fd), None)

    async def info(self, port: Term, item: Term) -> Term:
        """``port_info/1,2``."""
        items = await self.find(port)
        if item is None:
            return UNDEFINED if items is None else [(Atom(name), items[name]) for name in _FIRST]
        if item is Atom("registered_name"):
            return UNDEFINED if items is None else []
        if not isinstance(item, Atom) or item.name not in _FIRST + _MORE:
            raise Badarg("port_info: no such item")
        return UNDEFINED if items is None else (item, items[item.name])

    def _owner(self, serial: int) -> Pid:
        link = self.census.workers.links.get(serial)
        main = None if link is None else link.main
        return main or self.hub.whereis("net_kernel") or self.hub.system.pid

    def _items(self, port: Port, serial: int, about: Any) -> dict[str, Any]:
        owner = self._owner(serial)
        return {
            "name": text(about[Atom("name")].decode()),
            "links": [owner],
            "id": port.id,
            "connected": owner,
            "input": about[Atom("in")],
            "output": about[Atom("out")],
            "os_pid": UNDEFINED,
            "monitors": [],
            "monitored_by": [],
            "parallelism": False,
            "locking": Atom("port_level"),
            "queue_size": 0,
            "memory": 0,
            "socket": about,
        }


def property_list(port: Port, items: dict[str, Any]) -> Term:
    """An entry of ``observer_backend:get_port_list/0``."""
    found: list[Term] = [(Atom("port_id"), port)]
    found += [(Atom(name), items[name]) for name in _FIRST + _MORE]
    about = items["socket"]
    if about[Atom("name")].decode() in INET:
        found.append((Atom("inet"), _inet(items)))
    return found


def _inet(items: dict[str, Any]) -> Term:
    about = items["socket"]
    found = pairs(
        "statistics",
        [
            (Atom(name), {"recv_oct": items["input"], "send_oct": items["output"]}.get(name, 0))
            for name in _STATISTICS
        ],
    )
    for side, address in (("remote", about[Atom("peer")]), ("local", about[Atom("local")])):
        if isinstance(address, tuple):
            found += pairs(f"{side}_address", address[0], f"{side}_port", address[1])
    return [*found, (Atom("options"), about[Atom("options")])]


_STATISTICS: Final = (
    "recv_oct", "recv_cnt", "recv_max", "recv_avg", "recv_dvi",
    "send_oct", "send_cnt", "send_max", "send_avg", "send_pend",
)  # fmt: skip
