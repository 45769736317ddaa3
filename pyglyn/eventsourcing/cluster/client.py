"""A handle on an event sourcing service on any node, in Python or Gleam: commands to it, questions about it.

::

    bank = es.Service(node, "bank", events=Event, state=Account)
    envelopes = await bank.execute("account-1", Deposit(100))

Layer: eventsourcing, cluster.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeAlias, TypeVar, cast, overload

from pyglyn import gleam
from pyglyn.errors import (
    ActorTimeout,
    CallFailed,
    CallTimeout,
    EventStoreError,
    NonPositiveArgument,
)
from pyglyn.etf import Atom, Pid, Reference, Term
from pyglyn.eventsourcing.cluster.owners import Owners
from pyglyn.eventsourcing.domain import wire
from pyglyn.eventsourcing.domain.aggregate import Aggregate, AggregateStats, SystemStats
from pyglyn.eventsourcing.domain.causation import with_cause
from pyglyn.eventsourcing.domain.envelope import COMMAND_ID, EventEnvelope
from pyglyn.eventsourcing.domain.snapshot import Snapshot
from pyglyn.node import At, Node
from pyglyn.node.calls import exchange
from pyglyn.node.destinations import ServerRef

GleamActor: TypeAlias = "gleam.Subject[Any] | tuple[gleam.NamedSubject[Any], str]"
Address: TypeAlias = "ServerRef | GleamActor"

S = TypeVar("S")
C = TypeVar("C")
E = TypeVar("E")

SUBJECT = Atom("subject")

_GLEAM_FIELDS = 4


class Committed(list[EventEnvelope[E]], Generic[E]):
    """The envelopes that a command has committed.

    Attributes:
        position: of the last of them, for `wait_for`; without any, of the aggregate's last event (0 if it has
            none). None unless it was asked for, or where the store could not tell.
    """

    position: int | None = None


class Service(Generic[S, C, E]):
    """A service as one node or process reaches it.

    ``Service[Account, Command, Event]`` has a type checker check commands and results; `ServiceSpec.at` makes
    one that knows its types by itself.

    A Gleam actor (eventsourcing 9.1) does not return the committed envelopes: `execute` returns an empty list
    then.
    """

    @overload
    def __init__(
        self: Service[S, Any, Any],
        at: At,
        name: Address,
        *,
        events: object = None,
        state: type[S],
        errors: object = None,
        scope: str | None = None,
    ) -> None: ...
    @overload
    def __init__(
        self: Service[Any, Any, Any],
        at: At,
        name: Address,
        *,
        events: object = None,
        state: object = None,
        errors: object = None,
        scope: str | None = None,
    ) -> None: ...
    def __init__(
        self,
        at: At,
        name: Address,
        *,
        events: object = None,
        state: object = None,
        errors: object = None,
        scope: str | None = None,
    ) -> None:
        """Say whom to ask, and what the answers are made of.

        Args:
            at: the node, or the calling process.
            name: a registered name of this node (``"bank"``), a name on another one (``("bank",
                "bank@localhost")``), a pid, or a Gleam subject: ``gleam.Subject``, or ``(gleam.NamedSubject,
                node)`` for a named one.
            events: the type of its events, or a decoder; None leaves them terms.
            state: the class of its aggregates' entity; None leaves it a term.
            errors: the type of its domain errors; None gives strings and terms.
            scope: what is asked about an aggregate goes to its owner among the services of this name on all
                nodes of that scope; this node need not have one.

        Raises:
            UnsupportedType: one of the types is no Gleam value.
            TypeError: a scope, and a name that is none.
        """
        self.at = at
        self.name = name
        self._owners: Owners | None = None
        if scope is not None:
            if not isinstance(name, str):
                raise TypeError(f"services that share a scope are found by their name, got {name!r}")
            self._owners = Owners(at, scope, name)
        self._read_event: Callable[[Term], E] = wire.event_decoding(events)
        self._read_entity: Callable[[Term], S] = wire.decoding(state)
        self._read_error: Callable[[Term], Any] = wire.decoding(errors)

    def __repr__(self) -> str:
        return f"<Service {self.name!r}>"

    async def execute(
        self,
        aggregate_id: str,
        command: C,
        *,
        metadata: Iterable[tuple[str, str]] = (),
        expected: int | None = None,
        command_id: str | None = None,
        final: bool = False,
        position: bool = False,
        timeout: float | None = 5.0,
    ) -> Committed[E]:
        """Carry out a command and return the envelopes it committed.

        Args:
            aggregate_id: which aggregate.
            command: an attrs class or dataclass, as Gleam's constructors.
            metadata: pairs kept with the events; the service adds correlation and causation ids.
            expected: the sequence that the aggregate has to be at, as the caller has seen it; None for any.
            command_id: a command whose events were committed under this id before is not carried out again,
                and has the same outcome. It is kept in the metadata, as ``command_id``.
            final: that the command was refused is remembered by its id, too: who sends it again is refused
                again, and none that was late is carried out afterwards.
            position: ask for the position too, which is a question more to the store.
            timeout: seconds; None waits until it is known what became of the command.

        Raises:
            DomainError: the command was refused.
            ActorTimeout: no answer in time; the command may still be carried out.
            VersionConflict: other writers were faster every time, or the aggregate is not at ``expected``.
            StoreUnavailable, EventStoreError: nothing was written, see there.
            EventStoreError: also for a Gleam actor that is given ``expected``, ``position`` or ``final``.
            CallFailed: the service, the owner of the aggregate or the node of either ended, or is not there;
                the command may have been carried out unless the reason is ``noproc``.
            NoOwner: no connected node of the scope serves the aggregate; nothing was done.
            ValueEncodeError: the command is no Gleam value.
            TypeError, EventEncodeError: the metadata is no pairs of strings, or the id no string.
        """
        to_gleam = is_gleam(self.name)
        kind = wire.EXECUTE_WITH_RESPONSE if to_gleam else wire.EXECUTE
        request = self._command(
            kind,
            aggregate_id,
            command,
            metadata,
            command_id,
            expected=expected,
            position=position,
            final=final,
        )
        if to_gleam and len(request) > _GLEAM_FIELDS:
            raise EventStoreError("an actor in Gleam knows neither expected=, position= nor final=")
        value = await self._ask(aggregate_id, request, "execute", timeout)
        found: Term = None
        if isinstance(value, tuple) and len(value) == 3 and value[0] is wire.COMMITTED:
            _, value, found = value
        committed = Committed(self._envelopes(value) if isinstance(value, list) else ())
        committed.position = found if type(found) is int else None
        return committed

    def _command(
        self,
        kind: Atom,
        aggregate_id: str,
        command: C,
        metadata: Iterable[tuple[str, str]],
        command_id: str | None,
        **options: Any,
    ) -> tuple[Term, ...]:
        pairs = with_cause(metadata)
        if command_id is not None:
            pairs = [pair for pair in pairs if pair[:1] != (COMMAND_ID,)] + [(COMMAND_ID, command_id)]
        return wire.execute_term(kind, aggregate_id, gleam.encode(command), pairs, **options)

    async def send_command(
        self,
        aggregate_id: str,
        command: C,
        *,
        metadata: Iterable[tuple[str, str]] = (),
        expected: int | None = None,
        command_id: str | None = None,
    ) -> None:
        """Send a command and do not wait; what becomes of it shows in the events, or in the service's log.

        The arguments are those of `execute`.

        Raises:
            NoOwner: no connected node of the scope serves the aggregate.
            ValueEncodeError, TypeError, EventEncodeError: as for `execute`.
        """
        request = self._command(wire.EXECUTE, aggregate_id, command, metadata, command_id, expected=expected)
        name = self.name if self._owners is None else await self._owners.find(aggregate_id)
        process = self.at.system if isinstance(self.at, Node) else self.at
        if is_gleam(name):
            if expected is not None:
                raise EventStoreError("an actor in Gleam does not know expected=")
            to, tag = _address(cast(GleamActor, name))
            process.send(to, (tag, request))
        else:
            process.cast(cast(ServerRef, name), request)

    async def load_aggregate(
        self, aggregate_id: str, *, at: int | None = None, timeout: float | None = 5.0
    ) -> Aggregate[S]:
        """Return an aggregate as the store has it, or as it was after its first ``at`` events.

        Raises:
            EntityNotFound: it has no events, or not so many.
        """
        request: tuple[Term, ...] = (wire.LOAD_AGGREGATE, _key(aggregate_id))
        if at is not None:
            request = (*request, at)
        value = await self._ask(aggregate_id, request, "load_aggregate", timeout)
        return wire.read_aggregate(value, self._read_entity)

    async def load_events(
        self, aggregate_id: str, start_from: int = 0, *, timeout: float | None = 5.0
    ) -> list[EventEnvelope[E]]:
        """Return the events of an aggregate after the first ``start_from``."""
        request: tuple[Term, ...] = (wire.LOAD_ALL_EVENTS, _key(aggregate_id))
        if start_from:
            request = (wire.LOAD_EVENTS, _key(aggregate_id), start_from)
        return self._envelopes(await self._ask(aggregate_id, request, "load_events", timeout))

    async def latest_snapshot(self, aggregate_id: str, *, timeout: float | None = 5.0) -> Snapshot[S] | None:
        """Return the latest snapshot of an aggregate, None when there is none."""
        request = (wire.LOAD_SNAPSHOT, _key(aggregate_id))
        value = await self._ask(aggregate_id, request, "load_latest_snapshot", timeout)
        return wire.read_snapshot(value, self._read_entity)

    async def aggregate_stats(self, aggregate_id: str, *, timeout: float | None = 5.0) -> AggregateStats:
        """Return how many events an aggregate has, and whether it has a snapshot; one not known has 0."""
        request = (wire.AGGREGATE_STATS, _key(aggregate_id))
        return wire.read_aggregate_stats(
            await self._ask(aggregate_id, request, "get_aggregate_stats", timeout)
        )

    async def system_stats(self, *, timeout: float | None = 5.0) -> SystemStats:
        """Return how many queries a service has and how many commands it processed.

        Of several that share a scope, one answers for itself.
        """
        _check(timeout)
        name = self.name if self._owners is None else await self._owners.find("")
        answer = await _exchange(self.at, name, (wire.SYSTEM_STATS,), "get_system_stats", timeout)
        return wire.read_system_stats(answer)

    async def owner(self, aggregate_id: str) -> Pid:
        """Find the service that owns an aggregate.

        Raises:
            NoOwner: no connected node of the scope serves it.
            EventStoreError: the handle was made without a scope.
        """
        if self._owners is None:
            raise EventStoreError(f"{self!r} has no scope, so nobody owns aggregates")
        return await self._owners.find(aggregate_id)

    async def _ask(
        self, aggregate_id: str, request: tuple[Term, ...], operation: str, timeout: float | None
    ) -> Any:
        _check(timeout)
        if self._owners is None:
            answer = await _exchange(self.at, self.name, request, operation, timeout)
        else:

            async def ask(owner: Pid) -> Term:
                return await _exchange(self.at, owner, request, operation, timeout)

            answer = await self._owners.ask(aggregate_id, ask)
        return unwrapped(answer, self._read_error, aggregate_id)

    def _envelopes(self, value: Any) -> list[EventEnvelope[E]]:
        return [wire.read_envelope(each, self._read_event) for each in value]


# --- how ---------------------------------------------------------------------------------------------


def is_gleam(name: Address) -> bool:
    """Whether a service is given by a Gleam subject."""
    return isinstance(name, gleam.Subject) or (
        isinstance(name, tuple) and isinstance(name[0], gleam.NamedSubject)
    )


def _key(aggregate_id: str) -> bytes:
    return wire.string(aggregate_id, "aggregate id")


def _address(name: GleamActor) -> tuple[Pid | tuple[Atom, str], Term]:
    if isinstance(name, gleam.Subject):
        return name.owner, name.tag
    named, node = name
    return (named.name, node), named.name


def _check(timeout: float | None) -> None:
    if timeout is not None and timeout <= 0:
        raise NonPositiveArgument(f"a timeout has to be more than 0, got {timeout}")


async def _exchange(
    at: At, name: Address, request: tuple[Term, ...], operation: str, timeout: float | None
) -> Term:
    try:
        if not is_gleam(name):
            return await at.call(cast(ServerRef, name), request, timeout)
        to, tag = _address(cast(GleamActor, name))
        me = at.system if isinstance(at, Node) else at

        def message(ref: Reference) -> Term:
            return (tag, (*request, (SUBJECT, me.pid, ref)))

        return await exchange(me, to, message, timeout)
    except CallTimeout as error:
        raise ActorTimeout(operation, round((timeout or 0) * 1000)) from error


def unwrapped(answer: Term, read_error: Callable[[Term], Any] = wire.untyped, aggregate_id: str = "") -> Any:
    """Return the value of ``{ok, Value}``.

    Raises:
        EventSourcingError: it is ``{error, Error}``.
        CallFailed: it is ``{error, {worker_ended, Reason}}``.
    """
    match answer:
        case (Atom("ok"), value):
            return value
        case (Atom("error"), (Atom("worker_ended"), reason)):
            raise CallFailed(wire.WORKER_ENDED_TEXT, reason=(wire.WORKER_ENDED, reason))
        case (Atom("error"), error):
            raise wire.read_error(error, read_error, aggregate_id=aggregate_id)
    raise EventStoreError("the service answered with something that is no result")
