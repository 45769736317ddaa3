"""The one owner of an aggregate among the services of a name: how everybody finds it.

Services of one name on several nodes share a database and a scope. Each is a member of group
``{pyglyn_aggregates, Name}``; the owner of an aggregate is the member whose node has the highest hash with
the aggregate's id (rendezvous hashing), so every node computes the same owner without asking, and when a node
goes only its own aggregates move.

Layer: eventsourcing, cluster.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Collection

from pyglyn.errors import CallFailed, NoOwner
from pyglyn.etf import Atom, Pid, Term
from pyglyn.groups import syn
from pyglyn.node import At
from pyglyn.node.reasons import NOPROC

AGGREGATES = Atom("pyglyn_aggregates")

DISCOVERY_S = 5.0
"""How long a node without any owner to ask waits for the answers of those it has just been connected to."""


def owner_of(aggregate_id: str, members: Collection[Pid]) -> Pid | None:
    """Choose the owner of an aggregate; None without members. Equal on every node with the same members."""
    key = aggregate_id.encode()

    def weight(pid: Pid) -> tuple[bytes, int, int]:
        return hashlib.blake2b(pid.node.encode() + b"\0" + key, digest_size=8).digest(), pid.serial, pid.id

    return max(members, key=weight, default=None)


async def members(at: At, scope: str, name: str) -> list[Pid]:
    """List the services of a name, on all nodes."""
    return [pid for pid, _ in await syn.members(at, scope, (AGGREGATES, name.encode()))]


class Owners:
    """The services of a name in a scope, as somebody who has to do with their aggregates sees them."""

    def __init__(self, at: At, scope: str, name: str) -> None:
        self._at = at
        self._scope = scope
        self._name = name

    async def find(self, aggregate_id: str, *, but: Collection[Pid] = ()) -> Pid:
        """Find the owner of an aggregate, among the services that are not in ``but``.

        Where there is none, it waits until all connected nodes have said whether they have one.

        Raises:
            NoOwner: no connected node serves it.
        """
        owner = await self._known(aggregate_id, but)
        if owner is None:
            try:
                async with asyncio.timeout(DISCOVERY_S):
                    await syn.settled(self._at, self._scope)
            except TimeoutError:
                pass
            owner = await self._known(aggregate_id, but)
        if owner is None:
            raise NoOwner(self._name)
        return owner

    async def _known(self, aggregate_id: str, but: Collection[Pid]) -> Pid | None:
        alive = [pid for pid in await members(self._at, self._scope, self._name) if pid not in but]
        return owner_of(aggregate_id, alive)

    async def ask(self, aggregate_id: str, ask: Callable[[Pid], Awaitable[Term]]) -> Term:
        """Ask the owner, and the next one if it turns out not to be there.

        Raises:
            NoOwner: none is left; nothing was done.
            CallFailed: the owner, or its node, went away meanwhile: what it was asked for may have been done.
        """
        tried: set[Pid] = set()
        while True:
            owner = await self.find(aggregate_id, but=tried)
            try:
                return await ask(owner)
            except CallFailed as failure:
                if failure.reason is not NOPROC:
                    raise
                tried.add(owner)  # it was not there, so it did nothing; its leaving has not been told yet
