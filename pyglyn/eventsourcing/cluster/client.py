"""Commands and questions to an event sourcing service on any node, in Python or Gleam.

The service is a registered name of this node (``"bank"``), a name on another one (``("bank",
"bank@localhost")``), a pid, or a Gleam subject: ``gleam.Subject``, or ``(gleam.NamedSubject, node)`` for a
named one. The first argument is the node, or the process (``me``) that asks.

A Gleam actor (eventsourcing 9.1) does not return the committed envelopes: ``execute`` returns an empty list
then. Layer: eventsourcing, cluster.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeAlias, cast

from pyglyn import gleam
from pyglyn.errors import ActorTimeout, CallFailed, CallTimeout, EventStoreError, NonPositiveArgument
from pyglyn.etf import Atom, Pid, Reference, Term
from pyglyn.eventsourcing.domain import wire
from pyglyn.eventsourcing.domain.aggregate import Aggregate, AggregateStats, SystemStats
from pyglyn.eventsourcing.domain.causation import with_cause
from pyglyn.eventsourcing.domain.envelope import EventEnvelope
from pyglyn.eventsourcing.domain.snapshot import Snapshot
from pyglyn.node import Node, Process
from pyglyn.node.calls import exchange
from pyglyn.node.destinations import ServerRef

At: TypeAlias = "Node | Process"
GleamActor: TypeAlias = "gleam.Subject[Any] | tuple[gleam.NamedSubject[Any], str]"
Service: TypeAlias = "ServerRef | GleamActor"

SUBJECT = Atom("subject")
known_types: dict[str, wire.Types] = {}
"""How the services declared in this OS process read and write their values, by name."""
known_events: dict[str, object] = {}
"""The types of their events."""


async def execute(
    at: At,
    service: Service,
    aggregate_id: str,
    command: object,
    *,
    metadata: Iterable[tuple[str, str]] = (),
    events: object = None,
    errors: object = None,
    timeout: float | None = 5.0,
) -> list[EventEnvelope[Any]]:
    """Carry out a command and return the envelopes it committed.

    Args:
        at: the node, or the calling process.
        service: who executes it.
        aggregate_id: which aggregate.
        command: an attrs class or dataclass, as Gleam's constructors.
        metadata: pairs kept with the events; the service adds correlation and causation ids.
        events: the type of the events, for a service declared elsewhere; None leaves them terms then.
        errors: the type of the domain errors; None gives strings and terms.
        timeout: seconds.

    Raises:
        DomainError: the command was refused.
        ActorTimeout: no answer in time; the command may still be carried out.
        VersionConflict, StoreUnavailable, EventStoreError: nothing was written, see there.
        CallFailed: the service is not there, or ended.
        ValueEncodeError: the command is no Gleam value.
        TypeError, EventEncodeError: the metadata is no pairs of strings, or the id no string.
    """
    request: tuple[Term, ...] = (
        wire.EXECUTE,
        _key(aggregate_id),
        gleam.encode(command),
        wire.metadata_term(with_cause(metadata)),
    )
    if is_gleam(service):
        answer = await _ask(at, service, (wire.EXECUTE_WITH_RESPONSE, *request[1:]), "execute", timeout)
    else:
        answer = await _ask(at, service, request, "execute", timeout)
    value = unwrapped(answer, errors, aggregate_id)
    read = _types(service).event if events is None else wire.decoding(events)
    return [wire.read_envelope(each, read) for each in value] if isinstance(value, list) else []


async def execute_with_metadata(
    at: At,
    service: Service,
    aggregate_id: str,
    command: object,
    metadata: Iterable[tuple[str, str]],
    **options: Any,
) -> list[EventEnvelope[Any]]:
    """Carry out a command whose events get these pairs; otherwise as `execute`."""
    return await execute(at, service, aggregate_id, command, metadata=metadata, **options)


def send_command(
    at: At, service: Service, aggregate_id: str, command: object, metadata: Iterable[tuple[str, str]] = ()
) -> None:
    """Send a command and do not wait; what becomes of it shows in the events, or in the service's log."""
    pairs = wire.metadata_term(with_cause(metadata))
    request = (wire.EXECUTE, _key(aggregate_id), gleam.encode(command), pairs)
    process = at.system if isinstance(at, Node) else at
    if is_gleam(service):
        to, tag = _address(cast(GleamActor, service))
        process.send(to, (tag, request))
    else:
        process.cast(cast(ServerRef, service), request)


async def load_aggregate(
    at: At, service: Service, aggregate_id: str, *, state: object = None, timeout: float | None = 5.0
) -> Aggregate[Any]:
    """Return an aggregate as the store has it.

    Args:
        at, service, aggregate_id, timeout: as for `execute`.
        state: the class of the entity; None leaves it a term, unless the service was declared here.

    Raises:
        EntityNotFound: it has no events.
    """
    answer = await _ask(
        at,
        service,
        (wire.LOAD_AGGREGATE, _key(aggregate_id)),
        "load_aggregate",
        timeout,
    )
    value = unwrapped(answer, None, aggregate_id)
    read = _types(service).read_entity if state is None else wire.decoding(state)
    return wire.read_aggregate(value, read)


async def load_events(
    at: At, service: Service, aggregate_id: str, *, events: object = None, timeout: float | None = 5.0
) -> list[EventEnvelope[Any]]:
    """Return all events of an aggregate."""
    answer = await _ask(
        at,
        service,
        (wire.LOAD_ALL_EVENTS, _key(aggregate_id)),
        "load_all_events",
        timeout,
    )
    return _envelopes(answer, service, events)


async def load_events_from(
    at: At,
    service: Service,
    aggregate_id: str,
    start_from: int,
    *,
    events: object = None,
    timeout: float | None = 5.0,
) -> list[EventEnvelope[Any]]:
    """Return the events of an aggregate after the first ``start_from``."""
    request = (wire.LOAD_EVENTS, _key(aggregate_id), start_from)
    return _envelopes(await _ask(at, service, request, "load_events", timeout), service, events)


async def latest_snapshot(
    at: At, service: Service, aggregate_id: str, *, state: object = None, timeout: float | None = 5.0
) -> Snapshot[Any] | None:
    """Return the latest snapshot of an aggregate, None when there is none."""
    request = (wire.LOAD_SNAPSHOT, _key(aggregate_id))
    value = unwrapped(await _ask(at, service, request, "load_latest_snapshot", timeout))
    read = _types(service).read_entity if state is None else wire.decoding(state)
    return wire.read_snapshot(value, read)


async def system_stats(at: At, service: Service, *, timeout: float | None = 5.0) -> SystemStats:
    """Return how many queries a service has and how many commands it processed."""
    return wire.read_system_stats(await _ask(at, service, (wire.SYSTEM_STATS,), "get_system_stats", timeout))


async def aggregate_stats(
    at: At, service: Service, aggregate_id: str, *, timeout: float | None = 5.0
) -> AggregateStats:
    """Return how many events an aggregate has, and whether it has a snapshot.

    Raises:
        EntityNotFound: it has no events.
    """
    request = (wire.AGGREGATE_STATS, _key(aggregate_id))
    answer = await _ask(at, service, request, "get_aggregate_stats", timeout)
    return wire.read_aggregate_stats(unwrapped(answer, None, aggregate_id))


# --- how ---------------------------------------------------------------------------------------------


def is_gleam(service: Service) -> bool:
    """Whether a service is given by a Gleam subject."""
    return isinstance(service, gleam.Subject) or (
        isinstance(service, tuple) and isinstance(service[0], gleam.NamedSubject)
    )


def _key(aggregate_id: str) -> bytes:
    return wire.string(aggregate_id, "aggregate id")


def _address(service: GleamActor) -> tuple[Pid | tuple[Atom, str], Term]:
    if isinstance(service, gleam.Subject):
        return service.owner, service.tag
    named, node = service
    return (named.name, node), named.name


async def _ask(
    at: At, service: Service, request: tuple[Term, ...], operation: str, timeout: float | None
) -> Term:
    if timeout is not None and timeout <= 0:
        raise NonPositiveArgument(f"a timeout has to be more than 0, got {timeout}")
    try:
        if not is_gleam(service):
            return await at.call(cast(ServerRef, service), request, timeout)
        to, tag = _address(cast(GleamActor, service))
        me = at.system if isinstance(at, Node) else at

        def message(ref: Reference) -> Term:
            return (tag, (*request, (SUBJECT, me.pid, ref)))

        return await exchange(me, to, message, timeout)
    except CallTimeout as error:
        raise ActorTimeout(operation, round((timeout or 0) * 1000)) from error


def unwrapped(answer: Term, errors: object = None, aggregate_id: str = "") -> Any:
    """Return the value of ``{ok, Value}``.

    Raises:
        EventSourcingError: it is ``{error, Error}``.
        CallFailed: it is ``{error, {worker_ended, Reason}}``.
    """
    match answer:
        case (Atom("ok"), value):
            return value
        case (Atom("error"), (Atom("worker_ended"), reason)):
            text = "the service's worker ended; what it was asked for may have been done"
            raise CallFailed(text, reason=(wire.WORKER_ENDED, reason))
        case (Atom("error"), error):
            raise wire.read_error(error, wire.decoding(errors), aggregate_id=aggregate_id)
    raise EventStoreError("the service answered with something that is no result")


def _types(service: Service) -> wire.Types:
    name = service[0] if isinstance(service, tuple) else service
    return known_types.get(str(name) if isinstance(name, (str, Atom)) else "", wire.UNTYPED)


def _envelopes(answer: Term, service: Service, events: object) -> list[EventEnvelope[Any]]:
    read: Callable[[Term], Any] = _types(service).event if events is None else wire.decoding(events)
    value = unwrapped(answer)
    return [wire.read_envelope(each, read) for each in value]
