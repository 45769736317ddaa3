"""A durable query as a state machine: inputs with the time in, the one next thing to do out. No clock.

A driver owns the store, the effect and the clock. It carries out the effect that a method returned and
reports the outcome by the method named beside it, which returns the next effect::

    Load()                              loaded(...) or unavailable(...)
    Read(after, limit, aggregate_id)    read(events) or unavailable(...)
    Wait(after, timeout)                woken()        when there may be events, when the time is over,
                                                       when an order came
    Sleep(timeout)                      woken()        when the time is over, when an order came
    Apply(events, park, ...)            applied(), failed(index, error), unavailable(...), conflict()
    Drive(parked)                       driven(), failed(0, error), unavailable(...)
    Reset(aggregate_id)                 reset_done() or unavailable(...)

What makes it apply each event once:

- Events come from the store by position only. A broadcast (or NOTIFY) is a reason to read, never an event. So
  there is no seam between catching up and living, and a missed broadcast is repaired by the next read.
- ``Apply`` moves the checkpoint from ``expected`` to ``position`` in the transaction of the effect. A second
  instance of the query, or a commit whose answer was lost, shows up as ``conflict``, and the checkpoint is
  loaded anew: nothing is assumed about what was committed.
- Where the effect cannot share a transaction with the checkpoint, a crash between the two repeats the batch.

What makes it go on: a failing batch is split. The events before the failing one are applied, then that one
alone, again and again as the :class:`FailurePolicy` says; then it is parked, and so are, without an attempt,
later events of its aggregate, so that they can be driven in order. An unavailable store is nobody's fault
and is tried for ever, with pauses.

Orders (``pause``, ``resume``, ``reset``, ``drive``) may come at any time; they are carried out between
effects.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable
from typing import Any, TypeAlias

import attrs

from pyglyn.errors import NonPositiveArgument
from pyglyn.eventsourcing.failure import STOP, FailurePolicy
from pyglyn.eventsourcing.store import ParkedEvent, RecordedEvent

LOADING, CATCHING_UP, LIVE, IDLE, STUCK, PAUSED = "loading", "catching up", "live", "idle", "stuck", "paused"

_UNAVAILABLE = FailurePolicy(retries=None, first=0.05, longest=5.0)
_EARLIER = "an earlier event of this aggregate is parked"

Event: TypeAlias = RecordedEvent[Any]


@attrs.frozen
class Load:
    """Read the checkpoint, whether the query is paused, and which aggregates have parked events."""


@attrs.frozen
class Read:
    """Read events behind a position, of one aggregate or of all."""

    after: int
    limit: int
    aggregate_id: str | None = None


@attrs.frozen
class Wait:
    """Wait for the store to have events behind a position, for some seconds or for ever."""

    after: int
    timeout: float | None


@attrs.frozen
class Sleep:
    """Do nothing for some seconds, or until an order comes."""

    timeout: float | None


@attrs.frozen(kw_only=True)
class Apply:
    """In one transaction: the effect of ``events``, the parking of ``park``, the checkpoint."""

    events: tuple[Event, ...]
    park: tuple[ParkedEvent, ...]
    expected: int
    position: int


@attrs.frozen
class Drive:
    """In one transaction: the effect of a parked event, and its removal."""

    parked: ParkedEvent


@attrs.frozen
class Reset:
    """In one transaction: undo the effects of one aggregate and forget its parked events.

    None means all of them, and the checkpoint goes to 0.
    """

    aggregate_id: str | None


Effect: TypeAlias = Load | Read | Wait | Sleep | Apply | Drive | Reset


@attrs.frozen(kw_only=True)
class BatchLimits:
    """How many events go into one transaction, and how long a live query waits for more of them.

    Attributes:
        size: events at most.
        linger: seconds from the first event of a batch that is not full until it is applied.
        idle_after: seconds without an event after which a live query is called idle.
    """

    size: int = 500
    linger: float = 0.0
    idle_after: float = 10.0

    def __attrs_post_init__(self) -> None:
        if self.size < 1 or self.linger < 0 or self.idle_after <= 0:
            raise NonPositiveArgument("size and idle_after have to be positive, linger not negative")


@attrs.define
class _Replay:
    """One aggregate's events are applied again, up to where the checkpoint stood."""

    aggregate_id: str
    until: int


class Projection:
    """The state of one durable query.

    Attributes:
        name: the query's.
        position: the checkpoint, as far as known.
        error: the last failure in words; empty when all is well.
        processed: events applied since this object was made.
    """

    def __init__(
        self, name: str, *, limits: BatchLimits | None = None, policy: FailurePolicy | None = None
    ) -> None:
        self.name = name
        self.position = 0
        self.error = ""
        self.processed = 0
        self._limits = limits or BatchLimits()
        self._policy = policy or FailurePolicy()
        self._doing: Effect = Load()
        self._orders: deque[tuple[str, Any]] = deque()
        self._driving: deque[ParkedEvent] = deque()
        self._blocked: set[str] = set()  # aggregates with parked events
        self._paused = False
        self._stopped = False  # by the policy; lifted by resume
        self._unavailable = 0  # attempts in a row at a store that cannot be reached
        self._last_event_at = float("-inf")
        self._forget()

    def _forget(self) -> None:
        """Drop what was concluded from the last Load."""
        self._state = LOADING
        self._pending: deque[Event] = deque()  # read, not yet applied
        self._to_pop = 0  # how many of them the current Apply takes care of
        self._caps: deque[int] = deque()  # sizes of the next batches, after a failure
        self._attempts = 0  # at the event at the head
        self._read_to = 0
        self._need_read = True
        self._full = False  # the last read had as many events as it asked for
        self._linger_until = 0.0
        self._sleep_until: float | None = None
        self._replay: _Replay | None = None

    @property
    def blocked(self) -> frozenset[str]:
        """The aggregates with parked events."""
        return frozenset(self._blocked)

    def state(self, now: float) -> str:
        """Return ``loading``, ``catching up``, ``live``, ``idle``, ``stuck`` or ``paused``."""
        if self._stopped or self._attempts or self._unavailable:
            return STUCK
        if self._paused:
            return PAUSED
        if isinstance(self._doing, Reset) or any(order == "reset" for order, _ in self._orders):
            return CATCHING_UP
        if self._state == LIVE and now - self._last_event_at >= self._limits.idle_after:
            return IDLE
        return self._state

    # --- inputs --------------------------------------------------------------------------------------

    def start(self) -> Effect:
        """Begin, or begin anew after the driver was restarted."""
        self._forget()
        return self._do(Load())

    def loaded(self, now: float, *, position: int, paused: bool, blocked: Iterable[str]) -> Effect:
        """Take what the checkpoint store knows."""
        self.position = self._read_to = position
        self._paused = paused
        self._blocked = set(blocked)
        self._state = CATCHING_UP
        return self._next(now)

    def read(self, now: float, events: list[Event]) -> Effect:
        """Take what was read; fewer events than the limit means that there are no more now."""
        asked = self._doing
        assert isinstance(asked, Read)
        if not events:
            self._reached()
        self._full = len(events) >= asked.limit
        self._need_read = self._full
        if events:
            if not self._pending:
                self._linger_until = now + self._limits.linger
            self._read_to = events[-1].position
        if self._replay is not None:
            self._pending.extend(event for event in events if event.position <= self._replay.until)
            return self._next(now)
        self._pending.extend(events)
        self._last_event_at = now if events else self._last_event_at
        self._state = CATCHING_UP if self._full else LIVE
        return self._next(now)

    def woken(self, now: float) -> Effect:
        """Go on: a time is over, there may be events, or an order came."""
        if isinstance(self._doing, Wait):
            self._need_read = True
            return self._next(now)
        if isinstance(self._doing, Sleep):
            if self._sleep_until is not None and now < self._sleep_until and not self._orders:
                return self._do(Sleep(self._sleep_until - now))
            self._sleep_until = None
            return self._next(now)
        return self._doing

    def applied(self, now: float) -> Effect:
        """The transaction was committed."""
        done = self._doing
        assert isinstance(done, Apply)
        self._reached()
        self._attempts = 0
        self.error = ""
        self.processed += len(done.events)
        self.position = done.position
        self._blocked.update(event.aggregate_id for event in done.park)
        for _ in range(self._to_pop):
            self._pending.popleft()
        if self._to_pop and self._caps:
            self._caps.popleft()
        return self._next(now)

    def failed(self, now: float, index: int, error: str) -> Effect:
        """The effect raised at the event of that index; the transaction was rolled back."""
        self._reached()
        self.error = error
        if isinstance(self._doing, Drive):
            return self._drive_failed(self._doing.parked, error)
        assert isinstance(self._doing, Apply)
        if len(self._doing.events) > 1:
            self._caps = deque([index, 1] if index else [1])  # those before it, then it alone
            return self._next(now)
        self._caps = deque([1])
        self._attempts += 1
        pause = self._policy.pause(self._attempts)
        if pause is not None:
            return self._sleep(now, pause)
        if self._policy.then == STOP:
            return self._stop(error)
        return self._park(self._doing.events[0], error, self._attempts)

    def unavailable(self, now: float, error: str) -> Effect:
        """The store (or the effect's database) cannot be reached, or a commit went unanswered."""
        self._repeat_order()
        self.error = error
        self._unavailable += 1
        self._forget()
        pause = _UNAVAILABLE.pause(self._unavailable)
        assert pause is not None
        return self._sleep(now, pause)

    def conflict(self, now: float) -> Effect:
        """The checkpoint is not where we left it: another instance, or an unanswered commit of our own."""
        self._repeat_order()
        self._forget()
        return self._do(Load())

    def driven(self, now: float, *, remaining: int) -> Effect:
        """A parked event had its effect; ``remaining`` of its aggregate are still parked."""
        done = self._doing
        assert isinstance(done, Drive)
        self._reached()
        self.processed += 1
        self._driving.popleft()
        if not remaining:
            self._blocked.discard(done.parked.aggregate_id)
        return self._next(now)

    def reset_done(self, now: float) -> Effect:
        """The effects were undone."""
        done = self._doing
        assert isinstance(done, Reset)
        self._reached()
        position = self.position
        self._forget()
        if done.aggregate_id is None:
            return self._do(Load())
        self._blocked.discard(done.aggregate_id)
        self._state = CATCHING_UP
        self._replay = _Replay(done.aggregate_id, position)
        return self._next(now)

    # --- orders: the driver wakes a Wait or a Sleep afterwards -----------------------------------------

    def pause(self) -> None:
        """Stand still after the current effect; that it lasts over a restart is the driver's business."""
        self._orders.append(("pause", None))

    def resume(self) -> None:
        """Go on after ``pause``, or after the policy has stopped the query."""
        self._orders.append(("resume", None))

    def reset(self, aggregate_id: str | None = None) -> None:
        """Undo and apply everything again, or one aggregate's events."""
        self._orders.append(("reset", aggregate_id))

    def drive(self, events: Iterable[ParkedEvent]) -> None:
        """Process parked events again, in order; after a failure the rest of its aggregate stays parked."""
        self._orders.append(("drive", list(events)))

    # --- the next effect -------------------------------------------------------------------------------

    def _next(self, now: float) -> Effect:
        if self._state == LOADING:
            return self._do(Load())
        ordered = self._carry_out()
        if ordered is not None:
            return ordered
        if self._paused or self._stopped:
            return self._sleep(now, None)
        if self._pending and self._ready(now):
            return self._apply()
        if self._need_read:
            only = self._replay.aggregate_id if self._replay is not None else None
            return self._do(Read(self._read_to, self._limits.size, only))
        if self._replay is not None:
            self._replay, self._read_to = None, self.position
            return self._do(Read(self._read_to, self._limits.size))
        return self._do(Wait(self._read_to, self._linger_until - now if self._pending else None))

    def _carry_out(self) -> Effect | None:
        """Carry out orders; return the effect one of them needs."""
        while self._orders and self._replay is None:
            order, argument = self._orders.popleft()
            if order == "reset":
                return self._do(Reset(argument))
            if order == "drive":
                self._driving.extend(argument)
            else:
                self._paused = order == "pause"
                self._stopped = self._stopped and self._paused
                self._attempts = 0
        return self._do(Drive(self._driving[0])) if self._driving else None

    def _repeat_order(self) -> None:
        """Keep an order whose effect did not succeed (a drive stays in its line by itself)."""
        if isinstance(self._doing, Reset):
            self._orders.appendleft(("reset", self._doing.aggregate_id))
        elif self._replay is not None:
            self._orders.appendleft(("reset", self._replay.aggregate_id))

    def _ready(self, now: float) -> bool:
        """Tell whether the batch is full, or has waited long enough."""
        if self._full or self._caps or self._replay is not None:
            return True
        return len(self._pending) >= self._limits.size or now >= self._linger_until

    def _apply(self) -> Effect:
        """Take from the head what one transaction may hold: events, or events to be parked."""
        size = self._caps[0] if self._caps else self._limits.size
        head = self._unfit(self._pending[0])
        if head is not None:
            if self._pending[0].error is not None and self._policy.then == STOP:
                return self._stop(head)
            return self._park(self._pending[0], head, 0)
        events = tuple(
            itertools.takewhile(lambda e: self._unfit(e) is None, itertools.islice(self._pending, size))
        )
        return self._transaction(events, (), events[-1].position)

    def _unfit(self, event: Event) -> str | None:
        """Say why an event is parked without an attempt; None if it is not."""
        if event.error is not None:
            return str(event.error)
        return _EARLIER if event.aggregate_id in self._blocked else None

    def _park(self, event: Event, error: str, attempts: int) -> Effect:
        parked = ParkedEvent(
            query=self.name,
            aggregate_type=getattr(event.envelope, "aggregate_type", ""),
            aggregate_id=event.aggregate_id,
            sequence=event.sequence,
            position=event.position,
            raw=event.raw.encode(errors="replace"),
            error=error,
            attempts=attempts,
        )
        return self._transaction((), (parked,), event.position)

    def _transaction(self, events: tuple[Event, ...], park: tuple[ParkedEvent, ...], position: int) -> Effect:
        self._to_pop = len(events) + len(park)
        if self._replay is not None:
            position = self.position
        return self._do(Apply(events=events, park=park, expected=self.position, position=position))

    def _drive_failed(self, parked: ParkedEvent, error: str) -> Effect:
        others = (event for event in self._driving if event.aggregate_id != parked.aggregate_id)
        self._driving = deque(others)
        self._to_pop = 0
        again = attrs.evolve(parked, error=error, attempts=parked.attempts + 1)
        return self._do(Apply(events=(), park=(again,), expected=self.position, position=self.position))

    def _stop(self, error: str) -> Effect:
        self.error = error
        self._stopped = True
        return self._do(Sleep(None))

    def _sleep(self, now: float, seconds: float | None) -> Effect:
        self._sleep_until = None if seconds is None else now + seconds
        return self._do(Sleep(seconds))

    def _reached(self) -> None:
        """All is well again: something was written, or there is nothing to. Reading alone says little."""
        self._unavailable = 0

    def _do(self, effect: Effect) -> Effect:
        self._doing = effect
        return effect
