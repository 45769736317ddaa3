"""Events <-> rows of the ``event`` and ``snapshot`` tables. No I/O.

The columns are those of ``eventsourcing_postgres`` 5.1 and ``eventsourcing_sqlite`` 3.1; ``event_type`` and
``event_version`` are constants of a store there, not the event's own name.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from types import NoneType
from typing import Any, Generic, TypeVar

import attrs

from pyglyn.errors import EventDecodeError, EventEncodeError, EventStoreError
from pyglyn.eventsourcing.domain.envelope import Metadata, SerializedEventEnvelop, metadata_pairs
from pyglyn.eventsourcing.domain.evolution import evolution_of, version_number
from pyglyn.eventsourcing.domain.snapshot import Snapshot
from pyglyn.eventsourcing.stores.json.codec import JsonCodec, JsonStyle
from pyglyn.eventsourcing.stores.json.plans import ENVELOPE, EVENT
from pyglyn.eventsourcing.stores.json.plans import c as in_c
from pyglyn.eventsourcing.stores.json.text import dump_metadata, load_metadata
from pyglyn.eventsourcing.stores.packed import Packed
from pyglyn.eventsourcing.stores.store import RecordedEvent

E = TypeVar("E")
S = TypeVar("S")

logger = logging.getLogger("pyglyn.eventsourcing")


@attrs.define  # not frozen: one per row read, and a frozen one takes twice as long to make
class EventRow:
    """One row of ``event``, in the order of its columns.

    SQLite lets other programs put anything there, bytes included; `RowCodec` reports such rows as broken.
    """

    aggregate_type: str
    aggregate_id: str
    sequence: int
    event_type: str
    event_version: str
    payload: str
    metadata: str | None


@attrs.define
class PositionedRow:
    """A row with what the side table knows of it; ``recorded_at`` in milliseconds since 1970."""

    position: int
    recorded_at: int | None
    event: EventRow


@attrs.frozen
class Usual:
    """What most events of a log have in common. A reader by position may leave it out of its rows."""

    aggregate_type: str | None = None
    event_type: str | None = None
    event_version: str | None = None
    metadata: str | None = None


NOTHING_USUAL = Usual()


@attrs.frozen
class SnapshotRow:
    """One row of ``snapshot``, in the order of its columns."""

    aggregate_type: str
    aggregate_id: str
    sequence: int
    entity: str
    timestamp: int


class RowCodec(Generic[E, S]):
    """Writes and reads the rows of one store object."""

    def __init__(
        self,
        *,
        aggregate_type: str | None,
        events: object = None,
        state: object = None,
        event_type: str | None = None,
        event_version: str = "1.0",
        style: JsonStyle | None = None,
    ) -> None:
        """Prepare the codecs.

        Args:
            aggregate_type: constant of the store; None for one that only reads.
            events: the union (or class) of events; None reads and writes plain JSON values.
            state: the class (or union) of the entity, for snapshots; None for plain JSON values.
            event_type: constant of the store; ``<aggregate_type>Event`` when not given.
            event_version: constant of the store.
            style: how the JSON is spelled.
        """
        self._recipe: Callable[[], RowCodec[E, S]] = partial(
            RowCodec,
            aggregate_type=aggregate_type,
            events=events,
            state=state,
            event_type=event_type,
            event_version=event_version,
            style=style,
        )
        self.aggregate_type = aggregate_type
        self.event_type = event_type if event_type is not None else f"{aggregate_type}Event"
        self.event_version = event_version
        self._events: JsonCodec[E] = JsonCodec(events, style, tagged=True)
        self._states: JsonCodec[S] = JsonCodec(state, style, exact=True)

    def __reduce__(self) -> tuple[Callable[[], RowCodec[E, S]], tuple[()]]:
        return self._recipe, ()

    def key(self, aggregate_id: str) -> tuple[str, str]:
        """Return what an aggregate's rows are found by.

        Raises:
            EventStoreError: the store was opened without a type, or no database can store the id.
        """
        return self.writable_type(), storable_text(aggregate_id, "aggregate id")

    def check(self, events: Sequence[E], snapshot: Snapshot[S] | None) -> None:
        """Check that events and a snapshot can be written.

        Raises:
            EventEncodeError: one cannot.
        """
        for event in events:
            self._events.encode(event)
        if snapshot is not None:
            self._states.encode(snapshot.entity)

    def names_of(self, types: Iterable[type | str] | None) -> frozenset[str] | None:
        """Return the tags under which events of some types may be stored; None for all types."""
        return None if types is None else self._events.names_of(tuple(types))

    @property
    def tag_key(self) -> str:
        """The key of the tag in the JSON of an event."""
        return self._events.style.tag_key

    def check_state(self, entity: S) -> None:
        """Check that an entity can be written and read as a snapshot.

        Raises:
            EventStoreError: it cannot.
        """
        try:
            read = self._states.decode(self._states.encode(entity))
        except (EventEncodeError, EventDecodeError) as error:
            raise EventStoreError(f"no snapshots of {type(entity).__name__}: {error.text}") from error
        if read != entity:
            raise EventStoreError(f"no snapshots of {type(entity).__name__}: it is read back as {read!r}")

    def writable_type(self) -> str:
        """Return the aggregate type to write under.

        Raises:
            EventStoreError: the store was opened without one.
        """
        if self.aggregate_type is None:
            raise EventStoreError("this store was opened without an aggregate_type, so it only reads")
        return self.aggregate_type

    def envelopes(
        self, aggregate_id: str, events: Sequence[E], expected: int, metadata: Iterable[tuple[str, str]]
    ) -> list[SerializedEventEnvelop[E]]:
        """Number new events."""
        aggregate_type = self.writable_type()
        pairs = metadata_pairs(metadata)
        return [
            SerializedEventEnvelop(
                aggregate_id,
                sequence,
                event,
                list(pairs),
                self.event_type,
                self._version_of(event),
                aggregate_type,
            )
            for sequence, event in enumerate(events, expected + 1)
        ]

    def _version_of(self, event: E) -> str:
        version = evolution_of(type(event)).version
        return self.event_version if version == 1 else str(version)

    def rows(self, envelopes: list[SerializedEventEnvelop[E]]) -> list[EventRow]:
        """Write envelopes as rows.

        Raises:
            EventEncodeError: an event is not of the type.
        """
        metadata = dump_metadata(envelopes[0].metadata) if envelopes else "[]"
        return [
            EventRow(
                envelope.aggregate_type,
                storable_text(envelope.aggregate_id, "aggregate id"),
                envelope.sequence,
                envelope.event_type,
                envelope.event_version,
                self._events.encode(envelope.payload),
                metadata,
            )
            for envelope in envelopes
        ]

    def read_event(self, payload: str | bytes, version: str) -> E:
        """Read a payload that was stored under a version.

        Raises:
            EventDecodeError: it does not decode.
        """
        if isinstance(payload, bytes):
            raise EventDecodeError(["payload is no text in UTF-8"], payload=shown(payload))
        try:
            return self._events.decode(payload, version_number(version))
        except EventDecodeError:
            raise
        except Exception as error:  # a codec of the application's own
            raise EventDecodeError([f"{type(error).__name__}: {error}"], payload=payload) from error

    def envelope(self, row: EventRow) -> SerializedEventEnvelop[E]:
        """Read a row.

        Raises:
            EventDecodeError: payload or metadata does not decode, or a column is not what it should be.
        """
        faults = _faults(row)
        if faults:
            raise _broken(row, faults)
        try:
            payload = self._events.decode(row.payload, version_number(row.event_version))
            metadata = load_metadata(row.metadata)
        except EventDecodeError as error:
            raise _broken(row, error.errors) from error
        except Exception as error:  # a codec of the application's own
            raise _broken(row, [f"{type(error).__name__}: {error}"]) from error
        return SerializedEventEnvelop(
            row.aggregate_id,
            row.sequence,
            payload,
            metadata,
            row.event_type,
            row.event_version,
            row.aggregate_type,
        )

    def event_rows(self, rows: Iterable[tuple[Any, ...]]) -> list[SerializedEventEnvelop[E]]:
        """Read rows of ``event``, all columns in order.

        Raises:
            EventDecodeError: as `envelope`.
        """
        read, common = self._events.quick_reader(), _Common(NOTHING_USUAL)
        found, known = list[SerializedEventEnvelop[E]](), common.known
        for row in rows:
            type_, id, sequence, event_type, version, payload, text = row
            try:
                if not (type(payload) is str and type(id) is str and type(sequence) is int):
                    raise TypeError
                key = type_, event_type, version, text
                of, kind, written, pairs, number = known[key] if key in known else common.read(*key)
                value = read(payload, number)
            except Exception:  # the long way, which says what is wrong
                envelope = self.envelope(EventRow(*row))
            else:
                envelope = SerializedEventEnvelop(id, sequence, value, pairs.copy(), kind, written, of)
            found.append(envelope)
        return found

    def recorded_rows(
        self, rows: Iterable[tuple[Any, ...]], usual: Usual = NOTHING_USUAL, gaps: list[int] | None = None
    ) -> list[RecordedEvent[E]]:
        """Read rows for a reader by position: position, time in ms, the columns of ``event``.

        Args:
            rows: they may come one by one.
            usual: what is meant by None in a column that it has.
            gaps: gets the positions whose event was deleted by hand (NULL for its id).
        """
        if isinstance(rows, Packed) and self._events.in_c is not None:
            return self._recorded_columns(rows)
        read, common = self._events.quick_reader(), _Common(usual)
        found, known = list[RecordedEvent[E]](), common.known
        keep = found.append
        for position, at, type_, id, sequence, event_type, version, payload, text in rows:
            if id is None:
                if gaps is not None:
                    gaps.append(position)
                continue
            try:
                if not (type(payload) is str and type(id) is str and type(sequence) is int):
                    raise TypeError
                key = type_, event_type, version, text
                of, kind, written, pairs, number = known[key] if key in known else common.read(*key)
                value = read(payload, number)
            except Exception:  # the long way, which says what is wrong
                row = common.row(type_, id, sequence, event_type, version, payload, text)
                keep(self.recorded(PositionedRow(position, at, row)))
            else:
                envelope = SerializedEventEnvelop(id, sequence, value, pairs.copy(), kind, written, of)
                moment = None if at is None else at / 1000
                keep(RecordedEvent(position, id, sequence, envelope, None, moment, payload))
        return found

    def _recorded_columns(self, rows: Packed) -> list[RecordedEvent[E]]:
        """Read rows that are there by columns; none is missing."""
        times, types, ids, sequences, event_types, versions, payloads, metadata = map(list, rows.others)
        common = _Common(NOTHING_USUAL)
        known = common.of_columns(types, event_types, versions, metadata)
        found: list[RecordedEvent[E]]
        found, misfits = in_c.events_of(
            self._events.in_c, ENVELOPE, EVENT, known, rows.positions, times, ids, sequences, payloads
        )
        for place in misfits:  # the long way, which says what is wrong, or reads what is rare
            of_row = types[place], ids[place], sequences[place], event_types[place], versions[place]
            row = EventRow(*of_row, payloads[place], metadata[place])
            found[place] = self.recorded(PositionedRow(rows.positions[place], times[place], row))
        return found

    def usual(self, event: RecordedEvent[E]) -> Usual:
        """Return what an event has that the next ones may have as well."""
        envelope = event.envelope
        if not isinstance(envelope, SerializedEventEnvelop):
            return NOTHING_USUAL
        try:
            metadata = dump_metadata(envelope.metadata)
        except EventEncodeError:  # what JSON can escape and no text has
            metadata = None
        return Usual(envelope.aggregate_type, envelope.event_type, envelope.event_version, metadata)

    def recorded(self, row: PositionedRow) -> RecordedEvent[E]:
        """Read a row for a reader by position, its error included."""
        envelope: SerializedEventEnvelop[E] | None = None
        fault: EventDecodeError | None = None
        try:
            envelope = self.envelope(row.event)
        except EventDecodeError as error:
            fault = error
        sequence = row.event.sequence
        return RecordedEvent(
            position=row.position,
            aggregate_id=shown_id(row.event.aggregate_id),
            sequence=sequence if type(sequence) is int else -row.position,  # a key no other event has
            envelope=envelope,
            error=fault,
            recorded_at=None if row.recorded_at is None else row.recorded_at / 1000,
            raw=row.event.payload if isinstance(row.event.payload, str | bytes) else repr(row.event.payload),
        )

    def snapshot_row(self, snapshot: Snapshot[S]) -> SnapshotRow:
        """Write a snapshot as a row.

        Raises:
            EventEncodeError: the entity is not of the type.
        """
        return SnapshotRow(
            self.writable_type(),
            snapshot.aggregate_id,
            snapshot.sequence,
            self._states.encode(snapshot.entity),
            snapshot.timestamp,
        )

    def snapshot(self, row: SnapshotRow) -> Snapshot[S]:
        """Read a snapshot.

        Raises:
            EventDecodeError: the entity does not decode.
        """
        try:
            if type(row.entity) is not str or type(row.sequence) is not int:
                raise TypeError("entity and sequence have to be text and a number")
            entity = self._states.decode(row.entity)
        except Exception as error:
            raise EventDecodeError(
                error.errors if isinstance(error, EventDecodeError) else [f"{type(error).__name__}: {error}"],
                payload=shown(row.entity),
                aggregate_id=row.aggregate_id,
                sequence=row.sequence,
                what="snapshot",
            ) from error
        return Snapshot(row.aggregate_id, entity, row.sequence, row.timestamp)

    def usable_snapshot(self, row: SnapshotRow | None) -> Snapshot[S] | None:
        """Read a snapshot as a short cut: one that does not decode is logged and does without."""
        if row is None:
            return None
        try:
            return self.snapshot(row)
        except EventDecodeError as error:
            logger.warning("%s; all events are applied instead", error)
            return None


class _Common:
    """What rows have in common, read once; of the version its number as well."""

    def __init__(self, usual: Usual) -> None:
        self._usual = usual
        self.known: dict[Any, tuple[str, str, str, Metadata, int]] = {}

    def read(self, *key: Any) -> tuple[str, str, str, Metadata, int]:
        """Read what is not known yet; raises at what is not as it should be."""
        type_, event_type, version, metadata = key
        row = self.row(type_, "", 0, event_type, version, "", metadata)
        if _faults(row):
            raise TypeError
        pairs, number = load_metadata(row.metadata), version_number(row.event_version)
        found = row.aggregate_type, row.event_type, row.event_version, pairs, number
        self.known[key] = found
        return found

    def of_columns(self, *columns: list[Any]) -> list[Any]:
        """Return what each row has in common with others; None where something is not as it should be."""
        if all(column.count(column[0]) == len(column) for column in columns if column):
            keys = set(zip(*(column[:1] for column in columns), strict=True))
        else:
            keys = set(zip(*columns, strict=True))
        for key in keys:
            with contextlib.suppress(Exception):
                self.read(*key)
        if len(keys) == 1:
            return [self.known.get(*keys)] * len(columns[0])
        return list(map(self.known.get, zip(*columns, strict=True)))

    def row(
        self, type_: Any, id: Any, sequence: Any, event_type: Any, version: Any, payload: Any, metadata: Any
    ) -> EventRow:
        """Return a row that has everything."""
        usual: Any = self._usual
        return EventRow(
            usual.aggregate_type if type_ is None else type_,
            id,
            sequence,
            usual.event_type if event_type is None else event_type,
            usual.event_version if version is None else version,
            payload,
            usual.metadata if metadata is None else metadata,
        )


_TEXTS = ("aggregate_type", "aggregate_id", "event_type", "event_version", "payload")


def _faults(row: EventRow) -> list[str]:
    """Say which columns are not of the kind the Gleam stores have there; usually none."""
    if (
        type(row.payload) is str
        and type(row.aggregate_id) is str
        and type(row.sequence) is int
        and type(row.metadata) in (str, NoneType)
        and type(row.aggregate_type) is str
        and type(row.event_type) is str
        and type(row.event_version) is str
    ):
        return []
    faults = [f"{name} is no text in UTF-8" for name in _TEXTS if type(getattr(row, name)) is not str]
    if type(row.metadata) not in (str, NoneType):
        faults.append("metadata is no text in UTF-8")
    if type(row.sequence) is not int:
        faults.append(f"sequence is no whole number but {row.sequence!r}")
    return faults


def _broken(row: EventRow, errors: list[str]) -> EventDecodeError:
    return EventDecodeError(
        errors,
        payload=shown(row.payload),
        aggregate_id=shown_id(row.aggregate_id),
        sequence=row.sequence,
    )


def shown(value: object) -> str:
    """Return a column as text, whatever is in it."""
    if isinstance(value, bytes):
        return value.decode(errors="backslashreplace")
    return value if isinstance(value, str) else repr(value)


def shown_id(id: object) -> str:
    """Return an aggregate's id; one that is no text looks like none that is: ``b'abc'``."""
    return id if isinstance(id, str) else repr(id)


def storable_number(number: int, what: str) -> int:
    """Check that a number fits the 64 bits of a database's column.

    Raises:
        EventEncodeError: it does not.
    """
    if type(number) is not int or not -(2**63) <= number < 2**63:
        raise EventEncodeError(f"{what} has to be an integer of 64 bits, got {number!r}", value=number)
    return number


def shown_text(text: str) -> str:
    """Write characters that databases cannot store in another way."""
    return text.replace("\0", "\\0").encode(errors="backslashreplace").decode()


def storable_text(text: str, what: str, *, nul: bool = False) -> str:
    """Check that a string can be a key in any database: Unicode, without a NUL character unless ``nul``.

    Raises:
        EventEncodeError: it cannot.
    """
    if not isinstance(text, str):
        raise EventEncodeError(f"{what} has to be a string, got {text!r}", value=text)
    if ("\0" in text and not nul) or not (text.isascii() or _is_unicode(text)):
        raise EventEncodeError(f"{what} {text!r} has a character that databases cannot store", value=text)
    return text


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
