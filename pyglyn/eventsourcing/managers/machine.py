"""A process manager as a state machine: a durable query that also has deadlines and refusals. Pure.

It has two effects more than :class:`~pyglyn.eventsourcing.queries.durable_state.Projection`::

    Survey()                        surveyed(...) or unavailable(...)
    Attend(item, before, after)     attended(), failed(None, error), unavailable(...), conflict(), standby()

- What is due and what was refused comes from the database, by its clock, and is attended to between batches
  of events, one item in a transaction. That transaction replaces the checkpoint too, so two instances of a
  manager never both attend to one item, and nothing comes between what an instance has read and what it
  writes.
- A deadline comes after all events that were committed before it was due: what is due is attended to once the
  checkpoint has reached the ``barrier``, which was the last position when it was found to be due, or once
  there are no more events.
- An item that fails is tried as the policy says, then parked in its place. What belongs to an instance with
  parked events is not in a survey, and waits for them.
- Parked events have the instance as their aggregate, and their position as their sequence: along an instance
  they keep their order, whichever aggregates they are of.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any, TypeAlias

import attrs

from pyglyn.eventsourcing.domain.envelope import expanded
from pyglyn.eventsourcing.managers.rules import Rules
from pyglyn.eventsourcing.queries.durable_state import Effect, Event, Other, Projection
from pyglyn.eventsourcing.queries.failure import STOP
from pyglyn.eventsourcing.stores.managing import IssuedCommand, Timer
from pyglyn.eventsourcing.stores.store import Checkpoint

Item: TypeAlias = Timer | IssuedCommand


@attrs.frozen
class Survey(Other):
    """Read what is due, what was refused, and when the next timer is due."""


@attrs.frozen(kw_only=True)
class Attend(Other):
    """In one transaction: what a timer or a refusal leads to, its removal, the checkpoint's new version.

    Attributes:
        park: park it instead, for this reason.
        attempts: how often it has failed.
    """

    item: Item
    before: Checkpoint
    after: Checkpoint
    park: str = ""
    attempts: int = 0


class ManagerMachine(Projection):
    """The state of one instance of a process manager's server.

    Args:
        rules: name the instances of events.
    """

    def __init__(self, name: str, rules: Rules[Any], **options: Any) -> None:
        self._rules = rules
        self._items: deque[Item] = deque()
        self._item_attempts = 0  # at the first of them
        self._barrier = 0
        self._survey = True
        self._due_at = float("inf")
        super().__init__(name, **options)

    def _forget(self) -> None:
        super()._forget()
        self._items = deque()
        self._item_attempts = 0
        self._survey = True

    @property
    def is_failing(self) -> bool:
        return super().is_failing or bool(self._item_attempts)

    @property
    def may_send(self) -> bool:
        """Whether commands that were issued are to be sent."""
        return not (self._paused or self._stopped or self._fault)

    def survey(self) -> None:
        """Look for what is due or refused at the next occasion: there may be more, or an earlier one."""
        self._survey = self._ordered = True

    # --- inputs --------------------------------------------------------------------------------------

    def loaded(
        self, now: float, checkpoint: Checkpoint, *, blocked: Iterable[str], fault: str = ""
    ) -> Effect:
        self._survey = True
        return super().loaded(now, checkpoint, blocked=blocked, fault=fault)

    def driven(self, now: float, *, remaining: int) -> Effect:
        self._survey = True  # what waited for the parked event
        return super().driven(now, remaining=remaining)

    def surveyed(self, now: float, items: Iterable[Item], *, due_in: float | None, barrier: int) -> Effect:
        """Take what is to be attended to, and when to look again.

        Args:
            now: the time.
            items: what is due and what was refused, in order; the first of it, if there is much.
            due_in: seconds until a timer is due that is none of them; None without one.
            barrier: the last position of the store of events, asked for after the items.
        """
        self._items = deque(items)
        self._barrier = barrier
        if self._items and self.position < barrier:
            self._need_read = True
        self._due_at = float("inf") if due_in is None else now + max(due_in, 0.0)
        self._reached()
        return self._next(now)

    def attended(self, now: float) -> Effect:
        """The transaction was committed."""
        done = self._doing
        assert isinstance(done, Attend)
        self._reached()
        self._item_attempts = 0
        if not done.park:
            self.error = ""
        self.checkpoint = done.after
        self._standing_by = False
        self._last_event_at = now
        self._items.popleft()
        self._survey = self._survey or not self._items
        return self._next(now)

    def failed(self, now: float, index: int | None, error: str) -> Effect:
        doing = self._doing
        if not isinstance(doing, Attend):
            return super().failed(now, index, error)
        if doing.park:  # what the application does is not to blame
            return self.unavailable(now, error)
        self.error = error
        self._item_attempts += 1
        pause = self._policy.pause(self._item_attempts)
        if pause is not None:
            return self._sleep(now, pause)
        if self._policy.then == STOP:
            return self._stop(now, error)
        return self._do(attrs.evolve(doing, park=error, attempts=self._item_attempts))

    # --- the next effect -------------------------------------------------------------------------------

    def _needs_all(self) -> bool:
        return bool(self._items) and self._read_to < self._barrier

    def _besides(self, now: float) -> Effect | None:
        if (self._survey and not self._item_attempts) or (not self._items and now >= self._due_at):
            self._survey = False  # a refusal that is written from now on may not be in what is read
            return self._do(Survey())
        if self._items and (self.position >= self._barrier or not (self._pending or self._need_read)):
            before = self.checkpoint
            return self._do(Attend(item=self._items[0], before=before, after=before.next()))
        return None

    def _besides_at(self) -> float:
        return float("inf") if self._items else self._due_at

    def _line(self, event: Event) -> tuple[str, int]:
        return self._instance_of(event), event.position

    def _instance_of(self, event: Event) -> str:
        """Name the instance of an event; its aggregate where that cannot be told."""
        if event.envelope is not None:
            try:
                named = map(self._rules.instance_of, expanded([event.envelope]))
                return next(filter(None, named), "")
            except Exception:  # it fails again, and as a failure, when the event is handled
                pass
        return event.aggregate_id
