"""Whose turn it is to have effects that no transaction holds: one instance of a query at a time.

Several nodes may run a query whose effects are outside of any database. The checkpoint alone lets two of them
call the function for one event, as it is written afterwards. So before its function is called, an instance
takes a lease, a row with an owner and a time in the database of the checkpoint, by that database's clock. It
renews it while effects go on; when there is nothing to do the lease runs out, and whoever comes first has the
next event.

An instance that cannot renew its lease in time (its database is away, its computer stood still) begins no
other effect before it has it again. What it had begun goes on; another instance may repeat that.

Layer: eventsourcing, queries.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
import uuid
from types import TracebackType
from typing import Any

from pyglyn.errors import EventStoreError, TransactionRolledBack
from pyglyn.eventsourcing.stores.store import EventStore

logger = logging.getLogger("pyglyn.eventsourcing")

LEASE_S = 10.0
"""How long an instance that died in an effect keeps others from going on."""


class NotOurTurn(Exception):
    """Another instance of the query has the effects."""


class Turn:
    """The lease of one instance. As a context it is kept for as long as the block takes.

    Args:
        database: where the lease is.
        query: the name of the query.
    """

    def __init__(self, database: EventStore[Any, Any], query: str) -> None:
        self._database = database
        self._name = f"query {query}"
        self._owner = uuid.uuid4().hex
        self._until = float("-inf")  # by our own clock, which counts intervals
        self._keeping: asyncio.Task[None] | None = None

    async def take(self) -> None:
        """Take the lease, or make sure that much of it is left.

        Raises:
            NotOurTurn: another instance has it.
            EventStoreError: the database cannot tell.
        """
        asked_at = time.monotonic()
        if asked_at < self._until - LEASE_S / 2:
            return
        try:
            ours = await self._database.take_lease(self._name, self._owner, LEASE_S)
        except TransactionRolledBack:  # somebody else is taking it at this moment
            ours = False
        if not ours:
            self._until = float("-inf")
            raise NotOurTurn
        self._until = asked_at + LEASE_S

    async def __aenter__(self) -> None:
        await self.take()
        self._keeping = asyncio.get_running_loop().create_task(self._keep())

    async def __aexit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        assert self._keeping is not None
        self._keeping.cancel()
        await asyncio.gather(self._keeping, return_exceptions=True)

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(LEASE_S / 3)
            try:
                await self.take()
            except (EventStoreError, NotOurTurn) as error:
                logger.warning("%s cannot stay the only one that has effects: %s", self._name, error)

    async def end(self) -> None:
        """Let others go on at once."""
        if self._until > time.monotonic():
            self._until = float("-inf")
            with contextlib.suppress(EventStoreError):
                await self._database.end_lease(self._name, self._owner)
