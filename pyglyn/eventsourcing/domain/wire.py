"""The Gleam library's terms: envelopes, query messages, actor messages, errors. Pure.

Envelopes are told apart by tag and length, not by trying one form first: a serialized envelope keeps its
metadata and type names here (in the Gleam library it is read as the memory form, which loses them).

Requests of ours (``gen_server`` calls) have the actor messages' shapes without the reply subject, and richer
errors: ``{version_conflict, Id, Expected, Actual}``, ``{store_unavailable, Text, OutcomeUnknown}`` and
``{worker_ended, Reason}`` where a Gleam caller gets ``{event_store_error, Text}``.

Source: ``eventsourcing.gleam`` 9.1 (types ``AggregateMessage``, ``QueryMessage``, ``EventSourcingError``),
``eventsourcing_glyn.gleam`` 1.0.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Iterable
from typing import Any

import attrs

from pyglyn import etf, gleam
from pyglyn.errors import (
    ActorTimeout,
    DomainError,
    EncodeError,
    EntityNotFound,
    EventEncodeError,
    EventSourcingError,
    EventStoreError,
    GleamError,
    NonPositiveArgument,
    StoreUnavailable,
    TransactionFailed,
    TransactionRolledBack,
    VersionConflict,
)
from pyglyn.etf import Atom, Term
from pyglyn.eventsourcing.domain.aggregate import Aggregate, AggregateStats, SystemStats
from pyglyn.eventsourcing.domain.envelope import (
    EventEnvelope,
    MemoryStoreEventEnvelop,
    Metadata,
    ProcessEvents,
    SerializedEventEnvelop,
    metadata_pairs,
)
from pyglyn.eventsourcing.domain.lenient import event_decoder
from pyglyn.eventsourcing.domain.snapshot import Snapshot
from pyglyn.gleam import DecodeError, DecodeErrors

OK, ERROR, SOME, NONE = Atom("ok"), Atom("error"), Atom("some"), Atom("none")
PROCESS_EVENTS = Atom("process_events")
SERIALIZED, MEMORY = Atom("serialized_event_envelop"), Atom("memory_store_event_envelop")
EXECUTE, EXECUTE_WITH_RESPONSE = Atom("execute_command"), Atom("execute_command_with_response")
LOAD_AGGREGATE, LOAD_ALL_EVENTS = Atom("load_aggregate"), Atom("load_all_events")
LOAD_EVENTS, LOAD_SNAPSHOT = Atom("load_events"), Atom("load_latest_snapshot")
SYSTEM_STATS, AGGREGATE_STATS = Atom("get_system_stats"), Atom("get_aggregate_stats")
EXPECTED, POSITION, FINAL = Atom("expected"), Atom("position"), Atom("final")
COMMITTED = Atom("committed")
WORKER_ENDED = Atom("worker_ended")
WORKER_ENDED_TEXT = "the worker or owner that had the command ended; it may have been carried out"


def untyped(term: Term) -> Any:
    """Take a value of unknown type as the term it is."""
    return term


def decoding(type_: object) -> Callable[[Term], Any]:
    """Return the function that reads values of a type (a class, a union or a ``gleam`` decoder).

    None reads nothing: the term is the value.
    """
    if type_ is None:
        return untyped
    if isinstance(type_, gleam.Decoder):
        return type_.decode
    return gleam.decoder(typing.cast(type, type_)).decode


def event_decoding(type_: object) -> Callable[[Term], Any]:
    """Return the function that reads events of a type, also as nodes of a version near to ours send them."""
    if type_ is None or isinstance(type_, gleam.Decoder):
        return decoding(type_)
    return event_decoder(type_)


def encoding(type_: object) -> Callable[[Any], Term]:
    """Return the function that writes values of a type, or of any class when the type is not known."""
    if type_ is None or isinstance(type_, gleam.Decoder):
        return gleam.encode
    return gleam.encoder(typing.cast(type, type_)).encode


# --- envelopes -----------------------------------------------------------------------------------------


def payload(event: Any, encode: Callable[[Any], Term] = gleam.encode) -> Term:
    """Write an event before it is committed: what cannot be sent is not to be stored either.

    Raises:
        EventEncodeError: it is no Gleam value, or not of the type.
    """
    try:
        return etf.normalise(encode(event))  # a field of type `Term` may hold what is none
    except (GleamError, EncodeError) as error:
        cause = f" ({error.__cause__})" if isinstance(error.__cause__, ValueError) else ""
        text = f"{type(event).__name__} is not writable as a Gleam value: {error}{cause}"
        raise EventEncodeError(text, value=event) from error


def envelope_term(envelope: EventEnvelope[Any], encode: Callable[[Any], Term] = gleam.encode) -> Term:
    """Write an envelope.

    Raises:
        GleamError: the event is no Gleam value.
    """
    return enveloped(envelope, encode(envelope.payload))


def enveloped(envelope: EventEnvelope[Any], payload: Term) -> Term:
    """Write an envelope whose event is written already."""
    head = (envelope.aggregate_id.encode(), envelope.sequence, payload)
    pairs: list[Term] = [(key.encode(), value.encode()) for key, value in envelope.metadata]
    if isinstance(envelope, MemoryStoreEventEnvelop):
        return (MEMORY, *head, pairs)
    names = (envelope.event_type, envelope.event_version, envelope.aggregate_type)
    return (SERIALIZED, *head, pairs, *(name.encode() for name in names))


def read_envelope(term: Term, decode: Callable[[Term], Any] = untyped) -> EventEnvelope[Any]:
    """Read an envelope of either kind.

    Raises:
        DecodeErrors: it is none, or its event does not decode.
    """
    match term:
        case (Atom("memory_store_event_envelop"), bytes() as id, int() as seq, event, list() as pairs):
            return MemoryStoreEventEnvelop(text(id), seq, decode(event), read_metadata(pairs))
        case (
            Atom("serialized_event_envelop"),
            bytes() as id,
            int() as seq,
            event,
            list() as pairs,
            bytes() as event_type,
            bytes() as version,
            bytes() as aggregate_type,
        ):
            return SerializedEventEnvelop(
                text(id),
                seq,
                decode(event),
                read_metadata(pairs),
                text(event_type),
                text(version),
                text(aggregate_type),
            )
    raise misfit("an event envelope", term)


def read_metadata(pairs: Term) -> Metadata:
    """Read metadata pairs.

    Raises:
        DecodeErrors: something else is among them.
    """
    if not isinstance(pairs, list):
        raise misfit("a list of pairs", pairs)
    read: Metadata = []
    for pair in pairs:
        match pair:
            case (bytes() as key, bytes() as value):
                read.append((text(key), text(value)))
            case _:
                raise misfit("a pair of strings", pair)
    return read


def metadata_term(pairs: Iterable[tuple[str, str]]) -> list[Term]:
    """Write metadata pairs.

    Raises:
        TypeError: something else is among them.
        EventEncodeError: a string has a lone surrogate.
    """
    return [(string(key, "metadata"), string(value, "metadata")) for key, value in metadata_pairs(pairs)]


def string(text: str, what: str) -> bytes:
    """Write a string.

    Raises:
        EventEncodeError: it is none, or not writable in UTF-8.
    """
    if not isinstance(text, str):
        raise EventEncodeError(f"{what} has to be a string, got {text!r}", value=text)
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise EventEncodeError(f"{what} {text!r} has a lone surrogate", value=text) from None


def execute_term(
    kind: Atom,
    aggregate_id: str,
    command: Term,
    metadata: Iterable[tuple[str, str]],
    *,
    expected: int | None = None,
    position: bool = False,
    final: bool = False,
) -> tuple[Term, ...]:
    """Write the request for a command; options, a map, are a fifth element that Gleam's actors do not know.

    Raises:
        TypeError, EventEncodeError: the metadata is no pairs of strings, or the id no string.
    """
    request = (kind, string(aggregate_id, "aggregate id"), command, metadata_term(metadata))
    options: dict[Term, Term] = {}
    if expected is not None:
        options[EXPECTED] = expected
    if position:
        options[POSITION] = True
    if final:
        options[FINAL] = True
    return (*request, options) if options else request


@attrs.frozen
class CommandOptions:
    """How a command is to be carried out; see `es.Service.execute`."""

    expected: int | None = None
    position: bool = False
    final: bool = False


def read_options(options: Term) -> CommandOptions:
    """Read the options of a command.

    Raises:
        DecodeErrors: there are others, or these are of another type.
    """
    if not isinstance(options, dict) or not options.keys() <= {EXPECTED, POSITION, FINAL}:
        raise misfit("the options of a command", options)
    expected = options.get(EXPECTED)
    position, final = options.get(POSITION, False), options.get(FINAL, False)
    flags = isinstance(position, bool) and isinstance(final, bool)
    if not flags or not (expected is None or type(expected) is int):
        raise misfit("the options of a command", options)
    return CommandOptions(expected, position, final)


def process_events_term(
    message: ProcessEvents[Any], encode: Callable[[Any], Term] = gleam.encode
) -> tuple[Term, ...]:
    """Write what a query process receives: ``{process_events, Id, [Envelope]}``."""
    return committed_term(message, [encode(envelope.payload) for envelope in message.events])


def committed_term(message: ProcessEvents[Any], payloads: Iterable[Term]) -> tuple[Term, ...]:
    """Write what a query process receives, of events that are written already."""
    envelopes = [enveloped(envelope, term) for envelope, term in zip(message.events, payloads, strict=True)]
    return (PROCESS_EVENTS, message.aggregate_id.encode(), envelopes)


def read_process_events(term: Term, decode: Callable[[Term], Any] = untyped) -> ProcessEvents[Any]:
    """Read what a query process receives.

    Raises:
        DecodeErrors: it is something else, or an event does not decode.
    """
    match term:
        case (Atom("process_events"), bytes() as id, list() as envelopes):
            return ProcessEvents(text(id), [read_envelope(each, decode) for each in envelopes])
    raise misfit("{process_events, Id, Envelopes}", term)


def text(value: Term) -> str:
    """Read a string.

    Raises:
        DecodeErrors: it is no binary, or not in UTF-8.
    """
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            pass
    raise misfit("a string", value)


def misfit(expected: str, found: Term) -> DecodeErrors:
    """Make the error for a term that is not what it should be; says only what kind of term it is."""
    kind = f"a {type(found).__name__}"
    if isinstance(found, tuple):
        kind = f"a tuple of {len(found)}"
        if found and isinstance(found[0], Atom):
            kind += f" tagged {found[0].name}"
    return DecodeErrors([DecodeError(expected, kind, ())])


# --- answers -------------------------------------------------------------------------------------------


def aggregate_term(aggregate: Aggregate[Any], encode: Callable[[Any], Term]) -> Term:
    """Write ``{aggregate, Id, Entity, Sequence}``."""
    return (
        Atom("aggregate"),
        aggregate.aggregate_id.encode(),
        encode(aggregate.entity),
        aggregate.sequence,
    )


def read_aggregate(term: Term, decode: Callable[[Term], Any] = untyped) -> Aggregate[Any]:
    """Read an aggregate."""
    match term:
        case (Atom("aggregate"), bytes() as id, entity, int() as sequence):
            return Aggregate(text(id), decode(entity), sequence)
    raise misfit("an aggregate", term)


def snapshot_term(snapshot: Snapshot[Any] | None, encode: Callable[[Any], Term]) -> Term:
    """Write an option of ``{snapshot, Id, Entity, Sequence, {timestamp, Seconds, Nanoseconds}}``."""
    if snapshot is None:
        return NONE
    moment = (Atom("timestamp"), snapshot.timestamp, 0)
    id = snapshot.aggregate_id.encode()
    return (SOME, (Atom("snapshot"), id, encode(snapshot.entity), snapshot.sequence, moment))


def read_snapshot(term: Term, decode: Callable[[Term], Any] = untyped) -> Snapshot[Any] | None:
    """Read an option of a snapshot."""
    match term:
        case Atom("none"):
            return None
        case (
            Atom("some"),
            (
                Atom("snapshot"),
                bytes() as id,
                entity,
                int() as sequence,
                (Atom("timestamp"), int() as seconds, int()),
            ),
        ):
            return Snapshot(text(id), decode(entity), sequence, seconds)
    raise misfit("a snapshot", term)


def system_stats_term(stats: SystemStats) -> Term:
    """Write ``{system_stats, QueryActors, Commands}``."""
    return (Atom("system_stats"), stats.query_actors_count, stats.total_commands_processed)


def read_system_stats(term: Term) -> SystemStats:
    """Read what ``get_system_stats`` answers."""
    match term:
        case (Atom("system_stats"), int() as queries, int() as commands):
            return SystemStats(queries, commands)
    raise misfit("system stats", term)


def aggregate_stats_term(stats: AggregateStats) -> Term:
    """Write ``{aggregate_stats, Id, Events, Sequence, HasSnapshot}``."""
    return (
        Atom("aggregate_stats"),
        stats.aggregate_id.encode(),
        stats.event_count,
        stats.current_sequence,
        stats.has_snapshot,
    )


def read_aggregate_stats(term: Term) -> AggregateStats:
    """Read what ``get_aggregate_stats`` answers."""
    match term:
        case (
            Atom("aggregate_stats"),
            bytes() as id,
            int() as events,
            int() as sequence,
            bool() as snapshot,
        ):
            return AggregateStats(text(id), events, sequence, snapshot)
    raise misfit("aggregate stats", term)


# --- errors --------------------------------------------------------------------------------------------


def error_term(error: BaseException, *, for_gleam: bool = False) -> Term:
    """Write an error as Gleam's ``EventSourcingError``; our own callers get more detail in two cases."""
    match error:
        case DomainError():
            return (Atom("domain_error"), _any_value(error.error))
        case EntityNotFound():
            return Atom("entity_not_found")
        case NonPositiveArgument():
            return Atom("non_positive_argument")
        case ActorTimeout():
            return (Atom("actor_timeout"), error.operation.encode(), error.timeout_ms)
        case VersionConflict() if not for_gleam:
            actual = NONE if error.actual is None else error.actual
            return (Atom("version_conflict"), error.aggregate_id.encode(), error.expected, actual)
        case StoreUnavailable() if not for_gleam:
            return (Atom("store_unavailable"), _text(error.text), error.outcome_unknown)
        case TransactionFailed():
            return Atom("transaction_failed")
        case TransactionRolledBack():
            return Atom("transaction_rolled_back")
        case EventStoreError():
            return (Atom("event_store_error"), _text(error.text))
    return (Atom("event_store_error"), f"{type(error).__name__}: ".encode() + _text(error)[:2000])


def _any_value(value: object) -> Term:
    try:
        return etf.normalise(gleam.encode(value))
    except (GleamError, EncodeError):
        return _text(value, repr)


def _text(value: object, show: Callable[[object], str] = str) -> bytes:
    """Show a value whatever it is: its ``__str__`` may raise, its text may hold what UTF-8 does not."""
    try:
        return show(value).encode(errors="backslashreplace")
    except Exception as error:
        return f"({type(value).__name__}, whose text raises {type(error).__name__})".encode()


def read_error(
    term: Term, decode: Callable[[Term], Any] = untyped, *, aggregate_id: str = ""
) -> EventSourcingError:
    """Read an error. A domain error's value that does not decode stays a term (strings become ``str``)."""
    match term:
        case (Atom("domain_error"), value):
            return DomainError(_domain_value(value, decode))
        case Atom("entity_not_found"):
            return EntityNotFound(aggregate_id)
        case Atom("non_positive_argument"):
            return NonPositiveArgument("a number has to be 1 or more")
        case Atom("transaction_failed"):
            return TransactionFailed("the transaction failed")
        case Atom("transaction_rolled_back"):
            return TransactionRolledBack("the transaction was rolled back")
        case (Atom("actor_timeout"), bytes() as operation, int() as timeout_ms):
            return ActorTimeout(text(operation), timeout_ms)
        case (Atom("version_conflict"), bytes() as id, int() as expected, actual):
            return VersionConflict(text(id), expected, actual if isinstance(actual, int) else None)
        case (Atom("store_unavailable"), bytes() as why, bool() as unknown):
            return StoreUnavailable(text(why), outcome_unknown=unknown)
        case (Atom("event_store_error"), bytes() as why):
            return EventStoreError(text(why))
    raise misfit("an error of the event sourcing library", term)


def _domain_value(term: Term, decode: Callable[[Term], Any]) -> object:
    if decode is not untyped:
        try:
            return decode(term)
        except DecodeErrors:
            return term
    if isinstance(term, bytes):
        try:
            return term.decode()
        except UnicodeDecodeError:
            return term
    return term


@attrs.frozen
class Types:
    """How the values of one aggregate type travel.

    Attributes:
        command: reads a command.
        event: reads an event.
        write_event: writes an event.
    """

    command: Callable[[Term], Any]
    event: Callable[[Term], Any]
    write_event: Callable[[Any], Term]

    @classmethod
    def of(
        cls,
        handle: Callable[..., Any],
        apply: Callable[..., Any],
        *,
        commands: object = None,
        events: object = None,
    ) -> Types:
        """Derive the types from the annotations of ``handle`` and ``apply`` where they are not given."""
        commands = commands if commands is not None else parameter_type(handle, 1)
        events = events if events is not None else parameter_type(apply, 1)
        return cls(decoding(commands), event_decoding(events), encoding(events))


def state_type(apply: Callable[..., Any], empty_state: object) -> object:
    """Return the type of an aggregate's state, if it can travel; None leaves it a term."""
    state = parameter_type(apply, 0)
    if state is None and empty_state is not None:
        state = type(empty_state)
    try:
        decoding(state)
    except GleamError:
        return None
    return state


def parameter_type(function: Callable[..., Any], index: int) -> object:
    """Return the annotation of a function's parameter; None where there is none, or nothing useful."""
    try:
        hints = typing.get_type_hints(function)
        name = list(inspect.signature(function).parameters)[index]
    except (NameError, TypeError, ValueError, IndexError):
        return None
    found = hints.get(name)
    return None if found is Any or found is object else found
