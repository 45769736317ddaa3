"""Whose turn it is to have effects that no transaction holds: one instance of a query at a time.

Several nodes may run a query whose effects are outside of any database. The checkpoint alone lets two of them
call the function for one event, as it is written afterwards. So before its function is called, an instance
takes a lease, a row with an owner and a time in the database of the checkpoint, by that database's clock. It
renews it while effects go on; when there is nothing to do the lease runs out, and whoever comes first has the
next event.

An instance that cannot renew its lease in time (its database is away, its computer stood still) begins no
other effect before it has it again. What it had begun goes on; another instance may repeat that.

It may have it again without ever having been refused it: another instance had it meanwhile, and has ended.
So what is known of the database counts for one `tenure`: for as long as the lease was ours without a break.

The owner of a lease is named by its pid, so whoever stands by monitors it, and goes on at once when it has
ended: a query that was killed does not wait for its own lease after the restart. Of an owner that cannot be
reached, or that is of another incarnation of a node (there may be two nodes of one name where two clusters
use one database), that is not known; then the lease has to run out.

Layer: eventsourcing, queries.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from types import TracebackType
from typing import Any

from pyglyn import etf
from pyglyn.errors import EtfError, EventStoreError, TransactionRolledBack
from pyglyn.etf import Atom, Pid, Reference, Term
from pyglyn.eventsourcing.stores.store import EventStore, Transaction
from pyglyn.node import Process
from pyglyn.node.signals import DownSignal

logger = logging.getLogger("pyglyn.eventsourcing")

LEASE_S = 10.0

_NOPROC, _NOCONNECTION = Atom("noproc"), Atom("noconnection")


class NotOurTurn(Exception):
    """Another instance of the query has the effects."""


class Turn:
    """The lease of one instance. As a context it is kept for as long as the block takes;
    several blocks may keep it at once.

    Args:
        database: where the lease is.
        query: the name of the query.
        me: the process of the instance.
        lease_s: how long an instance that cannot be reached any more keeps others from going on.

    Attributes:
        tenure: how often the lease was got, not counting when it was renewed while it was ours for sure.
    """

    def __init__(
        self, database: EventStore[Any, Any], query: str, me: Process, *, lease_s: float = LEASE_S
    ) -> None:
        self._database = database
        self._lease_s = lease_s
        self._name = f"query {query}"
        self._me = me
        self._owner = owner_name(me.pid)
        self.tenure = 0
        self._until = float("-inf")  # by our own clock, which counts intervals
        self._keepers = 0
        self._keeping: asyncio.Task[None] | None = None
        self._other = ""  # who has it instead of us, and is monitored if that is possible
        self._monitor: Reference | None = None
        self._anew_at = float("inf")  # when it is to be monitored again, its node having been lost

    async def take(self) -> None:
        """Take the lease, or make sure that much of it is left.

        Raises:
            NotOurTurn: another instance has it.
            EventStoreError: the database cannot tell.
        """
        asked_at = time.monotonic()
        if asked_at < self._until - self._lease_s / 2:
            return
        try:
            ours = await self._database.take_lease(self._name, self._owner, self._lease_s)
        except TransactionRolledBack:  # somebody else is taking it at this moment
            ours = False
        if not ours:
            self._until = float("-inf")
            raise NotOurTurn
        if not self.is_ours:
            self.tenure += 1
        self._until = max(self._until, asked_at + self._lease_s)

    @property
    def is_ours(self) -> bool:
        """Whether nobody else can have the lease now, nor can have had it since it was taken last."""
        return time.monotonic() < self._until

    async def __aenter__(self) -> None:
        await self.take()
        self._keepers += 1
        if self._keepers == 1:
            self._keeping = asyncio.get_running_loop().create_task(self._keep())

    async def __aexit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._keepers -= 1
        if self._keepers == 0:
            keeping, self._keeping = self._keeping, None
            assert keeping is not None
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)

    async def fence(self, tx: Transaction[Any, Any]) -> None:
        """See to it that a transaction is committed only while the lease is ours, in the same tenure.

        Raises:
            NotOurTurn: another instance has it, or may have had it, and may have done otherwise what this one
                has done.
        """
        if not (await tx.take_lease(self._name, self._owner, self._lease_s) and self.is_ours):
            self._until = float("-inf")
            raise NotOurTurn

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(self._lease_s / 3)
            try:
                await self.take()
            except (EventStoreError, NotOurTurn) as error:
                logger.warning("%s cannot stay the only one that has effects: %s", self._name, error)

    async def watch_other(self) -> None:
        """Monitor who has it instead of us: `other_ended` has to see the messages of the process.

        One whose node was lost is monitored again when a lease has gone by: it may be connected anew.

        Raises:
            EventStoreError: the database cannot tell who that is.
        """
        other = await self._database.lease_owner(self._name)
        if other is None or not self._me.alive:
            return
        if other == self._other and time.monotonic() < self._anew_at:
            return
        self._watch_nobody()
        self._other, self._anew_at = other, float("inf")
        pid = _pid_named(other)
        if pid is not None:
            self._monitor = self._me.monitor(pid)

    def _watch_nobody(self) -> None:
        if self._monitor is not None:
            self._me.demonitor(self._monitor, flush=True)
            self._monitor = None

    async def other_ended(self, message: Term) -> bool:
        """Take a message; whether it has made the lease free, as the other one that had it has ended.

        Raises:
            EventStoreError: the database cannot be told.
        """
        match message:
            case DownSignal((_, Reference() as ref, _, Pid() as pid, reason)) if ref == self._monitor:
                self._monitor = None
                if reason is _NOCONNECTION:
                    self._anew_at = time.monotonic() + self._lease_s
                if not self._tells_the_end(pid, reason):
                    return False
                await self._database.end_lease(self._name, self._other)
                self._other = ""
                return True
        return False

    def _tells_the_end(self, pid: Pid, reason: Term) -> bool:
        if reason is _NOPROC:
            return (pid.node, pid.creation) == (self._me.pid.node, self._me.pid.creation)
        return reason is not _NOCONNECTION

    async def end(self) -> None:
        """Let others go on at once."""
        if self.is_ours:
            self._until = float("-inf")
            with contextlib.suppress(EventStoreError):
                await self._database.end_lease(self._name, self._owner)


def owner_name(pid: Pid) -> str:
    """Name a process as the owner of leases."""
    return etf.encode(pid).hex()


def _pid_named(owner: str) -> Pid | None:
    try:
        pid = etf.decode(bytes.fromhex(owner))
    except (ValueError, EtfError):
        return None
    return pid if isinstance(pid, Pid) else None
