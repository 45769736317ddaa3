"""The process of a process manager: a durable query that also attends to deadlines, and sends commands.

Layer: eventsourcing, managers.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import Any

import attrs

from pyglyn import etf
from pyglyn.errors import CheckpointConflict, EventStoreError
from pyglyn.etf import Term
from pyglyn.eventsourcing.cluster.client import Service, is_gleam
from pyglyn.eventsourcing.managers.machine import Attend, Item, ManagerMachine, Survey
from pyglyn.eventsourcing.managers.sending import Sender
from pyglyn.eventsourcing.managers.spec import ManagerSpec
from pyglyn.eventsourcing.managers.transitions import Transitions
from pyglyn.eventsourcing.queries.durable_server import WAITING as WAITERS
from pyglyn.eventsourcing.queries.durable_server import DurableServer, Outcome
from pyglyn.eventsourcing.queries.durable_spec import DurableSpec
from pyglyn.eventsourcing.queries.durable_state import (
    CATCHING_UP,
    IDLE,
    LIVE,
    STANDBY,
    STUCK,
    UNAVAILABLE,
    Apply,
    Drive,
    Other,
)
from pyglyn.eventsourcing.queries.failure import FailurePolicy
from pyglyn.eventsourcing.queries.query_process import QueryStatus
from pyglyn.eventsourcing.queries.turns import LEASE_S, Turn
from pyglyn.eventsourcing.stores.managing import PAGE, PARKED, REFUSED, WAITING, IssuedCommand, Timer
from pyglyn.eventsourcing.stores.store import ParkedEvent, Transaction

logger = logging.getLogger("pyglyn.eventsourcing")

AT_ONCE = 100
"""Timers and refusals that one survey reads."""


class ManagerServer(DurableServer):
    """The process of a process manager.

    Of several instances, on several nodes, the one with the lease does everything; a transaction of another
    one would change nothing, as the checkpoint is in it.
    """

    projection: ManagerMachine
    turn: Turn
    sender: Sender
    sending: asyncio.Task[None]

    async def init(
        self,
        query: DurableSpec,
        partition: int = 0,
        *,
        last_effect_s: float = 3.0,
        unavailable: FailurePolicy = UNAVAILABLE,
        waiting: int = WAITERS,
        lease_s: float = LEASE_S,
    ) -> None:
        """Begin.

        Args:
            query: what is declared of the manager.
            partition: 0; a manager has no others.
            last_effect_s: how long it waits, when it is to end, for what is under way.
            unavailable: how often to try again what a store could not be reached for.
            waiting: how many callers may wait for positions.
            lease_s: how long an instance that cannot be reached any more keeps others from going on.
        """
        assert isinstance(query, ManagerSpec)
        self.spec: ManagerSpec[Any] = query
        self.lease_s = lease_s
        self.transitions = Transitions(query)
        self.services: dict[str, Service[Any, Any, Any]] = {}
        await super().init(
            query, partition, last_effect_s=last_effect_s, unavailable=unavailable, waiting=waiting
        )

    def make_projection(self, unavailable: FailurePolicy) -> ManagerMachine:
        spec = self.spec
        return ManagerMachine(
            spec.name, spec.rules, limits=spec.limits, policy=spec.policy, unavailable=unavailable
        )

    def make_calls(self) -> Transitions:
        return self.transitions

    async def make_ready(self) -> None:
        spec = self.spec
        self.turn = Turn(self.database, spec.name, self.me, lease_s=self.lease_s)
        self.sender = Sender(
            spec.name,
            self.database,
            self.turn,
            self._send,
            on_refusal=spec.on_refusal,
            policy=spec.policy,
            may_send=lambda: self.projection.may_send,
            refused=self._look_for_items,
            lost=self._lost,
        )
        self.sending = asyncio.get_running_loop().create_task(self.sender.run())
        self.sending.add_done_callback(self._run_ended)

    async def _send(self, command: IssuedCommand) -> None:
        opened = await self.spec.sealing.open_command(command.command)
        if opened is None:
            logger.info("manager %s: a command of an instance that was forgotten is not sent", self.spec.name)
            return
        destination = self.spec.services.get(command.service)
        if destination is None:
            raise EventStoreError(f"{command.service!r} is none of the manager's services any more")
        name = command.service if destination.name is None else destination.name
        if command.service not in self.services:
            self.services[command.service] = Service(self.me, name, scope=destination.scope)
        await self.services[command.service].execute(
            command.aggregate_id,
            etf.decode(opened),
            command_id=command.command_id,
            final=self.spec.on_refusal != "park" and not is_gleam(name),  # what is parked may be driven
            metadata=command.metadata,
            timeout=destination.timeout,
        )

    def _look_for_items(self) -> None:
        self.projection.survey()
        self.awake.set()

    async def _lost(self) -> None:
        """Another instance has the lease: look into the database, and watch that one."""
        self.projection.look()
        self.awake.set()
        await self._watch_other()

    async def _see_other_end(self, message: Term) -> bool:
        ended = await super()._see_other_end(message)
        if ended:
            self.sender.look()
        return ended

    def others_went_on(self) -> None:
        super().others_went_on()
        self.sender.forget()

    # --- effects -------------------------------------------------------------------------------------

    async def other(self, effect: Other) -> Outcome:
        if isinstance(effect, Survey):
            return await self._survey()
        assert isinstance(effect, Attend)
        await self._attend(effect)
        return self.projection.attended

    async def _survey(self) -> Outcome:
        name, database = self.spec.name, self.database
        outlook = await database.outlook(name)
        if outlook.waiting:
            self.sender.wake()
        items: list[Item] = []
        if outlook.refused:
            items += await database.refusals(name, limit=AT_ONCE)
        due_in, barrier = outlook.due_in, 0
        if due_in is not None and due_in <= 0:
            timers = await database.due_timers(name, limit=AT_ONCE)
            items += timers
            due_in = None  # there is another survey behind them
            if timers:
                barrier = await self.source.last_position()
        return partial(self.projection.surveyed, items=items, due_in=due_in, barrier=barrier)

    async def _attend(self, effect: Attend) -> None:
        item = effect.item
        async with self.turn, self.database.transaction(isolation="read committed") as tx:
            await self._check_current(tx, effect.before)
            if effect.park:
                await _park(tx, item, effect.attempts, effect.park)
            else:
                await self.transitions.attend(tx, item)
            await tx.update_checkpoint(effect.after)
        if effect.park:
            self.transitions.commands = self.transitions.timers = False
        elif isinstance(item, IssuedCommand):
            self.sender.handled(item)
        self._has_issued()

    async def _apply(self, effect: Apply) -> None:
        async with self.turn:
            await super()._apply(effect)
        if effect.events:
            self._has_issued()

    async def _drive(self, effect: Drive) -> int:
        async with self.turn:
            remaining = await super()._drive(effect)
        self._has_issued()
        return remaining

    def _has_issued(self) -> None:
        """See to what the last transaction has issued and set."""
        if self.transitions.commands:
            self.sender.wake()
        if self.transitions.timers:
            self.projection.survey()

    # --- orders ----------------------------------------------------------------------------------------

    async def status(self) -> QueryStatus:
        """Tell where it stands, how many commands wait, and how many deadlines."""
        found = await super().status()
        changes: dict[str, Any] = {"kind": "manager"}
        try:
            outlook = await self.database.outlook(self.spec.name)
            changes |= {"commands": outlook.waiting + outlook.refused, "timers": outlook.timers}
            changes["parked"] = found.parked + outlook.parked
        except EventStoreError as unavailable:
            changes["error"] = found.error or str(unavailable)
        if self.sender.stands_by and found.state in (CATCHING_UP, LIVE, IDLE):
            changes["state"] = STANDBY
        elif self.sender.error and not found.error:
            changes |= {"error": self.sender.error, "state": STUCK}
        return attrs.evolve(found, **changes)

    async def parked(self) -> list[ParkedEvent]:
        """List what is parked: events, then commands and timers, whose ids are negative.

        Of the latter also those that were driven, until it is known what has become of them.
        """
        items = await self._held_items(driven=True)
        return [*await super().parked(), *[await self._as_parked(each) for each in items]]

    async def _as_parked(self, item: Item) -> ParkedEvent:
        if isinstance(item, Timer):
            raw = etf.encode(item.name.encode())
        else:
            raw = await self.spec.sealing.open_command(item.command) or b""
        what = f"deadline {item.name}" if isinstance(item, Timer) else f"command to {item.service}"
        return ParkedEvent(
            query=self.spec.name,
            id=_id(item),
            aggregate_id=item.instance,
            sequence=item.id,
            raw=raw,
            error=f"{what}: {item.error or 'driven'}",
            format="etf",
            attempts=item.attempts,
        )

    async def _held_items(self, *, driven: bool = False) -> list[Item]:
        """List parked commands and timers, and those that were driven and may be parked again.

        A driven command waits, may be refused and handled, and is parked again: looked for in this order it
        is found, wherever it goes meanwhile. One that is refused for the first time has had one attempt.
        """
        name, database = self.spec.name, self.database
        commands: dict[int, Item] = {}
        for status, least in ((WAITING, 1), (REFUSED, 2)) if driven else ():
            found = await database.issued_commands(name, status=status)
            commands |= {each.id: each for each in found if each.attempts >= least}
        commands |= {each.id: each for each in await database.issued_commands(name, status=PARKED)}
        timers = await database.timers(name, limit=10 * PAGE)
        held = [each for each in timers if each.error or (driven and each.attempts)]
        return [*(commands[id] for id in sorted(commands)), *held]

    async def drive(self, id: int | None) -> int:
        """Have parked events handled again, parked commands sent, parked deadlines attended to."""
        events = [event for event in await super().parked() if id in (None, event.id)]
        self.projection.drive(events)
        driven = [each for each in await self._held_items() if id in (None, _id(each))]
        while driven:
            try:
                await self._tell_driven(driven)
                break
            except CheckpointConflict:
                pass  # somebody went on between reading the checkpoint and writing it
        if driven:
            self.projection.look()
        self.awake.set()
        return len(events) + len(driven)

    async def _tell_driven(self, items: list[Item]) -> None:
        async with self.database.transaction(isolation="read committed") as tx:
            for each in items:
                if isinstance(each, IssuedCommand):
                    await tx.mark_command(each.id, WAITING, attempts=each.attempts, error=each.error)
                else:
                    await tx.mark_timer(each.id, attempts=each.attempts, error="")
            checkpoint = await tx.load_checkpoint(self.spec.name)
            await tx.update_checkpoint(checkpoint.next())  # which tells all instances

    async def pause(self, paused: bool) -> None:
        """Stand still, also after a restart; or go on. Commands under way come to their end."""
        await super().pause(paused)
        self.sender.wake()

    async def reset(self) -> None:
        """Refuse: what a manager has sent cannot be undone."""
        raise EventStoreError(
            f"manager {self.spec.name!r} cannot handle its events again: it would issue its commands again"
        )

    async def replay(self, aggregate_id: str) -> int:
        """Refuse, as `reset`."""
        await self.reset()
        return 0

    # --- the end ------------------------------------------------------------------------------------

    async def _close(self) -> None:
        if hasattr(self, "sending"):
            self.sending.cancel()
            await asyncio.gather(self.sending, return_exceptions=True)
            await self.sender.stop()
        await super()._close()


async def _park(tx: Transaction[Any, Any], item: Item, attempts: int, error: str) -> None:
    if isinstance(item, Timer):
        await tx.mark_timer(item.id, attempts=item.attempts + attempts, error=error)
    else:
        await tx.mark_command(item.id, PARKED, attempts=item.attempts + attempts, error=error)


def _id(item: Item) -> int:
    """Give what is parked beside events an id that is no event's, and no other one's."""
    return -2 * item.id - (1 if isinstance(item, Timer) else 0)
