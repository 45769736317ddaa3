"""Which nodes there are: by a list, an environment variable, or DNS. Layer: net.

A `Discovery` is asked again and again (``pyglyn.node.discovering``) for the names of all nodes that are there
now, as a strategy of libcluster: `Listed` is its ``Epmd``, `DnsAddresses` its ``DNSPoll`` and
``Kubernetes.DNS``, `DnsServices` its ``Kubernetes.DNSSRV``. Whatever else has ``async def nodes(self)`` is
one.

DNS is asked by dnspython (extra ``dns``), for addresses too: the system's resolver knows no SRV records,
cannot tell "no such name" from "no answer", and takes a thread for each question, beside which no process
is forked; a poll is for ever. So ``/etc/resolv.conf`` counts (name servers, search, ndots) and
``/etc/hosts`` does not.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Protocol

import attrs

from pyglyn.errors import DiscoveryError

if TYPE_CHECKING:
    from dns.asyncresolver import Resolver


class Discovery(Protocol):
    """A way to find the nodes of a cluster."""

    async def nodes(self) -> Iterable[str]:
        """The names of all nodes that are there now; the asking node's own may be among them.

        Raises:
            DiscoveryError: nobody knows now. The nodes found before stay.
        """
        ...


@attrs.frozen
class Listed:
    """The nodes of a list.

    Attributes:
        names: ``alive@host``.
    """

    names: tuple[str, ...]

    async def nodes(self) -> Iterable[str]:
        """That list."""
        return self.names


@attrs.frozen
class FromVariable:
    """The nodes named in an environment variable, with commas or blanks between; none if it is not set.

    Attributes:
        variable: its name.
        alive: the part before the ``@`` for hosts without one.
    """

    variable: str
    alive: str

    async def nodes(self) -> Iterable[str]:
        """What it holds now."""
        return with_alive(self.alive, re.split(r"[\s,]+", os.environ.get(self.variable, "")))


@attrs.frozen(kw_only=True)
class _Dns:
    """What both kinds of records have in common.

    Attributes:
        name: what to ask for.
        alive: the part before the ``@`` of the nodes there.
        servers: addresses of name servers; empty for those of ``/etc/resolv.conf``.
        port: theirs.
        timeout_s: how long to wait for an answer, all servers and repetitions included.
    """

    name: str
    alive: str
    servers: tuple[str, ...] = ()
    port: int = 53
    timeout_s: float = 5.0

    async def _ask(self, kind: str) -> list[Any]:
        """The records of a kind that the name has; none if there is no such name or record.

        Raises:
            DiscoveryError: dnspython is not installed, there is no answer, or the servers refuse to give one.
        """
        try:
            import dns.asyncresolver
            import dns.exception
            import dns.resolver
        except ImportError as error:
            raise DiscoveryError("to find nodes by DNS needs dnspython: pip install 'pyglyn[dns]'") from error
        try:
            answer = await self._resolver().resolve(self.name, kind, search=True, lifetime=self.timeout_s)
        except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
            return []
        except (dns.exception.DNSException, OSError) as error:
            text = " ".join(str(error).split())
            raise DiscoveryError(f"DNS does not say who is {self.name}: {text}") from error
        return list(answer)

    def _resolver(self) -> Resolver:
        from dns.asyncresolver import Resolver

        resolver = Resolver(configure=not self.servers)
        if self.servers:
            resolver.nameservers = list(self.servers)
            resolver.port = self.port
        return resolver


@attrs.frozen(kw_only=True)
class DnsAddresses(_Dns):
    """Nodes named after the addresses (A records, or AAAA) of a DNS name, as a headless service has.

    ``inventory.default.svc.cluster.local`` with the addresses 10.0.0.7 and 10.0.0.8 is ``alive@10.0.0.7`` and
    ``alive@10.0.0.8``: each node has the address of its pod in its (long) name.

    Attributes:
        ipv6: ask for AAAA records.
    """

    ipv6: bool = False

    async def nodes(self) -> Iterable[str]:
        """A node for each address."""
        records = await self._ask("AAAA" if self.ipv6 else "A")
        return with_alive(self.alive, (record.address for record in records))


@attrs.frozen(kw_only=True)
class DnsServices(_Dns):
    """Nodes named after the hosts of the SRV records of a DNS name, as the pods of a stateful set have them.

    ``_dist._tcp.inventory.default.svc.cluster.local`` is
    ``alive@inventory-0.inventory.default.svc.cluster.local`` and so on. Ports and weights in the records do
    not count: the node's EPMD says its port, or ``dist_port``.
    """

    async def nodes(self) -> Iterable[str]:
        """A node for each host."""
        records = await self._ask("SRV")
        return with_alive(self.alive, (record.target.to_text(omit_final_dot=True) for record in records))


def with_alive(alive: str, hosts: Iterable[str]) -> list[str]:
    """Nodes on some hosts; what has an ``@`` is a node's name already."""
    return [host if "@" in host else f"{alive}@{host}" for host in hosts if host]


def from_text(text: str, alive: str, *, ipv6: bool = False) -> Discovery:
    """A discovery as ``pyglyn node --discover`` has it: the kind, a colon, and what to ask.

    ``list:a@x,b@y``, ``env:VARIABLE``, ``dns:NAME``, ``srv:NAME``; NAME may be ``alive@NAME`` for nodes
    that are called otherwise than this one.

    Args:
        alive: the part before the ``@`` of the asking node.

    Raises:
        DiscoveryError: it is none of these.
    """
    kind, _, what = text.partition(":")
    before, at, name = what.rpartition("@")
    if kind == "list" and what:
        return Listed(tuple(with_alive(alive, what.split(","))))
    if kind == "env" and what:
        return FromVariable(what, alive)
    if kind == "dns" and name:
        return DnsAddresses(name=name, alive=before if at else alive, ipv6=ipv6)
    if kind == "srv" and name:
        return DnsServices(name=name, alive=before if at else alive)
    raise DiscoveryError(
        f"{text!r} says nowhere to look for nodes: write list:A@X,B@Y, env:VARIABLE, dns:NAME or srv:NAME"
    )
