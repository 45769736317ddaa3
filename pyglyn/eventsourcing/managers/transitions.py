"""What a manager does in one transaction: states of instances, commands they issue, deadlines they set.

Layer: eventsourcing, managers.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import attrs

from pyglyn import etf, gleam
from pyglyn.errors import DecodeErrors, EtfError, EventDecodeError, EventStoreError
from pyglyn.eventsourcing.domain.causation import caused_by, with_cause
from pyglyn.eventsourcing.domain.envelope import EventEnvelope, Metadata
from pyglyn.eventsourcing.managers.machine import Item
from pyglyn.eventsourcing.managers.rules import (
    Action,
    Cancel,
    Deadline,
    Dispatch,
    End,
    Expired,
    Refused,
    Schedule,
    command_id,
    due_at,
)
from pyglyn.eventsourcing.managers.spec import ManagerSpec
from pyglyn.eventsourcing.queries.durable_calls import PASSING, envelopes_of, failing_at
from pyglyn.eventsourcing.queries.durable_state import mark
from pyglyn.eventsourcing.stores.managing import IssuedCommand, Timer
from pyglyn.eventsourcing.stores.rows import storable_text
from pyglyn.eventsourcing.stores.store import RecordedEvent, Transaction


@attrs.frozen
class _Cause:
    """What a message came from.

    Attributes:
        text: unlike any other one, for the ids of commands.
        base: when it was, in seconds since 1970; None for now.
        metadata: for the commands that follow.
    """

    text: str
    base: float | None
    metadata: Metadata


class Transitions:
    """Handles messages in the transactions of a manager's server.

    Attributes:
        commands, timers: whether the last transaction has issued commands, or changed timers.
    """

    def __init__(self, spec: ManagerSpec[Any]) -> None:
        self._spec = spec
        self.commands = self.timers = False

    async def project(
        self, tx: Transaction[Any, Any], events: Sequence[RecordedEvent[Any]], is_over: Callable[[], bool]
    ) -> int:
        """Handle events until ``is_over()`` after one of them; return how many."""
        work = self._begin(tx)
        await work.load(events)
        done = 0
        for index, event in enumerate(events):
            with failing_at(index, *PASSING):
                await work.event(event)
                tx.check()
            done = index + 1
            if is_over():
                break
        await work.save()
        return done

    async def call(self, cause: EventEnvelope[Any], *args: Any) -> None:
        """Refuse: a manager has no effects outside of its transactions."""
        raise NotImplementedError

    async def attend(self, tx: Transaction[Any, Any], item: Item) -> None:
        """Do what a timer that is due, or a refusal, leads to, and remove it; nothing if it has gone."""
        work = self._begin(tx)
        with failing_at(None, *PASSING):
            if isinstance(item, Timer):
                if await tx.finish_timer(item.id):
                    await work.due(item)
            elif await tx.finish_command(item.id):
                await work.refusal(item)
            tx.check()
        await work.save()

    def _begin(self, tx: Transaction[Any, Any]) -> _Work:
        self.commands = self.timers = False
        return _Work(self, self._spec, tx)


class _Work:
    """One transaction. States and commands are written at its end, deadlines and ends at once."""

    def __init__(self, owner: Transitions, spec: ManagerSpec[Any], tx: Transaction[Any, Any]) -> None:
        self._owner = owner
        self._spec = spec
        self._tx = tx
        self._states: dict[str, Any] = {}  # as far as known; `_NONE` where there is no instance
        self._unsaved: dict[str, str] = {}
        self._issued: list[IssuedCommand] = []
        self._texts: dict[str, str | None] = {}  # states as they are stored, read ahead

    async def load(self, events: Sequence[RecordedEvent[Any]]) -> None:
        """Read the states of the instances that events concern at once."""
        instances: dict[str, None] = {}
        for event in events:
            for envelope in envelopes_of(event):
                with contextlib.suppress(Exception):  # it fails again, and as a failure, when it is handled
                    instances[self._spec.rules.instance_of(envelope) or ""] = None
        texts = await self._tx.manager_states(self._spec.name, [each for each in instances if each])
        self._texts = {instance: texts.get(instance) for instance in instances}

    async def event(self, event: RecordedEvent[Any]) -> None:
        rules = self._spec.rules
        for number, envelope in enumerate(envelopes_of(event)):
            instance = rules.instance_of(envelope)
            if instance is None:
                continue
            if not rules.begins(envelope.payload) and await self._state(instance) is _NONE:
                continue
            with caused_by(envelope):
                metadata = with_cause(())
            text = f"event {event.position} {mark(event)} {number}"
            await self._react(instance, envelope.payload, _Cause(text, event.recorded_at, metadata))

    async def due(self, timer: Timer) -> None:
        cause = _Cause(
            f"timer {timer.id} {timer.due_at} {timer.instance}/{timer.name}", timer.due_at, timer.metadata
        )
        if timer.service:
            command = await self._spec.sealing.open_command(timer.command)
            if command is not None:
                await self._issue(timer.instance, timer.service, timer.aggregate_id, command, cause, 0)
        elif await self._state(timer.instance) is not _NONE:
            await self._react(timer.instance, Expired(timer.name), cause)

    async def refusal(self, command: IssuedCommand) -> None:
        opened = await self._spec.sealing.open_command(command.command)
        if opened is None:
            return
        command = attrs.evolve(command, command=opened)
        if await self._state(command.instance) is _NONE:
            raise EventStoreError(f"its instance has ended; refused: {command.error}")
        cause = _Cause(f"refusal {command.command_id}", None, command.metadata)
        message = Refused(self._read(command), command.error)
        await self._react(command.instance, message, cause)

    def _read(self, command: IssuedCommand) -> Dispatch:
        term = etf.decode(command.command)
        read = self._spec.readers.get(command.service)
        try:
            return Dispatch(command.service, term if read is None else read(term), command.aggregate_id)
        except (DecodeErrors, EtfError):
            return Dispatch(command.service, term, command.aggregate_id)

    async def _state(self, instance: str) -> Any:
        if instance not in self._states:
            if instance in self._texts:
                text = self._texts[instance]
            else:
                text = await self._tx.manager_state(self._spec.name, instance)
            if text is not None:
                text = await self._spec.sealing.open(text)
            self._states[instance] = _NONE if text is None else self._decoded(instance, text)
        return self._states[instance]

    def _decoded(self, instance: str, text: str) -> Any:
        try:
            return self._spec.codec.decode(text)
        except EventDecodeError as error:
            raise EventStoreError(f"the state of {instance!r} does not decode: {error}") from error

    async def _react(self, instance: str, message: object, cause: _Cause) -> None:
        state = await self._state(instance)
        reaction = self._spec.rules.react(self._spec.rules.empty_state if state is _NONE else state, message)
        for number, action in enumerate(reaction.actions):
            await self._carry_out(instance, action, cause, number)
        if not reaction.ended:
            self._states[instance] = reaction.state
            self._unsaved[instance] = self._spec.codec.encode(reaction.state)

    async def _carry_out(self, instance: str, action: Action, cause: _Cause, number: int) -> None:
        tx, name = self._tx, self._spec.name
        match action:
            case Dispatch():
                service, to, command = self._written(instance, action)
                await self._issue(instance, service, to, command, cause, number)
            case Cancel():
                await tx.cancel_timer(name, instance, action.name)
            case End():
                self._states[instance] = _NONE
                self._unsaved.pop(instance, None)
                await tx.save_manager_state(name, instance, None)
            case Deadline() | Schedule():
                service, to, command = "", "", b""
                if isinstance(action, Schedule):
                    service, to, plain = self._written(instance, action.dispatch)
                    sealed = await self._spec.sealing.seal_command(instance, plain)
                    if sealed is None:
                        return  # the instance was forgotten
                    command = sealed
                base = await tx.clock() if cause.base is None else cause.base
                timer = Timer(
                    manager=name,
                    instance=instance,
                    name=action.name,
                    due_at=due_at(action, base),
                    service=service,
                    aggregate_id=to,
                    command=command,
                    metadata=cause.metadata,
                )
                await tx.set_timer(timer)
                self._owner.timers = True

    def _written(self, instance: str, dispatch: Dispatch) -> tuple[str, str, bytes]:
        if dispatch.service not in self._spec.services:
            known = ", ".join(sorted(self._spec.services)) or "none"
            raise EventStoreError(f"{dispatch.service!r} is none of the manager's services: {known}")
        command = gleam.encode_bytes(dispatch.command)
        to = instance if dispatch.to is None else dispatch.to
        return dispatch.service, storable_text(to, "aggregate id"), command

    async def _issue(
        self, instance: str, service: str, to: str, command: bytes, cause: _Cause, number: int
    ) -> None:
        issued = IssuedCommand(
            manager=self._spec.name,
            instance=instance,
            command_id=command_id(self._spec.name, cause.text, number),
            service=service,
            aggregate_id=to,
            command=command,
            metadata=cause.metadata,
        )
        self._issued.append(issued)
        self._owner.commands = True

    async def save(self) -> None:
        """Write the states that have changed, and the commands that were issued."""
        sealing = self._spec.sealing
        states = {name: await sealing.seal(name, state) for name, state in self._unsaved.items()}
        commands = [(each, await sealing.seal_command(each.instance, each.command)) for each in self._issued]
        await self._tx.save_manager_states(
            self._spec.name, {name: state for name, state in states.items() if state is not None}
        )
        await self._tx.issue_commands(
            [attrs.evolve(each, command=sealed) for each, sealed in commands if sealed is not None]
        )


_NONE = object()
"""The state of an instance that is not there."""
