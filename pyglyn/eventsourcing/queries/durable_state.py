"""A durable query as a state machine: inputs with the time in, the one next thing to do out. No clock.

A driver owns the store, the effect and the clock. It carries out the effect that a method returned and
reports the outcome by the method named beside it, which returns the next effect::

    Load()                              loaded(...) or unavailable(...)
    Read(after, limit, aggregate_id)    read(events) or unavailable(...)
    Wait(after, timeout)                woken()        when there may be events, when the time is over,
                                                       when an order came
    Sleep(timeout)                      woken()        when the time is over, when an order came
    Apply(events, park, before, after)  applied(), failed(index, error), unavailable(...), conflict(),
                                        standby()
    Drive(parked, before, after)        driven(), failed(0, error), unavailable(...), conflict(), standby()
    Reset(aggregate_id, before, after)  reset_done(), failed(None, error), unavailable(...), conflict()

What makes it apply each event once:

- Events come from the store by position only. A broadcast (or NOTIFY) is a reason to read, never an event. So
  there is no seam between catching up and living, and a missed broadcast is repaired by the next read.
- The last three replace the checkpoint ``before`` by ``after`` in the transaction of the effect. A checkpoint
  has a version. So a second instance of the query, a pause or a reset ordered there, or a commit whose answer
  was lost, shows up as ``conflict``, and everything is loaded anew: nothing is assumed about what was
  committed.
- The replay of one aggregate is part of the checkpoint, from the undoing of its effects to the last of them:
  whoever loads it goes on with the replay, before anything else.
- Where the effect cannot share a transaction with the checkpoint, a crash between the two repeats the batch.

What makes it go on: a failing batch is split. The events before the failing one are applied, then that one
alone, again and again as the :class:`FailurePolicy` says; then it is parked, and so are, without an attempt,
later events of its aggregate, so that they can be driven in order. Where nobody knows which event it is (the
commit failed), the halves are tried. An unavailable store is nobody's fault and is tried for ever, with
pauses. A reset that fails is tried as the policy says; then the query stands still until it is resumed.

What bounds an Apply: its driver may carry out the first few of its events only, and say so with ``cut``
before it writes the checkpoint.

Orders (``pause``, ``resume``, ``reset``, ``drive``, ``look``) may come at any time; they are carried out
between effects. What others ordered is found in the checkpoint, looked for every few seconds.
"""

from __future__ import annotations

import hashlib
import itertools
from collections import deque
from collections.abc import Iterable
from typing import Any, TypeAlias

import attrs

from pyglyn.errors import NonPositiveArgument
from pyglyn.eventsourcing.queries.failure import STOP, FailurePolicy
from pyglyn.eventsourcing.stores.store import Checkpoint, ParkedEvent, RecordedEvent, Replay

LOADING, CATCHING_UP, LIVE, IDLE = "loading", "catching up", "live", "idle"
STUCK, STOPPED, PAUSED, STANDBY = "stuck", "stopped", "paused", "standby"

LOOK_AGAIN_S = 5.0
"""How long a query that has nothing to do, or must not do anything, trusts what it has loaded."""

STANDBY_S = 1.0
"""How long an instance stands by, while another one has the effects, before it looks again."""

UNAVAILABLE = FailurePolicy(retries=None, first=0.05, longest=5.0)
_EARLIER = "an earlier event of this aggregate is parked"

Event: TypeAlias = RecordedEvent[Any]


@attrs.frozen
class Load:
    """Read the checkpoint, whether it fits the store, and which aggregates have parked events."""


@attrs.frozen
class Read:
    """Read events behind a position, of one aggregate or of all."""

    after: int
    limit: int
    aggregate_id: str | None = None


@attrs.frozen
class Wait:
    """Wait for the store to have events behind a position, for some seconds."""

    after: int
    timeout: float


@attrs.frozen
class Sleep:
    """Do nothing for some seconds, or until an order comes."""

    timeout: float


@attrs.frozen(kw_only=True)
class Apply:
    """In one transaction: the effect of ``events``, the parking of ``park``, the checkpoint."""

    events: tuple[Event, ...]
    park: tuple[ParkedEvent, ...]
    before: Checkpoint
    after: Checkpoint


@attrs.frozen(kw_only=True)
class Drive:
    """In one transaction: the effect of a parked event, its removal, the checkpoint's new version."""

    parked: ParkedEvent
    before: Checkpoint
    after: Checkpoint


@attrs.frozen(kw_only=True)
class Reset:
    """In one transaction: undo the effects of one aggregate, forget its parked events; the checkpoint.

    None means those of all aggregates.
    """

    aggregate_id: str | None
    before: Checkpoint
    after: Checkpoint


class Other:
    """An effect of a kind of query of its own, whose driver knows it.

    Attributes:
        before: the checkpoint that it replaces; None if it replaces none.
    """

    before: Checkpoint | None = None


Effect: TypeAlias = Load | Read | Wait | Sleep | Apply | Drive | Reset | Other


@attrs.frozen(kw_only=True)
class BatchLimits:
    """What goes into one transaction, and how long a live query waits for more events.

    Attributes:
        size: events at most.
        seconds: after so much time the transaction is committed with the events it has; others wait for what
            it has locked. Without a transaction, the checkpoint is written so often.
        linger: seconds from the first event of a batch that is not full until it is applied.
        idle_after: seconds without an event after which a live query is called idle.
    """

    size: int = 500
    seconds: float = 0.25
    linger: float = 0.0
    idle_after: float = 10.0

    def __attrs_post_init__(self) -> None:
        if self.size < 1 or self.seconds <= 0 or self.linger < 0 or self.idle_after <= 0:
            raise NonPositiveArgument("size, seconds and idle_after have to be positive, linger not negative")


def mark(event: Event) -> str:
    """Tell an event from any other one that may be at its position in another store, in 16 characters."""
    named = (event.aggregate_id, event.sequence, event.recorded_at)
    return hashlib.blake2b(repr(named).encode(errors="replace"), digest_size=8).hexdigest()


class Projection:
    """The state of one durable query.

    Attributes:
        name: the query's.
        checkpoint: as far as known.
        error: the last failure in words; empty when all is well.
        processed: events applied since this object was made.
    """

    def __init__(
        self,
        name: str,
        *,
        limits: BatchLimits | None = None,
        policy: FailurePolicy | None = None,
        unavailable: FailurePolicy = UNAVAILABLE,
    ) -> None:
        self.name = name
        self.checkpoint = Checkpoint(name)
        self.error = ""
        self.processed = 0
        self._limits = limits or BatchLimits()
        self._policy = policy or FailurePolicy()
        self._when_unavailable = unavailable
        self._doing: Effect = Load()
        self._resets: deque[str | None] = deque()
        self._driving: deque[ParkedEvent] = deque()
        self._blocked: set[str] = set()  # aggregates with parked events
        self._paused = False
        self._pausing = False  # ordered since the last Load was begun, so it may not be in what that reads
        self._stopped = False  # by the policy; lifted by resume
        self._fault = ""  # why the checkpoint does not fit the store
        self._unavailable = 0  # attempts in a row at a store that cannot be reached
        self._last_event_at = float("-inf")
        self._look_at = float("-inf")  # when to load again, if there is nothing to do
        self._look = False  # load at the next occasion
        self._ordered = False  # since the last effect was chosen
        self._standing_by = False  # another instance has the effects
        self._forget()

    def _forget(self) -> None:
        """Drop what was concluded from the last Load."""
        self._state = LOADING
        self._attempts = 0  # at the event at the head, or at a reset
        self._sleep_until: float | None = None
        self._read_anew()

    def _read_anew(self) -> None:
        """Drop what was read."""
        self._pending: deque[Event] = deque()  # read, not yet applied
        self._to_pop = 0  # how many of them the current Apply takes care of
        self._caps: deque[int] = deque()  # sizes of the next batches, after a failure
        replay = self.checkpoint.replay
        self._read_to = self.position if replay is None else replay.position
        self._need_read = True
        self._full = False  # the last read had as many events as it asked for
        self._linger_until = 0.0

    @property
    def position(self) -> int:
        """The checkpoint's position."""
        return self.checkpoint.position

    @property
    def is_to_begin_anew(self) -> bool:
        """Whether effects are to be undone that are counted as done so far."""
        return bool(self._resets)

    @property
    def blocked(self) -> frozenset[str]:
        """The aggregates with parked events."""
        return frozenset(self._blocked)

    def state(self, now: float) -> str:
        """Return where it stands, one of the states in capitals above.

        It is catching up until it has once done everything there was; from then on it is live.
        """
        if self._stopped or (self._fault and None not in self._resets):
            return STOPPED
        if self.is_failing:
            return STUCK
        if self._paused:
            return PAUSED
        if self._resets:
            return CATCHING_UP
        if self._standing_by:
            return STANDBY
        if self._state == LIVE and not self._pending and now - self._last_event_at >= self._limits.idle_after:
            return IDLE
        return self._state

    @property
    def is_loading(self) -> bool:
        """Whether nothing that is known of the store counts any more."""
        return self._state == LOADING

    @property
    def is_failing(self) -> bool:
        """Whether the last attempt at something failed."""
        return bool(self._attempts or self._unavailable)

    # --- inputs --------------------------------------------------------------------------------------

    def start(self) -> Effect:
        """Begin, or begin anew after the driver was restarted."""
        self._forget()
        return self._do(Load())

    def loaded(
        self, now: float, checkpoint: Checkpoint, *, blocked: Iterable[str], fault: str = ""
    ) -> Effect:
        """Take what the checkpoint store knows.

        Args:
            now: the time.
            checkpoint: the stored one.
            blocked: the aggregates with parked events.
            fault: why the checkpoint cannot be one of this store of events; only a reset of all helps then.
        """
        self._look_at = now + LOOK_AGAIN_S
        self._blocked = set(blocked)
        self._paused = checkpoint.paused or self._pausing
        if self._state != LOADING and checkpoint == self.checkpoint and fault == self._fault:
            self._need_read = True  # just a look, and nothing is new
            return self._next(now)
        if checkpoint.version != self.checkpoint.version:
            self._stopped = False  # somebody has done something
        if self._fault and not fault:
            self.error = ""
        self.checkpoint, self._fault = checkpoint, fault
        self.error = fault or self.error
        self._forget()
        self._state = CATCHING_UP
        return self._next(now)

    def read(self, now: float, events: list[Event]) -> Effect:
        """Take what was read.

        None means that there are no more now. Fewer than the limit may be all there are, which is good enough
        to live by: where it was not so (another node sends no more at once), whoever waits is woken.
        """
        asked = self._doing
        assert isinstance(asked, Read)
        if not events:
            self._reached()
        self._full = len(events) >= asked.limit
        if events:
            if not self._pending:
                self._linger_until = now + self._limits.linger
            self._read_to = events[-1].position
        self._need_read = self._full or (bool(events) and self._needs_all())
        replay = self.checkpoint.replay
        if replay is not None:
            self._pending.extend(event for event in events if event.position <= replay.until)
            self._need_read = bool(events) and self._read_to < replay.until
            return self._next(now)
        self._pending.extend(events)
        self._last_event_at = now if events else self._last_event_at
        if self._full:
            self._state = CATCHING_UP
        return self._next(now)

    def woken(self, now: float) -> Effect:
        """Go on: a time is over, there may be events, or an order came."""
        if isinstance(self._doing, Wait):
            if now >= self._look_at and not self._pending:
                return self._do(Load())
            self._need_read = True
            return self._next(now)
        if isinstance(self._doing, Sleep):
            if self._sleep_until is not None and now < self._sleep_until and not self._ordered:
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
        self.checkpoint = done.after
        self._standing_by = False
        self._last_event_at = now
        self._blocked.update(event.aggregate_id for event in done.park)
        if done.before.replay is not None and done.after.replay is None:
            self._read_anew()
            return self._next(now)
        for _ in range(self._to_pop):
            self._pending.popleft()
        if self._to_pop and self._caps:
            remaining = self._caps.popleft() - self._to_pop
            if remaining > 0:
                self._caps.appendleft(remaining)
        return self._next(now)

    def cut(self, count: int) -> Apply:
        """Have the Apply under way end behind its first ``count`` events; return it as it is now."""
        doing = self._doing
        assert isinstance(doing, Apply)
        assert 0 < count <= len(doing.events)
        events = doing.events[:count]
        self._to_pop = count
        self._doing = attrs.evolve(doing, events=events, after=self._moved_to(events[-1]))
        return self._doing

    def standby(self, now: float) -> Effect:
        """Another instance of the query has the effects."""
        self._standing_by = True
        self._forget()
        self._reached()
        return self._sleep(now, STANDBY_S)

    def failed(self, now: float, index: int | None, error: str) -> Effect:
        """The effect raised, at the event of that index if known; the transaction was rolled back."""
        if isinstance(self._doing, Drive):
            return self._drive_failed(self._doing, error)
        if isinstance(self._doing, Apply):
            events = self._doing.events
            if not events:  # what the application does is not to blame
                return self.unavailable(now, error)
            if len(events) > 1:
                self.error = error
                self._split(len(events), index)
                return self._next(now)
            self._caps = deque([1])
        self.error = error
        self._attempts += 1
        pause = self._policy.pause(self._attempts)
        if pause is not None:
            return self._sleep(now, pause)
        if isinstance(self._doing, Apply) and self._policy.then != STOP:
            return self._park(self._doing.events[0], error, self._attempts)
        return self._stop(now, error)

    def unavailable(self, now: float, error: str) -> Effect:
        """The store (or the effect's database) cannot be reached, or a commit went unanswered."""
        self.error = error
        self._unavailable += 1
        self._forget()
        pause = self._when_unavailable.pause(self._unavailable)
        assert pause is not None
        return self._sleep(now, pause)

    def conflict(self, now: float) -> Effect:
        """The checkpoint is not as we left it: another instance, an order, or an unanswered commit."""
        self._forget()
        return self._do(Load())

    def driven(self, now: float, *, remaining: int) -> Effect:
        """A parked event had its effect; ``remaining`` of its aggregate are still parked."""
        done = self._doing
        assert isinstance(done, Drive)
        self._reached()
        self.checkpoint = done.after
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
        self.error = ""
        if self._resets and self._resets[0] == done.aggregate_id:
            self._resets.popleft()
        if done.aggregate_id is None:
            self._fault = ""
        self._forget()
        return self._do(Load())

    # --- orders: the driver wakes a Wait or a Sleep afterwards -----------------------------------------

    @property
    def is_to_stand_still(self) -> bool:
        """Whether what is under way and can end early should: it was paused, or is to be reset."""
        return self._paused or (bool(self._resets) and self.checkpoint.replay is None)

    def pause(self) -> None:
        """Stand still after the current effect; that it lasts over a restart is the driver's business."""
        self._paused = self._pausing = self._ordered = True

    def resume(self) -> None:
        """Go on after ``pause``, or after the policy has stopped the query; what it stood at is read anew."""
        self._paused = self._pausing = False
        if self._stopped:
            self._stopped = False
            self._forget()
        self._attempts = 0
        self._ordered = True

    def reset(self, aggregate_id: str | None = None) -> None:
        """Undo and apply everything again, or one aggregate's events."""
        if aggregate_id is None:
            self._resets.clear()
        self._resets.append(aggregate_id)
        self._stopped, self._attempts = False, 0
        self._ordered = True

    def drive(self, events: Iterable[ParkedEvent]) -> None:
        """Process parked events again, in order; after a failure the rest of its aggregate stays parked."""
        known = {event.id for event in self._driving}
        self._driving.extend(event for event in events if event.id not in known)
        self._ordered = True

    def look(self) -> None:
        """Load at the next occasion: somebody has changed the checkpoint."""
        self._look = self._ordered = True

    # --- the next effect -------------------------------------------------------------------------------

    def _next(self, now: float) -> Effect:
        self._ordered = False
        if self._state == LOADING or self._look:
            return self._do(Load())
        ordered = self._carry_out()
        if ordered is not None:
            return ordered
        if self._paused or self._stopped or self._fault:
            return self._stand_still(now)
        besides = self._besides(now)
        if besides is not None:
            return besides
        if self._pending and self._ready(now):
            return self._apply(now)
        replay = self.checkpoint.replay
        if self._need_read:
            only = replay.aggregate_id if replay is not None else None
            return self._do(Read(self._read_to, self._limits.size, only))
        if replay is not None:
            return self._change((), (), self.checkpoint.next(replay=None))
        if not self._pending:
            self._state = LIVE  # all that was committed is done
            self._standing_by = False
        until = self._linger_until if self._pending else self._look_at
        return self._do(Wait(self._read_to, max(0.0, min(until, self._besides_at()) - now)))

    def _needs_all(self) -> bool:
        """Tell whether it has to be known for sure that there are no more events."""
        return False

    def _besides(self, now: float) -> Effect | None:
        """Return what comes before the next events; a kind of query of its own has something."""
        return None

    def _besides_at(self) -> float:
        """Return when there will be something of that kind."""
        return float("inf")

    def _carry_out(self) -> Effect | None:
        """Return the effect that an order needs, if it may be carried out now."""
        before = self.checkpoint
        if self._resets and self._resets[0] is None and not self._stopped:
            after = before.next(position=0, mark="", replay=None)
            return self._do(Reset(aggregate_id=None, before=before, after=after))
        if before.replay is not None or self._fault:
            return None
        if self._resets and not self._stopped:
            id = self._resets[0]
            assert id is not None
            after = before.next(replay=Replay(id, 0, until=before.position))
            return self._do(Reset(aggregate_id=id, before=before, after=after))
        if self._driving:
            return self._do(Drive(parked=self._driving[0], before=before, after=before.next()))
        return None

    def _ready(self, now: float) -> bool:
        """Tell whether the batch is full, or has waited long enough."""
        if self._full or self._caps or self.checkpoint.replay is not None:
            return True
        return len(self._pending) >= self._limits.size or now >= self._linger_until

    def _split(self, size: int, index: int | None) -> None:
        """Make smaller batches of one that failed: so that the failing event is alone in one in the end."""
        if index is None:
            rest = itertools.islice(self._caps, 1, None)
            self._caps = deque([size // 2, size - size // 2, *rest])
        else:
            self._caps = deque([index, 1] if index else [1])  # those before it, then it alone

    def _apply(self, now: float) -> Effect:
        """Take from the head what one transaction may hold: events, or events to be parked."""
        size = self._caps[0] if self._caps else self._limits.size
        head = self._unfit(self._pending[0])
        if head is not None:
            if self._pending[0].error is not None and self._policy.then == STOP:
                return self._stop(now, head)
            return self._park(self._pending[0], head, 0)
        fits = (lambda e: self._unfit(e) is None) if self._blocked else (lambda e: e.error is None)
        events = tuple(itertools.takewhile(fits, itertools.islice(self._pending, size)))
        return self._change(events, (), self._moved_to(events[-1]))

    def _unfit(self, event: Event) -> str | None:
        """Say why an event is parked without an attempt; None if it is not."""
        if event.error is not None:
            return str(event.error)
        return _EARLIER if self._line(event)[0] in self._blocked else None

    def _line(self, event: Event) -> tuple[str, int]:
        """Return which events have to keep an order, and the place of this one among them."""
        return event.aggregate_id, event.sequence

    def _park(self, event: Event, error: str, attempts: int) -> Effect:
        line, place = self._line(event)
        parked = ParkedEvent(
            query=self.name,
            aggregate_type=getattr(event.envelope, "aggregate_type", ""),
            aggregate_id=line,
            sequence=place,
            position=event.position,
            raw=event.raw if isinstance(event.raw, bytes) else event.raw.encode(errors="replace"),
            error=error,
            attempts=attempts,
        )
        return self._change((), (parked,), self._moved_to(event))

    def _moved_to(self, event: Event) -> Checkpoint:
        """Return the checkpoint after an event; while one aggregate is replayed, only the replay moves."""
        replay = self.checkpoint.replay
        if replay is not None:
            return self.checkpoint.next(replay=attrs.evolve(replay, position=event.position))
        return self.checkpoint.next(position=event.position, mark=mark(event))

    def _change(self, events: tuple[Event, ...], park: tuple[ParkedEvent, ...], after: Checkpoint) -> Effect:
        self._to_pop = len(events) + len(park)
        return self._do(Apply(events=events, park=park, before=self.checkpoint, after=after))

    def _drive_failed(self, failed: Drive, error: str) -> Effect:
        parked = failed.parked
        others = (event for event in self._driving if event.aggregate_id != parked.aggregate_id)
        self._driving = deque(others)
        self._to_pop = 0
        again = attrs.evolve(parked, error=error, attempts=parked.attempts + 1)
        return self._do(Apply(events=(), park=(again,), before=failed.before, after=failed.after))

    def _stop(self, now: float, error: str) -> Effect:
        self.error = error
        self._stopped = True
        return self._stand_still(now)

    def _stand_still(self, now: float) -> Effect:
        """Do nothing, but look from time to time whether that is still wanted."""
        if now >= self._look_at:
            return self._do(Load())
        return self._sleep(now, self._look_at - now)

    def _sleep(self, now: float, seconds: float) -> Effect:
        self._sleep_until = now + seconds
        return self._do(Sleep(seconds))

    def _reached(self) -> None:
        """All is well again: something was written, or there is nothing to. Reading alone says little."""
        if self._unavailable:
            self._unavailable = 0
            self.error = ""

    def _do(self, effect: Effect) -> Effect:
        if isinstance(effect, Load):
            self._look = self._pausing = False  # an order that comes from now on is not in what is read
        self._doing = effect
        return effect
