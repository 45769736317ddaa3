"""The rules of a process manager: what an event, a deadline or a refusal leads to. Pure.

An application gives functions, as for aggregates. ``correlate(envelope)`` names the instance that an event
concerns; ``handle(state, message)`` returns what is to be done, ``apply(state, message)`` the state after it.
Both get the state as it was before. A message is the payload of an event, `Expired` or `Refused`.

Source: the names are those of Commanded's process managers (``interested?``, ``handle``, ``apply``), whose
``start`` and ``stop`` are ``starts`` and `End` here.
"""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeAlias, TypeVar

import attrs

from pyglyn.errors import InvalidHandlerResult
from pyglyn.eventsourcing.domain.copying import owned
from pyglyn.eventsourcing.domain.envelope import EventEnvelope

S = TypeVar("S")

After: TypeAlias = "datetime.timedelta | float"


@attrs.frozen
class Dispatch:
    """Send a command; commands of an instance are sent one after the other, in order.

    Attributes:
        service: one of the manager's ``services``.
        command: as `es.Service.execute` takes it.
        to: the aggregate's id; None for one of the same id as the instance.
    """

    service: str
    command: object
    to: str | None = None


@attrs.frozen
class Deadline:
    """Have `Expired` come at a time, unless it is cancelled or set anew before, by the same name.

    Attributes:
        name: one instance has one of a name.
        after: seconds or a timedelta, from when the event was recorded, the earlier deadline was due, the
            refusal was taken.
        at: or the time.
    """

    name: str
    after: After | None = None
    at: datetime.datetime | None = None


@attrs.frozen
class Schedule:
    """Send a command at a time, unless it is cancelled before; name, ``after`` and ``at`` as `Deadline`."""

    name: str
    dispatch: Dispatch
    after: After | None = None
    at: datetime.datetime | None = None


@attrs.frozen
class Cancel:
    """Cancel the deadline or the scheduled command of a name, if there is one."""

    name: str


@attrs.frozen
class End:
    """Forget the instance, with its deadlines. Commands that it has issued are sent all the same."""


@attrs.frozen
class Expired:
    """A deadline is due: everything that was committed before has been handled."""

    name: str


@attrs.frozen
class Refused:
    """An aggregate has refused a command.

    Attributes:
        dispatch: the command, of the type that its `Destination` says, else a term.
        error: what the DomainError says, where that is a string; in Erlang syntax where it is not.
    """

    dispatch: Dispatch
    error: str


Action: TypeAlias = Dispatch | Deadline | Schedule | Cancel | End


@attrs.frozen
class Reaction(Generic[S]):
    """What a message leads to; ``state`` is None where the instance has ended."""

    state: S | None
    actions: tuple[Action, ...]
    ended: bool = False


@attrs.frozen(kw_only=True)
class Rules(Generic[S]):
    """The pure part of a process manager.

    Attributes:
        apply: None leaves the state as it is.
        correlate: None makes the aggregate of the event the instance.
        starts: the types of events that begin an instance; others are left out where there is none. Empty
            for all of them.
    """

    handle: Callable[[S, Any], Iterable[Action]]
    apply: Callable[[S, Any], S] | None = None
    empty_state: S
    correlate: Callable[[EventEnvelope[Any]], str | None] | None = None
    starts: tuple[type, ...] = ()

    def instance_of(self, envelope: EventEnvelope[Any]) -> str | None:
        """Name the instance that an event concerns; None for one that the manager has nothing to do with.

        Raises:
            InvalidHandlerResult: ``correlate`` returned something else.
            Exception: whatever it raises.
        """
        if self.correlate is None:
            return envelope.aggregate_id
        instance = self.correlate(envelope)
        if instance is not None and not isinstance(instance, str):
            raise InvalidHandlerResult(f"correlate returned {instance!r}; an instance is a string, or None")
        return instance

    def begins(self, message: object) -> bool:
        """Whether an event begins an instance."""
        return not self.starts or isinstance(message, self.starts)

    def react(self, state: S, message: object) -> Reaction[S]:
        """Handle a message.

        Raises:
            InvalidHandlerResult: ``handle`` returned something that is no list (or tuple) of actions.
            Exception: whatever ``handle`` and ``apply`` raise.
        """
        actions: object = self.handle(owned(state), message)
        if not isinstance(actions, list | tuple):
            if hasattr(actions, "close"):
                actions.close()  # a coroutine or generator: say it here, not in a warning later
            name = f"handle({type(message).__name__})"
            hint = "; return a list of actions, [] for nothing to do"
            raise InvalidHandlerResult(f"{name} returned {_kind(actions)}{hint}")
        for action in actions:
            _check(action)
        if any(isinstance(action, End) for action in actions):
            return Reaction(None, tuple(actions), ended=True)
        after = state if self.apply is None else self.apply(owned(state), message)
        return Reaction(after, tuple(actions))


def due_at(timer: Deadline | Schedule, base: float) -> float:
    """Return when something is due, in seconds since 1970; ``base`` is what ``after`` counts from."""
    if timer.at is not None:
        return timer.at.timestamp()
    after = timer.after
    assert after is not None
    return base + (after.total_seconds() if isinstance(after, datetime.timedelta) else after)


def command_id(manager: str, cause: str, number: int) -> str:
    """Name a command by what caused it: the same if that is handled again, and unlike any other.

    Args:
        manager: its name.
        cause: unlike any other one, of any instance, in any history of the store.
        number: which of its commands.
    """
    digest = hashlib.blake2b(cause.encode(errors="surrogatepass"), digest_size=16).hexdigest()
    return f"{manager}/{digest}/{number}"


def _kind(value: object) -> str:
    return "None" if value is None else f"a {type(value).__name__}"


def _check(action: object) -> None:
    if isinstance(action, Deadline | Schedule):
        if (action.after is None) == (action.at is None):
            raise InvalidHandlerResult(f"{action!r}: give either after or at")
        if action.at is not None and action.at.tzinfo is None:
            raise InvalidHandlerResult(f"{action!r}: the time has no time zone")
        if isinstance(action, Schedule) and not isinstance(action.dispatch, Dispatch):
            raise InvalidHandlerResult(f"{action!r}: what is scheduled is a Dispatch")
    elif not isinstance(action, Dispatch | Cancel | End):
        raise InvalidHandlerResult(f"handle returned {action!r}, which is no action")
