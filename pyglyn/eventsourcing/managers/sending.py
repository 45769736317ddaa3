"""Sends the commands that a manager has issued, until each is carried out once, refused, or parked.

A command is sent with its id, as often as it takes: its service carries it out once. What became of it is
written in a transaction that is committed only while the lease of the manager is ours. So an instance that
has lost the lease in the middle of a command (it stood still, its database was away) changes nothing any
more. When it has the lease again, it reads anew what there is to send: another one may have been told a
refusal meanwhile, and the manager may have gone on from that.

An instance without the lease looks once a second whether it is free, and when its owner is known to have
ended.

What is tried again, and what is not:

======================================================  =============================================
service or owner away, no answer, conflict, no store    for ever, with growing pauses
refused (`DomainError`)                                 never: as the manager says
anything else                                           as the manager's policy says, then parked
======================================================  =============================================

Layer: eventsourcing, managers.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, Literal, TypeAlias

import attrs

from pyglyn import etf
from pyglyn.complaints import Complaints
from pyglyn.errors import (
    ActorTimeout,
    CallFailed,
    DomainError,
    EtfError,
    EventStoreError,
    NoOwner,
    StoreUnavailable,
    TransactionRolledBack,
    VersionConflict,
)
from pyglyn.eventsourcing.managers.outgoing import Outgoing
from pyglyn.eventsourcing.queries.durable_calls import text_of
from pyglyn.eventsourcing.queries.durable_state import STANDBY_S, UNAVAILABLE
from pyglyn.eventsourcing.queries.failure import FailurePolicy
from pyglyn.eventsourcing.queries.turns import NotOurTurn, Turn
from pyglyn.eventsourcing.stores.managing import PAGE, PARKED, REFUSED, IssuedCommand, Status
from pyglyn.eventsourcing.stores.store import EventStore, Transaction

logger = logging.getLogger("pyglyn.eventsourcing")

OnRefusal: TypeAlias = Literal["handle", "park", "skip"]
Send: TypeAlias = Callable[[IssuedCommand], Awaitable[None]]
Write: TypeAlias = Callable[[Transaction[Any, Any]], Awaitable[object]]

AWAY = (
    ActorTimeout,
    CallFailed,
    NoOwner,
    StoreUnavailable,
    TransactionRolledBack,
    VersionConflict,
)
"""What is no command's fault."""

WIDTH = 64
"""Commands to one service that are under way at once."""

LONGEST_TEXT = 10_000
"""Characters that are kept of what a refusal says."""

READ_AHEAD = 10_000
"""Commands in memory, at most, that wait for one service; for what is beyond see `Outgoing`."""


class Sender:
    """Sends the commands of one manager, while the lease is ours.

    Args:
        manager: its name.
        database: where the commands are.
        turn: the lease.
        send: sends one command and waits for the answer.
        on_refusal: what becomes of a refused command: ``handle``, ``park`` or ``skip``.
        policy: how often to try what fails.
        unavailable: the same for what is away.
        may_send: whether the manager is to send at all now.
        refused: called when the manager has a refusal to handle.
        lost: awaited when another instance turns out to have the lease.
    """

    def __init__(
        self,
        manager: str,
        database: EventStore[Any, Any],
        turn: Turn,
        send: Send,
        *,
        on_refusal: OnRefusal,
        policy: FailurePolicy,
        unavailable: FailurePolicy = UNAVAILABLE,
        may_send: Callable[[], bool],
        refused: Callable[[], None],
        lost: Callable[[], Awaitable[None]],
    ) -> None:
        self._manager = manager
        self._database = database
        self._turn = turn
        self._send = send
        self._on_refusal = on_refusal
        self._policy = policy
        self._unavailable = unavailable
        self._may_send = may_send
        self._refused = refused
        self._lost = lost
        self._outgoing = Outgoing(WIDTH, READ_AHEAD)
        self._awake = asyncio.Event()
        self._unread = True  # there may be commands that were not read
        self._forgotten = 0  # how often what is known was
        self._over: set[int] = set()  # commands that were seen to since the last read began
        self._read_in = turn.tenure  # the tenure of the lease in which what is known was read
        self._stands_by_until = float("-inf")
        self._running: set[asyncio.Task[None]] = set()
        self._errors: dict[int, str] = {}  # of commands that are tried again
        self._complaints = Complaints()
        self._notes: list[_Note] = []  # to be written in the next transaction
        self._noting = asyncio.Lock()

    @property
    def error(self) -> str:
        """Why commands do not get on; empty when they do."""
        return next(iter(self._errors.values()), "")

    @property
    def stands_by(self) -> bool:
        """Whether there is something to send, and another instance has the lease."""
        return time.monotonic() < self._stands_by_until

    def look(self) -> None:
        """Look at once whether the lease is free."""
        self._stands_by_until = float("-inf")
        self.wake()

    def wake(self) -> None:
        """There may be commands to send."""
        self._unread = True
        self._awake.set()

    def handled(self, command: IssuedCommand) -> None:
        """Let an instance go on whose refused command is gone."""
        self._over.add(command.id)
        self._outgoing.release(command)
        self._awake.set()

    def forget(self) -> None:
        """Read everything anew but what is under way: somebody else has changed it."""
        self._outgoing.forget()
        self._forgotten += 1
        self._errors.clear()  # whatever is to be tried again says so again
        self.wake()

    async def run(self) -> None:
        """Send, for ever."""
        attempts = 0
        while True:
            self._awake.clear()
            try:
                until = await self._go_on()
                attempts = 0
            except EventStoreError as error:
                attempts += 1
                self._complain(str(error))
                until = time.monotonic() + (self._unavailable.pause(attempts) or 0.0)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None if until is None else max(0.0, until - time.monotonic())):
                    await self._awake.wait()

    async def stop(self) -> None:
        """Break off what is under way: it is sent again, by whoever is next."""
        running = list(self._running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    async def _go_on(self) -> float | None:
        """Begin what can be begun; return when to look again, None for when something happens."""
        outgoing = self._outgoing
        if not self._may_send():
            return None
        if self.stands_by:
            return self._stands_by_until
        while True:
            await self._read()
            at = outgoing.wake_at()
            if at is None or at > time.monotonic():
                return at
            try:
                await self._turn.take()
            except NotOurTurn:
                await self._stand_by()
                return self._stands_by_until
            if self._read_in == self._turn.tenure:
                break
            self._read_in = self._turn.tenure
            self.forget()
        while (command := outgoing.take(time.monotonic())) is not None:
            task = asyncio.get_running_loop().create_task(self._carry_out(command, self._read_in))
            self._running.add(task)
            task.add_done_callback(self._is_over)
        return outgoing.wake_at()

    async def _stand_by(self) -> None:
        self._stands_by_until = time.monotonic() + STANDBY_S
        await self._lost()

    def _is_over(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if not task.cancelled() and task.exception() is not None:
            logger.error("manager %s: a command failed", self._manager, exc_info=task.exception())
        self._awake.set()

    async def _read(self) -> None:
        outgoing = self._outgoing
        while self._unread or outgoing.has_room_again():
            self._unread = False
            self._over.clear()
            forgotten = self._forgotten
            found = await self._database.issued_commands(self._manager, after=outgoing.last)
            if forgotten != self._forgotten:
                continue  # these lie behind what is to be read anew
            outgoing.put(each for each in found if each.id not in self._over)
            self._unread = self._unread or len(found) >= PAGE

    async def _carry_out(self, command: IssuedCommand, tenure: int) -> None:
        outgoing = self._outgoing
        try:
            async with self._turn:
                if self._turn.tenure != tenure:
                    raise NotOurTurn
                await self._attempt(command, tenure)
        except NotOurTurn:
            outgoing.again(command, float("-inf"))
            self.forget()
            if not self._turn.is_ours:
                await self._stand_by()
        except AWAY as error:
            self._try_again(command, str(error) or text_of(error))
        except asyncio.CancelledError:
            raise
        except Exception as error:  # the database refused to write what became of it
            self._try_again(command, text_of(error))

    async def _attempt(self, command: IssuedCommand, tenure: int) -> None:
        try:
            await self._send(command)
        except DomainError as refusal:
            await self._refusal(command, tenure, _said(refusal))
        except AWAY:
            raise
        except Exception as error:
            await self._failure(command, tenure, text_of(error))
        else:
            await self._finish(command, tenure)

    def _try_again(self, command: IssuedCommand, error: str) -> None:
        pause = self._unavailable.pause(self._outgoing.failed(command)) or 0.0
        self._put_back(command, error, pause)

    def _put_back(self, command: IssuedCommand, error: str, pause: float) -> None:
        self._complain(f"{command.service}: {error}")
        self._errors[command.id] = error
        self._outgoing.again(command, time.monotonic() + pause)

    async def _failure(self, command: IssuedCommand, tenure: int, error: str) -> None:
        attempts = self._outgoing.failed(command)
        pause = self._policy.pause(attempts)
        if pause is not None:
            self._put_back(command, error, pause)
            return
        logger.error("manager %s parks a command to %s: %s", self._manager, command.service, error)
        await self._hold(command, tenure, PARKED, command.attempts + attempts, error)

    async def _refusal(self, command: IssuedCommand, tenure: int, error: str) -> None:
        if self._on_refusal == "skip":
            logger.warning("manager %s: %s has refused a command: %s", self._manager, command.service, error)
            await self._finish(command, tenure)
            return
        status = REFUSED if self._on_refusal == "handle" else PARKED
        await self._hold(command, tenure, status, command.attempts + 1, error)
        if status is REFUSED:
            self._refused()

    async def _hold(
        self, command: IssuedCommand, tenure: int, status: Status, attempts: int, error: str
    ) -> None:
        await self._note(
            tenure, lambda tx: tx.mark_command(command.id, status, attempts=attempts, error=error)
        )
        self._errors.pop(command.id, None)
        if status == PARKED:
            self._outgoing.park(command)
        else:
            self._outgoing.hold(command)

    async def _finish(self, command: IssuedCommand, tenure: int) -> None:
        await self._note(tenure, lambda tx: tx.finish_command(command.id))
        self._errors.pop(command.id, None)
        if not self._errors and self._complaints.over():
            logger.info("manager %s: its commands get on", self._manager)
        self._over.add(command.id)
        self._outgoing.done(command)

    async def _note(self, tenure: int, write: Write) -> None:
        """Write what became of a command, in one transaction with what else there is to write by then.

        Raises:
            NotOurTurn: another instance has the lease, or may have had it since the command was read.
        """
        noted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._notes.append(_Note(tenure, write, noted))
        try:
            async with self._noting:
                if not noted.done():  # else it was written with what came before
                    await self._write_notes()
            await noted
        finally:
            noted.cancel()

    async def _write_notes(self) -> None:
        notes = [note for note in self._notes if not note.noted.done()]
        self._notes = []
        written: set[int] = set()
        try:
            async with self._database.transaction(isolation="read committed") as tx:
                await self._turn.fence(tx)
                for index, note in enumerate(notes):
                    if note.tenure == self._turn.tenure:
                        await note.write(tx)
                        written.add(index)
        except Exception as error:
            for note in notes:
                note.fail(error)
        except BaseException:  # whoever writes is broken off, the others are not
            self._notes = [*notes, *self._notes]
            raise
        for index, note in enumerate(notes):
            if index not in written:
                note.fail(NotOurTurn())
            elif not note.noted.done():
                note.noted.set_result(None)

    def _complain(self, text: str) -> None:
        self._complaints.log(logger, text, start=f"manager {self._manager}: ")


@attrs.frozen(eq=False)
class _Note:
    """What is to be written of a command: as it was read in one tenure of the lease."""

    tenure: int
    write: Write
    noted: asyncio.Future[None]

    def fail(self, error: Exception) -> None:
        """Tell who waits for it that it was not written."""
        if not self.noted.done():
            self.noted.set_exception(error)


def _said(refusal: DomainError) -> str:
    said = _whole(refusal)
    return said if len(said) <= LONGEST_TEXT else f"{said[:LONGEST_TEXT]}…"


def _whole(refusal: DomainError) -> str:
    if isinstance(refusal.error, str):
        return refusal.error
    try:
        return etf.text.format(refusal.error)
    except EtfError:
        return repr(refusal.error)
